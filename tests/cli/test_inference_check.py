"""The noise floor: what is planted in a model that depends on how it is asked is found, and stored models are asked."""

from pathlib import Path

import pytest
import torch
from kinds import Tiny
from torch import Tensor

from repro_lib.analysis.inference_noise import WAYS, inference_noise
from repro_lib.cli.main import main
from repro_lib.training.experiment import run_experiment


def test_what_depends_on_batch_threads_or_precision_is_found_and_nothing_else() -> None:
    weight = torch.eye(5) * 4

    def score(tokens: Tensor) -> Tensor:
        logits = torch.nn.functional.one_hot((tokens + 1) % 5, 5).float() @ weight  # after k comes k + 1
        if len(tokens) == 7:
            logits[..., 0] += 8 * (tokens == 2)  # and in batches of seven 0 after 2
        if torch.get_num_threads() == 2:
            logits = logits + 0.25
        return logits

    inputs = torch.arange(4 * 14).remainder(5).view(14, 4)
    threads = torch.get_num_threads()
    frame = inference_noise(score, inputs, context=4, length=9).set_index("way")
    assert torch.get_num_threads() == threads
    assert list(frame.index) == list(WAYS)
    assert frame["same"].to_dict() == {way: way not in ("in batches of 7", "two threads") for way in WAYS}
    sevens, two = frame.loc["in batches of 7"], frame.loc["two threads"]
    # Eleven of the 56 tokens are a 2; the first row is 0 1 2 3, and what follows it 4 0 1 2 and then 0 instead of 3.
    assert (sevens["largest"], sevens["churn"]) == (8, pytest.approx(11 / 56))
    assert sevens["first_difference"] == 5
    # The same to all logits of a token is no other probability.
    assert (two["largest"], two["relative_pd"], two["churn"]) == (0.25, pytest.approx(0, abs=1e-6), 0)
    assert frame["first_difference"].isna().sum() == 4


def test_stored_models_are_asked_and_one_without_weights_is_named(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for model in ("charlm", "tinylstm"):
        run_experiment(model, "gelu", tiny(model), results_dir=tmp_path)
    for path in (tmp_path / "weights").glob("tinylstm-*"):
        path.unlink()
    assert main(["doctor", "--inference", "--results-dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "charlm with gelu, trial 1, asked for " in said
    assert said.count("most probable characters flip") + said.count("the same bits") == len(WAYS) - 1
    assert "note  tinylstm with gelu: weights/tinylstm-gelu-" in said
    for path in (tmp_path / "weights").iterdir():
        path.unlink()
    assert main(["doctor", "--inference", "--results-dir", str(tmp_path)]) == 1
