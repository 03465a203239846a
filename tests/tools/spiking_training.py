"""Spiking populations in PyTorch, trained through surrogate gradients.

The forward pass evaluates the operators of `ai.snn` in their own order of arithmetic, one rounding per
operation, so that a trained population and the exported node agree bit for bit on equal currents.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from digits_data import Half, encode
from torch import Tensor, nn

SURROGATE_SLOPE = 5.0


class _Fire(torch.autograd.Function):
    """Heaviside step forward, derivative of the fast sigmoid backward."""

    @staticmethod
    def forward(ctx, membrane: Tensor, threshold: Tensor, fire: str) -> Tensor:
        ctx.save_for_backward(membrane - threshold)
        fires = membrane > threshold if fire == "gt" else membrane >= threshold
        return fires.to(membrane.dtype)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (distance,) = ctx.saved_tensors
        slope = gradient / (1.0 + SURROGATE_SLOPE * distance.abs()).square()
        return slope, -slope, None


@dataclass(frozen=True, slots=True)
class Dynamics:
    """What distinguishes one kind of population from another; the names are those of `ai.snn`."""

    operator: Literal["LIF", "LI", "CubaLIF"] = "LIF"
    reset: Literal["subtract", "to-value"] = "subtract"
    reset_delay: Literal[0, 1] = 0
    fire: Literal["gt", "ge"] = "gt"

    def __post_init__(self) -> None:
        """Refuse the one combination that `Population.step` does not know."""
        if self.reset_delay == 1 and self.reset != "subtract":
            raise ValueError("a delayed reset is trained by subtraction only")


class Population(nn.Module):
    """A layer of neurons with gain 1 and reset value 0, run over a train of currents [T, B, N...].

    Parameters
    ----------
    dynamics
        The kind of neuron.
    size
        The number of neurons when every neuron learns its own `alpha`, `beta` and threshold; None for
        the fixed scalars.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        *,
        size: int | None = None,
        alpha: float = 0.0,
        beta: float = 0.9,
        threshold: float = 1.0,
    ):
        super().__init__()
        self.dynamics = dynamics
        shape = () if size is None else (size,)
        for name, value in (("raw_alpha", alpha), ("raw_beta", beta), ("raw_threshold", threshold)):
            start = torch.full(shape, value)
            if size is None:
                self.register_buffer(name, start)
            else:
                self.register_parameter(name, nn.Parameter(_INVERSE[name](start)))
        self.learns = size is not None

    @property
    def alpha(self) -> Tensor:
        """Decay of the synaptic current, in (0, 1) when learned."""
        return torch.sigmoid(self.raw_alpha) if self.learns else self.raw_alpha

    @property
    def beta(self) -> Tensor:
        """Decay of the membrane, in (0, 1) when learned."""
        return torch.sigmoid(self.raw_beta) if self.learns else self.raw_beta

    @property
    def threshold(self) -> Tensor:
        """Firing threshold, positive when learned."""
        return torch.exp(self.raw_threshold) if self.learns else self.raw_threshold

    def forward(self, currents: Tensor) -> Tensor:
        """Return the spikes (LI: the membrane) of every step."""
        return torch.stack(list(self._steps(currents)))

    def _steps(self, currents: Tensor) -> Iterator[Tensor]:
        alpha, beta, threshold = self.alpha, self.beta, self.threshold
        membrane = torch.zeros_like(currents[0])
        synaptic = torch.zeros_like(currents[0])
        for current in currents:
            if self.dynamics.operator == "LI":
                membrane = beta * membrane + current
                yield membrane
                continue
            if self.dynamics.operator == "CubaLIF":
                synaptic = alpha * synaptic + current
                spikes, membrane = self.step(synaptic, membrane, beta, threshold)
            else:
                spikes, membrane = self.step(current, membrane, beta, threshold)
            yield spikes

    def step(self, current: Tensor, membrane: Tensor, beta: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        """Charge, fire and reset once; the reset carries no gradient through the spike."""
        charged = beta * membrane + current
        threshold = threshold.expand_as(charged)
        if self.dynamics.reset_delay == 1:
            pending = _Fire.apply(membrane, threshold, self.dynamics.fire).detach()
            charged = charged - pending * threshold
            return _Fire.apply(charged, threshold, self.dynamics.fire), charged
        spikes = _Fire.apply(charged, threshold, self.dynamics.fire)
        if self.dynamics.reset == "subtract":
            return spikes, charged - spikes.detach() * threshold
        return spikes, torch.where(spikes > 0, torch.zeros_like(charged), charged)


_INVERSE: dict[str, Callable[[Tensor], Tensor]] = {
    "raw_alpha": torch.logit,
    "raw_beta": torch.logit,
    "raw_threshold": torch.log,
}


class Network(nn.Module):
    """A network whose `forward` returns the output of every population, the readout last."""

    images = False
    logit_scale = 0.5

    def decide(self, spikes: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of the readout over time and the outputs of all populations."""
        traces = self(spikes)
        return next(reversed(traces.values())).sum(dim=0), traces


Penalty = Callable[[Network, dict[str, Tensor]], Tensor]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to train; the learning rate falls to zero along a cosine."""

    epochs: int
    learning_rate: float
    seed: int
    batch: int = 64
    label_smoothing: float = 0.0


def fit(
    network: Network,
    train: Half,
    schedule: Schedule,
    *,
    penalty: Penalty | None = None,
    after_step: Callable[[], None] | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Train with Adam on the spike counts of the readout, drawing new input noise every epoch."""
    generator = np.random.default_rng(schedule.seed)
    labels = torch.from_numpy(train.labels)
    batches = range(0, len(labels), schedule.batch)
    optimizer = torch.optim.Adam(network.parameters(), lr=schedule.learning_rate)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, schedule.epochs * len(batches))
    objective = nn.CrossEntropyLoss(label_smoothing=schedule.label_smoothing)
    network.train()
    for epoch in range(schedule.epochs):
        spikes = torch.from_numpy(encode(train.probabilities, generator))
        if network.images:
            spikes = spikes.unflatten(2, (1, 8, 8))
        order = torch.from_numpy(generator.permutation(len(labels)))
        total_loss, correct = 0.0, 0
        for start in batches:
            rows = order[start : start + schedule.batch]
            counts, traces = network.decide(spikes[:, rows])
            loss = objective(counts * network.logit_scale, labels[rows])
            if penalty is not None:
                loss = loss + penalty(network, traces)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            decay.step()
            if after_step is not None:
                after_step()
            total_loss += loss.item() * len(rows)
            correct += int((counts.argmax(dim=1) == labels[rows]).sum())
        if epoch % 5 == 4 or epoch == schedule.epochs - 1:
            say(
                f"epoch {epoch + 1}/{schedule.epochs}  loss {total_loss / len(labels):.4f}"
                f"  training accuracy {correct / len(labels):.4f}"
            )
    network.eval()


def prune_by_magnitude(weights: list[nn.Parameter], sparsity: float) -> Callable[[], None]:
    """Zero the smallest weights over all of `weights`; the returned function keeps them zero.

    The zeros are written, not multiplied, so that none of them is -0.0.
    """
    magnitudes = torch.cat([weight.detach().abs().flatten() for weight in weights])
    kept = len(magnitudes) - round(sparsity * len(magnitudes))
    survivors = torch.zeros(len(magnitudes), dtype=torch.bool)
    survivors[torch.topk(magnitudes, kept).indices] = True
    parts = survivors.split([weight.numel() for weight in weights])
    pruned = [~part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]

    @torch.no_grad()
    def keep_zero() -> None:
        for weight, gone in zip(weights, pruned, strict=True):
            weight.masked_fill_(gone, 0.0)

    keep_zero()
    return keep_zero
