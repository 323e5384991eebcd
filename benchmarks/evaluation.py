"""Time and memory of a Frechet and a kernel distance beside torch-fidelity's, with the same network.

    python benchmarks/evaluation.py [--pictures 5000] [--reference 5000] [--size 256] [--batch 16]
    python benchmarks/evaluation.py --network squeezenet1_1 --size 64 --pictures 1500 --side dpsims
    python benchmarks/evaluation.py --network squeezenet1_1 --size 64 --pictures 4500 --side dpsims

Each side is a process of its own, one after the other, so that its peak memory is its own. Both see the same
pictures (noise of a random grain, made when they are read), in batches of one size, through the same backbone
with random weights: the cost does not depend on them. torch-fidelity runs as it comes, with its loader
processes, whose memory stands apart. Prints one table; a `ratio` above 1 says that ours is faster or smaller.
The second pair of commands shows that memory does not grow with the pictures, but for their kept features.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

COMPARED = 64  # pictures whose features are held side by side
SUBSET_SIZE = 1000  # of a kernel distance


class Noise(Dataset[Tensor]):
    """`count` pictures (3, size, size), uint8; each from its index and the seed alone."""

    def __init__(self, count: int, size: int, seed: int) -> None:
        self.count, self.size, self.seed = count, size, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        if index >= self.count:
            raise IndexError(index)
        random = np.random.default_rng([self.seed, index])
        grain = int(random.integers(2, 33))
        coarse = Image.fromarray(random.integers(0, 256, (grain, grain, 3), np.uint8))
        smooth = np.asarray(coarse.resize((self.size, self.size), Image.Resampling.BICUBIC), np.float32)
        fine = random.integers(-12, 13, smooth.shape, np.int8)
        # the two sets differ in their contrast
        picture = 128 + (smooth - 128) * (0.8 + 0.2 * self.seed) + fine
        return torch.from_numpy(picture.clip(0, 255).astype(np.uint8)).permute(2, 0, 1)

    def batches(self, size: int) -> Iterator[Tensor]:
        """In [-1, 1], one after the other."""
        for start in range(0, self.count, size):
            yield scaled(torch.stack([self[i] for i in range(start, min(start + size, self.count))]))


def scaled(picture: Tensor) -> Tensor:
    return picture.float() / 127.5 - 1


class Clock:
    """Seconds by name; several spans of one name add up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            found = run(*arguments, **named)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            return found

        return call


def backbone(name: str) -> Any:
    from dpsims.config import BackboneConfig
    from dpsims.models.backbones import load_backbone

    return load_backbone(BackboneConfig(name, "random"))


def dpsims(first: Noise, second: Noise, network: str, batch: int) -> dict[str, Any]:
    """Our side: what `dpsims evaluate` does for these two figures."""
    from dpsims.data.scenes import SCENES_SPACE
    from dpsims.evaluation.features import PooledFeatures
    from dpsims.evaluation.frechet import frechet_distance
    from dpsims.evaluation.kernel import kernel_distance
    from dpsims.evaluation.measures import Measures

    clock, features = Clock(), PooledFeatures(backbone(network), network)
    before = peak()

    def gather(pictures: Noise) -> Measures:
        measures = Measures([features], None, SCENES_SPACE)
        for image in pictures.batches(batch):
            measures.update(image, [])
        return measures

    start = time.perf_counter()
    a, b = (clock.timed("extraction", gather)(pictures) for pictures in (first, second))
    kept, others = a.features[network], b.features[network]
    frechet = clock.timed("frechet", frechet_distance)(a.moments[network], b.moments[network])
    size = min(SUBSET_SIZE, len(first), len(second))
    kernel = clock.timed("kernel", kernel_distance)(kept, others, subset_size=size)
    seconds = {**clock.seconds, "total": time.perf_counter() - start}
    return {
        "frechet": frechet,
        "kid": kernel.value,
        "seconds": seconds,
        "before": before,
        "features": kept[:COMPARED].tolist(),
    }


