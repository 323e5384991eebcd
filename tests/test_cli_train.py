"""`dpsims train`: options and recipes, and that bad input ends in one clear line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dpsims.config import Recipe
from dpsims.recipes import load_recipe
from tests.command_line import TINY_OPTIONS, check_refused, spoil
from tests.conftest import Run


def captured_recipe(monkeypatch: pytest.MonkeyPatch, dpsims: Run, *args: Any) -> tuple[Recipe, Path]:
    seen = []
    monkeypatch.setattr("dpsims.training.train", lambda recipe, out: seen.append((recipe, out)))
    code, _, err = dpsims("train", *args)
    assert code == 0, err
    return seen[0]


def test_options_win_over_the_recipe(monkeypatch: pytest.MonkeyPatch, dpsims: Run, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    recipe, out = captured_recipe(
        monkeypatch, dpsims, "folder", "--data", "photos", "--data.flip", "false",
        "--generator.channels", "4,8",
        "--backbone.levels", "[0, 2]", "--training.batch_size", 3, "--losses.focal_gamma", 1,
        "--discriminator.conditioning", "none",
    )  # fmt: skip
    assert out == Path("runs/folder")
    assert recipe.data.root == "photos" and recipe.data.flip is False
    assert recipe.generator.channels == (4, 8) and recipe.backbone.levels == (0, 2)
    assert recipe.training.batch_size == 3 and recipe.losses.focal_gamma == 1.0
    assert recipe.discriminator.conditioning == "none"
    assert recipe.backbone.name == load_recipe("folder").backbone.name  # not given: the recipe's


def test_a_recipe_may_be_a_file(monkeypatch: pytest.MonkeyPatch, dpsims: Run, tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("about: mine\ntraining: {seed: 7}\n")
    recipe, out = captured_recipe(monkeypatch, dpsims, tmp_path / "mine.yaml", "--out", tmp_path / "run")
    assert recipe.training.seed == 7 and out == tmp_path / "run" and out.is_dir()


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["fodler"], ["fodler", "did you mean folder?"]),
        (["folder", "--training.bach_size", "3"], ["--training.bach_size", "--training.batch_size"]),
        (["folder", "--generator.num_classes", "3"], ["--generator.num_classes"]),
        (["folder", "--training.seed", "much"], ["--training.seed", "integer"]),
        (["folder", "--data.flip", "maybe"], ["data.flip='maybe'", "true or false"]),
        (["folder", "--backbone.levels", "[0"], ["backbone.levels", "list of whole numbers"]),
        (["folder", "--discriminator.conditioning", "x"], ["discriminator.conditioning='x'", "calibrated"]),
        (["nowhere.yaml"], ["nowhere.yaml", "No such file"]),
        ([], ["RECIPE"]),
    ],
)
def test_bad_options_are_one_line(dpsims: Run, args: list[str], parts: list[str], tmp_path: Path):
    result = dpsims("train", *args, "--out", tmp_path / "run")
    check_refused((result[0], result[1], result[2].replace("recipe'", "RECIPE'")), *parts)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "training: {bach_size: 3}",
            ["unknown field training.bach_size", "did you mean training.batch_size?"],
        ),
        ("trainning: {}", ["did you mean training?"]),
        ("generator: {num_classes: 3}", ["generator.num_classes", "leave it out"]),
        ("training: 3", ["training=3", "section"]),
        ("- 1", ["should hold sections"]),
        ("a: [", ["is not YAML"]),
    ],
)
def test_bad_recipe_files_are_one_line(dpsims: Run, tmp_path: Path, text: str, parts: list[str]):
    (tmp_path / "mine.yaml").write_text(text)
    check_refused(dpsims("train", tmp_path / "mine.yaml", "--training.seed", 1), "mine.yaml", *parts)


# --- on data that is broken in one place


@pytest.mark.parametrize(
    ("how", "extra", "parts"),
    [
        ("id", [], ["05.png", "label id 3", "classes.json"]),
        ("size", [], ["05.png", "44x32", "40x32"]),
        ("truncated", [], ["images", "cannot be read"]),
        ("empty", [], ["images", "is empty"]),
        ("", ["--backbone.name", "squeezenet9"], ["squeezenet9"]),
        ("", ["--training.device", "toaster"], ["device=toaster"]),
        ("", ["--training.batch_size", "0"], ["batch_size=0"]),
        ("", ["--data.height", "0"], ["height"]),
    ],
)
def test_training_refuses_bad_input_in_one_line(
    dpsims: Run, photos: Path, tmp_path: Path, how: str, extra: list[str], parts: list[str]
):
    spoil(photos, how)
    total = ["--training.total_images", "40", "--out", tmp_path / "run"]
    check_refused(dpsims("train", "folder", "--data", photos, *TINY_OPTIONS, *total, *extra), *parts)


def test_train_refuses_a_missing_folder_and_a_file_in_the_way(dpsims: Run, photos: Path, tmp_path: Path):
    check_refused(dpsims("train", "folder", "--out", tmp_path / "run"), "data.root", "--data")
    missing = dpsims("train", "folder", "--data", tmp_path / "x", "--out", tmp_path / "run")
    check_refused(missing, str(tmp_path / "x"), "no such folder")
    in_the_way = photos / "classes.json"
    result = dpsims("train", "folder", "--data", photos, "--out", in_the_way)
    check_refused(result, str(in_the_way), "cannot write there", "--out")
