"""The models of a study up close: the text that their stored weights write, and the layers that they are made of."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from repro_lib.analysis.selection import select_comparable
from repro_lib.analysis.study import Study
from repro_lib.config import MODEL_DEFAULTS, Config
from repro_lib.data import Corpus, find_corpus, make_dataset
from repro_lib.models.activations import Activation
from repro_lib.models.determinism import deterministic_arithmetic
from repro_lib.models.registry import build_model
from repro_lib.store.foreign import Scored
from repro_lib.store.schema import Result, ResultError
from repro_lib.store.store import Store


def load_trained(store: Store, result: Result, trial: int) -> nn.Module:
    """The model of a trial (numbered from 1) with its stored weights, on the CPU and in evaluation mode.
    Raises ResultError if the weights are missing, not those the result names, or made by another version of the model."""
    weights = store.weights(result, trial)
    model = build_model(result.model_name, config_of(result), result.activation)
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        whose = f"the stored weights of {result.model_name} with {result.activation}"
        raise ResultError(f"{whose} do not fit the model as it is built now; run the cell again with --force") from None
    return model.eval()


def config_of(result: Result) -> Config:
    """The configuration a result was made with, for the CPU."""
    values: dict[str, Any] = result.config | {"device": "cpu"}
    if "n_head" not in MODEL_DEFAULTS[result.model_name]:
        # A model without attention keeps the default number of heads, which need not fit its width.
        del values["n_head"]
    return Config.for_model(result.model_name, None, **values)


def corpus_of(result: Result) -> Corpus:
    """The text a result was made with, in its tokens; CorpusError if it is not here or has changed."""
    corpus = find_corpus(result.config["corpus"], result.corpus.sha256)
    return corpus.cut_into(result.config.get("tokens", "characters"), result.config["train_split"])


def training_counts(result: Result) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The tokens (V,) of a result's text and how often each is in the training part; raises as ``corpus_of``."""
    corpus = corpus_of(result)
    dataset = make_dataset(corpus, result.config["train_split"], result.config["block_size"])
    return corpus.vocabulary, np.bincount(dataset.train.numpy(), minlength=dataset.vocab_size)


@torch.inference_mode()
def generate(model: nn.Module, tokens: Tensor, length: int, context: int, generators: Sequence[Generator | None]) -> Tensor:
    """Continue each row of ``tokens`` (B, T) by ``length`` tokens; the new tokens (B, length).

    Row b is sampled from the model's distribution with ``generators[b]``, or takes the most probable character
    (greedy) where that is None. The model sees at most the last ``context`` tokens, the length it was trained with."""
    if tokens.shape[0] != len(generators) or tokens.shape[1] < 1:
        raise ValueError(f"one non-empty row per generator is needed; {len(generators)} generators, tokens {[*tokens.shape]}")
    start = tokens.shape[1]
    with deterministic_arithmetic():
        for _ in range(length):
            # The whole context again for every character: without a cache all models can be treated alike.
            logits = model(tokens[:, -context:])[:, -1]  # (B, T, V) -> (B, V)
            chosen = [
                row.argmax() if generator is None else torch.multinomial(row.softmax(dim=-1), 1, generator=generator)[0]
                for row, generator in zip(logits, generators, strict=True)
            ]
            tokens = torch.cat([tokens, torch.stack(chosen)[:, None]], dim=1)
    return tokens[:, start:]


def write_samples(
    store: Store, result: Result, corpus: Corpus, prompt: str, length: int, trials: Sequence[int], seed: int = 0
) -> list[tuple[str, str]]:
    """(greedy, sampled) continuations of ``prompt`` by each of these trials."""
    # Every trial samples with the same random numbers, so that a difference comes from the model and not from luck.
    tokens = corpus.encode(prompt).expand(2, -1)
    written = []
    for trial in trials:
        model = load_trained(store, result, trial)
        generators = [None, Generator().manual_seed(seed)]
        greedy, sampled = generate(model, tokens, length, result.config["block_size"], generators)
        written.append((corpus.decode(greedy), corpus.decode(sampled)))
    return written


def layer_table(model: str, config: Config, activation: str) -> pd.DataFrame:
    """The layers of a model in the order they are called, with the shapes seen in one forward pass and their parameters.

    ``layer`` has a * for the number of repeated blocks, in one row with their ``times``; ``parameters`` are of one; B is the
    batch. A layer that is used as a plain matrix is not called and has no shapes."""
    network = build_model(model, config, activation).eval()
    shapes: dict[str, tuple[str, str]] = {}
    # Leaves, and modules with parameters of their own, such as a table of positions.
    layers = [(name, m) for name, m in network.named_modules() if not list(m.children()) or list(m.parameters(recurse=False))]
    hooks = [layer.register_forward_hook(partial(_record_shapes, shapes, name)) for name, layer in layers]
    with torch.inference_mode():
        network(torch.zeros(2, config.block_size, dtype=torch.int64))
    for hook in hooks:
        hook.remove()
    # In the order of the calls; a layer that was not called stays behind the one it is listed after.
    called, position, positions = list(shapes), -1, {}
    for name, _ in layers:
        positions[name] = position = called.index(name) if name in called else position
    rows = []
    for name, layer in sorted(layers, key=lambda named: positions[named[0]]):
        # Repeated blocks get one name, and so one row with their number.
        general = ".".join("*" if part.isdigit() else part for part in name.split("."))
        parameters = sum(parameter.numel() for parameter in layer.parameters(recurse=False))
        kind = layer.title if isinstance(layer, Activation) else type(layer).__name__
        rows.append((general, kind, *shapes.get(name, ("–", "–")), parameters))
    columns = ["layer", "type", "input", "output", "parameters"]
    return pd.DataFrame(rows, columns=columns).groupby(columns, sort=False).size().rename("times").reset_index()


def layer_view(study: Study, model: str) -> pd.DataFrame:
    """The layer table of a model as it was run, with one activation; without a result, at full size."""
    result = next((result for result in study.results if result.model_name == model), None)
    # 65 characters, as tinyshakespeare has: the size of the vocabulary is not known before a text is read.
    if result is None:
        return layer_table(model, Config.for_model(model).with_corpus(65), study.activations[0])
    return layer_table(model, config_of(result), result.activation)


def _record_shapes(shapes: dict[str, Any], name: str, _: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
    # An LSTM returns its state beside the output.
    ends = inputs[0], output[0] if isinstance(output, tuple) else output
    shapes[name] = tuple(f"({', '.join(['B', *map(str, tensor.shape[1:])])})" for tensor in ends)


def stored_predictions(store: Store, cell: str) -> list[Scored]:
    """What each trial of the newest result of a cell, ``model-activation``, predicted on the evaluation text.
    ResultError where there is no such result, or its predictions are gone."""
    model, _, activation = cell.partition("-")
    stored = [result for _, result in store.load()[0] if result.model_name == model]
    result = next((result for result in select_comparable(stored) if result.activation == activation), None)
    if result is None:
        raise ResultError(f"{store.folder} has no result of {cell!r}; expected model-activation, as in results:convlm-gelu")
    return scored_trials(store, result)


def scored_trials(store: Store, result: Result) -> list[Scored]:
    """What each trial of a result predicted on the evaluation text; ResultError where its predictions are gone."""
    found = []
    for record in result.trials:
        p, name = store.predictions(result, record.trial), f"{result.model_name}-{result.arm} trial {record.trial}"
        found.append(Scored(name, p.logits, None, p.labels, p.evaluation_sha256, record.seed))
    return found
