"""Your own pictures: `classes.json`, `images/`, `labels/`, with or without split folders above these two."""

from __future__ import annotations

from pathlib import Path

from dpsims.data.files import IMAGE_SUFFIXES, LABEL_SUFFIX, files_with
from dpsims.data.pairs import SPLITS, Layout, Pair, Problem, hold_out, match_pairs
from dpsims.labels import LabelSpace


def scan(root: Path) -> Layout:
    """The pairs of a folder.

    ROOT holds `classes.json` (or .yaml) and either `images/` (jpg, jpeg, png, webp) and `labels/` (png), with
    the same stems, or those two below `train/`, `val/` and `test/`. A split that has no folder of its own is
    a tenth of the training pictures, chosen by a hash of their names and taken out of the training split (two
    at least, since measuring takes two, where that leaves most of them to training).

    Raises ValueError where ROOT or its classes are missing or malformed.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; give one with classes.json, images/ and labels/")
    layout = Layout(root, "folder", LabelSpace.load(root), {split: [] for split in SPLITS})
    folders = {split: root / split for split in SPLITS if (root / split).is_dir()}
    if not folders:
        folders = {"train": root}
    for split, folder in folders.items():
        layout.splits[split], found = _scan_pairs(folder)
        layout.problems += found
    if "train" not in folders:
        reason = f"missing, though there is {'/ and '.join(folders)}/; add train/"
        layout.problems.append((root / "train", reason))
        return layout
    pairs = layout.splits["train"]
    share = max(2 if len(pairs) >= 8 else 1, len(pairs) // 10)
    layout.splits |= hold_out(pairs, [split for split in SPLITS if split not in folders], share)
    return layout


def _scan_pairs(folder: Path) -> tuple[list[Pair], list[Problem]]:
    """The pairs in FOLDER/images and FOLDER/labels, by name, and the problems met."""
    images, labels = folder / "images", folder / "labels"
    absent = [p for p in (images, labels) if not p.is_dir()]
    if absent:
        return [], [(p, "missing; pictures belong in images/, their label maps in labels/") for p in absent]
    problems: list[Problem] = []
    pictures: dict[str, Path] = {}
    for path in files_with(images, IMAGE_SUFFIXES):
        if path.stem in pictures:
            problems.append((path, f"same stem as {pictures[path.stem].name}; remove or rename one of them"))
        pictures.setdefault(path.stem, path)
    maps = {path.stem: path for path in files_with(labels, (LABEL_SUFFIX,))}
    if not maps and files_with(labels, IMAGE_SUFFIXES):
        return [], [(labels, "holds no PNG; label maps are PNG files (JPEG and WebP change ids)")]
    if not pictures and not maps:
        return [], [(images, f"is empty; add pictures ({', '.join(IMAGE_SUFFIXES)})")]
    pairs, alone = match_pairs(pictures, maps, images, labels)
    return pairs, problems + alone
