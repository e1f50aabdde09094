"""The examination of a machine."""

from pathlib import Path

import pytest
from rich.console import Console

from repro_lib.cli import doctor


def test_each_check_that_passes_or_fails_is_one_line_and_failures_make_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "_training", lambda: iter([("training", False, "loss nan")]))
    monkeypatch.setattr(doctor, "_kernel", lambda: iter([]))
    monkeypatch.setattr(doctor, "_packages", lambda: 1 / 0)
    assert doctor.examine(Console(width=200), "nowhere", tmp_path) == 1
    said = capsys.readouterr().out
    assert "FAIL  training: loss nan" in said
    assert "ZeroDivisionError" in said, "a check that breaks is a finding, not the end"
    assert "FAIL  corpus: no corpus 'nowhere'" in said
    assert "not ready, 3 failed" in said


@pytest.mark.slow
def test_this_machine_trains_every_model_and_starts_a_kernel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = doctor.examine(Console(width=200), "shakespeare", tmp_path)
    said = capsys.readouterr().out
    assert code == 0, said
    for model in ("charlm", "minigpt", "nanotransformer", "convlm", "hybridlm", "tinylstm"):
        assert f"ok    training: {model}: one step" in said
    assert "ok    kernel" in said


def test_the_memory_of_a_container_counts_and_not_that_of_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"memory.max": [["max"], [str(2**30)]], "memory.current": [["5"], [str(2**29)]]}
    monkeypatch.setattr(doctor, "control_group", lambda name: files.get(name, []))
    assert doctor._free_memory() == 2**29
