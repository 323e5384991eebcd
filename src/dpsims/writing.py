"""Files that appear whole or not at all."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


def write_whole(path: Path, content: bytes) -> None:
    """Write under another name, then rename: nobody ever reads half a file. May raise OSError."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_png(path: Path, image: Image.Image) -> None:
    """The picture as a PNG file that appears whole. May raise OSError."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    write_whole(path, buffer.getvalue())
