"""Pairs of one size in a temporary file: real ones brought to that size, and generated pictures of their
maps."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np

from dpsims.data import Batch, Source, fixed_batches
from dpsims.data.base import epoch_order
from dpsims.data.batches import Resize
from dpsims.evaluation.progress import Listener
from dpsims.evaluation.report import to_uint8
from dpsims.evaluation.run import Generate, generate_checked
from dpsims.labels import LabelSpace


class StoredPairs:
    """Pairs of one size that lie in memory-mapped arrays; a `Source`, made by `store_pairs`.

    images: uint8 RGB (n, h, w, 3); labels: (n, h, w), class indices of the source's space.
    """

    def __init__(self, source: Source, images: np.ndarray, labels: np.ndarray) -> None:
        self.space, self.name, self.names = source.space, source.name, source.names
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.names)

    def load(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Pair i, copied out of the file."""
        return np.array(self.images[i]), self.labels[i].astype(np.int64)


class ChosenPairs:
    """At most `count` pairs of a source, evenly spaced over it."""

    def __init__(self, source: Source, count: int) -> None:
        if count < 1:
            raise ValueError(f"images={count}: use 1 or more")
        wanted = min(count, len(source))
        self.source, self.chosen = source, [k * len(source) // wanted for k in range(wanted)]
        self.space, self.name = source.space, source.name
        names = source.names
        self.names = [names[i] for i in self.chosen]

    def __len__(self) -> int:
        return len(self.chosen)

    def load(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        return self.source.load(self.chosen[i])


class JoinedPairs:
    """Two sources of as many pairs as one; in an epoch they take turns.

    However far a training comes, it has seen as many pairs of the one as of the other. Where the second has
    the first's label maps, a map's two pictures come half an epoch apart: side by side, a batch would hold
    half as many maps as it does of either source alone.
    """

    def __init__(self, first: Source, second: Source) -> None:
        assert len(first) == len(second)
        self.first, self.second = first, second
        self.space: LabelSpace = first.space
        self.name = f"{first.name} and {second.name}"
        self.names = [*first.names, *second.names]

    def __len__(self) -> int:
        return 2 * len(self.first)

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """See `epoch_order`."""
        count = len(self.first)
        one = epoch_order(self.first, seed, epoch)
        other = np.roll(epoch_order(self.second, seed, epoch), count // 2) + count
        return np.stack([one, other], axis=1).ravel()

    def load(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        count = len(self.first)
        return self.first.load(i) if i < count else self.second.load(i - count)


@contextmanager
def store_pairs(
    source: Source,
    size: tuple[int, int],
    batch_size: int = 16,
    resize: Resize = "bilinear",
    progress: Listener | None = None,
) -> Iterator[StoredPairs]:
    """A source's pairs as `fixed_batches` gives them at `size` (height, width), in a temporary file while the
    context lasts.

    Memory is bounded by a batch. The file has no name, and takes no room once the context is left or the
    process has ended, however that came about. Pairs that are stored at this size already are given as they
    are. Raises ValueError as `fixed_batches`, and where the folder of temporary files has no room.
    """
    if isinstance(source, StoredPairs) and source.images.shape[1:3] == size:
        yield source
        return
    batches = fixed_batches(source, *size, batch_size, resize=resize)
    with _stored(source, size, batches, "storing pictures", progress) as pairs:
        yield pairs


@contextmanager
def generate_pictures(
    generate: Generate,
    source: Source,
    size: tuple[int, int],
    batch_size: int = 16,
    sample: int = 0,
    progress: Listener | None = None,
) -> Iterator[StoredPairs]:
    """The source's label maps with a generated picture each, kept as by `store_pairs`.

    generate: is given the maps' numbers in the source; of `ChosenPairs`, in the source that they were chosen
    from. Raises ValueError as `store_pairs`, and for pictures that are not finite or not of their map's size.
    """
    numbers = source.chosen if isinstance(source, ChosenPairs) else range(len(source))

    def batches() -> Iterator[Batch]:
        done = 0
        for _, label in fixed_batches(source, *size, batch_size):
            image = generate_checked(generate, label, numbers[done : done + len(label)], sample)
            yield Batch(image, label)
            done += len(label)

    with _stored(source, size, batches(), "generating pictures", progress) as pairs:
        yield pairs


@contextmanager
def _stored(
    source: Source,
    size: tuple[int, int],
    batches: Iterator[Batch],
    what: str,
    progress: Listener | None,
) -> Iterator[StoredPairs]:
    count, pixels = len(source), size[0] * size[1]
    small = np.dtype(np.uint8 if source.space.ignore_index < 256 else np.int32)
    _check_room(count * pixels * (3 + small.itemsize), f"{count} pictures of {size[0]}x{size[1]}")
    # Files without a name: they are gone with the process, even a killed one.
    with tempfile.TemporaryFile() as images, tempfile.TemporaryFile() as labels:
        done = 0
        for image, label in batches:
            # written, not assigned to a mapping: a full disk is an OSError then, not the end of the process
            images.write(to_uint8(image).tobytes())
            labels.write(label.numpy().astype(small).tobytes())
            done += len(label)
            if progress:
                progress(what, done, count)
        pictures = _mapped(images, np.dtype(np.uint8), (count, *size, 3))
        pairs = StoredPairs(source, pictures, _mapped(labels, small, (count, *size)))
        del pictures
        try:
            yield pairs
        finally:
            del pairs.images, pairs.labels  # the room is free once no mapping is left


def _mapped(file: IO[bytes], dtype: np.dtype, shape: tuple[int, ...]) -> np.memmap:
    file.flush()
    return np.memmap(file, dtype, "r", shape=shape)


def _check_room(needed: int, what: str) -> None:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{folder}: {what} need {needed / 2**20:,.0f} MiB, {free / 2**20:,.0f} are free; set TMPDIR to a "
            "folder with more room"
        )
