"""Things that stand in procedural scenes: trees, houses, cars, people.

Each painter takes `shape`, numbers in [0, 1) that say where its outline runs, and `style`, numbers in [0, 1)
that say how it looks inside. The label map depends on `shape` only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dpsims.data.scene_textures import PAINTS, SNOW, WALLS, Box, Canvas, Color, mix, scale

SKY, MOUNTAIN, TREE, GRASS, WATER, ROAD, PAVEMENT, BUILDING, CAR, PERSON = range(10)
_GLASS = (0.16, 0.20, 0.26)
_LAMP = (1.0, 0.82, 0.45)


class Place(NamedTuple):
    """Where a thing stands: the middle of its foot (x, base), and its size, all in picture heights."""

    x: float
    base: float
    size: float
    shape: np.ndarray
    style: np.ndarray


def hashed(*keys: np.ndarray | int) -> Any:
    """Whole numbers, broadcast together -> a random-looking number in [0, 1) for each combination."""
    value = np.uint32(0)
    for key in keys:
        value = (np.asarray(key).astype(np.uint32) ^ value) * np.uint32(2654435761)
        value = value ^ (value >> np.uint32(15))
    return (value & np.uint32(0xFFFF)) / 65536.0


def windows(
    across: np.ndarray, up: np.ndarray, key: np.ndarray | int, lit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Position on a wall in windows and storeys -> where there is glass, and where a lamp is on behind it."""
    column, storey = np.floor(across), np.floor(up)
    u, v = across - column, up - storey
    glass = (u > 0.24) & (u < 0.76) & (v > 0.25) & (v < 0.78)
    return glass, glass & (hashed(column.astype(np.int64), storey.astype(np.int64), key) < lit)


def paint_tree(canvas: Canvas, place: Place) -> None:
    """Broad-leaved (a few discs) or conifer (a toothed triangle), with its trunk."""
    x, base, size, shape, style = place
    conifer = shape[0] < 0.3
    box = canvas.box(x - 0.5 * size, x + 0.5 * size, base - 1.1 * size, base + 0.05 * size)
    if box is None:
        return
    color, haze = canvas.looks.crown(style, bool(conifer)), canvas.depth_haze(base)
    u, v = (box.x - x) / size, (base - box.y) / size  # v: 0 at the foot, 1 at the top
    canvas.darken(box, (u * u / 0.1 + v * v / 0.002) < 1.0)
    trunk = (np.abs(u) < 0.035 + 0.01 * shape[1]) & (v > 0.0) & (v < 0.5)
    canvas.paint(box, trunk, (0.30, 0.22, 0.16), TREE, haze=haze)
    blobs = canvas.middle[box.rows, box.cols] * 0.4 + canvas.fine[box.rows, box.cols] * 0.6
    side = canvas.looks.sun * u * 1.2
    if conifer:
        tooth = v * 6.0 - np.floor(v * 6.0)
        mask = (np.abs(u) < (1.0 - v) * (0.24 + 0.08 * shape[2]) * (1.15 - 0.45 * tooth)) & (v > 0.12)
        canvas.paint(box, mask, color, TREE, 0.55 + 0.7 * blobs - 0.3 * tooth + side, haze=haze)
        return
    mask, nearest = np.zeros(blobs.shape, dtype=bool), np.full(blobs.shape, 9.0)
    edge = hashed(*(np.floor(c * 14.0 + 99.0).astype(np.int64) for c in (u, v)), int(shape[3] * 999)) - 0.5
    for i in range(5):
        cx, cy, radius = (
            0.44 * shape[4 + 2 * i] - 0.22,
            0.5 + 0.28 * shape[5 + 2 * i],
            0.17 + 0.06 * shape[14 + i % 2],
        )
        away = ((u - cx) * (u - cx) + (v - cy) * (v - cy)) / (radius * radius)
        mask |= away + 0.5 * edge < 1.0
        nearest = np.minimum(nearest, away)
    shade = 0.35 + 0.75 * blobs + 0.35 * (v - 0.3) + side + 0.15 * (1.0 - np.minimum(nearest, 1.0))
    canvas.paint(box, mask, color, TREE, shade, haze=haze)


