"""Kernels that start on private sockets, end surely, and say how they ended. Real ones, and cells that do the harm."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import nbformat
import psutil
import pytest
from interrupting import is_running, wait_for

from repro_lib.grid.kernels import Kernel, KernelKilledError
from repro_lib.grid.notebooks import NotebookError, execute
from repro_lib.grid.pool import Pool, Task
from repro_lib.report.site.page import render_notebook

WHERE = "from ipykernel.connect import get_connection_info; print(get_connection_info())"
RunCells = Callable[..., tuple[list[str], str]]


def run_here(folder: Path, *sources: str, **how: bool) -> tuple[list[str], str]:
    """Execute a notebook of cells, in a kernel started anew; returns the remarks and what the last cell printed."""
    notebook = folder / "n.ipynb"
    cells = [nbformat.v4.new_markdown_cell("# A notebook"), *(nbformat.v4.new_code_cell(source) for source in sources)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), notebook)
    # ipykernel leaves file descriptors alone where it takes itself for a part of pytest, which our kernels are not.
    with pytest.MonkeyPatch.context() as outside:
        outside.delenv("PYTEST_CURRENT_TEST", raising=False)
        remarks = execute(notebook, folder / "out" / "n.ipynb", {}, **how)
    last = nbformat.read(folder / "out" / "n.ipynb", 4).cells[-1]
    return remarks, "".join(output.get("text", "") for output in last.outputs)


def run_and_tell(folder: Path, sources: tuple[str, ...], **how: bool) -> str:
    """A worker's task: what ``run_here`` returns, as text."""
    return json.dumps(run_here(folder, *sources, **how))


def run_forked(folder: Path, *sources: str, **how: bool) -> tuple[list[str], str]:
    """As ``run_here``, in a kernel forked by a worker."""
    with contextlib.closing(Pool(1)) as pool:
        pool.submit(Task("cells", run_and_tell, {"folder": folder, "sources": sources} | how))
        while not (outcomes := pool.step(timeout=0.5)):
            pass
    (outcome,) = outcomes
    if outcome.end != "done":
        raise {"killed": KernelKilledError, "failed": NotebookError}[outcome.end](outcome.said)
    remarks, printed = json.loads(outcome.said)
    return remarks, printed


