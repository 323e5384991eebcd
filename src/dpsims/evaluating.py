"""`dpsims evaluate`: a model, or a folder of pictures by any program, against a data set."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from dpsims.config import DataConfig, from_dict
from dpsims.data import Split, open_source
from dpsims.data.scenes import SCENES_SPACE
from dpsims.evaluation import text_table, to_uint8
from dpsims.evaluation.page import PageSamples, write_page
from dpsims.measuring import Bench, feature_networks, say
from dpsims.pictures import PictureFolder, holds_pictures
from dpsims.synthesis import Synthesizer
from dpsims.writing import write_png, write_whole

PAGE_ROWS = 12


def evaluate_model(
    path: str | Path,
    data: str | None = None,
    *,
    source: str | None = None,
    split: str = "test",
    size: tuple[int, int] | None = None,
    features: Sequence[str] = (),
    segmenter: str | Path | None = None,
    segmenter_images: int = 6000,
    segmenter_classes: str | Path | None = None,
    json_file: Path | None = None,
    html_file: Path | None = None,
    grid: Path | None = None,
    untrained: bool = False,
    seed: int = 0,
    batch_size: int = 16,
    device: str = "auto",
) -> dict[str, Any]:
    """Measure a model, or a folder of pictures, on a data set and print the table.

    data: none measures a model of scenes on scenes. source: how the set is laid out; as the one that the
    model was trained on where not given. size: (height, width) at which a folder's pictures are compared; the
    first one's where not given. Returns the report, and writes it to `json_file`; a page goes to `html_file`,
    a contact sheet to `grid`. Raises ValueError for a model, pictures or data that cannot be read or do not
    belong together.
    """
    if split not in get_args(Split):
        raise ValueError(f"split={split!r}: use one of {', '.join(get_args(Split))}")
    part = cast(Split, split)
    if holds_pictures(path):
        if grid is not None:
            raise ValueError("--grid draws models; --html shows the pictures of a folder")
        model = _open_pictures(path, data, source, part, size, features, untrained)
    else:
        model = Synthesizer.load(path, device)
        if size not in (None, model.size):
            raise ValueError(
                f"--size: {path} is a model of {model.size[0]}x{model.size[1]}; leave --size out"
            )
    if data is None and model.space != SCENES_SPACE:
        raise ValueError(
            "the model was not trained on scenes: give real pictures to compare with, --data DIR"
        )
    if source is None:
        trained_on = str(model.about.get("source", "folder"))
        source = "scenes" if data is None else "folder" if trained_on == "scenes" else trained_on
    bench = Bench(
        _data_config(source, data, model.size),
        feature_networks(features, model.size, model.about),
        split=part,
        segmenter=segmenter,
        segmenter_images=segmenter_images,
        segmenter_classes=segmenter_classes,
        batch_size=batch_size,
        device=device,
    )
    for notice in bench.real.notices:
        say(f"note: {notice}")
    bench.check(model)
    report = {
        "model": str(path),
        "data": bench.real.name,
        "split": split,
        "size": list(model.size),
        "date": datetime.date.today().isoformat(),
        **bench.measure(model, seed),
    }
    columns = {"generated": report}
    if untrained and isinstance(model, Synthesizer):
        report["untrained"] = columns["untrained"] = bench.measure(bench.untrained(model), seed)
    print(text_table({**columns, "real": report["real"]}))
    if json_file is not None:
        write_whole(json_file, json.dumps(report, indent=1).encode())
    if html_file is not None:
        write_whole(html_file, write_page(report, page_samples(bench, model, report, seed)).encode())
    if grid is not None and isinstance(model, Synthesizer):
        write_png(grid, bench.sheet([model, model], ["generated", "other noise"]))
    return report


def page_samples(
    bench: Bench, model: Synthesizer | PictureFolder, report: dict[str, Any], seed: int
) -> PageSamples:
    """The pictures of the page: random maps (drawn by the seed, not chosen), the worst, the nearest."""
    space, names = bench.space, bench.real.names

    def row(index: int) -> tuple[str, np.ndarray, np.ndarray, list[np.ndarray]]:
        image, label = bench.pair(bench.real, index)
        fakes = [bench.picture(model, index, seed)]
        if isinstance(model, Synthesizer):
            fakes.append(model.generate(label, seed + 1, first=index))
        return (
            names[index],
            space.colorize(label[0].numpy()),
            to_uint8(image)[0],
            [to_uint8(fake)[0] for fake in fakes],
        )

    chosen = np.random.default_rng(seed).permutation(len(names))[:PAGE_ROWS]
    nearest = [
        (
            found["name"],
            to_uint8(bench.picture(model, found["index"], seed))[0],
            found["nearest_name"],
            to_uint8(bench.pair(bench.train, found["nearest"]).image)[0],
            found["distance"],
        )
        for found in report["neighbours"]
    ]
    return PageSamples(
        rows=[row(int(index)) for index in chosen],
        worst=[(*row(found["index"]), found["miou"]) for found in report["worst"]],
        neighbours=nearest,
        colors=dict(zip(space.names, space.colors, strict=True)),
    )


def _open_pictures(
    path: str | Path,
    data: str | None,
    source: str | None,
    split: Split,
    size: tuple[int, int] | None,
    features: Sequence[str],
    untrained: bool,
) -> PictureFolder:
    if data is None or not features:
        raise ValueError(
            f"{path}: is a folder of pictures; give the set that they belong to (--data DIR) and a network "
            "to compare them by (--features NAME[=WEIGHTS])"
        )
    if untrained:
        raise ValueError(f"--untrained: {path} is a folder of pictures, not a model; leave the option out")
    # at any size: only names and classes are asked for
    real = open_source(_data_config(source or "folder", data, (1, 1)), split)
    return PictureFolder(path, real.names, real.space, size)


def _data_config(source: str, data: str | None, size: tuple[int, int]) -> DataConfig:
    values = {"source": source, "root": data, "height": size[0], "width": size[1]}
    return from_dict(DataConfig, values, "data.", "--source")
