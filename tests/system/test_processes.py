"""Which process is which, with real processes that really end."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from interrupting import is_running, wait_for

from repro_lib.system.processes import ProcessId, control_group, describe_exit, exit_signal, kill_group, usable_cores

SAY_WHO = "from repro_lib.system.processes import ProcessId; print(ProcessId.here(), flush=True); input()"


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", SAY_WHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def said(process: subprocess.Popen[str]) -> ProcessId:
    assert process.stdout is not None
    found = ProcessId.find(process.stdout.readline())
    assert found is not None
    return found


def test_a_process_is_there_until_it_ends_even_if_nobody_has_asked_how(child: subprocess.Popen[str]) -> None:
    process = said(child)
    assert process.pid == child.pid
    assert process.is_gone() is False
    assert replace(process, started="1").is_gone() is True, "another process of the same number"
    assert replace(process, machine="00000000").is_gone() is None, "of another machine nothing is known"
    assert ProcessId.here().is_gone() is False
    child.send_signal(signal.SIGKILL)
    wait_for(process.is_gone, 10)
    # It is a zombie now: its number is still taken.
    os.kill(child.pid, 0)
    assert process.is_gone() is True
    child.wait()
    assert process.is_gone() is True


def test_a_process_is_found_in_the_name_of_its_file() -> None:
    process = ProcessId.here()
    assert ProcessId.find(f".tinylstm-relu-20250101_000000.json.{process}.x7_ab1.tmp") == process
    assert ProcessId.find(f"repro-{process}-abcdef12") == process
    for name in ("", ".charlm-relu.json.abcd.tmp", "repro-workers-x", "abcdef12-0-1"):
        assert ProcessId.find(name) is None


@pytest.mark.parametrize(
    ("code", "number", "words"),
    [
        (-9, 9, "was killed by signal SIGKILL"),
        (143, 15, "was killed by signal SIGTERM"),
        (-34, 34, "was killed by signal"),
        (3, None, "ended with exit code 3"),
        (None, None, "ended with exit code None"),
    ],
)
def test_how_a_process_ended_in_words(code: int | None, number: int | None, words: str) -> None:
    assert exit_signal(code) == number
    assert describe_exit(code).startswith(words)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this")
def test_a_process_dies_with_the_parent_that_it_was_told_of() -> None:
    grandchild = "import os, time; from repro_lib.system.processes import die_with; die_with(os.getppid())"
    grandchild += "; print('ready', flush=True); time.sleep(60)"
    script = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {grandchild!r}], stdout=subprocess.PIPE)\n"
    script += "p.stdout.readline(); print(p.pid, flush=True); input()"
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.kill(pid, 0)
    parent.kill()
    parent.communicate()
    wait_for(lambda: not is_running(pid), 10)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this")
def test_a_process_whose_parent_is_gone_already_dies_at_once() -> None:
    script = "from repro_lib.system.processes import die_with; die_with(1 << 22); print('alive')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-9, "")


def test_a_group_is_ended_as_a_whole_and_one_that_is_not_there_is_no_error() -> None:
    leader = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True)
    assert leader.stdout is not None
    member = int(leader.stdout.readline())
    kill_group(leader.pid)
    leader.communicate()
    assert leader.returncode == -9
    wait_for(lambda: not is_running(member), 10)
    kill_group(leader.pid)


@pytest.mark.parametrize(
    ("files", "own", "said"),
    [
        ({"cpu.max": "150000 100000"}, "0::/\n", 2),
        ({"cpu.max": "max 100000", "a/cpu.max": "max 100000", "a/b/cpu.max": "50000 100000"}, "0::/a/b\n", 1),
        ({"cpu/cpu.cfs_quota_us": "100000"}, "4:cpu:/docker/x\n", 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu.max": "max 100000"}, "0::/not there\n", 64),
    ],
)
def test_the_cores_of_a_container_count_and_not_those_of_its_machine(
    files: dict[str, str], own: str, said: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text + "\n")
    (tmp_path / "own").write_text(own)
    read = partial(control_group, root=tmp_path / "root", own=tmp_path / "own")
    monkeypatch.setattr("repro_lib.system.processes.control_group", read)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64))
    assert usable_cores() == said