@pytest.fixture(params=[run_forked, run_here], ids=["forked", "anew"])
def run_cells(request: pytest.FixtureRequest) -> RunCells:
    """Execute a notebook of cells in a kernel of either kind."""
    return request.param


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place for temporary files of our own, with a short path; nothing may stay in it.

    ``tmp_path`` comes first: it asks for the usual place."""
    with tempfile.TemporaryDirectory(prefix="k-", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)
        assert list(Path(folder).iterdir()) == []
    assert [child for child in psutil.Process().children(recursive=True) if is_kernel(child)] == []


def is_kernel(process: psutil.Process) -> bool:
    try:
        return "ipykernel_launcher" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # or a zombie, which is one of them
        return False


def test_a_kernel_talks_over_sockets_in_a_private_folder_and_takes_no_neighbour_for_its_modules(
    temporary: Path, tmp_path: Path, run_cells: RunCells
) -> None:
    (tmp_path / "json.py").write_text("raise RuntimeError('the wrong json')")
    # What the notebook itself imports may well lie beside it.
    (tmp_path / "helper.py").write_text("value = 42")
    _, printed = run_cells(tmp_path, f"import helper; print(helper.value); {WHERE}")
    assert printed.startswith("42\n")
    assert '"transport": "ipc"' in printed
    assert f'"ip": "{temporary}/repro-' in printed


def test_what_somebody_has_set_up_for_his_own_notebooks_does_not_reach_ours(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_cells: RunCells
) -> None:
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "own.py").write_text("import torch; torch.set_default_dtype(torch.float64); own = 1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MPLBACKEND", "GTK")
    _, printed = run_cells(tmp_path, "import matplotlib.pyplot, torch; print(torch.get_default_dtype(), 'own' in globals())")
    assert printed == "torch.float32 False\n"


def test_a_long_temporary_folder_costs_no_kernel_its_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("long" * 30)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    _, printed = run_here(tmp_path, WHERE)
    assert '"transport": "ipc"' in printed
    assert list(long.iterdir()) == []


def test_without_socket_files_it_talks_to_localhost(temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kernel, "has_socket_files", lambda self: False)
    _, printed = run_here(tmp_path, WHERE)
    assert '"transport": "tcp"' in printed
    assert '"ip": "127.0.0.1"' in printed


@pytest.mark.parametrize(
    ("source", "kind", "said"),
    [
        ("import os; os.kill(os.getpid(), 9)", KernelKilledError, "its kernel was killed by signal SIGKILL (see "),
        ("import os; os._exit(3)", NotebookError, "its kernel ended with exit code 3 (see "),
        ("1 / 0", NotebookError, "ZeroDivisionError: division by zero (see "),
        (
            "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31)); bytearray(2**33)",
            NotebookError,
            "MemoryError: out of memory (see ",
        ),
    ],
    ids=["killed", "exit", "error", "memory"],
)
def test_how_a_notebook_failed_is_said_as_what_it_is_and_soon(
    temporary: Path, tmp_path: Path, source: str, kind: type[Exception], said: str, run_cells: RunCells
) -> None:
    stamp = tmp_path / "stamp"
    with pytest.raises(kind) as error:
        run_cells(tmp_path, f"import time; open({str(stamp)!r}, 'w').write(str(time.time()))", source, "print('never')")
    assert time.time() - float(stamp.read_text()) < 30
    assert str(error.value).startswith(said)
    assert str(error.value).endswith("n.failed.ipynb)")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["n.failed.ipynb"]


@pytest.fixture
def memory_limit(tmp_path: Path) -> Iterator[Path]:
    """A control group of 300 MB, as containers and batch systems have; its file of members."""
    for root, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(root) / f"repro-test-{os.getpid()}"
        try:
            group.mkdir()
            (group / limit).write_text(str(300 * 2**20))
        except OSError:
            if group.is_dir():
                group.rmdir()
            continue
        yield group / "cgroup.procs"
        group.rmdir()
        return
    pytest.skip("no control group with a memory limit can be made here")


def test_a_kernel_out_of_memory_is_said_so(temporary: Path, tmp_path: Path, memory_limit: Path, run_cells: RunCells) -> None:
    join = f"import os; open({str(memory_limit)!r}, 'w').write(str(os.getpid()))"
    with pytest.raises(KernelKilledError, match=r"signal SIGKILL, probably out of memory: this machine's out-of-memory killer"):
        run_cells(tmp_path, join, "x = bytearray(2**30)\nfor i in range(0, 2**30, 4096): x[i] = 1")


def test_of_100_megabytes_the_first_are_kept_and_all_counted(temporary: Path, tmp_path: Path, run_cells: RunCells) -> None:
    floods = ["for _ in range(1000): print('x' * 99_999)", "print('x' * 100_000_000)"]
    floods += ["import os\nfor _ in range(1000): os.write(1, b'x' * 100_000)"]
    remarks, printed = run_cells(tmp_path, *floods, "print('x' * 600_000)", "print('x' * 600_000)")
    # Every cell may print anew: what those before it printed does not count.
    assert len(printed) == 600_001
    assert [remark.partition(": ")[0] for remark in remarks] == ["cell 2", "cell 3", "cell 4"]
    for remark in remarks:
        assert re.search(r": this cell printed [\d,]+ characters to stdout by its end; the first 1,000,000 are kept$", remark)
    output = tmp_path / "out" / "n.ipynb"
    assert 4.2e6 < output.stat().st_size < 1.1 * 4.2e6
    render_notebook(output, tmp_path / "n.html")
    assert (tmp_path / "n.html").read_text().count("the first 1,000,000 are kept") == 3
    # Neither this process nor any kernel of it has ever held what was printed.
    assert psutil.Process().memory_info().rss < 2**30


def test_what_a_cell_has_started_ends_with_its_kernel(temporary: Path, tmp_path: Path, run_cells: RunCells) -> None:
    _, pid = run_cells(tmp_path, "import subprocess; p = subprocess.Popen(['sleep', '600']); print(p.pid)")
    wait_for(lambda: not is_running(int(pid)), 10)


def test_a_killed_runner_takes_its_kernel_along(temporary: Path, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = (
        "import sys; sys.path[:0] = sys.argv[2:]; from pathlib import Path; from test_kernels import run_here\n"
        f"run_here(Path(sys.argv[1]), \"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)\")"
    )
    here = Path(__file__).parent
    runner = subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(here), str(here.parent)])
    wait_for(lambda: pid.exists() and pid.read_text())
    kernel = int(pid.read_text())
    assert is_running(kernel)
    runner.kill()
    runner.wait()
    wait_for(lambda: not is_running(kernel), 5)
    # Its folder with sockets and key is left; the next one clears it away (see the fixture).
    assert len(list(temporary.iterdir())) == 1
    run_here(tmp_path, "1")


STATE = """
import json, os, random, signal, sys, tempfile, threading
import numpy as np, pandas as pd, torch
def kinds():
    names = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
    return sorted(name.partition(":")[0] for name in names if name.startswith(("socket", "pipe", "anon_inode")))
