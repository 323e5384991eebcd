"""What a figure from few pictures is worth: its bias, and an interval about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dpsims.evaluation.frechet import Moments, eigenvalue_roots, factor


@dataclass(frozen=True)
class Extrapolation:
    """The line through Frechet distances over 1 / pictures, where it meets 0."""

    value: float
    """can be below 0, by its error, for distributions that hardly differ"""
    error: float
    """standard error of `value` from the scatter about the line; the subsets share pictures, so too small"""
    counts: list[int]
    distances: list[float]


class Interval(NamedTuple):
    low: float
    high: float


def frechet_at_infinity(
    features: Float[Tensor, "n d"],
    real: Moments,
    points: int = 15,
    smallest: int | None = None,
    seed: int = 0,
) -> Extrapolation:
    """Frechet distance without the bias of few generated pictures (Chong & Forsyth 2020).

    Random subsets of `points` evenly spaced sizes, from `smallest` to all, are measured against the same real
    moments, whose own bias stays. The line holds where even the smallest subset has several times as many
    pictures as there are strong directions among the features; below that the value comes out too small.
    Therefore half of all is the default, where the paper took a tenth of 50,000: it scatters no more.

    Raises ValueError for fewer than 3 points, too few pictures for them, features of another length than the
    moments', NaN or infinite values.
    """
    n = len(features)
    smallest = max(2, n // 2) if smallest is None else smallest
    if points < 3 or smallest < 2 or n - smallest < points - 1:
        raise ValueError(
            f"points={points}, smallest={smallest}, {n} pictures: at least 3 points between 2 pictures "
            "and all of them are needed"
        )
    if features.shape[1] != len(real.mean):
        raise ValueError(
            f"features of lengths {features.shape[1]} and {len(real.mean)} have no distance; use one network"
        )
    features = features.detach().to("cpu", torch.float64)
    if not torch.isfinite(features).all():
        raise ValueError("features with NaN or infinite values; look at the images that they come from")
    projected = features @ factor(real.covariance)  # once, for all subsets
    generator = torch.Generator().manual_seed(seed)
    counts = torch.linspace(smallest, n, points, dtype=torch.float64).round().long().tolist()
    distances = []
    for count in counts:
        chosen = torch.randperm(n, generator=generator)[:count]
        distances.append(_distance(features[chosen], projected[chosen], real))
    inverse, measured = (torch.tensor(x, dtype=torch.float64) for x in ([1 / c for c in counts], distances))
    spread = inverse - inverse.mean()
    slope = (spread @ measured) / spread.square().sum()
    value = measured.mean() - slope * inverse.mean()
    residual = (measured - value - slope * inverse).square().sum() / (points - 2)
    error = (residual * (1 / points + inverse.mean() ** 2 / spread.square().sum())).sqrt()
    return Extrapolation(value.item(), error.item(), counts, distances)


def bootstrap_interval(
    measure: Callable[[Int[Tensor, " n"]], float],
    count: int,
    seed: int = 0,
    resamples: int = 200,
    level: float = 0.95,
) -> Interval:
    """An interval about measure(all `count` pictures), from its spread over resampled pictures.

    measure: indices of pictures, some of them several times -> figure. Resampling shifts a biased measure (a
    Frechet distance rises, as with fewer pictures); therefore the quantiles are taken about the resamples'
    own mean and laid about the figure itself: the interval says how it scatters, and leaves its bias in.

    Raises ValueError for fewer than 2 pictures or 20 resamples and for a level outside 0 to 1.
    """
    if count < 2 or resamples < 20 or not 0 < level < 1:
        raise ValueError(
            f"count={count}, resamples={resamples}, level={level}: give at least 2 pictures, "
            "20 resamples, a level between 0 and 1"
        )
    generator = torch.Generator().manual_seed(seed)
    draws = (torch.randint(count, (count,), generator=generator) for _ in range(resamples))
    values = torch.tensor([measure(draw) for draw in draws], dtype=torch.float64)
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = ((values - values.mean()).quantile(ends) + measure(torch.arange(count))).tolist()
    return Interval(low, high)


def _distance(features: Float[Tensor, "n d"], projected: Float[Tensor, "n r"], real: Moments) -> float:
    """As frechet_distance; projected: features @ F, where F F^T is the real covariance."""
    count, rank = len(features), min(len(features) - 1, projected.shape[1])
    mean = features.mean(0)
    centred = projected - projected.mean(0)
    # the two covariances' product has the eigenvalues of either
    product = centred.T @ centred if count > projected.shape[1] else centred @ centred.T
    # what is beyond the rank is rounding
    overlap = eigenvalue_roots(product / (count - 1)).flip(0)[:rank].sum()
    traces = (features - mean).square().sum() / (count - 1) + real.covariance.trace()
    return max(0.0, ((mean - real.mean).square().sum() + traces - 2 * overlap).item())
