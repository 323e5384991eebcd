"""The benchmarks from check to evaluation, by the commands that a user types, on miniatures of the sets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import miniatures
from tests.conftest import Run

TINY = [
    "--backbone.name", "scenes_tiny", "--data.height", "32", "--data.width", "48", "--data.workers", "0",
    "--generator.channels", "8,8,8", "--generator.attention_strides", "4", "--generator.noise_channels", "4",
    "--generator.token_channels", "8", "--discriminator.channels", "8,8,8,8,8", "--training.batch_size", "2",
    "--training.total_images", "6",
]  # fmt: skip
SETS: dict[str, tuple[Callable[[Path], Path], str, int]] = {
    # recipe -> writer of the miniature, the official validation maps, classes that evaluation counts
    "ade20k": (miniatures.ade20k, "ADEChallengeData2016/annotations/validation/*.png", 150),
    "cocostuff": (miniatures.cocostuff, "annotations/val2017/*.png", 171),
    "cityscapes": (miniatures.cityscapes, "gtFine/val/*/*_labelIds.png", 19),
}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("form", ["files", "shards"])
def test_check_train_generate_evaluate(
    name: str, form: str, tmp_path: Path, dpsims: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write, maps, counted = SETS[name]
    root = write(tmp_path / "set")
    data = root
    if form == "shards":
        data = tmp_path / "shards"
        code, out, err = dpsims("data", "shard", root, "--out", data, "--shard-pairs", 3)
        assert code == 0, err
    code, out, err = dpsims("data", "check", data)
    assert code == 0, err
    assert "no problems" in out and "officially" in out  # says that a miniature is not the whole set

    run = tmp_path / "run"
    code, _, err = dpsims("train", name, "--data", data, "--out", run, *TINY)
    assert code == 0, err
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "loss_pixel" in row]
    assert [row["images"] for row in steps] == [2, 4, 6]
    assert all(np.isfinite(row[key]) for row in steps for key in row if key.startswith("loss_"))
    assert "officially" in err  # said before the time is spent

    chosen = sorted(root.glob(maps))
    assert len(chosen) == 4
    code, _, err = dpsims("generate", run, *chosen, "--out", tmp_path / "pictures")
    assert code == 0, err
    for file in chosen:
        with Image.open(tmp_path / "pictures" / file.name) as picture:
            assert picture.size == (48, 32)

    report_file = tmp_path / "report.json"
    code, out, err = dpsims(
        "evaluate", run, "--data", data, "--json", report_file, "--segmenter-images", 16
    )  # fmt: skip
    assert code == 0, err
    report = json.loads(report_file.read_text())
    assert report["counts"]["generated"] == 4 and "official val" in report["data"]
    assert len(report["iou"]) == counted
    if name == "cityscapes":  # in the order of the train ids
        assert (
            list(report["iou"])[:3] == ["road", "sidewalk", "building"]
            and list(report["iou"])[-1] == "bicycle"
        )
    assert all(np.isfinite(value) for value in report["frechet"].values())


def test_cityscapes_may_be_trained_on_its_19_classes(tmp_path: Path, dpsims: Run):
    root = miniatures.cityscapes(tmp_path / "set")
    run = tmp_path / "run"
    options = ["--data.source", "cityscapes_trainids", *TINY]
    code, _, err = dpsims("train", "cityscapes", "--data", root, "--out", run, *options)
    assert code == 0, err
    classes = json.loads(next(run.glob("checkpoints/*/model.json")).read_text())["label_space"]["classes"]
    assert [c["name"] for c in classes if c["id"] is not None][:2] == ["road", "sidewalk"]
    # the maps have another coding than the model's: said, with file and place, and how to convert
    wrong = next(root.glob("gtFine/val/*/*_labelIds.png"))
    code, _, err = dpsims("generate", run, wrong, "--out", tmp_path / "pictures")
    assert code == 1 and wrong.name in err and "`road` is id 7" in err and "data convert" in err
    code, _, err = dpsims(
        "data", "convert", wrong, "--out", tmp_path / "maps", "--classes", "cityscapes",
        "--to-classes", "cityscapes_trainids",
    )  # fmt: skip
    assert code == 0, err
    code, _, err = dpsims("generate", run, tmp_path / "maps", "--out", tmp_path / "pictures")
    assert code == 0, err


def test_a_folder_with_several_kinds_of_maps_is_refused(tmp_path: Path, dpsims: Run):
    root = miniatures.cityscapes(tmp_path / "set")
    code, _, err = dpsims("generate", "earth", root / "gtFine/val/frankfurt", "--out", tmp_path / "out")
    assert code == 1 and "_labelIds.png" in err and len(err.strip().splitlines()) == 1


def test_shards_of_another_set_are_refused(tmp_path: Path, dpsims: Run):
    root = miniatures.ade20k(tmp_path / "set")
    code, _, err = dpsims("data", "shard", root, "--out", tmp_path / "shards")
    assert code == 0, err
    code, _, err = dpsims("train", "cocostuff", "--data", tmp_path / "shards", "--out", tmp_path / "run")
    assert code == 1 and "ade20k" in err and "cocostuff" in err
