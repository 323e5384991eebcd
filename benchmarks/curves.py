"""Loss curves and speed of two groups of runs side by side: do they learn alike?

    python benchmarks/curves.py --first runs/files --first runs/files_seed1 \\
        --second runs/shards --second runs/shards_seed1 [--json FILE]

The runs of a group differ by nothing but their seed. Every loss is averaged over windows of the pictures that
all runs have seen. The difference of the groups' means stands beside what chance alone would make of it: its
standard error, from the spread within the groups. Up to about two of these, the groups are alike.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from dpsims.checkpoint import checkpoints, read_json
from dpsims.writing import write_whole


def curve(run: Path) -> dict[str, np.ndarray]:
    """Field -> its values at the logged steps; `images` is the number of pictures seen."""
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [row for row in rows if "validation" not in row]
    return {key: np.array([row[key] for row in steps], float) for key in steps[0]}


def windows(values: dict[str, np.ndarray], key: str, edges: np.ndarray) -> np.ndarray:
    """Means of a field between neighbouring edges (numbers of pictures seen)."""
    images = values["images"]
    pairs = zip(edges[:-1], edges[1:], strict=True)
    return np.array([values[key][(images > low) & (images <= high)].mean() for low, high in pairs])


def speed(run: Path, values: dict[str, np.ndarray]) -> dict[str, float]:
    """images/s of the median step (no checkpoints, no grids), and the share of time spent waiting."""
    step, batch = np.diff(values["seconds"]), np.diff(values["images"])
    state = read_json(checkpoints(run)[-1] / "state.json")
    return {
        "images_per_second": float(np.median(batch) / np.median(step)),
        "data_share": state["data_seconds"] / state["seconds"],
    }


def compare(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """Two groups (runs, windows): their means, and the difference of the whole curves in standard errors."""
    a, b = first.mean(1), second.mean(1)  # of a run's whole curve
    spread = np.concatenate([a - a.mean(), b - b.mean()])
    variance = (spread**2).sum() / max(len(spread) - 2, 1)
    error = float(np.sqrt(variance * (1 / len(a) + 1 / len(b))))
    difference = float(b.mean() - a.mean())
    means = {"first": first.mean(0).tolist(), "second": second.mean(0).tolist()}
    return {**means, "difference": difference, "standard_error": error}


def main(
    first: Annotated[list[Path], typer.Option(help="runs of one group, two or more for a spread")],
    second: Annotated[list[Path], typer.Option(help="runs of the other")],
    count: Annotated[int, typer.Option("--windows")] = 6,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Print the table; see above."""
    curves = {run: curve(run) for run in (*first, *second)}
    seen = min(values["images"][-1] for values in curves.values())
    edges = np.linspace(0, seen, count + 1)
    report: dict[str, Any] = {"first": [*map(str, first)], "second": [*map(str, second)], "images": seen}
    runs = f"{len(first)} and {len(second)} runs"
    print(f"means of windows of {seen / count:.0f} pictures, {seen:.0f} in all; {runs}")
    print(f"{'':26}" + "".join(f"{edge:>9.0f}" for edge in edges[1:]) + "  difference, standard errors")
    for key in (key for key in curves[first[0]] if key.startswith("loss_")):
        one, other = (np.stack([windows(curves[run], key, edges) for run in g]) for g in (first, second))
        report[key] = found = compare(one, other)
        for name in ("first", "second"):
            row = f"{key.removeprefix('loss_'):18}{name:8}"
            row += "".join(f"{value:9.4f}" for value in found[name])
            if name == "second":
                row += f"  {found['difference']:+.4f}, {found['difference'] / found['standard_error']:+.1f}"
            print(row)
    report["speed"] = {str(run): speed(run, values) for run, values in curves.items()}
    for run, figures in report["speed"].items():
        print(
            f"{run}: {figures['images_per_second']:.2f} images/s, {figures['data_share']:.2%} of it waiting"
        )
    if json_file is not None:
        write_whole(json_file, json.dumps(report, indent=1).encode())


if __name__ == "__main__":
    typer.run(main)
