"""What if only one source of randomness were left? PD at a step of training with each source alone, and other lengths."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import pandas as pd

from repro_lib.analysis.formatting import small
from repro_lib.analysis.frames import rows_of
from repro_lib.analysis.noise_sources import SOURCES, NoiseSources, compare_sources, how_to_run
from repro_lib.analysis.notes import Note
from repro_lib.analysis.study import Study
from repro_lib.analysis.trajectories import FOLLOWED, other_lengths
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import Estimate
from repro_lib.plots.close_ups import SOURCE_STYLES
from repro_lib.plots.style import PAGE_COLOUR
from repro_lib.store.schema import Result
from repro_lib.store.store import Store
from repro_lib.whatif.definition import Row, View, WhatIf, control
from repro_lib.whatif.wording import DASHES, alone, number_words, trial_counts, unanswered

TITLE = "What if only one source of randomness were left, and training stopped early?"
SHORTER = "shorter runs, at their ends"
# As in the figure of the sources (plots.close_ups), with the page's own colour for black.
_COLOURS = [PAGE_COLOUR, *(look["color"] for look in list(SOURCE_STYLES.values())[1:]), PAGE_COLOUR]
STYLES = dict(zip((*SOURCE_STYLES, SHORTER), zip(_COLOURS, (*DASHES, "1 2"), strict=True), strict=True))


class NoisyCell(NamedTuple):
    """One cell with each source of randomness alone."""

    sources: NoiseSources
    # After which predictions were kept.
    steps: tuple[int, ...]
    # By source ``Trajectory.frame``, all with these steps.
    frames: Mapping[str, pd.DataFrame]
    # The last row of runs of other lengths with all sources, by their length.
    ends: Mapping[int, pd.Series]


def noise_what_if(store: Store, stored: Sequence[Result], study: Study) -> WhatIf | Note:
    """PD at a kept step, per source of randomness, for the models whose sources were run one by one."""
    if not study.results:
        return unanswered(TITLE, study)
    cells = {model: cell for model in study.models if (cell := noisy_cell(store, stored, study, model))}
    if not cells:
        return unanswered(TITLE, study, how_to_run(study))
    steps = sorted({step for cell in cells.values() for step in cell.steps})

    def see(model: str, metric: str, step: int) -> View:
        cell = cells[model]
        # Models of another length kept other steps: the last one that was kept by then.
        kept = max(known for known in cell.steps if known <= step)
        places = {source: next(r for r in rows_of(frame) if r["step"] == kept) for source, frame in cell.frames.items()}
        found = {source: Estimate.in_row(row, metric) for source, row in places.items()}
        gaps = {source: cell.sources.states[source].partition(":")[0] for source in SOURCES if source not in found}
        rows = [Row(source, number, digits=4) for source, number in found.items() if kept == step]
        rows += [Row(source, alone(math.nan), missing=gap) for source, gap in gaps.items()]
        return View(rows, _sentence(model, cell, metric, kept, found))

    parameters = (
        control("model", "Model", list(cells)),
        control("metric", "Measure", FOLLOWED, "total_variation", lambda name: PAIR_METRICS[name].words.capitalize()),
        control("step", "Training step", steps, steps[-1]),
    )
    what_if = WhatIf.of("noise", TITLE, parameters, see, along="step", looks=STYLES)
    # They end where they end, between the steps of the control or on one.
    ends = pd.DataFrame(
        {"model": model, "metric": metric, "step": length} | Row(SHORTER, alone(end[metric]), digits=4).columns()
        for model, cell in cells.items()
        for metric, (length, end) in product(FOLLOWED, cell.ends.items())
    )
    return replace(what_if, frame=pd.concat([what_if.frame, ends])) if len(ends) else what_if


def noisy_cell(store: Store, stored: Sequence[Result], study: Study, model: str) -> NoisyCell | None:
    """The sources of a model followed through training, or None where fewer than two of them can be."""
    sources = compare_sources(stored, study, model)
    if sources is None:
        return None
    frames = {source: run.frame() for source, run in sources.trajectories(store).items()}
    steps = {tuple(frame["step"].tolist()) for frame in frames.values()}
    # One source has nothing beside it, and runs that kept other steps have no common slider.
    if len(frames) < 2 or len(steps) > 1:
        return None
    reference = sources.results.get("all")
    ends = {run.max_iters: run.frame().iloc[-1] for run in other_lengths(store, stored, reference)} if reference else {}
    return NoisyCell(sources, steps.pop(), frames, ends)


def _sentence(model: str, cell: NoisyCell, metric: str, step: int, estimates: Mapping[str, Estimate]) -> str:
    parts = [f"{source} {number_words(estimate, 4)}" for source, estimate in estimates.items() if source != "none"]
    sentence = (
        f"After {step} of {cell.steps[-1]} steps of {model} with {cell.sources.activation} the {PAIR_METRICS[metric].words} "
        f"between trials, by the sources that differ, is {'; '.join(parts)}"
    )
    if "none" in estimates:
        # Equal seeds give equal bits: anything but 0 here would be a fault of the suite, so it is not rounded away.
        rest = estimates["none"].value
        sentence += f"; if nothing differs it is {'exactly 0' if rest == 0 else small(rest)}"
    if cell.ends and step == cell.steps[-1]:
        lengths = ", ".join(f"{length} steps {end[metric]:.4f}" for length, end in cell.ends.items())
        sentence += f"; runs of other lengths, each with its learning rate down to 0, end at {lengths}"
    return f"{sentence} ({trial_counts(e.n for e in estimates.values())}, on every 16th evaluation block)."
