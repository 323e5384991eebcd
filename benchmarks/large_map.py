"""Peak memory and time of one very large map.

    python benchmarks/large_map.py [--height 2048] [--width 4096] [--whole] [--threads 2]

The default generator with random weights (the cost does not depend on them), 150 classes; the map is made of
blocks of classes. Tiled, as `Synthesizer.generate` does above TILED_ABOVE pixels, or in one piece (--whole).
"""

from __future__ import annotations

import resource
import time
from typing import Annotated

import torch
import typer

from dpsims import synthesis
from dpsims.checkpoint import Model
from dpsims.config import GeneratorConfig
from dpsims.labels import LabelSpace
from dpsims.models.generator import Generator
from dpsims.synthesis import Synthesizer


def main(
    height: int = 2048,
    width: int = 4096,
    whole: Annotated[bool, typer.Option("--whole", help="in one piece")] = False,
    threads: int = 2,
) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if whole:
        synthesis.TILED_ABOVE = height * width
    space = LabelSpace.named("ade20k")
    generator = Generator(GeneratorConfig(num_classes=space.num_classes)).eval()
    synthesizer = Synthesizer(Model(generator, space, 256, 256, {}), "cpu")
    blocks = torch.randint(0, space.num_classes, (1, -(-height // 64), -(-width // 64)))
    label = blocks.repeat_interleave(64, 1).repeat_interleave(64, 2)[:, :height, :width]
    before = _peak()
    start = time.perf_counter()
    image = synthesizer.generate(label)
    seconds = time.perf_counter() - start
    assert image.shape == (1, 3, height, width) and bool(torch.isfinite(image).all())
    how = "in one piece" if whole else "tiled"
    print(
        f"{height}x{width} {how}, {threads} threads: {seconds:.0f} s, peak memory {_peak():.2f} GiB "
        f"({before:.2f} before)"
    )


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    typer.run(main)
