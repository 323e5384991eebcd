"""The contract that every backbone keeps, over all families."""

import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from dpsims.config import BackboneConfig
from dpsims.models import scenes_tiny
from dpsims.models.backbones import BACKBONES, Backbone, load_backbone

timm = pytest.importorskip("timm")

SHARED = Path(__file__).resolve().parents[2] / "shared"
OWN = {"mobilenet_v2": 5, "squeezenet1_1": 4, "scenes_tiny": 5}  # name -> number of levels
TIMM = {
    "convnext_atto": 4,
    "efficientnet_b0": 5,
    "resnet10t": 5,
    "tf_efficientnet_lite0": 5,
    "swin_tiny_patch4_window7_224": 4,
    "vit_tiny_patch16_224": 4,
    "vit_small_patch14_dinov2": 4,
    "vit_xsmall_patch16_clip_224": 4,
    "hiera_tiny_224": 4,  # takes one size only
}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
every_family = pytest.mark.parametrize("name", [*OWN, *TIMM])


@functools.cache
def random_backbone(name: str, scale: float = 1.0, levels: tuple[int, ...] = ()) -> Backbone:
    return load_backbone(BackboneConfig(name, "random", scale, levels))


def picture(height: int, width: int, batch: int = 1) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def check_sizes(backbone: Backbone, features: list[Tensor], height: int, width: int) -> None:
    assert len(features) == len(backbone.channels) == len(backbone.strides)
    for feature, channels, stride in zip(features, backbone.channels, backbone.strides, strict=True):
        assert feature.dtype == torch.float32
        assert feature.shape[1:] == (channels, math.ceil(height / stride), math.ceil(width / stride))
        assert feature.std() > 0


# The contract


def test_own_names() -> None:
    assert set(BACKBONES) == set(OWN)


@every_family
@pytest.mark.parametrize(("height", "width"), [(64, 80), (67, 93)])
def test_sizes_are_the_nominal_ones(name: str, height: int, width: int) -> None:
    backbone, image = random_backbone(name), picture(height, width, 2)
    before = image.clone()
    with torch.no_grad():
        features = backbone(image)
    assert torch.equal(image, before)
    assert len(features) == {**OWN, **TIMM}[name]
    assert list(backbone.strides) == [2**i for i in range(1, 6)][-len(features) :] or name == "squeezenet1_1"
    check_sizes(backbone, features, height, width)


@every_family
def test_frozen_but_differentiable(name: str) -> None:
    backbone = random_backbone(name)
    holder = torch.nn.ModuleList([backbone]).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    assert holder.training and not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    image = picture(64, 80).requires_grad_()
    for level, feature in enumerate(backbone(image)):
        weight = torch.linspace(-1, 1, feature.numel()).view(
            feature.shape
        )  # a mean would be blind to a LayerNorm
        (gradient,) = torch.autograd.grad((feature * weight).sum(), image, retain_graph=True)
        assert gradient.isfinite().all(), level
        assert (gradient != 0).float().mean() > 0.3, level
    after = backbone.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def expected_statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if name == "scenes_tiny":
        return scenes_tiny.MEAN, scenes_tiny.STD
    if name in OWN:
        return IMAGENET
    config = timm.get_pretrained_cfg(name)
    return config.mean, config.std


@every_family
def test_preprocessing_is_the_networks_own(name: str) -> None:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in expected_statistics(name))
    backbone = random_backbone(name)
    assert torch.equal(backbone.mean, mean) and torch.equal(backbone.std, std)
    for deviations in (0.0, 1.0):  # mean colour -> 0, a deviation brighter -> 1, numerically
        image = ((mean + deviations * std) * 2 - 1).expand(1, 3, 64, 80)
        torch.testing.assert_close(
            backbone.preprocess(image), torch.full_like(backbone.preprocess(image), deviations)
        )


