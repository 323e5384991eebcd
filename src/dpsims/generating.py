"""From label-map files to picture files: what `dpsims generate` does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from dpsims.data.files import read_label
from dpsims.evaluation.report import to_uint8
from dpsims.exported import ExportedSynthesizer
from dpsims.models.layers import RegionNoise, downsample_ids
from dpsims.synthesis import Synthesizer
from dpsims.writing import write_png

SIZES = ("auto", "map", "model")
ALIKE = 2.0
"""a map of up to this many times the training area, or as many times less, is generated at its own size; a
model whose maker looked may allow larger ones: `about["own_size_up_to"]` in its model.json"""

Item = tuple[Path, np.ndarray]  # file to write, label map


def generate_files(
    synthesizer: Synthesizer | ExportedSynthesizer,
    files: Sequence[Path],
    out: Path,
    seed: int = 0,
    samples: int = 1,
    batch_size: int = 8,
    size: str = "auto",
) -> int:
    """Write OUT/STEM.png for each label map; STEM_0.png, STEM_1.png ... for several samples.

    size: `auto` gives pictures of their map's size, but where that is far from the size that the model was
    trained at, the network works at the latter and its picture is resized: far from it, it paints badly.
    `map` lets it work at the map's size in any case, `model` gives pictures of the training size. Picture
    number n of the call (maps in order, the samples of a map together) has the noise of (seed, n), whatever
    the batch size. A picture appears whole or not at all. Returns the number of pictures. Raises ValueError
    naming the file for a map that cannot be read.
    """
    if size not in SIZES:
        raise ValueError(f"size={size!r}: use one of {', '.join(SIZES)}")
    number = 0
    for batch in _batches(_items(synthesizer, files, out, samples), batch_size):
        labels = torch.from_numpy(np.stack([label for _, label in batch]))
        images = generate_sized(synthesizer, labels, synthesizer.noise(len(labels), seed, number), size)
        for (target, _), image in zip(batch, to_uint8(images), strict=True):
            write_png(target, Image.fromarray(image))
        number += len(batch)
    return number


def generate_sized(
    synthesizer: Synthesizer | ExportedSynthesizer,
    labels: Int[Tensor, "b h w"],
    noise: Float[Tensor, "b n d"] | RegionNoise,
    size: str,
) -> Float[Tensor, "b 3 H W"]:
    """`Synthesizer.generate` at the size that `size` (see `generate_files`) asks for."""
    height, width = labels.shape[1:]
    trained = synthesizer.size
    times = height * width / (trained[0] * trained[1])
    largest = synthesizer.about.get("own_size_up_to", ALIKE)
    if size == "map" or (size == "auto" and 1 / ALIKE <= times <= largest):
        return synthesizer.generate(labels, noise=noise)
    if isinstance(noise, RegionNoise):
        noise = RegionNoise(noise.z, downsample_ids(noise.region, trained))
    images = synthesizer.generate(downsample_ids(labels, trained), noise=noise)
    if size == "model":
        return images
    return F.interpolate(images, (height, width), mode="bicubic", antialias=True).clamp(-1, 1)


def _items(
    synthesizer: Synthesizer | ExportedSynthesizer, files: Sequence[Path], out: Path, samples: int
) -> Iterator[Item]:
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
