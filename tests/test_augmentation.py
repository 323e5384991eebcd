import pytest
import torch

from dpsims.augmentation import Change, augment, augment_label, draw_changes
from dpsims.config import AUGMENTATIONS, DiscriminatorConfig, Recipe

K = 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 2, height: int = 16, width: int = 24) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=seeded()) * 1.6 - 0.8


def test_nothing_is_changed_where_nothing_is_chosen():
    image = pictures(4)
    changes = draw_changes(4, (), 1.0, seeded())
    assert changes == [Change()] * 4 == draw_changes(4, AUGMENTATIONS, 0.0, seeded())
    assert torch.equal(augment(image, changes), image)


def test_color_against_a_hand_computed_case():
    image = torch.tensor([0.0, 0.3, 0.6]).view(1, 3, 1, 1).expand(1, 3, 1, 2).clone()
    image[..., 1] += 0.2
    changed = augment(image, [Change(brightness=0.1, saturation=0.5, contrast=2.0)])
    # greys are 0.4 and 0.6 after the brightness, their mean 0.5; colours half as far from grey, all twice
    # as far from the mean
    expected = [[0.5 + 2 * (g + 0.5 * d - 0.5) for g in (0.4, 0.6)] for d in (-0.3, 0.0, 0.3)]
    assert torch.allclose(changed, torch.tensor(expected).view(1, 3, 1, 2))


def test_a_moved_picture_takes_its_label_map_along():
    label = torch.randint(0, K, (1, 16, 24), generator=seeded())
    image = label[:, None].expand(1, 3, 16, 24).float() + 1  # shows its label
    change = [Change(shift=(-0.125, 0.0625))]  # 2 up, 2 (of 1.5, rounded) to the right
    moved, map_of_it = augment(image, change), augment_label(label, change, K)
    assert torch.equal(map_of_it[:, :14, 2:], label[:, 2:, :-2])
    assert (map_of_it[:, 14:] == K).all() and (map_of_it[:, :, :2] == K).all()
    assert torch.equal(moved[:, 0], torch.where(map_of_it == K, 0, map_of_it + 1).float())


def test_a_cut_out_is_grey_and_unlabelled():
    label = torch.zeros(1, 16, 24, dtype=torch.int64)
    change = [Change(hole=(0.5, 0.0))]  # at the left edge: half of it is outside
    hole = augment_label(label, change, K) == K
    assert hole.sum() == (16 // 2 - 1) * (24 // 4)  # strictly nearer than a quarter of the height, from 8
    assert torch.equal(augment(pictures(1), change)[0, 0] == 0, hole[0])
    assert (~hole[:, :, 12:]).all()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_changes_pictures_within_its_range_and_lets_gradients_through(name):
    changes = draw_changes(400, (name,), 0.5, seeded())
    share = sum(change != Change() for change in changes) / len(changes)
    assert 0.4 < share < 0.6  # of 400 coins: four standard deviations
    assert all(
        abs(c.brightness) <= 0.5 and 0 <= c.saturation <= 2 and 0.5 <= c.contrast <= 1.5 for c in changes
    )
    assert max(abs(side) for c in changes for side in c.shift) <= 0.125
    used = [c for c in changes if c != Change()][:2]
    image = pictures().requires_grad_()
    (gradient,) = torch.autograd.grad(augment(image, used).square().sum(), image)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0
    assert not torch.equal(augment(image, used), image)


def test_the_seed_decides_and_one_more_name_leaves_the_others_as_they_were():
    assert draw_changes(9, AUGMENTATIONS, 0.5, seeded(1)) == draw_changes(9, AUGMENTATIONS, 0.5, seeded(1))
    assert draw_changes(9, AUGMENTATIONS, 0.5, seeded(1)) != draw_changes(9, AUGMENTATIONS, 0.5, seeded(2))
    color = draw_changes(9, ("color",), 0.5, seeded(1))
    both = draw_changes(9, ("color", "cutout"), 0.5, seeded(1))
    assert [c._replace(hole=None) for c in both] == color


def test_an_unknown_name_is_refused():
    recipe = Recipe(discriminator=DiscriminatorConfig(augmentation=("colour",)))
    with pytest.raises(ValueError, match=r"augmentation=colour: use some of color, translation, cutout"):
        recipe.check()
