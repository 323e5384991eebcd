import dataclasses
import itertools
import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from dpsims.checkpoint import best_checkpoint, checkpoint_to_use, checkpoints, load_model, read_json
from dpsims.config import (
    BackboneConfig,
    DataConfig,
    DiscriminatorConfig,
    EvaluationConfig,
    GeneratorConfig,
    LossConfig,
    Recipe,
    TrainingConfig,
)
from dpsims.models.generator import Generator
from dpsims.plain import to_dict
from dpsims.training import TrainingStopped, log, loop, train
from dpsims.training.ema import GeneratorAverage, reestimate_batchnorm
from dpsims.training.log import HISTORY, Health
from dpsims.training.steps import pick_precision

TINY = Recipe(
    DataConfig("scenes", height=16, width=24, size=12),
    BackboneConfig("squeezenet1_1", "random"),
    GeneratorConfig(channels=(8, 16), attention_strides=(2,), noise_channels=8, token_channels=16),
    DiscriminatorConfig(channels=(8, 16), conditioning="batch"),
    LossConfig(contrastive_places=8, diversity_fraction=0.5),
    TrainingConfig(
        batch_size=4,
        total_images=16,
        checkpoint_images=8,
        grid_images=8,
        ema_images=100,
        precision="fp32",
        device="cpu",
    ),
    EvaluationConfig(validation_images=6),
)


def changed(**training) -> Recipe:
    return dataclasses.replace(TINY, training=dataclasses.replace(TINY.training, **training))


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[tuple]:
    steps = [r for r in rows(run) if "validation" not in r]
    return [tuple(v for k, v in r.items() if k != "seconds") for r in steps]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return train(TINY, tmp_path_factory.mktemp("runs") / "finished")


def test_a_run_writes_what_it_promises(finished):
    steps = [r for r in rows(finished) if "validation" not in r]
    assert [r["images"] for r in steps] == [4, 8, 12, 16]
    names = {"loss_pixel", "loss_contrastive", "loss_diversity", "loss_real", "loss_fake"}
    assert all(names <= r.keys() and all(math.isfinite(r[k]) for k in names) for r in steps)
    assert [r["images"] for r in rows(finished) if "validation" in r] == [8, 16]
    assert list((finished / "tensorboard").glob("events*"))
    with Image.open(finished / "grids" / "00000016.png") as grid:
        assert grid.width > 4 * 24 and grid.height > 6 * 16  # label map | real | two generated
    newest = checkpoints(finished)[-1]
    assert {p.name for p in newest.iterdir()} == {
        *(
            "generator.safetensors",
            "model.json",
            "training.safetensors",
            "optimizer.safetensors",
            "state.json",
        )
    }


@pytest.mark.parametrize("conditioning", ["batch", "calibrated"])
def test_a_resumed_run_has_the_losses_of_one_never_stopped(conditioning, tmp_path):
    discriminator = dataclasses.replace(TINY.discriminator, conditioning=conditioning)
    recipe = dataclasses.replace(TINY, discriminator=discriminator)
    half = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, total_images=8))
    train(recipe, tmp_path / "whole")
    train(half, tmp_path / "parts")
    # what a killed run leaves behind: a row past the checkpoint, and half of another
    with (tmp_path / "parts" / "log.jsonl").open("a") as file:
        file.write('{"images": 12, "seconds": 1.0, "loss_pixel": 5.0}\n{"images": 16, "se')
    train(recipe, tmp_path / "parts")
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")  # to the bit
    first, second = (load_model(tmp_path / name).generator.state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(first[k], second[k]) for k in first)


def no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)


def test_auto_takes_bf16_where_the_cpu_has_units_for_it(monkeypatch):
    no_bf16(monkeypatch)
    assert pick_precision("auto", torch.device("cpu")) == "fp32"
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        with monkeypatch.context() as patch:
            patch.setattr(torch.cpu, name, lambda: True)
            assert pick_precision("auto", torch.device("cpu")) == "bf16"


@pytest.mark.parametrize("recorded", [True, False])
def test_a_resumed_run_keeps_the_precision_it_began_with(recorded, tmp_path, monkeypatch):
    no_bf16(monkeypatch)
    train(changed(precision="auto"), tmp_path / "whole")
    train(changed(precision="auto", total_images=8), tmp_path / "moved")
    state = checkpoints(tmp_path / "moved")[-1] / "state.json"
    values = json.loads(state.read_text())
    assert values.pop("precision") == "fp32"
    if not recorded:  # as in checkpoints of earlier versions
        state.write_text(json.dumps(values))
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert pick_precision("auto", torch.device("cpu")) == "bf16"
    train(changed(precision="auto"), tmp_path / "moved")
    assert losses(tmp_path / "moved") == losses(tmp_path / "whole")  # to the bit


