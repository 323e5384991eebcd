"""Label maps moved against the generator's grid, so that its images cannot depend on where the grid lies."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dpsims.config import GeneratorConfig
from dpsims.losses import to_device
from dpsims.models.generator import AnyGenerator


def draw_shifts(batch: int, config: GeneratorConfig, rng: torch.Generator) -> Int[Tensor, "b 2"]:
    """Rows and columns for each image, from 0 to before the side of the coarsest cell; on the CPU."""
    return torch.randint(0, _cell(config), (batch, 2), generator=rng)


def generate_shifted(
    generator: AnyGenerator,
    label: Int[Tensor, "b h w"],
    noise: Tensor,
    shifts: Int[Tensor, "b 2"] | None,
) -> Float[Tensor, "b 3 h w"]:
    """Images of label maps that stand `shifts` further down and right in a larger map, where their edge is
    repeated; None: `generator(label, noise)`.

    The larger map has one size, a cell more each way, whatever the shifts: compiled networks are compiled
    once, and where cells divide the label map, they divide the larger one.
    """
    if shifts is None:
        return generator(label, noise)
    height, width = label.shape[-2:]
    more = _cell(generator.config)
    rows, columns = (
        to_device((torch.arange(side + more) - shifts[:, axis, None]).clamp(0, side - 1), label.device)
        for axis, side in enumerate((height, width))
    )
    image = torch.arange(len(label), device=label.device)[:, None, None]
    moved = generator(label[image, rows[:, :, None], columns[:, None]], noise)
    cropped = [moved[i, :, y : y + height, x : x + width] for i, (y, x) in enumerate(shifts.tolist())]
    return torch.stack(cropped).contiguous(memory_format=torch.channels_last)


def _cell(config: GeneratorConfig) -> int:
    return 2 ** (len(config.channels) - 1)
