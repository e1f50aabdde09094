"""What each part of the published study says, in sentences made of its tables; every word of a verdict is the protocol's."""

from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import Any

import pandas as pd

from published.rebuild.second import (
    DOES_NOT,
    MATTERS,
    OPEN,
    Pair,
    beyond_margin,
    in_both_metrics,
    order_holds,
    own_rates_of,
    verdict,
    within_margin,
    words_on_models,
)
from published.rebuild.stores import AT_LOSS, SIDE_MODELS
from published.rebuild.words import MARKS, Frames, effect, in_words, markdown_rows, verdict_table
from repro_lib.analysis.contrasts import LEADING
from repro_lib.analysis.formatting import counted, listed, small
from repro_lib.analysis.frames import rows_of
from repro_lib.analysis.verdicts import EQUAL, NOT_DECIDED, SUPPORTED
from repro_lib.config import Config
from repro_lib.metrics.hypothesis_tests import SIGNIFICANCE
from repro_lib.metrics.uncertainty import Estimate
from repro_lib.report.answer import IN_ONE

# So many paragraphs of the answer are about the grid.
ON_THE_GRID = 3
# Of the arms that help, so many are named by what they cost more of, nothing or this; within a hundredth is no more.
_SHOWN = {"": 2, "training": 1, "serving": 1}
_NO_MORE = 1.01


def answer(frames: Frames, first: str, gaps: Sequence[str]) -> list[str]:
    """The answer, a paragraph each: ``first`` is the sentence that the site's index has, ``gaps`` what was not run."""
    words, pairs = words_on_models(frames["contrasts"]), in_both_metrics(frames["contrasts"])
    margin = f"{pairs[0][0]['margin']:g} %"
    cells, n = frames["cells"], min(int(row["n"]) for row, _ in pairs)
    cells = cells[cells["model"].isin(words)]
    apart = f"{100 * cells['churn'].min():.0f} to {100 * cells['churn'].max():.0f} %"
    parts = [
        f"**{_on_models(words, pairs, margin)}** {first}",
        f"By rules fixed before the data: {n} fresh trials per cell, two metrics, a margin of {margin}, Holm over all "
        f"{len(pairs)}. Relative PD (which counts every character alike, however improbable) and total variation (the "
        f"probability that moves) in per cent of relu, {MARKS}. What is supported in one metric alone "
        '"depends on whether rare characters count", as the protocol puts it. Two models trained alike disagree on the '
        f"most probable character at {apart} of positions, over all models and activations.",
        verdict_table(pairs, "model"),
    ]
    beside = [(f"**{asked}**", of(frames)) for asked, needed, of in _BESIDE if needed <= frames.keys()]
    open_parts = [f"Not run yet: {'; '.join(gaps)}."] if gaps else []
    if "equal_loss" not in frames:
        open_parts.append("Until there are contrasts at equal loss, part of a difference may be how far an activation gets.")
    return [*parts, markdown_rows(("asked beside it", "answer"), beside), *filter(None, [" ".join(open_parts)])]


def _on_models(words: dict[str, str], pairs: Sequence[Pair], margin: str) -> str:
    named = {word: [model for model, own in words.items() if own == word] for word in (MATTERS, DOES_NOT, OPEN)}
    how: dict[str, list[str]] = {}
    for model in named[MATTERS]:
        clear = [row for row, mass in pairs if row["model"] == model and beyond_margin((row, mass))]
        turns = [f"{row['activation']} {'raises' if row['per_cent'] > 0 else 'lowers'}" for row in clear]
        how.setdefault(f"{listed(turns)} disagreement by more than {margin}", []).append(model)
    said = [f"{listed(models)} ({words})" for words, models in how.items()]
    parts = [f"the activation matters to {listed(said)}"] if said else []
    parts += [f"it does not matter to {listed(named[DOES_NOT])} within {margin}"] if named[DOES_NOT] else []
    why = f"no difference is above {margin} in both metrics, and not all are within it"
    parts += [f"for {listed(named[OPEN])} it is not decided ({why})"] if named[OPEN] else []
    text = "; ".join(parts)
    return f"{_capital(text)}."


