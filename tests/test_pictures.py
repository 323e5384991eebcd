"""Pictures by another program in the place of a model: found by name, measured, reported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dpsims.pictures import PictureFolder, holds_pictures
from tests.command_line import SPACE, check_refused
from tests.conftest import Run


def save(folder: Path, name: str, grey: int, size: tuple[int, int] = (8, 6)) -> None:
    folder.mkdir(exist_ok=True)
    Image.new("RGB", size, (grey,) * 3).save(folder / name)


def test_pictures_are_found_by_name_ending_or_number(tmp_path: Path):
    out = tmp_path / "out"
    save(out, "a.png", 10)
    save(out, "b_leftImg8bit.png", 20)
    save(out, "c_0.png", 30)
    save(out, "c_1.jpg", 40, size=(16, 12))
    pictures = PictureFolder(out, ["a", "b", "c"], SPACE)
    assert pictures.size == (6, 8) and pictures.samples_per_map == 1
    images = pictures.generate(torch.zeros(3, 6, 8, dtype=torch.int64), [0, 1, 2], 0)
    assert ((images[:, 0, 0, 0] + 1) * 127.5).round().tolist() == [10, 20, 30]
    second = PictureFolder(out, ["c"], SPACE)
    assert second.samples_per_map == 2
    again = second.generate(torch.zeros(1, 6, 8, dtype=torch.int64), [0], 1)
    assert again.shape == (1, 3, 6, 8) and abs(float((again.mean() + 1) * 127.5) - 40) < 2


def test_a_number_that_is_another_map_is_no_sample(tmp_path: Path):
    for i, name in enumerate(("a.png", "a_0.png", "a_1.png")):
        save(tmp_path / "out", name, 10 * i)
    assert PictureFolder(tmp_path / "out", ["a", "a_0", "a_1"], SPACE).samples_per_map == 1


def test_missing_and_doubtful_pictures_are_named(tmp_path: Path):
    out = tmp_path / "out"
    save(out, "a_x.png", 1)
    with pytest.raises(ValueError, match=r"1 of the 2 label maps have no picture here \(b\)"):
        PictureFolder(out, ["a", "b"], SPACE)
    save(out, "a_y.png", 1)
    with pytest.raises(ValueError, match=r"a_x\.png: a_y could be meant, too"):
        PictureFolder(out, ["a"], SPACE)
    save(out, "a_y.jpg", 1)
    with pytest.raises(ValueError, match=r"same name as"):
        PictureFolder(out, ["a"], SPACE)
    assert holds_pictures(out) and not holds_pictures(tmp_path)
    (out / "checkpoints").mkdir()  # a run, with a picture that somebody left in it
    assert not holds_pictures(out)


def test_a_folder_is_evaluated_like_a_model(
    tmp_path: Path, photos: Path, dpsims: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "made"
    out.mkdir()
    random = np.random.default_rng(1)
    for path in (photos / "labels").glob("*.png"):  # for all splits: those of others are passed over
        image = random.integers(0, 255, (32, 40, 3), dtype=np.uint8)
        Image.fromarray(image).save(out / path.name)
    args = ["evaluate", out, "--data", photos, "--segmenter-images", "16", "--split", "train"]
    check_refused(dpsims(*args), "--features")
    check_refused(dpsims(*args, "--features", "scenes_tiny", "--untrained"), "--untrained")
    check_refused(dpsims(*args, "--features", "scenes_tiny", "--size", "32"), "--size 32", "256x512")
    files = [tmp_path / f"{name}.json" for name in ("made", "real")]
    page = tmp_path / "made.html"
    code, table, err = dpsims(*args, "--features", "scenes_tiny", "--json", files[0], "--html", page)
    assert code == 0, err
    report = json.loads(files[0].read_text())
    assert report["counts"]["generated"] == 16 and report["diversity"] is None
    assert report["size"] == [32, 40] and report["split"] == "train"
    assert "kernel distance" in table and "precision" in table
    text = page.read_text()
    assert "data:image/" in text and str(out) in text
    # the real pictures themselves are at distance 0 from themselves, and no noise scores better
    code, _, err = dpsims(
        "evaluate", photos / "images", *args[2:], "--features", "scenes_tiny", "--json", files[1]
    )
    assert code == 0, err
    real = json.loads(files[1].read_text())
    assert abs(real["frechet"]["scenes_tiny"]) < 1e-3 < report["frechet"]["scenes_tiny"]
    assert real["precision"]["scenes_tiny"] == real["recall"]["scenes_tiny"] == 1
    assert real["miou"] == real["real"]["miou"]
    assert real["neighbours"][0]["distance"] == 0  # and is in the training split: learned by heart
    code, table, err = dpsims("compare", *files, "--html", tmp_path / "both.html")
    assert code == 0 and "scenes_tiny" in table, err
    assert (tmp_path / "both.html").exists()
