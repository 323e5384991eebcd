"""Measure checkpoints of runs on a data set and print one table: figures over time, or variants side by side.

    python benchmarks/checkpoints.py runs/camvid runs/camvid_oasis --data ../shared/data/camvid \\
        --features squeezenet1_1=FILE --features mobilenet_v2=FILE --json runs/camvid/curve.json

The first two rows are the real training pictures against the real pictures of the split, and the untrained
generator of the first run. Real pictures, segmenter and feature networks are measured once.
`--at IMAGES` takes those checkpoints only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dpsims.checkpoint import checkpoints, read_json
from dpsims.config import DataConfig
from dpsims.instruments import feature_networks
from dpsims.measuring import Bench
from dpsims.synthesis import Synthesizer
from dpsims.writing import write_png, write_whole


def main(
    runs: list[Path],
    data: Annotated[str, typer.Option(help="folder of the data set")],
    features: Annotated[list[str], typer.Option(metavar="NAME=WEIGHTS")],
    at: Annotated[list[int] | None, typer.Option(help="pictures seen of the checkpoints to measure")] = None,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
    grid: Annotated[Path | None, typer.Option(help="contact sheet of the last checkpoint measured")] = None,
    photographs: Annotated[bool, typer.Option(help="real pictures in it, too (may we show them?)")] = False,
    segmenter_images: int = 6000,
    split: Literal["train", "val", "test"] = "test",
) -> None:
    found = [p for run in runs for p in checkpoints(run) if not at or int(p.name) in at]
    if not found:
        raise SystemExit(f"error: no checkpoints in {', '.join(map(str, runs))}")
    first = Synthesizer.load(found[0])
    bench = Bench(
        DataConfig("folder", data, *first.size),
        feature_networks(features, first.size, first.about),
        segmenter_images=segmenter_images,
        split=split,
    )
    rows = [{"model": "real training pictures", **figures(bench.reference.report)}]
    rows.append({"model": "untrained generator", **figures(bench.measure(bench.untrained(first)))})
    names = [network.name for network in bench.networks]
    titles = ["model", "images", "minutes", *(f"Frechet ({n})" for n in names)]
    titles += ["mIoU", "pixel accuracy", "diversity"]
    print("| " + " | ".join(titles) + " |\n" + "|---" * len(titles) + "|")
    for row in rows:
        print(line(row), flush=True)
    model = first
    for path in found:
        state, model = read_json(path / "state.json"), Synthesizer.load(path)
        row = {"model": path.parent.parent.name, "images": state["images_seen"], "seconds": state["seconds"]}
        rows.append({**row, **figures(bench.measure(model))})
        print(line(rows[-1]), flush=True)
        if json_file is not None:  # after each: a long measurement that is stopped has not been for nothing
            write_whole(json_file, json.dumps(rows, indent=1).encode())
    if grid is not None:
        titles = ["generated", "other noise", "other noise"]
        write_png(grid, bench.sheet([model] * 3, titles, rows=10, real=photographs))


def figures(report: dict[str, Any]) -> dict[str, Any]:
    return {key: report[key] for key in ("frechet", "miou", "pixel_accuracy", "diversity", "iou")}


def line(row: dict[str, Any]) -> str:
    minutes = f"{row['seconds'] / 60:.1f}" if "seconds" in row else ""
    cells = [row["model"], str(row.get("images", "")), minutes]
    cells += [f"{value:,.4g}" if value < 1000 else f"{value:,.0f}" for value in row["frechet"].values()]
    cells += [f"{row[key]:.3f}" for key in ("miou", "pixel_accuracy", "diversity")]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    typer.run(main)
