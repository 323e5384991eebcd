"""Weights out of installed packages: renamed for timm, or rejected; and which source goes first."""

import importlib.util
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.transforms.v2.functional import pil_to_tensor

from dpsims.config import BackboneConfig
from dpsims.models.backbones import load_backbone
from dpsims.models.package_weights import PACKAGES, find_package_weights, read_package_weights

timm = pytest.importorskip("timm")

LITE0 = "tf_efficientnet_lite0"
STREETS = Path(__file__).resolve().parents[1] / "docs" / "camvid_96x128.png"


def random_network(name: str = LITE0) -> Any:
    """With a value of its own in every tensor, the BatchNorms' statistics included."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = timm.create_model(name)
        for key, tensor in model.state_dict().items():
            if "running" in key:
                tensor.copy_(torch.rand_like(tensor))
    return model


def published(model: Any) -> dict[str, Tensor]:
    """The model's tensors under the names of the published files, where a block's layers are, in the order in
    which they run: expand (in all blocks but the first), depthwise, project."""
    names = {
        model.conv_stem: "_conv_stem", model.bn1: "_bn0", model.conv_head: "_conv_head", model.bn2: "_bn1",
        model.classifier: "_fc",
    }  # fmt: skip
    for number, block in enumerate(block for stage in model.blocks for block in stage):
        convs = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
        norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
        layers = ("expand", "depthwise", "project")[-len(convs) :]
        names |= {conv: f"_blocks.{number}._{layer}_conv" for conv, layer in zip(convs, layers, strict=True)}
        numbers = range(3)[-len(norms) :]
        names |= {norm: f"_blocks.{number}._bn{n}" for norm, n in zip(norms, numbers, strict=True)}
    return {
        f"{name}.{key}": value for module, name in names.items() for key, value in module.state_dict().items()
    }


def install(root: Path, state: object, monkeypatch: pytest.MonkeyPatch, name: str = LITE0) -> Path:
    """A package with that object as its file, in front of any that is installed; gives the file."""
    folder = root / PACKAGES[name].replace("-", "_")
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('was imported')")
    torch.save(state, folder / "models" / "net.pth")
    monkeypatch.syspath_prepend(str(root))
    return folder / "models" / "net.pth"


@pytest.mark.parametrize("name", PACKAGES)
def test_names_are_those_of_timm(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_network(name)
    file = install(tmp_path, published(model), monkeypatch, name)
    found = find_package_weights(name)
    assert found is not None and found.file == file and PACKAGES[name] in found.origin
    read, expected = read_package_weights(found, model), model.state_dict()
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[key], value) for key, value in expected.items())


def test_backbone_takes_the_package_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_network()
    install(tmp_path, published(model), monkeypatch)
    backbone = load_backbone(BackboneConfig(LITE0))
    assert f"package {PACKAGES[LITE0]}" in backbone.description
    own = model.state_dict()
    loaded = {key.split(".", 2)[2]: value for key, value in backbone.state_dict().items() if "model." in key}
    assert len(loaded) > 200 and all(torch.equal(value, own[key]) for key, value in loaded.items())


def test_encoder_of_a_segmenter_takes_the_package_and_logs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("segmentation_models_pytorch", reason="the extra `evaluation` is not installed")
    from dpsims.evaluation.encoder_segmenter import EncoderSegmenter, load_encoder

    model = random_network()
    file = install(tmp_path, published(model), monkeypatch)
    segmenter = EncoderSegmenter(2, "fpn", LITE0)
    caplog.set_level(logging.INFO, "dpsims")
    load_encoder(segmenter, "pretrained")
    assert f"{LITE0}: weights of package {PACKAGES[LITE0]}" in caplog.text and str(file) in caplog.text
    stem = segmenter.encoder.state_dict()["conv_stem.weight"]
    assert torch.equal(stem, model.state_dict()["conv_stem.weight"])


@pytest.mark.parametrize("how", ["missing", "extra", "shape", "list", "number"])
def test_files_that_do_not_fit(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state: dict[str, Any] = published(random_network())
    doctored: dict[str, Any] = {
        "missing": {key: value for key, value in state.items() if key != "_blocks.5._bn1.bias"},
        "extra": state | {"_blocks.99._bn0.weight": torch.zeros(3)},
        "shape": state | {"_conv_stem.weight": torch.zeros(7)},
        "list": [torch.zeros(1)],
        "number": state | {"_fc.bias": 3},
    }
    file = install(tmp_path, doctored[how], monkeypatch)
    with pytest.raises(ValueError, match="state dict|does not fit") as caught:
        load_backbone(BackboneConfig(LITE0))
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


class Poison:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_code_in_a_file_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = install(tmp_path, {"_fc.bias": Poison(tmp_path / "ran")}, monkeypatch)
    with pytest.raises(ValueError, match="not a readable state dict") as caught:
        load_backbone(BackboneConfig(LITE0))
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_damaged_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = install(tmp_path, published(random_network()), monkeypatch)
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(ValueError, match=r"net\.pth: not a readable state dict .*reinstall"):
        load_backbone(BackboneConfig(LITE0))
    file.unlink()
    with pytest.raises(ValueError, match="holds 0 .pth files, expected 1; reinstall"):
        load_backbone(BackboneConfig(LITE0))


def test_file_goes_before_package_before_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each source has its own bias in the stem's BatchNorm, and is named in the log."""

    def marked(mark: float) -> dict[str, Tensor]:
        nn.init.constant_(model.bn1.bias, mark)
        return {key: value.clone() for key, value in model.state_dict().items()}

    def taken(config: BackboneConfig) -> tuple[float, str]:
        caplog.clear()
        state = load_backbone(config).state_dict()
        (line,) = [
            record.getMessage() for record in caplog.records if record.name.startswith("dpsims.models")
        ]
        return state["network.model.bn1.bias"][0].item(), line

    caplog.set_level(logging.INFO, "dpsims")
    model, create = random_network(), timm.create_model
    save_file(marked(1), tmp_path / "mine.safetensors")
    marked(2)
    install(tmp_path / "site", published(model), monkeypatch)
    save_file(marked(3), tmp_path / "hub.safetensors")
    marked(4)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args: f"{tmp_path}/hub.safetensors")

    file = BackboneConfig(LITE0, str(tmp_path / "mine.safetensors"))
    assert taken(file) == (1, f"{LITE0}: weights of the file {tmp_path / 'mine.safetensors'}")
    mark, line = taken(BackboneConfig(LITE0))
    assert mark == 2 and f"weights of package {PACKAGES[LITE0]}" in line
    monkeypatch.setattr("dpsims.models.timm_pyramids.find_package_weights", lambda name: None)
    mark, line = taken(BackboneConfig(LITE0))
    assert mark == 3 and "hub's cache" in line and "hub.safetensors" in line

    def fetch(name: str, pretrained: bool, **options: Any) -> Any:
        assert pretrained and not options or create(name, **options)  # an option unknown to it: TypeError
        return model

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args: None)
    monkeypatch.setattr("dpsims.models.pretrained.require_network", lambda *args: None)
    monkeypatch.setattr("timm.create_model", fetch)
    mark, line = taken(BackboneConfig(LITE0))
    assert mark == 4 and "downloading weights from" in line and f"timm/{LITE0}" in line


