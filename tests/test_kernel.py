"""The kernel distance: by hand, by a naive loop, and torch-fidelity's KID of the same subsets."""

from __future__ import annotations

from inspect import signature
from itertools import product

import pytest
import torch
from torch_fidelity.defaults import DEFAULTS
from torch_fidelity.metric_kid import kid_features_to_metric

from dpsims.evaluation.kernel import kernel_distance


def features(count: int, dimensions: int = 32, shift: float = 0.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(count, dimensions, generator=generator) + shift).relu()


def test_two_and_three_vectors_by_hand():
    # length 1: kernel (xy + 1)^3. Pairs of {0, 1}: 1; of {1, 2}: 27; between: 1, 1, 8, 27
    found = kernel_distance(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [2.0]]))
    assert found.value == pytest.approx(1 + 27 - 2 * (1 + 1 + 8 + 27) / 4, rel=1e-15)
    # length 2, two vectors of three drawn: {a, b} against two of the equal vectors (2, 0), whatever is drawn
    pair, equal = torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([[2.0, 0.0]] * 3)
    found = kernel_distance(pair, equal, subsets=7)
    assert found.value == pytest.approx(1 + 27 - 2 * (27 + 1) / 2, rel=1e-15)
    assert (found.subsets, found.subset_size, found.std) == (7, 2, 0)


def naive(a: torch.Tensor, b: torch.Tensor) -> float:
    def kernel(x, y):
        return (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3

    first, second, n = a.tolist(), b.tolist(), len(a)
    same = [
        sum(kernel(s[i], s[j]) for i, j in product(range(n), range(n)) if i != j) for s in (first, second)
    ]
    between = sum(kernel(x, y) for x in first for y in second)
    return sum(same) / (n * (n - 1)) - 2 * between / n**2


@pytest.mark.parametrize("chunk", [1, 5, 12, 100])
def test_agrees_with_a_naive_loop_in_blocks_of_any_size(chunk: int):
    a, b = features(12, 6), features(12, 6, 0.5, 1)
    assert kernel_distance(a, b, chunk=chunk).value == pytest.approx(naive(a, b), rel=1e-12)


@pytest.mark.parametrize("counts", [(300, 300), (300, 200), (500, 600)])
@pytest.mark.parametrize("subsets", [2, 30])  # each one by itself; all together
def test_agrees_with_torch_fidelity_on_the_same_subsets(counts: tuple[int, int], subsets: int):
    a, b = features(counts[0]), features(counts[1], shift=0.1, seed=1)
    ours = kernel_distance(a, b, subsets, 150, seed=3, chunk=128)
    settings = {"kid_subsets": subsets, "kid_subset_size": 150, "rng_seed": 3, "verbose": False}
    exact = kid_features_to_metric(a.double(), b.double(), **settings)
    assert ours.value == pytest.approx(exact["kernel_inception_distance_mean"], rel=1e-10)
    assert ours.std == pytest.approx(exact["kernel_inception_distance_std"], rel=1e-10)
    printed = kid_features_to_metric(a, b, **settings)  # in float32, as it does by default
    assert ours.value == pytest.approx(printed["kernel_inception_distance_mean"], abs=2e-6)
    assert ours.note is None and (ours.subsets, ours.subset_size) == (subsets, 150)


def test_the_defaults_are_those_of_torch_fidelity():
    ours = {name: value.default for name, value in signature(kernel_distance).parameters.items()}
    assert (ours["subsets"], ours["subset_size"]) == (DEFAULTS["kid_subsets"], DEFAULTS["kid_subset_size"])
    assert (DEFAULTS["kid_kernel_poly_degree"], DEFAULTS["kid_kernel_poly_coef0"]) == (3, 1)


def test_sets_of_one_distribution_give_about_zero_of_either_sign():
    values = [
        kernel_distance(features(60, seed=2 * i), features(60, seed=2 * i + 1)).value for i in range(20)
    ]
    other = kernel_distance(features(60), features(60, shift=0.5, seed=1)).value
    assert min(values) < 0 < max(values) and abs(sum(values) / 20) < 0.02 * other


def test_few_pictures_cut_the_subsets_and_say_so():
    cut = kernel_distance(features(40), features(70, seed=1), subsets=5)
    assert (cut.subsets, cut.subset_size) == (5, 40) and cut.std is not None and cut.std > 0
    assert cut.note == "kernel distance over subsets of 40 pictures, not 1,000: there are no more"
    one = kernel_distance(features(40), features(40, seed=1))
    assert (one.subsets, one.std) == (1, None) and one.note and "all subsets are the same" in one.note
    whole = kernel_distance(features(40), features(40, seed=1), subset_size=40)
    assert (whole.value, whole.subsets, whole.note) == (one.value, 1, None)


def test_the_seed_draws_the_subsets():
    a, b = features(50), features(50, seed=1)
    values = [kernel_distance(a, b, 3, 20, seed).value for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


def test_refusals_name_the_value():
    good = features(5)
    bad = good.clone()
    bad[2, 1] = torch.nan
    for first, second, said in [
        (good, good[:1], "1 pictures"),
        (good, good[:, :3], "lengths 32 and 3"),
        (bad, good, "NaN"),
        (good, bad[0], "shape"),
    ]:
        with pytest.raises(ValueError, match=said):
            kernel_distance(first, second)
    with pytest.raises(ValueError, match="subsets=0"):
        kernel_distance(good, good, subsets=0)
    with pytest.raises(ValueError, match="subset_size=1"):
        kernel_distance(good, good, subset_size=1)
