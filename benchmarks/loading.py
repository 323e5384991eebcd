"""Images per second of decode + transform: our loader on files and on shards, against a plain PIL loop.

    OMP_NUM_THREADS=1 python benchmarks/loading.py [--data DIR] [--workers N] [--json FILE]

Without --data it draws its own pairs: scenes of 512 x 512 pixels, as JPEG and PNG. All give batches at
256 x 256 with random crops and mirrors; nothing is kept decoded, and the files come from memory, not from a
disk: what is compared is work. The runs alternate; each figure is the median over the rounds, in images a
second and core. The plain loop is what one writes in ten lines: PIL opens, crops, resizes and mirrors.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any
from unittest.mock import patch

import numpy as np
import PIL
import torch
import typer
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dpsims.config import DataConfig
from dpsims.data import batches, pairs, shards
from dpsims.data.base import Source
from dpsims.data.layouts import find_layout
from dpsims.data.pairs import Layout, Pair, PairSource
from dpsims.data.scenes import SCENES_SPACE, draw_scene
from dpsims.data.shards import Shards
from dpsims.data.write_shards import write_shards
from dpsims.labels import LabelSpace
from dpsims.writing import write_whole

Start = Callable[[], Iterator[Any]]
"""begins an endless stream of batches"""
SMALL = 286  # the shorter side that leaves a crop of 1/1.12 its 256 pixels


def main(
    data: Annotated[Path | None, typer.Option(help="a data set; else scenes are drawn")] = None,
    drawn: Annotated[int, typer.Option("--pairs", help="number of scenes to draw")] = 256,
    size: Annotated[int, typer.Option(help="height and width of batches")] = 256,
    batch_size: int = 8,
    images: Annotated[int, typer.Option(help="measured in each round and run")] = 128,
    rounds: int = 7,
    workers: Annotated[int, typer.Option(help="loader processes; 0 loads in this one")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    torch.set_num_threads(1)
    with TemporaryDirectory() as name:
        folder = Path(name)
        layout = find_layout(data if data is not None else draw_pairs(folder / "data", drawn))
        whole = write_shards(layout, folder / "shards").parent
        small = write_shards(layout, folder / "small", size=SMALL).parent
        config = DataConfig(height=size, width=size, crop=1.12, workers=workers, cache_mb=0)

        def ours(source: Source) -> Start:
            return lambda: batches.training_batches(source, config, batch_size, seed=0)

        plain = PlainPairs(layout.splits["train"], config)
        runs: dict[str, Start] = {
            "plain PIL loop": lambda: iter(DataLoader(plain, batch_size, num_workers=workers)),
            "files": ours(PairSource(layout, "train")),
            "shards": ours(Shards(whole, "train")),
            f"shards --size {SMALL}": ours(Shards(small, "train")),
        }
        speeds = measure(runs, images, batch_size, rounds, workers)
        shares = (
            {}
            if workers
            else {run: where_time_goes(start, images, batch_size) for run, start in runs.items()}
        )
        result = {"of": describe(layout), "size": size, "workers": workers, "batch_size": batch_size}
    result |= {"images_per_second_and_core": speeds, "milliseconds": shares, "machine": machine()}
    print(report(result))
    if json_file is not None:
        write_whole(json_file, json.dumps(result, indent=1).encode())


class PlainPairs(Dataset):
    """What everyone writes: one pair opened, cropped, resized and mirrored by PIL."""

    def __init__(self, pairs: list[Pair], config: DataConfig) -> None:
        self.pairs, self.config = pairs, config

    def __len__(self) -> int:
        return 1_000_000_000  # as endless as the others

    def __getitem__(self, n: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng(n)
        pair = self.pairs[int(rng.integers(len(self.pairs)))]
        image, label = open_picture(pair), open_map(pair)
        zoom = rng.uniform(1, self.config.crop)
        width, height = image.width / zoom, image.height / zoom
        left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
        image, label = resize(image, label, (left, top, left + width, top + height), self.config)
        if rng.random() < 0.5:
            flip = Image.Transpose.FLIP_LEFT_RIGHT
            image, label = image.transpose(flip), label.transpose(flip)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1
        return pixels, torch.from_numpy(np.array(label)).long()


def open_picture(pair: Pair) -> Image.Image:
    return Image.open(pair.image).convert("RGB")


def open_map(pair: Pair) -> Image.Image:
    label = Image.open(pair.label)
    label.load()
    return label


def resize(
    image: Image.Image, label: Image.Image, box: tuple[float, float, float, float], config: DataConfig
) -> tuple[Image.Image, Image.Image]:
    size = config.width, config.height
    return image.resize(size, Image.Resampling.BILINEAR, box), label.resize(
        size, Image.Resampling.NEAREST, box
    )


def measure(
    runs: dict[str, Start], images: int, batch_size: int, rounds: int, workers: int
) -> dict[str, dict[str, float]]:
    """Images a second and core of each run: median, least and most over the rounds."""
    count = -(-images // batch_size)
    streams = {} if workers else {run: start() for run, start in runs.items()}
    speeds: dict[str, list[float]] = defaultdict(list)
    for k in range(rounds + 1):
        for run, start in runs.items():
            stream = streams.get(run) or start()  # loader processes only while they are measured
            for _ in range(4 * workers):  # what they have loaded ahead
                next(stream)
            begun = time.perf_counter()
            for _ in range(count):
                next(stream)
            if k > 0:  # the first one warms up
                speeds[run].append(count * batch_size / (time.perf_counter() - begun) / max(1, workers))
            del stream
    return {
        run: {"median": statistics.median(s), "least": min(s), "most": max(s)} for run, s in speeds.items()
    }


def where_time_goes(start: Start, images: int, batch_size: int) -> dict[str, float]:
    """Milliseconds an image takes in each step; `rest` is what is left of the whole."""
    spent: dict[str, float] = defaultdict(float)
    count = -(-images // batch_size)
    with timed(spent):
        stream = start()
        next(stream)
        spent.clear()
        begun = time.perf_counter()
        for _ in range(count):
            next(stream)
        whole = time.perf_counter() - begun
    spent["rest"] = whole - sum(spent.values())
    return {step: 1000 * seconds / (count * batch_size) for step, seconds in spent.items()}


STEPS: dict[str, list[tuple[Any, str]]] = {
    "read from shard": [(shards, "_read")],
    "decode picture": [(pairs, "read_image"), (shards, "read_image")],
    "decode map": [
        (pairs, "read_codes"),
        (Layout, "decode"),
        (shards, "read_codes"),
        (LabelSpace, "decode_ids"),
    ],
    "crop and resize": [(batches, "_cut")],
    "to float batch": [(batches, "_collate")],
}
PLAIN_STEPS = {"decode picture": "open_picture", "decode map": "open_map", "crop and resize": "resize"}


@contextmanager
def timed(spent: dict[str, float]) -> Iterator[None]:
    """Inside, the time that each step takes is added up; a step called within another counts as that one."""
    running: list[str] = []

    def watch(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            running.append(step)
            begun = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                running.pop()
                if not running:
                    spent[step] += time.perf_counter() - begun

        return call

    places = [(place, name, step) for step, known in STEPS.items() for place, name in known]
    patches = [patch.object(place, name, watch(step, getattr(place, name))) for place, name, step in places]
    patches += [patch.dict(globals(), {name: watch(s, globals()[name])}) for s, name in PLAIN_STEPS.items()]
    for item in patches:
        item.start()
    try:
        yield
    finally:
        for item in reversed(patches):
            item.stop()


def draw_pairs(folder: Path, count: int, size: int = 512) -> Path:
    """Scenes as a folder of pairs: JPEG pictures as cameras save them, PNG maps."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    (folder / "classes.json").write_text(json.dumps(SCENES_SPACE.to_dict()))
    for i in range(count):
        image, label, _ = draw_scene(i, size, size)
        Image.fromarray(image).save(folder / f"images/{i:04d}.jpg", quality=90)
        Image.fromarray(SCENES_SPACE.encode_ids(label)).save(folder / f"labels/{i:04d}.png")
    return folder


