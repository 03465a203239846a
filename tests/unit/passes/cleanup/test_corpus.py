"""All cleanup passes in the order of `@O1`, on what frameworks export: same bytes, never more nodes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from snn_optimizer.ir import SNNGraph
from snn_optimizer.passes.cleanup.canonicalize import Canonicalize
from snn_optimizer.passes.cleanup.common_subexpressions import CommonSubexpressions
from snn_optimizer.passes.cleanup.dead_code import DeadCode
from snn_optimizer.passes.cleanup.fold_constants import FoldConstants
from snn_optimizer.passes.cleanup.share_initializers import ShareInitializers
from tests.unit.passes.cleanup.harness import apply, evaluator, interface, session

CORPUS = Path(os.environ.get("SNN_CORPUS") or Path(__file__).parents[5] / "shared" / "corpus")
FILES = sorted(CORPUS.glob("*/model.onnx")) if CORPUS.is_dir() else []
PASSES = (Canonicalize(), FoldConstants(), CommonSubexpressions(), ShareInitializers(), DeadCode())
SAMPLES = 4


def feeds_of(folder: Path, before: onnxruntime.InferenceSession, samples: int) -> dict[str, np.ndarray]:
    """Return some samples; one step, from zero states, of a model of one step."""
    meta = json.loads((folder / "meta.json").read_text())
    arrays = np.load(folder / "inputs.npz")
    is_step = meta["form"] == "step"
    feeds = {}
    for value in before.get_inputs():
        is_state = is_step and value.name in meta["state_pairs"]
        array = arrays[value.name]
        if is_step and not is_state:
            array = array[len(array) // 2]
        axis = 0 if is_step else meta["batch_axis"]["inputs"][value.name]
        number = value.shape[axis] if isinstance(value.shape[axis], int) else samples
        array = np.take(array, range(number), axis=axis)
        feeds[value.name] = np.zeros_like(array) if is_state else array
    return feeds


@pytest.mark.skipif(not FILES, reason=f"no corpus of exported models in {CORPUS}")
@pytest.mark.parametrize("path", FILES, ids=[path.parent.name for path in FILES])
def test_cleanup_keeps_every_bit(path):
    model = onnx.load(path)
    graph = SNNGraph.from_onnx(path)
    nodes = graph.module.count_nodes()
    for one in PASSES:
        outcome, _ = apply(one, graph, evaluator(model))
        left = graph.module.count_nodes()
        assert left <= nodes
        assert outcome.changes or left == nodes
        assert apply(one, graph, evaluator(model))[0].changes == 0
        nodes = left
    after = graph.to_onnx()
    assert interface(after) == interface(model)
    assert len(after.SerializeToString()) <= path.stat().st_size
    try:
        before = session(model)
    except Exception as error:  # noqa: BLE001 -- the runtime's exceptions share no base class
        pytest.skip(f"onnxruntime cannot load it: {str(error).splitlines()[0][:80]}")
    feeds = feeds_of(path.parent, before, SAMPLES)
    try:
        expected = before.run(None, feeds)
    except Exception:  # noqa: BLE001 -- see above; the file says any batch but holds sizes of the exported one
        feeds = feeds_of(path.parent, before, json.loads((path.parent / "meta.json").read_text())["export_batch"])
        expected = before.run(None, feeds)
    for old, new in zip(expected, session(after).run(None, feeds), strict=True):
        assert (old.dtype, old.shape, old.tobytes()) == (new.dtype, new.shape, new.tobytes())
