"""NIR networks for tests: written to files, simulated in plain NumPy, and compared dataset by dataset."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np

from snn_optimizer.execution import Session
from snn_optimizer.nir import Discretization, NirNetwork, load

DT = 1e-3

Array = np.ndarray[Any, Any]


def datasets(source: Path | bytes) -> dict[str, Any]:
    """Return all that a NIR file holds, by path; the version of the package left out."""
    found: dict[str, Any] = {}
    with h5py.File(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
        file.visititems(lambda name, held: found.update({name: held[()]} if isinstance(held, h5py.Dataset) else {}))
    found.pop("version", None)
    return {name: sorted(map(tuple, held)) if name.endswith("edges") else held for name, held in found.items()}


def same(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Return what differs between two files, bit for bit."""
    different = set(first) ^ set(second)
    for name in set(first) & set(second):
        one, other = np.asarray(first[name]), np.asarray(second[name])
        if one.dtype != other.dtype or one.shape != other.shape or one.tobytes() != other.tobytes():
            different.add(name)
    return sorted(different)


def chain(*nodes: nir.NIRNode) -> nir.NIRGraph:
    """Return nodes one after the other between an input and an output."""
    return nir.NIRGraph.from_list(*nodes)


def written(graph: nir.NIRGraph, folder: Path, name: str = "net.nir") -> Path:
    """Write a network to a file."""
    nir.write(folder / name, graph)
    return folder / name


def opened(graph: nir.NIRGraph, folder: Path, time: Discretization | None = None) -> NirNetwork:
    """Write a network to a file and read it as we do."""
    return load(written(graph, folder), Discretization(DT) if time is None else time)


def run(network: NirNetwork, *inputs: Array) -> list[Array]:
    """Run the ONNX form in onnxruntime; inputs in the order of their names."""
    session = Session(network.graph.to_onnx())
    return run_session(session, *inputs)


def run_session(session: Session, *inputs: Array) -> list[Array]:
    """Run a session; outputs in the order of their names."""
    fed = dict(zip(sorted(spec.name for spec in session.inputs), inputs, strict=True))
    found = session.run(fed)
    return [np.asarray(found[name]) for name in sorted(found)]


def trains(shape: tuple[int, ...], rate: float = 0.4, seed: int = 0) -> Array:
    """Return random spikes."""
    return (np.random.default_rng(seed).random(shape) < rate).astype(np.float32)


# -- plain simulation in double precision ----------------------------------------------------


def _part(tau: Array, scheme: str) -> Array:
    return DT / tau if scheme == "euler" else 1 - np.exp(-DT / tau)


def simulate(node: Any, x: Array, scheme: str = "euler") -> tuple[Array, float]:
    """Return the output of a neuron node for every step, and how near a potential came to its threshold."""
    v = np.zeros(x.shape[1:])
    i = np.zeros(x.shape[1:])
    kind = type(node).__name__
    out, nearest = [], np.inf
    for now in x.astype(np.float64):
        if kind in ("I", "IF"):
            v = v + node.r * now
        else:
            current = now
            if kind.startswith("Cuba"):
                i = i + _part(node.tau_syn, scheme) * (node.w_in * now - i)
                current = i
            tau = node.tau_mem if kind.startswith("Cuba") else node.tau
            v = v + _part(tau, scheme) * (node.v_leak + node.r * current - v)
        if kind in ("I", "LI", "CubaLI"):
            out.append(v.copy())
            continue
        nearest = min(nearest, float(np.abs(v - node.v_threshold).min()))
        fired = v > node.v_threshold
        v = np.where(fired, node.v_reset, v)
        out.append(fired.astype(np.float64))
    return np.stack(out), nearest


def neuron(kind: str, shape: tuple[int, ...], seed: int = 0, *, plain: bool = False) -> nir.NIRNode:
    """Return a neuron node with random parameters, one per unit; ``plain``: r 1, no leak potential, reset to zero."""
    rng = np.random.default_rng(seed)

    def draw(low: float, high: float) -> Array:
        return rng.uniform(low, high, shape)

    leak = {"r": draw(0.8, 3.0), "v_leak": draw(-0.2, 0.2)}
    firing = {"v_threshold": draw(0.3, 0.6), "v_reset": draw(-0.1, 0.1)}
    if plain:
        leak = {"r": np.ones(shape), "v_leak": np.zeros(shape)}
        firing["v_reset"] = np.zeros(shape)
    second = {
        "tau_syn": draw(3e-3, 9e-3), "tau_mem": draw(5e-3, 2e-2), "w_in": np.ones(shape) if plain else draw(1.0, 4.0),
    }  # fmt: skip
    first = {"tau": draw(5e-3, 2e-2)}
    fields = {
        "I": {"r": leak["r"]},
        "IF": {"r": leak["r"], **firing},
        "LI": first | leak,
        "LIF": first | leak | firing,
        "CubaLI": second | leak,
        "CubaLIF": second | leak | firing,
    }[kind]
    return getattr(nir, kind)(**fields)
