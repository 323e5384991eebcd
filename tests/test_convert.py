"""Conversion of label maps: exact both ways, safe for what exists, and finished after a kill."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpsims.data.convert import Coding, convert_maps
from dpsims.data.files import read_codes, read_label
from dpsims.labels import LabelSpace
from tests.label_maps import FULL, GAPS, SPACE, WIDE, index_map, listed, write_maps

# --- codings


@pytest.mark.parametrize("space", [SPACE, GAPS, WIDE, FULL], ids=["plain", "gaps", "16 bits", "full"])
def test_there_and_back_is_exact(tmp_path: Path, space: LabelSpace):
    classes = 3 if space is FULL else 4
    files = write_maps(tmp_path / "maps", space, classes=classes)
    assert convert_maps(files, tmp_path / "colors", space, space, "colors") == 3
    colored = sorted((tmp_path / "colors").glob("*.png"))
    assert convert_maps(colored, tmp_path / "ids", space, space, "ids") == 3
    for i, file in enumerate(files):
        index = index_map(i, classes)
        codes = read_codes(tmp_path / "colors" / file.name)
        assert codes.palette is None and np.array_equal(codes.values, space.colorize(index))
        back = read_codes(tmp_path / "ids" / file.name)
        assert back.values.dtype == (np.uint16 if space is WIDE else np.uint8)
        assert np.array_equal(back.values, read_codes(file).values)
        assert np.array_equal(read_label(tmp_path / "ids" / file.name, space), index)
    for folder in ("colors", "ids"):
        assert listed(tmp_path / folder) == ["0.png", "1.png", "2.png", "classes.json", "convert.json"]
        assert LabelSpace.load(tmp_path / folder) == space
    assert listed(tmp_path) == ["colors", "ids", "maps"]


def test_maps_of_ids_show_the_colours_of_their_classes(tmp_path: Path):
    files = write_maps(tmp_path / "maps")
    convert_maps(files, tmp_path / "out", SPACE, GAPS)
    with Image.open(tmp_path / "out" / "0.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.array(image), np.array([3, 17, 201, 0])[index_map()])
        assert np.array_equal(np.array(image.convert("RGB")), GAPS.colorize(index_map()))


def test_classes_go_by_name_are_merged_and_dropped(tmp_path: Path):
    classes = [{"id": 5, "name": "Tree", "color": [1, 1, 1]}, {"id": 6, "name": "street", "color": [2, 2, 2]}]
    classes += [{"id": 8, "name": "road", "color": [3, 3, 3]}]
    target = LabelSpace.from_dict(
        {"ignore_id": 9, "classes": classes, "merge": {"ground": ["street", "road"]}}
    )
    files = write_maps(tmp_path / "maps")
    with pytest.raises(ValueError, match="no such class in the other label space: sky"):
        convert_maps(files, tmp_path / "out", SPACE, target)
    assert listed(tmp_path) == ["maps"]
    convert_maps(files, tmp_path / "out", SPACE, target, drop=True)
    assert np.array_equal(read_codes(tmp_path / "out" / "0.png").values, np.array([9, 6, 5, 9])[index_map()])
    assert LabelSpace.load(tmp_path / "out") == target
    lines = (tmp_path / "out" / "classes.json").read_text().splitlines()
    assert '  {"id": 8, "name": "road", "color": [3, 3, 3]}' in lines


def test_a_palette_of_another_order_is_read_as_told(tmp_path: Path):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    image.putpalette(np.array([SPACE.colors[2], SPACE.colors[0], SPACE.colors[1]], np.uint8).tobytes())
    image.save(tmp_path / "a.png")
    (tmp_path / "maps").mkdir()
    file = (tmp_path / "a.png").rename(tmp_path / "maps" / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: id 0 is sky, but its palette.*tree"):
        convert_maps([file], tmp_path / "no", SPACE, SPACE)
    cases: dict[Coding, list[int]] = {"ids": [0, 1, 2], "colors": [2, 0, 1]}
    for palette, ids in cases.items():
        convert_maps([file], tmp_path / palette, SPACE, SPACE, palette=palette)
        assert read_codes(tmp_path / palette / "a.png").values.tolist() == [ids]
        assert read_label(tmp_path / palette / "a.png", SPACE).tolist() == [ids]


def test_an_id_beyond_the_palette_is_named(tmp_path: Path):
    file = write_maps(tmp_path / "maps", count=1)[0]
    parts = [  # Pillow would fill the palette up
        (b"IHDR", struct.pack(">IIBBBBB", 3, 1, 8, 3, 0, 0, 0)),
        (b"PLTE", SPACE.palette.tobytes()),
        (b"IDAT", zlib.compress(bytes([0, 0, 1, 7]))),
        (b"IEND", b""),
    ]
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    with pytest.raises(ValueError, match=r"0\.png: id 7 has no colour in the file's palette"):
        convert_maps([file], tmp_path / "out", SPACE, SPACE, palette="colors")


# --- refusals, before anything is written


def test_what_cannot_be_coded_is_refused_before_the_start(tmp_path: Path):
    files = write_maps(tmp_path / "maps")
    same = LabelSpace(SPACE.names, (SPACE.colors[0], (90, 90, 90), SPACE.colors[0]), SPACE.ids, 255)
    black = LabelSpace(SPACE.names, ((0, 0, 0), (90, 90, 90), (1, 1, 1)), SPACE.ids, 255)
    part = LabelSpace(("sky", "road"), SPACE.colors[:2], (0, 1))
    out = tmp_path / "out"
    for target, drop, said in (
        (same, False, r"share a colour with others \(sky, tree\)"),
        (black, False, r"share a colour with others \(sky, unlabelled\)"),
        (part, True, "tree would become unlabelled, and the target classes have no ignore_id"),
    ):
        with pytest.raises(ValueError, match=said):
            convert_maps(files, out, SPACE, target, "colors", drop=drop)
    for bad, said in (
        ({"to": "colours"}, "^--to colours: use ids or colors$"),
        ({"palette": "rgb"}, "^--palette rgb: use ids or colors, or leave it out$"),
        ({"workers": 0}, "workers=0: use 1"),
    ):
        with pytest.raises(ValueError, match=said):
            convert_maps(files, out, SPACE, SPACE, **bad)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="no label maps given"):
        convert_maps([], out, SPACE, SPACE)
    with pytest.raises(ValueError, match=r"0\.png: same name as"):
        convert_maps([*files, *write_maps(tmp_path / "more")], out, SPACE, SPACE)
    with pytest.raises(ValueError, match=r"9\.png: No such file"):
        convert_maps([*files, tmp_path / "maps" / "9.png"], out, SPACE, SPACE)
    assert not out.exists()


def test_folders_of_others_are_never_touched(tmp_path: Path):
    files = write_maps(tmp_path / "maps")
    before = [file.read_bytes() for file in files]
    (tmp_path / "file").touch()
    (tmp_path / "empty.partial" / "maps").mkdir(parents=True)
    precious = tmp_path / "empty.partial" / "maps" / "mine.png"
    precious.touch()
    inside = write_maps(tmp_path / "deep.partial" / "maps")
    for source, out, said in (
        (files, "maps", "maps: exists; choose another"),
        (files, "file", "file: exists; choose another"),
        (files, "maps/new", "maps/new: lies in one place with the maps"),
        (files, "empty", "empty.partial: in the way"),
        (inside, "deep", "deep: lies in one place with the maps"),
    ):
        with pytest.raises(ValueError, match=said):
            convert_maps(source, tmp_path / out, SPACE, SPACE)
    assert [file.read_bytes() for file in files] == before and precious.exists() and inside[0].exists()
    (tmp_path / "free").mkdir()  # an empty folder is no loss
    assert convert_maps(files, tmp_path / "free", SPACE, SPACE) == 3
