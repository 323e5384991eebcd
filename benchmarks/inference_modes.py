"""The ways to run a network that benchmarks/inference.py compares: name -> a function that brings one there.

It takes the network (which it may change), inputs for one picture and the job, and gives back what to call.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dpsims.models.generator import Generator
from peers import Piece


@dataclass(frozen=True)
class Job:
    """What a worker measures."""

    row: str
    mode: str = "eager"
    height: int = 256
    width: int = 256
    classes: int = 150
    device: str = "cpu"
    threads: int = 1


def eager(piece: Piece, given: tuple[Tensor, ...], job: Job) -> Callable[..., Tensor]:
    return piece.network


def channels_last(piece: Piece, given: tuple[Tensor, ...], job: Job) -> Callable[..., Tensor]:
    piece.network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return piece.network


def bf16(piece: Piece, given: tuple[Tensor, ...], job: Job) -> Callable[..., Tensor]:
    """Weights cast once, in channels_last."""
    network = channels_last(piece, given, job)
    piece.network.to(torch.bfloat16)

    def call(*inputs: Tensor) -> Tensor:
        return network(*(x.to(torch.bfloat16) if x.is_floating_point() else x for x in inputs))

    return call


def compiled(piece: Piece, given: tuple[Tensor, ...], job: Job) -> Callable[..., Tensor]:
    """Of the network in channels_last."""
    channels_last(piece, given, job)
    return torch.compile(piece.network)


def folded(piece: Piece, given: tuple[Tensor, ...], job: Job) -> Callable[..., Tensor]:
    """As `Synthesizer` runs it by default (dpsims.modes); of our generator only."""
    return _prepared(piece, job, compile=False)


def folded_compiled(piece: Piece, given: tuple[Tensor, ...], job: Job) -> Callable[..., Tensor]:
    """As `Synthesizer` with `Mode(compile=True)` runs it; of our generator only."""
    return _prepared(piece, job, compile=True)


def _prepared(piece: Piece, job: Job, compile: bool) -> Callable[..., Tensor]:
    from dpsims.modes import Mode, prepare

    assert isinstance(piece.network, Generator)
    piece.network = prepare(piece.network, Mode(compile=compile), torch.device(job.device))
    return piece.network


def compiled_bf16(piece: Piece, given: tuple[Tensor, ...], job: Job) -> Callable[..., Tensor]:
    call = bf16(piece, given, job)
    return torch.compile(call)


@contextmanager
def exported(piece: Piece, given: tuple[Tensor, ...]) -> Iterator[str]:
    """The network as an ONNX file of one size. Raises ModuleNotFoundError without the extra `export`."""
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        file = str(Path(folder) / "network.onnx")
        # inference mode's tensors are none that can be traced
        network = copy.deepcopy(piece.network)
        inputs = tuple(x.clone() for x in given)
        torch.onnx.export(network, inputs, file, dynamo=True, verbose=False)
        yield file


def onnx(piece: Piece, given: tuple[Tensor, ...], job: Job) -> Callable[..., Tensor]:
    """onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    # its threads would go on spinning while another network is measured
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with exported(piece, given) as file:
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    drop(piece)
    names = [node.name for node in session.get_inputs()]

    def call(*inputs: Tensor) -> Tensor:
        arrays = (x.numpy() for x in inputs)
        return torch.from_numpy(session.run(None, dict(zip(names, arrays, strict=True)))[0])

    return call


def openvino(piece: Piece, given: tuple[Tensor, ...], job: Job) -> Callable[..., Tensor]:
    """OpenVINO on the CPU, in fp32: left to itself it takes bf16 on some, and is slower."""
    import openvino as ov

    with exported(piece, given) as file:
        model = ov.Core().read_model(file)
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": job.threads}
        network = ov.Core().compile_model(model, "CPU", settings)
    drop(piece)
    return lambda *inputs: torch.from_numpy(network([x.numpy() for x in inputs])[0].copy())


def drop(piece: Piece) -> None:
    """The weights go, the runtime has its own: peak memory is what the exported network takes."""
    piece.network.to("meta")


def compiled_graphs(piece: Piece, given: tuple[Tensor, ...], job: Job) -> Callable[..., Tensor]:
    """bf16, compiled, replayed as a CUDA graph. Not run yet: there was no GPU."""
    return torch.compile(bf16(piece, given, job), mode="reduce-overhead")


ONLY_OURS = ("folded", "folded_compile")
MODES: dict[str, Callable[[Piece, tuple[Tensor, ...], Job], Callable[..., Tensor]]] = {
    "eager": eager,
    "channels_last": channels_last,
    "folded": folded,
    "folded_compile": folded_compiled,
    "bf16": bf16,
    "compile": compiled,
    "compile_bf16": compiled_bf16,
    "compile_graphs": compiled_graphs,
    "onnx": onnx,
    "openvino": openvino,
}
