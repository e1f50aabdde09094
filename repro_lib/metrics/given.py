"""What metrics and statistics are given: made arrays of, or refused in a sentence."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]
# How far from 1 rounding may take a sum of probabilities, in half precision too.
_ROUNDING = 1e-3


def floats(values: ArrayLike) -> Float64:
    """A copy in float64, with NaN for what is masked in it."""
    return np.ma.array(values, dtype=np.float64, copy=True).filled(math.nan)


def check_share(name: str, value: float) -> None:
    """ValueError unless a value, of that ``name`` for the sentence, lies between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(f"{name} is a share between 0 and 1, got {value:g}")


def check_draws(count: int) -> None:
    """ValueError unless there is something to draw."""
    if count < 1:
        raise ValueError(f"at least one random draw is needed, got {count}")


def pair_matrix_checked(matrix: ArrayLike) -> Float64:
    """A float64 copy (N, N) of a pairwise metric with a zero diagonal.

    ValueError unless it is square and, but for rounding, symmetric.

    >>> pair_matrix_checked([[9, 1], [1, 9]]).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    distances = floats(matrix)
    if distances.ndim != 2 or distances.shape[0] != distances.shape[1]:
        raise ValueError(f"a pairwise metric is a square matrix of trials x trials, got shape {distances.shape}")
    np.fill_diagonal(distances, 0.0)
    if not np.allclose(distances, distances.T, rtol=1e-9, atol=1e-12, equal_nan=True):
        raise ValueError("a pairwise metric is a symmetric matrix; this one has different values for (i, j) and (j, i)")
    return np.maximum(distances, distances.T)


def cells_checked(matrices: Sequence[ArrayLike]) -> list[Float64]:
    """``pair_matrix_checked`` of each cell; ValueError unless all have the same trials, one of every seed."""
    pairs = [pair_matrix_checked(matrix) for matrix in matrices]
    if len(sizes := {len(matrix) for matrix in pairs}) > 1:
        raise ValueError(f"cells are compared seed by seed and need the same number of trials, they have {sorted(sizes)}")
    return pairs


def numpy_of(array: Any) -> NDArray[Any]:
    """A NumPy array of anything: of a torch tensor too, and with NaN for what is masked."""
    # Asked by attribute, so that torch need not be imported here: a tensor may have a gradient or live on a GPU.
    array = array.detach().cpu() if hasattr(array, "detach") else array
    # NumPy itself would take what is masked for a number.
    return floats(array) if np.ma.isMaskedArray(array) else np.asarray(array)


def probabilities_given(models: Iterable[Any], *, sums: bool = True) -> list[NDArray[Any]]:
    """Probabilities (..., V) of several models, all of one shape and, with ``sums``, adding to 1 over V; float32 stays so."""
    # Of one dimension at least, because what is computed in place must be an array.
    arrays = [np.atleast_1d(numpy_of(model)) for model in models]
    arrays = [p if p.dtype == np.float32 else p.astype(np.float64, copy=False) for p in arrays]
    if len(shapes := dict.fromkeys(p.shape for p in arrays)) > 1:
        both = " and ".join(str(shape) for shape in shapes)
        raise ValueError(f"the two models must be scored on the same tokens and vocabulary; shapes are {both}")
    for p in arrays:
        # Before any arithmetic: NaN would spread silently, and is neither above nor below 0. A product is the faster sum.
        ones = np.ones(p.shape[-1], p.dtype)
        if not p.size or (p.min() >= 0 and not (sums and np.abs(p @ ones - 1).max() > _ROUNDING)):
            continue
        if not np.isfinite(p).all():
            raise ValueError("probabilities contain NaN or infinity: the model that made them did not train properly")
        lie, add = (f"between {x.min():.4g} and {x.max():.4g}" for x in (p, p.sum(axis=-1)))
        raise ValueError(
            f"these are not probabilities: they lie {lie}, their sums {add}; probabilities_from_logits makes them of logits"
        )
    return arrays


def models_given(models: Iterable[Any]) -> list[Float64]:
    """Probabilities (tokens, V) of several models, in float64; ValueError for what is none."""
    arrays = [numpy_of(model) for model in models]
    for p in arrays:
        # A vector would be broadcast.
        if p.ndim != 2:
            raise ValueError(f"probabilities must have shape (tokens, V), got {p.shape}")
    return probabilities_given(p.astype(np.float64, copy=False) for p in arrays)


def labels_given(labels: Any, scores: NDArray[Any]) -> NDArray[Any]:
    """A label for each token of ``scores`` (tokens, V); ValueError for what is no place in V."""
    labels, (*tokens, width) = numpy_of(labels), scores.shape
    if labels.shape != tuple(tokens):
        raise ValueError(f"one label per token is needed: {scores.shape[0]} tokens, labels of shape {labels.shape}")
    # Python would count a negative one from the end.
    if labels.dtype.kind not in "iu" or (labels.size and not (labels.min() >= 0 and labels.max() < width)):
        raise ValueError(f"labels are whole numbers from 0 to {width - 1}, the characters of the vocabulary")
    return labels


def at_labels(p: NDArray[Any], labels: Any) -> NDArray[Any]:
    """Of ``p`` (tokens, V) the value at each token's label, (tokens,); ValueError for what is no place in V."""
    return np.take_along_axis(p, labels_given(labels, p)[:, None], axis=1)[:, 0]
