"""The report of a data check: what it leaves out, sums up and makes of unknown ids."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from PIL import Image

from dpsims.labels import LabelSpace
from tests.small_folders import SIZE, SPACE, check, ids_of, make_folder, with_maps


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
    assert " and 20 more; all are in --json FILE)" in text and "\nand 5 more; all are in --json FILE" in text
    assert text.count("labels/") == 5 + 20  # of the files, and of the ids


def test_classes_that_hardly_occur_and_maps_without_labels_are_pointed_at(tmp_path: Path):
    common, rare = np.zeros((2, 2), np.uint8), np.array([[0, 1]], np.uint8)
    report = with_maps(tmp_path / "a", [common] * 101 + [rare])
    assert "never: tree\n" in str(report) and "rare (in fewer than 1% of the pictures): road (1)" in str(
        report
    )
    report = with_maps(tmp_path / "b", [np.full((2, 2), 255, np.uint8)] * 2 + [common] * 5)
    note = "note: 2 label maps have no labelled pixel (no score counts them): labels/0.png, labels/1.png"
    assert report.ok and note in str(report)
    assert "note: val has 1 pair; measuring takes 2" in str(report)  # of 7, one is set aside for each


def test_many_sizes_are_summed_up(tmp_path: Path):
    report = with_maps(tmp_path / "a", [np.zeros((2, 2 + i), np.uint8) for i in range(12)])
    assert "2 other sizes" in str(report) and "smallest 2 x 2, largest 13 x 2" in str(report)


def test_smoothed_ids_that_are_all_known_are_noticed(tmp_path: Path):
    colors = tuple((i, 0, 0) for i in range(1, 9))
    eight = LabelSpace(tuple("abcdefgh"), colors, tuple(range(8)), 255)
    steps = np.arange(8, dtype=np.uint8).reshape(1, 8)
    assert "every class occurs in nearly every picture" in str(with_maps(tmp_path / "a", [steps] * 20, eight))
    some = [steps] * 19 + [steps[:, :7]]
    assert "every class" not in str(with_maps(tmp_path / "b", some, eight))


# --- files that fail alike


def test_files_that_fail_alike_share_a_line(tmp_path: Path):
    text = str(
        with_maps(tmp_path / "a", [np.full(SIZE, 7, np.uint8), *[ids_of(i) + np.uint8(1) for i in range(23)]])
    )
    (line,) = [line for line in text.splitlines() if "is not in the label space" in line]
    assert re.match(
        r"  label id [37], [37] in 24 maps: is not in the label space \(0..2, unlabelled 255\)", line
    )
    assert line.endswith("labels/11.png, labels/12.png and 19 more; all are in --json FILE)"), line
    root = make_folder(tmp_path / "b", 12)
    for i in range(6):
        (root / "labels" / f"{i}.png").unlink()
        Image.new("L", (16, 13)).save(root / "labels" / f"{i + 6}.png")
    text = str(check(root))
    assert "  6 files, each: has no label map in" in text and "(images/0.png, images/1.png, " in text
    assert "  6 files, each: is 16x13 pixels, but its picture is 16x12; resize" in text
    (root / "labels" / "6.png").unlink()
    assert "labels/7.png: is 16x13 pixels, but its picture " in str(check(root))  # of five, each has its line


def test_classes_of_nearly_the_same_colour_are_pointed_at(tmp_path: Path):
    alike = LabelSpace(SPACE.names, ((0, 0, 200), (9, 0, 190), (0, 10, 5)), SPACE.ids, ignore_id=255)
    maps = [np.zeros((2, 2), np.uint8)] * 6
    report = with_maps(tmp_path / "a", maps, alike)
    assert report.ok and "same colour: sky and road, tree and unlabelled;" in str(report)
    every = LabelSpace(alike.names, alike.colors, alike.ids)  # black is nobody's here
    assert "same colour: sky and road;" in str(with_maps(tmp_path / "b", maps, every))
    assert "same colour" not in str(with_maps(tmp_path / "c", maps))
