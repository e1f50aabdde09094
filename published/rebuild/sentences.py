"""What each part of the published study says, in sentences made of its tables; every word of a verdict is the protocol's."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from published.rebuild.second import (
    DOES_NOT,
    MATTERS,
    OPEN,
    Pair,
    in_both_metrics,
    order_holds,
    own_rates_of,
    verdict,
    within_margin,
    words_on_models,
)
from published.rebuild.words import Frames, effect, in_words
from repro_lib.analysis.contrasts import LEADING
from repro_lib.analysis.formatting import counted, listed, small
from repro_lib.analysis.frames import rows_of
from repro_lib.analysis.verdicts import EQUAL, NOT_DECIDED, SUPPORTED
from repro_lib.metrics.uncertainty import Estimate
from repro_lib.report.answer import IN_ONE

# Of the arms that help, so many are named.
_SHOWN = 3


def answer(frames: Frames, first: str, gaps: Sequence[str]) -> list[str]:
    """The answer, a paragraph each: ``first`` is the sentence that the site's index has, ``gaps`` what was not run."""
    words, pairs = words_on_models(frames["contrasts"]), in_both_metrics(frames["contrasts"])
    margin = f"{pairs[0][0]['margin']:g} %"
    cells, n = frames["cells"], min(int(row["n"]) for row, _ in pairs)
    cells = cells[cells["model"].isin(words)]
    apart = f"{100 * cells['churn'].min():.0f} to {100 * cells['churn'].max():.0f} %"
    parts = [
        f"**{_on_models(words, margin)}** {first}",
        f"By rules that are older than the data: {n} fresh trials per cell, two metrics, a margin of {margin}, "
        f"Holm over all {len(pairs)}. {_both(pairs)} {_one_alone(pairs)}",
        f"{_equal(pairs)} Two models trained alike name another most probable character at {apart} of all characters, whatever "
        "the activation.",
    ]
    beside = [" ".join(of(frames) for needed, of in group if needed <= frames.keys()) for group in _BESIDE]
    open_parts = [f"Not run yet: {'; '.join(gaps)}."] if gaps else []
    if "equal_loss" not in frames:
        open_parts.append("Until there are contrasts at equal loss, part of a difference may be how far an activation gets.")
    return [*parts, *filter(None, beside), *filter(None, [" ".join(open_parts)])]


def _on_models(words: dict[str, str], margin: str) -> str:
    named = {word: [model for model, own in words.items() if own == word] for word in (MATTERS, DOES_NOT, OPEN)}
    parts = [f"the activation matters to {listed(named[MATTERS])}"] if named[MATTERS] else []
    parts += [f"it does not matter to {listed(named[DOES_NOT])} within {margin}"] if named[DOES_NOT] else []
    parts += [f"for {listed(named[OPEN])} it is not decided"] if named[OPEN] else []
    text = "; ".join(parts)
    return f"{_capital(text)}."


def _both(pairs: Sequence[Pair]) -> str:
    both = [pair for pair in pairs if verdict(pair) == SUPPORTED]
    if not both:
        return "No difference from relu is supported in both metrics."
    named = []
    for pair in both:
        within = [in_words(row["metric"]) for row in pair if within_margin(row)]
        named.append(_named(pair) + (f", within the margin in {'both' if len(within) == 2 else within[0]}" if within else ""))
    return f"Supported in both, relative PD and total variation: {'; '.join(named)}."


def _named(pair: Pair) -> str:
    r, mass = pair
    return f"{r['model']} with {r['activation']} {effect(r)} and {effect(mass)}"


def _one_alone(pairs: Sequence[Pair]) -> str:
    parts = []
    for k, metric in enumerate(LEADING):
        rows = [pair[k] for pair in pairs if verdict(pair) == IN_ONE and pair[k]["verdict"] == SUPPORTED]
        within = [" (within the margin)" if within_margin(row) else "" for row in rows]
        found = [f"{r['model']} with {r['activation']} {effect(r)}{end}" for r, end in zip(rows, within, strict=True)]
        parts += [f"in {in_words(metric)} {listed(found)}"] if found else []
    if not parts:
        return "None is supported in one of them alone."
    return f"Supported in one alone, so that it depends on whether rare characters count: {'; '.join(parts)}."


def _equal(pairs: Sequence[Pair]) -> str:
    names: dict[str, list[str]] = {}
    for row, _ in (pair for pair in pairs if verdict(pair) == EQUAL):
        names.setdefault(row["model"], []).append(row["activation"])
    alike = "; ".join(f"{model} with {listed(own)}" for model, own in names.items()) or "none"
    rest = sum(verdict(pair) == NOT_DECIDED for pair in pairs)
    undecided = f" {counted(rest, '', 'are')} not decided in one metric or both." if rest else ""
    return f"Equal within {pairs[0][0]['margin']:g} % in both: {alike}.{undecided}"


def replicated(frames: Frames) -> str:
    """What became of the first edition's verdicts."""
    count = Counter(frames["replicated"]["outcome"])
    turned = f"{counted(count['reversed'], '', 'were')} reversed" if count["reversed"] else "none was reversed"
    return (
        f'The first edition had {count.total()} verdicts by metric other than "{NOT_DECIDED}", on models that both editions '
        f"trained alike but for the rate: {count['replicated']} replicated, {turned}, {count['not replicated']} did not "
        "replicate."
    )


def not_replicated(frames: Frames) -> str:
    """Those that did not, by name."""
    named = [
        f"{r['model']} with {r['activation']} in {in_words(r['metric'])} ({r['verdict_first']} then, "
        f"{r['per_cent_first']:+.1f} %; now {r['verdict']}, {effect(r)})"
        for r in rows_of(frames["replicated"].query("outcome != 'replicated'"))
    ]
    return f"Those that are not replicated: {'; '.join(named)}." if named else ""


