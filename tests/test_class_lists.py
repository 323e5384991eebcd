"""The short forms of a list of classes: names alone, ids and colors left out, classes.txt."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dpsims.labels import LabelSpace
from dpsims.labels.palette import distinct_colors
from tests.command_line import check_refused
from tests.conftest import Run

NAMES = ["sky", "road", "tree"]
FORMS = {
    "classes.json": json.dumps({"classes": NAMES}),
    "classes.yaml": "- sky\n- road\n- tree\n",
    "classes.txt": "sky\nroad\ntree\n",
}


# --- generated colors


def test_generated_colors_are_the_same_everywhere():
    first = distinct_colors(8)
    assert first[:2] == [(230, 159, 0), (86, 180, 233)]  # Okabe and Ito's
    digest = hashlib.sha256(np.array(distinct_colors(256), np.uint8).tobytes()).hexdigest()
    assert digest[:16] == "60198370a4fa48e0"
    for count in (1, 31, 32, 33, 100, 300):  # a prefix, however many
        assert distinct_colors(count)[:256] == distinct_colors(300)[: min(count, 256)]


@pytest.mark.parametrize("count", [12, 150, 256, 2000, 65535])
def test_generated_colors_differ_from_each_other_and_from_given_ones(count: int):
    given = [(0, 0, 0), (86, 180, 233), *distinct_colors(5000)[290:400]]
    made = distinct_colors(count, given)
    assert len(set(made)) == count and set(made).isdisjoint(given)
    assert all(0 <= c <= 255 for color in made for c in color)


def test_a_color_like_a_given_one_is_avoided():
    assert distinct_colors(3, [(230, 159, 2)]) == distinct_colors(4)[1:]


@pytest.mark.parametrize(("count", "least"), [(12, 24.0), (30, 20.0)])
def test_generated_colors_can_be_told_apart(count: int, least: float):
    from dpsims.labels.palette import _lab

    made = np.array(distinct_colors(count), np.uint8)
    for deficient, bound in ((False, least), (True, least / 2)):
        lab = _lab(made, deficient)
        distances = np.linalg.norm(lab[:, None] - lab, axis=-1)[np.triu_indices(count, 1)]
        assert distances.min() > bound  # a CIELAB distance of 2.3 is just noticeable


def test_lab_is_that_of_the_standard():
    from dpsims.labels.palette import _lab

    lab = _lab(np.array([[255, 0, 0], [255, 255, 255], [0, 0, 0]], np.uint8))
    assert np.allclose(lab, [[53.24, 80.09, 67.20], [100, 0, 0], [0, 0, 0]], atol=0.02)


# --- what may be left out


@pytest.mark.parametrize("file", FORMS)
def test_names_are_enough(tmp_path: Path, file: str):
    (tmp_path / file).write_text(FORMS[file])
    space = LabelSpace.load(tmp_path)
    assert (space.names, space.ids, space.ignore_id) == (("sky", "road", "tree"), (0, 1, 2), None)
    assert list(space.colors) == distinct_colors(3) and space.has_generated_colors
    assert LabelSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space
    assert space.to_dict()["classes"][1] == {"id": 1, "name": "road", "color": list(space.colors[1])}


def test_given_colors_stay_and_the_others_are_made():
    orange, black, blue = distinct_colors(2)[0], (0, 0, 0), distinct_colors(2)[1]
    listed: list[Any] = ["sky", {"name": "road", "color": list(orange)}, {"name": "tree", "color": None}]
    space = LabelSpace.from_dict({"ignore_color": list(blue), "classes": listed})
    assert space.colors[1] == orange and len({*space.colors, space.ignore_color}) == 4
    assert black not in space.colors and not space.has_generated_colors
    assert LabelSpace.from_dict(space.to_dict()) == space


def test_ids_count_all_listed_classes_and_the_unlabeled_one_may_be_listed():
    values = {"ignore_id": 0, "classes": ["void", "sky", "car", "truck", "ego"], "ignore": ["ego"]}
    space = LabelSpace.from_dict({**values, "merge": {"vehicle": ["car", "truck"]}})
    assert (space.names, space.ids) == (("sky", "vehicle"), (1, 2))
    assert space.decode_ids(np.array([[0, 1, 2, 3, 4]], np.uint8)).tolist() == [[2, 0, 1, 1, 2]]
    assert LabelSpace.from_dict(space.to_dict()) == space


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ([{"id": 0, "name": "sky"}, {"name": "road"}], "class road has no id, but sky has one"),
        ([{"id": 0, "name": "sky"}, "road"], "class road has no id, but sky has one"),
        (["sky", "Sky"], "two classes are named Sky"),
        (["sky", 7], "class name 7 is no text"),
        (["sky", " "], "empty name"),
        ([{"color": [1, 2, 3]}], "needs a name"),
        ([{"name": "sky", "colour": [1, 2, 3]}], "class sky: unknown field colour; did you mean color"),
        ([{"ID": 7, "name": "sky"}], "class sky: unknown field ID; did you mean id?"),
        ([{"index": 7, "name": "sky"}], "class sky: unknown field index; did you mean id?"),
        ([{"label": 7, "name": "sky"}], "class sky: unknown field label; did you mean id?"),
        ([{"trainId": 7, "name": "sky"}], "class sky: unknown field trainId; did you mean id?"),
        ([{"value": 7, "name": "sky"}], "class sky: unknown field value; did you mean id?"),
        ([{"id": 7, "name": "sky", "rgb": [1, 2, 3]}], "class sky: unknown field rgb; did you mean color?"),
        ([{"id": 7, "name": "sky", "RGB": [1, 2, 3]}], "class sky: unknown field RGB; did you mean color?"),
        ([{"id": 7, "name": "sky", "kind": "far"}], "unknown field kind; remove it, or give color too"),
        ([], "no class"),
    ],
)
def test_malformed_short_lists_are_rejected(classes: list[Any], said: str):
    for values in (classes, {"classes": classes}):
        with pytest.raises(ValueError) as error:
            LabelSpace.from_dict(values, "my.yaml")
        assert str(error.value).startswith("my.yaml: ") and said in str(error.value)


def test_complete_entries_may_have_fields_of_their_own():
    entry = {"id": 7, "name": "sky", "color": [1, 2, 3]}
    assert LabelSpace.from_dict([{**entry, "trainId": 4}]) == LabelSpace.from_dict([entry])


def test_a_large_list_is_read(tmp_path: Path):
    (tmp_path / "classes.txt").write_text("\n".join(f"class {i}" for i in range(65535)))
    space = LabelSpace.load(tmp_path)
    assert space.num_classes == len({*space.colors, space.ignore_color}) - 1 == 65535


# --- classes.txt


@pytest.mark.parametrize(
    "content",
    [b"sky\nroad", b"\xef\xbb\xbfsky\nroad\n", b"sky \r\nroad\t\r\n\r\n \r\n", b"sky\nroad\n\n\n"],
)
def test_a_text_file_is_read_however_it_was_saved(tmp_path: Path, content: bytes):
    (tmp_path / "classes.txt").write_bytes(content)
    assert LabelSpace.load(tmp_path) == LabelSpace.from_dict(["sky", "road"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"sky\n\nroad\n", "line 2 is empty"),
        (b"\nsky\n", "line 1 is empty"),
        (b"sky\nroad\nSky\n", "lines 1 and 3 are both Sky"),
        (b"\n \n", "is empty"),
        (b"caf\xe9\n", "UTF-8"),
    ],
)
def test_a_malformed_text_file_is_rejected(tmp_path: Path, content: bytes, said: str):
    (tmp_path / "classes.txt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"classes\.txt: .*{said}"):
        LabelSpace.load(tmp_path)


def test_a_text_file_beside_another_list_is_rejected(tmp_path: Path):
    for file, content in FORMS.items():
        (tmp_path / file).write_text(content)
    (tmp_path / "classes.yaml").unlink()
    with pytest.raises(ValueError, match=r"classes\.txt: stands beside classes\.json"):
        LabelSpace.load(tmp_path)


# --- in the commands


def folder_of(root: Path, file: str, ids: list[int]) -> Path:
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    (root / file).write_text(FORMS[file])
    for i in range(3):
        label = np.array(ids, np.uint8).repeat(48).reshape(len(ids) * 4, 12)
        Image.fromarray(label).save(root / "labels" / f"{i}.png")
        Image.new("RGB", (12, len(ids) * 4)).save(root / "images" / f"{i}.png")
    return root


@pytest.mark.parametrize("file", FORMS)
def test_a_folder_with_a_short_list_is_checked_and_converted(dpsims: Run, tmp_path: Path, file: str):
    folder = folder_of(tmp_path / "set", file, [0, 1, 2])
    code, out, _ = dpsims("data", "check", folder, "--sheet", tmp_path / "sheet.png")
    assert code == 0 and "road" in out and (tmp_path / "sheet.png").is_file()
    convert = ["data", "convert", folder / "labels", "--classes", folder / file, "--to", "colors"]
    assert dpsims(*convert, "--out", tmp_path / "rgb")[0] == 0
    space = LabelSpace.load(tmp_path / "rgb")  # with the colors written out
    assert space == LabelSpace.load(folder)
    rgb = np.array(Image.open(tmp_path / "rgb" / "0.png"))
    assert [tuple(c) for c in rgb[[0, 4, 8], 0].tolist()] == list(space.colors)


@pytest.mark.parametrize("file", FORMS)
def test_unlabeled_pixels_need_an_ignore_id_and_the_error_says_so(dpsims: Run, tmp_path: Path, file: str):
    folder = folder_of(tmp_path / "set", file, [0, 1, 255])
    code, out, _ = dpsims("data", "check", folder)
    assert code == 1 and '"ignore_id": 255' in out
    out = tmp_path / "out"
    result = dpsims("data", "convert", folder / "labels", "--classes", folder / file, "--out", out)
    check_refused(result, "label id 255", '"ignore_id": 255 in classes.json')


def test_rgb_maps_need_colors_and_the_error_says_so(dpsims: Run, tmp_path: Path):
    folder = folder_of(tmp_path / "set", "classes.txt", [0, 1])
    for file in (folder / "labels").iterdir():
        Image.new("RGB", (12, 8), (128, 64, 128)).save(file)
    code, out, _ = dpsims("data", "check", folder)
    assert code == 1 and 'add the "color" of each class' in out
