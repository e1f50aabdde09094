"""What is said to lower disagreement, in training: averages of weights, other losses, teachers, pairs, and forks to see when.

Sources are named with the values, in ``repro_lib.config.settings``. Shapes: N tokens of a batch, V vocabulary."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from repro_lib.config import Config
from repro_lib.config.settings import MEMBER_SEEDS
from repro_lib.models.determinism import flip_one_bit, streams_for_trial
from repro_lib.models.registry import build_model
from repro_lib.training.state import TrialHistory

# Final weights of earlier models, by what they are needed for (``members.Member.role``).
Earlier = Mapping[str, Sequence[Mapping[str, Tensor]]]


class Averaged(nn.Module):
    """A model that trains, and the average of its weights that predicts: exponential, or of the last steps alone."""

    def __init__(self, model: nn.Module, config: Config) -> None:
        super().__init__()
        self.model = model
        average = get_ema_multi_avg_fn(config.ema_decay) if config.ema_decay else None  # None: their mean
        self.average = AveragedModel(model, multi_avg_fn=average)
        # At least the last one counts. The first that counts is taken as it is.
        self.first = 1 if config.ema_decay else config.max_iters + 1 - max(1, round(config.swa_share * config.max_iters))

    def follow(self, iteration: int) -> None:
        """Take in the weights after this iteration, if they count."""
        if iteration >= self.first:
            self.average.update_parameters(self.model)


class Pair(nn.Module):
    """Two models that train on the same batches, each towards what the other predicts; the first is the trial."""

    def __init__(self, first: nn.Module, second: nn.Module, dropout: torch.Generator) -> None:
        super().__init__()
        self.first, self.second, self._dropout = first, second, dropout

    # The second's stream is part of the state, as those of the trial are: a killed run goes on with it.
    def get_extra_state(self) -> Tensor:
        return self._dropout.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        self._dropout.set_state(state.clone())


class Teachers:
    """Earlier models, and the mean of the probabilities that they give: token ids (B, T) -> (N, V)."""

    def __init__(self, weights: Sequence[Mapping[str, Tensor]], history: TrialHistory) -> None:
        what = history.model_name, history.config, history.activation
        self.models = [build_model(*what).eval() for _ in weights]
        for model, own in zip(self.models, weights, strict=True):
            model.load_state_dict(own)

    @torch.no_grad()
    def __call__(self, tokens: Tensor) -> Tensor:
        return torch.stack([model(tokens).flatten(0, 1).softmax(dim=-1) for model in self.models]).mean(dim=0)


def with_remedies(model: nn.Module, history: TrialHistory) -> nn.Module:
    """All that is trained and kept of a trial: the model itself, where no remedy adds to it."""
    config = history.config
    if config.ema_decay or config.swa_share:
        return Averaged(model, config)
    if not config.codistill_weight:
        return model
    streams = streams_for_trial(config.seed + MEMBER_SEEDS, history.trial, config.vary_streams, config.device)
    second = build_model(history.model_name, config, history.activation, streams=streams)
    return Pair(model, second, streams.dropout)


def trained(whole: nn.Module) -> list[nn.Module]:
    """The models in it that gradients move, the trial's own first."""
    return [whole.first, whole.second] if isinstance(whole, Pair) else [whole.model if isinstance(whole, Averaged) else whole]


def predicting(whole: nn.Module) -> nn.Module:
    """The model in it that predicts, and whose weights are stored."""
    if isinstance(whole, Averaged) and int(whole.average.n_averaged):
        return whole.average.module
    return trained(whole)[0]


def losses(logits: Sequence[Tensor], labels: Tensor, config: Config, taught: Tensor | None = None) -> list[Tensor]:
    """What each model of a trial minimises, from its logits (N, V): cross-entropy with labels (N,), and what remedies make of
    it. ``taught``: probabilities (N, V) of its teachers."""
    return [_loss(own, labels, config, taught, logits[1 - k] if len(logits) > 1 else None) for k, own in enumerate(logits)]


def _loss(logits: Tensor, labels: Tensor, config: Config, taught: Tensor | None, other: Tensor | None) -> Tensor:
    loss = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
    if taught is not None:
        share = config.distill_weight or config.anchor_weight
        loss = (1 - share) * loss + share * F.cross_entropy(logits, taught)
    if config.entropy_weight:
        entropies = torch.special.entr(logits.softmax(dim=-1)).sum(dim=-1)  # (N,), in nats
        loss = loss + config.entropy_weight * entropies.mean()
    if other is not None:
        # The divergence of the other's prediction from its own: the other is what it shall come near to, and stays as it is.
        both = logits.log_softmax(dim=-1), other.detach().log_softmax(dim=-1)
        loss = loss + config.codistill_weight * F.kl_div(*both, reduction="batchmean", log_target=True)
    return loss


def fork(model: nn.Module, history: TrialHistory, iteration: int) -> None:
    """Before the first iteration that is not shared, give a trial randomness of its own; trial 1 goes on as it was."""
    config, trial = history.config, history.trial
    if not config.fork_share or trial == 1 or iteration != round(config.fork_share * config.max_iters) + 1:
        return
    own = streams_for_trial(config.seed, trial, config.vary_streams, config.device)
    for name in config.vary_streams:
        getattr(history.streams, name).set_state(getattr(own, name).get_state())
    if config.flips_bit:
        flip_one_bit(model, config.seed + trial - 1)
