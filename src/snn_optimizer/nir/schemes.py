"""From the continuous equations of NIR neurons to steps.

With ``k`` the part of the way to its target that a first-order equation ``tau dv/dt = target - v`` goes in one step:

============= ====================== =================================== =============================
scheme        ``k``                  arithmetic of a step                as in
============= ====================== =================================== =============================
``euler``     ``dt / tau``           ``v + k*(target - v)``              Norse, snnTorch
``exponential`` ``1 - exp(-dt/tau)`` ``(1-k)*v + k*target``              sinabs, Rockpool
============= ====================== =================================== =============================

The synaptic current of second-order neurons is advanced first and the membrane reads the new value, in both schemes, as
Norse and snnTorch do. Integrators without a leak add ``r`` times their input per step (``impulse``: the input of a step
is a charge, as in Norse and sinabs) or ``r * dt`` times it (``current``, the equation as written).
Neurons start at zero, fire where the potential exceeds the threshold, and are set to ``v_reset`` in the same step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from snn_optimizer import ops
from snn_optimizer.errors import InputError, UnsupportedModelError
from snn_optimizer.nir.document import NirNode
from snn_optimizer.nir.feedback import FEEDBACKS

__all__ = ["INTEGRATORS", "NEURONS", "SCHEMES", "TIMED", "Discretization", "Steps", "steps_of_neuron"]

SCHEMES: Final = ("exponential", "euler")
INTEGRATORS: Final = ("impulse", "current")
NEURONS: Final = ("CubaLI", "CubaLIF", "I", "IF", "LI", "LIF")
TIMED: Final = ("CubaLI", "CubaLIF", "Delay", "LI", "LIF")
"""Nodes that have a time in them."""

Array = npt.NDArray[Any]

_RESET: Final = "v_next = ((1.0 - s) * u) + (s * v_reset)"


@dataclass(frozen=True)
class Discretization:
    """How time becomes steps.

    Attributes
    ----------
    dt : float or None
        Seconds per step; None where nothing in the network needs it.
    scheme : {"exponential", "euler"}
    integrator : {"impulse", "current"}
    feedback : {"spikes", "current"}
        What a loop carries from step to step; see :mod:`snn_optimizer.nir.feedback`.
    """

    dt: float | None = None
    scheme: str = "euler"
    integrator: str = "impulse"
    feedback: str = "spikes"

    def __post_init__(self) -> None:
        for what, given, known in (
            ("discretization", self.scheme, SCHEMES), ("integrator", self.integrator, INTEGRATORS),
            ("feedback", self.feedback, FEEDBACKS),
        ):  # fmt: skip
            if given not in known:
                raise InputError(f"there is no {what} '{given}'; known: {', '.join(known)}")
        if self.dt is not None and not 0 < self.dt < np.inf:
            raise InputError(f"--dt must be a number of seconds above 0, not {self.dt:g}")

    def step(self, what: str) -> float:
        """Return the seconds per step.

        Raises
        ------
        InputError
            If the caller did not say.
        """
        if self.dt is None:
            raise InputError(f"{what} has time constants: say how long a step is, --dt SECONDS (for example --dt 1e-4)")
        return self.dt

    def part(self, tau: Array, what: str) -> Array:
        """Return the part of the way to the target that is gone in one step."""
        if (tau <= 0).any() or np.isnan(tau).any():
            raise UnsupportedModelError(f"{what} has a time constant of {tau.min():g} s; it must be above 0")
        ratio = self.step(what) / tau
        return np.asarray(ratio if self.scheme == "euler" else -np.expm1(-ratio))

    def constant(self, part: Array) -> Array:
        """Return the time constant of which a step goes this part; the inverse of :meth:`part`."""
        assert self.dt is not None  # asked for before
        return np.asarray(self.dt / part if self.scheme == "euler" else -self.dt / np.log1p(-part))

    def charge(self, what: str) -> float:
        """Return what the input of a step weighs in an integrator without a leak."""
        return 1.0 if self.integrator == "impulse" else self.step(what)


@dataclass(frozen=True)
class Steps:
    """One neuron node as a cell.

    Attributes
    ----------
    variant : NeuronVariant
        In the one-step form.
    parameters : dict
        By name, in single precision: of the shape of the units, or (1,) where all are equal.
    """

    variant: ops.NeuronVariant
    parameters: dict[str, npt.NDArray[np.float32]]


def steps_of_neuron(node: NirNode, time: Discretization, label: str = "") -> Steps:
    """Return the cell that advances a neuron node by one step.

    Raises
    ------
    InputError
        If the node has time constants and nobody said how long a step is.
    UnsupportedModelError
        If a parameter has no meaning.
    """
    what = f"{label}node '{node.name}' ({node.kind})"
    if node.kind not in NEURONS:
        raise UnsupportedModelError(f"{what} is no neuron")
    steps = _integrator(node, time, what) if node.kind in ("I", "IF") else _leaky(node, time, what)
    for name, values in steps.parameters.items():
        if not np.isfinite(values).all() and name != "v_threshold":
            raise UnsupportedModelError(f"{what}: '{name}' is not a finite number in single precision")
    return steps


def _integrator(node: NirNode, time: Discretization, what: str) -> Steps:
    gain = node.array("r") * time.charge(what)
    if node.kind == "I":
        return _made(ops.NeuronVariant("LI", "cell"), {"beta": np.ones(()), "gain": gain}, node)
    variant = ops.NeuronVariant("IF", "cell", reset="to-value")
    return _made(variant, {"gain": gain} | _firing(node), node)


def _firing(node: NirNode) -> dict[str, Array]:
    threshold = node.array("v_threshold")
    reset = node.array("v_reset") if "v_reset" in node.values else np.zeros_like(threshold)
    return {"v_threshold": threshold, "v_reset": reset}


def _leaky(node: NirNode, time: Discretization, what: str) -> Steps:
    spiking = node.kind in ("LIF", "CubaLIF")
    second = node.kind.startswith("Cuba")
    part = time.part(node.array("tau_mem" if second else "tau"), what)
    values = {"r": node.array("r"), "v_leak": node.array("v_leak"), "gain": part}
    if time.scheme == "exponential":
        values["beta"] = 1.0 - part
    if second:
        values["syn_gain"] = time.part(node.array("tau_syn"), what)
        values["w_in"] = node.array("w_in") if "w_in" in node.values else np.ones_like(values["r"])
        if time.scheme == "exponential":
            values["alpha"] = 1.0 - values["syn_gain"]
    if spiking:
        values |= _firing(node)
    plain = bool((values["v_leak"] == 0).all()) and not second
    operator = "CubaLIF" if spiking and second else "LIF" if spiking else "LI"
    fields = {"reset": "to-value"} if spiking else {}
    if plain and time.scheme == "euler" and (values["r"] == 1).all():
        return _made(ops.NeuronVariant(operator, "cell", arithmetic="relax", **fields), _relaxed(values), node)  # type: ignore[arg-type]
    if plain and time.scheme == "exponential":
        values["gain"] = values["gain"] * values["r"]
        return _made(ops.NeuronVariant(operator, "cell", arithmetic="decay", **fields), values, node)  # type: ignore[arg-type]
    program = ops.Program.parse("; ".join(_statements(values, second=second, spiking=spiking, scheme=time.scheme)))
    variant = ops.NeuronVariant(operator, "cell", arithmetic=program.text, **fields)  # type: ignore[arg-type]
    return _made(variant, values, node)


def _relaxed(values: dict[str, Array]) -> dict[str, Array]:
    """Add the decay that goes with a part; the arithmetic ``relax`` carries it and does not read it."""
    return values | {"beta": 1.0 - values["gain"]}


def _statements(values: Mapping[str, Array], *, second: bool, spiking: bool, scheme: str) -> list[str]:
    """Return the arithmetic of a step; what is one or zero for all units is left out, which changes no bit."""
    found = []
    current = "x"
    if second:
        drive = "x" if (values["w_in"] == 1).all() else "(w_in * x)"
        if scheme == "euler":
            found.append(f"i_next = i + (syn_gain * ({drive} - i))")
        else:
            found.append(f"i_next = (alpha * i) + (syn_gain * {drive})")
        current = "i_next"
    target = current if (values["r"] == 1).all() else f"(r * {current})"
    if (values["v_leak"] != 0).any():
        target = f"({target} + v_leak)"
    charged = f"v + (gain * ({target} - v))" if scheme == "euler" else f"(beta * v) + (gain * {target})"
    if not spiking:
        return [*found, f"v_next = {charged}"]
    return [*found, f"u = {charged}", "s = gt(u, v_threshold)", _RESET]


def _made(variant: ops.NeuronVariant, values: Mapping[str, Array], node: NirNode) -> Steps:
    names = [declared.name for declared in variant.schema.inputs if declared.role == "parameter"]
    return Steps(variant, {name: _compact(np.broadcast_to(values[name], node.shape)) for name in names})


def _compact(values: Array) -> npt.NDArray[np.float32]:
    """Return values in single precision, one for all units where they are equal."""
    single = np.ascontiguousarray(values, np.float32)
    return single.reshape(-1)[:1] if single.size and (single == single.reshape(-1)[0]).all() else single
