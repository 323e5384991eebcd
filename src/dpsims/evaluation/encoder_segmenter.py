"""Segmenters with an encoder that was trained on many other pictures: the decoders of
segmentation_models.pytorch on any network of timm with a feature pyramid.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dpsims.config import BackboneConfig
from dpsims.data import Batch
from dpsims.evaluation.trained_segmenter import TrainedSegmenter, first_line, fit
from dpsims.models import pretrained
from dpsims.models.package_weights import find_package_weights, load_package_weights

# those whose decoder takes any encoder with a pyramid, and pictures of any size (PAN and DPT do not)
ARCHITECTURES = (
    "unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet", "deeplabv3", "deeplabv3plus", "upernet",
    "segformer",
)  # fmt: skip
STRIDE = 32  # pictures are padded to multiples of it
SIDE = 128
"""the shorter side to which small pictures are enlarged, twofold at most, before the encoder sees them"""
# Highest learning rates. On CamVid's test split at 64x80 (MobileNetV2) they gave a mIoU of 0.348 after 480
# pictures, where 0.001 for both gave 0.312 and 0.003 for both 0.272; after 2,400 0.448, as 0.001 did (0.450).
DECODER_RATE = 3e-3
PRETRAINED_RATE = 3e-4
RANDOM_RATE = 1e-3
# The networks that torchvision trained under another name, and with other names of their weights.
_IN_TORCHVISION = {"mobilenetv2_100": "mobilenet_v2"}
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class EncoderSegmenter(TrainedSegmenter):
    """A network of segmentation_models.pytorch on a timm encoder, its weights random until they are loaded.

    architecture: one of ARCHITECTURES; encoder: a name of timm's; scale: pictures are enlarged by it, and the
    logits brought back to their size. Pictures are normalised with the mean and std that the encoder was
    trained with, and padded by their last pixels. Raises ValueError where segmentation_models.pytorch is not
    installed, a name is unknown, or the encoder gives no pyramid that the architecture can use.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        num_classes: int,
        architecture: str = "unet",
        encoder: str = "resnet50",
        scale: float = 1.0,
        normalisation: tuple[Sequence[float], Sequence[float]] | None = None,
        key: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(num_classes, key)
        if architecture not in ARCHITECTURES:
            raise ValueError(f"--architecture {architecture}: use one of {', '.join(ARCHITECTURES)}")
        _check_encoder(encoder)
        self.architecture, self.encoder_name, self.scale = architecture, encoder, scale
        mean, std = normalisation or _normalisation(encoder)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.network = _network(architecture, encoder, num_classes)

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Self:
        """As `settings` of another one (and its number of classes) say."""
        names = ("num_classes", "architecture", "encoder", "scale", "normalisation")
        return cls(**{name: settings[name] for name in names})

    def settings(self) -> dict[str, Any]:
        return {
            "kind": "encoder",
            "architecture": self.architecture,
            "encoder": self.encoder_name,
            "scale": self.scale,
            "normalisation": [self.mean.flatten().tolist(), self.std.flatten().tolist()],
        }

    @property
    def encoder(self) -> nn.Module:
        """timm's network, without its classifier."""
        return self.network.encoder.model

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k h w"]:
        h, w = image.shape[-2:]
        x = ((image + 1) / 2 - self.mean) / self.std
        if self.scale != 1:
            x = _resize(x, max(1, round(h * self.scale)), max(1, round(w * self.scale)))
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        logits = self.network(x)[..., :height, :width]
        return logits if (height, width) == (h, w) else _resize(logits, h, w)


def train_encoder_segmenter(
    segmenter: EncoderSegmenter,
    batches: Iterator[Batch],
    images: int,
    learnt: bool,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Callable[[int, float], None] | None = None,
) -> EncoderSegmenter:
    """As `fit`. learnt: whether the encoder's weights are pretrained, and so to be moved gently."""
    encoder = list(segmenter.encoder.parameters())
    own = {id(parameter) for parameter in encoder}
    rest = [parameter for parameter in segmenter.parameters() if id(parameter) not in own]
    rate = PRETRAINED_RATE if learnt else RANDOM_RATE
    groups = [{"params": encoder, "lr": rate}, {"params": rest, "lr": DECODER_RATE}]
    return fit(segmenter, batches, groups, images, seed, device, progress)


def enlargement(size: tuple[int, int]) -> float:
    """The `scale` for pictures of a size (height, width)."""
    return min(2.0, max(1.0, SIDE / min(size)))


