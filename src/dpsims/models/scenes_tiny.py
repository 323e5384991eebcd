"""A small network of our own, trained on procedural scenes: the frozen backbone inside the package.

It stands where an ImageNet network stands for real pictures. `python -m dpsims.training.scenes_tiny` trains
it; the weights lie in `assets/scenes_tiny.safetensors` (fp16), described in
`docs/model-cards/scenes_tiny.md`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

MEAN = (0.40, 0.38, 0.38)
"""Mean of RGB in [0, 1] that the network's input is normalised by."""
STD = (0.22, 0.20, 0.22)
"""Standard deviation of RGB in [0, 1] that the network's input is normalised by."""
CHANNELS = (24, 40, 72, 112, 160)
"""Channels of the five feature levels."""
STRIDES = (2, 4, 8, 16, 32)
"""Strides of the five feature levels."""
WEIGHTS = "scenes_tiny.safetensors"
"""File name of the weights in `dpsims/assets`."""
NUM_CLASSES, NUM_LIGHTS, NUM_SEASONS = 10, 4, 3


class Predictions(NamedTuple):
    """Logits of the training task."""

    fine: Float[Tensor, "b classes h8 w8"]
    """is any pixel of the class in this cell of 8x8 pixels"""
    coarse: Float[Tensor, "b classes h16 w16"]
    """is any pixel of the class in this cell of 16x16 pixels"""
    presence: Float[Tensor, "b classes"]
    """is the class in the picture"""
    light: Float[Tensor, "b lights"]
    season: Float[Tensor, "b seasons"]


class _Block(nn.Module):
    """Residual block that halves the size; the short cut averages, so that nothing is skipped over."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        residual = self.norm2(self.conv2(F.leaky_relu(self.norm1(self.conv1(x)), 0.1)))
        shortcut = F.avg_pool2d(
            x, 2, ceil_mode=True, count_include_pad=False
        )  # ceil: as the strided convolution
        return F.leaky_relu(residual + self.skip(shortcut), 0.1)


class ScenesTiny(nn.Module):
    """Five residual blocks, each a feature level, and linear heads that only training uses."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, *CHANNELS)
        self.blocks = nn.ModuleList(_Block(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.fine = nn.Conv2d(CHANNELS[2], NUM_CLASSES, 1)
        self.coarse = nn.Conv2d(CHANNELS[3], NUM_CLASSES, 1)
        self.presence = nn.Linear(CHANNELS[4], NUM_CLASSES)
        self.light = nn.Linear(CHANNELS[4], NUM_LIGHTS)
        self.season = nn.Linear(CHANNELS[4], NUM_SEASONS)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """RGB normalised by MEAN and STD -> maps of sizes (ceil(h / s), ceil(w / s)) for s in STRIDES."""
        features = []
        for block in self.blocks:
            image = block(image)
            features.append(image)
        return features

    def classify(self, image: Float[Tensor, "b 3 h w"]) -> Predictions:
        """RGB normalised by MEAN and STD -> the logits of the training task."""
        _, _, fine, coarse, last = self(image)
        pooled = last.mean((2, 3))
        return Predictions(
            self.fine(fine),
            self.coarse(coarse),
            self.presence(pooled),
            self.light(pooled),
            self.season(pooled),
        )


def scenes_tiny() -> ScenesTiny:
    """The network, randomly initialised (0.71 M parameters); WEIGHTS holds a state dict of it."""
    return ScenesTiny()
