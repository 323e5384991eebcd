"""Generators and discriminators of all kinds: trained by the same loop, saved, loaded, used alike."""

import dataclasses
import itertools
import math
from pathlib import Path

import pytest
import torch

from dpsims.checkpoint import load_model
from dpsims.config import GeneratorConfig
from dpsims.data import Batch
from dpsims.export import export_model
from dpsims.models.generator import build_generator
from dpsims.models.spade import OasisGenerator, SpadeGenerator
from dpsims.synthesis import Synthesizer
from dpsims.training import train
from dpsims.training.ema import GeneratorAverage, reestimate_batchnorm
from dpsims.training.steps import real_probability
from tests.test_training import TINY, rows
from tests.test_training_speed import networks

KINDS = {"dpsims": (8, 16), "oasis": (4, 8), "spade": (4, 8)}


def recipe_of(generator: str, discriminator: str, **losses):
    sizes = {"kind": generator, "channels": KINDS[generator], "hidden_channels": 4}
    losses = {"diversity_weight": 0.0, **losses} if generator == "spade" else losses
    return dataclasses.replace(
        TINY,
        generator=dataclasses.replace(TINY.generator, **sizes),
        discriminator=dataclasses.replace(TINY.discriminator, kind=discriminator),
        losses=dataclasses.replace(TINY.losses, labelmix_weight=1.0, **losses),
        training=dataclasses.replace(TINY.training, total_images=8),
    )


@pytest.mark.parametrize(("generator", "discriminator"), list(itertools.product(KINDS, ("dpsims", "oasis"))))
def test_every_pair_trains_and_its_generator_is_usable(generator, discriminator, tmp_path: Path):
    run = train(recipe_of(generator, discriminator), tmp_path / "run")
    step = rows(run)[0]
    assert step["loss_labelmix"] > 0
    assert ("loss_diversity" in step) == (generator != "spade")
    assert ("loss_contrastive" in step) == (discriminator == "dpsims")
    model = load_model(run)
    assert model.generator.config.kind == generator
    label = torch.randint(0, model.space.num_classes, (1, 17, 22))
    synthesizer = Synthesizer(model)
    first, other = (synthesizer.generate(label, seed=seed) for seed in (0, 1))
    assert first.shape == (1, 3, 17, 22)
    assert torch.equal(first, other) == (generator == "spade")
    assert torch.allclose(synthesizer.generate_samples(label, 2)[:1], first, atol=1e-5)


def test_resumed_oasis_has_the_losses_of_one_never_stopped(tmp_path: Path):
    recipe = recipe_of("oasis", "oasis")
    half = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, total_images=4))
    train(recipe, tmp_path / "whole")
    train(half, tmp_path / "parts")
    train(recipe, tmp_path / "parts")
    found = (
        [r["loss_generator"] for r in rows(tmp_path / name) if "images" in r and "loss_generator" in r]
        for name in ("whole", "parts")
    )
    assert len(set(map(tuple, found))) == 1


def test_what_a_baseline_cannot_do_is_said(tmp_path: Path):
    model = load_model(train(recipe_of("oasis", "oasis"), tmp_path / "run"))
    with pytest.raises(ValueError, match=r"generator\.kind=oasis: only kind dpsims can be tiled"):
        Synthesizer(model).generate_tiled(torch.zeros(1, 32, 32, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"generator\.kind=oasis: a baseline cannot be exported"):
        export_model(model, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_spade_with_a_diversity_loss_is_refused():
    recipe = recipe_of("spade", "dpsims", diversity_weight=10.0)
    with pytest.raises(ValueError, match=r"losses\.diversity_weight=10\.0: generator\.kind=spade"):
        recipe.check()


def test_settings_that_a_kind_does_not_read_are_told():
    recipe = recipe_of("oasis", "oasis")
    recipe.generator.noise_tokens = 3
    assert any("generator.noise_tokens=3 is ignored" in line for line in recipe.ignored())
    recipe = recipe_of("dpsims", "dpsims")
    assert any("generator.hidden_channels=4 is ignored" in line for line in recipe.ignored())


def test_build_generator_gives_the_kind_that_is_named():
    for kind, of in {"oasis": OasisGenerator, "spade": SpadeGenerator}.items():
        config = GeneratorConfig(3, kind, channels=(4, 8))  # pyright: ignore[reportArgumentType]
        assert type(build_generator(config)) is of


@pytest.mark.parametrize(("normalisation", "batches"), [("batch", 1), ("pixel", 0)])
def test_spectral_norms_of_an_average_are_those_of_its_weights(normalisation, batches):
    torch.manual_seed(0)
    config = GeneratorConfig(3, "oasis", channels=(4, 8), hidden_channels=4, normalisation=normalisation)
    generator = build_generator(config)
    average = GeneratorAverage(generator, 100)
    label = torch.randint(0, 4, (2, 8, 8))
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(torch.randn(parameter.shape))
        generator(label)  # in train mode: its vectors become others, the average's are neither's
    average.update(generator, 4, 10_000)
    measured = reestimate_batchnorm(average.average, [label] * batches)
    assert isinstance(measured, OasisGenerator)
    for block in measured.image_network.stages.modules():
        if isinstance(block, torch.nn.Conv2d) and hasattr(block, "parametrizations"):
            largest = torch.linalg.matrix_norm(block.weight.flatten(1), ord=2)
            assert largest.item() == pytest.approx(1.0, abs=0.05)


def test_the_watch_on_real_pictures_changes_nothing_and_sees_what_is_there():
    discriminator = networks("oasis").discriminator
    image, label = torch.rand(2, 3, 16, 16) * 2 - 1, torch.randint(0, 4, (2, 16, 16))
    before = {k: v.clone() for k, v in discriminator.state_dict().items()}
    found = real_probability(discriminator, [Batch(image, label)], "fp32")
    assert all(torch.equal(v, before[k]) for k, v in discriminator.state_dict().items())
    assert all(m.training for m in discriminator.modules())
    discriminator.eval()
    chances = discriminator(image).softmax(1)
    right = [
        chances[b, label[b, y, x] + 1, y, x].item()
        for b in range(2)
        for y in range(16)
        for x in range(16)
        if label[b, y, x] < 3
    ]
    assert found == pytest.approx(sum(right) / len(right), abs=1e-5)
    unlabelled = [Batch(image, torch.full_like(label, 3))]
    assert math.isnan(real_probability(discriminator, unlabelled, "fp32"))


@pytest.mark.parametrize(("field", "value"), [("kind", "oasis"), ("conditioning", "none")])
def test_diversity_in_features_without_comparable_features_is_rejected(field, value):
    recipe = recipe_of("dpsims", "dpsims", diversity_space="features", diversity_weight=10.0)
    setattr(recipe.discriminator, field, value)
    with pytest.raises(ValueError, match=rf"diversity_space=features: discriminator\.{field}={value}"):
        recipe.check()
    recipe.losses.diversity_space = "pixels"
    recipe.check()
