"""The losses, as pure functions of tensors.

Logits have K+1 channels a pixel: index 0 is `fake`, index k+1 is class k. Label maps hold classes 0..K-1
and K for an unlabelled pixel, which the adversarial losses skip (the contrastive and the diversity loss know
no classes). The shift by one between the two happens here and nowhere else. Sources: focal weighting, Lin et
al. 2017, eq. 4; K+1-class GAN loss and class weights, OASIS (Schoenfeld et al. 2021, eq. 1-2); their
combination with the contrastive and diversity terms, Berrada et al. 2024.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """`x` from the CPU on `device`, without waiting for what the device still computes (as copies from
    pageable memory do)."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def class_counts(label: Int[Tensor, "b h w"], num_classes: int) -> Int[Tensor, " k"]:
    """Labelled pixels of each class. Several processes add theirs up before they weight."""
    # not bincount: on a GPU it waits for the largest id, to know how long its answer is
    one = torch.ones((), dtype=torch.int64, device=label.device)
    counts = torch.zeros(num_classes + 1, dtype=torch.int64, device=label.device)
    return counts.scatter_add_(0, label.flatten(), one.expand(label.numel()))[:num_classes]


def class_weights(label: Int[Tensor, "b h w"], counts: Int[Tensor, " k"]) -> Float[Tensor, "b h w"]:
    """Weight of each pixel: w_c = labelled pixels / (classes present * pixels of c); 0 where unlabelled.

    The weights of a batch add up to its labelled pixels, an equal share for each class that is present.
    """
    counts = counts.to(torch.float32)
    present = (counts > 0).sum().clamp_min(1)
    weight = torch.where(counts > 0, counts.sum() / (present * counts.clamp_min(1)), 0.0)
    return F.pad(weight, (0, 1))[label]  # the last entry, 0, is the unlabelled pixel's


def focal(
    logits: Float[Tensor, "b c h w"], target: Int[Tensor, "b h w"], gamma: float
) -> Float[Tensor, "b h w"]:
    """FL(p, c) = -(1 - p_c)^gamma log p_c for each pixel; cross-entropy at gamma = 0."""
    log_p = torch.gather(F.log_softmax(logits.float(), dim=1), 1, target[:, None])[:, 0]
    if gamma == 0:
        return -log_p
    return -((-torch.expm1(log_p)).clamp_min(0) ** gamma) * log_p


def real_loss(
    logits: Float[Tensor, "b c h w"],
    label: Int[Tensor, "b h w"],
    gamma: float = 0.0,
    smoothing: float = 0.0,
    counts: Int[Tensor, " k"] | None = None,
) -> Float[Tensor, ""]:
    """mean w_t FL(p, t+1) over labelled pixels: the discriminator's loss on real pictures, the generator's
    on its own.

    smoothing: share of the target that goes to `fake` instead (one-sided label smoothing, for the
    discriminator only). counts: `class_counts` of the whole batch where this is a part of it; the losses of
    its parts add up to the batch's.
    """
    num_classes = logits.shape[1] - 1
    counts = class_counts(label, num_classes) if counts is None else counts
    weight = class_weights(label, counts)
    labelled = label != num_classes
    target = torch.where(labelled, label + 1, 0)
    loss = focal(logits, target, gamma)
    if smoothing:
        loss = (1 - smoothing) * loss + smoothing * focal(logits, torch.zeros_like(target), gamma)
    return (weight * loss).sum() / counts.sum().clamp_min(1)


def fake_loss(
    logits: Float[Tensor, "b c h w"],
    label: Int[Tensor, "b h w"],
    gamma: float = 0.0,
    counts: Int[Tensor, " k"] | None = None,
    weighted: bool = False,
) -> Float[Tensor, ""]:
    """mean FL(p, 0) over labelled pixels: the discriminator's loss on generated images.

    weighted: with the class weights of `real_loss`; OASIS has them on the real term only. counts: as in
    `real_loss`.
    """
    num_classes = logits.shape[1] - 1
    counts = class_counts(label, num_classes) if counts is None else counts
    weight = class_weights(label, counts) if weighted else label != num_classes
    loss = focal(logits, torch.zeros_like(label), gamma)
    return (loss * weight).sum() / counts.sum().clamp_min(1)


def contrastive_loss(
    fake: list[Tensor],
    real: list[Tensor],
    places: int,
    temperature: float,
    rng: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """Patch-level InfoNCE between feature pyramids of generated and real images of the same label maps.

    Query: the generated image's feature at a place; positive: the real one's at the same place;
    negatives: the real one's at other places of the same image. fake, real: levels (b, c, h, w); `places`
    random places a level.
    """
    terms = []
    for f, r in zip(fake, real, strict=True):
        count = f.shape[2] * f.shape[3]
        if count < 2:
            continue
        chosen = to_device(torch.randperm(count, generator=rng)[:places], f.device)
        query, key = (
            F.normalize(rearrange(x.float(), "b c h w -> b (h w) c")[:, chosen], dim=2) for x in (f, r)
        )
        similarity = torch.einsum("bic,bjc->bij", query, key) / temperature
        target = torch.arange(similarity.shape[1], device=f.device).expand(similarity.shape[0], -1)
        terms.append(F.cross_entropy(similarity.flatten(0, 1), target.flatten()))
    return torch.stack(terms).mean() if terms else fake[0].new_zeros(())


def diversity_loss(
    first: Sequence[Float[Tensor, "b c h w"]],
    second: Sequence[Float[Tensor, "b c h w"]],
    noise_first: Float[Tensor, "b n d"],
    noise_second: Float[Tensor, "b n d"],
    threshold: float,
) -> Float[Tensor, ""]:
    """max(0, threshold - d(G(z1, y), G(z2, y)) / d(z1, z2)), d the mean absolute difference, for pairs of
    one label map.

    first, second: what is compared, the images themselves or levels of their features, weighted equally. The
    hinge cuts it off, so that it does not explode once images differ enough.
    """
    distances = [(a.float() - b.float()).abs().mean((1, 2, 3)) for a, b in zip(first, second, strict=True)]
    distance = torch.stack(distances).mean(0)
    noise_distance = (noise_first - noise_second).abs().mean((1, 2)).to(distance.device)
    return F.relu(threshold - distance / noise_distance).mean()
