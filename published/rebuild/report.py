"""The text of the research report: prose that is fixed, numbers that are filled in from the tables."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from published.rebuild import controls, sentences as say
from published.rebuild.figures import figure_names
from published.rebuild.stores import HERE, SECOND, Published
from published.rebuild.words import Frames, effect, in_words, p_words, value
from repro_lib.analysis.formatting import literally, small
from repro_lib.analysis.frames import rows_of
from repro_lib.analysis.verdicts import EQUAL, REFUTED, SUPPORTED
from repro_lib.metrics.uncertainty import Estimate
from repro_lib.plots.style import Plot
from repro_lib.report.claims_ledger import Entry, ledger, sentence, tally

NOT_YET = "*Not run yet.*"
TEMPLATE = Path(__file__).with_name("report.md")


def report(published: Published, frames: Frames, plots: Sequence[Plot], gaps: Sequence[str], answer: Sequence[str]) -> str:
    """``RESEARCH_REPORT.md``: the template with everything in braces filled in."""
    entries, trainings = ledger(published.evidence), _trainings(published)
    first = published.study.results[0]
    words = {
        # What stands beside the grid has sections of its own.
        "answer": "\n\n".join(answer[:3]),
        "models_trained": f"{len(trainings):,}",
        "hours": f"{sum(trainings.values()) / 3600:.0f}",
        "corpus": f"{first.corpus.name}, sha256 `{first.corpus.sha256[:12]}...`",
        "evaluation": f"{first.evaluation.tokens:,} characters, sha256 `{first.evaluation.sha256[:12]}...`",
        "environment": f"Python {first.environment['python']}, torch {first.environment['torch']}, {first.environment['cpu']}",
        "determinism": _determinism(),
        "not_run": "; ".join(gaps) or "nothing that the protocol names",
        "tally": tally(entries),
        "supported_claims": _listed(entries, SUPPORTED),
        "refuted_claims": _listed(entries, REFUTED),
    }
    for parts in (SENTENCES, TABLES_SHOWN):
        words |= {name: write(frames) if needed <= frames.keys() else NOT_YET for name, (write, needed) in parts.items()}
    words |= dict.fromkeys((f"figure_{name}" for name in figure_names()), "")
    words |= {f"figure_{plot.name}": f"![{literally(plot.alt)}](figures/{plot.name}.png)" for plot in plots}
    return TEMPLATE.read_text(encoding="utf-8").format(**words)


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


# --- tables


def cells_table(frame: pd.DataFrame) -> str:
    """Every cell: loss, accuracy, three metrics with intervals."""
    heads = ["model", "activation", "N", "loss, nats", "accuracy, %", "relative PD", "total variation", "churn"]
    digits = {"val_loss": 3, "val_accuracy": 2, "relative_pd": 4, "total_variation": 4, "churn": 4}
    rows = [
        [r["model"], r["activation"], int(r["n"]), *(value(r, name, count) for name, count in digits.items())]
        for r in rows_of(frame[frame["n"] > 0])
    ]
    return _table(heads, rows)


def contrasts_table(frame: pd.DataFrame, *about: str) -> str:
    """Every contrast in both leading metrics, with its verdicts; before it the columns ``about``."""
    heads = [*about, "model", "activation", "N", "relative PD, %", "verdict", "total variation, %", "verdict"]
    rows = [
        [*(_cell(r[name]) for name in about), r["model"], r["activation"], int(r["n"]), effect(r), r["verdict"], effect(mass),
         mass["verdict"]]
        for r, mass in say.in_both_metrics(frame)
    ]  # fmt: skip
    return _table(heads, rows)


def tests_table(frame: pd.DataFrame) -> str:
    """The tests behind the verdicts of the grid, in both metrics."""
    heads = ["model", "activation", "metric", "p", "after Holm", "p (not equal)", "permutation p, a check"]
    rows = [
        [
            r["model"],
            r["activation"],
            in_words(r["metric"]),
            *(p_words(r[p]) for p in ("p", "p_holm", "p_equal", "p_permutation")),
        ]
        for pair in say.in_both_metrics(frame)
        for r in pair
    ]
    return _table(heads, rows)


def metrics_table(frame: pd.DataFrame) -> str:
    """Every contrast by every metric, in per cent of relu; bold: supported; = : equal within the margin."""
    looks, rows = {SUPPORTED: "**{}**", EQUAL: "= {}"}, []
    metrics = list(dict.fromkeys(frame["metric"]))
    for (model, activation), own in frame.dropna(subset=["per_cent"]).groupby(["model", "activation"], sort=False):
        by_metric = {r["metric"]: looks.get(r["verdict"], "{}").format(f"{r['per_cent']:+.1f}") for r in rows_of(own)}
        rows.append([model, activation, *(by_metric[metric] for metric in metrics)])
    return _table(["model", "activation", *map(in_words, metrics)], rows)


def cv_table(frame: pd.DataFrame) -> str:
    """CV over activations, without its noise, and beside its null."""
    heads = [
        "model",
        "CV of relative PD, %",
        "without noise (95 % interval)",
        "if nothing differed: median, 95th percentile",
        "p",
    ]
    rows = []
    for r in rows_of(frame[frame["metric"] == "relative_pd"].dropna(subset=["cv"])):
        cv = ["0.00 exactly", "–"] if r["identical"] else [f"{r['cv']:.2f}", f"{Estimate.in_row(r, 'cv_corrected'):.2f}"]
        null = ["–", "–"] if r["identical"] else [f"{r['null_median']:.2f}, {r['null_high']:.2f}", p_words(r["p"])]
        rows.append([r["model"], *cv, *null])
    return _table(heads, rows)


def helps_table(frame: pd.DataFrame) -> str:
    """Every arm: what it changes of both leading metrics, loss and accuracy it ends with, and what it costs."""
    heads = ["model", "arm", "N", "total variation, %", "verdict", "relative PD, %", "verdict", "churn", "loss, nats"]
    heads += ["accuracy, %", "training, x", "serving, x"]
    rows = []
    for r in rows_of(frame):
        changes: list[Any] = []
        for name in ("total_variation", "relative_pd"):
            own = {f"per_cent{end}": r[f"per_cent{end}_{name}"] for end in ("", "_low", "_high")}
            own |= {"n": r["n"]}
            changes += ["the baseline", "–"] if pd.isna(own["per_cent"]) else [effect(own), r[f"verdict_{name}"]]
        ends = [f"{r['churn']:.3f}", f"{r['val_loss']:.3f}", f"{r['val_accuracy']:.2f}"]
        rows.append([r["model"], r["activation"], int(r["n"]), *changes, *ends, f"{r['training']:.2g}", f"{r['serving']:.2g}"])
    return _table(heads, rows)


def sources_table(frame: pd.DataFrame) -> str:
    """Both leading metrics by source of randomness."""
    rows = [
        [
            r["model"],
            r["activation"],
            r["varies"],
            int(r["n"]),
            *(Estimate.in_row(r, name).written(small) for name in say.LEADING),
        ]
        for r in rows_of(frame)
    ]
    return _table(["model", "activation", "varies between trials", "N", *map(in_words, say.LEADING)], rows)


def _cell(found: Any) -> str:
    return f"{found:.3f}" if isinstance(found, float) else str(found)


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (heads, ["---"] * len(heads), *rows))


# By its name in the template, and the tables that each is made of.
SENTENCES: Mapping[str, tuple[Callable[[Frames], str], set[str]]] = {
    "replicated": (say.replicated, {"replicated"}),
    "not_replicated": (say.not_replicated, {"replicated"}),
    "dependence": (say.dependence, {"dependence"}),
    "equal_loss": (say.equal_loss, {"equal_loss"}),
    "own_rates": (say.own_rates, {"own_rates", "contrasts"}),
    "rates": (say.rates, {"rates"}),
    "long": (say.long, {"long_contrasts", "long_cells", "contrasts"}),
    "texts": (say.texts, {"texts"}),
    "helps": (say.helps, {"helps"}),
    "sources": (say.sources, {"sources"}),
    "forks": (say.forks, {"forks"}),
    "minigpt": (say.minigpt, {"minigpt_contrasts"}),
    "ranks": (controls.ranks, {"rank_agreement"}),
    "churn_and_error": (controls.churn_and_error, {"churn_and_error"}),
    "a_a": (controls.a_a, {"a_a_control"}),
    "negative_control": (controls.negative_control, {"cv"}),
    "smelu": (controls.smelu, {"smelu"}),
    "context": (controls.context, {"context"}),
    "smelu_in_the_readout": (controls.smelu_in_the_readout, {"first_contrasts"}),
    "gelu_by_length": (controls.gelu_by_length, {"first_lengths"}),
}
TABLES_SHOWN: Mapping[str, tuple[Callable[[Frames], str], set[str]]] = {
    "cells_table": (lambda frames: cells_table(frames["cells"]), {"cells"}),
    "contrasts_table": (lambda frames: contrasts_table(frames["contrasts"]), {"contrasts"}),
    "tests_table": (lambda frames: tests_table(frames["contrasts"]), {"contrasts"}),
    "metrics_table": (lambda frames: metrics_table(frames["contrasts"]), {"contrasts"}),
    "cv_table": (lambda frames: cv_table(frames["cv"]), {"cv"}),
    "equal_loss_table": (lambda frames: contrasts_table(frames["equal_loss"], "loss"), {"equal_loss"}),
    "own_rates_table": (lambda frames: contrasts_table(frames["own_rates"]), {"own_rates"}),
    "long_table": (lambda frames: contrasts_table(frames["long_contrasts"]), {"long_contrasts"}),
    "texts_table": (lambda frames: contrasts_table(frames["texts"], "text"), {"texts"}),
    "helps_table": (lambda frames: helps_table(frames["helps"]), {"helps"}),
    "sources_table": (lambda frames: sources_table(frames["sources"]), {"sources"}),
    "minigpt_table": (lambda frames: contrasts_table(frames["minigpt_contrasts"]), {"minigpt_contrasts"}),
    "first_table": (lambda frames: contrasts_table(frames["first_contrasts"]), {"first_contrasts"}),
}
