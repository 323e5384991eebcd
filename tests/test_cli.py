"""The command line: what scripts rely on, and that bad input ends in one clear line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dpsims import cli
from dpsims.checkpoint import Model, save_model
from dpsims.commands.fields import field_helps
from dpsims.config import GeneratorConfig, Recipe, settable_fields
from dpsims.labels import LabelSpace
from dpsims.models.generator import Generator
from dpsims.recipes import load_recipe

SPACE = LabelSpace(
    ("sky", "road", "tree"), ((70, 130, 180), (128, 64, 128), (30, 110, 40)), (0, 1, 4), ignore_id=255
)
TINY = GeneratorConfig(
    num_classes=3, channels=(8, 8), attention_strides=(), noise_tokens=2, noise_channels=4, token_channels=8
)
TINY_OPTIONS = [
    "--backbone.name", "squeezenet1_1", "--backbone.weights", "random",
    "--data.height", "32", "--data.width", "40",
    "--generator.channels", "8,8", "--generator.attention_strides", "[]", "--generator.noise_channels", "4",
    "--generator.token_channels", "8", "--discriminator.channels", "8,8,8,8,8", "--training.batch_size", "2",
]  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twenty tiny pairs: two each are set aside for val and test."""
    folder = tmp_path / "photos"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    (folder / "classes.json").write_text(json.dumps(SPACE.to_dict()))
    random = np.random.default_rng(0)
    for i in range(20):
        label = random.integers(0, 3, (32, 40))
        Image.fromarray(SPACE.encode_ids(label)).save(folder / "labels" / f"{i:02}.png")
        image = SPACE.colorize(label) // 2 + random.integers(0, 99, (32, 40, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{i:02}.png")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An untrained generator of SPACE, saved."""
    torch.manual_seed(0)
    folder = tmp_path / "model"
    folder.mkdir()
    about = {"backbone": {"name": "squeezenet1_1", "weights": "random", "scale": 1.0, "levels": []}}
    save_model(Model(Generator(TINY).eval(), SPACE, 32, 40, about), folder)
    return folder


Run = Callable[..., tuple[int, str, str]]


def check_refused(result: tuple[int, str, str], *parts: str) -> None:
    """One line that starts with `error:` and says all of `parts`, and an exit code that is not 0."""
    code, _, err = result
    lines = err.strip().splitlines()
    assert code in (1, 2) and lines and "Traceback" not in err, err
    assert lines[-1].startswith("error: ") and sum(line.startswith("error: ") for line in lines) == 1, err
    assert len(lines) == 1, err
    for part in parts:
        assert part in lines[-1], f"{part!r} is not in {lines[-1]!r}"


# --- options


def test_every_settable_field_is_an_option_with_help(dpsims: Run):
    _, text, _ = dpsims("train", "--help")
    for section, kind in settable_fields(Recipe).items():
        for name in settable_fields(kind):
            assert f"--{section}.{name} " in text
    assert "--generator.num_classes" not in text
    assert all(text for kind in settable_fields(Recipe).values() for text in field_helps(kind).values())
    assert "pictures a step, over all processes" in text


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


# --- generate


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
    assert not list((tmp_path / "out").iterdir())


# --- data check


def test_data_check_counts(dpsims: Run, photos: Path):
    code, out, _ = dpsims("data", "check", photos)
    assert code == 0 and "40 x 32" in out and "no problems" in out and "tree" in out


def test_data_check_lists_problems_and_fails(dpsims: Run, photos: Path):
    (photos / "labels" / "03.png").unlink()
    result = dpsims("data", "check", photos)
    check_refused(result, "1 problem, listed above")
    assert "03.png: has no label map" in result[1]


# --- train, on data that is broken in one place


def spoil(photos: Path, how: str) -> None:
    if how == "id":
        Image.fromarray(np.full((32, 40), 3, np.uint8)).save(photos / "labels" / "05.png")
    elif how == "size":
        Image.fromarray(np.zeros((32, 44), np.uint8)).save(photos / "labels" / "05.png")
    elif how == "truncated":
        for image in (photos / "images").iterdir():
            image.write_bytes(image.read_bytes()[:-200])
    elif how == "empty":
        for file in [*photos.glob("images/*"), *photos.glob("labels/*")]:
            file.unlink()


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
    check_refused(
        dpsims("evaluate", model, "--data", photos, "--json", photos / "classes.json" / "x"), "cannot write"
    )
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
