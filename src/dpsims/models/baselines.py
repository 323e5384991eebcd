"""Baselines written from their papers, for comparison at equal size and time.

OASIS: Schoenfeld et al., You Only Need Adversarial Supervision for Semantic Image Synthesis, ICLR 2021: a
UNet discriminator trained from scratch that gives K+1 logits a pixel. (LabelMix and OASIS's generator: not
here yet.)
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from dpsims.config import DiscriminatorConfig
from dpsims.models.layers import SLOPE, DecoderBlock, upsample_to


class OasisDiscriminator(nn.Module):
    """UNet from scratch with spectral norm: residual blocks down, residual blocks up with skips, K+1 logits
    a pixel.

    `config.channels` are the widths from full resolution down. It has the interface of `Discriminator`,
    with no features of a frozen network.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        if config.num_classes < 1:
            raise ValueError(f"num_classes={config.num_classes}: give the number of classes, at least 1")
        self.config = config
        widths = config.channels
        self.stem = spectral_norm(nn.Conv2d(3, widths[0], 3, padding=1))
        self.down = nn.ModuleList(DecoderBlock(a, b) for a, b in zip(widths, widths[1:], strict=False))
        self.up = nn.ModuleList(DecoderBlock(a + b, a) for a, b in zip(widths, widths[1:], strict=False))
        self.to_logits = nn.Conv2d(widths[0], config.num_classes + 1, 1)

    def features(self, image: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """No frozen features."""
        return []

    def decode(
        self, image: Float[Tensor, "b 3 h w"], features: list[Tensor]
    ) -> Float[Tensor, "b logits h w"]:
        x = self.stem(image)
        skips = [x]
        for block in self.down:
            x = block(F.avg_pool2d(x, 2, ceil_mode=True))
            skips.append(x)
        x = skips.pop()
        for block in reversed(self.up):
            skip = skips.pop()
            x = block(torch.cat([upsample_to(x, (skip.shape[2], skip.shape[3])), skip], dim=1))
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
