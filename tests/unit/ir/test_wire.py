"""Taking large tensors out of serialized models and putting them back."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import AttributeProto, ModelProto, helper, numpy_helper

from snn_optimizer.ir.wire import WireError, extract, marker, read_marker, splice

TOKEN = b"0123456789abcdef"


def model_with_tensors_everywhere() -> ModelProto:
    big = numpy_helper.from_array(np.arange(2000, dtype=np.float32), "big")
    sparse = helper.make_sparse_tensor(big, numpy_helper.from_array(np.arange(2000)), [5000])
    model = ModelProto(ir_version=10, doc_string="d" * 9000)
    inner = helper.make_graph([], "inner", [], [], [big])
    inner.sparse_initializer.append(sparse)
    node = model.graph.node.add(op_type="Any", output=["a"])
    node.attribute.extend(
        [
            AttributeProto(name="t", type=AttributeProto.TENSOR, t=big),
            AttributeProto(name="ts", type=AttributeProto.TENSORS, tensors=[big, big]),
            AttributeProto(name="s", type=AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse),
            AttributeProto(name="ss", type=AttributeProto.SPARSE_TENSORS, sparse_tensors=[sparse]),
            AttributeProto(name="g", type=AttributeProto.GRAPH, g=inner),
            AttributeProto(name="gs", type=AttributeProto.GRAPHS, graphs=[inner, inner]),
        ]
    )
    model.graph.initializer.append(big)
    model.graph.sparse_initializer.append(sparse)
    function = model.functions.add(name="f", domain="my")
    function.node.append(node)
    function.attribute_proto.append(node.attribute[0])
    return model


def restore(data: bytes, skeleton: bytes, shift: int = 0) -> bytes:
    """Replace the markers of a skeleton by what they stand for, through ``splice``."""
    positions, payloads = [], []
    numbered = bytearray(skeleton)
    start = skeleton.find(TOKEN)
    while start >= 0:
        positions.append(start)
        offset, length = read_marker(skeleton[start : start + 32], TOKEN)
        payloads.append(data[offset : offset + length] + bytes(shift))
        numbered[start : start + 32] = marker(TOKEN, len(payloads) - 1)
        start = skeleton.find(TOKEN, start + 1)
    pieces, total = splice(bytes(numbered), TOKEN, [len(payload) for payload in payloads])
    written = b"".join(payloads[piece] if isinstance(piece, int) else bytes(piece) for piece in pieces)
    assert len(written) == total
    return written


def test_extract_and_splice_are_inverse() -> None:
    data = model_with_tensors_everywhere().SerializeToString()
    skeleton = extract(memoryview(data), TOKEN, 4096)
    assert skeleton.count(TOKEN) == 36
    assert len(skeleton) < 60_000
    parsed = ModelProto.FromString(skeleton)
    assert parsed.graph.initializer[0].raw_data.startswith(TOKEN)
    assert parsed.doc_string == "d" * 9000
    assert restore(data, skeleton) == data


def test_lengths_of_enclosing_messages_are_corrected() -> None:
    data = model_with_tensors_everywhere().SerializeToString()
    longer = ModelProto.FromString(restore(data, extract(memoryview(data), TOKEN, 4096), shift=100_000))
    assert len(longer.graph.initializer[0].raw_data) == 8000 + 100_000
    assert len(longer.functions[0].attribute_proto[0].t.raw_data) == 8000 + 100_000


def test_nothing_is_taken_below_the_threshold() -> None:
    data = model_with_tensors_everywhere().SerializeToString()
    assert extract(memoryview(data), TOKEN, 20_000) == data
    assert splice(data, TOKEN, []) == ([memoryview(data)], len(data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x3a\xff\xff\xff\xff\x0f" + bytes(20), "cut off"),  # length beyond the end
        (b"\x3a" + b"\xff" * 30, "number is cut off"),  # length without end
        (b"\x3b" + bytes(20), "wire type 3"),
        (b"\x39\x00", "cut off"),  # eight bytes announced, one there
    ],
)
def test_damage_is_noticed(data: bytes, message: str) -> None:
    with pytest.raises(WireError, match=message):
        extract(memoryview(data), TOKEN, 1)


def test_only_whole_markers_are_markers() -> None:
    whole = marker(TOKEN, 3, 4)
    assert read_marker(whole, TOKEN) == (3, 4)
    assert read_marker(whole + b"x", TOKEN) is None
    assert read_marker(b"x" + whole[1:], TOKEN) is None
