"""What each part beside the grid says: at equal loss, at other rates, in long runs, on other texts, and what helps."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import pandas as pd

from published.rebuild.second import Pair, by_contrast, in_both_metrics, order_holds, own_rates_of, verdict, within_margin
from published.rebuild.stores import SIDE_MODELS
from published.rebuild.words import Frames, effect, in_words
from repro_lib.analysis.contrasts import LEADING
from repro_lib.analysis.forks import forks_sentence
from repro_lib.analysis.formatting import counted, listed
from repro_lib.analysis.frames import rows_of
from repro_lib.analysis.verdicts import EQUAL, NOT_DECIDED, SUPPORTED
from repro_lib.config import Config
from repro_lib.report.answer import IN_ONE

# Compute, times the baseline's: within a hundredth is no more.
_NO_MORE = 1.01


def equal_loss(frames: Frames) -> str:
    """What is left of the differences at equal loss."""
    n, pairs = int(frames["equal_loss"]["n"].min()), in_both_metrics(frames["equal_loss"])
    return (
        f"At the lowest validation loss that both arms reach, interpolated between runs of several lengths (N = {n}; swish and "
        f"smelu_1 have the full length alone), of {len(pairs)} differences from relu, {_verdicts_of(pairs)}."
    )


def moved(frames: Frames) -> str:
    """How many intervals at equal loss do not overlap that of the grid, and which way they moved."""
    grid, here, said = by_contrast(frames["contrasts"]), by_contrast(frames["equal_loss"]), []
    forms = ("{} of {} intervals lie wholly below the grid's and {} above", "{} of {} below and {} above")
    for k, (metric, form) in enumerate(zip(LEADING, forms, strict=True)):
        both = [(pair[k], grid[name][k]) for name, pair in here.items()]
        lower = sum(own["per_cent_high"] < there["per_cent_low"] for own, there in both)
        higher = sum(own["per_cent_low"] > there["per_cent_high"] for own, there in both)
        said.append(f"in {in_words(metric)} {form.format(lower, len(both), higher)}")
    return (
        f"Fewer trials can lose a verdict but not move an estimate: {', '.join(said)}. Relative PD rises with the length of a "
        "run in these models, and the arm with the lower loss is read off shorter runs: equal loss is not equal length."
    )


def _verdicts_of(pairs: Sequence[Pair], name_them: bool = True) -> str:
    """How many contrasts have each verdict of both metrics; by name, if wished, those that are supported in both."""
    parts = []
    for kind, words in _KINDS.items():
        own = [pair for pair in pairs if _kind(pair) == kind]
        large = filter(_large, own) if kind == IN_ONE else own if name_them and kind in (SUPPORTED, _OPPOSED) else ()
        listed_ones = "; ".join(map(_told, large))
        among = "among them " if kind == IN_ONE and len(own) > 1 else ""
        named = f" ({among}{listed_ones})" if listed_ones else ""
        parts += [f"{counted(len(own), '', 'are')} {words}{named}"] if own else []
    return listed(parts)


def _large(pair: Pair) -> bool:
    # One metric alone supports it, and it is beyond the margin there: a reader would miss it.
    return any(row["verdict"] == SUPPORTED and abs(row["per_cent"]) > row["margin"] for row in pair)


def _kind(pair: Pair) -> str:
    return _OPPOSED if all(row["verdict"] == SUPPORTED for row in pair) and verdict(pair) == IN_ONE else verdict(pair)


def _told(pair: Pair) -> str:
    # Of what one metric alone supports, the number says which.
    sizes, alone = [f"{row['per_cent']:+z.1f}" for row in pair], _kind(pair) == IN_ONE
    marked = [f"**{x}**" if alone and row["verdict"] == SUPPORTED else x for x, row in zip(sizes, pair, strict=True)]
    small = [in_words(row["metric"]) for row in pair if within_margin(row)]
    within = f", {'both' if len(small) == len(pair) else small[0]} within the margin" if small else ""
    on = f" on {pair[0]['text']}" if "text" in pair[0] else ""
    return f"{pair[0]['model']} with {pair[0]['activation']}{on} {' and '.join(marked)} %{within}"


_OPPOSED = "opposed"
_KINDS = {SUPPORTED: "supported in both metrics", _OPPOSED: "supported in both, with opposite signs"}
_KINDS |= {IN_ONE: "supported in one alone", EQUAL: "equal within the margin in both", NOT_DECIDED: "not decided"}


def own_rates(frames: Frames) -> str:
    """What changes where each activation has the learning rate that suits it, and what that rate alone does to relu."""
    pairs, asked = by_contrast(frames["own_rates"]), own_rates_of(frames["rates"])
    own, chosen_on = [pairs[name] for name in asked], int(frames["rates"]["n"].min())
    both = [f"{' with '.join(name)} {' and '.join(both_at_rate(frames, name))} %" for name in asked]
    losses = rows_of(frames["own_rates_loss"])
    lower = sum(row["high"] < 0 for row in losses)
    return (
        f"In {len(own)} of {len(pairs)} contrasts the activation's own rate, the best for it in {chosen_on} trials, is not the "
        f"common one, which relu keeps (N = {min(int(pair[0]['n']) for pair in own)}): {_verdicts_of(own)}. These include the "
        f"rate's own effect: with both arms at that rate (first edition) the differences are {', '.join(both)}. On "
        f"these fresh seeds the own rate is shown to lower the loss in {lower or 'none'} of the {len(losses)}."
    )


def rate_alone(frames: Frames, name: tuple[str, str]) -> list[str]:
    """What the own rate of a cell does to relu, in per cent, from the first edition's other seeds, so without an interval."""
    cells = [{(r["model"], r["activation"]): r for r in rows_of(frames[name])} for name in ("first_cells", "cells")]
    old, new = (by_name[name[0], "relu"] for by_name in cells)
    return [f"{100 * (old[metric] / new[metric] - 1):+z.1f}" for metric in LEADING]


