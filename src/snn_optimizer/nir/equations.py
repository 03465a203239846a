"""From a neuron of ``ai.snn`` back to the continuous equation of a NIR node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer import ops
from snn_optimizer.errors import UnsupportedModelError
from snn_optimizer.nir.losses import Losses
from snn_optimizer.nir.schemes import Discretization

__all__ = ["Equation", "equation_of"]

Array = npt.NDArray[np.float64]
_NEAR = 1e-6  # of the two coefficients of a synaptic current, which come from single precision


@dataclass(frozen=True)
class Equation:
    """A NIR neuron node: its kind and parameters, each of the shape of the units."""

    kind: str
    parameters: dict[str, Array]


@dataclass(frozen=True)
class _Step:
    """``i' = alpha*i + syn_gain*x``; ``u = beta*v + gain*(i' or x) + constant``."""

    beta: Array
    gain: Array
    constant: Array
    alpha: Array | None
    syn_gain: Array | None
    threshold: Array | None
    reset_to: Array


def equation_of(
    variant: ops.NeuronVariant, values: Mapping[str, npt.ArrayLike], shape: tuple[int, ...], time: Discretization,
    losses: Losses, what: str,
) -> Equation:  # fmt: skip
    """Return the NIR node that steps like a neuron.

    Parameters
    ----------
    variant : NeuronVariant
    values : mapping
        Its parameters by name.
    shape : tuple of int
        Of its units.
    time : Discretization
    losses : Losses
        What may be lost.
    what : str
        Names it in messages.

    Raises
    ------
    UnsupportedModelError
        If no node steps like it, or something would be lost that the caller does not allow.
    InputError
        If nobody said how long a step is.
    """
    arrays = {name: np.asarray(value, np.float64) for name, value in values.items()}
    step = _written(variant, arrays, losses, what) if variant.written else _named(variant, arrays, losses, what)
    fields: dict[str, Array] = {}
    leaky = not (step.beta == 1).all()
    if leaky and (step.beta == 1).any():
        raise UnsupportedModelError(f"{what} cannot be written to NIR: some of its units leak and some do not")
    if step.alpha is not None and step.syn_gain is not None:
        if not leaky:
            raise UnsupportedModelError(f"{what} cannot be written to NIR: it has a synaptic current and no leak")
        part = _part(step.alpha, time, what, "synaptic decay")
        fields |= {"tau_syn": time.constant(part), "w_in": step.syn_gain / part}
    if leaky:
        part = _part(step.beta, time, what, "decay")
        tau = time.constant(part)
        fields |= {"tau_mem" if step.alpha is not None else "tau": tau, "r": step.gain / part}
        fields["v_leak"] = step.constant / part
    elif (step.constant != 0).any():
        raise UnsupportedModelError(f"{what} cannot be written to NIR: it drifts and does not leak")
    else:
        fields["r"] = step.gain / time.charge(what)
    kind = {(False, False): "I", (True, False): "LI", (False, True): "IF", (True, True): "LIF"}[
        leaky, step.threshold is not None
    ]
    if step.threshold is not None:
        fields |= {"v_threshold": step.threshold, "v_reset": step.reset_to}
    return Equation(
        f"Cuba{kind}" if step.alpha is not None else kind,
        {name: np.ascontiguousarray(np.broadcast_to(value, shape)) for name, value in fields.items()},
    )


def _part(decay: Array, time: Discretization, what: str, name: str) -> Array:
    time.step(what)
    part = 1.0 - decay
    largest = 1.0 if time.scheme == "euler" else np.nextafter(1.0, 0.0)
    if (part <= 0).any() or (part > largest).any():
        worst = decay[(part <= 0) | (part > largest)].reshape(-1)[0] if decay.ndim else decay
        advice = "; --discretization euler can" if (part == 1).any() and time.scheme != "euler" else ""
        raise UnsupportedModelError(
            f"{what} cannot be written to NIR: no time constant gives its {name} of {float(worst):g} per step{advice}"
        )
    return np.asarray(part)


def _named(variant: ops.NeuronVariant, values: Mapping[str, Array], losses: Losses, what: str) -> _Step:
    gain = values["gain"]
    beta = np.ones(()) if variant.operator == "IF" else 1.0 - gain if variant.arithmetic == "relax" else values["beta"]
    second = variant.operator == "CubaLIF"
    threshold = None
    reset_to = np.zeros(())
    if variant.spiking:
        threshold = values["v_threshold"]
        late = variant.reset_delay and not _late_is_at_once(variant.reset, threshold)
        _firing_losses(variant.fire, variant.reset, late, variant.max_spikes, losses, what)
        reset_to = values["v_reset"] if variant.reset == "to-value" else reset_to
    return _Step(
        beta, gain, np.zeros(()), values["alpha"] if second else None, np.ones(()) if second else None,
        threshold, reset_to,
    )  # fmt: skip


def _late_is_at_once(reset: str, threshold: Array | None) -> bool:
    """Tell whether a delayed reset gives the same spikes as one at once.

    Setting the potential before the next charge does; only what is read of it between the steps differs. A state of
    zero, from which neurons start, must be no spike.
    """
    return reset == "to-value" and threshold is not None and bool((threshold > 0).all())


def _firing_losses(fire: str, reset: str, late: int, spikes: int, losses: Losses, what: str) -> None:
    if fire == "ge":
        losses.take("fire-at-threshold", what)
    if reset == "subtract":
        losses.take("soft-reset", what)
    if reset == "none":
        losses.take("no-reset", what)
    if late:
        losses.take("reset-delay", what)
    if spikes != 1:
        losses.take("multi-spike", what)


def _written(variant: ops.NeuronVariant, values: Mapping[str, Array], losses: Losses, what: str) -> _Step:
    try:
        found = ops.meaning(variant.program, values)
    except ops.NotUnderstood as error:
        raise UnsupportedModelError(f"{what} cannot be written to NIR: {error}") from error
    if variant.spiking:
        if found.reset not in ("subtract", "to-value", "none"):
            raise UnsupportedModelError(f"{what} cannot be written to NIR: its reset is of no known kind")
        late = found.reset_delay and not _late_is_at_once(found.reset, found.v_threshold)
        _firing_losses(found.fire, found.reset, late, found.max_spikes, losses, what)
    if found.clamped:
        losses.take("potential-floor", what)
    current, *others = variant.program.currents
    charge: dict[str, Any] = dict(found.charge)
    for other in others:  # NIR adds up what a neuron reads
        for part in (charge, found.synaptic):
            if not np.array_equal(part.pop(other, np.zeros(())), part.get(current, np.zeros(()))):
                raise UnsupportedModelError(f"{what} cannot be written to NIR: it weighs its currents differently")
    known = {"v", "i", current, "1"}
    if set(charge) - known or set(found.synaptic) - {"i", current}:
        raise UnsupportedModelError(f"{what} cannot be written to NIR: its current depends on more than its input")
    zero = np.zeros(())
    beta, constant = charge.get("v", zero), charge.get("1", zero)
    reset_to = zero if found.v_reset is None or found.reset != "to-value" else found.v_reset
    if not found.synaptic:
        return _Step(beta, charge.get(current, zero), constant, None, None, found.v_threshold, reset_to)
    alpha, drive = found.synaptic.get("i", zero), found.synaptic.get(current, zero)
    # The membrane reads the new current: its share of the old one and of the input are one gain.
    with np.errstate(all="ignore"):
        gain = np.where(alpha != 0, charge.get("i", zero) / alpha, charge.get(current, zero) / drive)
    if not np.allclose(gain * drive, charge.get(current, zero), rtol=_NEAR, atol=0.0):
        raise UnsupportedModelError(
            f"{what} cannot be written to NIR: its membrane reads the synaptic current of the step before"
        )
    return _Step(beta, gain, constant, alpha, drive, found.v_threshold, reset_to)
