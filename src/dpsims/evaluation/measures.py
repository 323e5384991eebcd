"""Everything that is gathered from one pass over pictures and their maps, and what it comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from dpsims.evaluation.features import PooledFeatures
from dpsims.evaluation.frechet import Moments, frechet_distance
from dpsims.evaluation.intervals import bootstrap_interval, frechet_at_infinity
from dpsims.evaluation.kernel import kernel_distance
from dpsims.evaluation.neighbours import DENSITY_K, PRECISION_K, neighbour_measures
from dpsims.evaluation.segmentation import ConfusionMatrix, Segmenter
from dpsims.labels import LabelSpace

FEATURES_KEPT = 10_000
"""pictures of a set whose features are kept for what needs them one by one; a Frechet distance takes all"""
EXTRAPOLATED_FROM = 2048
"""pictures from which a Frechet distance at infinity is worth stating"""


class Measures:
    """Moments and features by network, and the segmenter's confusion, of one set of pictures."""

    def __init__(
        self, networks: Sequence[PooledFeatures], segmenter: Segmenter | None, space: LabelSpace
    ) -> None:
        self.networks, self.segmenter, self.space = networks, segmenter, space.evaluation
        self.count = 0
        self.moments = {network.name: Moments() for network in networks}
        self._features: dict[str, list[Tensor]] = {network.name: [] for network in networks}
        # evaluation may count other classes than the generator draws (Cityscapes: 19 of 33)
        self.table = torch.from_numpy(space.evaluation_table)
        self.confusion = ConfusionMatrix(self.space.num_classes)
        self._hits: list[Tensor] = []
        self._unions: list[Tensor] = []

    def update(self, image: Tensor, label: Tensor) -> None:
        """Take in a batch of pictures in [-1, 1] and their maps."""
        for network in self.networks:
            features = network(image)
            self.moments[network.name].update(features)
            if self.count < FEATURES_KEPT:
                self._features[network.name].append(features.float().cpu()[: FEATURES_KEPT - self.count])
        self.count += len(image)
        if self.segmenter is not None:
            truth = self.table[label.cpu()]
            for told, true in zip(self.segmenter.predict(image).cpu(), truth, strict=True):
                one = ConfusionMatrix(self.space.num_classes)
                one.update(told[None], true[None])
                self.confusion.counts += one.counts
                hits = one.counts.diagonal()
                self._hits.append(hits.clone())
                self._unions.append(one.counts.sum(0) + one.counts.sum(1) - hits)

    @property
    def features(self) -> dict[str, Tensor]:
        """Network -> the features that were kept, float32 (n, d), on the CPU."""
        return {name: torch.cat(parts) for name, parts in self._features.items() if parts}

    def picture_iou(self) -> list[float | None]:
        """mIoU of each picture by itself, over the classes that it or its map has; None without labels."""
        values: list[float | None] = []
        for hits, unions in zip(self._hits, self._unions, strict=True):
            there = unions > 0
            values.append((hits[there] / unions[there]).mean().item() if there.any() else None)
        return values

    def report(self, moments: Mapping[str, Moments], features: Mapping[str, Tensor]) -> dict[str, Any]:
        """Plain values. moments, features: of the pictures to compare with, by network."""
        frechet = {name: frechet_distance(own, moments[name]) for name, own in self.moments.items()}
        return {
            "frechet": frechet,
            **self._single_features(moments, features),
            "miou": self.confusion.miou(),
            "pixel_accuracy": self.confusion.pixel_accuracy(),
            "iou": dict(zip(self.space.names, self.confusion.iou(), strict=True)),
            "intervals": {"miou": self._miou_interval()},
        }

    def _single_features(
        self, moments: Mapping[str, Moments], others: Mapping[str, Tensor]
    ) -> dict[str, Any]:
        """What is computed of features one by one: kernel distance, neighbours, extrapolation; by network."""
        found: dict[str, dict[str, Any]] = {"kid": {}}
        for name, own in self.features.items():
            other = others[name]
            found["kid"][name] = asdict(kernel_distance(own, other))
            if min(len(own), len(other)) > max(PRECISION_K, DENSITY_K):
                for measure, value in neighbour_measures(other, own).items():
                    found.setdefault(measure, {})[name] = value
            if len(own) >= EXTRAPOLATED_FROM:
                found.setdefault("frechet_infinity", {})[name] = frechet_at_infinity(own, moments[name]).value
        return found

    def _miou_interval(self) -> list[float] | None:
        """95 %, over resampled pictures."""
        if self.count < 2 or not self._hits:
            return None
        hits, unions = torch.stack(self._hits), torch.stack(self._unions)

        def miou(chosen: Tensor) -> float:
            union = unions[chosen].sum(0)
            there = union > 0
            return (hits[chosen].sum(0)[there] / union[there]).mean().item() if there.any() else 0.0

        return list(bootstrap_interval(miou, self.count))
