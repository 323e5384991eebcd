"""Filtered resampling, padding, grid jitter: off by default, and exact where they are on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml

from dpsims.checkpoint import load_model
from dpsims.config import GeneratorConfig
from dpsims.models.folding import fold
from dpsims.models.generator import Generator
from dpsims.models.layers import Blur, upsample_to
from dpsims.models.tiling import generate_tiled, paint
from dpsims.plain import from_dict
from dpsims.training import train
from dpsims.training.ema import reestimate_batchnorm
from dpsims.training.jitter import draw_shifts, generate_shifted
from dpsims.training.networks import Networks
from tests.test_folding import generator, labels
from tests.test_training import TINY, losses
from tests.test_training_speed import CPU, LOSSES, a_batch, gradients, networks, step

ALL = {"pixel_noise": True, "upsampling": "bilinear", "downsampling": "blur", "padding": "replicate"}


@pytest.mark.parametrize("size", [(3, 4), (1, 7)])
def test_blur_after_nearest_upsampling_is_bilinear(size):
    x = torch.randn(2, 3, *size)
    expected = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    height, width = 2 * size[0] - 1, 2 * size[1]
    found = Blur()(upsample_to(x, (height, width)))
    assert torch.allclose(found, expected[:, :, :height], atol=1e-6)


def test_blurred_downsampling_hears_no_stripes_of_one_pixel():
    stripes = torch.tensor([1.0, -1.0]).repeat(8).expand(1, 1, 16, 16)
    assert Blur()(stripes)[..., 1:-1].abs().max() < 1e-6
    assert torch.allclose(Blur()(torch.ones(1, 2, 5, 5)), torch.ones(1))


@pytest.mark.parametrize("name", ["upsampling", "downsampling", "padding"])
def test_each_changes_the_image_and_no_weight(name):
    plain, other = generator(), generator(**{name: ALL[name]})
    assert plain.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in plain.state_dict().items())
    z = plain.sample_noise(2, torch.Generator().manual_seed(0))
    assert (plain(labels(), z) - other(labels(), z)).abs().mean() > 1e-3


@pytest.mark.parametrize("size", [(18, 23), (1, 9), (16, 16)])
@pytest.mark.parametrize("changes", [*({name: value} for name, value in ALL.items()), ALL], ids=str)
@torch.inference_mode()
def test_folding_and_tiling_change_nothing(changes, size):
    made, label = generator(**changes), labels(*size)
    for parameter in (p for name, p in made.named_parameters() if name.endswith("noise_gain")):
        parameter.fill_(0.3)
    z = made.sample_noise(2, torch.Generator().manual_seed(0))
    expected, folded = made(label, z), fold(made)
    assert (folded(label, z) - expected).abs().max() <= 1e-5
    assert (generate_tiled(made, label, z, 24, 4) - expected).abs().max() <= 1e-5
    keys = made.pixel_keys(z, label.device)
    for part in (made, folded):
        tokens = part.mapping(z)
        guides = [g(h, tokens) for g, h in zip(part.injection, part.encoder(label), strict=True)]
        assert (paint(part, label, guides, 1, keys) - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("name", ["upsampling", "downsampling", "padding"])
def test_bad_values_are_named(name):
    with pytest.raises(ValueError, match=f"{name}='no' should be one of"):
        from_dict(GeneratorConfig, {name: "no"})
    with pytest.raises(ValueError, match=f"{name}=no: use one of"):
        generator(**{name: "no"})


def test_shifts_move_the_map_against_the_grid():
    """Of a network that paints each pixel by itself, nothing changes: all is cropped where it belongs."""
    seen = []

    class EachPixel(Generator):
        def forward(self, label, noise=None):
            seen.append(label)
            return label[:, None].expand(-1, 3, -1, -1).float()

    made = EachPixel(generator().config)
    label, noise = labels(), made.sample_noise(2)
    shifts = torch.tensor([[0, 3], [2, 1]])
    found = generate_shifted(made, label, noise, shifts)
    assert torch.equal(found[:, 0], label.float())
    assert seen[0].shape == (2, 18 + 4, 23 + 4)
    assert torch.equal(seen[0][1, 2:20, 1:24], label[1])
    assert torch.equal(seen[0][1, 0, 1:24], label[1, 0]) and seen[0][0, -1, -1] == label[0, -1, -1]
    drawn = draw_shifts(200, made.config, torch.Generator().manual_seed(0))
    assert drawn.shape == (200, 2) and drawn.unique().tolist() == [0, 1, 2, 3]


def test_whole_cells_of_shift_are_the_same_image_inside():
    """What the grid's place changes is what it should not; a whole cell moves nothing but the edge."""
    made = generator(attention_strides=(), normalisation="pixel").double()  # rounding aside
    label = torch.zeros(1, 160, 160).long()
    label[:, 78:82, 78:82] = 3  # further from the edges than the network sees
    z = made.sample_noise(1, torch.Generator().manual_seed(0))
    base, moved, off = (
        generate_shifted(made, label, z, torch.tensor([[s, s]])) for s in (0, 4, 2)
    )  # 4: a whole cell
    inside = (slice(None), slice(None), slice(76, 84), slice(76, 84))
    assert torch.allclose(base[inside], moved[inside], atol=1e-5)
    assert not torch.allclose(base[inside], off[inside], atol=1e-3)