def paint_building(canvas: Canvas, place: Place) -> None:
    """A front with windows and a door, under a flat or a pitched roof; `shape[0]` sets its width."""
    x, base, size, shape, style = place
    pitched, half = shape[1] < 0.5, size * (0.3 + 0.45 * shape[0])
    wall_top = base - size * (0.68 if pitched else 1.0)
    box = canvas.box(x - half * 1.1, x + half * 1.1, base - size, base)
    if box is None:
        return
    looks, haze = canvas.looks, canvas.depth_haze(base)
    color = scale(WALLS[int(style[0] * 8)], 0.8 + 0.35 * float(style[1]))
    fine = canvas.fine[box.rows, box.cols]
    u, v = (box.x - x) / half, (base - box.y) / (base - wall_top)
    wall = (np.abs(u) < 1.0) & (v <= 1.0) & (v > -0.01)
    canvas.paint(box, wall, color, BUILDING, 0.88 + 0.12 * fine + 0.1 * looks.sun * u, haze=haze)
    storeys, columns = 2 + int(style[2] * 3) + (0 if pitched else 2), 2 + int(half / (base - wall_top) * 5.0)
    across, up = (u + 1.0) * (0.5 * columns), v * storeys + 0.0 * u
    glass, lit = windows(across + 0.0 * v, up, int(style[3] * 9999), looks.light.lamps)
    glass, lit = glass & wall, lit & wall
    canvas.paint(
        box, glass, _GLASS if style[4] < 0.7 else mix(looks.light.top, _GLASS, 0.4), shade=0.8 + 0.5 * v
    )
    canvas.paint(box, lit, _LAMP, glow=1.0)
    door = (np.abs(u - 0.3 + 0.6 * style[5]) < 0.35 / columns) & (v < 0.7 / storeys)
    canvas.paint(box, door & wall, (0.32, 0.20, 0.14))
    if pitched:
        mask = (v > 1.0) & (np.abs(u) < 1.1 - (v - 1.0) * (0.4 + 0.7 * shape[2]) / 0.47)
        roof = ((0.56, 0.24, 0.18), (0.36, 0.34, 0.36), (0.44, 0.30, 0.22))[int(style[6] * 3)]
        roof = mix(roof, SNOW, 0.85) if looks.season == "winter" else roof
        canvas.paint(box, mask, roof, BUILDING, 0.85 + 0.25 * fine + 0.1 * looks.sun * u, haze=haze)


def paint_car(canvas: Canvas, place: Place) -> None:
    """A car from the side (`shape[0]` < 0.5 where the street runs across) or from behind or in front."""
    if place.shape[0] < 0.5:
        _paint_car_side(canvas, place)
    else:
        _paint_car_end(canvas, place)


def _paint_car_side(canvas: Canvas, place: Place) -> None:
    x, base, size, shape, style = place
    box = canvas.box(x - 1.4 * size, x + 1.4 * size, base - size, base + 0.15 * size)
    if box is None:
        return
    forward = 1.0 if shape[1] < 0.5 else -1.0
    u, v = (box.x - x) / size * forward, (base - box.y) / size
    canvas.darken(box, (np.abs(u) < 1.3) & (np.abs(v) < 0.1))
    body = (np.abs(u) < 1.28) & (v > 0.16) & (v < 0.58 - 0.1 * np.maximum(u - 0.5, 0.0))
    reach = 0.74 + 0.2 * shape[2] - (v - 0.55) * 0.75
    cabin = (v >= 0.5) & (v < 1.0) & (u > -reach - 0.12) & (u < reach - 0.25)
    color, haze = _paint_of(canvas, style), canvas.depth_haze(base)
    canvas.paint(box, body | cabin, color, CAR, 0.65 + 0.45 * v + 0.0 * u, haze=haze)
    pane = (v > 0.6) & (v < 0.9) & (u > -reach) & (u < reach - 0.37) & (np.abs(u + 0.15) > 0.05)
    canvas.paint(box, pane, _GLASS, shade=0.6 + 0.8 * v)
    for middle in (-0.78, 0.78):
        away = (u - middle) * (u - middle) + (v - 0.2) * (v - 0.2)
        canvas.paint(box, away < 0.062, (0.06, 0.06, 0.07), CAR, haze=haze)
        canvas.paint(box, away < 0.015, (0.62, 0.62, 0.65))
    on = float(canvas.looks.light.lamps > 0.2)
    canvas.paint(box, body & (u > 1.12) & (v > 0.32) & (v < 0.48), (1.0, 0.95, 0.75), glow=on)
    canvas.paint(box, body & (u < -1.16) & (v > 0.34) & (v < 0.5), (0.85, 0.08, 0.06), glow=on)


def _paint_car_end(canvas: Canvas, place: Place) -> None:
    x, base, size, shape, style = place
    box = canvas.box(x - 0.8 * size, x + 0.8 * size, base - size, base + 0.1 * size)
    if box is None:
        return
    u, v = np.abs(box.x - x) / size, (base - box.y) / size
    canvas.darken(box, (u < 0.72) & (np.abs(v) < 0.08))
    haze, on = canvas.depth_haze(base), float(canvas.looks.light.lamps > 0.2)
    canvas.paint(box, (u > 0.38) & (u < 0.6) & (v > 0.0) & (v < 0.25), (0.06, 0.06, 0.07), CAR, haze=haze)
    cabin = (v >= 0.5) & (v < 0.98) & (u < 0.62 - (v - 0.5) * (0.3 + 0.2 * shape[2]))
    body = ((u < 0.64) & (v > 0.14) & (v < 0.58)) | cabin
    canvas.paint(box, body, _paint_of(canvas, style), CAR, 0.6 + 0.5 * v + 0.0 * u, haze=haze)
    canvas.paint(
        box,
        cabin & (v > 0.58) & (v < 0.88) & (u < 0.62 - (v - 0.5) * 0.5 - 0.08),
        _GLASS,
        shade=0.6 + 0.8 * v,
    )
    canvas.paint(box, (u < 0.2) & (v > 0.28) & (v < 0.38), (0.85, 0.85, 0.8))
    coming = shape[1] < 0.5  # a matter of `shape`, so that traffic keeps to its side whatever the paint
    lamp = (1.0, 0.95, 0.75) if coming else (0.9, 0.08, 0.06)
    canvas.paint(box, (u > 0.4) & (u < 0.6) & (v > 0.36) & (v < 0.52), lamp, glow=on)


