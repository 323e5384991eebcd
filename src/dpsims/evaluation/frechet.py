"""Frechet distance between two sets of feature vectors, each seen as a Gaussian (Heusel et al. 2017)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

WAITING = 256
"""vectors that are held back and then folded into the moments at once: the passes over d x d numbers that a
fold costs are shared by so many, and the result does not depend on how a stream is cut into batches"""
PRECISION = 1e-9
"""rounding error of a Frechet distance that is put up with, as a share of both variances' sum: a thousandth
of what float32 features are good for"""
PANEL = 64  # columns of a factor between two updates of the whole matrix
EPSILON = torch.finfo(torch.float64).eps


class Moments:
    """Mean and covariance of a stream of feature vectors, in float64 and in memory that does not grow with
    the stream.

    Parts are merged by their centred moments (Chan et al. 1979), so that features whose mean is far larger
    than their spread lose no digits, as a difference of raw second moments would.
    """

    def __init__(self) -> None:
        self.count = 0
        """of all vectors that were taken in, those that wait included"""
        self._mean = torch.zeros(0, dtype=torch.float64)
        self._scatter = torch.zeros(0, 0, dtype=torch.float64)
        self._waiting = torch.zeros(0, 0, dtype=torch.float64)  # rows from `_held` on are free
        self._held = 0

    def update(self, features: Float[Tensor, "b d"]) -> None:
        """Take in b feature vectors; raises ValueError where one is not finite or has another length than
        before.
        """
        features = features.detach().to("cpu", torch.float64)
        if not torch.isfinite(features).all():
            raise ValueError("features with NaN or infinite values; look at the images that they come from")
        if len(features) == 0:
            return
        self._fit(features.shape[1])
        if not len(self._waiting):
            self._waiting = features.new_empty(WAITING, features.shape[1])
        while len(features):
            part, features = features.tensor_split([WAITING - self._held])
            self._waiting[self._held : self._held + len(part)] = part
            self._held += len(part)
            self.count += len(part)
            if self._held == WAITING:
                self._fold()

    def merge(self, other: Moments) -> None:
        """Take in what another stream of the same feature space has gathered."""
        if other.count == 0:
            return
        self._fit(len(other.mean))
        self._fold()
        self._scatter += other._scatter
        self._shift(self.count, other.count, other.mean)
        self.count += other.count

    @property
    def mean(self) -> Float[Tensor, " d"]:
        self._fold()
        return self._mean

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        """Unbiased (division by count - 1), as the released FID programs have it. Needs two vectors, else
        ValueError.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 images, there are {self.count}")
        self._fold()
        return self._scatter / (self.count - 1)

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of all that was gathered; a stream that goes on from them gives the same figures to the
        bit.
        """
        found = {"count": torch.tensor(self.count), "mean": self._mean, "scatter": self._scatter}
        found["waiting"] = self._waiting[: self._held]
        return {name: tensor.clone() for name, tensor in found.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on where `state_dict` was taken; what was gathered here before is gone."""
        self.count = int(state["count"])
        self._mean, self._scatter = state["mean"].clone(), state["scatter"].clone()
        self._held, length = state["waiting"].shape
        self._waiting = self._mean.new_empty(WAITING if length else 0, length)
        self._waiting[: self._held] = state["waiting"]

    def _fit(self, length: int) -> None:
        """Begin with vectors of this length, or see that they have it."""
        if self.count == 0:
            self._mean = torch.zeros(length, dtype=torch.float64)
            self._scatter = torch.zeros(length, length, dtype=torch.float64)
        elif length != len(self._mean):
            raise ValueError(f"features of length {length} beside ones of length {len(self._mean)}")

    def _fold(self) -> None:
        """Merge the vectors that wait."""
        if self._held:
            waiting = self._waiting[: self._held]
            mean = waiting.mean(0)
            centred = waiting - mean
            self._scatter.addmm_(centred.T, centred)
            self._shift(self.count - self._held, self._held, mean)
            self._held = 0

    def _shift(self, before: int, count: int, mean: Float[Tensor, " d"]) -> None:
        """What merging costs beside the sum of both scatters: their means differ, and the new one is between.

        In place, as all of this is: a d x d matrix that is made anew each time costs more than the sums.
        """
        delta = mean - self._mean
        self._scatter.addr_(delta, delta, alpha=before * count / (before + count))
        self._mean += delta * (count / (before + count))


def frechet_distance(a: Moments, b: Moments) -> float:
    """|mean_a - mean_b|^2 + tr(A) + tr(B) - 2 tr((A B)^(1/2)), never negative; 0 for equal moments.

    With A = F F^T, tr((A B)^(1/2)) is the sum of the roots of the eigenvalues of F^T B F. F spans A's own
    range only. No square root of a non-symmetric matrix is needed, and a covariance of fewer images than
    dimensions is no special case: the directions it lacks contribute exactly nothing, where a root of their
    rounding errors would. Where roots of small eigenvalues could still be off by more than `PRECISION`, the
    singular values of F^T G (B = G G^T) are summed up instead, which need no root: exact, and slower.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            f"features of lengths {len(a.mean)} and {len(b.mean)} have no distance; use one network"
        )
    if b.count < a.count:
        a, b = b, a  # the fewer images, the smaller the factor
    cov_a, cov_b = a.covariance, b.covariance
    traces = cov_a.trace() + cov_b.trace()
    left = factor(cov_a)
    roots = eigenvalue_roots(left.T @ (cov_b @ left))
    overlap = roots.sum()
    # an eigenvalue may be off by the rounding of what it comes from, its root by that over twice the root
    noise = EPSILON * cov_a.norm() * cov_b.norm()
    if (noise / (2 * roots.clamp(min=noise.sqrt()))).nansum() > PRECISION * traces:
        overlap = torch.linalg.svdvals(left.T @ factor(cov_b)).sum()
    distance = (a.mean - b.mean).square().sum() + traces - 2 * overlap
    return max(0.0, distance.item())


def eigenvalue_roots(matrix: Float[Tensor, "r r"]) -> Float[Tensor, " r"]:
    """Square roots of the eigenvalues of a positive semidefinite matrix, smallest first."""
    # Of the lower triangle: where the diagonal falls, as behind `factor`, LAPACK's reduction of it keeps
    # small eigenvalues to about all digits; that of the upper one to those that the largest one leaves.
    return torch.linalg.eigvalsh(matrix, UPLO="L").clamp(min=0).sqrt()


def factor(covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d r"]:
    """F with F F^T = covariance, r its numerical rank: a Cholesky factor with pivots, largest first.

    d r^2 operations, where eigenvectors take d^3 with a large constant. Ends when no more is left on the
    diagonal than rounding leaves there (as LAPACK's pstrf).
    """
    d = len(covariance)
    rest, rows = covariance.clone(), covariance.new_empty(d, d)  # of F^T: one after the other in memory
    left = covariance.diagonal().clone()
    floor = left.max().item() * d * EPSILON
    for start in range(0, d, PANEL):
        for k in range(start, min(start + PANEL, d)):
            largest, pivot = left.max(0)
            if largest <= floor:
                return rows[:k].T
            row = rows[k]
            torch.addmv(rest[pivot], rows[start:k].T, rows[start:k, pivot], alpha=-1, out=row)
            row /= largest.sqrt()
            left -= row.square()
            left[pivot] = -torch.inf
        panel = rows[start : start + PANEL]
        rest.addmm_(panel.T, panel, alpha=-1)
    return rows.T
