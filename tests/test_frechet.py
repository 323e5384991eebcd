"""Moments of a stream and the Frechet distance, against closed forms and references in float64."""

import numpy as np
import pytest
import torch

from dpsims.evaluation.frechet import PANEL, WAITING, Moments, factor, frechet_distance


def moments_of(vectors, batch=7):
    moments = Moments()
    for part in vectors.split(batch):
        moments.update(part)
    return moments


def random_features(count, dimensions, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(dimensions, dimensions, dtype=torch.float64, generator=generator)
    return torch.randn(count, dimensions, dtype=torch.float64, generator=generator) @ mix


def exact_moments(mean, covariance):
    """Moments of a Gaussian given by its numbers, without samples."""
    moments = Moments()
    moments.count, moments._mean, moments._scatter = 2, mean.double(), covariance.double()
    return moments


def test_moments_of_a_stream_are_those_of_the_whole():
    features = (
        random_features(50, 8) + 1e6
    )  # a mean far above the spread, where raw second moments lose all digits
    moments = moments_of(features)
    assert moments.count == 50
    np.testing.assert_allclose(moments.mean, features.mean(0), rtol=1e-14)
    np.testing.assert_allclose(moments.covariance, np.cov(features.numpy().T), rtol=1e-7)


def test_moments_merge_as_one_stream():
    features = random_features(30, 4)
    left, right = moments_of(features[:11]), moments_of(features[11:])
    left.merge(right)
    left.merge(Moments())
    np.testing.assert_allclose(left.covariance, moments_of(features).covariance, rtol=1e-12)


def test_moments_do_not_depend_on_how_a_stream_is_cut():
    features = random_features(2 * WAITING + 20, 4)
    whole = moments_of(features, len(features))
    np.testing.assert_allclose(whole.covariance, np.cov(features.numpy().T), rtol=1e-12)
    for batch in (1, 7, WAITING, WAITING + 1):
        found = moments_of(features, batch)
        assert found.count == len(features)
        assert torch.equal(found.mean, whole.mean) and torch.equal(found.covariance, whole.covariance)


@pytest.mark.parametrize("count", [0, 5, WAITING, WAITING + 9])
def test_a_restored_stream_goes_on_to_the_same_bits(count):
    features = random_features(2 * WAITING + 20, 4)
    first, second = moments_of(features[:count]), Moments()
    second.update(torch.ones(3, 9))  # forgotten
    state = first.state_dict()
    for part in features[count:].split(6):
        first.update(part)  # the state stays as it was
    second.load_state_dict(state)
    for part in features[count:].split(6):
        second.update(part)
    assert first.count == second.count == len(features)
    assert torch.equal(first.mean, second.mean) and torch.equal(first.covariance, second.covariance)
    assert torch.equal(first.covariance, moments_of(features).covariance)


def test_a_merged_stream_is_left_as_it_was():
    features = random_features(30, 4)
    left, right = Moments(), moments_of(features)
    left.merge(right)
    left.update(features + 1)
    assert torch.equal(right.covariance, moments_of(features).covariance)
    both = torch.cat([features, features + 1])
    np.testing.assert_allclose(left.covariance, moments_of(both).covariance, rtol=1e-12)


def test_moments_refuse_nan_and_other_lengths():
    moments = moments_of(random_features(5, 4))
    with pytest.raises(ValueError, match="NaN"):
        moments.update(torch.full((1, 4), torch.nan))
    with pytest.raises(ValueError, match="length 3"):
        moments.update(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="at least 2 images"):
        _ = moments_of(torch.zeros(1, 4)).covariance


@pytest.mark.parametrize("count", [200, 9])  # 9 pictures in 16 dimensions: covariances without full rank
def test_frechet_of_identical_sets_is_zero(count):
    moments = moments_of(random_features(count, 16))
    assert frechet_distance(moments, moments) <= 1e-11 * moments.covariance.trace()


def test_frechet_of_commuting_gaussians_is_the_closed_form():
    a, b = torch.tensor([4.0, 9.0, 0.0]), torch.tensor([1.0, 0.25, 16.0])
    turn = torch.linalg.qr(random_features(3, 3)).Q
    first = exact_moments(torch.tensor([1.0, 2.0, 3.0]), turn @ a.double().diag() @ turn.T)
    second = exact_moments(torch.tensor([1.0, 0.0, 4.0]), turn @ b.double().diag() @ turn.T)
    expected = 5 + (1 + 2.5**2 + 4**2)  # |means|^2 + sum of (sqrt a - sqrt b)^2
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-12)


