"""LPIPS: the published program's figures on the same weights, and files that are not what they should be.

Only SqueezeNet's weights are here (../shared/weights); where they are not, random ones of its shape serve.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dpsims.evaluation import lpips as module
from dpsims.evaluation.lpips import Lpips, make_lpips, over_picture, over_regions, published_weights
from tests.archives import Server

REAL = Path(__file__).resolve().parents[2] / "shared" / "weights" / "squeezenet1_1_imagenet.safetensors"
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    """SqueezeNet 1.1 as torchvision names it, with its classifier."""
    if REAL.is_file():
        return load_file(REAL)
    from torchvision.models import squeezenet1_1

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return squeezenet1_1().state_dict()


@pytest.fixture(scope="module")
def weights(state: State, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "squeezenet.safetensors"
    save_file(state, path)
    return path


@pytest.fixture(scope="module")
def squeeze(weights: Path) -> Lpips:
    return Lpips("squeeze", weights)


def pictures(count: int, seed: int, height: int = 64, width: int = 80) -> Tensor:
    """Smooth random pictures in [-1, 1]."""
    noise = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, (height, width), mode="bicubic").clamp(-1, 1)


def published(state: State, spatial: bool = False) -> Any:
    """The package's own LPIPS with the given SqueezeNet put in by hand."""
    import lpips

    with pytest.warns(UserWarning, match="weight"):  # torchvision's, which ours keeps to itself
        theirs = lpips.LPIPS(net="squeeze", pnet_rand=True, spatial=spatial, verbose=False)
    with torch.no_grad():
        for name, parameter in theirs.net.named_parameters():
            parameter.copy_(state[f"features.{name.partition('.')[2]}"])
    return theirs


def test_the_distance_is_the_packages_own(squeeze: Lpips, state: State):
    a, b = pictures(5, 0), pictures(5, 1)
    with torch.no_grad():
        theirs = published(state)(a, b).flatten().double()
    assert theirs.min() > 0.05
    torch.testing.assert_close(squeeze(a, b), theirs, rtol=1e-5, atol=1e-6)


def test_the_maps_are_the_packages_own(squeeze: Lpips, state: State):
    a, b = pictures(2, 0, 41, 70), pictures(2, 1, 41, 70)
    with torch.no_grad():
        theirs = published(state, spatial=True)(a, b)[:, 0]
    assert theirs.std() > 0.01
    torch.testing.assert_close(squeeze.maps(a, b), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_distance_is_that_of_torchmetrics(squeeze: Lpips, state: State, monkeypatch: pytest.MonkeyPatch):
    from torchmetrics.functional.image import lpips as theirs
    from torchvision.models import squeezenet1_1

    trunk = squeezenet1_1()
    trunk.load_state_dict(state)
    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda *_, **__: trunk.features)
    a, b = pictures(3, 0), pictures(3, 1)
    value = theirs.learned_perceptual_image_patch_similarity(a, b, net_type="squeeze")
    assert squeeze(a, b).mean().item() == pytest.approx(value.item(), rel=1e-5)


def test_equal_pictures_have_distance_zero_and_order_and_batch_do_not_matter(squeeze: Lpips):
    a, b = pictures(3, 0), pictures(3, 1)
    together = squeeze(a, b)
    assert torch.equal(squeeze(a, a.clone()), torch.zeros(3, dtype=torch.float64))
    assert torch.equal(squeeze.maps(a, a), torch.zeros(3, 64, 80))
    assert torch.equal(squeeze(b, a), together)
    torch.testing.assert_close(squeeze(a[1:2], b[1:2]), together[1:2], rtol=1e-5, atol=1e-7)
    assert together.dtype == torch.float64 and not together.requires_grad


def test_memory_is_bounded_by_parts_that_change_nothing(squeeze: Lpips, monkeypatch: pytest.MonkeyPatch):
    a, b = pictures(5, 0, 40, 40), pictures(5, 1, 40, 40)
    whole = squeeze(a, b)
    sizes: list[int] = []
    squeeze.model.get_submodule("net").register_forward_pre_hook(
        lambda _, inputs: sizes.append(len(inputs[0]))
    )
    monkeypatch.setattr(module, "PIXELS_AT_ONCE", 2 * 40 * 40)
    torch.testing.assert_close(squeeze(a, b), whole, rtol=1e-5, atol=1e-7)
    assert sizes == [2, 2, 2, 2, 1, 1]
    monkeypatch.setattr(module, "PIXELS_AT_ONCE", 1)  # a picture larger than that: by itself
    assert squeeze(a[:2], b[:2]).shape == (2,) and sizes[6:] == [1, 1, 1, 1]


