"""The text of the research report: prose that is fixed, numbers that are filled in from the tables."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from published.rebuild import beside, controls, sentences as say
from published.rebuild.second import by_contrast, in_both_metrics, own_rates_of, within_margin
from published.rebuild.stores import HERE, SECOND, TEXTS, Published
from published.rebuild.words import MARKS, Frames, effect, in_words, markdown_rows, marked, verdict_table
from repro_lib.analysis.contrasts import LEADING
from repro_lib.analysis.formatting import chance, listed, literally, small
from repro_lib.analysis.frames import rows_of
from repro_lib.analysis.verdicts import REFUTED, SUPPORTED
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import Estimate
from repro_lib.plots.style import Plot
from repro_lib.report.claims_ledger import Entry, ledger, sentence, tally
from repro_lib.report.contrast_tables import contrasts_table, cv_table, equal_loss_tables, league_table
from repro_lib.report.tables import cells_table, markdown_table

TEMPLATE = Path(__file__).with_name("report.md")


def report(published: Published, frames: Frames, plots: Sequence[Plot], answer: Sequence[str]) -> str:
    """``RESEARCH_REPORT.md``: the template with everything in braces filled in."""
    entries, trainings = ledger(published.evidence), _trainings(published)
    first = published.study.results[0]
    words = {
        # What stands beside the grid has sections of its own.
        "answer": "\n\n".join(answer[: say.ON_THE_GRID]),
        "marks": MARKS,
        "parameters": _parameters(frames),
        **_edges(frames["rates"]),
        "models_trained": f"{len(trainings):,}",
        "hours": f"{sum(trainings.values()) / 3600:.0f}",
        "corpus": f"{first.corpus.name}, sha256 `{first.corpus.sha256[:12]}...`",
        "evaluation": f"{first.evaluation.tokens:,} characters, sha256 `{first.evaluation.sha256[:12]}...`",
        "environment": f"Python {first.environment['python']}, torch {first.environment['torch']}, {first.environment['cpu']}",
        "determinism": _determinism(),
        "tally": tally(entries),
        "supported_claims": _listed(entries, SUPPORTED),
        "refuted_claims": _listed(entries, REFUTED),
    }
    words |= {name: write(frames) for name, write in SENTENCES.items()}
    words |= tables_shown(published, frames)
    words |= {f"figure_{plot.name}": f"![{literally(plot.alt)}](figures/{plot.name}.png)" for plot in plots}
    return TEMPLATE.read_text(encoding="utf-8").format(**words)


def _parameters(frames: Frames) -> str:
    """The smallest and the largest model that any statistic is of, in millions."""
    frame = pd.concat([frames["cells"], frames["texts_cells"], frames["minigpt_cells"]]).query("model != 'tinylstm'")
    return " to ".join(f"{end / 1e6:.2f}" for end in frame["parameters"].agg(["min", "max"]))


def _edges(rates: pd.DataFrame) -> dict[str, int]:
    """Of how many ``models`` the common rate is the lowest or highest that was tried."""
    tried, common = rates.groupby("model")["learning_rate"], rates[rates["common"]].groupby("model")["learning_rate"].first()
    return {"edges": int((common.eq(tried.min()) | common.eq(tried.max())).sum()), "models": len(common)}


def _determinism() -> str:
    """What ``repro doctor --determinism`` said of the machine: its findings, without the digests."""
    *_, verdict = lines = (HERE / "determinism.txt").read_text(encoding="utf-8").splitlines()
    found = [line.removeprefix("ok").strip() for line in lines if line.startswith("ok") and not line.endswith(":")]
    return f"{verdict}: {'; '.join(found)}."


def _trainings(published: Published) -> dict[tuple[str, ...], float]:
    """Seconds of every model of this edition."""
    return {
        (name, result.model_name, result.activation, result.config_sha256, str(trial.trial)): trial.seconds
        for name in SECOND
        for _, result in published.store(name).load()[0]
        for trial in result.trials
    }


def _listed(entries: Sequence[Entry], verdict: str) -> str:
    chosen = [f"- {sentence(entry)}" for entry in entries if entry.main.verdict == verdict]
    return "\n".join(chosen) if chosen else "- none"


# --- tables: those of the site, as Markdown


def tables_shown(published: Published, frames: Frames) -> dict[str, str]:
    """Every table by its name in the template."""

    def contrasts_of(name: str) -> str:
        return markdown_table(contrasts_table(published.side(name).evidence))

    def text(name: str) -> str:
        cells = cells_table(published.side(name).study).drop(columns="Training, s")
        return f"{contrasts_of(name)}\n\n{markdown_table(cells)}"

    helps = published.side("helps/results").evidence
    return {
        "cells_table": markdown_table(cells_table(published.study)),
        "contrasts_table": markdown_table(contrasts_table(published.evidence)),
        "metrics_table": metrics_table(frames["contrasts"]),
        "cv_table": markdown_table(cv_table(published.evidence)),
        "not_replicated_table": not_replicated_table(frames["replicated"]),
        "dependence_table": dependence_table(frames["dependence"]),
        "equal_loss_table": "".join(map(markdown_table, equal_loss_tables(published.evidence))),
        "own_rates_table": markdown_table(contrasts_table(published.at_rates(own_rates_of(frames["rates"])))),
        "long_table": contrasts_of("long/results"),
        "texts_table": "\n\n".join(f"{name}:\n\n{text(f'{name}/results')}" for name in TEXTS),
        "helps_table": "\n\n".join(f"{model}:\n\n{markdown_table(league_table(helps, model))}" for model in helps.models),
        "sources_table": sources_table(frames["sources"]),
        "forks_table": forks_table(frames["forks"]),
        "minigpt_table": contrasts_of("minigpt/results"),
        "first_table": markdown_table(contrasts_table(published.first.evidence)),
    }


def metrics_table(frame: pd.DataFrame) -> str:
    """Every contrast by every metric, in per cent of relu, with ``MARKS``."""
    groups = frame.dropna(subset=["per_cent"]).groupby(["model", "activation"], sort=False)
    heads = ["model", "activation", *(PAIR_METRICS[metric].words for metric in dict.fromkeys(frame["metric"]))]
    return markdown_rows(heads, [[*map(str, names), *map(marked, rows_of(own))] for names, own in groups])


def sources_table(frame: pd.DataFrame) -> str:
    """Both leading metrics by source of randomness."""
    rows = [
        {"Model": r["model"], "Activation": r["activation"], "Varies between trials": r["varies"], "N": int(r["n"])}
        | {PAIR_METRICS[name].title: Estimate.in_row(r, name).written(small) for name in LEADING}
        for r in rows_of(frame)
    ]
    return markdown_table(pd.DataFrame(rows).set_index(["Model", "Activation"]))


def not_replicated_table(frame: pd.DataFrame) -> str:
    """The first edition's verdicts that did not replicate, beside what they are now."""
    rows = []
    for r in rows_of(frame.query("outcome != 'replicated'")):
        then, too = f"{r['per_cent_first']:+z.1f}, {r['verdict_first']}", r["verdict"] == SUPPORTED and within_margin(r)
        now = f"{effect(r)}, {r['verdict']}{' (within the margin too)' * too}"
        rows.append([in_words(r["metric"]), r["model"], r["activation"], then, now])
    return markdown_rows(["metric", "model", "activation", "then, %", "now"], rows)


