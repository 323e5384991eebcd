import math

import pytest
import torch
import torch.nn.functional as F

from dpsims.config import BackboneConfig, DiscriminatorConfig, GeneratorConfig
from dpsims.losses import (
    class_counts,
    class_weights,
    contrastive_loss,
    diversity_loss,
    fake_loss,
    focal,
    real_loss,
)
from dpsims.models.discriminator import Discriminator
from dpsims.models.generator import Generator

K = 3


def some_logits(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, K + 1, 4, 5, generator=torch.Generator().manual_seed(seed)) * 2


def some_labels(high: int = K, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, high, (2, 4, 5), generator=torch.Generator().manual_seed(seed))


def test_focal_at_gamma_zero_is_cross_entropy():
    logits, target = some_logits(), some_labels(K + 1)
    assert torch.allclose(focal(logits, target, 0.0), F.cross_entropy(logits, target, reduction="none"))


def test_focal_against_the_formula():
    logits, target = some_logits(), some_labels(K + 1)
    p = logits.softmax(1).gather(1, target[:, None])[:, 0]
    assert torch.allclose(focal(logits, target, 2.0), -((1 - p) ** 2) * p.log(), atol=1e-6)


def test_focal_is_finite_where_the_discriminator_is_certain():
    logits = torch.tensor([200.0, -200.0, 0.0, 0.0]).view(1, 4, 1, 1).requires_grad_()
    for c in range(4):
        loss = focal(logits, torch.full((1, 1, 1), c), 2.0).sum()
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite() and gradient.isfinite().all()


def test_class_weights_equal_a_hand_computed_case():
    # 8 labelled pixels of two classes out of three: 6 of class 0, 2 of class 2; one unlabelled
    label = torch.tensor([[[0, 0, 0], [0, 0, 0], [2, 2, K]]])
    weight = class_weights(label, class_counts(label, K))
    assert torch.allclose(weight[label == 0], torch.tensor(8 / (2 * 6)))
    assert torch.allclose(weight[label == 2], torch.tensor(8 / (2 * 2)))
    assert weight[label == K].eq(0).all()
    assert weight.sum() == pytest.approx(8)


def test_real_loss_equals_a_hand_computed_case():
    # uniform logits: every pixel's loss is log 4, and weights average to 1
    assert real_loss(torch.zeros(2, K + 1, 4, 5), some_labels()).item() == pytest.approx(math.log(4))
    logits = torch.zeros(1, 2 + 1, 1, 2)
    logits[0, 1, 0, 0] = 5.0  # sure, and right, of class 0 in the first pixel; the second is class 1
    first, second = -math.log(math.exp(5) / (math.exp(5) + 2)), math.log(3)
    assert real_loss(logits, torch.tensor([[[0, 1]]])).item() == pytest.approx((first + second) / 2)


def test_label_smoothing_moves_the_target_towards_fake():
    logits, label = torch.zeros(1, 3, 1, 2), torch.tensor([[[0, 1]]])
    logits[:, 0] = 3.0
    assert real_loss(logits, label, smoothing=0.2) < real_loss(logits, label)
    assert real_loss(logits, label, smoothing=1.0).item() == pytest.approx(fake_loss(logits, label).item())


@pytest.mark.parametrize("loss", [real_loss, fake_loss])
def test_unlabelled_pixels_have_no_influence(loss):
    label = some_labels(K + 1)
    assert (label == K).any()
    logits = some_logits().requires_grad_()
    other = torch.where((label == K)[:, None], some_logits(7), logits)
    assert torch.equal(loss(logits, label, 2.0), loss(other, label, 2.0))
    (gradient,) = torch.autograd.grad(loss(logits, label, 2.0), logits)
    unlabelled = (label == K)[:, None].expand_as(gradient)
    assert gradient[unlabelled].eq(0).all() and gradient[~unlabelled].ne(0).any()


@pytest.mark.parametrize("loss", [real_loss, fake_loss])
def test_a_batch_without_labels_gives_zero_not_nan(loss):
    assert loss(some_logits(), torch.full((2, 4, 5), K), 2.0).item() == 0


def test_contrastive_loss_prefers_the_same_place():
    features = [torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))]
    moved = [features[0].roll(1, dims=3)]
    same, other = (contrastive_loss(f, features, 16, 0.1).item() for f in (features, moved))
    assert same < 0.1 < other


def test_contrastive_loss_of_equal_features_is_log_of_the_places():
    flat = [torch.ones(2, 8, 4, 4)]
    assert contrastive_loss(flat, flat, 10, 0.3).item() == pytest.approx(math.log(10))


def test_fake_loss_with_class_weights_equals_a_hand_computed_case():
    # three labelled pixels, two of class 0 and one of class 2: weights 3/4, 3/4, 3/2; p(fake) 1/2, 1/2, 1/4
    label = torch.tensor([[[0, 0], [2, K]]])
    p = torch.tensor([[[0.5, 0.5], [0.25, 0.9]]])
    logits = torch.stack([p.log()] + [((1 - p) / K).log()] * K, 1)
    expected = (0.75 * 2 * math.log(2) + 1.5 * math.log(4)) / 3
    assert fake_loss(logits, label, weighted=True).item() == pytest.approx(expected)
    assert fake_loss(logits, label).item() == pytest.approx((2 * math.log(2) + math.log(4)) / 3)


def test_diversity_loss_counts_levels_alike():
    noise = torch.zeros(1, 1, 4)
    first = [torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 2, 2)]
    second = [x + d for x, d in zip(first, (0.1, 0.3), strict=True)]
    assert diversity_loss(first, second, noise, noise + 1, 0.3).item() == pytest.approx(0.1)


def test_diversity_loss_is_a_hinge_on_relative_distance():
    one, noise = torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4)
    other = torch.full_like(one, 0.1)
    assert diversity_loss([one], [one], noise, noise + 1, 0.3).item() == pytest.approx(0.3)
    assert diversity_loss([one], [other], noise, noise + 1, 0.3).item() == pytest.approx(0.2)
    assert diversity_loss([one], [other], noise, noise + 2, 0.3).item() == pytest.approx(0.25)
    assert diversity_loss([one], [other], noise, noise + 0.1, 0.3).item() == 0


@pytest.mark.parametrize("term", ["pixel", "contrastive", "diversity"])
def test_each_term_alone_gives_the_generator_a_gradient(term):
    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(K, channels=(8, 16), attention_strides=(2,), noise_channels=8))
    backbone = BackboneConfig("squeezenet1_1", "random")
    discriminator = Discriminator(DiscriminatorConfig(K, backbone, channels=(8, 8)))
    label, noise = some_labels().repeat_interleave(8, 1).repeat_interleave(8, 2), generator.sample_noise(2)
    fake = generator(label, noise)
    real = torch.rand_like(fake) * 2 - 1
    loss = {
        "pixel": lambda: real_loss(discriminator(fake), label, 2.0),
        "contrastive": lambda: contrastive_loss(
            discriminator.features(fake), discriminator.features(real), 8, 0.3
        ),
        "diversity": lambda: diversity_loss([fake[:1]], [generator(label[:1])], noise[:1], noise[1:], 0.5),
    }[term]()
    loss.backward()
    without = [n for n, p in generator.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []
