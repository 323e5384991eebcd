"""The discriminator: a UNet whose encoder is a frozen, pre-trained backbone, and K+1 logits per pixel.

Source: Berrada et al., CVPR 2024 (section on the discriminator); output and loss form as in OASIS
(Schoenfeld et al., ICLR 2021). Its two halves are called apart, so that one pass through the backbone
serves several losses: `logits = decode(image, features(image))`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dpsims.config import DiscriminatorConfig
from dpsims.models.backbones import Backbone, load_backbone
from dpsims.models.baselines import OasisDiscriminator
from dpsims.models.layers import SLOPE, DecoderBlock, upsample_to

IMAGE_SKIP_CHANNELS = 16


class FeatureConditioning(nn.Module):
    """Contractive non-linearity and per-channel normalisation of one backbone level.

    Raw backbone features are ill-conditioned: a few strong channels drown the rest. `batch` normalises with
    the batch's own statistics (call it with real and fake pictures apart: in a joint batch the generator's
    step sees other statistics than the discriminator's), `calibrated` with those measured once on real
    pictures.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, nonlinearity: str, conditioning: str) -> None:
        super().__init__()
        if nonlinearity not in NONLINEARITIES or conditioning not in CONDITIONINGS:
            raise ValueError(
                f"nonlinearity={nonlinearity}, conditioning={conditioning}: use one of "
                f"{', '.join(NONLINEARITIES)}, and one of {', '.join(CONDITIONINGS)}"
            )
        self.nonlinearity = NONLINEARITIES[nonlinearity]
        self.conditioning = conditioning
        self.batch_norm = (
            nn.BatchNorm2d(channels, affine=False, track_running_stats=False)
            if conditioning == "batch"
            else None
        )
        if conditioning == "calibrated":
            self.register_buffer("mean", torch.zeros(channels))
            self.register_buffer("std", torch.ones(channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        x = self.nonlinearity(x)
        if self.batch_norm is not None:
            return self.batch_norm(x)
        if self.conditioning == "calibrated":
            return (x - self.mean[:, None, None]) / self.std[:, None, None]
        return x


class Decoder(nn.Module):
    """Trained half of the UNet: from the coarsest level up, conditioned features of each level as skips."""

    def __init__(
        self, channels: tuple[int, ...], strides: tuple[int, ...], widths: tuple[int, ...], outputs: int
    ) -> None:
        super().__init__()
        depth = strides[-1].bit_length()  # scales 1, 2, 4 ... coarsest
        widths = tuple(widths[min(i, len(widths) - 1)] for i in range(depth))
        self.strides = strides
        self.project = nn.ModuleList(
            nn.Conv2d(c, widths[s.bit_length() - 1], 1) for c, s in zip(channels, strides, strict=True)
        )
        self.image_skip = nn.Conv2d(3, IMAGE_SKIP_CHANNELS, 3, padding=1)
        blocks = []
        for i in range(depth):
            inputs = widths[i + 1] if i + 1 < depth else 0
            inputs += widths[i] if 2**i in strides else 0
            blocks.append(DecoderBlock(inputs + (IMAGE_SKIP_CHANNELS if i == 0 else 0), widths[i]))
        self.blocks = nn.ModuleList(blocks)
        self.to_logits = nn.Conv2d(widths[0], outputs, 1)

    def forward(
        self, image: Float[Tensor, "b 3 h w"], features: list[Tensor]
    ) -> Float[Tensor, "b logits h w"]:
        skips = {s: p(f) for s, p, f in zip(self.strides, self.project, features, strict=True)}
        height, width = image.shape[-2:]
        x = None
        for i in reversed(range(len(self.blocks))):
            stride = 2**i
            parts = [] if x is None else [upsample_to(x, (-(-height // stride), -(-width // stride)))]
            parts += [skips[stride]] if stride in skips else []
            parts += [self.image_skip(image)] if i == 0 else []
            x = self.blocks[i](torch.cat(parts, dim=1))
        assert x is not None
        return self.to_logits(F.leaky_relu(x, SLOPE))


class Discriminator(nn.Module):
    """Frozen backbone, feature conditioning, decoder. Of its state, the backbone is not part: it is loaded
    anew."""

    def __init__(self, config: DiscriminatorConfig, backbone: Backbone | None = None) -> None:
        super().__init__()
        if config.num_classes < 1:
            raise ValueError(f"num_classes={config.num_classes}: give the number of classes, at least 1")
        self.config = config
        self.backbone = load_backbone(config.backbone) if backbone is None else backbone
        channels, strides = self.backbone.channels, self.backbone.strides
        if any(s & (s - 1) for s in strides) or len(set(strides)) != len(strides):
            raise ValueError(
                f"backbone {config.backbone.name}: strides {strides} are no distinct powers of two"
            )
        conditions = [FeatureConditioning(c, config.nonlinearity, config.conditioning) for c in channels]
        self.condition: Sequence[FeatureConditioning] = nn.ModuleList(conditions)  # pyright: ignore
        self.decoder = Decoder(channels, strides, config.channels, config.num_classes + 1)

    def features(self, image: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Conditioned backbone features, fine to coarse. Call it with real and fake pictures apart."""
        levels = self.backbone(image)
        return [condition(f) for condition, f in zip(self.condition, levels, strict=True)]

    def decode(
        self, image: Float[Tensor, "b 3 h w"], features: list[Tensor]
    ) -> Float[Tensor, "b logits h w"]:
        return self.decoder(image, features)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b logits h w"]:
        """K+1 logits a pixel for images in [-1, 1]: index 0 is `fake`, index k+1 is class k."""
        return self.decode(image, self.features(image))

    @torch.no_grad()
    def calibrate(self, images: Iterable[Float[Tensor, "b 3 h w"]]) -> None:
        """Measure mean and standard deviation of each feature channel on real pictures (`calibrated`
        only)."""
        if self.config.conditioning != "calibrated":
            return
        sums = [torch.zeros(2, c, dtype=torch.float64) for c in self.backbone.channels]
        counts = [0] * len(sums)
        for image in images:
            for i, (condition, f) in enumerate(zip(self.condition, self.backbone(image), strict=True)):
                x = condition.nonlinearity(f).double()
                sums[i] += torch.stack([x.sum((0, 2, 3)), x.square().sum((0, 2, 3))]).cpu()
                counts[i] += x.shape[0] * x.shape[2] * x.shape[3]
        for condition, (total, squares), n in zip(self.condition, sums, counts, strict=True):
            mean = total / n
            condition.mean.copy_(mean)
            # a channel that hardly ever moves must not be blown up to unit variance
            condition.std.copy_((squares / n - mean.square()).clamp_min(1e-8).sqrt().clamp_min(1e-3))

    def trained_state(self) -> dict[str, Tensor]:
        """Everything that training changed: the state without the frozen backbone."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("backbone.")}

    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        missing, unexpected = self.load_state_dict(state, strict=False)
        missing = [k for k in missing if not k.startswith("backbone.")]
        if missing or unexpected:
            raise ValueError(f"discriminator state: missing {missing[:3]}, unexpected {unexpected[:3]}")


def build_discriminator(
    config: DiscriminatorConfig, backbone: Backbone | None = None
) -> Discriminator | OasisDiscriminator:
    """The discriminator that `config.kind` names; a backbone that is loaded already may be shared."""
    if config.kind == "oasis":
        return OasisDiscriminator(config)
    return Discriminator(config, backbone)


CONDITIONINGS = ("batch", "calibrated", "none")
NONLINEARITIES = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "none": lambda x: x}
