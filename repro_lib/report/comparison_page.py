"""``repro_lib.compare``: anybody's models compared, shown in a notebook, written as a page, and as tables for other tools."""

from __future__ import annotations

import base64
import json
import math
import os
from dataclasses import replace
from html import escape
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from repro_lib.analysis.comparison.comparison import Compared, compared
from repro_lib.analysis.formatting import chance
from repro_lib.analysis.frames import rows_of
from repro_lib.analysis.notes import NO_RESULTS, Note, say, visible
from repro_lib.analysis.stored_models import scored_trials, stored_predictions
from repro_lib.analysis.verdicts import EQUAL, NOT_DECIDED
from repro_lib.config import MARGIN
from repro_lib.metrics.given import numpy_of
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import TRIALS_FOR_CLAIM, TRIALS_FOR_INTERVAL, Estimate, rounded
from repro_lib.report.export import FORMS
from repro_lib.report.sentences import ends
from repro_lib.store.foreign import ForeignError, Scored, read_scored
from repro_lib.store.schema import ResultError
from repro_lib.store.store import Store, results_store
from repro_lib.system.files import write_atomically
from repro_lib.system.processes import usable_cores
from repro_lib.training.progress import PROGRESS_FILE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from repro_lib.analysis.study import Study
    from repro_lib.plots.style import Plot

# What a page says of each frame.
FRAMES = {
    "contrast": ("Do they differ?", "The first arm against the second, a row per metric, by one rule for all."),
    "flips": ("What changed", "From each model of the second arm to each of the first; floor: what retraining it changes."),
    "by_arm": ("How reproducible each arm is", "Means over pairs of its models, with 95 % jackknife intervals over models."),
    "models": ("Models", "Each trained model, and how far it is on average from the others of its arm."),
    "slices": ("Where they disagree", "Disagreement by true label."),
    "examples": ("Examples most disagreed about", "The share of pairs that disagree, or how far chances lie apart."),
    "pairs": ("Pairs", "Every pair of models."),
}
# A page shows the beginning of longer tables; the files for other tools hold all of it.
_MOST_ROWS = 30
# What a sentence names of an update: all but the metrics that ``update`` adds.
_FLIPS = ("churn", "floor", "excess", "positive_flips", "negative_flips", "wrong_to_wrong", "win_loss", "accuracy_change")


