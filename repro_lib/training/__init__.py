"""Training a cell: N trials of a model with an activation, to the same bits, killed or not.

In: a complete ``Config`` and a text. Out: a ``Result`` in the store, with predictions and weights beside it."""

from typing import TYPE_CHECKING

from repro_lib import lazily

if TYPE_CHECKING:
    from repro_lib.training.experiment import run_experiment as run_experiment, train_trials as train_trials
    from repro_lib.training.origin import describe_environment as describe_environment
    from repro_lib.training.progress import Progress as Progress
    from repro_lib.training.trainer import TrainingDiverged as TrainingDiverged, train_trial as train_trial

__getattr__, __dir__ = lazily(__name__)
