"""Procedural scenes: the same everywhere, labels that fit the pictures, looks that labels do not tell."""

import hashlib

import numpy as np
import pytest

from dpsims.data.scene_textures import Noise, Stream
from dpsims.data.scenes import KINDS, LIGHTS, SCENES_SPACE, SEASONS, Scenes, draw_scene

# seed, appearance seed, height, width -> first half of the SHA-256 of image and label
GOLDEN = {
    (0, 0, 64, 96): "0e0e58fc4ac787dbaa4d0742875ba48d",
    (3, 3, 64, 96): "2eab4aa9aaaaf85bc43420249ff12efd",
    (4, 1005, 64, 96): "940a2d8854b695f0f8cbb09dd363adf3",
    (0, 0, 33, 50): "640dc722ab4e6feb35c27a61c893f54a",
    (2_000_000_007, 7, 80, 48): "415988857e0e2b44476e51c1c4fa10e5",
}


@pytest.mark.parametrize("key", GOLDEN)
def test_same_seed_gives_the_same_pixels_on_every_machine(key: tuple[int, int, int, int]) -> None:
    seed, appearance_seed, height, width = key
    image, label, _ = draw_scene(seed, height, width, appearance_seed)
    digest = hashlib.sha256(image.tobytes() + label.astype("<i8").tobytes()).hexdigest()
    assert digest[:32] == GOLDEN[key]


def test_image_and_label_have_the_promised_types() -> None:
    image, label, facts = draw_scene(3, 40, 56)
    assert image.shape == (40, 56, 3) and image.dtype == np.uint8
    assert label.shape == (40, 56) and label.dtype == np.int64
    assert label.min() >= 0 and label.max() < SCENES_SPACE.num_classes == 10
    assert facts["kind"] in KINDS and facts["light"] in LIGHTS and facts["season"] in SEASONS


def test_one_layout_in_two_appearances_has_one_label_map_and_two_pictures() -> None:
    for seed in range(12):  # some of each kind
        image, label, facts = draw_scene(seed, 32, 48, appearance_seed=100)
        other, same, other_facts = draw_scene(seed, 32, 48, appearance_seed=101 + seed)
        assert (label == same).all()
        assert facts["kind"] == other_facts["kind"]
        assert np.abs(image.astype(int) - other).mean() > 4


def test_one_appearance_suits_any_layout() -> None:
    drawn = [draw_scene(seed, 16, 24, appearance_seed=5) for seed in range(4)]
    assert len({(facts["light"], facts["season"]) for _, _, facts in drawn}) == 1
    assert len({label.tobytes() for _, label, _ in drawn}) == 4


def test_the_label_map_tells_nothing_of_light_and_season() -> None:
    count = 200
    drawn = [draw_scene(seed, 8, 12) for seed in range(count)]
    labels = np.stack([label for _, label, _ in drawn])
    shares = [(labels == k).mean((1, 2)) for k in range(10)]
    for name, choices in (("light", LIGHTS), ("season", SEASONS)):
        for choice in choices:
            has = np.array([facts[name] == choice for _, _, facts in drawn], dtype=float)
            assert 0.6 / len(choices) < has.mean() < 1.5 / len(choices)  # each is about as frequent
            correlation = np.array([np.corrcoef(share, has)[0, 1] for share in shares])
            assert np.abs(correlation).max() < 4 / np.sqrt(count)  # 70 numbers of deviation 1/sqrt(count)


def test_every_class_is_met_and_none_rules() -> None:
    labels = np.stack([draw_scene(seed, 16, 24)[1] for seed in range(100)])
    share = np.bincount(labels.ravel(), minlength=10) / labels.size
    scenes_with = np.array([(labels == k).any((1, 2)).mean() for k in range(10)])
    assert share.min() > 0.002 and share.max() < 0.4
    assert scenes_with.min() > 0.2


