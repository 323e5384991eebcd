"""What the frozen backbone holds in memory: weights in bf16, and activations computed twice, not kept."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dpsims.models.backbones import Backbone


@contextmanager
def on_device(module: nn.Module, device: torch.device, leaves: bool) -> Iterator[None]:
    """Have `module` on the device; leaves: and on the CPU again afterwards."""
    module.to(device)
    yield
    if leaves:
        module.to("cpu")


def in_bf16(backbone: Backbone, device: torch.device) -> Backbone:
    """A copy for use under autocast only, whose convolutions and linear layers hold bf16 weights.

    Its features are those of the original under autocast, to the bit: that rounds the same weights, but in
    each pass anew (only weights that take gradients are rounded once a step). Normalisations stay float32,
    and on a CPU strided depthwise convolutions: the way back through one takes several times as long in bf16.
    """
    held = copy.deepcopy(backbone)
    for module in held.network.modules():
        if device.type == "cpu" and isinstance(module, nn.Conv2d) and _strided_depthwise(module):
            module.forward = _in_float32(module.forward)  # pyright: ignore[reportAttributeAccessIssue]
        elif type(module) in (nn.Linear, nn.Conv2d):  # others may use their weights in ways of their own
            module.to(torch.bfloat16)
    return held


def _strided_depthwise(conv: nn.Conv2d) -> bool:
    return conv.groups == conv.in_channels > 1 and max(conv.stride) > 1


def _in_float32(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def run(input: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return forward(input.float())

    return run


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