def replicated(frames: Frames) -> str:
    """What became of the first edition's verdicts."""
    frame, said = frames["replicated"], []
    for kind in (SUPPORTED, EQUAL):
        own = Counter(frame[frame["verdict_first"] == kind]["outcome"])
        said += [f'{own["replicated"]} of {own.total()} "{kind}"'] if own else []
    turned = int((frame["outcome"] == "reversed").sum())
    now = rows_of(frame.query("verdict_first == @EQUAL and verdict == @SUPPORTED"))
    small = sum(within_margin(row) for row in now)
    return (
        f"Of the first edition's verdicts by metric on {counted(frame['model'].nunique(), 'model')} that both editions trained "
        f"identically except for the learning rate, {' and '.join(said)} replicated, and {small} more of these are still "
        f"within the margin, though now supported; {turned or 'none'} of the supported "
        f"{'were' if turned > 1 else 'was'} reversed."
    )


def dependence(frames: Frames) -> str:
    """In how many pairs of models swiglu's difference from relu differs, and in which that is not decided."""
    pairs = list(zip(*(rows_of(frames["dependence"].query("metric == @metric")) for metric in LEADING), strict=True))
    alike = [
        f"{r['model_1']} against {r['model_2']}"
        for r, mass in pairs
        if max(r["p_holm"], mass["p_holm"]) > SIGNIFICANCE or r["points"] * mass["points"] < 0
    ]
    open_pairs = f"; it is not decided for {listed(alike)}" if alike else ""
    return (
        f"Swiglu's difference from relu depends on the model in {len(pairs) - len(alike)} of {len(pairs)} pairs of models, in "
        f"relative PD and in total variation (Welch's t, Holm over the pairs){open_pairs}."
    )


def equal_loss(frames: Frames) -> str:
    """What is left of the differences at equal loss."""
    made = {(row["model"], row["activation"]) for row in rows_of(frames["equal_loss"])}
    gaps = [f"{model} with {activation}" for model, activation in product(*AT_LOSS) if (model, activation) not in made]
    left_out = f" Could not be made: {listed(gaps)}." if gaps else ""
    n = int(frames["equal_loss"]["n"].min())
    return (
        f"At the lowest validation loss that both reach, read off runs of several lengths (N = {n}), "
        f"{_verdicts_of(frames['equal_loss'])}.{left_out}"
    )


def _verdicts_of(contrasts: pd.DataFrame, name_them: bool = True) -> str:
    """How many contrasts have each verdict of both metrics, and which are supported in both."""
    pairs, parts = in_both_metrics(contrasts), []
    if len(pairs) == 1:
        return f"the one difference from relu is {_KINDS[_kind(pairs[0])]} ({_told(pairs[0])})"
    for kind, words in _KINDS.items():
        own = [pair for pair in pairs if _kind(pair) == kind]
        named = f" ({'; '.join(map(_told, own))})" if name_them and kind in (SUPPORTED, _OPPOSED) else ""
        parts += [f"{counted(len(own), '', 'are')} {words}{named}"] if own else []
    return f"of {counted(len(pairs), 'difference')} from relu, {listed(parts)}"


def _kind(pair: Pair) -> str:
    return _OPPOSED if all(row["verdict"] == SUPPORTED for row in pair) and verdict(pair) == IN_ONE else verdict(pair)


def _told(pair: Pair) -> str:
    sizes = " and ".join(f"{row['per_cent']:+z.1f} %" for row in pair)
    small = [in_words(row["metric"]) for row in pair if within_margin(row)]
    within = f", {'both' if len(small) == len(pair) else small[0]} within the margin" if small else ""
    return f"{pair[0]['model']} with {pair[0]['activation']} {sizes}{within}"


_OPPOSED = "opposed"
_KINDS = {SUPPORTED: "supported in both metrics", _OPPOSED: "supported in both, with opposite signs"}
_KINDS |= {IN_ONE: "supported in one alone", EQUAL: "equal within the margin in both", NOT_DECIDED: "not decided"}


def own_rates(frames: Frames) -> str:
    """What changes where each activation has the learning rate that suits it."""
    before = {(r["model"], r["activation"]): (r, mass) for r, mass in in_both_metrics(frames["contrasts"])}
    asked = own_rates_of(frames["rates"])
    parts = []
    for pair in in_both_metrics(frames["own_rates"]):
        name = (pair[0]["model"], pair[0]["activation"])
        if name in asked:
            states = [f"{effect(r)} and {effect(mass)} ({_verdicts(r, mass)})" for r, mass in (before[name], pair)]
            parts.append(f"{name[0]} with {name[1]} at {asked[name]:g}: {states[1]}, at the common rate {states[0]}")
    return (
        f"In {len(parts)} of {len(before)} contrasts the activation's own rate is not the common one; where relu stays at "
        f"that, part of a difference may be the rate's. {_capital('; '.join(parts))}."
    )


