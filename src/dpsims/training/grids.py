"""Sample grids, made beside the training: the loop neither waits for their pictures nor compresses them."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image

from dpsims.config import Recipe
from dpsims.data import Batch, Source, fixed_batches
from dpsims.evaluation.report import grid
from dpsims.losses import to_device
from dpsims.models.generator import AnyGenerator
from dpsims.training.transfers import OnItsWay
from dpsims.writing import write_png

ROWS = 6


class Grids:
    """RUN/grids/IMAGES_SEEN.png: label map | real | two generated with different noise, of a few fixed
    validation maps, by `generator` (in eval mode)."""

    def __init__(self, run: Path, generator: AnyGenerator, source: Source, recipe: Recipe) -> None:
        self.folder, self.generator, self.source = run / "grids", generator, source
        self.size = recipe.data.height, recipe.data.width
        self.batch: Batch | None = None
        self.writer = ThreadPoolExecutor(1)
        self.last: Future[None] | None = None

    def save(self, images_seen: int) -> None:
        """Raises what went wrong with the one before, if anything did."""
        if self.last is not None:
            self.last.result()
        if self.batch is None:
            self.batch = next(fixed_batches(self.source, *self.size, ROWS, ROWS))
        device = next(self.generator.parameters()).device
        label = to_device(self.batch.label, device)
        with torch.inference_mode():
            fakes = []
            for i in range(2):
                noise = self.generator.sample_noise(len(label), torch.Generator().manual_seed(i))
                fakes.append(OnItsWay(self.generator(label, to_device(noise, device)).float()))
        self.last = self.writer.submit(self._write, self.folder / f"{images_seen:08d}.png", self.batch, fakes)

    def _write(self, file: Path, batch: Batch, fakes: list[OnItsWay]) -> None:
        picture = grid(batch.label, batch.image, [f.wait() for f in fakes], self.source.space.palette)
        write_png(file, Image.fromarray(picture))

    def close(self) -> None:
        """Wait for the last grid. Raises what went wrong with it, if anything did."""
        self.writer.shutdown()
        if self.last is not None:
            self.last.result()
