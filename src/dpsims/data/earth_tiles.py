"""Makes the data set `earth`: satellite images of the whole Earth with maps of what covers the land.

NASA's Blue Marble (5400x2700) and MODIS land cover MCD12C1 of 2019 (7200x3600, the 17 IGBP classes) are both
plate carree: a degree of longitude is as wide as one of latitude, so that Norway is stretched threefold. Here
the globe is cut into bands of latitude, each in the Mercator projection that is true to scale in its middle:
shapes are right everywhere, and a pixel is about 0.053 degrees (5.9 km), as in the land cover. A band is cut
into square blocks; each block belongs to one split, and the tiles of a block overlap.

numpy and Pillow only, and integer arithmetic wherever a class depends on it: the same files on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from dpsims.labels import LabelSpace

SOUTH, NORTH = -60.0, 75.0
"""degrees of latitude; beyond them the Blue Marble has no sea floor, and almost all is ice"""
BANDS = 8
BLOCK = 320
"""side of a block in pixels, and the height of a band"""
TILE = 256
STEP = 32
"""between the tiles of a block: 3 x 3 of them"""
LEAST_LAND = 0.2
"""share of a tile's pixels; tiles with less are left out"""
SMOOTHING = 5
"""side of the square whose majority a pixel of the map takes; 3 for water, so that small lakes stay"""
SALT = 2022
SHARES = {"test": 0.18, "val": 0.08}
"""shares of the blocks; the rest is `train`"""

OF_IGBP = (
    "water", "needleleaf forest", "broadleaf forest", "needleleaf forest", "broadleaf forest", "mixed forest",
    "shrubland", "shrubland", "mixed forest", "savanna", "grassland", "wetland", "cropland", "urban",
    "cropland", "snow and ice", "desert",
)  # fmt: skip
"""IGBP class 0..16 -> ours. (Friedl and Sulla-Menashe, MCD12C1 v006 user guide, table 3.)"""
SHALLOW = 70
"""of 255: sea at least this bright in blue (over 9x9 pixels) is `shallow water`: shelves, reefs"""
WHITE, COLORLESS = 115, 28
"""of 255, over 5x5 pixels: land whose darkest color channel is at least WHITE, and whose channels differ by
no more than COLORLESS, is `snow and ice`: snow comes and goes, so what the image shows counts"""
RUGGED_WINDOW = 21
"""pixels of the shaded relief (0.7 degrees)"""
RUGGED = 100
"""see `_ruggedness`: land without forest is `mountains` from here on"""


@dataclass(frozen=True)
class Planet:
    """The three maps, each plate carree from 180 W, 90 N."""

    image: Image.Image
    """Blue Marble, RGB"""
    cover: Image.Image
    """IGBP classes 0..16, one byte each"""
    relief: Image.Image
    """shaded relief, RGB"""


@dataclass(frozen=True)
class Block:
    """A square of BLOCK pixels, and where it lies. name: such as `n24w118`, its middle."""

    name: str
    image: np.ndarray
    label: np.ndarray


@dataclass(frozen=True)
class Tile:
    split: str
    name: str
    image: np.ndarray
    """uint8 (TILE, TILE, 3)"""
    label: np.ndarray
    """uint8 (TILE, TILE), indices of the label space `earth`"""


def tiles(planet: Planet) -> Iterator[Tile]:
    """All tiles of the data set, the same ones in the same order each time."""
    space = LabelSpace.named("earth")
    water = [space.names.index(name) for name in ("water", "shallow water")]
    blocks = [(block, _tiles_of(block, water)) for block in _blocks(planet, space)]
    with_land = [(block, own) for block, own in blocks if own]
    splits = _splits([block.name for block, _ in with_land])
    for block, own in with_land:
        for name, image, label in own:
            yield Tile(splits[block.name], name, image, label)


def _splits(names: list[str]) -> dict[str, str]:
    """Block -> split; by a hash of its name, so that each split has blocks from all over the globe."""
    by_hash = sorted(names, key=lambda name: hashlib.sha256(f"{SALT}{name}".encode()).digest())
    splits = dict.fromkeys(names, "train")
    taken = 0
    for split, share in SHARES.items():
        count = round(share * len(names))
        splits |= dict.fromkeys(by_hash[taken : taken + count], split)
        taken += count
    return splits


