"""Where things are in procedural scenes: landscapes, avenues in perspective, streets seen from across."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dpsims.data.scene_objects import (
    GRASS,
    MOUNTAIN,
    PAVEMENT,
    ROAD,
    SKY,
    WATER,
    Place,
    paint_avenue_wall,
    paint_building,
    paint_car,
    paint_person,
    paint_tree,
)  # fmt: skip
from dpsims.data.scene_textures import SNOW, Canvas, Noise, Stream

KINDS = ("landscape", "avenue", "street")
_PAINTERS = {"tree": paint_tree, "building": paint_building, "car": paint_car, "person": paint_person}


class Painter:
    """Paints one scene from back to front.

    The layout's random numbers are the same ones whatever the size and the looks: draw them before any test
    of those.
    """

    def __init__(self, canvas: Canvas, layout: Stream) -> None:
        self.canvas, self.layout, self.outline = canvas, layout, Noise(layout)
        self.things: list[tuple[str, Place]] = []

    def paint(self, kind: str) -> None:
        self._sky()
        self._mountains({"landscape": 0.75, "avenue": 0.4, "street": 0.3}[kind])
        self._grass()
        {"landscape": self._landscape, "avenue": self._avenue, "street": self._street}[kind]()
        for name, place in sorted(self.things, key=lambda thing: thing[1].base):  # far ones first
            _PAINTERS[name](self.canvas, place)

    def _add(
        self, name: str, x: float, base: float, world: float,
        lengthwise: bool = False, turn: bool = False, present: bool = True,
    ) -> None:  # fmt: skip
        """Stand a thing on row `base`; `world`: its height in heights of the eye above ground.

        `lengthwise`, `turn`: for cars, seen from an end or a side, and which.
        """
        shape, style = self.layout.units(16), self.canvas.looks.stream.units(8)
        if name == "car":
            shape[:2] = float(lengthwise), float(turn)
        size = world * (0.85 + 0.3 * float(self.layout.units())) * max(base - self.canvas.horizon, 0.0)
        if present:
            self.things.append((name, Place(x, base, size, shape, style)))

    def _sky(self) -> None:
        canvas, looks = self.canvas, self.canvas.looks
        box, light = canvas.box(-9.0, 9.0, 0.0, canvas.horizon + 0.02), looks.light
        assert box is not None
        coarse, middle = canvas.coarse[box.rows], canvas.middle[box.rows]
        share = np.clip(box.y / max(canvas.horizon, 0.05), 0.0, 1.0)
        share = share * share
        cloud = np.clip((coarse * 0.65 + middle * 0.35 - 0.95 + looks.clouds * 0.75) * 2.6, 0.0, 0.85)
        sun_x, sun_y = looks.sun * 0.7, canvas.horizon * looks.stream.between(0.1, 0.8)
        away = (box.x - sun_x) * (box.x - sun_x) + (box.y - sun_y) * (box.y - sun_y)
        halo = (
            {"day": 0.5, "dusk": 0.7, "overcast": 0.0, "night": 0.25}[looks.light_name]
            * 0.004
            / (away + 0.004)
        )
        planes = []
        for top, low, puff, sun in zip(light.top, light.horizon, light.cloud, (1.0, 0.95, 0.8), strict=True):
            plane = top + (low - top) * share
            plane = plane + (puff * (0.75 + 0.25 * middle) - plane) * cloud
            planes.append(plane + (sun - plane) * halo)
        canvas.paint(box, True, planes, SKY, glow=1.0)

    def _mountains(self, probability: float) -> None:
        canvas, present = self.canvas, self.layout.chance(probability)
        for i in range(2):
            tall = self.layout.between(0.1, 0.32) * (1.0 - 0.45 * i)
            rough = self.layout.between(1.5, 3.0) * (1.0 + 0.5 * i)
            octaves = ((1.0, 0.7), (3.1, 0.2), (8.3, 0.1))
            waves = [share * self.outline.line(canvas.x * rough * step) for step, share in octaves]
            if not present:
                continue
            self._ridge(canvas.horizon - tall * (waves[0] + waves[1] + waves[2]), tall, 0.45 - 0.2 * i)

    def _ridge(self, ridge: np.ndarray, tall: float, haze: float) -> None:
        canvas, looks = self.canvas, self.canvas.looks
        box = canvas.box(-9.0, 9.0, canvas.horizon - tall, canvas.horizon + 0.02)
        assert box is not None
        middle, below = canvas.middle[box.rows], (box.y - ridge) / tall
        slope = np.clip((ridge - np.roll(ridge, -1)) * (len(canvas.y) * 0.5 * looks.sun), -0.35, 0.35)
        shade = 0.62 + 0.35 * middle + slope + 0.25 * canvas.fine[box.rows]
        green = np.clip(below * 1.6 - 0.2, 0.0, 1.0)
        color = [rock + (grass - rock) * green for rock, grass in zip(looks.rock, looks.slope, strict=True)]
        canvas.paint(box, below > 0.0, color, MOUNTAIN, shade, haze=haze)
        snow = (below > 0.0) & (below + 0.5 * (middle - 0.5) < looks.snow * 0.6)
        canvas.paint(box, snow, SNOW, shade=0.85 + 0.15 * middle + slope)

    def _grass(self) -> None:
        canvas, looks = self.canvas, self.canvas.looks
        box = canvas.box(-9.0, 9.0, canvas.horizon, 1.0)
        assert box is not None
        at = (box.rows, box.cols)
        shade = 0.72 + 0.3 * canvas.ground[at] + 0.3 * canvas.fine[at] * canvas.middle[at]
        shade = shade if looks.season != "winter" else 0.5 * shade + 0.5
        canvas.paint(box, True, looks.grass, GRASS, shade, haze=self._ground_haze(box.y))

    def _ground_haze(self, y: np.ndarray) -> np.ndarray:
        return self.canvas.looks.haze / (self.canvas.looks.haze + np.maximum(y - self.canvas.horizon, 0.0))

    def _flat(self, mask: np.ndarray, label: int) -> None:
        """Fill part of the ground with road, pavement or water."""
        canvas, looks, box = self.canvas, self.canvas.looks, self.canvas.everything
        mask = np.broadcast_to(mask, canvas.label.shape)
        color: Any = looks.asphalt if label == ROAD else looks.paving
        shade: Any = 0.85 + 0.2 * canvas.fine + 0.1 * canvas.ground
        if label == WATER:
            color = np.zeros((3, *canvas.label.shape))
            first = int(canvas.horizon * len(canvas.y))
            waves, mirrored = (
                np.clip(canvas.ground * 1.5 - 0.3, 0.0, 1.0)[first:],
                canvas.mirrored(canvas.horizon),
            )
            for plane, seen, deep, lamp in zip(color, mirrored, looks.water, looks.light.light, strict=True):
                plane[first:] = deep * lamp + (seen - deep * lamp) * (0.3 + 0.45 * waves)
            canvas.paint(
                box,
                mask,
                color,
                label,
                0.92 + 0.1 * canvas.fine,
                glow=1.0,
                haze=0.5 * self._ground_haze(box.y),
            )
            return
        if label == PAVEMENT:  # rows of slabs
            rows = 1.0 / np.maximum(box.y - canvas.horizon, 0.03) * 4.0
            shade = shade - 0.08 * (rows - np.floor(rows) < 0.15)
        canvas.paint(box, mask, color, label, shade, haze=self._ground_haze(box.y))

    def _path(self, middle: np.ndarray, half: float) -> np.ndarray:
        """Mask of a road or river of world half-width `half` around columns `middle` (h, 1)."""
        box, below = self.canvas.everything, self.canvas.everything.y - self.canvas.horizon
        return (np.abs(box.x - middle) < half * below) & (below > 0.004)

    def _markings(self, middle: np.ndarray, half: float, dashes: float) -> None:
        """A dashed line in the middle of a road and lines along its edges."""
        canvas, box = self.canvas, self.canvas.everything
        below = np.maximum(box.y - canvas.horizon, 1e-3)
        depth = dashes / below
        off = np.abs(box.x - middle) / below
        dashed = (off < 0.035) & (depth - np.floor(depth) < 0.5) & (below > 0.05)
        lines = dashed | (np.abs(off - half * 0.92) < 0.02) & (below > 0.05)
        canvas.paint(box, lines & (canvas.label == ROAD), (0.88, 0.87, 0.80), shade=0.9 + 0.1 * canvas.fine)

    def _waters(self, middle: float, bend: float) -> tuple[Callable[[float, float], bool], bool]:
        """Sea, pond, river or none.

        Returns whether a place (x, y) is wet or nearly so, and whether there is room for a road.
        """
        layout, box, h = self.layout, self.canvas.everything, self.canvas.horizon
        kind, u, wave = layout.below(4), layout.units(4), self.outline.line(self.canvas.x * 2.5)
        if kind == 0:  # sea or a wide lake, from the horizon to a shore
            shore = h + 0.12 + 0.25 * float(u[0])
            self._flat((box.y > h) & (box.y < shore + 0.14 * wave), WATER)
            return lambda x, y: y < shore + 0.14, False
        if kind == 1:
            cy, ry = h + 0.18 + 0.2 * float(u[1]), 0.05 + 0.1 * float(u[2])
            away = [(box.x - middle) / (ry * 3.5), (box.y - cy) / ry]
            self._flat((away[0] * away[0] + away[1] * away[1] < 0.7 + 0.6 * wave) & (box.y > h), WATER)
            rx = ry * 3.5
            return lambda x, y: abs(x - middle) < 1.1 * rx and abs(y - cy) < 1.1 * ry, True
        if kind == 2:
            half = 0.35 + 0.4 * float(u[3])
            self._flat(self._path(self._curve(box.y, 0.5 * middle, -bend), half), WATER)
            return lambda x, y: abs(x - self._curve(y, 0.5 * middle, -bend)) < (half + 0.1) * (y - h), False
        return lambda x, y: False, True

    def _curve(self, y: Any, start: float, bend: float) -> Any:
        """Column of the middle of a winding road or river in row y, for arrays and numbers."""
        below = y - self.canvas.horizon
        return start + bend * below - 1.8 * bend * below * below

    def _landscape(self) -> None:
        layout, h = self.layout, self.canvas.horizon
        start, bend = layout.between(-0.5, 0.5), layout.between(-1.2, 1.2)
        wet, crossable = self._waters(start, bend)
        half, road = layout.between(0.35, 0.7), layout.chance(0.6) and crossable
        middle = self._curve(self.canvas.everything.y, -0.7 * start, bend)
        if road:
            self._flat(self._path(middle, half * 1.12), ROAD)
            self._markings(middle, half, 1.0)
        self._forest(0.05, layout.chance(0.3) and not wet(9.0, h + 0.07))
        for name, count, low, high, world in (
            ("tree", 8, 0.05, 0.5, (0.9, 1.8)), ("building", 4, 0.07, 0.25, (0.9, 1.6)),
            ("person", 4, 0.2, 0.55, (0.5, 0.6)),
        ):  # fmt: skip
            for _ in range(layout.below(count)):
                x, y, tall = layout.between(-1.2, 1.2), h + layout.between(low, high), layout.between(*world)
                self._add(name, x, y, tall, present=not wet(x, y))
        turn, base = layout.chance(0.5), min(h + layout.between(0.25, 0.55), 0.97)
        x = self._curve(base, -0.7 * start, bend) + (0.2 if turn else -0.2) * (base - h)
        self._add("car", x, base, 0.5, lengthwise=True, turn=not turn, present=layout.chance(0.6) and road)

    def _forest(self, below: float, present: bool) -> None:
        """A row of trees along the horizon."""
        for i in range(14 if present else 0):
            x, y = -1.3 + 0.2 * i + self.layout.between(-0.1, 0.1), below + self.layout.between(0.01, 0.04)
            self._add("tree", x, self.canvas.horizon + y, 2.2)

    def _avenue(self) -> None:
        canvas, layout, box = self.canvas, self.layout, self.canvas.everything
        h, vanish, half = canvas.horizon, layout.between(-0.25, 0.25), layout.between(0.7, 1.15)
        kerb, foot = half + layout.between(0.3, 0.6), half + layout.between(0.6, 0.9)
        middle = np.full_like(box.y, vanish)
        self._flat(self._path(middle, kerb), PAVEMENT)
        self._flat(self._path(middle, half), ROAD)
        self._markings(middle, half, 1.2)
        for left in (True, False):
            edges = np.cumprod(1.2 + 0.45 * layout.units(9))
            heights = np.where(layout.units(8) < 0.22, 0.0, 1.6 + 3.4 * layout.units(8))
            style = canvas.looks.stream.units(8, 4)
            paint_avenue_wall(canvas, left, foot, vanish, edges, heights, style)
        self._forest(0.05, layout.chance(0.25))
        for i in range(2 + layout.below(3)):
            base, side = min(h + 0.07 + layout.between(0.02, 0.2) * (i + 1), 0.98), layout.chance(0.5)
            x = vanish + (half * 0.5 if side else -half * 0.5) * (base - h)
            self._add("car", x, base, 0.5, lengthwise=True, turn=not side)
        for name, count, low, high in (("person", 5, 0.12, 0.56), ("tree", 6, 0.06, 0.45)):
            for _ in range(layout.below(count)):
                base, side = h + layout.between(low, high), 1.0 if layout.chance(0.5) else -1.0
                x = vanish + side * layout.between(half + 0.12, kerb) * (base - h)
                self._add(name, x, base, 0.55 if name == "person" else layout.between(0.9, 1.5))

    def _street(self) -> None:
        canvas, layout, box = self.canvas, self.layout, self.canvas.everything
        h, depths = canvas.horizon, layout.units(6)
        back = h + 0.14 + 0.06 * depths[0]
        kerb, far = back + 0.05 + 0.06 * depths[1], back + 0.24 + 0.14 * depths[2]
        verge, quay = layout.chance(0.35), layout.chance(0.2)
        if not verge:
            self._flat((box.y > back - 0.02) & (box.y <= kerb), PAVEMENT)
        self._flat((box.y > kerb) & (box.y <= far), ROAD)
        depth = (box.x + 9.0) * 5.0
        line = (np.abs(box.y - 0.5 * (kerb + far)) < 0.006) & (depth - np.floor(depth) < 0.5)
        canvas.paint(box, line, (0.88, 0.87, 0.80), shade=0.95)
        self._flat(box.y > far, WATER if quay else PAVEMENT)
        x = -1.6
        while x < 1.6:
            world, gap = layout.between(1.6, 3.6), layout.between(0.12, 0.3)
            house = layout.chance(0.8)
            self._add("building" if house else "tree", x, back, world if house else 1.6)
            x += gap + 0.22
        for _ in range(layout.below(5)):
            near = layout.chance(0.5)
            base = (far - 0.015) if near else (kerb + far) * 0.5 - 0.03
            self._add("car", layout.between(-1.1, 1.1), base, 0.42, turn=near)
        for name, count, world in (("person", 6, 0.5), ("tree", 5, 1.3)):
            for _ in range(layout.below(count)):
                near, base = layout.chance(0.4) and not quay, layout.units(2)
                low = min(far + 0.05 + 0.2 * float(base[0]), 0.99) if near else kerb - 0.04 * float(base[1])
                self._add(name, layout.between(-1.1, 1.1), low, world)
