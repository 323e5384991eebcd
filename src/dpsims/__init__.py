"""DP-SIMS: from a semantic label map to a photo-like image in one feed-forward pass.

T. Berrada, J. Verbeek, C. Couprie, K. Alahari, Unlocking Pre-trained Image Backbones for Semantic Image
Synthesis, CVPR 2024.
"""

from __future__ import annotations

import logging
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpsims.config import DiscriminatorConfig, GeneratorConfig, Recipe
    from dpsims.evaluation import evaluate
    from dpsims.labels import LabelSpace
    from dpsims.models.discriminator import Discriminator
    from dpsims.models.generator import Generator
    from dpsims.recipes import load_recipe
    from dpsims.synthesis import Synthesizer
    from dpsims.training import train

try:
    __version__ = version("dpsims")
except PackageNotFoundError:  # run from its sources, not installed
    __version__ = "0+source"
logging.getLogger("dpsims").addHandler(logging.NullHandler())  # a library is silent unless its user asks
__all__ = [
    "Discriminator",
    "DiscriminatorConfig",
    "Generator",
    "GeneratorConfig",
    "LabelSpace",
    "Recipe",
    "Synthesizer",
    "evaluate",
    "load_recipe",
    "train",
]

# loaded at first use, so that `import dpsims` and `dpsims --help` do not wait for torch
_HOME = {
    "Discriminator": "models.discriminator",
    "DiscriminatorConfig": "config",
    "Generator": "models.generator",
    "GeneratorConfig": "config",
    "LabelSpace": "labels",
    "Recipe": "config",
    "Synthesizer": "synthesis",
    "evaluate": "evaluation",
    "load_recipe": "recipes",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dpsims' has no attribute {name!r}")
    return getattr(import_module(f"dpsims.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
