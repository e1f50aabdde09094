"""Making the determinism certificate, for real; and every check of it fails where something is wrong with what it checks."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from repro_lib.cli import determinism_check
from repro_lib.config import MODEL_DEFAULTS, Config
from repro_lib.data import Dataset
from repro_lib.grid.pool import Pool
from repro_lib.models import registry
from repro_lib.models.convlm import ConvLM
from repro_lib.store.certificate import Certificate, certificate_or_reason
from repro_lib.training import experiment

Tiny = Callable[..., Config]
ROOT = Path(__file__).resolve().parents[2]
DIGESTS_OF_A_CELL = 9  # four of each of two trials, and one of all numbers


def doctor(results: Path, corpus: Path | str, *words: str, **environment: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "repro_lib", "doctor", "--determinism", "--results-dir", str(results)]
    command += ["--corpus", str(corpus), *words]
    variables = os.environ | environment
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout, done.stderr


def stored(results: Path) -> Certificate:
    certificate, said = certificate_or_reason(results)
    assert certificate, said
    return certificate


def checks(certificate: Certificate) -> dict[str, tuple[bool, str]]:
    return {check.name: (check.passed, check.said) for check in certificate.checks}


def test_this_machine_is_certified(tmp_path: Path, corpus_file: Path) -> None:
    code, output, error = doctor(tmp_path / "results", corpus_file, TMPDIR=str(tmp_path))
    assert (code, error) == (0, ""), output
    certificate = stored(tmp_path / "results")
    assert certificate.passed
    assert len(certificate.digests) == DIGESTS_OF_A_CELL * len(MODEL_DEFAULTS)
    # Trials of a model differ, and so do models; only models of the same layers start alike.
    assert len({value for name, value in certificate.digests.items() if "weights" in name}) == 2 * len(MODEL_DEFAULTS)
    assert certificate.machine.torch == torch.__version__
    assert f"torch {torch.__version__}" in output
    for name, value in certificate.digests.items():
        owner, _, kind = name.rpartition(", ")
        assert re.search(rf"^{owner}: .*\b{kind} {value[:12]}", output, re.MULTILINE)
    for check in certificate.checks:
        assert f"ok    {check.name}: {check.said}\n" in output
    assert re.search(r"^determinism certificate of \d{4}-\d\d-\d\d \d\d:\d\d UTC: passed$", output, re.MULTILINE)
    assert list(tmp_path.glob("repro-*")) == [], "no folder of workers is left"
    assert [path.name for path in (tmp_path / "results").rglob("*")] == ["certificate", "determinism.json"]


# --- what is wrong is found

# Changes the library in each process that is started with it, before anything else runs.
PLANT = """
import sys
if "resource_tracker" not in " ".join(sys.orig_argv):
    import os
    from repro_lib import determinism, trial_state
    honest = {where}.{what}
    {where}.{what} = {instead}
"""


def planted(folder: Path, where: str, what: str, instead: str) -> str:
    """A PYTHONPATH with which ``what`` in ``where`` is another function, made from the ``honest`` one."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(PLANT.format(where=where, what=what, instead=instead))
    return os.pathsep.join([str(folder), str(ROOT)])


@pytest.mark.slow
def test_a_seed_that_depends_on_the_process_makes_it_fail(tmp_path: Path, corpus_file: Path) -> None:
    instead = "lambda seed, name: honest(seed, name) ^ os.getpid()"
    path = planted(tmp_path / "plant", "determinism", "_derive", instead)
    code, output, error = doctor(tmp_path / "results", corpus_file, PYTHONPATH=path)
    assert (code, error) == (1, ""), output
    certificate = stored(tmp_path / "results")
    found = checks(certificate)
    assert {name: passed for name, (passed, _) in found.items()} == {
        "processes": False,
        "resumed": False,
        "constant predictor": True,
        "causality": True,
    }
    assert re.fullmatch(r"\d+ of 63 digests of the same training differ, the first: charlm .*, init", found["processes"][1])
    assert "was not resumed from its checkpoint" in found["resumed"][1]
    assert "comes from other initial weights" in found["resumed"][1]
    assert f"FAIL  processes: {found['processes'][1]}\n" in output
    assert output.splitlines()[-2].endswith(" UTC: FAILED")
    assert certificate.outcome == "FAILED"


@pytest.mark.slow
def test_a_resumption_that_forgets_a_stream_makes_it_fail(tmp_path: Path, corpus_file: Path) -> None:
    """The dropout masks of a resumed trial begin again: nothing but digests could show it."""
    restore = (
        "lambda self, *words: (s := self.streams.dropout.get_state(), honest(self, *words), self.streams.dropout.set_state(s))"
    )
    path = planted(tmp_path / "plant", "trial_state.TrialHistory", "restore", restore)
    code, output, error = doctor(tmp_path / "results", corpus_file, PYTHONPATH=path)
    assert (code, error) == (1, ""), output
    found = checks(stored(tmp_path / "results"))
    assert [name for name, (passed, _) in found.items() if not passed] == ["resumed"]
    said = "4 of 9 digests of the same training differ, the first: hybridlm with swiglu, trial 2, predictions"
    assert found["resumed"][1] == said


