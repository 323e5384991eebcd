"""The ids of the benchmark sets and of CamVid, from file to evaluation and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dpsims.config import GeneratorConfig
from dpsims.data.files import read_label
from dpsims.labels import LabelSpace
from dpsims.losses import fake_loss, real_loss
from dpsims.models.generator import Generator

CAMVID_CLASSES = Path(__file__).resolve().parents[2] / "shared" / "data" / "camvid" / "classes.json"
CLASSES = {"ade20k": 150, "cocostuff": 171, "cityscapes": 33, "cityscapes_trainids": 19, "camvid": 11}
EVALUATED = {**CLASSES, "cityscapes": 19}

# Copied by hand from the official lists (see "about" in src/dpsims/labels/spaces/*.json). Raw id in the file,
# class name, generator input index, discriminator target (0 is `fake`), evaluation index; None: not looked
# at. The last row of each set is the unlabelled pixel: input index K.
ID_TABLE = {
    "ade20k": [
        (1, "wall", 0, 1, 0),
        (2, "building", 1, 2, 1),
        (13, "person", 12, 13, 12),
        (21, "car", 20, 21, 20),
        (131, "screen", 130, 131, 130),
        (150, "flag", 149, 150, 149),
        (0, None, 150, None, None),
    ],
    "cocostuff": [
        (0, "person", 0, 1, 0),
        (10, "fire hydrant", 10, 11, 10),
        (12, "stop sign", 11, 12, 11),  # 11, street sign, is in no map
        (24, "giraffe", 23, 24, 23),
        (26, "backpack", 24, 25, 24),  # 25: hat
        (27, "umbrella", 25, 26, 25),
        (30, "handbag", 26, 27, 26),  # 28, 29: shoe, eye glasses
        (43, "bottle", 39, 40, 39),
        (45, "wine glass", 40, 41, 40),  # 44: plate
        (64, "bed", 59, 60, 59),
        (66, "dining table", 60, 61, 60),  # 65: mirror
        (69, "toilet", 61, 62, 61),  # 67, 68: window, desk
        (71, "tv", 62, 63, 62),  # 70: door
        (81, "refrigerator", 72, 73, 72),
        (83, "book", 73, 74, 73),  # 82: blender
        (89, "toothbrush", 79, 80, 79),
        (91, "banner", 80, 81, 80),  # 90: hair brush; the first stuff class
        (156, "sky-other", 145, 146, 145),
        (181, "wood", 170, 171, 170),
        (255, None, 171, None, None),
    ],
    "cityscapes": [
        (1, "ego vehicle", 0, 1, None),
        (4, "static", 3, 4, None),
        (7, "road", 6, 7, 0),
        (8, "sidewalk", 7, 8, 1),
        (9, "parking", 8, 9, None),
        (11, "building", 10, 11, 2),
        (17, "pole", 16, 17, 5),
        (18, "polegroup", 17, 18, None),
        (19, "traffic light", 18, 19, 6),
        (26, "car", 25, 26, 13),
        (28, "bus", 27, 28, 15),
        (29, "caravan", 28, 29, None),
        (31, "train", 30, 31, 16),
        (33, "bicycle", 32, 33, 18),
        (0, None, 33, None, None),
    ],
    "cityscapes_trainids": [
        (0, "road", 0, 1, 0),
        (5, "pole", 5, 6, 5),
        (13, "car", 13, 14, 13),
        (18, "bicycle", 18, 19, 18),
        (255, None, 19, None, None),
    ],
    "camvid": [
        (0, "Sky", 0, 1, 0),
        (8, "Car", 8, 9, 8),
        (10, "Bicyclist", 10, 11, 10),
        (11, None, 11, None, None),
    ],
    "facades": [
        (1, "background", 0, 1, 0),
        (2, "facade", 1, 2, 1),
        (5, "cornice", 4, 5, 4),
        (10, "molding", 9, 10, 9),
        (12, "shop", 11, 12, 11),  # no id stands for unlabelled
    ],
}
ROWS = [(name, *row) for name, rows in ID_TABLE.items() for row in rows]
NO_CLASS = {
    "ade20k": (151, 255),
    "cocostuff": (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90, 182, 254),
    "cityscapes": (34, 255),
    "cityscapes_trainids": (19, 26, 254),
    "camvid": (12, 255),
    "facades": (0, 13, 255),
}


def space_of(name: str) -> LabelSpace:
    if name == "camvid":
        if not CAMVID_CLASSES.is_file():
            pytest.skip(f"{CAMVID_CLASSES} is not there")
        return LabelSpace.load(CAMVID_CLASSES)
    return LabelSpace.named(name)


def write_map(path: Path, ids: np.ndarray) -> Path:
    Image.fromarray(ids.astype(np.uint8)).save(path)
    return path


def seen_inputs(num_classes: int, label: torch.Tensor) -> set[int]:
    """The input classes that reach the generator's weights, at both places where the label map goes in."""
    torch.manual_seed(0)
    config = GeneratorConfig(
        num_classes,
        channels=(4, 4),
        attention_strides=(2,),
        attention_heads=1,
        noise_tokens=1,
        noise_channels=2,
        token_channels=4,
    )
    generator = Generator(config)
    (generator(label) * torch.randn(label.shape[0], 3, *label.shape[1:])).sum().backward()
    embedding = generator.encoder.embedding.weight.grad
    start = generator.image_network.start.weight.grad
    assert embedding is not None and start is not None
    found = [
        set(torch.nonzero(g).flatten().tolist()) for g in (embedding.abs().sum(1), start.abs().sum((0, 2, 3)))
    ]
    assert found[0] == found[1]
    return found[0]


