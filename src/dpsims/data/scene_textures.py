"""How procedural scenes look: random streams, noise, light, season, and the canvas they are painted on.

Every machine must draw the same pixels. So random numbers come from numpy's frozen legacy stream
(`random_sample` and nothing derived from it), and arithmetic keeps to what IEEE 754 rounds exactly: + - * /,
comparisons, floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Color = tuple[float, float, float]
LIGHTS = ("day", "dusk", "overcast", "night")
SEASONS = ("summer", "autumn", "winter")
_CELLS = 64  # noise repeats after so many cells
_OVERSAMPLE = 2  # samples a pixel and axis: edges and windows are thin in small pictures


class Stream:
    """Random numbers that follow from whole-number keys, each 0..2**32-1."""

    def __init__(self, *keys: int) -> None:
        self._state = np.random.RandomState(list(keys))

    def units(self, *shape: int) -> np.ndarray:
        """Uniform in [0, 1), float64."""
        return self._state.random_sample(shape)

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(self._state.random_sample())

    def chance(self, probability: float) -> bool:
        return float(self._state.random_sample()) < probability

    def below(self, count: int) -> int:
        return int(self._state.random_sample() * count)


class Noise:
    """Smooth value noise of one lattice; every call lays the lattice elsewhere."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._lattice = stream, stream.units(_CELLS, _CELLS)

    def plane(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Rows' and columns' coordinates (h,), (w,) in cells -> noise (h, w) in [0, 1]."""
        shift = self._stream.units(2) * _CELLS
        low, high, weight = _cells(y + shift[0])
        rows = self._lattice[low]
        rows = rows + (self._lattice[high] - rows) * weight[:, None]
        low, high, weight = _cells(x + shift[1])
        left = rows.take(low, axis=1)
        return left + (rows.take(high, axis=1) - left) * weight

    def line(self, x: np.ndarray) -> np.ndarray:
        """Coordinates (w,) in cells -> noise (w,) in [0, 1]."""
        return self.plane(np.zeros(1), x)[0]


def _cells(position: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    floor = np.floor(position)
    low, t = floor.astype(np.int64) % _CELLS, position - floor
    return low, (low + 1) % _CELLS, t * t * (3.0 - 2.0 * t)


class Light(NamedTuple):
    """Colours of a time of day; `shadow`: how dark shadows are; `lamps`: share of windows that are lit."""

    top: Color
    horizon: Color
    cloud: Color
    light: Color
    shadow: float
    lamps: float


_LIGHTS = {
    "day": Light((0.22, 0.46, 0.85), (0.74, 0.86, 0.96), (1.0, 1.0, 1.0), (1.06, 1.02, 0.94), 0.45, 0.0),
    "dusk": Light((0.24, 0.22, 0.46), (1.0, 0.60, 0.30), (0.88, 0.42, 0.40), (0.74, 0.52, 0.46), 0.25, 0.45),
    "overcast": Light(
        (0.56, 0.59, 0.64), (0.82, 0.83, 0.84), (0.46, 0.48, 0.52), (0.72, 0.74, 0.78), 0.12, 0.08
    ),
    "night": Light((0.03, 0.05, 0.13), (0.13, 0.17, 0.32), (0.18, 0.20, 0.29), (0.41, 0.45, 0.60), 0.1, 0.6),
}
_GRASS = {"summer": (0.33, 0.53, 0.17), "autumn": (0.55, 0.48, 0.21), "winter": (0.90, 0.92, 0.96)}
_CROWNS: dict[str, tuple[Color, ...]] = {
    "summer": ((0.20, 0.42, 0.13), (0.30, 0.50, 0.16), (0.16, 0.36, 0.18), (0.38, 0.50, 0.20)),
    "autumn": ((0.80, 0.42, 0.10), (0.68, 0.20, 0.10), (0.86, 0.64, 0.15), (0.50, 0.42, 0.16)),
    "winter": ((0.44, 0.38, 0.35), (0.50, 0.45, 0.42), (0.36, 0.31, 0.30), (0.56, 0.52, 0.52)),
}
_CONIFER = (0.12, 0.28, 0.17)
_ROCKS = ((0.42, 0.43, 0.48), (0.50, 0.42, 0.35), (0.36, 0.40, 0.42), (0.54, 0.46, 0.44))
WALLS = (
    (0.80, 0.72, 0.58), (0.66, 0.34, 0.26), (0.74, 0.74, 0.74), (0.86, 0.80, 0.70),
    (0.52, 0.56, 0.62), (0.62, 0.48, 0.38), (0.82, 0.60, 0.48), (0.60, 0.66, 0.58),
)  # fmt: skip
PAINTS = (
    (0.78, 0.10, 0.10), (0.12, 0.25, 0.62), (0.92, 0.92, 0.92), (0.12, 0.12, 0.14),
    (0.68, 0.70, 0.73), (0.88, 0.72, 0.12), (0.14, 0.44, 0.34), (0.50, 0.14, 0.40),
)  # fmt: skip
SNOW = (0.92, 0.94, 0.98)


class Appearance:
    """Light, season and colours of one scene: all that its label map does not say."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.light_name, self.season = LIGHTS[stream.below(4)], SEASONS[stream.below(3)]
        light = _LIGHTS[self.light_name]
        self.light = light._replace(
            light=self.vary(light.light, 0.12),
            top=self.vary(light.top, 0.25),
            horizon=self.vary(light.horizon, 0.2),
        )
        self.sun = stream.between(-1.0, 1.0)
        self.clouds = stream.between(0.1, 0.9)
        self.haze = stream.between(0.008, 0.05)
        self.grass = self.vary(_GRASS[self.season], 0.15 if self.season != "winter" else 0.04)
        self.rock = self.vary(_ROCKS[stream.below(4)], 0.15)
        self.slope = mix(self.rock, self.grass, 0.6)
        self.snow = {"summer": 0.12, "autumn": 0.3, "winter": 0.9}[self.season] * stream.between(0.4, 1.4)
        self.water = self.vary((0.10, 0.28, 0.36), 0.3)
        self.asphalt = self.vary((0.34, 0.34, 0.36), 0.25)
        self.paving = self.vary(
            ((0.62, 0.60, 0.57), (0.68, 0.60, 0.50), (0.62, 0.47, 0.42))[stream.below(3)], 0.12
        )
        if self.season == "winter":
            self.paving, self.asphalt = mix(self.paving, SNOW, 0.45), mix(self.asphalt, SNOW, 0.15)
        self.noise = Noise(stream)

    def vary(self, color: Color, amount: float) -> Color:
        """A colour near this one: its brightness by `amount` up or down, its hue by a third of that."""
        u = (self.stream.units(4) - 0.5) * (2.0 * amount)
        r, g, b = (c * (1.0 + float(u[3]) + float(u[i]) / 3.0) for i, c in enumerate(color))
        return r, g, b

    def crown(self, style: np.ndarray, conifer: bool) -> Color:
        """Colour of a tree."""
        if conifer:
            color = mix(_CONIFER, SNOW, 0.35 * float(style[1])) if self.season == "winter" else _CONIFER
        else:
            color = _CROWNS[self.season][int(style[0] * 4)]
            if self.season == "winter":
                color = mix(color, SNOW, 0.5 * float(style[1]))
        return scale(color, 0.8 + 0.4 * float(style[2]))


def mix(a: Color, b: Color, share: float) -> Color:
    """`share` of b in a."""
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share


def scale(color: Color, factor: float) -> Color:
    return color[0] * factor, color[1] * factor, color[2] * factor


class Box(NamedTuple):
    """Part of a canvas: its rows and columns, and their coordinates y (h, 1) and x (1, w)."""

    rows: slice
    cols: slice
    y: np.ndarray
    x: np.ndarray


class Canvas:
    """Planes that a scene is painted on.

    Coordinates are in picture heights: y from 0 (top) to 1, x from the middle. So a scene at another size
    has the same coordinates, and a wider picture shows more of it at both sides.
    """

    def __init__(self, height: int, width: int, horizon: float, looks: Appearance) -> None:
        rows, cols = height * _OVERSAMPLE, width * _OVERSAMPLE
        self.horizon, self.looks = horizon, looks
        self.y = (np.arange(rows) + 0.5) / rows
        self.x = (np.arange(cols) + 0.5 - cols / 2) / rows
        self.label = np.zeros((rows, cols), dtype=np.uint8)
        self._color = np.zeros((3, rows, cols))
        self._glow = np.zeros((rows, cols))  # 1 where a colour is its own light: sky, lamps
        self._haze = np.zeros((rows, cols))
        noise, depth = looks.noise, 0.5 / (np.maximum(self.y - horizon, 0.0) + 0.05)
        self.coarse = noise.plane(self.y * 7.0, self.x * 5.0)
        self.middle = noise.plane(self.y * 19.0, self.x * 19.0)
        self.fine = noise.plane(self.y * 61.0, self.x * 61.0)
        self.ground = noise.plane(depth * 12.0, self.x * 14.0)  # streaks that get finer towards the horizon
        self.everything = Box(slice(0, rows), slice(0, cols), self.y[:, None], self.x[None])

    def box(self, left: float, right: float, top: float, bottom: float) -> Box | None:
        """The part that covers a rectangle, or None where that lies outside."""
        count = len(self.y)
        y0, y1 = max(int(top * count), 0), min(int(bottom * count) + 1, count)
        middle = len(self.x) / 2
        x0, x1 = max(int(left * count + middle), 0), min(int(right * count + middle) + 1, len(self.x))
        if y0 >= y1 or x0 >= x1:
            return None
        rows, cols = slice(y0, y1), slice(x0, x1)
        return Box(rows, cols, self.y[rows, None], self.x[None, cols])

    def depth_haze(self, base: float) -> float:
        """Haze in front of something that stands on row `base`."""
        return self.looks.haze / (self.looks.haze + max(base - self.horizon, 0.0) + 0.01)

    def paint(
        self,
        box: Box,
        mask: np.ndarray | bool,
        color: Sequence[Any],
        label: int | None = None,
        shade: np.ndarray | float = 1.0,
        glow: float = 0.0,
        haze: np.ndarray | float = 0.0,
    ) -> None:
        """Colour, times `shade`, where mask holds (True: in the whole box).

        `label` None keeps class and haze: for details of what was painted before.
        """
        at = (box.rows, box.cols)
        if isinstance(mask, np.ndarray) and not mask.any():
            return
        for plane, value in zip(self._color, color, strict=True):
            np.copyto(plane[at], value * shade, where=mask)
        np.copyto(self._glow[at], glow, where=mask)
        if label is not None:
            np.copyto(self.label[at], label, where=mask)
            np.copyto(self._haze[at], haze, where=mask)

    def darken(self, box: Box, mask: np.ndarray) -> None:
        """Cast a shadow."""
        shadow = 1.0 - self.looks.light.shadow * mask
        self._color[:, box.rows, box.cols] *= shadow

    def mirrored(self, y: float) -> np.ndarray:
        """Lit colours (3, rows below y, columns) of what lies above row y, upside down."""
        count, first = len(self.y), int(y * len(self.y))
        source = np.maximum(2 * first - 1 - np.arange(first, count), 0)
        color, glow = self._color[:, source], self._glow[source]
        return np.stack(
            [c * (glow + (1.0 - glow) * k) for c, k in zip(color, self.looks.light.light, strict=True)]
        )

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Image (h, w, 3) uint8 and label (h, w) uint8."""
        light, planes = self.looks.light, []
        grain = (self.fine - 0.5) * 0.05
        for color, lamp, mist in zip(self._color, light.light, light.horizon, strict=True):
            lit = color * (self._glow + (1.0 - self._glow) * lamp)
            lit = lit + (mist - lit) * self._haze + grain
            planes.append(np.clip(lit, 0.0, 1.0))
        image = np.stack(planes, axis=-1)
        image = (image[0::2, 0::2] + image[0::2, 1::2] + image[1::2, 0::2] + image[1::2, 1::2]) * (
            255.0 / 4.0
        )
        a, b, c, d = (self.label[i::2, j::2] for i in (0, 1) for j in (0, 1))
        majority = np.where((b == c) | (b == d), b, np.where(c == d, c, a))
        majority = np.where((a == b) | (a == c) | (a == d), a, majority)
        return np.floor(image + 0.5).astype(np.uint8), majority
