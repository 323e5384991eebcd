"""Draw the example maps of the label space `earth`: six invented places, the same ones each time.

    .venv/bin/python tools/draw_earth_examples.py [DIR]

Each place has a height above the sea, a warmth, a wetness and a ruggedness, made of seeded fractal noise and
of distances to hand-set lines. The classes follow from these as on the Earth, and are smoothed as those of
the training set (`dpsims.data.earth_tiles`). The maps are part of the package: the studio opens with them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from dpsims.labels import LabelSpace

SIZE = 256
OUT = Path(__file__).parent.parent / "src/dpsims/assets/examples/earth"
SPACE = LabelSpace.named("earth")
Y, X = np.mgrid[:SIZE, :SIZE].astype(np.float64)
Line = Sequence[tuple[float, float]]
"""(x, y) of its corners, in pixels; the warp of a `Place` makes a curve of it"""


def noise(seed: int, cell: float, octaves: int = 5, gain: float = 0.55) -> np.ndarray:
    """Fractal value noise (SIZE, SIZE), mostly within -0.5..0.5; its largest spots are `cell` pixels wide."""
    random, total, weights = np.random.default_rng(seed), np.zeros((SIZE, SIZE)), 0.0
    x, y, amplitude = X / cell, Y / cell, 1.0
    for _ in range(octaves):
        x, y = 0.8 * x - 0.6 * y + 17.3, 0.6 * x + 0.8 * y + 9.1  # turned, or the lattice would show
        column, row = np.floor(x).astype(int), np.floor(y).astype(int)
        values = random.random((np.ptp(row) + 2, np.ptp(column) + 2)) * 2 - 1
        u, v = x - column, y - row
        u, v = (t * t * t * (t * (t * 6 - 15) + 10) for t in (u, v))
        row, column = row - row.min(), column - column.min()
        upper = values[row, column] * (1 - u) + values[row, column + 1] * u
        lower = values[row + 1, column] * (1 - u) + values[row + 1, column + 1] * u
        total += amplitude * (upper * (1 - v) + lower * v)
        weights += amplitude
        x, y, amplitude = x * 2, y * 2, amplitude * gain
    return total / weights * 1.5


def step(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between."""
    t = ((values - low) / (high - low)).clip(0, 1)
    return t * t * (3 - 2 * t)


def distance_to(mask: np.ndarray) -> np.ndarray:
    """Pixels from each pixel to the nearest one of the mask (Euclidean)."""
    index = np.arange(SIZE)
    above = np.maximum.accumulate(np.where(mask, index[:, None], -4 * SIZE), axis=0)
    below = np.minimum.accumulate(np.where(mask, index[:, None], 4 * SIZE)[::-1], axis=0)[::-1]
    squares = np.minimum(index[:, None] - above, below - index[:, None]) ** 2
    across = (index[:, None] - index) ** 2
    return np.sqrt(np.stack([(row + across).min(axis=1) for row in squares]).astype(np.float64))


@dataclass
class Place:
    """A seed, and coordinates that are warped by its noise."""

    seed: int
    warp: float = 14.0

    def __post_init__(self) -> None:
        self.x = X + self.warp * self.noise(1, 60, 5) + self.warp / 4 * self.noise(2, 14, 3)
        self.y = Y + self.warp * self.noise(3, 60, 5) + self.warp / 4 * self.noise(4, 14, 3)

    def noise(self, number: int, cell: float, octaves: int = 5, gain: float = 0.55) -> np.ndarray:
        return noise(1000 * self.seed + number, cell, octaves, gain)

    def to_line(self, line: Line) -> tuple[np.ndarray, np.ndarray]:
        """Distance of each pixel to the warped line, and how far along it (0..1) the nearest place is."""
        found = np.full((SIZE, SIZE), np.inf)
        along = np.zeros((SIZE, SIZE))
        parts = len(line) - 1
        for number, ((x0, y0), (x1, y1)) in enumerate(zip(line, line[1:], strict=False)):
            dx, dy = x1 - x0, y1 - y0
            t = (((self.x - x0) * dx + (self.y - y0) * dy) / (dx * dx + dy * dy)).clip(0, 1)
            away = np.sqrt((self.x - x0 - t * dx) ** 2 + (self.y - y0 - t * dy) ** 2)
            along = np.where(away < found, (number + t) / parts, along)
            found = np.minimum(found, away)
        return found, along

    def range_along(self, line: Line, width: float) -> np.ndarray:
        """Ruggedness of a mountain range: 1 on its crest, 0 from `width` pixels on, broken by valleys."""
        away, _ = self.to_line(line)
        return (1 - away / width).clip(-1, 1) + 0.9 * self.noise(11, 26, 5, 0.65)

    def channel(self, line: Line, source: float, mouth: float) -> np.ndarray:
        """Mask of a river, `source` to `mouth` pixels wide."""
        away, along = self.to_line(line)
        return away < (source + (mouth - source) * along) / 2


