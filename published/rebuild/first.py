"""Tables of the first edition, trials with seeds 42 to 51: the exploratory half, judged by the present rule."""

from collections.abc import Callable

import pandas as pd

from published.rebuild.stores import SIDE_MODELS, Published
from repro_lib.analysis.contrasts import LEADING, contrasts_frame
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.frames import pair_matrix
from repro_lib.analysis.selection import with_other
from repro_lib.analysis.study import Study
from repro_lib.analysis.trajectories import FOLLOWED
from repro_lib.metrics.uncertainty import Estimate, relative_contrast
from repro_lib.models.activations import smelu_beta
from repro_lib.store.schema import Result


def first_cells(published: Published) -> pd.DataFrame:
    """The cells of the first edition."""
    return known(published.first.study)


def first_contrasts(published: Published) -> pd.DataFrame:
    """Its contrasts with relu, by every metric and the present rule."""
    return by_metric(published.first.evidence, contrasts_frame)


def first_lengths(published: Published) -> pd.DataFrame:
    """Gelu against relu in its runs of other lengths, each with its learning rate decayed to zero, in both leading metrics."""
    first, rows = published.first, []
    for model in SIDE_MODELS:
        runs = {}
        for name in ("gelu", "relu"):
            if own := first.study.result(model, name):
                runs |= {(name, run.config["max_iters"]): run for run in [own, *with_other("max_iters", first.stored, own)]}
        for steps in sorted({steps for _, steps in runs}):
            pair = runs["gelu", steps], runs["relu", steps]
            row: dict[str, object] = {"model": model, "max_iters": steps, "n": len(pair[0].trials)}
            rows.append(row | {k: v for name in LEADING for k, v in _against(*pair, name).columns(name).items()})
    return pd.DataFrame(rows)


def smelu(published: Published) -> pd.DataFrame:
    """charlm with SmeLU by beta, each against relu (of its grid) in per cent, at 99 % so that five hold together at 95 %."""
    own = {(result.model_name, result.activation): result for result in published.first.study.results}
    relu, rows = own["charlm", "relu"], []
    for result in published.first.smelu:
        beta = float(smelu_beta(result.activation) or 0)
        row: dict[str, object] = {"activation": result.activation, "beta": beta, "n": len(result.trials)}
        for name in FOLLOWED:
            found = _against(result, relu, name, confidence=1 - 0.05 / len(published.first.smelu))
            row |= found.columns(f"against_relu_per_cent_{name}")
        rows.append(row)
    return pd.DataFrame(rows)


def context(published: Published) -> pd.DataFrame:
    """Every activation against relu with context 128 (its grid) and 64, two models."""
    frames = []
    for length, evidence in ((128, published.first.evidence), (64, published.first.side("context64/results").evidence)):
        frame = contrasts_frame(evidence)
        frames.append(frame[frame["model"].isin(SIDE_MODELS)].assign(context=length))
    return leading(pd.concat(frames, ignore_index=True), "context")


def known(study: Study) -> pd.DataFrame:
    """The cells of a study."""
    # A metric that was registered since these trials were measured has no column: their predictions are gone.
    return study.cells.dropna(axis="columns", how="all")


def by_metric(evidence: Evidence, of: Callable[[Evidence, str], pd.DataFrame]) -> pd.DataFrame:
    """A frame for each metric, one below the other."""
    frame = pd.concat([of(evidence, metric).assign(metric=metric) for metric in evidence.metrics], ignore_index=True)
    return leading(frame, "metric")


def leading(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The frame with these columns before all others."""
    return frame[[*columns, *(name for name in frame.columns if name not in columns)]]


def _against(first: Result, second: Result, metric: str, confidence: float = 0.95) -> Estimate:
    """The difference in per cent of the second, seed by seed."""
    return relative_contrast(pair_matrix(first, metric), pair_matrix(second, metric), confidence)
