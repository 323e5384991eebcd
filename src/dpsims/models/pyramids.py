"""Feature pyramids of torchvision's small networks and of our own. (timm's: `timm_pyramids.py`.)"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import torchvision
from jaxtyping import Float
from torch import Tensor, nn

from dpsims.config import BackboneConfig
from dpsims.models import pretrained, scenes_tiny


@dataclass
class Pyramid:
    """A network whose forward gives one map for each chosen level, and what has to be known to feed it."""

    network: nn.Module
    channels: tuple[int, ...]
    native: tuple[int, ...]
    """strides of the network's maps"""
    nominal: tuple[int, ...]
    """strides that they are resampled to; others than `native` only for plain vision transformers"""
    mean: Sequence[float]
    std: Sequence[float]
    """of RGB in [0, 1], as the network was trained"""
    minimum: int = 32
    """smallest side of a picture that the network works with"""
    multiple: int = 1
    """the sides have to be multiples of this"""
    stretch: bool = False
    """reach `multiple` by enlarging, and not by padding"""
    fixed: tuple[int, int] | None = None
    """the only size (height, width) that the network takes"""
    origin: str = ""
    """where pretrained weights were found, if not at the network's own publisher"""


def stride_exponent(stride: int, scale: float) -> int:
    """log2 of a level's stride where pictures are enlarged by `scale`; negative: finer than the picture."""
    return math.floor(math.log2(stride / scale) + 0.5)


def choose_levels(config: BackboneConfig, strides: Sequence[int]) -> tuple[int, ...]:
    """The levels that `config` asks for, or all of them.

    Raises ValueError for levels that a network with these strides lacks, or that `scale` makes finer than
    the picture.
    """
    levels, last = tuple(config.levels) or tuple(range(len(strides))), len(strides) - 1
    if list(levels) != sorted(set(levels)) or levels[0] < 0 or levels[-1] > last:
        mend = f"{config.name} has levels 0..{last}; name them from fine to coarse, each once"
        raise ValueError(f"backbone.levels={list(levels)}: {mend}")
    usable = [level for level, stride in enumerate(strides) if stride_exponent(stride, config.scale) >= 0]
    if not set(levels) <= set(usable):
        mend = f"use --backbone.levels {usable}, or a smaller scale" if usable else "use a smaller scale"
        raise ValueError(
            f"backbone.scale={config.scale:g}: {config.name} is then finer than the picture; {mend}"
        )
    return levels


class _Taps(nn.Module):
    """A chain of layers, and the maps after some of them."""

    def __init__(self, features: nn.Sequential, ends: Sequence[int]) -> None:
        super().__init__()
        self.features, self.ends = features[: ends[-1] + 1], frozenset(ends)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.ends:
                maps.append(x)
        return maps


def _torchvision(config: BackboneConfig, ends: Sequence[int], channels: Sequence[int]) -> Pyramid:
    strides = tuple(2 ** (level + 1) for level in range(len(ends)))
    levels = choose_levels(config, strides)
    weights: Any = torchvision.models.get_model_weights(config.name)
    whole: Any = torchvision.models.get_model(config.name, weights=None)
    known = whole.state_dict().keys()
    network = _Taps(whole.features, [ends[level] for level in levels])
    if config.weights == "pretrained":
        network.load_state_dict(pretrained.torchvision_state(weights.DEFAULT, config.name), strict=False)
    elif config.weights != "random":
        pretrained.load_file(network, config, known)
    native = tuple(strides[level] for level in levels)
    transform = weights.DEFAULT.transforms()
    return Pyramid(
        network=network,
        channels=tuple(channels[level] for level in levels),
        native=native,
        nominal=native,
        mean=transform.mean,
        std=transform.std,
    )


def _mobilenet_v2(config: BackboneConfig) -> Pyramid:
    # The coarsest level is the last block's 320 channels, not the 1280 of the 1x1 convolution behind it:
    # that one only widens for the classifier, would cost four times as much to condition, and has more
    # channels than a small test set has pictures, which makes a bad Frechet distance.
    return _torchvision(config, ends=(1, 3, 6, 13, 17), channels=(16, 24, 32, 96, 320))


def _squeezenet1_1(config: BackboneConfig) -> Pyramid:
    # In front of each pooling, and at the end. It pads nowhere: maps are a pixel short, and resampled.
    return _torchvision(config, ends=(1, 4, 7, 12), channels=(64, 128, 256, 512))


class _Chosen(nn.Module):
    """Some of the maps of a network that gives them all."""

    def __init__(self, network: nn.Module, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.levels = network, levels

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        maps = self.network(x)
        return [maps[level] for level in self.levels]


def _scenes_tiny(config: BackboneConfig) -> Pyramid:
    levels = choose_levels(config, scenes_tiny.STRIDES)
    network = scenes_tiny.scenes_tiny()
    if config.weights == "pretrained":
        with resources.as_file(resources.files("dpsims") / "assets" / scenes_tiny.WEIGHTS) as path:
            pretrained.load_file(network, config, known=(), path=path)
    elif config.weights != "random":
        pretrained.load_file(network, config, known=())
    native = tuple(scenes_tiny.STRIDES[level] for level in levels)
    return Pyramid(
        network=_Chosen(network, levels),
        channels=tuple(scenes_tiny.CHANNELS[level] for level in levels),
        native=native,
        nominal=native,
        mean=scenes_tiny.MEAN,
        std=scenes_tiny.STD,
    )


OWN_PYRAMIDS: dict[str, Callable[[BackboneConfig], Pyramid]] = {
    "mobilenet_v2": _mobilenet_v2,
    "squeezenet1_1": _squeezenet1_1,
    "scenes_tiny": _scenes_tiny,
}
