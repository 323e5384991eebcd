"""Small folders of pairs, and the report on one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from dpsims.data import folder
from dpsims.data.check import DataReport, check_data
from dpsims.labels import LabelSpace

SPACE = LabelSpace(
    ("sky", "road", "tree"), ((0, 0, 200), (90, 90, 90), (0, 120, 0)), (0, 1, 2), ignore_id=255
)
SIZE = (12, 16)


def ids_of(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).choice([0, 1, 2, 255], size).astype(np.uint8)


def write_pair(root: Path, stem: str, ids: np.ndarray | Image.Image) -> None:
    """ids: the map, as ids or as a Pillow image in any coding; the picture is grey."""
    label = ids if isinstance(ids, Image.Image) else Image.fromarray(ids)
    for kind, image in (("images", Image.new("RGB", label.size, (99, 99, 99))), ("labels", label)):
        (root / kind).mkdir(parents=True, exist_ok=True)
        image.save(root / kind / f"{stem}.png")


def make_folder(root: Path, count: int = 8, space: LabelSpace = SPACE) -> Path:
    root.mkdir(exist_ok=True)
    (root / "classes.json").write_text(json.dumps(space.to_dict()))
    for i in range(count):
        write_pair(root, str(i), ids_of(i))
    return root


def check(root: Path, workers: int | None = None) -> DataReport:
    return check_data(folder.scan(root), workers)


def with_maps(root: Path, maps: list[np.ndarray], space: LabelSpace = SPACE) -> DataReport:
    """The report on a folder of these maps."""
    make_folder(root, 0, space)
    for i, ids in enumerate(maps):
        write_pair(root, str(i), ids)
    return check(root)
