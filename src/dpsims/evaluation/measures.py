"""Everything that is gathered from one pass over pictures and their maps, and what it comes to."""

from __future__ import annotations

import random
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
from dpsims.evaluation.progress import Accumulator
from dpsims.evaluation.segmentation import LayoutSegmenter
from dpsims.labels import LabelSpace

FEATURES_KEPT = 10_000
"""pictures of a set whose features are kept for what needs them one by one, drawn at random from larger sets;
a Frechet distance takes all"""
EXTRAPOLATED_FROM = 2048
"""pictures from which a Frechet distance at infinity is worth stating"""


class Measures:
    """Moments and features by network, and the segmenter's answers, of one set of pictures.

    Memory does not grow with the set: features are kept of FEATURES_KEPT pictures. `kept` are their numbers,
    drawn by the number alone: the same for sets of one size.
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
        return {name: rows.all for name, rows in self._features.items() if rows.numbers}

    @property
    def kept(self) -> list[int]:
        """The numbers of the pictures whose features were kept, in the features' order."""
        return next(iter(self._features.values())).numbers if self._features else []

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
        parts = self._parts().items()
        state = {f"{part}/{key}": v for part, gathered in parts for key, v in gathered.state_dict().items()}
        return {"count": torch.tensor(self.count), **state}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.count = int(state["count"])
        for part, gathered in self._parts().items():
            own = {k.removeprefix(f"{part}/"): v for k, v in state.items() if k.startswith(f"{part}/")}
            gathered.load_state_dict(own)

    def _parts(self) -> dict[str, Accumulator]:
        moments = {f"moments {name}": gathered for name, gathered in self.moments.items()}
        features = {f"features {name}": rows for name, rows in self._features.items()}
        return {**moments, **features, **({"layout": self.layout} if self.layout is not None else {})}


class _Rows:
    """A matrix of rows, grown by doubling up to a limit; then a random sample of the rows (reservoir
    sampling), of which row stands where depending on the row's number alone.

    A list of small tensors would stay between the large, short-lived ones of a network, and leave the heap in
    pieces that none of those fits into: memory would grow with every batch.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.seen = limit, 0
        self.numbers: list[int] = []
        self._matrix = torch.empty(0, 0)

    def add(self, rows: Float[Tensor, "b d"]) -> None:
        for row in rows:
            if len(self.numbers) < self.limit:
                self._grow(row)
                self._matrix[len(self.numbers)] = row
                self.numbers.append(self.seen)
            else:
                place = random.Random(self.seen).randrange(self.seen + 1)
                if place < self.limit:
                    self._matrix[place] = row
                    self.numbers[place] = self.seen
            self.seen += 1

    def _grow(self, row: Float[Tensor, " d"]) -> None:
        count = len(self.numbers)
        if count < len(self._matrix):
            return
        larger = row.new_empty(min(self.limit, max(1024, 2 * count)), len(row))
        if count:
            larger[:count] = self.all
        self._matrix = larger

    @property
    def all(self) -> Float[Tensor, "n d"]:
        return self._matrix[: len(self.numbers)]

    def state_dict(self) -> dict[str, Tensor]:
        return {
            "rows": self.all.clone(),
            "numbers": torch.tensor(self.numbers, dtype=torch.int64),
            "seen": torch.tensor(self.seen),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._matrix, self.numbers = state["rows"].clone(), state["numbers"].tolist()
        self.seen = int(state["seen"])
