"""The pool of worker processes, with real processes that really die."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path

import psutil
import pytest
from interrupting import is_running, wait_for

from repro_lib.grid.fork_server import LOST, ForkServer
from repro_lib.grid.kernels import KernelKilledError
from repro_lib.grid.pool import Outcome, Pool, Task
from repro_lib.grid.worker_process import take_card
from repro_lib.system.leases import LeaseHeldError


def write(path: Path) -> None:
    path.write_text(str(os.getpid()))


def fail(error: Exception) -> None:
    raise error


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave_quietly() -> None:
    print("on its way out", flush=True)
    os._exit(3)


def remark() -> str:
    return "cut short"


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


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """One for all tests here: whatever befell its workers in one of them, it has to do the tasks of the next."""
    with contextlib.closing(Pool(workers=2)) as pool:
        yield pool


def drain(pool: Pool, seconds: float = 60) -> dict[str, Outcome]:
    outcomes: list[Outcome] = []
    until = time.monotonic() + seconds
    while pool.busy and time.monotonic() < until:
        outcomes += pool.step(timeout=0.2)
    return {outcome.task.key: outcome for outcome in outcomes}


def test_a_task_says_how_it_ended(pool: Pool, tmp_path: Path) -> None:
    errors = {"bad": ValueError("the corpus is empty"), "bug": KeyError("a bug")}
    errors |= {"held": LeaseHeldError("process 1 is at work on it"), "kernel": KernelKilledError("its kernel was killed")}
    for name, error in errors.items():
        pool.submit(Task(name, fail, {"error": error}))
    for name, function in {"remark": remark, "killed": kill_itself, "left": leave_quietly}.items():
        pool.submit(Task(name, function, {}))
    for k in range(6):
        pool.submit(Task(f"t{k}", write, {"path": tmp_path / str(k)}))
    assert {name: (outcome.end, outcome.said) for name, outcome in drain(pool).items()} == {
        "bad": ("failed", "the corpus is empty"),
        "bug": ("failed", "KeyError: 'a bug'"),
        "remark": ("done", "cut short"),
        "held": ("held", "process 1 is at work on it"),
        "kernel": ("killed", "its kernel was killed"),
        "killed": ("killed", "its worker process was killed by signal SIGKILL"),
        "left": ("failed", "its worker process ended with exit code 3 (last words: on its way out)"),
        **{f"t{k}": ("done", None) for k in range(6)},
    }
    assert len({(tmp_path / str(k)).read_text() for k in range(6)}) == 6, "each has a process of its own"


def test_when_the_process_that_workers_are_forked_from_is_killed_all_end_and_may_try_again(tmp_path: Path) -> None:
    with contextlib.closing(Pool(workers=2)) as pool:
        for k in range(2):
            pool.submit(Task(f"t{k}", start_a_child_and_sleep, {"path": tmp_path / str(k)}))
        wait_for(lambda: pool.step(timeout=0.1) or len(list(tmp_path.iterdir())) == 2)
        children = [int((tmp_path / str(k)).read_text()) for k in range(2)]
        workers = [psutil.Process(child).ppid() for child in children]
        (parent,) = {psutil.Process(worker).ppid() for worker in workers}
        assert psutil.Process(parent).num_threads() == 1
        os.kill(parent, signal.SIGKILL)
        said = "its worker process was ended with the process that it was forked from"
        assert [(outcome.end, outcome.said) for outcome in drain(pool).values()] == [("killed", said)] * 2
        assert [pid for pid in (*workers, *children) if is_running(pid)] == []
        pool.submit(Task("next", write, {"path": tmp_path / "x"}))
        assert drain(pool)["next"].end == "done"


def test_closing_ends_workers_at_work_and_what_they_started(tmp_path: Path) -> None:
    pool = Pool(workers=1)
    pool.submit(Task("long", start_a_child_and_sleep, {"path": tmp_path / "pid"}))
    wait_for(lambda: pool.step(timeout=0.1) or (tmp_path / "pid").exists())
    child = int((tmp_path / "pid").read_text())
    worker = psutil.Process(child).ppid()
    assert (is_running(worker), is_running(child)) == (True, True)
    pool.close()
    assert (is_running(worker), is_running(child)) == (False, False)


def test_a_task_is_stopped_at_its_limit_with_all_that_it_started_and_the_others_go_on(pool: Pool, tmp_path: Path) -> None:
    pool.submit(Task("late", start_a_child_and_sleep, {"path": tmp_path / "pid"}, limit=3.0))
    pool.submit(Task("good", write, {"path": tmp_path / "x"}, limit=60.0))
    outcomes = drain(pool)
    assert (outcomes["late"].end, outcomes["late"].said) == ("late", "it was stopped at its time limit of 3 s")
    assert 3 <= outcomes["late"].seconds < 13
    assert outcomes["good"].end == "done"
    assert not is_running(int((tmp_path / "pid").read_text()))
    pool.submit(Task("next", write, {"path": tmp_path / "y"}))
    assert drain(pool)["next"].end == "done"


def test_temporary_files_of_a_task_and_of_what_it_starts_lie_in_the_pool_s_folder_and_go_with_the_task(tmp_path: Path) -> None:
    with contextlib.closing(Pool(workers=1)) as pool:
        pool.submit(Task("t", leave_a_temporary_file, {"path": tmp_path / "places"}))
        assert drain(pool)["t"].end == "done"
        mine, of_child = (tmp_path / "places").read_text().split()
        assert Path(mine).parent == Path(of_child) == pool.folder / "w1"
        assert not Path(mine).parent.exists()
    assert not pool.folder.exists()


def test_a_pool_whose_folder_was_cleared_away_goes_on(pool: Pool, tmp_path: Path) -> None:
    # By the workers that are there, and by one that takes the place of another.
    for k in range(2):
        shutil.rmtree(pool.folder)
        if k:
            pool.submit(Task("killed", kill_itself, {}))
        for name in (f"a{k}", f"b{k}"):
            pool.submit(Task(name, leave_a_temporary_file, {"path": tmp_path / name}))
        ended = drain(pool)
        assert {name: outcome.end for name, outcome in ended.items() if name != "killed"} == {f"a{k}": "done", f"b{k}": "done"}
    assert str(pool.folder) in (tmp_path / "b1").read_text()


def say_card(path: Path, until: Path) -> None:
    for _ in range(2):  # what is chosen stays chosen
        take_card()
    path.write_text(os.environ["CUDA_VISIBLE_DEVICES"])
    while not until.exists():
        time.sleep(0.01)


def test_the_cards_are_dealt_out_to_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    with contextlib.closing(Pool(workers=4)) as pool:
        for k in range(4):
            pool.submit(Task(f"t{k}", say_card, {"path": tmp_path / f"card{k}", "until": tmp_path / "all"}))
        wait_for(lambda: pool.step(timeout=0.1) or len(list(tmp_path.glob("card?"))) == 4)
        (tmp_path / "all").touch()
        drain(pool)
    assert sorted(path.read_text() for path in tmp_path.glob("card?")) == ["GPU-a", "GPU-a", "GPU-b", "GPU-b"]


def test_an_answer_that_an_interruption_left_behind_is_not_taken_for_the_next() -> None:
    server, (ours, theirs), (mine, its) = ForkServer(), Pipe(), Pipe()
    socket.send_fds(server._requests, [b"0 fork"], [theirs.fileno()])  # its answer is never read
    pid = server.fork(its.fileno())
    for end in (ours, theirs, mine, its):
        end.close()
    assert -64 < server.exit_code(pid) < LOST
    server.close()
