"""One or two arms of anybody's models: frames of models, pairs, arms, their contrast and an update, with notes in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from repro_lib.analysis.comparison.aligned import aligned, right_answers
from repro_lib.analysis.comparison.flips import Flips, across, count_flips, disagreement
from repro_lib.analysis.comparison.kinds import kind_of, one_dimensional
from repro_lib.analysis.comparison.measured import Measured, measure
from repro_lib.analysis.contrasts import LEADING
from repro_lib.analysis.frames import rows_of
from repro_lib.analysis.verdicts import verdict_on_difference
from repro_lib.metrics.churn_and_influence import churn_and_error
from repro_lib.metrics.hypothesis_tests import p_equal, p_value, trials_needed
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import Estimate, Float64, contrast, jackknife_pairwise, mean_interval, relative_contrast
from repro_lib.store.foreign import ForeignError, Scored

# A slice of fewer examples than this is chance, and with more labels than this a table is none.
_LEAST_EXAMPLES, _MOST_SLICES = 10, 20


@dataclass(frozen=True, eq=False)
class Compared:
    """What was compared and all numbers of it; the frames are tidy, and made on first use.

    ``arms``: the names of the models by arm, the reference second. ``kind``: of ``kinds.KINDS``. ``paired``: whether model k of
    both arms shares a seed. ``margin``: a share of the reference's PD. ``notes``: sentences that a reader must know."""

    kind: str
    arms: dict[str, list[str]]
    measured: Measured
    pairs_at: NDArray[np.int64]
    ids: NDArray[Any]
    margin: float
    paired: bool
    update: bool
    notes: tuple[str, ...] = ()

    @property
    def metrics(self) -> list[str]:
        """The metrics that are defined for this kind, the leading ones first."""
        return list(self.measured.values)

    @property
    def leading(self) -> list[str]:
        """The metrics that a headline names: both leading ones, or churn where nothing else is defined."""
        return [metric for metric in LEADING if metric in self.measured.values] or ["churn"]

    def matrix(self, metric: str, rows: int = 0, columns: int = 0) -> Float64:
        """A metric between the models of two arms by number, (N, N) within an arm; NaN where it was not compared."""
        whole = np.full((sum(map(len, self.arms.values())),) * 2, np.nan)
        np.fill_diagonal(whole, 0.0)
        first, second = self.pairs_at.T
        whole[first, second] = whole[second, first] = self.measured.values[metric]
        return whole[np.ix_(self._places(rows), self._places(columns))]

    def _places(self, arm: int) -> NDArray[np.intp]:
        sizes = [len(names) for names in self.arms.values()]
        return np.arange(sum(sizes[:arm]), sum(sizes[: arm + 1]))

    def _answers(self, arm: int) -> NDArray[np.int64]:
        return self.measured.answers[self._places(arm)]

    @cached_property
    def models(self) -> pd.DataFrame:
        """A row per trained model: arm, model, accuracy (NaN without labels), and its mean PD to the others of its arm."""
        frames = []
        for k, (arm, names) in enumerate(self.arms.items()):
            far = {f"{m}_to_others": self.matrix(m, k, k).sum(axis=1) / (len(names) - 1 or np.nan) for m in self.leading}
            frames.append(pd.DataFrame({"arm": arm, "model": names, "accuracy": self._accuracy(k), **far}))
        return pd.concat(frames, ignore_index=True)

    def _accuracy(self, arm: int) -> Float64:
        labels, answered = self.measured.labels, self._answers(arm)
        return np.full(len(answered), np.nan) if labels is None else (answered == labels).mean(axis=1)

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """A row per pair of models that was compared: arm and model of both, identical, and each metric."""
        names = [(arm, name) for arm, models in self.arms.items() for name in models]
        columns = ["arm_1", "model_1", "arm_2", "model_2"]
        frame = pd.DataFrame([(*names[i], *names[j]) for i, j in self.pairs_at.tolist()], columns=columns)
        # Every number alike: what a metric of exactly 0 says of whole distributions, and answers say of themselves.
        frame["identical"] = self.measured.values[self.leading[0]] == 0
        return frame.assign(**{metric: self.measured.values[metric] for metric in self.metrics})

    @cached_property
    def by_arm(self) -> pd.DataFrame:
        """A row per arm and number: arm, metric, n (models), value with _low and _high (95 %, jackknife over models).

        Beside the metrics: unanimity and, with labels, accuracy, churn_per_error and churn_minus_error."""
        rows = [(arm, name, each) for k, arm in enumerate(self.arms) for name, each in self.numbers_of(k).items()]
        frame = [{"arm": arm, "metric": name, "n": of.n, **of.columns("value")} for arm, name, of in rows]
        return pd.DataFrame(frame, columns=["arm", "metric", "n", "value", "value_low", "value_high"])

    def numbers_of(self, arm: int) -> dict[str, Estimate]:
        """The numbers of one arm by name."""
        n, answered = len(self._places(arm)), self._answers(arm)
        numbers = {m: jackknife_pairwise(self.matrix(m, arm, arm), PAIR_METRICS[m].largest) for m in self.metrics if n > 1}
        if n > 1:
            numbers["unanimity"] = Estimate(float((answered == answered[0]).all(axis=0).mean()), np.nan, np.nan, n)
        if self.measured.labels is not None:
            numbers["accuracy"] = mean_interval(right := self._accuracy(arm), 0.0, 1.0)
            if n > 1:
                beside = churn_and_error(self.matrix("churn", arm, arm), 1 - right)
                numbers |= {"churn_per_error": beside.ratio, "churn_minus_error": beside.residual}
        return numbers

    @cached_property
    def contrast(self) -> pd.DataFrame:
        """The first arm against the second, a row per metric; empty unless both have two models.

        Columns: metric; n (models of the smaller arm), paired; difference and per_cent (of the second arm's) with _low, _high;
        p (that it is 0), margin (per cent) and p_equal (that it is not within it); verdict; models_needed, NaN where none tell.
        """
        rows = []
        for metric in self.metrics if len(self.arms) == 2 and min(map(len, self.arms.values())) > 1 else []:
            one, other = (self.matrix(metric, k, k) for k in (0, 1))
            found = contrast(one, other, paired=self.paired)
            ends = [contrast(one, other, 1 + side * self.margin, self.paired) for side in (-1, 1)]
            p, equal = p_value(found), p_equal(*ends)
            relative = relative_contrast(one, other, paired=self.paired)
            row = {"metric": metric, "n": found.n, "paired": self.paired, **found.columns("difference")}
            row |= {**relative.columns("per_cent"), "p": p, "margin": 100 * self.margin, "p_equal": equal}
            row |= {"verdict": verdict_on_difference(found.n, p, equal), "models_needed": trials_needed(found) or np.nan}
            rows.append(row)
        return pd.DataFrame(rows)

    @cached_property
    def flips(self) -> pd.DataFrame:
        """From the models of the second arm (old) to those of the first (new): metric, value with _low and _high (95 %).

        churn; floor, the churn among old models; excess over it; with labels positive_flips, negative_flips, wrong_to_wrong,
        win_loss (positive over negative) and accuracy_change. With ``update`` each metric, with its floor and excess. Empty for
        one arm."""
        return pd.DataFrame([{"metric": name, "n": of.n, **of.columns("value")} for name, of in self.changes.items()])

    @cached_property
    def counts(self) -> Flips:
        """The flips of every old model (rows) to every new one (columns), in examples."""
        return count_flips(self._answers(1), self._answers(0), self.measured.labels)

    @cached_property
    def changes(self) -> dict[str, Estimate]:
        """The numbers of ``flips`` by name."""
        if len(self.arms) < 2:
            return {}
        examples, counts = self.measured.answers.shape[1], self.counts
        between = {m: self.matrix(m, 1, 0) for m in self.metrics} if self.update else {"churn": counts.changed / examples}
        numbers = {}
        for metric, values in between.items():
            floor, name = self.matrix(metric, 1, 1), "" if metric == "churn" else f"{metric}_"
            numbers |= {metric: across(values), f"{name}floor": jackknife_pairwise(floor, PAIR_METRICS[metric].largest)}
            numbers[f"{name}excess"] = across(values, floor)
        if self.measured.labels is not None:
            kinds = {"positive_flips": counts.positive, "negative_flips": counts.negative}
            kinds |= {"wrong_to_wrong": counts.wrong_to_wrong, "accuracy_change": counts.positive - counts.negative}
            numbers |= {name: across(of / examples) for name, of in kinds.items()}
            numbers["win_loss"] = across(counts.positive, over=counts.negative)
        return numbers

    @cached_property
    def numbers(self) -> dict[str, Estimate]:
        """All that a gate can ask for: of the first arm by the name of a metric, then against., difference., per_cent., update.

        ``churn``, ``against.churn``, ``difference.churn``, ``per_cent.churn`` (of the second arm's), ``update.negative_flips``.
        """
        found = self.numbers_of(0)
        found |= {f"against.{name}": of for k in range(1, len(self.arms)) for name, of in self.numbers_of(k).items()}
        for row in rows_of(self.contrast):
            found |= {f"{kind}.{row['metric']}": Estimate.in_row(row, kind) for kind in ("difference", "per_cent")}
        return found | {f"update.{name}": of for name, of in self.changes.items()}

    @cached_property
    def examples(self) -> pd.DataFrame:
        """A row per example: example (its id or place), and by arm the share of pairs that disagree, most disagreed first.

        Of an event how far the chances lie apart, mean over the pairs."""
        frame = pd.DataFrame({"example": self.ids, **self._shares()})
        return frame.sort_values(next(iter(self.arms)), ascending=False, kind="stable", ignore_index=True)

    def _shares(self) -> dict[str, Float64]:
        return {arm: disagreement(self.measured.by_example[self._places(k)]) for k, arm in enumerate(self.arms)}

    @cached_property
    def slices(self) -> pd.DataFrame:
        """Where they disagree: a row per arm and true label: label (its code), examples, disagreement; empty without labels."""
        frame = pd.DataFrame({"label": [] if self.measured.labels is None else self.measured.labels})
        frame = frame.assign(**(self._shares() if len(frame) else {})).melt("label", var_name="arm", value_name="disagreement")
        groups = frame.groupby(["arm", "label"], sort=False)["disagreement"]
        rows = groups.agg(examples="size", disagreement="mean").reset_index()
        rows = rows[rows["examples"] >= _LEAST_EXAMPLES].sort_values("examples", ascending=False, kind="stable")
        return rows.groupby("arm", sort=False).head(_MOST_SLICES)


