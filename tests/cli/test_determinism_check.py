"""``repro doctor --determinism``, for real; and every check of it fails where something is wrong with what it checks."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from kinds import Tiny
from torch import nn

from repro_lib.cli import determinism_check
from repro_lib.cli.main import main
from repro_lib.config import MODEL_DEFAULTS
from repro_lib.grid.pool import Pool
from repro_lib.models import registry
from repro_lib.models.convlm import ConvLM

ROOT = Path(__file__).resolve().parents[2]
DIGESTS_OF_A_CELL = 9  # four of each of two trials, and one of all numbers


def python(*words: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, output and errors of an interpreter."""
    command, variables = [sys.executable, *words], os.environ | environment
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_this_machine_gives_the_same_bits_every_time(tmp_path: Path, corpus_file: Path) -> None:
    command = ("-m", "repro_lib", "doctor", "--determinism", "--corpus", str(corpus_file))
    code, output, error = python(*command, "--results-dir", str(tmp_path / "results"), TMPDIR=str(tmp_path))
    assert (code, error) == (0, ""), output
    digests = dict(re.findall(r"^ +([0-9a-f]{12})  (.*)$", output, re.MULTILINE))
    assert output.count("numbers\n") == len(MODEL_DEFAULTS)
    # Trials of a model differ, and so do models; only models of the same layers start alike.
    assert len([name for name in digests.values() if name.endswith("weights")]) == 2 * len(MODEL_DEFAULTS)
    assert re.findall(r"^(ok  |FAIL)  ", output, re.MULTILINE) == ["ok  "] * 3
    assert f"ok    {DIGESTS_OF_A_CELL * len(MODEL_DEFAULTS)} digests of {len(MODEL_DEFAULTS)} cells are the same" in output
    assert "ok    hybridlm, killed by SIGKILL and resumed, has the same 9 digests as undisturbed" in output
    assert output.endswith(f"torch {torch.__version__} on cpu: the same bits every time\n")
    # torch makes an empty cache of compiled code there, unless a process before has told it by a variable where one is.
    left = [path for path in tmp_path.iterdir() if not path.name.startswith("torchinductor_")]
    assert left == [], "nothing is stored, and no folder of workers is left"


# Changes the library in each process that is started with it, before anything else runs.
PLANT = """
import sys
if "resource_tracker" not in " ".join(sys.orig_argv):
    import os
    from repro_lib.models import determinism
    from repro_lib.training import state
    honest = {where}.{what}
    {where}.{what} = {instead}
"""
# The whole check, but of one model: enough to find what is planted.
OF_ONE_MODEL = """
import sys
from rich.console import Console
from repro_lib.cli import determinism_check
determinism_check.model_names = lambda: [determinism_check.KILLED_MODEL]
sys.exit(determinism_check.check_determinism(Console(markup=False, soft_wrap=True), sys.argv[1], "cpu", 2))
"""
# The dropout masks of a resumed trial begin again: nothing but digests could show it.
FORGETFUL = (
    "lambda self, *words: (s := self.streams.dropout.get_state(), honest(self, *words), self.streams.dropout.set_state(s))"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "what", "instead", "found"),
    [
        (
            "determinism",
            "_derive",
            "lambda seed, name: honest(seed, name) ^ os.getpid()",
            [
                r"\d+ of 9 digests of the same training differ, the first: hybridlm .*, init",
                # Whether the checkpoint of other weights is refused or used: the trial is another one.
                r"hybridlm should be done, was failed: .* did not go on from trial 2, iteration 7; .*|\d of 9 digests .*",
            ],
        ),
        (
            "state.TrialHistory",
            "restore",
            FORGETFUL,
            [r"4 of 9 digests of the same training differ, the first: hybridlm with swiglu, trial 2, predictions"],
        ),
    ],
    ids=["a seed that depends on the process", "a resumption that forgets a stream"],
)
def test_a_planted_fault_is_found(
    tmp_path: Path, corpus_file: Path, where: str, what: str, instead: str, found: list[str]
) -> None:
    (tmp_path / "sitecustomize.py").write_text(PLANT.format(where=where, what=what, instead=instead))
    code, output, error = python("-c", OF_ONE_MODEL, str(corpus_file), PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert (code, error) == (1, ""), output
    failures = re.findall(r"^FAIL  (.*)$", output, re.MULTILINE)
    assert len(failures) == len(found)
    for failure, pattern in zip(failures, found, strict=True):
        assert re.fullmatch(pattern, failure)
    assert output.endswith(" on cpu: NOT the same bits every time\n")


def test_a_training_that_fails_is_not_killed_or_begins_elsewhere_proves_nothing(tmp_path: Path, tiny: Tiny) -> None:
    explosive = {"learning_rate": 10.0, "weight_decay": 10.0, "grad_clip": 1e30, "warmup_iters": 0, "max_iters": 80}
    one = {"hybridlm": tiny("hybridlm", max_iters=determinism_check.ITERATIONS)}
    with contextlib.closing(Pool(1)) as pool:
        problem = determinism_check._train(pool, tmp_path / "a", one, "killed", killed_at=(9, 9))
        assert problem == "hybridlm should be killed, was done: None"
        problem = determinism_check._train(pool, tmp_path / "b", one, "done", begins_at=(2, 7))
        assert problem is not None
        assert "it did not go on from trial 2, iteration 7" in problem
        problem = determinism_check._train(pool, tmp_path / "c", {"hybridlm": tiny("hybridlm", **explosive)}, "done")
        assert problem is not None
        assert problem.startswith("hybridlm should be done, was failed: the loss became")


def test_every_difference_is_found_also_a_missing_digest() -> None:
    expected = {"a": "1", "b": "2"}
    assert determinism_check.difference(expected, {"b": "2", "a": "1"}) is None
    for other, name in (({"a": "1"}, "b"), ({"a": "1", "b": "3"}, "b"), ({"a": "1", "b": "2", "c": "3"}, "c")):
        problem = determinism_check.difference(expected, other)
        assert problem == f"1 of 2 digests of the same training differ, the first: {name}"


class Leaky(nn.Module):
    """A model with a little of the whole text in each place."""

    def __init__(self, *words: Any) -> None:
        super().__init__()
        self.model = ConvLM(*words)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits = self.model(tokens)
        return logits + 1e-3 * logits.mean(dim=1, keepdim=True)


class Blind(Leaky):
    """A model that does not look."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model(torch.zeros_like(tokens))


@pytest.mark.parametrize(
    ("kind", "said"), [(Leaky, "convlm sees character 1 before its time"), (Blind, "convlm does not see character 1 at all")]
)
def test_the_causality_probe_fails_for_a_model_that_sees_the_future_or_nothing(
    kind: type[nn.Module], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(determinism_check, "model_names", lambda: ["convlm"])
    monkeypatch.setitem(registry._MODELS, "convlm", kind)
    assert list(determinism_check.probe_causality("cpu").values()) == [said]


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--corpus", "nowhere"], "no corpus 'nowhere'"), (["--device", "cuda"], "torch finds no CUDA device here")],
)
def test_what_is_not_there_is_said_in_a_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    assert main(["doctor", "--determinism", *words]) == 2
    output, error = capsys.readouterr()
    assert (output, error.count("\n")) == ("", 1)
    assert error.startswith("repro: ")
    assert said in error
