"""Recipes: plain values in, checked dataclasses out."""

from typing import Any

import pytest

from dpsims.config import DataConfig, Recipe
from dpsims.plain import from_dict, settable_fields, to_dict


def test_absent_fields_keep_their_defaults_and_present_ones_are_set():
    recipe = from_dict(Recipe, {"training": {"batch_size": 4}, "data": {"root": None, "flip": False}})
    assert recipe.training.batch_size == 4 and recipe.data.flip is False and recipe.data.root is None
    assert recipe.training.seed == Recipe().training.seed


def test_to_dict_round_trip_with_plain_lists():
    recipe = from_dict(Recipe, {"generator": {"channels": [8, 16]}, "backbone": {"levels": [0, 2]}})
    assert recipe.generator.channels == (8, 16)
    values = to_dict(recipe)
    assert values["generator"]["channels"] == [8, 16]
    assert from_dict(Recipe, values) == recipe


def test_lists_become_tuples_and_their_entries_are_checked():
    assert from_dict(Recipe, {"backbone": {"levels": []}}).backbone.levels == ()
    with pytest.raises(ValueError, match=r"generator\.channels='big' should be a whole number"):
        from_dict(Recipe, {"generator": {"channels": [8, "big"]}})
    with pytest.raises(ValueError, match=r"generator\.channels=8 should be a list"):
        from_dict(Recipe, {"generator": {"channels": 8}})


def test_a_misspelt_field_is_named_with_the_near_one():
    with pytest.raises(
        ValueError, match=r"my\.yaml: unknown field training\.batchsize; did you mean .*batch_size"
    ):
        from_dict(Recipe, {"training": {"batchsize": 4}}, where="my.yaml")
    with pytest.raises(ValueError, match=r"unknown field zzz; known: data, backbone"):
        from_dict(Recipe, {"zzz": {}})


@pytest.mark.parametrize("key", [1, True, None])  # YAML keys need not be text
def test_a_field_that_is_no_text_is_an_unknown_field(key: Any):
    with pytest.raises(ValueError, match=f"unknown field {key}"):
        from_dict(Recipe, {key: {}})


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("height", "tall", "data.height='tall' should be a whole number"),
        ("height", 1.5, "data.height=1.5 should be a whole number"),
        ("height", True, "data.height=True should be a whole number"),
        ("crop", "much", "data.crop='much' should be a number"),
        ("crop", False, "data.crop=False should be a number"),
        ("flip", 1, "data.flip=1 should be true or false"),
        ("root", 3, "data.root=3 should be text"),
        (
            "source",
            "mars",
            "data.source='mars' should be one of folder, ade20k, cocostuff, cityscapes, cityscapes_trainids, "
            "camvid, earth, facades, scenes",
        ),
    ],
)
def test_a_wrong_type_is_named_with_the_right_one(field: str, value: Any, said: str):
    with pytest.raises(ValueError) as error:
        from_dict(Recipe, {"data": {field: value}}, where="my.yaml")
    assert str(error.value) == f"my.yaml: {said}"


def test_a_section_must_be_one():
    with pytest.raises(ValueError, match="data=3 should be a section"):
        from_dict(Recipe, {"data": 3})


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), (1e-4, 1e-4), (1, 1.0), ("2", 2.0)])
def test_numbers_as_yaml_reads_them(text: Any, value: float):
    rate = from_dict(Recipe, {"training": {"generator_lr": text}}).training.generator_lr
    assert rate == value and isinstance(rate, float)


@pytest.mark.parametrize("text", ["1e6", 1e6, 1_000_000])
def test_whole_numbers_as_yaml_reads_them(text: Any):
    count = from_dict(Recipe, {"training": {"total_images": text}}).training.total_images
    assert count == 1_000_000 and isinstance(count, int)


def test_derived_fields_are_not_settable_but_resolved():
    assert "num_classes" not in settable_fields(type(Recipe().generator))
    assert settable_fields(DataConfig)["height"] is int
    given = from_dict(Recipe, {"backbone": {"name": "squeezenet1_1"}})
    recipe = given.resolved(num_classes=12)
    assert recipe.generator.num_classes == recipe.discriminator.num_classes == 12
    assert recipe.discriminator.backbone.name == "squeezenet1_1"
    assert given.generator.num_classes == 0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"data": {"source": "scenes", "root": "photos"}}, "data.root=photos is ignored: scenes are drawn"),
        ({"data": {"size": 5}}, "data.size=5 is ignored: it belongs to the source `scenes`"),
        ({"data": {"crop": 1.0, "rare_crop": 0.5}}, "data.rare_crop=0.5 is ignored: data.crop=1"),
        (
            {"discriminator": {"kind": "oasis", "conditioning": "none"}},
            "discriminator.conditioning=none is ignored: the OASIS",
        ),
    ],
)
def test_a_setting_that_nothing_reads_is_named(values: dict[str, Any], said: str):
    (line,) = from_dict(Recipe, values).ignored()
    assert line.startswith(said)


def test_what_is_read_is_not_called_ignored():
    assert Recipe().ignored() == []
    assert from_dict(Recipe, {"data": {"source": "scenes", "size": 5}}).ignored() == []
