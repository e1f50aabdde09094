"""Notebook hygiene, the check of parameters before any kernel starts, and execution in a real kernel."""

import ast
import json
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient

from repro_lib.config import Config, project_root
from repro_lib.grid import notebooks
from repro_lib.grid.cells import GridRequest
from repro_lib.grid.notebooks import (
    NotebookError,
    begin_notebook,
    check_parameters,
    declared_parameters,
    edited_notebooks,
    execute,
    notebook_digest,
    notebooks_dir,
)
from repro_lib.grid.tasks import Tasks
from repro_lib.grid.worker import clear_leftovers
from repro_lib.report import notebook_names as names
from repro_lib.store.store import noted_digest
from repro_lib.training.progress import PROGRESS_FILE_VARIABLE

NOTEBOOKS = sorted(notebooks_dir().glob("*.ipynb"))
TRAIN = notebooks_dir() / f"{names.TRAIN}.ipynb"


def make_notebook(path: Path, *sources: str, parameters: str | None = None) -> Path:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    if parameters is not None:
        cells.insert(0, nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_the_suite_has_the_notebooks_that_are_named() -> None:
    assert {path.stem for path in NOTEBOOKS} == {TRAIN.stem, names.DEEP_DIVE, *names.ANALYSES}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_grid_runs_what_is_in_the_folder_of_notebooks(path: Path) -> None:
    same = (project_root() / "notebooks" / path.name).read_bytes() == path.read_bytes()
    assert same, "after a change on purpose: cp notebooks/*.ipynb repro_lib/grid/pristine/"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_clean(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert not {"papermill", "widgets", "repro"} & notebook["metadata"].keys()
    assert all("papermill" not in cell["metadata"] for cell in notebook["cells"])
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    nbformat.validate(notebook)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_thin_and_starts_with_one_title_and_a_question(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    sources = ["".join(cell["source"]) for cell in code if "parameters" not in cell["metadata"].get("tags", [])]
    lines = [source.count("\n") + 1 for source in sources]
    assert (sum(lines) <= 90, max(lines) <= 20) == (True, True)
    assert not [node for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    first, *others = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    assert (first[:2], "?" in first) == ("# ", True)
    assert not [text for text in others if text.startswith("# ")]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_parameters_are_one_tagged_cell_of_typed_literals_with_help(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    lines = [line for line in "".join(tagged[0]["source"]).splitlines() if not line.startswith("#")]
    assert all("  # " in line for line in lines), "each parameter has a trailing comment as help"
    parameters = declared_parameters(path)
    assert len(parameters) == len(lines)
    # The defaults are of the types they declare.
    check_parameters(path, {name: parameter.default for name, parameter in parameters.items()})


def test_the_training_notebook_and_the_config_know_the_same_names() -> None:
    own = {"model", "activation", "profile", "results_dir", "force", "checkpoint_seconds"}
    taken_from_elsewhere = {"vocab_size"}
    parameters = declared_parameters(TRAIN)
    assert parameters.keys() - own == Config.model_fields.keys() - taken_from_elsewhere
    for name in parameters.keys() - own:
        declared = {"int": int, "float": float, "str": str}[parameters[name].annotation.removesuffix(" | None")]
        default = getattr(Config(), name)
        assert isinstance(default, declared)
        assert parameters[name].default is None, "None leaves the profile's value"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"modle": "charlm"}, "no parameter modle"),
        ({"model": 3}, "model = 3 is not of type str"),
        ({"max_iters": "500"}, "max_iters = '500' is not of type int"),
        ({"max_iters": 5.0}, "max_iters = 5.0"),
        ({"max_iters": True}, "max_iters = True"),
        ({"learning_rate": "1e-3"}, "learning_rate = '1e-3'"),
        ({"force": "false"}, "force = 'false' is not of type bool"),
        ({"results_dir": Path("x")}, "results_dir"),
    ],
)
def test_a_parameter_that_does_not_fit_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(NotebookError, match=said.replace("(", r"\(")):
        check_parameters(TRAIN, values)


def test_a_wrong_parameter_starts_no_kernel_and_leaves_no_file(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    notebook = make_notebook(tmp_path / "n.ipynb", f"open({str(marker)!r}, 'w')", parameters="size: int = 1  # help")
    with pytest.raises(NotebookError, match="no parameter sise"):
        execute(notebook, tmp_path / "out" / "n.ipynb", {"sise": 2})
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("cell", ["size = 1", "size: int", "size: int = 1 + 1", "import os"])
def test_a_parameters_cell_with_anything_but_literals_is_refused(cell: str, tmp_path: Path) -> None:
    with pytest.raises((NotebookError, ValueError)):
        declared_parameters(make_notebook(tmp_path / "n.ipynb", parameters=cell))


def test_a_notebook_runs_in_a_kernel_of_this_interpreter_with_its_parameters(tmp_path: Path) -> None:
    import sys

    notebook = make_notebook(
        tmp_path / "n.ipynb", "import sys", "print(sys.executable, size + 1)", parameters="size: int = 1  # help"
    )
    # Braces: papermill would take such a folder for a template.
    output = tmp_path / "out {x}" / "n.ipynb"
    execute(notebook, output, {"size": 41}, digest="abc")
    printed = nbformat.read(output, 4).cells[-1].outputs[0].text
    assert printed.split() == [sys.executable, "42"]
    assert noted_digest(output) == "abc"
    assert [path.name for path in output.parent.iterdir()] == ["n.ipynb"]


def test_what_a_killed_run_left_of_a_notebook_is_told_from_a_file_of_such_a_name(tmp_path: Path) -> None:
    folder = tmp_path / "notebooks"
    (folder / "sub").mkdir(parents=True)
    ours, others = folder / "a.partial.ipynb", [folder / "b.partial.ipynb", folder / "sub" / "a.partial.ipynb"]
    # A copy of what lies there while a notebook is at work.
    copy = f"import shutil; shutil.copy({str(folder / 'n.partial.ipynb')!r}, {str(ours)!r})"
    execute(make_notebook(tmp_path / "n.ipynb", copy), folder / "n.ipynb", {})
    for path in others:
        path.write_text(ours.read_text().replace("whole:", "") if path.parent == folder else "of somebody else")
    clear_leftovers(tmp_path, tmp_path / "reports")
    assert [path for path in (ours, *others) if path.exists()] == others


def test_a_failed_notebook_counts_as_not_executed_and_a_success_removes_it(tmp_path: Path) -> None:
    output = tmp_path / "out" / "n.ipynb"
    with pytest.raises(NotebookError, match="ZeroDivisionError"):
        execute(make_notebook(tmp_path / "bad.ipynb", "1 / 0"), output, {}, digest="abc")
    assert noted_digest(output) is None
    execute(make_notebook(tmp_path / "good.ipynb", "1"), output, {}, digest="abc")
    assert noted_digest(output) == "abc"
    assert [path.name for path in output.parent.iterdir()] == ["n.ipynb"]


def test_the_digest_of_inputs_follows_source_parameters_and_inputs(tmp_path: Path) -> None:
    first, second = make_notebook(tmp_path / "a.ipynb", "1"), make_notebook(tmp_path / "b.ipynb", "2")
    cases: list[tuple[Any, ...]] = [(first, {}), (second, {}), (first, {"x": 1}), (first, {}, ["result"]), (first, {})]
    digests = [notebook_digest(*case) for case in cases]
    assert (len(set(digests)), digests[0]) == (4, digests[-1])


def test_what_somebody_edited_or_put_beside_a_notebook_decides_nothing_in_a_grid(
    corpus_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "notebooks"
    shutil.copytree(project_root() / "notebooks", folder)
    text = (folder / "10_train.ipynb").read_text(encoding="utf-8")
    for name, value in (("max_iters: int", 6), ("weight_decay: float", 0.5)):
        text = text.replace(f"{name} | None = None", f"{name} | None = {value}")
    (folder / "10_train.ipynb").write_text(text, encoding="utf-8")
    (folder / "40_claims.ipynb").write_text("half a f", encoding="utf-8")
    for name in ("torch", "random", "repro_lib"):
        (folder / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    monkeypatch.setattr(notebooks, "project_root", lambda: tmp_path)
    asked = {"models": ["tinylstm"], "activations": ["relu"], "profile": "smoke", "workers": 1}
    folders = {"results_dir": tmp_path / "results", "reports_dir": tmp_path / "reports"}
    tasks = Tasks(GridRequest(**asked, **folders, overrides={"corpus": str(corpus_file), "trials": 2}), tmp_path)
    (cell,) = tasks.cells
    job = tasks.cell(cell)
    job.function(**job.arguments)
    assert cell.result(tasks.store)
    # What it ran with is all said in what is left of it.
    passed = nbformat.read(job.output, 4).metadata.papermill.parameters
    assert list(passed) == list(declared_parameters(TRAIN))
    assert (passed["trials"], passed["max_iters"]) == (2, None)
    assert edited_notebooks() == ["10_train.ipynb", "40_claims.ipynb"]


def begun(*cells: str) -> dict[str, Any]:
    """The names of a notebook's kernel after these cells and the first after them."""
    scope: dict[str, Any] = {"In": ["", *cells, "begin_notebook(...)"]}
    for cell in cells:
        exec(cell, scope)
    begin_notebook("10_train", scope)
    return scope


def parameters_cell(**changes: Any) -> str:
    declared = {name: (one.annotation, one.default) for name, one in declared_parameters(TRAIN).items()}
    declared |= {name: (declared.get(name, ("int",))[0], value) for name, value in changes.items()}
    return "\n".join(f"{name}: {kind} = {value!r}" for name, (kind, value) in declared.items())


def test_a_word_for_another_type_is_taken_for_what_it_says() -> None:
    scope = begun(parameters_cell(), "# Parameters\nforce = 'false'\nmax_iters = '3'\ndropout = '1e-3'\nprofile = 'None'\n")
    assert [scope[name] for name in ("force", "max_iters", "dropout", "profile")] == [False, 3, 0.001, "None"]
    assert begun(parameters_cell(), "# Parameters\nforce = 'TRUE'\ntrials = 'none'")["force"] is True


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([parameters_cell(), "# Parameters\nmax_iter = 3\n"], "10_train.ipynb has no parameter max_iter; it has: model, "),
        ([parameters_cell(max_iter=3)], "10_train.ipynb has no parameter max_iter; it has: model, "),
        ([parameters_cell() + "\nmax_iter = 3"], "10_train.ipynb has no parameter max_iter; it has: model, "),
        ([parameters_cell(), "# Parameters\nforce = 'no'"], "force = 'no' is not of type bool"),
        ([parameters_cell(max_iters=2.5)], "max_iters = 2.5 is not of type int"),
        ([parameters_cell(), "# Parameters\ncorpus = 5"], "corpus = 5 is not of type str"),
    ],
)
def test_a_notebook_refuses_what_it_does_not_know(cells: list[str], said: str) -> None:
    with pytest.raises(NotebookError, match=said):
        begun(*cells)
    # Mended in its cell, it is no longer wrong, whatever else was run.
    begun("max_iter = 2", *cells, parameters_cell(max_iters=2))


STOPS = """
import os, signal
from repro_lib import Config, run_experiment
def stop(progress):
    if (progress.trial, progress.iteration) == (2, 3):
        os.kill(os.getpid(), signal.SIGINT)
config = Config.for_model("tinylstm", "smoke", corpus={corpus!r}, trials=2)
run_experiment("tinylstm", "relu", config, results_dir={results!r}, progress=stop, checkpoint_seconds=0)
"""


def test_errors_for_users_are_one_sentence_and_others_say_where(corpus_file: Path, tmp_path: Path) -> None:
    begin = "from repro_lib import begin_notebook\nbegin_notebook('10_train', globals())"
    sources = [parameters_cell(max_iter=3), begin, parameters_cell(), begin, "from repro_lib import *; Config(trials='3')"]
    at_our_line = "import torch, repro_lib.data as d; d.windows_at(torch.zeros(3), torch.tensor([1]), 5)"
    sources += ["run_experiment('charlm', 'geluu')", "int('x')", at_our_line]
    stops = STOPS.format(corpus=str(corpus_file), results=str(tmp_path))
    sources += [stops, stops.replace("progress=stop, ", "")]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    client = NotebookClient(notebook, allow_errors=True, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    errors = [[o for o in cell.outputs if o.output_type == "error"] for cell in notebook.cells]
    shown = ["\n".join(error.traceback) for (error,) in filter(None, errors)]
    assert [len(found) for found in errors] == [0, 1, 0, 0, 1, 1, 1, 1, 1, 0]
    assert "tinylstm with relu, trial 2, goes on from iteration 2" in str(notebook.cells[-1].outputs)
    assert shown[0].startswith("NotebookError: 10_train.ipynb has no parameter max_iter; it has: model, activation, ")
    assert shown[1].startswith("ConfigError: trials = '3' is not possible: input should be a valid integer")
    assert shown[2].startswith("ValueError: unknown activation 'geluu'; known: relu, ")
    assert "int('x')" in re.sub(r"\x1b.*?m", "", shown[3])
    assert "windows_at" in shown[4]
    stopped = "KeyboardInterrupt: tinylstm with relu, trial 2, was stopped; asked for again it goes on from iteration 2"
    assert shown[5] == stopped
    assert [text.count("\n") for text in (*shown[:3], shown[5])] == [0, 0, 0, 0]
    # Whoever runs a notebook learns the error as before.
    assert errors[5][0].ename == "ValueError"
    assert errors[5][0].evalue.startswith("unknown activation 'geluu'")


LONG = """
from repro_lib import Config, begin_notebook, run_experiment
from repro_lib.report import LiveTraining, training_form
begin_notebook("10_train", globals())
form = training_form(globals())
print(form.children[-2].comm.comm_id)
"""
IN_A_CELL = """
config = Config.for_model(model, profile, corpus=corpus, max_iters=max_iters)
run_experiment(model, activation, config, results_dir=results_dir, progress=LiveTraining())
"""


@pytest.mark.slow
def test_an_interruption_ends_a_training_whatever_started_it(
    corpus_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell, or a button, whose click JupyterLab sends to a thread of the kernel beside that of the cells."""
    monkeypatch.delenv(PROGRESS_FILE_VARIABLE, raising=False)
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(tmp_path))

    def said(words: str) -> str:
        """The next thing that the kernel shows with these words."""
        while words not in (text := json.dumps(client.get_iopub_msg(timeout=60)["content"])):
            pass
        return text

    try:
        given = {"profile": "smoke", "corpus": str(corpus_file), "results_dir": str(tmp_path / "results")}
        client.execute(parameters_cell(model="tinylstm", activation="relu", max_iters=10**6, **given))
        client.execute(LONG)
        button = json.loads(said("stdout"))["text"].strip()
        client.execute(IN_A_CELL)
        said("training progress")
        manager.interrupt_kernel()
        lines = json.loads(said("KeyboardInterrupt"))["traceback"]
        assert [re.sub(r"from .*", "", line) for line in lines] == [
            "KeyboardInterrupt: tinylstm with relu, trial 1, was stopped; asked for again it starts "
        ]
        client.control_channel.send(client.session.msg("create_subshell_request"))
        beside = client.get_control_msg(timeout=60)["content"]["subshell_id"]
        # ipykernel handles the first click where the button was made, and the second where that one came from.
        for _ in range(2):
            content = {"comm_id": button, "data": {"method": "custom", "content": {"event": "click"}}}
            click = client.session.msg("comm_msg", content)
            click["header"]["subshell_id"] = beside
            client.shell_channel.send(click)
            said("training progress")
            manager.interrupt_kernel()
            assert "tinylstm with relu, trial 1, was stopped; asked for again it " in said("was stopped")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
