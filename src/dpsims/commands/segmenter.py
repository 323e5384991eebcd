"""`dpsims segmenter train | score`: judges of layout, and how well they read real pictures."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from dpsims.commands.parts import PLAIN, Device, size_of, writable_file
from dpsims.config import BackboneConfig, DataConfig
from dpsims.plain import from_dict

if TYPE_CHECKING:
    from dpsims.data import Split
    from dpsims.data.base import CachedSource
    from dpsims.evaluation.segmentation import LayoutSegmenter

segmenter_app = typer.Typer(help="Train and score the segmenters that judge layout.", **PLAIN)

LARGEST_SIDE = 256  # of the shorter side, where no size is given
SAID_EVERY = 15  # seconds

Data = Annotated[str, typer.Argument(metavar="DIR", help="a data set, its shards, or `scenes`")]
Source = Annotated[
    str, typer.Option(metavar="NAME", help="how DIR is laid out, as for `data check`; auto looks which")
]


@segmenter_app.command()
def train(
    data: Data,
    out: Annotated[Path, typer.Option(metavar="FILE", help="safetensors file that is written")],
    source: Source = "auto",
    architecture: Annotated[
        str,
        typer.Option(help="decoder of segmentation_models.pytorch: unet, fpn, deeplabv3plus, upernet ..."),
    ] = "unet",
    encoder: Annotated[str, typer.Option(help="any timm network with a feature pyramid")] = "resnet50",
    weights: Annotated[
        str,
        typer.Option(
            metavar="pretrained|random|FILE", help="of the encoder; a safetensors file of that network"
        ),
    ] = "pretrained",
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HEIGHTxWIDTH",
            help="of the pictures, best the one that models are measured at [default: the first one's, at "
            f"most {LARGEST_SIDE} on its shorter side]",
        ),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="pictures seen in training")] = 6000,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1)] = 0,
    batch_size: Annotated[int, typer.Option(min=2, help="pictures a step")] = 8,
    device: Device = "auto",
) -> None:
    """Train a segmenter on the real training pictures, for `evaluate --segmenter FILE`.

    It is scored on the real test pictures, and the score kept in the file.
    """
    writable_file(out, "--out")
    shape = size_of(size)

    import torch

    from dpsims.data import Batch, training_batches
    from dpsims.evaluation.encoder_segmenter import (
        EncoderSegmenter,
        enlargement,
        load_encoder,
        train_encoder_segmenter,
    )
    from dpsims.evaluation.segmentation import segmenter_key
    from dpsims.models.pretrained import describe
    from dpsims.synthesis import pick_device

    place = pick_device(device)
    config, real = _open(data, source, shape, "train")
    _, held_out = _open(data, source, (config.height, config.width), "test")  # missing, it is said now
    for notice in real.notices:
        _say(f"note: {notice}")
    classes = real.space.evaluation.num_classes
    shape = (config.height, config.width)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        segmenter = EncoderSegmenter(classes, architecture, encoder, enlargement(shape))
    load_encoder(segmenter, weights)
    segmenter.key = {
        **segmenter_key(real, *shape, images, seed),
        "batch_size": batch_size,
        "architecture": architecture,
        "encoder": describe(BackboneConfig(encoder, weights)),
    }
    _say(f"training {architecture} on {segmenter.key['encoder']}: {images} pictures of {shape[0]}x{shape[1]}")
    said = time.monotonic()

    def progress(seen: int, loss: float) -> None:
        nonlocal said
        if time.monotonic() - said > SAID_EVERY:
            said = time.monotonic()
            _say(f"  {seen}/{images} pictures, loss {loss:.3f}")

    table = torch.from_numpy(real.space.evaluation_table)
    batches = (Batch(i, table[label]) for i, label in training_batches(real, config, batch_size, seed))
    train_encoder_segmenter(segmenter, batches, images, weights != "random", seed, place, progress)
    segmenter.score = _score(segmenter, held_out, config, "test", batch_size)
    segmenter.save(out)
    print(_table(segmenter.score))
    print(f"{out}: use it with dpsims evaluate --segmenter {out}")


@segmenter_app.command()
def score(
    segmenter: Annotated[
        str,
        typer.Argument(
            metavar="FILE|hf:NAME", help="a trained one, or a Hugging Face model by name or folder"
        ),
    ],
    data: Data,
    source: Source = "auto",
    split: Annotated[str, typer.Option(metavar="train|val|test", help="real pictures to read")] = "test",
    size: Annotated[
        str | None,
        typer.Option(metavar="HEIGHTxWIDTH", help="of the pictures [default: the one it was trained at]"),
    ] = None,
    segmenter_classes: Annotated[
        Path | None,
        typer.Option(help="YAML or JSON {class of the Hugging Face model: class of the data set, or null}"),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the figures into this file")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="pictures at a time")] = 8,
    device: Device = "auto",
) -> None:
    """How well a segmenter reads real pictures: mIoU, pixel accuracy, IoU of each class."""
    if json_file is not None:
        writable_file(json_file, "--json")
    shape = size_of(size)

    from dpsims.data import Split

    if split not in get_args(Split):
        raise ValueError(f"--split {split}: use one of {', '.join(get_args(Split))}")

    from dpsims.evaluation.huggingface import PREFIX, HuggingFaceSegmenter
    from dpsims.evaluation.segmentation import check_classes, load_segmenter
    from dpsims.synthesis import pick_device
    from dpsims.writing import write_whole

    place = pick_device(device)
    if segmenter.startswith(PREFIX):
        config, real = _open(data, source, shape, cast("Split", split))
        name = segmenter.removeprefix(PREFIX)
        judge = HuggingFaceSegmenter(name, real.space.evaluation, segmenter_classes, place)
        for notice in judge.notices:
            _say(f"note: {notice}")
    else:
        if segmenter_classes is not None:
            raise ValueError(
                f"--segmenter-classes {segmenter_classes}: maps the classes of {PREFIX}NAME only"
            )
        judge = load_segmenter(segmenter, device=place)
        if shape is None and "height" in judge.key:
            shape = (judge.key["height"], judge.key["width"])
        config, real = _open(data, source, shape, cast("Split", split))
        check_classes(judge, real.space, segmenter)
    found = _score(judge, real, config, split, batch_size)
    print(_table(found))
    if json_file is not None:
        write_whole(json_file, json.dumps(found, indent=1).encode())


def _open(
    data: str, source: str, size: tuple[int, int] | None, split: Split
) -> tuple[DataConfig, CachedSource]:
    """One split, and the settings of batches of it at `size`, or what the first picture says."""
    from dpsims.data import open_source
    from dpsims.data.layouts import recognise

    is_scenes = data == "scenes" and not Path(data).exists()
    if is_scenes:
        values: dict[str, Any] = {"source": "scenes"}
    else:
        values = {"source": recognise(Path(data)) if source == "auto" else source, "root": data}
    if size is not None or is_scenes:
        height, width = size or (LARGEST_SIDE, LARGEST_SIDE)
        config = from_dict(DataConfig, {**values, "height": height, "width": width}, "data.", "--source")
        return config, open_source(config, split)
    config = from_dict(DataConfig, values, "data.", "--source")
    found = open_source(config, split)
    height, width = found.load(0)[1].shape
    factor = min(1.0, LARGEST_SIDE / min(height, width))
    config.height, config.width = max(1, round(height * factor)), max(1, round(width * factor))
    return config, found


def _score(
    segmenter: LayoutSegmenter, real: CachedSource, config: DataConfig, split: str, batch_size: int
) -> dict[str, Any]:
    from dpsims.data import fixed_batches
    from dpsims.evaluation.segmentation import score_segmenter

    batches = fixed_batches(real, config.height, config.width, batch_size)
    about = {"data": real.name, "split": split, "size": [config.height, config.width]}
    return {**about, **score_segmenter(segmenter, batches, real.space)}


def _table(score: dict[str, Any]) -> str:
    """What a person reads: a row for each figure."""

    def row(name: str, value: float | None) -> str:
        return f"{name:<{width}}  {'-' if value is None else format(value, '.3f')}"

    height, width = score["size"]
    title = f"{score['images']} real {score['split']} pictures at {height}x{width}"
    width = max(len("pixel accuracy"), *(len(f"  {name}") for name in score["iou"]))
    rows = [row("mIoU", score["miou"]), row("pixel accuracy", score["pixel_accuracy"]), "IoU"]
    return "\n".join([title, *rows, *(row(f"  {name}", value) for name, value in score["iou"].items())])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
