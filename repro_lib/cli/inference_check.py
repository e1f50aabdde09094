"""``repro doctor --inference``: how far do predictions of the same weights depend on batch size, threads and precision?"""

import math
from pathlib import Path
from typing import Any

from rich.console import Console

from repro_lib.analysis.formatting import small
from repro_lib.analysis.frames import rows_of
from repro_lib.analysis.inference_noise import inference_noise
from repro_lib.analysis.stored_models import config_of, corpus_of, load_trained
from repro_lib.analysis.study import load_study
from repro_lib.data import CorpusError, make_dataset
from repro_lib.store.schema import ResultError
from repro_lib.store.store import Store


def check_inference(console: Console, results_dir: Path) -> int:
    """Ask the first trial of a cell of each model in several ways and print what changes; 1 if none could be asked."""
    store, asked = Store(results_dir), 0
    results = load_study(results_dir).results
    for result in reversed({result.model_name: result for result in reversed(results)}.values()):
        name = f"{result.model_name} with {result.activation}"
        try:
            trained, corpus, config = load_trained(store, result, 1), corpus_of(result), config_of(result)
        except (ResultError, CorpusError) as problem:
            console.print(f"note  {name}: {problem}")
            continue
        _, inputs = next(make_dataset(corpus, config.train_split, config.block_size).windows.pieces(config.block_size))
        beside = "" if result.avg_relative_pd is None else f"; relative PD between trials {result.avg_relative_pd:.4f}"
        console.print(f"{name}, trial 1, asked for {inputs.numel():,} characters all at once in one thread{beside}")
        for row in rows_of(inference_noise(trained, inputs, config.block_size))[1:]:
            console.print(f"      {row['way']}: {_in_words(row)}")
        asked += 1
    return 0 if asked else 1


def _in_words(row: dict[str, Any]) -> str:
    if row["same"]:
        return "the same bits"
    first = row["first_difference"]
    text = "the same greedy text" if math.isnan(first) else f"another greedy text from character {first:.0f} on"
    sizes = f"logits differ by up to {small(row['largest'])}, relative PD {small(row['relative_pd'])}"
    return f"{sizes}, {100 * row['churn']:.3g} % of the most probable characters flip, {text}"
