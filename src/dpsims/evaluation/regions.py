"""Regions of label maps, and the means that diversity is made of: over pairs, maps and regions.

A region is all that one class has of one map; unlabelled pixels are none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dpsims.labels import LabelSpace

SMALLEST_REGION = 64
"""pixels; smaller regions are skipped"""


@dataclass(frozen=True)
class Cells:
    """Regions of a map on the coarse grid of a network's level: what each position weighs in each."""

    classes: Int[Tensor, " r"]
    weights: Float[Tensor, "r n"]

    def mean(self, level: Float[Tensor, "d i j"]) -> Float[Tensor, "r d"]:
        """The mean of each region, float64; i * j = n."""
        return self.weights.to(level.device) @ level.flatten(1).double().T


@dataclass(frozen=True)
class Regions:
    """The regions of one map that are large enough."""

    classes: Int[Tensor, " r"]
    masks: Bool[Tensor, "r h w"]

    def mean(self, values: Float[Tensor, "h w"]) -> Float[Tensor, " r"]:
        """The mean over each region, float64."""
        masks = self.masks.to(values.device)
        sums = [values[mask].sum(dtype=torch.float64) for mask in masks]
        return torch.stack(sums) / masks.sum(dim=(1, 2)) if sums else values.new_zeros(0, dtype=torch.float64)

    def cells(self, size: tuple[int, int]) -> Cells:
        """Those regions that cover at least one position's worth of a grid, by the area they have of each."""
        shares = [F.adaptive_avg_pool2d(mask[None].double(), size).flatten() for mask in self.masks]
        if not shares:
            return Cells(self.classes, torch.zeros(0, size[0] * size[1], dtype=torch.float64))
        weights = torch.stack(shares)
        covered = weights.sum(dim=1, keepdim=True)
        enough = covered[:, 0] >= 1
        return Cells(self.classes[enough], (weights / covered)[enough])


def regions_of(label: Int[Tensor, "b h w"] | None, count: int, space: LabelSpace | None) -> list[Regions]:
    """The regions of `count` maps, by the classes that evaluation counts; without a space there are none."""
    if space is None:
        return [Regions(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 1, 1, dtype=torch.bool))] * count
    assert label is not None and len(label) == count, "regions need the label maps of the pictures"
    counted = space.evaluation.num_classes
    found = []
    for one in torch.from_numpy(space.evaluation_table)[label.cpu()]:
        pixels = torch.bincount(one.flatten(), minlength=counted + 1)[:counted]
        classes = (pixels >= SMALLEST_REGION).nonzero().flatten()
        found.append(Regions(classes, one == classes[:, None, None]))
    return found


class Pairs:
    """The mean squared distance over all pairs of M samples that come one by one; 0 to the bit where all are
    equal.

    With y_i = x_i - x_1, the sum of |x_i - x_j|^2 over the pairs is M sum |y_i|^2 - |sum y_i|^2: M steps
    instead of M (M - 1) / 2, and no sample is kept but the first.
    """

    def __init__(self) -> None:
        self.count = 0

    def add(self, sample: Float[Tensor, "n c ..."]) -> None:
        """One sample: n vectors of c values (at each of further places)."""
        self.count += 1
        if self.count == 1:
            self._first = sample
            self._sum = torch.zeros_like(sample)
            self._squares = torch.zeros_like(sample[:, 0])
            return
        apart = sample - self._first
        self._sum += apart
        self._squares += apart.square().sum(dim=1)

    def mean(self) -> Float[Tensor, "n ..."]:
        """For each of the n vectors (at each place)."""
        assert self.count > 1, "a pair needs two samples"
        rest = self._squares - self._sum.square().sum(dim=1) / self.count
        return rest.clamp(min=0) * (2 / (self.count - 1))


def pixel_distances(samples: Float[Tensor, "m 3 h w"]) -> Float[Tensor, "h w"]:
    """The mean over all pairs of M pictures of the absolute difference, by pixel, float64."""
    count = len(samples)
    total = torch.zeros(samples.shape[-2:], dtype=torch.float64, device=samples.device)
    for i in range(count - 1):
        total += (samples[i + 1 :] - samples[i]).abs().sum(dim=(0, 1))
    return total / (3 * count * (count - 1) / 2)


class Means:
    """Running means of several measures: over maps, and over the regions of each class."""

    def __init__(self, measures: Sequence[str], classes: Sequence[str]) -> None:
        self.measures, self.classes = list(measures), list(classes)
        shape = (len(self.measures), len(self.classes) + 1)  # the whole picture comes last
        self._sums = torch.zeros(shape, dtype=torch.float64)
        self._counts = torch.zeros(shape, dtype=torch.int64)

    def add(
        self, measure: str, values: Float[Tensor, " n"], classes: Int[Tensor, " n"] | None = None
    ) -> None:
        """Values of n maps, or of n regions of the given classes."""
        row = self.measures.index(measure)
        if classes is None:
            classes = torch.full((len(values),), len(self.classes))
        self._sums[row].index_add_(0, classes, values.double().cpu())
        self._counts[row].index_add_(0, classes, torch.ones_like(classes))

    def whole(self, measure: str) -> float | None:
        """The mean over maps; None where there was none."""
        return self._mean(self.measures.index(measure), len(self.classes))

    def inside(self, measure: str) -> dict[str, float | None]:
        """Class -> the mean over its regions; None where it had none."""
        row = self.measures.index(measure)
        return {name: self._mean(row, i) for i, name in enumerate(self.classes)}

    def _mean(self, row: int, column: int) -> float | None:
        count = int(self._counts[row, column])
        return self._sums[row, column].item() / count if count else None

    def state_dict(self) -> dict[str, Tensor]:
        return {"sums": self._sums.clone(), "counts": self._counts.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        assert state["sums"].shape == self._sums.shape, "a state of other measures"
        self._sums, self._counts = state["sums"].clone(), state["counts"].clone()