def test_frechet_agrees_with_the_eigenvalues_of_the_product():
    a, b = moments_of(random_features(300, 12, 0)), moments_of(random_features(300, 12, 5) + 0.5)
    roots = np.sqrt(np.real(np.linalg.eigvals((a.covariance @ b.covariance).numpy())).clip(0))
    mean = float((a.mean - b.mean).square().sum())
    expected = mean + float(a.covariance.trace() + b.covariance.trace()) - 2 * roots.sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


def test_frechet_is_exact_without_full_rank():
    # Two sets in orthogonal planes: nothing overlaps, so that the traces add up.
    plane = random_features(6, 2)
    a = moments_of(torch.cat([plane, torch.zeros(6, 38)], 1))
    b = moments_of(torch.cat([torch.zeros(6, 20), plane, torch.zeros(6, 18)], 1))
    expected = float((a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace())
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-13)


def test_frechet_of_constant_features_is_the_distance_of_the_means():
    assert frechet_distance(moments_of(torch.zeros(4, 3)), moments_of(torch.ones(4, 3))) == pytest.approx(3)


def exact_overlap(first, second):
    """tr((A B)^(1/2)) from the vectors themselves, whose condition is the root of the covariances'."""
    first, second = (x - x.mean(0) for x in (first, second))
    count = ((len(first) - 1) * (len(second) - 1)) ** 0.5
    return float(torch.linalg.svdvals(first @ second.T).sum()) / count


@pytest.mark.parametrize(
    ("first", "second"),
    [(9, 9), (9, 12), (40, 9), (9, 200), (200, 200)],  # vectors of length 24
)
def test_frechet_of_any_ranks_is_exact(first, second):
    a, b = random_features(first, 24), random_features(second, 24, 5) + 0.5
    left, right = moments_of(a), moments_of(b)
    traces = left.covariance.trace() + right.covariance.trace()
    expected = (left.mean - right.mean).square().sum() + traces - 2 * exact_overlap(a, b)
    assert frechet_distance(left, right) == pytest.approx(float(expected), rel=1e-11)
    assert frechet_distance(right, left) == pytest.approx(float(expected), rel=1e-11)


def test_frechet_of_sets_that_share_only_some_directions_is_exact():
    """Roots of the rounding errors of the eigenvalues 0 would be 1e-8 each."""
    turn = torch.linalg.qr(random_features(40, 40)).Q
    a, b = (torch.nn.functional.pad(random_features(50, 20, s), (4 * s, 20 - 4 * s)) @ turn for s in (0, 4))
    left, right = moments_of(a), moments_of(b)
    traces = left.covariance.trace() + right.covariance.trace()
    expected = (left.mean - right.mean).square().sum() + traces - 2 * exact_overlap(a, b)
    assert frechet_distance(left, right) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("flip", [False, True])
def test_frechet_of_a_round_and_a_flat_gaussian_is_exact(flip):
    """The factor of the round one does not sort what is strong in the flat one."""
    spread = torch.logspace(0, -7, 30, dtype=torch.float64)
    turn = torch.linalg.qr(random_features(30, 30)).Q
    flat = exact_moments(torch.zeros(30), turn @ spread.square().diag() @ turn.T)
    sphere = exact_moments(torch.zeros(30), torch.eye(30))
    a, b = (flat, sphere) if flip else (sphere, flat)
    expected = (1 - spread).square().sum()
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=2e-9)


@pytest.mark.parametrize("rank", [0, 1, PANEL, PANEL + 3, 2 * PANEL + 2])
def test_a_factor_has_the_rank_and_the_product(rank):
    vectors = random_features(rank, 2 * PANEL + 2) if rank else torch.zeros(1, 5).double()
    covariance = vectors.T @ vectors
    found = factor(covariance)
    assert found.shape == (len(covariance), rank)
    np.testing.assert_allclose(found @ found.T, covariance, atol=1e-12 * float(covariance.abs().max()))
