"""The rules of ``published/PROTOCOL.md`` that the library does not have: rates (2), words (8), replication (9), models (10)."""

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import scipy

from published.rebuild.stores import Published
from repro_lib.analysis.contrasts import LEADING
from repro_lib.analysis.frames import rows_of
from repro_lib.analysis.verdicts import EQUAL, NOT_DECIDED, SUPPORTED
from repro_lib.config import GRID_ACTIVATIONS, Config
from repro_lib.metrics.hypothesis_tests import SIGNIFICANCE, holm
from repro_lib.metrics.uncertainty import t_quantile
from repro_lib.report.answer import verdict_in_both

# Of rule 2. Seeds of the first edition, whose own trials serve where the rate is the model's default.
SEEDS = (42, 43, 44)
MODELS = ("charlm", "nanotransformer", "convlm", "hybridlm", "tinylstm_readout")

Pair = tuple[dict[str, Any], dict[str, Any]]


def rate_check(published: Published) -> pd.DataFrame:
    """The mean validation loss of every cell at three rates; ``common``: the model's choice, ``own``: the activation's."""
    own, rows = [result for result in published.first.study.results if result.model_name in MODELS], []
    for result in (*own, *published.results("rates/results")):
        default = Config.for_model(result.model_name, "study")
        # The first edition's LSTM with a readout was another model, of another width.
        if result.config["n_embd"] != default.n_embd:
            continue
        losses = [trial.val_loss for trial in result.trials if trial.seed in SEEDS]
        rate = result.config["learning_rate"]
        row = {"model": result.model_name, "activation": result.activation, "learning_rate": rate}
        rows.append(
            row | {"times_default": rate / default.learning_rate, "n": len(losses), "val_loss": sum(losses) / len(losses)}
        )
    frame = pd.DataFrame(rows)
    order = {name: k for k, name in enumerate((*MODELS, *GRID_ACTIVATIONS))}
    frame = frame.sort_values(
        ["model", "activation", "learning_rate"], key=lambda column: column.replace(order), ignore_index=True
    )
    whole = frame.groupby(["model", "learning_rate"])["val_loss"].transform("mean")
    frame["common"] = whole == whole.groupby(frame["model"]).transform("min")
    frame["own"] = frame["val_loss"] == frame.groupby(["model", "activation"])["val_loss"].transform("min")
    return frame


def common_rates(frame: pd.DataFrame) -> dict[str, float]:
    """The learning rate of each model; the negative control has that of the LSTM with a readout."""
    chosen = {str(row["model"]): float(row["learning_rate"]) for row in rows_of(frame[frame["common"]])}
    return chosen | {"tinylstm": chosen["tinylstm_readout"]}


def own_rates_of(frame: pd.DataFrame) -> dict[tuple[str, str], float]:
    """The rate of each cell whose own is not its model's common one."""
    apart = rows_of(frame[frame["own"] & ~frame["common"]])
    return {(str(row["model"]), str(row["activation"])): float(row["learning_rate"]) for row in apart}


def in_both_metrics(contrasts: pd.DataFrame) -> list[Pair]:
    """Each contrast that could be made, in relative PD and in total variation."""
    first, second = (rows_of(contrasts[contrasts["metric"] == metric].dropna(subset=["per_cent"])) for metric in LEADING)
    return list(zip(first, second, strict=True))


def by_contrast(contrasts: pd.DataFrame) -> dict[tuple[str, str], Pair]:
    """The same by model and activation, of one text and one run of each."""
    return {(one["model"], one["activation"]): (one, other) for one, other in in_both_metrics(contrasts)}


def verdict(pair: Pair) -> str:
    """What both metrics say together, in the library's words."""
    one, other = pair
    return verdict_in_both(one | {"verdict_tv": other["verdict"], "per_cent_tv": other["per_cent"]})


def within_margin(row: Mapping[str, Any]) -> bool:
    """Whether the two one-sided tests of rule 7 say so, also of what is supported."""
    return row["p_equal"] <= SIGNIFICANCE


def beyond_margin(pair: Pair) -> bool:
    """Whether a contrast is supported in both metrics and, as estimated, larger than the margin in both."""
    return verdict(pair) == SUPPORTED and all(abs(row["per_cent"]) > row["margin"] for row in pair)


MATTERS, DOES_NOT, OPEN = "matters", "does not matter", "not decided"


