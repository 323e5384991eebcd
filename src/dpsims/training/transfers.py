"""Figures and pictures on their way from the device to the host, while the device works on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

MOST = 8  # rows on their way; then the host waits, so that it does not run far ahead of the device


class OnItsWay:
    """A copy of `tensor` for the host. On the CPU it is there at once, and is the tensor itself."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.event = tensor.detach(), None
        if tensor.device.type == "cuda":  # into pinned memory: any other copy waits for the device
            self.tensor = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self.tensor.copy_(tensor.detach(), non_blocking=True)
            self.event = torch.cuda.Event()
            self.event.record()

    def arrived(self) -> bool:
        return self.event is None or self.event.query()

    def wait(self) -> Tensor:
        if self.event is not None:
            self.event.synchronize()
        return self.tensor


class Rows:
    """Rows of the log whose figures the device still computes."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[dict[str, Any], list[str], OnItsWay]] = deque()

    def add(self, row: dict[str, Any], values: dict[str, Tensor]) -> None:
        """`row` and the scalars that belong to it; one transfer, not one a value."""
        self.waiting.append((row, list(values), OnItsWay(torch.stack(list(values.values())))))

    def arrived(self, every: bool = False) -> Iterator[dict[str, Any]]:
        """Whole rows, in order, as far as their figures are here; `every`: wait for the others as well."""
        while self.waiting and (every or len(self.waiting) > MOST or self.waiting[0][2].arrived()):
            row, names, values = self.waiting.popleft()
            yield row | dict(zip(names, values.wait().tolist(), strict=True))
