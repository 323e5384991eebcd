"""A process of its own for each network that benchmarks/inference.py measures: builds it, brings it into a
mode, and times a call whenever it is asked to. So the compared networks take turns, and peak memory is each
one's own.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inference_modes import MODES, Job
from peers import ROWS

LEAST_SECONDS = 0.3  # a short call is repeated this long, and its fastest time taken


class Worker:
    """The parent's side. Every method raises RuntimeError with the worker's own words, or where it died."""

    def __init__(self, job: Job) -> None:
        self.job = job
        spawn = multiprocessing.get_context("spawn")
        self.connection, there = spawn.Pipe()
        self.process = spawn.Process(target=serve, args=(there, job), daemon=True)
        self.process.start()
        there.close()

    def wait(self) -> dict[str, Any]:
        """parameters of each piece; set_up: seconds to bring them into their mode; difference: mean absolute
        one from eager; empty: MiB of the process before."""
        return self._answer()

    def measure(self, batch: int, warm: bool = True) -> dict[str, Any]:
        """seconds: of one call of each piece with `batch` pictures; peak: MiB, the process's (on CUDA the
        allocator's)."""
        self.connection.send((batch, warm))
        return self._answer()

    def close(self) -> None:
        with suppress(OSError):
            self.connection.send(None)
        self.process.join(20)
        if self.process.is_alive():
            self.process.kill()

    def _answer(self) -> dict[str, Any]:
        try:
            found = self.connection.recv()
        except EOFError:
            self.process.join()
            raise RuntimeError(f"its process died ({self.process.exitcode}); out of memory?") from None
        if isinstance(found, str):
            raise RuntimeError(found)
        return found


def serve(connection: Connection, job: Job) -> None:
    """The child's side."""
    try:
        torch.set_num_threads(job.threads)
        with torch.inference_mode():
            for found in measurements(connection, job):
                connection.send(found)
    except (EOFError, KeyboardInterrupt):
        pass  # the parent is gone
    except Exception as error:
        with suppress(OSError):
            traceback.print_exc()
            connection.send(f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}")


def measurements(connection: Connection, job: Job) -> Iterator[dict[str, Any]]:
    empty = peak(job.device)
    pieces = ROWS[job.row].build(job.classes, job.height, job.width)
    for piece in pieces:
        piece.network.to(job.device)
    before = [on(piece.inputs(1), job.device) for piece in pieces]
    expected = [piece.network(*given).float().cpu() for piece, given in zip(pieces, before, strict=True)]
    parameters = [sum(p.numel() for p in piece.network.parameters()) for piece in pieces]
    start = time.perf_counter()
    calls = [MODES[job.mode](piece, given, job) for piece, given in zip(pieces, before, strict=True)]
    difference = 0.0
    if job.mode != "eager":  # which has run: seconds matter for the largest
        for call, given, plain in zip(calls, before, expected, strict=True):
            difference = max(difference, float((call(*given).float().cpu() - plain).abs().mean()))
    synchronise(job.device)
    seconds = time.perf_counter() - start
    yield {"parameters": parameters, "set_up": seconds, "difference": difference, "empty": empty}
    del before, expected
    warmed = {1}
    while (asked := connection.recv()) is not None:
        batch, warm = asked
        inputs = [on(piece.inputs(batch), job.device) for piece in pieces]
        reset_peak(job.device)
        timed = []
        for call, given in zip(calls, inputs, strict=True):
            if warm and batch not in warmed:
                call(*given)
            timed.append(fastest(call, given, job.device))
        warmed.add(batch)
        yield {"seconds": timed, "peak": peak(job.device)}


def fastest(call: Callable[..., Any], given: tuple[Tensor, ...], device: str) -> float:
    times = []
    while sum(times) < LEAST_SECONDS:
        synchronise(device)
        start = time.perf_counter()
        call(*given)
        synchronise(device)
        times.append(time.perf_counter() - start)
    return min(times)


def on(inputs: tuple[Tensor, ...], device: str) -> tuple[Tensor, ...]:
    return tuple(given.to(device) for given in inputs)


def synchronise(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def reset_peak(device: str) -> None:
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):  # Linux: /proc/self/status counts the peak anew
        Path("/proc/self/clear_refs").write_text("5")


def peak(device: str) -> float:
    """MiB at most since `reset_peak`; where the system cannot count anew, since the process began."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated(device) / 2**20
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def count(connection: Connection, jobs: list[Job]) -> None:
    """Sends job -> multiply-adds (1e9) of a call of each piece for one picture, or words that say why not.

    Of convolutions, matrix products and attention, as torch's flop counter sees them without computing.
    """
    found: dict[Job, list[float] | str] = {}
    for job in jobs:
        try:
            with torch.device("meta"), torch.no_grad():
                pieces = ROWS[job.row].build(job.classes, job.height, job.width)
                found[job] = [multiply_adds(piece.network, piece.inputs) for piece in pieces]
        except Exception as error:
            found[job] = f"{type(error).__name__}: {error}".splitlines()[0]
    connection.send(found)


def multiply_adds(network: nn.Module, inputs: Callable[[int], tuple[Tensor, ...]]) -> float:
    from torch.utils.flop_counter import FlopCounterMode  # takes seconds to load

    given = on(inputs(1), "meta")
    with FlopCounterMode(display=False) as counter:
        network(*given)
    return counter.get_total_flops() / 2e9


def counted(jobs: list[Job]) -> dict[Job, list[float] | str]:
    """`count` in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=count, args=(there, jobs), daemon=True)
    process.start()
    there.close()
    found = here.recv()
    process.join()
    return found


def machine_memory(device: str) -> float:
    """MiB that can be had now."""
    if device != "cpu":
        return torch.cuda.mem_get_info(device)[0] / 2**20
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 1024
    return float("inf")
