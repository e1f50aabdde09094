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

# Of the arms that help, so many are named by what they cost more of, nothing or this; within a hundredth is no more.
_SHOWN = {"": 2, "training": 1, "serving": 1}
_NO_MORE = 1.01


def equal_loss(frames: Frames) -> str:
    """What is left of the differences at equal loss."""
    n = int(frames["equal_loss"]["n"].min())
    return (
        f"At the lowest validation loss that both reach, read off runs of several lengths (N = {n}), "
        f"{_verdicts_of(frames['equal_loss'])}."
    )


def moved(frames: Frames) -> str:
    """In how many contrasts the interval at equal loss and that of the grid do not overlap, and which way they moved."""
    grid, here, said = by_contrast(frames["contrasts"]), by_contrast(frames["equal_loss"]), []
    for k, metric in enumerate(LEADING):
        both = [(pair[k], grid[name][k]) for name, pair in here.items()]
        lower = sum(own["per_cent_high"] < there["per_cent_low"] for own, there in both)
        higher = sum(own["per_cent_low"] > there["per_cent_high"] for own, there in both)
        said.append(f"in {in_words(metric)} {lower} of {len(both)} estimates are lower here and {higher} higher")
    return (
        "Fewer trials than in the grid may explain a lost verdict, but not a moved estimate: counted where the two intervals "
        f"do not overlap, {listed(said)}. Relative PD rises with the length of a run in these models, and the arm with the "
        "lower loss is read off shorter runs: equal loss is not equal length."
    )


def _verdicts_of(contrasts: pd.DataFrame, name_them: bool = True) -> str:
    """How many contrasts have each verdict of both metrics; by name, if wished, those that are supported in both."""
    pairs, parts = in_both_metrics(contrasts), []
    if len(pairs) == 1:
        return f"the one difference from relu is {_KINDS[_kind(pairs[0])]} ({_told(pairs[0])})"
    for kind, words in _KINDS.items():
        own = [pair for pair in pairs if _kind(pair) == kind]
        large = filter(_large, own) if kind == IN_ONE else own if name_them and kind in (SUPPORTED, _OPPOSED) else ()
        listed_ones = "; ".join(map(_told, large))
        among = "among them " if kind == IN_ONE and len(own) > 1 else ""
        named = f" ({among}{listed_ones})" if listed_ones else ""
        parts += [f"{counted(len(own), '', 'are')} {words}{named}"] if own else []
    return f"of {counted(len(pairs), 'difference')} from relu, {listed(parts)}"


def _large(pair: Pair) -> bool:
    # One metric alone supports it, and it is beyond the margin there: a reader would miss it.
    return any(row["verdict"] == SUPPORTED and abs(row["per_cent"]) > row["margin"] for row in pair)


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
    """What changes where each activation has the learning rate that suits it, and what that rate alone does to relu."""
    asked, pairs, then = own_rates_of(frames["rates"]), by_contrast(frames["own_rates"]), by_contrast(frames["first_contrasts"])
    named = [f"{_told(pairs[name])} at {rate:g} ({_KINDS[_kind(pairs[name])]})" for name, rate in asked.items()]
    both = [" and ".join(f"{row['per_cent']:+z.1f} %" for row in then[name]) for name in asked]
    cells = [{(r["model"], r["activation"]): r for r in rows_of(frames[name])} for name in ("first_cells", "cells")]
    alone = []
    for model in dict.fromkeys(model for model, _ in asked):
        old, new = (by_name[model, "relu"] for by_name in cells)  # of other seeds, so without an interval
        alone.append(" and ".join(f"{100 * (old[name] / new[name] - 1):+.1f} %" for name in LEADING) + f" in {model}")
    n = min(int(pairs[name][0]["n"]) for name in asked)
    return (
        f"In {len(asked)} of {len(pairs)} contrasts the activation's own rate is not the common one, at which relu stays "
        f"(N = {n}): {'; '.join(named)}. These include the effect of the rate itself: relu alone, at that rate in the first "
        f"edition (other seeds), differs from relu at the common one here by {listed(alone)}; with both arms at that rate, "
        f"there, the differences were {'; '.join(both)}."
    )


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


