"""The commands as people meet them: odd folders, names, environments, terminals. No traceback, no file or number harmed."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from grids import Digests, store_digests

from repro_lib.config import Config, project_root
from repro_lib.store.store import Store
from repro_lib.training.experiment import run_experiment

CELL = ["--profile", "smoke", "--models", "charlm", "--activations", "relu", "--max_iters", "3", "--trials", "2"]
DOORS = ("status", "process", "train", "report")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, corpus_file: Path) -> Path:
    """A folder with results of one cell, which no test changes."""
    folder = tmp_path_factory.mktemp("home")
    config = Config.for_model("charlm", "smoke", corpus=str(corpus_file), max_iters=3, trials=2)
    run_experiment("charlm", "relu", config, results_dir=folder / "results")
    return folder


@pytest.fixture(scope="module")
def undisturbed(home: Path) -> Digests:
    return store_digests(home / "results")


def start(words: Sequence[str], cwd: Path, environment: Mapping[str, str] = {}, **streams: Any) -> subprocess.Popen[str]:
    """``python -m repro_lib`` as a shell would start it there."""
    about = {"env": {**os.environ, **environment}, "cwd": cwd, "text": True, "errors": "replace"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.Popen([sys.executable, "-m", "repro_lib", *words], **about, **streams)


def run(words: Sequence[str], cwd: Path, environment: Mapping[str, str] = {}, **streams: Any) -> tuple[int, str, str]:
    process = start(words, cwd, environment, **streams)
    output, error = process.communicate(timeout=300)
    return process.returncode, output or "", error or ""


def run_with_streams(streams: str, words: Sequence[str], cwd: Path) -> tuple[int, str, str]:
    """The same with ``streams`` closed or led elsewhere, in a shell's words."""
    line = ["sh", "-c", f'exec "$@" {streams}', "sh", sys.executable, "-m", "repro_lib", *words]
    done = subprocess.run(line, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stdout, done.stderr


# What is set together here are conditions of their own; they share a run because each takes seconds.
LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NOWHERE = {"HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent/cache", "TMPDIR": "/nonexistent/tmp", "PATH": ""}
CONDITIONS = {
    "the C locale, no home, no programs, a window for figures": LOCALE | NOWHERE | {"MPLBACKEND": "GTK"},
    "Latin 1, a narrow terminal, an optimised Python": LOCALE
    | {"PYTHONIOENCODING": "latin-1", "TERM": "xterm", "COLUMNS": "20", "LINES": "", "FORCE_COLOR": "1"}
    | {"PYTHONOPTIMIZE": "2", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "7"},
}
FIRST, OTHER = CONDITIONS


@pytest.mark.parametrize("condition", [FIRST, pytest.param(OTHER, marks=pytest.mark.slow)])
def test_every_door_opens_in_every_environment(condition: str, home: Path, undisturbed: Digests, corpus_file: Path) -> None:
    ended = through_all_doors(home, corpus_file, lambda words: run(words, home, CONDITIONS[condition]))
    for door, (code, output, error) in ended.items():
        assert (code, error) == (0, ""), f"{door}: {output}{error}"
    assert "1 of 1 cell done" in ended["status"][1]
    # Numbers are whole, and names are, however narrow the terminal is.
    assert re.search(r"charlm +relu +2 +\d\.\d{4} +\d\.\d{4} +untrained", ended["train"][1]), ended["train"][1]
    assert store_digests(home / "results") == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", ">/dev/full"])
def test_every_door_opens_whatever_the_streams(streams: str, home: Path, undisturbed: Digests, corpus_file: Path) -> None:
    ended = through_all_doors(home, corpus_file, lambda words: run_with_streams(streams, words, home))
    for door, (code, output, error) in ended.items():
        if "full" in streams:
            assert (code, error.count("\n")) == (1, 1), f"{door}: {error}"
            assert "what was printed could not be written (No space left on device)" in error
        else:
            assert (code, error) == (0, ""), f"{door}: {output}{error}"
    assert store_digests(home / "results") == undisturbed


def through_all_doors(
    home: Path, corpus: Path, go: Callable[[Sequence[str]], tuple[int, str, str]]
) -> dict[str, tuple[int, str, str]]:
    """How each command ended, at the same time, for they only read."""
    folders = ["--results-dir", "results"]

    def through(door: str) -> tuple[int, str, str]:
        given = [*CELL, "--corpus", str(corpus)] if door in ("status", "train") else ["--profile", "smoke"]
        given += ["--no-plots"] if door == "process" else []
        return go([door, *given, *folders, "--reports-dir", f"reports-{door}"])

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(DOORS, pool.map(through, DOORS), strict=True))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--results-dir", ""], "--results-dir: a folder's name is empty; is a variable unset?"),
        (["--reports-dir="], "--reports-dir: a folder's name is empty; is a variable unset?"),
        (["--results-dir", os.fsdecode(b"caf\xe9")], r"'caf\xe9' is not UTF-8; rename it, or choose another"),
        (["--corpus", os.fsdecode(b"caf\xe9.txt")], r"'caf\xe9.txt' is not UTF-8; rename it, or choose another"),
        (["--results-dir", "same", "--reports-dir", "same/../same"], "results and reports need a folder each"),
    ],
)
def test_a_folder_or_name_that_cannot_be_meant_is_refused_at_once(words: list[str], said: str, tmp_path: Path) -> None:
    for command in ("grid", "process", "report", "status"):
        code, output, error = run([command, *words], tmp_path)
        assert (code, output) == (2, ""), command
        assert said in error, (command, error)
        assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_a_tilde_is_the_home_and_a_name_is_printed_as_it_is(home: Path, tmp_path: Path) -> None:
    (tmp_path / "run[gelu] :x: [b]").symlink_to(home / "results")
    for given in ("run[gelu] :x: [b]", "--results-dir=~/run[gelu] :x: [b]"):
        words = given.split("=", 1) if given.startswith("--") else ["--results-dir", given]
        code, output, error = run(["status", *CELL, "--corpus", "none.txt", *words], tmp_path, {"HOME": str(tmp_path)})
        assert code == 2, output
        assert "no corpus 'none.txt'" in error
    words = ["status", "--profile", "smoke", "--models", "charlm", "--results-dir=~/run[gelu] :x: [b]"]
    _, output, error = run(words, Path("/"), {"HOME": str(tmp_path)})
    assert error == ""
    assert f"cells done in {tmp_path}/run[gelu] :x: [b]\n" in output


