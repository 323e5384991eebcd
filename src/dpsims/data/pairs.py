"""Pictures and label maps that belong together: what every data set on disk comes down to.

A reader (`folder`, `ade20k` ...) finds a set's pairs without decoding anything: a `Layout`. `PairSource`
decodes them, one by one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dpsims.data.files import Codes, decode_codes, read_codes, read_image
from dpsims.labels import LabelSpace

SPLITS = ("train", "val", "test")
Problem = tuple[Path, str]
"""A file or folder, and what is wrong with it and how to mend it."""


@dataclass(frozen=True)
class Pair:
    """A picture's file, its label map's, and a name that no other pair of the set has."""

    image: Path
    label: Path
    name: str


@dataclass
class Layout:
    """What a data set on disk holds, as found without decoding."""

    root: Path
    title: str
    """the set's name"""
    space: LabelSpace
    """the classes of the label maps that are loaded"""
    splits: dict[str, list[Pair]]
    """`train`, `val` and `test` -> pairs, by name"""
    problems: list[Problem] = field(default_factory=list)
    """what has to be mended before the set can be used"""
    notices: list[str] = field(default_factory=list)
    """what is odd, but no obstacle"""
    file_space: LabelSpace | None = None
    """coding of the files, where another than `space`; classes go by name, others become unlabelled"""
    source: str = "folder"
    """the reader's name (`layouts.READERS`)"""
    split_titles: dict[str, str] = field(default_factory=dict)
    """what a split is called where the set is published, if it is called otherwise"""

    def decode(self, codes: Codes, where: str) -> np.ndarray:
        """What `read_codes` gave -> indices in `space`, (h, w) int64. Raises ValueError naming `where`."""
        if self.file_space is None:
            return decode_codes(codes, self.space, where)
        return self.file_space.table_to(self.space, drop=True)[decode_codes(codes, self.file_space, where)]

    def read(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        """Picture uint8 RGB (h, w, 3) and class indices int64 (h, w); ValueError names a bad file."""
        image, codes = read_image(pair.image), read_codes(pair.label)
        check_sizes(pair, image, codes.values)
        return image, self.decode(codes, str(pair.label))


class PairSource:
    """The pairs of one split of a layout, as a `Source`.

    Raises ValueError for the layout's first problem, and for a split without pairs; `load` for a file that
    cannot be read, an id that is no class, or a pair of different sizes.
    """

    def __init__(self, layout: Layout, split: str) -> None:
        if layout.problems:
            path, reason = layout.problems[0]
            rest = len(layout.problems) - 1
            more = f" (and {rest} more: `dpsims data check {layout.root}` lists all)" if rest else ""
            raise ValueError(f"{path}: {reason}{more}")
        self.layout, self.space, self.notices = layout, layout.space, layout.notices
        self.pairs = layout.splits[split]
        if not self.pairs:
            title = layout.split_titles.get(split, split)
            raise ValueError(
                f"{layout.root}: has no pairs for {split} ({title}), or too few to set some aside; add some"
            )
        self.name = f"{layout.root} ({layout.split_titles.get(split, split)})"
        self.names = [pair.name for pair in self.pairs]

    def __len__(self) -> int:
        return len(self.pairs)

    def fingerprint(self) -> str:
        """A digest of all files' names, sizes and times."""
        files = (file for pair in self.pairs for file in (pair.image, pair.label))
        told = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return hashlib.sha256(repr(told).encode()).hexdigest()[:16]

    def load(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Pair i: uint8 RGB (h, w, 3) and int64 class indices (h, w)."""
        return self.layout.read(self.pairs[i])


def check_sizes(pair: Pair, image: np.ndarray, label: np.ndarray) -> None:
    """Raises ValueError where a picture and its label map differ in size."""
    if image.shape[:2] != label.shape[:2]:
        (ih, iw), (lh, lw) = image.shape[:2], label.shape[:2]
        raise ValueError(
            f"{pair.label}: is {lw}x{lh} pixels, but its picture {pair.image} is {iw}x{ih}; "
            "resize the map to the picture (nearest neighbour)"
        )


def match_pairs(
    pictures: Mapping[str, Path], maps: Mapping[str, Path], image_folder: Path, label_folder: Path
) -> tuple[list[Pair], list[Problem]]:
    """The pairs of pictures and maps with the same key, by key, and a problem for each one left alone.

    The folders are only named in the messages: where the missing partner was looked for.
    """
    problems: list[Problem] = []
    for key, path in pictures.items():
        if key not in maps:
            problems.append((path, f"has no label map in {label_folder}; add it, or remove the picture"))
    for key, path in maps.items():
        if key not in pictures:
            problems.append((path, f"has no picture in {image_folder}; add it, or remove the map"))
    return [Pair(pictures[key], maps[key], key) for key in sorted(pictures) if key in maps], problems


def hold_out(pairs: list[Pair], splits: list[str], share: int) -> dict[str, list[Pair]]:
    """Take `share` pairs out for each of `splits`; the rest is `train`.

    Chosen by a hash of their names, which mixes sequences and stays the same. Too few pairs: each split gets
    nothing.
    """
    by_hash = sorted(pairs, key=lambda pair: hashlib.sha256(pair.name.encode()).digest())
    if len(pairs) <= len(splits):
        by_hash = []
    taken = {split: by_hash[k * share : (k + 1) * share] for k, split in enumerate(splits)}
    held_out = {pair.name for part in taken.values() for pair in part}
    parts = {split: sorted(part, key=lambda pair: pair.name) for split, part in taken.items()}
    return {**parts, "train": [pair for pair in pairs if pair.name not in held_out]}
