"""From a source to batches: random crops and mirrors for training, whole pictures for measuring."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resized_crop

from dpsims.config import DataConfig
from dpsims.data.base import Batch, Source

Box = tuple[int, int, int, int]  # top, left, height, width
Sample = tuple[UInt8[Tensor, "3 h w"], Int64[Tensor, "h w"]]


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
    if config.workers < 0:
        raise ValueError(f"data.workers={config.workers}: use 0 or more")
    if seed < 0:
        raise ValueError(f"training.seed={seed}: use 0 or more")
    _check_size(config.height, config.width)
    share = batch_size // world_size
    numbers = _sample_numbers(first_image + rank * share, share, batch_size)
    return _load_training(_TrainingSamples(source, config, seed), numbers, config.workers)


def fixed_batches(
    source: Source, height: int, width: int, batch_size: int, limit: int | None = None
) -> Iterator[Batch]:
    """Whole pictures at height x width, in order, nothing random; the last batch may be smaller.

    `limit` takes that many pairs, evenly spaced over the source.
    """
    _check_size(height, width)
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: use 1 or more")
    count = len(source)
    wanted = count if limit is None else min(limit, count)
    chosen = [k * count // wanted for k in range(wanted)]
    return _load_fixed(source, chosen, (height, width), batch_size)


def _load_training(samples: _TrainingSamples, numbers: Iterator[list[int]], workers: int) -> Iterator[Batch]:
    if workers == 0:
        for batch in numbers:
            yield _collate([samples.load(n) for n in batch])
        return
    loader = DataLoader(
        samples,
        batch_sampler=_Numbers(numbers),
        num_workers=workers,
        collate_fn=list,
        # its own: drawing from torch's global one would make a training with workers differ from one without
        generator=torch.Generator(),
    )
    for batch in loader:
        for sample in batch:
            if isinstance(sample, ValueError):
                raise sample
        yield _collate(batch)


def _load_fixed(source: Source, chosen: list[int], size: tuple[int, int], batch_size: int) -> Iterator[Batch]:
    for start in range(0, len(chosen), batch_size):
        pairs = [source.load(i) for i in chosen[start : start + batch_size]]
        yield _collate([_cut(image, label, (0, 0, *label.shape), size) for image, label in pairs])


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

    def __getitem__(self, n: int) -> Sample | ValueError:
        # In a loader process: handed over, not raised, or the message arrives inside a printed traceback.
        try:
            return self.load(n)
        except ValueError as error:
            return error

    def load(self, n: int) -> Sample:
        count, config = len(self.source), self.config
        image, label = self.source.load(int(_permutation(self.seed, n // count, count)[n % count]))
        zoom, down, right, mirror = np.random.default_rng((self.seed, 1, n)).random(4).tolist()
        height, width = label.shape
        box = _crop_box(height, width, config, zoom, down, right)
        image, label = _cut(image, label, box, (config.height, config.width))
        if config.flip and mirror < 0.5:
            image, label = image.flip(-1), label.flip(-1)
        return image, label


def _sample_numbers(first: int, share: int, batch_size: int) -> Iterator[list[int]]:
    while True:
        yield list(range(first, first + share))
        first += batch_size


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, 0, epoch)).permutation(count)


def _crop_box(height: int, width: int, config: DataConfig, zoom: float, down: float, right: float) -> Box:
    """The largest box of the target's aspect, zoomed into and shifted by random numbers in [0, 1)."""
    if config.crop == 1:
        return 0, 0, height, width
    scale = min(height / config.height, width / config.width) / (1 + zoom * (config.crop - 1))
    box_height, box_width = max(1, round(config.height * scale)), max(1, round(config.width * scale))
    top, left = int(down * (height - box_height + 1)), int(right * (width - box_width + 1))
    return top, left, box_height, box_width


def _cut(image: np.ndarray, label: np.ndarray, box: Box, size: tuple[int, int]) -> Sample:
    """The same box of picture and map, at `size`."""
    # `nearest-exact` takes the pixel in the middle, as the picture's own resampling is centred; plain
    # `nearest` takes the top left one and so shifts the map against the picture.
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    classes = torch.from_numpy(label)[None]
    pixels = resized_crop(pixels, *box, list(size), InterpolationMode.BILINEAR, antialias=True)
    classes = resized_crop(classes, *box, list(size), InterpolationMode.NEAREST_EXACT)
    return pixels, classes[0]


def _collate(samples: list[Sample]) -> Batch:
    images, labels = zip(*samples, strict=True)
    return Batch(torch.stack(images).float().div_(127.5).sub_(1), torch.stack(labels))


def _check_size(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ValueError(f"data.height={height}, data.width={width}: use 1 or more")
