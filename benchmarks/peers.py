"""The networks that benchmarks/inference.py compares, with random weights: the cost does not depend on them.

OASIS and SPADE come from dpsims.models.spade. ControlNet and SDM are put together from diffusers' parts
(`uv sync --group benchmarks`) and the published settings, which stand below as plain numbers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpsims.config import GeneratorConfig
from dpsims.models import spade
from dpsims.models.generator import Generator
from dpsims.recipes import load_recipe

Build = Callable[[int, int, int], "list[Piece]"]
"""(number of classes, height, width) -> the networks whose calls make a picture"""


@dataclass
class Piece:
    """A network, and its inputs for a number of pictures."""

    network: nn.Module
    inputs: Callable[[int], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Row:
    """What is measured once, and the lines of the table that follow from it: name -> how often each piece
    runs for one picture."""

    build: Build
    lines: dict[str, tuple[int, ...]]
    group: str
    largest: int = 512 * 512
    """pixels; larger pictures are left out"""

    @property
    def single(self) -> bool:
        """One call, one picture: these run in every mode and in batches."""
        return all(calls == (1,) for calls in self.lines.values())


def blocky(batch: int, height: int, width: int, classes: int) -> Tensor:
    """Label maps (batch, height, width), int64, of rectangles; all ids 0..classes (unlabelled) may occur."""
    rng = torch.Generator().manual_seed(0)
    small = torch.randint(0, classes + 1, (batch, 1, -(-height // 16), -(-width // 16)), generator=rng)
    large = small.repeat_interleave(16, 2).repeat_interleave(16, 3)
    return large[:, 0, :height, :width].contiguous()


def single(network: Any, height: int, width: int, classes: int) -> list[Piece]:
    """Label map and noise in, picture out."""

    def inputs(batch: int) -> tuple[Tensor, ...]:
        rng = torch.Generator().manual_seed(0)
        return blocky(batch, height, width, classes), network.sample_noise(batch, rng)

    return [Piece(network.eval(), inputs)]


def ours(config: GeneratorConfig | None) -> Build:
    """None takes the generator of the recipe ade20k."""

    def build(classes: int, height: int, width: int) -> list[Piece]:
        found = load_recipe("ade20k").generator if config is None else config
        found = dataclasses.replace(found, num_classes=classes)
        return single(Generator(found), height, width, classes)

    return build


def of_spade(kind: str) -> Build:
    def build(classes: int, height: int, width: int) -> list[Piece]:
        config = GeneratorConfig(classes, channels=spade.PUBLISHED_CHANNELS)
        # as one would use it: spectral norm folded into the weights
        with patch.object(spade, "spectral_norm", lambda layer: layer):
            network = {"OASIS": spade.OasisGenerator, "SPADE": spade.SpadeGenerator}[kind](config)
        return single(network, height, width, classes)

    return build


# https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5, unet/config.json and vae/config.json;
# https://huggingface.co/lllyasviel/control_v11p_sd15_seg, config.json
_SD_CHANNELS = (320, 640, 1280, 1280)
_SD_DOWN = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
_SD_UP = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
_SD = {"layers_per_block": 2, "cross_attention_dim": 768, "attention_head_dim": 8}
_VAE_CHANNELS = (128, 256, 512, 512)
_TEXT = (77, 768)  # tokens of the text encoder, which runs once a prompt, not once a picture: not counted


class ControlledStep(nn.Module):
    """Latents, time, text and picture of the map -> the noise in the latents: one step of sampling."""

    def __init__(self) -> None:
        super().__init__()
        from diffusers.models.controlnets.controlnet import ControlNetModel  # pyright: ignore[reportMissingImports]
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel  # pyright: ignore[reportMissingImports]

        shared = {"block_out_channels": _SD_CHANNELS, "down_block_types": _SD_DOWN, **_SD}
        self.unet = UNet2DConditionModel(sample_size=64, up_block_types=_SD_UP, **shared)
        self.control = ControlNetModel(conditioning_embedding_out_channels=(16, 32, 96, 256), **shared)

    def forward(self, latents: Tensor, time: Tensor, text: Tensor, picture: Tensor) -> Tensor:
        down, middle = self.control(latents, time, text, controlnet_cond=picture, return_dict=False)
        residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        return self.unet(latents, time, text, return_dict=False, **residuals)[0]


class LatentDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # pyright: ignore[reportMissingImports]

        count = len(_VAE_CHANNELS)
        blocks = {"down_block_types": ("DownEncoderBlock2D",) * count}
        blocks |= {"up_block_types": ("UpDecoderBlock2D",) * count}
        vae = AutoencoderKL(block_out_channels=_VAE_CHANNELS, layers_per_block=2, **blocks)  # pyright: ignore
        self.decoder, self.first = vae.decoder, vae.post_quant_conv

    def forward(self, latents: Tensor) -> Tensor:
        assert self.first is not None
        return self.decoder(self.first(latents))


def controlnet(classes: int, height: int, width: int) -> list[Piece]:
    def step(batch: int) -> tuple[Tensor, ...]:
        both = 2 * batch  # guidance: with the text and without it
        latents = torch.randn(both, 4, height // 8, width // 8)
        return (
            latents,
            torch.full((both,), 500),
            torch.randn(both, *_TEXT),
            torch.rand(both, 3, height, width),
        )

    def decode(batch: int) -> tuple[Tensor, ...]:
        return (torch.randn(batch, 4, height // 8, width // 8),)

    return [Piece(filled(ControlledStep), step), Piece(filled(LatentDecoder), decode)]


# Wang et al., Semantic Image Synthesis via Diffusion Models (2022); settings of its released ADE20K training:
# https://github.com/WeilunWang/semantic-diffusion-model, scripts/ade20k.sh
_SDM_CHANNELS = tuple(256 * m for m in (1, 1, 2, 2, 4, 4))
_SDM_ATTENTION = (False, False, False, True, True, True)  # at 32, 16 and 8 pixels of 256
_SDM_HIDDEN = 128


class GuidedNorm(nn.Module):
    """Group normalisation modulated by the label map, as SDM's decoder has it."""

    def __init__(self, channels: int, classes: int, guide: list[Tensor]) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, channels, affine=False)
        self.shared = nn.Conv2d(classes, _SDM_HIDDEN, 3, padding=1)
        self.gamma = nn.Conv2d(_SDM_HIDDEN, channels, 3, padding=1)
        self.beta = nn.Conv2d(_SDM_HIDDEN, channels, 3, padding=1)
        self.guide = guide  # one list that all share

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.shared(F.interpolate(self.guide[0], x.shape[-2:], mode="nearest")))
        return self.norm(x) * (1 + self.gamma(h)) + self.beta(h)


