"""The models that a server offers, and label maps to start from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dpsims.data.examples import example_maps
from dpsims.data.files import list_maps, read_label
from dpsims.data.scenes import SCENES_SPACE, draw_scene
from dpsims.labels import LabelSpace
from dpsims.models.generator import Generator
from dpsims.models.layers import downsample_ids
from dpsims.studio.limits import MAX_PIXELS
from dpsims.synthesis import Synthesizer

SCENE_SEEDS = (2_000_000_000, 2_000_000_004, 2_000_000_009, 2_000_000_011, 2_000_000_017, 2_000_000_023)
"""of the drawn layouts offered with a model of scenes; from the test split, which no training sees"""
ENLARGED = 2
"""sides of a drawn layout, in sides of the pictures that the model was trained at"""
OPENING_MAP = "invented_continent"
"""the first of the example maps of `earth`, which the studio opens with"""


@dataclass(frozen=True)
class Example:
    """A label map to start from; `load()` gives class indices (h, w) int64."""

    name: str
    load: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Hosted:
    """A model under the name that requests know it by."""

    name: str
    synthesizer: Synthesizer
    examples: Sequence[Example]

    @property
    def has_regions(self) -> bool:
        """Whether it takes noise by region."""
        return isinstance(self.synthesizer.generator, Generator)


def host(paths: Sequence[str], device: str = "auto", maps: Path | None = None) -> dict[str, Hosted]:
    """Load models by path or shipped name; each gets its last folder's name, numbered where two are alike.

    maps: a folder of label maps to start from. Raises ValueError naming what cannot be loaded.
    """
    files = [] if maps is None else list_maps([maps])
    found: dict[str, Hosted] = {}
    for path in paths:
        base = Path(path).resolve().name if Path(path).exists() else path
        name, number = base, 2
        while name in found:
            name, number = f"{base} ({number})", number + 1
        synthesizer = Synthesizer.load(path, device)
        examples = [*_of_files(files, synthesizer), *_of_earth(synthesizer), *_of_scenes(synthesizer)]
        found[name] = Hosted(name, synthesizer, examples)
    return found


def _of_files(files: Sequence[Path], synthesizer: Synthesizer) -> list[Example]:
    return [Example(file.stem, lambda file=file: _fitting(file, synthesizer)) for file in files]


def _fitting(file: Path, synthesizer: Synthesizer) -> np.ndarray:
    """The map, scaled down to MAX_PIXELS where it has more. ValueError names the file, not its folder."""
    try:
        label = read_label(file, synthesizer.space)
    except ValueError as error:
        raise ValueError(str(error).replace(str(file), file.name)) from error
    rest = (MAX_PIXELS / label.size) ** 0.5
    if rest >= 1:
        return label
    height, width = (int(side * rest) for side in label.shape)
    return downsample_ids(torch.from_numpy(label)[None], (height, width))[0].numpy()


def _of_earth(synthesizer: Synthesizer) -> list[Example]:
    if synthesizer.space != LabelSpace.named("earth"):
        return []
    return [
        Example(file.stem.replace("_", " "), lambda file=file: _fitting(file, synthesizer))
        for file in sorted(example_maps("earth"), key=lambda file: file.stem != OPENING_MAP)
    ]


def _of_scenes(synthesizer: Synthesizer) -> list[Example]:
    if synthesizer.space != SCENES_SPACE:
        return []
    height, width = (side * ENLARGED for side in synthesizer.size)
    return [
        Example(
            f"{draw_scene(seed, 8, 8)[2]['kind']} {number}",
            lambda seed=seed: draw_scene(seed, height, width)[1],
        )
        for number, seed in enumerate(SCENE_SEEDS, 1)
    ]
