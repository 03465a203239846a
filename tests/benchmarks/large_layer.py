"""Time and peak memory of the structural passes on one very large layer, each step in a process of its own.

    python tests/benchmarks/large_layer.py                              100,000 neurons x 1,000 inputs (400 MB)
    python tests/benchmarks/large_layer.py --neurons 10000 --inputs 784 another size
    python tests/benchmarks/large_layer.py --folder FOLDER              and keep the model

The layer has random weights; one row in twenty is a copy of another, one in twenty too weak to ever fire. Its neurons are read by
ten others. Memory is the peak resident set of the process less that after its imports, as a multiple of the weights:
the loaded model is part of it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tables import table

MEGA = 1e6
CLASSES = 10
SHARE = 20  # one in so many rows is a copy, and one too weak


def write(path: Path, neurons: int, inputs: int) -> None:
    """Write the model: `inputs` -> `neurons` -> 10."""
    from snn_optimizer import LayerNode, SNNGraph

    random = np.random.default_rng(0)
    weights = random.standard_normal((neurons, inputs), np.float32)
    weights *= np.float32(2 / np.sqrt(inputs))
    order = random.permutation(neurons)
    some = neurons // SHARE
    weights[order[:some]] = weights[order[some : 2 * some]]
    weights[order[2 * some : 3 * some]] *= np.float32(1e-4)
    readout = random.standard_normal((CLASSES, neurons), np.float32) / np.float32(np.sqrt(neurons))
    layers = [
        LayerNode("large", inputs, neurons, weights, bias=np.full(neurons, 0.05, np.float32)),
        LayerNode("readout", neurons, CLASSES, readout),
    ]
    SNNGraph(layers=layers).save(path)


def load(path: Path) -> str:
    """Read the model."""
    from snn_optimizer import SNNGraph

    graph = SNNGraph.from_onnx(path)
    return f"{graph.total_params:,} parameters"


def save(path: Path) -> str:
    """Read the model and write it."""
    from snn_optimizer import SNNGraph

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        target = Path(folder) / "copy.onnx"
        SNNGraph.from_onnx(path).save(target)
        return f"{target.stat().st_size / MEGA:.0f} MB"


def _passed(path: Path, name: str) -> str:
    from snn_optimizer import SNNGraph
    from snn_optimizer.analyses import AnalysisManager
    from snn_optimizer.passes import registry
    from snn_optimizer.passes.base import PassContext

    graph = SNNGraph.from_onnx(path)
    outcome = registry.create(name, {}).run(graph, PassContext(AnalysisManager(graph.module), pass_name=name))
    return f"{outcome.neurons_removed:,} neurons removed"


def duplicates(path: Path) -> str:
    """Find the duplicates and merge them."""
    return _passed(path, "redundancy-elimination")


def dead(path: Path) -> str:
    """Prove neurons dead and remove them."""
    return _passed(path, "dead-neuron-elimination")


def connections(path: Path) -> str:
    """Remove connections that do nothing."""
    return _passed(path, "redundant-connection-removal")


def quantized(path: Path) -> str:
    """Store the weights in eight bits."""
    return _passed(path, "quantize-weights")


STEPS_OF: dict[str, Callable[[Path], str]] = {
    "load": load,
    "save": save,
    "redundancy-elimination": duplicates,
    "dead-neuron-elimination": dead,
    "redundant-connection-removal": connections,
    "quantize-weights": quantized,
}


def peak() -> int:
    """Return the largest resident set of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(step: str, path: Path) -> dict[str, object]:
    """Run one step in this process."""
    import snn_optimizer.api
    import snn_optimizer.passes.structure.dead_neuron_elimination
    import snn_optimizer.passes.structure.redundancy_elimination
    import snn_optimizer.passes.structure.redundant_connection_removal
    import snn_optimizer.passes.weights.quantize_weights  # noqa: F401 - imports are no part of what is measured

    before, start = peak(), time.perf_counter()
    result = STEPS_OF[step](path)
    return {"seconds": time.perf_counter() - start, "bytes": peak() - before, "result": result}


def main() -> None:
    """Build the model, measure every step in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, default=100_000)
    parser.add_argument("--inputs", type=int, default=1_000)
    parser.add_argument("--only", choices=list(STEPS_OF), help="measure one step")
    parser.add_argument("--folder", type=Path, help="keep the model here")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds after which a step is stopped")
    parser.add_argument("--child", choices=["write", *STEPS_OF], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child == "write":
        write(options.folder / "large.onnx", options.neurons, options.inputs)
        return
    if options.child:
        print(json.dumps(measure(options.child, options.folder / "large.onnx")))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        # a process starts with the peak of the one that started it, so this one must stay small
        size = ["--neurons", str(options.neurons), "--inputs", str(options.inputs)]
        subprocess.run([sys.executable, __file__, "--child", "write", "--folder", str(folder), *size], check=True)
        weights = 4 * options.neurons * options.inputs
        print(f"{options.neurons:,} neurons x {options.inputs:,} inputs, weights {weights / MEGA:,.0f} MB\n")
        lines = [["step", "seconds", "peak MB", "times the weights", "note"]]
        for step in [options.only] if options.only else STEPS_OF:
            command = [sys.executable, __file__, "--child", step, "--folder", str(folder)]
            try:
                run = subprocess.run(command, capture_output=True, text=True, timeout=options.limit, check=False)
            except subprocess.TimeoutExpired:
                lines.append([step, f"> {options.limit:.0f}", "-", "-", "stopped"])
                continue
            if run.returncode:
                lines.append([step, "-", "-", "-", (run.stderr.strip().splitlines() or ["killed"])[-1]])
                continue
            found = json.loads(run.stdout)
            most = float(found["bytes"])
            lines.append(
                [step, f"{found['seconds']:.1f}", f"{most / MEGA:,.0f}", f"{most / weights:.2f}", found["result"]]
            )
        print("\n".join(table(lines)))


if __name__ == "__main__":
    main()
