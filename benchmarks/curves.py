"""Loss curves and speed of runs side by side: do two of them learn alike?

    python benchmarks/curves.py runs/files runs/shards --noise runs/files_seed1 [--json FILE]

Every loss is averaged over windows of the pictures that all runs have seen. The difference of the first
two runs stands beside that of the first and the `--noise` run, which differs by nothing but its seed: what
differs no more than that is the same within noise.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

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


def main(
    first: Path,
    second: Path,
    noise: Annotated[Path, typer.Option(help="the first run with another seed")],
    count: Annotated[int, typer.Option("--windows")] = 6,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Print the table; see above."""
    runs = [first, second, noise]
    curves = [curve(run) for run in runs]
    seen = min(values["images"][-1] for values in curves)
    edges = np.linspace(0, seen, count + 1)
    report: dict[str, object] = {
        "runs": [str(run) for run in runs],
        "images": seen,
        "speed": {str(run): speed(run, values) for run, values in zip(runs, curves, strict=True)},
    }
    print(f"mean of each window of {seen / count:.0f} pictures; {seen:.0f} pictures in all")
    print(f"{'':28}" + "".join(f"{edge:>10.0f}" for edge in edges[1:]))
    for key in (key for key in curves[0] if key.startswith("loss_")):
        means = [windows(values, key, edges) for values in curves]
        for run, mean in zip(runs, means, strict=True):
            print(
                f"{key.removeprefix('loss_')[:12]:12} {run.name[:15]:15}"
                + "".join(f"{v:10.4f}" for v in mean)
            )
        apart, of_seeds = (float(np.abs(mean - means[0]).mean()) for mean in means[1:])
        print(f"{'':13}{'difference':15}{apart:10.4f}, of seeds {of_seeds:.4f}, ratio {apart / of_seeds:.2f}")
        report[key] = {"means": [mean.tolist() for mean in means], "difference": apart, "noise": of_seeds}
    for run, values in zip(runs, curves, strict=True):
        figures = speed(run, values)
        waiting = f"{figures['data_share']:.2%} of the time waiting for data"
        print(f"{run}: {figures['images_per_second']:.2f} images/s, {waiting}")
    if json_file is not None:
        write_whole(json_file, json.dumps(report, indent=1).encode())


if __name__ == "__main__":
    typer.run(main)
