"""The command line: what scripts rely on, and that bad input ends in one clear line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dpsims import cli
from dpsims.commands.fields import field_helps
from dpsims.config import Recipe
from dpsims.evaluation import Segmenter
from dpsims.plain import settable_fields
from tests.command_line import SPACE, TINY_OPTIONS, check_refused, spoil
from tests.conftest import Run

# --- options


def test_every_settable_field_is_an_option_with_help(dpsims: Run):
    _, text, _ = dpsims("train", "--help")
    for section, kind in settable_fields(Recipe).items():
        for name in settable_fields(kind):
            assert f"--{section}.{name} " in text
    assert "--generator.num_classes" not in text
    assert all(text for kind in settable_fields(Recipe).values() for text in field_helps(kind).values())
    assert "pictures a step, over all processes" in text


# --- data check


def test_data_check_counts(dpsims: Run, photos: Path):
    code, out, _ = dpsims("data", "check", photos)
    assert code == 0 and "40 x 32" in out and "no problems" in out and "tree" in out


def test_data_check_lists_problems_and_fails(dpsims: Run, photos: Path):
    (photos / "labels" / "03.png").unlink()
    result = dpsims("data", "check", photos)
    check_refused(result, "1 problem, listed above")
    assert "03.png: has no label map" in result[1]


# --- the whole way


def test_train_generate_evaluate(dpsims: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run, report = tmp_path / "run", tmp_path / "report.json"
    args = ["--training.total_images", "8", "--training.precision", "fp32", "--out", run]
    code, _, err = dpsims("train", "folder", "--data", photos, *TINY_OPTIONS, *args)
    assert code == 0, err
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert any("loss" in key for key in rows[0]) and list((run / "grids").glob("*.png"))

    code, _, err = dpsims("generate", run, photos / "labels" / "00.png", "--out", tmp_path / "out")
    assert code == 0 and (tmp_path / "out" / "00.png").exists(), err

    evaluate = [
        "evaluate",
        run,
        "--data",
        photos,
        "--split",
        "train",
        "--segmenter-images",
        32,
        "--json",
        report,
    ]
    code, out, err = dpsims(*evaluate, "--grid", tmp_path / "sheet.png", "--untrained")
    assert code == 0, err
    values = json.loads(report.read_text())
    for part in (values, values["untrained"], values["real"]):
        assert part["frechet"]["squeezenet1_1"] >= 0 and 0 <= part["miou"] <= 1 and part["diversity"] >= 0
    assert "generated" in out and "untrained" in out and "real" in out and "squeezenet1_1 features" in out
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 4 * 40

    assert "training a segmenter" in err
    code, again, err = dpsims(*evaluate)
    assert code == 0 and "training a segmenter" not in err  # kept
    assert again.splitlines()[1].split()[-2:] == [
        *out.splitlines()[1].split()[-3:-2],
        out.split("\n")[1].split()[-1],
    ]


def test_evaluate_refuses_in_one_line(dpsims: Run, model: Path, photos: Path, tmp_path: Path):
    check_refused(dpsims("evaluate", model), "--data DIR")
    check_refused(dpsims("evaluate", model, "--data", photos, "--split", "tset"), "split='tset'", "val")
    check_refused(dpsims("evaluate", model, "--data", photos, "--features", "resnet1o1"), "resnet1o1")
    segmenter = tmp_path / "none.safetensors"
    check_refused(dpsims("evaluate", model, "--data", photos, "--segmenter", segmenter), str(segmenter))
    Segmenter(3, key={"classes": ["dog", "cat", "cow"]}).save(segmenter)  # as many, but others
    check_refused(
        dpsims("evaluate", model, "--data", photos, "--features", "scenes_tiny", "--segmenter", segmenter),
        "other classes", "dog", "sky",
    )  # fmt: skip
    check_refused(
        dpsims("evaluate", model, "--data", photos, "--json", photos / "classes.json" / "x"), "cannot write"
    )
    check_refused(dpsims("data", "check", photos, "--sheet", photos), "is a folder", "--sheet")
    classes = SPACE.to_dict()
    classes["classes"][0]["name"] = "sea"
    (photos / "classes.json").write_text(json.dumps(classes))
    check_refused(dpsims("evaluate", model, "--data", photos), "sea", "sky")


# --- the program itself


def test_the_program_runs_and_refuses(photos: Path, tmp_path: Path):
    program = [sys.executable, "-m", "dpsims.cli"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    helped = subprocess.run([*program, "--help"], capture_output=True, text=True, env=environment)
    assert helped.returncode == 0 and all(
        c in helped.stdout for c in ("train", "generate", "evaluate", "data")
    )
    spoil(photos, "size")
    command = [
        *program,
        "train",
        "folder",
        "--data",
        str(photos),
        "--out",
        str(tmp_path / "run"),
        *TINY_OPTIONS,
    ]
    refused = subprocess.run(command, capture_output=True, text=True, env=environment)
    check_refused((refused.returncode, refused.stdout, refused.stderr), "05.png", "44x32")


def test_bugs_are_not_hidden(monkeypatch: pytest.MonkeyPatch):
    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["--help"])


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch, dpsims: Run):
    def stopped(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", stopped)
    code, _, err = dpsims("train")
    assert code == 130 and err == "error: stopped\n"
