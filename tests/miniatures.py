"""Miniatures of the published sets, in the folders, file types and codings of the official sets.

Maps are made of blocks of one class each, and every class has its colour in the pictures: a network can
learn them. Each map shows the set's lowest and highest id and, where files have one, unlabelled pixels. No
id, name or colour here comes from the package: these files are what the package is tested against.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

ADE20K_IDS = (0, 1, 150, 3, 5, 21)  # unlabelled; wall, flag; sky, tree, car
COCOSTUFF_IDS = (255, 0, 181, 12, 123, 156)  # unlabelled; person, wood; stop sign, grass, sky-other
# id -> train id and official colour: unlabeled; ego vehicle, bicycle; road, building, sky, car
CITYSCAPES_CODES = {
    0: (255, (0, 0, 0)),
    1: (255, (0, 0, 0)),
    33: (18, (119, 11, 32)),
    7: (0, (128, 64, 128)),
    11: (2, (70, 70, 70)),
    23: (10, (70, 130, 180)),
    26: (13, (0, 0, 142)),
}
CITIES = {"train": ("aachen", "bochum"), "val": ("frankfurt", "lindau"), "test": ("berlin",)}
SIZE = (32, 48)
FACADES_IDS = (1, 12, 2, 3, 7, 8)  # background, shop; facade, window, balcony, blind
# the palette of the official maps, from id 1 on: MATLAB's jet(12)
FACADES_COLORS = (
    (0, 0, 170), (0, 0, 255), (0, 85, 255), (0, 170, 255), (0, 255, 255), (85, 255, 170), (170, 255, 85),
    (255, 255, 0), (255, 170, 0), (255, 85, 0), (255, 0, 0), (170, 0, 0),
)  # fmt: skip


def ade20k(root: Path, train: int = 8, val: int = 4, size: tuple[int, int] = SIZE) -> Path:
    """ROOT/ADEChallengeData2016, as its zip unpacks; returns ROOT."""
    inside = root / "ADEChallengeData2016"
    for split, stem, count in (("training", "ADE_train", train), ("validation", "ADE_val", val)):
        for i in range(1, count + 1):
            name = f"{stem}_{i:08d}"
            label = id_map(name, ADE20K_IDS, size)
            save(inside / "images" / split / f"{name}.jpg", picture(name, label))
            save(inside / "annotations" / split / f"{name}.png", label)
    for name in ("objectInfo150.txt", "sceneCategories.txt"):  # there, but no part of it is read
        (inside / name).write_text("Idx\tRatio\tTrain\tVal\tName\n")
    return root


def cocostuff(
    root: Path,
    train: int = 8,
    val: int = 4,
    size: tuple[int, int] = SIZE,
    images: str = "images",
    maps: str = "annotations",
) -> Path:
    """ROOT/images/{train,val}2017 and ROOT/annotations/{train,val}2017, as the set's own guide unpacks them.

    images, maps: other folders for the two kinds; "" is ROOT itself.
    """
    for split, first, count in (("train2017", 9, train), ("val2017", 285, val)):
        for i in range(count):
            name = f"{first + 10 * i:012d}"
            label = id_map(name, COCOSTUFF_IDS, size)
            save(root / images / split / f"{name}.jpg", picture(name, label))
            save(root / maps / split / f"{name}.png", label)
    return root


def cityscapes(
    root: Path, train: int = 8, val: int = 4, size: tuple[int, int] = SIZE, train_ids: bool = False
) -> Path:
    """ROOT/leftImg8bit and ROOT/gtFine, two cities a split, and a test city whose maps say nothing.

    train_ids: the *_labelTrainIds.png as well, which are no part of the downloads (cityscapesScripts makes
    them).
    """
    for split, count in (("train", train), ("val", val), ("test", 1)):
        cities = CITIES[split]
        for i in range(count):
            city = cities[i % len(cities)]
            name = f"{city}_{i:06d}_000019"
            ids = tuple(CITYSCAPES_CODES) if split != "test" else (0, 1)
            label = id_map(name, ids, size)
            save(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", picture(name, label))
            stem = root / "gtFine" / split / city / f"{name}_gtFine"
            write_cityscapes_maps(stem, label, train_ids)
    return root


def write_cityscapes_maps(stem: Path, label: np.ndarray, train_ids: bool) -> None:
    """The files of one picture in gtFine; stem: path up to `_gtFine`."""
    table = np.zeros((256, 4), np.uint8)
    table[list(CITYSCAPES_CODES)] = [(*color, 255) for _, color in CITYSCAPES_CODES.values()]
    trained = np.full(256, 255, np.uint8)
    trained[list(CITYSCAPES_CODES)] = [train_id for train_id, _ in CITYSCAPES_CODES.values()]
    instances = label.astype(np.uint16)
    instances[label == 26] = 26000  # the first car
    save(stem.with_name(f"{stem.name}_labelIds.png"), label)
    save(stem.with_name(f"{stem.name}_color.png"), table[label])
    save(stem.with_name(f"{stem.name}_instanceIds.png"), instances)
    if train_ids:
        save(stem.with_name(f"{stem.name}_labelTrainIds.png"), trained[label])
    height, width = label.shape
    corners = [[0, 0], [width, 0], [width, height], [0, height]]
    polygons = {"imgHeight": height, "imgWidth": width, "objects": [{"label": "road", "polygon": corners}]}
    stem.with_name(f"{stem.name}_polygons.json").write_text(json.dumps(polygons))


def facades(root: Path, base: int = 36, extended: int = 12, size: tuple[int, int] = SIZE) -> Path:
    """ROOT/base and ROOT/extended, as the two zips unpack: the first pairs of each, maps with a palette."""
    palette = bytes(value for color in ((0, 0, 0), *FACADES_COLORS) for value in color)
    for part, stem, count in (("base", "cmp_b", base), ("extended", "cmp_x", extended)):
        for i in range(1, count + 1):
            name = f"{stem}{i:04d}"
            label = id_map(name, FACADES_IDS, size)
            save(root / part / f"{name}.jpg", picture(name, label))
            indexed = Image.fromarray(label)
            indexed.putpalette(palette)
            indexed.save(root / part / f"{name}.png")
            (root / part / f"{name}.xml").write_text("<annotation></annotation>")  # is not read
    for name in ("label_names.txt", "readme.txt"):
        (root / name).write_text("1 background 1\n")
    return root


def id_map(name: str, ids: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """uint8 (h, w): 4 x 4 blocks of ids, drawn by the name; the first three ids are always among them."""
    rng = np.random.default_rng(list(name.encode()))
    cells = rng.permutation([*ids[:3], *rng.choice(ids, 16 - len(ids[:3]))]).reshape(4, 4)
    rows, columns = (np.arange(n) * 4 // n for n in size)
    return cells[rows][:, columns].astype(np.uint8)


def picture(name: str, label: np.ndarray) -> np.ndarray:
    """uint8 (h, w, 3): a colour for each id, and a little noise."""
    rng = np.random.default_rng(list(name.encode()))
    colors = np.stack([label.astype(int) * step % 211 + 22 for step in (67, 101, 149)], axis=-1)
    return np.clip(colors + rng.normal(0, 6, colors.shape), 0, 255).astype(np.uint8)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
