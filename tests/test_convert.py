"""Conversion of label maps: exact both ways, safe for what exists, and finished after a kill."""

import errno
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from dpsims.data.convert import Coding, convert_maps
from dpsims.data.files import read_codes, read_label
from dpsims.labels import LabelSpace

SPACE = LabelSpace(
    ("sky", "road", "tree"), ((0, 0, 200), (90, 90, 90), (0, 120, 0)), (0, 1, 2), ignore_id=255
)
GAPS = LabelSpace(SPACE.names, SPACE.colors, (3, 17, 201), ignore_id=0, ignore_color=(9, 9, 9))
WIDE = LabelSpace(SPACE.names, SPACE.colors, (0, 256, 60000), ignore_id=65535)
FULL = LabelSpace(SPACE.names, SPACE.colors, SPACE.ids)  # no pixel may be unlabelled


def index_map(seed: int = 0, classes: int = 4, size: tuple[int, int] = (9, 14)) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.arange(size[0] * size[1]) % classes).reshape(size)


def write_maps(folder: Path, space: LabelSpace = SPACE, count: int = 3, classes: int = 4) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{i}.png" for i in range(count)]
    for i, file in enumerate(files):
        Image.fromarray(space.encode_ids(index_map(i, classes))).save(file)
    return files


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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


# --- stopped, and gone on with


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.png")}


def test_after_a_bad_file_the_same_call_goes_on(tmp_path: Path):
    files, out = write_maps(tmp_path / "maps"), tmp_path / "out"
    good = files[2].read_bytes()
    files[2].write_bytes(good[:30])
    with pytest.raises(
        ValueError, match=r"2\.png: .*run the same command again: what is done .*out\.partial"
    ):
        convert_maps(files, out, SPACE, SPACE)
    assert not out.exists()
    done = times(tmp_path / "out.partial" / "maps")
    assert [*sorted(done)] == ["0.png", "1.png"]
    files[2].write_bytes(good)
    Image.fromarray(SPACE.encode_ids(index_map(7))).save(files[1])  # it has changed: made anew
    convert_maps(files, out, SPACE, SPACE)
    assert times(out)["0.png"] == done["0.png"]
    assert np.array_equal(read_label(out / "1.png", SPACE), index_map(7))
    assert listed(tmp_path) == ["maps", "out"]


def test_the_same_call_finds_nothing_to_do_and_another_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    files, out = write_maps(tmp_path / "maps"), tmp_path / "out"
    assert convert_maps(files, out, SPACE, SPACE, "colors") == 3
    assert capsys.readouterr() == ("", "")
    before = {path.name: path.stat() for path in out.iterdir()}
    (tmp_path / "out.partial").mkdir()  # as a kill before the very last step leaves it
    (tmp_path / "out.partial" / "convert.json").write_bytes((out / "convert.json").read_bytes())
    for _ in range(2):
        assert convert_maps(files, out, SPACE, SPACE, "colors") == 3
        assert capsys.readouterr().err == f"{out}: already complete\n"
        assert {path.name: path.stat() for path in out.iterdir()} == before
        assert listed(tmp_path) == ["maps", "out"]
    refused = "out: exists, made of other files or with other options; choose another folder, or remove it"
    jobs: list[tuple[list[Path], LabelSpace, Coding]]
    jobs = [(files, SPACE, "ids"), (files[:2], SPACE, "colors"), (files, GAPS, "colors")]
    for other, space, to in jobs:
        with pytest.raises(ValueError, match=refused):
            convert_maps(other, out, SPACE, space, to)
    os.utime(files[1], ns=(1, 1))  # changed, for all that one can tell
    with pytest.raises(ValueError, match=refused):
        convert_maps(files, out, SPACE, SPACE, "colors")
    assert {path.name: path.stat() for path in out.iterdir()} == before
    assert listed(tmp_path) == ["maps", "out"]


def test_a_result_from_which_something_was_removed_is_not_complete(tmp_path: Path):
    files, out = write_maps(tmp_path / "maps"), tmp_path / "out"
    convert_maps(files, out, SPACE, SPACE)
    (out / "1.png").unlink()
    with pytest.raises(ValueError, match="out: exists"):
        convert_maps(files, out, SPACE, SPACE)


