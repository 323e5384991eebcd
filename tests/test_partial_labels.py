"""Partly labelled maps, from files through training to pictures; docs/guide.md says what to expect."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dpsims.config import BackboneConfig, DiscriminatorConfig, GeneratorConfig, LossConfig
from dpsims.data import Batch
from dpsims.labels import LabelSpace
from dpsims.models.discriminator import build_discriminator
from dpsims.models.generator import Generator
from dpsims.training.steps import training_step
from tests.conftest import Run

SPACE = LabelSpace(("sky", "road"), ((0, 0, 200), (90, 90, 90)), (3, 7), ignore_id=255)
TINY = [
    "--backbone.name", "scenes_tiny", "--data.height", "32", "--data.width", "40",
    "--generator.channels", "8,8,8", "--generator.attention_strides", "4", "--generator.noise_channels", "4",
    "--generator.token_channels", "8", "--discriminator.channels", "8,8,8,8,8", "--training.batch_size", "4",
    "--training.total_images", "12",
]  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Maps of which some pixels have labels, half of them, or none at all."""
    folder = tmp_path / "photos"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    (folder / "classes.json").write_text(json.dumps(SPACE.to_dict()))
    rng = np.random.default_rng(0)
    for i in range(12):
        label = rng.integers(0, 2, (4, 5)).repeat(8, 0).repeat(8, 1)
        image = SPACE.colorize(label) // 2 + rng.integers(0, 99, (32, 40, 3), dtype=np.uint8)
        label[rng.random(label.shape) < (0.98, 0.5, 1.0)[i % 3]] = SPACE.ignore_index
        Image.fromarray(SPACE.encode_ids(label)).save(folder / "labels" / f"{i:02}.png")
        Image.fromarray(image).save(folder / "images" / f"{i:02}.png")
    return folder


def test_from_check_to_pictures(photos: Path, tmp_path: Path, dpsims: Run):
    code, out, err = dpsims("data", "check", photos)
    assert code == 0, err
    assert "4 label maps" in out and "unlabelled" in out  # those without any label are named
    code, _, err = dpsims("train", "folder", "--data", photos, "--out", tmp_path / "run", *TINY)
    assert code == 0, err
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [v for row in rows for k, v in row.items() if k.startswith("loss_")]
    assert losses and np.isfinite(losses).all()
    maps = sorted((photos / "labels").glob("*.png"))[:3]
    code, _, err = dpsims("generate", tmp_path / "run", *maps, "--out", tmp_path / "out")
    assert code == 0, err
    for file in maps:
        assert np.array(Image.open(tmp_path / "out" / file.name)).std() > 0


def test_a_batch_without_any_label_trains_all_but_the_adversarial_loss():
    torch.manual_seed(0)
    generator = Generator(
        GeneratorConfig(2, channels=(8, 8), attention_strides=(), noise_channels=4, token_channels=8)
    )
    config = DiscriminatorConfig(
        2, BackboneConfig("squeezenet1_1", "random"), channels=(8, 8), conditioning="none"
    )
    discriminator = build_discriminator(config)
    adam = {
        "generator": torch.optim.Adam(generator.parameters()),
        "discriminator": torch.optim.Adam(p for p in discriminator.parameters() if p.requires_grad),
    }
    batch = Batch(torch.rand(2, 3, 32, 32) * 2 - 1, torch.full((2, 32, 32), 2))
    before = [p.clone() for p in discriminator.parameters()]
    rng = torch.Generator().manual_seed(0)
    loss = LossConfig(contrastive_places=8, diversity_fraction=1.0)
    terms, _ = training_step(generator, discriminator, adam, batch, loss, "fp32", rng)
    assert float(terms["pixel"]) == 0 and float(terms["contrastive"]) > 0
    assert all(torch.isfinite(value).all() for value in terms.values())
    assert all(torch.isfinite(p).all() for p in generator.parameters())
    # the discriminator has nothing to learn from it
    assert all(float(terms[name]) == 0 for name in ("real", "fake", "discriminator"))
    assert all(torch.equal(a, b) for a, b in zip(before, discriminator.parameters(), strict=True))


def test_what_the_generator_paints_depends_on_where_labels_are():
    torch.manual_seed(0)
    generator = Generator(
        GeneratorConfig(2, channels=(8, 8), attention_strides=(), noise_channels=4, token_channels=8)
    ).eval()
    noise = generator.sample_noise(1)
    label = torch.zeros(1, 32, 32, dtype=torch.int64)
    partly, other = label.clone(), label.clone()
    partly[:, :, 16:], other[:, :, 16:] = 2, 1
    with torch.no_grad():
        whole, part, two = (generator(x, noise) for x in (label, partly, other))
    assert torch.isfinite(part).all()
    for picture in (whole, two):  # unlabelled is neither of the classes
        assert (picture[..., 20:] - part[..., 20:]).abs().mean() > 1e-3