@dataclass
class Nature:
    """What the classes follow from. All (SIZE, SIZE)."""

    height: np.ndarray
    """land where positive"""
    warmth: np.ndarray
    """0 polar .. 1 tropical"""
    wetness: np.ndarray
    """0 desert .. 1 rain forest"""
    rugged: np.ndarray
    """mountains from about 0.35 on, snow on the highest"""
    fertile: float = 0.0
    """the larger, the more cropland and cities"""
    shelf: float = 14.0
    """pixels of shallow water along a coast, about"""
    snow: float = 0.95
    """ruggedness plus cold from which mountains are white"""
    wetland: np.ndarray | None = None
    lakes: float = 0.78
    """noise from which there is a lake; the lower, the more"""


def classes(place: Place, nature: Nature) -> np.ndarray:
    """Indices of the label space, uint8 (SIZE, SIZE)."""
    of = {name: index for index, name in enumerate(SPACE.names)}
    land = nature.height > 0
    label = np.full((SIZE, SIZE), of["grassland"], dtype=np.uint8)
    warmth = nature.warmth + 0.10 * place.noise(21, 40) - 0.25 * nature.rugged.clip(0, 1)
    wetness = nature.wetness + 0.26 * place.noise(22, 46, 7, 0.66)
    grain = place.noise(23, 22, 5, 0.65)
    warm, cold = warmth > 0.6, warmth < 0.36
    label[wetness < 0.36] = of["shrubland"]
    label[wetness < 0.24] = of["desert"]
    label[wetness > 0.5] = of["savanna"]
    label[(wetness > 0.62) & (grain > -0.25)] = of["mixed forest"]
    label[(wetness > 0.66) & (warm | (grain > 0.12))] = of["broadleaf forest"]
    label[cold & (wetness > 0.4)] = of["savanna"]
    label[cold & (wetness > 0.45) & (grain > -0.2)] = of["mixed forest"]
    label[cold & (wetness > 0.62) & (grain > 0.2)] = of["needleleaf forest"]
    label[(warmth < 0.16) & (wetness > 0.24)] = of["grassland"]
    hardship = 2.2 * abs(wetness - 0.52) + 1.5 * (0.4 - warmth).clip(0)
    field = place.noise(24, 30, 6, 0.62) + nature.fertile - hardship
    label[field > 0.1] = of["cropland"]
    city = place.noise(25, 6, 3) + 0.3 * field - 0.004 * distance_to(~land).clip(0, 40)
    label[(city > 0.84 - 0.2 * nature.fertile) & (warmth > 0.3)] = of["urban"]
    swamp = np.zeros_like(land) if nature.wetland is None else nature.wetland
    label[swamp] = of["wetland"]
    rugged = nature.rugged + 0.08 * place.noise(26, 8, 3)
    forest = np.isin(label, [of["broadleaf forest"], of["needleleaf forest"]])
    label[(rugged > 0.38) & ~(forest & (rugged < 0.5))] = of["mountains"]
    crest = 1 - 5 * abs(place.noise(28, 18, 4, 0.6))  # snow lies along crests
    high = (rugged > 0.45) & (0.7 * rugged + 0.3 * crest - 0.9 * (warmth - 0.2) > nature.snow)
    white = high | (warmth + 0.1 * grain < 0.02)
    label[white] = of["snow and ice"]
    lake = land & (place.noise(27, 16, 4, 0.6) - 0.4 * rugged.clip(0, 1) > nature.lakes) & ~white
    land &= ~lake
    land = majority(land.astype(np.uint8), 3) > 0
    return np.where(land, majority(label, 5), sea(place, land, nature.shelf)).astype(np.uint8)


