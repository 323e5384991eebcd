"""Label spaces: ids, indices and colours, and what their errors say."""

import json
from typing import Any

import numpy as np
import pytest
import yaml

from dpsims.labels import LabelSpace

SPACE = LabelSpace(
    names=("sky", "road", "tree"),
    colors=((0, 0, 200), (90, 90, 90), (0, 120, 0)),
    ids=(7, 300, 2),  # neither in order nor contiguous, and one beyond 8 bits
    ignore_id=255,
    ignore_color=(0, 0, 0),
)
INDEX = np.array([[0, 1, 2, 3], [3, 2, 1, 0]])


def test_ids_to_indices_and_back():
    ids = np.array([[7, 300, 2, 255], [255, 2, 300, 7]], dtype=np.uint16)
    index = SPACE.decode_ids(ids)
    assert index.dtype == np.int64
    assert np.array_equal(index, INDEX)
    assert np.array_equal(SPACE.encode_ids(index), ids)
    assert SPACE.encode_ids(index).dtype == np.uint16


def test_small_ids_are_written_with_8_bits():
    space = LabelSpace(("a", "b"), ((1, 1, 1), (2, 2, 2)), (0, 1))
    assert space.encode_ids(np.array([[0, 1]])).dtype == np.uint8


def test_colours_to_indices_and_back():
    colored = SPACE.colorize(INDEX)
    assert colored.dtype == np.uint8 and colored.shape == (2, 4, 3)
    assert tuple(colored[0, 3]) == (0, 0, 0)
    assert np.array_equal(SPACE.decode_colors(colored), INDEX)


def test_unlabelled_is_index_k_with_and_without_an_id_for_it():
    assert SPACE.ignore_index == SPACE.num_classes == 3
    space = LabelSpace(("a", "b"), ((1, 1, 1), (2, 2, 2)), (0, 1))
    assert space.ignore_index == 2
    with pytest.raises(ValueError, match="no ignore_id"):
        space.encode_ids(np.array([[0, 2]]))


@pytest.mark.parametrize(("bad", "dtype"), [(9, np.uint8), (-1, np.int32), (70000, np.int32)])
def test_an_unknown_id_is_named_with_file_place_count_and_the_allowed_ones(bad: int, dtype: type):
    ids = np.full((3, 4), 7, dtype=dtype)
    ids[1, 2] = ids[2, 3] = bad
    with pytest.raises(ValueError) as error:
        SPACE.decode_ids(ids, "maps/a.png")
    message = str(error.value)
    assert message.startswith("maps/a.png: ")
    for part in (f"label id {bad} at row 1, column 2 (2 such pixels)", "2, 7, 300, unlabelled 255"):
        assert part in message


def test_an_unknown_colour_is_named_with_file_and_place():
    colored = SPACE.colorize(INDEX)
    colored[1, 3] = (1, 2, 3)
    with pytest.raises(ValueError, match=r"a\.png: color \(1, 2, 3\) at row 1, column 3 \(1 such"):
        SPACE.decode_colors(colored, "a.png")


def test_a_colour_of_two_classes_is_refused():
    space = LabelSpace(("a", "b", "c"), ((1, 1, 1), (2, 2, 2), (1, 1, 1)), (0, 1, 2))
    with pytest.raises(ValueError, match=r"x\.png: a and c share the colour \(1, 1, 1\), seen at row 0"):
        space.decode_colors(np.full((1, 1, 3), 1, np.uint8), "x.png")
    assert space.decode_colors(np.full((1, 1, 3), 2, np.uint8)).tolist() == [[1]]  # not the shared one


def test_classes_json_round_trip(tmp_path: Any):
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(SPACE.to_dict()), encoding="utf-8")
    assert LabelSpace.load(path) == SPACE


