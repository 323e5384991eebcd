"""What is looked at: sample grids, contact sheets and a table of figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dpsims.evaluation.figures import class_figures, figures, in_order

_GAP = 2  # pixels between two tiles
_PAPER = 255


def to_bytes(image: Float[Tensor, "*b 3 h w"]) -> UInt8[Tensor, "*b 3 h w"]:
    """Pictures in [-1, 1] (values outside are cut off) -> bytes; those read from 8-bit files come back."""
    return image.float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)


def to_uint8(image: Float[Tensor, "*b 3 h w"]) -> UInt8[np.ndarray, "*b h w 3"]:
    """Pictures in [-1, 1] (values outside are cut off) -> RGB bytes, channels last."""
    return to_bytes(image.detach().cpu()).movedim(-3, -1).numpy()


def rows_of(
    label: Int[Tensor, "b h w"],
    real: Float[Tensor, "b 3 h w"] | None,
    fakes: Sequence[Float[Tensor, "b 3 h w"]],
    palette: UInt8[np.ndarray, "k 3"],
) -> list[list[np.ndarray]]:
    """One row of uint8 tiles per map: label map in the palette's colours (unlabelled: its last), real, each
    sample.

    real: None where there is no photograph.
    """
    columns = [palette[label.cpu().numpy()]]
    columns += [to_uint8(images) for images in ([] if real is None else [real]) + list(fakes)]
    return [list(row) for row in zip(*columns, strict=True)]


def grid(
    label: Int[Tensor, "b h w"],
    real: Float[Tensor, "b 3 h w"] | None,
    fakes: Sequence[Float[Tensor, "b 3 h w"]],
    palette: UInt8[np.ndarray, "k 3"],
) -> UInt8[np.ndarray, "height width 3"]:
    """label map | real | samples, a row per map, with a white line between tiles: the sample grid of a
    training.
    """
    return _paste(rows_of(label, real, fakes, palette))


def contact_sheet(
    rows: Sequence[Sequence[UInt8[np.ndarray, "h w 3"]]], titles: Sequence[str] = (), tile_height: int = 128
) -> Image.Image:
    """Rows of equally large tiles (see `rows_of`) -> one picture, a title above each column.

    Tiles lower than `tile_height` are enlarged by a whole factor, so that their pixels stay what they are.
    Raises ValueError for no rows, rows of unequal length, tiles of unequal size, or more or fewer titles than
    columns.
    """
    shapes = {tile.shape for row in rows for tile in row}
    if len(shapes) != 1 or len({len(row) for row in rows}) != 1:
        raise ValueError(
            f"a contact sheet needs rows of one length and tiles of one size, got sizes {sorted(shapes)}"
        )
    if titles and len(titles) != len(rows[0]):
        raise ValueError(f"titles={list(titles)}: there are {len(rows[0])} columns")
    factor = max(1, tile_height // next(iter(shapes))[0])
    sheet = Image.fromarray(_paste([[t.repeat(factor, 0).repeat(factor, 1) for t in row] for row in rows]))
    if not titles:
        return sheet
    font = ImageFont.load_default(14)
    head = 22
    page = Image.new("RGB", (sheet.width, sheet.height + head), (_PAPER,) * 3)
    page.paste(sheet, (0, head))
    step = rows[0][0].shape[1] * factor + _GAP
    for column, title in enumerate(titles):
        ImageDraw.Draw(page).text((_GAP + column * step, 3), title, fill=(0, 0, 0), font=font)
    return page


def text_table(reports: Mapping[str, Mapping[str, Any]], classes: bool = False) -> str:
    """Reports of `evaluate` (or their "real" sections) side by side as plain text, a column each.

    classes: also the IoU of each class. "+-" is the spread over subsets, brackets a 95 % interval. A figure
    that a report does not have is shown as "-"; the reports' warnings follow below the table.
    """
    table = [["", *reports]]
    for kind in (figures, class_figures) if classes else (figures,):
        # by the rows' short names: networks' titles are only in whole reports, not in their "real" sections
        columns = [{figure.row: figure for figure in kind(report).values()} for report in reports.values()]
        for row in in_order(columns):
            cells = [column.get(row) for column in columns]
            table.append([row, *("-" if figure is None else figure.shown("+-") for figure in cells)])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    text = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in table
    ]
    warnings = dict.fromkeys(w for report in reports.values() for w in report.get("warnings", ()))
    return "\n".join([*text, *(f"note: {w}" for w in warnings)])


def _paste(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    h, w, _ = rows[0][0].shape
    height, width = len(rows) * (h + _GAP) + _GAP, len(rows[0]) * (w + _GAP) + _GAP
    page = np.full((height, width, 3), _PAPER, dtype=np.uint8)
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            y, x = _GAP + i * (h + _GAP), _GAP + j * (w + _GAP)
            page[y : y + h, x : x + w] = tile
    return page
