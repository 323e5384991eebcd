"""What a check of a data set found, and how it is told."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

import numpy as np

from dpsims.data.hints import hints
from dpsims.labels import LabelSpace

_SIZES_SHOWN = 10
_CODES_SHOWN = 20
_FILES_SHOWN = 20
_NAMES_SHOWN = 5
_WIDTH = 110
_RARE = 0.01  # of the pictures
_MANY_CLASSES, _MANY_PICTURES = 8, 20  # where it is strange that all classes are in all pictures
_NEAR = 24  # levels of a channel
_SAME = 16  # the same of two classes, which an eye on the sheet has to tell apart
_ALIKE = 5  # lines of one kind; more are told in one
_PLACE = re.compile(r" at row \d+, column \d+( \(\d+ such pixels?\))?")
_CODE = re.compile(r"^(label id|colour) (\d+|\([\d, ]+\)) ")
_PICTURE = re.compile(r"its picture .+ (?=is \d|\d+x\d+:)")


class Bad(NamedTuple):
    """A file or folder with what is wrong with it; kind: the heading that it is listed under."""

    path: Path
    reason: str
    kind: str


@dataclass
class Unknown:
    """An id or colour of label maps that no class has; nearest: the class of nearly the same colour."""

    pixels: int
    files: int
    example: Path
    nearest: str = ""


@dataclass
class DataReport:
    """What `check_data` found. `str(report)` is its text.

    Only pairs whose two files are good count in sizes, pixels and pictures.
    """

    root: Path
    title: str
    space: LabelSpace
    """the classes as they are loaded"""
    file_space: LabelSpace
    """the coding of the files; most often the same"""
    pairs: dict[str, int]
    """split -> number of pairs, bad ones included"""
    split_titles: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """(height, width) -> number of good pairs"""
    pixels: np.ndarray = field(init=False)
    """pixels of each class, the unlabelled last: int64 (K+1,)"""
    pictures: np.ndarray = field(init=False)
    """pairs in which each class occurs: int64 (K+1,)"""
    ids: set[int] = field(default_factory=set)
    """all ids in the label maps that are coded by ids"""
    unknown: dict[str, Unknown] = field(default_factory=dict)
    """id (or colour, as #rrggbb) that no class has"""
    unknown_left_out: bool = False
    """whether there were too many of those to keep all"""
    unlabelled: list[Path] = field(default_factory=list)
    """good maps without any labelled pixel"""
    drawable: set[Path] = field(default_factory=set)
    """bad maps that can be shown beside their pictures: all that is wrong with them are ids or colours"""
    bad: list[Bad] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pixels, self.pictures = np.zeros((2, self.space.num_classes + 1), np.int64)

    @property
    def ok(self) -> bool:
        """Whether one can train on the set as it is."""
        return not self.bad

    @property
    def good(self) -> int:
        """Pairs of two good files."""
        return self.sizes.total()

    def __str__(self) -> str:
        total = sum(self.pairs.values())
        head = f"{self.root}: {self.title}, {plural(total, 'pair')}"
        if total > self.good:
            head += f", {total - self.good:,} of them bad (not in the figures below)"
        parts = [
            f"  {split:5}  {n:7,}  {self.split_titles.get(split, '')}" for split, n in self.pairs.items()
        ]
        sections = [
            [head, *(part.rstrip() for part in parts)],
            [f"note: {notice}" for notice in self.all_notices()],
            self._size_table(),
            self._class_table(),
            self._unknown_table(),
            *self._problems(),
            [plural(len(self.bad), "problem") if self.bad else "no problems"],
        ]
        return "\n\n".join("\n".join(lines) for lines in sections if lines)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, nothing left out."""
        rows = zip(*self._class_columns(), self.pixels.tolist(), self.pictures.tolist(), strict=True)
        return {
            "root": str(self.root),
            "title": self.title,
            "ok": self.ok,
            "splits": {
                split: {"pairs": n, "title": self.split_titles.get(split, split)}
                for split, n in self.pairs.items()
            },
            "good_pairs": self.good,
            "notices": self.all_notices(),
            "sizes": [{"width": w, "height": h, "pairs": n} for (h, w), n in self.sizes.most_common()],
            "classes": [{"id": i, "name": name, "pixels": p, "pictures": n} for i, name, p, n in rows],
            "unknown": [
                {**vars(u), "code": code, "example": str(u.example)} for code, u in self._unknown_by_pixels()
            ],
            "unknown_left_out": self.unknown_left_out,
            "hints": self.hints(),
            "unlabelled_maps": [str(path) for path in self.unlabelled],
            "problems": [{"path": str(b.path), "kind": b.kind, "reason": b.reason} for b in self.bad],
        }

    def all_notices(self) -> list[str]:
        """What is odd, but no obstacle: the layout's own notices, and what the pairs showed."""
        notices = list(self.notices)
        for split in ("val", "test"):
            if self.pairs.get(split) == 1:
                notices.append(f"{split} has 1 pair; measuring takes 2, so add some to it")
        if self.unlabelled:
            names = ", ".join(map(self._short, self.unlabelled[:_NAMES_SHOWN]))
            more = ", ..." if len(self.unlabelled) > _NAMES_SHOWN else ""
            what = "label map has" if len(self.unlabelled) == 1 else "label maps have"
            count = f"{len(self.unlabelled):,}"
            notices.append(f"{count} {what} no labelled pixel (no score counts them): {names}{more}")
        notices += self._same_colors()
        everywhere = self.pictures[:-1].min(initial=self.good) >= (1 - _RARE) * self.good
        if (
            self.good >= _MANY_PICTURES
            and self.space.num_classes >= _MANY_CLASSES
            and everywhere
            and self.ids
        ):
            notices.append(
                "every class occurs in nearly every picture: so it is where maps of ids were resized with "
                "smoothing; look at thin lines between areas (--sheet FILE)"
            )
        return notices

    def hints(self) -> list[str]:
        """What the unknown ids and colours most likely mean, and the mend."""
        return hints(self)

    def _same_colors(self) -> list[str]:
        """Classes, or a class and the unlabelled, that look alike."""
        if not self.title.endswith("folder"):
            return []  # nobody can mend the colours of a published set
        count = self.space.num_classes + (self.space.ignore_id is not None)
        palette = self.space.palette[:count].astype(int)
        names = [*self.space.names, "unlabelled"]
        found = []
        for i in range(count):
            near = np.flatnonzero(np.abs(palette[i + 1 :] - palette[i]).max(1) <= _SAME) + i + 1
            found += [f"{names[i]} and {names[j]}" for j in near.tolist()]
        if not found:
            return []
        more = ", ..." if len(found) > _NAMES_SHOWN else ""
        shown = ", ".join(found[:_NAMES_SHOWN])
        return [f"nearly the same colour: {shown}{more}; maps and pictures of them are hard to tell apart"]

    def _size_table(self) -> list[str]:
        if not self.sizes:
            return []
        common = self.sizes.most_common(_SIZES_SHOWN)
        lines = ["size (width x height)     pairs", *(f"{f'{w} x {h}':21}  {n:8,}" for (h, w), n in common)]
        others = len(self.sizes) - len(common)
        if others:
            rest = self.good - sum(n for _, n in common)
            (h, w), (height, width) = (f(self.sizes, key=lambda s: s[0] * s[1]) for f in (min, max))
            lines.append(f"{plural(others, 'other size'):21}  {rest:8,}")
            lines.append(f"smallest {w} x {h}, largest {width} x {height}")
        return lines

    def _class_columns(self) -> tuple[list[int | None], list[str]]:
        return [*self.space.ids, self.space.ignore_id], [*self.space.names, "(unlabelled)"]

    def _class_table(self) -> list[str]:
        if not self.good:
            return []
        ids, names = self._class_columns()
        wide = max(map(len, names))
        share = 100 * self.pixels / max(1, self.pixels.sum())
        rows = zip(ids, names, share.tolist(), self.pictures.tolist(), strict=True)
        lines = [f"   id  {'class':{wide}}  % of pixels  in pictures"]
        lines += [
            f"{'-' if i is None else i:>5}  {name:{wide}}  {p:11.3f}  {n:11,}" for i, name, p, n in rows
        ]
        classes = list(zip(self.space.names, self.pictures[:-1].tolist(), strict=True))
        never = [name for name, n in classes if n == 0]
        rare = [f"{name} ({n:,})" for name, n in classes if 0 < n < _RARE * self.good]
        if never:
            lines.append(fill(f"never: {', '.join(never)}", _WIDTH))
        if rare:
            lines.append(fill(f"rare (in fewer than {_RARE:.0%} of the pictures): {', '.join(rare)}", _WIDTH))
        return lines

    def _unknown_by_pixels(self) -> list[tuple[str, Unknown]]:
        return sorted(self.unknown.items(), key=lambda item: -item[1].pixels)

    def _unknown_table(self) -> list[str]:
        if not self.unknown:
            return []
        lines = ["in label maps, but no class has it:", "id or colour        pixels    files  for example"]
        for code, u in self._unknown_by_pixels()[:_CODES_SHOWN]:
            near = f"  (nearly {u.nearest})" if u.nearest else ""
            lines.append(f"{code:12}  {u.pixels:12,}  {u.files:7,}  {self._short(u.example)}{near}")
        if len(self.unknown) > _CODES_SHOWN:
            least = " at least" if self.unknown_left_out else ""
            lines.append(f"and {len(self.unknown) - _CODES_SHOWN:,} more{least}; all are in --json FILE")
        return [*lines, *(f"-> {hint}" for hint in self.hints())]

    def _problems(self) -> list[list[str]]:
        """The bad files, a section for each kind."""
        kinds: dict[str, list[Bad]] = {}
        for bad in self.bad:
            kinds.setdefault(bad.kind, []).append(bad)
        sections = []
        for kind, found in kinds.items():
            lines = [f"{kind} ({len(found):,}):"]
            alike: dict[str, list[Bad]] = {}
            for bad in found:
                alike.setdefault(_common(bad.reason), []).append(bad)
            many = {reason for reason, bads in alike.items() if len(bads) > _ALIKE}
            lines += [self._in_one(reason, alike[reason]) for reason in alike if reason in many]
            single = [bad for reason, bads in alike.items() if reason not in many for bad in bads]
            lines += [f"  {self._short(bad.path)}: {bad.reason}" for bad in single[:_FILES_SHOWN]]
            if len(single) > _FILES_SHOWN:
                lines.append(f"  and {len(single) - _FILES_SHOWN:,} more; all are in --json FILE")
            sections.append(lines)
        return sections

    def _in_one(self, reason: str, bads: list[Bad]) -> str:
        """One line for files that fail alike; more of them are named where nothing else tells them apart."""
        same = all(bad.reason == reason for bad in bads)
        codes = dict.fromkeys(match[0].strip() for bad in bads if (match := _CODE.match(bad.reason)))
        count, shown = f"{len(bads):,} files, each", _FILES_SHOWN if same else _NAMES_SHOWN
        if codes:
            first, *others = codes
            rest = [code.removeprefix("label id").removeprefix("colour").strip() for code in others]
            ids = ", ".join([first, *rest[: _NAMES_SHOWN - 1]]) + (
                ", ..." if len(codes) > _NAMES_SHOWN else ""
            )
            count = f"{ids} in {len(bads):,} maps"
        names = ", ".join(self._short(bad.path) for bad in bads[:shown])
        if len(bads) > shown:
            names += f" and {len(bads) - shown:,} more; all are in --json FILE"
        return f"  {count}: {reason} ({names})"

    def _short(self, path: Path) -> str:
        inside = path != self.root and path.is_relative_to(self.root)
        return path.relative_to(self.root).as_posix() if inside else str(path)


def nearest_class(color: tuple[int, int, int], space: LabelSpace) -> str:
    """The class whose colour is nearly `color`, or ""."""
    count = space.num_classes + (space.ignore_id is not None)
    away = np.abs(space.palette[:count].astype(int) - color).max(1)
    return [*space.names, "unlabelled"][int(away.argmin())] if away.min() <= _NEAR else ""


def _common(reason: str) -> str:
    """A reason less what differs from file to file: the place, the code and the picture's name."""
    return _PICTURE.sub("its picture ", _CODE.sub("", _PLACE.sub("", reason)))


def plural(count: int, noun: str) -> str:
    """ "1 pair", "1,200 pairs"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