def test_a_bf16_run_goes_on_in_fp32_where_bf16_is_slow_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    train(changed(precision="auto", total_images=8), tmp_path)
    no_bf16(monkeypatch)
    train(changed(precision="auto"), tmp_path)
    said = capsys.readouterr()
    assert "warning: the run began in bf16, which is slow here" in said.out + said.err
    assert read_json(checkpoints(tmp_path)[-1] / "state.json")["precision"] == "fp32"


def test_a_finished_run_is_left_alone(finished):
    before = {p: p.stat().st_mtime_ns for p in (finished / "checkpoints").rglob("*")}
    train(TINY, finished)
    assert {p: p.stat().st_mtime_ns for p in (finished / "checkpoints").rglob("*")} == before


def test_a_run_whose_minutes_are_over_says_so(finished, tmp_path, capsys):
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    file = checkpoints(run)[-1] / "state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"seconds": 90.0}))
    train(changed(total_images=20, max_minutes=1), run)
    said = capsys.readouterr()
    assert "nothing to do: trained for 1.5 minutes; more: --training.max_minutes N" in said.out + said.err
    assert len(losses(run)) == 4


def test_another_recipe_in_the_same_folder_is_refused(finished):
    with pytest.raises(ValueError, match="holds a run with training.batch_size=4, not 2"):
        train(changed(batch_size=2), finished)


def test_a_run_without_a_checkpoint_does_not_claim_its_folder(tmp_path):
    typo = dataclasses.replace(TINY, backbone=BackboneConfig("squeezenet", "random"))
    with pytest.raises(ValueError, match="squeezenet1_1"):
        train(typo, tmp_path)
    assert len(losses(train(changed(total_images=4), tmp_path))) == 1


def test_what_changes_no_result_may_change(finished, tmp_path):
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    train(changed(total_images=20, keep=1), run)
    assert len(losses(run)) == 5
    assert yaml.safe_load((run / "recipe.yaml").read_text())["training"]["total_images"] == 20


def test_a_damaged_checkpoint_is_named(finished, tmp_path):
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    file = checkpoints(run)[-1] / "training.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"training\.safetensors: damaged"):
        train(changed(total_images=20), run)


