"""`dpsims generate`: what it writes, and that bad input ends in one clear line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.command_line import SPACE, check_refused
from tests.conftest import Run


def test_generate_writes_a_picture_of_each_map(dpsims: Run, model: Path, photos: Path, tmp_path: Path):
    out = tmp_path / "made" / "deep"
    code, _, err = dpsims("generate", model, photos / "labels", "--out", out, "--batch-size", 5)
    assert code == 0, err
    assert sorted(p.name for p in out.iterdir()) == [f"{i:02}.png" for i in range(20)]
    with Image.open(out / "00.png") as picture:
        assert picture.size == (40, 32) and picture.mode == "RGB"


def pictures(folder: Path) -> dict[str, np.ndarray]:
    return {p.name: np.array(Image.open(p)).astype(int) for p in folder.iterdir()}


def test_generate_does_not_overwrite_the_maps(dpsims: Run, model: Path, photos: Path):
    before = (photos / "labels" / "00.png").read_bytes()
    check_refused(dpsims("generate", model, photos / "labels", "--out", photos / "labels"), "choose another")
    assert (photos / "labels" / "00.png").read_bytes() == before


def test_generate_is_reproducible_whatever_the_batch_size(
    dpsims: Run, model: Path, photos: Path, tmp_path: Path
):
    maps = [photos / "labels" / f"{i:02}.png" for i in range(3)]
    for name, args in {"a": ["--batch-size", 1], "b": ["--batch-size", 4], "c": ["--seed", 1]}.items():
        assert dpsims("generate", model, *maps, "--out", tmp_path / name, "--samples", 2, *args)[0] == 0
    a, b, c = (pictures(tmp_path / name) for name in "abc")
    assert sorted(a) == ["00_0.png", "00_1.png", "01_0.png", "01_1.png", "02_0.png", "02_1.png"]
    assert all(abs(a[name] - b[name]).max() <= 1 for name in a)  # rounding, at most
    assert (a["00_0.png"] != a["00_1.png"]).any() and (a["00_0.png"] != c["00_0.png"]).any()


def test_generate_keeps_each_maps_own_size_and_reads_colours(dpsims: Run, model: Path, tmp_path: Path):
    Image.fromarray(np.full((16, 24), 4, np.uint8)).save(tmp_path / "ids.png")
    Image.fromarray(SPACE.colorize(np.full((16, 24), 2))).save(tmp_path / "colours.png")
    Image.fromarray(np.full((33, 17), 255, np.uint8)).save(tmp_path / "odd.png")
    maps = [tmp_path / f"{name}.png" for name in ("ids", "colours", "odd")]
    code, _, err = dpsims("generate", model, *maps, "--out", tmp_path / "out")
    assert code == 0, err
    made = pictures(tmp_path / "out")
    assert {name: p.shape for name, p in made.items()} == {
        "ids.png": (16, 24, 3), "colours.png": (16, 24, 3), "odd.png": (33, 17, 3),
    }  # fmt: skip
    alone = tmp_path / "alone"
    assert dpsims("generate", model, tmp_path / "colours.png", "--out", alone)[0] == 0
    assert dpsims("generate", model, tmp_path / "ids.png", "--out", alone)[0] == 0
    same = pictures(alone)  # ids or colours: the same map, the same noise
    assert (same["ids.png"] == same["colours.png"]).all()


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["nothing", "m.png", "--out", "out"], ["nothing", "does not exist"]),
        (["MODEL", "nothing.png", "--out", "out"], ["nothing.png", "no such file"]),
        (["MODEL", "empty", "--out", "out"], ["empty", "no label maps"]),
        (["MODEL", "bad.png", "--out", "out"], ["bad.png", "label id 3 at row 2, column 1", "classes.json"]),
        (["MODEL", "cut.png", "--out", "out"], ["cut.png", "cannot be read"]),
        (["MODEL", "m.png", "--out", "m.png"], ["m.png", "cannot write there", "--out"]),
        (["MODEL", "m.png", "--out", "m.png/deeper"], ["m.png/deeper", "cannot write there"]),
        (["MODEL", "m.png"], ["--out"]),
        (["MODEL", "--out", "out"], ["maps"]),
        (["MODEL", "m.png", "--out", "out", "--samples", "0"], ["--samples"]),
        (["MODEL", "m.png", "--out", "out", "--device", "toaster"], ["device=toaster"]),
        (["broken", "m.png", "--out", "out"], ["broken", "damaged"]),
    ],
)
def test_generate_refuses_bad_input_in_one_line(
    dpsims: Run,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    parts: list[str],
):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    label = np.zeros((16, 16), np.uint8)
    Image.fromarray(label).save("m.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 2, (64, 64), dtype=np.uint8)).save("cut.png")
    Path("cut.png").write_bytes(Path("cut.png").read_bytes()[:300])
    label[2, 1] = 3
    Image.fromarray(label).save("bad.png")
    Path("broken").mkdir()
    Path("broken/model.json").write_text((model / "model.json").read_text())
    Path("broken/generator.safetensors").write_bytes((model / "generator.safetensors").read_bytes()[:100])
    check_refused(dpsims("generate", *(a.replace("MODEL", "model") for a in args)), *parts)
    assert not list(tmp_path.rglob("*.part"))


def test_a_full_disk_is_one_line_and_leaves_no_half_file(
    dpsims: Run, model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(self: Path, content: bytes) -> None:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    check_refused(dpsims("generate", model, photos / "labels", "--out", tmp_path / "out"), "No space left")
    assert not (tmp_path / "out").exists()


def test_a_refused_call_leaves_no_folder_and_keeps_one_that_was_there(dpsims, tmp_path: Path):
    label = tmp_path / "map.png"
    Image.fromarray(np.full((8, 8), 77, np.uint8)).save(label)
    for model in ("nosuch", "earth"):  # an unknown model, an id out of range
        code, _, _ = dpsims("generate", model, label, "--out", tmp_path / "new" / "folder")
        assert code != 0 and not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    assert dpsims("generate", "earth", label, "--out", tmp_path / "old")[0] != 0
    assert (tmp_path / "old").is_dir()
