"""The Frechet distance without its bias, ill-conditioned covariances, and bootstrap intervals."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from dpsims.evaluation.frechet import Moments, factor, frechet_distance
from dpsims.evaluation.intervals import _distance, bootstrap_interval, frechet_at_infinity


def features(count: int, dimensions: int = 16, shift: float = 0.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed)) + shift


def moments_of(vectors: torch.Tensor) -> Moments:
    moments = Moments()
    moments.update(vectors)
    return moments


def standard_normal(dimensions: int) -> Moments:
    """Its exact moments."""
    moments = Moments()
    moments.count = 2
    moments._mean, moments._scatter = torch.zeros(dimensions).double(), torch.eye(dimensions).double()
    return moments


@pytest.mark.parametrize("decades", [0, 6, 12])
def test_frechet_of_ill_conditioned_covariances_agrees_with_scipy(decades: int):
    """Raw network features: a few channels are millions of times stronger than others."""
    scale = torch.logspace(0, -decades / 2, 24, dtype=torch.float64)
    turn = torch.linalg.qr(features(24, 24, seed=9).double()).Q
    first, second = ((features(200, 24, seed=s).double() * scale) @ turn for s in (1, 2))
    first, second = (x - x.mean(0) for x in (first, second))  # no difference of means to hide behind
    a, b = moments_of(first), moments_of(second)
    traces = np.trace(np.cov(first.T)) + np.trace(np.cov(second.T))
    # tr((A B)^(1/2)) from the vectors themselves, whose condition is the root of the covariances'
    left, right = (torch.linalg.qr(x, mode="r").R for x in (first, second))
    expected = traces - 2 * np.linalg.norm((left @ right.T).numpy(), "nuc") / 199
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    if decades == 0:  # a root of the product is good for as much, but only here
        root = scipy.linalg.sqrtm(a.covariance.numpy() @ b.covariance.numpy())
        assert traces - 2 * np.trace(root).real == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("count", [10, 16, 17, 300])  # fewer vectors than features, and more
def test_the_distance_from_a_prepared_factor_is_the_frechet_distance(count: int):
    fake, real = features(count) * 1.5 + 1, moments_of(features(200, seed=1))
    expected = frechet_distance(moments_of(fake), real)
    projected = fake.double() @ factor(real.covariance)
    assert _distance(fake.double(), projected, real) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_bias_of_few_pictures_is_taken_off(scale: float):
    """Known: N(0, scale^2) and the exact N(0, 1) are 16 (1 - scale)^2 apart; fewer fakes seem farther."""
    real, exact = standard_normal(16), 16 * (1 - scale) ** 2
    found = [frechet_at_infinity(features(1500, seed=s) * scale, real, points=8) for s in range(30)]
    bias = sum(f.distances[-1] - exact for f in found) / 30
    left = sum(f.value - exact for f in found) / 30
    assert bias > 0.02 and abs(left) < 0.4 * bias
    if scale == 1:
        scatter = np.std([f.value for f in found])
        assert scatter / 3 < np.mean([f.error for f in found]) < 3 * scatter


def test_the_extrapolation_says_what_it_measured():
    fake, real = features(300), moments_of(features(200, seed=1))
    found = frechet_at_infinity(fake, real)
    assert found.counts[0] == 150 and found.counts[-1] == 300 and len(found.distances) == 15
    assert found.distances[-1] == pytest.approx(frechet_distance(moments_of(fake), real), rel=1e-9)
    assert frechet_at_infinity(fake, real) == found
    assert frechet_at_infinity(fake, real, seed=1).distances[0] != found.distances[0]


def test_points_on_a_line_are_continued_exactly(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dpsims.evaluation.intervals._distance", lambda f, *_: 3.0 + 700.0 / len(f))
    found = frechet_at_infinity(features(100), standard_normal(16), points=4, smallest=40)
    assert found.counts == [40, 60, 80, 100]
    assert found.value == pytest.approx(3, rel=1e-12) and found.error == pytest.approx(0, abs=1e-12)


def test_extrapolation_refuses_too_few_pictures_and_other_features():
    real = standard_normal(16)
    for arguments in ({"points": 2}, {"smallest": 1}, {"smallest": 90}):
        with pytest.raises(ValueError, match="at least 3 points"):
            frechet_at_infinity(features(100), real, **arguments)
    with pytest.raises(ValueError, match="lengths 8 and 16"):
        frechet_at_infinity(features(100, 8), real)
    with pytest.raises(ValueError, match="NaN"):
        frechet_at_infinity(features(100) * torch.inf, real)


def test_interval_of_a_mean_is_that_of_the_textbook():
    values = features(400, 1).flatten().double() * 3 + 10
    found = bootstrap_interval(lambda i: values[i].mean().item(), 400, resamples=2000)
    half = 1.96 * values.std().item() / 20
    assert found.low == pytest.approx(values.mean().item() - half, abs=0.08 * half)
    assert found.high == pytest.approx(values.mean().item() + half, abs=0.08 * half)


def test_intervals_hold_the_true_value_about_as_often_as_they_say():
    samples = [features(60, 1, seed=s).flatten() for s in range(100)]
    intervals = [bootstrap_interval(lambda i, s=s: s[i].mean().item(), 60) for s in samples]
    assert 88 <= sum(low <= 0 <= high for low, high in intervals) <= 99


def test_interval_of_a_biased_measure_lies_about_the_figure():
    """Resampled pictures have a higher Frechet distance: plain quantiles would miss the figure."""
    fake, real = features(40), standard_normal(16)

    def measure(indices: torch.Tensor) -> float:
        return frechet_distance(moments_of(fake[indices]), real)

    low, high = bootstrap_interval(measure, 40, resamples=40)
    figure = measure(torch.arange(40))
    assert low < figure < high
    assert bootstrap_interval(measure, 40, resamples=40) == (low, high)
    assert bootstrap_interval(measure, 40, seed=1, resamples=40) != (low, high)


def test_interval_refusals_name_the_value():
    for arguments in ({"count": 1}, {"count": 9, "resamples": 3}, {"count": 9, "level": 95}):
        with pytest.raises(ValueError, match=list(arguments)[-1] + "="):
            bootstrap_interval(lambda _: 0.0, **arguments)
