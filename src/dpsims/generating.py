"""From label-map files to picture files: what `dpsims generate` does."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dpsims.data.files import read_label
from dpsims.evaluation.report import to_uint8
from dpsims.synthesis import Synthesizer

Item = tuple[Path, np.ndarray]  # file to write, label map


def generate_files(
    synthesizer: Synthesizer,
    files: Sequence[Path],
    out: Path,
    seed: int = 0,
    samples: int = 1,
    batch_size: int = 8,
) -> int:
    """Write OUT/STEM.png for each label map, of its size; STEM_0.png, STEM_1.png ... for several samples.

    Picture number n of the call (maps in order, the samples of a map together) has the noise of (seed, n),
    whatever the batch size. A picture appears whole or not at all. Returns the number of pictures. Raises
    ValueError naming the file for a map that cannot be read.
    """
    number = 0
    for batch in _batches(_items(synthesizer, files, out, samples), batch_size):
        labels = torch.from_numpy(np.stack([label for _, label in batch]))
        images = to_uint8(synthesizer.generate(labels, seed, first=number))
        for (target, _), image in zip(batch, images, strict=True):
            write_whole(target, png_bytes(Image.fromarray(image)))
        number += len(batch)
    return number


def _items(synthesizer: Synthesizer, files: Sequence[Path], out: Path, samples: int) -> Iterator[Item]:
    for file in files:
        label = read_label(file, synthesizer.space)
        for sample in range(samples):
            yield out / (f"{file.stem}.png" if samples == 1 else f"{file.stem}_{sample}.png"), label


def _batches(items: Iterator[Item], batch_size: int) -> Iterator[list[Item]]:
    """Neighbours of the same size together, at most `batch_size`."""
    batch: list[Item] = []
    for item in items:
        if batch and (len(batch) == batch_size or item[1].shape != batch[0][1].shape):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def png_bytes(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write_whole(path: Path, content: bytes) -> None:
    """Write under another name, then rename: nobody ever reads half a file. May raise OSError."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