# The real packages


def installed(name: str) -> dict[str, Tensor]:
    if importlib.util.find_spec(PACKAGES[name].replace("-", "_")) is None:
        pytest.skip(f"{PACKAGES[name]} is not installed (the extra `backbones`)")
    found = find_package_weights(name)
    assert found is not None
    return torch.load(found.file, weights_only=True)


@pytest.mark.parametrize("name", PACKAGES)
def test_real_files_have_the_published_layout(name: str) -> None:
    state, expected = installed(name), published(timm.create_model(name))
    assert {key: value.shape for key, value in state.items()} == {
        key: value.shape for key, value in expected.items()
    }


def test_real_weights_arrive_and_fit_images() -> None:
    """Those of the file, and street scenes give every BatchNorm inputs near its own mean."""
    state = installed(LITE0)
    backbone = load_backbone(BackboneConfig(LITE0))
    assert torch.equal(backbone.state_dict()["network.model.conv_stem.weight"], state["_conv_stem.weight"])
    distances: list[float] = []

    def compare(norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        assert norm.running_mean is not None and norm.running_var is not None
        off = (inputs[0].mean((0, 2, 3)) - norm.running_mean) / norm.running_var.sqrt()
        distances.append(off.abs().median().item())

    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(compare)
    with Image.open(STREETS) as file:
        image = pil_to_tensor(file.convert("RGB"))[None, :, 24:504, 132:516]  # without titles and label maps
    backbone(image.float() / 127.5 - 1)
    assert len(distances) > 40 and max(distances) < 1  # in standard deviations; 0.6 was seen
