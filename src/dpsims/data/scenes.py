"""Procedural landscapes and streets: a data set of any size that needs no download.

A scene's layout (all that its label map shows) and its appearance (light, season, colours, textures) are
drawn from separate streams of random numbers: knowing the map tells nothing of the light.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dpsims.data.scene_layouts import KINDS, Painter
from dpsims.data.scene_textures import LIGHTS, SEASONS, Appearance, Canvas, Stream
from dpsims.labels import LabelSpace

__all__ = ["FIRST_SEED", "KINDS", "LIGHTS", "SCENES_SPACE", "SEASONS", "Scenes", "draw_scene"]

SCENES_SPACE = LabelSpace(
    names=("sky", "mountain", "tree", "grass", "water", "road", "pavement", "building", "car", "person"),
    colors=(
        (70, 130, 180), (120, 100, 90), (30, 110, 40), (150, 200, 80), (40, 90, 220),
        (110, 90, 120), (240, 60, 230), (180, 110, 70), (230, 210, 40), (220, 20, 60),
    ),
    ids=tuple(range(10)),
)  # fmt: skip
FIRST_SEED = {"train": 0, "val": 1_000_000_000, "test": 2_000_000_000}  # the splits share no scene


class Scenes:
    """A source of `size` scenes of height x width pixels; the splits `train`, `val` and `test` share none."""

    def __init__(self, size: int, height: int, width: int, split: str = "train") -> None:
        if split not in FIRST_SEED:
            raise ValueError(f"scenes have no split {split!r}: use one of {', '.join(FIRST_SEED)}")
        if not 0 < size <= 1_000_000_000:
            raise ValueError(f"data.size={size}: use a number of scenes from 1 to 1000000000")
        self.space, self.name, self.size = SCENES_SPACE, f"scenes {split}", size
        self._height, self._width, self._first = height, width, FIRST_SEED[split]

    @property
    def names(self) -> list[str]:
        """A stem per scene: its seed."""
        return [f"scene_{self._first + i:010d}" for i in range(self.size)]

    def __len__(self) -> int:
        return self.size

    def load(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Scene i: image (h, w, 3) uint8 and label (h, w) int64."""
        if not 0 <= i < self.size:
            raise IndexError(f"scene {i} of {self.size}")
        image, label, _ = draw_scene(self._first + i, self._height, self._width)
        return image, label


def draw_scene(
    seed: int, height: int, width: int, appearance_seed: int | None = None
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Draw one scene: the same pixels for the same arguments, on every machine.

    seed: the layout; appearance_seed: light, season, colours and textures (None: the same number, but a
    stream of its own); both 0..2**32-1. The same seeds at another size give the same scene; a wider picture
    shows more of it. Returns the image (height, width, 3) uint8 RGB, the label map (height, width) int64 in
    SCENES_SPACE, and facts: `kind`, `light`, `season` (see KINDS, LIGHTS, SEASONS). Raises ValueError for a
    size below 8 or such a seed.
    """
    appearance_seed = seed if appearance_seed is None else appearance_seed
    if min(height, width) < 8:
        raise ValueError(f"scene of {height}x{width}: use at least 8x8 pixels")
    if not (0 <= seed < 2**32 and 0 <= appearance_seed < 2**32):
        raise ValueError(f"scene seed {seed}, appearance seed {appearance_seed}: use 0..{2**32 - 1}")
    layout, looks = Stream(seed, 0), Appearance(Stream(appearance_seed, 1))
    kind = KINDS[(0, 0, 1, 1, 2)[layout.below(5)]]
    canvas = Canvas(height, width, layout.between(0.3, 0.48), looks)
    Painter(canvas, layout).paint(kind)
    image, label = canvas.finish()
    return image, label.astype(np.int64), {"kind": kind, "light": looks.light_name, "season": looks.season}
