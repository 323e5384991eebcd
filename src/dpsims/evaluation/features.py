"""Feature vectors of whole pictures, by a frozen network, for distances between sets of pictures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dpsims.checkpoint import weights_digest
from dpsims.evaluation.frechet import Moments


class PooledFeatures:
    """Picture -> the spatial mean of the coarsest level of a frozen backbone.

    `name` goes into every report: a distance in this space is the "Frechet distance (NAME features)". It is a
    FID only with the Inception network that FID is defined by.
    """

    spatial = True
    """whether `level` gives maps, so that features of a region can be had"""

    def __init__(self, backbone: nn.Module, name: str) -> None:
        self.backbone = backbone.eval()
        self.name = name

    @property
    def title(self) -> str:
        origin, scale = getattr(self.backbone, "description", self.name), getattr(self.backbone, "scale", 1.0)
        enlarged = "" if scale == 1 else f", pictures enlarged {scale:g}x"
        return f"Frechet distance ({origin} features{enlarged})"

    @property
    def device(self) -> torch.device:
        return device_of(self.backbone)

    @torch.no_grad()
    def __call__(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Pictures in [-1, 1], on any device, -> float32 vectors on the network's device."""
        return self.level(image).mean(dim=(2, 3))

    @torch.no_grad()
    def level(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d i j"]:
        """The coarsest maps, whose spatial mean the vectors are."""
        device = self.device
        # A bf16 training measures in float32 all the same: its figures compare with `dpsims evaluate`.
        with torch.autocast(device.type, enabled=False):
            return self.backbone(image.to(device, torch.float32))[-1]

    @property
    def weights(self) -> str:
        """A digest of the network's weights, for the report."""
        return weights_digest(self.backbone)

    @property
    def key(self) -> list[Any]:
        """What the features depend on, for JSON."""
        strides = list(getattr(self.backbone, "strides", ()))
        return [self.name, self.title, self.weights, getattr(self.backbone, "scale", 1.0), strides]

    def collect(self, images: Iterable[Float[Tensor, "b 3 h w"]]) -> Moments:
        """Moments of all pictures of a stream of batches; one batch is held at a time."""
        moments = Moments()
        for image in images:
            moments.update(self(image))
        return moments


def device_of(module: nn.Module) -> torch.device:
    """Device of a module's first parameter or buffer; the CPU where it has none."""
    for tensor in (*module.parameters(), *module.buffers()):
        return tensor.device
    return torch.device("cpu")
