"""What if only one source of randomness were left? PD at a step of training with each source alone, and other lengths."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from repro_lib.analysis.noise_sources import SOURCES, NoiseSources, compare_sources, how_to_run
from repro_lib.analysis.notes import Note
from repro_lib.analysis.study import Study, rows_of
from repro_lib.analysis.trajectories import FOLLOWED, other_lengths
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import Estimate
from repro_lib.plots.close_ups import SOURCE_STYLES
from repro_lib.plots.style import GREY
from repro_lib.store.schema import Result
from repro_lib.store.store import Store
from repro_lib.whatif.charts import Axis, Bar, BarPanel, Dot, Line, LinePanel, alone
from repro_lib.whatif.definition import View, WhatIf, choice, slider
from repro_lib.whatif.svg import PAGE_COLOUR, in_words
from repro_lib.whatif.wording import axis_end, number_words, trial_counts, unanswered

TITLE = "What if only one source of randomness were left, and training stopped early?"
# As in the figure of the sources (plots.close_ups), with the page's own colour for black.
_COLOURS = [PAGE_COLOUR, *(look["color"] for look in list(SOURCE_STYLES.values())[1:])]
STYLES = dict(zip(SOURCE_STYLES, zip(_COLOURS, ("", "7 3", "9 3 2 3", "2 3", "4 2", "1 4"), strict=True), strict=True))


class NoisyCell(NamedTuple):
    """One cell with each source of randomness alone."""

    sources: NoiseSources
    # After which predictions were kept.
    steps: tuple[int, ...]
    # By source ``Trajectory.frame``, all with these steps.
    frames: Mapping[str, pd.DataFrame]
    # The last row of runs of other lengths with all sources, by their length.
    ends: Mapping[int, pd.Series]

    def through(self, metric: str) -> dict[str, list[Estimate]]:
        """By source a metric at every step."""
        return {source: [Estimate.in_row(row, metric) for row in rows_of(frame)] for source, frame in self.frames.items()}


def noise_what_if(store: Store, stored: Sequence[Result], study: Study) -> WhatIf | Note:
    """PD at a kept step, per source of randomness, for the models whose sources were run one by one."""
    if not study.results:
        return unanswered(TITLE, study)
    cells = {model: cell for model in study.models if (cell := noisy_cell(store, stored, study, model))}
    if not cells:
        return unanswered(TITLE, study, how_to_run(study.results[0].model_name))
    steps = sorted({step for cell in cells.values() for step in cell.steps})

    def see(model: str, metric: str, step: int) -> View:
        cell = cells[model]
        # Models of another length kept other steps: the last one that was kept by then.
        kept = max(known for known in cell.steps if known <= step)
        through = cell.through(metric)
        at_step = {source: estimates[cell.steps.index(kept)] for source, estimates in through.items()}
        return View(_panels(cell, metric, kept, through, at_step), _sentence(model, cell, metric, kept, at_step))

    parameters = (
        choice("model", "Model", list(cells)),
        choice("metric", "Measure", FOLLOWED, "total_variation", _capital),
        slider("step", "Training step", steps, steps[-1]),
    )
    return WhatIf("noise", TITLE, parameters, see)


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


def _panels(
    cell: NoisyCell, metric: str, step: int, through: Mapping[str, list[Estimate]], at_step: Mapping[str, Estimate]
) -> tuple[BarPanel, LinePanel]:
    # Over all steps, so that the axis stays while the control moves.
    limit = axis_end(estimate for estimates in through.values() for estimate in estimates)
    bars = tuple(
        Bar(source, at_step[source], STYLES[source][0])
        if source in at_step
        else Bar(source, alone(math.nan), GREY, cell.sources.states[source].partition(":")[0])
        for source in SOURCES
    )
    # Steps were kept at log-spaced places, so on an even axis each is as far from the next.
    places = {s: float(k) for k, s in enumerate(cell.steps)}
    lines = tuple(
        Line(source, list(places.values()), [estimate.value for estimate in estimates], *STYLES[source], dots=True)
        for source, estimates in through.items()
    )
    # A run of another length ends between two of these steps.
    ends = tuple(
        Dot("", alone(np.interp(length, cell.steps, [*places.values()])), alone(end[metric]), PAGE_COLOUR, strong=True)
        for length, end in cell.ends.items()
    )
    words = "; ".join(f"{source} {in_words(estimate, 4)}" for source, estimate in at_step.items())
    return (
        BarPanel(f"{_capital(metric)} at step {step}", bars, limit, 4),
        LinePanel(
            f"Through training{' (ringed: shorter runs)' if ends else ''}",
            Axis("training step", 0, max(len(places) - 1, 1), tuple((place, str(s)) for s, place in places.items())),
            Axis(_capital(metric), 0, limit),
            f"at step {step}: {words}",
            lines,
            ends,
            marker=places[step],
        ),
    )


def _capital(metric: str) -> str:
    words = PAIR_METRICS[metric].words
    return words[0].upper() + words[1:]


def _sentence(model: str, cell: NoisyCell, metric: str, step: int, estimates: Mapping[str, Estimate]) -> str:
    parts = [f"{source} {number_words(estimate, 4)}" for source, estimate in estimates.items() if source != "none"]
    sentence = (
        f"After {step} of {cell.steps[-1]} steps of {model} with {cell.sources.activation} the {PAIR_METRICS[metric].words} "
        f"between trials is, by what alone differs between them, {'; '.join(parts)}"
    )
    if "none" in estimates:
        # Equal seeds give equal bits: anything but 0 here would be a fault of the suite, so it is not rounded away.
        rest = estimates["none"].value
        sentence += f"; with nothing different it is {'exactly 0' if rest == 0 else f'{rest:.1e}'}"
    if cell.ends and step == cell.steps[-1]:
        lengths = ", ".join(f"{length} steps {end[metric]:.4f}" for length, end in cell.ends.items())
        sentence += f"; runs of other lengths, each with its learning rate down to 0, end at {lengths}"
    return f"{sentence} ({trial_counts(e.n for e in estimates.values())}, on every 16th evaluation block)."
