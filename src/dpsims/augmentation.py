"""Differentiable augmentation: what the discriminator sees of a picture, real or generated.

Source: Zhao et al., Differentiable Augmentation for Data-Efficient GAN Training, NeurIPS 2020; the ranges
are its own, read for pictures in [-1, 1]. A discriminator of every pixel needs one thing more: what moves or
hides pixels does so to the label map, and pixels that show nothing of the picture become unlabelled there.

A real picture and the generated ones of its label map are changed alike, so that losses that compare them
place by place still can.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

SHIFT = 1 / 8  # of height and width, at most
HOLE = 1 / 2  # side of a cut-out, of height and width


class Change(NamedTuple):
    """What befalls one picture; all of it as numbers, so that no step waits for a device."""

    brightness: float = 0.0
    """added, -0.5 to 0.5"""
    saturation: float = 1.0
    """0 (grey) to 2"""
    contrast: float = 1.0
    """0.5 to 1.5"""
    shift: tuple[float, float] = (0.0, 0.0)
    """down and to the right, as shares of height and width"""
    hole: tuple[float, float] | None = None
    """centre of what is cut out, as shares of height and width"""


def draw_changes(
    count: int, names: Collection[str], probability: float = 1.0, rng: torch.Generator | None = None
) -> list[Change]:
    """Changes for `count` pictures; names: some of color, translation, cutout. Each befalls a picture with
    `probability`. rng: on the CPU."""
    # all is drawn, whatever is used: one name more changes nothing of the others' numbers
    used = (torch.rand(count, 3, generator=rng) < probability).tolist()
    drawn = torch.rand(count, 7, generator=rng).tolist()
    changes = []
    for (color, translation, cutout), (b, s, c, down, right, y, x) in zip(used, drawn, strict=True):
        change = Change()
        if "color" in names and color:
            change = change._replace(brightness=b - 0.5, saturation=2 * s, contrast=0.5 + c)
        if "translation" in names and translation:
            change = change._replace(shift=((2 * down - 1) * SHIFT, (2 * right - 1) * SHIFT))
        if "cutout" in names and cutout:
            change = change._replace(hole=(y, x))
        changes.append(change)
    return changes


def augment(image: Float[Tensor, "b 3 h w"], changes: Sequence[Change]) -> Float[Tensor, "b 3 h w"]:
    """The pictures, changed; differentiable. What has been moved in or cut out is 0, grey."""
    return torch.cat([_changed(image[i : i + 1], change) for i, change in enumerate(changes)])


def augment_label(
    label: Int[Tensor, "b h w"], changes: Sequence[Change], num_classes: int
) -> Int[Tensor, "b h w"]:
    """The label maps that go with `augment`'s pictures; unlabelled (index K, `num_classes`) where those are
    grey."""
    maps = []
    for one, change in zip(label, changes, strict=True):
        one = _moved(one[None], change, num_classes)
        maps.append(one.masked_fill(_hole(one, change), num_classes) if change.hole else one)
    return torch.cat(maps)


def _changed(image: Float[Tensor, "1 3 h w"], change: Change) -> Float[Tensor, "1 3 h w"]:
    if (change.brightness, change.saturation, change.contrast) != (0.0, 1.0, 1.0):
        image = image + change.brightness
        grey = image.mean(1, keepdim=True)
        image = grey + (image - grey) * change.saturation
        mean = image.mean((1, 2, 3), keepdim=True)
        image = mean + (image - mean) * change.contrast
    image = _moved(image, change, 0.0)
    return image.masked_fill(_hole(image, change), 0.0) if change.hole else image


def _moved(x: Tensor, change: Change, fill: float) -> Tensor:
    height, width = x.shape[-2:]
    down, right = round(change.shift[0] * height), round(change.shift[1] * width)
    return F.pad(x, (right, -right, down, -down), value=fill) if down or right else x


def _hole(x: Tensor, change: Change) -> Tensor:
    """True in the cut-out: a mask (h, w)."""
    assert change.hole is not None
    rows, columns = (
        (torch.arange(n, device=x.device) - centre * n).abs() < HOLE * n / 2
        for n, centre in zip(x.shape[-2:], change.hole, strict=True)
    )
    return rows[:, None] & columns
