"""What a segmenter reads against the maps: known answers, sizes, intervals, bounded memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dpsims.evaluation import layout
from dpsims.evaluation.layout import Layout
from dpsims.labels import LabelSpace

SPACE = LabelSpace(("sky", "road", "car"), ((0, 0, 255), (90, 90, 90), (255, 0, 0)), (0, 1, 2), ignore_id=9)


class Reader:
    """Reads the class off the first channel, where it was written; other sizes by repeating pixels."""

    num_classes = 3
    key: dict[str, Any] = {}
    weights = "none"

    def predict(self, image: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        told = image[:, 0].round().long()
        if size in (None, told.shape[1:]):
            return told
        times = size[0] // told.shape[1], size[1] // told.shape[2]
        return told.repeat_interleave(times[0], 1).repeat_interleave(times[1], 2)


def shown(label: Tensor) -> Tensor:
    """A picture from which Reader reads this map."""
    return label.clamp(max=2)[:, None].repeat(1, 3, 1, 1).float()


def test_shifted_copies_by_hand():
    label = torch.tensor([[[0, 0, 1, 1]]]).repeat(1, 4, 1)
    shifted = label.roll(1, 2)  # 1 0 0 1: of each class, 4 of 8 pixels are right and 12 are in the union
    reading = Layout(Reader(), SPACE)
    reading.update(shown(shifted), label)
    report = reading.report()
    assert report["iou"] == {"sky": pytest.approx(1 / 3), "road": pytest.approx(1 / 3), "car": None}
    assert report["miou"] == pytest.approx(1 / 3) and report["pixel_accuracy"] == 0.5
    assert report["intervals"]["miou"] is None  # of one picture


def test_unlabelled_is_skipped_and_each_picture_has_its_own():
    label = torch.stack([torch.full((2, 2), 3), torch.zeros(2, 2).long(), torch.tensor([[3, 1], [1, 1]])])
    told = torch.stack([torch.zeros(2, 2).long(), torch.zeros(2, 2).long(), torch.tensor([[2, 1], [0, 0]])])
    reading = Layout(Reader(), SPACE)
    reading.update(shown(told), label)
    assert reading.picture_iou == [None, 1.0, pytest.approx((1 / 3 + 0) / 2)]
    assert reading.report()["pixel_accuracy"] == 5 / 7


def test_maps_of_several_sizes_are_compared_at_theirs():
    told = torch.tensor([[[0, 1]], [[1, 1]], [[0, 0]]])
    maps = [
        torch.tensor([[0, 0, 1, 1]] * 2),
        torch.tensor([[1, 1, 1, 0]] * 2),
        torch.tensor([[0, 0]]),
    ]
    reading = Layout(Reader(), SPACE)
    reading.update(shown(told), maps)
    assert reading.confusion.counts.tolist() == [[6, 2, 0], [0, 10, 0], [0, 0, 0]]


def test_memory_is_bounded_and_the_interval_stays(monkeypatch: pytest.MonkeyPatch):
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (301, 3, 4), generator=generator)
    told = torch.where(torch.rand(label.shape, generator=generator) < 0.3, 0, label)

    def reading(blocks: int) -> Layout:
        monkeypatch.setattr(layout, "BLOCKS", blocks)
        found = Layout(Reader(), SPACE)
        for i in range(0, 301, 7):
            found.update(shown(told[i : i + 7]), label[i : i + 7])
        return found

    each, few = reading(4096), reading(64)
    assert len(each._blocks) == 301 and len(few._blocks) <= 65
    assert torch.equal(sum(few._blocks), sum(each._blocks))  # pyright: ignore[reportArgumentType]
    wide, narrow = few.report(), each.report()
    assert wide["miou"] == narrow["miou"] and few.picture_iou == each.picture_iou
    low, high = narrow["intervals"]["miou"]
    assert wide["intervals"]["miou"] == pytest.approx([low, high], abs=(high - low) / 2)


def test_a_stored_state_goes_on_to_the_bit():
    label = torch.randint(0, 4, (9, 4, 5), generator=torch.Generator().manual_seed(1))
    told = label.roll(1, 2)
    whole, first, second = (Layout(Reader(), SPACE) for _ in range(3))
    whole.update(shown(told), label)
    first.update(shown(told[:4]), label[:4])
    second.load_state_dict(first.state_dict())
    first.update(shown(told[:4]), label[:4])  # what was stored does not change with it
    second.update(shown(told[4:]), label[4:])
    assert second.report() == whole.report() and second.picture_iou == whole.picture_iou
