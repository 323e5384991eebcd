"""Sources of pictures with label maps, and the batches made of them."""

from __future__ import annotations

from typing import Literal

from dpsims.config import DataConfig
from dpsims.data.base import Batch, CachedSource, Source
from dpsims.data.batches import fixed_batches, training_batches
from dpsims.data.camvid import CamVid
from dpsims.data.folder import Folder

Split = Literal["train", "val", "test"]

__all__ = ["SOURCES", "Batch", "Source", "Split", "fixed_batches", "open_source", "training_batches"]


def open_source(config: DataConfig, split: Split) -> Source:
    """The pairs of one split; decoded ones are kept in memory up to `config.cache_mb`.

    Raises ValueError naming what is missing or does not fit, and the mend.
    """
    return CachedSource(SOURCES[config.source](config, split), config.cache_mb)


def _root(config: DataConfig) -> str:
    if not config.root:
        raise ValueError(f"data.root: the source `{config.source}` needs a folder; give --data DIR")
    return config.root


def _scenes(config: DataConfig, split: Split) -> Source:
    from dpsims.data.scenes import Scenes  # drawn only where asked for

    size = {"train": config.size, "val": 100, "test": 200}[split]
    return Scenes(size, config.height, config.width, split)


SOURCES = {
    "folder": lambda config, split: Folder(_root(config), split),
    "camvid": lambda config, split: CamVid(_root(config), split),
    "scenes": _scenes,
}
