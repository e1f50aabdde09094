"""What the published study says, in sentences made of its tables; every word of a verdict is the protocol's."""

from collections import Counter
from collections.abc import Sequence

from published.rebuild import beside
from published.rebuild.second import (
    DOES_NOT,
    MATTERS,
    OPEN,
    Pair,
    beyond_margin,
    in_both_metrics,
    verdict,
    within_margin,
    words_on_models,
)
from published.rebuild.words import MARKS, Frames, in_words, markdown_rows, verdict_table
from repro_lib.analysis.contrasts import LEADING
from repro_lib.analysis.formatting import counted, listed
from repro_lib.analysis.frames import rows_of
from repro_lib.analysis.verdicts import EQUAL, NOT_DECIDED, SUPPORTED
from repro_lib.metrics.hypothesis_tests import SIGNIFICANCE

# So many paragraphs of the answer are about the grid.
ON_THE_GRID = 3


def answer(frames: Frames, first: str) -> list[str]:
    """The answer, a paragraph each: ``first`` is the sentence that the site's index has."""
    words, pairs = words_on_models(frames["contrasts"]), in_both_metrics(frames["contrasts"])
    margin = f"{pairs[0][0]['margin']:g} %"
    cells, n = frames["cells"], min(int(row["n"]) for row, _ in pairs)
    cells = cells[cells["model"].isin(words)]
    both = [pair for pair in pairs if verdict(pair) == SUPPORTED and all(map(within_margin, pair))]
    small = listed([f"{row['model']} with {row['activation']}" for row, _ in both])
    yet = f"; {small} {'is' if len(both) == 1 else 'are'} supported in both metrics, yet within it in both" if both else ""
    apart = f"{100 * cells['churn'].min():.0f} to {100 * cells['churn'].max():.0f} %"
    parts = [
        f"**{_on_models(words, pairs, margin)}** {first}",
        f"By rules fixed before the data: {n} fresh trials, each with a seed of its own, per model and activation. Each pair "
        "of signed numbers, here and below, is a difference from relu in per cent of relu's value, in relative PD (relative "
        "prediction difference, which counts every character alike, however improbable) and in "
        f"total variation (the probability that moves): {MARKS}. The test against 0 is corrected by Holm for all {len(pairs)}, "
        f"the margin is {margin}{yet}. What is supported in one metric alone "
        '"depends on whether rare characters count", as the protocol puts it. Two models trained alike '
        f"disagree on the most probable character at {apart} of positions, over all models and activations.",
        verdict_table(pairs, "model"),
    ]
    return [*parts, markdown_rows(("also asked", "answer"), [(f"**{asked}**", of(frames)) for asked, of in _BESIDE])]


def _on_models(words: dict[str, str], pairs: Sequence[Pair], margin: str) -> str:
    named = {word: [model for model, own in words.items() if own == word] for word in (MATTERS, DOES_NOT, OPEN)}
    how: dict[str, list[str]] = {}
    for model in named[MATTERS]:
        clear = [row for row, mass in pairs if row["model"] == model and beyond_margin((row, mass))]
        turns = [f"{row['activation']} {'raises' if row['per_cent'] > 0 else 'lowers'}" for row in clear]
        how.setdefault(f"{listed(turns)} disagreement by more than {margin} in both metrics", []).append(model)
    said = [f"{listed(models)} ({words})" for words, models in how.items()]
    parts = [f"the activation matters to {listed(said)}"] if said else []
    parts += [f"it does not matter to {listed(named[DOES_NOT])} within {margin}"] if named[DOES_NOT] else []
    why = f"no difference is supported and larger than {margin} in both metrics, and not all are shown to lie within it"
    parts += [f"for {listed(named[OPEN])} it is not decided ({why})"] if named[OPEN] else []
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def replicated(frames: Frames) -> str:
    """What became of the first edition's verdicts."""
    frame, said = frames["replicated"], []
    for kind in (SUPPORTED, EQUAL):
        own = Counter(frame[frame["verdict_first"] == kind]["outcome"])
        said += [f'{own["replicated"]} of {own.total()} "{kind}"'] if own else []
    turned = int((frame["outcome"] == "reversed").sum())
    equal = rows_of(frame.query("verdict_first == @EQUAL"))
    now = [within_margin(row) for row in equal if row["verdict"] == SUPPORTED]
    open_ones = sum(row["verdict"] == NOT_DECIDED for row in equal)
    models = counted(frame["model"].nunique(), "model")
    return (
        f"Judged by the present rule, on {models} that both editions trained identically but for the learning rate, "
        f"{' and '.join(said)} of the first edition, one verdict per metric, replicated. Of the other equal ones {sum(now)} "
        f"are now supported yet within the margin, {len(now) - sum(now)} supported and not shown to be within it, {open_ones} "
        f"not decided{f'; {turned} of the supported turned round' if turned else ''}."
    )


def dependence(frames: Frames) -> str:
    """In how many pairs of models swiglu's difference from relu differs, and in which that is not decided."""
    pairs = list(zip(*(rows_of(frames["dependence"].query("metric == @metric")) for metric in LEADING), strict=True))
    apart, said = 0, []
    for pair in pairs:
        shown = [row["metric"] for row in pair if row["p_holm"] <= SIGNIFICANCE]
        if len(shown) == len(pair) and pair[0]["points"] * pair[1]["points"] > 0:
            apart += 1
            continue
        so = "with opposite signs" if len(shown) > 1 else f"in {in_words(shown[0])} alone" if shown else "not decided"
        said.append(f"; {pair[0]['model_1']} against {pair[0]['model_2']} {so}")
    return (
        f"Swiglu's difference from relu depends on the model in {apart} of {len(pairs)} pairs of models, in relative PD and in "
        f"total variation (Welch's t, Holm over the pairs){''.join(said)}."
    )


# What was asked beside the grid, and what answers it.
_BESIDE = (
    ("At equal loss?", beside.equal_loss),
    ("At own learning rates?", beside.own_rates),
    ("Trained ten times as long?", beside.long),
    ("On other texts?", beside.texts),
    ("In minigpt, cut to 4 layers?", beside.minigpt),
    ("What helps?", beside.helps),
    ("Where does it come from?", beside.sources),
    ("When do trials part?", beside.forks),
    ("What replicated?", replicated),
)
