"""Frechet distance between two sets of feature vectors, each seen as a Gaussian (Heusel et al. 2017)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


class Moments:
    """Mean and covariance of a stream of feature vectors, in float64 and in memory that does not grow with
    the stream.

    Batches are merged by their centred moments (Chan et al. 1979), so that features whose mean is far larger
    than their spread lose no digits, as a difference of raw second moments would.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = torch.zeros(0, dtype=torch.float64)
        self._scatter = torch.zeros(0, 0, dtype=torch.float64)

    def update(self, features: Float[Tensor, "b d"]) -> None:
        """Take in b feature vectors; raises ValueError where one is not finite or has another length than
        before.
        """
        features = features.detach().to("cpu", torch.float64)
        if not torch.isfinite(features).all():
            raise ValueError("features with NaN or infinite values; look at the images that they come from")
        if len(features) == 0:
            return
        batch = Moments()
        batch.count = len(features)
        batch._mean = features.mean(0)
        centred = features - batch._mean
        batch._scatter = centred.T @ centred
        self.merge(batch)

    def merge(self, other: Moments) -> None:
        """Take in what another stream of the same feature space has gathered."""
        if other.count == 0:
            return
        if self.count == 0:
            self.count, self._mean, self._scatter = other.count, other._mean.clone(), other._scatter.clone()
            return
        if len(self._mean) != len(other._mean):
            raise ValueError(f"features of length {len(other._mean)} beside ones of length {len(self._mean)}")
        total = self.count + other.count
        delta = other._mean - self._mean
        self._scatter += other._scatter + torch.outer(delta, delta) * (self.count * other.count / total)
        self._mean = self._mean + delta * (other.count / total)
        self.count = total

    @property
    def mean(self) -> Float[Tensor, " d"]:
        return self._mean

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        """Unbiased (division by count - 1), as the released FID programs have it. Needs two vectors, else
        ValueError.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 images, there are {self.count}")
        return self._scatter / (self.count - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """|mean_a - mean_b|^2 + tr(A) + tr(B) - 2 tr((A B)^(1/2)), never negative; 0 for equal moments.

    tr((A B)^(1/2)) is the nuclear norm of A^(1/2) B^(1/2), taken from factors A = F F^T on A's own range. No
    square root of a non-symmetric matrix is needed, and a covariance of fewer images than dimensions is no
    special case: the directions it lacks contribute exactly nothing, where a root of their rounding errors
    would.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            f"features of lengths {len(a.mean)} and {len(b.mean)} have no distance; use one network"
        )
    cov_a, cov_b = a.covariance, b.covariance
    overlap = torch.linalg.svdvals(_factor(cov_a).T @ _factor(cov_b)).sum()
    distance = (a.mean - b.mean).square().sum() + cov_a.trace() + cov_b.trace() - 2 * overlap
    return max(0.0, distance.item())


def _factor(covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d r"]:
    """F with F F^T = covariance, r its numerical rank."""
    values, vectors = torch.linalg.eigh(covariance)
    floor = values[-1].clamp(min=0) * len(values) * torch.finfo(values.dtype).eps
    kept = values > floor
    return vectors[:, kept] * values[kept].sqrt()
