"""Folders that several users share, and stores that can only be read: what is in the way of somebody else is passed by."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from repro_lib import Config, run_experiment
from repro_lib.cli.main import main
from repro_lib.system.leases import LeaseHeldError, cell_lease, hold, holder
from repro_lib.system.processes import ProcessId

NOBODY = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user for a while")


@contextlib.contextmanager
def another_user() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def everybodys() -> Iterator[Path]:
    """A folder in which all users write, and each removes their own files alone. Those of pytest are its user's."""
    with tempfile.TemporaryDirectory(prefix="everybodys-") as name:
        os.chmod(name, 0o1777)
        yield Path(name)


def void_lease(path: Path, mode: int = 0o644) -> bytes:
    """A lease that a killed process of root left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with hold(path, "x"):
        text = path.read_bytes().replace(str(ProcessId.here()).encode(), b"00000000-4711-1f")
    path.write_bytes(text)
    os.utime(path, (0, 0))
    path.chmod(mode)
    return text


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_beside_a_void_lease_that_only_its_user_can_remove_another_is_held(everybodys: Path, mode: int) -> None:
    path = everybodys / "cell.lease"
    text = void_lease(path, mode)
    with another_user():
        assert holder(path) is None
        with hold(path, "y") as lease:
            lease.confirm()
            assert holder(path) == lease.holder
            with pytest.raises(LeaseHeldError), hold(path, "y"):
                pytest.fail("two held it")
            os.seteuid(0)
            # Whoever can remove the void one finds the other all the same.
            with pytest.raises(LeaseHeldError), hold(path, "y"):
                pytest.fail("two held it")
            path.write_bytes(text)
            os.utime(path, (0, 0))
            os.seteuid(NOBODY)
            lease.confirm()
    assert list(everybodys.iterdir()) == [path]


def test_a_finished_cell_of_a_store_that_can_only_be_read_is_returned_whatever_lies_beside_it(
    everybodys: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (everybodys / "own.txt").write_text(corpus_file.read_text())
    results = everybodys / "results"
    config = Config.for_model("charlm", "smoke", corpus=str(everybodys / "own.txt"), max_iters=2, trials=2)
    made = run_experiment("charlm", "relu", config, results_dir=results)
    words = ["--profile", "smoke", "--models", "charlm", "--activations", "relu", "--max_iters", "2", "--trials", "2"]
    words += ["--corpus", config.corpus, "--results-dir", str(results)]
    # Once as root: what is imported is there then, for another user may not read root's Python.
    commands = [["status", *words], ["train", *words]]
    commands += [["process", "--no-plots", "--results-dir", str(results), "--reports-dir", str(everybodys / "reports")]]
    for command in commands:
        assert main(command) == 0, capsys.readouterr()
    for path in [*(results / "pd").iterdir(), *(everybodys / "reports").iterdir()]:
        path.unlink()
    (everybodys / "reports").rmdir()
    void_lease(lease := cell_lease(results, "charlm", "relu", made.config_sha256))
    (results / "checkpoints" / f"{lease.stem}-trial1.json").write_text("left")
    os.utime(results / "checkpoints" / f"{lease.stem}-trial1.json", (0, 0))
    (results / ".x.json.00000000-12-1f.ab.tmp").write_text("left")
    before = sorted(results.rglob("*"))
    with another_user():
        assert run_experiment("charlm", "relu", config, results_dir=results) == made
        for command in commands:
            assert main(command) == 0, capsys.readouterr()
    assert "1 of 1 cell done" in capsys.readouterr().out
    assert sorted(results.rglob("*")) == before


def test_a_cell_is_trained_beside_what_only_another_user_can_remove(everybodys: Path, corpus_file: Path) -> None:
    (everybodys / "own.txt").write_text(corpus_file.read_text())
    results = everybodys / "results"
    config = Config.for_model("charlm", "smoke", corpus=str(everybodys / "own.txt"), max_iters=2)
    for folder in ("", "leases", "checkpoints", "predictions", "weights", "steps", "failed"):
        (results / folder).mkdir()
        (results / folder).chmod(0o1777)
    with another_user():
        made = run_experiment("charlm", "relu", config, results_dir=results)
    void_lease(lease := cell_lease(results, "charlm", "gelu", made.config_sha256), 0o600)
    void_lease(lease.with_name(f"{lease.stem}-trial1.lease"))
    for left in (results / "failed" / f"{lease.stem}.json", results / "leases" / "office.lease"):
        left.write_text("{}")
    with another_user():
        run_experiment("charlm", "gelu", config, results_dir=results)
    assert len(list(results.glob("*.json"))) == 2
    assert len(list((results / "leases").iterdir())) == 3
