"""Store what ``Constant`` nodes of the main graph hold as initializers, as raised networks have them."""

from __future__ import annotations

from snn_optimizer.ir import GraphIndex, Module, Node, Rewriter, array_of, is_standard

__all__ = ["store_constants"]


def store_constants(module: Module) -> int:
    """Replace ``Constant`` nodes that something reads by initializers; return how many."""
    rewriter, index = Rewriter(module), GraphIndex(module)
    gone: list[Node] = []
    for node in module.graph.nodes:
        if not is_standard(node, "Constant") or index.output_of(node.outputs[0]):
            continue
        array = array_of(node.outputs[0])
        if array is None or array.dtype.kind == "O" or not index.consumers(node.outputs[0]):
            continue
        rewriter.replace_uses(node.outputs[0], rewriter.constant(node.outputs[0].name, array))
        gone.append(node)
    rewriter.erase(gone)
    rewriter.finish()
    return len(gone)
