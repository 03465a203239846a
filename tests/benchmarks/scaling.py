"""Time whole commands on unrolled exports of growing length, and print how the time grows.

    python tests/benchmarks/scaling.py                        1k to 100k nodes
    python tests/benchmarks/scaling.py --nodes 1000 3000      these sizes
    python tests/benchmarks/scaling.py --write FOLDER         and keep the models
    python tests/benchmarks/scaling.py --layers 784,1000,1000,10 --steps 100 --write FOLDER

The models are what torch.onnx (TorchScript) writes of snnTorch layers (by default two, 64-32-10; Leaky, reset by
subtraction) after unrolling the time loop. The exponent is the slope of log time over log nodes; the time of the imports is in the
seconds, so small models flatten it: it is also shown for the larger half of the sizes. The time limit ends a command.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from contenders import NAMES, Outcome, chosen
from onnx import helper, numpy_helper
from tables import table

SIZES = (64, 32, 10)
NODES = (1_000, 3_000, 10_000, 30_000, 100_000)
TOOLS = "snnopt-O1,snnopt-O2,onnxslim,onnxsim"
LIMIT = 300.0
BETA, THRESHOLD = 0.9, 1.0


class Export:
    """The nodes of an export in the order and with the names torch.onnx gives them."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.counters: dict[str, int] = {}

    def add(self, scope: str, kind: str, *inputs: str, output: str | None = None, **attributes: object) -> str:
        """Add a node of a scope, and return its output."""
        place = f"{scope}/{kind}"
        number = self.counters.get(place, 0)
        self.counters[place] = number + 1
        name = f"{place}_{number}" if number else place
        result = output or f"{name}_output_0"
        self.nodes.append(helper.make_node(kind, inputs, [result], name=name, **attributes))
        return result

    def constant(self, scope: str, value: npt.NDArray[np.generic]) -> str:
        """Add a Constant node."""
        return self.add(scope, "Constant", value=numpy_helper.from_array(value))


def unrolled(steps: int, sizes: Sequence[int] = SIZES) -> onnx.ModelProto:
    """Return layers of leaky neurons over `steps` time steps, every step written out."""
    export = Export()
    layers = range(1, len(sizes))
    for layer in layers[1:]:
        for name in ("beta", "threshold"):
            export.add("", "Identity", f"lif1.{name}", output=f"lif{layer}.{name}")
    for layer in reversed(layers):
        export.add("", "Identity", "lif1.threshold", output=f"lif{layer}.graded_spikes_factor")
    membranes: dict[int, tuple[str, str]] = {}
    decays: dict[int, str] = {}
    recorded: tuple[list[str], list[str]] = ([], [])
    for step in range(steps):
        suffix = f"_{step}" if step else ""
        spikes = export.add("", "Gather", "x", export.constant("", np.int64(step)), axis=0)
        for layer in layers:
            weights = (f"fc{layer}.weight", f"fc{layer}.bias")
            current = export.add(f"/fc{layer}{suffix}", "Gemm", spikes, *weights, alpha=1.0, beta=1.0, transB=1)
            scope = f"/lif{layer}{suffix}"
            if step == 0:
                membranes[layer] = _initial(export, scope, f"lif{layer}", current)
            spikes = _leaky(export, scope, layer, current, membranes, decays)
        recorded[0].append(spikes)
        recorded[1].append(membranes[layers[-1]][0])
    for name, values in zip(("spk_rec", "mem_rec"), recorded, strict=True):
        pieces = [export.add("", "Unsqueeze", value, export.constant("", np.array([0]))) for value in values]
        export.add("", "Concat", *pieces, output=name, axis=0)
    return _model(export.nodes, steps, sizes)


def _initial(export: Export, scope: str, layer: str, current: str) -> tuple[str, str]:
    """Return the membrane before the first step, and by how much it is above the threshold."""
    shape = export.add(scope, "Shape", current)
    zero = export.add(scope, "ConstantOfShape", shape, value=numpy_helper.from_array(np.zeros(1, np.float32)))
    return zero, export.add(scope, "Sub", zero, f"{layer}.threshold")


def _leaky(
    export: Export,
    scope: str,
    number: int,
    current: str,
    membranes: dict[int, tuple[str, str]],
    decays: dict[int, str],
) -> str:
    """Add one step of one layer; return its spikes and put the new membrane into `membranes`."""
    layer = f"lif{number}"
    membrane, excess = membranes[number]
    zero = np.float32(0)
    fired = export.add(scope, "Greater", excess, export.constant(scope, zero))
    reset = export.add(scope, "Cast", fired, to=onnx.TensorProto.FLOAT)
    if number not in decays:
        bounds = (export.constant(scope, zero), export.constant(scope, np.float32(1)))
        decays[number] = export.add(scope, "Clip", f"{layer}.beta", *bounds)
    kept = export.add(scope, "Mul", decays[number], membrane)
    driven = export.add(scope, "Add", kept, current)
    removed = export.add(scope, "Mul", reset, f"{layer}.threshold")
    membrane = export.add(scope, "Sub", driven, removed)
    excess = export.add(scope, "Sub", membrane, f"{layer}.threshold")
    membranes[number] = (membrane, excess)
    above = export.add(scope, "Greater", excess, export.constant(scope, zero))
    spikes = export.add(scope, "Cast", above, to=onnx.TensorProto.FLOAT)
    return export.add(scope, "Mul", spikes, f"{layer}.graded_spikes_factor")


