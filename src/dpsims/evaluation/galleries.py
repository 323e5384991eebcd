"""The pictures of a page, within it: rows of them, as many as fit."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from dpsims.evaluation.figures import number
from dpsims.evaluation.markup import Html, tag

Picture = UInt8[np.ndarray, "h w 3"]


def _picture(picture: Picture, alt: str, caption: str, *, label_map: bool = False) -> Html:
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3, picture.shape
    buffer = io.BytesIO()
    if label_map:
        Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    else:  # no halved colour: at these sizes it would be seen, and taken for the model's
        Image.fromarray(picture).save(buffer, "JPEG", quality=90, subsampling=0)
    kind = "png" if label_map else "jpeg"
    source = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    height, width, _ = picture.shape
    class_ = "map" if label_map else None
    image = tag("img", src=source, alt=alt, width=width, height=height, class_=class_)
    return tag("figure", image, tag("figcaption", caption))


def map_row(
    name: str,
    label: Picture,
    real: Picture | None,
    generated: Sequence[Picture],
    iou: float | None = None,
    real_iou: float | None = None,
) -> Html:
    """Label map, real picture and generated ones of one map; iou, real_iou: of the generated and the real
    picture, for the title.
    """
    tiles = [_picture(label, f"label map of {name}", "label map", label_map=True)]
    if real is not None:
        tiles.append(_picture(real, f"real picture of {name}", "real"))
    for i, picture in enumerate(generated):
        caption = "generated" if i == 0 else "other noise"
        tiles.append(_picture(picture, f"picture {i + 1} generated from the label map of {name}", caption))
    title = name if iou is None else f"{name}: IoU {number(iou)}"
    if real_iou is not None:
        title += f"; the real picture: {number(real_iou)}"
    return tag("article", tag("h3", title), tag("div", *tiles, class_="tiles"))


def neighbour_row(
    name: str, picture: Picture, nearest: str, training: Picture, distance: float, usual: float | None
) -> Html:
    """A generated picture beside the nearest training picture; usual: distance of real test pictures."""
    tiles = (
        _picture(picture, f"picture generated from the label map of {name}", f"generated: {name}"),
        _picture(training, f"training picture {nearest}", f"nearest in training: {nearest}"),
    )
    beside = "" if usual is None else f" (usual for real pictures: {number(usual)})"
    title = tag("h3", f"{name}: distance {number(distance)}{beside}")
    return tag("article", title, tag("div", *tiles, class_="tiles"), class_="pair")


def fitting(rows: Sequence[Any], room: int, make: Callable[..., Html]) -> tuple[list[Html], int]:
    """The first rows that fit into `room` bytes, and the bytes that they take."""
    made, used = [], 0
    for row in rows:
        markup = make(*row)
        size = len(markup.encode())
        if used + size > room:
            break
        made.append(markup)
        used += size
    return made, used


def gallery(
    title: str, about: str, rows: Sequence[Html], given: int, limit: int, otherwise: Html | None = None
) -> Html:
    """A section of `rows`, out of as many as were given; `otherwise`, a table, where none were."""
    if not given:
        return tag("section", tag("h2", title), otherwise) if otherwise else Html()
    parts = [tag("h2", title), tag("p", about, class_="soft")]
    if len(rows) < given:
        parts.append(
            tag("p", f"{len(rows)} of {given} are shown: the page is kept under {limit / 1e6:g} MB.")
        )
    return tag("section", *parts, tag("div", *rows, class_="rows"))
