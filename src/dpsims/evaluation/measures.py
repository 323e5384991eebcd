"""Everything that is gathered from one pass over pictures and their maps, and what it comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dpsims.evaluation.features import PooledFeatures
from dpsims.evaluation.frechet import Moments, frechet_distance
from dpsims.evaluation.intervals import frechet_at_infinity
from dpsims.evaluation.kernel import kernel_distance
from dpsims.evaluation.layout import Layout
from dpsims.evaluation.neighbours import DENSITY_K, PRECISION_K, neighbour_measures
from dpsims.evaluation.segmentation import LayoutSegmenter
from dpsims.labels import LabelSpace

FEATURES_KEPT = 10_000
"""pictures of a set whose features are kept for what needs them one by one; a Frechet distance takes all"""
EXTRAPOLATED_FROM = 2048
"""pictures from which a Frechet distance at infinity is worth stating"""


class Measures:
    """Moments and features by network, and the segmenter's answers, of one set of pictures.

    Memory does not grow with the set: features are kept of the first FEATURES_KEPT pictures.
    """

    def __init__(
        self, networks: Sequence[PooledFeatures], segmenter: LayoutSegmenter | None, space: LabelSpace
    ) -> None:
        self.networks = networks
        self.count = 0
        self.moments = {network.name: Moments() for network in networks}
        self._features = {network.name: _Rows(FEATURES_KEPT) for network in networks}
        self.layout = None if segmenter is None else Layout(segmenter, space)

    def update(
        self, image: Float[Tensor, "b 3 h w"], maps: Int[Tensor, "b h w"] | Sequence[Int[Tensor, "_ _"]]
    ) -> None:
        """Take in a batch of pictures in [-1, 1] and their maps (at the sizes at which they are compared)."""
        for network in self.networks:
            features = network(image)
            self.moments[network.name].update(features)
            self._features[network.name].add(features.float().cpu())
        self.count += len(image)
        if self.layout is not None:
            self.layout.update(image, maps)

    @property
    def features(self) -> dict[str, Tensor]:
        """Network -> the features that were kept, float32 (n, d), on the CPU."""
        return {name: rows.all for name, rows in self._features.items() if rows.count}

    def realism(self, other: Measures) -> dict[str, Any]:
        """How near these pictures come to the others: Frechet and kernel distance, neighbours; by network."""
        moments, features = other.moments, other.features
        found: dict[str, dict[str, Any]] = {
            "frechet": {name: frechet_distance(own, moments[name]) for name, own in self.moments.items()},
            "kid": {},
        }
        for name, own in self.features.items():
            theirs = features[name]
            found["kid"][name] = asdict(kernel_distance(own, theirs))
            if min(len(own), len(theirs)) > max(PRECISION_K, DENSITY_K):
                for measure, value in neighbour_measures(theirs, own).items():
                    found.setdefault(measure, {})[name] = value
            if len(own) >= EXTRAPOLATED_FROM:
                found.setdefault("frechet_infinity", {})[name] = frechet_at_infinity(own, moments[name]).value
        return found

    def state_dict(self) -> dict[str, Tensor]:
        state = {"count": torch.tensor(self.count)}
        for name, features in self.features.items():
            state[f"features {name}"] = features.clone()
        parts = {f"moments {name}": moments for name, moments in self.moments.items()}
        for part, gathered in {**parts, **({"layout": self.layout} if self.layout else {})}.items():
            state |= {f"{part}/{key}": value for key, value in gathered.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.count = int(state["count"])
        for name in self._features:
            self._features[name] = _Rows(FEATURES_KEPT)
            if f"features {name}" in state:
                self._features[name].add(state[f"features {name}"])
        parts = {f"moments {name}": moments for name, moments in self.moments.items()}
        for part, gathered in {**parts, **({"layout": self.layout} if self.layout else {})}.items():
            own = {k.removeprefix(f"{part}/"): v for k, v in state.items() if k.startswith(f"{part}/")}
            gathered.load_state_dict(own)


class _Rows:
    """Rows of a matrix that grows by doubling, up to a limit.

    A list of small tensors would stay between the large, short-lived ones of a network, and leave the heap in
    pieces that none of those fits into: memory would grow with every batch.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.count = limit, 0
        self._matrix = torch.empty(0, 0)

    def add(self, rows: Float[Tensor, "b d"]) -> None:
        rows = rows[: self.limit - self.count]
        total = self.count + len(rows)
        if total > len(self._matrix):
            larger = rows.new_empty(min(self.limit, max(total, 1024, 2 * len(self._matrix))), rows.shape[1])
            if self.count:
                larger[: self.count] = self.all
            self._matrix = larger
        self._matrix[self.count : total] = rows
        self.count = total

    @property
    def all(self) -> Float[Tensor, "n d"]:
        return self._matrix[: self.count]