own = ("JPY_PARENT_PID", "TMPDIR", "IPYTHONDIR", "PYTEST_CURRENT_TEST", "JPY_SESSION_NAME", "REPRO_WORKER")
print(json.dumps({
    "environment": {name: value for name, value in sorted(os.environ.items()) if name not in own},
    "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1)],
    "descriptors": kinds(), "where": os.getcwd(), "mask": os.umask(os.umask(0)),
    "threads": sorted(t.name for t in threading.enumerate()),
    "torch": [str(torch.get_default_dtype()), torch.get_num_threads()],
    "pandas": pd.get_option("display.max_rows"), "path": sys.path,
}))
"""
MESS = """
import numpy as np, pandas as pd
os.environ["LEAK"] = "1"; os.environ["OMP_NUM_THREADS"] = "2"; os.umask(0o77); os.chdir("/"); sys.path.append("/leak")
signal.signal(signal.SIGUSR1, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)
kept = [open(os.devnull), *os.pipe()]; random.seed(1); np.random.seed(1); torch.manual_seed(1)
torch.set_default_dtype(torch.float64); torch.set_num_threads(2); pd.set_option("display.max_rows", 7)
"""


def test_nothing_of_one_notebook_is_found_by_the_next_and_forked_kernels_are_as_new(temporary: Path, tmp_path: Path) -> None:
    outcomes = []
    draws = "import random, numpy as np, torch\nfor x in (random.random(), np.random.rand(), torch.rand(1).item()): print(x)"
    with contextlib.closing(Pool(1)) as pool:
        for k, sources in enumerate([(STATE, MESS), (STATE,), (draws,), (draws,)]):
            (tmp_path / str(k)).mkdir()
            # One working folder and one text of cells for all, as far as they show in what is compared.
            pool.submit(Task(str(k), run_and_tell, {"folder": tmp_path / str(k), "sources": sources}))
        while pool.busy:
            outcomes += pool.step(timeout=0.5)
    assert [outcome.end for outcome in outcomes] == ["done"] * 4
    printed = [json.loads(outcome.said)[1] for outcome in outcomes]
    assert not set(printed[2].split()) & set(printed[3].split())
    (tmp_path / "anew").mkdir()
    forked, anew = json.loads(printed[1]), json.loads(run_here(tmp_path / "anew", STATE)[1])
    first = json.loads(nbformat.read(tmp_path / "0" / "out" / "n.ipynb", 4).cells[1].outputs[0].text)
    for state in (forked, anew, first):
        assert Path(state.pop("where")).parent == tmp_path
        state.pop("path")
    assert forked == first
    assert forked["environment"].items() ^ anew["environment"].items() == set()
    assert forked == anew


def test_a_forked_kernel_has_all_that_analyses_import_late(temporary: Path, tmp_path: Path) -> None:
    late = ("torch._dynamo", "scipy.stats", "scipy.optimize", "statsmodels.stats.power")
    _, printed = run_forked(tmp_path, f"import sys; print([name for name in {late} if name not in sys.modules])")
    assert printed == "[]\n"


def test_a_worker_forks_no_kernel_where_it_is_told_so_as_for_cuda(temporary: Path, tmp_path: Path) -> None:
    command = "print(open('/proc/self/cmdline').read().split(chr(0)))"
    assert "ipykernel_launcher" not in run_forked(tmp_path, command)[1]
    assert "ipykernel_launcher" in run_forked(tmp_path, command, forked=False)[1]


TRAIN = """
from repro_lib import Config, run_experiment
from repro_lib.config import MODEL_DEFAULTS
for model in MODEL_DEFAULTS:
    result = run_experiment(model, "gelu", Config.for_model(model, "smoke", corpus={corpus!r}), results_dir={results!r})
    print(model, [(trial.weights_sha256, trial.predictions_sha256) for trial in result.trials])
