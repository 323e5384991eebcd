"""`dpsims segmenter train` and `score`: from pictures to a file that `evaluate` takes; what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dpsims.commands import segmenter as command
from dpsims.evaluation.encoder_segmenter import EncoderSegmenter
from dpsims.evaluation.segmentation import Segmenter, load_segmenter
from tests.command_line import check_refused
from tests.conftest import Run

TINY = ["--encoder", "test_resnet", "--architecture", "linknet", "--weights", "random", "--batch-size", "4"]


def test_train_score_evaluate(dpsims: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(command, "SAID_EVERY", -1)  # says every step
    file, figures = tmp_path / "new" / "s.safetensors", tmp_path / "score.json"
    code, table, err = dpsims("segmenter", "train", photos, "--out", file, *TINY, "--images", "8")
    assert code == 0, err
    assert "8 pictures of 32x40" in err and "4/8 pictures, loss" in err
    assert "2 real test pictures at 32x40" in table and "mIoU" in table and "road" in table
    assert [path.name for path in file.parent.iterdir()] == ["s.safetensors"]
    trained = load_segmenter(file)
    assert isinstance(trained, EncoderSegmenter) and trained.key["encoder"] == "test_resnet (random)"
    assert trained.score is not None and trained.score["images"] == 2 and trained.score["split"] == "test"
    code, again, err = dpsims("segmenter", "score", file, photos, "--json", figures)
    assert code == 0 and err == "" and again.splitlines() == table.splitlines()[:-1]
    assert json.loads(figures.read_text()) == trained.score
    code, other, _ = dpsims("segmenter", "score", file, photos, "--split", "train", "--size", "20x30")
    assert code == 0 and "16 real train pictures at 20x30" in other
    args = ["--data", photos, "--features", "scenes_tiny", "--json", tmp_path / "report.json"]
    code, _, err = dpsims("evaluate", photos / "images", *args, "--segmenter", file)
    assert code == 0, err


def test_the_same_command_trains_the_same(dpsims: Run, photos: Path, tmp_path: Path):
    files = [tmp_path / f"{i}.safetensors" for i in range(3)]
    for file, seed in zip(files, (0, 0, 1), strict=True):
        assert (
            dpsims("segmenter", "train", photos, "--out", file, *TINY, "--images", 4, "--seed", seed)[0] == 0
        )
    first, again, other = (load_segmenter(file) for file in files)
    assert first.weights == again.weights != other.weights and first.key == again.key != other.key


def test_scenes_need_no_folder(dpsims: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from dpsims.data import scenes

    monkeypatch.setattr("dpsims.config.DataConfig.size", 3)
    small = scenes.Scenes
    monkeypatch.setattr(scenes, "Scenes", lambda size, *rest: small(3, *rest))
    file = tmp_path / "s.safetensors"
    code, table, err = dpsims(
        "segmenter", "train", "scenes", "--out", file, *TINY, "--images", 4, "--size", "32x48"
    )
    assert code == 0 and "3 real test pictures at 32x48" in table and "mountain" in table, err


def test_a_small_segmenter_is_scored_too(dpsims: Run, photos: Path, tmp_path: Path):
    file = tmp_path / "s.safetensors"
    Segmenter(3, (4, 8), {"classes": ["sky", "road", "tree"], "height": 16, "width": 20}).save(file)
    code, table, err = dpsims("segmenter", "score", file, photos)
    assert code == 0 and "2 real test pictures at 16x20" in table, err


def test_stopped_it_leaves_nothing(
    dpsims: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def stop(text: str) -> None:
        if "loss" in text:
            raise KeyboardInterrupt

    monkeypatch.setattr(command, "SAID_EVERY", -1)
    monkeypatch.setattr(command, "_say", stop)
    out = tmp_path / "out" / "s.safetensors"
    code, _, err = dpsims("segmenter", "train", photos, "--out", out, *TINY, "--images", "8")
    assert code == 130 and err == "error: stopped\n" and list(out.parent.iterdir()) == []


def test_bad_values_are_refused_before_training(
    dpsims: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("dpsims.evaluation.encoder_segmenter.train_encoder_segmenter", None)
    out = tmp_path / "s.safetensors"

    def refused(*parts: str, options: list[str], data: Path = photos, where: Path = out) -> None:
        check_refused(dpsims("segmenter", "train", data, "--out", where, *TINY, *options), *parts)
        assert not out.exists()

    refused("--encoder resnet5", "did you mean", options=["--encoder", "resnet5"])
    refused("--architecture unett", options=["--architecture", "unett"])
    refused("--size 32", "HEIGHTxWIDTH", options=["--size", "32"])
    refused("none.safetensors: no such file", options=["--weights", "none.safetensors"])
    refused("--source", "nowhere", options=["--source", "nowhere"])
    refused("none", options=[], data=tmp_path / "none")
    refused("is a folder", options=[], where=tmp_path)
    (tmp_path / "file").write_text("")
    refused("cannot write there", options=[], where=tmp_path / "file" / "s.safetensors")
    refused("--images", options=["--images", "0"])
    refused("device=tpu", options=["--device", "tpu"])


def test_score_refuses_what_does_not_fit(dpsims: Run, photos: Path, tmp_path: Path):
    file = tmp_path / "s.safetensors"
    check_refused(dpsims("segmenter", "score", file, photos), "s.safetensors: no such file")
    Segmenter(3, (4,), {"classes": ["dog", "cat", "cow"]}).save(file)
    check_refused(dpsims("segmenter", "score", file, photos), "tells other classes apart (3: dog, cat, cow)")
    check_refused(dpsims("segmenter", "score", file, photos, "--split", "tset"), "--split tset: use one of")
    mapped = dpsims("segmenter", "score", file, photos, "--segmenter-classes", "x.yaml")
    check_refused(mapped, "--segmenter-classes x.yaml", "hf:NAME")
    torch.save({}, file)
    check_refused(dpsims("segmenter", "score", file, photos), "cannot be read as safetensors")
