"""A pair as the bytes that a shard holds."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from dpsims.data.pairs import Layout, Pair

_SAVING: dict[str, tuple[str, dict[str, Any]]] = {  # a scaled picture: as what, and how
    # colours in full resolution: they were scaled down like the rest, and halving them again would show
    "jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    "png": ("PNG", {}),
}


def contents(layout: Layout, pair: Pair, size: int | None) -> tuple[str, bytes, bytes]:
    """Suffix and bytes of a pair's picture, bytes of its label map. Raises ValueError naming a bad file."""
    try:
        image, label = layout.read(pair)  # all of it, so that no bad pair comes to light in a training
    except ValueError as error:
        raise ValueError(f"{error} (`dpsims data check {layout.root}` lists all)") from error
    picture = pair.image.read_bytes()
    suffix = {b"\xff\xd8": "jpg", b"\x89P": "png"}.get(picture[:2], "webp")
    if size is not None and min(label.shape) > size:
        image, label = _shrink(image, label, size)
        suffix = "png" if suffix == "png" else "jpg"
        name, options = _SAVING[suffix]
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, name, **options)
        picture = buffer.getvalue()
    try:
        ids = layout.space.encode_ids(label)
    except ValueError as error:
        raise ValueError(f"{pair.label}: {error}; give the label space an ignore_id") from error
    return suffix, picture, _id_png(ids)


def _shrink(image: np.ndarray, label: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Picture and label map with a shorter side of `size`."""
    height, width = (max(1, round(n * size / min(label.shape))) for n in label.shape)
    small = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    # the pixel in the middle of each new one, as in `batches`: the picture's resampling is centred, too
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in zip((height, width), label.shape, strict=True)
    )
    return np.array(small), label[rows[:, None], columns]


def _id_png(ids: np.ndarray) -> bytes:
    """A grey PNG of ids (h, w), uint8 or uint16.

    Not Pillow's: it filters each row, which makes label maps no smaller, and slower to decode (up to twice).
    """
    height, width = ids.shape
    depth = ids.itemsize
    rows = np.zeros((height, 1 + width * depth), np.uint8)  # each begins with its filter: 0, none
    rows[:, 1:] = ids.astype(f">u{depth}").view(np.uint8).reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8 * depth, 0, 0, 0, 0)  # grey, not interlaced
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