def texts(frames: Frames) -> str:
    """What is supported on other texts, first what is so on each of them, with its size on each."""
    parts, sizes = [], dict[tuple[str, str, bool], list[str]]()
    for name, rows in frames["texts"].groupby("text", sort=False):
        for row, mass in (pair for pair in in_both_metrics(rows) if verdict(pair) == SUPPORTED):
            size = f"{row['per_cent']:+z.1f} and {mass['per_cent']:+z.1f} %"
            sizes.setdefault((row["model"], row["activation"], row["per_cent"] > 0), []).append(size)
        parts.append(f"On {_TEXTS[str(name)]}, {_verdicts_of(rows, name_them=False)}.")
    everywhere = [
        f"{model} with {activation}, {'above' if above else 'below'} relu by {', '.join(on_each)}"
        for (model, activation, above), on_each in sizes.items()
        if len(on_each) == len(parts) > 1
    ]
    lead = [f"Supported in both metrics on all of these, in their order: {'; '.join(everywhere)}."] if everywhere else []
    return " ".join([*lead, "All at the rates chosen on the default text.", *parts])


_TEXTS = {
    "tinyshakespeare": "Tiny Shakespeare (the author of the default text, in part the same lines)",
    "networkx": "source code (NetworkX)",
    "mishnah": "Hebrew (Mishnah)",
    "bpe": "the default text as 1,024 byte pairs",
}


def helps(frames: Frames) -> str:
    """What lowers disagreement, by what it costs, most first."""
    parts, every = [], []
    for model, rows in frames["helps"].groupby("model", sort=False):
        base, lower = rows[rows["per_cent_relative_pd"].isna()].iloc[0], list(filter(_helps, rows_of(rows)))
        chosen: list[Any] = []
        for kind, most in _SHOWN.items():
            own = [row for row in lower if _kind_of_cost(row) == kind]
            # The league goes by total variation; what costs nothing is named by the other metric too.
            others = sorted(own[most:], key=lambda row: row["per_cent_relative_pd"])[: int(not kind)]
            chosen += [*own[:most], *others]
        every += chosen
        named = "; ".join(f"{_costs(row)}{_arm(row, base)}" for row in chosen)
        parts.append(f"In {model}, {named or 'no arm is supported in both metrics'}.")
    recipe, common = Config.for_model(SIDE_MODELS[0], "helps"), frames["rates"].query("model == @SIDE_MODELS[0] and common")
    times = recipe.learning_rate / common["learning_rate"].iloc[0]
    return (
        f"Supported against the baseline in total variation and relative PD ({recipe.max_iters} steps at {times:g} times the "
        f"grid's rate, N = {int(frames['helps']['n'].min())}; change of loss in nats): without more compute the arms that "
        f"lower total variation most and the one that lowers relative PD most, and the best that cost more. {' '.join(parts)}"
        f"{_not_in(every)} Not counted: the one earlier model that all trials of warm start, or of anchored to 1, share; fixed "
        "order takes a source of randomness away."
    )


def _not_in(shown: Sequence[Any]) -> str:
    """Which of these arms are not supported by churn, or by total variation at equal loss where that is known."""
    asked = {"by churn": "churn", "by total variation at equal loss": "at_loss"}
    said = []
    for words, name in asked.items():
        open_ones = [row for row in shown if not pd.isna(row[f"per_cent_{name}"]) and row[f"verdict_{name}"] != SUPPORTED]
        named = [f"{row['activation']} in {row['model']}" for row in open_ones]
        said += [f"{words}, {listed(named)}"] if named else []
    return f" Not supported: {'; '.join(said)}." if said else ""


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
        f"Varied alone (N = {alone}), in per cent of what it is when all vary (N = {whole}), in relative PD and in total "
        f"variation, over {over}: {'; '.join(said)}. What does not vary has one seed; sources do not add up."
    )


_SOURCES = {"init": "initial weights", "order": "data order", "dropout": "dropout masks"}


def forks(frames: Frames) -> str:
    """What is left where trials part later."""
    return forks_sentence(frames["forks"], "charlm")


def minigpt(frames: Frames) -> str:
    """The verdicts on minigpt, cut."""
    frame = frames["minigpt_contrasts"]
    return f"In a family of its own (N = {int(frame['n'].min())}, at its default rate), {_verdicts_of(frame)}."
