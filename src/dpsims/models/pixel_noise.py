"""Noise of each pixel, as StyleGAN adds it (Karras et al. 2019), a pure function of z, level, row and column.

Nothing is drawn: a counter-based hash gives the value at a place, so that batches, strips of a large map, a
resampled region, a resumed training and an exported graph all see the same noise. The hash computes with
whole numbers below 2^24 in float32, where every step is exact on any device and in any runtime; the order of
operations does not matter. Reasons and limits: docs/decisions/pixel-noise.md.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dpsims.models.layers import RegionNoise, downsample_ids

WORD = 4096.0  # a word of the hash has 12 bits: the product of two is exact in float32
KEY_WORDS = 4
# multiples of 4 between WORD and 2 WORD: exact even where a runtime stores constants as float16, and a
# round's product stays below 2^24
ROUNDS = (5188.0, 7012.0, 6124.0, 7804.0, 4660.0, 6580.0)
KEY_STEPS = (1031.0, 1637.0, 773.0, 1999.0)
LEVEL_STEPS = (389.0, 1433.0, 1871.0, 647.0)


class PixelKeys(NamedTuple):
    """What chooses the noise: words (b, r, KEY_WORDS), one key for each of r regions; region (b, h, w) int64
    with values 0..r-1, or None where each image has one key."""

    words: Tensor
    region: Tensor | None


def pixel_keys(noise: Float[Tensor, "b n d"] | RegionNoise) -> PixelKeys:
    """The keys of z (float32, not rounded to less), or of each region's z. Another z, another key."""
    if isinstance(noise, RegionNoise):
        return PixelKeys(_words(noise.z), noise.region)
    return PixelKeys(_words(noise[:, None]), None)


def _words(z: Float[Tensor, "b r n d"]) -> Float[Tensor, "b r k"]:
    """Each number of z in sixteenths, multiplied by an odd number of its place, and summed."""
    # coarse: a machine that draws z differing in the last bit still finds the same key
    codes = _wrap(torch.floor(z.detach().float().flatten(2) * 16))
    places = torch.arange(codes.shape[-1], device=z.device, dtype=torch.float32)
    words = []
    for step in KEY_STEPS:
        odd = _wrap(_wrap(places * step) * step + step) // 4 * 2 + 1  # below 2^11: a product below 2^23
        words.append(_wrap(_wrap(codes * odd).sum(-1) + step))  # sums below 2^24 for up to 4,000 numbers
    return torch.stack(words, dim=-1)


def noise_map(
    keys: PixelKeys, level: int, size: tuple[int, int], rows: tuple[int, int] | None = None
) -> Float[Tensor, "b 1 h w"]:
    """Standard normal noise of the plane of `size` (height, width) at `level`, 0 the finest; float32.

    rows: only those from the first to before the second, the same numbers as in the whole plane.
    """
    top, bottom = rows or (0, size[0])
    device, dtype = keys.words.device, torch.float32
    y = torch.arange(top, bottom, device=device, dtype=dtype)[:, None]
    x = torch.arange(size[1], device=device, dtype=dtype)
    words = keys.words[:, 0, None, None] if keys.region is None else _by_pixel(keys, size, top, bottom)
    words = [_wrap(w + level * step) for w, step in zip(words.unbind(-1), LEVEL_STEPS, strict=True)]
    # the key enciphers the row's number, and four words of that the column's
    row = _encipher(y, [*words, *words[:2]])
    *_, left, right = _encipher(x, row[-KEY_WORDS:])
    radius = torch.sqrt(-2 * torch.log((left + 0.5) / WORD))  # Box and Muller
    return (radius * torch.cos(right * (2 * math.pi / WORD)))[:, None]


def _by_pixel(keys: PixelKeys, size: tuple[int, int], top: int, bottom: int) -> Float[Tensor, "b h w k"]:
    assert keys.region is not None
    cells = downsample_ids(keys.region, size)[:, top:bottom]
    image = torch.arange(cells.shape[0], device=cells.device)[:, None, None]
    return keys.words[image, cells]


def _encipher(number: Tensor, keys: list[Tensor]) -> list[Tensor]:
    """Feistel network on two words, one round a key; gives the words of all rounds, the last two being the
    result, which differs for each number (below 2^24)."""
    left, right = torch.floor(number / WORD), _wrap(number)
    words = []
    for key, constant in zip(keys, ROUNDS, strict=False):
        mixed = torch.floor(right * (constant - right) / 64)  # the middle bits of a product of two words
        left, right = right, _wrap(left + mixed + key)
        words.append(right)
    return words


def _wrap(x: Tensor) -> Tensor:
    """Modulo WORD."""
    return x - torch.floor(x / WORD) * WORD