def test_other_settings_start_afresh(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    files, out = write_maps(tmp_path / "maps"), tmp_path / "out"
    (tmp_path / "maps" / "bad.png").touch()
    with pytest.raises(ValueError, match="bad.png"):
        convert_maps([*files, tmp_path / "maps" / "bad.png"], out, SPACE, SPACE, "colors")
    assert not capsys.readouterr().err
    convert_maps(files[:2], out, SPACE, SPACE, "ids")
    said = f"{out}.partial: 3 maps of a stopped conversion of other files or options: removed\n"
    assert capsys.readouterr().err == said
    assert listed(out) == ["0.png", "1.png", "classes.json", "convert.json"]
    assert [read_codes(out / name).palette is None for name in ("0.png", "1.png")] == [False, False]


def test_unlabelled_pixels_without_a_code_are_named(tmp_path: Path):
    files = write_maps(tmp_path / "maps")
    with pytest.raises(ValueError, match=r"0\.png: unlabelled at row 0, column \d+, .* have no ignore_id"):
        convert_maps(files, tmp_path / "out", SPACE, FULL)


def test_a_full_disk_is_told_and_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files, out = write_maps(tmp_path / "maps"), tmp_path / "out"

    def full(path: Path, _: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(ValueError, match=r"out: the disk is full; make room, then run the same command"):
            convert_maps(files, out, SPACE, SPACE)
    assert convert_maps(files, out, SPACE, SPACE) == 3 and listed(tmp_path) == ["maps", "out"]


def test_two_at_once_do_not_mix(tmp_path: Path):
    files = write_maps(tmp_path / "maps")
    (tmp_path / "out.partial").mkdir()
    with (
        FileLock(tmp_path / "out.partial" / "lock"),
        pytest.raises(ValueError, match="out.partial: another `dpsims data convert` works there"),
    ):
        convert_maps(files, tmp_path / "out", SPACE, SPACE)
    assert convert_maps(files, tmp_path / "out", SPACE, SPACE) == 3


COMMAND = """
import sys
from pathlib import Path
from dpsims.data.convert import convert_maps
from dpsims.labels import LabelSpace
if __name__ == "__main__":
    maps, out = map(Path, sys.argv[1:])
    space = LabelSpace.load(maps.parent)
    convert_maps(sorted(maps.glob("*.png")), out, space, space, "colors", workers=2)
"""


def start(folder: Path) -> tuple[list[Path], subprocess.Popen[str]]:
    """90 maps, and a process group that converts them, when it has done some."""
    (folder / "classes.json").write_text(json.dumps(SPACE.to_dict()))
    maps, out, work = folder / "maps", folder / "out", folder / "out.partial" / "maps"
    files = write_maps(maps, count=0)
    for i in range(90):
        files.append(maps / f"{i:03}.png")
        Image.fromarray(SPACE.encode_ids(index_map(i, 4, (60, 400)))).save(files[-1])
    script = folder / "command.py"
    script.write_text(COMMAND)
    run = subprocess.Popen(
        [sys.executable, script, maps, out], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    end = time.monotonic() + 30
    while not (work.is_dir() and len(times(work)) >= 3) and time.monotonic() < end:
        assert run.poll() is None and not out.exists()
        time.sleep(0.001)
    return files, run


def test_ctrl_c_tells_where_what_is_done_is_kept(tmp_path: Path):
    files, run = start(tmp_path)
    os.killpg(run.pid, signal.SIGINT)
    _, err = run.communicate(timeout=20)
    work = tmp_path / "out.partial"
    assert err.startswith(f"what is done is kept in {work}: the same command goes on\n")
    assert err.endswith("KeyboardInterrupt\n")
    done = times(work / "maps")
    assert 3 <= len(done) < 90
    assert convert_maps(files, tmp_path / "out", SPACE, SPACE, "colors") == 90
    assert {name: time for name, time in times(tmp_path / "out").items() if name in done} == done


def test_killed_and_run_again(tmp_path: Path):
    out, work = tmp_path / "out", tmp_path / "out.partial" / "maps"
    files, run = start(tmp_path)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert not out.exists()
    time.sleep(0.1)  # its workers notice, and end
    done = times(work)
    assert 3 <= len(done) < 90
    for name in done:  # whole, each of them
        assert read_label(work / name, SPACE).shape == (60, 400)

    assert convert_maps(files, out, SPACE, SPACE, "colors") == 90
    assert {name: time for name, time in times(out).items() if name in done} == done
    assert listed(tmp_path) == ["classes.json", "command.py", "maps", "out"]
    convert_maps(files, tmp_path / "undisturbed", SPACE, SPACE, "colors")
    assert (
        listed(out)
        == listed(tmp_path / "undisturbed")
        == [*(f.name for f in files), "classes.json", "convert.json"]
    )
    for name in listed(out):
        assert (out / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes(), name
