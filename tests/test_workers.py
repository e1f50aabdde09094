"""The pool of worker processes, with real processes that really die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from repro_lib.kernels import KernelKilledError
from repro_lib.lease import LeaseHeldError
from repro_lib.workers import Outcome, Pool, Task


def write(path: Path) -> None:
    path.write_text(str(os.getpid()))


def fail(sentence: str) -> None:
    raise ValueError(sentence)


def break_down() -> None:
    raise KeyError("a bug")


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave_quietly() -> None:
    os._exit(3)


def remark() -> str:
    return "cut short"


def find_somebody_at_work() -> None:
    raise LeaseHeldError("process 1 is at work on it")


def lose_a_kernel() -> None:
    raise KernelKilledError("its kernel was killed")


def leave_a_temporary_file(path: Path) -> None:
    handle, name = tempfile.mkstemp()
    os.close(handle)
    child = subprocess.run(
        [sys.executable, "-c", "import tempfile; print(tempfile.gettempdir())"], capture_output=True, text=True
    )
    path.write_text(f"{name}\n{child.stdout}")


def start_a_child_and_sleep(path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    path.write_text(str(child.pid))
    time.sleep(600)


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(workers=2)
    yield pool
    pool.close()


def drain(pool: Pool, seconds: float = 60) -> dict[str, Outcome]:
    outcomes: list[Outcome] = []
    until = time.monotonic() + seconds
    while pool.busy and time.monotonic() < until:
        outcomes += pool.step(timeout=0.2)
    return {outcome.task.key: outcome for outcome in outcomes}


def test_tasks_run_and_workers_are_used_again(pool: Pool, tmp_path: Path) -> None:
    for k in range(6):
        pool.submit(Task(f"t{k}", write, {"path": tmp_path / str(k)}))
    outcomes = drain(pool)
    assert [outcomes[f"t{k}"].end for k in range(6)] == ["done"] * 6
    assert len({(tmp_path / str(k)).read_text() for k in range(6)}) <= 2


def test_an_error_fails_its_task_with_its_sentence_and_nothing_else(pool: Pool, tmp_path: Path) -> None:
    pool.submit(Task("bad", fail, {"sentence": "the corpus is empty"}))
    pool.submit(Task("bug", break_down, {}))
    pool.submit(Task("good", write, {"path": tmp_path / "x"}))
    outcomes = drain(pool)
    assert (outcomes["bad"].end, outcomes["bad"].said) == ("failed", "the corpus is empty")
    assert (outcomes["bug"].end, outcomes["bug"].said) == ("failed", "KeyError: 'a bug'")
    assert (outcomes["good"].end, outcomes["good"].said) == ("done", None)


def test_a_killed_worker_is_reported_as_that_and_replaced(pool: Pool, tmp_path: Path) -> None:
    pool.submit(Task("killed", kill_itself, {}))
    pool.submit(Task("left", leave_quietly, {}))
    for k in range(3):
        pool.submit(Task(f"t{k}", write, {"path": tmp_path / str(k)}))
    outcomes = drain(pool)
    assert outcomes["killed"].end == "killed"
    assert outcomes["killed"].said == "its worker process was killed by signal SIGKILL"
    assert outcomes["left"].end == "failed"
    assert outcomes["left"].said == "its worker process ended with exit code 3"
    assert [outcomes[f"t{k}"].end for k in range(3)] == ["done"] * 3


def test_closing_ends_workers_at_work_and_what_they_started(tmp_path: Path) -> None:
    pool = Pool(workers=1)
    pool.submit(Task("long", start_a_child_and_sleep, {"path": tmp_path / "pid"}))
    until = time.monotonic() + 60
    while not (tmp_path / "pid").exists() and time.monotonic() < until:
        pool.step(timeout=0.1)
    child = int((tmp_path / "pid").read_text())
    workers = [process.pid for process in psutil.Process().children() if is_worker(process)]
    pool.close()
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in [child])
    assert workers
    assert not [pid for pid in workers if psutil.pid_exists(pid) and is_worker(psutil.Process(pid))]


def is_worker(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # or a zombie, which is one of them
        return False


def test_a_task_says_how_it_ended(pool: Pool) -> None:
    for name, function in (("remark", remark), ("held", find_somebody_at_work), ("killed", lose_a_kernel)):
        pool.submit(Task(name, function, {}))
    outcomes = drain(pool)
    assert {name: (outcome.end, outcome.said) for name, outcome in outcomes.items()} == {
        "remark": ("done", "cut short"),
        "held": ("held", "process 1 is at work on it"),
        "killed": ("killed", "its kernel was killed"),
    }


def test_a_task_is_stopped_at_its_limit_with_all_that_it_started_and_the_others_go_on(pool: Pool, tmp_path: Path) -> None:
    pool.submit(Task("late", start_a_child_and_sleep, {"path": tmp_path / "pid"}, limit=5.0))
    pool.submit(Task("good", write, {"path": tmp_path / "x"}, limit=60.0))
    outcomes = drain(pool)
    assert (outcomes["late"].end, outcomes["late"].said) == ("late", "it was stopped at its time limit of 5 s")
    assert 5 <= outcomes["late"].seconds < 15
    assert outcomes["good"].end == "done"
    child = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
    pool.submit(Task("next", write, {"path": tmp_path / "y"}))
    assert drain(pool)["next"].end == "done"


def test_temporary_files_of_a_task_and_of_what_it_starts_lie_in_the_pool_s_folder_and_go_with_it(tmp_path: Path) -> None:
    pool = Pool(workers=1)
    try:
        pool.submit(Task("t", leave_a_temporary_file, {"path": tmp_path / "places"}))
        assert drain(pool)["t"].end == "done"
        mine, of_child = (tmp_path / "places").read_text().split()
        assert Path(mine).is_file()
        assert Path(mine).parent == Path(of_child) == pool.folder / "w1"
    finally:
        pool.close()
    assert not pool.folder.exists()
