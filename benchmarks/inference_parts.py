"""Where our generator's cost lies, part by part, and what the machine allows (`inference.py --parts`).

Every operation that torch runs is caught: its multiply-adds, the bytes it reads and writes, and its time go
to the part of the network that it belongs to.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from inference_modes import MODES, Job
from inference_worker import on, synchronise
from peers import ROWS


class Peaks(NamedTuple):
    """What the machine can do, as measured: the roofs of the roofline."""

    gflops: float
    """of a large matrix product, 1e9 floating-point operations a second (a multiply-add counts as 2)"""
    copy: float
    """1e9 bytes a second that a large copy reads and writes together"""


def machine_peaks(device: str, dtype: torch.dtype = torch.float32) -> Peaks:
    side, count = (8192, 2**28) if device != "cpu" else (1536, 2**26)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    source, target = (torch.zeros(count, device=device) for _ in range(2))
    product = fastest(lambda: torch.mm(a, b), device)
    copy = fastest(lambda: target.copy_(source), device)
    return Peaks(2 * side**3 / product / 1e9, 2 * source.nbytes / copy / 1e9)


def fastest(call: Callable[[], Any], device: str, rounds: int = 6) -> float:
    times = []
    for _ in range(rounds):
        synchronise(device)
        start = time.perf_counter()
        call()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return min(times)


# the first that fits the module's name counts
PARTS = {
    "embedding and stem": r"encoder\.(embedding|stem)",
    "encoder, attention": r"encoder\.attention",
    "encoder, blocks": r"encoder",
    "noise mapping": r"mapping",
    "noise injection": r"injection",
    "start at the lowest resolution": r"image_network\.start",
    "modulation, scale {0}": r"image_network\.blocks\.(\d+)\.norm\d(?:\.modulation)",
    "normalisation, scale {0}": r"image_network\.blocks\.(\d+)\.norm\d",
    "image block, scale {0}": r"image_network\.blocks\.(\d+)",
    "narrowing": r"image_network\.narrow",
    "to RGB": r"image_network\.to_rgb",
}
REST = "rest (upsampling, one-hot map, tanh)"


def part_of(name: str) -> str:
    for part, pattern in PARTS.items():
        if match := re.match(pattern, name):
            return part.format(*match.groups())
    return REST


@dataclass
class Cost:
    """Of one pass of one picture. bound: seconds that the operations take at least, each at the machine's
    peak of compute or of copying, whichever is later, one after the other; touched: MiB read and written, by
    every operation for itself."""

    parameters: int = 0
    gmacs: float = 0.0
    touched: float = 0.0
    bound: float = 0.0
    seconds: float = 0.0


class Ledger(TorchDispatchMode):
    """Writes every operation to the account of the part that is running."""

    def __init__(self, network: nn.Module, peaks: Peaks, device: str) -> None:
        super().__init__()
        from torch.utils.flop_counter import flop_registry  # takes seconds to load

        self.counts = flop_registry
        self.costs: dict[str, Cost] = defaultdict(Cost)
        self.peaks, self.device, self.running = peaks, device, [REST]
        self.handles = []
        for name, module in network.named_modules():
            if name:
                self.handles.append(module.register_forward_pre_hook(partial(self.enter, part_of(name))))
                self.handles.append(module.register_forward_hook(self.leave))

    def enter(self, part: str, *_: Any) -> None:
        self.running.append(part)

    def leave(self, *_: Any) -> None:
        self.running.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        synchronise(self.device)
        start = time.perf_counter()
        out = func(*args, **(kwargs or {}))
        synchronise(self.device)
        cost = self.costs[self.running[-1]]
        seconds = time.perf_counter() - start
        count = self.counts.get(func.overloadpacket)
        operations = count(*args, **(kwargs or {}), out_val=out) if count else 0
        moved = touched([args, kwargs], out, func._schema.is_mutable)
        cost.gmacs += operations / 2e9
        cost.touched += moved / 2**20
        cost.bound += max(operations / self.peaks.gflops, moved / self.peaks.copy) / 1e9
        cost.seconds += seconds
        return out


def touched(given: Any, out: Any, mutates: bool) -> int:
    """Bytes that an operation reads and writes; a view of its input moves none."""

    def tensors(tree: Any) -> Iterable[Tensor]:
        return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))

    read = list(tensors(given))
    places = {x.untyped_storage().data_ptr() for x in read}
    written = [x for x in tensors(out) if mutates or x.untyped_storage().data_ptr() not in places]
    return sum(x.nbytes for x in (*read, *written)) if written else 0


def parts_report(job: Job, rounds: int = 3) -> tuple[dict[str, Any], str]:
    """Costs by part, of our default generator, and a table of them."""
    if job.mode not in ("eager", "channels_last", "bf16"):
        raise ValueError(
            f"--parts --mode {job.mode}: it sees single operations; use eager, channels_last or bf16"
        )
    (piece,) = ROWS["default"].build(job.classes, job.height, job.width)
    peaks = machine_peaks(job.device, torch.bfloat16 if job.mode == "bf16" else torch.float32)
    piece.network.to(job.device)
    with torch.no_grad():  # inference mode would show whole layers, which nobody counts
        given = on(piece.inputs(1), job.device)
        call = MODES[job.mode](piece, given, job)
        call(*given)
        plain, passes = fastest(lambda: call(*given), job.device, rounds), []
        for _ in range(rounds):
            with Ledger(piece.network, peaks, job.device) as ledger:
                call(*given)
            for handle in ledger.handles:
                handle.remove()
            passes.append(ledger.costs)
    costs = min(passes, key=lambda of: sum(cost.seconds for cost in of.values()))
    for name, values in piece.network.named_parameters():
        costs[part_of(name)].parameters += values.numel()
    order = [part for part in costs if part != REST] + [REST] * (REST in costs)
    total = Cost(*(sum(getattr(c, key) for c in costs.values()) for key in asdict(Cost())))
    head = f"\n{job.height} x {job.width}, {job.mode}, {job.classes} classes, one picture\n"
    lines = [
        head,
        "| part | parameters | GMACs | MiB touched | bound, ms | ms | share of time |",
        "|---" * 7 + "|",
    ]
    for part, cost in [*((part, costs[part]) for part in order), ("all", total)]:
        figures = [f"{cost.parameters:,}", f"{cost.gmacs:.2f}", f"{cost.touched:.1f}"]
        figures += [f"{1000 * cost.bound:.1f}", f"{1000 * cost.seconds:.1f}"]
        lines.append(f"| {part} | " + " | ".join(figures) + f" | {cost.seconds / total.seconds:.1%} |")
    lines += [
        "",
        f"matrix product {peaks.gflops:.0f} GFLOP/s, copy {peaks.copy:.1f} GB/s (measured here, now)",
    ]
    whole = 2 * total.gmacs / peaks.gflops
    lines.append(
        f"the plain pass takes {1000 * plain:.0f} ms: {whole / plain:.0%} of the matrix product's speed, "
        f"{total.touched * 2**20 / plain / 1e9 / peaks.copy:.0%} of the copy's; "
        f"bound with every operation for itself {1000 * total.bound:.0f} ms, "
        f"by compute alone {1000 * whole:.0f} ms"
    )
    found = {"peaks": peaks._asdict(), "plain_seconds": plain}
    return {**found, "parts": {part: asdict(cost) for part, cost in costs.items()}}, "\n".join(lines)
