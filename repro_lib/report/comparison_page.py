"""``repro_lib.compare``: anybody's models compared, shown in a notebook, written as a page, and as tables for other tools."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from repro_lib.analysis.comparison.comparison import Compared, compared
from repro_lib.analysis.notes import visible
from repro_lib.analysis.stored_models import stored_predictions
from repro_lib.analysis.study import rows_of
from repro_lib.analysis.verdicts import EQUAL
from repro_lib.config import MARGIN
from repro_lib.metrics.given import numpy_of
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import TRIALS_FOR_CLAIM, TRIALS_FOR_INTERVAL, Estimate
from repro_lib.store.foreign import Scored, read_scored
from repro_lib.store.store import results_store
from repro_lib.system.files import write_atomically
from repro_lib.system.processes import usable_cores

if TYPE_CHECKING:
    from repro_lib.plots.style import Plot

FRAMES = {
    "contrast": ("Do they differ?", "The first arm against the second, a row per metric, by one rule for all."),
    "flips": ("What changed", "From each model of the second arm to each of the first; floor: what retraining it changes."),
    "by_arm": ("How reproducible each arm is", "Means over pairs of its models, with 95 % jackknife intervals over models."),
    "models": ("Models", "Each trained model, and how far it is on average from the others of its arm."),
    "slices": ("Where they disagree", "Disagreement by true label."),
    "examples": ("Examples most disagreed about", "The share of pairs that disagree, or how far chances lie apart."),
    "pairs": ("Pairs", "Every pair of models."),
}  # fmt: skip
# A page shows the beginning of longer tables; the files for other tools hold all of it.
_MOST_ROWS = 30


class Comparison(Compared):
    """What ``compare`` returns: the numbers and frames of ``Compared``, in words, as a page, and as tables for other tools."""

    def sentences(self) -> list[str]:
        """What came out, with N and interval or why there is none."""
        examples, n = len(self.examples_ids), [len(models) for models in self.arms.values()]
        said = []
        for k, (arm, count) in enumerate(zip(self.arms, n, strict=True)):
            found, names = self._numbers(k), [*self.leading, *({"churn"} - set(self.leading)), "accuracy"]
            known = [f"{_title(name)} {found[name]:.4f}" for name in names if name in found]
            said.append(f"{arm}: {count} model{'s' * (count > 1)} ({self.kind}, {examples:,} examples): {', '.join(known)}.")
        if min(n) < TRIALS_FOR_INTERVAL:
            said.append(f"No interval for fewer than {TRIALS_FOR_INTERVAL} models.")
        for row in rows_of(self.contrast):
            if row["metric"] in self.leading:
                said.append(self._verdict(row))
        numbers = self._update() if self.update or self.measured.labels is not None else {}
        if numbers:
            second, first = reversed(self.arms)
            parts = [f"{_title(name)} {of:.4f}" for name, of in numbers.items() if name.partition("_")[0] in _FLIPS]
            said.append(f"From {second} to {first}: {', '.join(parts)}.")
        return [*said, *self.notes]

    def _verdict(self, row: dict[str, Any]) -> str:
        per_cent, how = Estimate.in_row(row, "per_cent"), "paired by seed" if self.paired else "independent"
        first, second = self.arms
        # Of a reference without any difference nothing is a per cent.
        size = f"{per_cent:+z.1f %}" if math.isfinite(per_cent.value) else f"{Estimate.in_row(row, 'difference'):+.4f}"
        few = f", for a verdict takes {TRIALS_FOR_CLAIM} models an arm" if row["n"] < TRIALS_FOR_CLAIM else ""
        margin = f" of {row['margin']:g} %" if row["verdict"] == EQUAL else ""
        more = f"; about {row['models_needed']:,.0f} would tell" if not (few or margin) and row["p"] > 0.05 else ""
        more = more if not math.isnan(row["models_needed"]) else ""
        what = f"{first} against {second}, {_title(row['metric'])}: {size}"
        return f"{what}, {row['verdict']}{margin}{few} (N = {row['n']}, {how}, p = {row['p']:.2g}{more})."

    def tables(self) -> dict[str, pd.DataFrame]:
        """The frames for people by name, those with rows: numbers with their interval in one column."""
        return {name: shown(frame) for name in FRAMES if len(frame := getattr(self, name))}

    def __repr__(self) -> str:
        return "\n".join(self.sentences())

    def _repr_html_(self) -> str:
        words = "".join(f"<p>{visible(_escaped(sentence))}</p>" for sentence in self.sentences())
        tables = self.tables()
        return words + "".join(tables[name].to_html(index=False) for name in ("contrast", "flips", "by_arm") if name in tables)

    def figure(self) -> Plot:
        """Every pair of models of each arm, with mean and interval."""
        from repro_lib.plots.comparison import arms_view

        return arms_view(self, " ".join(self.sentences()))

    def to_html(self, path: str | Path) -> Path:
        """One page that loads nothing, with figure and tables."""
        from repro_lib.report.site.index import environment
        from repro_lib.report.site.page_parts import frame_of, readable_table

        tables = [(*FRAMES[name], table.head(_MOST_ROWS)) for name, table in self.tables().items()]
        html = environment().get_template("comparison.html.j2").render(
            site=frame_of((), "comparison.html", "none"), title=" against ".join(self.arms), sentences=self.sentences(),
            picture=base64.b64encode((figure := self.figure()).png()).decode(), alt=figure.alt,
            tables=[(head, about, readable_table(table.to_html(index=False))) for head, about, table in tables],
        )  # fmt: skip
        write_atomically(path := Path(path), visible(html))
        return path

    def to_json(self, path: str | Path | None = None) -> str:
        """All numbers by name, the frames as lists of rows, and the sentences; NaN and infinity as null."""
        frames = {name: json.loads(getattr(self, name).to_json(orient="records", double_precision=15)) for name in FRAMES}
        found = {name: {**of.columns("value"), "n": of.n} for name, of in self.numbers.items()}
        numbers = {name: {key: v if math.isfinite(v) else None for key, v in of.items()} for name, of in found.items()}
        about = {"kind": self.kind, "arms": self.arms, "sentences": self.sentences(), "numbers": numbers}
        text = json.dumps(about | frames, indent=1) + "\n"
        if path is not None:
            write_atomically(Path(path), text)
        return text

    def to_csv(self, folder: str | Path) -> None:
        """Each frame as ``NAME.csv`` in a folder."""
        self._write(folder, "csv", lambda frame: frame.to_csv(index=False))

    def to_parquet(self, folder: str | Path) -> None:
        """Each frame as ``NAME.parquet`` in a folder; needs pyarrow."""
        self._write(folder, "parquet", lambda frame: frame.to_parquet(None, index=False))

    def to_latex(self, folder: str | Path) -> None:
        """Each frame, as people read it, as ``NAME.tex`` in a folder."""
        self._write(folder, "tex", lambda frame: shown(frame).head(_MOST_ROWS).to_latex(index=False, escape=True))

    def _write(self, folder: str | Path, ending: str, made: Callable[[pd.DataFrame], Any]) -> None:
        for name in FRAMES:
            write_atomically(Path(folder) / f"{name}.{ending}", made(getattr(self, name)))


_FLIPS = ("churn", "floor", "excess", "positive", "negative", "wrong", "win", "accuracy")


def compare(
    predictions: Any,
    against: Any = None,
    *,
    labels: Any = None,
    kind: str = "auto",
    ids: Any = None,
    names: tuple[str, str] | None = None,
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
    given = [predictions] if against is None else [predictions, against]
    arms = [
        list(_models(each, "model " if len(given) < 2 else f"{'AB'[k]} ", ids, results_dir)) for k, each in enumerate(given)
    ]
    seeds = [[model.seed for model in models] for models in arms]
    notes: list[str] = []
    if len(arms) == 2 and not paired and all(None not in of and of for of in seeds):
        # Equal seeds give equal data and, often, equal initial weights: a seed leaves both arms.
        shared, paired = set(seeds[0]) & set(seeds[1]), True
        alone = sum(len(of) - len(shared) for of in seeds)
        notes += [f"{alone} models without a partner of their seed were left out."] if alone else []
        arms = [[model for model in models if model.seed in shared] for models in arms]
    named = dict(zip(names or _arm_names(arms), arms, strict=False))
    right = None
    if labels is not None:
        right = read_scored(labels) if isinstance(labels, str | Path) else Scored("labels", numpy_of(labels), _ids(ids))
    found = compared(named, right, kind, margin, paired, update, usable_cores())
    return Comparison(**vars(replace(found, notes=(*notes, *found.notes))))


def _models(given: Any, prefix: str, ids: Any, results_dir: str | Path) -> Iterable[Scored]:
    if isinstance(given, str | Path):
        given = [given]
    pairs = given.items() if hasattr(given, "items") else ((f"{prefix}{k}", each) for k, each in enumerate(given, start=1))
    for name, each in pairs:
        if isinstance(each, Scored):
            yield each
        elif isinstance(each, str) and each.startswith("results:"):
            yield from stored_predictions(results_store(results_dir), each.removeprefix("results:"))
        elif isinstance(each, str | Path):
            scored = read_scored(each)
            yield replace(scored, name=str(name)) if isinstance(given, Mapping) else scored
        else:
            yield Scored(str(name), numpy_of(each), _ids(ids))


def _ids(ids: Any) -> Any:
    return None if ids is None else numpy_of(ids)


def _arm_names(arms: list[list[Scored]]) -> list[str]:
    # What the names of an arm's models have in common; where that tells nothing, letters.
    columns = [zip(*(Path(model.name).name for model in models), strict=False) for models in arms]
    common = ["".join(one[0] for one in takewhile(lambda of: len(set(of)) == 1, column)) for column in columns]
    names = [name.rstrip("0123456789").removesuffix("trial ").strip(" -_.") for name in common]
    return names if all(names) and len(set(names)) == len(names) else ["A", "B"][: len(arms)]


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame for people: a number and its interval in one column, titles in words, a dash for what is missing."""
    columns: dict[str, Any] = {}
    for name in frame.columns:
        if str(name).endswith(("_low", "_high")):
            continue
        if f"{name}_low" in frame:
            spec = "+z.1f" if name == "per_cent" else ".4f"
            columns[_title(name)] = [f"{Estimate.in_row(row, name):{spec}}" for row in rows_of(frame)]
        elif frame[name].dtype.kind == "f":
            columns[_title(name)] = ["–" if np.isnan(value) else f"{value:.4g}" for value in frame[name]]
        else:
            columns[_title(name)] = [_title(v) if name == "metric" else v for v in frame[name]]
    return pd.DataFrame(columns)


def _title(name: str) -> str:
    known = PAIR_METRICS.get(name)
    return known.words if known else str(name).replace("_", " ")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
