"""`dpsims evaluate` through the command line: what it measures, by which protocol, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.command_line import check_refused
from tests.conftest import Run

QUICK = ["--features", "scenes_tiny", "--segmenter-images", "8"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "dpsims"


def report_of(dpsims: Run, tmp_path: Path, *args: Any) -> dict[str, Any]:
    file = tmp_path / "report.json"
    code, _, err = dpsims("evaluate", *args, "--json", file)
    assert code == 0, err
    return json.loads(file.read_text())


def test_the_report_says_how_it_was_measured(
    dpsims: Run, tmp_path: Path, photos: Path, model: Path, cache: Path
):
    report = report_of(dpsims, tmp_path, model, "--data", photos, "--seed", 3, *QUICK)
    assert report["protocol"] == {
        "name": None, "size": [32, 40], "resize": "bilinear", "maps": "picture", "reference": "test",
        "samples": 1, "diversity_samples": 2, "diversity_maps": 64, "seed": 3,
        "about": report["protocol"]["about"],
    }  # fmt: skip
    assert set(report["weights"]) == {"scenes_tiny", "segmenter", "model"}
    assert all(len(digest) == 16 for digest in report["weights"].values())
    assert [kept.name for kept in cache.iterdir() if kept.is_dir()] == ["evaluations"]
    assert not list((cache / "evaluations").iterdir())
    again = report_of(dpsims, tmp_path, model, "--data", photos, "--seed", 3, *QUICK)
    assert {**again, "seconds": 0} == {**report, "seconds": 0}


def test_a_saved_picture_scores_as_the_model_does(dpsims: Run, tmp_path: Path, photos: Path, model: Path):
    own = report_of(dpsims, tmp_path, model, "--data", photos, "--split", "train", *QUICK)
    names = [Path(row["name"]).stem for row in own["worst"]]
    assert len(names) == 8
    from dpsims.data.folder import scan

    maps = [photos / "labels" / f"{pair.name}.png" for pair in scan(photos).splits["train"]]
    # evaluation's batch size: other batches may differ in the last bit, and on some CPUs in a byte
    assert dpsims("generate", model, *maps, "--out", tmp_path / "made", "--batch-size", 16)[0] == 0
    saved = report_of(dpsims, tmp_path, tmp_path / "made", "--data", photos, "--split", "train", *QUICK)
    for measure in ("frechet", "kid", "precision", "iou", "worst"):
        assert saved[measure] == own[measure], measure


def test_only_the_metrics_asked_for(dpsims: Run, tmp_path: Path, photos: Path):
    # of a folder, without any network
    report = report_of(
        dpsims,
        tmp_path,
        photos / "images",
        "--data",
        photos,
        "--metrics",
        "layout",
        "--segmenter-images",
        "8",
    )
    assert report["miou"] == report["real"]["miou"]
    assert not {"frechet", "kid", "diversity", "neighbours"} & set(report)
    page = tmp_path / "page.html"
    code, table, _ = dpsims(
        "evaluate", photos / "images", "--data", photos, "--metrics", "diversity,layout",
        "--segmenter-images", "8", "--html", page,
    )  # fmt: skip
    assert code == 0 and "Frechet" not in table and "<h2>IoU" in page.read_text()
    check_refused(
        dpsims("evaluate", photos / "images", "--data", photos, "--metrics", "fid"), "'fid'", "realism"
    )
    check_refused(dpsims("evaluate", photos / "images", "--data", photos, "--metrics", ","), "--metrics")


def test_sizes_of_pictures_and_maps(dpsims: Run, tmp_path: Path, photos: Path, model: Path):
    layout = [model, "--data", photos, "--metrics", "layout", "--segmenter-images", "8"]
    small = report_of(dpsims, tmp_path, *layout, "--size", "16x20")
    assert small["size"] == small["protocol"]["size"] == [16, 20]
    native = report_of(dpsims, tmp_path, *layout, "--size", "16x20", "--map-size", "native")
    same = report_of(dpsims, tmp_path, *layout, "--size", "16x20", "--map-size", "32x40")
    assert native["protocol"]["maps"] == "native" and same["protocol"]["maps"] == [32, 40]
    # the photographs' maps are 32x40: both compare each of their pixels
    assert native["iou"] == same["iou"] != small["iou"]
    check_refused(dpsims("evaluate", *layout, "--map-size", "big"), "--map-size big")


def test_a_protocol_fixes_what_it_names(
    dpsims: Run, tmp_path: Path, photos: Path, model: Path, monkeypatch: pytest.MonkeyPatch
):
    from dataclasses import replace

    from dpsims.evaluation import protocols

    small = replace(protocols.OASIS, size=(24, 24), features=("scenes_tiny",), lpips=None)
    monkeypatch.setitem(protocols.PROTOCOLS, "oasis", small)
    how = [model, "--data", photos, "--protocol", "oasis", "--segmenter-images", "8"]
    report = report_of(dpsims, tmp_path, *how)
    assert report["size"] == [24, 24] and report["protocol"]["name"] == "oasis"
    assert report["protocol"]["resize"] == "bicubic"
    assert report["counts"]["diversity_samples"] == 20 and list(report["frechet"]) == ["scenes_tiny"]
    report_of(dpsims, tmp_path, *how, "--size", "24x24")  # says the same
    check_refused(dpsims("evaluate", *how, "--size", "32x40"), "--size", "oasis has 24x24")
    check_refused(dpsims("evaluate", *how, "--map-size", "native"), "--map-size", "oasis has picture")
    check_refused(dpsims("evaluate", *how, "--seed", "1"), "--seed", "oasis has 0")
    check_refused(dpsims("evaluate", *how[:4], "spade"), "--protocol spade", "dpsims-512")


def test_utility_of_a_model_and_of_a_folder(dpsims: Run, tmp_path: Path, photos: Path, model: Path):
    use = ["--data", photos, "--metrics", "utility", "--segmenter-images", "8"]
    code, table, err = dpsims(
        "evaluate", model, *use, "--utility-seeds", "2", "--json", tmp_path / "model.json"
    )
    assert code == 0, err
    found = json.loads((tmp_path / "model.json").read_text())["utility"]
    assert found["seeds"] == [0, 1] and found["images"] == 8 and len(found["both"]["runs"]) == 2
    assert "real and generated" in table
    # the real pictures in the place of generated ones: neither better nor worse
    real = ["evaluate", photos / "images", *use]
    check_refused(dpsims(*real), "--utility-pictures")
    code, _, err = dpsims(*real, "--utility-pictures", photos / "images", "--json", tmp_path / "real.json")
    assert code == 0, err
    same = json.loads((tmp_path / "real.json").read_text())["utility"]
    assert same["synthetic"]["runs"] == same["real"]["runs"] == found["real"]["runs"][:1]


def test_bad_options_are_one_line(dpsims: Run, tmp_path: Path, photos: Path, model: Path):
    how = ["evaluate", model, "--data", photos, *QUICK]
    check_refused(dpsims(*how, "--lpips", "resnet"), "--lpips resnet", "alex")
    check_refused(dpsims(*how, "--lpips", f"squeeze={tmp_path / 'none.safetensors'}"), "none.safetensors")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.png")
    check_refused(dpsims(*how, "--segmenter", tmp_path / "a.png"), "a.png")
    check_refused(dpsims("evaluate", model), "--data")
    check_refused(dpsims(*how, "--size", "100000x100000"), "--size 100000x100000", "16,384")
    check_refused(dpsims(*how, "--features", "scenes_tiny=x"), "scenes_tiny was given before")
    check_refused(dpsims(*how, "--utility", "--split", "train"), "--utility", "--split test")
    check_refused(dpsims(*how, "--utility", "--utility-pictures", photos / "images"), "--utility-pictures")
    check_refused(dpsims("evaluate", photos / "images"), "is a folder of pictures", "--data")


def test_no_network_is_loaded_that_nothing_needs(dpsims: Run, tmp_path: Path, photos: Path, model: Path):
    file = model / "model.json"
    about = json.loads(file.read_text())
    about["about"]["backbone"]["weights"] = str(tmp_path / "gone.safetensors")
    file.write_text(json.dumps(about))
    how = [model, "--data", photos, "--segmenter-images", "8"]
    check_refused(dpsims("evaluate", *how), "gone.safetensors")
    assert report_of(dpsims, tmp_path, *how, "--metrics", "layout")["miou"] is not None


def test_reports_of_parts_compare(dpsims: Run, tmp_path: Path, photos: Path, model: Path):
    files = [tmp_path / "layout.json", tmp_path / "all.json"]
    how = ["evaluate", model, "--data", photos, *QUICK, "--json"]
    assert dpsims(*how, files[0], "--metrics", "layout")[0] == dpsims(*how, files[1])[0] == 0
    code, table, err = dpsims("compare", *files)
    assert code == 0 and "mIoU" in table, err


def test_the_grid_shows_measured_pictures(photos: Path, model: Path):
    import torch

    from dpsims.config import DataConfig
    from dpsims.evaluation.report import to_uint8
    from dpsims.instruments import feature_networks
    from dpsims.measuring import Bench
    from dpsims.synthesis import Synthesizer

    synthesizer = Synthesizer.load(model)
    networks = feature_networks(["scenes_tiny"], synthesizer.size, {})
    bench = Bench(DataConfig(root=str(photos), height=32, width=40), networks, split="train", seed=5)
    sheet = np.asarray(bench.sheet([synthesizer], ["generated"], rows=3, real=False))
    shown = to_uint8(bench.picture(synthesizer, 5))[0]  # of 16 maps, rows 0, 5 and 10
    scale = max(1, sheet.shape[1] // 2 // 40 - 0)
    large = shown.repeat(scale, 0).repeat(scale, 1)
    windows = torch.from_numpy(sheet.copy()).unfold(0, large.shape[0], 1).unfold(1, large.shape[1], 1)
    wanted = torch.from_numpy(large.copy()).permute(2, 0, 1)
    assert (windows == wanted).flatten(2).all(2).any()
