"""Does a picture show what its label map asks for? A small segmenter, trained on real pictures, reads it
back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dpsims.data import Batch, Source
from dpsims.evaluation.trained_segmenter import TrainedSegmenter, filled, fit, read_segmenter
from dpsims.labels import LabelSpace

CHANNELS = (16, 32, 64, 128, 128)
KEY_PAIRS = 32  # pairs that tell two data sets apart


def _block(inputs: int, outputs: int, convolutions: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(convolutions):
        layers += [
            nn.Conv2d(outputs if i else inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class LayoutSegmenter(Protocol):
    """Reads the classes 0..K-1 that evaluation counts off a picture.

    key: what its answers depend on, as JSON can hold it; weights: a digest of its weights, for reports.
    """

    num_classes: int
    key: dict[str, Any]

    @property
    def weights(self) -> str: ...

    def predict(
        self, image: Float[Tensor, "b 3 h w"], size: tuple[int, int] | None = None
    ) -> Int[Tensor, "b h2 w2"]:
        """The likeliest class of each pixel of pictures in [-1, 1], on the CPU; size: (height, width) of the
        answer, the picture's where not given.
        """
        ...


class Segmenter(TrainedSegmenter):
    """A small UNet that needs no weights from elsewhere.

    `channels` from full resolution down, halving the size each time; 1.0 M parameters as it stands.
    """

    def __init__(
        self,
        num_classes: int,
        channels: tuple[int, ...] = CHANNELS,
        key: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(num_classes, key)
        self.channels = tuple(channels)
        inputs = (3, *channels[:-1])
        self.down = nn.ModuleList(_block(i, o, 2) for i, o in zip(inputs, channels, strict=True))
        joined = zip(channels[1:], channels[:-1], strict=True)
        self.up = nn.ModuleList(_block(below + skip, skip, 1) for below, skip in joined)
        self.head = nn.Conv2d(channels[0], num_classes, 1)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k h w"]:
        x, skips = image, []
        for i, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2, ceil_mode=True) if i else x)
            skips.append(x)
        for block, skip in zip(reversed(self.up), reversed(skips[:-1]), strict=True):
            x = block(torch.cat([F.interpolate(x, size=skip.shape[-2:]), skip], dim=1))
        return self.head(x)

    def settings(self) -> dict[str, Any]:
        return {"channels": list(self.channels)}


def load_segmenter(
    path: str | Path, key: dict[str, Any] | None = None, device: str | torch.device = "cpu"
) -> TrainedSegmenter:
    """A segmenter that dpsims trained, small or with an encoder.

    ValueError where the file is none, or (`key` given) was trained on something else.
    """
    meta, tensors = read_segmenter(path, key)
    if meta.get("kind") == "encoder":
        from dpsims.evaluation.encoder_segmenter import EncoderSegmenter  # waits for timm only here

        segmenter: TrainedSegmenter = EncoderSegmenter.from_settings(meta)
    else:
        segmenter = Segmenter(meta["num_classes"], tuple(meta["channels"]))
    return filled(segmenter, meta, tensors, path).to(device)


def check_classes(segmenter: LayoutSegmenter, space: LabelSpace, name: str | Path) -> None:
    """ValueError where a trained segmenter (its file: `name`) tells other classes apart than those of `space`
    that evaluation counts.
    """
    counted = list(space.evaluation.names)
    told = segmenter.key.get("classes", [f"class {i}" for i in range(segmenter.num_classes)])
    if len(told) != len(counted) or (segmenter.key and told != counted):
        raise ValueError(
            f"{name}: tells other classes apart ({_some(told)}) than evaluation counts ({_some(counted)}); "
            "give one that was trained on this set, or leave out --segmenter to have one trained"
        )


def _some(names: list[str]) -> str:
    return f"{len(names)}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"


class ConfusionMatrix:
    """Counts of (true class, predicted class) over all labelled pixels of a stream of maps."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        # rows: truth, columns: prediction
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def update(self, prediction: Int[Tensor, "b h w"], label: Int[Tensor, "b h w"]) -> None:
        """Take in predictions 0..K-1 beside label maps 0..K; pixels whose label is K (unlabelled) are
        skipped.
        """
        k = self.num_classes
        labelled = label != k
        code = label[labelled] * k + prediction[labelled]
        self.counts += torch.bincount(code, minlength=k * k).reshape(k, k).cpu()

    def pixel_accuracy(self) -> float | None:
        """Share of labelled pixels with the right class; None where there is no labelled pixel."""
        total = int(self.counts.sum())
        return int(self.counts.diagonal().sum()) / total if total else None

    def iou(self) -> list[float | None]:
        """Intersection over union of each class; None for a class in neither truth nor prediction.

        A class that is predicted somewhere but nowhere true has 0, and counts in the mean.
        """
        hits = self.counts.diagonal()
        union = self.counts.sum(0) + self.counts.sum(1) - hits
        return [int(h) / int(u) if u else None for h, u in zip(hits, union, strict=True)]

    def miou(self) -> float | None:
        """Mean over the classes that have an IoU; None where none has."""
        values = [v for v in self.iou() if v is not None]
        return sum(values) / len(values) if values else None