def load_encoder(segmenter: EncoderSegmenter, weights: str) -> None:
    """Fill the encoder. weights: `pretrained` (timm's own, or an installed package's), `random` (left as they
    are), or a safetensors file.

    A file holds the weights of this very network, as timm or (ResNets, mobilenetv2_100) as torchvision names
    them. Raises ValueError for weights that are not to be had or do not fit.
    """
    if weights == "random":
        return
    import timm

    name, network = segmenter.encoder_name, segmenter.encoder
    whole = _whole(name)
    own = {_form(key): key for key in network.state_dict()}

    def renamed(state: pretrained.State) -> pretrained.State:
        """Names of the whole network -> of the pyramid, whose blocks are called otherwise."""
        return {own.get(_form(key), key): tensor for key, tensor in state.items()}

    def convert(state: pretrained.State) -> pretrained.State:
        if name in _IN_TORCHVISION and "features.0.0.weight" in state:
            return renamed(_from_torchvision(state, _IN_TORCHVISION[name], whole))
        # timm keeps the conversion of files in another layout beside the network
        own_conversion = getattr(sys.modules[type(whole).__module__], "checkpoint_filter_fn", None)
        return renamed(own_conversion(state, whole) if own_conversion else state)

    with _named_as_here():
        package = find_package_weights(name) if weights == "pretrained" else None
        path = pretrained.timm_file(name) if weights == "pretrained" and package is None else weights
        if package is None and path is not None:
            config = BackboneConfig(name, weights)
            pretrained.load_file(network, config, whole.state_dict().keys(), path, convert)
            return
        with pretrained.download(name):
            fetched = timm.create_model(name, pretrained=package is None)
        if package is not None:
            load_package_weights(package, name, fetched)
    found = renamed(fetched.state_dict())
    absent = [key for key in network.state_dict() if key not in found]
    if absent:
        raise ValueError(
            f"--encoder {name}: {len(absent)} of its pretrained weights are missing ({absent[0]}); choose "
            "another encoder"
        )
    network.load_state_dict({key: found[key] for key in network.state_dict()})


def _from_torchvision(state: pretrained.State, name: str, whole: nn.Module) -> pretrained.State:
    """torchvision's names -> timm's, for a network that both build in the same order."""
    import torchvision

    theirs = torchvision.models.get_model(name, weights=None).state_dict()
    ours = whole.state_dict()
    if [t.shape for t in theirs.values()] != [t.shape for t in ours.values()]:
        raise ValueError(f"timm and torchvision build {name} in different orders")
    names = dict(zip(theirs, ours, strict=True))
    return {names.get(key, key): tensor for key, tensor in state.items()}


def _form(key: str) -> str:
    """What is the same in the names that timm gives a weight in a whole network and in a pyramid."""
    return key.removeprefix("model.").replace(".", "_")


@contextmanager
def _named_as_here() -> Iterator[None]:
    """Messages about a backbone, in the words of this command's options."""
    try:
        yield
    except ValueError as error:
        text = (
            str(error)
            .replace("--backbone.weights", "--weights")
            .replace("backbone.weights=", "--weights ")
            .replace("--backbone.name", "--encoder")
        )
        raise ValueError(text.replace("backbone.name=", "--encoder ")) from error


def _check_encoder(name: str) -> None:
    import timm

    if not timm.models.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        mend = f"did you mean {' or '.join(near)}?" if near else "use a name of timm's, such as resnet50"
        raise ValueError(f"--encoder {name}: unknown; {mend}")
    try:
        timm.models.get_pretrained_cfg(name)
    except RuntimeError as error:  # the part of the name behind the dot
        tags = ", ".join(timm.list_pretrained(name.split(".")[0] + ".*"))
        raise ValueError(f"--encoder {name}: unknown; use one of {tags}") from error


def _normalisation(name: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and std of RGB in [0, 1] that timm's network of that name was trained with."""
    import timm

    cfg: Any = timm.models.get_pretrained_cfg(name)
    return (cfg.mean, cfg.std) if cfg is not None else _IMAGENET


def _network(architecture: str, encoder: str, num_classes: int) -> Any:
    """The network with random weights, made to take any size where it can."""
    try:
        import segmentation_models_pytorch as smp
    except ImportError as error:
        raise ValueError(
            "segmenters with an encoder need segmentation_models.pytorch: pip install 'dpsims[evaluation]'"
        ) from error
    reason: Exception | None = None
    # the second is for windowed transformers, which otherwise take one size only
    for options in ({}, {"strict_img_size": False}):
        try:
            network = smp.create_model(
                architecture, f"tu-{encoder}", encoder_weights=None, classes=num_classes, **options
            )
            _probe(network)
            return network
        except (TypeError, ValueError, RuntimeError, AssertionError, KeyError, NotImplementedError) as error:
            reason = reason or error  # each family refuses in its own way
    assert reason is not None
    raise ValueError(
        f"--encoder {encoder}: gives {architecture} no feature pyramid for pictures of any size "
        f"({first_line(reason)}); choose another encoder or --architecture"
    ) from reason


@torch.no_grad()
def _probe(network: nn.Module) -> None:
    """A picture through it, of a size that no network was made for."""
    network.eval()(torch.zeros(1, 3, 2 * STRIDE, 3 * STRIDE))
    network.train()


def _whole(name: str) -> nn.Module:
    """The network with its classifier; only names and shapes of its weights matter."""
    import timm

    try:
        with torch.device("meta"):
            return timm.create_model(name)
    except (RuntimeError, NotImplementedError):  # some compute while they are made
        return timm.create_model(name)


def _resize(x: Float[Tensor, "b c h w"], height: int, width: int) -> Float[Tensor, "b c h2 w2"]:
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
