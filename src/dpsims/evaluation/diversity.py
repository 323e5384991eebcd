"""How much pictures of one label map differ: 0 for a generator that ignores its noise."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dpsims.evaluation.features import PooledFeatures


def pixel_distance(a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
    """Mean absolute difference of pictures on the [-1, 1] scale; 2 is black against white."""
    return (a - b).abs().mean(dim=(1, 2, 3), dtype=torch.float64)


def feature_distance(a: Float[Tensor, "b d"], b: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    """1 - cosine of feature vectors, as half a squared distance: exactly 0 for equal vectors."""
    return (F.normalize(a.double(), dim=1) - F.normalize(b.double(), dim=1)).square().sum(dim=1) / 2


class PairwiseDiversity:
    """Mean distance over all pairs of M samples of a map, then over maps: in pixels and in each network's
    features.
    """

    def __init__(self, networks: Sequence[PooledFeatures]) -> None:
        self.networks = networks
        self.maps = 0
        self._pixel = 0.0
        self._features = {network.name: 0.0 for network in networks}

    def update(self, samples: Sequence[Float[Tensor, "b 3 h w"]]) -> None:
        """M >= 2 samples of the same b maps, each in [-1, 1]; fewer than two are a ValueError."""
        if len(samples) < 2:
            raise ValueError(f"diversity needs at least 2 samples a map, got {len(samples)}")
        self.maps += len(samples[0])
        self._pixel += _pair_sum(samples, pixel_distance)
        for network in self.networks:
            self._features[network.name] += _pair_sum([network(s) for s in samples], feature_distance)

    def report(self) -> dict:
        """{"diversity": pixels, "diversity_features": {network: value}}; None where no map was measured."""
        if self.maps == 0:
            return {
                "diversity": None,
                "diversity_features": {network.name: None for network in self.networks},
            }
        features = {name: total / self.maps for name, total in self._features.items()}
        return {"diversity": self._pixel / self.maps, "diversity_features": features}


def _pair_sum(samples: Sequence[Tensor], distance) -> float:
    """Sum over maps of the mean distance between two of the samples."""
    pairs = list(combinations(samples, 2))
    return sum(distance(a, b).sum().item() for a, b in pairs) / len(pairs)


class RealDiversity:
    """The figure that real pictures set beside a generator's diversity.

    No real map has been photographed twice in different light, so random pairs of different pictures are
    compared, in pixels only where both have the same class (unlabelled is none): what differs there is how
    the class looks, not where it lies. The distance of pooled features cannot leave the layout out, and so is
    an upper bound. A random sample of `capacity` pictures (reservoir sampling) is kept, whatever their
    number.
    """

    def __init__(
        self, networks: Sequence[PooledFeatures], ignore_index: int, seed: int = 0, capacity: int = 64
    ) -> None:
        self.networks = networks
        self.ignore_index = ignore_index
        self.capacity = capacity
        self._generator = torch.Generator().manual_seed(seed)
        self._seen = 0
        self._kept: list[tuple[Tensor, Tensor]] = []

    def update(self, image: Float[Tensor, "b 3 h w"], label: Int[Tensor, "b h w"]) -> None:
        """Real pictures in [-1, 1] with their maps; those not drawn are forgotten."""
        for pair in zip(image.cpu(), label.cpu(), strict=True):
            self._seen += 1
            if len(self._kept) < self.capacity:
                self._kept.append((pair[0].clone(), pair[1].clone()))
                continue
            slot = int(torch.randint(self._seen, (), generator=self._generator))
            if slot < self.capacity:
                self._kept[slot] = (pair[0].clone(), pair[1].clone())

    def report(self) -> dict:
        """As PairwiseDiversity.report; None where there are no two pictures with a class in common."""
        order = torch.randperm(len(self._kept), generator=self._generator).tolist()
        ring = [
            (self._kept[i], self._kept[j])
            for i, j in zip(order, order[1:] + order[:1], strict=True)
            if i != j
        ]
        pixel = [d for a, b in ring if (d := self._same_class_distance(*a, *b)) is not None]
        features = {}
        for network in self.networks:
            pairs = [feature_distance(network(a[0][None]), network(b[0][None])).item() for a, b in ring]
            features[network.name] = sum(pairs) / len(pairs) if pairs else None
        return {"diversity": sum(pixel) / len(pixel) if pixel else None, "diversity_features": features}

    def _same_class_distance(
        self, image_a: Tensor, label_a: Tensor, image_b: Tensor, label_b: Tensor
    ) -> float | None:
        same = (label_a == label_b) & (label_a != self.ignore_index)
        if not same.any():
            return None
        return (image_a - image_b).abs()[:, same].mean(dtype=torch.float64).item()
