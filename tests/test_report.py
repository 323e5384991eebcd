"""The report of a data check: what it leaves out, sums up and makes of unknown ids."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from tests.small_folders import SIZE, SPACE, check, ids_of, make_folder, with_maps

from dpsims.labels import LabelSpace


def test_a_report_as_plain_values_leaves_nothing_out(tmp_path: Path):
    root = make_folder(tmp_path / "a", 30)
    for i in range(25):
        Image.fromarray(np.full(SIZE, 100 + i, np.uint8)).save(root / "labels" / f"{i}.png")
    report = check(root)
    values = json.loads(json.dumps(report.to_dict()))
    assert len(values["problems"]) == len(values["unknown"]) == 25 and not values["ok"]
    assert values["problems"][24]["path"] == str(report.bad[24].path)
    assert values["classes"][-1] == {
        "id": 255, "name": "(unlabelled)", "pixels": int(report.pixels[-1]), "pictures": 5
    }  # fmt: skip
    assert values["sizes"] == [{"width": 16, "height": 12, "pairs": 5}]
    text = str(report)
    assert "  and 5 more; all are in --json FILE" in text and "\nand 5 more; all are in --json FILE" in text
    assert text.count("labels/") == 20 + 20  # of the files, and of the ids


def test_classes_that_hardly_occur_and_maps_without_labels_are_pointed_at(tmp_path: Path):
    common, rare = np.zeros((2, 2), np.uint8), np.array([[0, 1]], np.uint8)
    report = with_maps(tmp_path / "a", [common] * 101 + [rare])
    assert "never: tree\n" in str(report) and "rare (in fewer than 1% of the pictures): road (1)" in str(
        report
    )
    report = with_maps(tmp_path / "b", [np.full((2, 2), 255, np.uint8)] * 2 + [common] * 5)
    assert report.ok and "note: 2 label maps have unlabelled pixels only (labels/0.png, labels/1.png)" in str(
        report
    )
    assert "note: val has 1 pair; measuring takes 2" in str(report)  # of 7, one is set aside for each


def test_many_sizes_are_summed_up(tmp_path: Path):
    report = with_maps(tmp_path / "a", [np.zeros((2, 2 + i), np.uint8) for i in range(12)])
    assert "2 other sizes" in str(report) and "smallest 2 x 2, largest 13 x 2" in str(report)


# --- what it makes of unknown ids and colours


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
    assert "3 " in text and "-> " not in text  # a class more than listed: no shift would help


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


def test_smoothed_ids_that_are_all_known_are_noticed(tmp_path: Path):
    colors = tuple((i, 0, 0) for i in range(1, 9))
    eight = LabelSpace(tuple("abcdefgh"), colors, tuple(range(8)), 255)
    steps = np.arange(8, dtype=np.uint8).reshape(1, 8)
    assert "every class occurs in nearly every picture" in str(with_maps(tmp_path / "a", [steps] * 20, eight))
    some = [steps] * 19 + [steps[:, :7]]
    assert "every class" not in str(with_maps(tmp_path / "b", some, eight))
