"""Comparable results of a grid as one bundle, ``Study``: which cells there are, which were expected, and their tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from repro_lib import analysis
from repro_lib.analysis.formatting import counted
from repro_lib.analysis.frames import (
    cells_frame,
    check_comparable,
    curves_frame,
    expected_activations,
    expected_models,
    in_order,
    pairs_frame,
    trials_frame,
)
from repro_lib.analysis.own_runs import beside, find_configuration, own_runs_sentence
from repro_lib.analysis.selection import identical_models, select_comparable, variants
from repro_lib.config import ACTIVATIONS, MODEL_DEFAULTS, REFERENCE, ConfigError, check_model, check_profile
from repro_lib.models.activations import canonical_activation
from repro_lib.store.designs import ACTIVATION, Design, load_design
from repro_lib.store.pair_matrices import with_new_metrics
from repro_lib.store.schema import Result
from repro_lib.store.store import MARGIN, Store


class NothingToShow(RuntimeError):
    """There is no usable result in the folder."""


@dataclass(frozen=True, repr=False)
class Study:
    """Comparable results of a grid, and which cells were expected of it.

    Its tables are pandas frames, made on first use: ``cells``, ``trials``, ``pairs``, ``contrasts``, ``curves``; ``dictionary``
    says what each column is. ``results``: at most one per cell, in the order of models and activations, synthetic ones last.
    ``identical``: models bit-identical across activations. ``refused``: a sentence for each file that could not be read.
    ``own_runs``, ``others``: what else is stored there, one's own runs and results of other grids. ``folder``: where they lie,
    and what is made of them may be kept. ``margin``: within so many per cent two arms count as equal. ``variants``: results
    that differ from one of them in the length of the run or the learning rate alone. ``factor``: what differs between the arms,
    which are called ``activations`` whatever it is; ``reference``: the arm that others are compared with."""

    results: tuple[Result, ...]
    models: tuple[str, ...]
    activations: tuple[str, ...]
    identical: tuple[str, ...]
    refused: tuple[str, ...] = ()
    own_runs: tuple[Result, ...] = ()
    others: tuple[Result, ...] = ()
    folder: Path | None = None
    margin: float = MARGIN
    variants: tuple[Result, ...] = ()
    factor: str = ACTIVATION
    reference: str = REFERENCE

    @classmethod
    def load(
        cls,
        store: Store,
        models: Sequence[str] | None = None,
        activations: Sequence[str] | None = None,
        factor: str | None = None,
        config: str | None = None,
        **which: Any,
    ) -> Study:
        """The newest comparable results of a folder (``which`` as in ``select_comparable``); with ``models``, among theirs.
        ``factor``: those of the arms of the newest grid over it; None: of whatever the newest grid was over.
        ``config``: those of the configuration whose digest begins so, and of no grid.
        ConfigError for a profile or a configuration that neither this version nor any result knows."""
        stored, refused = store.load()
        if (profile := which.get("profile")) and profile not in {result.profile for _, result in stored}:
            check_profile(profile)
        # First, so that the newest result of another model does not decide which are comparable.
        results = [result for _, result in stored if models is None or result.model_name in models]
        digest = None if config is None else find_configuration([result for _, result in stored], config)
        own = [result for result in results if digest in (None, result.config_sha256)]
        design = load_design(store, factor) if digest is None else None
        if design and profile not in (None, design.profile):
            design = None
        chosen = design.results(own) if design else select_comparable(own, grids=store.grids(), **which)
        chosen = [with_new_metrics(store, result) for result in chosen]
        of_one = [(result.model_name, result.activation) for result in chosen if digest]
        asked = of_one or ([] if design or activations or not chosen else store.asked(chosen[0].profile))
        if asked := [cell for cell in asked if models is None or cell[0] in models]:
            named = zip(*asked, *((r.model_name, r.activation) for r in chosen), strict=True)
            found, activations = map(in_order, map(set, named), (tuple(MODEL_DEFAULTS), ACTIVATIONS))
            models = models or found
        study = cls.of(chosen, models, activations, refused, which.get("include_synthetic", False), design)
        alike = tuple(with_new_metrics(store, result) for result in variants(results, study.measured.results))
        mine, others = map(tuple, beside(results, study.results, store.grids()))
        about = {"folder": store.folder, "margin": store.margin(), "variants": alike, "own_runs": mine, "others": others}
        return replace(study, **about)

    def family(self, store: Store, **which: Any) -> Study:
        """The same grid with all its models (``which`` as in ``load``), whose contrasts are judged together."""
        return Study.load(store, key=self.results[0].comparison_key, **which) if self.results else self

    @classmethod
    def of(
        cls,
        results: Sequence[Result],
        models: Sequence[str] | None = None,
        activations: Sequence[str] | None = None,
        refused: Sequence[str] = (),
        include_synthetic: bool = False,
        design: Design | None = None,
    ) -> Study:
        """A study of these results, which must be comparable (ResultError says what is wrong with them).
        Without ``models`` and ``activations`` a grid of its profile, or the ``design``, is expected and whatever else the
        results hold."""
        check_comparable(results, include_synthetic)
        models = [check_model(name) for name in models] if models else design.models if design else expected_models(results)
        activations = _arms(activations, design) or expected_activations(results)
        # Found before the filter: one activation alone cannot show that a model ignores it.
        measured = [result for result in results if not result.synthetic] or results
        identical = tuple(name for name in identical_models(measured) if name in models)
        chosen = [result for result in results if result.model_name in models and result.arm in activations]
        chosen.sort(key=lambda r: (r.synthetic, models.index(r.model_name), activations.index(r.arm)))
        study = cls(tuple(chosen), tuple(models), tuple(activations), identical, tuple(refused))
        return replace(study, factor=design.factor, reference=design.reference) if design else study

    @cached_property
    def measured(self) -> Study:
        """What every statistic across cells rests on: this study as if its synthetic stand-ins were missing."""
        # Numbers that somebody chose would count as evidence. Where there are no others, all that is shown is labelled.
        real = tuple(result for result in self.results if not result.synthetic)
        return replace(self, results=real) if 0 < len(real) < len(self.results) else self

    @property
    def is_mixed(self) -> bool:
        """Whether synthetic stand-ins fill cells beside measured ones."""
        return self.measured is not self

    @property
    def is_synthetic(self) -> bool:
        """Whether all results are synthetic."""
        return bool(self.results) and all(result.synthetic for result in self.results)

    # On first use: a table of cells needs no curves, which are by far the longest.
    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row per expected cell: each metric, loss and accuracy with its interval."""
        return cells_frame(self.results, self.models, self.activations, self.is_mixed)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row per trained model: seed, loss, accuracy, digests."""
        return trials_frame(self.results)

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """One row per pair of trials of a cell: every metric."""
        return pairs_frame(self.results)

    @cached_property
    def contrasts(self) -> pd.DataFrame:
        """One row per leading metric, model and activation: the difference from the reference, its interval and its verdict."""
        return analysis.study_contrasts(analysis.Evidence.from_results(self))

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One row per point of a loss curve."""
        return curves_frame(self.results)

    @property
    def dictionary(self) -> pd.DataFrame:
        """One row per column of these tables: table, column, unit, meaning."""
        return analysis.data_dictionary(self.tables)

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """All of them by name."""
        return {name: getattr(self, name) for name in ("cells", "trials", "pairs", "contrasts", "curves")}

    def __repr__(self) -> str:
        n = sorted({len(result.trials) for result in self.results}) or [0]
        made_up = ", synthetic" if self.is_synthetic else ", partly synthetic" if self.is_mixed else ""
        size = " x ".join([counted(len(self.models), "model"), counted(len(self.activations), "activation")])
        trials = f"N = {' to '.join(map(str, dict.fromkeys([n[0], n[-1]])))}"
        return f"Study({size}: {len(self.results)} of {counted(len(self.cells), 'cell')}, {trials}{made_up})"

    def _repr_html_(self) -> str:
        wide = self.cells.pivot(index="model", columns="activation", values="relative_pd").loc[list(self.models)]
        table = wide[list(self.activations)].to_html(float_format="{:.3f}".format, na_rep="–", border=0)
        return f"<p>{self!r}, relative PD:</p>{table}"

    def result(self, model: str, activation: str) -> Result | None:
        """The result of a cell, or None where it is missing."""
        return next((r for r in self.results if (r.model_name, r.arm) == (model, activation)), None)


