"""The numbers of an ONNX graph in 8 bits: tables by row, matrices by column, what comes to them by token.

A scale for each token has two ends: a text's vector does not depend on the texts beside
it, and one large number does not cost the others their digits (Dettmers et al. 2022, arXiv 2208.07339). The operators
are onnxruntime's.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

__all__ = ["rounded"]

_INPUT = 127
_WEIGHT = 64
"""Not 127: processors without instructions for 8 bits add two products in 16 bits, which overflow beyond this. So all
processors calculate the same."""
_ROWS = 1000
"""Tables of fewer rows (places in a text, kinds of text) are too small to matter."""
_LEAST = 1e-30
"""In the place of a scale of zero, which nothing can be divided by."""


def rounded(model: Any) -> None:
    """Round the matrices and the large tables of an `onnx.ModelProto`, in place."""
    from onnx import helper

    graph = model.graph
    work = _Work(graph)
    nodes: list[Any] = []
    for node in graph.node:
        if work.is_product(node):
            nodes += work.product(node)
        elif work.is_table(node):
            nodes += work.table(node)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {*_read(nodes), *(output.name for output in graph.output)}
    kept = [one for one in [*graph.initializer, *work.made.values()] if one.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    if not any(known.domain == "com.microsoft" for known in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


class _Work:
    """What is known of a graph while it is changed.

    Attributes:
        made: new constants, by name.
    """

    def __init__(self, graph: Any) -> None:
        self.made: dict[str, Any] = {}
        self._constants = {one.name: one for one in graph.initializer}
        self._readers = Counter(_read(graph.node))
        self._readers.update(output.name for output in graph.output)
        self._products = Counter(node.input[0] for node in graph.node if self.is_product(node))
        self._inputs: dict[str, list[str]] = {}
        self._scales: dict[str, str] = {}

    def is_product(self, node: Any) -> bool:
        return node.op_type == "MatMul" and self._is_matrix(node.input[1])

    def is_table(self, node: Any) -> bool:
        rows = node.op_type == "Gather" and all(one.i == 0 for one in node.attribute if one.name == "axis")
        return rows and self._is_matrix(node.input[0]) and self._constants[node.input[0]].dims[0] >= _ROWS

    def product(self, node: Any) -> list[Any]:
        """Nodes in the place of a product with a constant matrix."""
        x, weight, y = node.input[0], node.input[1], node.output[0]
        nodes = [] if x in self._inputs else self._rounded_rows(x)
        rows, scale = self._inputs[x]
        matrix, columns = self._rounded(weight, axis=0, most=_WEIGHT)
        # The scale of a row passes through any product: where only products follow, it is applied after the last.
        passed = self._products[y] == self._readers[y]
        whole = y if passed else f"{y}.of_8_bits"
        one, middle = self._constant("input_scale", np.float32(1 / _INPUT)), self._constant("middle", np.uint8(128))
        given = [rows, matrix, one, columns, middle]
        nodes.append(_node("MatMulIntegerToFloat", given, whole, domain="com.microsoft"))
        if passed:
            self._scales[y] = scale
        else:
            nodes.append(_node("Mul", [whole, scale], y))
        return nodes

    def table(self, node: Any) -> list[Any]:
        """Nodes in the place of rows taken from a constant table."""
        from onnx import TensorProto

        name, rows, y = node.input[0], node.input[1], node.output[0]
        numbers, scales = self._rounded(name, axis=1, most=_INPUT)
        return [
            _node("Gather", [numbers, rows], f"{y}.numbers"),
            _node("Gather", [scales, rows], f"{y}.scales"),
            _node("Cast", [f"{y}.numbers"], f"{y}.cast", to=TensorProto.FLOAT),
            _node("Mul", [f"{y}.cast", f"{y}.scales"], y),
        ]

    def _rounded_rows(self, x: str) -> list[Any]:
        """Nodes that bring each row of `x` to whole numbers from 1 to 255; 128 stands for zero."""
        most, rows = f"{x}.most", f"{x}.rows"
        nodes = [
            _node("Abs", [x], f"{x}.size"),
            _node("ReduceMax", [f"{x}.size", self._constant("last_axis", np.array([-1], np.int64))], f"{x}.top"),
            _node("Max", [f"{x}.top", self._constant("least", np.float32(_LEAST))], most),
            _node("Div", [x, most], f"{x}.even"),
            _node(
                "QuantizeLinear",
                [
                    f"{x}.even",
                    self._constant("input_scale", np.float32(1 / _INPUT)),
                    self._constant("middle", np.uint8(128)),
                ],
                rows,
            ),
        ]
        if x in self._scales:  # it is itself still without the scale of its rows
            nodes.append(_node("Mul", [most, self._scales[x]], f"{x}.both"))
            most = f"{x}.both"
        self._inputs[x] = [rows, most]
        return nodes

    def _rounded(self, name: str, axis: int, most: int) -> tuple[str, str]:
        """Names of an int8 matrix and of its float32 scales, one for each vector along `axis`."""
        from onnx import numpy_helper

        numbers, scales = f"{name}.of_8_bits", f"{name}.scales"
        if numbers not in self.made:
            matrix = numpy_helper.to_array(self._constants[name])
            scale = np.maximum(np.abs(matrix).max(axis, keepdims=True), _LEAST) / np.float32(most)
            self._constant(numbers, np.rint(matrix / scale).astype(np.int8))
            self._constant(scales, scale if axis else scale[0])
        return numbers, scales

    def _is_matrix(self, name: str) -> bool:
        from onnx import TensorProto

        found = self._constants.get(name)
        return found is not None and len(found.dims) == 2 and found.data_type == TensorProto.FLOAT

    def _constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        if name not in self.made:
            self.made[name] = numpy_helper.from_array(np.asarray(value), name)
        return name


def _read(nodes: Iterable[Any]) -> Iterator[str]:
    """Every name that nodes read, also in the graphs inside them (branches, loops)."""
    for node in nodes:
        yield from node.input
        for one in node.attribute:
            for inner in (one.g, *one.graphs):
                yield from _read(inner.node)
                yield from (output.name for output in inner.output)


def _node(kind: str, given: list[str], result: str, **settings: Any) -> Any:
    from onnx import helper

    return helper.make_node(kind, given, [result], name=f"{kind}.{result}", **settings)
