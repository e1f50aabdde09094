"""What a study found, in words and tables for people. Every sentence is computed, and none says more than N allows."""

from collections import Counter

import pandas as pd

from repro_lib.analysis.formatting import counted, with_interval
from repro_lib.analysis.frames import cells_frame
from repro_lib.analysis.notes import NO_RESULTS
from repro_lib.analysis.overviews import model_row, size_in_words
from repro_lib.analysis.selection import recipe_differences
from repro_lib.analysis.study import Study
from repro_lib.config import NEGATIVE_CONTROL
from repro_lib.models.registry import ARCHITECTURES
from repro_lib.report.answer import answer
from repro_lib.report.tables import short_flags
from repro_lib.store.designs import ACTIVATION
from repro_lib.store.schema import ORIGIN, Result


def about(study: Study) -> str:
    """Which results these are: how many cells, profile, corpus, N, evaluation text."""
    if not study.results:
        return NO_RESULTS
    real = study.measured
    first, counts = real.results[0], sorted({n for n in real.cells["n"] if n > 0})
    trials = " to ".join(map(str, dict.fromkeys([counts[0], counts[-1]]))) + (" trial" if counts[-1] == 1 else " trials")
    profile = f"profile {first.profile}" if first.profile else "no profile"
    synthetic = " SYNTHETIC results, not measured." if first.synthetic else ""
    kind = first.config.get("tokens", "characters")
    tokens = kind if kind == "characters" else f"tokens ({kind}; what is said of characters is of these)"
    return (
        f"{len(real.results)} of {counted(len(real.cells), 'cell')}: {profile}, corpus {first.corpus.name}, "
        f"N = {trials} per cell, {first.evaluation.tokens:,} evaluation {tokens}.{synthetic}{_origins(real)}{_arms(study)}"
    )


def _arms(study: Study) -> str:
    if study.factor == ACTIVATION:
        return ""
    others = ", ".join(name for name in study.activations if name != study.reference)
    return f" They differ in {study.factor}: {study.reference} (the reference), {others}."


def _origins(study: Study) -> str:
    # Of which machines, where they are of several kinds. Some results do not say all.
    names = [name for name in ORIGIN if all(result.environment.get(name) for result in study.results)]
    kinds: dict[str, list[str]] = {}
    for result in study.results:
        kind = ", ".join(str(result.environment[name]) for name in names)
        kinds.setdefault(kind, []).append(f"{result.model_name} with {result.arm}")
    told = "; ".join(f"{kind}: {', '.join(cells)}" for kind, cells in kinds.items())
    return f" They come from {len(kinds)} kinds of machine, which may round differently ({told})." if len(kinds) > 1 else ""


def missing(study: Study) -> str:
    """Which expected cells are missing, and which files were refused."""
    cells = study.cells[study.cells["n"] == 0]
    # First, for a file that could not be read may be why a cell is missing.
    sentences = list(study.refused)
    if not study.results:
        sentences.append(NO_RESULTS)
    elif len(cells):
        gone = {model: ", ".join(group["activation"]) for model, group in cells.groupby("model", sort=False)}
        # With one activation in all its name says more than "every activation".
        whole = ", ".join(study.activations) if len(study.activations) > 1 else None
        named = "; ".join(f"{model} with {'every activation' if names == whole else names}" for model, names in gone.items())
        sentences.append(f"Missing, and left blank everywhere: {named}.")
    elif not study.is_mixed:
        sentences.append("No cell is missing.")
    if study.is_mixed:
        named = ", ".join(f"{result.model_name} with {result.arm}" for result in study.results if result.synthetic)
        how = "with a SYNTHETIC stand-in, not measured, that is marked and in no statistic across cells"
        sentences.append(f"Missing, {how}: {named}.")
    return "\n".join(sentences)


def flagged(study: Study) -> str:
    """How many cells are flagged, and for what."""
    study = study.measured
    cells = study.cells[study.cells["flags"] != ""]
    if cells.empty:
        return "No cell is flagged." if study.results else NO_RESULTS
    reasons = sorted({reason for flags in cells["flags"] for reason in short_flags(flags)})
    their = "its" if len(cells) == 1 else "their"
    are = f"{len(cells)} of {counted(len(study.results), 'cell')} {'is' if len(cells) == 1 else 'are'} flagged"
    return f"{are} ({', '.join(reasons)}): do not rely on {their} numbers."


