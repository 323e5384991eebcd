"""Pictures of very large maps in bounded memory and near-linear time, without seams.

Two halves, for two reasons. The label-map encoder sees the plane (self-attention, whose cost grows with the
square of the area, and group normalisation), so it looks through overlapping windows about as large as what
it was trained on, and its features are blended where windows overlap: features, not pictures, so that nothing
is painted twice and averaged. The image network is local, so it is run whole, scale by scale, in strips of
rows with a halo as wide as a block reaches: the same numbers as in one go.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from dpsims.models.generator import Generator
from dpsims.models.layers import SLOPE, RegionNoise, RegionTokens, downsample_ids
from dpsims.models.pixel_noise import PixelKeys

STRIP = 2**23
"""numbers in a strip's feature map, which sets its rows; a block needs about eight times as many"""


class Span(NamedTuple):
    start: int
    stop: int


def generate_tiled(
    generator: Generator,
    label: Int[Tensor, "b h w"],
    noise: Float[Tensor, "b n d"] | RegionNoise,
    window: int,
    overlap: int,
    strip: int = STRIP,
) -> Float[Tensor, "b 3 h w"]:
    """The generator's picture of a map of any size; z is shared by all windows.

    window, overlap: pixels that the encoder sees at a time, and that neighbouring windows share; best is a
    window of the size trained at. Memory beside the picture is the label features (240 bytes a pixel at the
    default channels in float32), half of that for the image, and a fixed amount for one window and one strip.
    Where one window holds the whole map, the picture is `generator(label, noise)` up to rounding. Raises
    ValueError for an overlap that is not smaller than the window, for windows that the coarsest scale's cells
    do not divide, and for instance normalisation, whose statistics are the whole map's.
    """
    config = generator.config
    cell = 2 ** (len(config.channels) - 1)
    if window % cell or overlap % cell or not 0 <= overlap < window:
        raise ValueError(
            f"window={window}, overlap={overlap}: use multiples of {cell}, the overlap below the window"
        )
    if config.normalisation == "instance":
        raise ValueError("normalisation=instance: takes its statistics from the whole map; cannot be tiled")
    guides = blended_guides(generator, label, noise, window, overlap)
    return paint(generator, label, guides, strip, generator.pixel_keys(noise, label.device))