def _model(nodes: Sequence[onnx.NodeProto], steps: int, sizes: Sequence[int]) -> onnx.ModelProto:
    generator = np.random.default_rng(0)
    stored: dict[str, npt.NDArray[np.float32] | np.float32] = {
        "lif1.threshold": np.float32(THRESHOLD),
        "lif1.beta": np.float32(BETA),
    }
    for layer, (before, after) in enumerate(itertools.pairwise(sizes), start=1):
        bound = 1 / math.sqrt(before)
        stored[f"fc{layer}.weight"] = generator.uniform(-2 * bound, 2 * bound, (after, before)).astype(np.float32)
        stored[f"fc{layer}.bias"] = generator.uniform(-bound, bound, after).astype(np.float32)
    number = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [helper.make_tensor_value_info("x", number, [steps, "batch", sizes[0]])],
        [helper.make_tensor_value_info(name, number, [steps, "batch", sizes[-1]]) for name in ("spk_rec", "mem_rec")],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    model = helper.make_model(graph, producer_name="pytorch", opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model


def steps_for(nodes: int, sizes: Sequence[int] = SIZES) -> int:
    """Return the number of time steps that makes about so many nodes."""
    one, two = (len(unrolled(steps, sizes).graph.node) for steps in (1, 2))
    return max(1, round((nodes - one) / (two - one)) + 1)


def exponent(nodes: Sequence[int], seconds: Sequence[float]) -> str:
    """Return the slope of log time over log nodes."""
    if len(set(nodes)) < 2:
        return "-"
    return f"{np.polyfit(np.log(nodes), np.log(seconds), 1)[0]:.2f}"


def widths(text: str) -> tuple[int, ...]:
    """Return the units of each layer, inputs first."""
    found = tuple(int(part) for part in text.split(","))
    if len(found) < 2 or min(found) < 1:
        raise argparse.ArgumentTypeError("give the inputs and the units of at least one layer")
    return found


def parsed() -> argparse.Namespace:
    """Return the arguments of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", nargs="+", type=int, default=list(NODES), help="sizes (default: 1k to 100k)")
    parser.add_argument("--layers", default=SIZES, type=widths, metavar="N,N,...", help="units (default: 64,32,10)")
    parser.add_argument("--steps", nargs="+", type=int, help="numbers of time steps, instead of --nodes")
    parser.add_argument("--tools", default=TOOLS, help=f"of {','.join(NAMES)} (default: {TOOLS})")
    parser.add_argument("--repeats", type=int, default=1, metavar="N", help="timed commands (default: 1)")
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="SECONDS", help="per command (default: 300)")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="keep the models")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    arguments = parser.parse_args()
    try:
        arguments.tools = chosen(arguments.tools)
    except ValueError as error:
        parser.error(str(error))
    if min(arguments.nodes + (arguments.steps or [])) < 1 or arguments.repeats < 1 or arguments.limit <= 0:
        parser.error("--nodes, --steps, --repeats and --limit are positive")
    return arguments


def main() -> None:
    """Print one row per tool and size, and the exponents."""
    arguments = parsed()
    reasons = {tool.name: tool.absent() for tool in arguments.tools}
    tools = [tool for tool in arguments.tools if not reasons[tool.name]]
    lines = [f"absent: {name}: {reason}" for name, reason in reasons.items() if reason]
    lines += [*[""][: len(lines)], *table([["nodes", "steps", "tool", "seconds", "seconds per 1000 nodes"]])]
    print("\n".join(lines), flush=True)
    times: dict[str, list[tuple[int, float]]] = {tool.name: [] for tool in tools}
    expired: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.write or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        lengths = arguments.steps or [steps_for(wanted, arguments.layers) for wanted in arguments.nodes]
        for steps in sorted(lengths):
            model = unrolled(steps, arguments.layers)
            nodes = len(model.graph.node)
            path = folder / f"unrolled_{'-'.join(map(str, arguments.layers))}_T{steps}.onnx"
            onnx.save(model, path)
            for tool in tools:
                outcomes: list[Outcome] = []
                while len(outcomes) < arguments.repeats and not (outcomes and outcomes[-1].error):
                    output = Path(scratch) / f"{tool.name}.{steps}.{len(outcomes)}.onnx"
                    outcomes.append(tool.run(path.resolve(), output, arguments.limit))
                    output.unlink(missing_ok=True)
                seconds = statistics.median(outcome.seconds for outcome in outcomes)
                cells = [f"{seconds:.2f}", f"{seconds / nodes * 1e3:.3f}"]
                if error := outcomes[-1].error:
                    cells = [error, "-"]
                    expired |= {tool.name: nodes} if outcomes[-1].expired else {}
                else:
                    times[tool.name].append((nodes, seconds))
                row = table([[f"{nodes:,}", f"{steps:,}", tool.name, *cells]], header=False)
                print("\n".join(row), flush=True)
                lines += row
    slopes = [["tool", "exponent", "exponent, larger half", "sizes", "note"]]
    for name, measured in times.items():
        larger = measured[len(measured) // 2 :] if len(measured) > 3 else measured[-2:]
        fitted = [exponent(*zip(*part, strict=True)) if part else "-" for part in (measured, larger)]
        note = f"> {arguments.limit:g} s from {expired[name]:,} nodes" if name in expired else ""
        slopes.append([name, *fitted, f"{len(measured)}", note])
    end = ["", *table(slopes)]
    print("\n".join(end))
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(lines + end) + "\n")


if __name__ == "__main__":
    main()
