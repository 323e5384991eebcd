"""The segmenter that judges layouts: counts by hand, repeatable training, a cache that notices when it is
stale.
"""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dpsims.data import Batch
from dpsims.evaluation.segmentation import (
    ConfusionMatrix,
    Segmenter,
    cached_segmenter,
    load_segmenter,
    score_segmenter,
    segmenter_key,
    train_segmenter,
)
from dpsims.labels import LabelSpace

COLORS = torch.tensor([[0.9, 0.0, 0.0], [0.0, 0.9, 0.0], [-0.5, -0.5, 0.9], [0.0, 0.0, 0.0]])


class Pairs:
    """As much of a Source as a key needs."""

    space = LabelSpace(("sky", "road"), ((0, 0, 1), (1, 0, 0)), (0, 1))
    name = "pairs"

    def __init__(self, *names, label=0):
        self.names, self.label = list(names), label

    def __len__(self):
        return len(self.names)

    def load(self, i):
        return np.full((2, 2, 3), ord(self.names[i]), np.uint8), np.full((2, 2), self.label)


def blocks(batch=8, seed=0):
    """Endless pictures of 16x24 whose 4x4 blocks have the colour of their class; class 3 is unlabelled (K =
    3).
    """
    generator = torch.Generator().manual_seed(seed)
    while True:
        label = torch.randint(0, 4, (batch, 4, 6), generator=generator)
        label = label.repeat_interleave(4, 1).repeat_interleave(4, 2)
        yield Batch(COLORS[label].movedim(-1, 1), label)


def matrix(prediction, label, num_classes=3):
    confusion = ConfusionMatrix(num_classes)
    confusion.update(torch.tensor([[prediction]]), torch.tensor([[label]]))
    return confusion


def test_iou_by_hand():
    confusion = matrix([0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2, 0])
    assert confusion.iou() == [1 / 3, 2 / 3, 1 / 2]
    assert confusion.miou() == pytest.approx(0.5)
    assert confusion.pixel_accuracy() == pytest.approx(4 / 6)


def test_unlabelled_pixels_are_skipped():
    assert matrix([0, 1, 2, 1], [0, 1, 3, 3]).iou() == [1.0, 1.0, None]


def test_absent_classes_are_left_out_but_wrongly_predicted_ones_count():
    assert matrix([0, 0], [0, 0]).miou() == 1.0
    assert matrix([0, 2], [0, 0]).iou() == [0.5, None, 0.0]
    assert matrix([0, 2], [0, 0]).miou() == 0.25
    assert matrix([0], [3]).miou() is None and matrix([0], [3]).pixel_accuracy() is None


def test_counts_add_up_over_batches():
    confusion = matrix([0, 1], [0, 1])
    confusion.update(torch.tensor([[[2, 2]]]), torch.tensor([[[2, 0]]]))
    assert confusion.iou() == [0.5, 1.0, 0.5]


@pytest.mark.parametrize("size", [(16, 24), (17, 23), (3, 50)])
def test_segmenter_keeps_any_size(size):
    segmenter = Segmenter(5, (4, 8, 8))
    assert segmenter(torch.zeros(2, 3, *size)).shape == (2, 5, *size)
    prediction = segmenter.predict(torch.zeros(2, 3, *size))
    assert prediction.shape == (2, *size) and prediction.dtype == torch.int64


def test_answers_at_another_size_are_of_interpolated_logits():
    torch.manual_seed(0)
    segmenter, image = Segmenter(3, (4, 8)), torch.rand(3, 3, 8, 12)
    with torch.no_grad():
        logits = segmenter.eval()(image)
    wanted = torch.nn.functional.interpolate(logits, (19, 30), mode="bilinear", align_corners=False)
    assert torch.equal(segmenter.predict(image, (19, 30)), wanted.argmax(1))
    assert torch.equal(segmenter.predict(image, (8, 12)), segmenter.predict(image))
    assert torch.equal(segmenter.predict(image[1:], (19, 30)), segmenter.predict(image, (19, 30))[1:])


def test_the_score_counts_evaluated_classes_of_all_batches():
    class Judge:
        num_classes, key, weights = 2, {}, ""

        def predict(self, image, size=None):
            return (image[:, 0] > 0).long()

    label = torch.tensor([[[0, 0, 1, 2]]])  # 2: unlabelled
    image = torch.tensor([-1.0, 1.0, 1.0, 1.0]).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    score = score_segmenter(Judge(), [Batch(image, label)] * 2, Pairs.space)
    assert score == {
        "images": 2,
        "miou": 0.5,
        "pixel_accuracy": pytest.approx(2 / 3),
        "iou": {"sky": 0.5, "road": 0.5},
    }


