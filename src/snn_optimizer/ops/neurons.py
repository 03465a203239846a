"""The meaning of the operators: NumPy references, bit for bit what the functions compute.

Every operation is one NumPy call in the element type of the signal, rounded once
and never fused. A membrane potential may be infinite or NaN: a reset selects with
``where`` and never multiplies a potential, since infinity times zero is NaN. A NaN
never fires. What a ``subtract`` reset takes off is a product of spikes and
threshold, as in the frameworks; infinite and NaN thresholds take nothing off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from snn_optimizer.ops.variants import NeuronVariant

__all__ = ["membrane", "sequence", "step"]

Array: TypeAlias = npt.NDArray[np.floating[Any]]


def step(variant: NeuronVariant, inputs: Sequence[Array]) -> tuple[Array, ...]:
    """Advance neurons by one step.

    The meaning of the cell form; the form of ``variant`` is not read. Charge, fire
    and reset follow ``variant.schema.doc`` in its order of operations. Infinities
    and NaN follow IEEE 754.

    Parameters
    ----------
    variant : NeuronVariant
    inputs : sequence of array
        As ``variant.as_form("cell").inputs`` names them: current ``(B, N...)``, states
        that broadcast into it, parameters that broadcast into ``(N...)``, all of one
        floating type.

    Returns
    -------
    tuple of array, shape (B, N...)
        Spike counts (``LI``: potentials), then the states after the step.

    Raises
    ------
    ValueError
        If an input is missing, has another type, or would widen the signal.

    References
    ----------
    Gerstner et al., *Neuronal Dynamics*, Cambridge University Press 2014, section 1.3.
    """
    named = _named(variant.as_form("cell"), inputs, time_axes=0)
    states = [named[name] for name in _state_names(variant, "cell")]
    _, signal, after = _advance(variant, [named[name] for name in _signal_names(variant, "cell")], states, named)
    return (signal, *after)


def sequence(variant: NeuronVariant, inputs: Sequence[Array]) -> tuple[Array, ...]:
    """Advance neurons by all steps of a train.

    The meaning of the sequence form, a loop of :func:`step`; the form of ``variant``
    is not read.

    Parameters
    ----------
    variant : NeuronVariant
    inputs : sequence of array
        As ``variant.as_form("sequence").inputs`` names them: current ``(T, B, N...)``,
        states that broadcast into ``(B, N...)``, parameters that broadcast into
        ``(N...)``, all of one floating type. ``T`` may be 0 here, though no runtime
        runs a loop of no steps.

    Returns
    -------
    tuple of array
        Spike counts (``LI``: potentials) of shape ``(T, B, N...)``, then the states after
        the last step, of shape ``(B, N...)``.

    Raises
    ------
    ValueError
        If an input is missing, has another type, or would widen the signal.
    """
    _, signal, states, recorded = _run(variant, inputs)
    return (signal, *recorded, *states)


def membrane(variant: NeuronVariant, inputs: Sequence[Array]) -> Array:
    """Return the potentials that are compared with the threshold.

    Parameters
    ----------
    variant : NeuronVariant
    inputs : sequence of array
        As for :func:`sequence`.

    Returns
    -------
    array, shape (T, B, N...), membrane units
        The charged potential of every step before a reset of that step, in the same
        arithmetic; for ``LI`` the output potential.

    Raises
    ------
    ValueError
        As for :func:`sequence`.
    """
    return _run(variant, inputs)[0]


def _run(variant: NeuronVariant, inputs: Sequence[Array]) -> tuple[Array, Array, list[Array], list[Array]]:
    named = _named(variant.as_form("sequence"), inputs, time_axes=1)
    trains = [named[name] for name in _signal_names(variant, "sequence")]
    shape = np.broadcast_shapes(*(train.shape for train in trains))
    names = _state_names(variant, "sequence")
    states = [np.broadcast_to(named[name], shape[1:]) for name in names]
    potentials, signals = np.empty(shape, trains[0].dtype), np.empty(shape, trains[0].dtype)
    recorded = {f"{state}0": np.empty(shape, trains[0].dtype) for state in variant.record}
    for index in range(shape[0]):
        potentials[index], signals[index], states = _advance(variant, [t[index] for t in trains], states, named)
        for name, state in zip(names, states, strict=True):
            if name in recorded:
                recorded[name][index] = state
    return potentials, signals, [state.copy() for state in states], list(recorded.values())


def _advance(
    variant: NeuronVariant, currents: Sequence[Array], states: Sequence[Array], named: Mapping[str, Array]
) -> tuple[Array, Array, list[Array]]:
    """Return the charged potential, the output and the states of one step."""
    if variant.written:
        return _advance_written(variant, currents, states, named)
    current = currents[0]
    with np.errstate(all="ignore"):
        synaptic: list[Array] = []
        received = states[-1]
        if variant.operator == "CubaLIF":
            current = (named["alpha"] * states[0]) + current
            synaptic = [current]
        if not variant.spiking:
            potential = _charge(variant, received, current, named)
            return potential, potential, [potential]

        due = _count(variant, received, named["v_threshold"]) if variant.reset_delay else None
        if due is not None and variant.reset == "to-value":
            received = _set_to_value(due, received, named)
        potential = _charge(variant, received, current, named)
        if due is not None and variant.reset == "subtract":
            potential = _subtract(due, potential, named)

        spikes = _count(variant, potential, named["v_threshold"])
        after = potential
        if due is None and variant.reset == "to-value":
            after = _set_to_value(spikes, potential, named)
        elif due is None and variant.reset == "subtract":
            after = _subtract(spikes, potential, named)
        return potential, spikes, [*synaptic, after]


def _advance_written(
    variant: NeuronVariant, currents: Sequence[Array], states: Sequence[Array], named: Mapping[str, Array]
) -> tuple[Array, Array, list[Array]]:
    program = variant.program
    values = {name: named[name] for name in program.parameters}
    values |= dict(zip(program.currents, currents, strict=True)) | dict(zip(program.states, states, strict=True))
    results = program.run(values)
    shape = np.broadcast_shapes(*(value.shape for value in (*currents, *states)))
    after = [np.broadcast_to(results[f"{state}_next"], shape) for state in program.states]
    potential = np.broadcast_to(results.get("u", results["v_next"]), shape)
    signal = np.broadcast_to(results["s"] if variant.spiking else results["v_next"], shape)
    return potential, signal, after


def _charge(variant: NeuronVariant, potential: Array, current: Array, named: Mapping[str, Array]) -> Array:
    gain = named["gain"]
    if variant.arithmetic == "relax":
        return potential + (gain * (current - potential))
    if variant.operator == "IF":
        return potential + (gain * current)
    return (named["beta"] * potential) + (gain * current)


def _count(variant: NeuronVariant, potential: Array, threshold: Array) -> Array:
    if variant.max_spikes == 1:
        fired = potential > threshold if variant.fire == "gt" else potential >= threshold
        return fired.astype(potential.dtype)
    ratio = potential / threshold
    one = potential.dtype.type(1)
    level = np.ceil(ratio) - one if variant.fire == "gt" else np.floor(ratio)
    spikes: Array = np.where(level > 0, level, np.zeros_like(level))
    if variant.max_spikes == 0:
        return spikes
    return np.minimum(spikes, np.array(variant.max_spikes, spikes.dtype))


def _subtract(spikes: Array, potential: Array, named: Mapping[str, Array]) -> Array:
    threshold = named["v_threshold"]
    drop = np.where(np.isfinite(threshold), threshold, np.zeros_like(threshold))
    return potential - (spikes * drop)


def _set_to_value(spikes: Array, potential: Array, named: Mapping[str, Array]) -> Array:
    # onnxruntime's Where returns +0.0 where it selects a -0.0 of its first operand;
    # adding zero makes every runtime do so.
    rest = named["v_reset"] + named["v_reset"].dtype.type(0)
    return np.where(spikes > 0, rest, potential)


def _state_names(variant: NeuronVariant, form: str) -> list[str]:
    typed = variant.as_form(form)
    return [typed.inputs[before] for before, _ in typed.states]


def _signal_names(variant: NeuronVariant, form: str) -> list[str]:
    typed = variant.as_form(form)
    return list(typed.inputs[: typed.currents])


def _named(variant: NeuronVariant, inputs: Sequence[Array], *, time_axes: int) -> dict[str, Array]:
    """Return the inputs by name after checking types and shapes."""
    declared = variant.schema.inputs
    if len(inputs) != len(declared):
        raise ValueError(
            f"{variant.op_type} has {len(declared)} inputs ({', '.join(variant.inputs)}), {len(inputs)} given"
        )
    arrays = [np.asarray(value) for value in inputs]
    signal = arrays[0]
    if signal.ndim <= time_axes or signal.dtype.kind != "f":
        raise ValueError(
            f"{declared[0].name} must be a floating array of shape {declared[0].shape}, "
            f"not {signal.dtype} of shape {signal.shape}"
        )
    for value, array in zip(declared[1:], arrays[1:], strict=True):
        if array.dtype != signal.dtype:
            raise ValueError(f"{value.name} is {array.dtype}, {declared[0].name} is {signal.dtype}")
        if value.role == "signal":
            continue
        target = signal.shape[time_axes:] if value.role == "state" else signal.shape[time_axes + 1 :]
        if not _broadcasts(array.shape, target):
            raise ValueError(f"{value.name} of shape {array.shape} does not broadcast into {target}")
    return dict(zip(variant.inputs, arrays, strict=True))


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    if shape == (1,):
        return True
    if len(shape) > len(target):
        return False
    aligned = target[len(target) - len(shape) :]
    return all(length in (1, wanted) for length, wanted in zip(shape, aligned, strict=True))
