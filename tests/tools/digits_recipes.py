"""How each network of `models/` is trained: seeds, schedules, regularisation, pruning."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from digits_data import Half
from digits_networks import Convolutional, Cuba, Feedforward, Recurrent, Residual
from spiking_training import Dynamics, Network, Schedule, fit, prune_by_magnitude
from torch import Tensor

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One model: its name, what it is, and how its trained network comes about; the number shifts every seed."""

    name: str
    description: str
    train: Callable[[Half, int, Say], Network]


def _mlp(train: Half, shift: int, say: Say) -> Network:
    torch.manual_seed(1 + shift)
    network = Feedforward((64, 128, 10))
    fit(network, train, Schedule(epochs=40, learning_rate=2e-3, seed=1 + shift), say=say)
    return network


def _wide(train: Half, shift: int, say: Say) -> Network:
    torch.manual_seed(2 + shift)
    network = Feedforward((64, 1000, 1000, 10))

    def penalty(_: Network, traces: dict[str, Tensor]) -> Tensor:
        weights = sum(linear.weight.abs().sum() for linear in network.linears)
        return 1e-5 * weights + 3.0 * (traces["lif1"].mean() + traces["lif2"].mean())

    fit(network, train, Schedule(epochs=30, learning_rate=2e-3, seed=2 + shift), penalty=penalty, say=say)
    return network


def _pruned(train: Half, shift: int, say: Say) -> Network:
    torch.manual_seed(3 + shift)
    network = Feedforward((64, 256, 10), Dynamics(reset="to-value", fire="ge"))
    weights = [linear.weight for linear in network.linears]

    def penalty(_: Network, __: dict[str, Tensor]) -> Tensor:
        return 3e-5 * sum(weight.abs().sum() for weight in weights)

    dense = Schedule(epochs=30, learning_rate=3e-3, seed=30 + shift, label_smoothing=0.05)
    fit(network, train, dense, penalty=penalty, say=say)
    for round_, sparsity in enumerate((0.5, 0.7, 0.8, 0.85, 0.88, 0.9), start=1):
        say(f"{sparsity:.0%} of the weights pruned")
        keep_zero = prune_by_magnitude(weights, sparsity)
        last = sparsity == 0.9
        schedule = Schedule(
            epochs=60 if last else 15, learning_rate=5e-3, seed=30 + round_ + shift, label_smoothing=0.05
        )
        fit(network, train, schedule, penalty=None if last else penalty, after_step=keep_zero, say=say)
    return network


def _conv(train: Half, shift: int, say: Say) -> Network:
    torch.manual_seed(4 + shift)
    network = Convolutional()
    _quieten(network.fc3)
    fit(network, train, Schedule(epochs=30, learning_rate=3e-3, seed=4 + shift), say=say)
    return network


def _residual(train: Half, shift: int, say: Say) -> Network:
    torch.manual_seed(5 + shift)
    network = Residual()
    _quieten(network.fc4)
    fit(network, train, Schedule(epochs=30, learning_rate=2e-3, seed=5 + shift), say=say)
    return network


def _recurrent(train: Half, shift: int, say: Say) -> Network:
    torch.manual_seed(6 + shift)
    network = Recurrent()
    schedule = Schedule(epochs=50, learning_rate=3e-3, seed=6 + shift, label_smoothing=0.05)
    fit(network, train, schedule, say=say)
    return network


def _cuba(train: Half, shift: int, say: Say) -> Network:
    torch.manual_seed(7 + shift)
    network = Cuba()
    fit(network, train, Schedule(epochs=50, learning_rate=5e-3, seed=7 + shift), say=say)
    return network


@torch.no_grad()
def _quieten(readout: torch.nn.Linear) -> None:
    """Scale a readout behind batch-normalised layers down: driven far from threshold it learns little."""
    readout.weight.mul_(0.3)


RECIPES = (
    Recipe("digits_mlp", "64-128-10, LIF", _mlp),
    Recipe("digits_wide", "64-1000-1000-10, LIF, L1 on weights and on activity", _wide),
    Recipe("digits_pruned", "64-256-10, LIF reset to value, 90 % of the weights zero", _pruned),
    Recipe("digits_conv", "two blocks of Conv, BatchNormalization, LIF and pooling, then 96-10", _conv),
    Recipe("digits_residual", "convolutional stem and one residual block that adds spikes", _residual),
    Recipe("digits_recurrent", "64-96-10, recurrent hidden LIF with delayed reset in a Scan", _recurrent),
    Recipe("digits_cuba", "64-128-10, CubaLIF with learned parameters per neuron, LI readout", _cuba),
)
