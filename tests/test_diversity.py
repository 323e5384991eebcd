"""Diversity over the picture and inside regions: by hand, against all pairs one by one, and stopped between.

In `tests/test_evaluation.py` as a part of the protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dpsims.evaluation import PairwiseDiversity, PooledFeatures, RealDiversity
from dpsims.evaluation.diversity import feature_distance, pixel_distance
from dpsims.evaluation.lpips import Lpips
from dpsims.evaluation.regions import SMALLEST_REGION, Pairs, pixel_distances, regions_of
from dpsims.labels import LabelSpace

SPACE = LabelSpace(("sky", "road", "car"), ((0, 0, 255), (90, 90, 90), (255, 0, 0)), (0, 1, 2), ignore_id=9)
SKY, ROAD, CAR, NONE = range(4)


class Means(nn.Module):
    """The mean colour of each 8x8 block, and its negative: features that can be computed by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, image: Tensor) -> list[Tensor]:
        self.calls += 1
        blocks = nn.functional.avg_pool2d(image, 8) * self.scale
        return [image, torch.cat([blocks, -blocks.square()], dim=1)]


def network(name: str = "means") -> PooledFeatures:
    return PooledFeatures(Means(), name)


class Pooled(PooledFeatures):
    """A network of which only whole pictures can be had, as Inception."""

    spatial = False

    def __call__(self, image: Tensor) -> Tensor:
        return image.mean(dim=(2, 3))

    def level(self, image: Tensor) -> Tensor:
        raise AssertionError("has no level")


@pytest.fixture(scope="module")
def lpips(tmp_path_factory: pytest.TempPathFactory) -> Lpips:
    """LPIPS-squeeze on random weights."""
    from safetensors.torch import save_file
    from torchvision.models import squeezenet1_1

    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = squeezenet1_1().features.state_dict(prefix="features.")
    path = tmp_path_factory.mktemp("weights") / "squeeze.safetensors"
    save_file(dict(state), path)
    return Lpips("squeeze", path)


NAME = "squeeze, weights squeeze.safetensors"


def label_map() -> Tensor:
    """(2, 32, 32): sky above road, a car and an unlabelled corner in the first; only road in the second."""
    label = torch.full((2, 32, 32), ROAD)
    label[0, :16] = SKY
    label[0, 16:32, 8:16] = CAR
    label[0, 24:, 24:] = NONE
    return label


def noise(count: int, seed: int, size: tuple[int, int] = (32, 32)) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def diversity(samples: Sequence[Tensor], label: Tensor, lpips: Lpips | None = None) -> dict[str, Any]:
    measured = PairwiseDiversity([network()], SPACE, lpips)
    measured.update(samples, label)
    return measured.report()


def test_a_change_inside_one_class_shows_there_and_nowhere_else(lpips: Lpips):
    label = label_map()[:1]
    before = torch.full((1, 3, 32, 32), 0.25)
    after = before.clone()
    after[:, 0, label[0] == CAR] += 0.6  # one channel of three: 0.2 a pixel
    report = diversity([before, after], label, lpips)
    regions = report["diversity_regions"]
    assert list(regions) == ["pixels", f"lpips {NAME}", "means"]
    assert regions["pixels"] == {"sky": 0, "road": 0, "car": pytest.approx(0.2)}
    assert report["diversity"] == pytest.approx(0.2 * 16 * 8 / 32**2)
    # the network's blocks lie inside the regions: it sees no more of them than the pixels do
    first = torch.tensor([[0.25, 0.25, 0.25, -0.0625, -0.0625, -0.0625]])
    second = torch.tensor([[0.85, 0.25, 0.25, -0.7225, -0.0625, -0.0625]])
    by_hand = feature_distance(first, second).item()
    assert by_hand > 0.05 and regions["means"] == {"sky": 0, "road": 0, "car": pytest.approx(by_hand)}
    # LPIPS looks around, but most of the change is where it is
    inside = regions[f"lpips {NAME}"]
    assert inside["car"] > report["lpips"][NAME] > inside["sky"] > 0


def test_a_model_that_ignores_its_noise_gets_exactly_zero(lpips: Lpips):
    image, label = noise(2, 0, (37, 45)), torch.zeros(2, 37, 45, dtype=torch.int64)
    label[:, :, 20:] = CAR
    report = diversity([image.clone() for _ in range(5)], label, lpips)
    nothing = {"sky": 0.0, "road": None, "car": 0.0}
    assert report == {
        "diversity": 0.0,
        "diversity_features": {"means": 0.0},
        "lpips": {NAME: 0.0},
        "diversity_regions": {"pixels": nothing, f"lpips {NAME}": nothing, "means": nothing},
    }


