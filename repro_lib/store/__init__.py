"""The results folder: all that later stages read of what was trained.

In: records and tensors of trained cells. Out: results that were read as they were written, predictions, weights, and the
metrics between all trials of a model."""

from typing import TYPE_CHECKING

from repro_lib import lazily

if TYPE_CHECKING:
    from repro_lib.store.pair_matrices import PairMatrices as PairMatrices, load_pair_matrices as load_pair_matrices
    from repro_lib.store.predictions import Predictions as Predictions, compare as compare
    from repro_lib.store.schema import Result as Result, ResultError as ResultError, TrialRecord as TrialRecord
    from repro_lib.store.store import Store as Store, results_store as results_store

__getattr__, __dir__ = lazily(__name__)