def load_study(
    results_dir: Path | str,
    models: Sequence[str] = (),
    activations: Sequence[str] = (),
    profile: str | None = None,
    configs: Sequence[str] = (),
    *,
    config: str | None = None,
    include_synthetic: bool = False,
) -> Study:
    """The newest comparable results of a folder, of some models, activations or a profile only where those are named;
    ``config``: those of the one configuration whose ``config_sha256`` begins so."""
    which = {"profile": profile, "configs": configs, "config": config, "include_synthetic": include_synthetic}
    study = Study.load(Store(results_dir), models or None, activations or None, **which)
    if not study.results:
        # Why there is nothing: an empty folder, one full of damaged files and one of synthetic results look alike.
        refused = f" ({counted(len(study.refused), 'file', 'were')} refused: {study.refused[0]})" if study.refused else ""
        synthetic = sum(result.synthetic for _, result in Store(results_dir).load()[0])
        left_out = f" but {synthetic} synthetic ones (repro process --include-synthetic shows them)" if synthetic else ""
        nothing = f"no results yet in {results_dir}{left_out}{refused}; run ./run_papermill.sh or repro grid first"
        raise NothingToShow(". ".join([nothing, *own_runs_sentence(study.own_runs)]))
    return study


def _arms(asked: Sequence[str] | None, design: Design | None) -> list[str]:
    # Those that were asked for, by their names; without such all of a design.
    if design is None:
        return [canonical_activation(name) for name in asked or ()]
    if unknown := sorted({*(asked or ())} - {*design.arms}):
        raise ConfigError(f"{unknown[0]!r} is no arm of the grid over {design.factor}; its arms: {', '.join(design.arms)}")
    return [*(asked or design.arms)]