def dependence_table(frame: pd.DataFrame) -> str:
    """By how many points swiglu's difference from relu is another one in the first model of a pair than in the second."""
    rows: dict[tuple[str, str], list[str]] = {}
    for r in rows_of(frame):
        rows.setdefault((r["model_1"], r["model_2"]), []).extend([f"{r['points']:+.1f}", chance(r["p_holm"])])
    heads = [head for metric in LEADING for head in (f"{in_words(metric)}, points", "p (Holm)")]
    return markdown_rows(["model", "minus model", *heads], [[*pair, *found] for pair, found in rows.items()])


def forks_table(frame: pd.DataFrame) -> str:
    """Total variation at the end by the point at which trials part, and by what differs from there on."""
    rows = [
        [r["varies"], f"{100 * r['share']:g}", f"{r['n']:g}", Estimate.in_row(r, "total_variation").written(small)]
        for r in rows_of(frame)
    ]
    return markdown_rows(["differs in", "forked after, % of the steps", "N", "total variation"], rows)


def helping_table(frame: pd.DataFrame) -> str:
    """The arms that lower both metrics in some model, most first: what each does to every model, and at what cost."""
    named, costs = {row["activation"] for row in beside.helping(frame)}, ("training", "serving")
    rows = {row["activation"]: [f"{row[kind]:.2g}" for kind in costs] for row in rows_of(frame) if row["activation"] in named}
    bases = frame[frame["per_cent_relative_pd"].isna()]
    others = [str(arm) for arm in frame["activation"].unique() if arm not in {*named, *bases["activation"]}]
    for model, own in frame.groupby("model", sort=False):
        by_arm, base = {row["activation"]: row for row in rows_of(own)}, bases.set_index("model").loc[model]
        for arm, cells in rows.items():
            shown = ", ".join(_of_arm(by_arm[arm], name) for name in (*LEADING, "at_loss", "churn"))
            cells.append(f"{shown} ({by_arm[arm]['val_loss'] - base['val_loss']:+z.2f})")
    heads = ["arm", "training, x", "serving, x", *frame["model"].unique()]
    legend = (
        "In per cent of the baseline: relative PD, total variation, the same at equal loss (-: none that both reach in all "
        "trials), churn; in brackets the change of loss in nats; **bold** where supported. In the tables alone: "
        f"{listed(others)}."
    )
    return f"{legend}\n\n{markdown_rows(heads, [[arm, *cells] for arm, cells in rows.items()])}"


