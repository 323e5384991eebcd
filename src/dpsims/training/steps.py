"""One training step: the generator's half and the discriminator's half, for each part of the batch.

The generator runs once. Its fake, and the frozen backbone's features of it, serve the discriminator's half
detached; the real pictures' features are computed once, without a graph, for the contrastive loss and the
discriminator alike. So a step costs three passes through the backbone (real, fake, back through fake) and
none in the discriminator's half. Nothing in it waits for the device (tests hold it): figures leave it as
tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.parametrizations import _SpectralNorm

from dpsims.augmentation import Change, augment, augment_label, draw_changes
from dpsims.config import LossConfig
from dpsims.data import Batch
from dpsims.labelmix import labelmix, labelmix_loss, toss
from dpsims.losses import (
    class_counts,
    contrastive_loss,
    diversity_loss,
    fake_loss,
    real_loss,
    to_device,
)
from dpsims.models.baselines import OasisDiscriminator
from dpsims.models.discriminator import Discriminator
from dpsims.models.generator import AnyGenerator
from dpsims.training.jitter import draw_shifts, generate_shifted

AnyDiscriminator = Discriminator | OasisDiscriminator


class Plan(NamedTuple):
    """What the parts of a step share, so that they add up to the step of the whole batch."""

    noise: Tensor
    """of the batch, and of the label maps that come twice"""
    pairs: int
    """the first so many label maps come twice, for the diversity loss"""
    counts: Tensor
    """pixels of each class in the batch"""
    counts_of_fakes: Tensor
    """with the label maps that come twice counted twice"""
    places: Tensor
    """state of the random numbers that choose the contrastive loss's places"""
    coins: Tensor | None
    """LabelMix's, for each picture"""
    changes: list[Change]
    """what befalls each picture before the discriminator sees it; empty for nothing"""
    shifts: Tensor | None = None
    """of each label map against the generator's grid; those that come twice have the same shift twice"""

    def part(self, i: int, parts: int) -> Plan:
        """Of every so manieth picture, from the i-th: what belongs to a picture; all else is the batch's."""
        coins = None if self.coins is None else self.coins[i::parts]
        shifts = None if self.shifts is None else self.shifts[i::parts]
        return self._replace(coins=coins, changes=self.changes[i::parts], shifts=shifts)


class Fakes(NamedTuple):
    """What the generator's half hands over, detached and as the discriminator saw it: pictures, their label
    maps, their conditioned features."""

    image: Tensor
    label: Tensor
    features: list[Tensor]


