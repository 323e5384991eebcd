"""OASIS's discriminator, written from its paper, for comparison at equal size and time.

Schoenfeld et al., You Only Need Adversarial Supervision for Semantic Image Synthesis, ICLR 2021: a UNet
trained from scratch that gives K+1 logits a pixel. Parameters and multiply-adds come to the published ones
(a test counts them). OASIS's generator is in `spade`, LabelMix in dpsims.labelmix.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from dpsims.config import DiscriminatorConfig
from dpsims.models.layers import SLOPE, upsample_to

PUBLISHED_CHANNELS = (64, 128, 128, 256, 256, 512, 512)
"""six blocks down, six up; from full resolution down, as `config.channels` is"""


class ResidualBlock(nn.Module):
    """Residual block of OASIS's discriminator: spectral norm, LeakyReLU, shortcut learned where the channels
    change. `first`: its input is the image itself, so no LeakyReLU in front."""

    def __init__(self, inputs: int, outputs: int, first: bool = False) -> None:
        super().__init__()
        self.first = first
        self.conv1 = spectral_norm(nn.Conv2d(inputs, outputs, 3, padding=1))
        self.conv2 = spectral_norm(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.shortcut = (
            spectral_norm(nn.Conv2d(inputs, outputs, 1, bias=False)) if inputs != outputs else nn.Identity()
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        h = self.conv1(x if self.first else F.leaky_relu(x, SLOPE))
        return self.shortcut(x) + self.conv2(F.leaky_relu(h, SLOPE))


class OasisDiscriminator(nn.Module):
    """UNet from scratch with spectral norm: residual blocks down, residual blocks up with skips, K+1 logits
    a pixel.

    It has the interface of `Discriminator`, with no features of a frozen network.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        if config.num_classes < 1:
            raise ValueError(f"num_classes={config.num_classes}: give the number of classes, at least 1")
        if len(config.channels) < 2:
            raise ValueError(f"discriminator.channels={list(config.channels)}: give at least 2 numbers")
        self.config = config
        finer, coarser = config.channels[:-1], config.channels[1:]
        self.down = nn.ModuleList(
            ResidualBlock(a, b, first=i == 0)
            for i, (a, b) in enumerate(zip((3, *finer[1:]), coarser, strict=True))
        )
        skips = (*coarser[:-1], 0)  # the coarsest features are where the way up begins
        self.up = nn.ModuleList(
            ResidualBlock(b + skip, a) for a, b, skip in zip(finer, coarser, skips, strict=True)
        )
        self.to_logits = nn.Conv2d(finer[0], config.num_classes + 1, 1)

    def features(self, image: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """No frozen features."""
        return []

    def decode(
        self, image: Float[Tensor, "b 3 h w"], features: list[Tensor]
    ) -> Float[Tensor, "b logits h w"]:
        x, skips, sizes = image, [], []
        for block in self.down:
            sizes.append((x.shape[2], x.shape[3]))
            x = F.avg_pool2d(block(x), 2, ceil_mode=True)
            skips.append(x)
        for i in reversed(range(len(self.up))):
            if i < len(self.up) - 1:
                x = torch.cat([x, skips[i]], dim=1)
            x = self.up[i](upsample_to(x, sizes[i]))
        return self.to_logits(F.leaky_relu(x, SLOPE))

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b logits h w"]:
        """K+1 logits a pixel for images in [-1, 1]: index 0 is `fake`, index k+1 is class k."""
        return self.decode(image, [])

    def calibrate(self, images: Iterable[Tensor]) -> None:
        """Nothing to calibrate."""

    def trained_state(self) -> dict[str, Tensor]:
        return self.state_dict()

    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        self.load_state_dict(state)
