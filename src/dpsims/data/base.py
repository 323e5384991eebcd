"""What every source of pictures offers, and what a batch of them is."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import get_worker_info

from dpsims.labels import LabelSpace


class Batch(NamedTuple):
    """Pictures and their label maps, of one size.

    image: float32 in [-1, 1]; label: int64, 0..K-1, and K for an unlabelled pixel.
    """

    image: Float[Tensor, "b 3 h w"]
    label: Int[Tensor, "b h w"]


class Source(Protocol):
    """A list of pairs (picture, label map), decoded one by one, each of any size.

    space: the classes of its label maps; name: for messages and logs; names: a stem per pair.
    """

    @property
    def space(self) -> LabelSpace: ...
    @property
    def name(self) -> str: ...
    @property
    def names(self) -> list[str]: ...

    def __len__(self) -> int: ...

    def load(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Pair i: uint8 RGB (h, w, 3) and int64 class indices (h, w). Raises ValueError naming a bad file."""
        ...


def epoch_order(source: Source, seed: int, epoch: int) -> np.ndarray:
    """The pairs 0..len-1 in the order of an epoch, the same on every machine.

    It is the source's own (`order`) where it has one: shards read fast in some orders only.
    """
    own = getattr(source, "order", None)
    return own(seed, epoch) if own else np.random.default_rng((seed, 0, epoch)).permutation(len(source))


class CachedSource:
    """A source that keeps its decoded pairs in memory, as bytes, until they fill `megabytes`.

    The rest it decodes anew. Loader processes share the allowance: each of n keeps at most an n-th of it.
    """

    def __init__(self, source: Source, megabytes: int) -> None:
        self.source = source
        self.limit = megabytes * 2**20
        self.used = 0
        self.kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def space(self) -> LabelSpace:
        return self.source.space

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def names(self) -> list[str]:
        return self.source.names

    @property
    def notices(self) -> list[str]:
        """What is odd about the data, but no obstacle: for the log."""
        return getattr(self.source, "notices", [])

    def __len__(self) -> int:
        return len(self.source)

    def fingerprint(self) -> str:
        """Tells other files, or the same ones changed; of pairs that are drawn, not read, their name."""
        own = getattr(self.source, "fingerprint", None)
        return own() if own else self.name

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """See `epoch_order`."""
        return epoch_order(self.source, seed, epoch)

    def load(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        if i in self.kept:
            image, label = self.kept[i]
            return image, label.astype(np.int64)
        image, label = self.source.load(i)
        small = label.astype(np.uint8 if self.space.ignore_index < 256 else np.int32)
        worker = get_worker_info()
        size = image.nbytes + small.nbytes
        if self.used + size <= self.limit // (worker.num_workers if worker else 1):
            self.kept[i] = image, small
            self.used += size
        return image, label
