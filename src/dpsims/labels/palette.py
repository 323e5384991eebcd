"""Colors for classes that come without: distinct, also for color-blind eyes, the same on every machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice

import numpy as np

from dpsims.labels import Color

# M. Okabe and K. Ito, Color Universal Design (2008), without black: it marks unlabeled pixels by default.
_OKABE_ITO = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_TAKEN = ((0, 0, 0), (255, 255, 255), (255, 0, 255))  # unlabeled, the page, and `data check`'s unknown ids
_LEVELS = 9  # of each channel, in the grid that further colors are chosen from
_LIGHTNESS = (22, 90)  # L*: darker or lighter ones look black or white
_SIZES = (32, 96, 256)  # how many are computed at once; beyond the last one, they merely differ
_CLOSE = 10  # CIELAB distance at which a color looks like one that the file gives

# sRGB (linear) -> XYZ at D65, IEC 61966-2-1
_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])
# G. Machado, M. Oliveira and L. Fernandes, IEEE TVCG 15(6), 2009: deuteranopia, severity 1
_DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)


def distinct_colors(count: int, given: Iterable[Color] = ()) -> list[Color]:
    """`count` different colors, none of them among `given`.

    The first seven are Okabe and Ito's; each further one is, of a fixed grid, the farthest from all before it
    in CIELAB, as seen with and without deuteranopia. Colors that look like a given one come last. The same
    arguments give the same colors, always.
    """
    used = set(given)
    sizes = (size for size in _SIZES if size >= min(count, _SIZES[-1]))
    ordered = next((chosen for size in sizes if len(chosen := _apart(_spread(size), used)) >= count), None)
    return list(islice(_unused(ordered or _spread(_SIZES[-1]), used), count))


def _apart(colors: tuple[Color, ...], used: set[Color]) -> list[Color]:
    """Those of `colors` that do not look like a used one."""
    if len(used) > _SIZES[-1]:  # then everything looks like something
        return []
    there = _lab(np.array(sorted(used), np.uint8).reshape(-1, 3))
    distances = np.linalg.norm(_lab(np.array(colors, np.uint8))[:, None] - there, axis=-1)
    near = distances.min(1, initial=_CLOSE) < _CLOSE
    return [color for color, left_out in zip(colors, near.tolist(), strict=True) if not left_out]


def _unused(first: Iterable[Color], used: set[Color]) -> Iterator[Color]:
    seen = set(used)
    for color in first:
        if color not in seen:
            seen.add(color)
            yield color
    for number in range(1 << 24):  # an odd factor: every 24-bit color once, neighbors far apart
        code = number * 10_368_889 & 0xFFFFFF
        color = (code >> 16, code >> 8 & 255, code & 255)
        if color not in seen:
            yield color


@lru_cache(maxsize=len(_SIZES))
def _spread(count: int) -> tuple[Color, ...]:
    """The first `count` colors of the sequence."""
    levels = np.linspace(0, 255, _LEVELS).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lightness = _lab(grid)[:, 0]
    grid = grid[(lightness > _LIGHTNESS[0]) & (lightness < _LIGHTNESS[1])]
    every = np.concatenate([np.array([*_TAKEN, *_OKABE_ITO], np.uint8), grid])
    # whole numbers, so that no machine's rounding decides between two candidates that are equally far
    normal, deficient = (
        np.rint(16 * lab).astype(np.int32).T.copy() for lab in (_lab(every), _lab(every, True))
    )
    nearest = np.full(len(every), np.iinfo(np.int32).max, np.int32)
    chosen: list[int] = []
    for step in range(len(_TAKEN) + count):
        i = step if step < len(_TAKEN) + len(_OKABE_ITO) else int(nearest.argmax())
        chosen.append(i)
        for lab, weight in ((normal, 1), (deficient, 4)):  # a dichromat's distances are smaller
            apart = lab - lab[:, i : i + 1]
            np.minimum(nearest, weight * np.einsum("ij,ij->j", apart, apart), out=nearest)
    return tuple((int(r), int(g), int(b)) for r, g, b in every[chosen[len(_TAKEN) :]])


def _lab(rgb: np.ndarray, deuteranopia: bool = False) -> np.ndarray:
    """sRGB uint8 (n, 3) -> CIELAB (n, 3), on request as it looks without the cones for green."""
    encoded = rgb / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    if deuteranopia:
        linear = np.clip(linear @ _DEUTERANOPIA.T, 0, 1)
    xyz = linear @ _XYZ.T / _WHITE
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])],
        axis=-1,
    )
