"""Reading pictures and label maps: codings, and every way that a file can be bad."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpsims.data import files as files_module
from dpsims.data.files import list_maps, read_image, read_label
from dpsims.labels import LabelSpace

SPACE = LabelSpace(
    ("sky", "road", "tree"), ((0, 0, 200), (90, 90, 90), (0, 120, 0)), (0, 1, 2), ignore_id=255
)


def test_label_pngs_of_every_coding_read_alike(tmp_path: Path):
    index = np.array([[0, 1], [2, 3]])
    ids = SPACE.encode_ids(index)
    palette = Image.fromarray(ids)
    palette.putpalette(list(range(256)) * 3)
    wide = Image.fromarray(ids.astype(np.uint16))
    colored = Image.fromarray(SPACE.colorize(index))
    forms = {"grey": Image.fromarray(ids), "palette": palette, "wide": wide, "rgb": colored}
    forms["rgba"] = colored.convert("RGBA")
    for name, form in forms.items():
        form.save(tmp_path / f"{name}.png")
        label = read_label(tmp_path / f"{name}.png", SPACE)
        assert label.dtype == np.int64 and np.array_equal(label, index), name


def test_16_bit_ids_are_not_clipped(tmp_path: Path):
    space = LabelSpace(("a", "b"), ((0, 0, 0), (1, 1, 1)), (1, 60000))
    Image.fromarray(np.array([[1, 60000]], np.uint16)).save(tmp_path / "a.png")
    assert read_label(tmp_path / "a.png", space).tolist() == [[0, 1]]


def test_an_id_out_of_range_names_file_id_and_place(tmp_path: Path):
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 1, 77]], np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"a\.png: label id 77 at row 0, column 2"):
        read_label(path, SPACE)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "CMYK"])
def test_pictures_become_rgb(tmp_path: Path, mode: str):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new("RGB", (4, 3), "white").convert(mode).save(path)
    image = read_image(path)
    assert image.dtype == np.uint8 and image.shape == (3, 4, 3) and image.min() > 250


def test_a_picture_is_turned_upright(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn
    Image.new("RGB", (4, 3)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (4, 3, 3)


def test_bad_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole, cut = tmp_path / "whole.png", tmp_path / "cut.png"
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8)
    Image.fromarray(noise).save(whole)
    cut.write_bytes(whole.read_bytes()[:2000])
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(tmp_path / "deep.png")
    monkeypatch.setattr(files_module, "MAX_PIXELS", 40 * 40)
    Image.new("RGB", (41, 40)).save(tmp_path / "bomb.png")
    said = {"cut": "cut short", "text": "is not a", "empty": "is not a", "folder": "cannot be read"}
    said |= {"deep": "8 bits", "bomb": "1,600 pixels", "missing": "no such file"}
    assert read_image(whole).shape == (40, 40, 3)
    for name, reason in said.items():
        with pytest.raises(ValueError) as error:
            read_image(tmp_path / f"{name}.png")
        message = str(error.value)
        assert message.startswith(f"{tmp_path / name}.png: ") and reason in message and "\n" not in message


def test_a_truncated_label_map_is_an_error_and_never_half_a_map(tmp_path: Path):
    ids = np.random.default_rng(0).integers(0, 3, (20, 20)).astype(np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(ids).save(path)
    whole = path.read_bytes()
    for size in range(len(whole) - 12):  # the last 12 bytes are a mark without pixels
        path.write_bytes(whole[:size])
        try:
            assert np.array_equal(read_label(path, SPACE), ids), size  # only a checksum is missing
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
        else:
            assert size > len(whole) - 24


@pytest.mark.parametrize("side", [9_000, 12_000, 60_000])  # ours alone; Pillow warns; Pillow refuses
def test_the_header_alone_tells_a_decompression_bomb(tmp_path: Path, side: int):
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    path = tmp_path / "bomb.png"
    path.write_bytes(png + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    with pytest.raises(ValueError, match=r"bomb\.png: more than 64,000,000 pixels"):
        read_label(path, SPACE)


def make_maps(folder: Path, count: int) -> Path:
    folder.mkdir()
    for i in range(count):
        Image.new("L", (2, 2)).save(folder / f"{i}.png")
    return folder


def test_list_maps_takes_files_and_folders(tmp_path: Path):
    folder = make_maps(tmp_path / "a", 3)
    (folder / "._1.png").touch()
    (folder / "notes.txt").touch()
    first = folder / "0.png"
    assert [p.stem for p in list_maps([folder, first])] == ["0", "1", "2"]
    assert list_maps([str(first)]) == [first]


def test_list_maps_names_what_it_cannot_take(tmp_path: Path):
    folder, other = make_maps(tmp_path / "a", 1), make_maps(tmp_path / "b", 1)
    picture = folder / "0.jpg"
    picture.touch()
    for paths, said in [
        ([tmp_path], "no label maps"),
        ([tmp_path / "nowhere"], "no such file"),
        ([picture], "PNG"),
        ([folder / "0.png", other], "same name"),
        ([], "no label maps given"),
    ]:
        with pytest.raises(ValueError, match=said):
            list_maps(paths)


def palette_map(path: Path, ids: list[int], colors: dict[int, tuple[int, int, int]]) -> Path:
    image = Image.fromarray(np.array([ids], np.uint8)).convert("P")
    palette = np.zeros((256, 3), np.uint8)
    for i, color in colors.items():
        palette[i] = color
    image.putdata(ids)
    image.putpalette(palette.tobytes())
    image.save(path)
    return path


TWO = LabelSpace(("sky", "road"), ((0, 0, 200), (90, 90, 90)), (0, 1), ignore_id=255)


def test_a_palette_that_shows_other_classes_than_its_ids_is_refused(tmp_path: Path):
    swapped = palette_map(tmp_path / "swapped.png", [0, 1], {0: (90, 90, 90), 1: (0, 0, 200)})
    with pytest.raises(ValueError, match=r"swapped\.png: id 0 is sky, but .* colour of road; .*--palette"):
        read_label(swapped, TWO)
    no_id = palette_map(tmp_path / "no_id.png", [7, 7], {7: (90, 90, 90)})
    with pytest.raises(ValueError, match=r"no_id\.png: id 7 is no class, but .* colour of road"):
        read_label(no_id, TWO)


def test_a_palette_of_the_eye_is_not_looked_at(tmp_path: Path):
    own = {0: (0, 0, 200), 1: (90, 90, 90), 255: (0, 0, 0)}
    assert read_label(palette_map(tmp_path / "own.png", [0, 1, 255], own), TWO).tolist() == [[0, 1, 2]]
    other = palette_map(tmp_path / "other.png", [0, 1], {0: (90, 90, 90), 1: (1, 2, 3)})
    assert read_label(other, TWO).tolist() == [[0, 1]]
    grey = LabelSpace(("a", "b"), ((1, 1, 1), (0, 0, 0)), (0, 1), ignore_id=255)
    ramp = palette_map(tmp_path / "ramp.png", [0, 1], {i: (i, i, i) for i in range(256)})
    assert read_label(ramp, grey).tolist() == [[0, 1]]


def write_png(path: Path, depth: int, color: int, rows: list[bytes], width: int) -> Path:
    """A PNG of any depth, which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, color, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


