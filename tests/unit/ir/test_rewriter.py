"""The rewriter changes what it is asked to, keeps links and names right, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, checker, helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from snn_optimizer.errors import PassError
from snn_optimizer.ir import (
    GraphIndex,
    Module,
    Node,
    Rewriter,
    Use,
    Value,
    array_of,
    remove_dead,
    verify_structure,
)

CHAIN = """
<ir_version: 10, opset_import: ["" : 18]>
chain (float[N, 2] x) => (float[N, 2] y) <float[2] w = {1.0, 2.0}> {
    [first] a = Mul (x, w)
    [second] b = Add (a, w)
    [third] c = Identity (b)
    [unused] d = Neg (a)
    [fourth] y = Mul (c, w)
}
"""

SCANS = """
<ir_version: 10, opset_import: ["" : 18]>
loops (float[T, 2] x) => (float[T, 2] y, float[T, 2] z) <float[2] w = {1.0, 2.0}, float[2] v0 = {0.0, 0.0}> {
    g = Mul (w, w)
    [one] v1, y = Scan <num_scan_inputs = 1, body = first (float[2] v, float[2] s) => (float[2] next, float[2] out) {
        scaled = Mul (v, w)
        next = Add (scaled, g)
        out = Add (s, next)
    }> (v0, x)
    [two] v2, z = Scan <num_scan_inputs = 1, body = second (float[2] v, float[2] s) => (float[2] next, float[2] out) {
        next = Add (v, w)
        out = Sub (s, next)
    }> (v0, x)
}
"""

FUNCTIONS = """
<ir_version: 10, opset_import: ["" : 18, "my" : 1]>
calls (float[N] x) => (float[N] y) {
    [call] h = my.Outer (x)
    y = Neg (h)
}
<domain: "my", opset_import: ["" : 18]>
Inner (a) => (b) { b = Add (a, a) }
<domain: "my", opset_import: ["" : 18, "my" : 1]>
Outer (a) => (b) { b = my.Inner (a) }
<domain: "my", opset_import: ["" : 18]>
Spare (a) => (b) { b = Neg (a) }
"""


def load(text: str) -> Module:
    return Module.load(parser.parse_model(text))


def node(module: Module, name: str) -> Node:
    return next(n for scope in module.scopes() for n in scope.graph.nodes if n.name == name)


def value(module: Module, name: str) -> Value:
    found = {
        v.name: v
        for scope in module.scopes()
        for n in scope.graph.nodes
        for v in (*n.inputs, *n.outputs)
    }  # fmt: skip
    return found[name]


def ops_of(module: Module) -> list[str]:
    return [n.op for n in module.graph.nodes]


def done(rewriter: Rewriter) -> ModelProto:
    """Finish, verify, and return the model, checked by the onnx package."""
    rewriter.finish()
    verify_structure(rewriter.module)
    proto = rewriter.module.to_proto()
    checker.check_model(proto, full_check=True)
    return proto


def run(proto: ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    return ReferenceEvaluator(proto).run(None, feeds)


X = np.array([[1, 2], [3, 4]], np.float32)


def test_nothing_changed_means_untouched() -> None:
    module = load(CHAIN)
    rewriter = Rewriter(module)
    first = node(module, "first")
    rewriter.set_input(first, 0, first.inputs[0])
    rewriter.replace_uses(first.outputs[0], first.outputs[0])
    rewriter.set_attribute(first, "axis", None)
    rewriter.erase([])
    rewriter.constant("fresh", np.zeros(2))
    assert rewriter.finish() == rewriter.changes == 0
    assert module.to_proto() == parser.parse_model(CHAIN)


def test_setting_an_attribute_to_what_it_is_changes_nothing() -> None:
    module = load(CHAIN.replace("Neg (a)", "Cast <to = 1> (a)"))
    rewriter = Rewriter(module)
    rewriter.set_attribute(node(module, "unused"), "to", 1)
    assert rewriter.changes == 0


def test_replace_uses_and_erase() -> None:
    module = load(CHAIN)
    rewriter = Rewriter(module)
    third = node(module, "third")
    assert rewriter.replace_uses(third.outputs[0], third.inputs[0]) == 1
    rewriter.erase(third)
    assert rewriter.is_erased(third)
    proto = done(rewriter)
    assert ops_of(module) == ["Mul", "Add", "Neg", "Mul"]
    np.testing.assert_array_equal(run(proto, x=X)[0], (X * [1, 2] + [1, 2]) * [1, 2])


def test_replace_uses_of_chosen_readers_only() -> None:
    module = load(CHAIN)
    rewriter = Rewriter(module)
    weight = node(module, "first").inputs[1]
    other = rewriter.constant("w", np.zeros(2, np.float32))
    assert other.name == "w_1"
    assert rewriter.replace_uses(weight, other, only=[node(module, "second")]) == 1
    done(rewriter)
    assert node(module, "first").inputs[1] is weight
    assert node(module, "second").inputs[1] is other


def test_replace_uses_in_both_slots_and_in_bodies() -> None:
    module = load(SCANS)
    rewriter = Rewriter(module)
    weight = value(module, "w")
    other = rewriter.constant("other", np.ones(2, np.float32))
    assert rewriter.replace_uses(weight, other) == 4
    proto = done(rewriter)
    assert {tensor.name for tensor in proto.graph.initializer} == {"v0", "other"}
    assert len(other.outputs) == 4


def test_graph_output_keeps_its_name() -> None:
    module = load(CHAIN)
    rewriter = Rewriter(module)
    fourth = node(module, "fourth")
    assert rewriter.replace_uses(fourth.outputs[0], fourth.inputs[0]) == 0
    with pytest.raises(PassError, match="'y' of the model"):
        rewriter.set_graph_output(module.graph, 0, fourth.inputs[0])
    with pytest.raises(PassError, match="model cannot be replaced"):
        rewriter.set_ports(module.graph, [], [])


def test_producer_of_a_graph_output_is_replaced() -> None:
    module = load(CHAIN)
    rewriter = Rewriter(module)
    fourth = node(module, "fourth")
    inputs, output = list(fourth.inputs), fourth.outputs[0]
    with pytest.raises(PassError, match="already has a producer"):
        rewriter.add(module.graph, "Add", inputs, [output])
    rewriter.erase(fourth)
    rewriter.add(module.graph, "Add", inputs, [output])
    proto = done(rewriter)
    assert [entry.name for entry in proto.graph.output] == ["y"]
    assert proto.graph.node[-1].name == "Add_y"


def test_body_output_may_be_another_value() -> None:
    module = load(SCANS)
    rewriter = Rewriter(module)
    body = node(module, "one").attrs["body"]
    rewriter.set_graph_output(body, 1, body.nodes[0].outputs[0])
    done(rewriter)
    assert [n.op for n in body.nodes] == ["Mul", "Add"]  # what made the old output is dead


def test_added_nodes_find_their_place() -> None:
    module = load(CHAIN)
    rewriter = Rewriter(module)
    second = node(module, "second")
    between = rewriter.value("a", np.float32, ["N", 2])
    assert between.name == "a_1"
    rewriter.add(module.graph, "Neg", [second.inputs[0]], [between], name_hint="first")
    rewriter.set_input(second, 0, between)
    proto = done(rewriter)
    assert [n.name for n in module.graph.nodes] == ["first", "first_1", "second", "third", "unused", "fourth"]
    assert [info.name for info in proto.graph.value_info] == ["a_1"]


def test_nodes_are_added_to_bodies_and_capture() -> None:
    module = load(SCANS)
    rewriter = Rewriter(module)
    body = node(module, "two").attrs["body"]
    add = body.nodes[0]
    scaled = rewriter.value("scaled", np.float32, [2])
    rewriter.add(body, "Mul", [add.inputs[0], value(module, "g")], [scaled])
    rewriter.set_input(add, 0, scaled)
    proto = done(rewriter)
    assert scaled.name == "scaled_1"
    state = np.zeros(2)
    for row, x in zip(run(proto, x=X)[1], X, strict=True):
        state = state * [1, 4] + [1, 2]
        np.testing.assert_array_equal(row, x - state)


def test_a_new_body() -> None:
    module = load(CHAIN)
    rewriter = Rewriter(module)
    third = node(module, "third")
    state, step = rewriter.value("state", np.float32, [2]), rewriter.value("step", np.float32, [2])
    total, copied = rewriter.value("total", np.float32, [2]), rewriter.value("copied", np.float32, [2])
    body = rewriter.body("sum", [state, step], [total, copied])
    rewriter.add(body, "Add", [state, step], [total])
    rewriter.add(body, "Identity", [total], [copied])
    start = rewriter.constant("start", np.zeros(2, np.float32))
    final, sums = rewriter.value("final", np.float32, [2]), rewriter.value("sums", np.float32, ["N", 2])
    rewriter.add(
        module.graph, "Scan", [start, third.inputs[0]], [final, sums],
        attrs={"body": body, "num_scan_inputs": 1},
    )  # fmt: skip
    rewriter.replace_uses(third.outputs[0], sums)
    proto = done(rewriter)
    expected = np.cumsum(X * [1, 2] + [1, 2], axis=0) * [1, 2]
    np.testing.assert_array_equal(run(proto, x=X)[0], expected)
    assert "third" not in [n.name for n in module.graph.nodes]


def test_copied_node_keeps_attributes_and_metadata() -> None:
    model = parser.parse_model(CHAIN.replace("Neg (a)", "Cast <to = 1> (a)"))
    model.graph.node[3].metadata_props.add(key="stack", value="line 1")
    module = Module.load(model)
    rewriter = Rewriter(module)
    cast = node(module, "unused")
    twin = rewriter.add_like(module.graph, cast, cast.inputs, [rewriter.value("e", np.float32, ["N", 2])])
    done(rewriter)
    proto = module.to_proto().graph.node[module.graph.nodes.index(twin)]
    assert proto.metadata_props[0].value == "line 1"
    assert proto.attribute[0].i == 1
    assert (proto.name, list(proto.output)) == ("unused_1", ["e"])
    scans = load(SCANS)
    with pytest.raises(PassError, match=r"'one' \(Scan\) has bodies"):
        Rewriter(scans).add_like(scans.graph, node(scans, "one"), [], [])


def test_retarget_keeps_outputs_name_and_metadata() -> None:
    model = parser.parse_model(CHAIN)
    model.graph.node[1].metadata_props.add(key="stack", value="line 1")
    model.graph.node[1].overload = "old"
    module = Module.load(model)
    rewriter = Rewriter(module)
    second = node(module, "second")
    rewriter.retarget(second, ("com.example", "Clip"), [second.inputs[0], None, second.inputs[1]], {"k": 1.5})
    rewriter.finish()
    verify_structure(module)
    proto = module.to_proto()
    changed = proto.graph.node[1]
    assert (changed.domain, changed.op_type, changed.name) == ("com.example", "Clip", "second")
    assert list(changed.input) == ["a", "", "w"]
    assert changed.attribute[0] == helper.make_attribute("k", 1.5)
    assert changed.metadata_props[0].value == "line 1"
    assert not changed.overload
    assert module.opset_imports["com.example"] == 1
    assert proto.opset_import[1].domain == "com.example"


def test_retarget_replaces_attributes_only_when_given() -> None:
    module = load(CHAIN.replace("Neg (a)", "Cast <to = 1> (a)"))
    rewriter = Rewriter(module)
    cast = node(module, "unused")
    rewriter.retarget(cast, "Other", cast.inputs)
    assert cast.attrs == {"to": 1}
    rewriter.retarget(cast, "Other", cast.inputs, {"axis": 0})
    assert cast.attrs == {"axis": 0}


def test_inputs_are_left_out_and_appended() -> None:
    module = load(CHAIN.replace("Identity (b)", "Clip (b, , )"))
    rewriter = Rewriter(module)
    third = node(module, "third")
    low = rewriter.constant("low", np.float32(0))
    rewriter.set_input(third, 2, low)
    proto = done(rewriter)
    assert list(proto.graph.node[2].input) == ["b", "", "low"]
    rewriter = Rewriter(module)
    rewriter.set_input(third, 2, None)
    assert not [t for t in done(rewriter).graph.initializer if t.name == "low"]


def test_only_what_the_change_left_dead_is_removed() -> None:
    model = parser.parse_model(CHAIN)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "idle"))
    module = Module.load(model)
    rewriter = Rewriter(module)
    rewriter.set_input(node(module, "fourth"), 0, module.graph.inputs[0])
    proto = done(rewriter)
    assert [n.name for n in module.graph.nodes] == ["first", "unused", "fourth"]
    assert [t.name for t in proto.graph.initializer] == ["w", "idle"]
    assert remove_dead(module) == 3
    verify_structure(module)
    assert [n.name for n in module.graph.nodes] == ["fourth"]
    assert [t.name for t in module.to_proto().graph.initializer] == ["w"]
    assert remove_dead(module) == 0


def test_dead_body_takes_its_captures_along() -> None:
    module = load(SCANS)
    rewriter = Rewriter(module)
    one = node(module, "one")
    inputs, output = [one.inputs[1]], one.outputs[1]
    rewriter.erase(one)
    rewriter.add(module.graph, "Identity", inputs, [output])
    done(rewriter)
    assert ops_of(module) == ["Scan", "Identity"]  # the product that only the body read is gone


def test_remove_dead_looks_into_bodies_first() -> None:
    model = parser.parse_model(SCANS)
    body = model.graph.node[1].attribute[1].g
    body.node.add(op_type="Neg", input=["g"], output=["idle"])
    body.node[1].input[1] = "w"
    module = Module.load(model)
    assert remove_dead(module) == 2
    verify_structure(module)
    assert ops_of(module) == ["Scan", "Scan"]


def test_annotated_and_trained_initializers_are_kept() -> None:
    model = parser.parse_model(CHAIN)
    for name in ("scale", "learned", "bound", "idle"):
        model.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), name))
    entry = model.graph.quantization_annotation.add(tensor_name="a")
    entry.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="scale")
    info = model.training_info.add()
    info.algorithm.node.add(op_type="Neg", input=["learned"], output=["q"])
    info.update_binding.add(key="bound", value="q")
    module = Module.load(model)
    remove_dead(module)
    assert [t.name for t in module.to_proto().graph.initializer] == ["w", "scale", "learned", "bound"]


def test_annotation_of_a_removed_tensor_is_dropped() -> None:
    model = parser.parse_model(CHAIN)
    for name in ("c", "a", "elsewhere"):
        model.graph.quantization_annotation.add(tensor_name=name)
    module = Module.load(model)
    rewriter = Rewriter(module)
    third = node(module, "third")
    rewriter.replace_uses(third.outputs[0], third.inputs[0])
    proto = done(rewriter)
    assert [entry.tensor_name for entry in proto.graph.quantization_annotation] == ["a", "elsewhere"]


def test_erasing_what_is_still_needed_is_an_error() -> None:
    module = load(CHAIN)
    rewriter = Rewriter(module)
    rewriter.erase(node(module, "third"))
    with pytest.raises(PassError, match=r"'third' \(Identity\) was erased, but 'c' is still needed"):
        rewriter.finish()


def test_a_circle_is_an_error() -> None:
    module = load(CHAIN)
    rewriter = Rewriter(module)
    rewriter.set_input(node(module, "first"), 0, value(module, "c"))
    with pytest.raises(PassError, match="circle"):
        rewriter.finish()


def test_node_erased_twice_counts_once() -> None:
    module = load(CHAIN)
    rewriter = Rewriter(module)
    unused = node(module, "unused")
    rewriter.erase([unused, unused])
    rewriter.erase(unused)
    assert rewriter.finish() == 1


def test_body_is_replaced_by_an_attribute() -> None:
    module = load(SCANS)
    rewriter = Rewriter(module)
    one = node(module, "one")
    state, step = rewriter.value("state", np.float32, [2]), rewriter.value("step", np.float32, [2])
    total, copied = rewriter.value("total", np.float32, [2]), rewriter.value("copied", np.float32, [2])
    body = rewriter.body("sum", [state, step], [total, copied])
    rewriter.add(body, "Add", [state, step], [total])
    rewriter.add(body, "Identity", [total], [copied])
    rewriter.set_attribute(one, "body", body)
    proto = done(rewriter)
    assert ops_of(module) == ["Scan", "Scan"]  # what only the old body read is gone
    np.testing.assert_array_equal(run(proto, x=X)[0], np.cumsum(X, axis=0))


def test_ports_of_a_loop_and_its_body() -> None:
    """Take the final state out of a loop that nobody reads it from, and turn it into a stateless one."""
    module = load(SCANS)
    rewriter = Rewriter(module)
    two = node(module, "two")
    body = two.attrs["body"]
    step = body.inputs[1]
    rewriter.set_input(body.nodes[1], 1, value(module, "w"))
    rewriter.set_ports(body, [step], [body.outputs[1]])
    rewriter.set_ports(two, [two.inputs[1]], [two.outputs[1]])
    proto = done(rewriter)
    assert [n.op for n in body.nodes] == ["Sub"]
    np.testing.assert_array_equal(run(proto, x=X)[1], X - [1, 2])


@pytest.mark.parametrize("seed", range(20))
def test_what_is_inserted_can_be_removed_without_a_trace(seed: int) -> None:
    """Identities at random places change no result; without them the model is what it was."""
    random = np.random.default_rng(seed)
    original = parser.parse_model(SCANS if seed % 2 else CHAIN)
    module = Module.load(original)
    before = run(original, x=X)
    rewriter = Rewriter(module)
    index = GraphIndex(module)
    for one in list(index.nodes()):
        for slot in range(len(one.inputs)):
            if random.random() < 0.6:
                held = one.inputs[slot]
                copied = rewriter.value(held.name, held.dtype, held.shape)
                rewriter.add(index.scope_of(one).graph, "Identity", [held], [copied], name_hint="inserted")
                rewriter.set_input(one, slot, copied)
    np.testing.assert_array_equal(run(done(rewriter), x=X), before)
    rewriter = Rewriter(module)
    for one in [n for n in GraphIndex(module).nodes() if n.name.startswith("inserted")]:
        rewriter.replace_uses(one.outputs[0], one.inputs[0])
        rewriter.erase(one)
    assert done(rewriter) == original


# ----------------------------------------------------------------- constants


def test_edit_constant_of_one_use_keeps_the_others() -> None:
    module = load(CHAIN)
    rewriter = Rewriter(module)
    second = node(module, "second")
    new = rewriter.edit_constant([Use(second, 1)], np.float32([5, 6]))
    proto = done(rewriter)
    assert new.name == "w_1"
    np.testing.assert_array_equal(run(proto, x=X)[0], (X * [1, 2] + [5, 6]) * [1, 2])


def test_edit_constant_of_all_uses_keeps_name_and_documentation() -> None:
    model = parser.parse_model(SCANS)
    model.graph.initializer[0].doc_string = "decay"
    module = Module.load(model)
    weight = value(module, "w")
    uses = GraphIndex(module).consumers(weight)
    assert len(uses) == 4
    rewriter = Rewriter(module)
    assert rewriter.edit_constant(uses, np.float32([0, 0])) is weight
    proto = done(rewriter)
    assert [t.name for t in proto.graph.initializer] == ["w", "v0"]
    assert proto.graph.initializer[0].doc_string == "decay"
    assert array_of(weight).tolist() == [0, 0]


def test_edit_constant_of_all_but_a_body_clones() -> None:
    model = parser.parse_model(SCANS)
    model.graph.initializer[0].doc_string = "decay"
    module = Module.load(model)
    weight = value(module, "w")
    uses = [use for use in GraphIndex(module).consumers(weight) if use.node.op != "Add"]
    rewriter = Rewriter(module)
    clone = rewriter.edit_constant(uses, np.float32([0, 0]))
    proto = done(rewriter)
    assert clone is not weight
    assert array_of(weight).tolist() == [1, 2]
    assert {t.name: t.doc_string for t in proto.graph.initializer} == {"w": "decay", "v0": "", "w_1": "decay"}


def test_edit_constant_that_is_a_graph_output_clones() -> None:
    model = parser.parse_model(CHAIN)
    model.graph.output.append(helper.make_tensor_value_info("w", 1, [2]))
    module = Module.load(model)
    weight = value(module, "w")
    rewriter = Rewriter(module)
    rewriter.edit_constant(GraphIndex(module).consumers(weight), np.float32([5, 6]))
    proto = done(rewriter)
    assert run(proto, x=X)[1].tolist() == [1, 2]


def test_edit_constant_of_a_constant_node() -> None:
    module = load(CHAIN.replace("Add (a, w)", "Add (a, k)").replace(
        "[first]", "[made] k = Constant <value_floats = [3.0, 4.0]> ()\n[first]"))  # fmt: skip
    second = node(module, "second")
    assert array_of(second.inputs[1]).tolist() == [3, 4]
    rewriter = Rewriter(module)
    rewriter.edit_constant([Use(second, 1)], np.float32([5, 6]))
    proto = done(rewriter)
    assert "Constant" not in ops_of(module)
    assert [t.name for t in proto.graph.initializer] == ["w", "k_1"]


def test_edit_of_uses_of_different_constants() -> None:
    module = load(SCANS)
    one = node(module, "one")
    body = one.attrs["body"]
    rewriter = Rewriter(module)
    shared = rewriter.edit_constant([Use(one, 0), Use(body.nodes[0], 1)], np.float32([9, 9]))
    done(rewriter)
    assert one.inputs[0] is body.nodes[0].inputs[1] is shared


def test_changed_shape_of_a_constant_reaches_its_declaration() -> None:
    model = parser.parse_model(CHAIN)
    model.graph.value_info.append(helper.make_tensor_value_info("w", 1, [2]))
    module = Module.load(model)
    rewriter = Rewriter(module)
    rewriter.edit_constant(GraphIndex(module).consumers(value(module, "w")), np.float32([[3]]))
    proto = done(rewriter)
    assert proto.graph.value_info[0] == helper.make_tensor_value_info("w", 1, [1, 1])


def test_copies_of_a_module_do_not_see_each_others_edits() -> None:
    module = load(SCANS)
    before = module.to_proto()
    twin = module.copy()
    rewriter = Rewriter(twin)
    rewriter.edit_constant(GraphIndex(twin).consumers(value(twin, "w")), np.float32([0, 0]))
    rewriter.erase([])
    rewriter.finish()
    verify_structure(module)
    assert module.to_proto() == before
    assert twin.to_proto() != before


def _scans_with_local_weights() -> Module:
    model = parser.parse_model(SCANS)
    for scan, number in zip(model.graph.node[1:], (3, 4), strict=True):
        body = scan.attribute[1].g
        body.initializer.append(numpy_helper.from_array(np.full(2, number, np.float32), "local"))
        body.node[0].input[1] = "local"
    return Module.load(model)


def test_weights_of_bodies_can_be_read_outside() -> None:
    module = _scans_with_local_weights()
    rewriter = Rewriter(module)
    current = module.graph.inputs[0]
    for name in ("one", "two"):
        scan = node(module, name)
        local = scan.attrs["body"].nodes[0].inputs[1]
        product = rewriter.value("product", np.float32, ["T", 2])
        rewriter.add(module.graph, "Mul", [current, local], [product])
        rewriter.set_input(scan, 1, product)
        current = product
    proto = done(rewriter)
    names = [t.name for t in proto.graph.initializer]
    assert len(names) == len(set(names)) == 4
    assert not any(list(n.attribute[1].g.initializer) for n in proto.graph.node if n.op_type == "Scan")
    assert len(run(proto, x=X)) == 2


def test_weights_of_erased_bodies_can_be_read() -> None:
    module = _scans_with_local_weights()
    rewriter = Rewriter(module)
    for name in ("one", "two"):
        scan = node(module, name)
        local = scan.attrs["body"].nodes[0].inputs[1]
        source, output = scan.inputs[1], scan.outputs[1]
        rewriter.erase(scan)
        rewriter.add(module.graph, "Mul", [source, local], [output])
    proto = done(rewriter)
    np.testing.assert_array_equal(run(proto, x=X), [X * 3, X * 4])
    assert ops_of(module) == ["Mul", "Mul"]


# ----------------------------------------------------------------- functions


def test_function_that_lost_its_last_call_goes_with_what_it_called() -> None:
    module = load(FUNCTIONS)
    rewriter = Rewriter(module)
    call = node(module, "call")
    rewriter.replace_uses(call.outputs[0], call.inputs[0])
    done(rewriter)
    assert [function.name for function in module.functions] == ["Spare"]  # it was never called
    assert module.remove_unused_functions() == 1


def test_function_that_is_still_called_stays() -> None:
    module = load(FUNCTIONS)
    rewriter = Rewriter(module)
    call = node(module, "call")
    rewriter.retarget(call, ("my", "Inner"), call.inputs)
    done(rewriter)
    assert [function.name for function in module.functions] == ["Inner", "Spare"]


def test_added_function_without_a_call_is_removed() -> None:
    module = load(FUNCTIONS)
    extra = parser.parse_function('<domain: "my", opset_import: ["" : 18]> More (a) => (b) { b = Neg (a) }')
    rewriter = Rewriter(module)
    module.add_function(extra)
    call = node(module, "call")
    rewriter.retarget(call, ("my", "Inner"), call.inputs)
    done(rewriter)
    assert "More" not in [function.name for function in module.functions]


def test_constants_in_functions_become_nodes() -> None:
    module = load(FUNCTIONS)
    rewriter = Rewriter(module)
    inner = next(function for function in module.functions if function.name == "Inner")
    rewriter.set_input(inner.nodes[0], 1, rewriter.constant("one", np.float32([1])))
    proto = done(rewriter)
    assert [n.op_type for n in proto.functions[0].node] == ["Constant", "Add"]
    np.testing.assert_array_equal(run(proto, x=X[0])[0], -(X[0] + 1))
    assert not proto.graph.initializer
