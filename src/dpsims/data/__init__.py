"""Sources of pictures with label maps, and the batches made of them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dpsims.config import DataConfig

if TYPE_CHECKING:
    from dpsims.data.base import Batch, CachedSource, Source
    from dpsims.data.batches import fixed_batches, flip_warnings, training_batches

Split = Literal["train", "val", "test"]

__all__ = ["Batch", "Source", "Split", "fixed_batches", "flip_warnings", "open_source", "training_batches"]

# loaded at first use: checking, converting and fetching data do not wait for torch
_HOME = {
    **dict.fromkeys(("Batch", "Source"), "base"),
    **dict.fromkeys(("fixed_batches", "flip_warnings", "training_batches"), "batches"),
}


def open_source(config: DataConfig, split: Split) -> CachedSource:
    """The pairs of one split; decoded ones are kept in memory up to `config.cache_mb`.

    Raises ValueError naming what is missing or does not fit, and the mend.
    """
    from dpsims.data.base import CachedSource  # torch, which is not needed to import this package

    if config.source == "scenes":
        from dpsims.data.scenes import Scenes

        size = {"train": config.size, "val": 100, "test": 200}[split]
        return CachedSource(Scenes(size, config.height, config.width, split), config.cache_mb)
    if not config.root:
        raise ValueError(f"data.root: the source `{config.source}` needs a folder; give --data DIR")
    from dpsims.data.layouts import open_pairs

    return CachedSource(open_pairs(Path(config.root), config.source, split), config.cache_mb)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dpsims.data' has no attribute {name!r}")
    return getattr(import_module(f"dpsims.data.{_HOME[name]}"), name)
