"""`dpsims train`: options and recipes, and that bad input ends in one clear line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dpsims.checkpoint import checkpoints, load_model
from dpsims.config import BackboneConfig, Recipe
from dpsims.models.backbones import load_backbone
from dpsims.recipes import load_recipe, recipe_names, recipes_by_device
from dpsims.training.choice import choose_recipe
from dpsims.training.loop import claim_run
from tests.command_line import TINY_OPTIONS, check_refused, spoil
from tests.conftest import Run


def captured_recipe(monkeypatch: pytest.MonkeyPatch, dpsims: Run, *args: Any) -> tuple[Recipe, Path]:
    seen = []
    monkeypatch.setattr("dpsims.training.train", lambda recipe, out, notes: seen.append((recipe, out)))
    code, _, err = dpsims("train", *args)
    assert code == 0, err
    return seen[0]


def test_options_win_over_the_recipe(monkeypatch: pytest.MonkeyPatch, dpsims: Run, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    recipe, out = captured_recipe(
        monkeypatch, dpsims, "folder", "--data", "photos", "--data.flip", "false",
        "--generator.channels", "4,8",
        "--backbone.levels", "[0, 2]", "--training.batch_size", 3, "--losses.focal_gamma", 1,
        "--discriminator.conditioning", "batch",
    )  # fmt: skip
    assert out == Path("runs/folder")
    assert recipe.data.root == "photos" and recipe.data.flip is False
    assert recipe.generator.channels == (4, 8) and recipe.backbone.levels == (0, 2)
    assert recipe.training.batch_size == 3 and recipe.losses.focal_gamma == 1.0
    assert recipe.discriminator.conditioning == "batch"
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


# --- the recipe `folder` chooses by device


def begin(run: Path, name: str, changes: dict[str, dict[str, Any]]) -> None:
    """What a run of that recipe leaves in its folder, as far as resuming asks for it."""
    claim_run(run, load_recipe(name, changes).resolved(3))
    (run / "checkpoints" / "00000004").mkdir(parents=True)
    (run / "checkpoints" / "00000004" / "state.json").write_text("{}")


def test_help_names_every_recipe(dpsims: Run):
    _, out, _ = dpsims("train", "--help")
    words = out.split("Options")[0].replace("│", " ").replace(",", " ").replace(";", " ").split()
    assert set(recipe_names()) <= {word.strip("(),;") for word in words}


def test_folder_is_one_of_two_recipes():
    assert recipes_by_device("folder") == {"cuda": "folder_large", "cpu": "folder_small"}
    assert recipes_by_device("camvid") == recipes_by_device("mine.yaml") == {}
    assert load_recipe("folder", {"training": {"seed": 3}}) == load_recipe(
        "folder_small", {"training": {"seed": 3}}
    )


@pytest.mark.parametrize(
    ("cuda", "device", "chosen", "reason"),
    [
        (False, None, "folder_small", "no CUDA device, so folder_small"),
        (True, None, "folder_large", "a CUDA device, so folder_large"),
        (True, "cpu", "folder_small", "training.device=cpu, so folder_small"),
        (True, "cuda", "folder_large", "training.device=cuda, so folder_large"),
    ],
)
def test_device_chooses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cuda: bool, device: str | None, chosen: str, reason: str
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(cuda))
    changes: dict[str, dict[str, Any]] = {"training": {"device": device} if device else {}}
    recipe, note = choose_recipe("folder", changes, tmp_path)
    assert recipe == load_recipe(chosen, changes)
    assert note.startswith(f"recipe folder: {reason} (")
    assert recipe.backbone.name in note and f"{recipe.data.height}x" in note
    (other,) = {"folder_small", "folder_large"} - {chosen}
    assert note.endswith(f"dpsims train {other}")


SET_BY_HAND = [
    {},
    # what the command line sets alike tells nothing
    {"data": {"height": 256, "width": 256}, "backbone": {"name": "convnext_base"}},
    # which batches of 4 do not allow
    {"training": {"accumulate": 8, "batch_size": 16}},
]


@pytest.mark.parametrize("cuda", [False, True])
@pytest.mark.parametrize("begun", ["folder_small", "folder_large"])
@pytest.mark.parametrize("changes", SET_BY_HAND)
def test_a_run_resumes_with_the_recipe_it_began_with(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    cuda: bool,
    begun: str,
    changes: dict[str, Any],
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    begin(tmp_path, begun, changes)
    recipe, note = choose_recipe("folder", changes, tmp_path)
    assert recipe == load_recipe(begun, changes)
    assert claim_run(tmp_path, recipe.resolved(3)) is not None  # and not `holds a run with`
    another = (begun == "folder_large") != cuda
    assert (f"but {tmp_path} was begun with {begun}, so {begun}" in note) is another


def test_a_changed_setting_is_named_and_not_the_other_recipe(tmp_path: Path):
    begin(tmp_path, "folder_large", {})
    recipe, _ = choose_recipe("folder", {"training": {"seed": 7}}, tmp_path)
    with pytest.raises(ValueError, match="holds a run with training.seed=0, not 7"):
        claim_run(tmp_path, recipe.resolved(3))


def test_accumulation_that_only_the_large_recipe_allows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    begin(tmp_path, "folder_large", {})
    recipe, _ = choose_recipe("folder", {"training": {"accumulate": 8}}, tmp_path)
    assert recipe.training.accumulate == 8


def test_a_damaged_recipe_of_a_run_is_named(dpsims: Run, photos: Path, tmp_path: Path):
    begin(tmp_path / "run", "folder_small", {})
    (tmp_path / "run" / "recipe.yaml").write_text("- 1")
    result = dpsims("train", "folder", "--data", photos, "--out", tmp_path / "run")
    check_refused(result, "recipe.yaml: damaged")


def test_training_says_which_recipe_and_which_weights(dpsims: Run, photos: Path, tmp_path: Path):
    """Once each, also when resumed in the same process."""
    file, run = tmp_path / "mine.safetensors", tmp_path / "run"
    state = load_backbone(BackboneConfig("squeezenet1_1", "random")).network.state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, file)
    options = [*TINY_OPTIONS, "--backbone.weights", file, "--evaluation.validation_images", 2]
    command = ["train", "folder", "--data", photos, "--out", run, "--training.device", "cpu", *options]
    for total in (2, 4):
        code, _, err = dpsims(*command, "--training.total_images", total)
        assert code == 0, err
        assert err.count("recipe folder: training.device=cpu, so folder_small") == 1
        assert err.count(f"squeezenet1_1: weights of the file {file}") == 1
        assert err.count("backbone: squeezenet1_1 (mine.safetensors), weights ") == 1
        used = load_model(checkpoints(run)[-1]).about["backbone_weights"]
        assert used["origin"] == "squeezenet1_1 (mine.safetensors)" and f"weights {used['digest']}" in err
