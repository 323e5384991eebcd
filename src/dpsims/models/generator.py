"""The generator: a label-map encoder with attention, a noise mapping, and an image network steered by both.

Source: Berrada et al., Unlocking Pre-trained Image Backbones for Semantic Image Synthesis, CVPR 2024,
figure 3. What is certain of it and what is our choice is told in docs/method.md.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from dpsims.config import GeneratorConfig
from dpsims.models.layers import (
    SLOPE,
    Blur,
    EncoderBlock,
    ModulatedBlock,
    NoiseConcatenation,
    NoiseCrossAttention,
    PixelNorm,
    RegionNoise,
    RegionTokens,
    SelfAttention,
    downsample_ids,
    set_padding,
    upsample_to,
)
from dpsims.models.pixel_noise import PixelKeys, noise_map, pixel_keys
from dpsims.models.spade import OasisGenerator, SpadeGenerator


class LabelEncoder(nn.Module):
    """Label map -> features h_i at full resolution, half, quarter ... Integers in: the stem is an embedding
    look-up."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        channels = config.channels
        self.embedding = nn.Embedding(config.num_classes + 1, channels[0])  # index K: unlabelled
        self.stem = nn.Conv2d(channels[0], channels[0], 3, padding=1)
        self.blocks = nn.ModuleList(
            EncoderBlock(a, b, config.downsampling) for a, b in zip(channels, channels[1:], strict=False)
        )
        self.attention = nn.ModuleList(
            SelfAttention(c, config.attention_heads) if 2**i in config.attention_strides else nn.Identity()
            for i, c in enumerate(channels)
        )

    def forward(self, label: Int[Tensor, "b h w"]) -> list[Tensor]:
        h = self.attention[0](self.stem(rearrange(self.embedding(label), "b h w c -> b c h w")))
        pyramid = [h]
        for block, attention in zip(self.blocks, self.attention[1:], strict=True):
            h = attention(block(h))
            pyramid.append(h)
        return pyramid