def test_it_is_the_mean_over_all_pairs_and_maps(lpips: Lpips):
    label = label_map()
    samples = [noise(2, seed) * (0.2 + 0.2 * seed) for seed in range(4)]
    report = diversity(samples, label, lpips)
    pairs = list(combinations(samples, 2))
    features = network()

    def mean(values: Sequence[Tensor]) -> Any:
        return pytest.approx(torch.stack([v.double() for v in values]).mean().item(), rel=1e-5)

    assert report["diversity"] == mean([pixel_distance(a, b) for a, b in pairs])
    assert report["diversity_features"]["means"] == mean(
        [feature_distance(features(a), features(b)) for a, b in pairs]
    )
    assert report["lpips"][NAME] == mean([lpips(a, b) for a, b in pairs])
    regions = report["diversity_regions"]
    road = [label[i] == ROAD for i in range(2)]  # both maps have it, of different sizes: each counts once
    assert regions["pixels"]["road"] == mean(
        [(a[i] - b[i]).abs()[:, road[i]].mean() for a, b in pairs for i in range(2)]
    )
    assert regions[f"lpips {NAME}"]["road"] == mean(
        [lpips.maps(a, b)[i][road[i]].mean() for a, b in pairs for i in range(2)]
    )

    def of_car(image: Tensor) -> Tensor:  # two blocks: rows 2 and 3, column 1
        return features.level(image)[0, :, 2:4, 1].mean(dim=1)[None]

    assert regions["means"]["car"] == mean([feature_distance(of_car(a), of_car(b)) for a, b in pairs])


def test_features_of_a_region_weigh_a_position_by_what_it_covers():
    label = torch.full((1, 16, 16), NONE)
    label[0, :8, :12] = SKY  # one block whole, half of the next
    label[0, 8:] = ROAD
    samples = [noise(1, seed, (16, 16)) for seed in range(2)]
    levels = [network().level(sample)[0, :, 0] for sample in samples]
    a, b = ((2 * level[:, :1] + level[:, 1:]).T / 3 for level in levels)
    found = diversity(samples, label)["diversity_regions"]["means"]
    assert found["sky"] == pytest.approx(feature_distance(a, b).item())
    assert found["road"] is not None and found["car"] is None


def test_small_regions_are_skipped():
    label = torch.full((1, 32, 32), NONE)
    label[0, :8, :8] = SKY
    label[0, 8:16, :8] = ROAD
    label[0, 15, 7] = NONE  # one pixel too few
    label[0, 3:11, 16:24] = CAR  # a block's worth, in two halves
    found = diversity([noise(1, 0), noise(1, 1)], label)["diversity_regions"]
    assert SMALLEST_REGION == 64
    assert {name for name, value in found["pixels"].items() if value is not None} == {"sky", "car"}
    assert {name for name, value in found["means"].items() if value is not None} == {"sky", "car"}
    finer = regions_of(label, 1, SPACE)[0].cells((2, 2))  # cells of 256 pixels: nothing covers one
    assert finer.classes.tolist() == [] and finer.weights.shape == (0, 4)


def test_only_the_classes_that_evaluation_counts_are_regions():
    space = replace(SPACE, evaluated=("car", "sky"))
    samples = [noise(2, 0), noise(2, 1)]
    every, counted = (PairwiseDiversity([network()], s) for s in (SPACE, space))
    for measured in (every, counted):
        measured.update(samples, label_map())
    found, regions = counted.report(), every.report()["diversity_regions"]
    assert found["diversity"] == every.report()["diversity"]
    assert list(found["diversity_regions"]["pixels"]) == ["car", "sky"]
    for measure, values in found["diversity_regions"].items():
        assert values == {name: regions[measure][name] for name in ("car", "sky")}


def test_a_network_without_levels_is_measured_over_whole_pictures_only():
    measured = PairwiseDiversity([Pooled(Means(), "pooled"), network()], SPACE)
    measured.update([noise(2, 0), noise(2, 1)], label_map())
    report = measured.report()
    assert list(report["diversity_features"]) == ["pooled", "means"]
    assert all(value > 0 for value in report["diversity_features"].values())
    assert list(report["diversity_regions"]) == ["pixels", "means"]


def test_each_network_sees_each_sample_once():
    backbone = Means()
    measured = PairwiseDiversity([PooledFeatures(backbone, "means")], SPACE)
    measured.update([noise(2, seed) for seed in range(6)], label_map())
    assert backbone.calls == 6  # of 15 pairs
    real = RealDiversity([PooledFeatures(backbone, "means")], NONE, space=SPACE)
    real.update(noise(2, 0), label_map())
    real.update(noise(2, 1), label_map())
    real.report()
    assert backbone.calls == 10


def test_without_a_space_or_lpips_the_report_is_short_and_needs_no_maps():
    measured = PairwiseDiversity([network()])
    measured.update([noise(2, 0), noise(2, 1)])
    assert set(measured.report()) == {"diversity", "diversity_features"} and measured.maps == 2
    empty = PairwiseDiversity([network()], SPACE).report()
    nothing = dict.fromkeys(SPACE.names)
    assert empty["diversity_regions"] == {"pixels": nothing, "means": nothing}
    with pytest.raises(AssertionError, match="label maps"):
        PairwiseDiversity([], SPACE).update([noise(2, 0), noise(2, 1)])


