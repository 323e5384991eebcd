"""Batches: pairing, resuming, sharing between processes."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from dpsims.config import DataConfig
from dpsims.data import Batch, fixed_batches, training_batches
from dpsims.labels import LabelSpace

SPACE = LabelSpace(
    ("sky", "road", "tree"), ((0, 0, 200), (90, 90, 90), (0, 120, 0)), (0, 1, 2), ignore_id=255
)


class Encoded:
    """Pairs whose picture says what its label map is, and which pair: red = class * 60, green = pair * 20."""

    space, name = SPACE, "encoded"

    def __init__(self, count: int = 7) -> None:
        self.names = [str(i) for i in range(count)]

    def __len__(self) -> int:
        return len(self.names)

    def load(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        label = np.random.default_rng(i).integers(0, 4, (6, 9)).repeat(8, 0).repeat(8, 1)
        image = np.stack([label * 60, np.full_like(label, i * 20), label * 0], axis=-1).astype(np.uint8)
        return image, label


def take(batches: Iterator[Batch], count: int) -> list[Batch]:
    return list(itertools.islice(batches, count))


def same(first: list[Batch], second: list[Batch]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.equal(a.image, b.image) and torch.equal(a.label, b.label) for a, b in pairs)


def which(batch: Batch) -> list[int]:
    """The pairs in a batch of `Encoded`."""
    return [round(float((green + 1) * 127.5) / 20) for green in batch.image[:, 1].mean((1, 2))]


SMALL = DataConfig(height=20, width=24, crop=1.5)


def test_a_batch_is_in_range_typed_and_sized():
    (batch,) = take(training_batches(Encoded(), SMALL, 3, seed=0), 1)
    assert batch.image.shape == (3, 3, 20, 24) and batch.image.dtype == torch.float32
    assert batch.label.shape == (3, 20, 24) and batch.label.dtype == torch.int64
    assert float(batch.image.min()) == -1 and float(batch.image.max()) <= 1
    assert set(batch.label.unique().tolist()) == {0, 1, 2, 3}  # 3 = unlabelled, kept


@pytest.mark.parametrize("rare_crop", [0.0, 1.0])
def test_picture_and_map_stay_paired_through_crop_and_mirror(rare_crop: float):
    config = dataclasses.replace(SMALL, rare_crop=rare_crop)
    for batch in take(training_batches(Encoded(), config, 7, seed=1), 3):
        told = ((batch.image[:, 0] + 1) * 127.5 / 60).round().long()
        wrong = told != batch.label
        # blocks are 8 pixels wide and shrink to 3 at least: only their rims are mixtures
        assert wrong.float().mean() < 0.17  # 0.22 with a map that is cut by `nearest`
        away = (told.flip(-1) != batch.label).float().mean()
        assert away > 0.4  # the test would notice a mirror that only one of them went through


def test_crops_and_mirrors_differ_and_can_be_switched_off():
    one = Encoded(1)
    plain = DataConfig(height=20, width=24, crop=1.0, flip=False)
    first, second = take(training_batches(one, plain, 1, seed=0), 2)
    assert torch.equal(first.image, second.image)
    (whole,) = fixed_batches(one, 20, 24, 1)
    assert torch.equal(first.image, whole.image) and torch.equal(first.label, whole.label)
    flips = take(training_batches(one, DataConfig(height=20, width=24, crop=1.0), 1, seed=0), 12)
    kinds = [torch.equal(b.label, whole.label) for b in flips]
    assert any(kinds) and not all(kinds)
    assert all(torch.equal(b.label, whole.label) or torch.equal(b.label.flip(-1), whole.label) for b in flips)
    crops = take(training_batches(one, SMALL, 1, seed=0), 4)
    assert len({b.image.numpy().tobytes() for b in crops}) == 4


def test_each_epoch_sees_every_pair_once_in_another_order():
    batches = take(training_batches(Encoded(7), SMALL, 7, seed=3), 3)
    orders = [which(batch) for batch in batches]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_resuming_gives_the_same_batches_and_another_seed_does_not():
    whole = take(training_batches(Encoded(), SMALL, 4, seed=5), 6)
    resumed = take(training_batches(Encoded(), SMALL, 4, seed=5, first_image=12), 3)
    assert same(whole[3:], resumed)
    assert not same(whole, take(training_batches(Encoded(), SMALL, 4, seed=6), 6))


def test_ranks_share_the_global_batch():
    whole = take(training_batches(Encoded(), SMALL, 4, seed=5), 4)
    ranks = [take(training_batches(Encoded(), SMALL, 4, seed=5, rank=r, world_size=2), 4) for r in range(2)]
    joined = [Batch(*map(torch.cat, zip(a, b, strict=True))) for a, b in zip(*ranks, strict=True)]
    assert same(whole, joined)


# from Python 3.12 on, forking a process that has threads warns
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_loader_processes_change_neither_the_batches_nor_torchs_random_numbers():
    alone = take(training_batches(Encoded(), SMALL, 4, seed=5), 5)
    config = DataConfig(height=20, width=24, crop=1.5, workers=2)
    before = torch.get_rng_state()
    shared = take(training_batches(Encoded(), config, 4, seed=5), 5)
    assert same(alone, shared)
    assert torch.equal(before, torch.get_rng_state())


class Broken(Encoded):
    def load(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        raise ValueError("a.png: cannot be read")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_is_one_line_from_any_process(workers: int):
    config = DataConfig(height=20, width=24, workers=workers)
    with pytest.raises(ValueError) as error:
        take(training_batches(Broken(), config, 2, seed=0), 1)
    assert str(error.value) == "a.png: cannot be read"


def test_fixed_batches_go_in_order_and_the_limit_is_spread():
    batches = list(fixed_batches(Encoded(7), 20, 24, 3))
    assert [which(batch) for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [which(batch) for batch in fixed_batches(Encoded(9), 20, 24, 4, limit=3)] == [[0, 3, 6]]
    assert [len(batch.label) for batch in fixed_batches(Encoded(3), 20, 24, 8, limit=100)] == [3]


@pytest.mark.parametrize(
    ("config", "batch_size", "seed", "said"),
    [
        ({"crop": 0.5}, 2, 0, r"data\.crop=0\.5"),
        ({"workers": -1}, 2, 0, r"data\.workers=-1"),
        ({"height": 0}, 2, 0, r"data\.height=0"),
        ({}, 0, 0, r"batch_size=0"),
        ({}, 3, 0, r"batch_size=3: use a multiple of 2"),
        ({}, 2, -1, r"seed=-1"),
    ],
)
def test_settings_out_of_range_are_named_at_once(
    config: dict[str, Any], batch_size: int, seed: int, said: str
):
    with pytest.raises(ValueError, match=said):
        training_batches(Encoded(), DataConfig(**config), batch_size, seed, world_size=2)


class Haystack(Encoded):
    """One large map of `sky` with a few pixels of `tree` in a corner, and a picture that says so."""

    def load(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        label = np.zeros((120, 160), np.int64)
        label[3:7, 150:154] = 2
        return np.repeat((label * 60).astype(np.uint8)[..., None], 3, -1), label


def test_rare_crops_show_rare_classes_and_and_are_the_same_again():
    def shown(rare_crop: float) -> tuple[list[Batch], float]:
        config = DataConfig(height=30, width=40, crop=4.0, rare_crop=rare_crop)
        batches = take(training_batches(Haystack(1), config, 1, seed=0), 60)
        return batches, sum(float((b.label == 2).any()) for b in batches) / 60

    plain, seldom = shown(0.0)
    crops, often = shown(1.0)
    assert seldom < 0.25 and often > 0.4  # each of the map's two classes in half of the crops, but for chance
    again, _ = shown(1.0)
    assert same(crops, again)


def test_a_map_without_any_class_is_cropped_like_any_other():
    class Unlabelled(Encoded):
        def load(self, i: int) -> tuple[np.ndarray, np.ndarray]:
            image, label = super().load(i)
            return image, np.full_like(label, SPACE.ignore_index)

    config = DataConfig(height=20, width=24, crop=2.0, rare_crop=1.0)
    (batch,) = take(training_batches(Unlabelled(), config, 4, seed=0), 1)
    assert (batch.label == SPACE.ignore_index).all()


def test_training_and_measuring_see_the_same_proportions():
    class Wide(Encoded):
        def load(self, i: int) -> tuple[np.ndarray, np.ndarray]:
            label = (np.arange(160) // 40 % 2)[None].repeat(40, 0)  # four stripes
            return np.repeat((label * 60).astype(np.uint8)[..., None], 3, -1), label

    def changes(batch: Batch) -> float:
        return float((batch.label.diff(dim=-1) != 0).sum((1, 2)).float().mean() / batch.label.shape[1])

    (whole,) = fixed_batches(Wide(1), 32, 32, 1)
    assert changes(whole) == 3  # squeezed, all stripes are there
    config = DataConfig(height=32, width=32, crop=1.05)
    assert min(changes(b) for b in take(training_batches(Wide(1), config, 1, seed=0), 20)) >= 2


def test_an_order_of_the_source_is_followed():
    class Ordered(Encoded):
        def order(self, seed: int, epoch: int) -> np.ndarray:
            return np.roll(np.arange(len(self)), epoch)

    batches = take(training_batches(Ordered(6), SMALL, 6, seed=3), 2)
    assert [which(b) for b in batches] == [[0, 1, 2, 3, 4, 5], [5, 0, 1, 2, 3, 4]]