def both_at_rate(frames: Frames, name: tuple[str, str]) -> list[str]:
    """The contrast with both arms at that rate, in per cent, from the first edition."""
    return [f"{row['per_cent']:+z.1f}" for row in by_contrast(frames["first_contrasts"])[name]]


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
        f"{grid['model']} in {in_words(grid['metric'])} {effect(then)}, was {grid['per_cent']:+z.1f} %"
        f"{', not decided' if grid['verdict'] == NOT_DECIDED else ''}"
        for grid, then, _ in found
    ]
    held = sum(holds for *_, holds in found)
    smaller = sum(abs(then["per_cent"]) < abs(grid["per_cent"]) for grid, then, _ in found)
    said = "the order holds" if held == len(found) else "the order does not hold (few trials alone make intervals wider)"
    shown = (
        f"{said} by the protocol's rule: of {len(found)} intervals of swiglu against relu that exclude 0 after 500 steps, "
        f"{held} do so here on the same side, and {smaller} of the differences are smaller ({'; '.join(parts)})"
        if found
        else "there is no order that could hold: no interval of swiglu against relu excludes 0 after 500 steps"
    )
    gelu = [holds for *_, holds in order_holds(frames["contrasts"], frames["long_contrasts"], "gelu")]
    return (
        f"After 5,000 steps (loss {losses} nats; {int(cells['n'].max())} trials, so no verdict) {shown}. Of {len(gelu)} such "
        f"intervals of gelu, {sum(gelu)} {'does' if sum(gelu) == 1 else 'do'} so."
    )


def texts(frames: Frames) -> str:
    """What is supported on other texts in each model, and what is so on each of them, with its size on each."""
    frame, sizes = frames["texts"], dict[tuple[str, str, bool], list[str]]()
    pairs, on = in_both_metrics(frame), list(dict.fromkeys(frame["text"]))
    for row, mass in (pair for pair in pairs if verdict(pair) == SUPPORTED):
        size = f"{row['per_cent']:+z.1f} and {mass['per_cent']:+z.1f} %"
        sizes.setdefault((row["model"], row["activation"], row["per_cent"] > 0), []).append(size)
    everywhere = [
        f"{model} with {activation} ({', '.join(on_each)})"
        for (model, activation, _), on_each in sizes.items()
        if len(on_each) == len(on)
    ]
    lead = f" Supported in both on all {len(on)}, in this order: {'; '.join(everywhere)}." if everywhere else ""
    said = []
    for model in SIDE_MODELS:
        own = [pair for pair in pairs if pair[0]["model"] == model]
        said.append(f"of {len(own)} differences in {model}, {_verdicts_of(own, name_them=False)}")
    return (
        f"On {listed([_TEXTS[name] for name in on])}, at the rates chosen on the default text (N = {int(frame['n'].min())}, "
        f"Holm within each text): {'; '.join(said)}.{lead}"
    )


