"""The same examples in the same order in every model, by their ids where they have some, by their places otherwise."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from repro_lib.analysis.comparison.kinds import one_dimensional
from repro_lib.store.foreign import ForeignError, Scored


def aligned(models: Sequence[Scored]) -> list[Scored]:
    """The models with the same examples in the same order, those of the first; ForeignError where they have others."""
    first = models[0]
    for model in models[1:]:
        one, other = (m.values.shape[1:] for m in (first, model))
        if one != other:
            raise ForeignError(f"{first.name} has {one[0]} classes, {model.name} {other[0]}: not the same vocabulary")
        if first.evaluation and model.evaluation and first.evaluation != model.evaluation:
            raise ForeignError(f"{first.name} and {model.name} were made on different examples (their digests differ)")
    return [first, *(_in_order(model, first) for model in models[1:])]


def _in_order(model: Scored, first: Scored) -> Scored:
    counts = len(first.values), len(model.values)
    if first.ids is None or model.ids is None:
        if first.ids is not model.ids:
            has, lacks = (model, first) if first.ids is None else (first, model)
            raise ForeignError(f"{has.name} has ids of its examples and {lacks.name} has none")
        if counts[0] != counts[1]:
            raise ForeignError(f"{first.name} has {counts[0]} examples, {model.name} {counts[1]}")
        return model
    wanted, own = (pd.Index(ids.astype(str)) for ids in (first.ids, model.ids))
    for name, index in ((first.name, wanted), (model.name, own)):
        if twice := [str(one) for one in index[index.duplicated()]]:
            raise ForeignError(f"{name} has the id {twice[0][:80]!r} twice")
    if missing := [str(one) for one in wanted.symmetric_difference(own)]:
        where = first.name if missing[0] in wanted else model.name
        raise ForeignError(f"the example {missing[0][:80]!r} is in {where} alone, of {first.name} and {model.name}")
    order = own.get_indexer(wanted)
    if np.array_equal(order, np.arange(len(order))):
        return model
    labels = None if model.labels is None else model.labels[order]
    return replace(model, values=np.asarray(model.values[:])[order], ids=first.ids, labels=labels)


def right_answers(models: Sequence[Scored], given: Scored | None) -> NDArray[Any] | None:
    """The labels (examples,) of models that are aligned, ``given`` or from their own files; None where there are none."""
    if given is not None:
        given = one_dimensional(given)
        # Labels without ids are taken by their place.
        given = given if given.ids is not None or models[0].ids is None else replace(given, ids=models[0].ids)
        if given.values.shape != (len(models[0].values),):
            raise ForeignError(f"{given.name} has shape {given.values.shape} for {len(models[0].values)} examples")
        return _whole(np.asarray(_in_order(given, models[0]).values[:]), given.name)
    found = [(model.name, model.labels) for model in models if model.labels is not None]
    for name, labels in found[1:]:
        if not np.array_equal(labels, found[0][1]):
            raise ForeignError(f"{found[0][0]} and {name} give the same examples different labels")
    return _whole(found[0][1], found[0][0]) if found else None


def _whole(labels: NDArray[Any], name: str) -> NDArray[Any]:
    if labels.dtype.kind in "USO":
        return labels.astype(str)
    if labels.dtype.kind not in "biuf" or not (np.isfinite(labels).all() and (labels == np.rint(labels)).all()):
        raise ForeignError(f"the labels in {name} are neither whole numbers nor texts")
    return labels.astype(np.int64)
