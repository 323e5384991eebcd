"""Which reader a folder needs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from dpsims.data import ade20k, camvid, cityscapes, cocostuff, earth, facades, folder
from dpsims.data.pairs import Layout, PairSource
from dpsims.data.shards import Shards, is_sharded
from dpsims.labels import LabelSpace, space_names


def find_layout(root: Path, source: str = "auto") -> Layout:
    """The pairs below ROOT, read as `source` lays them out; `auto` looks which one that is.

    Raises ValueError where ROOT is missing, or is no such set.
    """
    if source == "auto":
        source = recognise(root)
    if source not in READERS:
        raise ValueError(f"--source {source}: use one of auto, {', '.join(READERS)}")
    layout = READERS[source](root)
    layout.source = source
    return layout


def open_pairs(root: Path, source: str, split: str) -> PairSource | Shards:
    """One split of the set below ROOT, which lies there in files or in shards.

    Raises ValueError where it is missing or damaged, or the shards hold another set than `source`.
    """
    if not is_sharded(root):
        return PairSource(find_layout(root, source), split)
    shards = Shards(root, split)
    if source in space_names() and not shards.space.has_classes(LabelSpace.named(source).names):
        raise ValueError(
            f"{root}: holds shards of {shards.source}, not of {source}; give --data.source {shards.source} "
            f"(train) or --source {shards.source} (evaluate), or make shards of the other: dpsims data shard "
            f"DIR --source {source}"
        )
    return shards


def recognise(root: Path) -> str:
    """The source that ROOT is laid out for; `folder` where it looks like no published set."""
    modules = {"cityscapes": cityscapes, "ade20k": ade20k, "cocostuff": cocostuff, "facades": facades}
    for name, module in modules.items():
        if module.recognises(root):
            return name
    return "folder"


READERS: dict[str, Callable[[Path], Layout]] = {
    "folder": folder.scan,
    "ade20k": ade20k.scan,
    "cocostuff": cocostuff.scan,
    "cityscapes": cityscapes.scan,
    "cityscapes_trainids": partial(cityscapes.scan, coding="trainIds"),
    "camvid": camvid.scan,
    "earth": earth.scan,
    "facades": facades.scan,
}