@pytest.mark.parametrize("seed", [0, 2, 4, 6, 11])
def test_a_scene_at_another_size_is_the_same_scene(seed: int) -> None:
    small, small_label, facts = draw_scene(seed, 32, 48)
    large, large_label, large_facts = draw_scene(seed, 96, 144)
    assert facts == large_facts
    assert (large_label[1::3, 1::3] == small_label).mean() > 0.9  # all but outlines
    mean = large.reshape(32, 3, 48, 3, 3).mean((1, 3))
    assert np.abs(mean - small).mean() < 10


def test_a_wider_picture_shows_more_at_both_sides() -> None:
    label, wide = draw_scene(4, 48, 48)[1], draw_scene(4, 48, 96)[1]
    assert (wide[:, 24:72] == label).all()


def test_pictures_follow_the_label_map() -> None:
    """Colours of neighbouring classes differ: the map could be read off the picture."""
    drawn = [draw_scene(seed, 24, 36) for seed in range(100)]
    day = [pair for *pair, facts in drawn if (facts["light"], facts["season"]) == ("day", "summer")]
    pixels = np.concatenate([image.reshape(-1, 3) for image, _ in day]) / 255.0
    classes = np.concatenate([label.ravel() for _, label in day])
    mean = {name: pixels[classes == k].mean(0) for k, name in enumerate(SCENES_SPACE.names)}
    assert mean["sky"][2] > mean["sky"][0] + 0.1  # blue
    assert mean["grass"][1] > mean["grass"][2] + 0.15 and mean["tree"][1] > mean["tree"][2] + 0.08  # green
    assert mean["water"][2] > mean["water"][0] + 0.1
    assert np.ptp(mean["road"]) < 0.06  # grey
    assert mean["pavement"].mean() > mean["road"].mean() + 0.08


def test_lights_are_told_apart_by_brightness_and_winter_by_snow() -> None:
    drawn = [draw_scene(0, 16, 24, appearance_seed=look) for look in range(60)]

    def brightness(fact: str, value: str, classes: tuple[int, ...]) -> float:
        chosen = [image[np.isin(label, classes)] for image, label, facts in drawn if facts[fact] == value]
        return float(np.mean([pixels.mean() for pixels in chosen]))

    night, dusk, day = (brightness("light", light, tuple(range(10))) for light in ("night", "dusk", "day"))
    assert night + 20 < dusk < day - 20
    assert brightness("season", "winter", (3,)) > brightness("season", "summer", (3,)) + 30


def test_source_has_distinct_scenes_for_each_split() -> None:
    sources = {split: Scenes(3, 16, 24, split) for split in ("train", "val", "test")}
    assert all(len(source) == 3 and source.space is SCENES_SPACE for source in sources.values())
    names = [name for source in sources.values() for name in source.names]
    assert len(set(names)) == 9
    maps = [source.load(i)[1] for source in sources.values() for i in range(3)]
    assert len({label.tobytes() for label in maps}) == 9
    image, label = sources["train"].load(1)
    expected = draw_scene(1, 16, 24)
    assert (image == expected[0]).all() and (label == expected[1]).all()


def test_bad_arguments_say_what_to_give() -> None:
    with pytest.raises(ValueError, match="no split 'training'.*train, val, test"):
        Scenes(3, 16, 24, "training")
    with pytest.raises(ValueError, match="data.size=0"):
        Scenes(0, 16, 24)
    with pytest.raises(ValueError, match="4x96.*8x8"):
        draw_scene(0, 4, 96)
    with pytest.raises(ValueError, match="seed -1"):
        draw_scene(-1, 16, 16)
    with pytest.raises(IndexError):
        Scenes(3, 16, 24).load(3)


def test_noise_is_smooth_and_fills_its_range() -> None:
    plane = Noise(Stream(1)).plane(np.arange(300) / 10.0, np.arange(300) / 10.0)
    assert plane.min() >= 0.0 and plane.max() < 1.0 and plane.std() > 0.15
    assert np.abs(np.diff(plane, axis=0)).max() < 0.2