def test_what_a_terminal_would_obey_is_shown_as_a_sign(home: Path, tmp_path: Path) -> None:
    name, text = "[b] \x1b[31m\x9b5m", "own [/b]\x1b[31m.txt"
    (tmp_path / name).symlink_to(home / "results")
    (tmp_path / text).parent.mkdir()
    (tmp_path / text).write_text("ab\n" * 2000 + "45{" * 300)
    code, output, error = run(["status", "--profile", "smoke", "--models", "charlm", "--results-dir", name], tmp_path)
    ended = [(output, error)]
    code, output, error = run(["prepare-data", "--corpus", text], tmp_path)
    assert (code, error) == (0, "")
    assert output.splitlines()[1:2] == ["3 characters occur in validation alone: '4', '5', '{'"]
    ended += [(output, error), run(["process", "--results-dir", "none\x1b[31m"], tmp_path)[1:]]
    ended += [run(["status", "--\x1b[31m"], tmp_path)[1:]]
    for said in ("".join(both) for both in ended):
        assert "\N{SYMBOL FOR ESCAPE}[31m" in said
        assert re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", said) is None


def test_a_deleted_current_folder_is_said(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    line = ["sh", "-c", f'rmdir "{gone}"; exec "$@"', "sh", sys.executable, "-P", "-m", "repro_lib", "status"]
    done = subprocess.run(line, cwd=gone, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "repro: the current folder was deleted; change into another one\n"


def test_a_package_without_its_checkout_works_in_the_current_folder(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(project_root() / "repro_lib", tmp_path / "site" / "repro_lib", ignore=ignored)
    here = tmp_path / "here"
    here.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    for words, code, said in (("--help", 0, "usage: repro"), ("status", 1, f"0 of 39 cells done in {here}/results\n")):
        command = [sys.executable, "-P", "-m", "repro_lib", words]
        done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (code, "")
        assert said in done.stdout
    assert list(here.iterdir()) == []


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A folder in which somebody else works: modules of his own with our modules' names, and files that look like ours."""
    for name in ("struct", "rich", "random", "torch", "numpy", "pydantic"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    results = tmp_path / "run[gelu]"
    (results / "sub").mkdir(parents=True)
    old = time.time() - 2 * 24 * 3600
    others = ["sub/.draft.tmp", ".draft.tmp", "sub/office.lease", "sub/work.partial.ipynb", "package.json", ".probe"]
    for name in others:
        (results / name).write_text("{}" if name.endswith("json") else "of somebody else")
        os.utime(results / name, (old, old))
    yield tmp_path
    for name in others:
        assert (results / name).exists(), name


@pytest.mark.slow
def test_training_in_a_shared_folder_leaves_others_files_alone(shared: Path, corpus_file: Path, undisturbed: Digests) -> None:
    words = [*CELL, "--corpus", str(corpus_file), "--results-dir", "run[gelu]", "--reports-dir", "reports"]
    # By a worker, a Python of its own, with nothing to read from or to print on.
    assert run_with_streams("<&- >&-", ["train", *words], shared) == (0, "", "")
    assert store_digests(shared / "run[gelu]") == undisturbed
    code, output, error = run(["process", "--results-dir", "run[gelu]", "--reports-dir", "reports"], shared)
    assert (code, error) == (0, ""), output
    code, output, error = run(["status", *words], shared)
    assert (code, error) == (0, ""), output
    assert "package.json" not in output


@pytest.mark.parametrize("command", ["report", "grid", "process"])
def test_a_page_of_somebody_else_is_never_replaced(command: str, home: Path, tmp_path: Path, corpus_file: Path) -> None:
    page = tmp_path / "reports" / ("summary.txt" if command == "process" else "index.html")
    page.parent.mkdir()
    page.write_text("<h1>My home page</h1>")
    words = [*CELL, "--corpus", str(corpus_file)] if command == "grid" else ["--profile", "smoke"]
    folders = ["--results-dir", str(home / "results"), "--reports-dir", "reports"]
    code, output, error = run([command, *words, *folders], tmp_path)
    assert code in (1, 2), output
    assert re.search(rf"{page.name} was not made by this program; choose another --reports-dir", error), error
    assert page.read_text() == "<h1>My home page</h1>"


def test_a_name_is_a_name_and_a_path_is_a_path(tmp_path: Path, corpus_file: Path) -> None:
    (tmp_path / "shakespeare").write_text(corpus_file.read_text())
    words = [*CELL, "--results-dir", "results"]
    code, output, error = run(["status", *words, "--corpus", "shakespeare"], tmp_path)
    assert (code, error) == (1, "")
    by_name = Config.for_model("charlm", "smoke", corpus="shakespeare", max_iters=3, trials=2)
    assert "missing" in output
    code, output, error = run(["train", *words, "--corpus", "./shakespeare"], tmp_path)
    assert (code, error) == (0, ""), output
    ((_, result),) = Store(tmp_path / "results").load()[0]
    assert result.corpus.sha256 != by_name.sha256("0" * 64)
    assert result.config["corpus"] == "shakespeare", "its title; its digest tells it from the named one"
    # Not the named one, whose results these are not.
    assert run(["status", *words, "--corpus", "shakespeare"], tmp_path)[0] == 1


@pytest.mark.slow
def test_work_goes_on_where_nobody_can_read_of_it(tmp_path: Path, corpus_file: Path) -> None:
    words = [*CELL[:4], "--activations", "relu", "gelu", "swish", *CELL[6:], "--corpus", str(corpus_file), "--results-dir", "r"]
    with open("/dev/full", "w") as sink:
        code, _, error = run(["train", *words], tmp_path, stdout=sink)
    assert code == 1
    assert error == "repro: what was printed could not be written (No space left on device); the work itself went on\n"
    assert len(store_digests(tmp_path / "r")) == 3
