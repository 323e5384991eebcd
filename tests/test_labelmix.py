import pytest
import torch

from dpsims.labelmix import labelmix, labelmix_loss, toss

K = 3


def batch(pictures: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Label maps with all of 0..K in bands; real pictures are 1, generated ones -1."""
    label = torch.arange(K + 1).repeat_interleave(2).view(1, -1, 1).expand(pictures, -1, 5)
    ones = torch.ones(pictures, 3, 2 * (K + 1), 5)
    return label, ones, -ones


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_class_comes_whole_from_one_side():
    label, real, fake = batch(8)
    mixed, mask = labelmix(label, real, fake, toss(8, K, seeded(0)))
    assert mask.shape == (8, 1, 8, 5) and mask.dtype == torch.bool
    assert torch.equal(mixed, torch.where(mask, 1.0, -1.0).expand(8, 3, 8, 5))
    sides = mask[:, 0].unflatten(1, (K + 1, 2))  # picture, class, its rows, columns
    assert torch.equal(sides.all((2, 3)), sides.any((2, 3)))
    assert len({tuple(s) for s in sides.any((2, 3)).tolist()}) > 2  # coins of each picture's own
    assert sides.any((2, 3)).any(0).all() and not sides.all((2, 3)).all(0).any()  # each class: both sides


def test_coins_are_fair_and_follow_the_seed():
    label, real, fake = batch(500)
    _, mask = labelmix(label, real, fake, toss(len(label), K, seeded(1)))
    share = mask.float().mean((0, 1, 3)).unflatten(0, (K + 1, 2))[:, 0]
    assert (share - 0.5).abs().max() < 0.1  # 500 coins each: 4.5 standard deviations
    assert torch.equal(mask, labelmix(label, real, fake, toss(len(label), K, seeded(1)))[1])
    assert not torch.equal(mask, labelmix(label, real, fake, toss(len(label), K, seeded(2)))[1])


def test_loss_equals_a_hand_computed_case():
    real, fake = torch.zeros(1, 2, 1, 2), torch.full((1, 2, 1, 2), 2.0)
    mask = torch.tensor([[[[True, False]]]])  # the mixture of the logits is 0 left and 2 right
    mixed = torch.tensor([[[[1.0, 2.0]], [[0.0, 5.0]]]])  # off by 1, 0, 0 and 3
    assert labelmix_loss(mixed, real, fake, mask).item() == pytest.approx((1 + 9) / 4)
    assert labelmix_loss(mixed, real, fake, ~mask).item() == pytest.approx((1 + 4 + 4 + 25) / 4)


def test_a_discriminator_that_looks_at_single_pixels_is_consistent():
    label, real, fake = batch()
    mixed, mask = labelmix(label, real, fake, toss(len(label), K, seeded(3)))
    pixelwise = torch.nn.Conv2d(3, K + 1, 1)
    assert labelmix_loss(pixelwise(mixed), pixelwise(real), pixelwise(fake), mask).item() == 0
    wide = torch.nn.Conv2d(3, K + 1, 3, padding=1)  # sees across borders
    assert labelmix_loss(wide(mixed), wide(real), wide(fake), mask) > 1e-4


def test_gradients_reach_all_three_and_only_where_the_mask_takes_from():
    mask = torch.tensor([[[[True, False]]]])
    mixed, real, fake = (torch.randn(1, 2, 1, 2, generator=seeded(s), requires_grad=True) for s in range(3))
    gradients = torch.autograd.grad(labelmix_loss(mixed, real, fake, mask), (mixed, real, fake))
    reached = [g.ne(0).all(1).squeeze().tolist() for g in gradients]
    assert reached == [[True, True], [True, False], [False, True]]


def test_half_precision_logits_are_compared_in_full():
    mask = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    logits = [torch.full((1, 1, 1, 1), v, dtype=torch.bfloat16) for v in (256.0, 1.0, 0.0)]
    assert labelmix_loss(logits[0], logits[1], logits[2], mask).item() == 255**2
