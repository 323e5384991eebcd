"""What generated pictures are worth as training data: train on them, test on real ones.

Segmenters that differ in nothing but their training pictures - real ones, generated ones of the same label
maps, both - are tested on the same real pictures.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpsims.config import DataConfig
from dpsims.data import Batch, Source, training_batches
from dpsims.data.batches import Resize
from dpsims.evaluation.progress import Listener
from dpsims.evaluation.run import Batches
from dpsims.evaluation.segmentation import (
    ConfusionMatrix,
    Segmenter,
    cached_segmenter,
    segmenter_key,
    train_segmenter,
)
from dpsims.evaluation.stored import JoinedPairs, store_pairs
from dpsims.evaluation.trained_segmenter import TrainedSegmenter
from dpsims.labels import LabelSpace

SETS = ("real", "synthetic", "both")


def measure_utility(
    real: Source,
    synthetic: Source,
    test: Batches,
    space: LabelSpace,
    *,
    size: tuple[int, int],
    images: int,
    seeds: Sequence[int] = (0,),
    data: DataConfig,
    device: str | torch.device = "cpu",
    batch_size: int = 8,
    resize: Resize = "bilinear",
    kept: Path | None = None,
    progress: Listener | None = None,
) -> dict[str, Any]:
    """Scores on `test` of segmenters trained on real pictures, on synthetic ones of the same label maps, and
    on both in turn; plain values that JSON can hold.

    real, synthetic: pairs of the same names in the same order, never the test pictures. All are brought to
    `size` (height, width) first, by the filter `resize`, so that neither has more detail. images: pictures
    that each training sees, repeats counted, crops and mirrors as `data` says (its size and workers are not
    used); `both` sees as many of them real as synthetic. Crop number n is the same of real and of synthetic
    pictures. seeds: one training of each kind for each; they decide weights, order and crops. space: the
    classes of the maps; those that evaluation counts are learned and scored. kept: folder where trained
    segmenters are kept, so that a stopped measurement goes on with the next training.

    Returns {"images", "seeds", "size", "pairs" (of each kind), "test" (pictures), and for each of `real`,
    `synthetic`, `both`: {"miou", "pixel_accuracy", "iou": {class: ..}} (means over the seeds, None where
    nothing was to be scored), "runs" (the mIoU of each seed), "spread" (their standard deviation; None for
    one seed)}, "gain": the mIoU of `both` minus that of `real`, "gain_runs", "gain_spread"}. The same
    arguments give the same figures on the CPU; CUDA rounds differently from run to run.

    Raises ValueError for sources that do not belong together, no seed, an empty test split, and as
    `training_batches`, `train_segmenter` and `store_pairs` do.
    """
    _check(real, synthetic, images, seeds)
    config = replace(data, height=size[0], width=size[1], workers=0)
    with ExitStack() as files:
        stored = [
            files.enter_context(store_pairs(s, size, resize=resize, progress=progress))
            for s in (real, synthetic)
        ]
        sources = dict(zip(SETS, (*stored, JoinedPairs(*stored)), strict=True))
        segmenters = {
            (name, seed): _train(
                name, source, space, config, images, seed, device, batch_size, kept, progress
            )
            for seed in seeds
            for name, source in sources.items()
        }
    scores, count = _test(segmenters, test, space)
    kinds = {name: _summary([scores[name, seed] for seed in seeds], space) for name in SETS}
    gains = [
        None if with_both is None or alone is None else with_both - alone
        for with_both, alone in zip(kinds["both"]["runs"], kinds["real"]["runs"], strict=True)
    ]
    about = {"images": images, "seeds": list(seeds), "size": list(size), "pairs": len(real), "test": count}
    return {**about, **kinds, "gain": _mean(gains), "gain_runs": gains, "gain_spread": _spread(gains)}


def _train(
    name: str,
    source: Source,
    space: LabelSpace,
    config: DataConfig,
    images: int,
    seed: int,
    device: str | torch.device,
    batch_size: int,
    kept: Path | None,
    progress: Listener | None,
) -> TrainedSegmenter:
    table = torch.from_numpy(space.evaluation_table)

    def say(seen: int, loss: float) -> None:
        if progress:
            progress(f"segmenter on {name}, seed {seed}", min(seen, images), images)

    def make() -> Segmenter:
        batches = training_batches(source, config, batch_size, seed)
        return train_segmenter(
            _counted(batches, table),
            space.evaluation.num_classes,
            images=images,
            seed=seed,
            device=device,
            progress=say,
        )

    if kept is None:
        segmenter = make()
    else:
        key = segmenter_key(source, config.height, config.width, images, seed)
        crops = {field: asdict(config)[field] for field in ("crop", "rare_crop", "flip")}
        key |= {**crops, "batch_size": batch_size}
        file = kept / f"utility-{name}-{seed}.safetensors"
        segmenter, _ = cached_segmenter(file, key, make, device)
    # a stored one comes back in another memory layout, and would round otherwise
    return segmenter.to(memory_format=torch.channels_last).eval()


def _counted(batches: Iterator[Batch], table: Tensor) -> Iterator[Batch]:
    return (Batch(image, table[label]) for image, label in batches)


def _test(
    segmenters: dict[tuple[str, int], TrainedSegmenter], test: Batches, space: LabelSpace
) -> tuple[dict[tuple[str, int], ConfusionMatrix], int]:
    """One pass over the test pictures for all segmenters, and how many there were."""
    table, classes = torch.from_numpy(space.evaluation_table), space.evaluation.num_classes
    scores = {key: ConfusionMatrix(classes) for key in segmenters}
    count = 0
    for image, label in test(0):
        count += len(label)
        for key, segmenter in segmenters.items():
            scores[key].update(segmenter.predict(image), table[label])
    if not count:
        raise ValueError("the test split has no pictures; utility is measured on real test pictures")
    return scores, count


def _summary(scores: Sequence[ConfusionMatrix], space: LabelSpace) -> dict[str, Any]:
    """Means over the seeds' trainings."""
    runs = [score.miou() for score in scores]
    by_class = zip(*(score.iou() for score in scores), strict=True)
    return {
        "miou": _mean(runs),
        "pixel_accuracy": _mean([score.pixel_accuracy() for score in scores]),
        "iou": {n: _mean(values) for n, values in zip(space.evaluation.names, by_class, strict=True)},
        "runs": runs,
        "spread": _spread(runs),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _spread(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.stdev(known) if len(known) > 1 else None


def _check(real: Source, synthetic: Source, images: int, seeds: Sequence[int]) -> None:
    if images < 1:
        raise ValueError(f"images={images}: a segmenter needs at least one picture to train on")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds={list(seeds)}: give at least one, each once")
    if list(real.names) != list(synthetic.names):
        raise ValueError(
            f"{synthetic.name}: {len(synthetic)} synthetic pictures for {len(real)} real ones, or of other "
            "names; give one of each real picture's label map, in the same order"
        )
