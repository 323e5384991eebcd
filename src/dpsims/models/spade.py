"""SPADE's and OASIS's generators, written from their papers, for comparison at equal size and time.

SPADE: Park et al., Semantic Image Synthesis with Spatially-Adaptive Normalization, CVPR 2019. OASIS:
Schoenfeld et al., You Only Need Adversarial Supervision for Semantic Image Synthesis, ICLR 2021, whose
discriminator is in `baselines`. Both modulate every scale with features of the one-hot label map itself,
computed anew in every block: nearly all of their cost. Parameters and multiply-adds come to the published
ones (a test counts them). Ours: weights start as torch starts them, and sizes that are no multiple of the
stride are rounded up and cropped.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from dpsims.config import GeneratorConfig
from dpsims.models.layers import SLOPE, RegionNoise, SpatiallyAdaptiveNorm, downsample_ids, upsample_to

PUBLISHED_CHANNELS = (64, 128, 256, 512, 1024, 1024)
"""of both generators, from full resolution down, as `config.channels` is"""


class SpadeBlock(nn.Module):
    """Residual block at one scale: each convolution behind a normalisation that the condition modulates.

    The shortcut is learned where the channels change, and then has a modulated normalisation of its own. The
    first layers of all modulations run as one convolution, which costs the same and reads the condition once.
    """

    def __init__(self, inputs: int, outputs: int, conditions: int, hidden: int, config: GeneratorConfig):
        super().__init__()
        kernel, middle = config.modulation_kernel, min(inputs, outputs)
        widths = [inputs, middle] + [inputs] * (inputs != outputs)
        self.shared = nn.Conv2d(conditions, hidden * len(widths), kernel, padding=kernel // 2)
        self.norms = nn.ModuleList(
            SpatiallyAdaptiveNorm(w, hidden, kernel, config.normalisation) for w in widths
        )
        self.conv1 = spectral_norm(nn.Conv2d(inputs, middle, 3, padding=1))
        self.conv2 = spectral_norm(nn.Conv2d(middle, outputs, 3, padding=1))
        self.shortcut = (
            spectral_norm(nn.Conv2d(inputs, outputs, 1, bias=False)) if inputs != outputs else None
        )

    def forward(
        self, x: Float[Tensor, "b c h w"], condition: Float[Tensor, "b k h w"]
    ) -> Float[Tensor, "b d h w"]:
        guides = F.relu(self.shared(condition)).chunk(len(self.norms), dim=1)
        h = self.conv1(F.leaky_relu(self.norms[0](x, guides[0]), SLOPE))
        h = self.conv2(F.leaky_relu(self.norms[1](h, guides[1]), SLOPE))
        if self.shortcut is not None:
            x = self.shortcut(self.norms[2](x, guides[2]))
        return x + h


class SpadePyramid(nn.Module):
    """From features at the lowest resolution up to the image; label map (and noise) modulate every scale.

    twice: the scale (0 is full resolution) that has a second block; None for no such scale.
    """

    def __init__(self, config: GeneratorConfig, noise: int, twice: int | None = None) -> None:
        super().__init__()
        channels, hidden = config.channels, config.hidden_channels
        self.num_inputs = config.num_classes + 1
        stages = []
        for i, (inputs, outputs) in enumerate(zip((*channels[1:], channels[-1]), channels, strict=True)):
            widths = [(inputs, inputs)] * (i == twice) + [(inputs, outputs)]
            stages.append(
                nn.ModuleList(SpadeBlock(a, b, self.num_inputs + noise, hidden, config) for a, b in widths)
            )
        self.stages = nn.ModuleList(stages)  # full resolution first
        self.to_rgb = nn.Conv2d(channels[0], 3, 3, padding=1)

    def start_size(self, label: Int[Tensor, "b h w"]) -> tuple[int, int]:
        """Height and width of the lowest resolution."""
        stride = 2 ** (len(self.stages) - 1)
        return -(-label.shape[-2] // stride), -(-label.shape[-1] // stride)

    def condition(
        self, label: Int[Tensor, "b h w"], noise: Tensor | None, size: tuple[int, int]
    ) -> Float[Tensor, "b k H W"]:
        """[one-hot label map, noise] at `size`. noise: (b, d, h, w) of the label map's size, (b, d, 1, 1)
        for the same at every pixel, or None."""
        ids = downsample_ids(label, size)
        one_hot = self.to_rgb.weight.new_zeros(label.shape[0], self.num_inputs, *size)
        one_hot.scatter_(1, ids[:, None], 1.0)
        if noise is None:
            return one_hot
        if noise.shape[-2:] != (1, 1):
            pixels = torch.arange(label[0].numel(), device=label.device).view(1, *label.shape[-2:])
            noise = noise.flatten(2)[:, :, downsample_ids(pixels, size)[0]]
        return torch.cat([one_hot, noise.to(one_hot.dtype).expand(-1, -1, *size)], dim=1)

    def forward(
        self, x: Float[Tensor, "b c H W"], label: Int[Tensor, "b h w"], noise: Tensor | None
    ) -> Float[Tensor, "b 3 h w"]:
        height, width = label.shape[-2:]
        for i in reversed(range(len(self.stages))):
            size = (-(-height // 2**i), -(-width // 2**i))
            if i < len(self.stages) - 1:
                x = upsample_to(x, size)
            condition = self.condition(label, noise, size)
            for block in self.stages[i].children():
                x = block(x, condition)
        return torch.tanh(self.to_rgb(F.leaky_relu(x, SLOPE)))


class OasisGenerator(nn.Module):
    """OASIS's generator: every modulation sees the label map and noise side by side. It has the interface of
    `Generator`.

    Of the config it reads num_classes, channels, hidden_channels, noise_channels, modulation_kernel and
    normalisation; it has one noise vector a picture (or a region, or a pixel).
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = _validated(config)
        inputs = config.num_classes + 1 + config.noise_channels
        self.start = nn.Conv2d(inputs, config.channels[-1], 3, padding=1)
        self.image_network = SpadePyramid(config, config.noise_channels)

    def sample_noise(
        self, batch: int, rng: torch.Generator | None = None, regions: int | None = None
    ) -> Tensor:
        """Standard normal z (batch, 1, d) on the CPU, or (batch, regions, 1, d) for `RegionNoise`."""
        shape = (batch, *(() if regions is None else (regions,)))
        return torch.randn(*shape, 1, self.config.noise_channels, generator=rng)

    def forward(
        self,
        label: Int[Tensor, "b h w"],
        noise: Float[Tensor, "b 1 d"] | Float[Tensor, "b d h w"] | RegionNoise | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        """Images in [-1, 1] of the label maps' size.

        label: int64, classes 0..K-1, K for unlabelled. noise: one vector a picture, as of `sample_noise` and
        as it is trained; one a pixel; a `RegionNoise`; or None for a random vector a picture. Raises
        ValueError for a label out of range (on the CPU) and for noise that does not fit.
        """
        _check_ids("label map", label, self.config.num_classes)
        plane = self._plane(noise, label)
        size = self.image_network.start_size(label)
        x = self.start(self.image_network.condition(label, plane, size))
        return self.image_network(x, label, plane)

    def _plane(self, noise: Tensor | RegionNoise | None, label: Tensor) -> Tensor:
        """(b, d, h, w), or (b, d, 1, 1) where all pixels have the same."""
        if noise is None:
            noise = self.sample_noise(label.shape[0])
        z = noise.z if isinstance(noise, RegionNoise) else noise
        batch, channels = label.shape[0], self.config.noise_channels
        if isinstance(noise, RegionNoise):
            wanted = (batch, z.shape[1], 1, channels)
        else:
            wanted = (batch, 1, channels) if z.ndim == 3 else (batch, channels, *label.shape[-2:])
        if tuple(z.shape) != wanted:
            raise ValueError(
                f"noise {tuple(z.shape)} does not fit: use ({batch}, 1, {channels}), one vector a pixel as "
                f"{(batch, channels, *label.shape[-2:])}, or z ({batch}, regions, 1, {channels})"
            )
        z = z.to(label.device)
        if not isinstance(noise, RegionNoise):
            return z if z.ndim == 4 else rearrange(z, "b 1 d -> b d 1 1")
        if noise.region.shape != label.shape:
            raise ValueError(
                f"region map {tuple(noise.region.shape)} and label map {tuple(label.shape)} differ in size"
            )
        _check_ids("region map", noise.region, z.shape[1] - 1)
        picture = torch.arange(batch, device=z.device)[:, None, None]
        return rearrange(z[picture, noise.region.to(z.device), 0], "b h w d -> b d h w")


class SpadeGenerator(nn.Module):
    """SPADE's generator: the label map alone modulates. It has the interface of `Generator`, but for noise.

    Its first layer is a convolution of the down-sampled label map, as published without an image encoder: it
    knows no noise, and a label map has one picture.
    Of the config it reads num_classes, channels, hidden_channels, modulation_kernel and normalisation.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = _validated(config)
        self.start = nn.Conv2d(config.num_classes + 1, config.channels[-1], 3, padding=1)
        twice = len(config.channels) - 2
        self.image_network = SpadePyramid(config, 0, twice)

    def sample_noise(self, batch: int, rng: torch.Generator | None = None) -> Float[Tensor, "b 1 0"]:
        """Noise of no channels, (batch, 1, 0)."""
        return torch.empty(batch, 1, 0)

    def forward(
        self, label: Int[Tensor, "b h w"], noise: Float[Tensor, "b 1 0"] | None = None
    ) -> Float[Tensor, "b 3 h w"]:
        """Images in [-1, 1] of the label maps' size.

        label: int64, classes 0..K-1, K for unlabelled. noise: as of `sample_noise`, or None. Raises
        ValueError for a label out of range (on the CPU) and for noise that does not fit.
        """
        _check_ids("label map", label, self.config.num_classes)
        size, wanted = self.image_network.start_size(label), (label.shape[0], 1, 0)
        if noise is not None and (isinstance(noise, RegionNoise) or tuple(noise.shape) != wanted):
            given = "per region" if isinstance(noise, RegionNoise) else tuple(noise.shape)
            raise ValueError(f"noise {given} does not fit: the SPADE generator takes {wanted}, no noise")
        return self.image_network(self.start(self.image_network.condition(label, None, size)), label, None)


def _check_ids(name: str, ids: Tensor, last: int) -> None:
    """On the CPU; on a GPU the check would stall it."""
    if ids.device.type == "cpu" and ids.numel() and not torch.compiler.is_compiling():
        low, high = (int(v) for v in ids.aminmax())
        if low < 0 or high > last:
            raise ValueError(f"{name} has index {low if low < 0 else high}; use 0..{last}")


def _validated(config: GeneratorConfig) -> GeneratorConfig:
    if config.num_classes < 1:
        raise ValueError(f"num_classes={config.num_classes}: give the number of classes, at least 1")
    if len(config.channels) < 2:
        raise ValueError(f"generator.channels={list(config.channels)}: give at least 2 numbers")
    if config.modulation_kernel % 2 == 0:
        raise ValueError(f"modulation_kernel={config.modulation_kernel}: use an odd number")
    return config