def _paint_of(canvas: Canvas, style: np.ndarray) -> Color:
    return scale(PAINTS[int(style[0] * 8)], 0.85 + 0.3 * float(style[1]))


def paint_person(canvas: Canvas, place: Place) -> None:
    """Someone standing or walking."""
    x, base, size, shape, style = place
    box = canvas.box(x - 0.25 * size, x + 0.25 * size, base - size, base + 0.05 * size)
    if box is None:
        return
    u, v, haze = (box.x - x) / size, (base - box.y) / size, canvas.depth_haze(base)
    canvas.darken(box, (np.abs(u) < 0.2) & (np.abs(v) < 0.03))
    width, stride = 0.12 + 0.04 * shape[1], 0.02 + 0.1 * shape[0]
    coat = v < 0.5 - 0.15 * style[3]
    top, trousers = (scale(PAINTS[int(style[i] * 8)], 0.9) for i in (0, 1))
    legs = (np.abs(np.abs(u) - stride * (1.0 - v / 0.5)) < 0.055) & (v > 0.0) & (v < 0.5)
    canvas.paint(box, legs, scale(trousers, 0.6), PERSON, haze=haze)
    trunk = (np.abs(u) < width * (1.15 - 0.4 * np.abs(v - 0.65) / 0.2)) & (v >= 0.42) & (v < 0.85)
    canvas.paint(box, trunk, top, PERSON, 0.8 + 0.3 * v + u * canvas.looks.sun, haze=haze)
    canvas.paint(box, trunk & coat, scale(trousers, 0.6))
    head = u * u + (v - 0.91) * (v - 0.91) < 0.0075
    skin = mix((0.36, 0.23, 0.16), (0.92, 0.74, 0.62), float(style[2]))
    canvas.paint(box, head, skin, PERSON, haze=haze)
    canvas.paint(box, head & (v > 0.94), scale(skin, 0.35))


def paint_avenue_wall(
    canvas: Canvas, left: bool, foot: float, vanish: float,
    edges: np.ndarray, heights: np.ndarray, style: np.ndarray,
) -> None:  # fmt: skip
    """A row of houses along a street seen in perspective.

    `vanish`: column of the vanishing point. In heights of the eye above ground: `foot`, the row's distance
    from the middle of the street, and `heights` (n,), 0 for a gap; `edges` (n+1,): depths where houses end;
    `style` (n, 4).
    """
    box: Box = canvas.everything
    away = (vanish - box.x) if left else (box.x - vanish)
    depth = foot / np.maximum(away, 1e-3)  # (1, w): each column of a wall has one depth
    house = np.clip(np.searchsorted(edges, depth[0]) - 1, 0, len(heights) - 1)
    tall = np.where((away[0] > 1e-3) & (depth[0] < edges[-1]), heights[house], 0.0)
    up = 1.0 + (canvas.horizon - box.y) * depth
    mask = (up > 0.0) & (up < tall)
    looks, look = canvas.looks, style[house]
    walls = np.array(WALLS)[(look[:, 0] * 8).astype(np.int64)] * (0.8 + 0.35 * look[:, 1:2])
    side = 1.0 + (0.2 if left else -0.2) * looks.sun
    haze = looks.haze / (looks.haze + 1.0 / depth)
    canvas.paint(box, mask, list(walls.T[:, None]), BUILDING, side * (0.82 + 0.15 * canvas.fine), haze=haze)
    storeys = 1.6 + 0.5 * np.floor(look[:, 2] * 3.0)
    glass, lit = windows(depth * 1.8 + 0.0 * up, up * storeys, house, looks.light.lamps)
    near = mask & (depth < 7.0)  # farther windows are thinner than a sample
    canvas.paint(box, glass & near, mix(_GLASS, looks.light.top, 0.25), shade=0.8 + 0.1 * up)
    canvas.paint(box, lit & near, _LAMP, glow=1.0)
    cornice = mask & (up > tall - 0.18)
    canvas.paint(box, cornice, SNOW if looks.season == "winter" else (0.42, 0.34, 0.32), shade=side)