def words_on_models(contrasts: pd.DataFrame) -> dict[str, str]:
    """Rule 8, per model: ``MATTERS`` where a contrast is supported in both metrics, by more than the margin in both as
    estimated; ``DOES_NOT`` where all are equal or supported within the margin, in both; else ``OPEN``."""
    pairs, words = in_both_metrics(contrasts), {}
    for model in dict.fromkeys(str(row["model"]) for row, _ in pairs):
        own = [pair for pair in pairs if pair[0]["model"] == model]
        clear = any(map(beyond_margin, own))
        small = all(row["verdict"] in (EQUAL, SUPPORTED) and within_margin(row) for pair in own for row in pair)
        words[model] = MATTERS if clear else DOES_NOT if small else OPEN
    return words


def order_holds(grid: pd.DataFrame, other: pd.DataFrame, activation: str = "swiglu") -> list[tuple[Any, Any, bool]]:
    """Of each metric and model where the activation's interval excludes 0 in the grid: its rows in both studies, and whether
    the other's excludes 0 too, on the same side."""
    keys, found = ["metric", "model", "activation"], []
    later = {tuple(row[key] for key in keys): row for row in rows_of(other.dropna(subset=["per_cent"]))}
    for row in rows_of(grid[grid["metric"].isin(LEADING) & (grid["activation"] == activation)].dropna(subset=["per_cent"])):
        then = later.get(tuple(row[key] for key in keys))
        if then and row["per_cent_low"] * row["per_cent_high"] > 0:
            holds = then["per_cent_low"] * then["per_cent_high"] > 0 and row["per_cent"] * then["per_cent"] > 0
            found.append((row, then, holds))
    return found


def replication(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Rule 9: each verdict of the first edition other than "not decided" beside the second's, and a word for the two.

    ``first``, ``second``: contrasts by metric as in ``tables/contrasts.csv``; the result has them in the leading metrics and of
    models that both editions trained alike, which the LSTM with a readout is not."""
    keys, shown = ["metric", "model", "activation"], ["n", "per_cent", "per_cent_low", "per_cent_high", "verdict"]
    both = first[[*keys, *shown]].merge(second[[*keys, *shown, "p_equal"]], on=keys, suffixes=("_first", ""))
    asked = both["metric"].isin(LEADING) & (both["model"] != "tinylstm_readout") & (both["verdict_first"] != NOT_DECIDED)
    found = both[asked].reset_index(drop=True)
    same_sign = found["per_cent_first"] * found["per_cent"] > 0
    alike = (found["verdict_first"] == found["verdict"]) & (same_sign | (found["verdict"] != SUPPORTED))
    turned = (found["verdict_first"] == SUPPORTED) & (found["verdict"] == SUPPORTED) & ~same_sign
    found["outcome"] = np.select([alike, turned], ["replicated", "reversed"], "not replicated")
    return found


def dependence_on_model(contrasts: pd.DataFrame, activation: str = "swiglu") -> pd.DataFrame:
    """Rule 10: between every two models the difference of an activation's contrasts, in points; Welch's t, Holm over all pairs.

    ``contrasts``: as in ``tables/contrasts.csv``. Welch's test takes them for independent; models share their seeds, and what
    luck they share makes it the more cautious."""
    frames = []
    for metric in LEADING:
        own = rows_of(contrasts[(contrasts["metric"] == metric) & (contrasts["activation"] == activation)])
        rows = []
        for one, other in combinations(own, 2):
            errors = [(r["per_cent_high"] - r["per_cent_low"]) / 2 / t_quantile(r["n"] - 1) for r in (one, other)]
            parts = [(r["per_cent"], error * r["n"] ** 0.5, r["n"]) for r, error in zip((one, other), errors, strict=True)]
            p = float(scipy.stats.ttest_ind_from_stats(*parts[0], *parts[1], equal_var=False).pvalue)
            pair = {"metric": metric, "model_1": one["model"], "model_2": other["model"], "activation": activation}
            rows.append(pair | {"points": one["per_cent"] - other["per_cent"], "error": math.hypot(*errors), "p": p})
        frame = pd.DataFrame(rows)
        frames.append(frame.assign(p_holm=holm(frame["p"].to_numpy(dtype=np.float64))))
    return pd.concat(frames, ignore_index=True)
