"""One writer at a time: with processes that race, die, stand still, and run on machines that cannot be asked."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from interrupting import wait_for

from repro_lib.system import leases
from repro_lib.system.leases import STALE_SECONDS, LeaseHeldError, LeaseLostError, hold, holder, remove_left
from repro_lib.system.processes import ProcessId

# Holds the lease, says so, and waits to be killed.
HOLD = """
import sys; from pathlib import Path; from repro_lib.system.leases import hold
with hold(Path(sys.argv[1]), "x"): print("held", flush=True); input()
"""
# Takes the lease again and again; while it has it, nobody else may have made the file beside it.
RACE = """
import os, sys, time
from pathlib import Path
from repro_lib.system.leases import LeaseHeldError, hold
path, inside, until, taken = Path(sys.argv[1]), sys.argv[2], time.time() + 60, 0
while taken < int(sys.argv[3]) and time.time() < until:
    try:
        with hold(path, "x"):
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            taken += 1
            os.unlink(inside)
            if taken == 5 and sys.argv[4] == "dies":
                os.kill(os.getpid(), 9)
    except LeaseHeldError:
        time.sleep(0.001)
print(taken)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "leases" / "cell.lease"


def start_holder(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def held_elsewhere(path: Path, *, age: float) -> None:
    """A lease of a machine that cannot be asked, stamped ``age`` seconds ago; word for word as earlier versions wrote it."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        '{"token": "ffffffffffffffffffffffffffffffff", "work": "charlm with gelu", "process": "00000000-4711-1f", '
        '"host": "far-away", "since": "2025-01-01 12:00 UTC"}\n'
    )
    os.utime(path, (time.time() - age,) * 2)


def test_a_lease_is_there_while_it_is_held_and_says_by_whom(path: Path) -> None:
    assert holder(path) is None
    with hold(path, "charlm with gelu") as lease:
        lease.confirm()
        found = holder(path)
        assert found == lease.holder
        assert found is not None
        assert found.process == ProcessId.here()
        said = rf"process {os.getpid()} on .+ is at work on charlm with gelu since 20\d\d-.* UTC"
        with pytest.raises(LeaseHeldError, match=said), hold(path, "charlm with gelu"):
            pytest.fail("two held it")
    assert list(path.parent.iterdir()) == []
    assert holder(path) is None
    with pytest.raises(KeyboardInterrupt), hold(path, "x"):
        raise KeyboardInterrupt
    assert list(path.parent.iterdir()) == []


def test_another_process_holds_it_until_it_is_killed_and_then_it_is_free_at_once(path: Path) -> None:
    process = start_holder(path)
    with pytest.raises(LeaseHeldError, match=f"process {process.pid} "), hold(path, "x"):
        pytest.fail("two held it")
    process.kill()
    wait_for(lambda: not holder(path), 10)
    # Nobody has waited for it yet, so its number is still taken; and the file is still there.
    assert path.exists()
    with hold(path, "y") as lease:
        lease.confirm()
    process.communicate()
    assert list(path.parent.iterdir()) == []


def test_a_lease_of_another_machine_is_good_for_five_minutes_after_its_last_stamp(path: Path) -> None:
    held_elsewhere(path, age=STALE_SECONDS - 30)
    said = "process 4711 on far-away is at work on charlm with gelu since 2025-01-01 12:00 UTC"
    with pytest.raises(LeaseHeldError, match=f"^{said}$"), hold(path, "x"):
        pytest.fail("two held it")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: 4e9)  # the folder's clock says how old it is, and no machine's
        assert holder(path) is not None
    held_elsewhere(path, age=STALE_SECONDS + 30)
    assert holder(path) is None
    with hold(path, "x") as lease:
        assert holder(path) == lease.holder
    assert list(path.parent.iterdir()) == []


def test_a_holder_stamps_its_lease(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.05)
    with hold(path, "x"):
        os.utime(path, (0, 0))
        wait_for(lambda: path.stat().st_mtime, 10)


def test_who_stood_still_too_long_is_told_and_does_not_take_it_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.05)
    with hold(path, "charlm with gelu") as lease:
        path.unlink()
        held_elsewhere(path, age=0)
        with pytest.raises(LeaseLostError, match=r"stood still for more than 5 minutes, and process 4711 on far-away"):
            lease.confirm()
        time.sleep(0.2)
    left = holder(path)
    assert left is not None
    assert left.host == "far-away"


@pytest.mark.parametrize("text", ["", "null", '{"token": 3}', '{"process": "x"}', "\udcff", "x" * 100_000, "[" * 9_000, None])
def test_a_lease_that_nobody_understands_is_held_by_somebody_unknown(path: Path, text: str | None) -> None:
    path.parent.mkdir()
    if text is None:
        os.mkfifo(path)  # to be looked at without waiting for somebody to write into it
    else:
        path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(LeaseHeldError, match="on an unknown machine is at work on cell"), hold(path, "x"):
        pytest.fail("two held it")
    os.utime(path, (0, 0))
    remove_left(path.parent)
    assert path.exists(), "who knows whose it is"
    with hold(path, "x"):
        pass


def test_the_void_ones_are_removed_and_no_others(path: Path) -> None:
    process = start_holder(path.with_name("killed.lease"))
    process.kill()
    process.communicate()
    held_elsewhere(path.with_name("old.lease"), age=STALE_SECONDS + 30)
    held_elsewhere(path.with_name("young.lease"), age=0)
    with hold(path, "x"):
        remove_left(path.parent.parent)
        assert {file.name for file in path.parent.iterdir()} == {"cell.lease", "young.lease"}


def test_who_finds_a_lease_void_too_late_leaves_its_successor_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the last look at a void lease and its removal somebody else may have removed it and made their own."""
    held_elsewhere(path, age=STALE_SECONDS + 30)
    rename, successor = os.rename, path.with_name("successor")

    def too_late(source: Path, target: Path) -> None:
        os.replace(successor, source)
        rename(source, target)

    with hold(successor, "x"):
        monkeypatch.setattr(os, "rename", too_late)
        with pytest.raises(LeaseHeldError, match=f"process {os.getpid()} on .* is at work on x since"), hold(path, "y"):
            pytest.fail("two held it")
    assert [file.name for file in path.parent.iterdir()] == ["cell.lease"]


def test_of_many_that_want_it_one_at_a_time_has_it_also_when_holders_are_killed(path: Path, tmp_path: Path) -> None:
    words = [str(path), str(tmp_path / "inside"), "40"]
    racers = [
        subprocess.Popen([sys.executable, "-c", RACE, *words, fate], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for fate in ("lives", "dies", "lives", "dies")
    ]
    ended = [(racer.communicate(timeout=120), racer.returncode) for racer in racers]
    assert [code for _, code in ended] == [0, -9, 0, -9], [error for (_, error), _ in ended]
    assert [output for (output, _), code in ended if code == 0] == ["40\n", "40\n"]
    remove_left(path.parent)
    assert list(path.parent.iterdir()) == []
