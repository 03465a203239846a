"""Small unrolled graphs, written by hand: which loops are found, and that no bit changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest

from snn_optimizer.ir import SNNGraph
from snn_optimizer.passes.raising.reroll import Reroll
from snn_optimizer.remarks import Remark
from tests.unit.passes.cleanup.harness import apply, assert_same_results, interface, parse

N = 3
Step = Callable[[int], str]


def unrolled(
    step: Step,
    steps: int,
    ends: Sequence[str],
    outputs: str,
    *,
    inputs: str = "",
    stored: str = "",
    before: str = "",
    sliced: bool = True,
) -> onnx.ModelProto:
    """Write `step(t)` for every t after slices `x<t>` of x [steps, B, 3] and zeros `z`, then the ends."""
    lines = ["rows = Shape <start = 1> (x)", "z = Expand (zero, rows)", before]
    for index in range(steps):
        if sliced:
            lines.append(f"i{index} = Constant <value = int64 {{{index}}}> ()")
            lines.append(f"x{index} = Gather <axis = 0> (x, i{index})")
        lines.append(step(index))
    text = "\n".join(line for line in (*lines, *ends) if line)
    return parse(
        f"g (float[{steps}, B, {N}] x{inputs}) => ({outputs}) "
        f"<float zero = {{0.0}}, float beta = {{0.5}}, float one = {{1.0}}, int64[1] front = {{0}}, "
        f"float[{N}, {N}] w = {{1.0, -1.0, 0.5, 0.25, 1.0, 0.0, -0.5, 2.0, 1.0}}{stored}> {{\n{text}\n}}"
    )


def leaky(index: int) -> str:
    """One leaky neuron behind a synapse; `v<t>` and `s<t>`, and `u<t>` with the axis of a stack."""
    before = f"k{index - 1}" if index else "z"
    return (
        f"c{index} = MatMul (x{index}, w)\n d{index} = Mul (beta, {before})\n v{index} = Add (d{index}, c{index})\n"
        f"b{index} = Greater (v{index}, one)\n s{index} = Cast <to = 1> (b{index})\n"
        f"k{index} = Sub (v{index}, s{index})\n u{index} = Unsqueeze (s{index}, front)"
    )


def stack(steps: int, name: str = "u", result: str = "y") -> str:
    return f"{result} = Concat <axis = 0> ({', '.join(f'{name}{index}' for index in range(steps))})"


def chain(steps: int, start: str, result: str = "y") -> list[str]:
    """Add s0 to the start, or s0 and s1, and then one after the other."""
    lines, total = [], start
    for index in range(1 if start == "s0" else 0, steps):
        following = result if index == steps - 1 else f"t{index}"
        lines.append(f"{following} = Add ({total}, s{index})")
        total = following
    return lines


def rerolled(model: onnx.ModelProto, *, loops: int = 1, special: bool = True) -> tuple[onnx.ModelProto, list[Remark]]:
    """Run the pass, check its promises, and that it wrote so many loops."""
    onnx.checker.check_model(model, full_check=True)
    graph = SNNGraph.from_onnx(model)
    _, remarks = apply(Reroll(), graph)
    after = graph.to_onnx()
    onnx.checker.check_model(after, full_check=True)
    assert interface(after) == interface(model)
    found = [node for node in after.graph.node if node.op_type == "Scan"]
    assert len(found) == loops, [str(remark) for remark in remarks]
    outcome, _ = apply(Reroll(), graph)
    assert not outcome.changes
    assert_same_results(model, after, feeds_of(model))
    return after, remarks


def feeds_of(model: onnx.ModelProto) -> list[dict[str, np.ndarray]]:
    generator = np.random.default_rng(3)
    feeds = []
    for batch in (1, 4):
        shapes = {
            value.name: [each.dim_value or batch for each in value.type.tensor_type.shape.dim]
            for value in model.graph.input
        }
        feeds.append({name: generator.normal(0.5, 1, shape).astype(np.float32) for name, shape in shapes.items()})
    return feeds


def nodes_of(model: onnx.ModelProto) -> int:
    def count(graph: onnx.GraphProto) -> int:
        bodies = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
        return len(graph.node) + sum(map(count, bodies))

    return count(model.graph)


STACKED = f"float[T, B, {N}] y"


@pytest.mark.parametrize("steps", [2, 3, 7])
def test_a_neuron_is_one_loop(steps: int) -> None:
    after, remarks = rerolled(unrolled(leaky, steps, [stack(steps)], STACKED))
    (scan,) = (node for node in after.graph.node if node.op_type == "Scan")
    assert {node.op_type for node in scan.attribute[0].g.node} >= {"MatMul", "Mul", "Add", "Greater", "Cast", "Sub"}
    assert any(remark.rule == "rolled" and remark.arguments["steps"] == steps for remark in remarks)


def test_one_step_is_no_loop() -> None:
    rerolled(unrolled(leaky, 1, [stack(1)], STACKED), loops=0)


@pytest.mark.parametrize("start", ["s0", "z", "zero"])
def test_a_sum_is_part_of_the_loop(start: str) -> None:
    sizes = [nodes_of(rerolled(unrolled(leaky, n, chain(n, start), f"float[B, {N}] y"))[0]) for n in (5, 9)]
    assert sizes[0] == sizes[1]


def test_a_first_step_whose_state_was_folded_is_explained() -> None:
    def step(index: int) -> str:
        if index:
            return leaky(index)
        lines = leaky(0).split("\n")
        del lines[1:3]
        return "\n".join(line.replace("v0", "c0") for line in lines)

    sizes = [nodes_of(rerolled(unrolled(step, n, [stack(n)], STACKED))[0]) for n in (5, 9)]
    assert sizes[0] == sizes[1]


def test_a_first_step_that_nothing_explains_stays_before_the_loop() -> None:
    def step(index: int) -> str:
        return leaky(index) if index else leaky(0).replace("Add (d0, c0)", "Sub (d0, c0)")

    after, _ = rerolled(unrolled(step, 6, [stack(6)], STACKED))
    assert "Sub" in {node.op_type for node in after.graph.node}


def test_an_input_without_time_is_captured() -> None:
    def step(index: int) -> str:
        return leaky(index).replace(f"MatMul (x{index}, w)", f"Add (current, x{index})")

    before = "current = MatMul (still, w)"
    model = unrolled(step, 6, [stack(6)], STACKED, inputs=f", float[B, {N}] still", before=before)
    after, _ = rerolled(model)
    assert "MatMul" in {node.op_type for node in after.graph.node}


def test_a_network_that_reads_only_an_input_without_time() -> None:
    def step(index: int) -> str:
        return leaky(index).replace(f"(x{index}, w)", "(still, w)")

    still = f", float[B, {N}] still"
    sizes = [nodes_of(rerolled(unrolled(step, n, [stack(n)], STACKED, inputs=still, sliced=False))[0]) for n in (5, 9)]
    assert sizes[0] == sizes[1]


def test_weights_that_are_equal_copies_are_one_weight() -> None:
    values = "1.0, -1.0, 0.5, 0.25, 1.0, 0.0, -0.5, 2.0, 1.0"

    def step(index: int) -> str:
        return leaky(index).replace(f"(x{index}, w)", f"(x{index}, w{index})")

    stored = "".join(f", float[{N}, {N}] w{index} = {{{values}}}" for index in range(6))
    after, _ = rerolled(unrolled(step, 6, [stack(6)], STACKED, stored=stored))
    assert len([tensor for tensor in after.graph.initializer if list(tensor.dims) == [N, N]]) <= 2


def test_weights_that_differ_in_one_step_are_no_loop_over_it() -> None:
    values = "1.0, -1.0, 0.5, 0.25, 1.0, 0.0, -0.5, 2.0"

    def step(index: int) -> str:
        return leaky(index).replace(f"(x{index}, w)", f"(x{index}, w{index})")

    stored = "".join(f", float[{N}, {N}] w{index} = {{{values}, {1.5 if index == 3 else 1.0}}}" for index in range(6))
    model = unrolled(step, 6, [stack(6)], STACKED, stored=stored)
    graph = SNNGraph.from_onnx(model)
    _, remarks = apply(Reroll(), graph)
    assert_same_results(model, graph.to_onnx(), feeds_of(model))
    assert any("3" in remark.message for remark in remarks if remark.kind == "missed")


def test_steps_joined_along_an_axis_they_have() -> None:
    joined = f"y = Concat <axis = 1> ({', '.join(f's{index}' for index in range(5))})"
    rerolled(unrolled(leaky, 5, [joined], f"float[B, {5 * N}] y"))


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_steps_stacked_along_another_axis(axis: int) -> None:
    def step(index: int) -> str:
        return leaky(index).replace("front", "place")

    joined = stack(5).replace("axis = 0", f"axis = {axis}")
    shape = {1: f"B, T, {N}"}.get(axis, f"B, {N}, T")
    rerolled(unrolled(step, 5, [joined], f"float[{shape}] y", stored=f", int64[1] place = {{{axis}}}"))


@pytest.mark.parametrize("wanted", [0, 2, 4, 5])
def test_one_step_is_an_output(wanted: int) -> None:
    ends = [stack(6), f"single = Identity (s{wanted})", f"kept = Identity (k{wanted})"]
    rerolled(unrolled(leaky, 6, ends, f"{STACKED}, float[B, {N}] single, float[B, {N}] kept"))


def test_only_the_last_step_is_an_output() -> None:
    sizes = [
        nodes_of(rerolled(unrolled(leaky, n, [f"y = Identity (s{n - 1})"], f"float[B, {N}] y"))[0]) for n in (5, 9)
    ]
    assert sizes[0] == sizes[1]


def test_a_state_two_steps_old() -> None:
    def step(index: int) -> str:
        older = f"k{index - 2}" if index > 1 else "z"
        both = f"o{index} = Mul (beta, {older})\n d{index} = Mul (o{index},"
        return leaky(index).replace(f"d{index} = Mul (beta,", both)

    rerolled(unrolled(step, 7, [stack(7)], STACKED))


def test_two_networks_are_two_loops() -> None:
    def step(index: int) -> str:
        other = leaky(index).replace(f"MatMul (x{index}, w)", f"Mul (x{index}, beta)")
        for letter in "cdvbsku":
            other = other.replace(f"{letter}{index}", f"{letter}{letter}{index}")
        return f"{leaky(index)}\n{other.replace(f'k{index - 1})', f'kk{index - 1})')}"

    model = unrolled(step, 5, [stack(5), stack(5, "uu", "yy")], f"{STACKED}, float[T, B, {N}] yy")
    rerolled(model, loops=2)


def test_a_sequence_of_the_loop_that_the_loop_reads_is_no_loop() -> None:
    """A stack of all steps is not there before the last one."""
    second = [
        f"q{n} = Gather <axis = 0> (y, i{n})\n r{n} = Add (q{n}, s{n})\n m{n} = Unsqueeze (r{n}, front)"
        for n in range(5)
    ]
    same_bits(unrolled(leaky, 5, [stack(5), *second, stack(5, "m", "yy")], f"{STACKED}, float[T, B, {N}] yy"))


def test_what_one_step_gives_to_all_others_is_no_constant_of_the_loop() -> None:
    def step(index: int) -> str:
        before = f"a{index - 1}, e{index - 1}" if index else "z, z"
        first, second = before.split(", ")
        lines = [f"a{index} = Add ({first}, x{index})"]
        lines += ["gate = Sigmoid (a0)"] if index == 0 else []
        lines += [f"p{index} = Mul (gate, x{index})", f"e{index} = Add ({second}, p{index})"]
        return "\n".join([*lines, f"r{index} = Add (a{index}, e{index})", f"u{index} = Unsqueeze (r{index}, front)"])

    same_bits(unrolled(step, 5, [stack(5)], STACKED))


def same_bits(model: onnx.ModelProto) -> None:
    graph = SNNGraph.from_onnx(model)
    apply(Reroll(), graph)
    after = graph.to_onnx()
    onnx.checker.check_model(after, full_check=True)
    assert_same_results(model, after, feeds_of(model))


def test_a_thousand_steps_take_no_longer_than_they_are_many() -> None:
    small, _ = rerolled(unrolled(leaky, 10, [stack(10)], STACKED))
    model = unrolled(leaky, 1000, [stack(1000)], STACKED)
    start = time.perf_counter()
    graph = SNNGraph.from_onnx(model)
    apply(Reroll(), graph)
    seconds = time.perf_counter() - start
    large = graph.to_onnx()
    assert nodes_of(large) == nodes_of(small)
    assert seconds < 10
    assert_same_results(model, large, feeds_of(model)[:1])