def dependence(frames: Frames) -> str:
    """Between which models swiglu's difference from relu differs."""
    first, second = (rows_of(frames["dependence"].query("metric == @metric")) for metric in LEADING)
    pairs = list(zip(first, second, strict=True))
    apart = [
        f"{r['model_1']} and {r['model_2']} by {abs(r['points']):.1f} and {abs(mass['points']):.1f} points"
        for r, mass in pairs
        if max(r["p_holm"], mass["p_holm"]) <= 0.05 and r["points"] * mass["points"] > 0
    ]
    named = f": {'; '.join(apart)}" if apart else ""
    return (
        f"Swiglu's difference from relu depends on the model in {len(apart)} of {len(pairs)} pairs of models, in relative PD "
        f"and in total variation (Welch's t, Holm over the pairs){named}."
    )


def equal_loss(frames: Frames) -> str:
    """What is left of the differences at equal loss."""
    pairs = in_both_metrics(frames["equal_loss"])
    kinds = {SUPPORTED: "supported in both", IN_ONE: "supported in one metric alone", EQUAL: "equal within the margin in both"}
    kinds[NOT_DECIDED] = "not decided"
    of_kind = {words: [pair for pair in pairs if verdict(pair) == kind] for kind, words in kinds.items()}
    said = [f"{counted(len(own), '', 'are')} {words}: {', '.join(map(_named, own))}" for words, own in of_kind.items() if own]
    return (
        f"Of {len(pairs)} contrasts at equal validation loss, read off runs of several lengths that each decayed fully, "
        f"{'; '.join(said)}. What an activation changes at equal steps and not at equal loss is how far it gets, not how "
        "well it reproduces."
    )


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
    return f"Of {len(before)} contrasts {len(parts)} have an activation with a rate of its own. {'; '.join(parts)}."


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
        f"{grid['model']}, {in_words(grid['metric'])}: {effect(grid)} after 500 steps, {effect(then)} after 5,000"
        for grid, then, _ in found
    ]
    held = sum(holds for *_, holds in found)
    said = "the order holds" if found and held == len(found) else f"the order holds in {held} of {len(found)}"
    shown = (
        f"swiglu against relu is, in {'; in '.join(parts)}: by the protocol's rule {said}" if found else "no order was there"
    )
    return f"After 5,000 steps (loss {losses} nats; {int(cells['n'].max())} trials, so no verdict) {shown}."


def texts(frames: Frames) -> str:
    """What is supported on other texts."""
    parts = []
    for name, rows in frames["texts"].groupby("text", sort=False):
        pairs = in_both_metrics(rows)
        both = [_named(pair) for pair in pairs if verdict(pair) == SUPPORTED]
        one, equal = (sum(verdict(pair) == kind for pair in pairs) for kind in (IN_ONE, EQUAL))
        parts.append(
            f"{_TEXTS[str(name)]}: of {len(pairs)} supported in both {', '.join(both) or 'none'}, in one {one}; equal in "
            f"both {equal}"
        )
    return f"On other texts, each a family of its own, relative PD and total variation. {'. '.join(map(_capital, parts))}."


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


_TEXTS = {"tinyshakespeare": "Tiny Shakespeare", "networkx": "source code (NetworkX)", "mishnah": "Hebrew (Mishnah)"}
_TEXTS |= {"bpe": "the default text as 1,024 byte pairs"}


def helps(frames: Frames) -> str:
    """What lowers disagreement, most first, and what it costs."""
    parts = []
    for model, rows in frames["helps"].groupby("model", sort=False):
        lower = [r for r in rows_of(rows) if r["per_cent_total_variation"] < 0 and _helps(r)]
        named = [
            f"{r['activation']} {r['per_cent_total_variation']:+.0f} % and {r['per_cent_relative_pd']:+.0f} % (training "
            f"{r['training']:.2g} x, serving {r['serving']:.2g} x)"
            for r in lower[:_SHOWN]
        ]
        free = [r for r in lower if max(r["training"], r["serving"]) <= 1.01]
        best = (
            f"; of those that cost nothing {free[0]['activation']} {free[0]['per_cent_total_variation']:+.1f} %" if free else ""
        )
        parts.append(f"In {model} {listed(named) if named else 'nothing'}{best}.")
    return f"What lowers total variation and relative PD most, supported in both. {' '.join(parts)}"


def _helps(row: Any) -> bool:
    supported = row["verdict_total_variation"] == row["verdict_relative_pd"] == SUPPORTED
    return supported and row["per_cent_relative_pd"] < 0


def sources(frames: Frames) -> str:
    """How much of the whole each source makes alone."""
    shares: dict[str, list[float]] = {}
    for _, rows in frames["sources"].groupby(["model", "activation"], sort=False):
        by_source = {r["source"]: r["total_variation"] for r in rows_of(rows)}
        for source, found in by_source.items():
            if source in ("init", "order", "dropout"):
                shares.setdefault(source, []).append(100 * found / by_source["all"])
    said = [f"{_SOURCES[source]} {min(found):.0f} to {max(found):.0f} %" for source, found in shares.items()]
    return (
        f"Varied alone, in per cent of the total variation when all vary, over two models and three activations: "
        f"{listed(said)}. Sources do not add up."
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
    pairs = in_both_metrics(frames["minigpt_contrasts"])
    return f"{_both(pairs)} {_one_alone(pairs)} {_equal(pairs)}"


# A paragraph each, of what was run.
_BESIDE = (
    (({"equal_loss"}, equal_loss), ({"replicated"}, replicated)),
    (({"long_contrasts", "long_cells"}, long), ({"texts"}, texts), ({"helps"}, helps)),
)
