"""`data convert` that was stopped, runs twice or meets trouble half-way."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from dpsims.data.convert import Coding, convert_maps
from dpsims.data.files import read_codes, read_label
from dpsims.labels import LabelSpace
from tests.label_maps import FULL, GAPS, SPACE, index_map, listed, write_maps


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
