"""`make demo`: train on scenes, generate, measure, all within ten minutes on two cores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dpsims.config import Recipe
from dpsims.evaluation import summary, text_table
from dpsims.instruments import feature_networks, say
from dpsims.measuring import Bench
from dpsims.recipes import load_recipe
from dpsims.synthesis import Synthesizer
from dpsims.training import train
from dpsims.writing import write_png, write_whole

SEGMENTER_IMAGES = 2400


def run(out: Path, minutes: float = 5.0) -> dict[str, Any]:
    """Train for `minutes`, then write OUT/contact_sheet.png and OUT/report.json and print the table.

    The report has `trained`, `untrained` and `real`, each with `frechet`, `miou` and `diversity`, and all
    figures under `details`. Run again, it trains no longer than `minutes` in all. Raises ValueError where
    `out` holds another run.
    """
    recipe = demo_recipe(minutes)
    say(f"training on scenes for {minutes:g} minutes (log, grids and checkpoints in {out})")
    train(recipe, out)
    report = measure(out, recipe)
    say(f"figures: {out / 'report.json'}, pictures: {out / 'contact_sheet.png'}")
    return report


def demo_recipe(minutes: float) -> Recipe:
    """The recipe `scenes` with one checkpoint, at the end."""
    return load_recipe(
        "scenes", {"data": {"size": 1000}, "training": {"max_minutes": minutes, "checkpoint_images": 10**9}}
    )


def measure(out: Path, recipe: Recipe, segmenter_images: int = SEGMENTER_IMAGES) -> dict[str, Any]:
    """Trained and untrained generator and real scenes, by the same measures."""
    trained = Synthesizer.load(out)
    networks = feature_networks([], trained.size, trained.about)
    bench = Bench(recipe.data, networks, segmenter_images=segmenter_images)
    untrained = bench.untrained(trained)
    reports: dict[str, Any] = {"trained": bench.measure(trained), "untrained": bench.measure(untrained)}
    reports["real"] = reports["trained"]["real"]
    print(text_table(reports))
    report = {**{name: summary(full) for name, full in reports.items()}, "details": reports}
    write_whole(out / "report.json", json.dumps(report, indent=1).encode())
    titles = ["untrained", "trained", "other noise"]
    write_png(out / "contact_sheet.png", bench.sheet([untrained, trained, trained], titles))
    return report