def _verdicts(r: Any, mass: Any) -> str:
    return r["verdict"] if r["verdict"] == mass["verdict"] else f"{r['verdict']}, {mass['verdict']}"


def rates(frames: Frames) -> str:
    """Which learning rate the activations of each model need, and which of them would like another."""
    frame, parts = frames["rates"], []
    for model, rows in frame.groupby("model", sort=False):
        common, wide = rows[rows["common"]], sorted(set(rows["learning_rate"]))
        rate = float(common["learning_rate"].iloc[0])
        edge = ", the largest tried" if rate == wide[-1] else ", the smallest tried" if rate == wide[0] else ""
        own = [f"{r['activation']} {r['learning_rate']:g}" for r in rows_of(rows[rows["own"] & ~rows["common"]])]
        parts.append(f"{model} {rate:g}{edge}" + (f" (but {listed(own)})" if own else ""))
    n, tried = int(frame["n"].min()), listed([f"{times:g}" for times in sorted(set(frame["times_default"]))])
    return (
        f"of {tried} times the model's default rate the lowest mean loss over five activations ({n} trials each) is at "
        f"{'; '.join(parts)}."
    )


def long(frames: Frames) -> str:
    """Whether the order holds in models that were trained ten times as long."""
    cells, found = frames["long_cells"], order_holds(frames["contrasts"], frames["long_contrasts"])
    losses = f"{cells['val_loss'].min():.2f} to {cells['val_loss'].max():.2f}"
    parts = [
        f"{grid['model']} {effect(then)}, after 500 steps {grid['per_cent']:+z.1f} %, in {in_words(grid['metric'])}"
        for grid, then, _ in found
    ]
    held = sum(holds for *_, holds in found)
    said = "the order holds" if held == len(found) else "the order does not hold (few trials alone make intervals wider)"
    shown = (
        f"{said} by the protocol's rule: of {len(found)} intervals of swiglu against relu that exclude 0 after 500 steps, "
        f"{held} do so here on the same side ({'; '.join(parts)})"
        if found
        else "there is no order that could hold: no interval of swiglu against relu excludes 0 after 500 steps"
    )
    gelu = [holds for *_, holds in order_holds(frames["contrasts"], frames["long_contrasts"], "gelu")]
    return (
        f"After 5,000 steps (loss {losses} nats; {int(cells['n'].max())} trials, so no verdict) {shown}. Of {len(gelu)} such "
        f"intervals of gelu, {sum(gelu)} {'does' if sum(gelu) == 1 else 'do'} so."
    )


def texts(frames: Frames, named: bool = True) -> str:
    """What is supported on other texts, first what is so on each of them; each contrast that is by name, or their numbers."""
    parts, everywhere = [], set[tuple[str, str, bool]]()
    for name, rows in frames["texts"].groupby("text", sort=False):
        pairs = [row for row, mass in in_both_metrics(rows) if verdict((row, mass)) == SUPPORTED]
        here = {(row["model"], row["activation"], row["per_cent"] > 0) for row in pairs}
        everywhere = everywhere & here if parts else here
        parts.append(f"On {_TEXTS[str(name)]}, {_verdicts_of(rows, named)}.")
    both = [f"{model} with {name}, {'above' if above else 'below'} relu" for model, name, above in sorted(everywhere)]
    lead = [f"Supported in both metrics on each of these {len(parts)}: {listed(both)}."] if both and len(parts) > 1 else []
    return " ".join([*lead, *parts])


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


_TEXTS = {
    "tinyshakespeare": "Tiny Shakespeare (the author of the default text, in part the same lines)",
    "networkx": "source code (NetworkX)",
    "mishnah": "Hebrew (Mishnah)",
    "bpe": "the default text as 1,024 byte pairs",
}


