"""Feature pyramids of timm's networks. Importing timm takes seconds, so this is imported where needed."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Collection, Sequence
from typing import Any

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from dpsims.config import BackboneConfig
from dpsims.models import pretrained
from dpsims.models.package_weights import find_package_weights, load_package_weights
from dpsims.models.pyramids import Pyramid, choose_levels

VIT_STRIDES = (4, 8, 16, 32)
"""Strides that the depths of a plain vision transformer, all of one stride, are resampled to."""


class _Intermediates(nn.Module):
    """The maps of a timm network after some of its blocks."""

    def __init__(self, model: Any, blocks: Sequence[int], norm: bool) -> None:
        super().__init__()
        self.model, self.blocks, self.norm = model, list(blocks), norm

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        return self.model.forward_intermediates(
            x, indices=self.blocks, norm=self.norm, output_fmt="NCHW", intermediates_only=True
        )


def timm_pyramid(config: BackboneConfig, other_names: Collection[str]) -> Pyramid:
    """The timm network that `config` names. other_names: what else a user may have meant.

    Raises ValueError where timm has no such network, it gives no pyramid, or its weights are not to be had
    or do not fit.
    """
    _check_name(config.name, other_names)
    package = find_package_weights(config.name) if config.weights == "pretrained" else None
    cached = None if config.weights != "pretrained" or package else pretrained.timm_file(config.name)
    if config.weights == "pretrained" and package is None and cached is None:
        with pretrained.download(config.name):
            model = _create(config.name, fetch=True)
    else:
        model = _create(config.name, fetch=False)
    known = model.state_dict().keys()
    if package is not None:
        load_package_weights(package, config.name, model)
    strides = _strides(model, config.name)
    plain = len(set(strides)) == 1
    blocks, native, nominal = _plain_levels(config, strides) if plain else _pyramid_levels(config, strides)
    if hasattr(model, "prune_intermediate_layers"):
        model.prune_intermediate_layers(blocks, prune_norm=not plain, prune_head=True)
    if cached is not None or config.weights not in ("pretrained", "random"):
        # Some published files have another layout than the network; timm keeps the conversion beside the
        # network.
        convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
        convert_here = None if convert is None else lambda state: convert(state, model)
        pretrained.load_file(model, config, known, cached, convert_here)
    # A plain transformer's maps go through its last LayerNorm: before it, a few huge channels drown the rest.
    network = _Intermediates(model, blocks, norm=plain).eval()
    cfg, multiple = model.pretrained_cfg, max(strides)
    fixed, channels = _probe(network, multiple, tuple(cfg["input_size"][-2:]))
    return Pyramid(
        network=network,
        channels=channels,
        native=native,
        nominal=nominal,
        mean=cfg["mean"],
        std=cfg["std"],
        minimum=max(multiple, *(cfg.get("min_input_size") or (0, 0))[-2:]),
        multiple=multiple,  # of all levels, used or not: a map does not depend on which others are
        stretch=plain,  # only a grid over the whole picture can be resampled to another stride
        fixed=fixed,
        origin=package.origin if package else "",
    )


def _check_name(name: str, other_names: Collection[str]) -> None:
    if not timm.models.is_model(name):
        near = difflib.get_close_matches(name, [*other_names, *timm.list_models()], n=3, cutoff=0.5)
        names = ", ".join(other_names)
        mend = f"did you mean {' or '.join(near)}?" if near else f"use a name of timm's, or one of {names}"
        raise ValueError(f"backbone.name={name}: unknown; {mend}")
    try:
        timm.models.get_pretrained_cfg(name)
    except RuntimeError as error:  # the part of the name behind the dot
        tags = timm.list_pretrained(name.split(".")[0] + ".*")
        raise ValueError(f"backbone.name={name}: unknown; use one of {', '.join(tags)}") from error


def _create(name: str, fetch: bool) -> Any:
    """The timm network, made to take any size where it can; `fetch` downloads its weights."""
    options: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False})
    for option in options:
        try:
            return timm.create_model(name, pretrained=fetch, **option)
        except TypeError as error:
            if next(iter(option)) not in str(error):  # else this family does not know the option
                raise
    return timm.create_model(name, pretrained=fetch)


def _strides(model: Any, name: str) -> list[int]:
    """The stride of each block."""
    info = getattr(model, "feature_info", None) or []
    strides = [block["reduction"] for block in getattr(info, "get_dicts", lambda: info)()]
    regular = len(set(strides)) == 1 or all(stride & (stride - 1) == 0 for stride in strides)
    if not strides or not regular or not hasattr(model, "forward_intermediates"):
        raise ValueError(f"backbone.name={name}: gives no feature pyramid; choose another network")
    return strides


_Levels = tuple[list[int], tuple[int, ...], tuple[int, ...]]
"""Blocks to read, the strides that they have, the strides to resample to."""


def _plain_levels(config: BackboneConfig, strides: list[int]) -> _Levels:
    levels, parts = choose_levels(config, VIT_STRIDES), len(VIT_STRIDES)
    blocks = [(level + 1) * len(strides) // parts - 1 for level in levels]  # the ends of four equal parts
    return blocks, (strides[0],) * len(levels), tuple(VIT_STRIDES[level] for level in levels)


def _pyramid_levels(config: BackboneConfig, strides: list[int]) -> _Levels:
    last_block = {stride: block for block, stride in enumerate(strides)}
    every = sorted(last_block)
    native = tuple(every[level] for level in choose_levels(config, every))
    return [last_block[stride] for stride in native], native, native


def _probe(
    network: nn.Module, multiple: int, own_size: tuple[int, int]
) -> tuple[tuple[int, int] | None, tuple[int, ...]]:
    """The only size that the network takes (None where it takes any), and the channels of its maps."""

    def channels(height: int, width: int) -> tuple[int, ...]:
        with torch.no_grad():
            return tuple(feature.shape[1] for feature in network(torch.zeros(1, 3, height, width)))

    try:
        return None, channels(2 * multiple, 3 * multiple)
    except (AssertionError, RuntimeError, ValueError):  # each family refuses in its own way
        return own_size, channels(*own_size)
