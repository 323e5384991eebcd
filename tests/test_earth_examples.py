"""The example maps of the label space `earth`: valid, drawn by the program, offered by the studio."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dpsims.checkpoint import Model, save_model
from dpsims.data.examples import example_maps
from dpsims.data.files import read_label
from dpsims.labels import LabelSpace
from dpsims.models.generator import Generator
from dpsims.studio.hosted import host
from tests.command_line import TINY

EARTH = LabelSpace.named("earth")
PROGRAM = runpy.run_path(str(Path(__file__).parents[1] / "tools" / "draw_earth_examples.py"))
PLACES = {draw.__name__: draw for draw in PROGRAM["PLACES"]}
MAPS = {file.stem: file for file in example_maps("earth")}


def test_there_are_no_other_maps_than_those_that_the_program_draws():
    assert len(MAPS) == 6 and MAPS.keys() == PLACES.keys()


@pytest.mark.parametrize("name", MAPS)
def test_a_map_is_a_palette_file_of_the_label_space(name: str):
    image = Image.open(MAPS[name])
    assert image.mode == "P" and image.size == (256, 256)
    label = read_label(MAPS[name], EARTH)
    assert (EARTH.colorize(label) == np.asarray(image.convert("RGB"))).all()
    shares = np.bincount(label.ravel(), minlength=EARTH.num_classes) / label.size
    assert (shares > 0).sum() >= 7 and shares.max() < 0.8


@pytest.mark.parametrize("name", MAPS)
def test_the_program_draws_the_map_that_is_in_the_package(name: str):
    # a pixel at the border of two classes may differ where a processor rounds differently
    assert (PLACES[name]() != np.asarray(Image.open(MAPS[name]))).mean() < 0.001


def test_the_studio_offers_them_with_models_of_that_label_space(tmp_path: Path):
    torch.manual_seed(0)
    generator = Generator(replace(TINY, num_classes=EARTH.num_classes)).eval()
    for name, space in (("own", EARTH), ("other", replace(EARTH, names=("sea", *EARTH.names[1:])))):
        (tmp_path / name).mkdir()
        save_model(Model(generator, space, 32, 32, {}), tmp_path / name)
    own, other = host([str(tmp_path / "own"), str(tmp_path / "other")]).values()
    assert sorted(example.name for example in own.examples) == [name.replace("_", " ") for name in MAPS]
    assert own.examples[0].name == "invented continent"
    assert (own.examples[0].load() == read_label(MAPS["invented_continent"], EARTH)).all()
    assert other.examples == []
