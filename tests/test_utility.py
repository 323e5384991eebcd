"""Generated pictures as training data: known answers, what the sources hold, and no file that stays."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dpsims.config import DataConfig
from dpsims.data import Batch, fixed_batches, training_batches
from dpsims.data.base import epoch_order
from dpsims.evaluation import stored, utility
from dpsims.evaluation.run import Generate
from dpsims.evaluation.segmentation import train_segmenter
from dpsims.evaluation.stored import ChosenPairs, JoinedPairs, generate_pictures, store_pairs
from dpsims.evaluation.utility import measure_utility
from dpsims.labels import LabelSpace

SPACE = LabelSpace(
    ("sky", "road", "car", "bonnet"),
    ((0, 0, 255), (90, 90, 90), (255, 0, 0), (0, 0, 0)),
    (0, 1, 2, 3),
    ignore_id=9,
    evaluated=("sky", "road", "car"),  # the bonnet of the car that films is not counted
)
COLORS = torch.tensor([[230, 20, 20], [20, 230, 20], [60, 60, 230], [240, 240, 240], [0, 0, 0]])
SIZE = (16, 24)
DATA = DataConfig(height=5, width=5)  # of another size: measure_utility says which


class Blocks:
    """Pictures of 32x48 whose 8x8 blocks have the colour of their class, and a little noise."""

    space, name = SPACE, "blocks"

    def __init__(self, count: int, first: int = 0) -> None:
        self.names = [f"block{first + i}" for i in range(count)]
        self.first = first

    def __len__(self) -> int:
        return len(self.names)

    def load(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(self.first + i)
        label = rng.integers(0, 5, (4, 6)).repeat(8, axis=0).repeat(8, axis=1)
        image = COLORS.numpy()[label] + rng.normal(0, 6, (32, 48, 3))
        return np.clip(image, 0, 255).astype(np.uint8), label


REAL = Blocks(20)


def real_pictures(label: Tensor, numbers: Sequence[int], sample: int) -> Tensor:
    """A perfect model: it gives the very pictures of REAL."""
    return next(fixed_batches(REAL, *SIZE, len(label), chosen=numbers)).image


def noise(label: Tensor, numbers: Sequence[int], sample: int) -> Tensor:
    rng = torch.Generator().manual_seed(1000 * sample + numbers[0])
    return torch.rand(len(label), 3, *label.shape[1:], generator=rng) * 2 - 1


def real_test(first: int) -> Iterator[Batch]:
    """The test pictures."""
    return fixed_batches(Blocks(7, first=1000), *SIZE, 4, chosen=range(first, 7))


@pytest.fixture(autouse=True)
def small_segmenters(monkeypatch: pytest.MonkeyPatch) -> None:
    small = partial(train_segmenter, channels=(8, 8), learning_rate=2e-2)
    monkeypatch.setattr(utility, "train_segmenter", small)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def measured(generate: Generate, images: int = 96, **options: Any) -> dict[str, Any]:
    with generate_pictures(generate, REAL, SIZE, 8) as synthetic:
        return measure_utility(
            REAL, synthetic, real_test, SPACE, size=SIZE, images=images, data=DATA, **options
        )


def open_files(folder: Path) -> list[str]:
    """Files in `folder`, also those without a name, that this process holds open or mapped."""
    links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)]
    maps = Path("/proc/self/maps").read_text().splitlines()
    return [text for text in (*links, *maps) if str(folder) in text]


def _is_open(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


def test_real_pictures_in_the_place_of_generated_ones_score_as_real_ones():
    report = measured(real_pictures, seeds=(0, 3))
    assert report["synthetic"] == report["real"]
    assert report["real"]["miou"] > 0.8
    # all maps come twice in `both`: other pictures in its batches, but no others to learn from
    assert report["both"]["runs"] != report["real"]["runs"]
    assert abs(report["gain"]) < 0.15


def test_noise_is_worth_nothing():
    report = measured(noise)
    assert report["synthetic"]["miou"] < 0.3 < 0.8 < report["real"]["miou"]
    assert report["both"]["miou"] > report["synthetic"]["miou"] + 0.2  # half of what it saw was real
    assert report["gain"] == report["both"]["miou"] - report["real"]["miou"] < 0


def test_report_says_what_was_done_and_repeats():
    seen = set()
    report = measured(noise, images=20, seeds=(0, 5), progress=lambda *step: seen.add(step))
    assert report == measured(noise, images=20, seeds=(0, 5)) == json.loads(json.dumps(report))
    assert report["images"] == 20 and report["seeds"] == [0, 5] and report["size"] == [16, 24]
    assert report["pairs"] == 20 and report["test"] == 7
    for kind in ("real", "synthetic", "both"):
        runs = report[kind]["runs"]
        assert len(set(runs)) == 2 and report[kind]["miou"] == pytest.approx(sum(runs) / 2)
        assert report[kind]["spread"] == pytest.approx(abs(runs[0] - runs[1]) / 2**0.5)
        assert list(report[kind]["iou"]) == ["sky", "road", "car"]
    gains = np.subtract(report["both"]["runs"], report["real"]["runs"])
    assert report["gain_runs"] == gains.tolist() and report["gain"] == pytest.approx(gains.mean())
    assert report["gain_spread"] == pytest.approx(gains.std(ddof=1))
    assert ("storing pictures", 20, 20) in seen
    assert {step[0] for step in seen if step[1:] == (20, 20)} >= {
        f"segmenter on {kind}, seed {seed}" for kind in ("real", "synthetic", "both") for seed in (0, 5)
    }
    alone = measured(noise, images=20, seeds=(5,))
    assert alone["real"]["runs"] == report["real"]["runs"][1:] and alone["real"]["spread"] is None
    assert alone["gain_spread"] is None


def test_classes_that_do_not_count_are_not_learned_and_a_test_without_any_has_no_score():
    def bonnets(first: int) -> Iterator[Batch]:
        yield Batch(torch.zeros(2, 3, *SIZE), torch.full((2, *SIZE), 3))

    with store_pairs(REAL, SIZE) as pairs:
        report = measure_utility(pairs, pairs, bonnets, SPACE, size=SIZE, images=8, data=DATA)
    assert report["real"]["miou"] is None and report["gain"] is None and report["gain_spread"] is None
    assert set(report["real"]["iou"].values()) == {None} and report["real"]["pixel_accuracy"] is None


def test_a_stopped_measurement_goes_on_with_the_next_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def stop(what: str, done: int, _: int) -> None:
        if what == "segmenter on both, seed 0" and done >= 16:
            raise KeyboardInterrupt

    undisturbed, kept = measured(noise, images=24), tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt):
        measured(noise, images=24, kept=kept, progress=stop)
    trained, train = [], utility.train_segmenter
    monkeypatch.setattr(utility, "train_segmenter", lambda *a, **k: trained.append(1) or train(*a, **k))
    assert measured(noise, images=24, kept=kept) == undisturbed
    assert len(trained) == 1  # the third; the first two were read
    assert measured(noise, images=24, kept=kept) == undisturbed and len(trained) == 1
    # other pictures: the segmenters of `synthetic` and `both` are trained anew, that of `real` is not
    assert measured(real_pictures, images=24, kept=kept) == measured(real_pictures, images=24)
    assert len(trained) == 3 + 3
    measured(noise, images=25, kept=kept)
    assert len(trained) == 9


def test_real_pictures_are_stored_as_they_are_measured():
    (image, label) = next(fixed_batches(REAL, *SIZE, len(REAL)))
    with store_pairs(REAL, SIZE, batch_size=3) as pairs:
        assert (pairs.names, pairs.space, len(pairs)) == (REAL.names, SPACE, 20)
        assert isinstance(pairs.images, np.memmap)
        assert pairs.images.nbytes == 20 * 16 * 24 * 3 and pairs.labels.nbytes == 20 * 16 * 24
        for i in (0, 2, 3, 19):
            one_image, one_label = pairs.load(i)
            assert one_image.dtype == np.uint8 and one_label.dtype == np.int64
            assert np.array_equal(one_label, label[i].numpy())
            assert np.array_equal(one_image, ((image[i] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
        with store_pairs(pairs, SIZE) as same, store_pairs(pairs, (8, 12)) as smaller:
            assert same is pairs and smaller.load(0)[0].shape == (8, 12, 3)
        again = next(fixed_batches(pairs, *SIZE, len(REAL)))  # not resampled once more
        assert torch.equal(again.image, image) and torch.equal(again.label, label)


def test_generated_pictures_belong_to_their_maps():
    def number_of_map(label: Tensor, numbers: Sequence[int], sample: int) -> Tensor:
        shades = (100 * sample + torch.tensor(numbers)) / 127.5 - 1
        return shades[:, None, None, None].expand(-1, 3, *SIZE)

    with generate_pictures(number_of_map, REAL, SIZE, batch_size=6, sample=1) as made:
        assert [int(made.load(i)[0].mean()) for i in range(20)] == list(range(100, 120))
        with store_pairs(REAL, SIZE) as pairs:
            assert np.array_equal(made.labels, pairs.labels)
    told: list[tuple[str, int, int]] = []
    with generate_pictures(
        number_of_map, ChosenPairs(REAL, 3), SIZE, 2, progress=lambda *step: told.append(step)
    ) as made:
        assert [int(made.load(i)[0].mean()) for i in range(3)] == [0, 6, 13]
    assert told == [("generating pictures", 2, 3), ("generating pictures", 3, 3)]


def test_maps_of_many_classes_keep_their_numbers():
    many = LabelSpace(tuple(f"c{i}" for i in range(300)), ((0, 0, 0),) * 300, tuple(range(300)))

    class Many(Blocks):
        space = many

        def load(self, i: int) -> tuple[np.ndarray, np.ndarray]:
            return np.zeros((2, 2, 3), np.uint8), np.array([[0, 255], [299, 300]])

    with store_pairs(Many(1), (2, 2)) as pairs:
        assert pairs.load(0)[1].tolist() == [[0, 255], [299, 300]]


def test_both_takes_real_and_generated_pictures_in_turn():
    real, made = Blocks(9), Blocks(9, first=50)
    both = JoinedPairs(real, made)
    assert len(both) == 18 and both.names == [*real.names, *made.names]
    assert np.array_equal(both.load(3)[0], real.load(3)[0])
    assert np.array_equal(both.load(12)[0], made.load(3)[0])
    for epoch in (0, 1):
        order = epoch_order(both, 4, epoch)
        assert sorted(order) == list(range(18))
        assert ((order < 9) == (np.arange(18) % 2 == 0)).all()
        assert (order[::2] != order[1::2] - 9).all()  # not a map's two pictures side by side
    assert not np.array_equal(epoch_order(both, 4, 0), epoch_order(both, 4, 1))


def test_real_and_generated_pictures_are_cropped_alike():
    data = DataConfig(height=16, width=24, crop=2, rare_crop=0.5)
    with store_pairs(REAL, SIZE) as pairs, generate_pictures(noise, REAL, SIZE) as made:
        for one, other, _ in zip(
            *(training_batches(s, data, 8, seed=3) for s in (pairs, made)), range(4), strict=False
        ):
            assert torch.equal(one.label, other.label) and not torch.equal(one.image, other.image)


def test_chosen_pairs_are_evenly_spaced():
    chosen = ChosenPairs(REAL, 5)
    assert chosen.names == [f"block{i}" for i in (0, 4, 8, 12, 16)] and len(chosen) == 5
    assert np.array_equal(chosen.load(2)[0], REAL.load(8)[0])
    assert ChosenPairs(REAL, 100).names == REAL.names
    with pytest.raises(ValueError, match="images=0"):
        ChosenPairs(REAL, 0)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux which files are open")
@pytest.mark.parametrize("wrong", ["nothing", "model", "training"])
def test_no_temporary_file_stays(temporary: Path, wrong: str):
    def failing(label: Tensor, numbers: Sequence[int], sample: int) -> Tensor:
        assert open_files(temporary) and not list(temporary.iterdir())  # no name: kill -9 leaves none, too
        if wrong == "model" and numbers[0]:
            raise RuntimeError("out of order")
        return noise(label, numbers, sample)

    if wrong == "nothing":
        measured(failing, images=8)
    elif wrong == "model":
        with pytest.raises(RuntimeError, match="out of order"):
            measured(failing, images=8)
    else:
        with pytest.raises(ValueError, match=r"data\.crop=0"), generate_pictures(failing, REAL, SIZE) as made:
            data = DataConfig(crop=0)
            measure_utility(REAL, made, real_test, SPACE, size=SIZE, images=8, data=data)
    assert not open_files(temporary) and not list(temporary.iterdir())


def test_a_full_disk_is_said_before_the_work(monkeypatch: pytest.MonkeyPatch, temporary: Path):
    class Full:
        free = 20 * 16 * 24 * 4 - 1

    monkeypatch.setattr(stored.shutil, "disk_usage", lambda _: Full)
    message = rf"{temporary}: 20 pictures of 16x24 need .* set TMPDIR"
    with pytest.raises(ValueError, match=message), generate_pictures(_never, REAL, SIZE):
        pass
    Full.free += 1
    with generate_pictures(noise, REAL, SIZE) as made:
        assert len(made) == 20


def _never(label: Tensor, numbers: Sequence[int], sample: int) -> Tensor:
    raise AssertionError("the model was asked")


@pytest.mark.parametrize(
    ("generate", "message"),
    [
        (lambda label, numbers, sample: torch.zeros(len(label), 3, 8, 8), r"shape \(16, 3, 8, 8\)"),
        (lambda label, numbers, sample: torch.full((len(label), 3, *SIZE), torch.nan), "NaN"),
    ],
)
def test_unusable_pictures_are_refused(generate: Generate, message: str):
    with pytest.raises(ValueError, match=message), generate_pictures(generate, REAL, SIZE):
        pass


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": 0}, "images=0"),
        ({"seeds": ()}, r"seeds=\[\]"),
        ({"seeds": (1, 1)}, r"seeds=\[1, 1\]"),
        ({"synthetic": Blocks(19)}, "19 synthetic pictures for 20 real ones"),
        ({"synthetic": Blocks(20, first=1)}, "of other names"),
        ({"test": lambda first: iter(())}, "test split has no pictures"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str):
    usual = {"synthetic": REAL, "test": real_test, "images": 8, "seeds": (0,)}
    settings = {**usual, **changes}
    with pytest.raises(ValueError, match=message):
        measure_utility(real=REAL, space=SPACE, size=SIZE, data=DATA, **settings)