def sea(place: Place, land: np.ndarray, shelf: float) -> np.ndarray:
    """Shallow on the shelves, which are wide along some coasts and narrow along others, and on some banks."""
    of = {name: index for index, name in enumerate(SPACE.names)}
    width = shelf * (1 + 1.6 * place.noise(31, 80, 4)).clip(0.25)
    bank = place.noise(32, 50, 5) > 0.58
    coast = distance_to(majority(land.astype(np.uint8), 9) > 0) + 9 * place.noise(33, 24, 4)
    shallow = (coast < width) | bank | (distance_to(land) < 3)
    shallow = majority(majority(shallow.astype(np.uint8), 9), 9) > 0
    return np.where(shallow, of["shallow water"], of["water"])


def majority(label: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(label).filter(ImageFilter.ModeFilter(side)))


def archipelago() -> np.ndarray:
    place = Place(3, warp=16)
    arc, _ = place.to_line([(20, 60), (70, 112), (130, 140), (190, 150), (262, 196)])
    second, _ = place.to_line([(120, 30), (160, 66), (226, 72)])
    height = (0.42 - arc / 46).clip(-0.8) + 0.9 * place.noise(5, 34, 7, 0.6)
    height = np.maximum(height, (0.32 - second / 40).clip(-0.8) + 0.9 * place.noise(6, 30, 7, 0.6))
    rugged = 1.7 * height - 0.48 + 0.6 * place.noise(7, 16)
    wetness = 0.74 - 0.0006 * X + 0.3 * place.noise(8, 60)
    nature = Nature(height, np.full((SIZE, SIZE), 0.85), wetness, rugged, 0.1, shelf=15, snow=0.6)
    return classes(place, nature)


def river_delta() -> np.ndarray:
    place = Place(7, warp=12)
    rivers = [
        ([(84, -10), (104, 40), (88, 84), (118, 128)], 1.5, 3.0),
        ([(190, -10), (170, 50), (138, 92), (118, 128)], 1.2, 2.6),
        ([(118, 128), (112, 160), (84, 196), (66, 226)], 3.0, 4.6),
        ([(116, 140), (130, 176), (124, 232)], 2.6, 4.6),
        ([(122, 158), (160, 184), (182, 222)], 2.2, 4.6),
        ([(128, 176), (104, 206), (98, 236)], 2.0, 3.6),
    ]
    away = np.min([place.to_line(line)[0] for line, _, _ in rivers], axis=0)
    delta = 40 * step(-np.hypot(place.x - 122, place.y - 168), -96, -20)
    height = (184 + delta - place.y) / 30 + 0.55 * place.noise(5, 50, 7, 0.6)
    for line, source, mouth in rivers:
        height[place.channel(line, source, mouth)] = -1
    rugged = place.range_along([(-20, 36), (40, 26), (90, 6), (140, 20), (276, -6)], 46)
    wetness = 0.36 + 0.34 * step(-away, -46, -4) + 0.12 * step(X, 120, 240)
    low = (place.y > 148) & (away < 26) & (place.noise(9, 18, 5) + step(place.y, 140, 220) > 0.62)
    nature = Nature(height, 0.55 + 0.0005 * Y, wetness, rugged, 0.3, shelf=24, snow=0.6, wetland=low)
    return classes(place, nature)


def desert_coast_with_oasis() -> np.ndarray:
    place = Place(11, warp=16)
    coast = [(-30, 96), (40, 132), (96, 150), (140, 206), (170, 290)]
    away, _ = place.to_line(coast)
    below = place.y > np.interp(place.x, [x for x, _ in coast], [y for _, y in coast])
    height = np.where(below, -away, away) / 30 + 0.4 * place.noise(5, 40, 7, 0.6)
    wadi, along = place.to_line([(236, 30), (196, 70), (176, 96), (120, 128), (100, 156)])
    oasis = np.hypot(place.x - 190, (place.y - 80) * 1.3)
    rugged = place.range_along([(-20, 62), (60, 98), (128, 132), (176, 190), (204, 270)], 26) - 0.1
    rugged = np.maximum(rugged, place.noise(12, 34, 6) - 0.14) - 0.7 * step(-oasis, -44, -24)
    wetness = 0.06 + 0.52 * step(-oasis, -30, -10) + 0.44 * step(-wadi, -8, -2) * (along < 0.75)
    wetness += 0.22 * step(-abs(height - 0.4), -0.5, 0) * step(place.noise(6, 60), -0.1, 0.3)
    lake = np.hypot(place.x - 186, (place.y - 84) * 1.4) < 6.5 + 3 * place.noise(7, 12)
    height = np.where(lake, -1, height)
    low = (oasis < 15) & (place.noise(8, 10) > 0.05)
    nature = Nature(height, np.full((SIZE, SIZE), 0.72), wetness, rugged, 0.24, 16, 1.2, low, lakes=9)
    return classes(place, nature)


