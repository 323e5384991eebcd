"""Frozen feature pyramids: any timm network, two small ones of torchvision, and our own scenes_tiny.

Whatever the network, a `Backbone` takes pictures in [-1, 1] and gives float32 feature maps, fine to
coarse, at power-of-two strides of the given picture. It never trains: eval mode and fixed parameters for
good, but gradients reach the picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dpsims.config import BackboneConfig
from dpsims.models import pretrained
from dpsims.models.pyramids import OWN_PYRAMIDS, Pyramid, stride_exponent

BACKBONES = OWN_PYRAMIDS
"""Our own names; any other is looked up in timm."""


class Backbone(nn.Module):
    """A frozen network with its own preprocessing. Made by `load_backbone`.

    `channels[l]`, `strides[l]`: of level l, fine to coarse. Strides are powers of two relative to the
    given picture, so `scale` 2 halves them. `description`: name and origin of the weights, for reports. No
    parameter takes a gradient, and `train()` leaves eval mode on: the discriminator around it may be
    switched freely.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, pyramid: Pyramid, scale: float, description: str) -> None:
        super().__init__()
        self.network = pyramid.network
        self.channels, self._native = pyramid.channels, pyramid.native
        self.strides = tuple(2 ** stride_exponent(stride, scale) for stride in pyramid.nominal)
        self.description = description
        self.scale, self._minimum, self._fixed = scale, pyramid.minimum, pyramid.fixed
        self._multiple, self._stretch = pyramid.multiple, pyramid.stretch
        self.register_buffer("mean", torch.tensor(pyramid.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(pyramid.std).view(1, 3, 1, 1))
        self.requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # up to twice as fast on the CPU
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode: BatchNorm statistics and dropout of a frozen network must not move."""
        return super().train(False)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Pictures in [-1, 1], any size -> a float32 map a level of size (ceil(h / s), ceil(w / s))."""
        h, w = image.shape[-2:]
        height, width = self._enlarged(h, w)
        features = []
        for raw, native, stride in zip(
            self.network(self.preprocess(image)), self._native, self.strides, strict=True
        ):
            inside = raw[
                ..., : math.ceil(height / native), : math.ceil(width / native)
            ]  # without the padding
            features.append(_resize(inside.float(), math.ceil(h / stride), math.ceil(w / stride)))
        return features

    def preprocess(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h2 w2"]:
        """Pictures in [-1, 1] -> what the network takes: enlarged, normalised as it was trained, padded."""
        height, width = self._enlarged(*image.shape[-2:])
        x = _resize(image.float(), height, width)
        x = ((x + 1) / 2 - self.mean) / self.std
        # Patches that do not overlap leave out what remains at the right and the bottom. So the last
        # pixels are repeated there, and features that lie outside altogether are dropped later.
        right, bottom = -width % self._multiple, -height % self._multiple
        if self._fixed is None and (right or bottom):
            x = F.pad(x, (0, right, 0, bottom), mode="replicate")
        return x.contiguous(memory_format=torch.channels_last)

    def _enlarged(self, h: int, w: int) -> tuple[int, int]:
        if self._fixed is not None:
            return self._fixed
        factor = max(self.scale, self._minimum / min(h, w))
        step = self._multiple if self._stretch else 1
        return step * math.ceil(round(h * factor) / step), step * math.ceil(round(w * factor) / step)


def load_backbone(config: BackboneConfig) -> Backbone:
    """The frozen network that `config` names, on the CPU. The global random stream stays as it is.

    Raises ValueError for an unknown name, weights that are not to be had or do not fit, and levels or a
    scale that the network does not allow.
    """
    if not 1 <= config.scale < math.inf:
        raise ValueError(f"backbone.scale={config.scale}: pictures can only be enlarged; use 1 or more")
    with _own_random_stream():
        if config.name in BACKBONES:
            pyramid = BACKBONES[config.name](config)
        else:
            # here, since timm takes seconds, and not every run needs it
            from dpsims.models.timm_pyramids import timm_pyramid

            pyramid = timm_pyramid(config, other_names=BACKBONES)
        backbone = Backbone(pyramid, config.scale, pretrained.describe(config, pyramid.origin))
        if config.weights == "random":
            _measure_batchnorm(backbone)
    return backbone


@torch.no_grad()
def _measure_batchnorm(backbone: Backbone) -> None:
    """Give the BatchNorms of a random network the statistics of its own activations, on smooth noise.

    Left at mean 0 and variance 1, activations fade from layer to layer (in mobilenet_v2 to nothing), and an
    ablation would measure that instead of random features.
    """
    norms = [m for m in backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch: cumulative average
        norm.training = True
    if norms:
        coarse = F.interpolate(torch.rand(8, 3, 8, 8) * 2 - 1, size=(64, 64), mode="bilinear")
        backbone((coarse + 0.2 * torch.randn(8, 3, 64, 64)).clamp(-1, 1))
    for norm in norms:
        norm.training = False


def _resize(x: Float[Tensor, "b c h w"], height: int, width: int) -> Float[Tensor, "b c h2 w2"]:
    h, w = x.shape[-2:]
    if (h, w) == (height, width):
        return x
    return F.interpolate(x, size=(height, width), mode="bilinear", antialias=height < h or width < w)


@contextmanager
def _own_random_stream() -> Iterator[None]:
    """The same random numbers each time, on the CPU, where networks are made; its stream is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield
