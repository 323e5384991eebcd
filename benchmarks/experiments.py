"""Ablations: variants of a recipe, trained on equal images or minutes, measured alike, one table.

    python benchmarks/experiments.py run benchmarks/experiments/NAME.yaml --data DIR --features \\
        squeezenet1_1=FILE --features judge=DIR --segmenter FILE [--jobs 2] [--only VARIANT]
    python benchmarks/experiments.py table benchmarks/experiments/NAME.yaml
    python benchmarks/experiments.py sheet benchmarks/experiments/NAME.yaml VARIANT --data DIR --png FILE

The YAML names a recipe, `settings` on top of it for all, `seeds`, and the `variants` with what each changes
(and `seeds` of its own, where it wants others). Each training is a `dpsims train` on one thread; a stopped
`run` goes on where it was. What was measured goes into docs/measurements/experiments/NAME/VARIANT-SEED.json,
from which `table` prints: means over seeds and, from two seeds on, the interval that holds the mean with 95 %
(Student's t).

All variants of a file are trained and measured on one data set at one size. `--features NAME=WEIGHTS` is a
network of `dpsims evaluate`, and its weights serve the trainings whose backbone has that name, too;
`judge=DIR` is a network that is nobody's backbone (judge.py). On a busy machine train first, measure later:
`run --no-measure --jobs 1 [--only VARIANT]`, then the same command without `--no-measure`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml

from dpsims.checkpoint import checkpoints, read_json
from dpsims.config import Recipe
from dpsims.evaluation.features import PooledFeatures
from dpsims.evaluation.segmentation import segmenter_key
from dpsims.instruments import feature_networks, feature_scale
from dpsims.measuring import Bench
from dpsims.plain import to_dict
from dpsims.recipes import load_recipe
from dpsims.synthesis import Synthesizer
from dpsims.training.loop import flat_settings
from dpsims.writing import write_png, write_whole
from judge import NAME as JUDGE
from judge import load_judge

RESULTS = Path("docs/measurements/experiments")
BY_NETWORK = {"frechet": "Frechet", "kid": "KID", "recall": "recall"}
FIGURES = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy", "diversity": "diversity"}
ARTIFACTS = {"texture_lock": "texture lock", "lattice": "lattice", "noise_detail": "noise detail"}
STORED = ("frechet", "kid", "precision", "recall", *FIGURES, "iou", "artifacts")
"""what of a report is stored, by its keys there"""
# where files lie, and what follows from the data and the backbone
NOT_KEPT = ("data.root", "backbone.weights", "generator.num_classes", "discriminator.num_classes")
NOT_KEPT += ("discriminator.backbone",)
STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5 % points for 1, 2 ... degrees of freedom; beyond ten seeds the last one, a little too wide"""
TITLES = ["generated", "other noise", "other noise"]
GRID_ROWS = 16  # evenly spaced test maps, not chosen
app = typer.Typer(add_completion=False, help=__doc__, rich_markup_mode=None)


@dataclass
class Training:
    """One variant with one seed."""

    experiment: str
    variant: str
    seed: int
    recipe: str
    settings: dict[str, Any]
    """`section.field` -> value, on top of the recipe"""

    @property
    def name(self) -> str:
        return f"{self.variant}-{self.seed}".replace(" ", "_").replace("/", "_")

    @property
    def result(self) -> Path:
        return RESULTS / self.experiment / f"{self.name}.json"

    @property
    def config(self) -> Recipe:
        """The recipe with the settings on top."""
        changes: dict[str, dict[str, Any]] = {"training": {"seed": self.seed}}
        for key, value in self.settings.items():
            section, name = key.split(".")
            changes.setdefault(section, {})[name] = value
        return load_recipe(self.recipe, changes)

    @property
    def fields(self) -> dict[str, Any]:
        """All settings that the training has, by `section.field`; where its files are is left out."""
        fields = flat_settings(to_dict(self.config))
        return {key: value for key, value in fields.items() if not key.startswith(NOT_KEPT)}

    def refuse_others(self, file: Path) -> None:
        """SystemExit where the file is there and records another training than this."""
        if not file.exists():
            return
        there, default = read_json(file)["fields"], flat_settings(to_dict(Recipe()))
        for key, here in self.fields.items():
            before = there.get(key, default[key])  # a field that came later had its default
            if before != here:
                raise SystemExit(
                    f"error: {file}: made with {key}={before}, not {here}; delete it (and the training's "
                    "folder), or undo the change"
                )

    def folder(self, out: Path) -> Path:
        return out / self.experiment / self.name

    def command(self, data: Path, weights: dict[str, str], out: Path, core_time: bool = False) -> list[str]:
        settings = {**self.settings, "training.seed": self.seed}
        recipe = load_recipe(self.recipe)
        name = settings.get("backbone.name", recipe.backbone.name)
        settings.setdefault("backbone.weights", weights.get(name, recipe.backbone.weights))
        options = [text for key, value in settings.items() for text in (f"--{key}", plain(value))]
        program = [str(Path(__file__).with_name("core_time.py"))] if core_time else ["-m", "dpsims.cli"]
        train = [sys.executable, *program, "train", self.recipe, "--data", str(data)]
        return [*train, "--out", str(self.folder(out)), *options]


def plain(value: Any) -> str:
    """A setting as the command line takes it."""
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def read_trainings(file: Path) -> list[Training]:
    """All of an experiment's trainings: variant after variant for the first seed, then for the next one."""
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    found: list[Training] = []
    for variant, changes in values["variants"].items():
        changes = dict(changes or {})
        for seed in changes.pop("seeds", values.get("seeds", [0])):
            settings = {**values.get("settings", {}), **changes}
            found.append(Training(file.stem, variant, seed, values["recipe"], settings))
    rank = {seed: i for i, seed in enumerate(dict.fromkeys(training.seed for training in found))}
    return sorted(found, key=lambda training: rank[training.seed])


@app.command()
def run(
    file: Path,
    data: Annotated[Path, typer.Option(help="folder of the data set")],
    features: Annotated[
        list[str], typer.Option(metavar="NAME=WEIGHTS", help="also the backbones' weights; judge=DIR")
    ],
    segmenter: Annotated[Path | None, typer.Option(help="who measures mIoU; one is trained without")] = None,
    segmenter_images: Annotated[int, typer.Option(min=1, help="images the trained segmenter sees")] = 6000,
    only: Annotated[list[str] | None, typer.Option(help="these variants")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="trainings side by side, one thread each")] = 2,
    out: Annotated[Path, typer.Option(help="the trainings' folders")] = Path("runs/experiments"),
    measure: Annotated[bool, typer.Option(help="measure what is trained")] = True,
    core_time: Annotated[
        bool, typer.Option("--core-time", help="minutes are CPU time: fair on a machine that does other work")
    ] = False,
) -> None:
    """Train what is not trained, measure what is not measured."""
    everything = read_trainings(file)
    trainings = choose(everything, only)
    weights = {name: file for name, _, file in (text.partition("=") for text in features) if file}
    for training in trainings:
        training.refuse_others(training.result)
        training.refuse_others(training.folder(out) / "trained.json")
    waiting = [t for t in trainings if not t.result.exists()]
    untrained = [t for t in waiting if not (t.folder(out) / "trained.json").exists()]
    clock = "cpu" if core_time else "wall"
    reject_other_clock(everything, out, clock if untrained else None)
    bench = None
    if measure and waiting:  # before hours of training: what is missing is reported now
        with one_line_errors():
            bench = open_bench(everything, data, features, segmenter, segmenter_images, out / "kept")
        reject_other_setup(RESULTS / file.stem / "real.json", {"data": data_of(bench)})
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda t: train(t, t.command(data, weights, out, core_time), out, clock), untrained))
    for training in waiting:
        if bench is not None and (training.folder(out) / "trained.json").exists():
            measure_training(training, bench, training.folder(out))
    if bench is not None:
        bench.forget()
    if measure:
        table(file)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """A ValueError becomes the message with which the program ends."""
    try:
        yield
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error


def choose(trainings: list[Training], only: list[str] | None) -> list[Training]:
    """Those of the variants `only` (None: all). SystemExit for an unknown variant."""
    known = dict.fromkeys(training.variant for training in trainings)
    for variant in only or ():
        if variant not in known:
            raise SystemExit(f"error: --only {variant}: no such variant; use one of: {', '.join(known)}")
    return [training for training in trainings if not only or training.variant in only]


def open_bench(
    trainings: list[Training],
    data: Path,
    features: list[str],
    segmenter: Path | None = None,
    segmenter_images: int = 6000,
    keep: Path | None = None,
) -> Bench:
    """What all of the trainings are measured by, and the real images of their size.

    Raises ValueError for trainings on unequal data or at unequal sizes, which no table can compare, and for
    networks and data that cannot be read.
    """
    configs = [training.config.data for training in trainings]
    kinds = dict.fromkeys(f"{config.source} at {config.height}x{config.width}" for config in configs)
    if len(kinds) != 1:
        raise ValueError(f"variants on {' and '.join(kinds)} are not comparable; use a YAML file for each")
    config = configs[0]
    config.root = str(data)
    networks = networks_of(features, (config.height, config.width))
    return Bench(config, networks, segmenter=segmenter, segmenter_images=segmenter_images, keep=keep)


def networks_of(features: list[str], size: tuple[int, int]) -> list[PooledFeatures]:
    """Feature networks for images of (height, width), in the order of `--features`."""
    networks: list[PooledFeatures] = []
    for text in features:
        name, _, path = text.partition("=")
        if name == JUDGE:
            networks.append(load_judge(path, feature_scale(size)))
        else:
            networks += feature_networks([text], size, {})
    return networks


def measure_training(training: Training, bench: Bench, folder: Path) -> None:
    """Measure the newest checkpoint; write its result, that of the real images, and an image grid."""
    newest = checkpoints(folder)[-1]
    model = Synthesizer.load(newest)
    report, state = bench.measure(model), read_json(newest / "state.json")
    means = {
        "instruments": {name: digest for name, digest in report["weights"].items() if name != "model"},
        "data": data_of(bench),
    }
    real = training.result.parent / "real.json"
    reject_other_setup(real, means)
    write_json(real, {"variant": "real training images", **stored(bench.reference.report), **means})
    facts = {"variant": training.variant, "seed": training.seed, "fields": training.fields}
    facts |= {"images": state["images_seen"], "minutes": state["seconds"] / 60}
    facts["validation"] = state["validation"]
    clock = read_json(folder / "trained.json").get("clock")
    facts |= {} if clock is None else {"clock": clock}
    write_json(training.result, {**facts, **stored(report)})
    write_png(folder / "grid.png", bench.sheet([model] * 3, TITLES, GRID_ROWS))
    print(f"{training.variant}, seed {training.seed}: measured", flush=True)


def data_of(bench: Bench) -> dict[str, Any]:
    """Size, and what tells the bench's images from others wherever they are stored."""
    found: dict[str, Any] = {"height": bench.size[0], "width": bench.size[1]}
    for name, source in (("train", bench.train), ("test", bench.real)):
        key = segmenter_key(source, *bench.size, images=0, seed=0)
        found |= {name: key["digest"], f"{name}_images": key["pairs"]}
    return found


def reject_other_setup(file: Path, means: dict[str, dict[str, Any]]) -> None:
    """SystemExit where what is there was measured by other networks or another segmenter, or on other data.

    A file that does not record one of these (older ones do not record the data) is taken to agree.
    """
    there = read_json(file) if file.exists() else {}
    for what, here in means.items():
        if there.get(what, here) != here:
            raise SystemExit(
                f"error: {file.parent}: measured with other {what}: {there[what]}, not {here}; use the same "
                "--features, --segmenter and --data, or delete the folder"
            )


def reject_other_clock(trainings: list[Training], out: Path, clock: str | None) -> None:
    """SystemExit where minutes of what was trained or measured are by another clock: `cpu` or `wall`.

    clock: of the trainings to come; None where there are none. Files without a clock agree with any.
    """
    found = {} if clock is None else {clock: "this command"}
    for training in trainings:
        for file in (training.result, training.folder(out) / "trained.json"):
            there = read_json(file).get("clock") if file.exists() else None
            if there is not None:
                found.setdefault(there, str(file))
    if len(found) > 1:
        files = " and ".join(f"{name} ({file})" for name, file in found.items())
        raise SystemExit(
            f"error: minutes by different clocks: {files}; give or leave out --core-time as for the others, "
            "or delete what was trained"
        )


def train(training: Training, command: list[str], out: Path, clock: str) -> None:
    folder = training.folder(out)
    if (folder / "trained.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    with (folder / "output.log").open("a") as log:
        done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=log, stderr=log)
    if done.returncode:
        last = (folder / "output.log").read_text().strip().splitlines()[-1:]
        print(f"{training.variant}, seed {training.seed}: failed: {' '.join(last)}", flush=True)
        return
    write_json(folder / "trained.json", {"fields": training.fields, "clock": clock})
    minutes = (time.monotonic() - begun) / 60
    print(f"{training.variant}, seed {training.seed}: trained in {minutes:.1f} minutes", flush=True)


