"""Label maps and region maps from the bytes of a request."""

from __future__ import annotations

import base64
import io
import zipfile

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from dpsims.data.files import NamedBytes, decode_codes, read_codes
from dpsims.labels import LabelSpace
from dpsims.studio.limits import MAX_PIXELS, MAX_REGIONS, MIN_SIDE
from dpsims.studio.schemas import MapContent, Settings
from dpsims.synthesis import Synthesizer

STEM = "picture"


def read_map(content: bytes, space: LabelSpace) -> Int[np.ndarray, "h w"]:
    """A PNG with ids or colours -> class indices int64. Raises ValueError for what is none, or too large."""
    codes = read_codes(NamedBytes(content, "map"), MAX_PIXELS)
    if min(codes.values.shape[:2]) < MIN_SIDE:
        height, width = codes.values.shape[:2]
        raise ValueError(f"map: {height}x{width} pixels; give at least {MIN_SIDE} each way")
    return decode_codes(codes, space, "map")


def read_regions(content: bytes, size: tuple[int, ...], count: int) -> Int[np.ndarray, "h w"]:
    """A grey or palette PNG of region numbers 0..count -> int64; 0: the picture's own noise.

    Raises ValueError for a PNG that is none, of another size than the map, or with other numbers.
    """
    if count > MAX_REGIONS:
        raise ValueError(f"region_seeds: {count} of them; use at most {MAX_REGIONS}")
    regions = read_codes(NamedBytes(content, "regions"), MAX_PIXELS).values
    if regions.ndim != 2:
        raise ValueError("regions: a coloured PNG; give a grey or palette one with the regions' numbers")
    if regions.shape != size:
        here, there = ("x".join(map(str, shape)) for shape in (regions.shape, size))
        raise ValueError(f"regions: {here} pixels, the map has {there}; give both the same size")
    if regions.max() > count:
        raise ValueError(
            f"regions: number {regions.max()}, but there are {count} region_seeds; region n has the n-th of "
            "them, 0 is the rest of the picture"
        )
    return regions.astype(np.int64)


def noise_of(
    synthesizer: Synthesizer, seeds: list[int], blend_seed: int | None, blend: float, region_seeds: list[int]
) -> Float[Tensor, "m ..."]:
    """Noise of one picture for each of `seeds`, (m, n, d); with regions (m, 1 + regions, n, d).

    blend 0..1 turns it into the noise of `blend_seed`: along an arc, as a mean would have too small a
    variance.
    """
    noise = torch.cat([synthesizer.noise(1, seed) for seed in seeds])
    if blend_seed is not None and blend > 0:
        angle = torch.tensor(blend * torch.pi / 2)
        noise = angle.cos() * noise + angle.sin() * synthesizer.noise(1, blend_seed)
    if not region_seeds:
        return noise
    regions = torch.cat([synthesizer.noise(1, seed) for seed in region_seeds])
    return torch.cat([noise[:, None], regions.expand(len(seeds), *regions.shape)], 1)


def to_png(picture: UInt8[np.ndarray, "h w *rgb"]) -> bytes:
    """PNG bytes, RGB or grey; compressed little, which takes a fraction of the time."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def to_zip(
    pictures: UInt8[np.ndarray, "m h w 3"], content: bytes, regions: bytes | None, settings: Settings
) -> bytes:
    """picture_0.png ..., the label map as it came, the regions, and settings.json."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for i, picture in enumerate(pictures):
            archive.writestr(f"{STEM}_{i}.png", to_png(picture))
        archive.writestr("map.png", content)
        if regions is not None:
            archive.writestr("regions.png", regions)
        archive.writestr("settings.json", settings.model_dump_json(indent=1))
    return buffer.getvalue()


def to_content(name: str, label: Int[np.ndarray, "h w"], space: LabelSpace) -> MapContent:
    """For the page, whose browser would turn a palette PNG into colours."""
    kind = "u1" if space.num_classes < 256 else "<u2"
    indices = base64.b64encode(label.astype(kind).tobytes()).decode()
    return MapContent(name=name, height=label.shape[0], width=label.shape[1], indices=indices)
