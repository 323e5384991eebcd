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

from dpsims.config import DataConfig
from dpsims.data import Split, open_source
from dpsims.data.layouts import recognise
from dpsims.data.scenes import SCENES_SPACE
from dpsims.data.shards import is_sharded, read_index
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
from dpsims.plain import from_dict
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
    if utility and split == "train":
        raise ValueError("--utility: trains on the training pictures; test it on --split test or val")
    if utility_pictures is not None and not (utility and holds_pictures(path)):
        raise ValueError(
            "--utility-pictures: are for --utility of a folder of pictures; leave the option out"
        )
    part = cast(Split, split)
    model = None if holds_pictures(path) else Synthesizer.load(path, device)
    if data is None and (model is None or model.space != SCENES_SPACE):
        what = "is a folder of pictures" if model is None else "was not trained on scenes"
        raise ValueError(f"{path}: {what}; give real pictures to compare with, --data DIR")
    source = source or _source_of(model, data)
    how = _settle(protocol_of(protocol, source), size, maps, seed)
    networks = _with_protocol(features, how)
    needed = {"realism", "neighbours"} & set(metrics)
    if model is None:
        _check_for_folder(path, networks, needed, grid, untrained, utility and utility_pictures is None)
        contestant = _open_pictures(path, _data_config(source, data, (1, 1)), part, how)
    else:
        contestant = model
    compared = how.size or contestant.size
    wanted = needed or (model is not None and "diversity" in metrics) or networks
    bench = Bench(
        _data_config(source, data, compared),
        feature_networks(networks, compared, contestant.about) if wanted else [],
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
        listener=listener_of(),
    )
    for notice in (
        *bench.real.notices,
        *(contestant.notices if isinstance(contestant, PictureFolder) else ()),
    ):
        say(f"note: {notice}")
    bench.check(contestant)
    painter = contestant
    if utility_pictures is not None:  # a picture that is missing is said now
        painter = PictureFolder(utility_pictures, bench.train.names, bench.space, compared, how.resize)
    about = {
        "model": str(path),
        "data": bench.real.name,
        "split": split,
        "size": list(compared),
        "date": datetime.date.today().isoformat(),
    }
    report = {**about, **bench.measure(contestant)}

    def keep() -> None:
        if json_file is not None:
            write_whole(json_file, json.dumps(report, indent=1).encode())

    keep()  # what comes takes long, too
    if utility:
        report["utility"] = _utility(bench, painter, segmenter_images, range(utility_seeds))
    columns = {"generated": report}
    if untrained and model is not None:
        report["untrained"] = columns["untrained"] = bench.measure(bench.untrained(model))
    keep()
    print(text_table({**columns, "real": report["real"]}))
    if html_file is not None:
        write_whole(html_file, write_page(report, page_samples(bench, contestant, report)).encode())
    if grid is not None and model is not None:
        write_png(grid, bench.sheet([model, model], ["generated", "other noise"]))
    bench.forget()
    return report


def _source_of(model: Synthesizer | None, data: str | None) -> str:
    """How the set lies in `data`: as shards say; as the set that the model was trained on; as it looks."""
    if data is None:
        return "scenes"
    if is_sharded(Path(data)):
        return str(read_index(Path(data))["source"])
    trained_on = str(model.about.get("source", "folder")) if model is not None else "folder"
    return recognise(Path(data)) if trained_on in ("folder", "scenes") else trained_on


def _check_for_folder(
    path: str | Path, networks: list[str], needed: set[str], grid: Path | None, untrained: bool, lacks: bool
) -> None:
    """ValueError for what cannot be had of a folder of pictures. lacks: pictures of the training maps."""
    if grid is not None or untrained:
        option = "--grid" if grid is not None else "--untrained"
        raise ValueError(f"{option}: {path} is a folder of pictures, not a model; leave the option out")
    if not networks and needed:
        raise ValueError(
            f"{path}: is a folder of pictures; give a network to compare them by (--features "
            "NAME[=WEIGHTS]), or --metrics without realism and neighbours"
        )
    if lacks:
        raise ValueError(
            f"--utility: {path} has pictures of other maps than the training ones; give those of the same "
            "program: --utility-pictures DIR"
        )


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
    named: dict[str, str] = {}
    for text in features:
        name = text.partition("=")[0]
        if name in named:
            raise ValueError(f"--features {text}: {name} was given before; each network once")
        named[name] = text
    return [*(named.pop(name, name) for name in how.features), *named.values()]


def _plain(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _utility(bench: Bench, model: Contestant, images: int, seeds: Sequence[int]) -> dict[str, Any]:
    """`measure_utility` of pictures of the training maps; the segmenters are kept in the user's cache."""
    name = hashlib.sha256(repr((bench.train.name, bench.size)).encode()).hexdigest()[:16]
    painter, listener = bench.painter(model, bench.seed, bench.train), listener_of()
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
