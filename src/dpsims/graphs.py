"""The generator as a graph that others can run: torch.export's, and ONNX's made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dpsims.exported import quiet
from dpsims.models.generator import Generator

if TYPE_CHECKING:
    import onnx

_SMALL = 256  # tensors of fewer numbers stay float32: they weigh nothing


class _WithPlainInputs(nn.Module):
    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, label: Int[Tensor, "b h w"], noise: Float[Tensor, "b n d"]) -> Float[Tensor, "b 3 h w"]:
        return self.generator(label.long(), noise)


def exported_program(generator: Generator) -> torch.export.ExportedProgram:
    """The generator in eval mode as a graph, for any batch and any size of more than one pixel a level."""
    stride = 2 ** (len(generator.config.channels) - 1)
    # two sizes that nothing divides, so that none passes for another, or for a multiple
    label = torch.zeros(2, 2 * stride + 3, 3 * stride + 5, dtype=torch.int32)
    free = torch.export.Dim.AUTO
    batch = torch.export.Dim("batch", min=1)
    with quiet():
        program = torch.export.export(
            _WithPlainInputs(generator.eval()),
            (label, generator.sample_noise(2)),
            dynamic_shapes=({0: batch, 1: free, 2: free}, {0: batch}),
            strict=False,
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names of the maker's folders
    return program


def onnx_model(generator: Generator) -> onnx.ModelProto:
    """The generator as an ONNX model with float32 weights."""
    program = exported_program(generator)
    with quiet():
        made = torch.onnx.export(program, dynamo=True, verbose=False)
    assert made is not None
    proto = made.model_proto
    graph = proto.graph
    # what is left out: names of the maker's folders in each node, and shapes that every runtime infers
    del graph.value_info[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer, graph):
        part.doc_string = ""
        del part.metadata_props[:]
    names = {graph.output[0].name: "image"}
    assert [value.name for value in graph.input] == ["label", "noise"]
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    graph.output[0].name = "image"
    free = {
        "label": ("batch", "height", "width"),
        "noise": ("batch",),
        "image": ("batch", "", "height", "width"),
    }
    for value in (*graph.input, *graph.output):
        for dim, name in zip(value.type.tensor_type.shape.dim, free[value.name], strict=False):
            if name:
                dim.dim_param = name
    return proto


def store_weights(proto: onnx.ModelProto, precision: str) -> None:
    """Store weights as float16, or those of convolutions and linear layers as int8, in place.

    A node in front of each turns them into float32 again: runtimes do it once, or compute with them as they
    are where they can.
    """
    from onnx import helper, numpy_helper

    graph, nodes = proto.graph, []
    axes = {} if precision == "fp16" else _output_axes(proto)
    for weights in graph.initializer:
        values = numpy_helper.to_array(weights)
        if values.dtype != "float32" or values.size < _SMALL:
            continue
        name, stored = weights.name, f"{weights.name}_{precision}"
        if precision == "fp16":
            if abs(values).max() > 65504:  # the largest of float16
                continue
            weights.CopyFrom(numpy_helper.from_array(values.astype("float16"), stored))
            nodes.append(helper.make_node("Cast", [stored], [name], to=1))  # 1: float32
        elif name in axes:
            axis = axes[name]
            others = tuple(i for i in range(values.ndim) if i != axis)
            scale = abs(values).max(axis=others, keepdims=True) / 127
            scale[scale == 0] = 1
            weights.CopyFrom(numpy_helper.from_array((values / scale).round().astype("int8"), stored))
            graph.initializer.append(numpy_helper.from_array(scale.ravel(), f"{name}_scale"))
            inputs = [stored, f"{name}_scale"]
            nodes.append(helper.make_node("DequantizeLinear", inputs, [name], axis=axis))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])


def _output_axes(proto: onnx.ModelProto) -> dict[str, int]:
    """Weight of a convolution or linear layer -> the axis of its output channels."""
    axes: dict[str, int] = {}
    for node in proto.graph.node:
        if node.op_type == "Conv":
            axes[node.input[1]] = 0
        elif node.op_type == "Gemm":
            axes[node.input[1]] = 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
        elif node.op_type == "MatMul":
            axes[node.input[1]] = 1
    return axes