def score_segmenter(
    segmenter: LayoutSegmenter, batches: Iterable[Batch], space: LabelSpace
) -> dict[str, Any]:
    """How well it reads real pictures: {"images", "miou", "pixel_accuracy", "iou": {class: value or None}}.

    space: of the batches' label maps, at whose size the answers are compared.
    """
    table, counted = torch.from_numpy(space.evaluation_table), space.evaluation
    confusion, images = ConfusionMatrix(counted.num_classes), 0
    for image, label in batches:
        confusion.update(segmenter.predict(image).cpu(), table[label.cpu()])
        images += len(image)
    return {
        "images": images,
        "miou": confusion.miou(),
        "pixel_accuracy": confusion.pixel_accuracy(),
        "iou": dict(zip(counted.names, confusion.iou(), strict=True)),
    }


def segmenter_key(source: Source, height: int, width: int, images: int, seed: int) -> dict[str, Any]:
    """What a segmenter depends on: pictures and maps (a sample of them), classes, size and training.

    Compared when a cached one is read, so that corrected label maps, or another set of the same names, get a
    segmenter of their own, and a set that was moved keeps its.
    """
    digest = hashlib.sha256("\n".join(source.names).encode())
    for i in range(0, len(source), max(1, len(source) // KEY_PAIRS)):
        for array in source.load(i):
            digest.update(array.tobytes())
    data = {
        "pairs": len(source),
        "digest": digest.hexdigest()[:16],
        "classes": list(source.space.evaluation.names),
    }
    if source.space.flip_pairs:
        data["flip_pairs"] = [list(pair) for pair in source.space.flip_pairs]
    return {"version": 2, **data, "height": height, "width": width, "images": images, "seed": seed}


def cached_segmenter(
    path: str | Path, key: dict[str, Any], make: Callable[[], Segmenter], device: str | torch.device = "cpu"
) -> tuple[TrainedSegmenter, bool]:
    """The segmenter stored at `path`, or a new one from `make`; and whether it was stored.

    A new one is made where there is none of this key, and stored at `path`, over a stale or damaged one.
    """
    if Path(path).exists():
        try:
            return load_segmenter(path, key, device), True
        except ValueError:
            pass  # stale or damaged: what a cache may be
    segmenter = make()
    segmenter.key = key
    segmenter.save(path)
    return segmenter, False


def train_segmenter(
    batches: Iterator[Batch],
    num_classes: int,
    images: int = 6000,
    seed: int = 0,
    device: str | torch.device = "cpu",
    learning_rate: float = 3e-3,
    channels: tuple[int, ...] = CHANNELS,
    progress: Callable[[int, float], None] | None = None,
) -> Segmenter:
    """A small segmenter, trained as `fit` does, with one rate for all of it.

    8 pictures a batch learn more in the same time than 16.
    """
    segmenter = _initialised(num_classes, channels, seed)
    groups = [{"params": list(segmenter.parameters()), "lr": learning_rate}]
    return fit(segmenter, batches, groups, images, seed, device, progress)


def _initialised(num_classes: int, channels: tuple[int, ...], seed: int) -> Segmenter:
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers go on as if nothing had been drawn
        torch.default_generator.manual_seed(seed)
        return Segmenter(num_classes, channels)
