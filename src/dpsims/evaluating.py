"""`dpsims evaluate`: a model, or a folder of pictures by any program, against a data set."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from dpsims.config import DataConfig, from_dict
from dpsims.data import Split, open_source
from dpsims.data.scenes import SCENES_SPACE
from dpsims.evaluation import text_table, to_uint8
from dpsims.evaluation.inception import cache_folder
from dpsims.evaluation.page import PageSamples, write_page
from dpsims.evaluation.protocols import Maps, Protocol
from dpsims.evaluation.protocols import protocol as protocol_of
from dpsims.evaluation.run import METRICS
from dpsims.evaluation.stored import ChosenPairs, generate_pictures
from dpsims.evaluation.utility import measure_utility
from dpsims.instruments import feature_networks, listener_of, say
from dpsims.measuring import Bench, Contestant
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
    protocol: str | None = None,
    size: tuple[int, int] | None = None,
    maps: Maps | None = None,
    metrics: Sequence[str] = METRICS,
    features: Sequence[str] = (),
    segmenter: str | Path | None = None,
    segmenter_images: int = 6000,
    segmenter_classes: str | Path | None = None,
    lpips: str | None = None,
    utility: bool = False,
    utility_seeds: int = 1,
    utility_pictures: Path | None = None,
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
    model was trained on where not given. protocol: a name of `PROTOCOLS`, which fixes size, filter, maps,
    networks and samples. size: (height, width) at which pictures are compared; the model's, or a folder's
    first one's, where not given. metrics: parts of METRICS. lpips: see `make_lpips`. utility: also what the
    pictures are worth as training data, over `utility_seeds` trainings of each kind of `segmenter_images`
    pictures; utility_pictures: for a folder, the pictures of the training maps by the same program.

    Returns the report, and writes it to `json_file`; a page goes to `html_file`, a contact sheet to `grid`.
    Raises ValueError for a model, pictures or data that cannot be read or do not belong together.
    """
    if split not in get_args(Split):
        raise ValueError(f"split={split!r}: use one of {', '.join(get_args(Split))}")
    part = cast(Split, split)
    folder = holds_pictures(path)
    model = None if folder else Synthesizer.load(path, device)
    if data is None and (model is None or model.space != SCENES_SPACE):
        raise ValueError(f"{path}: was not trained on scenes; give real pictures to compare with, --data DIR")
    if source is None:
        trained_on = "folder" if model is None else str(model.about.get("source", "folder"))
        source = "scenes" if data is None else "folder" if trained_on == "scenes" else trained_on
    how = _settle(protocol_of(protocol, source), size, maps, seed)
    features = _with_protocol(features, how)
    if model is None:
        if grid is not None or untrained:
            option = "--grid" if grid is not None else "--untrained"
            raise ValueError(f"{option}: {path} is a folder of pictures, not a model; leave the option out")
        if not features and {"realism", "neighbours"} & set(metrics):
            raise ValueError(
                f"{path}: is a folder of pictures; give a network to compare them by (--features "
                "NAME[=WEIGHTS]), or --metrics without realism and neighbours"
            )
        contestant = _open_pictures(path, _data_config(source, data, (1, 1)), part, how)
        if utility and utility_pictures is None:
            raise ValueError(
                f"--utility: {path} has the pictures of the {split} maps; give those of the training maps by "
                "the same program: --utility-pictures DIR"
            )
    else:
        contestant = model
    compared = how.size or contestant.size
    wanted = features or not folder
    bench = Bench(
        _data_config(source, data, compared),
        feature_networks(features, compared, contestant.about) if wanted else [],
        split=part,
        protocol=how,
        metrics=metrics,
        segmenter=segmenter or how.segmenter,
        segmenter_images=segmenter_images,
        segmenter_classes=segmenter_classes,
        lpips=lpips or how.lpips,
        seed=seed,
        batch_size=batch_size,
        device=device,
        keep=cache_folder() / "evaluations",
    )
    for notice in bench.real.notices:
        say(f"note: {notice}")
    bench.check(contestant)
    about = {
        "model": str(path),
        "data": bench.real.name,
        "split": split,
        "size": list(compared),
        "date": datetime.date.today().isoformat(),
    }
    report = {**about, **bench.measure(contestant)}
    if utility:
        painter = contestant
        if utility_pictures is not None:
            painter = PictureFolder(utility_pictures, bench.train.names, bench.space, compared, how.resize)
        report["utility"] = _utility(bench, painter, segmenter_images, range(utility_seeds))
    columns = {"generated": report}
    if untrained and model is not None:
        report["untrained"] = columns["untrained"] = bench.measure(bench.untrained(model))
    print(text_table({**columns, "real": report["real"]}))
    if json_file is not None:
        write_whole(json_file, json.dumps(report, indent=1).encode())
    if html_file is not None:
        write_whole(html_file, write_page(report, page_samples(bench, contestant, report)).encode())
    if grid is not None and model is not None:
        write_png(grid, bench.sheet([model, model], ["generated", "other noise"]))
    bench.forget()
    return report


