"""Reading pictures and label maps from files, with errors that name the file."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from functools import lru_cache
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
    image, depth = _decode(path, ("JPEG", "PNG", "WEBP"))
    if image.mode not in _IMAGE_MODES or "16" in depth:
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


def read_codes(path: str | Path | NamedBytes, max_pixels: int | None = None) -> Codes:
    """A label-map PNG as it is coded. Grey levels and palette indices are ids. Files of more than
    `max_pixels` (None: MAX_PIXELS) are refused by their header.

    Raises ValueError naming the file, as `read_image` does.
    """
    image, depth = _decode(path, ("PNG",), max_pixels)
    if image.mode == "P":
        colors = np.array(image.getpalette("RGB") or (), dtype=np.uint8).reshape(-1, 3)
        return Codes(np.array(image), colors)
    if image.mode == "L":
        levels = np.array(image)
        stretched = {"L;2": 85, "L;4": 17}.get(depth)  # Pillow stretches grey levels of few bits to 0..255
        return Codes(levels if stretched is None else levels // stretched)
    if image.mode == "1":  # two classes
        return Codes(np.array(image, dtype=np.uint8))
    if image.mode.startswith("I"):  # 16-bit grey
        return Codes(np.array(image).astype(np.uint16))
    if image.mode in ("RGB", "RGBA") and "16" not in depth:
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
    suspicious, by_color = _contradictions(space, palette.tobytes())
    if not suspicious:  # the usual palette; counting ids would cost as much as decoding them
        return
    used = np.flatnonzero(np.bincount(ids.ravel(), minlength=len(palette)))
    if not len(used) or used[-1] >= len(palette) or (by_color[used] < 0).any():
        return  # colours that are not our classes': it says nothing of them
    wrong = sorted(suspicious.intersection(used.tolist()))
    if wrong:
        meant = [*space.names, "unlabelled", "no class"][space.classes_of_ids(np.array(wrong[:1]))[0]]
        raise ValueError(
            f"{where}: id {wrong[0]} is {meant}, but its palette shows it in the colour of "
            f"{space.names[by_color[wrong[0]]]}; say which is right: dpsims data convert --palette ids (or "
            "colors)"
        )


@lru_cache(maxsize=64)
def _contradictions(space: LabelSpace, palette: bytes) -> tuple[frozenset[int], np.ndarray]:
    """Ids that the palette shows in another class's colour, and the class of each entry's colour or -1."""
    colors = np.frombuffer(palette, np.uint8).reshape(-1, 3)
    ids = np.arange(len(colors))
    by_color = space.classes_of_colors(colors)
    if (colors == ids[:, None]).all():  # plain grey levels
        return frozenset(), by_color
    # black, or whatever unlabelled pixels are, often stands for entries that are not used
    wrong = (by_color >= 0) & (by_color != space.classes_of_ids(ids)) & (by_color != space.ignore_index)
    return frozenset(np.flatnonzero(wrong).tolist()), by_color


def read_label(path: str | Path, space: LabelSpace) -> np.ndarray:
    """A label-map PNG as class indices (h, w) int64.

    Grey (8 or 16 bits) and palette PNGs hold ids, RGB ones the colours of `space`. Raises ValueError naming
    the file where it cannot be read, or where a pixel belongs to no class.
    """
    codes = read_codes(path)
    if codes.values.ndim == 2 and codes.palette is None:  # as Cityscapes' own; converted ones have a palette
        _refuse_other_coding(path, space)
    return decode_codes(codes, space, str(path))


def _refuse_other_coding(path: str | Path, space: LabelSpace) -> None:
    """Cityscapes' two codings share numbers: a map of the other one can be read, as other classes."""
    for ending, road in (("_labelIds.png", 7), ("_labelTrainIds.png", 0)):
        ids = {name.casefold(): i for name, i in zip(space.names, space.ids, strict=True)}
        if str(path).endswith(ending) and ids.get("road", road) != road:
            mend = (
                "dpsims data convert --classes cityscapes --to-classes cityscapes_trainids (or the reverse)"
            )
            raise ValueError(
                f"{path}: by its name `road` is id {road}, here it is {ids['road']}; convert it: {mend}"
            )


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


def _decode(
    path: str | Path | NamedBytes, formats: tuple[str, ...], max_pixels: int | None = None
) -> tuple[Image.Image, str]:
    """The picture, and how the file holds its pixels: Pillow's raw mode (`L;4`, `RGB;16B`), or ""."""
    max_pixels = MAX_PIXELS if max_pixels is None else max_pixels
    try:
        with Image.open(path, formats=formats) as image:
            if image.width * image.height > max_pixels:
                raise Image.DecompressionBombError
            raw = image.tile[0].args if image.tile else ""
            image.load()
            return image, raw if isinstance(raw, str) else ""
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{path}: more than {max_pixels:,} pixels; make it smaller") from error
    except Image.UnidentifiedImageError as error:
        wanted = " or ".join(formats)
        raise ValueError(f"{path}: is not a {wanted} file, or its beginning is damaged") from error
    except Exception as error:  # on damaged files Pillow raises OSError, SyntaxError, struct.error, ...
        raise ValueError(f"{path}: cannot be read ({error}); if it is cut short, copy it anew") from error
