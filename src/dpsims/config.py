"""Every setting of a recipe, as dataclasses. A field's docstring is its help text on the command line.

Standard library only, so that `dpsims --help` stays light. The recipe's sections are named as on the command
line: `--training.batch_size 16` sets `Recipe.training.batch_size`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

_DERIVED = {"derived": True}  # filled in by `Recipe.resolved`, not by a user


@dataclass
class DataConfig:
    source: Literal[
        "folder",
        "ade20k",
        "cocostuff",
        "cityscapes",
        "cityscapes_trainids",
        "camvid",
        "earth",
        "facades",
        "scenes",
    ] = "folder"
    """where images come from: a folder of your own, a benchmark in its official layout (Cityscapes with its
    33 classes, or the 19 that are evaluated), earth (`dpsims data fetch earth`), or procedural scenes
    (nothing to download)"""
    root: str | None = None
    """folder of the data set, or of its shards (`dpsims train --data DIR` sets it); none for scenes"""
    height: int = 256
    """height in pixels that the model trains at"""
    width: int = 256
    """width in pixels that the model trains at"""
    crop: float = 1.25
    """largest random zoom of a training crop; 1 takes the whole picture, always"""
    rare_crop: float = 0.0
    """share of the crops that are placed on a class chosen evenly among those of the picture, so that small
    things appear (wants a crop of 1.5 or more)"""
    flip: bool = True
    """mirror half of the training pairs left-right (switch off where left and right mean something)"""
    workers: int = 0
    """loader processes; 0 loads in the training process"""
    cache_mb: int = 2048
    """decoded pictures are kept in memory while the set is smaller than this; 0 decodes anew each time"""
    size: int = 2000
    """number of training scenes (source `scenes` only)"""


@dataclass
class BackboneConfig:
    name: str = "convnext_large"
    """frozen network of the discriminator: any timm name, squeezenet1_1, mobilenet_v2 or scenes_tiny"""
    weights: str = "pretrained"
    """`pretrained`, the path of a safetensors file, or `random` (for ablations)"""
    scale: float = 1.0
    """enlarge pictures by this factor before the backbone sees them (small pictures profit from 2)"""
    levels: tuple[int, ...] = ()
    """which feature levels to use, 0 the finest; none given takes all"""


@dataclass
class GeneratorConfig:
    num_classes: int = field(default=0, metadata=_DERIVED)
    """number of classes K; ids 0..K-1, and K stands for an unlabelled pixel"""
    kind: Literal["dpsims", "oasis", "spade"] = "dpsims"
    """`dpsims`: two pyramids; `oasis`, `spade`: every block modulated by the label map itself (baselines;
    `spade` knows no noise)"""
    channels: tuple[int, ...] = (32, 64, 128, 256, 256, 256)
    """channels of both pyramids from full resolution down, halving the size each time"""
    attention_strides: tuple[int, ...] = (8, 16, 32)
    """strides at which the label-map encoder has self-attention"""
    attention_heads: int = 4
    """heads of self- and cross-attention"""
    noise_tokens: int = 8
    """noise vectors per picture (or per region)"""
    noise_channels: int = 64
    """length of a noise vector"""
    token_channels: int = 128
    """length of a noise token after the mapping network"""
    modulation_kernel: int = 3
    """kernel size of the convolutions that predict gamma and beta"""
    normalisation: Literal["batch", "instance", "pixel"] = "batch"
    """parameter-free normalisation in front of each modulation"""
    noise_injection: Literal["cross_attention", "concatenation"] = "cross_attention"
    """how noise tokens enter the label features: each pixel attends to them, or has all of them appended"""
    hidden_channels: int = 128
    """channels between label map and modulation (kinds `oasis` and `spade`)"""
    pixel_noise: bool = False
    """add noise of each pixel in every block of the image network, with a learned gain per channel that
    starts at zero: textures that are not locked to their place"""
    upsampling: Literal["nearest", "bilinear"] = "nearest"
    """how the image network doubles its size; `bilinear` (filter [1, 3, 3, 1]) leaves no grid of squares"""
    downsampling: Literal["strided", "blur"] = "strided"
    """how the label-map encoder reduces its size: as is, or with a low-pass filter in front"""
    padding: Literal["zeros", "replicate"] = "zeros"
    """what convolutions see beyond the edge; zeros tell how far away it is"""


@dataclass
class DiscriminatorConfig:
    num_classes: int = field(default=0, metadata=_DERIVED)
    """number of classes K; the discriminator gives K+1 logits a pixel, index 0 is `fake`"""
    backbone: BackboneConfig = field(default_factory=BackboneConfig, metadata=_DERIVED)
    """the frozen encoder"""
    kind: Literal["dpsims", "oasis"] = "dpsims"
    """`dpsims`: UNet on a frozen backbone; `oasis`: UNet trained from scratch (baseline)"""
    nonlinearity: Literal["sigmoid", "tanh", "none"] = "sigmoid"
    """contractive non-linearity on the backbone's features"""
    conditioning: Literal["batch", "calibrated", "none"] = "batch"
    """normalisation of the features: of this batch, measured once on real pictures, or none"""
    augmentation: tuple[str, ...] = ()
    """changes of the pictures, real and generated alike, before the discriminator sees them: some of color,
    translation, cutout (for small data sets)"""
    augmentation_probability: float = 1.0
    """share of the pictures that each of these changes befalls"""
    channels: tuple[int, ...] = (32, 64, 128, 256, 256, 256)
    """decoder channels from full resolution down, halving the size each time"""


