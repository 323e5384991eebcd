"""A contact sheet of pairs: a wrong palette, shifted ids or maps of other pictures are seen at one look."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dpsims.labels import LabelSpace

if TYPE_CHECKING:
    from dpsims.data.pairs import Layout, Pair
    from dpsims.data.report import DataReport

_TILE = 160
_GAP, _LINE = 6, 16
_COLUMNS = 4
_LEGEND_WIDTH = 164
_MAP_OVER_PICTURE = 0.8  # enough of the picture shows through to see whether outlines meet


def contact_sheet(layout: Layout, report: DataReport, count: int = 24) -> Image.Image:
    """About `count` good pairs, evenly spaced in each split: picture, and map in the classes' colours.

    Below them stand the names and colours of the classes that occur. Raises ValueError where no pair is good.
    """
    chosen = _choose(layout, {bad.path for bad in report.bad}, count)
    if not chosen:
        raise ValueError(f"{layout.root}: no good pair to show; mend the problems of the report first")
    cells, seen = [], np.zeros(layout.space.num_classes + 1, bool)
    for split, pair in chosen:
        image, label = layout.read(pair)
        seen[np.unique(label)] = True
        cells.append(_cell(image, label, layout.space, f"{split} {pair.name}"))
    rows = [cells[i : i + _COLUMNS] for i in range(0, len(cells), _COLUMNS)]
    heights = [max(cell.height for cell in row) + _GAP for row in rows]
    width = _GAP + min(len(cells), _COLUMNS) * (cells[0].width + 2 * _GAP)
    legend = _legend(layout.space, seen, width - 2 * _GAP)
    page = Image.new("RGB", (width, sum(heights) + legend.height + 2 * _GAP), "white")
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            page.paste(cell, (_GAP + j * (cell.width + 2 * _GAP), _GAP + sum(heights[:i])))
    page.paste(legend, (_GAP, sum(heights) + _GAP))
    return page


def _choose(layout: Layout, bad: set[Path], count: int) -> list[tuple[str, Pair]]:
    """(split, pair), as many of each split as the splits hold good ones."""
    good = {
        split: [pair for pair in pairs if pair.image not in bad and pair.label not in bad]
        for split, pairs in layout.splits.items()
    }
    good = {split: pairs for split, pairs in good.items() if pairs}
    chosen = []
    for i, (split, pairs) in enumerate(good.items()):
        share = min(len(pairs), count // len(good) + (i < count % len(good)))
        # the middle of each of `share` equal parts
        chosen += [(split, pairs[(2 * k + 1) * len(pairs) // (2 * share)]) for k in range(share)]
    return chosen


def _cell(image: np.ndarray, label: np.ndarray, space: LabelSpace, caption: str) -> Image.Image:
    """Picture and map side by side, at most _TILE pixels each way, with a caption above."""
    height, width = label.shape
    factor = _TILE / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    shrink = Image.Resampling.BOX if factor < 1 else Image.Resampling.NEAREST
    picture = Image.fromarray(image).resize(size, shrink)
    colors = Image.fromarray(space.colorize(label)).resize(size, Image.Resampling.NEAREST)
    blended = Image.blend(picture.convert("L").convert("RGB"), colors, _MAP_OVER_PICTURE)
    cell = Image.new("RGB", (2 * _TILE + 2, size[1] + _LINE), "white")
    _text(cell, (0, 0), caption, cell.width)
    cell.paste(picture, (0, _LINE))
    cell.paste(blended, (size[0] + 2, _LINE))
    return cell


def _legend(space: LabelSpace, seen: np.ndarray, width: int) -> Image.Image:
    """Colour, id and name of each class that was seen, in columns; blended as in the maps."""
    columns = max(1, width // _LEGEND_WIDTH)
    entries = np.flatnonzero(seen).tolist()
    legend = Image.new("RGB", (width, -(-len(entries) // columns) * _LINE), "white")
    draw = ImageDraw.Draw(legend)
    for k, index in enumerate(entries):
        x, y = k % columns * _LEGEND_WIDTH, k // columns * _LINE
        draw.rectangle((x, y + 2, x + 20, y + 13), fill=tuple(space.palette[index].tolist()), outline="black")
        name = f"{space.ids[index]} {space.names[index]}" if index < space.num_classes else "unlabelled"
        _text(legend, (x + 26, y), name, _LEGEND_WIDTH - 30)
    return legend


def _text(page: Image.Image, place: tuple[int, int], text: str, width: int) -> None:
    """One line of text; of a long one the end, which tells file names apart."""
    font = ImageFont.load_default(12)
    if font.getlength(text) > width:
        while font.getlength(f"...{text}") > width:
            text = text[1:]
        text = f"...{text}"
    ImageDraw.Draw(page).text(place, text, fill="black", font=font)