def _settle(how: Protocol, size: tuple[int, int] | None, maps: Maps | None, seed: int) -> Protocol:
    """The protocol with what a user asks for. ValueError where a named protocol says otherwise."""
    asked = {"size": size, "maps": maps}
    for field, value in asked.items():
        if value is None:
            continue
        if how.name is not None and getattr(how, field) != value:
            option = {"size": "--size", "maps": "--map-size"}[field]
            raise ValueError(
                f"{option}: the protocol {how.name} has {_plain(getattr(how, field))}; leave out one of them"
            )
        how = replace(how, **{field: value})
    if how.name is not None and seed != how.seed:
        raise ValueError(f"--seed: the protocol {how.name} has {how.seed}; leave out one of them")
    return how


def _with_protocol(features: Sequence[str], how: Protocol) -> list[str]:
    """The networks asked for, and those of the protocol that are not among them, which come first."""
    named = {text.partition("=")[0]: text for text in features}
    return [*(named.pop(name, name) for name in how.features), *named.values()]


def _plain(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _utility(bench: Bench, model: Contestant, images: int, seeds: Sequence[int]) -> dict[str, Any]:
    """`measure_utility` of pictures of the training maps; the segmenters are kept in the user's cache."""
    name = hashlib.sha256(repr((bench.train.name, bench.size)).encode()).hexdigest()[:16]
    painter, listener = bench.painter(model, bench.seed), listener_of()
    train = ChosenPairs(bench.train, images)  # no more are generated than one training sees
    with generate_pictures(painter, train, bench.size, bench.batch_size, progress=listener) as synthetic:
        return measure_utility(
            train,
            synthetic,
            bench.batches_of(bench.real),
            bench.space,
            size=bench.size,
            images=images,
            seeds=seeds,
            data=bench.data,
            device=bench.device,
            resize=bench.protocol.resize,
            kept=cache_folder() / f"utility-{name}",
            progress=listener,
        )


def page_samples(bench: Bench, model: Contestant, report: dict[str, Any]) -> PageSamples:
    """The pictures of the page: random maps (drawn by the seed, not chosen), the worst, the nearest."""
    space, names = bench.space, bench.real.names

    def row(index: int) -> tuple[str, np.ndarray, np.ndarray, list[np.ndarray]]:
        image, label = bench.pair(bench.real, index)
        samples = model.samples_per_map if isinstance(model, PictureFolder) else 2
        fakes = [bench.picture(model, index, sample) for sample in range(min(2, samples))]
        return (
            names[index],
            space.colorize(label[0].numpy()),
            to_uint8(image)[0],
            [to_uint8(fake)[0] for fake in fakes],
        )

    chosen = np.random.default_rng(bench.seed).permutation(len(names))[:PAGE_ROWS]
    nearest = [
        (
            found["name"],
            to_uint8(bench.picture(model, found["index"]))[0],
            found["nearest_name"],
            to_uint8(bench.pair(bench.train, found["nearest"]).image)[0],
            found["distance"],
        )
        for found in report.get("neighbours", ())
    ]
    return PageSamples(
        rows=[row(int(index)) for index in chosen],
        worst=[(*row(found["index"]), found["miou"]) for found in report.get("worst", ())],
        neighbours=nearest,
        colors=dict(zip(space.names, space.colors, strict=True)),
    )


def _open_pictures(path: str | Path, data: DataConfig, split: Split, how: Protocol) -> PictureFolder:
    real = open_source(data, split)  # at any size: only names and classes are asked for
    return PictureFolder(path, real.names, real.space, how.size, how.resize)


def _data_config(source: str, data: str | None, size: tuple[int, int]) -> DataConfig:
    values = {"source": source, "root": data, "height": size[0], "width": size[1]}
    return from_dict(DataConfig, values, "data.", "--source")