def test_too_few_validation_pictures_to_measure_stop_no_run(tmp_path):
    recipe = dataclasses.replace(TINY, evaluation=EvaluationConfig(validation_images=1))
    run = train(recipe, tmp_path)
    found = checkpoint_to_use(run)
    assert found is not None and int(found.name) == 16  # the newest
    assert not [r for r in rows(run) if "validation" in r]


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("training", "batch_size", 0),
        ("training", "checkpoint_images", 0),
        ("training", "seed", 2**32),
        ("generator", "channels", ()),
        ("generator", "attention_heads", 0),
        ("losses", "contrastive_temperature", 0.0),
        ("losses", "label_smoothing", 1.5),
    ],
)
def test_numbers_out_of_range_are_refused_at_once(section, field, value, tmp_path):
    part = dataclasses.replace(getattr(TINY, section), **{field: value})
    with pytest.raises(ValueError, match=rf"{section}\.{field}"):
        train(dataclasses.replace(TINY, **{section: part}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_small_batches_have_a_diversity_loss(tmp_path):
    loss = dataclasses.replace(TINY.losses, diversity_fraction=0.1)
    recipe = dataclasses.replace(changed(batch_size=2, total_images=2), losses=loss)
    assert "loss_diversity" in rows(train(recipe, tmp_path))[0]


def test_the_newest_and_the_best_are_kept(tmp_path):
    run = train(changed(total_images=20, checkpoint_images=4, keep=2), tmp_path)
    kept = [int(p.name) for p in checkpoints(run)]
    measured = {r["images"]: r["validation"]["frechet"] for r in rows(run) if "validation" in r}
    assert list(measured) == [4, 8, 12, 16, 20]
    best = min(measured, key=lambda images: measured[images])
    assert kept == sorted({best, 16, 20})
    found = best_checkpoint(run)
    assert found is not None and int(found.name) == best


def test_backbone_weights_are_not_in_checkpoints(finished):
    from safetensors import safe_open

    with safe_open(checkpoints(finished)[-1] / "training.safetensors", "pt") as file:
        assert not [k for k in file.keys() if "backbone" in k]  # noqa: SIM118


def test_a_run_stops_at_a_signal_with_a_checkpoint(tmp_path):
    recipe = changed(total_images=10**6, checkpoint_images=10**6, grid_images=10**6)
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(to_dict(recipe)))
    code = (
        "import sys, yaml; from dpsims.config import Recipe; from dpsims.plain import from_dict\n"
        "from dpsims.training import train\n"
        "train(from_dict(Recipe, yaml.safe_load(open(sys.argv[1]))), sys.argv[2])"
    )
    command = [sys.executable, "-c", code, str(file), str(tmp_path / "run")]
    log = tmp_path / "run" / "log.jsonl"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
            if log.exists() and log.stat().st_size:
                break
        process.send_signal(signal.SIGTERM)
    (saved,) = checkpoints(tmp_path / "run")
    assert read_json(saved / "state.json")["images_seen"] == int(saved.name) > 0


def test_nan_stops_the_run_and_says_what_to_try(tmp_path):
    with pytest.raises(TrainingStopped, match=r"diverged.*generator_lr"):
        train(changed(generator_lr=1e15, discriminator_lr=1e15, total_images=400), tmp_path)
    assert not list((tmp_path / "checkpoints").glob("*.partial"))


def test_a_discriminator_that_has_won_stops_the_run():
    won = {"images": 8, "loss_pixel": 9.0, "fake_probability": 0.9999, "real_accuracy": 0.999}
    health = Health()
    for _ in range(HISTORY - 1):
        health.check(won)
    health.check({**won, "fake_probability": 0.5})  # once unsure: start counting anew
    for _ in range(HISTORY - 1):
        health.check(won)
    with pytest.raises(TrainingStopped, match="discriminator_lr"):
        health.check(won)


def test_the_average_follows_the_generator():
    torch.manual_seed(0)
    config = dataclasses.replace(TINY.generator, num_classes=2)
    generator = Generator(config)
    average = GeneratorAverage(generator, half_life=8)
    start = average.average.image_network.to_rgb.weight.clone()
    with torch.no_grad():
        generator.image_network.to_rgb.weight.add_(1.0)
    average.update(generator, batch_size=8, images_seen=10**6)  # one half-life
    assert torch.allclose(average.average.image_network.to_rgb.weight, start + 0.5, atol=1e-6)
    for _ in range(30):
        average.update(generator, batch_size=8, images_seen=10**6)
    assert torch.allclose(average.average.image_network.to_rgb.weight, start + 1, atol=1e-5)


def test_batchnorm_is_reestimated_for_the_given_weights():
    torch.manual_seed(0)
    generator = Generator(dataclasses.replace(TINY.generator, num_classes=2))
    labels = [torch.randint(0, 2, (4, 16, 16), generator=torch.Generator().manual_seed(i)) for i in range(4)]
    measured = reestimate_batchnorm(generator, labels)
    norm = measured.get_submodule("image_network.blocks.1.norm1.norm")
    assert isinstance(norm, torch.nn.BatchNorm2d)
    seen = []
    norm.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    for label in labels:
        measured(label, measured.sample_noise(4, torch.Generator().manual_seed(0)))
    x, buffers = torch.cat(seen), measured.state_dict()
    mean, variance = (
        buffers[f"image_network.blocks.1.norm1.norm.{k}"] for k in ("running_mean", "running_var")
    )
    assert torch.allclose(mean, x.mean((0, 2, 3)), atol=0.05)
    assert torch.allclose(variance, x.var((0, 2, 3)), rtol=0.2)
    assert not any(module.training for module in measured.modules())
    assert generator.state_dict()["image_network.blocks.1.norm1.norm.running_mean"].eq(0).all()  # a copy


@pytest.mark.parametrize("kind", ["oasis"])
def test_the_baseline_trains_by_the_same_loop(kind, tmp_path):
    recipe = dataclasses.replace(
        changed(total_images=8), discriminator=DiscriminatorConfig(kind=kind, channels=(8, 16))
    )
    steps = [r for r in rows(train(recipe, tmp_path)) if "validation" not in r]
    assert len(steps) == 2 and "loss_contrastive" not in steps[0]  # there are no frozen features to compare


def test_another_order_of_the_data_is_said_when_a_run_goes_on(tmp_path: Path, capsys):
    run = train(changed(total_images=8), tmp_path / "run")
    assert "another order" not in capsys.readouterr().err
    state = run / "checkpoints" / "00000008" / "state.json"
    values = json.loads(state.read_text())
    assert values["data_seconds"] >= 0
    state.write_text(json.dumps({**values, "data_order": "that of shards"}))
    train(changed(total_images=12), run)
    assert "another order" in " ".join(capsys.readouterr().err.split())


def test_a_run_of_an_earlier_version_is_refused_as_such(tmp_path: Path):
    run = train(changed(total_images=8), tmp_path / "run")
    values = yaml.safe_load((run / "recipe.yaml").read_text())
    del values["data"]["rare_crop"]
    (run / "recipe.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match=r"no data\.rare_crop: it was begun with an earlier version"):
        train(changed(total_images=12), run)


def test_the_time_left_is_by_the_clock_of_the_loop(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(log, "PLAIN_SECONDS", -1)  # every row is printed
    ticks = itertools.count(step=10)  # seconds between two looks, none by the wall
    monkeypatch.setattr(loop, "clock", lambda: float(next(ticks)))
    train(changed(max_minutes=60.0), tmp_path)
    said = " ".join(capsys.readouterr().err.split())
    speeds = [float(x) for x in re.findall(r" images, ([\d.]+) images/s, \d+ min left", said)]
    assert len(speeds) == 4 and max(speeds) < 0.5  # the first row, too