def describe(layout: Layout) -> str:
    image, _ = layout.read(layout.splits["train"][0])
    train = layout.splits["train"]
    kilobytes = statistics.mean(pair.image.stat().st_size for pair in train) / 1024
    return (
        f"{layout.title}, {len(train)} training pairs, the first {image.shape[1]} x {image.shape[0]}, "
        f"pictures of {kilobytes:.0f} KiB on average"
    )


def machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    versions = f"torch {torch.__version__}, Pillow {PIL.__version__}, Python {platform.python_version()}"
    return f"{model or platform.processor()}, {os.cpu_count()} cores, {versions}"


def report(result: dict[str, Any]) -> str:
    speeds, shares = result["images_per_second_and_core"], result["milliseconds"]
    plain = speeds["plain PIL loop"]["median"]
    lines = [result["of"], result["machine"], "", "| loader | images/s a core | least..most | ratio |"]
    lines.append("|---|---|---|---|")
    lines += [
        f"| {run} | {s['median']:.1f} | {s['least']:.1f}..{s['most']:.1f} | {s['median'] / plain:.2f} |"
        for run, s in speeds.items()
    ]
    if shares:
        steps = [*STEPS, "rest"]
        lines += ["", "| ms an image | " + " | ".join(steps) + " |", "|---" * (len(steps) + 1) + "|"]
        for run, share in shares.items():
            lines.append(f"| {run} | " + " | ".join(f"{share.get(step, 0):.2f}" for step in steps) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
