"""Measure models on a data set: what `dpsims evaluate` does, from sources, networks and a segmenter."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dpsims.checkpoint import Model
from dpsims.config import DataConfig
from dpsims.data import Batch, Source, Split, fixed_batches, open_source
from dpsims.data.batches import resize_map, resize_picture
from dpsims.evaluation import (
    PooledFeatures,
    RealReference,
    contact_sheet,
    evaluate,
    measure_real,
    rows_of,
)
from dpsims.evaluation.huggingface import PREFIX
from dpsims.evaluation.lpips import make_lpips
from dpsims.evaluation.progress import Listener, Progress
from dpsims.evaluation.protocols import DEFAULT, Protocol
from dpsims.evaluation.remarks import versions
from dpsims.evaluation.report import to_bytes
from dpsims.evaluation.run import METRICS, Generate, Settings
from dpsims.instruments import open_segmenter
from dpsims.models.generator import build_generator
from dpsims.pictures import PictureFolder
from dpsims.plain import to_dict
from dpsims.synthesis import Synthesizer, pick_device
from dpsims.training.ema import reestimate_batchnorm

Contestant = Synthesizer | PictureFolder


class Bench:
    """A data set at one size, with all that models are measured by on it; parts are made when first needed.

    data: its height and width are the size; networks: see `feature_networks`; segmenter, segmenter_images and
    segmenter_classes: see `open_segmenter`; lpips: see `make_lpips`; protocol: how figures are taken; keep:
    folder from which a killed evaluation goes on (see `forget`); listener: hears how far it is. `real` are
    the pictures of the split, `train` the training ones.
    """

    def __init__(
        self,
        data: DataConfig,
        networks: Sequence[PooledFeatures],
        *,
        split: Split = "test",
        protocol: Protocol = DEFAULT,
        metrics: Collection[str] = METRICS,
        segmenter: str | Path | None = None,
        segmenter_images: int = 6000,
        segmenter_classes: str | Path | None = None,
        lpips: str | None = None,
        seed: int = 0,
        batch_size: int = 16,
        device: str = "auto",
        keep: Path | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.data, self.networks, self.batch_size = data, list(networks), batch_size
        self.protocol, self.metrics, self.split, self.seed = protocol, metrics, split, seed
        self.size = (data.height, data.width)
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
        if segmenter_classes is not None and not str(segmenter).startswith(PREFIX):
            raise ValueError(
                f"--segmenter-classes {segmenter_classes}: maps the classes of a Hugging Face model; name it "
                f"with --segmenter {PREFIX}NAME, or leave the option out"
            )
        self._segmenter = (segmenter, segmenter_images, segmenter_classes)
        self._lpips, self._keep, self._listener = lpips, keep, listener
        self._kept: list[Progress] = []

    def batches_of(self, source: Source) -> Callable[[int], Iterator[Batch]]:
        """Passes over a source, from a picture's number on."""
        resize = self.protocol.resize
        return lambda first=0: fixed_batches(
            source, *self.size, self.batch_size, chosen=range(first, len(source)), resize=resize
        )

    def maps(self, first: int) -> Iterator[list[Tensor]]:
        """The label maps of the split's batches at the sizes at which layouts are compared."""
        size = self.protocol.maps
        for start in range(first, len(self.real), self.batch_size):
            whole = range(start, min(start + self.batch_size, len(self.real)))
            labels = [torch.from_numpy(self.real.load(i)[1]) for i in whole]
            yield labels if isinstance(size, str) else [resize_map(label, size) for label in labels]

    @cached_property
    def settings(self) -> Settings:
        name, images, classes = self._segmenter
        layout, diversity = "layout" in self.metrics, "diversity" in self.metrics
        lpips = make_lpips(self._lpips, self.device) if self._lpips and diversity else None  # may be refused
        return Settings(
            self.space,
            self.networks,
            open_segmenter(name, self.train, self.data, self.device, images, classes) if layout else None,
            lpips,
            metrics=self.metrics,
            diversity_samples=self.protocol.diversity_samples,
            diversity_maps=self.protocol.diversity_maps,
            maps=None if self.protocol.maps == "picture" else self.maps,
            seed=self.seed,
            listener=self._listener,
        )

    @cached_property
    def reference(self) -> RealReference:
        """Real training pictures against the real pictures of the split."""
        train, real = self.batches_of(self.train), self.batches_of(self.real)
        return measure_real(train, real, self.settings, self._progress({}))

    def measure(self, model: Contestant, seed: int | None = None) -> dict[str, Any]:
        """The report of `evaluation.evaluate`, with names, protocol and digests.

        seed: of the noise, the bench's where not given. Raises ValueError as `check` and `evaluate` do.
        """
        self.check(model)
        seed = self.seed if seed is None else seed
        settings = self.settings
        if isinstance(model, PictureFolder):
            settings = replace(settings, diversity_samples=model.samples_per_map)
            weights = {"pictures": model.identity}
        else:
            weights = {"model": model.weights}
        about = {"seed": seed, "samples": settings.diversity_samples, "size": model.size}
        if isinstance(model, Synthesizer):
            about["config"] = to_dict(model.generator.config)
        progress = self._progress({**weights, **about})
        report = evaluate(
            self.painter(model, seed),
            self.batches_of(self.train),
            self.batches_of(self.real),
            settings,
            reference=self.reference,
            progress=progress,
        )
        for row in (*report.get("worst", ()), *report.get("neighbours", ())):
            row["name"] = self.real.names[row["index"]]
            if "nearest" in row:
                row["nearest_name"] = self.train.names[row["nearest"]]
        used = replace(self.protocol, diversity_samples=settings.diversity_samples)
        report["protocol"] = used.record(self.size, self.split, seed)
        report["seeds"] = {"generate": seed}
        report["weights"] |= weights
        return report

    def painter(self, model: Contestant, seed: int = 0, source: Source | None = None) -> Generate:
        """The model's pictures at the bench's size, as they are when they were saved: in bytes.

        source: whose maps are numbered, `real` where not given. A model of another size works at its own,
        from the maps as they are stored, and its pictures are resized. Picture number n of sample m has the
        noise of (seed + m, n).
        """
        source = self.real if source is None else source
        if isinstance(model, PictureFolder):
            return model.generate

        def generate(label: Tensor, indices: Sequence[int], sample: int) -> Tensor:
            if model.size != self.size:
                stored = (torch.from_numpy(source.load(index)[1]) for index in indices)
                label = torch.stack([resize_map(one, model.size) for one in stored])
            image = model.generate_numbered(label, indices, sample, seed)
            if not torch.isfinite(image).all():
                return image  # for the message: bytes would hide it
            pixels = to_bytes(image)
            if model.size != self.size:
                pixels = torch.stack([resize_picture(one, self.size, self.protocol.resize) for one in pixels])
            return pixels.float() / 127.5 - 1

        return generate

    def picture(self, model: Contestant, index: int, sample: int = 0) -> Tensor:
        """The picture (1, 3, h, w) that `measure` saw of map `index`."""
        return self.painter(model, self.seed)(self.pair(self.real, index).label, [index], sample)

    def pair(self, source: Source, index: int) -> Batch:
        """One pair of a source as a batch, at the bench's size."""
        return next(fixed_batches(source, *self.size, 1, chosen=[index], resize=self.protocol.resize))

    def check(self, model: Contestant) -> None:
        """ValueError where the model's classes are not the data's, in the data's order."""
        if not model.space.has_classes(self.space.names):
            mine, theirs = ([n.casefold() for n in space.names] for space in (model.space, self.space))
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
        label_rows, count = [], len(self.real)
        rows = min(rows, count)
        for index in (row * count // rows for row in range(rows)):
            image, label = self.pair(self.real, index)
            samples = [sum(other is model for other in models[:i]) for i, model in enumerate(models)]
            fakes = [self.picture(m, index, s) for m, s in zip(models, samples, strict=True)]
            label_rows += rows_of(label, image if real else None, fakes, self.space.palette)
        return contact_sheet(label_rows, ["label map", *(["real"] if real else []), *titles])

    def untrained(self, model: Synthesizer) -> Synthesizer:
        """A generator like the model's with random weights, its BatchNorm measured as a trained one's is."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            generator = build_generator(model.generator.config).eval().requires_grad_(False)
        labels = (b.label for b in fixed_batches(self.train, *model.size, 16, 256))
        generator = reestimate_batchnorm(generator, labels)
        return Synthesizer(Model(generator, model.space, *model.size, about={}), str(self.device))

    def _progress(self, model: dict[str, Any]) -> Progress | None:
        """Where an evaluation of the model (none: of the real pictures) keeps what it has gathered."""
        if self._keep is None:
            return None
        settings = self.settings
        segmenter = settings.segmenter and (settings.segmenter.key, settings.segmenter.weights)
        networks = [network.key for network in settings.networks]
        lpips = settings.lpips and (settings.lpips.name, settings.lpips.weights)
        digests = [source.fingerprint() for source in (self.train, self.real)]
        about = [digests, self.split, asdict(self.protocol), self.size, self.batch_size, sorted(self.metrics)]
        classes = [self.space.names, self.space.evaluation.names]
        about += [networks, segmenter, lpips, classes, self.device.type, self.seed]
        key = {"about": about, "model": model, "versions": versions()}
        self._kept.append(Progress(self._keep, key))
        return self._kept[-1]

    def forget(self) -> None:
        """Remove what was kept to go on from, were the process killed: all is written."""
        for progress in self._kept:
            progress.clear()


def _some(names: list[str]) -> str:
    return f"{len(names)}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