class SemanticDiffusion(nn.Module):
    """SDM's UNet: ADM's, with the label map in every normalisation of the middle and of the way up."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        from diffusers.models.resnet import ResnetBlock2D  # pyright: ignore[reportMissingImports]
        from diffusers.models.unets.unet_2d import UNet2DModel  # pyright: ignore[reportMissingImports]

        self.classes = classes
        self.guide: list[Tensor] = []
        kinds = ["Attn" if attention else "" for attention in _SDM_ATTENTION]
        self.unet = UNet2DModel(
            in_channels=3,
            out_channels=6,  # mean and variance
            block_out_channels=_SDM_CHANNELS,
            layers_per_block=2,
            down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
            up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
            attention_head_dim=64,
            resnet_time_scale_shift="scale_shift",
            downsample_type="resnet",
            upsample_type="resnet",
        )
        for part in (self.unet.mid_block, self.unet.up_blocks):
            assert part is not None
            for block in part.modules():
                if isinstance(block, ResnetBlock2D):
                    for name in ("norm1", "norm2"):
                        channels = getattr(block, name).num_channels
                        setattr(block, name, GuidedNorm(channels, classes, self.guide))

    def forward(self, picture: Tensor, time: Tensor, label: Tensor) -> Tensor:
        one_hot = picture.new_zeros(label.shape[0], self.classes, *label.shape[1:])
        self.guide[:] = [one_hot.scatter_(1, label[:, None], 1)]
        return self.unet(picture, time, return_dict=False)[0]


def sdm(classes: int, height: int, width: int) -> list[Piece]:
    def call(batch: int) -> tuple[Tensor, ...]:
        label = blocky(batch, height, width, classes)
        return torch.randn(batch, 3, height, width), torch.full((batch,), 500), label

    return [Piece(filled(lambda: SemanticDiffusion(classes + 1)), call)]


def filled(make: Callable[[], nn.Module]) -> nn.Module:
    """The network with cheap random weights: torch's own start of a billion of them takes minutes here."""
    on_meta = torch.empty(0).device.type == "meta"
    with torch.device("meta"):
        network = make().eval()
    if on_meta:  # it is only counted
        return network
    network.to_empty(device="cpu")
    for module in network.modules():
        for name, values in module.named_parameters(recurse=False):
            if isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
                nn.init.constant_(values, float(name == "weight"))
            else:
                bound = 1 / math.sqrt(max(values[0].numel(), 1))
                nn.init.uniform_(values, -bound, bound)
        assert not list(module.named_buffers(recurse=False)), (
            f"{type(module).__name__} has buffers: fill them"
        )
    return network


_LARGE = 1024 * 1024
OURS = "ours, ade20k"
ROWS = {
    "default": Row(ours(None), {OURS: (1,)}, "ours", _LARGE),
    "S": Row(ours(GeneratorConfig(channels=(24, 48, 96, 192, 192, 192))), {"ours, S": (1,)}, "ours", _LARGE),
    "M": Row(ours(GeneratorConfig(channels=(40, 80, 160, 288, 288, 288))), {"ours, M": (1,)}, "ours", _LARGE),
    "L": Row(
        ours(GeneratorConfig(channels=(64, 128, 256, 360, 360, 360))), {"ours, L": (1,)}, "ours", _LARGE
    ),
    "wide": Row(
        ours(GeneratorConfig(channels=spade.PUBLISHED_CHANNELS)), {"ours, OASIS's channels": (1,)}, "ours"
    ),
    "OASIS": Row(of_spade("OASIS"), {"OASIS": (1,)}, "GAN"),
    "SPADE": Row(of_spade("SPADE"), {"SPADE": (1,)}, "GAN"),
    "ControlNet": Row(controlnet, {"ControlNet-seg, SD 1.5, 20 guided steps": (20, 1)}, "diffusion"),
    # released code calls the network twice a step: with the map and without
    "SDM": Row(sdm, {"SDM, 25 guided steps": (50,), "SDM, 1000 guided steps": (2000,)}, "diffusion"),
}
