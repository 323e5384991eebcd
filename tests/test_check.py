"""The data check: what it counts, what it names, and how it starts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpsims.data import folder
from dpsims.data.check import check_data, contact_sheet
from dpsims.data.files import read_label
from dpsims.data.pairs import Layout, Pair
from dpsims.labels import LabelSpace
from tests.small_folders import SIZE, SPACE, check, ids_of, make_folder, with_maps, write_pair

CAMVID = Path(__file__).resolve().parents[2] / "shared" / "data" / "camvid"


def test_a_good_folder_is_counted(tmp_path: Path):
    root = tmp_path / "a"
    for split in ("train", "val", "test"):
        make_folder(root, 0)
        for i in range(3):
            write_pair(root / split, f"{split}{i}", ids_of(i))
    write_pair(root / "train", "wide", ids_of(7, (8, 20)))
    report = check(root)
    assert report.ok and report.pairs == {"train": 4, "val": 3, "test": 3}
    assert report.sizes == {(12, 16): 9, (8, 20): 1} and report.good == 10
    maps = [read_label(path, SPACE) for path in root.glob("*/labels/*.png")]
    counts = np.array([np.bincount(label.ravel(), minlength=4) for label in maps])
    assert report.pixels.tolist() == counts.sum(0).tolist()
    assert report.pictures.tolist() == (counts > 0).sum(0).tolist()
    text = str(report)
    for line in (
        r"train +4",
        r"16 x 12 +9",
        r"0 +sky +\d\d\.\d+ +10",
        r"255 +\(unlabelled\)",
        r"no problems$",
    ):
        assert any(re.search(line, row) for row in text.splitlines()), line


def test_every_bad_file_is_named_once_and_the_rest_is_counted(tmp_path: Path):
    root = make_folder(tmp_path / "a")
    images, labels = root / "images", root / "labels"
    (images / "0.png").write_bytes((images / "0.png").read_bytes()[:45])
    ids = np.zeros(SIZE, np.uint8)
    ids[0, :5], ids[1, :2] = 77, 99
    Image.fromarray(ids).save(labels / "1.png")
    Image.fromarray(np.full((5, 5), 77, np.uint8)).save(labels / "2.png")  # bad in two ways
    (labels / "3.png").unlink()
    Image.new("RGB", (16, 12), (1, 2, 203)).save(labels / "4.png")
    Image.new("L", (16, 12)).save(labels / "5.png", "JPEG")
    report = check(root)
    assert not report.ok
    assert sorted(bad.path.relative_to(root).as_posix() for bad in report.bad) == [
        "images/0.png", "images/3.png", "labels/1.png", "labels/2.png", "labels/4.png", "labels/5.png"
    ]  # fmt: skip
    found = {code: (u.pixels, u.files, u.example.name, u.nearest) for code, u in report.unknown.items()}
    assert found == {
        "77": (30, 2, "1.png", ""), "99": (2, 1, "1.png", ""), "#0102cb": (192, 1, "4.png", "sky")
    }  # fmt: skip
    assert report.sizes == {SIZE: 2}
    lines = str(report).splitlines()
    assert lines[0].endswith("7 pairs, 5 of them bad (not in the figures below)")
    assert lines[-1] == "6 problems"
    at = lines.index("label maps that do not fit the classes (3):")
    assert "labels/1.png: label id 77 at row 0, column 0" in lines[at + 1]
    assert "labels/2.png: label id 77" in lines[at + 2] and "; also is 5x5 pixels" in lines[at + 2]
    assert "  labels/4.png: color (1, 2, 203)" in lines[at + 3]
    assert any("labels/5.png: is a JPEG" in line for line in lines)
    row = next(line for line in lines if line.startswith("#0102cb"))
    assert row.split() == ["#0102cb", "192", "1", "labels/4.png", "(nearly", "sky)"]


def test_a_set_with_nothing_to_train_on_is_refused(tmp_path: Path):
    assert "too few pairs" in str(check(make_folder(tmp_path / "a", 1)))
    empty = str(check(make_folder(tmp_path / "b", 0)))
    assert "images: missing" in empty and "labels: missing" in empty and empty.endswith("\n\n2 problems")


def test_files_in_another_coding_count_as_the_classes_that_are_loaded(tmp_path: Path):
    other = LabelSpace(("tree", "hill"), ((0, 1, 0), (0, 2, 0)), (7, 8), ignore_id=0)
    root = make_folder(tmp_path / "a", 0)
    write_pair(root, "0", np.array([[7, 7, 8, 0, 7, 9]], np.uint8))
    write_pair(root, "1", np.array([[7, 7, 8, 0]], np.uint8))
    pairs = [Pair(root / "images" / f"{i}.png", root / "labels" / f"{i}.png", str(i)) for i in range(2)]
    splits = {"train": pairs, "val": pairs[1:], "test": pairs[1:]}
    report = check_data(Layout(root, "both", SPACE, splits, file_space=other))
    assert report.pixels.tolist() == [0, 0, 6, 6]  # of the good map, three times
    assert list(report.unknown) == ["9"] and len(report.bad) == 1


def test_unknown_codes_that_are_kept_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dpsims.data.check._CODES_KEPT", 3)
    report = with_maps(tmp_path / "a", [np.full(SIZE, 100 + i, np.uint8) for i in range(5)])
    assert list(report.unknown) == ["100", "101", "102"] and report.unknown_left_out and len(report.bad) == 5


def test_a_report_is_the_same_over_several_processes(tmp_path: Path):
    root = make_folder(tmp_path / "a", 70)
    for i in (3, 40, 69):
        Image.fromarray(np.full(SIZE, 50 + i, np.uint8)).save(root / "labels" / f"{i}.png")
    one, two = check(root, 1), check(root, 2)
    assert str(one) == str(two) and one.to_dict() == two.to_dict() and len(one.bad) == 3


def test_check_and_convert_load_no_torch():
    code = (
        "import dpsims.data.check, dpsims.data.convert, sys; "
        "print([m for m in ('torch', 'torchvision', 'jaxtyping', 'yaml') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.skipif(not CAMVID.is_dir(), reason=f"{CAMVID} is not there")
def test_camvid_has_no_problems():
    layout = folder.scan(CAMVID)
    layout.splits = {split: pairs[:4] for split, pairs in layout.splits.items()}
    report = check_data(layout)
    assert report.ok and report.sizes == {(360, 480): 12}
    assert contact_sheet(layout, report, 3).width > 900


def test_maps_on_their_side_are_told_from_other_sizes(tmp_path: Path):
    root = make_folder(tmp_path / "a")
    Image.new("L", (12, 16)).save(root / "labels" / "0.png")
    picture = Image.new("RGB", (16, 12))
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by a quarter: 12 wide and 16 high
    (root / "images" / "1.png").unlink()
    picture.save(root / "images" / "1.jpg", exif=exif)
    Image.new("L", (16, 16)).save(root / "labels" / "2.png")
    reasons = {bad.path.name: bad.reason for bad in check(root).bad}
    assert sorted(reasons) == ["0.png", "1.png", "2.png"]
    assert reasons["0.png"].startswith("is 12x16 pixels, its picture ") and "resize" not in reasons["0.png"]
    assert "width and height are exchanged; turn the map, or drop the picture's EXIF" in reasons["1.png"]
    assert "resize the map" in reasons["2.png"]


def test_a_set_without_any_label_is_a_problem(tmp_path: Path):
    report = with_maps(tmp_path / "a", [np.full(SIZE, 255, np.uint8)] * 5)
    (bad,) = report.bad
    assert bad.path == tmp_path / "a" and "whether 255 should be the ignore_id" in bad.reason
    some = [np.full(SIZE, 255, np.uint8)] * 4 + [np.zeros(SIZE, np.uint8)]
    assert with_maps(tmp_path / "b", some).ok


def test_a_jpeg_beside_the_maps_is_a_map_that_cannot_be_read(tmp_path: Path):
    root = make_folder(tmp_path / "a")
    (root / "labels" / "3.png").rename(root / "labels" / "3.jpg")
    text = str(check(root))
    assert "label maps that cannot be read (1):\n  labels/3.jpg: is no PNG; JPEG changes ids" in text
    assert text.endswith("\n\n1 problem")
