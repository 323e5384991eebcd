"""Does a picture show what its label map asks for? A small segmenter, trained on real pictures, reads it
back.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dpsims.data import Batch, Source
from dpsims.evaluation.features import device_of

# Where the JSON lies in the safetensors header: one file, so that weights and key are written at once.
_HEADER = "dpsims.segmenter"
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


class Segmenter(nn.Module):
    """A small UNet: pictures in [-1, 1] of any size -> logits of K classes a pixel (unlabelled is not one of
    them).

    `channels` from full resolution down, halving the size each time; 1.0 M parameters as it stands. `key`
    says what it was trained on (see `segmenter_key`).
    """

    def __init__(
        self,
        num_classes: int,
        channels: tuple[int, ...] = CHANNELS,
        key: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.num_classes, self.channels, self.key = num_classes, tuple(channels), key or {}
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

    @torch.no_grad()
    def predict(self, image: Float[Tensor, "b 3 h w"]) -> Int[Tensor, "b h w"]:
        """The likeliest class of each pixel, 0..K-1, on the CPU."""
        device = device_of(self)
        self.eval()
        with torch.autocast(device.type, enabled=False):
            return self(image.to(device, torch.float32)).argmax(dim=1).cpu()

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, its JSON inside; a file of that name is replaced only when all is
        written.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        meta = {"num_classes": self.num_classes, "channels": list(self.channels), "key": self.key}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            save_file(tensors, part, metadata={_HEADER: json.dumps(meta)})
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(
        cls, path: str | Path, key: dict[str, Any] | None = None, device: str | torch.device = "cpu"
    ) -> Segmenter:
        """Read a saved segmenter. ValueError where the file is none, or (`key` given) was trained on
        something else.
        """
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                if _HEADER not in header:
                    raise ValueError(f"{path}: holds no segmenter; give a file that dpsims has written")
                meta = json.loads(header[_HEADER])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except SafetensorError as error:
            raise ValueError(
                f"{path}: cannot be read as safetensors ({error}); delete it to train it anew"
            ) from error
        if key is not None and meta["key"] != key:
            raise ValueError(
                f"{path}: was trained on something else ({_difference(meta['key'], key)}); delete it"
            )
        segmenter = cls(meta["num_classes"], tuple(meta["channels"]), meta["key"])
        segmenter.load_state_dict(tensors)
        return segmenter.to(device).eval()


def _difference(stored: dict[str, Any], wanted: dict[str, Any]) -> str:
    names = [n for n in {**stored, **wanted} if stored.get(n) != wanted.get(n)]
    return ", ".join(f"{n}: {stored.get(n)!r}, not {wanted.get(n)!r}" for n in names)


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
    return {"version": 2, **data, "height": height, "width": width, "images": images, "seed": seed}


def cached_segmenter(
    path: str | Path, key: dict[str, Any], make: Callable[[], Segmenter], device: str | torch.device = "cpu"
) -> tuple[Segmenter, bool]:
    """The segmenter stored at `path`, or a new one from `make`; and whether it was stored.

    A new one is made where there is none of this key, and stored at `path`, over a stale or damaged one.
    """
    if Path(path).exists():
        try:
            return Segmenter.load(path, key, device), True
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
    """Train on `images` real pictures; the same batches and seed give the same weights on the same machine.

    batches: endless, of `training_batches`; 8 pictures a batch learn more in the same time than 16. progress:
    called with (pictures seen, loss) after each step. Unlabelled pixels (index K) do not count. Raises
    ValueError for fewer images than one.
    """
    if images < 1:
        raise ValueError(f"images={images}: a segmenter needs at least one picture to train on")
    device = torch.device(device)
    segmenter = _initialised(num_classes, channels, seed).to(device).train()
    segmenter.to(memory_format=torch.channels_last)  # faster on the CPU
    optimiser = torch.optim.AdamW(segmenter.parameters(), lr=learning_rate, weight_decay=1e-2)
    pixels = torch.ones(num_classes)
    seen = 0
    while seen < images:
        image, label = next(batches)
        pixels += torch.bincount(label.flatten(), minlength=num_classes + 1)[:num_classes]
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * _schedule(seen / images)
        logits = segmenter(image.to(device).contiguous(memory_format=torch.channels_last))
        loss = _segmentation_loss(logits, label.to(device), pixels.to(device))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        seen += len(image)
        if progress:
            progress(seen, loss.item())
    return segmenter.eval()


def _initialised(num_classes: int, channels: tuple[int, ...], seed: int) -> Segmenter:
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers go on as if nothing had been drawn
        torch.default_generator.manual_seed(seed)
        return Segmenter(num_classes, channels)


def _schedule(progress: float) -> float:
    """Factor of the learning rate at a share of the training: a short warm-up, then a cosine down to 0."""
    return min(1.0, progress / 0.05 + 0.05) * 0.5 * (1 + math.cos(math.pi * progress))


def _segmentation_loss(
    logits: Float[Tensor, "b k h w"], label: Int[Tensor, "b h w"], pixels: Float[Tensor, " k"]
) -> Float[Tensor, ""]:
    """Cross-entropy, classes weighted by the root of their rarity; 0 for a batch without a labelled pixel."""
    weight = (pixels.sum() / pixels).sqrt()
    total = F.cross_entropy(logits, label, weight=weight, ignore_index=logits.shape[1], reduction="sum")
    per_pixel = torch.cat([weight, weight.new_zeros(1)])[label]
    return total / per_pixel.sum().clamp(min=1e-8)
