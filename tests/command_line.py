"""What the tests of the commands share: a data set, a model, and the look of a refusal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dpsims.checkpoint import Model, load_model, save_model
from dpsims.config import GeneratorConfig
from dpsims.labels import LabelSpace
from dpsims.models.generator import Generator

SPACE = LabelSpace(
    ("sky", "road", "tree"), ((70, 130, 180), (128, 64, 128), (30, 110, 40)), (0, 1, 4), ignore_id=255
)
TINY = GeneratorConfig(
    num_classes=3, channels=(8, 8), attention_strides=(), noise_tokens=2, noise_channels=4, token_channels=8
)
TINY_OPTIONS = [
    "--backbone.name", "squeezenet1_1", "--backbone.weights", "random",
    "--data.height", "32", "--data.width", "40",
    "--generator.channels", "8,8", "--generator.attention_strides", "[]", "--generator.noise_channels", "4",
    "--generator.token_channels", "8", "--discriminator.channels", "8,8,8,8,8", "--training.batch_size", "2",
]  # fmt: skip


def write_photos(folder: Path) -> Path:
    """Twenty tiny pairs: two each are set aside for val and test."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    (folder / "classes.json").write_text(json.dumps(SPACE.to_dict()))
    random = np.random.default_rng(0)
    for i in range(20):
        label = random.integers(0, 3, (32, 40))
        Image.fromarray(SPACE.encode_ids(label)).save(folder / "labels" / f"{i:02}.png")
        image = SPACE.colorize(label) // 2 + random.integers(0, 99, (32, 40, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{i:02}.png")
    return folder


def write_model(folder: Path) -> Path:
    """An untrained generator of SPACE, saved."""
    torch.manual_seed(0)
    folder.mkdir()
    about = {"backbone": {"name": "squeezenet1_1", "weights": "random", "scale": 1.0, "levels": []}}
    save_model(Model(Generator(TINY).eval(), SPACE, 32, 40, about), folder)
    return folder


def load_generator(model: str | Path) -> Generator:
    """Of kind dpsims."""
    generator = load_model(model).generator
    assert isinstance(generator, Generator)
    return generator


def spoil(photos: Path, how: str) -> None:
    if how == "id":
        Image.fromarray(np.full((32, 40), 3, np.uint8)).save(photos / "labels" / "05.png")
    elif how == "size":
        Image.fromarray(np.zeros((32, 44), np.uint8)).save(photos / "labels" / "05.png")
    elif how == "truncated":
        for image in (photos / "images").iterdir():
            image.write_bytes(image.read_bytes()[:-200])
    elif how == "empty":
        for file in [*photos.glob("images/*"), *photos.glob("labels/*")]:
            file.unlink()


def check_refused(result: tuple[int, str, str], *parts: str) -> None:
    """One line that starts with `error:` and says all of `parts`, and an exit code that is not 0."""
    code, _, err = result
    lines = err.strip().splitlines()
    assert code in (1, 2) and lines and "Traceback" not in err, err
    assert lines[-1].startswith("error: ") and sum(line.startswith("error: ") for line in lines) == 1, err
    assert len(lines) == 1, err
    for part in parts:
        assert part in lines[-1], f"{part!r} is not in {lines[-1]!r}"