def certain_of(channel: int, num_classes: int, label: torch.Tensor) -> torch.Tensor:
    """A discriminator's logits that say `channel` everywhere."""
    logits = torch.zeros(label.shape[0], num_classes + 1, *label.shape[1:])
    logits[:, channel] = 100.0
    return logits


@pytest.mark.parametrize(("name", "raw", "class_name", "index", "target", "counted"), ROWS)
def test_an_id_from_file_to_evaluation_and_back(
    tmp_path: Path,
    name: str,
    raw: int,
    class_name: str | None,
    index: int,
    target: int | None,
    counted: int | None,
):
    space = space_of(name)
    decoded = read_label(write_map(tmp_path / "map.png", np.full((4, 6), raw)), space)
    assert np.unique(decoded).tolist() == [index]
    if class_name is None:
        assert index == space.ignore_index == space.num_classes
    else:
        assert space.names[index] == class_name

    label = torch.from_numpy(decoded)[None]
    assert seen_inputs(space.num_classes, label) == {index}
    for channel in range(space.num_classes + 1):
        loss = float(real_loss(certain_of(channel, space.num_classes, label), label))
        assert loss == 0 if channel == target or target is None else loss > 50
    # as fakes, labelled pixels have the target 0 and unlabelled ones none
    loss = float(fake_loss(certain_of(1, space.num_classes, label), label))
    assert loss == 0 if target is None else loss > 50

    evaluated = space.evaluation_table[decoded]
    expected = space.evaluation.ignore_index if counted is None else counted
    assert np.unique(evaluated).tolist() == [expected]
    if counted is not None:
        assert space.evaluation.names[counted] == class_name
    assert np.unique(space.encode_ids(decoded)).tolist() == [raw]


@pytest.mark.parametrize("name", CLASSES)
def test_every_id_of_a_set_at_once(tmp_path: Path, name: str):
    space = space_of(name)
    assert (space.num_classes, space.evaluation.num_classes) == (CLASSES[name], EVALUATED[name])
    assert len({n.casefold() for n in space.names}) == len(set(space.ids)) == space.num_classes
    ids = np.array([[*space.ids, space.ignore_id]])
    path = write_map(tmp_path / "all.png", ids)
    decoded = read_label(path, space)
    assert decoded.tolist() == [[*range(space.num_classes + 1)]]
    assert np.array_equal(space.encode_ids(decoded), np.array(Image.open(path)))
    # the highest target is the discriminator's last channel, the highest evaluation index the last class
    label = torch.from_numpy(decoded)[None]
    logits = torch.nn.functional.one_hot((label + 1) % (space.num_classes + 1), space.num_classes + 1) * 100.0
    assert float(real_loss(logits.permute(0, 3, 1, 2), label)) == 0
    counted = space.evaluation_table[decoded]
    assert sorted(set(counted[counted < EVALUATED[name]])) == [*range(EVALUATED[name])]


@pytest.mark.parametrize(("name", "bad"), [(name, bad) for name, ids in NO_CLASS.items() for bad in ids])
def test_an_id_that_no_class_has_is_named_with_its_file_and_place(tmp_path: Path, name: str, bad: int):
    space = space_of(name)
    ids = np.full((4, 6), space.ids[0])
    ids[2, 3] = ids[3, 1] = bad
    path = write_map(tmp_path / "map.png", ids)
    with pytest.raises(ValueError) as error:
        read_label(path, space)
    assert str(error.value).startswith(f"{path}: label id {bad} at row 2, column 3 (2 such pixels) is not")


def test_the_gaps_are_all_that_is_missing():
    for name, (low, high) in {"ade20k": (1, 150), "cocostuff": (0, 181), "cityscapes": (1, 33)}.items():
        missing = set(range(low, high + 1)) - set(LabelSpace.named(name).ids)
        assert missing == {i for i in NO_CLASS[name] if low <= i <= high}


@pytest.mark.parametrize(
    ("name", "class_name", "color"),
    [
        ("ade20k", "wall", (120, 120, 120)),
        ("ade20k", "road", (140, 140, 140)),
        ("ade20k", "flag", (92, 0, 255)),
        ("cocostuff", "person", (128, 0, 0)),
        ("cocostuff", "wood", (0, 224, 192)),
        ("cityscapes", "dynamic", (111, 74, 0)),
        ("cityscapes", "bicycle", (119, 11, 32)),
        ("cityscapes_trainids", "traffic light", (250, 170, 30)),
        ("facades", "molding", (255, 85, 0)),
    ],
)
def test_colours(name: str, class_name: str, color: tuple[int, int, int]):
    space = LabelSpace.named(name)
    assert space.colors[space.names.index(class_name)] == color


def test_which_classes_share_a_colour():
    """Colour-coded maps of these cannot be told apart; all others can."""
    for name, shared in {
        "ade20k": {"road", "skyscraper"},  # so it is in the official palette
        "cocostuff": set(),
        "cityscapes": {"ego vehicle", "rectification border", "out of roi", "static", "pole", "polegroup"},
        "cityscapes_trainids": set(),
        "facades": set(),
    }.items():
        space = LabelSpace.named(name)
        colors = [*space.colors, space.ignore_color]
        assert {n for n, c in zip(space.names, colors, strict=False) if colors.count(c) > 1} == shared