class Comparison(Compared):
    """What ``compare`` returns: the numbers and frames of ``Compared``, in words, as a page, and as tables for other tools."""

    def sentences(self) -> list[str]:
        """What came out, with N and interval or why there is none."""
        said, n = [], [len(models) for models in self.arms.values()]
        for k, (arm, count) in enumerate(zip(self.arms, n, strict=True)):
            found, names = self.numbers_of(k), dict.fromkeys([*self.leading, "churn", "accuracy"])
            known = ", ".join(f"{_title(name)} {found[name]:.4f}" for name in names if name in found)
            about = f"{arm}: {count} model{'s' * (count > 1)} ({self.kind}, {len(self.ids):,} examples)"
            said.append(f"{about}{': ' * bool(known)}{known}.")
        if min(n) < TRIALS_FOR_INTERVAL:
            said.append(f"No interval for fewer than {TRIALS_FOR_INTERVAL} models.")
        said += [self._verdict(row) for row in rows_of(self.contrast) if row["metric"] in self.leading]
        if self.update or (len(n) == 2 and self.measured.labels is not None):
            first, second = self.arms
            found = {name: of for name, of in self.changes.items() if name in _FLIPS and not math.isnan(of.value)}
            changes = [f"{_title(name)} {of:.4f}" for name, of in found.items()]
            said.append(f"From {second} to {first}: {', '.join(changes)}.")
        return [*said, *self.notes]

    def _verdict(self, row: dict[str, Any]) -> str:
        per_cent, (first, second) = Estimate.in_row(row, "per_cent"), self.arms
        # Of a reference without any difference nothing is a per cent.
        size = f"{per_cent:+z.1f %}" if math.isfinite(per_cent.value) else f"{Estimate.in_row(row, 'difference'):+.4f}"
        verdict, needed = row["verdict"], row["models_needed"]
        why = f" of {row['margin']:g} %" if verdict == EQUAL else ""
        if row["n"] < TRIALS_FOR_CLAIM:
            why = f", for a verdict takes {TRIALS_FOR_CLAIM} models an arm"
        elif verdict == NOT_DECIDED and not math.isnan(needed):
            why = f", about {needed:,.0f} models an arm would tell"
        n = " and ".join(dict.fromkeys(str(len(models)) for models in self.arms.values()))
        how = f"N = {n}, {'paired by seed' if self.paired else 'independent'}, p = {chance(row['p'])}"
        return f"{first} against {second}, {_title(row['metric'])}: {size}, {verdict}{why} ({how})."

    def tables(self) -> dict[str, pd.DataFrame]:
        """The frames for people by name, those with rows: numbers with their interval in one column."""
        return {name: shown(frame) for name in FRAMES if len(frame := getattr(self, name))}

    def __str__(self) -> str:
        return "\n".join(self.sentences())

    def __repr__(self) -> str:
        verdicts = [self._verdict(row) for row in rows_of(self.contrast) if row["metric"] in self.leading]
        return f"Comparison({[*verdicts, *self.sentences()][0].removesuffix('.')})"

    def _repr_html_(self) -> str:
        tables, words = self.tables(), "".join(f"<p>{escape(visible(sentence))}</p>" for sentence in self.sentences())
        return words + "".join(tables[name].to_html(index=False) for name in ("contrast", "flips", "by_arm") if name in tables)

    def figure(self) -> Plot:
        """Every pair of models of each arm, with mean and interval."""
        from repro_lib.plots.comparison import arms_view

        return arms_view(self, " ".join(self.sentences()))

    def to_html(self, path: str | Path) -> None:
        """One page that loads nothing, with figure and tables."""
        from repro_lib.report.site.index import environment
        from repro_lib.report.site.page_parts import frame_of, readable_table

        html = environment().get_template("comparison.html.j2").render(
            site=frame_of((), "comparison.html", "none"), title=" against ".join(self.arms), sentences=self.sentences(),
            picture=base64.b64encode((figure := self.figure()).png()).decode(), alt=figure.alt,
            tables=[(*FRAMES[k], readable_table(of.head(_MOST_ROWS).to_html(index=False))) for k, of in self.tables().items()],
        )  # fmt: skip
        write_atomically(Path(path), visible(html))

    def to_json(self, path: str | Path | None = None) -> str:
        """All numbers by name, the frames as lists of rows, and the sentences; NaN and infinity as null."""
        frames = {name: json.loads(getattr(self, name).to_json(orient="records", double_precision=15)) for name in FRAMES}
        numbers = pd.DataFrame({name: {**of.columns("value"), "n": of.n} for name, of in self.numbers.items()})
        about = {"kind": self.kind, "arms": self.arms, "sentences": self.sentences()}
        about["numbers"] = json.loads(numbers.to_json(double_precision=15))
        text = json.dumps(about | frames, indent=1) + "\n"
        if path is not None:
            write_atomically(Path(path), text)
        return text

    def to_csv(self, folder: str | Path) -> None:
        """Each frame as ``NAME.csv`` in a folder."""
        self._write(folder, "csv")

    def to_parquet(self, folder: str | Path) -> None:
        """Each frame as ``NAME.parquet`` in a folder; needs pyarrow."""
        self._write(folder, "parquet")

    def to_latex(self, folder: str | Path) -> None:
        """Each frame as ``NAME.tex`` in a folder."""
        self._write(folder, "latex")

    def _write(self, folder: str | Path, form: str) -> None:
        ending, made = FORMS[form]
        for name in FRAMES:
            write_atomically(Path(folder) / f"{name}.{ending}", made(getattr(self, name)))


