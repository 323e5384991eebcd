"""Noise of each pixel: a function of (z, level, place), the same however an image is computed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from dpsims.checkpoint import Model, load_model, save_model
from dpsims.config import GeneratorConfig, Recipe
from dpsims.export import export_model
from dpsims.exported import ExportedSynthesizer
from dpsims.graphs import exported_program
from dpsims.labels import LabelSpace
from dpsims.models.folding import fold
from dpsims.models.generator import Generator, RegionNoise
from dpsims.models.pixel_noise import PixelKeys, noise_map, pixel_keys
from dpsims.models.tiling import generate_tiled, paint
from dpsims.modes import Mode
from dpsims.plain import from_dict, to_dict
from dpsims.synthesis import Synthesizer
from tests.test_folding import generator, labels

FIVE = LabelSpace(tuple("abcde"), tuple((i, i, i) for i in range(5)), tuple(range(5)), ignore_id=255)
PINNED = [[0.174909, -0.753528, 1.489687], [-1.031665, -0.932330, 1.491482]]


def grainy(gain: float = 0.5, **changes) -> Generator:
    """With pixel noise that is heard: its gain starts at zero."""
    made = generator(pixel_noise=True, **changes)
    for name, parameter in made.named_parameters():
        if name.endswith("noise_gain"):
            torch.nn.init.constant_(parameter, gain)
    return made


def some_noise(of: Generator, batch: int = 2, **more) -> torch.Tensor:
    return of.sample_noise(batch, torch.Generator().manual_seed(4), **more)


def keys(batch: int) -> PixelKeys:
    return pixel_keys(torch.randn(batch, 2, 8, generator=torch.Generator().manual_seed(1)))


def test_it_is_standard_normal_and_white():
    noise = noise_map(keys(16), 0, (64, 64))[:, 0]
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02 and abs(noise.pow(4).mean() - 3) < 0.15
    others = {
        "next column": (noise[..., 1:], noise[..., :-1]),
        "next row": (noise[:, 1:], noise[:, :-1]),
        "8 pixels on": (noise[:, 8:, 8:], noise[:, :-8, :-8]),
        "next image": (noise[1:], noise[:-1]),
        "next level": (noise, noise_map(keys(16), 1, (64, 64))[:, 0]),
    }
    for name, (a, b) in others.items():
        assert abs((a * b).mean()) < 0.02, name  # 4 to 5 standard deviations


def test_it_is_what_it_was():
    """Pinned: other numbers would change the images of trained models."""
    z = torch.arange(16.0).view(1, 2, 8) / 4
    found = noise_map(pixel_keys(z), 1, (5000, 3), (4998, 5000))[0, 0]
    assert torch.allclose(found, torch.tensor(PINNED), atol=1e-5), found


def test_rows_are_cut_from_the_plane_and_a_plane_from_a_larger_one():
    whole = noise_map(keys(2), 1, (30, 20))
    assert torch.equal(noise_map(keys(2), 1, (30, 20), (7, 19)), whole[:, :, 7:19])
    assert torch.equal(noise_map(keys(2), 1, (11, 13)), whole[:, :, :11, :13])


def test_a_region_has_its_own_keys_noise():
    z = torch.randn(2, 3, 2, 8)
    region = labels(12, 10) // 2
    mixed = noise_map(pixel_keys(RegionNoise(z, region)), 0, (12, 10))[:, 0]
    for r in range(3):
        own = noise_map(pixel_keys(z[:, r]), 0, (12, 10))[:, 0]
        assert torch.equal(mixed[region == r], own[region == r])


def test_off_by_default_without_parameters_and_older_models_load(tmp_path: Path):
    plain = generator()
    assert not any("noise_gain" in name for name in plain.state_dict())
    values = to_dict(plain.config)
    del values["pixel_noise"]
    assert from_dict(GeneratorConfig, values) == plain.config
    with pytest.raises(ValueError, match="pixel_noise='loud' should be true or false"):
        from_dict(GeneratorConfig, {"pixel_noise": "loud"})
    save_model(Model(grainy(), FIVE, 16, 16, {}), tmp_path)
    loaded = load_model(tmp_path).generator
    z = some_noise(grainy())
    assert torch.equal(loaded(labels(), z), grainy()(labels(), z))


def test_baselines_name_it_as_ignored():
    recipe = Recipe()
    recipe.generator = dataclasses.replace(recipe.generator, kind="oasis", pixel_noise=True)
    assert any("pixel_noise=True is ignored" in note for note in recipe.ignored())


def test_the_gain_starts_at_zero_and_has_a_gradient():
    made, z = grainy(gain=0), some_noise(generator())
    assert torch.equal(made(labels(), z), generator()(labels(), z))
    made.train()
    made(labels(), z).square().sum().backward()
    gains = [p for name, p in made.named_parameters() if name.endswith("noise_gain")]
    assert len(gains) == 3 and all(g.grad is not None and g.grad.abs().min() > 0 for g in gains)


@torch.inference_mode()
def test_batches_change_nothing():
    made, z, label = grainy(), some_noise(grainy(), 3), labels(batch=3)
    whole = made(label, z)
    assert not torch.allclose(whole, generator()(label, z), atol=0.01)  # it is heard
    for i in range(3):
        assert torch.allclose(made(label[i : i + 1], z[i : i + 1]), whole[i : i + 1], atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"normalisation": "instance"}, {"modulation_kernel": 1}], ids=str)
@torch.inference_mode()
def test_folded_it_is_the_same(changes):
    made, z = grainy(**changes), some_noise(grainy())
    assert (fold(made)(labels(), z) - made(labels(), z)).abs().max() <= 1e-5


@pytest.mark.parametrize("folded", [False, True])
@torch.inference_mode()
def test_strips_and_windows_see_the_same_noise(folded):
    made, label = grainy(), labels(41, 23)
    made = fold(made) if folded else made
    z = some_noise(made)
    regions = RegionNoise(some_noise(made, regions=3), label // 2)
    for noise in (z, regions):
        expected = made(label, noise)
        pixel = made.pixel_keys(noise, label.device)
        tokens = made._tokens(noise, label)
        guides = [g(h, tokens) for g, h in zip(made.injection, made.encoder(label), strict=True)]
        for strip in (1, 2 * 8 * 23 * 6, 10**9):
            assert (paint(made, label, list(guides), strip, pixel) - expected).abs().max() <= 1e-5
        assert (generate_tiled(made, label, noise, 44, 4) - expected).abs().max() <= 1e-5


@torch.inference_mode()
def test_one_region_everywhere_is_plain_noise_and_resampling_stays_in_its_region():
    made, label = grainy(attention_strides=()), labels(16, 128, 1)
    z = some_noise(made, 1, regions=2)
    alone = RegionNoise(z[:, :1], torch.zeros_like(label))
    assert torch.allclose(made(label, alone), made(label, z[:, 0]), atol=1e-5)
    region = torch.zeros_like(label)
    region[:, :, 64:] = 1
    other = torch.stack([z[:, 0], z[:, 1].flip(-1)], 1)
    change = (made(label, RegionNoise(z, region)) - made(label, RegionNoise(other, region))).abs()
    assert change[..., :32].max() == 0 and change[..., 64:].mean() > 1e-3


@pytest.mark.parametrize("mode", [Mode(), Mode(fold=False), Mode(precision="bf16")], ids=str)
def test_the_synthesizer_gives_one_image_each_way(mode):
    model = Model(grainy(gain=0.1), FIVE, 16, 16, {})
    synthesizer, label = Synthesizer(model, "cpu", mode), labels(batch=1)
    expected = Synthesizer(model, "cpu", Mode(fold=False)).generate(label.expand(3, -1, -1), seed=2, first=1)
    limit = 1e-5 if mode.precision == "fp32" else 0.05  # other noise would differ by more
    z = synthesizer.noise(3, 2, 1)
    for found in (
        synthesizer.generate_samples(label, 3, seed=2, first=1),
        synthesizer.generate(label.expand(3, -1, -1), noise=z),
        synthesizer.generate_numbered(label.expand(3, -1, -1), [1, 2, 3], seed=2),
        synthesizer.generate_tiled(label.expand(3, -1, -1), noise=z, window=24, overlap=4),
    ):
        assert (found - expected).abs().max() <= limit


def test_exported_files_have_the_same_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = Model(grainy(gain=0.2, channels=(8, 8)), FIVE, 16, 20, {})
    assert isinstance(model.generator, Generator)
    program = exported_program(model.generator)  # once: it takes most of the time
    for module in ("graphs", "export"):
        monkeypatch.setattr(f"dpsims.{module}.exported_program", lambda generator: program)
    plain = Synthesizer(model, "cpu")
    limits = {"a.onnx": 1e-5, "half.onnx": 0.01, "a.pt2": 1e-5, "a.xml": 1e-5, "half.xml": 0.01}
    for name, limit in limits.items():
        parity = export_model(model, tmp_path / name, precision="fp16" if "half" in name else "fp32")
        assert parity.largest <= limit, name
        exported = ExportedSynthesizer(tmp_path / name, threads=1)
        for shape in ((9, 14, 3), (33, 17, 1)):
            found = exported.generate(labels(*shape), seed=3, first=5)
            assert (found - plain.generate(labels(*shape), seed=3, first=5)).abs().max() <= limit, name
