"""One training step: the generator's half and the discriminator's half.

The generator runs once. Its fake, and the frozen backbone's features of it, serve the discriminator's half
detached; the real pictures' features are computed once, without a graph, for the contrastive loss and the
discriminator alike. So a step costs three passes through the backbone (real, fake, back through fake) and
none in the discriminator's half.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from dpsims.config import LossConfig
from dpsims.data import Batch
from dpsims.losses import contrastive_loss, diversity_loss, fake_loss, real_loss
from dpsims.models.baselines import OasisDiscriminator
from dpsims.models.discriminator import Discriminator
from dpsims.models.generator import Generator

AnyDiscriminator = Discriminator | OasisDiscriminator


class Fakes(NamedTuple):
    """What the generator's half hands over, detached: pictures, their label maps, their conditioned
    features."""

    image: Tensor
    label: Tensor
    features: list[Tensor]


def pick_precision(name: str, device: torch.device) -> str:
    """`auto` is bf16 on a GPU that computes in it, fp32 elsewhere."""
    if name != "auto":
        return name
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Mixed precision for the forward passes; losses are computed in float32 either way."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def trained_parameters(discriminator: AnyDiscriminator) -> list[torch.nn.Parameter]:
    """All but the frozen backbone's."""
    return [p for name, p in discriminator.named_parameters() if not name.startswith("backbone.")]


def set_trainable(discriminator: AnyDiscriminator, trainable: bool) -> None:
    """Switch the gradients of everything but the frozen backbone."""
    for parameter in trained_parameters(discriminator):
        parameter.requires_grad_(trainable)


@torch.no_grad()
def real_features(discriminator: AnyDiscriminator, batch: Batch, precision: str) -> list[Tensor]:
    """Conditioned features of the real pictures, without a graph."""
    with autocast(batch.image.device, precision):
        return discriminator.features(batch.image)


def generator_step(
    generator: Generator,
    discriminator: AnyDiscriminator,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    features_of_real: list[Tensor],
    config: LossConfig,
    precision: str,
    rng: torch.Generator,
) -> tuple[dict[str, Tensor], Fakes]:
    """L_G = L_pix + lambda_c L_contr + lambda_d L_div. Gives the terms (unweighted, detached) and the
    fakes."""
    device, size = batch.label.device, batch.label.shape[0]
    # the first label maps come twice, with another noise: the diversity loss's pairs from the one pass
    wanted = config.diversity_weight and config.diversity_fraction
    pairs = min(size, max(1, round(size * config.diversity_fraction))) if wanted else 0
    label = torch.cat([batch.label, batch.label[:pairs]])
    noise = generator.sample_noise(size + pairs, rng)
    set_trainable(discriminator, False)
    with autocast(device, precision):
        fake = generator(label, noise).float()
        features = discriminator.features(fake)
        logits = discriminator.decode(fake, features)
    terms = {"pixel": real_loss(logits, label, config.focal_gamma)}
    weights = {"pixel": 1.0, "contrastive": config.contrastive_weight, "diversity": config.diversity_weight}
    if config.contrastive_weight and features:
        terms["contrastive"] = contrastive_loss(
            [f[:size] for f in features],
            features_of_real,
            config.contrastive_places,
            config.contrastive_temperature,
            rng,
        )
    if pairs:
        terms["diversity"] = diversity_loss(
            fake[:pairs], fake[size:], noise[:pairs], noise[size:], config.diversity_threshold
        )
    total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    optimizer.step()
    set_trainable(discriminator, True)
    terms["generator"] = total
    fakes = Fakes(fake.detach(), label, [f.detach() for f in features])
    return {name: term.detach() for name, term in terms.items()}, fakes


def discriminator_step(
    discriminator: AnyDiscriminator,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    features_of_real: list[Tensor],
    fakes: Fakes,
    config: LossConfig,
    precision: str,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """L_D = L(real) + L(fake). Gives the terms and measures: how sure it is of fakes, how right on real
    pixels."""
    size = batch.label.shape[0]  # as many fakes as real pictures
    fake = Fakes(fakes.image[:size], fakes.label[:size], [f[:size] for f in fakes.features])
    with autocast(batch.image.device, precision):
        logits_real = discriminator.decode(batch.image, features_of_real)
        logits_fake = discriminator.decode(fake.image, fake.features)
    terms = {
        "real": real_loss(logits_real, batch.label, config.focal_gamma, config.label_smoothing),
        "fake": fake_loss(logits_fake, fake.label, config.focal_gamma),
    }
    total = terms["real"] + terms["fake"]
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    optimizer.step()
    terms["discriminator"] = total
    with torch.no_grad():
        labelled = batch.label < logits_real.shape[1] - 1
        right = (logits_real.argmax(1) == batch.label + 1) & labelled
        measures = {
            "real_accuracy": right.sum() / labelled.sum().clamp_min(1),
            "fake_probability": logits_fake.float().softmax(1)[:, 0].mean(),
        }
    return {name: term.detach() for name, term in terms.items()}, measures
