"""Small label maps in several codings, for the tests of `data convert`."""

from pathlib import Path

import numpy as np
from PIL import Image

from dpsims.labels import LabelSpace

SPACE = LabelSpace(
    ("sky", "road", "tree"), ((0, 0, 200), (90, 90, 90), (0, 120, 0)), (0, 1, 2), ignore_id=255
)
GAPS = LabelSpace(SPACE.names, SPACE.colors, (3, 17, 201), ignore_id=0, ignore_color=(9, 9, 9))
WIDE = LabelSpace(SPACE.names, SPACE.colors, (0, 256, 60000), ignore_id=65535)
FULL = LabelSpace(SPACE.names, SPACE.colors, SPACE.ids)  # no pixel may be unlabelled


def index_map(seed: int = 0, classes: int = 4, size: tuple[int, int] = (9, 14)) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.arange(size[0] * size[1]) % classes).reshape(size)


def write_maps(folder: Path, space: LabelSpace = SPACE, count: int = 3, classes: int = 4) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{i}.png" for i in range(count)]
    for i, file in enumerate(files):
        Image.fromarray(space.encode_ids(index_map(i, classes))).save(file)
    return files


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
