"""What the numbers of a foreign model are: probabilities, logits, chances of an event, classes or texts. Told or found out."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repro_lib.metrics.given import numpy_of, probabilities_given
from repro_lib.store.foreign import ForeignError, Scored

# (examples, V), (examples, V), (examples,), (examples,), (examples,).
KINDS = ("probabilities", "logits", "event", "classes", "texts")
# How many examples are looked at to find out; what does not fit later on is refused when it is met.
_LOOKED_AT = 64
# Kinds that can be asked for where another one was found: 0 and 1 are chances too, and any answer can be a class or a text.
_CAN_BE = {("classes", "event"), ("texts", "classes"), ("classes", "texts"), ("either", "logits")}
_WHAT = {
    "probabilities": "rows of probabilities",
    "logits": "logits",
    "event": "probabilities of an event",
    "classes": "classes",
    "texts": "texts",
    "either": "rows between 0 and 1 that do not add up to 1",
}


def kind_of(models: Sequence[Scored], asked: str = "auto") -> str:
    """One of ``KINDS``, for all models alike; ForeignError for what is none of them, or not what was ``asked`` for."""
    if asked not in ("auto", *KINDS):
        raise ForeignError(f"kind is one of auto, {', '.join(KINDS)}, got {asked!r}")
    found = {model.name: _kind(model) for model in models}
    for name, kind in found.items():
        if asked not in ("auto", kind) and (kind, asked) not in _CAN_BE:
            raise ForeignError(f"{name} was said to hold {_WHAT[asked]}, and holds {_WHAT[kind]}")
        if asked == "auto" and kind == "either":
            raise ForeignError(f"{name} holds {_WHAT[kind]}: say that they are logits, or name one column of a table")
    first, *others = found.items()
    if asked == "auto" and (other := next((pair for pair in others if pair[1] != first[1]), None)):
        both = f"{first[0]} holds {_WHAT[first[1]]}, {other[0]} {_WHAT[other[1]]}"
        raise ForeignError(f"{both}: models are compared by predictions of one kind")
    return first[1] if asked == "auto" else asked


def one_dimensional(model: Scored) -> Scored:
    """A model whose (examples, 1) are (examples,), as the output of a single sigmoid is."""
    shape = model.values.shape
    return replace(model, values=np.asarray(model.values[:]).reshape(-1)) if shape[1:] == (1,) else model


def answers(model: Scored) -> NDArray[Any]:
    """Classes or texts (examples,) of a model, as whole numbers or as text."""
    values = np.asarray(model.values[:])
    if values.dtype == object:
        if not all(isinstance(value, str) for value in values.tolist()):
            raise ForeignError(f"{model.name} holds Python objects, and among them other things than texts")
        return values.astype(str)
    return values if values.dtype.kind in "US" else values.astype(np.int64)


def chances(model: Scored) -> NDArray[np.float64]:
    """Probabilities of an event (examples,); ForeignError for numbers that are none."""
    values = np.asarray(model.values[:], np.float64)
    if not (values.min() >= 0 and values.max() <= 1):  # NaN is neither
        _refuse_numbers(model.name, values, "probabilities of an event")
    return values


def distributions(model: Scored, kind: str, part: slice) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Probabilities (block, V) of some examples, and of logits their logarithms too.

    In float64; of half precision in float32, whose rounding is a thousandth of theirs, in half the time."""
    block = numpy_of(model.values[part])
    if block.dtype == np.float16:
        import torch  # here: it takes a while to import, and converts half precision twenty times as fast as NumPy

        block = torch.from_numpy(np.ascontiguousarray(block)).float().numpy()
    else:
        block = block.astype(np.float64)
    if kind == "logits":
        highest, lowest = block.max(axis=1, keepdims=True), block.min()  # NaN where there is one
        if not np.isfinite(highest).all():
            _refuse_numbers(model.name, block, "logits")
        block -= highest
        p = np.exp(block)
        total = p.sum(axis=1, keepdims=True)
        p /= total
        # Minus infinity is what a masked place of the vocabulary has: metrics know what to do with a probability of 0.
        return p, None if np.isneginf(lowest) else np.subtract(block, np.log(total), out=block)
    try:
        return probabilities_given([block])[0], None
    except ValueError as error:
        raise ForeignError(f"{model.name}: {error}") from None


@np.errstate(invalid="ignore", over="ignore")  # of damaged numbers, which are then refused
def _kind(model: Scored) -> str:
    shape = getattr(model.values, "shape", ())
    if len(shape) not in (1, 2) or 0 in shape:
        raise ForeignError(f"{model.name} has shape {shape}; expected (examples, V) or (examples,), and some examples")
    some = numpy_of(model.values[:_LOOKED_AT])
    if some.dtype.kind in "USO" and some.ndim == 1:
        return "texts"
    if some.dtype.kind not in "biuf":
        raise ForeignError(f"{model.name} holds values of type {some.dtype}, which are neither numbers nor texts")
    some = some.astype(np.float64)
    if some.ndim == 1:
        every = np.asarray(model.values[:], np.float64)
        whole = np.isfinite(every).all() and (every == np.rint(every)).all()
        if not whole and not (every.min() >= 0 and every.max() <= 1):
            _refuse_numbers(model.name, every, "probabilities of an event")
        return "classes" if whole else "event"
    lowest, sums = some.min(), some.sum(axis=1)
    if np.isnan(some).any() or (lowest >= 0 and np.abs(sums - 100).max() < 1):
        _refuse_numbers(model.name, some, "probabilities")
    if lowest >= 0 and np.abs(sums - 1).max() <= 1e-2:
        return "probabilities"
    return "either" if lowest >= 0 and some.max() <= 1 else "logits"


def _refuse_numbers(name: str, values: NDArray[Any], wanted: str) -> None:
    if not np.isfinite(values).all():
        raise ForeignError(f"{name} holds NaN or infinity: the model that made it did not train properly, or a field is empty")
    low, high = (f"{end:.4g}" for end in (values.min(), values.max()))
    cent = ", per cent it seems: divide them by 100" if values.min() >= 0 and 1 < values.max() <= 100 else ""
    raise ForeignError(f"{name} holds numbers between {low} and {high}, which are no {wanted}{cent}")