def compared(
    arms: Mapping[str, Sequence[Scored]],
    labels: Scored | None = None,
    kind: str = "auto",
    margin: float = 0.03,
    paired: bool = False,
    update: bool = False,
    threads: int = 1,
) -> Compared:
    """Compare the models of one arm, or of two, the reference second; ForeignError says what keeps them from it.

    ``labels``: the right answers, with ids where the models have some. ``margin``: a share of the reference's PD. ``paired``:
    model k of both arms shares a seed. ``update``: the first arm replaces the second."""
    if not 0 < margin < 1:
        raise ForeignError(f"the margin is a share of the reference between 0 and 1, got {margin:g}")
    if len(arms) < 2 and (update or paired):
        raise ForeignError("an update, and pairs by seed, are of two arms: name the models to compare with (--against)")
    models = [one_dimensional(model) for each in arms.values() for model in each]
    sizes = [len(each) for each in arms.values()]
    if 0 in sizes or (max(sizes) < 2 and not update):
        one = f"{models[0].name if models else 'nothing'} is one trained model"
        raise ForeignError(f"{one}; to compare takes two at least, or an old and a new one with --update")
    if paired and len(set(sizes)) > 1:
        raise ForeignError(f"models are paired by their place, so both arms need as many; they have {sizes[0]} and {sizes[1]}")
    if len(set(names := [model.name for model in models])) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ForeignError(f"{twice} is named twice; every trained model is compared once")
    kind, models = kind_of(models, kind), aligned(models)
    first, second = range(sizes[0]), range(sizes[0], len(models))
    between = product(first, second) if update else ()
    at = np.array([*combinations(first, 2), *combinations(second, 2), *between], np.int64).reshape(-1, 2)
    found = measure(models, kind, at, right_answers(models, labels), threads)
    ids = models[0].ids if models[0].ids is not None else np.arange(len(models[0].values))
    named = {arm: [model.name for model in each] for arm, each in arms.items()}
    result = Compared(kind, named, found, at, ids, margin, paired, update)
    return replace(result, notes=_notes(result))


def _notes(result: Compared) -> tuple[str, ...]:
    alike = result.pairs[result.pairs["identical"]]
    said = [f"{row.model_1} and {row.model_2} hold the same predictions in every example." for row in alike.itertuples()]
    if len(said) > 3:
        said = [*said[:3], f"So do {len(said) - 3} other pairs."]
    if result.measured.labels is not None and not result.models["accuracy"].any():
        said.append("No model is right about any example: are labels and predictions coded alike?")
    return tuple(said)
