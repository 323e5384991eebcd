"""The evaluation protocol: what is generated from which map, and the report that comes out.

A model is a callable `generate(label, indices, sample)`; nothing here knows more of it. The generated
pictures come from the test maps, one each, and are compared with the test pictures; the same measures of real
pictures stand beside them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dpsims.data import Batch
from dpsims.evaluation.artifacts import Artifacts, beside_real
from dpsims.evaluation.diversity import PairwiseDiversity, RealDiversity
from dpsims.evaluation.features import PooledFeatures
from dpsims.evaluation.lpips import Lpips
from dpsims.evaluation.measures import Measures
from dpsims.evaluation.neighbours import nearest
from dpsims.evaluation.progress import Accumulator, Listener, Progress
from dpsims.evaluation.remarks import nearest_training, notes, versions, worst_maps
from dpsims.evaluation.segmentation import LayoutSegmenter
from dpsims.labels import LabelSpace

Generate = Callable[[Int[Tensor, "b h w"], Sequence[int], int], Float[Tensor, "b 3 h w"]]
"""(label maps, their numbers in the split, sample) -> pictures in [-1, 1]; sample 0, 1 ...: other noise.

A picture depends on its map, its number and the sample alone, not on the batch that it is in.
"""
Batches = Callable[[int], Iterable[Batch]]
"""Starts a pass over a split, whole pictures in a fixed order, at a picture's number (0: all of it)."""
Maps = Callable[[int], Iterator[Sequence[Int[Tensor, "_ _"]]]]
"""The label maps of the same batches, at the sizes at which layouts are compared."""

METRICS = ("realism", "layout", "diversity", "neighbours", "artifacts")
AT_ONCE = 64  # pictures that are looked at together for diversity


@dataclass
class Settings:
    """What is measured, and by what.

    networks: of realism, neighbours and diversity; the first one is `summary`'s. segmenter: None leaves
    layout out. lpips: None leaves it out. metrics: parts of METRICS. diversity: `diversity_samples` (2 or
    more; fewer skip it) pictures of each of `diversity_maps` evenly spaced maps (None: of all); artifacts
    take two of each, and without a second one leave `noise_detail` out. maps: None compares layouts at the
    pictures' size. seed: of what is drawn from real pictures. listener: hears how far it is.
    """

    space: LabelSpace
    networks: Sequence[PooledFeatures] = ()
    segmenter: LayoutSegmenter | None = None
    lpips: Lpips | None = None
    metrics: Collection[str] = METRICS
    diversity_samples: int = 2
    diversity_maps: int | None = 64
    maps: Maps | None = None
    seed: int = 0
    listener: Listener | None = None

    def __post_init__(self) -> None:
        names = [network.name for network in self.networks]
        wanting = [part for part in ("realism", "neighbours") if part in self.metrics]
        if len(set(names)) < len(names) or (wanting and not names):
            raise ValueError(f"networks={names}: give at least one, each with a name of its own")
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown:
            raise ValueError(f"metrics: {unknown[0]!r} is unknown; use of {', '.join(METRICS)}")

    @property
    def samples(self) -> int:
        """How many images of each of `diversity_maps` maps are generated."""
        artifacts = min(2, self.diversity_samples) if "artifacts" in self.metrics else 1
        return self.diversity_samples if "diversity" in self.metrics else artifacts

    @property
    def compares_training(self) -> bool:
        return "realism" in self.metrics or "neighbours" in self.metrics

    def measures(self, layout: bool = True) -> Measures:
        segmenter = self.segmenter if layout and "layout" in self.metrics else None
        return Measures(self.networks if self.compares_training else (), segmenter, self.space)


@dataclass
class RealReference:
    """Measures of real pictures, taken once and set beside every model that is evaluated on the split."""

    test: Measures
    train: Measures | None  # None where nothing is compared with training pictures
    report: dict[str, Any]
    usual: float | None = field(default=None)
    """how near real test pictures come to training ones, their median, in the first network's features"""


