"""The seven networks of `models/`: the PyTorch forward pass and, beside it, the same network as a file.

Stateless layers see time folded into the batch axis, as an `ai.snn` file does; only populations, and the
recurrent layer, walk through time.
"""

from itertools import pairwise

import torch
from digits_data import CLASSES, STEPS
from spiking_export import ModelBuilder
from spiking_training import Dynamics, Network, Population
from torch import Tensor, nn

PIXELS = 64
LIF = Dynamics()


def fold_time(layer: nn.Module, spikes: Tensor) -> Tensor:
    """Apply a stateless layer to all steps at once."""
    return layer(spikes.flatten(0, 1)).unflatten(0, spikes.shape[:2])


class Feedforward(Network):
    """Fully connected layers `fc1`, `fc2`, ... each followed by a population `lif1`, `lif2`, ..."""

    def __init__(self, sizes: tuple[int, ...], dynamics: Dynamics = LIF):
        super().__init__()
        self.sizes = sizes
        for index, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
            self.add_module(f"fc{index}", nn.Linear(inputs, outputs))
            self.add_module(f"lif{index}", Population(dynamics))

    @property
    def linears(self) -> list[nn.Linear]:
        """The layers in order."""
        return [self.get_submodule(f"fc{index}") for index in range(1, len(self.sizes))]

    def forward(self, spikes: Tensor) -> dict[str, Tensor]:
        """Run every layer over all steps before the next one starts."""
        traces = {}
        for index, linear in enumerate(self.linears, start=1):
            spikes = self.get_submodule(f"lif{index}")(fold_time(linear, spikes))
            traces[f"lif{index}"] = spikes
        return traces

    def export(self, builder: ModelBuilder) -> None:
        """Write the layers; the last population is the output."""
        value = builder.input("x", (STEPS, "batch", self.sizes[0]))
        for index, linear in enumerate(self.linears, start=1):
            value = builder.fold_time(f"fc{index}_rows", value, linear.in_features)
            value = builder.linear(f"fc{index}", value, linear)
            value = builder.unfold_time(f"lif{index}", value, linear.out_features)
            value = builder.population(f"lif{index}", value, self.get_submodule(f"lif{index}"))
        builder.output("spikes", (STEPS, "batch", CLASSES), value)


