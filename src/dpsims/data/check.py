"""`dpsims data check`: everything that is wrong with a set of pairs, and what is in it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from dpsims.data.files import Codes, read_codes, read_image
from dpsims.data.pairs import Layout, Pair, Problem, check_sizes
from dpsims.data.parallel import run_many
from dpsims.data.report import Bad, DataReport, Unknown, nearest_class
from dpsims.data.shards import Shards, read_index, verify
from dpsims.data.sheet import contact_sheet, shards_sheet

__all__ = ["DataReport", "check_data", "check_shards", "contact_sheet", "shards_sheet"]

_CODES_A_FILE = 200  # a smoothed map has more colours than a report can use; the most frequent ones are kept
_CODES_KEPT = 10_000


@dataclass
class _PairFound:
    """What one pair holds, small enough to be sent between processes.

    size: (height, width), of a good pair only; pixels: int64 (K+1,), of a map that fits the classes; ids:
    those of an id-coded map; unknown: code -> pixels, the most frequent ones first; drawable: whether unknown
    codes are all that is wrong.
    """

    bad: list[Bad] = field(default_factory=list)
    size: tuple[int, int] | None = None
    pixels: np.ndarray | None = None
    ids: list[int] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)
    unknown_left_out: bool = False
    drawable: bool = False


def check_data(layout: Layout, workers: int | None = None) -> DataReport:
    """Decode every pair once, over `workers` processes (one for each core); collect all that is wrong.

    layout: what `layouts.find_layout` found. Raises ValueError only for workers < 1 and where a process dies;
    all that is wrong with the set goes into the report.
    """
    files = layout.file_space or layout.space
    counts = {split: len(pairs) for split, pairs in layout.splits.items()}
    report = DataReport(
        layout.root, layout.title, layout.space, files, counts, layout.split_titles, layout.notices
    )
    report.bad = [Bad(*problem, _kind(problem)) for problem in layout.problems]
    pairs = list(chain.from_iterable(layout.splits.values()))
    reader = replace(layout, splits={}, problems=[], notices=[])  # the processes need no list of all pairs
    for pair, found in zip(pairs, run_many(_look_at, reader, pairs, workers, "pairs read"), strict=True):
        _add(found, pair.label, report)
    for code, unknown in report.unknown.items():
        if code.startswith("#"):
            red, green, blue = bytes.fromhex(code[1:])
            unknown.nearest = nearest_class((red, green, blue), files)
    empty = [split for split, pairs in layout.splits.items() if not pairs]
    if empty and not layout.problems:
        reason = f"too few pairs to set some aside for {' and '.join(empty)}; add pairs"
        report.bad.append(Bad(layout.root, reason, _FOLDERS))
    _refuse_unlabelled(report)
    return report


def check_shards(root: Path, workers: int | None = None) -> DataReport:
    """The same of a folder of shards: every byte against its checksum, and every pair decoded.

    Raises ValueError where the shards are unfinished or files are missing, and as `check_data`.
    """
    names = dict.fromkeys(entry["split"] for entry in read_index(root)["shards"])
    splits = {name: Shards(root, name) for name in names}
    first = next(iter(splits.values()))
    space, sizes = first.space, {split: len(shards) for split, shards in splits.items()}
    report = DataReport(
        root, f"shards of {first.title}", space, space, sizes, first.split_titles, first.notices
    )
    report.bad = [Bad(*problem, _FOLDERS) for problem in verify(root)]
    for split, shards in splits.items():
        every = range(len(shards))
        for i, found in zip(
            every, run_many(_look_into, shards, every, workers, f"{split} read"), strict=True
        ):
            _add(found, root / shards.names[i], report)
    _refuse_unlabelled(report)
    return report


def _refuse_unlabelled(report: DataReport) -> None:
    """Some maps without a label are welcome; a set of nothing else has lost them."""
    if report.unlabelled and len(report.unlabelled) == report.good:
        code = report.file_space.ignore_id
        reason = (
            "no label map has a labelled pixel, so there is nothing to learn; look at the maps, and whether "
            f"{code} should be the ignore_id of the class list"
        )
        report.bad.append(Bad(report.root, reason, _UNFIT))


def _look_into(shards: Shards, i: int) -> _PairFound:
    """Read pair i of a split in shards."""
    found, path = _PairFound(), shards.path(i)
    heading = _FOLDERS
    try:
        picture, label = shards.files(i)
        heading = _UNREADABLE_IMAGE
        image = read_image(picture)
        heading = _UNREADABLE_MAP
        codes = read_codes(label)
        heading = _UNFIT
        index = shards.space.decode_ids(codes.values, str(label))
    except ValueError as error:
        found.bad.append(Bad(path, _reason(path, error), heading))
        return found
    found.size = image.shape[0], image.shape[1]
    found.pixels = np.bincount(index.ravel(), minlength=shards.space.num_classes + 1)
    return found


_FOLDERS = "files and folders"
_UNREADABLE_IMAGE, _UNREADABLE_MAP = "pictures that cannot be read", "label maps that cannot be read"
_UNFIT, _SIZES = "label maps that do not fit the classes", "pairs of different sizes"


def _kind(problem: Problem) -> str:
    """The heading for a problem of the layout."""
    if problem[1].startswith("is no PNG"):
        return _UNREADABLE_MAP
    if problem[1].startswith("has no label map"):
        return "pictures without a label map"
    return "label maps without a picture" if problem[1].startswith("has no picture") else _FOLDERS


def _add(found: _PairFound, path: Path, report: DataReport) -> None:
    """path: what to name the label map by."""
    report.bad += found.bad
    report.ids.update(found.ids)
    report.unknown_left_out |= found.unknown_left_out
    if found.drawable:
        report.drawable.add(path)
    for code, pixels in found.unknown.items():
        if code not in report.unknown and len(report.unknown) >= _CODES_KEPT:
            report.unknown_left_out = True
            continue
        unknown = report.unknown.setdefault(code, Unknown(0, 0, path))
        unknown.pixels += pixels
        unknown.files += 1
    if found.size is not None and found.pixels is not None:
        report.sizes[found.size] += 1
        report.pixels += found.pixels
        report.pictures += found.pixels > 0
        if not found.pixels[:-1].any():
            report.unlabelled.append(path)


def _look_at(layout: Layout, pair: Pair) -> _PairFound:
    """Read a pair's two files. A file that is bad in two ways is listed once, with both reasons."""
    found = _PairFound()
    image = codes = None
    reasons: list[tuple[str, str]] = []  # what is wrong with the label map, and the heading for it
    try:
        image = read_image(pair.image)
    except ValueError as error:
        found.bad.append(Bad(pair.image, _reason(pair.image, error), _UNREADABLE_IMAGE))
    try:
        codes = read_codes(pair.label)
    except ValueError as error:
        reasons.append((_jpeg(pair.label) or _reason(pair.label, error), _UNREADABLE_MAP))
    if codes is not None:
        try:
            _count(codes, layout, found)
        except ValueError:
            reasons.append((_why_not(codes, layout, pair.label), _UNFIT))
        if image is not None:
            try:
                check_sizes(pair, image, codes.values)
            except ValueError as error:
                reasons.append((_turned(pair, image, codes) or _reason(pair.label, error), _SIZES))
    if reasons:
        found.drawable = image is not None and all(heading == _UNFIT for _, heading in reasons)
        found.bad.append(Bad(pair.label, "; also ".join(reason for reason, _ in reasons), reasons[0][1]))
    elif image is not None:
        found.size = image.shape[0], image.shape[1]
    return found


