"""The text of the research report: prose that is fixed, numbers that are filled in from the tables."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from published.rebuild.figures import FIGURES
from published.rebuild.stores import STORES, Published
from repro_lib.analysis.contrasts import LEADING
from repro_lib.analysis.formatting import literally, small
from repro_lib.analysis.frames import rows_of
from repro_lib.analysis.verdicts import EQUAL, REFUTED, SUPPORTED
from repro_lib.config import REFERENCE
from repro_lib.metrics.uncertainty import Estimate, rounded
from repro_lib.plots.style import Plot
from repro_lib.report.claims_ledger import Entry, ledger, sentence, tally

Frames = Mapping[str, pd.DataFrame]
NOT_YET = "*Not run yet.*"
TEMPLATE = Path(__file__).with_name("report.md")


def report(published: Published, frames: Frames, plots: Sequence[Plot]) -> str:
    """``RESEARCH_REPORT.md``: the template with everything in braces filled in."""
    entries, trainings = ledger(published.evidence), _trainings(published)
    first = published.study.results[0]
    words = {
        "answer": " ".join(readme_sentences(frames)),
        "equal_loss_table": equal_loss_table(frames["equal_loss"]),
        "apart": apart_list(frames["contrasts"]),
        "trials": str(int(frames["cells"]["n"].max())),
        "models_trained": f"{len(trainings):,}",
        "hours": f"{sum(trainings.values()) / 3600:.0f}",
        "corpus": f"{first.corpus.name}, sha256 `{first.corpus.sha256[:12]}...`",
        "evaluation": f"{first.evaluation.tokens:,} characters, sha256 `{first.evaluation.sha256[:12]}...`",
        "environment": f"Python {first.environment['python']}, torch {first.environment['torch']}, {first.environment['cpu']}",
        "stores": "\n".join(_store_line(published, name, about) for name, about in STORES.items()),
        "cells_table": cells_table(frames["cells"]),
        "contrasts_table": contrasts_table(frames["contrasts"]),
        "metrics_table": metrics_table(frames["contrasts"]),
        "cv_table": cv_table(frames["cv"]),
        "rank_agreement": rank_sentence(frames["rank_agreement"]),
        "churn_and_error": churn_sentence(frames["churn_and_error"]),
        "a_a": a_a_sentence(frames["a_a_control"]),
        "negative_control": negative_control(frames["cv"]),
        "tally": tally(entries),
        "supported_claims": _listed(entries, SUPPORTED),
        "refuted_claims": _listed(entries, REFUTED),
    }
    sentences = {"sources": sources_sentence, "lengths": lengths_sentence, "smelu": smelu_sentence, "context": context_sentence}
    sentences |= {"second_rates": rates_sentence}
    words |= {name: say(frames[name]) if name in frames else NOT_YET for name, say in sentences.items()}
    words |= corrections(frames)
    words["minigpt"] = minigpt_part(frames) if "minigpt_cells" in frames else NOT_YET
    words |= {f"figure_{draw.__name__}": "" for draw in FIGURES}
    words |= {f"figure_{plot.name}": f"![{literally(plot.alt)}](figures/{plot.name}.png)" for plot in plots}
    return TEMPLATE.read_text(encoding="utf-8").format(**words)


def readme_sentences(frames: Frames) -> list[str]:
    """The answer in a few sentences, each with N and intervals: every verdict by the one rule, in both leading metrics."""
    pairs = _in_both_metrics(frames["contrasts"])
    both = [pair for pair in pairs if _agree(pair, SUPPORTED)]
    sizes = [abs(row["per_cent"]) for pair in both for row in pair]
    n, cells = min(int(row["n"]) for row, _ in pairs), frames["cells"]
    cells = cells[cells["model"].isin({row["model"] for row, _ in pairs})]
    alone = {
        name: _and([f"{pair[k]['model']} with {pair[k]['activation']} {_effect(pair[k])}" for pair in pairs if _only(pair, k)])
        for k, name in enumerate(("relative PD", "total variation"))
    }
    equal: dict[str, list[str]] = {}
    for row, _ in (pair for pair in pairs if _agree(pair, EQUAL)):
        equal.setdefault(row["model"], []).append(row["activation"])
    alike = "; ".join(f"{model}: {', '.join(names)}" for model, names in equal.items())
    rest = len(pairs) - len(both) - sum(any(_only(pair, k) for k in (0, 1)) for pair in pairs) - sum(map(len, equal.values()))
    named = _and([f"{r['model']} with {r['activation']} {_effect(r)} and {_effect(mass)}" for r, mass in both])
    models, activations = _and([r["model"] for r, _ in both]), _and(sorted({r["activation"] for r, _ in both}))
    return [
        f"**In {models}, with {activations}, by {min(sizes):.0f} to {max(sizes):.0f} per cent:** with {n} trials per cell, "
        f"{len(both)} of {len(pairs)} contrasts with relu are supported in both leading metrics, relative PD and total "
        f"variation: {named} (95 % intervals, Holm over all {len(pairs)}).",
        "Supported in one of them alone, so that the answer depends on whether rare characters count: in "
        + "; in ".join(f"{name} {which or 'none'}" for name, which in alone.items()) + ".",
        f"Equal within the margin of {pairs[0][0]['margin']:g} % in both: {alike or 'none'}. "
        f"The other {rest} are not decided in one or both.",
        equal_loss_sentence(frames["equal_loss"]),
        f"Two models trained alike name another most probable character at {100 * cells['churn'].min():.0f} to "
        f"{100 * cells['churn'].max():.0f} % of all characters, whatever the activation; the LSTM, into which no activation is "
        "plugged, gives five bit-identical rows (CV exactly 0.00 %).",
    ]  # fmt: skip


def equal_loss_sentence(frame: pd.DataFrame) -> str:
    """What is left at equal loss, where there are runs of several lengths to tell."""
    pairs = _in_both_metrics(frame)
    supported = [pair for pair in pairs if any(row["verdict"] == SUPPORTED for row in pair)]
    largest, mass = max(pairs, key=lambda pair: max(abs(row["per_cent"]) for row in pair))
    return (
        f"At equal validation loss, where runs of other lengths tell, {len(supported)} of {len(pairs)} contrasts are supported "
        f"in either metric; the largest is {largest['model']} with {largest['activation']}, {_effect(largest)} and "
        f"{_effect(mass)}."
    )


Pair = tuple[dict[str, Any], dict[str, Any]]


def _in_both_metrics(contrasts: pd.DataFrame) -> list[Pair]:
    # Each contrast in relative PD and in total variation.
    first, second = (rows_of(contrasts[contrasts["metric"] == metric].dropna(subset=["per_cent"])) for metric in LEADING)
    return list(zip(first, second, strict=True))


def _agree(pair: Pair, verdict: str) -> bool:
    return all(row["verdict"] == verdict for row in pair) and (
        verdict != SUPPORTED or pair[0]["per_cent"] * pair[1]["per_cent"] > 0
    )


def _only(pair: Pair, k: int) -> bool:
    # Supported in this metric alone.
    return pair[k]["verdict"] == SUPPORTED and not _agree(pair, SUPPORTED)


def _trainings(published: Published) -> dict[tuple[str, ...], float]:
    """Seconds of every model that was trained; what two stores share counts once."""
    return {
        (result.model_name, result.activation, result.config_sha256, str(trial.trial)): trial.seconds
        for name in STORES
        for _, result in published.store(name).load()[0]
        for trial in result.trials
    }


# --- tables


def cells_table(frame: pd.DataFrame) -> str:
    """Every cell: loss, accuracy, three metrics with intervals."""
    lines = ["| model | activation | N | loss, nats | accuracy, % | relative PD | total variation | churn |", "|" + "---|" * 8]
    for r in rows_of(frame):
        if not r["n"]:
            continue
        measured = " | ".join(_value(r, name, 3 if name != "val_accuracy" else 2) for name in ("val_loss", "val_accuracy"))
        metrics = " | ".join(_value(r, name, 4) for name in ("relative_pd", "total_variation", "churn"))
        lines.append(f"| {r['model']} | {r['activation']} | {int(r['n'])} | {measured} | {metrics} |")
    return "\n".join(lines)


def contrasts_table(frame: pd.DataFrame) -> str:
    """Relative PD against relu."""
    heads = ["model", "activation", "against relu (95 % interval)", "p", "after Holm", "p (not equal)", "verdict"]
    heads += ["trials for a power of 0.8", "permutation p, a check"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for r in rows_of(_primary(frame)):
        if math.isnan(r["per_cent"]):
            continue
        needed = "over 10,000" if math.isnan(r["trials_needed"]) else f"{r['trials_needed']:,.0f}"
        tests = " | ".join(_p(r[name]) for name in ("p", "p_holm", "p_equal"))
        words = f"{_effect(r)} | {tests} | {r['verdict']} | {needed} | {_p(r['p_permutation'])}"
        lines.append(f"| {r['model']} | {r['activation']} | {words} |")
    return "\n".join(lines)


def equal_loss_table(frame: pd.DataFrame) -> str:
    """Every contrast at equal loss, in both leading metrics."""
    heads = ["model", "activation", "loss, nats", "relative PD, %", "verdict", "total variation, %", "verdict"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for r, mass in _in_both_metrics(frame):
        about = f"{r['model']} | {r['activation']} | {r['loss']:.3f}"
        lines.append(f"| {about} | {_effect(r)} | {r['verdict']} | {_effect(mass)} | {mass['verdict']} |")
    return "\n".join(lines)


def metrics_table(frame: pd.DataFrame) -> str:
    """Every contrast by every metric, in per cent of relu; bold: supported; = : equal within the margin."""
    metrics = list(dict.fromkeys(frame["metric"]))
    heads = ["model", "activation", *(metric.replace("_", " ") for metric in metrics)]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for model, activation in dict.fromkeys(zip(frame["model"], frame["activation"], strict=True)):
        own = {r["metric"]: r for r in rows_of(frame[(frame["model"] == model) & (frame["activation"] == activation)])}
        shown = [f"{own[m]['per_cent']:+.1f}" for m in metrics]
        looks = {SUPPORTED: "**{}**", EQUAL: "= {}"}
        shown = [looks.get(own[m]["verdict"], "{}").format(s) for s, m in zip(shown, metrics, strict=True)]
        if not any(math.isnan(own[m]["per_cent"]) for m in metrics):
            lines.append(f"| {model} | {activation} | {' | '.join(shown)} |")
    return "\n".join(lines)


def cv_table(frame: pd.DataFrame) -> str:
    """CV over activations, without its noise, and beside its null."""
    heads = [
        "model",
        "CV of relative PD, %",
        "without noise (95 % interval)",
        "CV if nothing differed: median, 95th percentile",
        "p",
    ]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for r in rows_of(_primary(frame)):
        if math.isnan(r["cv"]):
            continue
        cv = "0.00 exactly | –" if r["identical"] else f"{r['cv']:.2f} | {Estimate.in_row(r, 'cv_corrected'):.2f}"
        null = "– | –" if r["identical"] else f"{r['null_median']:.2f}, {r['null_high']:.2f} | {_p(r['p'])}"
        lines.append(f"| {r['model']} | {cv} | {null} |")
    return "\n".join(lines)


# --- sentences


def rank_sentence(frame: pd.DataFrame) -> str:
    """How far metrics agree on the order of activations."""
    own = frame[(frame["first"] == "relative_pd") & (frame["second"].isin(["total_variation", "churn"]))]
    said = []
    for model, rows in own.dropna().groupby("model", sort=False):
        taus = [f"{r['kendall_tau']:+.1f} with {r['second'].replace('_', ' ')}" for r in rows_of(rows)]
        said.append(f"{model}: {', '.join(taus)}")
    return f"Kendall's tau between the order by relative PD and the order by another metric: {'; '.join(said)}."


def churn_sentence(frame: pd.DataFrame) -> str:
    """Churn per error, lowest and highest."""
    rows = sorted(rows_of(frame), key=lambda r: r["ratio"])
    ends = [f"{r['model']} with {r['activation']} {_value(r, 'ratio', 3)}" for r in (rows[0], rows[-1])]
    return f"Churn per error, which a more accurate model does not get for free, lies between {ends[0]} and {ends[1]}."


def a_a_sentence(frame: pd.DataFrame) -> str:
    """The A/A control."""
    hits, least, count = int((frame["p"] <= 0.05).sum()), frame["p_holm"].min(), len(frame)
    reach = max(frame["per_cent_low"].abs().max(), frame["per_cent_high"].abs().max())
    said = (
        f"Each of {count} cells was split into its trials 1 to 5 and 6 to 10, which cannot differ but by chance: {hits} of "
        f"{count} splits have p at most 0.05 (about {0.05 * count:.0f} are expected)"
    )
    if least <= 0.05:
        return f"{said}. **This control failed**: after Holm's correction the smallest p is {_p(least)}."
    return (
        f"{said}, none of them after Holm's correction (smallest p {_p(least)}); no interval at N = 5 reaches further than "
        f"{reach:.1f} %."
    )


def negative_control(frame: pd.DataFrame) -> str:
    """The LSTM."""
    own = _primary(frame)
    same = own[own["identical"]]
    names = ", ".join(same["model"])
    return f"`{names}`: weights and predictions of all five rows are bit-identical, CV {same['cv'].max():.2f} % exactly."


def sources_sentence(frame: pd.DataFrame) -> str:
    """Relative PD by source, and how much of the whole each makes."""
    parts, shares, bits = [], [], []
    for model, rows in frame.groupby("model", sort=False):
        measured = {r["source"]: r for r in rows_of(rows) if r["n"]}
        own = ", ".join(f"{source} {Estimate.in_row(r, 'relative_pd').written(small)}" for source, r in measured.items())
        parts.append(f"{model} with {rows['activation'].iloc[0]}: {own}")
        share = {source: 100 * r["relative_pd"] / measured["all"]["relative_pd"] for source, r in measured.items()}
        shares += [share[source] for source in ("init", "order", "dropout") if source in share]
        bits += [f"{share['bit']:.2g} % of it in {model}"] if "bit" in share else []
    return (
        f"Relative PD by source (95 % intervals, N = {int(frame['n'].max())}). {'. '.join(parts)}.\n\n"
        "Sources do not add up: each of initial weights, data order and dropout masks alone makes "
        f"{min(shares):.0f} to {max(shares):.0f} % of what all of them make. The last bit of one initial weight makes "
        f"{_and(bits)}."
    )


def lengths_sentence(frame: pd.DataFrame) -> str:
    """Gelu against relu at each length, and what length does."""
    parts, effect = [], "gelu_against_relu_per_cent_relative_pd"
    for model, rows in frame.groupby("model", sort=False):
        effects = [f"{r['max_iters']} steps {_value(r, effect, 1, sign=True)}" for r in rows_of(rows.dropna(subset=[effect]))]
        relu = rows_of(rows[rows["activation"] == REFERENCE].sort_values("max_iters"))
        ends = [f"{r['relative_pd']:.3f} after {r['max_iters']} (loss {r['val_loss']:.3f})" for r in (relu[0], relu[-1])]
        said = f"{model}: relative PD with relu goes from {ends[0]} to {ends[1]}"
        parts.append(f"{said}; gelu against relu, in per cent: {', '.join(effects)}")
    return f"{'. '.join(parts)}."


def apart_list(frame: pd.DataFrame) -> str:
    """The contrasts that are supported in one of the two leading metrics alone."""
    pairs = [pair for pair in _in_both_metrics(frame) if _only(pair, 0) or _only(pair, 1)]
    lines = [
        f"- {r['model']} with {r['activation']}: relative PD {_effect(r)}, {r['verdict']}; total variation {_effect(mass)}, "
        f"{mass['verdict']}"
        for r, mass in pairs
    ]
    return "\n".join([f"Of {len(pairs)} contrasts the two leading metrics say different things:", "", *lines])


def corrections(frames: Frames) -> dict[str, str]:
    """The numbers beside what earlier versions of the report said."""
    contrasts, lengths = frames["contrasts"], frames["lengths"]

    def of(model: str, activation: str) -> str:
        own = rows_of(contrasts[(contrasts["model"] == model) & (contrasts["activation"] == activation)])
        return ", ".join(f"{r['metric'].replace('_', ' ')} {r['per_cent']:+.1f} %" for r in own)

    gelu = rows_of(lengths[(lengths["model"] == "convlm") & (lengths["activation"] == "gelu")].sort_values("max_iters"))
    by_length = "; ".join(
        f"{r['max_iters']} steps {_value(r, 'gelu_against_relu_per_cent_total_variation', 1, sign=True)} %" for r in gelu
    )
    return {"smelu_in_the_readout": of("tinylstm_readout", "smelu_1"), "gelu_by_length": by_length}


def smelu_sentence(frame: pd.DataFrame) -> str:
    """Each beta against relu."""
    parts = [f"beta {r['beta']:g} {_value(r, 'against_relu_per_cent_relative_pd', 1, sign=True)}" for r in rows_of(frame)]
    clear = [
        f"{name.replace('_', ' ')} at beta {r['beta']:g}, {_value(r, f'against_relu_per_cent_{name}', 1, sign=True)}"
        for name in ("relative_pd", "total_variation", "churn")
        for r in rows_of(frame)
        if r[f"against_relu_per_cent_{name}_low"] > 0 or r[f"against_relu_per_cent_{name}_high"] < 0
    ]
    said = (
        f"Clear of 0 by the interval, the one of two tests that was made here: {'; '.join(clear)}."
        if clear
        else "None is clear of 0, nor is any by total variation or churn."
    )
    about = "Relative PD against relu in per cent (99 % intervals, so that all five hold together at 95 %)"
    return f"{about}: {', '.join(parts)}. {said}"


def context_sentence(frame: pd.DataFrame) -> str:
    """Whether what is supported with context 128 is so with 64."""
    frame = frame.dropna(subset=["per_cent"])
    both_rows = (rows_of(frame[frame["context"] == length]) for length in (128, 64))
    long, short = ({(r["model"], r["activation"]): r for r in rows} for rows in both_rows)
    pairs = {key: (r, short[key]) for key, r in long.items() if key in short}
    parts = []
    for (model, activation), both in pairs.items():
        if any(r["verdict"] == SUPPORTED for r in both):
            states = [f"{_effect(r)}, {r['verdict']}" for r in both]
            parts.append(f"{model} with {activation}: {states[0]}, with context 128; {states[1]}, with 64")
    held = sum(a["verdict"] == b["verdict"] == SUPPORTED and a["per_cent"] * b["per_cent"] > 0 for a, b in pairs.values())
    count = sum(a["verdict"] == SUPPORTED for a, _ in pairs.values())
    said = ". ".join(parts) if parts else "No contrast is supported with either"
    orders = [f"{model} {_tau(pairs, model):+.1f}" for model in dict.fromkeys(model for model, _ in pairs)]
    return (
        f"{said} (Holm over the contrasts of each study). {held} of {count} contrasts supported with context 128 are "
        "supported, with the same sign, with 64. Kendall's tau between the orders of the five activations with 128 and 64: "
        f"{', '.join(orders)}."
    )


def _tau(pairs: Mapping[tuple[str, str], tuple[Mapping[str, Any], Mapping[str, Any]]], model: str) -> float:
    """How far two studies agree on the order of a model's activations, relu (0 per cent) among them."""
    own = [(0.0, 0.0), *((a["per_cent"], b["per_cent"]) for (name, _), (a, b) in pairs.items() if name == model)]
    frame = pd.DataFrame(own, columns=["first", "second"])
    return frame["first"].corr(frame["second"], method="kendall")


