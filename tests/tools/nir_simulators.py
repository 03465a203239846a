"""Compare our runs of NIR files with those of snnTorch, Norse and sinabs, before and after optimization.

Needs the extra ``simulators``. Prints one line per file and simulator; exits with 1 when a run that should agree exactly
does not.

    python tests/tools/nir_simulators.py ../shared/nir

Every simulator loads the file with its own importer. What they do otherwise than the equations of NIR is listed in
docs/reference/nir.md; ``sinabs, mended`` sets its neurons to one spike per step, a reset to zero and no floor after
loading, and gives its time constants in steps, so that the difference to ``sinabs`` has no other cause.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import onnxruntime
import torch

from snn_optimizer import optimize
from snn_optimizer.nir import Discretization, NirNetwork, export, load

DT = 1e-4
FILES: dict[str, tuple[float, int, int]] = {  # share of input spikes, steps, samples
    "01_lif_lif_norse.nir": (0.3, 1000, 4),
    "02_cnn_cnn_sinabs.nir": (0.1, 30, 4),
    "03_rnn_braille_noDelay_bias_zero.nir": (0.15, 256, 8),
    "03_rnn_braille_noDelay_noBias_subtract.nir": (0.15, 256, 8),
}
Array = np.ndarray[Any, Any]
Simulator = Callable[[Any, Array], Array]


def stepwise(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Run a module that takes one step and a state."""
    state, outputs = None, []
    with torch.no_grad():
        for now in x:
            result = module(now) if state is None else module(now, state)
            found, state = result if isinstance(result, tuple) else (result, None)
            outputs.append(found[0] if isinstance(found, tuple) else found)
    return torch.stack(outputs)


def norse(graph: Any, x: Array) -> Array:
    """Run Norse; sample by sample, as its Flatten counts no batch."""
    import norse.torch

    runs = []
    for sample in torch.from_numpy(x).unbind(1):
        module = norse.torch.from_nir(copy.deepcopy(graph), dt=DT, ignore_warnings=True)
        runs.append(stepwise(module, sample))
    return torch.stack(runs, 1).numpy()


def snntorch(graph: Any, x: Array) -> Array:
    """Run snnTorch."""
    from snntorch.import_nir import import_from_nir

    with contextlib.redirect_stdout(io.StringIO()):
        module = import_from_nir(copy.deepcopy(graph))
    return stepwise(module, torch.from_numpy(x)).numpy()


def sinabs(graph: Any, x: Array, *, mended: bool = False) -> Array:
    """Run sinabs, all steps at once."""
    from sinabs import activation, layers
    from sinabs.nir import from_nir

    steps, batch = x.shape[:2]
    graph = copy.deepcopy(graph)
    if mended:
        for node in graph.nodes.values():
            if hasattr(node, "tau"):
                node.tau = node.tau / DT
    module = from_nir(graph, batch_size=batch)
    for layer in module.modules():
        if mended and isinstance(layer, (layers.IAF, layers.LIF)):
            layer.spike_fn, layer.reset_fn, layer.min_v_mem = activation.SingleSpike, activation.MembraneReset(), None
            layer.norm_input = not isinstance(layer, layers.IAF)
    with torch.no_grad():
        joined = torch.from_numpy(x).transpose(0, 1).reshape(batch * steps, *x.shape[2:])
        result = module(joined)
        found = result[0] if isinstance(result, tuple) else result
    return found.reshape(batch, steps, *found.shape[1:]).transpose(0, 1).numpy()


SIMULATORS: dict[str, tuple[Simulator, Discretization]] = {
    "Norse": (norse, Discretization(DT, "euler", feedback="current")),
    "snnTorch": (snntorch, Discretization(DT, "euler")),
    "sinabs": (sinabs, Discretization(DT, "exponential")),
    "sinabs, mended": (lambda graph, x: sinabs(graph, x, mended=True), Discretization(DT, "exponential")),
}
EXACT = {  # what is expected to agree in every spike, with versions of 2026
    ("01_lif_lif_norse.nir", "Norse"),
    ("01_lif_lif_norse.nir", "snnTorch"),
    ("02_cnn_cnn_sinabs.nir", "Norse"),
    ("03_rnn_braille_noDelay_bias_zero.nir", "Norse"),
    ("03_rnn_braille_noDelay_noBias_subtract.nir", "Norse"),
}


def ours(network: NirNetwork, x: Array) -> Array:
    """Run the ONNX form in stock onnxruntime."""
    session = onnxruntime.InferenceSession(network.graph.to_onnx().SerializeToString())
    result: Array = session.run(None, {session.get_inputs()[0].name: x})[0]
    return result


def optimized(network: NirNetwork) -> bytes:
    """Return the optimized network as a NIR file."""
    graph, report = optimize(network.graph.to_onnx(), level="O2")
    if report.evidence.verdict == "DIFFERENT":
        raise SystemExit(f"the optimized network differs: {report.evidence.reason}")
    return export(graph, network.time, network).data


def compared(simulator: Simulator, path: Path, network: NirNetwork, x: Array) -> tuple[int, int, int]:
    """Return spikes of ours, spikes of the simulator, and output values that differ."""
    mine, theirs = ours(network, x), simulator(nir.read(path), x)
    return int(mine.sum()), int(theirs.sum()), int((mine != theirs).sum())


def main() -> int:
    """Compare all files and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the files of the NIR paper are")
    folder = parser.parse_args().folder
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    wrong = 0
    for name, (share, steps, samples) in FILES.items():
        for label, (simulator, time) in SIMULATORS.items():
            network = load(folder / name, time)
            shape = [int(n) for n in network.graph.module.graph.inputs[0].shape[2:]]
            x = (np.random.default_rng(0).random((steps, samples, *shape)) < share).astype(np.float32)
            for form in ("as it is", "optimized"):
                path = folder / name
                with tempfile.TemporaryDirectory() as scratch:
                    if form == "optimized":
                        path = Path(scratch) / name
                        path.write_bytes(optimized(network))
                    try:
                        spikes, other, differing = compared(simulator, path, load(path, time), x)
                    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
                        print(f"{name}  {label}  {form}: cannot load or run it: {type(error).__name__}: {error!s:.90}")
                        wrong += (name, label) in EXACT
                        break
                total = steps * samples * int(np.prod(network.graph.module.graph.outputs[0].shape[2:]))
                print(
                    f"{name}  {label}  {form}: {spikes:,} spikes, theirs {other:,}, {differing:,} of {total:,} differ"
                )
                wrong += (name, label) in EXACT and differing > 0
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
