"""Synthesizer: label map and seed in, picture out. The command line, the server and the export all use
this."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dpsims.checkpoint import Model, load_model, weights_digest
from dpsims.models import tiling
from dpsims.models.generator import Generator
from dpsims.models.layers import RegionNoise
from dpsims.modes import GraphedGenerator, Mode, prepare

TILED_ABOVE = 1024 * 1024
"""pixels of a map above which `generate` works in windows and strips"""


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
    """A generator for use. `Synthesizer.load("earth").generate(label, seed=1)`."""

    def __init__(self, model: Model, device: str = "auto", mode: Mode | None = None) -> None:
        """Raises ValueError for a device that is not there, or a mode that it has not."""
        self.device, self.mode = pick_device(device), mode or Mode()
        self.space, self.about = model.space, model.about
        self.size = (model.height, model.width)
        """height and width that the model was trained at; other sizes work, the further away the worse"""
        self.weights = weights_digest(model.generator)
        """tells models apart, in reports"""
        self.generator = prepare(model.generator, self.mode, self.device)
        """for use, not for saving: by default a folded copy of the model's generator"""
        self._network = GraphedGenerator(self.generator) if self.mode.cuda_graphs else self.generator

    @classmethod
    def load(cls, model: str | Path, device: str = "auto", mode: Mode | None = None) -> Synthesizer:
        """From a run's folder (a good, late checkpoint), a checkpoint's folder, or a shipped model's name
        (`earth`).

        Raises ValueError where there is no model, or a damaged one.
        """
        return cls(load_model(model), device, mode)

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
        `noise` replaces what they would give. Maps of more than `TILED_ABOVE` pixels are taken one at a time
        and, but for baselines and `normalisation: instance`, by `models.tiling.generate_tiled`, in bounded
        memory. Raises ValueError for a label out of range.
        """
        if noise is None:
            noise = self.noise(label.shape[0], seed, first)
        self._check(label)
        if label[0].numel() > TILED_ABOVE and (self._tiles() or len(label) > 1):
            paint = self.generate_tiled if self._tiles() else self.generate
            return torch.cat([paint(label[i : i + 1], noise=_one(noise, i)) for i in range(len(label))])
        return self._network(label.to(self.device), self._cast(noise)).float().cpu()

    @torch.inference_mode()
    def generate_samples(
        self, label: Int[Tensor, "1 h w"], count: int, seed: int = 0, first: int = 0
    ) -> Float[Tensor, "m 3 h w"]:
        """`count` pictures of one map: `generate` of the map repeated, the label-map encoder run once.

        Raises ValueError for a label out of range, or more than one map.
        """
        if len(label) != 1:
            raise ValueError(f"label: {len(label)} maps; give one, (1, height, width)")
        many, generator = label.expand(count, -1, -1), self.generator
        if label.numel() > TILED_ABOVE or not isinstance(generator, Generator):
            return self.generate(many, seed, first)
        self._check(label)
        noise = self._cast(self.noise(count, seed, first))
        assert isinstance(noise, Tensor)
        tokens = generator.mapping(noise)
        features = generator.encoder(label.to(self.device))
        guides = [inject(h, tokens) for inject, h in zip(generator.injection, features, strict=True)]
        keys = generator.pixel_keys(noise, self.device)
        return generator.image_network(many.to(self.device), guides, keys).float().cpu()

    @torch.inference_mode()
    def generate_tiled(
        self,
        label: Int[Tensor, "b h w"],
        seed: int = 0,
        first: int = 0,
        noise: Float[Tensor, "b n d"] | RegionNoise | None = None,
        window: int | None = None,
        overlap: int | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        """`generate` for very large maps: the label-map encoder looks through overlapping windows.

        See `models.tiling`. None: windows as large as what the model was trained at, a quarter shared. Raises
        ValueError for a label out of range, window and overlap that do not fit the network, or a generator
        that cannot be tiled.
        """
        if noise is None:
            noise = self.noise(label.shape[0], seed, first)
        self._check(label)
        if not isinstance(self.generator, Generator):
            raise ValueError(f"generator.kind={self.generator.config.kind}: only kind dpsims can be tiled")
        cell = 2 ** (len(self.generator.config.channels) - 1)
        side = window if window is not None else max(2 * cell, -(-max(self.size) // cell) * cell)
        shared = overlap if overlap is not None else -(-side // (4 * cell)) * cell
        label, noise = label.to(self.device), self._cast(noise)
        return tiling.generate_tiled(self.generator, label, noise, side, shared).float().cpu()

    def _tiles(self) -> bool:
        generator = self.generator
        return isinstance(generator, Generator) and generator.config.normalisation != "instance"

    def _cast(self, noise: Tensor | RegionNoise) -> Tensor | RegionNoise:
        # float32 whatever the mode: the pixel noise's key is in its bits
        if isinstance(noise, RegionNoise):
            return RegionNoise(noise.z.to(self.device, torch.float32), noise.region.to(self.device))
        return noise.to(self.device, torch.float32)

    def _check(self, label: Int[Tensor, "b h w"]) -> None:
        # before it reaches a device, where it would crash a kernel
        if label.dtype != torch.int64:
            raise ValueError(f"label map is of {label.dtype}: give class ids as torch.int64")
        self.space.check_range(*(int(v) for v in label.aminmax()))


def _one(noise: Tensor | RegionNoise, i: int) -> Tensor | RegionNoise:
    if isinstance(noise, RegionNoise):
        return RegionNoise(noise.z[i : i + 1], noise.region[i : i + 1])
    return noise[i : i + 1]
