"""How a generator runs: number format, folding, compiled blocks, CUDA graphs."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dpsims.models.folding import fold, fold_spectral_norms
from dpsims.models.generator import AnyGenerator, Generator
from dpsims.models.layers import RegionNoise

GRAPHS = 4  # CUDA graphs kept, one for each shape of label maps; each holds its own memory


@dataclass(frozen=True)
class Mode:
    """The default is what pays everywhere. Where none of it is wanted: `Mode(fold=False)`."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """weights are cast once and activations follow. Mean difference to the float32 picture, on [-1, 1]: below
    0.01 for bf16, 0.002 for fp16 (tested, on the CPU). Slower than fp32 on CPUs without bf16 instructions;
    not yet run on a GPU, hence never on by default"""
    fold: bool = True
    """rewrite the network for inference (models/folding.py): pictures within 1e-5"""
    compile: bool = False
    """torch.compile of each block for any size: pictures within 1e-4. Off by default: on the CPU it is
    1.13 times faster than folding alone (docs/results.md) after 8 to 23 s of compiling; not yet run on a GPU.
    Needs a C++ compiler; compiled code is kept in the user's cache folder for the next process"""
    cuda_graphs: bool = False
    """replay the whole network as one CUDA graph for each shape of label maps (not with noise by region, not
    for tiled maps). Not yet run on a GPU"""


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def prepare(generator: AnyGenerator, mode: Mode, device: torch.device) -> AnyGenerator:
    """The generator on `device` in the given mode, in eval mode: a copy, or with `Mode(fold=False)` itself,
    moved. Of the baselines (kinds `oasis` and `spade`) spectral norm is folded, nothing else.

    Raises ValueError for a mode that does not exist or does not go with the device or the generator.
    """
    if mode.precision not in DTYPES:
        raise ValueError(f"precision={mode.precision}: unknown; use one of {', '.join(DTYPES)}")
    if mode.precision != "fp32" and not mode.fold:
        # BatchNorm's statistics would be rounded; folded, they have gone into the weights in double precision
        raise ValueError(f"precision={mode.precision}: needs fold=True")
    if mode.cuda_graphs and device.type != "cuda":
        raise ValueError(f"cuda_graphs=True: device={device} has none; use cuda_graphs=False")
    if not isinstance(generator, Generator):
        if mode.precision != "fp32" or mode.compile:
            raise ValueError(f"{mode}: a generator of kind {generator.config.kind} has none but fp32, plain")
        if mode.fold:
            generator = copy.deepcopy(generator).eval()
            fold_spectral_norms(generator)
        return generator.eval().to(device).to(memory_format=torch.channels_last)
    if mode.fold:
        generator = fold(generator)
    elif mode.precision != "fp32" or mode.compile:
        generator = copy.deepcopy(generator)  # neither cast nor compile the caller's
    generator = generator.eval().to(device, DTYPES[mode.precision]).to(memory_format=torch.channels_last)
    if mode.compile:
        compile_blocks(generator)
    return generator


def compile_blocks(generator: Generator) -> None:
    """Compile, at their first call, the blocks and not what is around them.

    Equal blocks share their code, and sizes are left open, so that another size needs no other code. On the
    CPU only the image network's: compiled group normalisation and attention to few tokens were slower than
    torch's own there (0.8 and 0.7 times as fast, AVX2, one thread).
    """
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:  # torch's own default is /tmp, which a reboot empties
        base = os.environ.get("XDG_CACHE_HOME")
        folder = (Path(base) if base else Path.home() / ".cache") / "dpsims" / "compiled"
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    blocks: list[nn.Module] = [*generator.image_network.blocks]
    if next(generator.parameters()).device.type == "cuda":
        encoder = generator.encoder
        attention = [m for m in encoder.attention if not isinstance(m, nn.Identity)]
        blocks += [*encoder.blocks, *attention, *generator.injection]
    for block in blocks:
        block.compile(dynamic=True)


class GraphedGenerator:
    """Calls of a generator on CUDA, captured once for each shape of label maps and then replayed.

    One picture at a time: a replay writes where the last one wrote, so the picture is copied out.
    """

    def __init__(self, generator: AnyGenerator) -> None:
        self.generator = generator
        self.graphs: dict[tuple[int, ...], tuple[Any, Tensor, Tensor, Tensor]] = {}

    def __call__(self, label: Tensor, noise: Tensor | RegionNoise) -> Tensor:
        if isinstance(noise, RegionNoise):
            return self.generator(label, noise)
        shape = (*label.shape, *noise.shape)
        if shape not in self.graphs:
            if len(self.graphs) == GRAPHS:  # the oldest goes
                del self.graphs[next(iter(self.graphs))]
            self.graphs[shape] = self._capture(label, noise)
        graph, label_in, noise_in, image = self.graphs[shape]
        label_in.copy_(label)
        noise_in.copy_(noise)
        graph.replay()
        return image.clone()

    def _capture(self, label: Tensor, noise: Tensor) -> tuple[Any, Tensor, Tensor, Tensor]:
        label_in, noise_in = label.clone(), noise.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # warm-up: libraries choose their kernels, which a capture forbids
            for _ in range(3):
                self.generator(label_in, noise_in)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            image = self.generator(label_in, noise_in)
        return graph, label_in, noise_in, image
