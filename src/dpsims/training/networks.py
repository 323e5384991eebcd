"""What a run trains: generator, moving average, discriminator and their optimisers; made, saved and loaded
together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dpsims import checkpoint
from dpsims.config import LossConfig, Recipe
from dpsims.data import Batch
from dpsims.models.backbones import Backbone, load_backbone
from dpsims.models.discriminator import Discriminator, build_discriminator
from dpsims.models.generator import AnyGenerator, Generator, build_generator
from dpsims.training.ema import GeneratorAverage
from dpsims.training.memory import in_bf16, recompute
from dpsims.training.steps import AnyDiscriminator, trained_parameters, training_step

ADAM_BETAS = (0.0, 0.99)


@dataclass
class Networks:
    """The backbone is among them, frozen, for evaluation; the discriminator has the same one, or in a bf16
    training a copy that holds bf16 weights (the `oasis` discriminator has none)."""

    generator: AnyGenerator
    average: GeneratorAverage
    discriminator: AnyDiscriminator
    backbone: Backbone
    optimizers: dict[str, torch.optim.Optimizer]

    @classmethod
    def build(cls, recipe: Recipe, device: torch.device, precision: str = "fp32") -> Networks:
        """Untrained networks of a resolved recipe; the same seed gives the same weights. precision: `fp32` or
        `bf16`.

        Raises ValueError for a backbone that cannot be loaded and for sizes that do not fit.
        """
        settings, layout = recipe.training, torch.channels_last
        torch.manual_seed(settings.seed)
        generator = build_generator(recipe.generator).to(memory_format=layout).to(device)
        backbone = load_backbone(recipe.backbone)
        halved = precision == "bf16" and recipe.discriminator.kind == "dpsims"
        held = (in_bf16(backbone, device) if halved else backbone).to(device)
        torch.manual_seed(settings.seed + 1)  # the same, whatever the generator drew
        discriminator = build_discriminator(recipe.discriminator, held)
        discriminator.to(memory_format=layout).to(device).train()
        rates = {
            "generator": (list(generator.parameters()), settings.generator_lr),
            "discriminator": (trained_parameters(discriminator), settings.discriminator_lr),
        }
        optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(parameters, rate, betas=ADAM_BETAS, fused=True)
            for name, (parameters, rate) in rates.items()
        }
        average = GeneratorAverage(generator, settings.ema_images)
        if settings.recompute_backbone:
            recompute(held)
        if settings.compile:
            compile_parts(generator, discriminator)
        return cls(generator, average, discriminator, backbone, optimizers)

    def step(
        self,
        batch: Batch,
        config: LossConfig,
        precision: str,
        rng: torch.Generator,
        parts: int = 1,
        grid_jitter: bool = False,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """`training_step` of these networks."""
        return training_step(
            self.generator,
            self.discriminator,
            self.optimizers,
            batch,
            config,
            precision,
            rng,
            parts,
            grid_jitter,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Everything that training changes, but for the optimisers' state; keys are `part/name`."""
        parts = {
            "generator": self.generator.state_dict(),
            "average": self.average.average.state_dict(),
            "discriminator": self.discriminator.trained_state(),
        }
        return {f"{part}/{name}": v for part, state in parts.items() for name, v in state.items()}

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint. Raises ValueError, naming the file, where it is damaged or does not
        fit."""
        file = folder / "training.safetensors"
        parts: dict[str, dict[str, Tensor]] = {"generator": {}, "average": {}, "discriminator": {}}
        tensors = checkpoint.load_tensors(file)
        try:
            for key, tensor in tensors.items():
                part, _, name = key.partition("/")
                parts[part][name] = tensor
            self.generator.load_state_dict(parts["generator"])
            self.average.average.load_state_dict(parts["average"])
            self.discriminator.load_trained_state(parts["discriminator"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"{file}: does not fit this run; delete {folder} to go on from before"
            ) from error
        checkpoint.load_optimizers(folder, self.optimizers)


def compile_parts(
    generator: AnyGenerator, discriminator: AnyDiscriminator, backend: str | Callable = "inductor"
) -> None:
    """Compile each network by itself (torch.compile, in place: names and state stay); on the first step.

    Losses differ in rounding from those of plain networks. What lies between the networks stays plain: it
    is little, and the loss's random places and pairs would have it compiled again.
    """
    parts: list[torch.nn.Module] = [generator.image_network]
    if isinstance(generator, Generator):
        parts.append(generator.encoder)
    if isinstance(discriminator, Discriminator):
        parts += [discriminator.decoder, discriminator.backbone.network]
    else:
        discriminator.decode = torch.compile(discriminator.decode, backend=backend, dynamic=False)
    for part in parts:
        part.compile(backend=backend, dynamic=False)
