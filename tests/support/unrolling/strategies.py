"""Networks and habits for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.support.unrolling.habits import CHOICES, OUTPUTS, SWITCHES, Habits
from tests.support.unrolling.network import CHARGES, DENSE, GRIDS, Layer, Network, Neuron

PARAMETERS = ("decay", "tau", "current_decay", "threshold", "reset_value")


@st.composite
def neurons(draw: st.DrawFn, output: str | None = None) -> Neuron:
    """Any neuron; of one output if given."""
    output = output or draw(st.sampled_from(("spikes", "spikes", "spikes", "counts")))
    counts = output == "counts"
    charge = draw(st.sampled_from(("decay", "integrate", "normalised") if counts else CHARGES))
    reset = "subtract"
    if output == "membrane":
        reset = "none"
    elif output == "spikes":
        reset = draw(st.sampled_from(("subtract", "zero", "value") + (() if charge == "integrate" else ("none",))))
    spikes = output == "spikes" and reset != "none"
    return Neuron(
        charge=charge,
        output=output,
        reset=reset,
        reset_delay=draw(st.sampled_from((0, 1))) if spikes else 0,
        fire="gt" if counts else draw(st.sampled_from(("gt", "ge"))),
        decay=draw(st.sampled_from((0.75, 0.5))),
        tau=draw(st.sampled_from((2.0, 4.0))),
        current_decay=draw(st.sampled_from((0.5, 0.25))),
        threshold=draw(st.sampled_from((1.0, 1.0, 0.75))),
        reset_value=draw(st.sampled_from((0.0, 0.0, -0.25))),
        per_neuron=tuple(draw(st.lists(st.sampled_from(PARAMETERS), unique=True, max_size=2))),
    )


@st.composite
def networks(draw: st.DrawFn, *, max_layers: int = 3, grid: str = "dyadic", convolutions: bool = True) -> Network:
    """One to `max_layers` layers; the last may be a readout."""
    assert grid in GRIDS
    frames = convolutions and draw(st.booleans())
    shape: tuple[int, ...] = (draw(st.sampled_from((1, 2))), 4, 4) if frames else (draw(st.sampled_from((5, 6))),)
    features = shape
    layers: list[Layer] = []
    shapes: list[tuple[int, ...]] = []
    for index in range(draw(st.integers(1, max_layers))):
        last = index > 0 and draw(st.integers(0, 3)) == 0
        neuron = draw(neurons("membrane") if last else neurons())
        options: dict[str, Any] = {"neuron": neuron, "units": draw(st.sampled_from((3, 4, 4)))}
        if len(shape) == 3 and draw(st.integers(0, 2)):
            pool = draw(st.sampled_from((None, "max", "average"))) if shape[1] > 2 else None
            options |= {"synapse": draw(st.sampled_from(("conv", "conv-plain"))), "normalise": draw(st.booleans())}
            options["pool"] = pool
            factor = 2 if pool else 1
            shape = (options["units"], shape[1] // factor, shape[2] // factor)
        else:
            options["synapse"] = draw(st.sampled_from(DENSE))
            recurrent = st.sampled_from((None, None, "bias", "plain"))
            options["recurrent"] = None if last else draw(recurrent)
            shape = (options["units"],)
        same = [earlier for earlier, each in enumerate(shapes) if each == shape]
        if same and not last and draw(st.booleans()):
            options["residual"] = draw(st.sampled_from(same))
        layers.append(Layer(**options))
        shapes.append(shape)
        if last:
            break
    return Network(tuple(layers), features, grid, draw(st.integers(0, 999)))


@st.composite
def habits(draw: st.DrawFn, **fixed: Any) -> Habits:
    """Any habits; those given are fixed."""
    chosen: dict[str, Any] = {
        name: fixed[name] if name in fixed else draw(st.sampled_from(options)) for name, options in CHOICES.items()
    }
    chosen |= {name: fixed[name] if name in fixed else draw(st.booleans()) for name in SWITCHES}
    batches = (1, 3) if chosen["initial"] in {"constant", "precomputed"} else (None, None, 3)
    chosen["batch"] = draw(st.sampled_from(batches))
    chosen["outputs"] = tuple(draw(st.lists(st.sampled_from(OUTPUTS), min_size=1, max_size=3, unique=True)))
    chosen["identity_noise"] = draw(st.sampled_from((0.0, 0.0, 0.1)))
    chosen["seed"] = draw(st.integers(0, 99))
    return Habits(**(chosen | fixed))
