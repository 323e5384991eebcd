"""What the data check makes of ids and colours that no class has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpsims.labels import Color, LabelSpace
from tests.small_folders import SPACE, check, ids_of, make_folder, with_maps

EIGHT = tuple(f"c{i}" for i in range(8))
COLORS = tuple((20 * i + 10, 30, 200 - 20 * i) for i in range(8))


def space_of(*ids: int, ignore_id: int | None = 255, ignore_color: Color = (0, 0, 0)) -> LabelSpace:
    return LabelSpace(EIGHT[: len(ids)], COLORS[: len(ids)], ids, ignore_id, ignore_color)


def hints_of(root: Path, space: LabelSpace, *maps: np.ndarray | list[int]) -> list[str]:
    """What is said of these maps; a list is a map of one row of ids."""
    arrays = [
        np.array([ids], np.uint16 if max(ids) > 255 else np.uint8) if isinstance(ids, list) else ids
        for ids in maps
    ]
    return with_maps(root, arrays, space).hints()


def test_ids_shifted_by_one_are_recognised(tmp_path: Path):
    up = np.arange(1, 4, dtype=np.uint8).reshape(1, 3)
    text = str(with_maps(tmp_path / "a", [up] * 5))
    assert "-> the maps' ids lie one above those of the class list" in text
    base = LabelSpace(SPACE.names, SPACE.colors, (1, 2, 3), 255)
    text = str(with_maps(tmp_path / "b", [up - 1] * 5, base))
    assert "-> the maps' ids lie one below those of the class list" in text
    last = LabelSpace(SPACE.names, SPACE.colors, SPACE.ids, ignore_id=3)
    assert "lie one above" in str(with_maps(tmp_path / "d", [np.array([[1, 2, 3, 4]], np.uint8)] * 5, last))
    everything = np.arange(0, 4, dtype=np.uint8).reshape(1, 4)
    text = str(with_maps(tmp_path / "c", [everything] * 5))
    assert "-> either the class list lacks a class, or 0 is unlabelled" in text and "lie one" not in text


def test_another_unlabelled_id_is_recognised(tmp_path: Path):
    eleven = LabelSpace(SPACE.names, SPACE.colors, SPACE.ids, ignore_id=11)
    text = str(with_maps(tmp_path / "a", [np.array([[0, 1, 2, 255]], np.uint8)] * 5, eleven))
    assert (
        "-> 255 is unlabelled in many sets; if it is here, set ignore_id to 255" in text
        and "(now 11)" in text
    )
    base = LabelSpace(SPACE.names, SPACE.colors, (1, 2, 3))
    text = str(with_maps(tmp_path / "b", [np.array([[0, 1, 2, 3]], np.uint8)] * 5, base))
    assert "-> 0 is unlabelled" in text and "(now none)" in text and text.count("-> ") == 1


def test_smoothed_maps_are_recognised(tmp_path: Path):
    colored = Image.fromarray(SPACE.colorize(SPACE.decode_ids(ids_of(1)))).resize((64, 48))
    root = make_folder(tmp_path / "a")
    colored.save(root / "labels" / "1.png")
    report = check(root)
    assert report.unknown_left_out and len(report.unknown) == 200  # of one file
    assert "more than 200 colours that no class has: the maps were resized with smoothing" in str(report)
    grey = Image.fromarray(ids_of(1)).resize((64, 48), Image.Resampling.BICUBIC)
    root = make_folder(tmp_path / "b")
    grey.save(root / "labels" / "1.png")
    assert "ids that no class has: maps that were resized with smoothing" in str(check(root))


@pytest.mark.parametrize(
    ("space", "ids", "said"),
    [
        (space_of(*range(8)), list(range(1, 9)), "lie one above"),  # all of them, and no id is unlabelled
        (space_of(*range(8), ignore_id=8), list(range(1, 10)), "lie one above"),
        (space_of(*range(8)), [*range(100, 108), 255], "lie 100 above"),
        (space_of(*range(10, 18)), list(range(1, 9)), "lie 9 below"),
        (space_of(0, 7, 11, 12, 20), [0, 1, 2, 3, 4, 255], "order of the classes? Then list them as 0..4"),
        (space_of(3, 7, 11, 12, 20), [1, 2, 3, 4, 5], "as 1..5"),
        (space_of(0, 7, 11), [0, 7 * 257, 11 * 257, 65535], "stretched to 16 bits; divide by 257"),
        (space_of(0, 1, ignore_id=None), [0, 255], "give c1 the id 255"),
        (space_of(0, 50, 100), [0, 1, 3, 48, 51, 52, 99, 100], "between those of classes or near: maps"),
    ],
)  # fmt: skip
def test_common_numberings_are_recognised(tmp_path: Path, space: LabelSpace, ids: list[int], said: str):
    (hint,) = hints_of(tmp_path / "a", space, *[ids] * 5)
    assert said in hint, hint


def test_few_unknown_ids_of_one_map_look_smoothed_and_those_of_all_maps_do_not(tmp_path: Path):
    good, smoothed = [0, 1, 2, 255], [0, 1, 2, 17, 60, 128, 190, 240, 255]
    (hint,) = hints_of(tmp_path / "a", SPACE, *[good] * 5, smoothed)
    assert hint.startswith("5 ids that no class has, in between those of classes")
    assert hints_of(tmp_path / "b", SPACE, *[smoothed] * 5) == []  # five classes that the list lacks
    ten = space_of(*range(8), ignore_id=8)
    (hint,) = hints_of(tmp_path / "d", ten, *[list(range(9))] * 5, list(range(13)))  # JPEG overshoots
    assert hint.startswith("4 ids that no class has")
    assert hints_of(tmp_path / "c", SPACE, *[good] * 5, [0, 1, 2, 17]) == []


def test_ids_that_many_shifts_would_fit_are_not_explained(tmp_path: Path):
    assert hints_of(tmp_path / "a", space_of(*range(8)), *[[20, 21, 23]] * 5) == []


def in_colors(colors: list[Color]) -> np.ndarray:
    """A map of one row."""
    return np.array([colors], np.uint8)


def test_common_colour_codings_are_recognised(tmp_path: Path):
    greys: list[Color] = [(i, i, i) for i in range(8)]
    (hint,) = hints_of(tmp_path / "a", space_of(*range(8)), *[in_colors(greys)] * 5)
    assert "save them as grey, not RGB" in hint
    swapped = [(b, g, r) for r, g, b in SPACE.colors]  # the first one shows it, grey and green stay
    (hint,) = hints_of(tmp_path / "b", SPACE, *[in_colors([*swapped, (0, 0, 0)])] * 5)
    assert "saved as BGR (OpenCV)" in hint
    white = in_colors([*SPACE.colors, (255, 255, 255)])
    (hint,) = hints_of(tmp_path / "c", SPACE, *[white] * 5)
    assert "set ignore_color: [255, 255, 255] in the class list" in hint
    two = hints_of(tmp_path / "d", SPACE, *[in_colors([*swapped, (255, 255, 255)])] * 5)
    assert [("BGR" in hint, "white" in hint) for hint in two] == [(True, False), (False, True)]
    black = in_colors([*SPACE.colors, (0, 0, 0)])
    every = LabelSpace(SPACE.names, SPACE.colors, SPACE.ids)
    (hint,) = hints_of(tmp_path / "e", every, *[black] * 5)
    assert "ignore_color: [0, 0, 0] and an ignore_id" in hint
    assert hints_of(tmp_path / "f", SPACE, *[in_colors([*SPACE.colors, (1, 222, 33)])] * 5) == []


def test_few_colours_of_one_map_or_near_the_classes_look_like_jpeg(tmp_path: Path):
    rng = np.random.default_rng(0)
    others = [tuple(rng.integers(0, 256, 3).tolist()) for _ in range(6)]
    good = in_colors(list(SPACE.colors))
    (hint,) = hints_of(tmp_path / "a", SPACE, *[good] * 5, in_colors(others))
    assert hint.startswith("6 colours that no class has") and "saved as JPEG" in hint
    assert hints_of(tmp_path / "b", SPACE, *[in_colors(others)] * 5) == []
    near: list[Color] = [(i, 0, 200) for i in range(1, 7)]
    (hint,) = hints_of(tmp_path / "c", SPACE, *[in_colors(near)] * 5)
    assert hint.startswith("6 colours")