@dataclass
class LossConfig:
    focal_gamma: float = 2.0
    """focal exponent; 0 gives cross-entropy"""
    label_smoothing: float = 0.1
    """one-sided smoothing of the discriminator's targets on real pictures"""
    contrastive_weight: float = 1.0
    """weight of the patch-level contrastive loss"""
    contrastive_temperature: float = 0.3
    """temperature of the contrastive loss"""
    contrastive_places: int = 128
    """random places a level that are compared"""
    fake_class_weights: bool = False
    """class weights on the discriminator's loss of generated images, too"""
    diversity_space: Literal["pixels", "features"] = "pixels"
    """where the diversity loss compares two images: their pixels, or the backbone's conditioned features as
    the discriminator sees them (after augmentation)"""
    diversity_weight: float = 10.0
    """weight of the diversity loss"""
    diversity_threshold: float = 0.15
    """distance of two pictures, relative to their noises' distance, above which they are diverse enough; in
    features, unrelated images are at about 1 or less"""
    diversity_fraction: float = 0.25
    """share of a batch's label maps that are generated twice, with two noises, for the diversity loss"""
    labelmix_weight: float = 0.0
    """weight of LabelMix: a discriminator consistent on pictures half real, half generated (OASIS: 10)"""


@dataclass
class TrainingConfig:
    batch_size: int = 32
    """pictures a step, over all processes"""
    total_images: int = 5_000_000
    """real pictures seen until training ends"""
    max_minutes: float = 0.0
    """also end after this many minutes of training time (over all resumes); 0 means no such limit"""
    seed: int = 0
    """everything random follows from it"""
    generator_lr: float = 1e-4
    """Adam's learning rate of the generator"""
    discriminator_lr: float = 4e-4
    """Adam's learning rate of the discriminator"""
    ema_images: int = 32_000
    """half-life of the generator's moving average, in pictures (shortened at the start)"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """arithmetic of the forward passes; `auto`: bf16 on GPUs and CPUs with bf16 units (AMX or
    AVX512-BF16), otherwise fp32"""
    compile: bool = False
    """compile the networks (torch.compile): minutes at the start, then shorter steps; for long GPU runs"""
    accumulate: int = 1
    """parts that a step's batch is computed in, one after the other, where memory is short; class weights are
    those of the whole batch, BatchNorm's statistics those of a part"""
    recompute_backbone: bool = False
    """compute the frozen backbone's activations again on the way back instead of keeping them: less memory
    for large backbones, a little more time, the same losses"""
    grid_jitter: bool = False
    """move each label map by a random part of the coarsest cell against the generator's grid, in training
    only: textures cannot stick to the grid (a larger map each step)"""
    device: str = "auto"
    """`auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:1` ..."""
    log_steps: int = 1
    """steps between two rows of log.jsonl"""
    grid_images: int = 20_000
    """pictures between two sample grids"""
    checkpoint_images: int = 50_000
    """pictures between two checkpoints; each is measured on the validation split"""
    keep: int = 3
    """newest checkpoints kept, besides the best"""


@dataclass
class EvaluationConfig:
    features: str = ""
    """network of the Frechet distance, as NAME or NAME=WEIGHTS; empty takes the discriminator's backbone"""
    validation_images: int = 200
    """pictures of the validation split that a checkpoint is measured on"""


