"""Label spaces: ids, indices and colours, and what their errors say."""

import json
from typing import Any

import numpy as np
import pytest

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
    for part in (f"label id {bad} at row 1, column 2 (2 such pixels)", "7, 300, 2, unlabelled 255"):
        assert part in message


def test_an_unknown_colour_is_named_with_file_and_place():
    colored = SPACE.colorize(INDEX)
    colored[1, 3] = (1, 2, 3)
    with pytest.raises(ValueError, match=r"a\.png: colour \(1, 2, 3\) at row 1, column 3 \(1 such"):
        SPACE.decode_colors(colored, "a.png")


def test_a_colour_of_two_classes_is_refused():
    space = LabelSpace(("a", "b", "c"), ((1, 1, 1), (2, 2, 2), (1, 1, 1)), (0, 1, 2))
    with pytest.raises(ValueError, match=r"x\.png: .* a and c share the colour \(1, 1, 1\)"):
        space.decode_colors(np.full((1, 1, 3), 2, np.uint8), "x.png")


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
        ({"classes": [{"id": 0, "name": "a"}]}, "needs a whole id"),
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
