"""The contact sheet of a data check."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpsims.data import folder
from dpsims.data.check import check_data, check_shards, contact_sheet, shards_sheet
from dpsims.data.write_shards import write_shards
from dpsims.labels import LabelSpace
from tests.small_folders import SIZE, SPACE, make_folder, with_maps, write_pair

MAGENTA = (255, 0, 255)


def test_a_contact_sheet_shows_good_pairs_and_the_classes_in_them(tmp_path: Path):
    root = make_folder(tmp_path / "a", 0)
    for i in range(12):
        write_pair(root, str(i), np.full((20, 10), i % 2, np.uint8))  # sky or road, no tree
    Image.new("L", (1, 1)).save(root / "labels" / "3.png")
    layout = folder.scan(root)
    report = check_data(layout)
    sheet = contact_sheet(layout, report, 5)
    colors = {color for _, color in sheet.getcolors(1 << 24) or ()}
    assert {SPACE.colors[0], SPACE.colors[1], (99, 99, 99)} <= colors and SPACE.colors[2] not in colors
    assert sheet.width > 600 and contact_sheet(layout, report, 1).height < sheet.height
    with pytest.raises(ValueError, match="no pair to show"):
        root = make_folder(tmp_path / "b", 1)
        Image.new("L", (1, 1), 9).save(root / "labels" / "0.png")
        contact_sheet(folder.scan(root), check_data(folder.scan(root)))


def colors_of(sheet: Image.Image) -> set[tuple[int, ...]]:
    return {color for _, color in sheet.getcolors(1 << 24) or () if isinstance(color, tuple)}


def test_ids_of_no_class_are_magenta_and_their_pairs_are_shown(tmp_path: Path):
    one = np.full((500, 400), 1, np.uint8)
    one[7, 7] = 9  # of a pixel that shrinking would lose
    for name, ids in (("a", np.full(SIZE, 9, np.uint8)), ("b", one)):
        report = with_maps(tmp_path / name, [ids] * 5)
        assert not report.ok and MAGENTA in colors_of(contact_sheet(folder.scan(tmp_path / name), report))
    report = with_maps(tmp_path / "c", [np.full((2, 3, 3), 7, np.uint8)] * 5)
    assert MAGENTA in colors_of(contact_sheet(folder.scan(tmp_path / "c"), report))


def test_maps_are_in_pure_colours_and_unlabelled_is_hatched(tmp_path: Path):
    night = LabelSpace(("night",), ((0, 0, 0),), (0,), ignore_id=255, ignore_color=(0, 0, 0))
    maps = [np.full((160, 160), value, np.uint8) for value in (0, 255)] * 3
    report = with_maps(tmp_path / "a", maps, night)
    sheet = contact_sheet(folder.scan(tmp_path / "a"), report, 3)
    tiles = [np.array(sheet)[6 + 16 : 6 + 16 + 160, 6 + k * 496 + 324 :][:, :160] for k in range(3)]
    darks = sorted(float((tile == 0).all(-1).mean()) for tile in tiles)
    assert set(darks) <= {darks[0], 1.0} and 0.6 < darks[0] < 0.7  # a third of the unlabelled is lines


def test_a_sheet_of_shards_shows_the_same_pairs(tmp_path: Path):
    root = make_folder(tmp_path / "a", 20)
    layout = folder.scan(root)
    write_shards(layout, tmp_path / "shards", 5, None, 1)
    shards = check_shards(tmp_path / "shards", 1)
    same = shards_sheet(tmp_path / "shards", shards, 6)
    assert np.array_equal(np.array(same), np.array(contact_sheet(layout, check_data(layout), 6)))
    for path in (tmp_path / "shards").glob("*.tar"):
        path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(ValueError, match="no pair to show"):
        shards_sheet(tmp_path / "shards", check_shards(tmp_path / "shards", 1))
