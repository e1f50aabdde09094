"""All registered models: sizes, shapes, initialisation, dropout, and what each one sees."""

import math

import pytest
import torch
from kinds import Tiny
from torch import nn

from repro_lib.config import ACTIVATIONS, MODEL_DEFAULTS, Config, ConfigError
from repro_lib.models.activations import get_activation
from repro_lib.models.determinism import streams_for_trial
from repro_lib.models.layers import CausalConvBlock, CausalSelfAttention, Dropout, dropout_mask, rotate
from repro_lib.models.registry import build_model, count_parameters, model_names

V = 65
MODELS = model_names()

# What each model is meant to be: parameters at V = 65 with the context of its full size, and dropout. A new one needs no line.
MEANT_PARAMETERS = dict.fromkeys(("charlm", "nanotransformer", "convlm", "hybridlm"), 430_000)
MEANT_PARAMETERS |= {"minigpt": 10_800_000, "tinylstm": 176_000, "tinylstm_readout": 208_000}
MEANT_DROPOUT = dict.fromkeys(MEANT_PARAMETERS, 0.1) | {"minigpt": 0.2, "nanotransformer": 0.0}
MEANT_SHAPE = {"charlm": (2, 4, 128, 128), "minigpt": (6, 6, 384, 256)}


@torch.no_grad()
def move_off_zero(model: nn.Module) -> nn.Module:
    """Adds noise to all weights: layers that start at zero pass nothing on, and tests of what they pass on would be empty."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def some_tokens(time: int, batch: int = 2, vocabulary: int = V) -> torch.Tensor:
    return torch.randint(vocabulary, (batch, time), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_its_parameters_for_every_activation(model: str) -> None:
    config = Config.for_model(model, vocab_size=V)
    # minigpt is the one that takes long to build: of it one activation of each kind.
    names = ("relu", "swiglu", "smelu_2") if model == "minigpt" else (*ACTIVATIONS, "smelu_2")
    counts = {name: count_parameters(build_model(model, config, name)) for name in names}
    for name, count in counts.items():
        assert count == pytest.approx(MEANT_PARAMETERS.get(model, counts["relu"]), rel=0.02), name
        assert count == pytest.approx(counts["relu"], rel=0.01), name
        assert count == counts["relu"] or get_activation(name).gated


def test_known_models_have_their_dropout_and_the_two_transformers_their_shape() -> None:
    assert {model: Config.for_model(model).dropout for model in MEANT_PARAMETERS} == MEANT_DROPOUT
    for model, shape in MEANT_SHAPE.items():
        config = Config.for_model(model)
        assert (config.n_layer, config.n_head, config.n_embd, config.block_size) == shape


@pytest.mark.parametrize("activation", ["relu", "swiglu"])
@pytest.mark.parametrize("model", MODELS)
def test_token_ids_give_finite_logits_for_every_position_and_character(model: str, activation: str, tiny: Tiny) -> None:
    config = tiny(model, vocab_size=V)
    built = build_model(model, config, activation).eval()
    for time in (1, 2, 31, config.block_size):
        logits = built(some_tokens(time))
        assert logits.shape == (2, time, V)
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("model", MODELS)
def test_every_parameter_of_every_model_gets_a_gradient(model: str, activation: str, tiny: Tiny) -> None:
    built = move_off_zero(build_model(model, tiny(model, vocab_size=V, dropout=0.0), activation))
    tokens = some_tokens(32)
    loss = nn.functional.cross_entropy(built(tokens).flatten(0, 1), tokens.roll(-1, 1).flatten())
    loss.backward()
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A key's bias shifts all scores of a query alike, so its gradient is 0 up to rounding: not asked for here.
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("model", MODELS)
def test_a_new_model_is_about_as_good_as_guessing(model: str) -> None:
    shallow = {"n_layer": 2} if model == "minigpt" else {}
    built = build_model(model, Config.for_model(model, vocab_size=V, block_size=64, **shallow), "gelu").eval()
    tokens = some_tokens(64, batch=4)
    loss = nn.functional.cross_entropy(built(tokens).flatten(0, 1), some_tokens(65, batch=4)[:, 1:].flatten()).item()
    assert loss == pytest.approx(math.log(V), abs=0.15)


@pytest.mark.parametrize("model", MODELS)
def test_all_weights_are_drawn_from_the_init_stream_and_from_nothing_else(model: str, tiny: Tiny) -> None:
    config = tiny(model, vocab_size=V)

    def weights(trial: int, vary: tuple[str, ...]) -> dict[str, torch.Tensor]:
        return build_model(model, config, "gelu", streams=streams_for_trial(42, trial, vary)).state_dict()

    first, other_order, other_init = weights(1, ()), weights(2, ("order", "dropout")), weights(2, ("init",))
    assert all(torch.equal(first[name], other_order[name]) for name in first)
    assert all(tensor.isfinite().all() for tensor in first.values())
    # Vectors, the ends of branches (zero) and positions (sinusoids) start alike in all trials; nothing else does.
    alike = {name for name in first if torch.equal(first[name], other_init[name])}
    assert alike == {name for name in first if first[name].ndim < 2 or name.endswith(("project.weight", "positions.weight"))}


@pytest.mark.parametrize("model", MODELS)
def test_dropout_draws_from_the_trials_stream_while_training_and_is_off_otherwise(model: str, tiny: Tiny) -> None:
    def logits(trial: int, training: bool, **changes: float) -> torch.Tensor:
        streams = streams_for_trial(42, trial, ("dropout",))
        built = build_model(model, tiny(model, vocab_size=V, **changes), "gelu", streams=streams)
        return move_off_zero(built).train(training)(some_tokens(32))

    assert torch.equal(logits(1, training=True), logits(1, training=True))
    assert torch.equal(logits(1, training=False), logits(2, training=False))
    if model == "nanotransformer":
        assert torch.equal(logits(1, training=True), logits(2, training=False))
        with pytest.raises(ConfigError, match="nanotransformer has no dropout by definition"):
            logits(1, training=True, dropout=0.1)
    else:
        assert not torch.equal(logits(1, training=True), logits(2, training=True))
        assert torch.equal(logits(1, training=True, dropout=0.0), logits(2, training=False, dropout=0.0))


def test_dropout_keeps_the_mean_and_needs_a_stream() -> None:
    dropout = Dropout(0.25)
    with pytest.raises(RuntimeError, match="no random stream"):
        dropout(torch.ones(3))
    dropout.generator = torch.Generator().manual_seed(0)
    assert sorted(dropout(torch.ones(1000)).unique().tolist()) == [0.0, pytest.approx(1 / 0.75)]
    assert torch.equal(dropout.eval()(torch.ones(3)), torch.ones(3))


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.99])
def test_a_dropout_mask_meets_its_share_and_its_places_are_independent(share: float) -> None:
    kept = dropout_mask((1_000, 999), share, torch.Generator().manual_seed(1)) > 0
    # Three standard deviations of a share of a million draws.
    assert abs(kept.float().mean().item() - (1 - share)) < 3 * math.sqrt(share * (1 - share) / 999_000) + 1 / 65_536
    # Four neighbours come from one draw of 64 bits: knowing one must not help with the next.
    places = kept.flatten()[: 4 * 249_750].view(-1, 4).double()
    correlations = torch.corrcoef(places.T)[~torch.eye(4, dtype=torch.bool)]
    assert correlations.abs().max() < 5 / math.sqrt(len(places))
    again = dropout_mask((1_000, 999), share, torch.Generator().manual_seed(1)) > 0
    assert torch.equal(kept, again)


@pytest.mark.parametrize(("share", "kept"), [(1e-9, 1.0), (1 - 1e-9, 0.0)])
def test_a_dropout_share_at_the_end_of_its_range_does_not_wrap_around(share: float, kept: float) -> None:
    mask = dropout_mask((10_000,), share, torch.Generator().manual_seed(1))
    assert (mask > 0).float().mean().item() == pytest.approx(kept, abs=1e-3)


def test_nanotransformer_has_no_biases(tiny: Tiny) -> None:
    built = build_model("nanotransformer", tiny("nanotransformer", vocab_size=V), "gelu")
    assert not [name for name, _ in built.named_parameters() if name.endswith("bias")]


def influence(model: nn.Module, time: int, target: int, vocabulary: int = V) -> list[int]:
    """Distances back from ``target`` at which a changed character changes its logits."""
    tokens = some_tokens(time, batch=1, vocabulary=vocabulary)
    base = model(tokens)[0, target]
    seen = []
    for place in range(target + 1):
        changed = tokens.clone()
        changed[0, place] = (changed[0, place] + 1) % vocabulary
        if not torch.equal(model(changed)[0, target], base):
            seen.append(target - place)
    return sorted(seen)


@torch.no_grad()
def test_convlm_sees_the_128_characters_up_to_its_position_and_the_oldest_matters() -> None:
    config = Config.for_model("convlm", vocab_size=V)
    model = move_off_zero(build_model("convlm", config, "swiglu").eval())
    assert influence(model, time=160, target=150) == list(range(128)), "seven layers of dilation 1 to 64 see exactly 128"


@torch.no_grad()
@pytest.mark.parametrize("model", ["charlm", "nanotransformer", "minigpt", "hybridlm", "tinylstm", "tinylstm_readout"])
def test_every_other_model_sees_the_first_character_of_its_context(model: str) -> None:
    small = {"n_layer": 2, "n_embd": 32} | ({"n_head": 2} if "n_head" in MODEL_DEFAULTS[model] else {})
    built = build_model(model, Config.for_model(model, vocab_size=V, block_size=24, **small), "gelu").eval()
    assert influence(move_off_zero(built), time=24, target=23) == list(range(24))


@torch.no_grad()
def test_a_causal_convolution_sees_two_characters_also_where_its_dilation_exceeds_the_text() -> None:
    generator = torch.Generator().manual_seed(0)
    block = CausalConvBlock(4, 8, dilation=3, activation="gelu", dropout=0.0)
    for parameter in block.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x = torch.randn(1, 8, 4, generator=generator)
    y = block(x)
    for t in range(8):
        changed = x.clone()
        changed[0, t] += 1.0
        # Several features move, not only by a constant: the norm in front would hide that.
        changed[0, t, 0] -= 3.0
        moved = {int(i) for i in (block(changed) != y).any(-1).nonzero()[:, 1]}
        assert moved == {t, t + 3} & set(range(8))
    for time in (1, 2, 3, 4):
        torch.testing.assert_close(block(x[:, :time]), y[:, :time])


@torch.no_grad()
def test_attention_is_softmax_of_scaled_scores_of_rotated_heads_over_what_is_before() -> None:
    generator = torch.Generator().manual_seed(0)
    B, T, C, H = 2, 7, 12, 3
    attention = CausalSelfAttention(C, H)
    for parameter in attention.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x = torch.randn(B, T, C, generator=generator)
    q, k, v = (attention.qkv(x)[..., i * C : (i + 1) * C] for i in range(3))  # each (B, T, C)
    heads = []
    for h in range(H):
        part = slice(h * C // H, (h + 1) * C // H)
        scores = rotate(q[..., part]) @ rotate(k[..., part]).transpose(1, 2) / (C // H) ** 0.5  # (B, T, T)
        scores = scores.masked_fill(torch.ones(T, T).triu(1).bool(), float("-inf"))
        heads.append(scores.softmax(-1) @ v[..., part])
    torch.testing.assert_close(attention(x), attention.project(torch.cat(heads, -1)))


def test_rotating_keeps_lengths_and_makes_products_depend_on_the_distance_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    T, D = 40, 16
    q, k = (torch.randn(D, generator=generator).expand(T, D) for _ in range(2))  # the same vector at every place
    turned = rotate(q[None])[0]
    assert torch.equal(turned[0], q[0]), "the first place is not turned"
    torch.testing.assert_close(turned.norm(dim=-1), q.norm(dim=-1))
    products = turned @ rotate(k[None])[0].T  # (T, T)
    for distance in (-30, -1, 0, 1, 7, 39):
        same_distance = products.diagonal(distance)
        torch.testing.assert_close(same_distance, same_distance[:1].expand_as(same_distance), rtol=0, atol=1e-4)
    assert len({round(products[0, place].item(), 4) for place in range(T)}) == T, "every distance gives another product"


def test_a_bare_config_is_completed_with_the_models_defaults_and_what_cannot_be_is_refused() -> None:
    built = build_model("tinylstm", Config(vocab_size=V), "relu")
    assert count_parameters(built) == pytest.approx(176_000, rel=0.02)
    with pytest.raises(ConfigError, match="vocab_size is not set"):
        build_model("charlm", Config(), "relu")
    with pytest.raises(ConfigError, match=r"unknown model 'gpt'; known: charlm, minigpt"):
        build_model("gpt", Config(vocab_size=V), "relu")


def test_a_text_longer_than_the_context_is_refused(tiny: Tiny) -> None:
    for model in ("charlm", "minigpt", "nanotransformer", "hybridlm"):
        built = build_model(model, tiny(model, vocab_size=V), "relu")
        with pytest.raises(ValueError, match=r"33 characters, but this model's context is 32"):
            built(some_tokens(33))