def _tiles_of(block: Block, water: list[int]) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(name, image, label) of the tiles that have enough land."""
    found = []
    for row in range(0, BLOCK - TILE + 1, STEP):
        for column in range(0, BLOCK - TILE + 1, STEP):
            part = np.s_[row : row + TILE, column : column + TILE]
            label = block.label[part]
            if np.isin(label, water, invert=True).mean() >= LEAST_LAND:
                found.append((f"{block.name}_{row:02}_{column:02}", block.image[part], label))
    return found


def _blocks(planet: Planet, space: LabelSpace) -> Iterator[Block]:
    rugged = _ruggedness(planet.relief, planet.cover)
    height = (NORTH - SOUTH) / BANDS
    for band in range(BANDS):
        middle = SOUTH + (band + 0.5) * height
        latitudes, across = _mercator_rows(middle, height)
        count = across // BLOCK
        image = _project(planet.image, latitudes, across, Image.Resampling.LANCZOS)
        cover = _project(planet.cover, latitudes, across, Image.Resampling.NEAREST)
        rough = _project(rugged, latitudes, across, Image.Resampling.NEAREST)
        label = _classes(image, cover, rough >= RUGGED, space)
        first = (across - count * BLOCK) // 2  # what remains lies at the date line
        for column in range(first, first + count * BLOCK, BLOCK):
            longitude = (column + BLOCK / 2) / across * 360 - 180
            name = f"{'ns'[middle < 0]}{abs(middle):02.0f}{'ew'[longitude < 0]}{abs(longitude):03.0f}"
            part = np.s_[:, column : column + BLOCK]
            yield Block(name, image[part], label[part])


def _mercator_rows(middle: float, height: float) -> tuple[np.ndarray, int]:
    """Latitudes of the middles of a band's BLOCK rows, from north to south, and its width in pixels.

    The Mercator projection with the standard parallel `middle`, scaled so that the band, `height` degrees
    tall, has BLOCK rows; 360 degrees of longitude then take as many pixels as makes each pixel a square.
    """

    def mercator(latitude: np.ndarray | float) -> np.ndarray:
        return np.arctanh(np.sin(np.radians(latitude)))

    top, bottom = mercator(middle + height / 2), mercator(middle - height / 2)
    y = top + (np.arange(BLOCK) + 0.5) / BLOCK * (bottom - top)
    return np.degrees(np.arcsin(np.tanh(y))), round(2 * np.pi * BLOCK / float(top - bottom))


def _project(source: Image.Image, latitudes: np.ndarray, across: int, filter: Image.Resampling) -> np.ndarray:
    """The rows at these latitudes of a plate carree map, `across` pixels wide: (BLOCK, across[, 3]) uint8."""
    # rounded: libraries differ in the last bit
    rows = np.round((90 - latitudes) / 180 * source.height - 0.5, 6)
    first, last = int(rows[0]) - 8, int(rows[-1]) + 9
    strip = source.crop((0, first, source.width, last))
    if filter == Image.Resampling.NEAREST:
        return np.asarray(strip.resize((across, strip.height), filter))[np.rint(rows - first).astype(int)]
    # from here on in integers: a row is 256ths of its two neighbors
    pixels = np.asarray(strip.resize((across, strip.height), filter)).astype(np.int32)
    above = np.floor(rows).astype(int)
    weight = np.rint((rows - above) * 256).astype(np.int32)[:, None, None]
    between = pixels[above - first] * (256 - weight) + pixels[above - first + 1] * weight
    return ((between + 128) >> 8).astype(np.uint8)


def _classes(image: np.ndarray, cover: np.ndarray, rugged: np.ndarray, space: LabelSpace) -> np.ndarray:
    """Indices (h, w) uint8 of the label space, smoothed."""
    of = {name: index for index, name in enumerate(space.names)}
    label = np.array([of[name] for name in OF_IGBP], dtype=np.uint8)[cover]
    wet = _majority((label == of["water"]).astype(np.uint8), 3) > 0
    forest = (cover >= 1) & (cover <= 5)
    ice = label == of["snow and ice"]
    label[rugged & ~forest & ~ice] = of["mountains"]
    smoothed = np.asarray(Image.fromarray(image).filter(ImageFilter.BoxBlur(2))).astype(np.int16)
    white = (smoothed.min(axis=-1) >= WHITE) & (np.ptp(smoothed, axis=-1) <= COLORLESS)
    label[white] = of["snow and ice"]
    smooth = _majority(label, SMOOTHING)
    # land that has most of its neighbors in the sea stays what it was
    smooth = np.where(smooth == of["water"], label, smooth)
    blue = np.asarray(
        Image.fromarray(image[..., 2]).filter(ImageFilter.MaxFilter(7)).filter(ImageFilter.BoxBlur(4))
    )
    shallow = _majority((blue >= SHALLOW).astype(np.uint8), 9) > 0
    sea = np.where(shallow, of["shallow water"], of["water"])
    # single pixels of water, which `wet` leaves out, are land
    dry = np.where(smooth == of["water"], of["wetland"], smooth)
    return np.where(wet, sea, dry).astype(np.uint8)


def _majority(label: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(label).filter(ImageFilter.ModeFilter(side)))


def _ruggedness(relief: Image.Image, cover: Image.Image) -> Image.Image:
    """Eight times the mean distance of the relief's gray levels from their 7x7 mean, over a window's land."""
    gray = relief.convert("L")
    detail = ImageChops.difference(gray, gray.filter(ImageFilter.BoxBlur(3)))
    # a coast is a step from land to sea color, and no mountain
    land = cover.point([0] + [255] * 255).resize(relief.size, Image.Resampling.NEAREST)
    land = land.filter(ImageFilter.MinFilter(9))
    window = ImageFilter.BoxBlur(RUGGED_WINDOW // 2)
    loud = ImageChops.multiply(detail.point([min(8 * i, 255) for i in range(256)]), land)
    total, share = (np.asarray(x.filter(window)).astype(np.int32) for x in (loud, land))
    return Image.fromarray(
        np.where(share < 32, 0, total * 255 // np.maximum(share, 1)).clip(0, 255).astype(np.uint8)
    )