def compare(
    predictions: Any,
    against: Any = None,
    *,
    labels: Any = None,
    kind: str = "auto",
    ids: Any = None,
    names: Sequence[str] = (),
    margin: float = MARGIN / 100,
    paired: bool = False,
    update: bool = False,
    results_dir: str | Path = "",
) -> Comparison:
    """How much models trained alike disagree, and whether those of one recipe do so more than those of another.

    ``predictions``, ``against``: one array or file per trained model, as a sequence, or a mapping by name: probabilities or
    logits (examples, V), probabilities of an event (examples,), classes (examples,) or texts (``kind``: told, or found out).
    ``results:MODEL-ACTIVATION`` stands for the trials of a stored cell. ``labels``: the right answers, an array or a file;
    ``ids``: (examples,) of arrays. ``names``: of the arms. ``margin``: a share of the second arm's PD within which both count
    as equal. ``paired``: model k of both arms has one seed; otherwise the arms are independent. ``update``: ``predictions``
    replace ``against``. ForeignError, a ValueError of one sentence, for what cannot be compared.

    >>> compare([[0, 1, 1], [0, 1, 0]], labels=[0, 1, 1]).numbers["churn"].value.__round__(3)
    0.333
    """
    arms = [_models(each, name, ids, results_dir) for each, name in ((predictions, "A "), (against, "B ")) if each is not None]
    seeds, notes = [[model.seed for model in models] for models in arms], []
    if len(arms) == 2 and not paired and all(None not in of and of for of in seeds):
        # Equal seeds give equal data and, often, equal initial weights: a seed leaves both arms.
        shared, paired = set(seeds[0]) & set(seeds[1]), True
        if alone := sum(len(of) - len(shared) for of in seeds):
            notes.append(f"{alone} models without a partner of their seed were left out.")
        arms = [[model for model in models if model.seed in shared] for models in arms]
    if names and len(set(names)) != len(arms):
        raise ForeignError(f"names has a name of its own for each of {len(arms)} arms, got {', '.join(map(repr, names))}")
    named = dict(zip(names or _arm_names(arms), arms, strict=False))
    right = None if labels is None else next(iter(_models([labels], "labels ", ids, results_dir)))
    found = compared(named, right, kind, margin, paired, update, usable_cores())
    return Comparison(**vars(replace(found, notes=(*notes, *found.notes))))


def compare_arms(study: Study, model: str, *arms: str) -> Comparison | Note:
    """``compare`` for two arms of a model from their stored predictions; without names, the lowest and the highest PD.

    What is missing is said. Under the grid nothing is compared: ten trials an arm take seconds, and nobody is there to choose.
    """
    if PROGRESS_FILE_VARIABLE in os.environ:
        return say("In JupyterLab two arms are compared here.")
    known = {result.arm: result for result in study.results if result.model_name == model}
    chosen = list(dict.fromkeys(arms or ends(study, model)))
    if not chosen or set(chosen) - known.keys():
        return say(f"Of {model}, arms to compare are: {', '.join(known) or NO_RESULTS}.")
    try:
        scored = [scored_trials(Store(study.folder or ""), known[arm]) for arm in chosen]
        return compare(*scored, names=chosen, margin=study.margin / 100)
    except (ResultError, ForeignError) as problem:
        return say(f"Nothing is compared: {problem}.")


def _models(given: Any, prefix: str, ids: Any, results_dir: str | Path) -> list[Scored]:
    given, models = [given] if isinstance(given, str | Path) else given, []
    pairs = given.items() if hasattr(given, "items") else ((f"{prefix}{k}", each) for k, each in enumerate(given, start=1))
    for name, each in pairs:
        if isinstance(each, str) and each.startswith("results:"):
            models += stored_predictions(results_store(results_dir), each.removeprefix("results:"))
        elif isinstance(each, str | Path | Scored):
            models.append(each if isinstance(each, Scored) else read_scored(each))
        else:
            models.append(Scored(str(name), numpy_of(each), None if ids is None else numpy_of(ids)))
    return models


def _arm_names(arms: list[list[Scored]]) -> list[str]:
    # What the names of an arm's models have in common; where that tells nothing, letters.
    columns = [zip(*(Path(model.name).name for model in models), strict=False) for models in arms]
    common = ["".join(one[0] for one in takewhile(lambda of: len(set(of)) == 1, column)) for column in columns]
    names = [name.rstrip("0123456789").removesuffix("trial ").strip(" -_.") for name in common]
    return names if all(names) and len(set(names)) == len(names) else ["A", "B"]


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame for people: a number and its interval in one column, titles in words, a dash for what is missing."""
    columns: dict[str, Any] = {}
    for name in (name for name in map(str, frame.columns) if not name.endswith(("_low", "_high"))):
        columns[_title(name)] = [_title(value) if name == "metric" else value for value in frame[name]]
        if f"{name}_low" in frame:
            spec = "+z.1f" if name == "per_cent" else ".4f"
            columns[_title(name)] = [f"{Estimate.in_row(row, name):{spec}}" for row in rows_of(frame)]
        elif frame[name].dtype.kind == "f":
            columns[_title(name)] = [rounded(value, ".3g") for value in frame[name]]
    return pd.DataFrame(columns)


def _title(name: str) -> str:
    return PAIR_METRICS[name].words if name in PAIR_METRICS else name.replace("_", " ").replace(" pd ", " PD ")