def test_the_unlabelled_class_may_be_listed():
    listed = [
        {"id": 0, "name": "void", "color": [9, 9, 9]},
        {"id": 1, "name": "a", "color": [1, 2, 3]},
        {"id": 2, "name": "b", "color": [4, 5, 6]},
    ]
    space = LabelSpace.from_dict({"ignore_id": 0, "classes": listed})
    assert (space.names, space.ids, space.ignore_color) == (("a", "b"), (1, 2), (9, 9, 9))
    assert space.decode_ids(np.array([[0, 1, 2]])).tolist() == [[2, 0, 1]]
    everything = LabelSpace.from_dict({"ignore_id": None, "classes": listed})
    assert everything.num_classes == 3 and everything.ignore_id is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"classes": []}, "no class besides"),
        ({"classes": None}, "give"),
        ({"classes": [{"id": 0, "color": [0, 0, 0]}]}, "needs a name"),
        ({"classes": [{"id": 70000, "name": "a", "color": [0, 0, 0]}]}, "70000"),
        ({"classes": [{"id": 0, "name": "a", "color": [0, 0, 0]}] * 2}, "unique"),
        ({"classes": [{"id": 0, "name": "a", "color": [0, 0, 256]}]}, "class a: color"),
        ({"classes": [{"id": 0, "name": "a", "color": "red"}]}, "class a: color 'red'"),
        ({"ignore_id": "eleven"}, "ignore_id='eleven'"),
        ({"ignore_color": [0, 0]}, "ignore_color"),
    ],
)
def test_a_malformed_classes_json_is_refused(change: dict[str, Any], said: str):
    with pytest.raises(ValueError) as error:
        LabelSpace.from_dict({**SPACE.to_dict(), **change}, "my/classes.json")
    assert str(error.value).startswith("my/classes.json: ") and said in str(error.value)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", None])
def test_an_unreadable_classes_json_is_named(tmp_path: Any, content: bytes | None):
    path = tmp_path / "classes.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"classes\.json: "):
        LabelSpace.load(path)


def test_without_an_ignore_id_the_unlabelled_colour_is_no_class():
    space = LabelSpace(("sky",), ((0, 0, 255),), (0,), ignore_id=None)
    with pytest.raises(ValueError, match="belongs to no class"):
        space.decode_colors(np.zeros((2, 2, 3), np.uint8))


TRAFFIC: dict[str, Any] = {
    "ignore_id": 255,
    "classes": [
        {"id": 4, "name": "road", "color": [90, 90, 90]},
        {"id": 9, "name": "truck", "color": [0, 0, 70]},
        {"id": 7, "name": "car", "color": [0, 0, 140]},
        {"id": 8, "name": "ego", "color": [1, 1, 1]},
        {"id": None, "name": "hood", "color": [2, 2, 2]},
    ],
    "merge": {"car": ["car", "truck"]},
    "ignore": ["ego", "Hood"],
}


def test_merged_and_ignored_classes():
    space = LabelSpace.from_dict(TRAFFIC)
    assert (space.names, space.ids) == (("road", "car"), (4, 7))  # the class that gives the name gives the id
    ids = np.array([[4, 9, 7, 8, 255]], np.uint8)
    index = space.decode_ids(ids)
    assert index.tolist() == [[0, 1, 1, 2, 2]]
    assert space.encode_ids(index).tolist() == [[4, 7, 7, 255, 255]]
    colors = np.array([[[90, 90, 90], [0, 0, 70], [0, 0, 140], [1, 1, 1], [2, 2, 2], [0, 0, 0]]], np.uint8)
    assert space.decode_colors(colors).tolist() == [[0, 1, 1, 2, 2, 2]]
    assert LabelSpace.from_dict(space.to_dict()) == space
    with pytest.raises(ValueError, match=r"label id 5 .*\(4, 7\.\.9, unlabelled 255\)"):
        space.decode_ids(np.array([[5]]))


def test_a_merged_class_may_have_a_name_of_its_own():
    space = LabelSpace.from_dict({**TRAFFIC, "merge": {"vehicle": ["car", "truck"]}})
    assert (space.names, space.ids) == (("road", "vehicle"), (4, 9))  # of its first member in the file
    assert LabelSpace.from_dict(space.to_dict()) == space
    # by name, all its members lead to it: also the one that gave it its id
    plain = LabelSpace(("car", "road", "truck"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)), (0, 1, 2))
    for target in (space, LabelSpace.from_dict(space.to_dict())):
        assert plain.table_to(target).tolist() == [1, 0, 1, 2]


