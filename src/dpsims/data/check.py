"""`dpsims data check`: everything that is wrong with a folder of pairs, and what is in it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dpsims.data.files import decode_codes, read_codes, read_image
from dpsims.data.folder import Pair, check_sizes, load_space, scan
from dpsims.labels import LabelSpace

_SIZES_SHOWN = 10


@dataclass
class DataReport:
    """What `check_data` found. `str(report)` is its text."""

    root: Path
    space: LabelSpace
    pairs: dict[str, int]
    """split -> number of pairs, bad ones included"""
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """(height, width) -> number of good pairs"""
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """pixels of each class in the good pairs, the unlabelled last: int64 (K+1,)"""
    pictures: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """good pairs in which each class occurs: int64 (K+1,)"""
    unknown: Counter[str] = field(default_factory=Counter)
    """id (or colour, as #rrggbb) in a label map that no class has -> number of pixels"""
    bad: list[tuple[Path, str]] = field(default_factory=list)
    """(file or folder, what is wrong with it)"""

    @property
    def ok(self) -> bool:
        """Whether one can train on the folder as it is."""
        return not self.bad

    def __str__(self) -> str:
        lines = [f"{self.root}: " + ", ".join(f"{split} {n}" for split, n in self.pairs.items()) + " pairs"]
        lines += ["", "size (width x height)  pairs"]
        common = self.sizes.most_common(_SIZES_SHOWN)
        lines += [f"{f'{w} x {h}':21}  {n:5}" for (h, w), n in common]
        if len(self.sizes) > len(common):
            lines.append(f"and {len(self.sizes) - len(common)} other sizes")
        lines += ["", *self._class_table()]
        if self.unknown:
            lines += ["", "in label maps, but not in classes.json:"]
            lines += [f"  {code}: {n:,} pixels" for code, n in self.unknown.most_common()]
        lines += ["", f"{len(self.bad)} problems" if self.bad else "no problems"]
        return "\n".join([*lines, *(f"  {path}: {reason}" for path, reason in self.bad)])

    def _class_table(self) -> list[str]:
        space = self.space
        names = [*space.names, "(unlabelled)"]
        ids = [*map(str, space.ids), "-" if space.ignore_id is None else str(space.ignore_id)]
        wide = max(map(len, names))
        share = 100 * self.pixels / max(1, self.pixels.sum())
        rows = zip(ids, names, share, self.pictures, strict=True)
        return [f"   id  {'class':{wide}}  % of pixels  in pictures"] + [
            f"{i:>5}  {name:{wide}}  {percent:11.3f}  {count:11}" for i, name, percent, count in rows
        ]


def check_data(root: str | Path) -> DataReport:
    """Decode every pair below ROOT (laid out as for the source `folder`) once; collect all that is wrong.

    Raises ValueError only where ROOT or its classes.json cannot be read; all else goes into `bad`.
    """
    root = Path(root)
    space = load_space(root)
    splits, problems = scan(root)
    report = DataReport(root, space, {split: len(pairs) for split, pairs in splits.items()}, bad=problems)
    report.pixels = np.zeros(space.num_classes + 1, np.int64)
    report.pictures = np.zeros(space.num_classes + 1, np.int64)
    for pairs in splits.values():
        for pair in pairs:
            _check_pair(pair, report)
    empty = [split for split, pairs in splits.items() if not pairs]
    if empty and not problems:
        report.bad.append((root, f"too few pairs to set some aside for {' and '.join(empty)}; add pairs"))
    return report


def _check_pair(pair: Pair, report: DataReport) -> None:
    """Add one pair to the report's counts, or, for each of its two files that is bad, to the problems."""
    image = codes = label = None
    try:
        image = read_image(pair.image)
    except ValueError as error:
        report.bad.append(_problem(pair.image, error))
    try:
        codes = read_codes(pair.label)
        label = decode_codes(codes, report.space, str(pair.label))
    except ValueError as error:
        report.bad.append(_problem(pair.label, error))
        if codes is not None:
            report.unknown.update(_unknown_codes(codes, report.space))
    if image is None or codes is None:
        return
    try:
        check_sizes(pair, image, codes)
    except ValueError as error:
        report.bad.append(_problem(pair.label, error))
        return
    if label is not None:
        count = np.bincount(label.ravel(), minlength=report.space.num_classes + 1)
        report.sizes[image.shape[0], image.shape[1]] += 1
        report.pixels += count
        report.pictures += count > 0


def _problem(path: Path, error: ValueError) -> tuple[Path, str]:
    return path, str(error).removeprefix(f"{path}: ")


def _unknown_codes(codes: np.ndarray, space: LabelSpace) -> dict[str, int]:
    """The ids or colours that no class has -> how many pixels have them."""
    if codes.ndim == 3:
        known = {"#" + color.tobytes().hex() for color in space.palette}
        codes, form = codes.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1]), "#{:06x}"
    else:
        known, form = {str(i) for i in (*space.ids, space.ignore_id)}, "{}"
    values, counts = np.unique(codes, return_counts=True)
    found = {form.format(value): n for value, n in zip(values.tolist(), counts.tolist(), strict=True)}
    return {code: n for code, n in found.items() if code not in known}