def torch_fidelity(first: Noise, second: Noise, network: str, batch: int) -> dict[str, Any]:
    """Its own `calculate_metrics`, with the network as a registered extractor; its parts are timed."""
    import torch_fidelity as peer
    from torch_fidelity import metrics

    clock, shared, kept = Clock(), backbone(network), []

    class Pooled(peer.FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
            super().__init__(name, features_list)
            self.network = shared

        @staticmethod
        def get_provided_features_list() -> tuple[str]:
            return ("pooled",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "pooled"

        def forward(self, input: Tensor) -> tuple[Tensor]:
            found = self.network(scaled(input))[-1].mean(dim=(2, 3))
            if sum(map(len, kept)) < COMPARED:
                kept.append(found)
            return (found,)

    peer.register_feature_extractor("pooled", Pooled)
    for part, name in {
        "extract_featuresdict_from_input_id_cached": "extraction",
        "fid_featuresdict_to_statistics_cached": "frechet",
        "fid_statistics_to_metric": "frechet",
        "kid_featuresdict_to_metric": "kernel",
    }.items():
        setattr(metrics, part, clock.timed(name, getattr(metrics, part)))
    before = peak()
    settings = {"feature_extractor": "pooled", "batch_size": batch, "cuda": False, "verbose": False}
    settings |= {"kid_subset_size": min(SUBSET_SIZE, len(first), len(second)), "rng_seed": 0}
    start = time.perf_counter()
    found = metrics.calculate_metrics(input1=first, input2=second, fid=True, kid=True, **settings)
    seconds = {**clock.seconds, "total": time.perf_counter() - start}
    return {
        "frechet": found[peer.KEY_METRIC_FID],
        "kid": found[peer.KEY_METRIC_KID_MEAN],
        "seconds": seconds,
        "before": before,
        "features": torch.cat(kept)[: min(COMPARED, len(first))].tolist(),
    }


SIDES = {"dpsims": dpsims, "torch-fidelity": torch_fidelity}


def peak(who: int = resource.RUSAGE_SELF) -> float:
    """MiB that this process (or the largest of its children) has held at most."""
    return resource.getrusage(who).ru_maxrss / 1024


def main(
    pictures: Annotated[int, typer.Option(help="of the measured set")] = 5000,
    reference: Annotated[int | None, typer.Option(help="of the other set; as many by default")] = None,
    size: int = 256,
    batch: int = 16,
    network: Annotated[str, typer.Option(help="any backbone of ours; its weights are random")] = "resnet50",
    threads: int = 2,
    side: Annotated[Literal["both", "dpsims", "torch-fidelity"], typer.Option()] = "both",
    child: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Print the table; see above."""
    if child is not None:
        torch.set_num_threads(threads)
        first, second = Noise(pictures, size, 0), Noise(reference or pictures, size, 1)
        found = SIDES[side](first, second, network, batch)
        found |= {"peak": peak(), "loader": peak(resource.RUSAGE_CHILDREN)}
        child.write_text(json.dumps(found), encoding="utf-8")
        return
    sides = list(SIDES) if side == "both" else [side]
    results = {}
    for name in sides:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "found.json"
            options = {"pictures": pictures, "reference": reference or pictures, "size": size, "batch": batch}
            options |= {"network": network, "threads": threads, "side": name, "child": file}
            words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
            limits = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS")}
            subprocess.run([sys.executable, __file__, *words], check=True, env={**os.environ, **limits})
            results[name] = json.loads(file.read_text(encoding="utf-8"))
    total = pictures + (reference or pictures)
    print(f"{total:,} pictures of {size} x {size}, {network}, batches of {batch}, {threads} threads\n")
    print("\n".join(table(results, total)))


def table(results: dict[str, dict[str, Any]], pictures: int) -> list[str]:
    """One row a figure, one column a side; where there are two, their ratio (above 1: ours is better)."""
    rows: list[tuple[str, list[float], str]] = []
    every = list(results.values())
    speed = [pictures / found["seconds"]["extraction"] for found in every]
    rows.append(("extraction, images/s", speed, f"{1 / _ratio(speed):.2f}"))
    for key in ("extraction", "frechet", "kernel", "total"):
        seconds = [found["seconds"][key] for found in every]
        rows.append((f"{key}, seconds", seconds, f"{_ratio(seconds):.2f}"))
    for key, title in (("peak", "peak memory, MiB"), ("before", "of these before the first picture")):
        memory = [found[key] for found in every]
        rows.append((title, memory, f"{_ratio(memory):.2f}"))
    rows.append(("largest loader process, MiB", [found["loader"] for found in every], ""))
    for key, title in (("frechet", "Frechet distance"), ("kid", "kernel distance")):
        rows.append((title, [found[key] for found in every], ""))
    head = ["", *results, "ratio"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for title, values, ratio in rows:
        cells = [
            f"{v:,.1f}" if v >= 1000 else f"{v:.6g}" if "distance" in title else f"{v:.4g}" for v in values
        ]
        lines.append("| " + " | ".join([title, *cells, ratio if len(every) == 2 else ""]) + " |")
    if len(every) == 2:
        first, second = (torch.tensor(found["features"]) for found in every)
        difference = (first - second).abs().max().item()
        lines.append(f"\nfeatures differ by {difference:.2g} at most, their largest is {first.max():.3g}")
    return lines


def _ratio(values: list[float]) -> float:
    return values[-1] / values[0]


if __name__ == "__main__":
    typer.run(main)
