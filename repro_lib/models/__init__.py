"""The six models under study, their activations, and what makes them deterministic.

In: a name, a ``Config``, the name of an activation. Out: a module that takes token ids (B, T) and returns logits (B, T, V)."""

from typing import TYPE_CHECKING

from repro_lib import lazily

if TYPE_CHECKING:
    from repro_lib.models.activations import canonical_activation as canonical_activation, get_activation as get_activation
    from repro_lib.models.determinism import streams_for_trial as streams_for_trial
    from repro_lib.models.registry import build_model as build_model, model_names as model_names

__getattr__, __dir__ = lazily(__name__)