def pick_precision(name: str, device: torch.device) -> str:
    """`auto`: bf16 on GPUs and CPUs with bf16 units (AMX or AVX512-BF16), otherwise fp32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    fast = (torch.cpu._is_amx_tile_supported(), torch.cpu._is_avx512_bf16_supported())  # pyright: ignore
    return "bf16" if any(fast) else "fp32"


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


def training_step(
    generator: AnyGenerator,
    discriminator: AnyDiscriminator,
    optimizers: Mapping[str, torch.optim.Optimizer],
    batch: Batch,
    config: LossConfig,
    precision: str,
    rng: torch.Generator,
    parts: int = 1,
    grid_jitter: bool = False,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """One step of generator and discriminator. Gives the terms of the losses (unweighted, detached) and
    measures: how sure the discriminator is of fakes, how right on real pixels.

    parts: the batch is computed in so many, one after the other (every so manieth picture in each), and the
    gradients add up to those of the whole batch: class weights are the whole batch's. What differs is what
    only sees a part: BatchNorm's statistics, in the generator and with `conditioning: batch`; and spectral
    norms make a power iteration for each part. grid_jitter: see `training.jitter`.
    """
    plan = make_plan(generator, discriminator, batch, config, rng, grid_jitter)
    for optimizer in optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    found: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
    for i in range(parts):
        part = Batch(batch.image[i::parts], batch.label[i::parts])
        mine = plan.part(i, parts)
        real = changed(part, mine.changes, generator.config.num_classes)
        features_of_real = real_features(discriminator, real, precision)
        twins = plan.noise[batch.label.shape[0] :]
        noise = torch.cat([plan.noise[: batch.label.shape[0]][i::parts], twins[i::parts]])
        share = part.label.shape[0] / batch.label.shape[0]
        terms, fakes = generator_half(
            generator, discriminator, part, features_of_real, noise, mine, share, config, precision
        )
        more, measures = discriminator_half(
            discriminator, real, features_of_real, fakes, mine, share, config, precision
        )
        found.append((terms | more, measures))
        del features_of_real, fakes  # or they would lie beside the next part's
    for optimizer in optimizers.values():
        optimizer.step()
    terms, measures = (_add(dicts) for dicts in zip(*found, strict=True))
    return terms, measures


def make_plan(
    generator: AnyGenerator,
    discriminator: AnyDiscriminator,
    batch: Batch,
    config: LossConfig,
    rng: torch.Generator,
    grid_jitter: bool = False,
) -> Plan:
    size, classes = batch.label.shape[0], generator.config.num_classes
    # the first label maps come twice, with another noise: the diversity loss's pairs from the one pass
    wanted = config.diversity_weight and config.diversity_fraction
    pairs = min(size, max(1, round(size * config.diversity_fraction))) if wanted else 0
    noise = to_device(generator.sample_noise(size + pairs, rng), batch.label.device)
    chosen = discriminator.config
    changes, label, places = [], batch.label, rng.get_state()
    if chosen.augmentation:
        changes = draw_changes(size, chosen.augmentation, chosen.augmentation_probability, rng)
        label = augment_label(label, changes, classes)
    coins = toss(size, classes, rng) if config.labelmix_weight else None
    counts = class_counts(label, classes)  # of what the discriminator sees
    counts_of_fakes = counts + class_counts(label[:pairs], classes)
    shifts = draw_shifts(size, generator.config, rng) if grid_jitter else None
    return Plan(noise, pairs, counts, counts_of_fakes, places, coins, changes, shifts)


def changed(batch: Batch, changes: list[Change], num_classes: int) -> Batch:
    """The pairs as the discriminator sees them."""
    if not changes:
        return batch
    return Batch(augment(batch.image, changes), augment_label(batch.label, changes, num_classes))


@torch.no_grad()
def real_features(discriminator: AnyDiscriminator, batch: Batch, precision: str) -> list[Tensor]:
    """Conditioned features of pictures that no gradient goes back to, without a graph."""
    with autocast(batch.image.device, precision):
        return discriminator.features(batch.image)


def generator_half(
    generator: AnyGenerator,
    discriminator: AnyDiscriminator,
    batch: Batch,
    features_of_real: list[Tensor],
    noise: Tensor,
    plan: Plan,
    share: float,
    config: LossConfig,
    precision: str,
) -> tuple[dict[str, Tensor], Fakes]:
    """Gradients of L_G = L_pix + lambda_c L_contr + lambda_d L_div, of a part that is `share` of the batch.
    Gives the terms and the fakes."""
    size = batch.label.shape[0]
    pairs = noise.shape[0] - size
    label = torch.cat([batch.label, batch.label[:pairs]])
    set_trainable(discriminator, False)
    with autocast(batch.label.device, precision):
        shifts = None if plan.shifts is None else torch.cat([plan.shifts, plan.shifts[:pairs]])
        fake = generate_shifted(generator, label, noise, shifts).float()
        twice = plan.changes + plan.changes[:pairs]
        seen = changed(Batch(fake, label), twice, generator.config.num_classes)
        features = discriminator.features(seen.image)
        logits = discriminator.decode(seen.image, features)
    terms = {"pixel": real_loss(logits, seen.label, config.focal_gamma, counts=plan.counts_of_fakes)}
    weights = {"pixel": 1.0, "contrastive": config.contrastive_weight, "diversity": config.diversity_weight}
    if config.contrastive_weight and features:
        terms["contrastive"] = share * contrastive_loss(
            [f[:size] for f in features],
            features_of_real,
            config.contrastive_places,
            config.contrastive_temperature,
            torch.Generator().set_state(plan.places),  # the same places in each part
        )
    if pairs:
        compared = features if config.diversity_space == "features" else [fake]
        diversity = diversity_loss(
            [x[:pairs] for x in compared],
            [x[size:] for x in compared],
            noise[:pairs],
            noise[size:],
            config.diversity_threshold,
        )
        terms["diversity"] = pairs / plan.pairs * diversity
    total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
    total.backward()
    set_trainable(discriminator, True)
    terms["generator"] = total
    fakes = Fakes(seen.image.detach(), seen.label, [f.detach() for f in features])
    return {name: term.detach() for name, term in terms.items()}, fakes


def discriminator_half(
    discriminator: AnyDiscriminator,
    batch: Batch,
    features_of_real: list[Tensor],
    fakes: Fakes,
    plan: Plan,
    share: float,
    config: LossConfig,
    precision: str,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gradients of L_D = L(real) + L(fake) + lambda_m L_labelmix, of a part that is `share` of the batch.
    Gives the terms and the measures."""
    size = batch.label.shape[0]  # as many fakes as real pictures
    fake = Fakes(fakes.image[:size], fakes.label[:size], [f[:size] for f in fakes.features])
    with autocast(batch.image.device, precision):  # both in one pass: no layer of it mixes images
        features = [torch.cat(pair) for pair in zip(features_of_real, fake.features, strict=True)]
        logits = discriminator.decode(torch.cat([batch.image, fake.image]), features)
        logits_real, logits_fake = logits.split(size)
    gamma, counts = config.focal_gamma, plan.counts
    terms = {
        "real": real_loss(logits_real, batch.label, gamma, config.label_smoothing, counts),
        "fake": fake_loss(logits_fake, fake.label, gamma, counts, config.fake_class_weights),
    }
    total = terms["real"] + terms["fake"]
    if plan.coins is not None:
        coins = to_device(plan.coins, batch.label.device)
        mixed, mask = labelmix(batch.label, batch.image, fake.image, coins)
        features_of_mixed = real_features(discriminator, Batch(mixed, batch.label), precision)
        with autocast(batch.image.device, precision):
            logits_of_mixed = discriminator.decode(mixed, features_of_mixed)
        terms["labelmix"] = share * labelmix_loss(logits_of_mixed, logits_real, logits_fake, mask)
        total = total + config.labelmix_weight * terms["labelmix"]
    total.backward()
    terms["discriminator"] = total
    with torch.no_grad():
        labelled = batch.label < logits_real.shape[1] - 1
        right = (logits_real.argmax(1) == batch.label + 1) & labelled
        measures = {
            "real_accuracy": right.sum() / counts.sum().clamp_min(1),
            "fake_probability": share * logits_fake.float().softmax(1)[:, 0].mean(),
        }
    return {name: term.detach() for name, term in terms.items()}, measures


