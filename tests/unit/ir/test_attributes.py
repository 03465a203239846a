"""Attributes set on nodes are written with the type ONNX expects."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper, parser

from snn_optimizer.ir import Module, Rewriter
from snn_optimizer.ir.attributes import same_value

TEXT = """
<ir_version: 10, opset_import: ["" : 18, "my" : 1]>
net (float[2] x) => (float[2] y) {
    [only] y = my.Any <f = 0.5, fs = [0.5], i = 1, s = "a", n: ints = []> (x)
}
"""

_TYPE = helper.make_tensor_type_proto(TensorProto.FLOAT, [2])
_REFERENCE = AttributeProto(name="other", ref_attr_name="alpha", type=AttributeProto.FLOAT)


def written(name: str, value: Any) -> AttributeProto:
    module = Module.load(parser.parse_model(TEXT))
    rewriter = Rewriter(module)
    rewriter.set_attribute(module.graph.nodes[0], name, value)
    rewriter.finish()
    return next(one for one in module.to_proto().graph.node[0].attribute if one.name == name)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, helper.make_attribute("new", 3)),
        (True, helper.make_attribute("new", 1)),
        (np.int32(3), helper.make_attribute("new", 3)),
        (0.5, helper.make_attribute("new", 0.5)),
        (np.float32(0.5), helper.make_attribute("new", 0.5)),
        ("text", helper.make_attribute("new", "text")),
        (b"\xff", helper.make_attribute("new", b"\xff")),
        ([1, 2], helper.make_attribute("new", [1, 2])),
        ((1, 2), helper.make_attribute("new", [1, 2])),
        ([1, 2.5], helper.make_attribute("new", [1.0, 2.5])),
        (["a", b"\xff"], helper.make_attribute("new", ["a", b"\xff"])),
        (_TYPE, helper.make_attribute("new", _TYPE)),
        ([_TYPE, _TYPE], helper.make_attribute("new", [_TYPE, _TYPE])),
        ([], AttributeProto(name="new", type=AttributeProto.INTS)),
    ],
)
def test_new_attribute(value: Any, expected: AttributeProto) -> None:
    assert written("new", value) == expected


@pytest.mark.parametrize("listed", [False, True])
def test_tensors(listed: bool) -> None:
    array = np.arange(3, dtype=np.float32)
    for value in (array, gs.Constant("t", array)):
        attribute = written("new", [value, value] if listed else value)
        tensors = list(attribute.tensors) if listed else [attribute.t]
        assert attribute.type == (AttributeProto.TENSORS if listed else AttributeProto.TENSOR)
        assert len(tensors) == 1 + listed
        for tensor in tensors:
            np.testing.assert_array_equal(numpy_helper.to_array(tensor), array)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("f", 2, AttributeProto.FLOAT),
        ("fs", [2, 3], AttributeProto.FLOATS),
        ("fs", [], AttributeProto.FLOATS),
        ("i", 2.5, AttributeProto.FLOAT),
        ("s", "b", AttributeProto.STRING),
        ("n", [4], AttributeProto.INTS),
        ("i", "text", AttributeProto.STRING),
    ],
)
def test_changed_attribute_keeps_its_type_where_the_value_allows(name: str, value: Any, kind: int) -> None:
    attribute = written(name, value)
    assert attribute.type == kind
    held = helper.get_attribute_value(attribute)
    assert (held.decode() if isinstance(held, bytes) else held) == value


def test_reference_is_written_under_the_name_it_is_given() -> None:
    attribute = written("new", _REFERENCE)
    assert (attribute.name, attribute.ref_attr_name) == ("new", "alpha")


@pytest.mark.parametrize("value", [object(), [1, "a"], [None], {"a": 1}])
def test_what_no_attribute_holds(value: object) -> None:
    with pytest.raises(TypeError, match="attribute 'new' cannot hold"):
        written("new", value)


def test_sameness() -> None:
    nan = float("nan")
    assert same_value([1.0, nan], [1.0, nan])
    assert not same_value(1, 1.0)
    assert not same_value([1], [1, 2])
    assert not same_value("a", b"a")
    assert same_value(_TYPE, _TYPE)
