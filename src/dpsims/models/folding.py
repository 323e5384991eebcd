"""A generator rewritten for inference: the same function with fewer passes over memory.

Everything here is algebra on trained weights, exact up to rounding: BatchNorm with fixed statistics goes into
the convolutions that predict the modulation, the encoder's embedding and 3x3 stem become one look-up table.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dpsims.models.generator import Generator
from dpsims.models.layers import (
    SLOPE,
    ModulatedBlock,
    SpatiallyAdaptiveNorm,
    add_noise,
)


def fold(generator: Generator) -> Generator:
    """A copy for inference alone: in eval mode, without gradients, its state dict of other names and shapes
    (never save it as a checkpoint).

    Pictures differ from the generator's by at most 1e-5 (tested). It is a snapshot: what is later done to the
    generator's weights does not reach it.
    """
    folded = copy.deepcopy(generator).eval().requires_grad_(False)
    encoder, network = folded.encoder, folded.image_network
    stem = StemTable(encoder.embedding, encoder.stem)
    encoder.embedding, encoder.stem = stem, nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    for i, block in enumerate(network.blocks):
        assert isinstance(block, ModulatedBlock)
        network.blocks[i] = FoldedBlock(block)
    return folded.requires_grad_(False)


def fold_spectral_norms(module: nn.Module) -> None:
    """Replace the baselines' convolutions under spectral norm (square, of stride 1, size kept), within a
    module in eval mode, by plain ones of the normalised weights.

    Not torch's `remove_parametrizations`: copies of a module share the class that it changes.
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d) and parametrize.is_parametrized(child, "weight"):
                weight, bias = child.weight.detach(), child.bias
                outputs, inputs, height, _ = weight.shape
                plain = nn.Conv2d(inputs, outputs, height, padding=height // 2, bias=bias is not None)
                plain.load_state_dict({"weight": weight, **({} if bias is None else {"bias": bias})})
                setattr(parent, name, plain.eval().requires_grad_(False))


class StemTable(nn.Module):
    """Embedding and 3x3 convolution in one: the sum of nine looked-up vectors a pixel, one for each place of
    the kernel. 9 (K+2) rows; label K+1 is the zero padding."""

    def __init__(self, embedding: nn.Embedding, stem: nn.Conv2d) -> None:
        super().__init__()
        assert stem.kernel_size == (3, 3) and stem.bias is not None
        taps = torch.einsum("ki,oiyx->yxko", embedding.weight, stem.weight)  # 3 3 K+1 c
        taps[1, 1] += stem.bias  # the centre is never padding
        self.rows, self.padding = embedding.num_embeddings + 1, stem.padding_mode
        self.table = nn.Parameter(F.pad(taps, (0, 0, 0, 1)).flatten(0, 2).contiguous())

    def forward(self, label: Int[Tensor, "b h w"]) -> Float[Tensor, "b h w c"]:
        height, width = label.shape[1:]
        if self.padding == "replicate":
            rows, columns = (
                torch.arange(-1, n + 1, device=label.device).clamp(0, n - 1) for n in (height, width)
            )
            padded = label[:, rows[:, None], columns]
        else:
            padded = F.pad(label, (1, 1, 1, 1), value=self.rows - 1)
        places = [(y, x) for y in range(3) for x in range(3)]
        index = torch.stack(
            [padded[:, y : y + height, x : x + width] + self.rows * (3 * y + x) for y, x in places], dim=-1
        )
        return F.embedding_bag(index.view(-1, 9), self.table, mode="sum").view(*label.shape, -1)


class FoldedModulation(nn.Module):
    """`SpatiallyAdaptiveNorm` as x * scale(guide) + shift(guide).

    (x - mean) / std * (1 + gamma) + beta, with gamma and beta linear in the guide: scale = (1 + gamma) / std,
    shift = beta - mean * scale, each again one convolution of the guide.
    """

    def __init__(self, norm: SpatiallyAdaptiveNorm) -> None:
        super().__init__()
        modulation = norm.modulation
        assert modulation.bias is not None
        w_gamma, w_beta = modulation.weight.double().chunk(2)
        b_gamma, b_beta = modulation.bias.double().chunk(2)
        self.norm: nn.Module = norm.norm
        b_gamma = b_gamma + 1
        if isinstance(norm.norm, nn.BatchNorm2d):
            mean, variance = norm.norm.running_mean, norm.norm.running_var
            assert mean is not None and variance is not None
            mean, inverse = mean.double(), (variance.double() + norm.norm.eps).rsqrt()
            w_gamma, b_gamma = w_gamma * inverse[:, None, None, None], b_gamma * inverse
            w_beta, b_beta = w_beta - mean[:, None, None, None] * w_gamma, b_beta - mean * b_gamma
            self.norm = nn.Identity()
        # two convolutions: the halves of one's output would not be contiguous, and twice as slow to read
        self.scale, self.shift = (copy.deepcopy(modulation) for _ in range(2))
        for conv, weight, bias in ((self.scale, w_gamma, b_gamma), (self.shift, w_beta, b_beta)):
            conv.out_channels = len(bias)
            conv.weight, conv.bias = nn.Parameter(weight.float()), nn.Parameter(bias.float())

    def forward(
        self, x: Float[Tensor, "b c h w"], guide: Float[Tensor, "b g h w"]
    ) -> Float[Tensor, "b c h w"]:
        return torch.addcmul(self.shift(guide), self.norm(x), self.scale(guide))


class FoldedBlock(nn.Module):
    """`ModulatedBlock` with `FoldedModulation`, in place where that is safe."""

    def __init__(self, block: ModulatedBlock) -> None:
        super().__init__()
        self.norm1, self.norm2 = FoldedModulation(block.norm1), FoldedModulation(block.norm2)
        self.conv1, self.conv2 = block.conv1, block.conv2
        self.noise_gain = block.noise_gain

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        guide: Float[Tensor, "b g h w"],
        noise: Float[Tensor, "b 1 h w"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        h = self.conv1(F.leaky_relu_(self.norm1(x, guide), SLOPE))
        if self.noise_gain is not None:
            h = add_noise(h, noise, self.noise_gain)
        return self.conv2(F.leaky_relu_(self.norm2(h, guide), SLOPE)).add_(x)
