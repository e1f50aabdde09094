"""The stores of the published study, read once."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.study import Study, load_study
from repro_lib.models.activations import smelu_beta
from repro_lib.store.schema import Result
from repro_lib.store.store import Store

HERE = Path(__file__).parents[1]
# The folder of each store below published/, and what its command was (all of them also had --profile study --trials 10).
STORES = {
    "results": "the grid and the LSTM with a wired readout, and variants of their cells",
    "smelu/results": "charlm with SmeLU at five widths of the bend",
    "context64/results": "charlm and convlm with half the context",
    "minigpt/results": "minigpt, cut to 4 layers of width 128: what fits 2 cores, not the model of 6 layers of width 384",
}
# Those of the second edition, below published/second/: what PROTOCOL.md names, as far as it was run. With the trials of each.
SECOND = {"rates/results": 3, "results": 20}


class NotRunYet(RuntimeError):
    """A part of the study has no results; the message says which."""


@dataclass(frozen=True)
class Side:
    """A study beside the grid, with a family of contrasts of its own."""

    study: Study
    evidence: Evidence


@dataclass(frozen=True)
class Published:
    """Where the stores lie: ``published/``, its folder ``second/``, or a copy of one."""

    folder: Path = HERE

    def store(self, name: str) -> Store:
        """One of ``STORES``, or of ``SECOND``."""
        return Store(self.folder / name)

    @cached_property
    def study(self) -> Study:
        """The grid."""
        return load_study(self.folder / "results", profile="study")

    @cached_property
    def evidence(self) -> Evidence:
        """The grid's trials against each other."""
        return Evidence.load(self.store("results"), self.study)

    @cached_property
    def context(self) -> Side:
        """Two models with half the context."""
        return self._side("context64/results", ("charlm", "convlm"), "two models with half the context")

    @cached_property
    def minigpt(self) -> Side:
        """minigpt as far as it fits."""
        return self._side("minigpt/results", ("minigpt",), "minigpt, cut to 4 layers")

    def _side(self, name: str, models: tuple[str, ...], about: str) -> Side:
        if not any((self.folder / name).glob("*.json")):
            raise NotRunYet(about)
        study = load_study(self.folder / name, models=models)
        return Side(study, Evidence.load(self.store(name), study))

    @cached_property
    def stored(self) -> list[Result]:
        """Every result of the grid's store."""
        return [result for _, result in self.store("results").load()[0]]

    @cached_property
    def smelu(self) -> list[Result]:
        """charlm with SmeLU, by rising beta."""
        found = [result for _, result in self.store("smelu/results").load()[0]]
        if len(found) < 2:
            raise NotRunYet("SmeLU at other widths of the bend")
        return sorted(found, key=lambda result: smelu_beta(result.activation) or 0)
