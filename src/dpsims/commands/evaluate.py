"""`dpsims evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dpsims.commands.parts import Device, Seed, size_of, writable_file

# of evaluation.run, and utility
METRICS = ("realism", "layout", "diversity", "neighbours", "artifacts", "utility")


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|IMAGE_DIR",
            help="run directory, checkpoint, `earth`, or a folder of pictures that any program made, named "
            "as the label maps",
        ),
    ],
    data: Annotated[
        str | None, typer.Option(help="folder of the data set [default: new scenes, for a model of scenes]")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="how DIR is laid out [default: as the set that the model was trained on]",
        ),
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            metavar="train|val|test",
            help="real pictures to compare with; `test` of a benchmark is its official validation split",
        ),
    ] = "test",
    protocol: Annotated[
        str | None,
        typer.Option(
            metavar="oasis|dpsims|dpsims-512",
            help="take size, filter, networks and samples as the papers do [default: pictures as the model "
            "makes them]",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,...",
            help=f"of {', '.join(METRICS)} [default: all but utility]",
        ),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the figures into this file")] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", help="write a page with figures and pictures into this file")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HEIGHTxWIDTH",
            help="size at which pictures are compared [default: the model's, or a folder's first one's]",
        ),
    ] = None,
    map_size: Annotated[
        str | None,
        typer.Option(
            metavar="picture|native|HEIGHTxWIDTH",
            help="size at which the segmenter's answers are compared with label maps: the pictures', or the "
            "maps' own [default: picture]",
        ),
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=WEIGHTS]",
            help="network of a Frechet distance; may be given several times [default: the discriminator's "
            "backbone]",
        ),
    ] = None,
    segmenter: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|hf:NAME",
            help="file of `dpsims segmenter train`, or a Hugging Face model by name or folder [default: a "
            "small one, trained once and kept]",
        ),
    ] = None,
    segmenter_classes: Annotated[
        Path | None,
        typer.Option(help="YAML or JSON {class of the Hugging Face model: class of the data set, or null}"),
    ] = None,
    segmenter_images: Annotated[
        int, typer.Option(min=1, help="pictures that a segmenter which is trained here sees")
    ] = 6000,
    lpips: Annotated[
        str | None,
        typer.Option(
            metavar="alex|vgg|squeeze[=WEIGHTS]", help="diversity by LPIPS, too, through this network"
        ),
    ] = None,
    utility: Annotated[
        bool,
        typer.Option(
            "--utility", help="also train segmenters on generated, real and both, and test them on real"
        ),
    ] = False,
    utility_seeds: Annotated[int, typer.Option(min=1, help="trainings of each kind")] = 1,
    utility_pictures: Annotated[
        Path | None,
        typer.Option(help="pictures of the training maps, where IMAGE_DIR has those of the split"),
    ] = None,
    grid: Annotated[
        Path | None, typer.Option(help="write label maps, real and generated pictures into it")
    ] = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="measure the untrained generator, too")
    ] = False,
    seed: Seed = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="pictures at a time")] = 16,
    device: Device = "auto",
) -> None:
    """Measure a model, or pictures by any program: realism, layout (mIoU by a segmenter), diversity,
    artifacts."""
    chosen = _metrics(metrics)
    for file, option in ((json_file, "--json"), (html_file, "--html"), (grid, "--grid")):
        if file is not None:
            writable_file(file, option)

    from dpsims import evaluating

    evaluating.evaluate_model(
        model, data, source=source, split=split, protocol=protocol, size=size_of(size),
        maps=map_size if map_size in ("picture", "native") else size_of(map_size, "--map-size"),
        metrics=[name for name in chosen if name != "utility"], features=features or [],
        segmenter=segmenter, segmenter_images=segmenter_images, segmenter_classes=segmenter_classes,
        lpips=lpips, utility=utility or "utility" in chosen, utility_seeds=utility_seeds,
        utility_pictures=utility_pictures, json_file=json_file, html_file=html_file, grid=grid,
        untrained=untrained, seed=seed, batch_size=batch_size, device=device,
    )  # fmt: skip


def _metrics(text: str | None) -> list[str]:
    if text is None:
        return [name for name in METRICS if name != "utility"]
    chosen = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in METRICS]
    if unknown or not chosen:
        what = f"{unknown[0]!r} is unknown" if unknown else "names nothing"
        raise ValueError(f"--metrics {text}: {what}; use of {', '.join(METRICS)}")
    return chosen
