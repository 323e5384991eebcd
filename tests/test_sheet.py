"""The contact sheet of a data check."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.small_folders import SIZE, SPACE, make_folder, with_maps, write_pair

from dpsims.data import folder
from dpsims.data.check import check_data, contact_sheet


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
    with pytest.raises(ValueError, match="no good pair to show"):
        bad = with_maps(tmp_path / "b", [np.full(SIZE, 9, np.uint8)] * 5)
        contact_sheet(folder.scan(tmp_path / "b"), bad)
