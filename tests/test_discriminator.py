import pytest
import torch
from torch import nn

from dpsims.config import BackboneConfig, DiscriminatorConfig
from dpsims.models.discriminator import Discriminator, build_discriminator

RANDOM = BackboneConfig("squeezenet1_1", "random")


def config(**changes) -> DiscriminatorConfig:
    return DiscriminatorConfig(**{"num_classes": 3, "backbone": RANDOM, "channels": (8, 16, 16), **changes})


def images(height: int = 32, width: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("kind", ["dpsims", "oasis"])
@pytest.mark.parametrize("size", [(32, 40), (33, 47)])
def test_logits_of_any_size(kind, size):
    logits = build_discriminator(config(kind=kind))(images(*size))
    assert logits.shape == (2, 4, *size) and logits.isfinite().all()


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("levels", [(), (1, 2), (0, 3)])
def test_scales_and_levels(scale, levels):
    backbone = BackboneConfig("squeezenet1_1", "random", scale, levels)
    assert Discriminator(config(backbone=backbone))(images()).shape == (2, 4, 32, 40)


def test_only_the_backbone_is_frozen_and_gradients_reach_the_image():
    discriminator = Discriminator(config()).train()
    assert not any(p.requires_grad for p in discriminator.backbone.parameters())
    assert not any(m.training for m in discriminator.backbone.modules())
    image = images().requires_grad_()
    discriminator(image).square().sum().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0
    without = [n for n, p in discriminator.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_gradient_reaches_the_image_through_the_backbone_alone():
    discriminator, image = Discriminator(config()), images().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator.features(image)[-1].sum() * 1e3, image)
    assert gradient.abs().sum() > 0


def test_calibration_normalises_real_features_and_stays_fixed():
    discriminator = Discriminator(config(conditioning="calibrated")).train()
    discriminator.calibrate([images(seed=1), images(seed=2)])
    joint = torch.cat([images(seed=1), images(seed=2)])
    features = discriminator.features(joint)
    # channels of a random network may be dead: their deviation is not blown up
    moving = [condition.std > 2e-3 for condition in discriminator.condition]
    assert all(m.any() for m in moving)
    for f, m in zip(features, moving, strict=True):
        assert torch.allclose(f.mean((0, 2, 3))[m], torch.zeros(1), atol=1e-3)
        assert torch.allclose(f.std((0, 2, 3), correction=0)[m], torch.ones(1), atol=1e-3)
    # one image's features do not depend on the batch around it
    for alone, f in zip(discriminator.features(joint[:1]), features, strict=True):
        assert torch.allclose(alone, f[:1], atol=1e-3)


def test_batch_conditioning_uses_the_batch():
    discriminator = Discriminator(config(conditioning="batch")).train()
    alone, joint = discriminator.features(images()[:1]), discriminator.features(images())
    assert not torch.allclose(alone[0], joint[0][:1], atol=1e-2)


@pytest.mark.parametrize("nonlinearity", ["sigmoid", "tanh", "none"])
def test_nonlinearity_is_applied(nonlinearity):
    discriminator = Discriminator(config(conditioning="none", nonlinearity=nonlinearity))
    raw = discriminator.backbone(images())[0]
    expected = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "none": nn.Identity()}[nonlinearity](raw)
    assert torch.equal(discriminator.features(images())[0], expected)


def test_state_without_the_backbone_round_trips():
    torch.manual_seed(0)
    first, second = Discriminator(config()), Discriminator(config())
    state = first.trained_state()
    assert not any(k.startswith("backbone.") for k in state)
    second.load_trained_state(state)
    image = images()
    assert torch.equal(first.eval()(image), second.eval()(image))
    with pytest.raises(ValueError, match="missing"):
        second.load_trained_state({k: v for k, v in state.items() if "to_logits" not in k})


def test_no_classes_is_refused():
    for kind in ("dpsims", "oasis"):
        with pytest.raises(ValueError, match="num_classes=0"):
            build_discriminator(config(kind=kind, num_classes=0))