"""


@pytest.mark.slow
def test_every_model_trains_to_the_same_bits_in_both_kernels(temporary: Path, tmp_path: Path, corpus_file: Path) -> None:
    train = partial(TRAIN.format, corpus=str(corpus_file))
    _, forked = run_forked(tmp_path, train(results=str(tmp_path / "forked")))
    assert len(forked.splitlines()) == 7
    assert forked == run_here(tmp_path, train(results=str(tmp_path / "anew")))[1]


@pytest.mark.parametrize("killed", ["kernel", "worker", "grandchild"])
def test_a_process_that_is_killed_ends_its_own_notebook_alone_and_wholly(temporary: Path, tmp_path: Path, killed: str) -> None:
    note = tmp_path / "pids"
    cell = "import os, subprocess; p = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
    cell += (
        f"open({str(note)!r}, 'w').write(f'{{os.getpid()}} {{os.getppid()}} {{p.pid}} ')\np.wait(); print('its child ended')"
    )
    outcomes = {}
    with contextlib.closing(Pool(2)) as pool:
        for name, sources in {"hit": (cell,), "other": ("import time; time.sleep(2); print('unharmed')",)}.items():
            (tmp_path / name).mkdir()
            pool.submit(Task(name, run_and_tell, {"folder": tmp_path / name, "sources": sources}))
        wait_for(lambda: pool.step(timeout=0.05) or (note.exists() and note.read_text().endswith(" ")))
        pids = dict(zip(("kernel", "worker", "grandchild"), map(int, note.read_text().split()), strict=True))
        os.kill(pids[killed], signal.SIGKILL)
        while pool.busy:
            outcomes |= {outcome.task.key: outcome for outcome in pool.step(timeout=0.5)}
        assert outcomes["hit"].end == ("done" if killed == "grandchild" else "killed")
        assert json.loads(outcomes["other"].said) == [[], "unharmed\n"]
        wait_for(lambda: not any(map(is_running, pids.values())), 10)


@pytest.mark.slow
def test_200_notebooks_16_at_a_time(temporary: Path, tmp_path: Path) -> None:
    outcomes = []
    with contextlib.closing(Pool(workers=16)) as pool:
        for k in range(200):
            (tmp_path / f"n{k}").mkdir()
            pool.submit(Task(f"n{k}", run_and_tell, {"folder": tmp_path / f"n{k}", "sources": ("print(6 * 7)",)}, limit=300))
        while pool.busy:
            outcomes += pool.step(timeout=0.5)
    assert {(outcome.end, outcome.said) for outcome in outcomes} == {("done", '[[], "42\\n"]')}
    assert len(outcomes) == len(list(tmp_path.glob("n*/out/n.ipynb"))) == 200
