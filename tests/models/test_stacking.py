"""Stacked layers and models against the same layers and models one by one: outputs, gradients, masks."""

from collections.abc import Callable, Sequence

import pytest
import torch
from kinds import Tiny
from torch import Tensor, nn

from repro_lib.config import MODEL_DEFAULTS, Config
from repro_lib.models.determinism import Streams, streams_for_trial
from repro_lib.models.layers import Dropout, Embedding, dropout_mask, use_dropout_stream
from repro_lib.models.registry import build_model
from repro_lib.models.stacking import StackedModel

B, T, V, S = 3, 8, 20, 3
# Sums of some hundred float32 products in another order: a few roundings of numbers of size 1.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomised(make: Callable[[], nn.Module]) -> list[nn.Module]:
    """S layers of one kind with weights of their own."""
    layers = [make() for _ in range(S)]
    with torch.no_grad():
        for k, layer in enumerate(layers):
            for parameter in layer.parameters():
                parameter.normal_(generator=generator(k))
    return layers


class Around(nn.Module):
    """A model of one layer behind an embedding, as ``StackedModel`` takes it."""

    def __init__(self, layer: nn.Module, width: int = 6) -> None:
        super().__init__()
        self.embedding = Embedding(V, width, T, dropout=0.0)
        self.layer = layer

    def forward(self, tokens: Tensor) -> Tensor:
        y = self.layer(self.embedding(tokens))
        return y[0] if isinstance(y, tuple) else y


def assert_same_as_one_by_one(models: Sequence[nn.Module], outputs_close: dict[str, float] = CLOSE) -> None:
    """Outputs and the gradient of every weight, for inputs and losses that differ from model to model."""
    tokens = torch.randint(V, (len(models), B, T), generator=generator(1))
    stack = StackedModel(models, (B, T))
    together = stack(tokens)
    weight = torch.randn(together.shape, generator=generator(2))
    (together * weight).sum().backward()
    gradients = {name: parameter.grad for name, parameter in stack.model.named_parameters()}
    for k, model in enumerate(models):
        alone = model(tokens[k])
        torch.testing.assert_close(together[k], alone, **outputs_close)
        (alone * weight[k]).sum().backward()
        named = dict(model.named_parameters())
        assert named.keys() == gradients.keys()
        for name, parameter in named.items():
            assert parameter.grad is not None
            scale = parameter.grad.abs().max().item()
            torch.testing.assert_close(gradients[name][k], parameter.grad, rtol=1e-4, atol=1e-5 * scale, msg=name)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("make", [lambda bias: nn.Linear(6, 9, bias=bias), lambda bias: nn.LayerNorm(6, bias=bias)])
def test_layers_with_weights_do_in_one_what_they_do_one_by_one(make: Callable[[bool], nn.Module], bias: bool) -> None:
    assert_same_as_one_by_one(randomised(lambda: Around(make(bias))))


@pytest.mark.parametrize("block_size", [None, T, T + 5])
def test_embeddings_find_the_rows_and_positions_of_their_own_model(block_size: int | None) -> None:
    models = randomised(lambda: Embedding(V, 6, block_size, dropout=0.0))
    # No arithmetic beyond one addition: the very same bits.
    assert_same_as_one_by_one(models, {"rtol": 0.0, "atol": 0.0})


@pytest.mark.parametrize("depth", [1, 3])
def test_an_lstm_has_the_bits_of_each_model_by_itself(depth: int) -> None:
    models = randomised(lambda: Around(nn.LSTM(6, 6, depth, batch_first=True)))
    assert_same_as_one_by_one(models, {"rtol": 0.0, "atol": 0.0})


@pytest.mark.parametrize("width", [4, 5])
def test_masks_are_those_each_model_draws_alone_bit_by_bit(width: int) -> None:
    """Width 5 gives 3 x 8 x 5 places: the last word of a mask is not used up, alone or in a stack."""
    models = [Around(nn.Sequential(Dropout(0.5), nn.Identity(), Dropout(0.1)), width) for _ in range(S)]
    stack = StackedModel(models, (B, T))
    mine, theirs = [generator(10 + k) for k in range(S)], [generator(10 + k) for k in range(S)]
    for _ in range(2):
        stack.draw_masks(mine)
        expected = [[dropout_mask((B, T, width), share, theirs[k]) for share in (0.5, 0.1)] for k in range(S)]
        for place, dropout in enumerate(stack._dropouts):
            masks = dropout(torch.ones(S * B, T, width)).unflatten(0, (S, B))
            for k in range(S):
                assert torch.equal(masks[k], expected[k][place])
    assert all(torch.equal(a.get_state(), b.get_state()) for a, b in zip(mine, theirs, strict=True))


def test_a_stack_takes_nothing_from_any_stream_before_its_first_masks() -> None:
    streams = generator(5)
    models = [Around(Dropout(0.5)) for _ in range(S)]
    for model in models:
        use_dropout_stream(model, streams)
    StackedModel(models, (B, T))
    assert torch.equal(streams.get_state(), generator(5).get_state())


def built(model: str, activation: str, config: Config) -> tuple[list[nn.Module], list[Streams]]:
    """S models and their streams, each with its own randomness."""
    streams = [streams_for_trial(config.seed, trial) for trial in range(1, S + 1)]
    return [build_model(model, config, activation, streams=streams[k]) for k in range(S)], streams


@pytest.mark.parametrize("activation", ["relu", "swiglu", "smelu_1"])
@pytest.mark.parametrize("model", MODEL_DEFAULTS)
def test_every_model_computes_in_a_stack_what_it_computes_alone(model: str, activation: str, tiny: Tiny) -> None:
    """With dropout where the model has any, in two forward passes that follow each other."""
    config = tiny(model, vocab_size=V)
    models, streams = built(model, activation, config)
    stack = StackedModel(models, (B, T))
    assert bool(stack._dropouts) == (config.dropout > 0)
    for k in range(S):
        weights, own = stack.weights_of(k), models[k].state_dict()
        assert weights.keys() == own.keys()
        assert all(torch.equal(weights[name], tensor) for name, tensor in own.items())
    alone = [streams_for_trial(config.seed, trial) for trial in range(1, S + 1)]
    for k in range(S):
        use_dropout_stream(models[k].train(), alone[k].dropout)
    tokens = torch.randint(V, (S, B, T), generator=generator(3))
    for _ in range(2):
        stack.draw_masks([own.dropout for own in streams])
        together = stack(tokens)
        assert together.shape == (S, B, T, V)
        for k in range(S):
            torch.testing.assert_close(together[k], models[k](tokens[k]), **CLOSE)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.dropout = Embedding(V, 6, None, dropout=0.0), Dropout(0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.dropout(self.dropout(self.embedding(tokens)))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Around(nn.Bilinear(6, 6, 2)), "a layer of type Bilinear has weights and no stacked form here; .*LSTM.*Linear"),
        (lambda: Around(nn.BatchNorm1d(T, affine=False)), "a layer of type BatchNorm1d has weights"),
        (Twice, "use each of its dropout layers once"),
        (lambda: Around(nn.LSTM(6, 6, batch_first=True, bidirectional=True)), "only an LSTM of one direction"),
        (lambda: Around(nn.LSTM(6, 6)), "with batch_first"),
    ],
)
def test_what_cannot_be_stacked_is_refused(make: Callable[[], nn.Module], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        StackedModel([make() for _ in range(2)], (B, T))