def test_a_process_that_is_not_killed_proves_nothing(tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(determinism_check.KILLED_MODEL, max_iters=determinism_check.ITERATIONS)
    monkeypatch.setattr(determinism_check, "KILLED_AT", (9, 9))
    with contextlib.closing(Pool(1)) as pool:
        assert (
            determinism_check._kill_and_resume(pool, config, tmp_path)
            == "the process that was to be killed ended otherwise: done"
        )


def test_a_cell_that_cannot_be_trained_fails_the_checks_with_its_reason(tmp_path: Path, tiny: Tiny) -> None:
    explosive = {"learning_rate": 10.0, "weight_decay": 10.0, "grad_clip": 1e30, "warmup_iters": 0, "max_iters": 80}
    digests, found = determinism_check.train_in_many_ways(tmp_path, {"hybridlm": tiny("hybridlm", **explosive)}, workers=2)
    assert digests == {}
    assert [check.passed for check in found] == [False, False]
    assert found[0].said.startswith("hybridlm could not be trained: the loss became")


def test_digests_that_cannot_differ_prove_nothing() -> None:
    digests = {f"charlm, trial {k}, {kind}": f"{k}" * 64 for k in (1, 2) for kind in ("init", "weights", "steps")}
    assert determinism_check._no_difference_between_trials(digests) is None
    digests["charlm, trial 2, weights"] = "1" * 64
    problem = determinism_check._no_difference_between_trials(digests)
    assert problem == "two trials with different seeds have the same digest: charlm, trial 1, weights"


def test_every_difference_is_found_also_a_missing_digest() -> None:
    assert determinism_check._difference({"a": "1", "b": "2"}, {"b": "2", "a": "1"}) is None
    for other in ({"a": "1"}, {"a": "1", "b": "3"}, {"a": "1", "b": "2", "c": "3"}):
        problem = determinism_check._difference({"a": "1", "b": "2"}, other)
        assert problem == f"1 of 2 digests of the same training differ, the first: {'c' if 'c' in other else 'b'}"


# --- probes


def test_the_probe_of_constant_predictors_fails_where_they_are_not_flagged(
    tiny: Tiny, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = (tiny(determinism_check.KILLED_MODEL), dataset)
    assert determinism_check.check_constant_predictors(*probe).passed
    flags = experiment._flags
    # By its loss alone one that happens to fit the evaluation text would pass for a model.
    monkeypatch.setattr(experiment, "_constant", lambda *_: [])
    found = determinism_check.check_constant_predictors(*probe)
    assert not found.passed
    assert re.fullmatch("two trials that always answer the frequencies of the .* text are not flagged", found.said)
    monkeypatch.setattr(experiment, "_flags", lambda *words: [*flags(*words), "untrained: all"])
    found = determinism_check.check_constant_predictors(*probe)
    assert (found.passed, found.said) == (False, "two trials that know the text are flagged as if they had learnt nothing")


class Leaky(nn.Module):
    """A model with a little of the whole text in each place."""

    def __init__(self, *words: Any) -> None:
        super().__init__()
        self.model = ConvLM(*words)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits = self.model(tokens)
        return logits + 1e-3 * logits.mean(dim=1, keepdim=True)


class Blind(nn.Module):
    """A model that does not look."""

    def __init__(self, *words: Any) -> None:
        super().__init__()
        self.model = ConvLM(*words)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model(torch.zeros_like(tokens))


@pytest.mark.parametrize(
    ("kind", "said"), [(Leaky, "convlm sees character 1 before its time"), (Blind, "convlm does not see character 1 at all")]
)
def test_the_causality_probe_fails_for_a_model_that_sees_the_future_or_nothing(
    kind: type[nn.Module], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._MODELS, "convlm", kind)
    found = determinism_check.check_causality("cpu")
    assert (found.passed, found.said) == (False, said)


def test_the_cost_of_determinism_can_be_measured(dataset: Dataset, tiny: Tiny) -> None:
    """It is measured on CUDA alone; here that the measurement runs."""
    assert 0 < determinism_check.measure_slowdown(tiny(determinism_check.KILLED_MODEL), dataset, rounds=1, steps=1) < 1000


# --- what is asked for and cannot be had


@pytest.mark.parametrize(
    ("words", "corpus", "said"),
    [
        ((), "nowhere", "no corpus 'nowhere'"),
        (("--device", "cuda"), "shakespeare", "torch finds no CUDA device here"),
    ],
)
def test_what_is_not_there_is_said_in_a_sentence(words: tuple[str, ...], corpus: str, said: str, tmp_path: Path) -> None:
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    code, output, error = doctor(tmp_path / "results", corpus, *words)
    assert (code, output) == (2, "")
    assert error.startswith("repro: ")
    assert said in error
    assert error.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("in the way")
    code, output, error = doctor(tmp_path / "results", "shakespeare")
    assert (code, output) == (1, "")
    assert "could not be written" in error
