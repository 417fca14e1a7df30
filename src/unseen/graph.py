"""An ONNX graph, built node by node: what `export` and the methods write their calculations with.

A value is known by its name. Rows come first in every value, and their number is open. Numbers are in single precision until
they are `doubled`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unseen.errors import MissingDependency

if TYPE_CHECKING:
    from torch import Tensor, nn

OPSET, IR_VERSION = 17, 8
"""Those of the picture encoder's graph, which may be put in front; ONNX Runtime has read them since 1.14."""


class Graph:
    """Nodes and constants of a graph that grows.

    Raises MissingDependency when the package `onnx` is not installed.
    """

    def __init__(self) -> None:
        self.onnx = imported("onnx")
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def node(self, operation: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of ONNX's own operations; returns the name of its first output."""
        name = f"{operation}{len(self._nodes)}"
        self._nodes.append(self.onnx.helper.make_node(operation, list(inputs), [name], **attributes))
        return name

    def named(self, x: str, name: str) -> None:
        """Give the value another name, as outputs need."""
        self._nodes.append(self.onnx.helper.make_node("Identity", [x], [name]))

    def constant(self, value: NDArray[Any] | Tensor) -> str:
        """The name of an array, a torch tensor or a number's array that is part of the graph."""
        array = value if isinstance(value, np.ndarray) else value.detach().cpu().numpy()
        name = f"constant{len(self._constants)}"
        self._constants[name] = self.onnx.numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        return name

    # -- what networks are made of

    def linear(self, x: str, layer: nn.Linear) -> str:
        """x Wᵀ + b."""
        parameters = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
        return self.node("Gemm", x, *(self.constant(parameter) for parameter in parameters), transB=1)

    def leaky_relu(self, x: str, slope: float) -> str:
        """x where it is above 0, else slope · x."""
        return self.node("LeakyRelu", x, alpha=slope)

    def relu(self, x: str) -> str:
        """x where it is above 0, else 0."""
        return self.node("Relu", x)

    def unit_rows(self, x: str, tiny: NDArray[Any]) -> str:
        """Rows divided by their length, or by `tiny` where that is larger; `tiny` has the type of x."""
        length = self.node("ReduceL2", x, axes=[1], keepdims=1)
        return self.node("Div", x, self.node("Max", length, self.constant(tiny)))

    def side_by_side(self, parts: Sequence[str]) -> str:
        """(n, d₁), (n, d₂), … → (n, d₁ + d₂ + …)."""
        return self.node("Concat", *parts, axis=1)

    def columns(self, x: str, start: int, stop: int) -> str:
        """The columns from `start` to before `stop`."""
        ends = (self.constant(np.array([value], np.int64)) for value in (start, stop, 1))
        return self.node("Slice", x, *ends)

    def doubled(self, x: str) -> str:
        """In double precision."""
        return self.node("Cast", x, to=self.onnx.TensorProto.DOUBLE)

    def singled(self, x: str) -> str:
        """In single precision."""
        return self.node("Cast", x, to=self.onnx.TensorProto.FLOAT)

    # -- the whole

    def model(
        self,
        name: str,
        inputs: Mapping[str, tuple[int, Sequence[int | str]]],
        outputs: Mapping[str, tuple[int, Sequence[int | str]]],
    ) -> Any:
        """A checked model.

        Args:
            inputs, outputs: name → ONNX's number of the type, and the shape; a text in it is an open length.
        """
        helper = self.onnx.helper
        values = ([helper.make_tensor_value_info(n, *kind) for n, kind in side.items()] for side in (inputs, outputs))
        graph = helper.make_graph(self._nodes, name, *values, list(self._constants.values()))
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="unseen"
        )
        self.onnx.checker.check_model(model)
        return model


def imported(module: str) -> Any:
    """The module; raises MissingDependency, saying what to install, where there is none."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise MissingDependency(f"an ONNX graph needs the package '{package}'; run: pip install onnx onnxruntime") from error