_TEXTS = {
    "tinyshakespeare": "tinyshakespeare (the author of the default text, in part the same lines)",
    "networkx": "networkx (source code)",
    "mishnah": "mishnah (Hebrew)",
    "bpe": "bpe (the default text as 1,024 byte pairs; convlm with swiglu alone)",
}


def helps(frames: Frames) -> str:
    """The arms that lower disagreement most, with more compute and without."""
    recipe, common = Config.for_model(SIDE_MODELS[0], "helps"), frames["rates"].query("model == @SIDE_MODELS[0] and common")
    times, n = recipe.learning_rate / common["learning_rate"].iloc[0], int(frames["helps"]["n"].min())
    said = []
    for model in SIDE_MODELS:
        arms = [row for row in helping(frames["helps"]) if row["model"] == model and row["activation"] not in _ALIKE]
        free = next(row for row in arms if max(row["training"], row["serving"]) <= _NO_MORE)
        cost = " and ".join(f"{arms[0][kind]:.2g} x {kind}" for kind in ("training", "serving"))
        said.append(f"in {model} {_most(free)} without more compute, {_most(arms[0])} with {cost}")
    return (
        f"Of the arms that lower both metrics (supported in both, against relu; {recipe.max_iters} steps at {times:g} times "
        f"the grid's rate, N = {n}), these lower total variation most: {'; '.join(said)}. All trials of warm start begin from "
        f"one earlier model, which is not counted; {listed(_ALIKE)}, which take a source of randomness away, are left out."
    )


# Arms whose trials are alike by construction.
_ALIKE = ("fixed start", "fixed order")


def _most(row: Any) -> str:
    return f"{row['activation']} ({' and '.join(f'{row[_per_cent(metric)]:+.0f} %' for metric in LEADING)})"


def helping(frame: pd.DataFrame) -> list[Any]:
    """The arms that are supported in both leading metrics, below the baseline; of a model the best in total variation first."""
    return [
        row
        for row in rows_of(frame)
        if all(row[f"verdict_{metric}"] == SUPPORTED and row[_per_cent(metric)] < 0 for metric in LEADING)
    ]


def _per_cent(metric: str) -> str:
    return f"per_cent_{metric}"


def sources(frames: Frames) -> str:
    """How much of the whole each source makes alone, in both leading metrics."""
    frame, shares = frames["sources"], dict[tuple[str, str], list[float]]()
    for _, rows in frame.groupby(["model", "activation"], sort=False):
        by_source = {r["source"]: r for r in rows_of(rows)}
        for source, metric in product(_SOURCES, LEADING):
            shares.setdefault((source, metric), []).append(100 * by_source[source][metric] / by_source["all"][metric])
    told = {key: f"{min(found):.0f} to {max(found):.0f} %" for key, found in shares.items()}
    said = [f"{words} {' and '.join(told[source, metric] for metric in LEADING)}" for source, words in _SOURCES.items()]
    over = f"{counted(frame['model'].nunique(), 'model')} and {counted(frame['activation'].nunique(), 'activation')}"
    alone, whole = (int(frame.query(f"source {sign} 'all'")["n"].min()) for sign in ("!=", "=="))
    return (
        f"Relative PD and total variation when one source varies and the others keep one seed (N = {alone}), in per cent of "
        f"that when all vary (N = {whole}), in {over}: {'; '.join(said)}. Shares do not add up to 100."
    )


_SOURCES = {"init": "initial weights", "order": "data order", "dropout": "dropout masks"}


def forks(frames: Frames) -> str:
    """What is left where trials part later."""
    recipe = Config.for_model("charlm", "forks")
    how = f"Trained for {recipe.max_iters} steps at a rate of {recipe.learning_rate:g}"
    return f"{how}: {forks_sentence(frames['forks'], 'charlm')}"


def minigpt(frames: Frames) -> str:
    """The verdicts on minigpt, cut."""
    pairs = in_both_metrics(frames["minigpt_contrasts"])
    return (
        f"In a family of its own (N = {int(pairs[0][0]['n'])}, at its default rate), of {len(pairs)} differences from relu, "
        f"{_verdicts_of(pairs)}."
    )
