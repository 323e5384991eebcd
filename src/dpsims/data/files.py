"""Reading pictures and label maps from files, with errors that name the file."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from dpsims.labels import LabelSpace

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
LABEL_SUFFIX = ".png"
MAX_PIXELS = 64_000_000
"""Larger files are refused by their header, before any pixel is decoded: they may be decompression bombs."""

_IMAGE_MODES = ("RGB", "RGBA", "L", "LA", "P", "CMYK", "YCbCr", "1")  # 8 bits a channel, at most


class NamedBytes(io.BytesIO):
    """A file's content; in messages it stands for its name."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name

    def __str__(self) -> str:
        return self.name


def read_image(path: str | Path | NamedBytes) -> np.ndarray:
    """A JPEG, PNG or WebP picture as uint8 RGB (h, w, 3), turned upright as its EXIF says.

    Raises ValueError naming the file where it is missing, damaged, not a picture, larger than MAX_PIXELS or
    deeper than 8 bits.
    """
    image = _decode(path, ("JPEG", "PNG", "WEBP"))
    if image.mode not in _IMAGE_MODES:
        raise ValueError(f"{path}: pixels of kind {image.mode}; save the picture with 8 bits a channel")
    ImageOps.exif_transpose(image, in_place=True)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


class Codes(NamedTuple):
    """A label map as its file codes it.

    values: ids (h, w), uint8 or uint16, or colours uint8 (h, w, 3); palette: uint8 (n, 3), the colours that a
    palette file gives its ids.
    """

    values: np.ndarray
    palette: np.ndarray | None = None


def read_codes(path: str | Path | NamedBytes) -> Codes:
    """A label-map PNG as it is coded. Grey levels and palette indices are ids.

    Raises ValueError naming the file, as `read_image` does.
    """
    image = _decode(path, ("PNG",))
    if image.mode == "P":
        colors = np.array(image.getpalette("RGB") or (), dtype=np.uint8).reshape(-1, 3)
        return Codes(np.array(image), colors)
    if image.mode == "L":
        return Codes(np.array(image))
    if image.mode == "1":  # two classes
        return Codes(np.array(image, dtype=np.uint8))
    if image.mode.startswith("I"):  # 16-bit grey
        return Codes(np.array(image).astype(np.uint16))
    if image.mode in ("RGB", "RGBA"):
        return Codes(np.array(image)[..., :3])
    raise ValueError(f"{path}: pixels of kind {image.mode}; save label maps as grey, palette or RGB PNG")


def decode_codes(codes: Codes, space: LabelSpace, where: str) -> np.ndarray:
    """What `read_codes` gave -> class indices (h, w) int64.

    Raises ValueError naming `where` and the code where one belongs to no class, and for a palette file whose
    colours say other classes than its ids.
    """
    if codes.values.ndim == 3:
        return space.decode_colors(codes.values, where)
    if codes.palette is not None:
        _refuse_other_palette(codes.values, codes.palette, space, where)
    return space.decode_ids(codes.values, where)


def _refuse_other_palette(ids: np.ndarray, palette: np.ndarray, space: LabelSpace, where: str) -> None:
    """A coloured map saved with a palette of the program's own has the right colours and the wrong ids.

    It shows where every colour in use is one of the label space's, and an id's class is not its colour's.
    """
    used = np.flatnonzero(np.bincount(ids.ravel(), minlength=len(palette)))
    if not len(used) or used[-1] >= len(palette):
        return
    colors = palette[used]
    by_color = space.classes_of_colors(colors)
    if (by_color < 0).any() or (colors == used[:, None]).all():
        return  # other colours than our classes', or plain grey levels: it says nothing of our classes
    by_id = space.classes_of_ids(used)
    wrong = (by_color != by_id) & (by_color != space.ignore_index)  # black often stands for "whatever"
    if wrong.any():
        k = int(np.argmax(wrong))
        meant = [*space.names, "unlabelled", "no class"][by_id[k]]
        raise ValueError(
            f"{where}: id {used[k]} is {meant}, but its palette shows it in the colour of "
            f"{space.names[by_color[k]]}; say which is right: dpsims data convert --palette ids (or colors)"
        )


def read_label(path: str | Path, space: LabelSpace) -> np.ndarray:
    """A label-map PNG as class indices (h, w) int64.

    Grey (8 or 16 bits) and palette PNGs hold ids, RGB ones the colours of `space`. Raises ValueError naming
    the file where it cannot be read, or where a pixel belongs to no class.
    """
    return decode_codes(read_codes(path), space, str(path))


def list_maps(paths: Iterable[str | Path]) -> list[Path]:
    """The label-map PNGs among files and folders, each once; of a folder all, by name, subfolders left out.

    Raises ValueError where a path is missing or no PNG, a folder has none, or two maps have the same stem
    (what is made of one would overwrite the other).
    """
    found: dict[str, Path] = {}
    for path in map(Path, paths):
        if path.is_dir():
            maps = files_with(path, (LABEL_SUFFIX,))
            if not maps:
                raise ValueError(f"{path}: no label maps (*.png) in this folder")
            if any(item.name.endswith("_instanceIds.png") for item in maps):
                raise ValueError(
                    f"{path}: holds several kinds of maps of each picture, as Cityscapes does; name the "
                    f"files: {path}/*_labelIds.png"
                )
        elif not path.is_file():
            raise ValueError(f"{path}: no such file or folder; give label-map PNGs or folders of them")
        elif path.suffix.lower() != LABEL_SUFFIX:
            raise ValueError(f"{path}: label maps are PNG files (JPEG changes ids and colours)")
        else:
            maps = [path]
        for item in maps:
            other = found.setdefault(item.stem, item)
            if other.resolve() != item.resolve():
                raise ValueError(f"{item}: same name as {other}; give each a call and an output of its own")
    if not found:
        raise ValueError("no label maps given: name PNG files or folders of them")
    return list(found.values())


def files_with(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The folder's files with one of the suffixes (any case), by name; not the hidden ones (`._a.png`)."""
    with os.scandir(folder) as entries:  # asks the system once, not once a file
        names = [
            entry.name
            for entry in entries
            if entry.name.lower().endswith(suffixes) and not entry.name.startswith(".") and entry.is_file()
        ]
    return [folder / name for name in sorted(names)]


def _decode(path: str | Path | NamedBytes, formats: tuple[str, ...]) -> Image.Image:
    try:
        with Image.open(path, formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            image.load()
            return image
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{path}: more than {MAX_PIXELS:,} pixels; make it smaller") from error
    except Image.UnidentifiedImageError as error:
        wanted = " or ".join(formats)
        raise ValueError(f"{path}: is not a {wanted} file, or its beginning is damaged") from error
    except Exception as error:  # on damaged files Pillow raises OSError, SyntaxError, struct.error, ...
        raise ValueError(f"{path}: cannot be read ({error}); if it is cut short, copy it anew") from error