def test_evaluation_counts_some_classes_in_its_own_order():
    space = LabelSpace.from_dict({**TRAFFIC, "evaluate": ["Car"]})
    assert space.evaluation.names == ("car",)
    assert space.evaluation_table.tolist() == [1, 0, 1]
    assert LabelSpace.from_dict(space.to_dict()) == space
    assert SPACE.evaluation is SPACE and SPACE.evaluation_table.tolist() == [0, 1, 2, 3]


def test_from_one_label_space_to_another():
    fine = LabelSpace(("Truck", "bike", "ROAD"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)), (0, 1, 2))
    coarse = LabelSpace.from_dict(TRAFFIC)
    with pytest.raises(ValueError, match="no such class in the other label space: bike"):
        fine.table_to(coarse)
    assert fine.table_to(coarse, drop=True).tolist() == [1, 2, 0, 2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"merge": ["car"]}, "merge should look like"),
        ({"merge": {"car": ["car", "lorry"]}}, "merge car: lorry is no class"),
        ({"merge": {"car": ["car"], "road": ["road", "car"]}}, "car is listed twice"),
        ({"merge": {"road": ["car", "truck"]}}, "road is a class of its own"),
        ({"merge": {"car": ["car", "ego"]}}, "ego stands under both"),
        ({"ignore": "ego"}, "ignore: should be a list"),
        ({"ignore": ["ego", "hood", "lorry"]}, "ignore: lorry is no class"),
        ({"evaluate": ["truck"]}, "evaluate: truck is no class; there are road, car"),
        ({"evaluate": ["car", "CAR"]}, "names a class twice"),
        ({"ignore": []}, "class id None (hood)"),
        ({"ignored": ["ego"]}, "unknown field ignored; did you mean ignore?"),
        ({"evaluat": ["car"]}, "unknown field evaluat; did you mean evaluate?"),
        ({"classes": [{"id": 1, "name": False, "color": [1, 1, 1]}]}, "class name False is no text"),
    ],
)
def test_malformed_merges_are_refused(change: dict[str, Any], said: str):
    with pytest.raises(ValueError) as error:
        LabelSpace.from_dict({**TRAFFIC, **change}, "my.yaml")
    assert str(error.value).startswith("my.yaml: ") and said in str(error.value)


def test_yaml_json_and_a_folder_give_the_same_space(tmp_path: Any):
    (tmp_path / "classes.yaml").write_text(yaml.safe_dump(TRAFFIC))
    space = LabelSpace.from_dict(TRAFFIC)
    assert LabelSpace.load(tmp_path / "classes.yaml") == LabelSpace.load(tmp_path) == space
    (tmp_path / "classes.json").write_text(json.dumps(TRAFFIC))
    with pytest.raises(ValueError, match="stands beside classes.json"):
        LabelSpace.load(tmp_path)
    (tmp_path / "bad.yaml").write_text("classes: [")
    with pytest.raises(ValueError, match=r"bad\.yaml: is not YAML"):
        LabelSpace.load(tmp_path / "bad.yaml")


def test_the_unlabelled_class_may_be_ignored_by_name_and_other_fields_are_the_users():
    void = {"id": 255, "name": "void", "color": [0, 0, 0]}
    values = {**TRAFFIC, "classes": [*TRAFFIC["classes"], void], "ignore": ["ego", "hood", "void"]}
    assert LabelSpace.from_dict({**values, "statistics": {}}) == LabelSpace.from_dict(TRAFFIC)


def test_a_date_that_is_none_is_named_with_its_file(tmp_path: Any):
    (tmp_path / "bad.yaml").write_text("classes: [{id: 0, name: 2026-13-45, color: [0, 0, 0]}]")
    with pytest.raises(ValueError, match=r"bad\.yaml: is not YAML"):
        LabelSpace.load(tmp_path / "bad.yaml")
