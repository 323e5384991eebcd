"""LPIPS, the learned distance of two pictures (Zhang et al. 2018), from weights that are read safely.

The layers' weights that were fitted to people's judgements come with the `lpips` package; the ImageNet
network below them is torchvision's, fetched or from a file.
"""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
import warnings
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from torch import Tensor, nn

from dpsims.checkpoint import weights_digest
from dpsims.evaluation.features import device_of
from dpsims.evaluation.tensor_files import first_lines, read_bytes, torch_tensors

# torchvision's first ImageNet weights of these networks: those that LPIPS was fitted on. A published name
# ends in the first digits of the file's SHA-256.
URLS = {
    "alex": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    "vgg": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "squeeze": "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
}
SMALLEST = {"alex": 31, "vgg": 16, "squeeze": 17}
"""sides of the smallest picture that each network takes; below, nothing is left of its coarsest level"""
PIXELS_AT_ONCE = 2**19
"""of the pictures that go through a network together: what bounds the memory, whatever the batch"""
PROBE_SECONDS = 3.0
"""how long a server may take to answer before we say that there is no network"""

Levels = list[Float[Tensor, "b i j"]]
"""A distance by position, for each level of a network; the levels differ in size."""


class Lpips:
    """LPIPS 0.1 by one of its three networks: `alex` (the usual one of papers), `vgg` or `squeeze`.

    weights: the ImageNet network below, a .safetensors or .pth file with torchvision's names; None takes the
    published one, from torch's cache or fetched into it. `name` is for a report: only with the published
    weights is the distance LPIPS as the literature has it, and the name says where it is not.

    Raises ValueError where lpips is not installed, for an unknown network, and for a file that is absent,
    damaged, or of another network.
    """

    def __init__(
        self,
        network: str = "alex",
        weights: str | Path | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        if network not in URLS:
            raise ValueError(f"LPIPS network {network!r}: there are {', '.join(URLS)}")
        model = _untrained(network)  # before weights are fetched for nothing
        path = Path(weights) if weights is not None else published_weights(network)
        state, digest = _read(path)
        _fill(model, state, network, path)
        published = digest.startswith(_published_digits(network))
        self.network, self.name = network, network if published else f"{network}, weights {path.name}"
        self.model = model.to(device).eval()
        self._network, self._scaling = (model.get_submodule(name) for name in ("net", "scaling_layer"))
        # weights of squared differences, none negative: their roots go onto the features
        self._roots = [layer.sqrt() for name, layer in model.named_parameters() if name.startswith("lin")]

    @property
    def device(self) -> torch.device:
        return device_of(self.model)

    @property
    def weights(self) -> str:
        """A digest of all weights, for the report."""
        return weights_digest(self.model)

    def __call__(self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """The distance of each two pictures in [-1, 1], float64 on the network's device; 0 for equal ones.

        ValueError for pictures smaller than the network takes.
        """
        return over_picture(self.between(a, b))

    def maps(self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b h w"]:
        """The distance by pixel: each level brought to the pictures' size, bilinearly, and their sum.

        Its mean over the picture is close to the distance, but not the same: levels have borders.
        """
        height, width = a.shape[-2:]
        levels = [F.interpolate(d[:, None], (height, width), mode="bilinear") for d in self.between(a, b)]
        return torch.stack(levels).sum(dim=0)[:, 0]

    @torch.no_grad()
    def between(self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]) -> Levels:
        """The distances by position of two batches of pictures."""
        parts = []
        size = at_once(a)
        for one, other in zip(a.split(size), b.split(size), strict=True):
            both = zip(self.features(one), self.features(other), strict=True)
            parts.append([(x - y).square().sum(dim=1) for x, y in both])
        return [torch.cat(level) for level in zip(*parts, strict=True)]

    @torch.no_grad()
    def features(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c i j"]]:
        """For each level, vectors whose squared distances at a position are LPIPS's there.

        So many pairs of few pictures cost one run of the network for each picture. All `b` pictures go
        through it together.
        """
        height, width = image.shape[-2:]
        smallest = SMALLEST[self.network]
        if min(height, width) < smallest:
            raise ValueError(
                f"pictures of {height}x{width} pixels are too small for LPIPS ({self.network}): {smallest} a "
                "side is the least; measure at a larger size, or without LPIPS"
            )
        device = self.device
        # a bf16 training measures in float32 all the same
        with torch.autocast(device.type, enabled=False):
            levels = self._network(self._scaling(image.to(device, torch.float32)))
        # 1e-10 is LPIPS's: a position without any activation has the vector 0
        return [
            weight * level / (level.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)
            for weight, level in zip(self._roots, levels, strict=True)
        ]


def make_lpips(text: str, device: str | torch.device = "cpu") -> Lpips:
    """An Lpips from the command line's `alex` or `squeeze=FILE`. Raises ValueError as `Lpips`."""
    network, _, file = text.partition("=")
    if network not in URLS or text.endswith("="):
        raise ValueError(f"--lpips {text}: give {', '.join(URLS)}, or one of them with a file: squeeze=FILE")
    return Lpips(network, file or None, device)


def at_once(image: Float[Tensor, "b 3 h w"]) -> int:
    """How many pictures of this size go through a network together."""
    return max(1, PIXELS_AT_ONCE // image[0, 0].numel())


def over_picture(distances: Sequence[Float[Tensor, "b i j"]]) -> Float[Tensor, " b"]:
    """The distance of whole pictures, float64: the mean of each level, and their sum."""
    return torch.stack([level.mean(dim=(1, 2), dtype=torch.float64) for level in distances]).sum(dim=0)


def over_regions(
    distances: Sequence[Float[Tensor, "i j"]], masks: Bool[Tensor, "r h w"]
) -> Float[Tensor, " r"]:
    """The mean of the distance by pixel (see `Lpips.maps`) over each region, float64; each has a pixel.

    The maps are not made: what a position of a level weighs in a region is found from the region once, and
    serves for all pairs whose distances have been summed up.
    """
    height, width = masks.shape[1:]
    regions = masks.to(distances[0].device, torch.float64)
    regions /= regions.sum(dim=(1, 2), keepdim=True)
    total = regions.new_zeros(len(regions))
    for level in distances:
        rows = _upsampling(level.shape[0], height, level.device)
        columns = _upsampling(level.shape[1], width, level.device)
        total += torch.einsum("ih,rhw,jw,ij->r", rows, regions, columns, level.double())
    return total


def _upsampling(size: int, wanted: int, device: torch.device) -> Float[Tensor, "size wanted"]:
    """What each of `size` values weighs in each of `wanted`, brought there linearly."""
    unit = torch.eye(size, dtype=torch.float64, device=device)
    return F.interpolate(unit[None], wanted, mode="linear")[0]


def published_weights(network: str) -> Path:
    """torchvision's weights of the network below, in torch's cache; fetched where they are not.

    Raises ValueError, in a line that says where the file can be put by hand, where they cannot be fetched.
    """
    url = URLS[network]
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _require_answer(url)
        # appears under its name when all of it is there and its checksum is right
        torch.hub.download_url_to_file(url, str(path), _published_digits(network))
    except (OSError, RuntimeError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise ValueError(
            f"LPIPS's {network} network cannot be fetched: {first_lines(error)}; download {url} elsewhere "
            f"and put it at {path}, or give it with --lpips {network}=FILE"
        ) from error
    return path


def _require_answer(url: str) -> None:
    """OSError where nobody answers soon: torch's downloader waits for as long as the system lets it."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_SECONDS).close()
    except urllib.error.HTTPError as error:  # an answer, if only that it does not know this kind of question
        error.close()


def _published_digits(network: str) -> str:
    return URLS[network].rsplit("-", 1)[-1].removesuffix(".pth")


def _untrained(network: str) -> nn.Module:
    """LPIPS with its own layers as published, and a random network below."""
    try:
        import lpips
    except ImportError as error:
        raise ValueError("LPIPS needs the lpips package: pip install 'dpsims[evaluation]'") from error
    # The package calls torchvision in a way that it warns of. The caller's random numbers go on as if none
    # had been drawn.
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        model = lpips.LPIPS(net=network, pnet_rand=True, verbose=False)
    return model.requires_grad_(False)


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file, read without running any code that may stand in it, and its SHA-256."""
    mend = "give torchvision's weights, as .safetensors or .pth"
    content = read_bytes(path, mend)
    digest = hashlib.sha256(content).hexdigest()
    for url in URLS.values():
        name = url.rsplit("/", 1)[-1]
        digits = name.rsplit("-", 1)[-1].removesuffix(".pth")
        if path.name == name and not digest.startswith(digits):
            raise ValueError(f"{path}: damaged, its SHA-256 does not begin with {digits}; fetch {url} anew")
    if path.suffix != ".safetensors":
        return torch_tensors(content, path, mend), digest
    try:
        return safetensors.torch.load(content), digest
    except (SafetensorError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: not a file of tensors ({first_lines(error)}); {mend}") from error


def _fill(model: nn.Module, state: dict[str, Tensor], network: str, path: Path) -> None:
    """Put torchvision's tensors in place; ValueError naming the file where they are not this network's."""
    # torchvision's features.3.weight is the package's slice2.3.weight; the classifier on top is not used
    trunk = model.get_submodule("net").state_dict()
    own = {f"features.{key.split('.', 1)[1]}": tensor for key, tensor in trunk.items()}
    given = {key: tensor for key, tensor in state.items() if not key.startswith("classifier.")}
    misfits = {
        "missing": sorted(own.keys() - given.keys()),
        "unexpected": sorted(given.keys() - own.keys()),
        "of another shape": [k for k in own if k in given and own[k].shape != given[k].shape],
        "not floating-point": [k for k in own if k in given and not given[k].is_floating_point()],
    }
    found = [f"{len(keys)} tensors {what}, such as {keys[0]}" for what, keys in misfits.items() if keys]
    if found:
        architecture = URLS[network].rsplit("/", 1)[-1].split("-")[0]
        raise ValueError(
            f"{path}: weights of another network ({'; '.join(found)}); LPIPS ({network}) needs torchvision's "
            f"{architecture}"
        )
    for key, tensor in own.items():  # the state dict's tensors are the model's own
        tensor.copy_(given[key])