def measure_real(
    train: Batches, test: Batches, settings: Settings, progress: Progress | None = None
) -> RealReference:
    """What real pictures score: train against test (realism), the segmenter on test, random pairs of test
    (diversity), artifacts of test.

    Raises ValueError for a split of fewer than two pictures.
    """
    measures, training = settings.measures(), settings.measures(layout=False)
    diversity = RealDiversity(
        settings.networks,
        settings.space.ignore_index,
        settings.seed,
        space=settings.space,
        lpips=settings.lpips,
    )
    artifacts = Artifacts(settings.space)
    diverse, detailed = "diversity" in settings.metrics, "artifacts" in settings.metrics

    def take(first: int, batch: Batch, maps: Sequence[Tensor] | Tensor) -> None:
        measures.update(batch.image, maps)
        if diverse:
            diversity.update(batch.image, batch.label)
        if detailed:
            artifacts.update(batch.image, batch.label)

    def take_training(first: int, batch: Batch, maps: Sequence[Tensor] | Tensor) -> None:
        training.update(batch.image, maps)

    gathered: dict[str, Accumulator] = {"measures": measures}
    gathered |= {"diversity": diversity} if diverse else {}
    gathered |= {"artifacts": artifacts} if detailed else {}
    _pass("real", test, measures, gathered, take, progress, settings)
    counts = {"test": measures.count}
    if settings.compares_training:
        _pass(
            "train",
            train,
            training,
            {"measures": training},
            take_training,
            progress,
            replace(settings, maps=None),
        )
        counts = {"train": training.count, **counts}
    for split, count in counts.items():
        if count < 2:
            raise ValueError(
                f"the {split} split has {count} pictures; an evaluation needs at least 2 of each"
            )
    report: dict[str, Any] = {"counts": counts}
    if "realism" in settings.metrics:
        report |= training.realism(measures)  # as a model's pictures: against the test pictures
    if measures.layout is not None:
        report |= measures.layout.report()
    if diverse:
        report |= diversity.report()
    if detailed:
        report |= artifacts.report()
    reference = RealReference(measures, training if settings.compares_training else None, report)
    if "neighbours" in settings.metrics:
        name = settings.networks[0].name
        found = nearest(measures.features[name], training.features[name])[0]
        reference.usual = found[:, 0].median().item()
    return reference


