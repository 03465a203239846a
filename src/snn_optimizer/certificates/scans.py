"""Loops over time, opened: what a body reads and returns becomes a node of its own.

A value of the body stands for itself at every step. Three nodes of the checker lead in and out: ``Slice`` (the step of
an outer value), ``State`` (what the last step returned, or the start), ``Stack`` (what all returned, or the last).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import onnx

__all__ = ["DOMAIN", "SLICE", "STACK", "STATE", "is_open", "opened"]

DOMAIN: Final = "checker"
SLICE: Final = f"{DOMAIN}::Slice"
STATE: Final = f"{DOMAIN}::State"
STACK: Final = f"{DOMAIN}::Stack"


def is_open(node: onnx.NodeProto, taken: set[str]) -> bool:
    """Tell whether a node is a loop over the first axis, forward, whose names are found nowhere else."""
    if node.op_type != "Scan" or node.domain not in ("", "ai.onnx"):
        return False
    numbers = {attribute.name: attribute for attribute in node.attribute}
    if any(any(numbers[name].ints) for name in numbers if name.startswith("scan_")):
        return False
    body = numbers["body"].g
    inside = [info.name for info in body.input] + [tensor.name for tensor in body.initializer]
    inside += [name for each in body.node for name in each.output if name]
    return len(set(inside)) == len(inside) and taken.isdisjoint(inside)


def opened(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that stand for a loop, in an order of computation but for what states return."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    body, scanned = attributes["body"].g, int(attributes["num_scan_inputs"].i)
    carried = len(node.input) - scanned
    for position, info in enumerate(body.input):
        if position < carried:
            reads = [node.input[position], body.output[position].name]
            yield _node("State", node.name, reads, info.name)
        else:
            yield _node("Slice", node.name, [node.input[position]], info.name)
    yield from body.node
    for result, returned in zip(node.output, body.output, strict=True):
        if result:
            yield _node("Stack", node.name, [returned.name], result)


def _node(op: str, name: str, inputs: list[str], output: str) -> onnx.NodeProto:
    return onnx.helper.make_node(op, inputs, [output], name=name, domain=DOMAIN)
