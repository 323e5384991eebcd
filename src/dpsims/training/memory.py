"""What the frozen backbone holds in memory: weights in bf16, and activations computed twice, not kept."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from dpsims.models.backbones import Backbone
from dpsims.models.layers import in_float32


@contextmanager
def on_device(module: nn.Module, device: torch.device, leaves: bool) -> Iterator[None]:
    """Have `module` on the device; leaves: and on the CPU again afterwards."""
    module.to(device)
    yield
    if leaves:
        module.to("cpu")


def in_bf16(backbone: Backbone, device: torch.device) -> Backbone:
    """A copy for use under autocast only, whose convolutions and linear layers hold bf16 weights.

    Its features are those of the original under autocast, to the bit: that rounds the same weights, but again
    in each pass (only weights that take gradients are rounded once a step). Normalization layers stay
    float32. On a CPU, so do strided depthwise convolutions, whose backward pass is several times slower in
    bf16, and features differ in rounding.
    """
    held = copy.deepcopy(backbone)
    for module in held.network.modules():
        if device.type == "cpu" and isinstance(module, nn.Conv2d) and _strided_depthwise(module):
            module.forward = partial(in_float32, module.forward)  # pyright: ignore[reportAttributeAccessIssue]
        elif type(module) in (nn.Linear, nn.Conv2d):  # others may use their weights in ways of their own
            module.to(torch.bfloat16)
    return held


def _strided_depthwise(conv: nn.Conv2d) -> bool:
    return conv.groups == conv.in_channels > 1 and max(conv.stride) > 1


def recompute(backbone: Backbone) -> None:
    """From now on keep only the inputs of the network's blocks, and compute the rest again on the way back.

    A block is an item of a sequence that has parts of its own: a residual block, a Fire, a transformer's
    layer. Features and gradients stay the same.
    """
    for block in blocks(backbone.network):
        block.forward = _recomputed(block.forward)


def blocks(network: nn.Module, item: bool = False) -> Iterator[nn.Module]:
    """The outermost blocks of a network, in order. item: `network` is an item of a sequence."""
    if item and not isinstance(network, nn.Sequential) and any(True for _ in network.children()):
        yield network
        return
    for child in network.children():
        yield from blocks(child, isinstance(network, (nn.Sequential, nn.ModuleList)))


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*inputs: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs, **named)
        # nothing in a frozen network is random: its generators need no saving
        return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, **named)

    return run