class NoiseMapping(nn.Module):
    """z -> noise tokens: pixel norm, a three-layer MLP, and a learned embedding for each token."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        width = config.token_channels
        self.norm = PixelNorm()
        self.mlp = nn.Sequential(
            nn.Linear(config.noise_channels, width),
            nn.LeakyReLU(SLOPE),
            nn.Linear(width, width),
            nn.LeakyReLU(SLOPE),
            nn.Linear(width, width),
        )
        self.embedding = nn.Parameter(torch.randn(config.noise_tokens, width))
        # variance-preserving: torch's default makes the noise a tenth of the embedding, and it is ignored
        for layer in (self.mlp[0], self.mlp[2], self.mlp[4]):
            assert isinstance(layer, nn.Linear)
            nn.init.kaiming_normal_(layer.weight, SLOPE)
            nn.init.zeros_(layer.bias)

    def forward(self, z: Float[Tensor, "b ... n d"]) -> Float[Tensor, "b ... n w"]:
        z = z.to(self.embedding.dtype)  # here and not before: its float32 bits are the pixel noise's key
        return self.mlp(self.norm(z.movedim(-1, 1)).movedim(1, -1)) + self.embedding


class ImageNetwork(nn.Module):
    """From the label map at the lowest resolution up to the image, each scale modulated by its guide g_i."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        channels = config.channels
        self.num_inputs = config.num_classes + 1
        self.start = nn.Conv2d(self.num_inputs, channels[-1], 3, padding=1)
        self.blocks = nn.ModuleList(
            ModulatedBlock(c, c, config.modulation_kernel, config.normalisation, config.pixel_noise)
            for c in channels
        )
        # channels change at the lower resolution, in front of the upsampling, where it costs a quarter
        self.narrow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in zip(channels, channels[1:], strict=False))
        self.to_rgb = nn.Conv2d(channels[0], 3, 3, padding=1)
        self.blur = Blur() if config.upsampling == "bilinear" else nn.Identity()

    def upsample(self, x: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b c H W"]:
        """x2, cropped to `size` where that is odd."""
        return self.blur(upsample_to(x, size))

    def forward(
        self, label: Int[Tensor, "b h w"], guides: list[Tensor], keys: PixelKeys | None = None
    ) -> Float[Tensor, "b 3 h w"]:
        """keys: of the pixel noise, where the network has it (`Generator.pixel_keys`)."""
        size = guides[-1].shape[-2:]
        one_hot = F.one_hot(downsample_ids(label, (size[0], size[1])), self.num_inputs)
        x = self.start(rearrange(one_hot, "b h w c -> b c h w").to(self.start.weight.dtype))
        x = self.blocks[-1](x, guides[-1], self.noise(keys, len(guides) - 1, (size[0], size[1])))
        for i in reversed(range(len(guides) - 1)):
            height, width = guides[i].shape[-2:]
            x = self.upsample(self.narrow[i](x), (height, width))
            x = self.blocks[i](x, guides[i], self.noise(keys, i, (height, width)))
        return torch.tanh(self.to_rgb(F.leaky_relu(x, SLOPE)))

    def noise(
        self,
        keys: PixelKeys | None,
        level: int,
        size: tuple[int, int],
        rows: tuple[int, int] | None = None,
    ) -> Float[Tensor, "b 1 h w"] | None:
        """`noise_map`, or None for no keys."""
        return None if keys is None else noise_map(keys, level, size, rows)


class Generator(nn.Module):
    """DP-SIMS generator. `Generator(GeneratorConfig(num_classes=K))(label)` -> images in [-1, 1]."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = _validated(config)
        self.encoder = LabelEncoder(config)
        self.mapping = NoiseMapping(config)
        self.injection = nn.ModuleList(
            NoiseCrossAttention(c, config.token_channels, config.attention_heads)
            if config.noise_injection == "cross_attention"
            else NoiseConcatenation(c, config.noise_tokens * config.token_channels)
            for c in config.channels
        )
        self.image_network = ImageNetwork(config)
        set_padding(self, config.padding)

    def sample_noise(
        self, batch: int, rng: torch.Generator | None = None, regions: int | None = None
    ) -> Tensor:
        """Standard normal z (batch, n, d) on the CPU, or (batch, regions, n, d) for `RegionNoise`."""
        shape = (batch, *(() if regions is None else (regions,)))
        return torch.randn(*shape, self.config.noise_tokens, self.config.noise_channels, generator=rng)

    def forward(
        self, label: Int[Tensor, "b h w"], noise: Float[Tensor, "b n d"] | RegionNoise | None = None
    ) -> Float[Tensor, "b 3 h w"]:
        """Images in [-1, 1] of the label maps' size.

        label: int64, classes 0..K-1, K for unlabelled. noise: z as of `sample_noise`, a `RegionNoise`, or
        None for a random one. Raises ValueError for a label out of range (on the CPU; on a GPU the check
        would stall it).
        """
        if label.device.type == "cpu" and label.numel() and not torch.compiler.is_compiling():
            low, high = (int(v) for v in label.aminmax())
            if low < 0 or high > self.config.num_classes:
                raise ValueError(
                    f"label map has index {low if low < 0 else high}; classes are "
                    f"0..{self.config.num_classes - 1}, unlabelled is {self.config.num_classes}"
                )
        if noise is None:
            noise = self.sample_noise(label.shape[0])
        tokens = self._tokens(noise, label)
        pyramid = self.encoder(label)
        guides = [inject(h, tokens) for inject, h in zip(self.injection, pyramid, strict=True)]
        return self.image_network(label, guides, self.pixel_keys(noise, label.device))

    def pixel_keys(self, noise: Tensor | RegionNoise, device: torch.device) -> PixelKeys | None:
        """What the image network needs beside its guides: None without `config.pixel_noise`."""
        if not self.config.pixel_noise:
            return None
        if isinstance(noise, RegionNoise):
            return pixel_keys(RegionNoise(noise.z.to(device), noise.region.to(device)))
        return pixel_keys(noise.to(device))

    def _tokens(self, noise: Tensor | RegionNoise, label: Tensor) -> Tensor | RegionTokens:
        if not isinstance(noise, RegionNoise):
            return self.mapping(noise.to(label.device))
        z, region = noise
        if region.shape != label.shape:
            raise ValueError(
                f"region map {tuple(region.shape)} and label map {tuple(label.shape)} differ in size"
            )
        if region.device.type == "cpu":
            low, high = (int(v) for v in region.aminmax())
            if low < 0 or high >= z.shape[1]:
                raise ValueError(f"region ids are {low}..{high}, but there is noise for {z.shape[1]} regions")
        tokens = self.mapping(z.to(label.device))
        return RegionTokens(rearrange(tokens, "b r n d -> b (r n) d"), region.to(label.device), z.shape[1])


def _validated(config: GeneratorConfig) -> GeneratorConfig:
    if config.num_classes < 1:
        raise ValueError(f"num_classes={config.num_classes}: give the number of classes, at least 1")
    if not config.channels or config.attention_heads < 1:
        raise ValueError(
            f"channels={config.channels}, attention_heads={config.attention_heads}: give at least 1"
        )
    for c in config.channels:
        if c % config.attention_heads:
            raise ValueError(f"channels: {c} is no multiple of attention_heads={config.attention_heads}")
    if config.modulation_kernel % 2 == 0:
        raise ValueError(f"modulation_kernel={config.modulation_kernel}: use an odd number")
    for name, choices in CHOICES.items():
        if getattr(config, name) not in choices:
            raise ValueError(f"{name}={getattr(config, name)}: use one of {', '.join(choices)}")
    return config


AnyGenerator = Generator | OasisGenerator | SpadeGenerator


def build_generator(config: GeneratorConfig) -> AnyGenerator:
    """The generator that `config.kind` names, with random weights. Raises ValueError for sizes that do not
    fit."""
    return GENERATORS[config.kind](config)


CHOICES = {
    "upsampling": ("nearest", "bilinear"),
    "downsampling": ("strided", "blur"),
    "padding": ("zeros", "replicate"),
}
GENERATORS = {"dpsims": Generator, "oasis": OasisGenerator, "spade": SpadeGenerator}
