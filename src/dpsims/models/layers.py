"""Building blocks that generator and discriminator share. Sizes that are no multiple of anything are fine
everywhere: halving rounds up, doubling crops to the size that is wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

SLOPE = 0.2  # of every LeakyReLU


class RegionNoise(NamedTuple):
    """Noise that varies over the plane: z (b, r, n, d) for r regions, region (b, h, w) int64 with values
    0..r-1.

    Resample one region's z and keep the others', and only that region changes (and a rim around it as wide
    as the image network's receptive field).
    """

    z: Tensor
    region: Tensor


class RegionTokens(NamedTuple):
    """Noise tokens per region of the plane: tokens (b, r*n, d), n for each of r regions; region ids (b, h,
    w)."""

    tokens: Tensor
    region: Tensor
    regions: int


def upsample_to(x: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b c H W"]:
    """Nearest x2 upsampling, cropped to `size` where that is odd.

    Resizing to `size` takes the same pixels, and unlike a crop it is the same program for odd and even sizes:
    torch.export can leave them open.
    """
    return F.interpolate(x, size=size, mode="nearest")


class Blur(nn.Module):
    """Low-pass filter [1, 2, 1] x [1, 2, 1] / 16 of each channel, the edge repeated.

    After nearest upsampling it makes bilinear x2 upsampling, that is the filter [1, 3, 3, 1], for odd sizes,
    too; in front of 2x2 pooling, downsampling by that filter.
    """

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", (taps[:, None] * taps)[None, None], persistent=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        kernel = self.kernel.to(x.dtype).expand(x.shape[1], -1, -1, -1)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=x.shape[1])


def set_padding(module: nn.Module, padding: Literal["zeros", "replicate"]) -> None:
    """What the module's convolutions see beyond the edge, in place."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.padding_mode = padding


def downsample_ids(ids: Int[Tensor, "b h w"], size: tuple[int, int]) -> Int[Tensor, "b H W"]:
    """Nearest down-sampling of integer maps (the pixel under each cell's centre), without a float round
    trip."""
    rows, columns = (
        ((torch.arange(n, device=ids.device) + 0.5) * (full / n)).long().clamp_(max=full - 1)
        for n, full in zip(size, ids.shape[-2:], strict=True)
    )
    return ids[:, rows[:, None], columns]


def mixed_precision_on_cpu(x: Tensor) -> bool:
    """Whether `x` is on a CPU under autocast, where bf16 group norm and attention have backward passes up to
    5 times slower than float32."""
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu")


def in_float32(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """`function` of the inputs in float32, whatever autocast is in force on the CPU."""
    with torch.autocast("cpu", enabled=False):
        return function(*(x.float() for x in inputs))


def attend(
    q: Float[Tensor, "b m i d"], k: Float[Tensor, "b m j d"], v: Float[Tensor, "b m j d"]
) -> Float[Tensor, "b m i d"]:
    """Attention of m heads."""
    if mixed_precision_on_cpu(q):
        return in_float32(F.scaled_dot_product_attention, q, k, v)
    return F.scaled_dot_product_attention(q, k, v)


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm` of `channels` in the most groups that divide them, up to 8."""

    def __init__(self, channels: int) -> None:
        super().__init__(next(g for g in (8, 4, 2, 1) if channels % g == 0), channels)

    def forward(self, input: Float[Tensor, "b c ..."]) -> Float[Tensor, "b c ..."]:
        return super().forward(input.float() if mixed_precision_on_cpu(input) else input)


class EncoderBlock(nn.Module):
    """Residual block of the label-map encoder; halves the size. Channels `inputs` -> `outputs`."""

    def __init__(self, inputs: int, outputs: int, downsampling: str = "strided") -> None:
        super().__init__()
        self.blur = Blur() if downsampling == "blur" else nn.Identity()
        self.norm1 = GroupNorm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
        self.norm2 = GroupNorm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d H W"]:
        h = self.conv1(self.blur(F.leaky_relu(self.norm1(x), SLOPE)))
        h = self.conv2(F.leaky_relu(self.norm2(h), SLOPE))
        return h + self.shortcut(F.avg_pool2d(self.blur(x), 2, ceil_mode=True))


class DecoderBlock(nn.Module):
    """Residual block of the discriminators: spectral norm, LeakyReLU, no normalisation. Keeps the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = spectral_norm(nn.Conv2d(inputs, outputs, 3, padding=1))
        self.conv2 = spectral_norm(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.shortcut = spectral_norm(nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        h = self.conv1(F.leaky_relu(x, SLOPE))
        return self.shortcut(x) + self.conv2(F.leaky_relu(h, SLOPE))


class SelfAttention(nn.Module):
    """Residual multi-head self-attention over the pixels of a small feature map."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = GroupNorm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        height, width = x.shape[-2:]
        pattern = "b (three m d) h w -> three b m (h w) d"
        q, k, v = rearrange(self.qkv(self.norm(x)), pattern, three=3, m=self.heads)
        h = attend(q, k, v)
        return x + self.out(rearrange(h, "b m (h w) d -> b (m d) h w", h=height, w=width))


class NoiseCrossAttention(nn.Module):
    """Injects noise tokens into label features: queries from the pixels, keys and values from the tokens.

    g = h + Attn(q(h), k(w), v(w)) (method: cross-attention noise injection). With `RegionTokens` a pixel
    attends only to the tokens of its own region, so that one region's noise leaves the others' features
    untouched.
    """

    def __init__(self, channels: int, token_channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = GroupNorm(channels)
        self.query = nn.Conv2d(channels, channels, 1)
        self.key_value = nn.Linear(token_channels, 2 * channels)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.xavier_normal_(self.key_value.weight)
        nn.init.xavier_normal_(self.out.weight)

    def forward(
        self, h: Float[Tensor, "a c h w"], tokens: Float[Tensor, "b n d"] | RegionTokens
    ) -> Float[Tensor, "b c h w"]:
        """a is b, or for one noise a picture also 1: label features shared by b noises.

        The projections of the pixels are taken into the few keys and values, which are the picture's own:
        with n tokens and m heads, scores q(h) . k = h . (Wq^T k) are one product with a matrix m*n wide
        instead of c, and likewise out(A v) = A (v Wo^T).
        """
        if isinstance(tokens, RegionTokens):
            return self._by_region(h, *tokens)
        heads, query, out = self.heads, self.query, self.out
        assert query.bias is not None and out.bias is not None
        k, v = rearrange(self.key_value(tokens), "b n (two m d) -> two b m n d", two=2, m=heads)
        k = k * k.shape[-1] ** -0.5
        w_query = rearrange(query.weight.flatten(1), "(m d) c -> m d c", m=heads)
        b_query = rearrange(query.bias, "(m d) -> m d", m=heads)
        w_out = rearrange(out.weight.flatten(1), "c (m d) -> m d c", m=heads)
        keys = rearrange(torch.einsum("bmnd,mdc->bmnc", k, w_query), "b m n c -> b (m n) c")
        bias = rearrange(torch.einsum("bmnd,md->bmn", k, b_query), "b m n -> b (m n) 1")
        # each head's weights sum to one, so that its share of the bias may stand in every value
        values = rearrange(torch.einsum("bmnd,mdc->bmnc", v, w_out), "b m n c -> b (m n) c")
        values = values + out.bias / heads
        x = rearrange(self.norm(h), "b c h w -> b c (h w)")
        many = keys.shape[0]  # not len(), which torch.export takes for a constant
        # pixels last: softmax over a short last dimension is not vectorized (10 times slower)
        scores = torch.baddbmm(bias, keys, x.expand(many, -1, -1))
        scores = scores.float() if mixed_precision_on_cpu(x) else scores  # as autocast does on a GPU
        weights = scores.unflatten(1, (heads, -1)).softmax(2).flatten(1, 2)
        residual = rearrange(h, "b c h w -> b (h w) c").expand(many, -1, -1)
        guide = torch.baddbmm(residual, weights.transpose(1, 2), values)
        return rearrange(guide, "b (h w) c -> b c h w", h=h.shape[-2])

    def _by_region(
        self,
        h: Float[Tensor, "b c h w"],
        tokens: Float[Tensor, "b n d"],
        region: Int[Tensor, "b H W"],
        regions: int,
    ) -> Float[Tensor, "b c h w"]:
        height, width = h.shape[-2:]
        owner = torch.arange(regions, device=h.device).repeat_interleave(tokens.shape[1] // regions)
        cells = downsample_ids(region, (height, width)).flatten(1)
        mask = (cells[:, :, None] == owner)[:, None]  # b 1 (h w) n
        q = rearrange(self.query(self.norm(h)), "b (m d) h w -> b m (h w) d", m=self.heads)
        k, v = rearrange(self.key_value(tokens), "b n (two m d) -> two b m n d", two=2, m=self.heads)
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return h + self.out(rearrange(a, "b m (h w) d -> b (m d) h w", h=height, w=width))


class NoiseConcatenation(nn.Module):
    """Noise tokens appended to every pixel's label features, and a 1x1 convolution back: as OASIS's 3D noise
    (Schoenfeld et al. 2021, section 3.3), for comparison with `NoiseCrossAttention`.

    The convolution's part for the features is held at the identity: g = h + W w.
    """

    def __init__(self, channels: int, noise_channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(noise_channels, channels)
        nn.init.xavier_normal_(self.project.weight)

    def forward(
        self, h: Float[Tensor, "a c h w"], tokens: Float[Tensor, "b n d"] | RegionTokens
    ) -> Float[Tensor, "b c h w"]:
        """a is b, or for one noise a picture also 1: label features shared by b noises."""
        if not isinstance(tokens, RegionTokens):
            return h + self.project(tokens.flatten(1))[:, :, None, None]
        tokens, region, regions = tokens
        noise = self.project(rearrange(tokens, "b (r n) d -> b r (n d)", r=regions))
        cells = downsample_ids(region, (h.shape[-2], h.shape[-1]))
        picture = torch.arange(len(cells), device=h.device)[:, None, None]
        return h + rearrange(noise[picture, cells], "b h w c -> b c h w")


class PixelNorm(nn.Module):
    """Every pixel's channel vector scaled to root mean square 1 (Karras et al. 2018)."""

    def forward(self, x: Float[Tensor, "b c ..."]) -> Float[Tensor, "b c ..."]:
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


class SpatiallyAdaptiveNorm(nn.Module):
    """Parameter-free normalisation, modulated per pixel by gamma and beta from a guide (Park et al. 2019,
    SPADE)."""

    def __init__(self, channels: int, guide_channels: int, kernel: int, normalisation: str) -> None:
        super().__init__()
        self.norm = NORMALISATIONS[normalisation](channels)
        self.modulation = nn.Conv2d(guide_channels, 2 * channels, kernel, padding=kernel // 2)

    def forward(
        self, x: Float[Tensor, "b c h w"], guide: Float[Tensor, "b g h w"]
    ) -> Float[Tensor, "b c h w"]:
        gamma, beta = self.modulation(guide).chunk(2, dim=1)
        return torch.addcmul(beta, self.norm(x), 1 + gamma)


class ModulatedBlock(nn.Module):
    """Residual block of the image network at one scale, both convolutions behind a modulated
    normalisation."""

    def __init__(
        self, channels: int, guide_channels: int, kernel: int, normalisation: str, pixel_noise: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = SpatiallyAdaptiveNorm(channels, guide_channels, kernel, normalisation)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = SpatiallyAdaptiveNorm(channels, guide_channels, kernel, normalisation)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        # from zero: louder noise at the start lets the discriminator win at once
        self.noise_gain = nn.Parameter(torch.zeros(channels)) if pixel_noise else None

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        guide: Float[Tensor, "b g h w"],
        noise: Float[Tensor, "b 1 h w"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """noise: of each pixel, where the block has a gain for it."""
        h = self.conv1(F.leaky_relu(self.norm1(x, guide), SLOPE))
        if self.noise_gain is not None:
            h = add_noise(h, noise, self.noise_gain)
        return x + self.conv2(F.leaky_relu(self.norm2(h, guide), SLOPE))


def add_noise(
    h: Float[Tensor, "b c h w"], noise: Float[Tensor, "b 1 h w"] | None, gain: Float[Tensor, " c"]
) -> Float[Tensor, "b c h w"]:
    """One noise for all channels, each with its gain."""
    assert noise is not None, "this network takes pixel keys: see Generator.pixel_keys"
    return torch.addcmul(h, noise.to(h.dtype), gain.to(h.dtype)[:, None, None])


NORMALISATIONS = {
    "batch": lambda channels: nn.BatchNorm2d(channels, affine=False),
    "instance": lambda channels: nn.InstanceNorm2d(channels),
    "pixel": lambda channels: PixelNorm(),
}