def test_statistics_differ_between_networks() -> None:
    """So that the tests above would see one table being used for all."""
    names = ("vit_tiny_patch16_224", "vit_small_patch14_dinov2", "vit_xsmall_patch16_clip_224")
    assert len({expected_statistics(name) for name in names}) == 3


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_1", "test_convnext"])
def test_scale_makes_levels_finer(name: str) -> None:
    once, twice = random_backbone(name), random_backbone(name, scale=2.0)
    assert twice.strides == tuple(stride // 2 for stride in once.strides)
    image = picture(33, 46)
    check_sizes(twice, twice(image), 33, 46)
    enlarged = F.interpolate(image, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(twice.preprocess(image), once.preprocess(enlarged))


def test_scale_of_a_plain_transformer() -> None:
    backbone = random_backbone("test_vit", scale=2.0)
    assert backbone.strides == (2, 4, 8, 16)
    assert backbone.preprocess(picture(33, 46)).shape[-2:] == (80, 96)  # twice, and up to the next patch
    check_sizes(backbone, backbone(picture(33, 46)), 33, 46)


@pytest.mark.parametrize(
    "name", ["mobilenet_v2", "squeezenet1_1", "test_convnext", "test_vit", "inception_v3"]
)
def test_small_pictures_are_enlarged_to_the_minimum(name: str) -> None:
    backbone = random_backbone(name)
    check_sizes(backbone, backbone(picture(9, 14)), 9, 14)
    assert min(backbone.preprocess(picture(9, 14)).shape[-2:]) >= (16 if name == "test_vit" else 32)


def test_fixed_size_network_gets_its_size() -> None:
    assert random_backbone("hiera_tiny_224").preprocess(picture(64, 80)).shape[-2:] == (224, 224)


@pytest.mark.parametrize("name", ["test_convnext", "test_resnet"])
def test_padding_leaves_features_in_place(name: str) -> None:
    """Right of the picture lies its last column, and the picture's own features stay aligned."""
    backbone, image = random_backbone(name), picture(64, 80)
    whole = backbone(F.pad(image, (0, 16, 0, 0), mode="replicate"))
    for feature, padded in zip(backbone(image), whole, strict=True):
        torch.testing.assert_close(feature, padded[..., : feature.shape[-1]])


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_1", "scenes_tiny", "test_resnet", "test_vit"])
def test_levels_are_a_subset(name: str) -> None:
    whole = random_backbone(name)
    some = random_backbone(name, levels=(1, 2))
    assert (some.channels, some.strides) == (whole.channels[1:3], whole.strides[1:3])
    image = picture(64, 80)
    for feature, expected in zip(some(image), whole(image)[1:3], strict=True):
        torch.testing.assert_close(feature, expected)


@pytest.mark.parametrize("name", ["mobilenet_v2", "scenes_tiny", "test_vit"])
@pytest.mark.parametrize("levels", [(5,), (-1,), (1, 0), (2, 2)])
def test_wrong_levels(name: str, levels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"backbone.levels=.*has levels 0\.\.[34]"):
        load_backbone(BackboneConfig(name, "random", levels=levels))


@pytest.mark.parametrize("scale", [0.0, 0.5, math.inf, math.nan])
def test_wrong_scale(scale: float) -> None:
    with pytest.raises(ValueError, match="backbone.scale="):
        load_backbone(BackboneConfig("squeezenet1_1", "random", scale))


def test_scale_finer_than_the_picture() -> None:
    with pytest.raises(ValueError, match=r"--backbone.levels \[1, 2, 3\]"):
        load_backbone(BackboneConfig("squeezenet1_1", "random", 4.0))
    backbone = load_backbone(BackboneConfig("squeezenet1_1", "random", 4.0, (1, 2, 3)))
    check_sizes(backbone, backbone(picture(20, 24)), 20, 24)


def test_features_are_float32_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = random_backbone("test_convnext")(picture(64, 80).bfloat16())
    assert all(feature.dtype == torch.float32 for feature in features)


# Names


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("mobilenet_v22", "mobilenet_v2"),
        ("convnext_lage", "convnext_large"),
        ("resnet18.nonsense", "resnet18.a1_in1k"),
    ],
)
def test_unknown_name_suggests(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"backbone.name={name}: unknown.*{near}"):
        load_backbone(BackboneConfig(name, "random"))


def test_network_without_a_pyramid() -> None:
    with pytest.raises(ValueError, match="crossvit_tiny_240: gives no feature pyramid"):
        load_backbone(BackboneConfig("crossvit_tiny_240", "random"))


# Real weights


def real_file(name: str) -> Path:
    path = SHARED / "weights" / f"{name}_imagenet.safetensors"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    return path


def street(height: int, width: int) -> Tensor:
    folder = SHARED / "data" / "camvid"
    photo = next(folder.rglob("test/images/*"), None)
    if photo is None:
        pytest.skip(f"no picture in {folder}")
    with Image.open(photo) as file:
        image = pil_to_tensor(file.convert("RGB").resize((width, height)))
    return image[None].float() / 127.5 - 1


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_1"])
def test_real_weights_give_torchvisions_features(name: str) -> None:
    path, image = real_file(name), street(128, 160)
    backbone = load_backbone(BackboneConfig(name, str(path)))
    whole: Any = torchvision.models.get_model(name, weights=None)
    whole.load_state_dict({k: v.float() for k, v in load_file(path).items()}, strict=False)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in IMAGENET)
    end = 18 if name == "mobilenet_v2" else 13
    with torch.no_grad():
        expected = whole.eval().features[:end](((image + 1) / 2 - mean) / std)
        features, untrained = backbone(image), random_backbone(name)(image)
    if name == "squeezenet1_1":  # a pixel short of the nominal size
        expected = F.interpolate(expected, size=features[-1].shape[-2:], mode="bilinear")
    torch.testing.assert_close(features[-1], expected, rtol=1e-3, atol=1e-4)
    for feature, noise in zip(features, untrained, strict=True):
        assert (feature - noise).abs().mean() > 0.5 * feature.abs().mean()


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet10t", "scenes_tiny"])
def test_activations_of_random_networks_do_not_fade(name: str):
    backbone = load_backbone(BackboneConfig(name, "random"))
    assert not any(module.training for module in backbone.modules())
    for features in backbone(torch.rand(2, 3, 64, 80, generator=torch.Generator().manual_seed(0)) * 2 - 1):
        assert features.std() > 0.05
