"""A contact sheet of pairs: a wrong palette, shifted ids or maps of other pictures are seen at one look."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dpsims.data.files import Codes, read_codes, read_image
from dpsims.data.shards import Shards
from dpsims.labels import LabelSpace

if TYPE_CHECKING:
    from dpsims.data.pairs import Layout
    from dpsims.data.report import DataReport

_TILE = 160
_GAP, _LINE = 6, 16
_COLUMNS = 3
_LEGEND_WIDTH = 164
_MAP_OVER_PICTURE = 0.6  # enough of the picture shows through to see whether outlines meet
_NO_CLASS = (255, 0, 255)
_HATCH = 6  # pixels from line to line


class _Shown(NamedTuple):
    """A pair for the sheet. classes: indices (h, w); K is unlabelled, K+1 an id or colour of no class."""

    caption: str
    image: np.ndarray
    classes: np.ndarray


def contact_sheet(layout: Layout, report: DataReport, count: int = 24) -> Image.Image:
    """About `count` pairs, evenly spaced in each split: picture, map over picture, and map.

    The maps are in the classes' colours, unlabelled pixels hatched, ids and colours of no class magenta.
    Below them stand the names and colours of what occurs. Raises ValueError where no pair has a picture and a
    map that can be read and have the same size.
    """
    left_out = {bad.path for bad in report.bad} - report.drawable
    pairs = {
        split: [pair for pair in pairs if pair.image not in left_out and pair.label not in left_out]
        for split, pairs in layout.splits.items()
    }

    def shown() -> Iterator[_Shown]:
        for split, k in _choose({split: len(pairs) for split, pairs in pairs.items()}, count):
            pair = pairs[split][k]
            index = _decode(read_codes(pair.label), layout.space, layout.file_space)
            yield _Shown(f"{split} {pair.name}", read_image(pair.image), index)

    return _sheet(layout.root, layout.space, shown())


def shards_sheet(root: Path, report: DataReport, count: int = 24) -> Image.Image:
    """The same of a folder of shards. report: what `check_shards` found there. Raises as `contact_sheet`."""
    splits = {split: Shards(root, split) for split, pairs in report.pairs.items() if pairs}

    def shown() -> Iterator[_Shown]:
        for split, k in _choose({split: len(shards) for split, shards in splits.items()}, count):
            try:
                picture, label = splits[split].files(k)
                image, codes = read_image(picture), read_codes(label)
            except ValueError:
                continue  # a damaged shard, which the report names
            yield _Shown(f"{split} {splits[split].names[k]}", image, _decode(codes, report.space))

    return _sheet(root, report.space, shown())


def _choose(sizes: dict[str, int], count: int) -> list[tuple[str, int]]:
    """(split, place in it), as many of each split. sizes: split -> pairs to choose from."""
    sizes = {split: size for split, size in sizes.items() if size}
    chosen = []
    for i, (split, size) in enumerate(sizes.items()):
        share = min(size, count // len(sizes) + (i < count % len(sizes)))
        # the middle of each of `share` equal parts
        chosen += [(split, (2 * k + 1) * size // (2 * share)) for k in range(share)]
    return chosen


def _decode(codes: Codes, space: LabelSpace, file_space: LabelSpace | None = None) -> np.ndarray:
    """Class indices of `space`, and K+1 where `Layout.decode` would raise for an id or a colour."""
    coding = file_space or space
    values = codes.values
    index = coding.classes_of_ids(values) if values.ndim == 2 else coding.classes_of_colors(values)
    table = np.arange(space.num_classes + 1)
    if file_space is not None:
        table = file_space.table_to(space, drop=True)
    return np.append(table, space.num_classes + 1)[index]  # -1 is the last one


def _sheet(root: Path, space: LabelSpace, shown: Iterator[_Shown]) -> Image.Image:
    cells, seen = [], np.zeros(space.num_classes + 2, bool)
    for pair in shown:
        if pair.image.shape[:2] == pair.classes.shape:
            seen[np.unique(pair.classes)] = True
            cells.append(_cell(pair, space))
    if not cells:
        raise ValueError(
            f"{root}: no pair to show, since none has a picture and a map that can be read and have the same "
            "size; mend the problems of the report first"
        )
    rows = [cells[i : i + _COLUMNS] for i in range(0, len(cells), _COLUMNS)]
    heights = [max(cell.height for cell in row) + _GAP for row in rows]
    width = _GAP + min(len(cells), _COLUMNS) * (cells[0].width + 2 * _GAP)
    legend = _legend(space, seen, width - 2 * _GAP)
    page = Image.new("RGB", (width, sum(heights) + legend.height + 2 * _GAP), "white")
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            page.paste(cell, (_GAP + j * (cell.width + 2 * _GAP), _GAP + sum(heights[:i])))
    page.paste(legend, (_GAP, sum(heights) + _GAP))
    return page


def _cell(pair: _Shown, space: LabelSpace) -> Image.Image:
    """The three tiles side by side, at most _TILE pixels each way, with a caption above."""
    height, width = pair.classes.shape
    factor = _TILE / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    shrink = Image.Resampling.BOX if factor < 1 else Image.Resampling.NEAREST
    picture = Image.fromarray(pair.image).resize(size, shrink)
    index = np.array(Image.fromarray(pair.classes.astype(np.int32)).resize(size, Image.Resampling.NEAREST))
    # single pixels of no class would be lost
    nowhere = Image.fromarray(np.where(pair.classes > space.num_classes, 255, 0).astype(np.uint8))
    index[np.array(nowhere.resize(size, shrink)) > 0] = space.num_classes + 1
    colors = Image.fromarray(_paint(index, space))
    blended = Image.blend(picture.convert("L").convert("RGB"), colors, _MAP_OVER_PICTURE)
    cell = Image.new("RGB", (3 * _TILE + 4, size[1] + _LINE), "white")
    _text(cell, (0, 0), pair.caption, cell.width)
    for k, tile in enumerate((picture, blended, colors)):
        cell.paste(tile, (k * (size[0] + 2), _LINE))
    return cell


def _paint(index: np.ndarray, space: LabelSpace) -> np.ndarray:
    """Indices (h, w), up to K+1 -> colours uint8 (h, w, 3); unlabelled is hatched: classes are dark, too."""
    colors = np.vstack([space.palette, np.array([_NO_CLASS], np.uint8)])[index]
    y, x = np.indices(index.shape)
    line = 70 if sum(space.ignore_color) > 3 * 128 else 190
    colors[(index == space.ignore_index) & ((x + y) % _HATCH < 2)] = line
    return colors


def _legend(space: LabelSpace, seen: np.ndarray, width: int) -> Image.Image:
    """Colour, id and name of each class that was seen, in columns; painted as in the maps."""
    columns = max(1, width // _LEGEND_WIDTH)
    entries = np.flatnonzero(seen).tolist()
    names = [f"{i} {name}" for i, name in zip(space.ids, space.names, strict=True)]
    names += ["unlabelled", "no class"]
    legend = Image.new("RGB", (width, -(-len(entries) // columns) * _LINE), "white")
    draw = ImageDraw.Draw(legend)
    for k, index in enumerate(entries):
        x, y = k % columns * _LEGEND_WIDTH, k // columns * _LINE
        legend.paste(Image.fromarray(_paint(np.full((12, 21), index), space)), (x, y + 2))
        draw.rectangle((x, y + 2, x + 20, y + 13), outline="black")
        _text(legend, (x + 26, y), names[index], _LEGEND_WIDTH - 30)
    return legend


def _text(page: Image.Image, place: tuple[int, int], text: str, width: int) -> None:
    """One line of text; of a long one the end, which tells file names apart."""
    font = ImageFont.load_default(12)
    if font.getlength(text) > width:
        while font.getlength(f"...{text}") > width:
            text = text[1:]
        text = f"...{text}"
    ImageDraw.Draw(page).text(place, text, fill="black", font=font)