def test_parts_of_a_batch_add_up_with_jitter():
    whole, divided = (networks() for _ in range(2))
    for of, parts in ((whole, 1), (divided, 2)):
        of.discriminator.eval()
        of.step(a_batch(), LOSSES, "fp32", torch.Generator().manual_seed(1), parts, grid_jitter=True)
    expected, found = gradients(whole), gradients(divided)
    for name, gradient in expected.items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-3 * scale + 1e-7, msg=name)
    plain = step(networks(), a_batch())
    shifted = networks().step(a_batch(), LOSSES, "fp32", torch.Generator().manual_seed(1), grid_jitter=True)[
        0
    ]
    assert shifted["real"] == plain["real"] and shifted["pixel"] != plain["pixel"]


@pytest.mark.parametrize("normalisation", ["instance", "pixel"])
def test_norms_of_one_sample_need_no_reestimation(normalisation):
    """No statistics to measure, no label map read, and in training an image does not depend on its batch."""
    made = generator(normalisation=normalisation).train()
    z = made.sample_noise(2, torch.Generator().manual_seed(0))
    assert torch.allclose(made(labels(), z)[:1], made(labels()[:1], z[:1]), atol=1e-5)

    def never():
        yield pytest.fail("a label map was read")

    measured = reestimate_batchnorm(made, never())
    assert isinstance(measured, Generator) and not measured.training
    assert torch.equal(measured(labels(), z), made.eval()(labels(), z))


def test_a_resumed_run_with_all_of_them_is_the_same_to_the_bit(tmp_path: Path):
    recipe = dataclasses.replace(
        TINY,
        generator=dataclasses.replace(TINY.generator, normalisation="instance", **ALL),
        training=dataclasses.replace(TINY.training, total_images=12, grid_jitter=True, checkpoint_images=4),
    )
    shorter = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, total_images=4))
    train(recipe, tmp_path / "whole")
    train(shorter, tmp_path / "parts")
    train(recipe, tmp_path / "parts")
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    first, second = (load_model(tmp_path / name).generator.state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert all(first[k].any() for k in first if k.endswith("noise_gain"))  # it was learned


def test_a_run_begun_without_the_fields_resumes_with_them_off_only(tmp_path: Path):
    def recipe(images: int, **changes):
        sizes = dataclasses.replace(TINY.generator, **changes)
        return dataclasses.replace(
            TINY, generator=sizes, training=dataclasses.replace(TINY.training, total_images=images)
        )

    run = train(recipe(4), tmp_path / "run")
    values = yaml.safe_load((run / "recipe.yaml").read_text())
    for name in ALL:
        del values["generator"][name]
    del values["training"]["grid_jitter"]
    (run / "recipe.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match=r"holds a run with generator\.padding=zeros, not replicate"):
        train(recipe(8, padding="replicate"), run)
    assert len(losses(train(recipe(8), run))) == 2


def test_all_of_them_train_together_in_bf16():
    recipe = dataclasses.replace(TINY, generator=dataclasses.replace(TINY.generator, **ALL))
    made = Networks.build(recipe.resolved(3), CPU, "bf16")
    terms, _ = made.step(a_batch(), LOSSES, "bf16", torch.Generator().manual_seed(0), grid_jitter=True)
    assert all(term.isfinite() for term in terms.values())
    gains = [p for name, p in made.generator.named_parameters() if name.endswith("noise_gain")]
    assert gains and all(g.grad is not None and g.grad.any() for g in gains)
