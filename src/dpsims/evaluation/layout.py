"""Does each picture show what its label map asks for: what a segmenter reads in them, against the maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dpsims.evaluation.intervals import bootstrap_interval
from dpsims.evaluation.segmentation import ConfusionMatrix, LayoutSegmenter
from dpsims.labels import LabelSpace

BLOCKS = 4096
"""counts kept for the interval: each picture's, and of more pictures than that those of two, four ..."""


class Layout:
    """Confusion of all pictures and mIoU of each, gathered over batches.

    space: classes of the maps; counted are those of its `evaluation` (Cityscapes: 19 of 33).
    """

    def __init__(self, segmenter: LayoutSegmenter, space: LabelSpace) -> None:
        self.segmenter, self.space = segmenter, space.evaluation
        self.table = torch.from_numpy(space.evaluation_table)
        self.confusion = ConfusionMatrix(self.space.num_classes)
        self._iou: list[float] = []  # of each picture; NaN without a labelled pixel
        self._blocks: list[Tensor] = []  # (2, classes): hits and unions
        self._block, self._fill = 1, 0  # pictures of a block, and of the last one so far

    def update(
        self, image: Float[Tensor, "b 3 h w"], maps: Int[Tensor, "b h w"] | Sequence[Int[Tensor, "_ _"]]
    ) -> None:
        """Take in pictures in [-1, 1] and their label maps, at the sizes at which the two are compared."""
        truths = [self.table[label.cpu()] for label in maps]
        first = 0
        for size, group in groupby(truths, key=lambda truth: (truth.shape[0], truth.shape[1])):
            here = list(group)
            answers = self.segmenter.predict(image[first : first + len(here)], size).cpu()
            first += len(here)
            for answer, truth in zip(answers, here, strict=True):
                self._add(answer, truth)

    def _add(self, answer: Int[Tensor, "h w"], truth: Int[Tensor, "h w"]) -> None:
        one = ConfusionMatrix(self.space.num_classes)
        one.update(answer[None], truth[None])
        self.confusion.counts += one.counts
        hits = one.counts.diagonal()
        unions = one.counts.sum(0) + one.counts.sum(1) - hits
        there = unions > 0
        self._iou.append((hits[there] / unions[there]).mean().item() if there.any() else math.nan)
        counts = torch.stack([hits, unions])
        if self._fill:
            self._blocks[-1] += counts
        else:
            self._blocks.append(counts)
        self._fill = (self._fill + 1) % self._block
        if len(self._blocks) > BLOCKS and not self._fill:
            odd = self._blocks[len(self._blocks) // 2 * 2 :]
            pairs = zip(self._blocks[::2], self._blocks[1::2], strict=False)
            self._blocks = [a + b for a, b in pairs] + odd
            self._fill = self._block if odd else 0
            self._block *= 2

    @property
    def picture_iou(self) -> list[float | None]:
        """mIoU of each picture by itself, over the classes that it or its map has; None without labels."""
        return [None if math.isnan(value) else value for value in self._iou]

    def report(self) -> dict[str, Any]:
        """mIoU, pixel accuracy, IoU by class, and the mIoU's 95 % interval over resampled pictures."""
        return {
            "miou": self.confusion.miou(),
            "pixel_accuracy": self.confusion.pixel_accuracy(),
            "iou": dict(zip(self.space.names, self.confusion.iou(), strict=True)),
            "intervals": {"miou": self._interval()},
        }

    def _interval(self) -> list[float] | None:
        if len(self._blocks) < 2:
            return None
        hits, unions = torch.stack(self._blocks).unbind(1)

        def miou(chosen: Tensor) -> float:
            union = unions[chosen].sum(0)
            there = union > 0
            return (hits[chosen].sum(0)[there] / union[there]).mean().item() if there.any() else 0.0

        return list(bootstrap_interval(miou, len(self._blocks)))

    def state_dict(self) -> dict[str, Tensor]:
        counts = self.confusion.counts
        return {
            "counts": counts.clone(),
            "iou": torch.tensor(self._iou, dtype=torch.float64),
            "blocks": torch.stack(self._blocks) if self._blocks else counts.new_zeros(0, 2, len(counts)),
            "block": torch.tensor([self._block, self._fill]),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.confusion.counts = state["counts"]
        self._iou = state["iou"].tolist()
        self._blocks = list(state["blocks"].clone())
        self._block, self._fill = state["block"].tolist()
