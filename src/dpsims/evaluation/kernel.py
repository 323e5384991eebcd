"""Kernel distance between two sets of feature vectors; KID with Inception's (Binkowski et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

CHUNK = 1024
"""rows of each set that are compared at once: blocks of at most CHUNK x CHUNK float64, 8 MiB"""


@dataclass(frozen=True)
class KernelDistance:
    """A mean over random subsets, and how it was taken."""

    value: float
    """mean of the unbiased estimates: about 0 for sets of one distribution, and then as often below 0"""
    std: float | None
    """spread of the subsets' estimates, not an error of their mean; None where there is only one"""
    subsets: int
    subset_size: int
    note: str | None = None
    """what is not as was asked for, in a sentence for the report"""


def kernel_distance(
    first: Float[Tensor, "n d"],
    second: Float[Tensor, "m d"],
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
    chunk: int = CHUNK,
) -> KernelDistance:
    """Unbiased squared maximum mean discrepancy with the kernel (x.y / d + 1)^3, in float64.

    The subsets are drawn as torch-fidelity draws them (its `rng_seed` is our `seed`), so that the figures are
    the same. `subset_size` is cut to the smaller set; where that leaves one possible subset of both, one is
    taken. `note` says so. chunk: bounds the memory, and does not change the result. Raises ValueError for
    sets of unequal vectors, of fewer than 2, with NaN or infinite values, and for fewer subsets than one.
    """
    check_features(first, second, 2)
    if subsets < 1 or subset_size < 2:
        raise ValueError(
            f"subsets={subsets}, subset_size={subset_size}: at least 1 subset of 2 pictures is needed"
        )
    second = second.to(first.device)
    n, m = len(first), len(second)
    size, note = min(subset_size, n, m), None
    if size < subset_size:
        note = f"kernel distance over subsets of {size:,} pictures, not {subset_size:,}: there are no more"
    if size == n == m:
        subsets, note = 1, note and f"{note}, and all subsets are the same one"
    random = np.random.RandomState(seed)
    draws = [
        tuple(torch.from_numpy(random.choice(count, size, replace=False)) for count in (n, m))
        for _ in range(subsets)
    ]
    # Few subsets of large sets: each one by itself. Many of small sets: every pair of vectors is multiplied
    # once, and each subset adds up its share.
    apart = subsets * 3 * size**2 < n**2 + m**2 + n * m
    estimates = torch.cat(
        [
            _estimates(first[a.to(first.device)], second[b.to(first.device)], None, chunk, size)
            for a, b in draws
        ]
        if apart
        else [_estimates(first, second, draws, chunk, size)]
    )
    std = estimates.std(correction=0).item() if subsets > 1 else None
    return KernelDistance(estimates.mean().item(), std, subsets, size, note)


def check_features(first: Tensor, second: Tensor, needed: int) -> None:
    """ValueError where two sets of feature vectors cannot be compared, or one has fewer than `needed`."""
    for features in (first, second):
        if features.ndim != 2:
            raise ValueError(
                f"features of shape {tuple(features.shape)}: one vector a picture is needed, (count, length)"
            )
        if len(features) < needed:
            raise ValueError(f"{len(features)} pictures: this measure needs at least {needed} of each set")
        if not torch.isfinite(features).all():
            raise ValueError("features with NaN or infinite values; look at the images that they come from")
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"features of lengths {first.shape[1]} and {second.shape[1]} cannot be compared; use one network"
        )


def blocks(first: Tensor, second: Tensor, chunk: int) -> Iterator[tuple[slice, slice]]:
    """(rows, columns) of all blocks of the matrix of pairs; of its upper half where both are one set."""
    for i in range(0, len(first), chunk):
        for j in range(i if second is first else 0, len(second), chunk):
            yield slice(i, i + chunk), slice(j, j + chunk)


def _estimates(
    first: Tensor, second: Tensor, draws: list[tuple[Tensor, ...]] | None, chunk: int, size: int
) -> Float[Tensor, " subsets"]:
    """The estimate of each subset; draws: None for one that is all of both sets."""
    a = _membership(first, [draw[0] for draw in draws] if draws else None)
    b = _membership(second, [draw[1] for draw in draws] if draws else None)
    within = _sums(first, first, a, a, chunk) + _sums(second, second, b, b, chunk)
    return within / (size * (size - 1)) - 2 * _sums(first, second, a, b, chunk) / size**2


def _membership(features: Tensor, draws: list[Tensor] | None) -> Float[Tensor, "subsets n"]:
    """1 where a vector belongs to a subset, else 0."""
    if draws is None:
        return features.new_ones(1, len(features), dtype=torch.float64)
    table = features.new_zeros(len(draws), len(features), dtype=torch.float64)
    return table.scatter_(1, torch.stack(draws).to(features.device), 1)


def _sums(first: Tensor, second: Tensor, a: Tensor, b: Tensor, chunk: int) -> Float[Tensor, " subsets"]:
    """Sum of the kernel over all pairs of each subset; within one set, over pairs of two vectors."""
    total = a.new_zeros(len(a))
    for rows, columns in blocks(first, second, chunk):
        kernel = first[rows].double() @ second[columns].double().T
        kernel = kernel.div_(first.shape[1]).add_(1)
        kernel = kernel * kernel * kernel  # much faster than a power
        twice = 1
        if first is second and rows == columns:
            kernel.fill_diagonal_(0)
        elif first is second:
            twice = 2  # the block below the diagonal
        total += twice * ((a[:, rows] @ kernel) * b[:, columns]).sum(1)
    return total
