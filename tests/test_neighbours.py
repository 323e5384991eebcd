"""Precision, recall, density, coverage and nearest pictures: closed cases, naive counts, scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch_fidelity.metric_prc import prc_features_to_metric

from dpsims.evaluation.neighbours import nearest, neighbour_measures


def features(count: int, dimensions: int = 8, shift: float = 0.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed)) + shift


def line(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None]


def by_scikit_learn(real: torch.Tensor, fake: torch.Tensor, precision_k: int = 3, density_k: int = 5) -> dict:
    def radius(points, k):  # of a set's own points the nearest is the point itself
        return NearestNeighbors(n_neighbors=k + 1).fit(points).kneighbors(points)[0][:, -1]

    a, b = real.double().numpy(), fake.double().numpy()
    distance = np.linalg.norm(a[:, None] - b, axis=2)
    inside = distance <= radius(a, density_k)[:, None]
    return {
        "precision": (distance <= radius(a, precision_k)[:, None]).any(0).mean(),
        "recall": (distance <= radius(b, precision_k)).any(1).mean(),
        "density": inside.sum() / (density_k * len(b)),
        "coverage": inside.any(1).mean(),
    }


@pytest.mark.parametrize("chunk", [3, 7, 30, 2048])
def test_agrees_with_scikit_learn_in_blocks_of_any_size(chunk: int):
    real, fake = features(60), features(45, shift=0.8, seed=1) * 0.9
    expected = by_scikit_learn(real, fake)
    assert all(0 < value < 1 for value in expected.values())
    assert neighbour_measures(real, fake, chunk=chunk) == pytest.approx(expected, rel=1e-12)
    other = neighbour_measures(real, fake, precision_k=6, density_k=2, chunk=chunk)
    assert other == pytest.approx(by_scikit_learn(real, fake, 6, 2), rel=1e-12)


def test_agrees_with_torch_fidelity():
    real, fake = features(400, 64), features(300, 64, 0.1, 1) * 0.95
    ours = neighbour_measures(real, fake)
    theirs = prc_features_to_metric(fake, real, verbose=False)
    assert 0.1 < ours["recall"] < 0.9 and 0.1 < ours["precision"] < 0.99
    assert ours["precision"] == pytest.approx(theirs["precision"], abs=1e-6)
    assert ours["recall"] == pytest.approx(theirs["recall"], abs=1e-6)


def test_by_hand_on_a_line():
    # k = 1: real balls [-1, 1], [0, 2], [1, 5] about 0, 1, 3; fake ones [0.5, 1.5], [1, 2], [1.5, 8.5]
    found = neighbour_measures(line(0, 1, 3), line(1, 1.5, 5), precision_k=1, density_k=1)
    assert found == {"precision": 1, "recall": 2 / 3, "density": (3 + 2 + 1) / 3, "coverage": 1}
    # 1.5 alone lies in a ball, in two: those of 1 and 3; its own reaches to 9
    found = neighbour_measures(line(0, 1, 3), line(1.5, 9, 12), precision_k=1, density_k=1)
    assert found == {"precision": 1 / 3, "recall": 1, "density": 2 / 3, "coverage": 2 / 3}


def test_identical_sets():
    same = features(50)
    found = neighbour_measures(same, same.clone())
    assert found == pytest.approx({"precision": 1, "recall": 1, "density": 6 / 5, "coverage": 1}, rel=1e-12)


def test_sets_far_apart_have_nothing_in_common():
    found = neighbour_measures(features(50), features(50, shift=100, seed=1))
    assert found == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_dropped_modes_lower_recall_and_coverage_and_not_precision():
    modes = torch.tensor([0.0, 30.0, 60.0, 90.0]).repeat_interleave(40)[:, None]
    real = features(160) + modes
    all_four = neighbour_measures(real, features(160, seed=1) + modes)
    one = neighbour_measures(real, features(160, seed=1))
    assert one["precision"] > all_four["precision"] - 0.1 > 0.5
    assert one["recall"] < 0.26 < 0.8 < all_four["recall"]
    assert one["coverage"] < 0.26 < 0.8 < all_four["coverage"]


def test_noise_beside_the_real_ones_lowers_precision_and_not_recall():
    real = features(100)
    mixed = torch.cat([features(100, seed=1), features(100, seed=2) + 50])
    found = neighbour_measures(real, mixed)
    assert found["precision"] < 0.51 and found["recall"] > 0.8 and found["density"] < 0.6


def test_an_outlier_raises_precision_and_recall_but_not_density():
    """What density was made for: one far real picture has a ball that holds everything."""
    real = torch.cat([features(50), torch.full((1, 8), 1000.0)])
    found = neighbour_measures(real, features(50, shift=500, seed=1))
    assert found["precision"] == 1 and found["density"] <= 0.2 and found["coverage"] < 0.05


def test_independent_samples_have_a_density_of_one():
    assert neighbour_measures(features(1000, 4), features(1000, 4, seed=1))["density"] == pytest.approx(
        1, abs=0.1
    )


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_copies_have_balls_without_extent_and_are_inside_them(offset: float):
    real = (features(6) + offset).repeat_interleave(7, 0)  # more copies than neighbours: all radii are 0
    equal = neighbour_measures(real, real.flip(0))
    assert equal == pytest.approx({"precision": 1, "recall": 1, "density": 7 / 5, "coverage": 1})
    near = neighbour_measures(real, real * (1 + 1e-6) + 1e-5)
    assert near == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_a_mean_far_above_the_spread_costs_no_digits():
    real, fake = features(80).double(), features(80, shift=0.3, seed=1).double()
    assert neighbour_measures(real + 1e6, fake + 1e6) == neighbour_measures(real, fake)


def test_refusals_name_the_value():
    enough = features(6)
    assert neighbour_measures(enough, enough)["coverage"] == 1
    with pytest.raises(ValueError, match="5 pictures: this measure needs at least 6"):
        neighbour_measures(enough, enough[:5])
    with pytest.raises(ValueError, match="5 pictures"):
        neighbour_measures(enough[:5], enough)
    with pytest.raises(ValueError, match="lengths 8 and 7"):
        neighbour_measures(enough, enough[:, :7])
    with pytest.raises(ValueError, match="precision_k=0"):
        neighbour_measures(enough, enough, precision_k=0)
    with pytest.raises(ValueError, match="NaN"):
        neighbour_measures(enough, enough * torch.inf)
    for count in (0, 7):
        with pytest.raises(ValueError, match=f"count={count}"):
            nearest(enough, enough, count)


@pytest.mark.parametrize("chunk", [1, 2, 9, 2048])
def test_nearest_agrees_with_scikit_learn(chunk: int):
    queries, references = features(20), features(33, seed=1)
    distance, index = nearest(queries, references, count=4, chunk=chunk)
    expected = NearestNeighbors(n_neighbors=4).fit(references.numpy()).kneighbors(queries.numpy())
    np.testing.assert_array_equal(index, expected[1])
    np.testing.assert_allclose(distance, expected[0], rtol=1e-6)
    assert distance.dtype == torch.float64 and index.dtype == torch.int64


def test_a_learned_picture_is_found_at_exactly_zero():
    references = features(50) + 300
    distance, index = nearest(references[[7, 31]] + torch.tensor([[0.0], [0.25]]), references)
    assert index.flatten().tolist() == [7, 31]
    assert distance[0] == 0 and distance[1] == pytest.approx(0.25 * 8**0.5, rel=1e-3)