def ice_cap() -> np.ndarray:
    place = Place(19, warp=20)
    main, _ = place.to_line([(70, -20), (92, 40), (112, 104), (104, 160)])
    fjords = abs(place.noise(5, 24, 4, 0.6)) < 0.06
    height = (64 - main) / 34 + 0.55 * place.noise(6, 46, 7, 0.62)
    height = np.where(fjords & (height < 0.8), -0.2, height)
    east, _ = place.to_line([(206, 20), (226, 76), (214, 112)])
    islands = (20 - east) / 26 + 0.9 * place.noise(7, 30, 7, 0.62)
    south = np.hypot(place.x - 196, place.y - 206)
    islands = np.maximum(islands, 0.15 - south / 44 + 0.7 * place.noise(8, 22, 6))
    height = np.maximum(height, islands)
    inland = distance_to(height <= 0)
    warmth = 0.02 + 0.24 * step(Y, 70, 250) - 0.4 * step(inland, 3, 15) - 0.22 * (X > 170) * (Y < 150)
    rugged = 0.44 + 0.8 * place.noise(11, 18, 5, 0.65) - 0.02 * inland
    wetness = 0.42 + 0.2 * place.noise(9, 40) + 0.0004 * Y
    return classes(place, Nature(height, warmth, wetness, rugged, -0.6, shelf=22, snow=0.5, lakes=0.9))


def mountain_range() -> np.ndarray:
    place = Place(23, warp=15)
    line = [(-30, 214), (40, 178), (96, 152), (150, 96), (206, 64), (290, 34)]
    away, _ = place.to_line(line)
    north = place.y < np.interp(place.x, [x for x, _ in line], [y for _, y in line])
    side = np.where(north, away, -away)
    rugged = place.range_along(line, 44)
    rugged = np.maximum(rugged, place.range_along([(150, 96), (176, 150), (210, 176)], 24) - 0.2)
    wetness = 0.42 + 0.36 * step(side, 0, 46) - 0.3 * step(-side, 4, 70) - 0.1 * step(side, 70, 150)
    warmth = 0.52 - 0.0012 * (SIZE - Y) + 0.1 * step(-side, 0, 80)
    height = np.ones((SIZE, SIZE))
    return classes(place, Nature(height, warmth, wetness, rugged, 0.3, snow=0.62, lakes=0.74))


def invented_continent() -> np.ndarray:
    place = Place(29, warp=24)
    outline = np.hypot((place.x - 132) / 1.2, place.y - 122)
    gulf, _ = place.to_line([(262, 170), (206, 150), (176, 160)])
    cape, _ = place.to_line([(150, 170), (168, 216), (186, 236)])
    north, _ = place.to_line([(96, 70), (70, 34)])
    height = (84 - outline) / 42 - 1.1 * step(-gulf, -36, -6)
    height = np.maximum(height, (22 - cape) / 26)
    height = np.maximum(height, (18 - north) / 26)
    height = height.clip(-1.1, 1.1) + 0.8 * place.noise(5, 60, 8, 0.62)
    ridge = [(58, 62), (68, 118), (100, 156), (140, 180), (176, 214)]
    rugged = place.range_along(ridge, 20) - 0.3 * step(Y, 180, 240)
    rugged = np.maximum(rugged, place.range_along([(118, 52), (158, 70), (204, 84)], 16) - 0.1)
    away, _ = place.to_line(ridge)
    latitude = (Y + 14 * place.noise(7, 50)) / SIZE
    dry = step(-abs(latitude - 0.49), -0.15, -0.03) * step(X, 80, 130)
    wetness = 0.68 - 0.55 * dry + 0.16 * step(latitude, 0.62, 0.8) - 0.14 * step(-away, -40, -10)
    warmth = 0.02 + 1.02 * latitude
    return classes(place, Nature(height, warmth, wetness, rugged, 0.1, shelf=13, snow=0.5))


PLACES = (invented_continent, archipelago, river_delta, desert_coast_with_oasis, ice_cap, mountain_range)


def main(out: str | Path = OUT) -> None:
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for draw in PLACES:
        image = Image.fromarray(draw())
        image.putpalette(SPACE.palette[: SPACE.num_classes].astype(np.uint8).tobytes())
        image.save(folder / f"{draw.__name__}.png", optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
