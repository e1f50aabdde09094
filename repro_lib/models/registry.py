"""The models under study, and the one closed registry that names them.

To add one: a file with a class ``Name(config, vocab_size, activation)``, a line in ``_MODELS`` and its defaults in
``repro_lib.config.MODEL_DEFAULTS``. The registry-wide tests then cover it."""

from collections.abc import Callable

import torch
from torch import nn

from repro_lib.config import Config, ConfigError, check_model
from repro_lib.models.charlm import CharLM
from repro_lib.models.convlm import ConvLM
from repro_lib.models.determinism import Streams, streams_for_trial
from repro_lib.models.hybridlm import HybridLM
from repro_lib.models.layers import initialise, use_dropout_stream
from repro_lib.models.minigpt import MiniGPT
from repro_lib.models.nanotransformer import NanoTransformer
from repro_lib.models.tinylstm import TinyLSTM, TinyLSTMReadout

_MODELS: dict[str, Callable[[Config, int, str], nn.Module]] = {
    "charlm": CharLM,
    "minigpt": MiniGPT,
    "nanotransformer": NanoTransformer,
    "convlm": ConvLM,
    "hybridlm": HybridLM,
    "tinylstm": TinyLSTM,
    "tinylstm_readout": TinyLSTMReadout,
}

# What each is, in the tables of every report.
ARCHITECTURES = {
    "charlm": "pre-norm transformer",
    "minigpt": "GPT",
    "nanotransformer": "transformer without dropout and biases",
    "convlm": "dilated causal convolutions",
    "hybridlm": "causal convolutions, then transformer",
    "tinylstm": "LSTM without an activation to plug in",
    "tinylstm_readout": "LSTM with the activation in its readout",
}


def model_names() -> tuple[str, ...]:
    """The registered names."""
    return tuple(_MODELS)


def build_model(name: str, config: Config, activation: str, *, streams: Streams | None = None) -> nn.Module:
    """A freshly initialised model: token ids (B, T) -> logits (B, T, V); a bare config is completed with its defaults.

    Weights and dropout draw from ``streams`` (default: those of trial 1 of ``config.seed``). Raises ConfigError for an unknown
    model or without ``vocab_size``, ValueError for an unknown activation, TypeError for one that is not given by name."""
    config = config.resolved_for(check_model(name))
    if config.vocab_size is None:
        raise ConfigError("config.vocab_size is not set; use config.with_corpus(dataset.vocab_size)")
    streams = streams or streams_for_trial(config.seed, device=config.device)
    # Built without storage first: the constructors of torch layers would otherwise draw from the global generator.
    with torch.device("meta"):
        model = _MODELS[name](config, config.vocab_size, activation)
    model = model.to_empty(device="cpu")
    initialise(model, streams.init)
    use_dropout_stream(model, streams.dropout)
    return model.to(config.device)


def count_parameters(model: nn.Module) -> int:
    """Trainable parameters, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def parameters_of(model: str, config: Config, activation: str) -> int:
    """Trainable parameters of a cell's model; on the CPU, for a GPU has better to do than to hold it."""
    return count_parameters(build_model(model, config.model_copy(update={"device": "cpu"}), activation))


def body_of(model: str, config: Config, activation: str) -> int:
    """Trainable parameters without those of the tokens' embedding and of the output over them: the same for every V."""
    with torch.device("meta"):
        one, two = (count_parameters(_MODELS[model](config, v, activation)) for v in (1, 2))
    # All that depends on V grows in proportion to it.
    return 2 * one - two