def test_default_segmenter_has_about_a_million_parameters():
    assert 0.7e6 < sum(p.numel() for p in Segmenter(11).parameters()) < 1.5e6


def small_training(images=24, seed=0, **options):
    return train_segmenter(blocks(), 3, images, seed, channels=(8, 8), **options)


def test_training_learns_and_ends_in_eval_mode():
    seen = []
    segmenter = small_training(200, learning_rate=2e-2, progress=lambda n, loss: seen.append((n, loss)))
    image, label = next(blocks(seed=7))
    confusion = ConfusionMatrix(3)
    confusion.update(segmenter.predict(image), label)
    assert (confusion.miou() or 0) > 0.9
    assert not segmenter.training
    assert [n for n, _ in seen] == list(range(8, 201, 8)) and seen[-1][1] < seen[0][1]


def test_training_repeats_and_leaves_the_callers_random_numbers():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = small_training()
    assert torch.equal(torch.rand(2), expected)
    again, other = small_training(), small_training(seed=1)
    weights = [torch.cat([p.flatten() for p in s.parameters()]) for s in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_unlabelled_pixels_do_not_train():
    def relabelled(fill):
        for image, label in blocks():
            hidden = torch.where((label == 3)[:, None], torch.zeros(()), image)
            yield Batch(hidden, torch.full_like(label, 3) if fill else label)

    untouched = train_segmenter(
        relabelled(True), 3, 8, channels=(4, 8)
    )  # not one labelled pixel: no gradient, no NaN
    assert all(torch.isfinite(p).all() for p in untouched.parameters())
    with pytest.raises(ValueError, match="images=0"):
        small_training(0)


def test_save_and_load_keep_weights_and_key(tmp_path):
    path, image = tmp_path / "cache" / "segmenter.safetensors", torch.rand(1, 3, 8, 12)
    segmenter = small_training()
    segmenter.key = segmenter_key(Pairs("a", "b"), 64, 80, 100, 0)
    segmenter.save(path)
    assert [p.name for p in path.parent.iterdir()] == ["segmenter.safetensors"]  # no half-written file stays
    loaded = load_segmenter(path, segmenter.key)
    torch.testing.assert_close(loaded(image), segmenter(image))
    assert not loaded.training


def test_files_of_before_still_load(tmp_path):
    """Without a kind or a score."""
    segmenter, path = Segmenter(2, (4, 8)), tmp_path / "old.safetensors"
    meta = {"num_classes": 2, "channels": [4, 8], "key": {"version": 2}}
    save_file(segmenter.state_dict(), path, {"dpsims.segmenter": json.dumps(meta)})
    loaded = load_segmenter(path, {"version": 2})
    assert isinstance(loaded, Segmenter) and loaded.score is None and loaded.weights == segmenter.weights
    loaded.score = {"miou": 0.25}
    loaded.save(path)
    assert load_segmenter(path).score == {"miou": 0.25}


def test_a_stale_or_damaged_file_is_noticed(tmp_path):
    path = tmp_path / "segmenter.safetensors"
    Segmenter(2, (4,), segmenter_key(Pairs("a", "b"), 64, 80, 100, 0)).save(path)
    with pytest.raises(ValueError, match="height: 64, not 96"):
        load_segmenter(path, segmenter_key(Pairs("a", "b"), 96, 80, 100, 0))
    with pytest.raises(ValueError, match="digest"):
        load_segmenter(path, segmenter_key(Pairs("a", "c"), 64, 80, 100, 0))
    corrected = Pairs("a", "b", label=1)
    with pytest.raises(ValueError, match="digest"):
        load_segmenter(path, segmenter_key(corrected, 64, 80, 100, 0))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"segmenter\.safetensors.*delete"):
        load_segmenter(path)


def test_cache_trains_once_and_again_when_stale(tmp_path):
    path, made = tmp_path / "segmenter.safetensors", []

    def make():
        made.append(1)
        return Segmenter(2, (4,))

    key = segmenter_key(Pairs("a"), 8, 8, 100, 0)
    first, stored = cached_segmenter(path, key, make)
    assert not stored and first.key == key
    assert cached_segmenter(path, key, make)[1] and len(made) == 1
    assert not cached_segmenter(path, {**key, "seed": 1}, make)[1] and len(made) == 2
    path.write_bytes(b"broken")
    assert not cached_segmenter(path, key, make)[1] and cached_segmenter(path, key, make)[1]
