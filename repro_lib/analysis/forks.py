"""When trials part: forked at several points of one training, how far their predictions, weights and basins end apart."""

import math
from itertools import combinations

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from repro_lib.analysis.formatting import listed, small
from repro_lib.analysis.frames import pair_matrix, rows_of
from repro_lib.analysis.stored_models import config_of, corpus_of
from repro_lib.config import config_values
from repro_lib.data import CorpusError, EvaluationWindows, make_dataset
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import TRIALS_FOR_INTERVAL, Estimate, jackknife_pairwise
from repro_lib.models.determinism import deterministic_arithmetic
from repro_lib.models.registry import build_model
from repro_lib.store.derived import derived
from repro_lib.store.designs import FORKS, known_factors, load_design
from repro_lib.store.schema import Result, ResultError
from repro_lib.store.store import Store

# The straight line between two ends is looked at in so many places between them, on every eighth evaluation block.
_PLACES, _BLOCK_STEP = 5, 8
_METRIC = "total_variation"
# What differs between trials from a fork on.
VARIED = {"order": "another data order", "bit": "one flipped bit"}


def forks_frame(store: Store, model: str) -> pd.DataFrame:
    """One row per fork of a model that was trained twice or more; empty where none was (``repro grid --profile forks``).

    Columns: varies (order, bit: what is another one from there on), share (of the steps that all trials are one), n;
    total_variation with _low and _high; distance: between the final weights of two trials, as a share of their own length;
    barrier: by how many nats the loss on the straight line between two trials' weights rises above the line between their
    losses, at most (Frankle et al. 2019, arXiv 1912.05671). Both are means over pairs of trials, the barrier over those with
    the first two others; NaN where weights or text are gone.
    """
    design = load_design(store, FORKS) if FORKS in known_factors(store) else None
    results = design.results([result for _, result in store.load()[0]]) if design else []
    results = [result for result in results if result.model_name == model and len(result.trials) > 1]
    inputs = [[result.config_sha256, [trial.weights_sha256 for trial in result.trials]] for result in results]
    apart = derived(store.folder, f"forks-{model}", inputs, lambda: [_apart(store, result) for result in results])
    rows = []
    for result, (distance, barrier) in zip(results, apart, strict=True):
        estimate = jackknife_pairwise(pair_matrix(result, _METRIC), PAIR_METRICS[_METRIC].largest)
        share = config_values(result.config)["fork_share"]
        about = {"varies": result.config["vary"], "share": share, "n": len(result.trials)}
        rows.append(about | estimate.columns(_METRIC) | {"distance": distance, "barrier": barrier})
    columns = ["varies", "share", "n", *(f"{_METRIC}{end}" for end in ("", "_low", "_high")), "distance", "barrier"]
    return pd.DataFrame(rows, columns=columns).sort_values(["varies", "share"], ascending=[False, True], ignore_index=True)


def _apart(store: Store, result: Result) -> tuple[float, float]:
    try:
        weights = [store.weights(result, trial.trial) for trial in result.trials]
        windows = make_dataset(corpus_of(result), result.config["train_split"], result.config["block_size"]).windows
    except (ResultError, CorpusError):
        return math.nan, math.nan
    flat = [torch.cat([tensor.flatten().double() for tensor in of.values()]) for of in weights]
    distances = [float((a - b).norm() / torch.stack([a.norm(), b.norm()]).mean()) for a, b in combinations(flat, 2)]
    barriers = [_barrier(result, weights[0], other, windows.every(_BLOCK_STEP)) for other in weights[1:3]]
    return sum(distances) / len(distances), sum(barriers) / len(barriers)


@torch.no_grad()
def _barrier(result: Result, first: dict[str, Tensor], second: dict[str, Tensor], windows: EvaluationWindows) -> float:
    model, config = build_model(result.model_name, config_of(result), result.activation).eval(), result.config
    losses, shares = [], [place / (_PLACES + 1) for place in range(_PLACES + 2)]
    with deterministic_arithmetic():
        for share in shares:
            model.load_state_dict({name: first[name].lerp(second[name], share) for name in first})
            logits = torch.cat([model(inputs) for _, inputs in windows.pieces(config["block_size"])], dim=1)
            losses.append(F.cross_entropy(logits.flatten(0, 1), windows.targets.flatten()).item())
    ends = [(1 - share) * losses[0] + share * losses[-1] for share in shares]
    return max(loss - end for loss, end in zip(losses, ends, strict=True))


def forks_sentence(frame: pd.DataFrame, model: str) -> str:
    """Of the disagreement of whole trainings, how much is left where trials part later, by what varies."""
    parts = []
    for varies, rows in frame.groupby("varies", sort=False):
        whole = rows.iloc[0]
        if whole["share"] > 0 or not whole[_METRIC] > 0:
            continue
        later = rows_of(rows)[1:]
        left = [100 * row[_METRIC] / whole[_METRIC] for row in later]
        size = Estimate.in_row(whole, _METRIC).written(small)
        parts.append(f"parted by {VARIED[str(varies)]} at the start {size}")
        if later:
            after = listed([f"{100 * row['share']:g}" for row in later])
            shares = listed([f"{part:.{int(0 < part < 1)}f}" for part in left])
            parts[-1] += f", after {after} % of the steps {shares} % of that"
    if not parts:
        return f"{model}: no fork from the start was trained twice, so there is nothing to set later ones against."
    n = int(frame["n"].min())
    few = "" if n >= TRIALS_FOR_INTERVAL else ", too few for intervals"
    return f"{model}, total variation at the end of training, N = {n} trials{few}: {'; '.join(parts)}."
