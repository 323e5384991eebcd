"""Measures by nearest neighbours in a feature space: how real, how varied, and whether learned by heart."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dpsims.evaluation.kernel import CHUNK, blocks, check_features

PRECISION_K = 3
"""neighbours of precision and recall (Kynkaanniemi et al. 2019)"""
DENSITY_K = 5
"""neighbours of density and coverage (Naeem et al. 2020)"""
# Vectors this much nearer than they are count as inside a ball: far above float64's rounding, far below that
# of the float32 features. What lies on a border (equal pictures do) is inside, whatever the rounding.
_SLACK = 1e-12


def neighbour_measures(
    real: Float[Tensor, "n d"],
    fake: Float[Tensor, "m d"],
    precision_k: int = PRECISION_K,
    density_k: int = DENSITY_K,
    chunk: int = CHUNK,
) -> dict[str, float]:
    """{"precision", "recall", "density", "coverage"} of two sets of feature vectors.

    The ball of a vector reaches to its k-th nearest neighbour of its own set; its border is inside.
    precision: share of fakes in some real ball. recall: share of reals in some fake ball. density: real balls
    that a fake lies in, on average, over k; about 1 for sets of one distribution, and can be larger.
    coverage: share of real balls with a fake inside. Of equal sets the density is (k + 1) / k: each vector
    lies on the borders too, which programs with open balls leave out; other figures are as theirs.

    All in float64, in blocks of `chunk` x `chunk` pairs, which bound the memory. Raises ValueError for sets
    of unequal vectors, with NaN or infinite values, or with fewer than k + 1.
    """
    for name, k in (("precision_k", precision_k), ("density_k", density_k)):
        if k < 1:
            raise ValueError(f"{name}={k}: give at least 1 neighbour")
    check_features(real, fake, max(precision_k, density_k) + 1)
    fake = fake.to(real.device)
    centre = real.mean(0, dtype=torch.float64)
    real_radii = _neighbour_distances(real, centre, max(precision_k, density_k), chunk)
    fake_radii = _neighbour_distances(fake, centre, precision_k, chunk)[:, precision_k - 1]
    precise = torch.zeros(len(fake), dtype=torch.bool, device=real.device)
    recalled, covered = (torch.zeros(len(real), dtype=torch.bool, device=real.device) for _ in range(2))
    inside_count = 0
    for rows, columns in blocks(real, fake, chunk):
        squared = _squared(real[rows], fake[columns], centre, _SLACK)
        precise[columns] |= (squared <= real_radii[rows, precision_k - 1, None]).any(0)
        recalled[rows] |= (squared <= fake_radii[columns]).any(1)
        inside = squared <= real_radii[rows, density_k - 1, None]
        inside_count += int(inside.sum())
        covered[rows] |= inside.any(1)
    return {
        "precision": int(precise.sum()) / len(fake),
        "recall": int(recalled.sum()) / len(real),
        "density": inside_count / (density_k * len(fake)),
        "coverage": int(covered.sum()) / len(real),
    }


def nearest(
    queries: Float[Tensor, "n d"], references: Float[Tensor, "m d"], count: int = 1, chunk: int = CHUNK
) -> tuple[Float[Tensor, "n count"], Int[Tensor, "n count"]]:
    """The `count` nearest references of each query, nearest first: Euclidean distance (float64) and index.

    Exactly 0 for equal vectors; which of several equally near ones comes is left open. Memory is bounded by
    `chunk` x `chunk` pairs. Raises ValueError for sets of unequal vectors, with NaN or infinite values, and
    for a count that the references do not have.
    """
    if not 1 <= count <= len(references):
        raise ValueError(f"count={count}: there are {len(references)} pictures to be nearest; give 1 to that")
    check_features(queries, references, 1)
    references = references.to(queries.device)
    centre = references.mean(0, dtype=torch.float64)
    found = []
    for part in queries.split(chunk):
        best = part.new_full((len(part), 0), torch.inf, dtype=torch.float64)
        index = torch.zeros_like(best, dtype=torch.int64)
        for start in range(0, len(references), chunk):
            squared = _squared(part, references[start : start + chunk], centre)
            values, places = squared.topk(min(count, squared.shape[1]), largest=False)
            best, index = torch.cat([best, values], 1), torch.cat([index, places + start], 1)
            best, places = best.topk(min(count, best.shape[1]), largest=False)
            index = index.gather(1, places)
        found.append(index)
    index = torch.cat(found)
    # by differences: products of vectors leave rounding errors, and equal ones not at 0
    columns = [
        torch.cat(
            [
                (a.double() - references[i].double()).norm(dim=1)
                for a, i in zip(queries.split(chunk), column.split(chunk), strict=True)
            ]
        )
        for column in index.unbind(1)
    ]
    distance, order = torch.stack(columns, 1).sort(dim=1, stable=True)
    return distance, index.gather(1, order)


def _neighbour_distances(
    features: Tensor, centre: Float[Tensor, " d"], k: int, chunk: int
) -> Float[Tensor, "n k"]:
    """Squared distances of each vector to its k nearest others of the set, nearest first."""
    best = features.new_full((len(features), k), torch.inf, dtype=torch.float64)
    for rows, columns in blocks(features, features, chunk):
        squared = _squared(features[rows], features[columns], centre)
        if rows == columns:
            squared.fill_diagonal_(torch.inf)
        else:  # the block below the diagonal
            best[columns] = _smallest(best[columns], squared.T)
        best[rows] = _smallest(best[rows], squared)
    return best


def _smallest(best: Float[Tensor, "n k"], more: Float[Tensor, "n m"]) -> Float[Tensor, "n k"]:
    k = best.shape[1]
    few = more.topk(min(k, more.shape[1]), dim=1, largest=False).values
    return torch.cat([best, few], 1).topk(k, dim=1, largest=False).values


def _squared(
    a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], centre: Float[Tensor, " d"], slack: float = 0.0
) -> Float[Tensor, "n m"]:
    """Squared distances of all pairs, never negative; slack: by which share of the squared norms too small.

    Norms and products are taken about `centre`: a mean far above the spread would cost digits.
    """
    a, b = a.double() - centre, b.double() - centre
    norms = a.square().sum(1)[:, None] + b.square().sum(1)
    return torch.addmm(norms, a, b.T, beta=1 - slack, alpha=-2).clamp_(min=0)
