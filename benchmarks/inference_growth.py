"""How time and memory grow with resolution and with the number of classes (`inference.py --growth FILE`)."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from dpsims.evaluation.markup import Html, tag
from dpsims.writing import write_whole
from inference_modes import Job
from inference_worker import Worker

SIDES = (64, 128, 256, 512, 1024)
CLASSES = (2, 10, 30, 100, 300, 1000)
NETWORKS = {"default": "ours", "OASIS": "OASIS"}
COLORS = {"ours": "#0b6e4f", "OASIS": "#b3541e"}
ROUNDS = 3


def grow(job: Job, file: Path, quick: bool = False) -> list[dict[str, Any]]:
    """Measure, write FILE.csv and FILE.svg. Each point is a process of its own; two take turns."""
    sides, numbers = (SIDES[:2], CLASSES[::3]) if quick else (SIDES, CLASSES)
    jobs = [("pixels", replace(job, height=side, width=side)) for side in sides]
    jobs += [("classes", replace(job, classes=count)) for count in numbers]
    points: list[dict[str, Any]] = []
    for axis, each in jobs:
        workers = {name: Worker(replace(each, row=row)) for row, name in NETWORKS.items()}
        try:
            empty = {name: worker.wait()["empty"] for name, worker in workers.items()}
            turns = [{name: worker.measure(1) for name, worker in workers.items()} for _ in range(ROUNDS)]
        finally:
            for worker in workers.values():
                worker.close()
        for name in workers:
            point: dict[str, Any] = {
                "axis": axis,
                "network": name,
                "side": each.height,
                "classes": each.classes,
            }
            point["seconds"] = min(turn[name]["seconds"][0] for turn in turns)
            point["peak_mib"] = max(turn[name]["peak"] for turn in turns)
            point["own_mib"] = point["peak_mib"] - empty[name]
            points.append(point)
            print(", ".join(f"{key} {value}" for key, value in point.items()), flush=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(points[0]))
    writer.writeheader()
    writer.writerows(points)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file.with_suffix(".csv"), text.getvalue().encode())
    write_whole(file.with_suffix(".svg"), drawing(points).encode())
    print(slopes(points))
    return points


def slopes(points: list[dict[str, Any]]) -> str:
    """Exponents from each point to the next: 1 is linear, 0 flat. Memory: above an empty process's."""
    lines = []
    for axis, title in (("pixels", "pixels"), ("classes", "classes")):
        for name in NETWORKS.values():
            own = [p for p in points if p["axis"] == axis and p["network"] == name]
            lines.append(f"{name}, growth with {title}: " + "; ".join(exponents(own)))
    return "\n".join(lines)


def exponents(points: list[dict[str, Any]]) -> list[str]:
    steps = []
    for key, of in (("seconds", "time"), ("own_mib", "memory")):
        found = [
            math.log(b[key] / a[key]) / math.log(amount(b) / amount(a))
            for a, b in zip(points, points[1:], strict=False)
        ]
        steps.append(f"{of} to the power of " + ", ".join(f"{exponent:.2f}" for exponent in found))
    return steps


def amount(point: dict[str, Any]) -> int:
    return point["side"] ** 2 if point["axis"] == "pixels" else point["classes"]


WIDTH, HEIGHT, MARGIN = 360, 260, 56


def drawing(points: list[dict[str, Any]]) -> str:
    """Four plots, both axes logarithmic: time and memory over side and over classes."""
    frames = []
    for column, (axis, title) in enumerate((("pixels", "side, pixels"), ("classes", "classes"))):
        for line, (key, unit) in enumerate(
            (("seconds", "seconds a picture"), ("peak_mib", "peak memory, MiB"))
        ):
            own = [point for point in points if point["axis"] == axis]
            across = "side" if axis == "pixels" else "classes"
            frame = plot(own, across, key, title, unit)
            frames.append(tag("g", frame, transform=f"translate({column * WIDTH},{line * HEIGHT})"))
    size = {"width": 2 * WIDTH, "height": 2 * HEIGHT, "viewBox": f"0 0 {2 * WIDTH} {2 * HEIGHT}"}
    back = tag("rect", width="100%", height="100%", fill="white")
    style = {"font-family": "sans-serif", "font-size": 11}
    return tag("svg", back, *frames, xmlns="http://www.w3.org/2000/svg", **size, **style)


def plot(points: list[dict[str, Any]], across: str, key: str, title: str, unit: str) -> Html:
    xs = sorted({point[across] for point in points})
    bottom = 10 ** math.floor(math.log10(min(point[key] for point in points)))
    top = 10 ** math.ceil(math.log10(max(point[key] for point in points)) + 1e-9)

    def x_of(value: float) -> float:
        share = math.log(value / xs[0]) / math.log(xs[-1] / xs[0])
        return MARGIN + share * (WIDTH - MARGIN - 16)

    def y_of(value: float) -> float:
        return HEIGHT - 40 - math.log(value / bottom) / math.log(top / bottom) * (HEIGHT - 70)

    parts = []
    for value in xs:
        parts.append(tag("text", f"{value:g}", x=x_of(value), y=HEIGHT - 24, **{"text-anchor": "middle"}))
    value = bottom
    while value <= top * 1.001:
        y = y_of(value)
        parts.append(tag("line", x1=MARGIN, x2=WIDTH - 16, y1=y, y2=y, stroke="#ddd"))
        parts.append(tag("text", f"{value:g}", x=MARGIN - 6, y=y + 4, **{"text-anchor": "end"}))
        value *= 10
    parts.append(tag("text", title, x=WIDTH / 2, y=HEIGHT - 8, **{"text-anchor": "middle"}))
    parts.append(tag("text", unit, x=MARGIN, y=18))
    for place, name in enumerate(NETWORKS.values()):
        own = sorted((point[across], point[key]) for point in points if point["network"] == name)
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in own)
        parts.append(tag("polyline", points=path, fill="none", stroke=COLORS[name], **{"stroke-width": 2}))
        parts += [tag("circle", cx=x_of(x), cy=y_of(y), r=3, fill=COLORS[name]) for x, y in own]
        parts.append(tag("text", name, x=WIDTH - 100 + 45 * place, y=18, fill=COLORS[name]))
    return Html("".join(parts))
