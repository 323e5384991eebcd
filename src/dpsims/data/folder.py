"""Your own pictures: `classes.json`, `images/`, `labels/`, with or without split folders above these two."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dpsims.data.files import IMAGE_SUFFIXES, LABEL_SUFFIX, files_with, read_image, read_label
from dpsims.labels import LabelSpace

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Pair:
    """A picture's file and its label map's."""

    image: Path
    label: Path


class Folder:
    """The pairs of one split of a folder.

    ROOT holds `classes.json` and either `images/` (jpg, jpeg, png, webp) and `labels/` (png), with the same
    stems, or those two below `train/`, `val/` and `test/`. A split that has no folder of its own is a tenth
    of the training pictures, chosen by a hash of their names and taken out of the training split.

    Raises ValueError, naming the file or folder and the mend, for a missing folder, an empty one, or a
    picture or map without partner; `load` for a file that cannot be read or a pair of different sizes.
    """

    def __init__(self, root: str | Path, split: str) -> None:
        self.root = Path(root)
        self.name = f"{self.root} ({split})"
        self.space = load_space(self.root)
        splits, problems = scan(self.root)
        if problems:
            path, reason = problems[0]
            more = f" (and {len(problems) - 1} more: see `dpsims data check`)" if len(problems) > 1 else ""
            raise ValueError(f"{path}: {reason}{more}")
        self.pairs = splits[split]
        if not self.pairs:
            raise ValueError(
                f"{self.root}: too few pairs to set some aside for {split}; add pairs or {split}/"
            )
        self.names = [pair.image.stem for pair in self.pairs]

    def __len__(self) -> int:
        return len(self.pairs)

    def load(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Pair i: uint8 RGB (h, w, 3) and int64 class indices (h, w)."""
        pair = self.pairs[i]
        image, label = read_image(pair.image), read_label(pair.label, self.space)
        check_sizes(pair, image, label)
        return image, label


def load_space(root: Path) -> LabelSpace:
    """The label space in ROOT/classes.json. Raises ValueError where it is missing or malformed."""
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; give one with classes.json, images/ and labels/")
    return LabelSpace.load(root / "classes.json")


def check_sizes(pair: Pair, image: np.ndarray, label: np.ndarray) -> None:
    """Raises ValueError where a picture and its label map differ in size."""
    if image.shape[:2] != label.shape[:2]:
        (ih, iw), (lh, lw) = image.shape[:2], label.shape[:2]
        raise ValueError(
            f"{pair.label}: is {lw}x{lh} pixels, but its picture {pair.image} is {iw}x{ih}; "
            "resize the map to the picture (nearest neighbour)"
        )


def scan(root: Path) -> tuple[dict[str, list[Pair]], list[tuple[Path, str]]]:
    """Pairs of every split, by name, and what is wrong: (path, reason and mend). Decodes nothing."""
    folders = {split: root / split for split in SPLITS if (root / split).is_dir()}
    if not folders:
        folders = {"train": root}
    splits: dict[str, list[Pair]] = {split: [] for split in SPLITS}
    problems: list[tuple[Path, str]] = []
    for split, folder in folders.items():
        splits[split], found = _scan_pairs(folder)
        problems += found
    if "train" not in folders:
        problems.append((root / "train", f"missing, though there is {'/ and '.join(folders)}/; add train/"))
        return splits, problems
    missing = [split for split in SPLITS if split not in folders]
    splits.update(_set_aside(splits["train"], missing))
    return splits, problems


def _scan_pairs(folder: Path) -> tuple[list[Pair], list[tuple[Path, str]]]:
    """The pairs in FOLDER/images and FOLDER/labels, by name, and the problems met."""
    images, labels = folder / "images", folder / "labels"
    absent = [p for p in (images, labels) if not p.is_dir()]
    if absent:
        return [], [(p, "missing; pictures belong in images/, their label maps in labels/") for p in absent]
    problems: list[tuple[Path, str]] = []
    pictures: dict[str, Path] = {}
    for path in files_with(images, IMAGE_SUFFIXES):
        if path.stem in pictures:
            problems.append((path, f"same stem as {pictures[path.stem].name}; remove or rename one of them"))
        pictures.setdefault(path.stem, path)
    maps = {path.stem: path for path in files_with(labels, (LABEL_SUFFIX,))}
    if not pictures and not maps:
        return [], [(images, f"is empty; add pictures ({', '.join(IMAGE_SUFFIXES)})")]
    for stem, path in pictures.items():
        if stem not in maps:
            problems.append((path, f"has no label map {labels / stem}.png; add it, or remove the picture"))
    for stem, path in maps.items():
        if stem not in pictures:
            problems.append((path, f"has no picture {images / stem}.jpg; add it, or remove the map"))
    return [Pair(pictures[stem], maps[stem]) for stem in pictures if stem in maps], problems


def _set_aside(pairs: list[Pair], missing: list[str]) -> dict[str, list[Pair]]:
    """A tenth of the training pairs for each missing split; hash order mixes sequences.

    At least two, which is what measuring takes, where that leaves most of them to training; else one.
    """
    by_hash = sorted(pairs, key=lambda pair: hashlib.sha256(pair.image.stem.encode()).digest())
    if len(pairs) <= len(missing):
        by_hash = []  # too few: every split stays as it is, and the missing ones stay empty
    share = max(2 if len(pairs) >= 8 else 1, len(pairs) // 10)
    taken = {split: by_hash[k * share : (k + 1) * share] for k, split in enumerate(missing)}
    held_out = {pair for part in taken.values() for pair in part}
    taken = {split: sorted(part, key=lambda pair: pair.image.stem) for split, part in taken.items()}
    return {**taken, "train": [pair for pair in pairs if pair not in held_out]}
