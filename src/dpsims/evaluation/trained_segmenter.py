"""What segmenters that dpsims trains have in common: their answers, their training and their files."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dpsims.checkpoint import weights_digest
from dpsims.data import Batch
from dpsims.evaluation.features import device_of

# Where the JSON lies in the safetensors header: one file, so that weights and key are written at once.
_HEADER = "dpsims.segmenter"


class TrainedSegmenter(nn.Module):
    """Pictures in [-1, 1] of any size -> logits of K classes a pixel (unlabelled is not one of them).

    key: what it was trained on (see `segmenter_key`); score: how well it reads real pictures (see
    `score_segmenter`), None where that was not measured.
    """

    def __init__(self, num_classes: int, key: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.num_classes, self.key = num_classes, key or {}
        self.score: dict[str, Any] | None = None

    def settings(self) -> dict[str, Any]:
        """What is needed to build it again, as JSON can hold it."""
        raise NotImplementedError

    @property
    def weights(self) -> str:
        """A digest of its weights, for reports."""
        return weights_digest(self)

    @torch.no_grad()
    def predict(
        self, image: Float[Tensor, "b 3 h w"], size: tuple[int, int] | None = None
    ) -> Int[Tensor, "b h2 w2"]:
        """The likeliest class of each pixel, 0..K-1, on the CPU; size: (height, width) of the answer, the
        picture's where not given.
        """
        device = device_of(self)
        self.eval()
        with torch.autocast(device.type, enabled=False):
            logits = self(image.to(device, torch.float32))
        if size is None or tuple(size) == tuple(logits.shape[-2:]):
            return logits.argmax(dim=1).cpu()
        # one by one: the logits of a batch at a benchmark's own size fill gigabytes
        large = (F.interpolate(one[None], size=size, mode="bilinear", align_corners=False) for one in logits)
        return torch.cat([one.argmax(dim=1).cpu() for one in large])

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, its JSON inside; a file of that name is replaced only when all is
        written.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        meta = {**self.settings(), "num_classes": self.num_classes, "key": self.key, "score": self.score}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            save_file(tensors, part, metadata={_HEADER: json.dumps(meta)})
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def read_segmenter(
    path: str | Path, key: dict[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and weights of a file that `save` wrote. ValueError where it is none, or (`key` given) was
    trained on something else.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file; train one: dpsims segmenter train DATA --out {path}")
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
    return meta, tensors


_Trained = TypeVar("_Trained", bound=TrainedSegmenter)


def filled(
    segmenter: _Trained, meta: dict[str, Any], tensors: dict[str, Tensor], path: str | Path
) -> _Trained:
    """The segmenter with the weights and the notes of a file. ValueError where they do not fit."""
    try:
        segmenter.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(
            f"{path}: its weights do not fit the network that it names ({first_line(error)}); train it anew, "
            "or install the versions that it was made with"
        ) from error
    segmenter.key, segmenter.score = meta["key"], meta.get("score")
    return segmenter.eval()


def first_line(error: Exception) -> str:
    """The head of a message that may be long."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


def _difference(stored: dict[str, Any], wanted: dict[str, Any]) -> str:
    names = [n for n in {**stored, **wanted} if stored.get(n) != wanted.get(n)]
    return ", ".join(f"{n}: {stored.get(n)!r}, not {wanted.get(n)!r}" for n in names)


def fit(
    segmenter: _Trained,
    batches: Iterator[Batch],
    groups: Sequence[dict[str, Any]],
    images: int,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Callable[[int, float], None] | None = None,
) -> _Trained:
    """Train on `images` real pictures; the same batches and seed give the same weights on the same machine.

    batches: endless, of `training_batches`, labels being classes that the segmenter tells apart. groups: of
    parameters, each {"params": ..., "lr": its highest rate}. progress: called with (pictures seen, loss)
    after each step. Unlabelled pixels (index K) do not count. Raises ValueError for fewer images than one.
    """
    if images < 1:
        raise ValueError(f"images={images}: a segmenter needs at least one picture to train on")
    device, num_classes = torch.device(device), segmenter.num_classes
    segmenter = segmenter.to(device).train()
    segmenter.to(memory_format=torch.channels_last)  # faster on the CPU
    optimiser = torch.optim.AdamW(list(groups), lr=1e-3, weight_decay=1e-2)
    rates = [group["lr"] for group in optimiser.param_groups]
    pixels = torch.ones(num_classes)
    seen = 0
    # Some networks drop at random: their numbers come from the seed, and the caller's go on undisturbed.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        while seen < images:
            image, label = next(batches)
            pixels += torch.bincount(label.flatten(), minlength=num_classes + 1)[:num_classes]
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * _schedule(seen / images)
            logits = segmenter(image.to(device).contiguous(memory_format=torch.channels_last))
            loss = _segmentation_loss(logits, label.to(device), pixels.to(device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            seen += len(image)
            if progress:
                progress(seen, loss.item())
    return segmenter.eval()


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
