"""Folders of pairs that shards are made of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = {
    "ignore_id": 255,
    "classes": [
        {"id": 7, "name": "sky", "color": [0, 0, 200]},
        {"id": 11, "name": "road", "color": [90, 90, 90]},
        {"id": 23, "name": "tree", "color": [0, 120, 0]},
    ],
}
WIDE = {"ignore_id": None, "classes": [*CLASSES["classes"], {"id": 700, "name": "car", "color": [9, 9, 9]}]}


def make(root: Path, count: int = 11, classes: dict | None = None, size: tuple[int, int] = (12, 18)) -> Path:
    """A folder of pairs that are all different: JPEG, PNG, WebP and, last, a JPEG turned by its EXIF."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    (root / "classes.json").write_text(json.dumps(classes or CLASSES))
    for i in range(count):
        rng = np.random.default_rng(i)
        image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        label = rng.choice([7, 11, 23, 700 if classes is WIDE else 255], size)
        exif = Image.Exif()
        suffix = ("jpg", "png", "webp")[i % 3]
        if i == count - 1:
            suffix, exif[0x0112] = "jpg", 6  # turn right by 90 degrees
            label = label.T.copy()
        image.save(root / f"images/p{i:03d}.{suffix}", exif=exif)
        Image.fromarray(label.astype(np.uint16 if classes is WIDE else np.uint8)).save(
            root / f"labels/p{i:03d}.png"
        )
    return root


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def tars_in(folder: Path) -> dict[str, int]:
    """The file of each shard, by a number that a new one does not have."""
    return {path.name: path.stat().st_ino for path in folder.glob("*.tar")}
