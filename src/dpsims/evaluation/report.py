"""What is looked at: sample grids, contact sheets and a table of figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_GAP = 2  # pixels between two tiles
_PAPER = 255


def to_uint8(image: Float[Tensor, "*b 3 h w"]) -> UInt8[np.ndarray, "*b h w 3"]:
    """Pictures in [-1, 1] (values outside are cut off) -> RGB bytes, channels last."""
    bytes_ = image.detach().to("cpu", torch.float32).clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    return bytes_.movedim(-3, -1).numpy()


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

    classes: also the IoU of each class. A figure that a report does not have is shown as "-"; the reports'
    warnings follow below the table.
    """
    lines: dict[str, list[str]] = {}
    for column, report in enumerate(reports.values()):
        for name, value in _figures(report, classes):
            lines.setdefault(name, ["-"] * len(reports))[column] = _shown(value)
    table = [["", *reports], *([name, *values] for name, values in lines.items())]
    widths = [max(len(row[i]) for row in table) for i in range(len(reports) + 1)]
    text = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in table
    ]
    warnings = dict.fromkeys(w for report in reports.values() for w in report.get("warnings", ()))
    return "\n".join([*text, *(f"note: {w}" for w in warnings)])


def _figures(report: Mapping[str, Any], classes: bool) -> list[tuple[str, float | None]]:
    figures = [(f"Frechet distance ({name} features)", value) for name, value in report["frechet"].items()]
    figures += [("mIoU by the segmenter", report["miou"]), ("pixel accuracy", report["pixel_accuracy"])]
    figures += [("diversity (pixels)", report["diversity"])]
    figures += [
        (f"diversity ({name} features)", value) for name, value in report["diversity_features"].items()
    ]
    return figures + ([(f"IoU {name}", value) for name, value in report["iou"].items()] if classes else [])


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4f}"


def _paste(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    h, w, _ = rows[0][0].shape
    height, width = len(rows) * (h + _GAP) + _GAP, len(rows[0]) * (w + _GAP) + _GAP
    page = np.full((height, width, 3), _PAPER, dtype=np.uint8)
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            y, x = _GAP + i * (h + _GAP), _GAP + j * (w + _GAP)
            page[y : y + h, x : x + w] = tile
    return page
