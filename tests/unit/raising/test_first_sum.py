"""A sum over steps starts from what changes no bit of its first term."""

from __future__ import annotations

import numpy as np
import onnx

from snn_optimizer.api import Job, run_job
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