def test_the_mean_over_pairs_without_the_pairs():
    samples = torch.randn(7, 2, 5, 3, generator=torch.Generator().manual_seed(0)).double() + 3
    pairs = Pairs()
    for sample in samples:
        pairs.add(sample)
    every = [(a - b).square().sum(dim=1) for a, b in combinations(samples, 2)]
    torch.testing.assert_close(pairs.mean(), torch.stack(every).mean(dim=0), rtol=1e-10, atol=0)
    # far apart from zero and nearly equal: what would be lost without the first sample taken off
    pairs = Pairs()
    for step in (0.0, 1e-3, 2e-3):
        pairs.add(torch.full((1, 1), 1000 + step, dtype=torch.float64))
    assert pairs.mean().item() == pytest.approx((1 + 1 + 4) / 3 * 1e-6)


def test_pixels_by_hand():
    samples = torch.stack([torch.full((3, 1, 2), value) for value in (-1.0, 0.0, -1.0, 1.0)])
    samples[:, :, 0, 1] = 0.5
    # the distances of the left pixel: 1 0 2, 1 1, 2
    torch.testing.assert_close(pixel_distances(samples), torch.tensor([[7 / 6, 0.0]]).double())


# ---------------------------------------------------------------- real pictures


def test_real_regions_by_hand(lpips: Lpips):
    label = label_map()
    label[1, :16, :16] = SKY
    image = torch.zeros(2, 3, 32, 32)
    image[0, :, label[0] == SKY], image[1, :, label[1] == SKY] = 0.25, 0.5
    image[0, :, label[0] == ROAD], image[1, :, label[1] == ROAD] = -0.5, -0.25
    image[:, 0, :16, 16:] = 0.9  # sky in one, road in the other: no pixels of one class
    image[1, :, :16, 16:] = 0.9
    real = RealDiversity([network()], NONE, space=SPACE, lpips=lpips)
    real.update(image, label)
    report = real.report()
    assert report["diversity_regions"]["pixels"] == {
        "sky": pytest.approx(0.25),
        "road": pytest.approx(0.25),
        "car": None,
    }
    assert report["diversity"] == pytest.approx(0.25)
    skies = [network().level(image[:1])[0, :, :2].mean(dim=(1, 2))]
    skies.append(network().level(image[1:])[0, :, :2, :2].mean(dim=(1, 2)))
    expected = feature_distance(*(sky[None] for sky in skies)).item()
    assert report["diversity_regions"]["means"]["sky"] == pytest.approx(expected)
    assert report["diversity_regions"]["means"]["car"] is None
    assert report["lpips"][NAME] == pytest.approx(lpips(image[:1], image[1:]).item())
    both = (label[0] == label[1]) & (label[0] == ROAD)
    over_road = lpips.maps(image[:1], image[1:])[0][both].mean().item()
    assert report["diversity_regions"][f"lpips {NAME}"]["road"] == pytest.approx(over_road, rel=1e-5)


def test_asking_for_the_real_figures_changes_nothing():
    asked, other = (RealDiversity([network()], NONE, capacity=3, space=SPACE) for _ in range(2))
    for seed in range(5):
        for real in (asked, other):
            real.update(noise(2, seed), label_map())
        assert asked.report() == asked.report()
    assert asked.report() == other.report()


def test_one_real_picture_or_none_has_no_diversity(lpips: Lpips):
    real = RealDiversity([network()], NONE, space=SPACE, lpips=lpips)
    nothing = dict.fromkeys(SPACE.names)
    expected = {
        "diversity": None,
        "diversity_features": {"means": None},
        "lpips": {NAME: None},
        "diversity_regions": {"pixels": nothing, f"lpips {NAME}": nothing, "means": nothing},
    }
    assert real.report() == expected
    real.update(noise(1, 0), label_map()[:1])
    assert real.report() == expected


# ---------------------------------------------------------------- stopped between


def test_restored_it_goes_on_to_the_same_bits(lpips: Lpips, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    def new() -> tuple[PairwiseDiversity, RealDiversity]:
        real = RealDiversity([network()], NONE, seed=3, capacity=4, space=SPACE, lpips=lpips)
        return PairwiseDiversity([network()], SPACE, lpips), real

    undisturbed, stopped = new(), new()
    for step in range(6):
        if step == 3:  # another process goes on from what was written
            states = [one.state_dict() for one in stopped]
            stopped = new()
            for one, state in zip(stopped, states, strict=True):
                save_file(state, tmp_path / "state")
                one.load_state_dict(load_file(tmp_path / "state"))
        samples = [noise(2, 10 * step + i) * 0.1 * (step + 1) for i in range(3)]
        for generated, real in (undisturbed, stopped):
            generated.update(samples, label_map())
            real.update(samples[0], label_map())
    assert [one.report() for one in stopped] == [one.report() for one in undisturbed]
    assert stopped[0].maps == 12


def test_a_state_is_a_copy():
    measured = PairwiseDiversity([network()], SPACE)
    measured.update([noise(2, 0), noise(2, 1)], label_map())
    state, before = measured.state_dict(), measured.report()
    measured.update([noise(2, 2), noise(2, 3)], label_map())
    assert measured.report() != before
    measured.load_state_dict(state)
    assert measured.report() == before
