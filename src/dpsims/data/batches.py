"""From a source to batches: random crops and mirrors for training, whole pictures for measuring."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import crop, horizontal_flip, resize

from dpsims.config import DataConfig
from dpsims.data.base import Batch, Source, epoch_order
from dpsims.labels import LabelSpace
from dpsims.labels.sides import left_right_pairs

Box = tuple[int, int, int, int]  # top, left, height, width
Sample = tuple[UInt8[Tensor, "3 h w"], Int64[Tensor, "h w"]]
Resize = Literal["bilinear", "bicubic"]
"""Filters that bring pictures to a size, both antialiased; label maps take the nearest pixel always."""


def training_batches(
    source: Source,
    config: DataConfig,
    batch_size: int,
    seed: int,
    first_image: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Batch]:
    """Endless training batches: random zooms (1 to `config.crop`) and mirrors, image and label map alike.

    In mirrored images the label space's `flip_pairs` change places (what was a left arm is a right one).

    A crop has its picture's shape and is squeezed to the training size, as a whole picture is in
    `fixed_batches`: training and measuring see the same proportions. A share `config.rare_crop` of the crops
    is placed on a class that is chosen evenly among those of the picture, so that small things appear.

    What sample number n is, counted over all processes since training began, depends on (seed, n) alone:
    starting at `first_image` goes on exactly where a stopped run ended, for any number of loader processes.
    Each epoch sees every pair once. `batch_size` counts the pictures of all `world_size` processes; rank r
    gets its r-th part of each batch.

    Raises ValueError for settings out of range, and, when a pair's turn comes, for a bad file.
    """
    if batch_size < 1 or batch_size % world_size:
        raise ValueError(f"training.batch_size={batch_size}: use a multiple of {world_size} (the processes)")
    if config.crop < 1:
        raise ValueError(f"data.crop={config.crop}: use 1 (whole pictures) or more")
    if not 0 <= config.rare_crop <= 1:
        raise ValueError(f"data.rare_crop={config.rare_crop}: use 0 to 1")
    if config.workers < 0:
        raise ValueError(f"data.workers={config.workers}: use 0 or more")
    if seed < 0:
        raise ValueError(f"training.seed={seed}: use 0 or more")
    _check_size(config.height, config.width)
    share = batch_size // world_size
    numbers = _sample_numbers(first_image + rank * share, share, batch_size)
    return _load_training(_TrainingSamples(source, config, seed), numbers, config.workers)


def flip_warnings(space: LabelSpace, flip: bool, sharded: bool = False) -> list[str]:
    """A line where training mirrors images (flip) and classes name a side that `flip_pairs` does not list.

    sharded: whether the data are shards, which keep the classes that they were made with.
    """
    listed = {name for pair in space.flip_pairs for name in pair}
    pairs = [pair for pair in left_right_pairs(space.names) if listed.isdisjoint(pair)] if flip else []
    if not pairs:
        return []
    entries = json.dumps([*map(list, space.flip_pairs), *map(list, pairs)], ensure_ascii=False)
    again = ", shard the data set again (dpsims data shard)" if sharded else ""
    return [
        f'mirrored images mix up left and right: set "flip_pairs": {entries} in classes.json{again}, or '
        "train with --data.flip false"
    ]


def fixed_batches(
    source: Source,
    height: int,
    width: int,
    batch_size: int,
    limit: int | None = None,
    chosen: Sequence[int] | None = None,
    resize: Resize = "bilinear",
) -> Iterator[Batch]:
    """Whole pictures at height x width, in order, nothing random; the last batch may be smaller.

    `limit` takes that many pairs, evenly spaced over the source; `chosen` takes these. resize: filter of the
    pictures.
    """
    _check_size(height, width)
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: use 1 or more")
    if chosen is None:
        count = len(source)
        wanted = count if limit is None else min(limit, count)
        chosen = [k * count // wanted for k in range(wanted)]
    return _load_fixed(source, chosen, (height, width), batch_size, resize)


def _load_training(samples: _TrainingSamples, numbers: Iterator[list[int]], workers: int) -> Iterator[Batch]:
    if workers == 0:
        for batch in numbers:
            yield _collate([samples.load(n) for n in batch])
        return
    loader = DataLoader(
        samples,
        batch_sampler=_Numbers(numbers),
        num_workers=min(workers, os.cpu_count() or 1),  # their number changes no sample
        collate_fn=list,
        # its own: drawing from torch's global one would make a training with workers differ from one without
        generator=torch.Generator(),
    )
    for batch in loader:
        for sample in batch:
            if isinstance(sample, ValueError):
                raise sample
        yield _collate(batch)


def _load_fixed(
    source: Source, chosen: Sequence[int], size: tuple[int, int], batch_size: int, resize: Resize
) -> Iterator[Batch]:
    for start in range(0, len(chosen), batch_size):
        pairs = [source.load(i) for i in chosen[start : start + batch_size]]
        yield _collate([_cut(image, label, (0, 0, *label.shape), size, resize) for image, label in pairs])


class _Numbers:
    """The batch sampler: lists of sample numbers, without end."""

    def __init__(self, numbers: Iterator[list[int]]) -> None:
        self.numbers = numbers

    def __iter__(self) -> Iterator[list[int]]:
        return self.numbers


class _TrainingSamples(Dataset):
    """Sample number n of a training, n = 0, 1, ... without end."""

    def __init__(self, source: Source, config: DataConfig, seed: int) -> None:
        self.source, self.config, self.seed = source, config, seed
        # None: mirrored, every class stays what it is
        self.flip_table = torch.from_numpy(source.space.flip_table) if source.space.flip_pairs else None
        self.orders: dict[int, np.ndarray] = {}

    def __getitem__(self, n: int) -> Sample | ValueError:
        # In a loader process: handed over, not raised, or the message arrives inside a printed traceback.
        try:
            return self.load(n)
        except ValueError as error:
            return error

    def load(self, n: int) -> Sample:
        count, config = len(self.source), self.config
        image, label = self.source.load(int(self._order(n // count)[n % count]))
        rng = np.random.default_rng((self.seed, 1, n))
        zoom, down, right, mirror = rng.random(4).tolist()
        height, width = label.shape
        box = _crop_box(height, width, config.crop, zoom, down, right)
        if rng.random() < config.rare_crop:
            box = _on_a_class(box, label, self.source.space.num_classes, rng)
        image, label = _cut(image, label, box, (config.height, config.width))
        if config.flip and mirror < 0.5:
            image, label = horizontal_flip(image), horizontal_flip(label)
            label = label if self.flip_table is None else self.flip_table[label]
        return image, label

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self.orders:
            fresh = epoch_order(self.source, self.seed, epoch)
            # a batch may lie on the border of two epochs
            self.orders = {epoch: fresh, **{e: o for e, o in self.orders.items() if abs(e - epoch) == 1}}
        return self.orders[epoch]


def _sample_numbers(first: int, share: int, batch_size: int) -> Iterator[list[int]]:
    while True:
        yield list(range(first, first + share))
        first += batch_size


def _crop_box(height: int, width: int, crop: float, zoom: float, down: float, right: float) -> Box:
    """A box of the picture's proportions, zoomed into and shifted by random numbers in [0, 1)."""
    scale = 1 / (1 + zoom * (crop - 1))
    box_height, box_width = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = int(down * (height - box_height + 1)), int(right * (width - box_width + 1))
    return top, left, box_height, box_width