def helps(frames: Frames) -> str:
    """What lowers disagreement, by what it costs, most first."""
    parts = []
    for model, rows in frames["helps"].groupby("model", sort=False):
        base, lower = rows[rows["per_cent_relative_pd"].isna()].iloc[0], list(filter(_helps, rows_of(rows)))
        chosen: list[Any] = []
        for kind, most in _SHOWN.items():
            own = [row for row in lower if _kind_of_cost(row) == kind]
            # The league goes by total variation; what costs nothing is named by the other metric too.
            others = sorted(own[most:], key=lambda row: row["per_cent_relative_pd"])[: int(not kind)]
            chosen += [*own[:most], *others]
        named = "; ".join(f"{_costs(row)}{_arm(row, base)}" for row in chosen)
        parts.append(f"In {model}, {named or 'no arm is supported in both metrics'}.")
    n, steps = int(frames["helps"]["n"].min()), Config.for_model(SIDE_MODELS[0], "helps").max_iters
    return (
        "The arms that lower total variation most, with supported differences from the baseline in total variation and "
        f"relative PD ({steps} steps, N = {n}; change of loss in nats), and of those that need no more compute the one that "
        "lowers relative PD most. Compute is the baseline's or less unless named, not counting the earlier model that a warm "
        f"start begins from. {' '.join(parts)}"
    )


def _kind_of_cost(row: Any) -> str:
    return next((kind for kind in ("serving", "training") if row[kind] > _NO_MORE), "")


def _costs(row: Any) -> str:
    more = [f"{row[kind]:.2g} x {kind}" for kind in ("training", "serving") if row[kind] > _NO_MORE]
    return f"with {' and '.join(more)}, " if more else ""


def _arm(row: Any, base: Any) -> str:
    return (
        f"{row['activation']}: {row['per_cent_total_variation']:+.0f} % and {row['per_cent_relative_pd']:+.0f} % "
        f"(loss {row['val_loss'] - base['val_loss']:+z.2f})"
    )


def _helps(row: Any) -> bool:
    supported = row["verdict_total_variation"] == row["verdict_relative_pd"] == SUPPORTED
    return supported and max(row["per_cent_total_variation"], row["per_cent_relative_pd"]) < 0


def sources(frames: Frames) -> str:
    """How much of the whole each source makes alone."""
    shares: dict[str, list[float]] = {}
    for _, rows in frames["sources"].groupby(["model", "activation"], sort=False):
        by_source = {r["source"]: r["total_variation"] for r in rows_of(rows)}
        for source, found in by_source.items():
            if source in ("init", "order", "dropout"):
                shares.setdefault(source, []).append(100 * found / by_source["all"])
    said = [f"{_SOURCES[source]} {min(found):.0f} to {max(found):.0f} %" for source, found in shares.items()]
    pairs = [frames["sources"][name].nunique() for name in ("model", "activation")]
    over = f"{counted(pairs[0], 'model')} and {counted(pairs[1], 'activation')}"
    return (
        f"Varied alone, in per cent of the total variation when all vary, over {over}: {listed(said)}. Sources do not add up."
    )


_SOURCES = {"init": "initial weights", "order": "data order", "dropout": "dropout masks"}


def forks(frames: Frames) -> str:
    """What is left where trials part later."""
    parts = []
    for varies, rows in frames["forks"].groupby("varies", sort=False):
        whole = rows.iloc[0]
        left = [
            f"{100 * r['total_variation'] / whole['total_variation']:.0f} % at {100 * r['share']:g} %"
            for r in rows_of(rows)[1:]
        ]
        about = {"order": "another data order", "bit": "one flipped bit"}[str(varies)]
        parts.append(
            f"with {about} {Estimate.in_row(whole, 'total_variation').written(small)} from the start, "
            f"of which is left {listed(left)}"
        )
    return f"Trials of charlm that part later (N = {int(frames['forks']['n'].max())}), total variation: {'; '.join(parts)}."


def minigpt(frames: Frames) -> str:
    """The verdicts on minigpt, cut."""
    return f"In a family of its own, {_verdicts_of(frames['minigpt_contrasts'])}."


# What was asked beside the grid, what the answer is made of, and the answer.
_BESIDE = (
    ("At equal loss?", {"equal_loss"}, equal_loss),
    ("At own learning rates?", {"own_rates", "rates"}, own_rates),
    ("Trained ten times as long?", {"long_contrasts", "long_cells"}, long),
    ("On other texts?", {"texts"}, texts),
    ("In minigpt, cut to 4 layers?", {"minigpt_contrasts"}, minigpt),
    ("What helps?", {"helps"}, helps),
    ("Where does it come from?", {"sources"}, sources),
    ("What replicated?", {"replicated"}, replicated),
)