@pytest.mark.parametrize(("depth", "row"), [(1, [1, 0, 1, 1]), (2, [0, 1, 2, 3]), (4, [0, 1, 9, 15])])
def test_grey_levels_of_few_bits_are_ids(tmp_path: Path, depth: int, row: list[int]):
    packed = sum(value << (depth * (3 - i)) for i, value in enumerate(row))
    bits = 4 * depth
    file = write_png(
        tmp_path / "a.png", depth, 0, [(packed << (-bits % 8)).to_bytes((bits + 7) // 8, "big")], 4
    )
    space = LabelSpace(tuple(map(str, range(16))), tuple((i, i, i) for i in range(16)), tuple(range(16)))
    assert read_label(file, space).tolist() == [row]


def test_colours_of_16_bits_are_refused(tmp_path: Path):
    file = write_png(tmp_path / "a.png", 16, 2, [bytes([1, 128, 0, 1, 0, 255])], 1)
    with pytest.raises(ValueError, match=r"a\.png: pixels of kind"):
        read_label(file, TWO)
    with pytest.raises(ValueError, match=r"a\.png: pixels of kind .* 8 bits"):
        read_image(file)


def test_maps_of_cityscapes_other_coding_are_refused_by_their_name(tmp_path: Path):
    file = tmp_path / "x_gtFine_labelIds.png"
    Image.fromarray(np.array([[7, 11, 17]], np.uint8)).save(file)  # as train ids: other classes
    assert read_label(file, LabelSpace.named("cityscapes")).tolist() == [[6, 10, 16]]
    with pytest.raises(ValueError, match=r"labelIds\.png: by its name .* dpsims data convert"):
        read_label(file, LabelSpace.named("cityscapes_trainids"))
