"""Synthesizer: label map and seed in, picture out. The command line, the server and the export all use
this."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dpsims.checkpoint import Model, load_model
from dpsims.models.generator import RegionNoise


def pick_device(name: str) -> torch.device:
    """`auto` takes CUDA where there is one. Raises ValueError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device={name}: unknown; use auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device={name}: not supported; use auto, cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={name}: there are {torch.cuda.device_count()} CUDA devices; use cpu or auto"
        )
    return device


class Synthesizer:
    """A generator for use. `Synthesizer.load("scenes").generate(label, seed=1)`."""

    def __init__(self, model: Model, device: str = "auto") -> None:
        self.device = pick_device(device)
        self.space, self.about = model.space, model.about
        self.size = (model.height, model.width)
        """height and width that the model was trained at; other sizes work, the further away the worse"""
        self.generator = model.generator.to(memory_format=torch.channels_last).to(self.device)

    @classmethod
    def load(cls, model: str | Path, device: str = "auto") -> Synthesizer:
        """From a run's folder (a good, late checkpoint), a checkpoint's folder, or a shipped model's name
        (`scenes`).

        Raises ValueError where there is no model, or a damaged one.
        """
        return cls(load_model(model), device)

    def noise(self, batch: int, seed: int, first: int = 0) -> Float[Tensor, "b n d"]:
        """Noise of samples first..first+batch-1 under `seed`; it does not depend on how samples are
        batched."""
        rngs = (torch.Generator().manual_seed(seed * 1_000_003 + first + i) for i in range(batch))
        return torch.cat([self.generator.sample_noise(1, rng) for rng in rngs])

    def generate_numbered(
        self, label: Int[Tensor, "b h w"], indices: Sequence[int], sample: int = 0, seed: int = 0
    ) -> Float[Tensor, "b 3 h w"]:
        """`generate` for maps of any numbers in their split; sample 0, 1 ...: other noise.

        Sample m of map n has the noise of (seed + m, n), whatever batch it is in.
        """
        noise = torch.cat([self.noise(1, seed + sample, index) for index in indices])
        return self.generate(label, noise=noise)

    @torch.inference_mode()
    def generate(
        self,
        label: Int[Tensor, "b h w"],
        seed: int = 0,
        first: int = 0,
        noise: Float[Tensor, "b n d"] | RegionNoise | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        """Pictures in [-1, 1], on the CPU. label: int64, classes 0..K-1, K for unlabelled
        (`space.ignore_index`).

        The same map, seed and number (`first` counts the batch's first sample) give the same picture;
        `noise` replaces what they would give. Raises ValueError for a label out of range.
        """
        if noise is None:
            noise = self.noise(label.shape[0], seed, first)
        # before it reaches a device, where it would crash a kernel
        low, high = (int(v) for v in label.aminmax())
        if low < 0 or high > self.space.ignore_index:
            raise ValueError(
                f"label map has index {low if low < 0 else high}; classes are "
                f"0..{self.space.num_classes - 1}, unlabelled is {self.space.ignore_index}"
            )
        return self.generator(label.to(self.device), noise).float().cpu()
