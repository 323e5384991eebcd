"""LabelMix: the discriminator's consistency on pictures that are part real, part generated.

Source: OASIS (Schoenfeld et al. 2021, section 3.2, eq. 4). A real and a generated picture of one label map
are put together along the borders of its classes, and the logits of the mixture shall be the mixture of the
logits. OASIS adds the loss, weighted, to the discriminator's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def labelmix(
    label: Int[Tensor, "b h w"],
    real: Float[Tensor, "b 3 h w"],
    fake: Float[Tensor, "b 3 h w"],
    coins: Bool[Tensor, "b k"],
) -> tuple[Float[Tensor, "b 3 h w"], Bool[Tensor, "b 1 h w"]]:
    """The mixed pictures and the mask, true where they are real.

    coins: for each class of each picture, and for its unlabelled pixels (index K), where they come from, true
    for the real picture (`toss`).
    """
    mask = coins.gather(1, label.flatten(1)).view_as(label)[:, None]
    return torch.where(mask, real, fake), mask


def toss(batch: int, num_classes: int, rng: torch.Generator | None = None) -> Bool[Tensor, "b k"]:
    """Coins for `labelmix`, K+1 a picture. rng: on the CPU, where the coins are too."""
    return torch.randint(2, (batch, num_classes + 1), generator=rng).bool()


def labelmix_loss(
    logits_of_mixed: Float[Tensor, "b c h w"],
    logits_real: Float[Tensor, "b c h w"],
    logits_fake: Float[Tensor, "b c h w"],
    mask: Bool[Tensor, "b 1 h w"],
) -> Float[Tensor, ""]:
    """Mean square of D(mixed) - mixture(D(real), D(fake)): over logits and pixels alike, so that the weight
    means the same at any size. Gradients flow into all three."""
    mixture = torch.where(mask, logits_real, logits_fake)
    return F.mse_loss(logits_of_mixed.float(), mixture.float())
