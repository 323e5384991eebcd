"""Cityscapes: streets of 50 cities, in both codings of its fine annotations.

Source: Cordts et al., The Cityscapes Dataset for Semantic Urban Scene Understanding, CVPR 2016.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from dpsims.data.official import OfficialSplit, files_by_key, no_such_set, official_layout, pair_folders
from dpsims.data.pairs import Layout, Pair, Problem
from dpsims.labels import LabelSpace

Coding = Literal["labelIds", "trainIds"]
COUNTS = {"train": 2_975, "val": 500}  # the maps of the test split are empty: they are no part of the set
IMAGES, LABELS = "leftImg8bit", "gtFine"
IMAGE_ENDING = "_leftimg8bit.png"
LABEL_ENDINGS = {"labelIds": "_gtfine_labelids.png", "trainIds": "_gtfine_labeltrainids.png"}
MEND = (
    "unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip side by side "
    "(`dpsims data fetch cityscapes` says how to get them)"
)


def scan(root: Path, coding: Coding = "labelIds") -> Layout:
    """The pairs of Cityscapes.

    ROOT holds leftImg8bit/{train,val}/CITY/*_leftImg8bit.png and gtFine/{train,val}/CITY/*_gtFine_*.png.
    coding: `labelIds`, the 33 classes and unlabelled that generators of this literature see, or `trainIds`,
    the 19 that evaluation counts, read from *_gtFine_labelTrainIds.png where every picture has one, otherwise
    converted from labelIds. Raises ValueError where ROOT holds none of these folders, and for other codings.
    """
    if coding not in LABEL_ENDINGS:
        raise ValueError(f"coding={coding!r}: use one of {', '.join(LABEL_ENDINGS)}")
    if not any((root / kind / split).is_dir() for kind in (IMAGES, LABELS) for split in COUNTS):
        raise no_such_set(root, "Cityscapes", f"{IMAGES}/train and {LABELS}/train", MEND)
    if coding == "labelIds":
        return _layout(root, coding, LabelSpace.named("cityscapes"))
    made = _layout(root, "trainIds", LabelSpace.named("cityscapes_trainids"))
    if not made.problems:
        return made
    layout = _layout(root, "labelIds", made.space)
    layout.file_space = LabelSpace.named("cityscapes")
    if any(made.splits.values()) and not layout.problems:
        layout.notices.append("some pictures lack a *_gtFine_labelTrainIds.png: labelIds are read for all")
    return layout


def recognises(root: Path) -> bool:
    """Whether a folder is laid out as Cityscapes is."""
    return (root / IMAGES).is_dir() and (root / LABELS).is_dir()


def _layout(root: Path, coding: Coding, space: LabelSpace) -> Layout:
    train, val = (_split(root, split, LABEL_ENDINGS[coding]) for split in COUNTS)
    return official_layout(root, "Cityscapes", space, train, val)


def _split(root: Path, split: str, label_ending: str) -> OfficialSplit:
    image_root, label_root = root / IMAGES / split, root / LABELS / split
    found = OfficialSplit(split, COUNTS[split])
    absent: list[Problem] = [(p, f"missing; {MEND}") for p in (image_root, label_root) if not p.is_dir()]
    if absent:
        found.problems = absent if len(absent) == 1 else []
        return found
    pairs: list[Pair] = []
    for city in sorted({*_folders(image_root), *_folders(label_root)}):
        images, labels = image_root / city, label_root / city
        pictures, maps = files_by_key(images, IMAGE_ENDING), files_by_key(labels, label_ending)
        some, problems = pair_folders(images, pictures, labels, maps, MEND)
        pairs += some
        found.problems += problems
    found.pairs = sorted(pairs, key=lambda pair: pair.name)
    return found


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