def _on_a_class(box: Box, label: np.ndarray, num_classes: int, rng: np.random.Generator) -> Box:
    """The box moved so that it holds a random pixel of a class, every class of the map being as likely."""
    counts = np.bincount(label.ravel(), minlength=num_classes)[:num_classes]
    present = np.flatnonzero(counts)
    if not len(present):  # nothing but unlabelled pixels
        return box
    chosen = rng.choice(present)
    pixel = np.flatnonzero(label.ravel() == chosen)[rng.integers(counts[chosen])]
    y, x = divmod(int(pixel), label.shape[1])
    _, _, height, width = box
    top = rng.integers(max(0, y - height + 1), min(y, label.shape[0] - height) + 1)
    left = rng.integers(max(0, x - width + 1), min(x, label.shape[1] - width) + 1)
    return int(top), int(left), height, width


def _cut(
    image: np.ndarray, label: np.ndarray, box: Box, size: tuple[int, int], filter: Resize = "bilinear"
) -> Sample:
    """The same box of picture and map, at `size`."""
    pixels = crop(torch.from_numpy(image).permute(2, 0, 1), *box)
    classes = crop(torch.from_numpy(label), *box)
    return resize_picture(pixels, size, filter), resize_map(classes, size)


def resize_picture(
    image: UInt8[Tensor, "3 h w"], size: tuple[int, int], filter: Resize = "bilinear"
) -> UInt8[Tensor, "3 H W"]:
    """A picture at `size`; in bytes, whichever filter."""
    # in this memory layout, and in bytes, the resampling is up to twice as fast
    pixels = image[None].contiguous(memory_format=torch.channels_last)
    return resize(pixels, list(size), InterpolationMode(filter), antialias=True)[0]


def resize_map(label: Int64[Tensor, "h w"], size: tuple[int, int]) -> Int64[Tensor, "H W"]:
    """A label map at `size`."""
    classes = label.byte() if int(label.max()) < 256 else label
    # `nearest-exact` takes the pixel in the middle, as the picture's own resampling is centred; plain
    # `nearest` takes the top left one and so shifts the map against the picture.
    return resize(classes[None], list(size), InterpolationMode.NEAREST_EXACT)[0].long()


def _collate(samples: list[Sample]) -> Batch:
    images, labels = zip(*samples, strict=True)
    batch = torch.empty(len(images), *images[0].shape)
    for row, image in zip(batch, images, strict=True):
        row.copy_(image)
    return Batch(batch.div_(127.5).sub_(1), torch.stack(labels))


def _check_size(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ValueError(f"data.height={height}, data.width={width}: use 1 or more")
