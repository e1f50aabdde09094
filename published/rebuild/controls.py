"""What stands beside the answer, in sentences: how metrics agree, the controls, and what the first edition had alone."""

from published.rebuild.tables import SPLITS
from published.rebuild.words import Frames, in_words, value
from repro_lib.analysis.contrasts import LEADING
from repro_lib.analysis.formatting import chance, listed
from repro_lib.analysis.frames import rows_of
from repro_lib.analysis.verdicts import SUPPORTED
from repro_lib.metrics.hypothesis_tests import SIGNIFICANCE


def ranks(frames: Frames) -> str:
    """How far metrics agree on the order of activations."""
    frame = frames["rank_agreement"]
    own = frame[(frame["first"] == "relative_pd") & (frame["second"].isin(["total_variation", "churn"]))]
    said = []
    for model, rows in own.dropna().groupby("model", sort=False):
        taus = [f"{r['kendall_tau']:+.1f} with {in_words(r['second'])}" for r in rows_of(rows)]
        said.append(f"{model} {', '.join(taus)}")
    return f"Kendall's tau between the order by relative PD and the order by another metric: {'; '.join(said)}."


def churn_and_error(frames: Frames) -> str:
    """Churn per error, lowest and highest."""
    rows = sorted(rows_of(frames["churn_and_error"]), key=lambda r: r["ratio"])
    ends = [f"{r['model']} with {r['activation']} {value(r, 'ratio', 3)}" for r in (rows[0], rows[-1])]
    return f"Churn divided by the error rate, which fewer errors alone do not lower, lies between {ends[0]} and {ends[1]}."


def a_a(frames: Frames) -> str:
    """The A/A control, whatever came of it."""
    parts, shares = [], []
    by_metric = frames["a_a_control"].groupby("metric")["share_of_random"].mean()
    kept = "not too liberal" if (by_metric <= SIGNIFICANCE).all() else "**too liberal**"
    for metric, rows in frames["a_a_control"].groupby("metric", sort=False):
        hits, least = int((rows["p"] <= SIGNIFICANCE).sum()), rows["p_holm"].min()
        failed = " (**this control failed**)" if least <= SIGNIFICANCE else ""
        parts.append(f"{hits} of {len(rows)} in {in_words(str(metric))}, the smallest after Holm {chance(least)}{failed}")
        shares.append(f"{100 * rows['share_of_random'].mean():.1f} % in {in_words(str(metric))}")
    level = f"{SIGNIFICANCE:g}"
    return (
        "A/A: the first half of a cell's trials against the second, between which nothing can differ but by chance, has p at "
        f"most {level} in {'; '.join(parts)}. Shared seeds can make hits cluster, but that explains none after Holm. "
        f"Of {SPLITS} random halves of each cell, added after that, p is at most {level} in {' and '.join(shares)}: at that "
        f"level the test is {kept} on these trials, which says nothing of its far tail."
    )


def negative_control(frames: Frames) -> str:
    """The LSTM."""
    own = frames["cv"].query("metric == 'relative_pd' and identical")
    name = ", ".join(own["model"])
    return f"`{name}`: weights and predictions of all five rows are bit-identical, CV {own['cv'].max():.2f} % exactly."


def smelu(frames: Frames) -> str:
    """Each width of SmeLU's bend against relu."""
    rows = rows_of(frames["smelu"])
    parts = [
        f"in {in_words(metric)} "
        + ", ".join(f"beta {r['beta']:g} {value(r, f'against_relu_per_cent_{metric}', 1, sign=True)}" for r in rows)
        for metric in LEADING
    ]
    return f"SmeLU in charlm by beta against relu in per cent (99 % intervals), {'; '.join(parts)}"


def margin_reason(frames: Frames) -> str:
    """What a moving average of the weights brings in the league, in both metrics, beside the margin."""
    rows, margin = rows_of(frames["helps"].query("activation == 'average EMA'")), frames["contrasts"]["margin"].iloc[0]
    said = []
    for metric in ("total_variation", "relative_pd"):
        sizes = [row[f"per_cent_{metric}"] for row in rows]
        less = ", less than the margin," if max(map(abs, sizes)) < margin else ""
        said.append(f"{listed([f'{size:+.1f} %' for size in sizes])}{less} in {in_words(metric)}")
    return f"{' and '.join(said)} ({listed([row['model'] for row in rows])})"


def context(frames: Frames) -> str:
    """How many contrasts keep their verdict with half the context."""
    frame = frames["context"].dropna(subset=["per_cent"])
    long, short = (
        {(r["model"], r["activation"]): r for r in rows_of(frame[frame["context"] == length])} for length in (128, 64)
    )
    before = [(row, short[name]) for name, row in long.items() if row["verdict"] == SUPPORTED]
    held = sum(then["verdict"] == SUPPORTED and row["per_cent"] * then["per_cent"] > 0 for row, then in before)
    again = f"{held} of {len(before)} contrasts of charlm and convlm"
    return f"with half the context {again} that are supported in relative PD are so again"


def smelu_in_the_readout(frames: Frames) -> str:
    """SmeLU in the LSTM's readout, first edition, in all metrics."""
    rows = rows_of(frames["first_contrasts"].query("model == 'tinylstm_readout' and activation == 'smelu_1'"))
    return ", ".join(f"{in_words(r['metric'])} {r['per_cent']:+.1f} %" for r in rows)


def gelu_by_length(frames: Frames) -> str:
    """Gelu against relu in convlm, first edition, by length of the run."""
    rows = rows_of(frames["first_lengths"].query("model == 'convlm'"))
    return "; ".join(f"{r['max_iters']} steps {value(r, 'total_variation', 1, sign=True)} %" for r in rows)