def _count(codes: Codes, layout: Layout, found: _PairFound) -> None:
    """Count a map's classes, its ids, and the ids and colours that no class has.

    Its distinct codes are decoded as if they were a map of one row, which spares decoding every pixel. Raises
    ValueError as `layout.decode` does for the map itself, but for the places that it names.
    """
    space = layout.file_space or layout.space
    values, counts = _distinct(codes.values)
    if values.ndim == 1:
        found.ids, names = values.tolist(), [str(i) for i in values.tolist()]
        known = space.classes_of_ids(values) >= 0
    else:
        names = [f"#{color.tobytes().hex()}" for color in values]
        known = space.classes_of_colors(values) >= 0
    if not known.all():
        unknown = np.flatnonzero(~known)
        kept = unknown[np.argsort(-counts[unknown], kind="stable")[:_CODES_A_FILE]]
        found.unknown = {names[i]: int(counts[i]) for i in kept}
        found.unknown_left_out = len(kept) < len(unknown)
    index = layout.decode(Codes(values[np.newaxis], codes.palette), "")[0]
    found.pixels = np.zeros(layout.space.num_classes + 1, np.int64)
    np.add.at(found.pixels, index, counts)


def _distinct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids (h, w) -> those that occur (n,); colours (h, w, 3) -> (n, 3); and the number of pixels of each."""
    if values.ndim == 3:
        packed = values.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
        colors, counts = np.unique(packed, return_counts=True)
        return np.stack([colors >> 16, colors >> 8 & 255, colors & 255], axis=-1).astype(np.uint8), counts
    # Pillow counts bytes as they are; bincount makes int64 of them first
    counts = Image.fromarray(values).histogram() if values.dtype == np.uint8 else np.bincount(values.ravel())
    counts = np.asarray(counts)
    ids = np.flatnonzero(counts)
    return ids.astype(values.dtype), counts[ids]


def _why_not(codes: Codes, layout: Layout, path: Path) -> str:
    """Why a map cannot be decoded, with the place."""
    try:
        layout.decode(codes, str(path))
    except ValueError as error:
        return _reason(path, error)
    raise AssertionError(f"{path}: its distinct codes were refused, the map was not")


def _reason(path: Path, error: ValueError) -> str:
    return str(error).removeprefix(f"{path}: ")


def _turned(pair: Pair, image: np.ndarray, codes: Codes) -> str:
    """What to say of a map that lies on its side; "" for any other."""
    (height, width), (map_height, map_width) = image.shape[:2], codes.values.shape[:2]
    if (map_height, map_width) != (width, height):
        return ""
    return (
        f"is {map_width}x{map_height} pixels, its picture {pair.image} {width}x{height}: width and height "
        "are exchanged; turn the map, or drop the picture's EXIF orientation"
    )


def _jpeg(path: Path) -> str:
    """What to say of a JPEG that is called .png; "" for any other file."""
    try:
        with path.open("rb") as file:
            is_jpeg = file.read(3) == b"\xff\xd8\xff"
    except OSError:
        return ""
    return (
        "is a JPEG, which changes ids and colours; export the map as PNG from its source" if is_jpeg else ""
    )