class Convolutional(Network):
    """Two blocks of convolution, batch normalisation, population and pooling, then a classifier."""

    images = True

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 12, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(12)
        self.lif1 = Population(LIF)
        self.conv2 = nn.Conv2d(12, 24, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(24)
        self.lif2 = Population(LIF)
        self.fc3 = nn.Linear(24 * 2 * 2, CLASSES)
        self.lif3 = Population(LIF)

    def forward(self, spikes: Tensor) -> dict[str, Tensor]:
        """Max pooling keeps spikes binary after the first block; the second averages them."""
        first = self.lif1(fold_time(nn.Sequential(self.conv1, self.bn1), spikes))
        pooled = fold_time(nn.MaxPool2d(2), first)
        second = self.lif2(fold_time(nn.Sequential(self.conv2, self.bn2), pooled))
        features = fold_time(nn.Sequential(nn.AvgPool2d(2), nn.Flatten()), second)
        return {"lif1": first, "lif2": second, "lif3": self.lif3(fold_time(self.fc3, features))}

    def export(self, builder: ModelBuilder) -> None:
        """Write both blocks and the classifier."""
        value = builder.input("x", (STEPS, "batch", 1, 8, 8))
        value = builder.fold_time("conv1_frames", value, 1, 8, 8)
        value = builder.convolution("conv1", value, self.conv1)
        value = builder.batch_normalization("bn1", value, self.bn1)
        value = builder.unfold_time("lif1", value, 12, 8, 8)
        value = builder.population("lif1", value, self.lif1)
        value = builder.fold_time("pool1_frames", value, 12, 8, 8)
        value = builder.pool("pool1", value, "MaxPool")
        value = builder.convolution("conv2", value, self.conv2)
        value = builder.batch_normalization("bn2", value, self.bn2)
        value = builder.unfold_time("lif2", value, 24, 4, 4)
        value = builder.population("lif2", value, self.lif2)
        value = builder.fold_time("pool2_frames", value, 24, 4, 4)
        value = builder.pool("pool2", value, "AveragePool")
        value = builder.flatten("flatten", value)
        value = builder.linear("fc3", value, self.fc3)
        value = builder.unfold_time("lif3", value, CLASSES)
        value = builder.population("lif3", value, self.lif3)
        builder.output("spikes", (STEPS, "batch", CLASSES), value)


class Residual(Network):
    """A stem and one residual block whose spikes are added to the stem's, 0 to 2 at each place."""

    images = True
    channels = 12

    def __init__(self) -> None:
        super().__init__()
        channels = self.channels
        for index, inputs in enumerate((1, channels, channels), start=1):
            self.add_module(f"conv{index}", nn.Conv2d(inputs, channels, 3, padding=1, bias=False))
            self.add_module(f"bn{index}", nn.BatchNorm2d(channels))
            self.add_module(f"lif{index}", Population(LIF))
        self.fc4 = nn.Linear(channels * 4 * 4, CLASSES)
        self.lif4 = Population(LIF)

    def forward(self, spikes: Tensor) -> dict[str, Tensor]:
        """The block reads the stem's spikes; the classifier reads the sum of both, averaged 2 x 2."""
        traces = {}
        for index in (1, 2, 3):
            block = nn.Sequential(self.get_submodule(f"conv{index}"), self.get_submodule(f"bn{index}"))
            spikes = self.get_submodule(f"lif{index}")(fold_time(block, spikes))
            traces[f"lif{index}"] = spikes
        summed = traces["lif1"] + traces["lif3"]
        features = fold_time(nn.Sequential(nn.AvgPool2d(2), nn.Flatten()), summed)
        traces["lif4"] = self.lif4(fold_time(self.fc4, features))
        return traces

    def export(self, builder: ModelBuilder) -> None:
        """Write the stem, the block with its skip, and the classifier."""
        value = builder.input("x", (STEPS, "batch", 1, 8, 8))
        channels_in, spikes = 1, {}
        for index in (1, 2, 3):
            value = builder.fold_time(f"conv{index}_frames", value, channels_in, 8, 8)
            value = builder.convolution(f"conv{index}", value, self.get_submodule(f"conv{index}"))
            value = builder.batch_normalization(f"bn{index}", value, self.get_submodule(f"bn{index}"))
            value = builder.unfold_time(f"lif{index}", value, self.channels, 8, 8)
            value = builder.population(f"lif{index}", value, self.get_submodule(f"lif{index}"))
            channels_in, spikes[index] = self.channels, value
        value = builder.node("skip", "Add", [spikes[1], spikes[3]], "skip.sum")
        value = builder.fold_time("pool_frames", value, self.channels, 8, 8)
        value = builder.pool("pool", value, "AveragePool")
        value = builder.flatten("flatten", value)
        value = builder.linear("fc4", value, self.fc4)
        value = builder.unfold_time("lif4", value, CLASSES)
        value = builder.population("lif4", value, self.lif4)
        builder.output("spikes", (STEPS, "batch", CLASSES), value)


class Recurrent(Network):
    """A hidden layer that reads its own spikes of the step before, every reset one step late."""

    units = 96

    def __init__(self) -> None:
        super().__init__()
        dynamics = Dynamics(reset_delay=1)
        self.fc1 = nn.Linear(PIXELS, self.units)
        self.recurrent1 = nn.Linear(self.units, self.units)
        self.lif1 = Population(dynamics)
        self.fc2 = nn.Linear(self.units, CLASSES)
        self.lif2 = Population(dynamics)

    def forward(self, spikes: Tensor) -> dict[str, Tensor]:
        """Project the input for all steps, then walk through the recurrent layer."""
        hidden = self.walk(fold_time(self.fc1, spikes))
        return {"lif1": hidden, "lif2": self.lif2(fold_time(self.fc2, hidden))}

    def walk(self, currents: Tensor) -> Tensor:
        """Return the spikes of the hidden layer for its input currents [T, B, units]."""
        fired = membrane = torch.zeros_like(currents[0])
        steps = []
        for current in currents:
            drive = current + self.recurrent1(fired)
            fired, membrane = self.lif1.step(drive, membrane, self.lif1.beta, self.lif1.threshold)
            steps.append(fired)
        return torch.stack(steps)

    def export(self, builder: ModelBuilder) -> None:
        """Write the hidden layer as a `Scan` over the cell, the readout in sequence form."""
        builder.input("x", (STEPS, "batch", PIXELS))
        value = builder.fold_time("fc1_rows", "x", PIXELS)
        value = builder.linear("fc1", value, self.fc1)
        value = builder.unfold_time("lif1", value, self.units)
        value = builder.recurrent_population("lif1", value, self.lif1, "recurrent1", self.recurrent1)
        value = builder.fold_time("fc2_rows", value, self.units)
        value = builder.linear("fc2", value, self.fc2)
        value = builder.unfold_time("lif2", value, CLASSES)
        value = builder.population("lif2", value, self.lif2)
        builder.output("spikes", (STEPS, "batch", CLASSES), value)


class Cuba(Network):
    """Current-based neurons that each learned their own time constants and threshold, membrane readout."""

    logit_scale = 0.02
    units = 128

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(PIXELS, self.units)
        self.cuba1 = Population(Dynamics(operator="CubaLIF"), size=self.units, alpha=0.6, beta=0.8, threshold=1.0)
        self.fc2 = nn.Linear(self.units, CLASSES)
        self.li2 = Population(Dynamics(operator="LI"))

    def forward(self, spikes: Tensor) -> dict[str, Tensor]:
        """The readout integrates and never fires."""
        hidden = self.cuba1(fold_time(self.fc1, spikes))
        return {"cuba1": hidden, "li2": self.li2(fold_time(self.fc2, hidden))}

    def export(self, builder: ModelBuilder) -> None:
        """Write three-dimensional products, so that time and batch both stay symbolic."""
        value = builder.input("x", ("time", "batch", PIXELS))
        value = builder.time_distributed_linear("fc1", value, self.fc1, "cuba1.current")
        value = builder.population("cuba1", value, self.cuba1)
        value = builder.time_distributed_linear("fc2", value, self.fc2, "li2.current")
        value = builder.population("li2", value, self.li2)
        builder.output("membrane", ("time", "batch", CLASSES), value)
