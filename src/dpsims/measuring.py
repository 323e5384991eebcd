"""Measure models on a data set: what `dpsims evaluate` does, from sources, networks and a segmenter."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor

from dpsims.checkpoint import Model
from dpsims.config import BackboneConfig, DataConfig, from_dict
from dpsims.data import Batch, Source, Split, fixed_batches, open_source, training_batches
from dpsims.evaluation import (
    PooledFeatures,
    RealReference,
    Segmenter,
    cached_segmenter,
    contact_sheet,
    evaluate,
    measure_real,
    rows_of,
    segmenter_key,
    train_segmenter,
)
from dpsims.evaluation.huggingface import PREFIX, HuggingFaceSegmenter
from dpsims.evaluation.inception import InceptionFeatures, cache_folder
from dpsims.models.backbones import load_backbone
from dpsims.models.generator import Generator
from dpsims.pictures import PictureFolder
from dpsims.synthesis import Synthesizer, pick_device
from dpsims.training.ema import reestimate_batchnorm

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
    # of the pictures' size alone: comparable between models
    scale = min(2.0, max(1.0, FEATURE_SIDE / min(size)))
    networks: list[PooledFeatures] = []
    for name, _, weights in (text.partition("=") for text in names):
        if name == "inception":
            networks.append(InceptionFeatures(weights or None))
            continue
        networks.append(
            PooledFeatures(load_backbone(BackboneConfig(name, weights or "pretrained", scale)), name)
        )
    return networks


class Bench:
    """A data set at one size, with all that models are measured by on it; parts are made when first needed.

    data: its height and width are the size; names: see `feature_networks`; segmenter: a file, `hf:NAME` for a
    model of Hugging Face (`segmenter_classes`: the file that maps its classes), or None for one that is
    trained on the real training pictures (`segmenter_images` of them) and kept in the user's cache.
    """

    def __init__(
        self,
        data: DataConfig,
        networks: Sequence[PooledFeatures],
        *,
        split: Split = "test",
        segmenter: str | Path | None = None,
        segmenter_images: int = 6000,
        segmenter_classes: str | Path | None = None,
        batch_size: int = 16,
        device: str = "auto",
    ) -> None:
        self.data, self.networks, self.batch_size = data, list(networks), batch_size
        self.device = pick_device(device)
        for network in self.networks:
            network.backbone.to(self.device)
        self.real = open_source(data, split)
        self.train = open_source(data, "train")
        for source, name in ((self.train, "train"), (self.real, split)):
            if len(source) < 2:  # said now, not after a segmenter was trained
                raise ValueError(
                    f"{source.name}: the {name} split has {len(source)} pictures, an evaluation needs 2 or "
                    "more; add pictures, or measure on another --split"
                )
        self.space = self.real.space
        self._segmenter_file, self._segmenter_images = segmenter, segmenter_images
        self._segmenter_classes = segmenter_classes
        if segmenter_classes is not None and not str(segmenter).startswith(PREFIX):
            raise ValueError(
                f"--segmenter-classes {segmenter_classes}: maps the classes of a Hugging Face model; name it "
                f"with --segmenter {PREFIX}NAME, or leave the option out"
            )

    def batches_of(self, source: Any) -> Callable[[], Iterator[Batch]]:
        return lambda: fixed_batches(source, self.data.height, self.data.width, self.batch_size)

    @cached_property
    def segmenter(self) -> Segmenter:
        if str(self._segmenter_file).startswith(PREFIX):
            name = str(self._segmenter_file).removeprefix(PREFIX)
            say(f"loading {self._segmenter_file}")  # may have to be fetched
            judge = HuggingFaceSegmenter(name, self.space.evaluation, self._segmenter_classes, self.device)
            for notice in judge.notices:
                say(f"note: {notice}")
            return cast(Segmenter, judge)  # has all of it that a measurement uses
        if self._segmenter_file is not None:
            found = Segmenter.load(self._segmenter_file, device=self.device)
            counted = list(self.space.evaluation.names)
            told = found.key.get("classes", [f"class {i}" for i in range(found.num_classes)])
            if len(told) != len(counted) or (found.key and told != counted):
                raise ValueError(
                    f"{self._segmenter_file}: tells other classes apart ({_some(told)}) than evaluation "
                    f"counts ({_some(counted)}); leave out --segmenter to have one trained"
                )
            return found
        key = segmenter_key(self.train, self.data.height, self.data.width, self._segmenter_images, seed=0)
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        path = cache_folder() / f"segmenter-{digest}.safetensors"
        return cached_segmenter(path, key, self._train_segmenter, self.device)[0]

    def _train_segmenter(self) -> Segmenter:
        say(f"training a segmenter on {self._segmenter_images} real pictures (once; it is kept)")
        said = time.monotonic()

        def progress(seen: int, loss: float) -> None:
            nonlocal said
            if time.monotonic() - said > 15:
                said = time.monotonic()
                say(f"  segmenter: {seen}/{self._segmenter_images} pictures, loss {loss:.3f}")

        table, counted = torch.from_numpy(self.space.evaluation_table), self.space.evaluation.num_classes
        batches = training_batches(self.train, replace(self.data, workers=0), SEGMENTER_BATCH, seed=0)
        mapped = (Batch(image, table[label]) for image, label in batches)
        return train_segmenter(mapped, counted, self._segmenter_images, device=self.device, progress=progress)

    @cached_property
    def reference(self) -> RealReference:
        """Real training pictures against the real pictures of the split."""
        return measure_real(
            self.batches_of(self.train),
            self.batches_of(self.real),
            space=self.space,
            networks=self.networks,
            segmenter=self.segmenter,
        )

    def measure(self, model: Synthesizer | PictureFolder, seed: int = 0) -> dict[str, Any]:
        """The report of `evaluation.evaluate`, with names. Raises ValueError as `check` and `evaluate` do."""
        self.check(model)
        report = evaluate(
            model.generate,
            self.batches_of(self.train),
            self.batches_of(self.real),
            space=self.space,
            networks=self.networks,
            segmenter=self.segmenter,
            reference=self.reference,
            seed=seed,
            diversity_samples=model.samples_per_map if isinstance(model, PictureFolder) else 2,
        )
        for row in (*report["worst"], *report["neighbours"]):
            row["name"] = self.real.names[row["index"]]
            if "nearest" in row:
                row["nearest_name"] = self.train.names[row["nearest"]]
        return report

    def picture(self, model: Synthesizer | PictureFolder, index: int, seed: int = 0) -> Tensor:
        """The very picture (1, 3, h, w) that `measure` saw of map `index`."""
        label = self.pair(self.real, index).label
        if isinstance(model, PictureFolder):
            return model.generate(label, index)
        start = index // self.batch_size * self.batch_size
        return model.generate(label, seed + start, first=index - start)

    def pair(self, source: Source, index: int) -> Batch:
        """One pair of a source as a batch, at the bench's size."""
        return next(fixed_batches(source, self.data.height, self.data.width, 1, chosen=[index]))

    def check(self, model: Synthesizer | PictureFolder) -> None:
        """ValueError where the model's classes are not the data's, in the data's order."""
        mine, theirs = ([n.casefold() for n in space.names] for space in (model.space, self.space))
        if mine != theirs:
            only = [n for n in theirs if n not in mine], [n for n in mine if n not in theirs]
            data, trained = (f" (only there: {_some(names)})" if names else "" for names in only)
            raise ValueError(
                f"{self.real.name}: has {len(theirs)} classes{data}, the model another {len(mine)}{trained}, "
                "or in another order; measure on the set, and in the coding, that it was trained on"
            )

    def sheet(
        self, models: Sequence[Synthesizer], titles: Sequence[str], rows: int = 8, real: bool = True
    ) -> Image.Image:
        """label map | real (left out where not wanted) | a picture of each model, a row a map.

        The same model twice: another noise.
        """
        size = (self.data.height, self.data.width)
        label_rows = []
        for image, label in fixed_batches(self.real, *size, 1, rows):
            seeds = [sum(other is model for other in models[:i]) for i, model in enumerate(models)]
            fakes = [
                m.generate(label, seed, first=len(label_rows)) for m, seed in zip(models, seeds, strict=True)
            ]
            label_rows += rows_of(label, image if real else None, fakes, self.space.palette)
        return contact_sheet(label_rows, ["label map", *(["real"] if real else []), *titles])

    def untrained(self, model: Synthesizer) -> Synthesizer:
        """A generator like the model's with random weights, its BatchNorm measured as a trained one's is."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            generator = Generator(model.generator.config).eval().requires_grad_(False)
        labels = (b.label for b in fixed_batches(self.train, self.data.height, self.data.width, 16, 256))
        generator = reestimate_batchnorm(generator, labels)
        return Synthesizer(Model(generator, model.space, *model.size, about={}), str(self.device))


def _some(names: list[str]) -> str:
    return f"{len(names)}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