def spans(length: int, window: int, overlap: int, cell: int) -> list[Span]:
    """Windows over `length`, all but the last `window` long, starts on the grid of `cell`."""
    last = max(0, -(-(length - window) // cell) * cell)
    starts = [*range(0, last, window - overlap), last]
    return [Span(start, min(start + window, length)) for start in starts]


def blended_guides(
    generator: Generator,
    label: Int[Tensor, "b h w"],
    noise: Float[Tensor, "b n d"] | RegionNoise,
    window: int,
    overlap: int,
) -> list[Tensor]:
    """g_i of the whole map: those of the windows, weighted by ramps that sum to one in the overlaps."""
    height, width = label.shape[1:]
    levels = len(generator.config.channels)
    cell = 2 ** (levels - 1)
    rows, columns = (spans(n, window, overlap, cell) for n in (height, width))
    guides: list[Tensor] = []
    ramps = [(_ramps(rows, height, 2**i), _ramps(columns, width, 2**i)) for i in range(levels)]
    for a, row in enumerate(rows):
        for b, column in enumerate(columns):
            part = (slice(None), slice(*row), slice(*column))
            z = RegionNoise(noise.z, noise.region[part]) if isinstance(noise, RegionNoise) else noise
            for i, guide in enumerate(_guides(generator, label[part], z)):
                if len(guides) == i:
                    size = (-(-height // 2**i), -(-width // 2**i))
                    guides.append(_plane(guide, size).zero_())
                down, across = ramps[i][0][a].to(guide), ramps[i][1][b].to(guide)
                top, left = row.start // 2**i, column.start // 2**i
                into = guides[i][:, :, top : top + guide.shape[2], left : left + guide.shape[3]]
                into.addcmul_(guide, down[:, None] * across)
    return guides


def _guides(generator: Generator, label: Tensor, noise: Tensor | RegionNoise) -> Iterator[Tensor]:
    tokens: Tensor | RegionTokens
    if isinstance(noise, RegionNoise):
        z, region = noise
        tokens = RegionTokens(rearrange(generator.mapping(z), "b r n d -> b (r n) d"), region, z.shape[1])
    else:
        tokens = generator.mapping(noise)
    for inject, h in zip(generator.injection, generator.encoder(label), strict=True):
        yield inject(h, tokens)


def _ramps(windows: list[Span], length: int, stride: int) -> list[Tensor]:
    """Weights of each window's rows (or columns) at `stride`: they rise to the middle, and sum to one over
    the windows everywhere."""
    cells = -(-length // stride)
    total = torch.zeros(cells)
    ramps = []
    for k, window in enumerate(windows):
        start, stop = window.start // stride, -(-window.stop // stride)
        ramp = torch.ones(stop - start)
        shared = -(-windows[k - 1].stop // stride) - start if k > 0 else 0
        if shared:
            ramp[:shared] *= (torch.arange(shared) + 0.5) / shared
        shared = stop - windows[k + 1].start // stride if k + 1 < len(windows) else 0
        if shared:
            ramp[-shared:] *= ((torch.arange(shared) + 0.5) / shared).flip(0)
        total[start:stop] += ramp
        ramps.append(ramp)
    return [
        ramp / total[window.start // stride : -(-window.stop // stride)]
        for ramp, window in zip(ramps, windows, strict=True)
    ]


def paint(
    generator: Generator,
    label: Int[Tensor, "b h w"],
    guides: list[Tensor],
    strip: int = STRIP,
    keys: PixelKeys | None = None,
) -> Float[Tensor, "b 3 h w"]:
    """`generator.image_network(label, guides, keys)` in strips: equal up to rounding, in less memory.

    The network has to be in eval mode, with normalisation that needs no neighbours (batch or pixel). `guides`
    is emptied on the way.
    """
    network = generator.image_network
    # each 3x3 spoils a row at a strip's edge: modulation, conv1, modulation and conv2 of a block, and to_rgb
    halo = generator.config.modulation_kernel // 2 * 2 + 3
    halo += generator.config.upsampling == "bilinear"  # which looks at the next row
    halo += halo % 2  # strips start on even rows, where a row of the scale below begins
    size = guides[-1].shape[-2:]
    one_hot = F.one_hot(downsample_ids(label, (size[0], size[1])), network.num_inputs)
    source = network.start(rearrange(one_hot, "b h w c -> b c h w").to(network.start.weight.dtype))
    for i in reversed(range(len(guides))):
        guide = guides.pop()
        height, width = guide.shape[-2:]
        coarsest = i + 1 == len(network.blocks)
        if not coarsest:
            source = network.narrow[i](source)
        target: Tensor | None = None
        rows = max(2, strip // (guide[:, :, :1].numel()) // 2 * 2)
        for start in range(0, height, rows):
            stop = min(start + rows, height)
            top, bottom = max(0, start - halo), min(height, stop + halo)
            if coarsest:
                x = source[:, :, top:bottom]
            else:
                x = network.upsample(source[:, :, top // 2 : -(-bottom // 2)], (bottom - top, width))
            noise = network.noise(keys, i, (height, width), (top, bottom))
            x = network.blocks[i](x, guide[:, :, top:bottom], noise)
            if i == 0:
                x = torch.tanh(network.to_rgb(F.leaky_relu(x, SLOPE)))
            if target is None:
                target = _plane(x, (height, width))
            target[:, :, start:stop] = x[:, :, start - top : stop - top]
        assert target is not None
        source = target
    return source


def _plane(like: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b c H W"]:
    """Room for a tensor of another size, channels last as everything here."""
    shape = (*like.shape[:2], *size)
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)