def _of_arm(row: Mapping[str, Any], name: str) -> str:
    text = "-" if pd.isna(row[f"per_cent_low_{name}"]) else f"{row[f'per_cent_{name}']:+z.0f}"
    return f"**{text}**" if row[f"verdict_{name}"] == SUPPORTED else text


def own_rates_shown(frames: Frames) -> str:
    """Each contrast at the activation's own rate, beside what is known of the rate alone."""
    here, losses, rows = by_contrast(frames["own_rates"]), rows_of(frames["own_rates_loss"]), []
    for (name, rate), loss in zip(own_rates_of(frames["rates"]).items(), losses, strict=True):
        sizes = [map(marked, here[name]), beside.rate_alone(frames, name), beside.both_at_rate(frames, name)]
        changed = format(Estimate(loss["difference"], loss["low"], loss["high"], loss["n"]), "+.4f")
        rows.append([*name, f"{rate:g}, not {loss['common_rate']:g}", *map(", ".join, sizes), changed])
    heads = ["model", "activation", "own rate", "against relu at the common rate", "relu at that rate (first edition)"]
    return markdown_rows([*heads, "both at that rate (first edition)", "loss, own minus common rate, same seeds"], rows)


def _with_table(write: Callable[[Frames], str], frames: Frames, table: str) -> str:
    return f"{write(frames)}\n\n{table}"


def _verdicts(frames: Frames, name: str, *by: str) -> str:
    return verdict_table(in_both_metrics(frames[name]), *by)


# By its name in the template.
SENTENCES: Mapping[str, Callable[[Frames], str]] = {
    "replicated": say.replicated,
    "dependence": say.dependence,
    "equal_loss": lambda frames: _with_table(beside.equal_loss, frames, _verdicts(frames, "equal_loss", "model")),
    "moved": beside.moved,
    "own_rates": lambda frames: _with_table(beside.own_rates, frames, own_rates_shown(frames)),
    "rates": beside.rates,
    "long": beside.long,
    "texts": lambda frames: _with_table(beside.texts, frames, _verdicts(frames, "texts", "text", "model")),
    "helps": lambda frames: _with_table(beside.helps, frames, helping_table(frames["helps"])),
    "sources": beside.sources,
    "forks": beside.forks,
    "minigpt": lambda frames: _with_table(beside.minigpt, frames, _verdicts(frames, "minigpt_contrasts", "model")),
    "ranks": controls.ranks,
    "churn_and_error": controls.churn_and_error,
    "a_a": controls.a_a,
    "negative_control": controls.negative_control,
    "smelu": controls.smelu,
    "margin_reason": controls.margin_reason,
    "context": controls.context,
    "smelu_in_the_readout": controls.smelu_in_the_readout,
    "gelu_by_length": controls.gelu_by_length,
}
