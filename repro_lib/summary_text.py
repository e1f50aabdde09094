"""The console block of ``repro process`` and ``summary.txt``: a part per model, both overviews, the runtime."""

from __future__ import annotations

import math

import pandas as pd

from repro_lib.analysis import Study, model_row, models_overview
from repro_lib.findings import NO_RESULTS, about, activations_table, decided, flagged, identical, missing, models_table
from repro_lib.tables import number


def summary_text(study: Study) -> str:
    """The console block: what was run, a part per model, both overviews, the runtime per model. Ends with a line feed."""
    if not study.results:
        return "\n".join([*study.refused, NO_RESULTS]) + "\n"
    notes = [about(study), missing(study), flagged(study), identical(study)]
    if study.is_synthetic:
        notes.insert(0, "ALL NUMBERS BELOW ARE SYNTHETIC: made up, nothing was trained or measured.")
    parts = ["\n".join(notes), *(_model_block(study, model) for model in study.models), _overviews(study), _runtime(study)]
    return "\n\n".join(parts) + "\n"


def _model_block(study: Study, model: str) -> str:
    cells = study.cells[study.cells["model"] == model]
    row = model_row(study, model)
    width = max(len(name) for name in cells["activation"]) + 1
    lines = [f"MODEL: {model.upper()}{_mark(study)}"]
    for _, cell in cells.iterrows():
        best = "  <- BEST" if cell["activation"] == row["best"] else ""
        lines.append(f"{cell['activation'].upper() + ':':<{max(width, 10)}} {_pd_in_words(cell)}{best}")
    lines += [f"STATISTICS:{_mark(study)}", f"  Mean PD: {number(row['mean_pd'], 4)}"]
    lines.append("  CV: undefined" if math.isnan(row["cv"]) else f"  CV: {row['cv']:.2f}% ({row['cv_words']})")
    if not pd.isna(row["best"]):
        lines += [f"  {end.capitalize()}: {row[end]} (PD={row[f'{end}_pd']:.4f})" for end in ("best", "worst")]
        measured = study.measured.cells
        lines.append(f"  {decided(measured['n'][measured['model'] == model])}")
    elif row["identical"]:
        lines.append("  Bit-identical for every activation: left out of the statistics across activations.")
    return "\n".join(lines)


def _pd_in_words(cell: pd.Series) -> str:
    if cell["n"] == 0:
        return "missing"
    if math.isnan(cell["relative_pd"]):
        return "Relative PD: none, one trial has no pair"
    interval = f"[{cell['relative_pd_low']:.4f}, {cell['relative_pd_high']:.4f}]"
    if math.isnan(cell["relative_pd_low"]):
        interval = f"(no interval at N={cell['n']})"
    mark = " (SYNTHETIC, not measured)" if cell["synthetic"] else " (flagged)" if cell["flags"] else ""
    return f"Relative PD: {cell['relative_pd']:.4f} {interval}{mark}"


def _mark(study: Study) -> str:
    return " (SYNTHETIC)" if study.is_synthetic else ""


def _overviews(study: Study) -> str:
    activations = activations_table(study)
    return "\n".join(
        [
            f"MODELS{_mark(study)}",
            models_table(study).drop(columns="Training, s").to_string(),
            "CV: population standard deviation / mean over the activations. It is above 0 even where nothing differs.",
            "",
            f"ACTIVATIONS{_mark(study)}",
            activations.to_string(),
            "Average over the models that have results and are not bit-identical; none where one of them lacks the activation.",
            "Brackets: 95 % jackknife over trials, conditional on the evaluation text.",
        ]
    )


def _runtime(study: Study) -> str:
    overview = models_overview(study)
    lines = [f"  {row['model'] + ':':<18}{number(row['seconds'], 1):>9} s" for _, row in overview.iterrows()]
    total = f"  {'all:':<18}{number(overview['seconds'].sum(), 1):>9} s"
    return "\n".join([f"RUNTIME (training, sum over trials){_mark(study)}", *lines, total])
