"""What a report says beside its figures: worst maps, nearest training pictures, warnings, versions."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import torch

import dpsims
from dpsims.evaluation.measures import FEATURES_KEPT, Measures
from dpsims.evaluation.neighbours import nearest

WORST, NEAREST = 8, 8  # maps and pictures that a report names
FEW_IMAGES = 2048  # below this many pictures a Frechet distance is mostly its own bias


def worst_maps(values: list[float | None], real: list[float | None]) -> list[dict[str, Any]]:
    """The pictures with the lowest mIoU of their own, lowest first; real_miou: of the map's real picture."""
    known = sorted((value, index) for index, value in enumerate(values) if value is not None)
    return [{"index": index, "miou": value, "real_miou": real[index]} for value, index in known[:WORST]]


def nearest_training(measures: Measures, train: Measures, usual: float | None) -> list[dict[str, Any]]:
    """The generated pictures nearest to a training picture, in the first network's features, nearest first.

    {"index", "nearest": index of the training picture, "distance", "real_distance": how near real test
    pictures come to training ones, their median: `usual`}. A model that knows pictures by heart is far below
    that.
    """
    name = measures.networks[0].name
    distance, index = (found[:, 0] for found in nearest(measures.features[name], train.features[name]))
    order = distance.argsort()[:NEAREST].tolist()
    return [
        {
            "index": measures.kept[i],
            "nearest": train.kept[int(index[i])],
            "distance": distance[i].item(),
            "real_distance": usual,
        }
        for i in order
    ]


def notes(counts: Sequence[int]) -> list[str]:
    """What stands above the figures. counts: generated, test and training pictures."""
    told = []
    if max(counts) > FEATURES_KEPT:
        told.append(
            f"of sets of more than {FEATURES_KEPT:,} pictures a random sample of that many serves kernel "
            "distance, precision, recall, density, coverage and the nearest training pictures"
        )
    generated, real = counts[:2]
    if min(generated, real) >= FEW_IMAGES:
        return told
    return [
        *told,
        f"Frechet distances of {generated} generated against {real} real pictures: under {FEW_IMAGES:,} they "
        "are biased upwards, the more the fewer there are; compare only figures of the same counts",
    ]


def versions() -> dict[str, str]:
    """Of the programs that figures can depend on, those that are installed."""
    found = {"dpsims": dpsims.__version__, "torch": torch.__version__}
    for name in (
        "torchvision",
        "timm",
        "torch-fidelity",
        "lpips",
        "segmentation-models-pytorch",
        "transformers",
    ):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