@dataclass
class Recipe:
    data: DataConfig = field(default_factory=DataConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def check(self) -> None:
        """Raises ValueError for a number out of range or an empty list, naming the field and the mend."""
        for name, lowest in _LOWEST.items():
            value = _get(self, name)
            if isinstance(value, tuple):
                if not value or min(value) < lowest:
                    raise ValueError(f"{name}={list(value)}: give at least one number, each {lowest} or more")
            elif value < lowest or value > 2**53:
                raise ValueError(f"{name}={value}: use {lowest} or more")
        if self.training.accumulate > self.training.batch_size:
            raise ValueError(
                f"training.accumulate={self.training.accumulate}: use at most training.batch_size "
                f"({self.training.batch_size})"
            )
        if self.training.seed >= 2**32:
            raise ValueError(f"training.seed={self.training.seed}: use less than {2**32}")
        for name in ("contrastive_temperature", "diversity_threshold"):
            if getattr(self.losses, name) <= 0:
                raise ValueError(f"losses.{name}={getattr(self.losses, name)}: use more than 0")
        for name in _SHARES:
            if not 0 <= _get(self, name) <= 1:
                raise ValueError(f"{name}={_get(self, name)}: use 0 to 1")
        for name in self.discriminator.augmentation:
            if name not in AUGMENTATIONS:
                raise ValueError(f"discriminator.augmentation={name}: use some of {', '.join(AUGMENTATIONS)}")
        if self.losses.diversity_space == "features" and self.losses.diversity_weight:
            reason = None
            if self.discriminator.kind == "oasis":
                reason = "kind=oasis has no backbone features"
            elif self.discriminator.conditioning == "none":
                reason = "conditioning=none leaves features of no common scale"
            if reason is not None:
                raise ValueError(
                    f"losses.diversity_space=features: discriminator.{reason}; use losses.diversity_space "
                    "pixels with a losses.diversity_threshold of about 0.25, or losses.diversity_weight 0"
                )
        if self.generator.kind == "spade" and self.losses.diversity_weight:
            raise ValueError(
                f"losses.diversity_weight={self.losses.diversity_weight}: generator.kind=spade knows no "
                "noise, its pictures of one map cannot differ; use losses.diversity_weight 0"
            )

    def ignored(self) -> list[str]:
        """A line for each setting that was changed though nothing reads it here."""
        unread: dict[str, tuple[str, ...]] = {}
        if self.data.source == "scenes":
            unread["scenes are drawn, not read"] = ("data.root",)
        else:
            unread["it belongs to the source `scenes`"] = ("data.size",)
        if self.data.crop == 1:
            unread["data.crop=1 takes whole pictures"] = ("data.rare_crop",)
        if self.discriminator.kind == "oasis":
            fields = (
                "discriminator.conditioning",
                "discriminator.nonlinearity",
                "training.recompute_backbone",
            )
            fields += tuple(f"losses.contrastive_{name}" for name in ("weight", "temperature", "places"))
            unread["the OASIS discriminator has no backbone features"] = fields
        if self.generator.kind == "dpsims":
            unread["it belongs to the generators `oasis` and `spade`"] = ("generator.hidden_channels",)
        else:
            names = (
                "attention_strides",
                "attention_heads",
                "noise_tokens",
                "token_channels",
                "noise_injection",
                "pixel_noise",
                "upsampling",
                "downsampling",
                "padding",
            )
            unread["it belongs to the generator `dpsims`"] = tuple(f"generator.{name}" for name in names)
        if self.generator.kind == "spade":
            unread["the generator `spade` knows no noise"] = ("generator.noise_channels",)
        if not self.losses.diversity_weight:
            names = ("space", "threshold", "fraction")
            fields = tuple(f"losses.diversity_{name}" for name in names)
            unread["losses.diversity_weight=0"] = fields
        if not self.discriminator.augmentation:
            fields = ("discriminator.augmentation_probability",)
            unread["no discriminator.augmentation is chosen"] = fields
        default = Recipe()
        return [
            f"{name}={_get(self, name)} is ignored: {reason}"
            for reason, names in unread.items()
            for name in names
            if _get(self, name) != _get(default, name)
        ]

    def resolved(self, num_classes: int) -> Recipe:
        """A copy whose derived fields (number of classes, the discriminator's backbone) are filled in."""
        generator = replace(self.generator, num_classes=num_classes)
        discriminator = replace(self.discriminator, num_classes=num_classes, backbone=self.backbone)
        return replace(self, generator=generator, discriminator=discriminator)


def _get(recipe: Recipe, name: str) -> Any:
    section, field_name = name.split(".")
    return getattr(getattr(recipe, section), field_name)


AUGMENTATIONS = ("color", "translation", "cutout")
_SHARES = (
    "losses.label_smoothing",
    "losses.diversity_fraction",
    "data.rare_crop",
    "discriminator.augmentation_probability",
)
_LOWEST = {
    "data.height": 1,
    "data.width": 1,
    "data.crop": 1,
    "data.workers": 0,
    "data.cache_mb": 0,
    "data.size": 1,
    "backbone.scale": 1,
    "generator.channels": 1,
    "generator.attention_heads": 1,
    "generator.noise_tokens": 1,
    "generator.noise_channels": 1,
    "generator.token_channels": 1,
    "generator.modulation_kernel": 1,
    "generator.hidden_channels": 1,
    "discriminator.channels": 1,
    "losses.focal_gamma": 0,
    "losses.contrastive_weight": 0,
    "losses.contrastive_places": 2,
    "losses.diversity_weight": 0,
    "losses.labelmix_weight": 0,
    "training.batch_size": 1,
    "training.accumulate": 1,
    "training.total_images": 1,
    "training.max_minutes": 0,
    "training.seed": 0,
    "training.generator_lr": 0,
    "training.discriminator_lr": 0,
    "training.ema_images": 1,
    "training.log_steps": 1,
    "training.grid_images": 1,
    "training.checkpoint_images": 1,
    "training.keep": 1,
    "evaluation.validation_images": 0,
}
