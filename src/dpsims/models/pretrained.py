"""Where the weights of a frozen network come from, and whether they fit it."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor, nn

from dpsims.config import BackboneConfig

State = dict[str, Tensor]
PROBE_SECONDS = 3.0
"""how long a server may take to answer before we say that there is no network"""


def describe(config: BackboneConfig, origin: str = "") -> str:
    """Name and origin of the weights: `resnet18 (pretrained)`, `resnet18 (mine.safetensors)`, or with the
    package that they come from."""
    source = config.weights if config.weights in ("pretrained", "random") else Path(config.weights).name
    return f"{config.name} ({source}{', ' + origin if origin else ''})"


def load_file(
    network: nn.Module,
    config: BackboneConfig,
    known: Collection[str],
    path: str | Path | None = None,
    convert: Callable[[State], State] | None = None,
) -> None:
    """Fill `network` from a safetensors file (`path`, else `config.weights`), in the network's precision.

    known: keys that a file may hold besides the network's own (layers that are not used, a classifier).
    convert: is tried on files in another layout than the network's.

    Raises ValueError naming the file: absent, unreadable, or keys missing, unknown or of other shapes.
    """
    path = Path(config.weights if path is None else path)
    if not path.is_file():
        mend = "give the path of a safetensors file, `pretrained` or `random`"
        raise ValueError(f"backbone.weights={path}: no such file; {mend}")
    try:
        state = safetensors.load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"backbone.weights={path}: not a readable safetensors file ({error})") from error
    misfit = _misfit(network, state, known)
    if misfit and convert is not None:
        try:
            state = convert(state)
        except Exception:  # code of others, on a file that it was not written for: the first finding stands
            state = {}
        misfit = _misfit(network, state, known) and misfit
    if misfit:
        raise ValueError(
            f"backbone.weights={path}: does not fit {config.name}: {misfit}; give the file of this network"
        )
    network.load_state_dict({key: state[key] for key in network.state_dict() if key in state}, strict=False)


def _misfit(network: nn.Module, state: State, known: Collection[str]) -> str:
    """What is wrong with the keys, empty where nothing is."""
    own = network.state_dict()
    # A counter that eval mode does not read; many converted files lack it.
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own and key not in known]
    shapes = [key for key in own if key in state and state[key].shape != own[key].shape]
    found = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    return "; ".join(f"{_some(keys)} {what}" for what, keys in found.items() if keys)


def _some(keys: list[str], count: int = 3) -> str:
    more = f" and {len(keys) - count} more" if len(keys) > count else ""
    return ", ".join(keys[:count]) + more


def torchvision_state(weights: Any, name: str) -> State:
    """State dict of a torchvision weights entry, from torch's cache or the internet, else ValueError."""
    if not _torch_cache(weights.url).is_file():
        require_network(weights.url, name)
    with download(name):
        return weights.get_state_dict(progress=True, check_hash=True, weights_only=True)


def timm_file(name: str) -> Path | None:
    """The file of a timm network's pretrained weights in the hub's cache, None where it has to be fetched.

    Raises ValueError where timm has no weights of that name, or they are not cached and there is no network.
    """
    import huggingface_hub  # comes with timm
    import timm

    cfg: Any = timm.models.get_pretrained_cfg(name)
    if cfg is None or not (cfg.hf_hub_id or cfg.url):
        raise ValueError(
            f"backbone.name={name}: timm has no pretrained weights; give --backbone.weights PATH"
        )
    if not cfg.hf_hub_id:
        if not _torch_cache(cfg.url).is_file():
            require_network(cfg.url, name)
        return None
    cached = huggingface_hub.try_to_load_from_cache(cfg.hf_hub_id, cfg.hf_hub_filename or "model.safetensors")
    if isinstance(cached, str) and cached.endswith(".safetensors"):
        return Path(
            cached
        )  # read directly: asking the hub whether it is the newest takes long without a network
    require_network(huggingface_hub.constants.ENDPOINT, name)
    return None


@contextmanager
def download(name: str) -> Iterator[None]:
    """Failures of a download inside become a ValueError that says both ways to get weights."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise _unavailable(name, str(error)) from error


def require_network(url: str, name: str) -> None:
    """Raises ValueError at once where `url` cannot be reached: downloaders try again for most of a minute."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_SECONDS).close()
    except urllib.error.HTTPError as error:
        error.close()  # an answer, if not a nice one: there is a network
    except OSError as error:
        raise _unavailable(name, f"no connection to {url}: {getattr(error, 'reason', error)}") from error


def _torch_cache(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name


def _unavailable(name: str, reason: str) -> ValueError:
    first_line = reason.strip().splitlines()[0] if reason.strip() else "no reason given"
    return ValueError(
        f"backbone.weights=pretrained: no weights of {name} here ({first_line}); connect to the internet "
        f"once, then they are cached, or give a local safetensors file: --backbone.weights PATH"
    )
