"""The noise floor: the same weights, asked in other ways. Whatever two trainings differ by is to be read beside it."""

import math
from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from repro_lib.metrics import prediction_difference as metrics
from repro_lib.models.determinism import deterministic_arithmetic

Score = Callable[[Tensor], Tensor]


class Way(NamedTuple):
    """How a model is asked: examples in one call (None: all), threads, and whether products are made in bfloat16."""

    batch: int | None = None
    threads: int = 1
    bfloat16: bool = False


# The first is what the others are compared with. Sizes that are no multiples of what processors take at once.
WAYS = {
    "all at once, one thread": Way(),
    "one at a time": Way(batch=1),
    "in batches of 7": Way(batch=7),
    "two threads": Way(threads=2),
    "bfloat16": Way(bfloat16=True),
}


def inference_noise(score: Score, inputs: Tensor, context: int | None = None, length: int = 100) -> pd.DataFrame:
    """How far a model's answers depend on how it is asked, its weights staying the same; a row for each of ``WAYS``.

    ``score``: from inputs (B, ...) to logits (B, ..., V), in evaluation mode. ``inputs``: (examples, ...). With ``context`` the
    inputs are tokens (examples, T), and the last ``context`` of the first example are continued greedily by ``length`` tokens.
    Columns: way, same (to the last bit), largest (difference of a logit), relative_pd, total_variation, churn (top-1 flips);
    first_difference: the number of the first greedy token that is another one (NaN: none within ``length``, or not asked for).
    """
    rows, first, written = [], torch.empty(0), torch.empty(0)
    for name, way in WAYS.items():
        with deterministic_arithmetic(), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=way.bfloat16):
            torch.set_num_threads(way.threads)  # set back by the first of these
            logits = _asked(score, inputs, way.batch)
            own = _continued(score, inputs[:1], context, length, way.batch or 1) if context else torch.empty(0)
        if not rows:
            first, written = logits, own
        p, q = metrics.probabilities_from_logits([of.flatten(0, -2).numpy() for of in (first, logits)])
        apart = (own != written).nonzero()
        row = {"way": name, "same": torch.equal(logits, first), "largest": float((logits - first).abs().max())}
        row |= {of.__name__: of(p, q) for of in (metrics.relative_pd, metrics.total_variation, metrics.churn)}
        rows.append(row | {"first_difference": float(apart[0]) + 1 if len(apart) else math.nan})
    return pd.DataFrame(rows)


def _asked(score: Score, inputs: Tensor, batch: int | None) -> Tensor:
    # Float32 on the CPU, whatever it was computed in.
    return torch.cat([score(part).float().cpu() for part in inputs.split(batch or len(inputs))])


def _continued(score: Score, prompt: Tensor, context: int, length: int, batch: int) -> Tensor:
    # A row among as many as are asked at once; the whole context again for every token.
    tokens = prompt.expand(batch, -1)
    for _ in range(length):
        chosen = _asked(score, tokens[:, -context:], None)[:, -1].argmax(dim=-1, keepdim=True)  # (B, T, V) -> (B, 1)
        tokens = torch.cat([tokens, chosen], dim=1)
    return tokens[0, -length:]