def evaluate(
    generate: Generate,
    train: Batches,
    test: Batches,
    settings: Settings,
    *,
    reference: RealReference | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Generate one picture for each test map and measure them; plain values that JSON can hold.

    reference: `measure_real` of the same splits and settings, where several models are compared; measured
    here where absent. progress: where states are kept, so that a killed evaluation goes on. Memory is
    bounded, whatever the number of pictures. The same arguments give the same figures, `seconds` apart,
    resumed or not. Raises ValueError as `measure_real`, and for pictures that are not finite or not of their
    map's size.
    """
    start = time.monotonic()
    reference = reference or measure_real(train, test, settings, progress)
    measures = settings.measures()
    diversity = PairwiseDiversity(settings.networks, settings.space, settings.lpips)
    artifacts, samples = Artifacts(settings.space), settings.samples
    diverse = samples > 1 and "diversity" in settings.metrics
    detailed = "artifacts" in settings.metrics
    wanted = reference.test.count if settings.diversity_maps is None else settings.diversity_maps
    chosen = _evenly_spaced(reference.test.count, wanted) if samples > 1 else set()

    def take(first: int, batch: Batch, maps: Sequence[Tensor] | Tensor) -> None:
        indices = range(first, first + len(batch.label))
        image = generate_checked(generate, batch.label, indices, 0)
        measures.update(image, maps)
        if detailed:
            artifacts.update(image, batch.label)
        rows = [i for i, index in enumerate(indices) if index in chosen]
        at_once = max(1, AT_ONCE // samples)
        for part in (rows[i : i + at_once] for i in range(0, len(rows), at_once)):
            label, numbers = batch.label[part], [indices[i] for i in part]
            # all samples in batches of one size: those of a model that ignores its noise are equal to the bit
            first_one = 1 if len(part) == len(image) else 0
            made = [generate_checked(generate, label, numbers, m) for m in range(first_one, samples)]
            made = [image, *made] if first_one else made
            if diverse:
                diversity.update(made, label)
            if detailed:
                artifacts.update_noise(made[0], made[1], label)

    gathered: dict[str, Accumulator] = {"measures": measures}
    gathered |= {"diversity": diversity} if diverse else {}
    gathered |= {"artifacts": artifacts} if detailed else {}
    _pass("generated", test, measures, gathered, take, progress, settings)
    report: dict[str, Any] = {"warnings": []}
    if "realism" in settings.metrics:
        report |= measures.realism(reference.test)
        counts = [measures.count, reference.test.count, reference.report["counts"]["train"]]
        report["warnings"] = notes(counts)
    if measures.layout is not None and reference.test.layout is not None:
        report |= measures.layout.report()
        report["worst"] = worst_maps(measures.layout.picture_iou, reference.test.layout.picture_iou)
    if "diversity" in settings.metrics:
        report |= diversity.report()
    if detailed:
        report |= beside_real(artifacts.report(), reference.report)
    if "neighbours" in settings.metrics and reference.train is not None:
        report["neighbours"] = nearest_training(measures, reference.train, reference.usual)
    counts = {"generated": measures.count, **reference.report["counts"]}
    if samples > 1:
        counts |= {"diversity_maps": len(chosen), "diversity_samples": samples}
    return {
        **report,
        "real": reference.report,
        "frechet_titles": {network.name: network.title for network in settings.networks},
        "counts": counts,
        "segmenter": settings.segmenter.key if measures.layout is not None and settings.segmenter else None,
        "weights": _weights(settings),
        "versions": versions(),
        "seconds": round(time.monotonic() - start, 2),
    }


def _pass(
    part: str,
    batches: Batches,
    measures: Measures,
    gathered: dict[str, Accumulator],
    take: Callable[[int, Batch, Sequence[Tensor] | Tensor], None],
    progress: Progress | None,
    settings: Settings,
) -> None:
    """`take(number of its first picture, batch, maps to compare with)` of each batch, from where a stored
    pass stood.
    """
    if progress is not None:
        progress.load(part, gathered)
    others = settings.maps(measures.count) if settings.maps is not None else None
    for batch in batches(measures.count):
        truth = batch.label if others is None else next(others)
        take(measures.count, batch, truth)
        if settings.listener is not None:
            settings.listener(f"{part} pictures measured", measures.count, 0)
        if progress is not None:
            progress.save(part, gathered)
    if progress is not None:
        progress.save(part, gathered, now=True)


def _weights(settings: Settings) -> dict[str, str]:
    """A digest of the weights of each network that measured."""
    weights = {network.name: network.weights for network in settings.networks}
    if settings.segmenter is not None:
        weights["segmenter"] = settings.segmenter.weights
    if settings.lpips is not None:
        weights[f"lpips {settings.lpips.name}"] = settings.lpips.weights
    return weights


def generate_checked(
    generate: Generate, label: Int[Tensor, "b h w"], indices: Sequence[int], sample: int
) -> Float[Tensor, "b 3 h w"]:
    """`generate`, with ValueError for pictures that are not finite or not of their map's size."""
    with torch.no_grad():
        image = generate(label, indices, sample).detach()
    wanted = (len(label), 3, *label.shape[1:])
    if tuple(image.shape) != wanted:
        raise ValueError(f"the model gave pictures of shape {tuple(image.shape)} for maps that need {wanted}")
    if not torch.isfinite(image).all():
        raise ValueError(
            "the model gave pictures with NaN or infinite values; its training has probably diverged"
        )
    return image


def _evenly_spaced(count: int, wanted: int) -> set[int]:
    return set(torch.linspace(0, count - 1, min(count, wanted)).round().int().tolist())