@torch.no_grad()
def real_probability(discriminator: AnyDiscriminator, batches: Iterable[Batch], precision: str) -> float:
    """How sure the discriminator is of real pictures: the mean probability of the right class. Training
    pictures' above others' tells that it remembers them. Batches smaller than the first are left out: with
    `conditioning: batch` they would be seen otherwise. Leaves its state as it was; NaN for no pixels."""
    norms = [m for m in discriminator.modules() if isinstance(m, _SpectralNorm) and m.training]
    for norm in norms:
        norm.eval()  # or each pass would move its vectors
    total, pixels, size = 0.0, 0, 0
    for batch in batches:
        size = size or len(batch.label)
        if len(batch.label) < size:
            continue
        with autocast(batch.image.device, precision):
            logits = discriminator(batch.image).float()
        labelled = batch.label < logits.shape[1] - 1
        target = torch.where(labelled, batch.label + 1, 0)
        right = logits.softmax(1).gather(1, target[:, None])[:, 0]
        total += float((right * labelled).sum())
        pixels += int(labelled.sum())
    for norm in norms:
        norm.train()
    return total / pixels if pixels else math.nan


def _add(dicts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Sums by name; not every part has every term."""
    total: dict[str, Tensor] = {}
    for values in dicts:
        for name, value in values.items():
            total[name] = total[name] + value if name in total else value
    return total
