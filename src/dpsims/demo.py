"""`make demo`: the shipped model first, then the whole way on real data: fetch, train, measure.

About seven minutes on two cores, with the package index as the only server.
"""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch

from dpsims.config import Recipe
from dpsims.data.examples import example_maps
from dpsims.data.fetch_earth import fetch_earth
from dpsims.data.files import read_label
from dpsims.evaluation import contact_sheet, rows_of, summary, text_table
from dpsims.generating import generate_sized
from dpsims.instruments import feature_networks, say
from dpsims.labels import LabelSpace
from dpsims.measuring import Bench
from dpsims.models.backbones import load_backbone
from dpsims.recipes import load_recipe
from dpsims.synthesis import Synthesizer
from dpsims.training import train
from dpsims.training.loop import differing_settings
from dpsims.writing import write_png, write_whole

SHIPPED = "earth"
SIDE = 64
"""pixels that the demo trains and measures at: in five minutes, four times the images of 128 say more"""
SEGMENTER = "assets/earth_segmenter.safetensors"
TITLES = ["untrained", "trained here", "trained here", "shipped", "shipped"]


def run(out: Path, minutes: float = 5.0, wheels: Path | None = None) -> dict[str, Any]:
    """Generate with the shipped model, then train one like it for `minutes` and measure both.

    Writes OUT/examples.png, OUT/earth (the data set), a run in OUT, OUT/contact_sheet.png,
    OUT/report.json, and prints a table. wheels: see `fetch_earth`.

    The report has `trained`, `shipped`, `untrained` and `real`, each with `frechet`, `miou` and `diversity`,
    and all metrics under `details`. Run again, it trains no longer than `minutes` in all. Raises ValueError
    where `out` holds another run or the backbone's weights are missing, before anything is written.
    """
    recipe = demo_recipe(out / "earth", minutes)
    check_start(out, recipe)
    shipped = Synthesizer.load(SHIPPED)
    write_examples(out / "examples.png", shipped)
    say(f"images of six invented places, by the shipped model: {out / 'examples.png'}")
    say("paint your own: dpsims studio (or .venv/bin/dpsims studio, inside this checkout)")
    fetch_earth(out / "earth", wheels, say)
    say(f"training a generator from scratch for {minutes:g} minutes (log, grids and checkpoints in {out})")
    train(recipe, out)
    report = measure(out, recipe, shipped)
    say(f"metrics: {out / 'report.json'}, images: {out / 'contact_sheet.png'}")
    return report


def demo_recipe(data: Path, minutes: float) -> Recipe:
    """The recipe `earth` at SIDE x SIDE pixels, with one checkpoint, at the end."""
    training = {"max_minutes": minutes, "checkpoint_images": 10**9, "grid_images": 500, "ema_images": 1000}
    # nearly whole images, as they are measured: there is no time to learn zooms
    data_changes = {"root": str(data), "height": SIDE, "width": SIDE, "crop": 1.1}
    changes = {"data": data_changes, "backbone": {"scale": 2.0}, "training": training}
    return load_recipe("earth", changes)


def check_start(out: Path, recipe: Recipe) -> None:
    """ValueError for what would end the training: another run in `out`, missing weights of the backbone."""
    space = LabelSpace.named(recipe.data.source)
    if changed := differing_settings(out, recipe.resolved(space.num_classes)):
        raise ValueError(f"{out}: holds a run with {', '.join(changed)}; remove it, or choose another --out")
    load_backbone(recipe.backbone)  # its error names the extra `backbones`


def write_examples(png: Path, model: Synthesizer) -> None:
    """The example maps of a shipped model and two images of each, side by side."""
    rows = []
    for file in example_maps(SHIPPED):
        label = torch.from_numpy(read_label(file, model.space))[None]
        fakes = [generate_sized(model, label, model.noise(1, seed, 0), "auto") for seed in (0, 1)]
        rows += rows_of(label, None, fakes, model.space.palette)
    write_png(png, contact_sheet(rows, ["label map", "generated", "other noise"]))


def measure(out: Path, recipe: Recipe, shipped: Synthesizer) -> dict[str, Any]:
    """Trained, shipped and untrained generator and real images, by the same metrics at the training size."""
    trained = Synthesizer.load(out)
    networks = feature_networks([], trained.size, trained.about)
    with as_file(files("dpsims") / SEGMENTER) as segmenter:
        bench = Bench(recipe.data, networks, segmenter=segmenter)
        untrained = bench.untrained(trained)
        models = {"trained": trained, "shipped": shipped, "untrained": untrained}
        reports = {name: bench.measure(model) for name, model in models.items()}
        reports["real"] = reports["trained"]["real"]
    print(text_table(reports))
    report = {**{name: summary(full) for name, full in reports.items()}, "details": reports}
    write_whole(out / "report.json", json.dumps(report, indent=1).encode())
    columns = [untrained, trained, trained, shipped, shipped]
    height, width = shipped.size  # at which the shipped model's images are worth looking at
    full = Bench(replace(recipe.data, height=height, width=width), networks)
    write_png(out / "contact_sheet.png", full.sheet(columns, TITLES))
    return report
