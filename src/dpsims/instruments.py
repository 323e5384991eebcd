"""What models are measured with, made from what a user names: feature networks, LPIPS, segmenters."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dpsims.config import BackboneConfig, DataConfig
from dpsims.data import Batch, Source, training_batches
from dpsims.evaluation.features import PooledFeatures
from dpsims.evaluation.huggingface import PREFIX, HuggingFaceSegmenter
from dpsims.evaluation.inception import InceptionFeatures, cache_folder
from dpsims.evaluation.progress import Listener
from dpsims.evaluation.segmentation import (
    LayoutSegmenter,
    Segmenter,
    cached_segmenter,
    check_classes,
    load_segmenter,
    segmenter_key,
    train_segmenter,
)
from dpsims.models.backbones import load_backbone
from dpsims.plain import from_dict

SEGMENTER_BATCH = 8
FEATURE_SIDE = 128  # smaller pictures are enlarged towards this before a named network sees them


def feature_networks(
    names: Sequence[str], size: tuple[int, int], about: dict[str, Any]
) -> list[PooledFeatures]:
    """Networks of the Frechet distances, each `NAME` or `NAME=WEIGHTS`; none: the discriminator's backbone.

    size: (height, width) of the pictures; about: the model's notes, which name that backbone. Raises
    ValueError as `load_backbone` does, and where the model does not say.
    """
    if not names:
        if "backbone" not in about:
            raise ValueError(
                "the model does not name its backbone; say whose features to use: --features NAME=WEIGHTS"
            )
        config = from_dict(BackboneConfig, about["backbone"], where="model.json")
        return [PooledFeatures(load_backbone(config), config.name)]
    scale = feature_scale(size)
    networks: list[PooledFeatures] = []
    for name, _, weights in (text.partition("=") for text in names):
        if name == "inception":
            networks.append(InceptionFeatures(weights or None))
            continue
        networks.append(
            PooledFeatures(load_backbone(BackboneConfig(name, weights or "pretrained", scale)), name)
        )
    return networks


def feature_scale(size: tuple[int, int]) -> float:
    """The factor by which images of (height, width) are enlarged for a named network: 1 to 2.

    It follows from the size alone, so that distances compare between models.
    """
    return min(2.0, max(1.0, FEATURE_SIDE / min(size)))


def open_segmenter(
    name: str | Path | None,
    train: Source,
    data: DataConfig,
    device: torch.device,
    images: int = 6000,
    classes: str | Path | None = None,
) -> LayoutSegmenter:
    """Who reads the pictures: a file, `hf:NAME` (classes: the file that maps its classes), or None for one
    that is trained on the real training pictures (`images` of them, at the size of `data`) and kept in the
    user's cache.

    Raises ValueError for a file that is none or tells other classes apart than evaluation counts.
    """
    counted = train.space.evaluation
    if str(name).startswith(PREFIX):
        say(f"loading {name}")  # may have to be fetched
        judge = HuggingFaceSegmenter(str(name).removeprefix(PREFIX), counted, classes, device)
        for notice in judge.notices:
            say(f"note: {notice}")
        return judge
    if name is not None:
        found = load_segmenter(name, device=device)
        check_classes(found, counted, name)
        return found
    key = segmenter_key(train, data.height, data.width, images, seed=0)
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_folder() / f"segmenter-{digest}.safetensors"
    return cached_segmenter(path, key, lambda: _train(train, data, device, images), device)[0]


def _train(train: Source, data: DataConfig, device: torch.device, images: int) -> Segmenter:
    say(
        f"training a segmenter on {images} crops of {len(train)} real images (once; it is kept; "
        "quicker and less exact: --segmenter-images N)"
    )
    table, counted = torch.from_numpy(train.space.evaluation_table), train.space.evaluation.num_classes
    batches = training_batches(train, replace(data, workers=0), SEGMENTER_BATCH, seed=0)
    mapped = (Batch(image, table[label]) for image, label in batches)
    listen = listener_of()
    return train_segmenter(
        mapped, counted, images, device=device, progress=lambda seen, _: listen("segmenter", seen, images)
    )


def listener_of(every: float = 15.0) -> Listener:
    """Called with (what is being done, pictures done, of how many), says where it stands every 15 seconds."""
    said = time.monotonic()

    def listen(what: str, done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said > every:
            said = time.monotonic()
            say(f"  {what}: {done}{f'/{total}' if total else ''}")

    return listen


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
