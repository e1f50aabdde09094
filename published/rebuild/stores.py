"""The stores of the published study, read once: the second edition's below ``published/second/``, the first's beside it."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.league import league_study
from repro_lib.analysis.study import Study, load_study
from repro_lib.models.activations import smelu_beta
from repro_lib.store.schema import Result
from repro_lib.store.store import Store

HERE = Path(__file__).parents[1]


class Part(NamedTuple):
    """A part of the protocol: trials of each cell, its number of cells, and what it is about."""

    trials: int
    cells: int
    about: str


# PROTOCOL.md's parts, by their folder below published/second/.
SECOND = {
    "rates/results": Part(
        3, 55, "the rate check: every cell at other rates than its default (the first edition's serve there)"
    ),
    "results": Part(20, 30, "the grid"),
    "helps/results": Part(10, 44, "what helps: 22 arms of charlm and convlm"),
    "long/results": Part(6, 6, "charlm and convlm for 5,000 steps"),
    "tinyshakespeare/results": Part(10, 10, "charlm and convlm on tinyshakespeare"),
    "networkx/results": Part(10, 10, "charlm and convlm on source code"),
    "mishnah/results": Part(10, 10, "charlm and convlm on Hebrew"),
    "bpe/results": Part(10, 2, "convlm on the default text as bpe:1024"),
    "minigpt/results": Part(10, 5, "minigpt, cut to 4 layers of width 128"),
    "forks/results": Part(5, 12, "charlm forked at six points of training"),
}
# Those that lie beside the grid's cells, by the value in which they differ from them.
BESIDE = {
    "max_iters": Part(10, 27, "runs of other lengths, for contrasts at equal loss"),
    "vary": Part(10, 18, "one source of randomness at a time"),
    "learning_rate": Part(10, 3, "activations at learning rates of their own"),
}
# Of the parts with a family of contrasts of their own: models and activations (none: all that a grid has).
SIDE_MODELS, SIDE_ACTIVATIONS = ("charlm", "convlm"), ("relu", "gelu", "swiglu")
# At equal loss: models, and activations against relu.
AT_LOSS = (("charlm", "convlm", "hybridlm"), SIDE_ACTIVATIONS[1:])
TEXTS = ("tinyshakespeare", "networkx", "mishnah", "bpe")
_ABOUT = {f"{text}/results": (SIDE_MODELS, ()) for text in TEXTS} | {"bpe/results": (("convlm",), ("relu", "swiglu"))}
_ABOUT |= {"long/results": (SIDE_MODELS, SIDE_ACTIVATIONS), "context64/results": (SIDE_MODELS, ())}
_ABOUT |= {"minigpt/results": (("minigpt",), ())}
# Those of the first edition, seeds 42 to 51, below published/.
FIRST = {
    "results": "the grid, and variants of its cells",
    "smelu/results": "charlm with SmeLU at five widths of the bend",
    "context64/results": "charlm and convlm with half the context",
    "minigpt/results": "minigpt, cut to 4 layers of width 128",
}


@dataclass(frozen=True)
class Side:
    """The trials of one store against each other, with a family of contrasts of its own."""

    study: Study
    evidence: Evidence


@dataclass(frozen=True)
class Published:
    """One edition: ``published/second/``, ``published/`` (the first), or a copy of one."""

    folder: Path = HERE / "second"

    @cached_property
    def first(self) -> "Published":
        """The edition that this one is to repeat."""
        return Published(self.folder.parent)

    def store(self, name: str) -> Store:
        """One of ``SECOND`` or of ``FIRST``."""
        return Store(self.folder / name)

    def results(self, name: str) -> list[Result]:
        """All results of a store."""
        return [result for _, result in self.store(name).load()[0]]

    def missing(self) -> list[str]:
        """What the protocol names and is not there, or not whole: then with the number of cells that are."""
        grid, cells = {result.model_name: result.config for result in self.study.results}, Counter[str]()
        for name in SECOND:
            for result in self.results(name):
                apart = [of for of in BESIDE if name == "results" and result.config[of] != grid[result.model_name][of]]
                part = BESIDE[apart[0]] if apart else SECOND[name]
                # Models that an arm starts or learns from have other seeds, and are no cells.
                cells[part.about] += len(result.trials) >= part.trials and result.config["seed"] in (42, 52)
        return [
            f"{part.about} ({cells[part.about]} of {part.cells} cells)" if cells[part.about] else part.about
            for part in (*SECOND.values(), *BESIDE.values())
            if cells[part.about] < part.cells
        ]

    @cached_property
    def stored(self) -> list[Result]:
        """Every result of the grid's store."""
        return self.results("results")

    @cached_property
    def study(self) -> Study:
        """The grid."""
        return load_study(self.folder / "results", profile="study")

    @cached_property
    def evidence(self) -> Evidence:
        """The grid's trials against each other."""
        return Evidence.load(self.store("results"), self.study)

    @cached_property
    def _sides(self) -> dict[str, Side]:
        return {}

    def side(self, name: str) -> Side:
        """One of the parts beside the grid, read once."""
        if name not in self._sides:
            store = self.store(name)
            study = league_study(store) if name == "helps/results" else load_study(store.folder, *_ABOUT[name])
            self._sides[name] = Side(study, Evidence.load(store, study))
        return self._sides[name]

    @cached_property
    def smelu(self) -> list[Result]:
        """charlm with SmeLU, by rising beta (first edition)."""
        return sorted(self.results("smelu/results"), key=lambda result: smelu_beta(result.activation) or 0)

    def at_rates_of(self, rates: dict[tuple[str, str], float]) -> dict[tuple[str, str], Result]:
        """These cells of the grid at these learning rates."""
        return {
            cell: next(run for run in self.evidence.runs_by("learning_rate", *cell) if run.config["learning_rate"] == rate)
            for cell, rate in rates.items()
        }

    def at_rates(self, rates: dict[tuple[str, str], float]) -> Evidence:
        """The grid with these cells at another learning rate, all others as they are."""
        return self.evidence.with_runs(self.at_rates_of(rates))
