"""The evaluation protocol: what is generated from which map, and the report that comes out.

A model is a callable `generate(label, seed)`; nothing here knows more of it. The generated pictures come from
the test maps, one each, and are compared with the test pictures; the same measures of real pictures stand
beside them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

import dpsims
from dpsims.data import Batch
from dpsims.evaluation.diversity import PairwiseDiversity, RealDiversity
from dpsims.evaluation.features import PooledFeatures
from dpsims.evaluation.frechet import Moments, frechet_distance
from dpsims.evaluation.measures import Measures
from dpsims.evaluation.neighbours import nearest
from dpsims.evaluation.segmentation import Segmenter
from dpsims.labels import LabelSpace

Generate = Callable[[Int[Tensor, "b h w"], int], Float[Tensor, "b 3 h w"]]
"""(label maps, seed) -> pictures in [-1, 1]; the same arguments give the same pictures."""
Batches = Callable[[], Iterable[Batch]]
"""Starts a pass over a split, whole pictures in a fixed order."""

WORST, NEAREST = 8, 8  # maps and pictures that a report names
FEW_IMAGES = 2048  # below this many pictures a Frechet distance is mostly its own bias
NEXT_SAMPLE = (
    1_000_003  # between the seeds of two samples of a map; larger than any split, so that none coincide
)


@dataclass
class RealReference:
    """Measures of real pictures, taken once and set beside every model that is evaluated on the split."""

    moments: dict[str, Moments]  # of the test pictures, by network
    features: dict[str, Tensor]  # of the test pictures, those that were kept
    train: dict[str, Tensor]  # of the training pictures, those that were kept
    count: int  # of the test pictures
    report: dict[str, Any]


def measure_real(
    train: Batches,
    test: Batches,
    *,
    space: LabelSpace,
    networks: Sequence[PooledFeatures],
    segmenter: Segmenter | None,
    seed: int = 0,
) -> RealReference:
    """What real pictures score: train against test (Frechet), the segmenter on test, random pairs of test
    (diversity).

    Raises ValueError for a split of fewer than two pictures, for no network and for two networks of one name.
    """
    _check_networks(networks)
    measures = Measures(networks, segmenter, space)
    diversity = RealDiversity(networks, space.ignore_index, seed)
    for image, label in test():
        measures.update(image, label)
        diversity.update(image, label)
    training = Measures(networks, None, space)
    for image, label in train():
        training.update(image, label)
    counts = {"train": training.count, "test": measures.count}
    for split, count in counts.items():
        if count < 2:
            raise ValueError(
                f"the {split} split has {count} pictures; an evaluation needs at least 2 of each"
            )
    compared = measures.report(training.moments, training.features)
    report = {**compared, **diversity.report(), "counts": counts}
    return RealReference(measures.moments, measures.features, training.features, measures.count, report)


def evaluate(
    generate: Generate,
    train: Batches,
    test: Batches,
    *,
    space: LabelSpace,
    networks: Sequence[PooledFeatures],
    segmenter: Segmenter | None,
    reference: RealReference | None = None,
    seed: int = 0,
    diversity_samples: int = 2,
    diversity_maps: int = 64,
) -> dict[str, Any]:
    """Generate one picture for each test map and measure them; plain values that JSON can hold.

    networks: the first is the one that `summary` shows. segmenter: None leaves miou, pixel_accuracy and iou
    None. reference: `measure_real` of the same splits, networks and segmenter, where several models are
    compared; measured here where absent. diversity: `diversity_samples` (2 or more; fewer skip it) pictures
    of each of `diversity_maps` evenly spaced maps. Memory is bounded by a batch. The same arguments (batch
    size included: it decides which noise a map gets) give the same figures, `seconds` apart. Raises
    ValueError as `measure_real`, and for pictures that are not finite or not of their map's size.
    """
    start = time.monotonic()
    reference = reference or measure_real(
        train, test, space=space, networks=networks, segmenter=segmenter, seed=seed
    )
    measures = Measures(networks, segmenter, space)
    diversity = PairwiseDiversity(networks)
    chosen = _evenly_spaced(reference.count, diversity_maps)
    for _, label in test():
        image = _generate(generate, label, seed + measures.count)
        rows = [i for i in range(len(label)) if measures.count + i in chosen]
        if rows and diversity_samples > 1:
            seeds = [seed + measures.count + m * NEXT_SAMPLE for m in range(1, diversity_samples)]
            diversity.update([image[rows], *(_generate(generate, label[rows], s) for s in seeds)])
        measures.update(image, label)
    return {
        **measures.report(reference.moments, reference.features),
        **diversity.report(),
        "worst": _worst(measures.picture_iou()),
        "neighbours": _nearest_training(measures, reference),
        "real": reference.report,
        "frechet_titles": {network.name: network.title for network in networks},
        "counts": {
            **{
                "generated": measures.count,
                "test": reference.count,
                "train": reference.report["counts"]["train"],
            },
            **{"diversity_maps": diversity.maps, "diversity_samples": diversity_samples},
        },
        "seeds": {"generate": seed},
        "segmenter": segmenter.key if segmenter is not None else None,
        "warnings": _few_images(measures.count, reference.count),
        "versions": {"torch": torch.__version__, "dpsims": dpsims.__version__},
        "seconds": round(time.monotonic() - start, 2),
    }


def validate(
    generate: Generate,
    val: Batches,
    network: PooledFeatures,
    reference: Moments | None = None,
    seed: int = 0,
    diversity_maps: int = 16,
) -> dict[str, float]:
    """A quick look during training: {"frechet": distance to the real pictures of `val`, "diversity": in
    pixels}.

    One pass, one network, no segmenter; two samples of the first `diversity_maps` maps. reference: moments of
    the real pictures of `val`, measured along where absent (they cost a pass of the network each time).
    Raises ValueError as `evaluate`.
    """
    real, fake, diversity = Moments(), Moments(), PairwiseDiversity([])
    for image, label in val():
        if reference is None:
            real.update(network(image))
        sample = _generate(generate, label, seed + fake.count)
        again = label[: max(0, diversity_maps - fake.count)]
        if len(again):
            diversity.update(
                [sample[: len(again)], _generate(generate, again, seed + fake.count + NEXT_SAMPLE)]
            )
        fake.update(network(sample))
    diverse = diversity.report()["diversity"]
    return {
        "frechet": frechet_distance(fake, reference or real),
        "diversity": math.nan if diverse is None else diverse,
    }


def summary(report: dict[str, Any], network: str | None = None) -> dict[str, float | None]:
    """The flat triple `frechet`, `miou`, `diversity` of a report of `evaluate` or of its "real" section.

    network: name of the network whose Frechet distance is shown; the report's first where not given.
    ValueError for one that the report does not have.
    """
    frechet = report["frechet"]
    if network is not None and network not in frechet:
        raise ValueError(f"network={network!r} was not measured; there are: {', '.join(frechet)}")
    value = frechet[network if network is not None else next(iter(frechet))]
    return {"frechet": value, "miou": report["miou"], "diversity": report["diversity"]}


def _worst(values: list[float | None]) -> list[dict[str, Any]]:
    """The pictures with the lowest mIoU of their own, lowest first: {"index", "miou"}."""
    known = sorted((value, index) for index, value in enumerate(values) if value is not None)
    return [{"index": index, "miou": value} for value, index in known[:WORST]]


def _nearest_training(measures: Measures, reference: RealReference) -> list[dict[str, Any]]:
    """The generated pictures nearest to a training picture, in the first network's features, nearest first.

    {"index", "nearest": index of the training picture, "distance", "real_distance": how near real test
    pictures come to training ones, their median}. A model that knows pictures by heart is far below that.
    """
    name = measures.networks[0].name
    own, train, real = measures.features[name], reference.train[name], reference.features[name]
    distance, index = (found[:, 0] for found in nearest(own, train))
    usual = nearest(real, train)[0][:, 0].median().item()
    order = distance.argsort()[:NEAREST].tolist()
    return [
        {
            "index": i,
            "nearest": int(index[i]),
            "distance": distance[i].item(),
            "real_distance": usual,
        }
        for i in order
    ]


def _generate(generate: Generate, label: Tensor, seed: int) -> Tensor:
    with torch.no_grad():
        image = generate(label, seed).detach()
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


def _few_images(generated: int, real: int) -> list[str]:
    if min(generated, real) >= FEW_IMAGES:
        return []
    return [
        f"Frechet distances of {generated} generated against {real} real pictures: under {FEW_IMAGES:,} they "
        "are biased upwards, the more the fewer there are; compare only figures of the same counts"
    ]


def _check_networks(networks: Sequence[PooledFeatures]) -> None:
    names = [network.name for network in networks]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"networks={names}: give at least one, each with a name of its own")
