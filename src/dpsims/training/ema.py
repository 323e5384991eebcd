"""Exponential moving average of the generator.

BatchNorm's running statistics are averaged along, which serves the sample grids; before a generator is
measured or saved for use, `reestimate_batchnorm` measures them anew for the averaged weights, since
statistics of other weights do not fit.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm

from dpsims.models.generator import AnyGenerator

POWER_ITERATIONS = 15


class GeneratorAverage:
    """Holds `average`, a copy of the generator in eval mode that follows it."""

    def __init__(self, generator: AnyGenerator, half_life: float) -> None:
        self.average = copy.deepcopy(generator).eval().requires_grad_(False)
        self.half_life = half_life

    @torch.no_grad()
    def update(self, generator: AnyGenerator, batch_size: int, images_seen: int) -> None:
        # at the start a shorter half-life, or the untrained weights would linger (as StyleGAN2-ADA ramps it)
        half_life = min(self.half_life, max(0.05 * images_seen, 1e-8))
        keep = 0.5 ** (batch_size / half_life)
        # all tensors by a few kernels, not by one each
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
            _floats(self.average), _floats(generator), 1 - keep
        )


def _floats(module: nn.Module) -> list[Tensor]:
    """Parameters and buffers that can be averaged (not BatchNorm's counts of batches), in a fixed order."""
    return [t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]


@torch.no_grad()
def reestimate_batchnorm(generator: AnyGenerator, labels: Iterable[Tensor], seed: int = 0) -> AnyGenerator:
    """A copy of `generator` (eval mode) whose BatchNorm statistics are those of its own activations on
    `labels`.

    Each batch counts alike, but for a last one that is smaller, which is left out. The vectors of spectral
    norms, which averaging leaves near the averaged weights' but not at them, are brought to them first.
    """
    measured = copy.deepcopy(generator)
    norms = [m for m in measured.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch: cumulative average
        norm.train()
    _settle_spectral_norms(measured)
    rng, size = torch.Generator().manual_seed(seed), 0
    for label in labels if norms else ():
        size = size or label.shape[0]
        if label.shape[0] == size:
            measured(label, measured.sample_noise(size, rng))
    return measured.eval()


def _settle_spectral_norms(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, parametrize.ParametrizationList) and isinstance(part[0], _SpectralNorm):
            part.train()
            for _ in range(POWER_ITERATIONS):
                part()  # each time the normalised weight is asked for, a power iteration
            part.eval()
