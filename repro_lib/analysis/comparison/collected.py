"""``repro_lib.collect``: what a model predicts for batches of examples, as ``compare`` reads it, with their digest."""

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray

from repro_lib.metrics.given import numpy_of
from repro_lib.store.foreign import ForeignError, Scored
from repro_lib.system.files import write_atomically


def collect(model: Any, batches: Iterable[Any], path: str | Path | None = None, name: str = "") -> Scored:
    """Score every batch; with a ``path`` ending in ``.safetensors`` the predictions are written there too.

    ``model``: a torch module (scored in evaluation mode, then as it was), an estimator with ``predict_proba`` or ``predict``,
    or any function of a batch; of an output with ``logits``, as models of transformers give, those. ``batches``: inputs, pairs
    (inputs, labels) of arrays, or mappings that the model takes as keywords, ``labels`` among them. Predictions (B, V) or
    (B, T, V) become examples x V, (B,) examples. Models scored on other inputs, or in another order, are not compared; how
    the inputs are cut into batches does not matter.

    >>> collect(lambda x: x / x.sum(axis=1, keepdims=True), [np.ones((2, 4)), np.ones((1, 4))]).values.shape
    (3, 4)
    """
    if path is not None and Path(path).suffix != ".safetensors":
        raise ForeignError(f"{path}: predictions are written as .safetensors")
    digests, found, labels = defaultdict(hashlib.sha256), [], []
    with _evaluating(model):
        for batch in batches:
            given, truth = _apart(batch)
            for key, inputs in given.items() if isinstance(given, Mapping) else [("", given)]:
                content = _array(inputs)
                words = "\0".join([*map(str, content.ravel()), ""]).encode() if content.dtype.kind in "USO" else b""
                digests[key, content.dtype.kind].update(words or content.tobytes())
            found.append(_predicted(model, given))
            labels += [] if truth is None else [_array(truth).reshape(-1)]
    if not found:
        raise ForeignError("there is no batch to predict")
    digest = hashlib.sha256("".join(f"{key}{of.hexdigest()}" for key, of in sorted(digests.items())).encode()).hexdigest()
    arrays = {"predictions": np.concatenate(found)} | ({"labels": np.concatenate(labels)} if labels else {})
    if labels and len(arrays["labels"]) != len(arrays["predictions"]):
        raise ForeignError(f"{len(arrays['labels'])} labels for {len(arrays['predictions'])} predictions")
    if path is not None:
        content = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
        write_atomically(Path(path), safetensors.numpy.save(content, {"examples_sha256": digest}))
    known = name or (str(path) if path else f"{type(model).__name__} at {id(model):x}")
    return Scored(known, arrays["predictions"], None, arrays.get("labels"), digest)


@contextlib.contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    # Of each part of its own: what was frozen stays so.
    modes = {part: part.training for part in model.modules()} if isinstance(model, torch.nn.Module) else {}
    try:
        for part in modes:
            part.training = False
        with torch.inference_mode() if modes else contextlib.nullcontext():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def _apart(batch: Any) -> tuple[Any, Any]:
    # A DataLoader gives its pairs as lists; a list of other things is a batch.
    if isinstance(batch, Mapping):
        return {key: value for key, value in batch.items() if key != "labels"}, batch.get("labels")
    pair = isinstance(batch, tuple | list) and len(batch) == 2 and all(hasattr(part, "shape") for part in batch)
    return (batch[0], batch[1]) if pair else (batch, None)


def _predicted(model: Any, given: Any) -> NDArray[Any]:
    ask = getattr(model, "predict_proba", model if callable(model) else getattr(model, "predict", None))
    if ask is None:
        raise ForeignError(f"a {type(model).__name__} is no function and has neither predict_proba nor predict")
    predicted = ask(**given) if isinstance(given, Mapping) else ask(given)
    values = _array(getattr(predicted, "logits", predicted))
    return values.reshape(-1, values.shape[-1]) if values.ndim > 2 else values


def _array(values: Any) -> NDArray[Any]:
    # NumPy has no bfloat16.
    return numpy_of(values.float() if getattr(values, "dtype", None) == torch.bfloat16 else values)