def rates_sentence(frame: pd.DataFrame) -> str:
    """Which learning rate the activations of each model need, and which of them would like another."""
    parts = []
    for model, rows in frame.groupby("model", sort=False):
        common, wide = rows[rows["common"]], sorted(set(rows["learning_rate"]))
        rate = float(common["learning_rate"].iloc[0])
        edge = ", the largest tried" if rate == wide[-1] else ", the smallest tried" if rate == wide[0] else ""
        own = rows[rows["own"] & ~rows["common"]]
        others = _and([f"{r['activation']} {r['learning_rate']:g}" for r in rows_of(own)])
        parts.append(f"{model} {rate:g}{edge}" + (f" (but {others})" if others else ""))
    n, tried = int(frame["n"].min()), _and([f"{times:g}" for times in sorted(set(frame["times_default"]))])
    return (
        f"of {tried} times the rate that a model has here, the lowest mean loss over five activations ({n} trials each) is "
        f"at {'; '.join(parts)} (`tables/second_rates.csv`)."
    )


def minigpt_part(frames: Frames) -> str:
    """The tables of minigpt, cut, and what follows from them."""
    frame = frames["minigpt_contrasts"].dropna(subset=["per_cent"])
    primary = _primary(frame)
    found, reach = primary[primary["verdict"] == SUPPORTED], primary[["per_cent_low", "per_cent_high"]].abs().to_numpy().max()
    said = f"Supported: {_and([r['activation'] + ' ' + _effect(r) for r in rows_of(found)]) or 'none'}"
    others = frame[(frame["verdict"] == SUPPORTED) & (frame["metric"] != "relative_pd")]
    named = [f"{r['metric'].replace('_', ' ')} with {r['activation']} {_effect(r)}" for r in rows_of(others)]
    also = f" Supported by other metrics: {', '.join(named)}." if named else ""
    sentence = f"{said} (Holm over these {len(primary)}), and no interval reaches further than {reach:.1f} % from relu.{also}"
    return "\n\n".join([cells_table(frames["minigpt_cells"]), contrasts_table(frame), sentence])


# --- words


def _listed(entries: Sequence[Entry], verdict: str) -> str:
    chosen = [f"- {sentence(entry)}" for entry in entries if entry.main.verdict == verdict]
    return "\n".join(chosen) if chosen else "- none"


def _store_line(published: Published, name: str, about: str) -> str:
    there = any((published.folder / name).glob("*.json"))
    return f"- `published/{name}`: {about}{'' if there else ' (not run yet)'}"


def _primary(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["metric"] == "relative_pd"]


def _effect(row: Mapping[str, Any]) -> str:
    return format(Estimate.in_row(row, "per_cent"), "+.1f %")


def _value(row: Mapping[str, Any], name: str, digits: int, *, sign: bool = False) -> str:
    estimate, spec = Estimate.in_row(row, name), f"{'+' if sign else ''}.{digits}f"
    # An interval of no width, where all trials are alike, would say the same number three times.
    return rounded(estimate.value, spec) if estimate.low == estimate.high else format(estimate, spec)


def _p(value: float) -> str:
    return f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