def test_a_training_in_bf16_measures_in_float32(squeeze: Lpips):
    a, b = pictures(1, 0), pictures(1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        inside = squeeze(a, b)
    assert torch.equal(inside, squeeze(a, b))


def test_the_distance_over_a_region_is_the_mean_of_the_map(squeeze: Lpips):
    a, b = pictures(1, 0, 50, 70), pictures(1, 1, 50, 70)
    masks = torch.zeros(3, 50, 70, dtype=torch.bool)
    masks[0, 10:20, 60:] = True
    masks[1] = torch.rand(50, 70, generator=torch.Generator().manual_seed(0)) < 0.3
    masks[2, 49, 0] = True  # one pixel
    levels = squeeze.between(a, b)
    by_pixel = squeeze.maps(a, b)[0]
    found = over_regions([level[0] for level in levels], masks)
    torch.testing.assert_close(
        found, torch.stack([by_pixel[mask].mean() for mask in masks]).double(), rtol=1e-5, atol=1e-7
    )
    assert torch.equal(over_picture(levels), squeeze(a, b))
    assert over_regions([level[0] for level in levels], masks[:0]).shape == (0,)


def test_the_report_names_network_and_weights(squeeze: Lpips, weights: Path, state: State, tmp_path: Path):
    assert squeeze.name == "squeeze, weights squeezenet.safetensors"
    # another file format of the same weights, as float32, on the way that the command line goes
    path = tmp_path / "other.pth"
    torch.save({key: tensor.float() for key, tensor in state.items()}, path)
    before = torch.random.get_rng_state()
    other = make_lpips(f"squeeze={path}")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert other.weights == squeeze.weights and other.name == "squeeze, weights other.pth"
    assert len(squeeze.weights) == 16
    changed = {**state, "features.12.squeeze.bias": state["features.12.squeeze.bias"] + 1}
    torch.save(changed, path)
    assert make_lpips(f"squeeze={path}").weights != squeeze.weights


def test_the_published_weights_make_it_lpips(state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torch.save(state, tmp_path / "x")
    digits = hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest()[:8]
    monkeypatch.setitem(module.URLS, "squeeze", f"https://nowhere.invalid/squeezenet1_1-{digits}.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    cached = tmp_path / "checkpoints" / f"squeezenet1_1-{digits}.pth"
    cached.parent.mkdir()
    (tmp_path / "x").rename(cached)
    found = make_lpips("squeeze")
    assert found.name == "squeeze"
    cached.write_bytes(b"half")
    with pytest.raises(ValueError, match=f"{cached}: damaged, its SHA-256 does not begin with {digits}"):
        make_lpips("squeeze")


def test_the_published_names_are_those_of_torchvision():
    from torchvision import models

    weights = (models.AlexNet_Weights, models.VGG16_Weights, models.SqueezeNet1_1_Weights)
    assert list(module.URLS.values()) == [w.IMAGENET1K_V1.value.url for w in weights]


@pytest.mark.parametrize("network", module.URLS)
def test_the_smallest_picture_is_stated(network: str, monkeypatch: pytest.MonkeyPatch):
    for name in ("normal_", "uniform_", "kaiming_uniform_"):  # hundreds of millions of random numbers
        monkeypatch.setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)
    monkeypatch.setattr(module, "_read", lambda _: ({}, ""))
    monkeypatch.setattr(module, "_fill", lambda *_: None)
    model = Lpips(network, "any")
    side = module.SMALLEST[network]
    assert model.features(torch.zeros(1, 3, side, side))[-1].numel() > 0
    with pytest.raises(ValueError, match=rf"31x{side - 1} pixels are too small for LPIPS \({network}\)"):
        model.features(torch.zeros(1, 3, 31, side - 1))
    with pytest.raises(RuntimeError):  # so that the limit is not stricter than the network
        model.model.get_submodule("net")(torch.zeros(1, 3, side - 1, side - 1))


# ---------------------------------------------------------------- files and words that are wrong


def refusal(text: str) -> str:
    with pytest.raises(ValueError) as error:
        make_lpips(text)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("text", ["alexnet", "squeeze=", "", "=x", "vgg19=file.pth"])
def test_other_networks_are_refused(text: str):
    expected = f"--lpips {text}: give alex, vgg, squeeze, or one of them with a file: squeeze=FILE"
    assert refusal(text) == expected
    with pytest.raises(ValueError, match="LPIPS network 'resnet': there are alex, vgg, squeeze"):
        Lpips("resnet")


def test_files_that_are_none_are_refused(tmp_path: Path):
    for name in ("a.pth", "a.safetensors"):
        path = tmp_path / name
        assert refusal(f"squeeze={path}").startswith(f"{path}: cannot be read (No such file")
        for content in (b"", b"<html>not found</html>"):
            path.write_bytes(content)
            assert refusal(f"squeeze={path}").startswith(f"{path}: not a file of tensors")
    path = tmp_path / "a.pth"
    torch.save({"epoch": 3}, path)
    assert refusal(f"squeeze={path}").startswith(f"{path}: holds something else than named tensors")


class Bomb:
    """Runs a command where it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_file_with_code_in_it_is_refused_and_does_not_run(tmp_path: Path):
    path, target = tmp_path / "a.pth", tmp_path / "ran"
    torch.save({"features.0.weight": Bomb(target)}, path)
    assert refusal(f"squeeze={path}").startswith(f"{path}: not a file of tensors")
    assert not target.exists()


def test_weights_of_another_network_are_refused(state: State, tmp_path: Path):
    path = tmp_path / "a.safetensors"
    features = {key: tensor for key, tensor in state.items() if key.startswith("features.")}
    start, end = (
        f"{path}: weights of another network (",
        "; LPIPS (squeeze) needs torchvision's squeezenet1_1",
    )

    def reason(changed: State) -> str:
        save_file(changed, path)
        message = refusal(f"squeeze={path}")
        assert message.startswith(start) and message.endswith(f"){end}")
        return message.removeprefix(start).removesuffix(f"){end}")

    lacking = {key: tensor for key, tensor in features.items() if not key.startswith("features.12.sq")}
    assert reason(lacking) == "2 tensors missing, such as features.12.squeeze.bias"
    more = {**features, "features.13.weight": torch.zeros(1)}
    assert reason(more) == "1 tensors unexpected, such as features.13.weight"
    shaped = {**features, "features.0.bias": torch.zeros(96)}
    assert reason(shaped) == "1 tensors of another shape, such as features.0.bias"
    counted = {**features, "features.0.bias": torch.zeros(64, dtype=torch.int8)}
    assert reason(counted) == "1 tensors not floating-point, such as features.0.bias"
    save_file(features, path)
    make_lpips(f"squeeze={path}")  # a file without the classifier is whole


def test_a_missing_extra_says_how_to_get_it(weights: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    assert refusal(f"squeeze={weights}").endswith("pip install 'dpsims[evaluation]'")


# ---------------------------------------------------------------- fetching


def test_weights_are_fetched_once_whole_or_not_at_all(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    body = bytes(range(256)) * 100
    name = f"squeezenet1_1-{hashlib.sha256(body).hexdigest()[:8]}.pth"
    url = f"{server.url}/models/{name}"
    monkeypatch.setitem(module.URLS, "squeeze", url)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    place = tmp_path / "hub" / "checkpoints" / name
    mend = f"download {url} elsewhere and put it at {place}, or give it with --lpips squeeze=FILE"

    def failure() -> str:
        with pytest.raises(ValueError) as error:
            published_weights("squeeze")
        message = str(error.value)
        assert message.startswith("LPIPS's squeeze network cannot be fetched: ") and "\n" not in message
        assert message.endswith(f"; {mend}")
        assert not any(place.parent.glob("*"))
        return message

    server.files[name] = body
    server.tricks = ["wrong"]
    assert "hash" in failure()
    server.tricks = ["404"]
    assert "404" in failure()
    assert published_weights("squeeze") == place and place.read_bytes() == body
    asked = len(server.ranges)
    assert published_weights("squeeze") == place and len(server.ranges) == asked
    place.unlink()
    url = url.replace(server.url, "http://127.0.0.1:9")  # nobody listens there
    mend = mend.replace(server.url, "http://127.0.0.1:9")
    monkeypatch.setitem(module.URLS, "squeeze", url)
    assert "refused" in failure()
