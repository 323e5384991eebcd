"""The example maps of the label space `earth`: valid, drawn by the program, offered by the studio."""

from __future__ import annotations

import runpy
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dpsims.checkpoint import Model, save_model
from dpsims.data.files import read_label
from dpsims.labels import LabelSpace
from dpsims.models.generator import Generator
from dpsims.studio.hosted import EARTH_MAPS, host
from tests.command_line import TINY

EARTH = LabelSpace.named("earth")
FOLDER = Path(str(resources.files("dpsims") / "assets" / "examples" / "earth"))


def test_there_are_no_other_maps_than_those_that_are_offered():
    assert sorted(file.stem for file in FOLDER.iterdir()) == sorted(EARTH_MAPS)


@pytest.mark.parametrize("name", EARTH_MAPS)
def test_a_map_is_a_palette_file_of_the_label_space(name: str):
    image = Image.open(FOLDER / f"{name}.png")
    assert image.mode == "P" and image.size == (256, 256)
    label = read_label(FOLDER / f"{name}.png", EARTH)
    assert (EARTH.colorize(label) == np.asarray(image.convert("RGB"))).all()
    shares = np.bincount(label.ravel(), minlength=EARTH.num_classes) / label.size
    assert (shares > 0).sum() >= 7 and shares.max() < 0.8


def test_the_program_draws_the_map_that_is_in_the_package():
    program = runpy.run_path(str(Path(__file__).parents[1] / "tools" / "draw_earth_examples.py"))
    assert {draw.__name__ for draw in program["PLACES"]} == set(EARTH_MAPS)
    drawn = program["mountain_range"]()
    # a pixel at the border of two classes may differ where a processor rounds differently
    assert (drawn != np.asarray(Image.open(FOLDER / "mountain_range.png"))).mean() < 0.001


def test_the_studio_offers_them_with_models_of_that_label_space(tmp_path: Path):
    torch.manual_seed(0)
    generator = Generator(replace(TINY, num_classes=EARTH.num_classes)).eval()
    for name, space in (("own", EARTH), ("other", replace(EARTH, names=("sea", *EARTH.names[1:])))):
        (tmp_path / name).mkdir()
        save_model(Model(generator, space, 32, 32, {}), tmp_path / name)
    own, other = host([str(tmp_path / "own"), str(tmp_path / "other")]).values()
    assert [example.name for example in own.examples] == [name.replace("_", " ") for name in EARTH_MAPS]
    assert (own.examples[0].load() == read_label(FOLDER / "invented_continent.png", EARTH)).all()
    assert other.examples == []