@app.command()
def table(file: Path) -> None:
    """Print what was measured."""
    folder = RESULTS / file.stem
    trainings = read_trainings(file)
    for training in trainings:
        training.refuse_others(training.result)
    found = [read_json(t.result) for t in trainings if t.result.exists()]
    if not found:
        raise SystemExit(f"error: nothing measured in {folder}; use `run`")
    real = read_json(folder / "real.json")
    for line in table_lines(found, real):
        print(line)


@app.command()
def sheet(
    file: Path,
    variant: str,
    data: Annotated[Path, typer.Option(help="folder of the data set")],
    png: Annotated[Path, typer.Option(help="picture to write")],
    seed: int = 0,
    out: Annotated[Path, typer.Option(help="the trainings' folders")] = Path("runs/experiments"),
    photographs: Annotated[bool, typer.Option(help="real pictures in it, too (may we show them?)")] = False,
) -> None:
    """Draw label maps of the test split, evenly spaced and not chosen, and three pictures of each."""
    found = [t for t in read_trainings(file) if (t.variant, t.seed) == (variant, seed)]
    if not found or not checkpoints(found[0].folder(out)):
        raise SystemExit(f"error: {variant}, seed {seed}: not in {file}, or not trained; use `run`")
    model = Synthesizer.load(checkpoints(found[0].folder(out))[-1])
    with one_line_errors():
        bench = open_bench(found, data, features=[])
    write_png(png, bench.sheet([model] * 3, TITLES, GRID_ROWS, real=photographs))


def table_lines(found: list[dict[str, Any]], real: dict[str, Any]) -> Iterator[str]:
    names = list(real["frechet"])
    head = ["variant", "seeds", "images", "minutes"]
    head += [f"{title} ({name})" for title, name in product(BY_NETWORK.values(), names)]
    head += [*FIGURES.values(), *ARTIFACTS.values()]
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    for variant in dict.fromkeys(row["variant"] for row in found):
        rows = [row for row in found if row["variant"] == variant]
        images, minutes = (np.mean([row[key] for row in rows]) for key in ("images", "minutes"))
        cells = [variant, str(len(rows)), f"{images:,.0f}", f"{minutes:.1f}"]
        for key, name in product(BY_NETWORK, names):
            cells.append(interval([by_network(row, key, name) for row in rows]))
        cells += [interval([row[key] for row in rows]) for key in FIGURES]
        cells += [interval([artifact(row, key) for row in rows]) for key in ARTIFACTS]
        yield "| " + " | ".join(cells) + " |"
    cells = ["real training images", "", "", ""]
    cells += [number(by_network(real, key, name)) for key, name in product(BY_NETWORK, names)]
    cells += [*(number(real[key]) for key in FIGURES), *(number(artifact(real, key)) for key in ARTIFACTS)]
    yield "| " + " | ".join(cells) + " |"


def by_network(row: dict[str, Any], key: str, name: str) -> float | None:
    """A stored value in the features of a network; None for the KID of a file from before it was stored."""
    if key == "kid":
        return row["kid"][name]["value"] if "kid" in row else None
    return row[key][name]


def artifact(row: dict[str, Any], key: str) -> float | None:
    """A stored artifact; None in a file from before they were stored, and for two noises of real images."""
    value = row.get("artifacts", {}).get(key)
    return value["generated"] if isinstance(value, dict) else value


def interval(values: list[float | None]) -> str:
    """Mean, and half the width of its 95 % interval; nothing where a value is missing."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return number(None)
    mean = number(float(np.mean(known)))
    if len(known) < 2:
        return mean
    half = STUDENT_T[min(len(known), len(STUDENT_T) + 1) - 2] * np.std(known, ddof=1) / len(known) ** 0.5
    return f"{mean} +- {number(float(half))}"


def number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def stored(report: dict[str, Any]) -> dict[str, Any]:
    """What of a report is stored. KeyError for a report without it: nothing is lost in silence."""
    missing = [key for key in STORED if key not in report]
    if missing:
        raise KeyError(f"the report lacks {', '.join(missing)}; it has {', '.join(report)}")
    return {key: report[key] for key in STORED}


def write_json(file: Path, values: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(values, indent=1).encode())


if __name__ == "__main__":
    app()
