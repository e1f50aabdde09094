"""The command line as users type it: flags, errors in one sentence, exit codes."""

import subprocess
import sys
from pathlib import Path

import pytest

from repro_lib.cli.commands import make_parser
from repro_lib.cli.main import main
from repro_lib.grid.notebooks import notebooks_dir
from repro_lib.store.store import Store


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    return ["--results-dir", str(tmp_path / "results"), "--reports-dir", str(tmp_path / "reports")]


def test_help_loads_neither_torch_nor_pandas() -> None:
    code = (
        "import sys; from repro_lib.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'pandas', 'papermill', 'nbconvert', 'matplotlib'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--model", "nope"], "unknown model 'nope'; known: charlm"),
        (["train", "--model", "charlm", "--activation", "rleu"], "unknown activation 'rleu'; known: relu"),
        (["train", "--model", "charlm", "--max_iters", "0"], "max_iters = 0 is not possible"),
        (["train", "--model", "charlm", "--train-split", "1.5"], "train_split = 1.5 is not possible"),
        (["train", "--model", "charlm", "--learning_rate", "nan"], "learning_rate = nan is not possible"),
        (["train", "--model", "charlm", "--workers", "0"], "--workers must be at least 1"),
        (["train", "--model", "charlm", "--margin", "0"], "the margin is in per cent of the reference, above 0"),
        (["train", "--model", "charlm", "--vary", "seed"], "vary = 'seed' is not possible"),
        (["train", "--model", "charlm", "--n_head", "7"], "must be a multiple of 2 x n_head (7)"),
        (["train", "--model", "charlm", "--corpus", "/no/such.txt"], "it is neither one of shakespeare"),
        (["prepare-data", "--corpus", "nowhere"], "no corpus 'nowhere'"),
        (["process"], "no results yet in"),
        (["report"], "no results yet in"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    words: list[str], said: str, folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, *folders]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("repro: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("grid --max_iter 5", "unrecognized arguments: --max-iter 5"),
        ("grid --max-iters five", "invalid int value: 'five'"),
        ("train", "required: --models"),
        ("train --model charlm --execution parallel", "invalid choice: 'parallel' (choose from "),
        ("grid --modles charlm", "unrecognized arguments: --modles charlm; did you mean --models?"),
        ("grid --analyses claims", "invalid choice: 'claims' (choose from "),
        ("fly", "invalid choice: 'fly'"),
        ("status -- --jobs 4", "only repro grid --executor snakemake takes options behind --, got --jobs 4"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words.split())
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("words", "said"), [("", "what to do first:\n  repro grid "), ("--version", "repro 0.")])
def test_no_command_shows_what_to_do_first_and_a_version_is_a_number(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(words.split())
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("command", make_parser().commands)
def test_every_help_text_says_what_happens_without_its_flag(command: str) -> None:
    """A switch is off; all else names its default, the true one where it has a value."""
    parser = make_parser().commands[command]
    flags = [action for action in parser._actions if action.option_strings and action.nargs != 0 and not action.required]
    # So that the help itself can be printed, too.
    said = {flag.option_strings[0]: (flag.help or "") % {} for flag in flags if parser.format_help()}
    assert {flag: about for flag, about in said.items() if "default: " not in about} == {}
    for flag in flags:
        if flag.default not in (None, []) and not flag.option_strings[0].endswith("-dir"):
            named = f"{flag.default:g}" if isinstance(flag.default, float) else str(flag.default)
            assert f"default: {named}" in said[flag.option_strings[0]]


def test_no_traceback_reaches_a_user() -> None:
    command = [sys.executable, "-m", "repro_lib", "grid", "--profile", "quik"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("repro: unknown profile 'quik'")


def test_train_takes_the_flags_of_the_earlier_study(corpus_file: Path, folders: list[str], tmp_path: Path) -> None:
    words = "train --model charlm --activation relu smelu_0.5 --trials 2 --max_iters 2 --batch_size=2 --n-embd 16 --n_head 2"
    assert main([*words.split(), "--workers", "1", "--execution", "stacked", "--corpus", str(corpus_file), *folders]) == 0
    results = [result for _, result in Store(tmp_path / "results").load()[0]]
    assert sorted(result.activation for result in results) == ["relu", "smelu_05"]
    assert results[0].config_sources["max_iters"] == results[0].config_sources["execution"] == "explicit"
    assert (results[0].config["n_embd"], results[0].config["execution"]) == (16, "stacked")
    assert [record.stack for record in results[0].trials] == [[1, 2]] * 2


def test_a_cell_that_diverges_is_recorded_as_failed_and_the_exit_code_says_so(
    corpus_file: Path, folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "train --model charlm --activation relu --trials 1 --max_iters 60 --profile smoke --workers 1"
    # Decay of 10 at a rate of 10 multiplies every matrix by about -99 a step: no float survives that for long.
    explosive = ["--learning_rate", "10", "--weight_decay", "10", "--warmup_iters", "0"]
    assert main([*words.split(), *explosive, "--corpus", str(corpus_file), *folders]) == 1
    store = Store(tmp_path / "results")
    assert store.load()[0] == []
    (note,) = store.failures()
    assert "for charlm with relu, trial 1, iteration" in note["reason"]
    assert note["reason"] in capsys.readouterr().out.replace("\n", " ")


def test_status_names_what_is_done_failed_and_missing(
    corpus_file: Path, folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "charlm-relu-20260101_000000.json").write_text("{")
    assert main(["status", "--models", "charlm", "--activations", "relu", *folders]) == 1
    said = capsys.readouterr().out
    assert "charlm-relu" in said
    assert "missing" in said
    assert "is not a whole JSON file" in said
    assert "0 of 1 cell done" in said


def test_notebooks_are_copied_over_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["notebooks", str(tmp_path / "new" / "mine")]) == 0
    copies = sorted((tmp_path / "new" / "mine").iterdir())
    assert [copy.read_bytes() for copy in copies] == [ours.read_bytes() for ours in sorted(notebooks_dir().glob("*.ipynb"))]
    for copy in copies[1:]:
        copy.unlink()
    copies[0].write_text("edited")
    assert main(["notebooks", str(tmp_path / "new" / "mine")]) == 2
    assert "has 00_quickstart.ipynb already; nothing was copied" in capsys.readouterr().err
    assert [copy.read_text() for copy in copies[0].parent.iterdir()] == ["edited"]
