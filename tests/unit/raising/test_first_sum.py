"""A sum over steps starts from what changes no bit of its first term."""

from __future__ import annotations

import numpy as np
import onnx

from snn_optimizer.api import Job, run_job
from tests.support.unrolling import Habits, Layer, Network, Neuron, step_model
from tests.unit.passes.cleanup.harness import session


def test_a_sum_of_negative_zeros_is_one() -> None:
    steps = [f"a{t} = Gather <axis: int = 0> (x, t{t}) m{t} = MatMul(a{t}, w) c{t} = Mul(m{t}, z)" for t in range(4)]
    sums = ["s1 = Add(c0, c1)", "s2 = Add(s1, c2)", "y = Add(s2, c3)"]
    constants = ", ".join(f"int64 t{t} = {{{t}}}" for t in range(4))
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 18]> g (float[4, 2, 3] x) => (float[2, 2] y) '
        f"<{constants}, float[3, 2] w = {{1.0, -1.0, 1.0, -1.0, 1.0, -1.0}}, float z = {{0.0}}> "
        f"{{ {' '.join(steps)} {' '.join(sums)} }}"
    )
    graph, report = run_job(model, Job(pipeline="reroll", verify=False))
    assert [each.changes for each in report.pass_results] == [1]
    x = {"x": np.ones((4, 2, 3), np.float32)}
    (before,), (after,) = (session(each).run(None, x) for each in (model, graph.to_onnx()))
    assert np.signbit(before).tolist() == [[False, True]] * 2
    np.testing.assert_array_equal(np.signbit(after), np.signbit(before))


def test_a_readout_whose_inside_is_an_output_is_left_alone() -> None:
    neuron = Neuron(charge="current", output="membrane", reset="none")
    model = step_model(Network((Layer(3), Layer(2, neuron=neuron))), Habits(outputs=("stack",)))
    inside = next(each for each in model.graph.node if each.output[0].startswith("layer2.charge.gap"))
    model.graph.output.append(onnx.helper.make_tensor_value_info(inside.output[0], onnx.TensorProto.FLOAT, None))
    _, report = run_job(model, Job(pipeline="recognize-neurons", verify=False))
    (result,) = report.pass_results
    assert any("read outside" in remark.message for remark in result.remarks)
    assert result.changes == 1