def identical(study: Study) -> str:
    """Which models are bit-identical across activations, and whether the negative control did its work."""
    sentences = [
        f"{model} is bit-identical across activations, trial by trial, so it is left out of all statistics across activations. "
        + ("It is the negative control: its CV of exactly 0 shows that nothing but the activation differs between cells."
           if model == NEGATIVE_CONTROL else "It should have an activation: check how it is wired.")
        for model in study.identical
    ]  # fmt: skip
    # The control is judged only where it has been trained twice: alone it cannot differ.
    controls = [result for result in study.measured.results if result.model_name == NEGATIVE_CONTROL]
    if len(controls) > 1 and NEGATIVE_CONTROL not in study.identical:
        sentences.append(
            f"Warning: {NEGATIVE_CONTROL} has no activation to plug in and yet its cells differ, so the cells of this study "
            "were not trained under equal conditions (another machine, another version?)."
        )
    if not sentences and len(study.models) == 1:
        alone = "was run with one activation, so nothing shows whether it can tell activations apart"
        there = "is not bit-identical across activations: it can tell them apart"
        return f"{study.models[0]} {there if len(study.measured.results) > 1 else alone}."
    return "\n".join(sentences) or "No model is bit-identical across activations."


def recipe(study: Study) -> list[str]:
    """In what the models were not trained alike, first of those that are variants of one (``tinylstm_readout``)."""
    results, said = study.measured.results, []
    names = list(dict.fromkeys(result.model_name for result in results))
    for name, variant in ((a, b) for a in names for b in names if b.startswith(f"{a}_")):
        found = recipe_differences([result for result in results if result.model_name in (name, variant)], sizes=True)
        differ = ", ".join(f"{setting} ({values[name]} and {values[variant]})" for setting, values in found.items())
        so = "so a difference between them may come from that"
        said += [f"{name} and {variant} were not trained alike: {differ}, {so}."] if differ else []
    parts = []
    for setting, values in recipe_differences(results).items():
        usual = Counter(values.values()).most_common(1)[0][0]
        others = [f"{value} in {model}" for model, value in values.items() if value != usual]
        parts.append(f"{setting} {usual}, but {', '.join(others)}")
    return [*said, f"Not all models were trained alike: {'; '.join(parts)}."] if parts else said


def layers_in_words(study: Study, model: str, layers: pd.DataFrame) -> str:
    """What a model is, its size and its parameters, from its layer table (``layer_views.layer_view``)."""
    size = size_in_words(study, model) or "at full size, for there is no result yet"
    total = int((layers["parameters"] * layers["times"]).sum())
    return f"{model}: {ARCHITECTURES.get(model, model)}, {size}; {total:,} parameters."


def ends(study: Study, model: str) -> list[str]:
    """The activations with the lowest and the highest relative PD; where there is no order, any one that is there."""
    overview = model_row(study, model)
    if not pd.isna(overview["best"]):
        return [overview["best"], overview["worst"]]
    return [result.arm for result in study.measured.results if result.model_name == model][:1]


def cell_headlines(result: Result) -> list[str]:
    """One cell: how much its trials disagree, how good they are, and what is wrong with it."""
    row = cells_frame([result], [result.model_name], [result.arm]).iloc[0]
    name, n = f"{result.model_name} with {result.arm}", len(result.trials)
    below = result.evaluation.unigram_cross_entropy - result.avg_val_loss
    side = "below" if below > 0 else "ABOVE"
    learnt = (
        f"Validation loss {with_interval(row, 'val_loss', 3)} nats, {abs(below):.2f} {side} that of a model that knows only "
        f"how frequent each character is; accuracy {with_interval(row, 'val_accuracy', 2)} %."
    )
    flags = [f"Flagged: {flag}." for flag in result.flags]
    if result.avg_relative_pd is None:
        return [f"{name}: one trial, so there is no pair to compare.", learnt, *flags]
    apart = f"{name}: relative PD {with_interval(row, 'relative_pd', 4)} between {n} trials, on a scale from 0 to 2."
    churn, wrong = 100 * row["churn"], 100 - row["val_accuracy"]
    places = f"Two of them predict different characters in {churn:.1f} % of all places; each is wrong in {wrong:.1f} %."
    return [f"{apart} {places}", learnt, *flags]


def model_headlines(study: Study, name: str, contrasts: pd.DataFrame) -> list[str]:
    """One model over its activations; ``contrasts``: ``leading_contrasts``."""
    if not study.results:
        return [NO_RESULTS]
    return [answer(study, contrasts[contrasts["model"] == name]), about(study), *_warnings(study)]


def grid_headlines(study: Study, contrasts: pd.DataFrame) -> list[str]:
    """All models and activations; ``contrasts``: ``leading_contrasts``. What they were made of, ``provenance`` says."""
    return [answer(study, contrasts), *_warnings(study)] if study.results else [NO_RESULTS]


def provenance(study: Study) -> list[str]:
    """Which results these are, what is missing, flagged or identical, and in what the models were not trained alike."""
    return [about(study), missing(study), flagged(study), identical(study), *recipe(study)] if study.results else [NO_RESULTS]


def _warnings(study: Study) -> list[str]:
    # What a reader has to know before any number: flags, and holes.
    cells = study.measured.cells
    flags = [flagged(study)] if (cells["flags"] != "").any() else []
    # The prose of the notebooks is about activations.
    arms = (
        [] if study.factor == ACTIVATION else [f"This grid varied {study.factor}: where this page says activation, read arm."]
    )
    return arms + flags + ([missing(study)] if (cells["n"] == 0).any() or study.refused else [])
