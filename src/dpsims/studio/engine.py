"""The one thread that generates: jobs of the same model and size go through the network together."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dpsims.generating import generate_sized
from dpsims.models.layers import RegionNoise
from dpsims.studio.limits import BATCH_WAIT, BATCH_WORK, MAX_BATCH, MAX_QUEUE, QUEUE_WORK
from dpsims.synthesis import Synthesizer


class QueueFull(Exception):
    """MAX_QUEUE pictures or QUEUE_WORK wait already."""


class Closed(Exception):
    """The server is shutting down."""


@dataclass
class Job:
    """One map and the pictures wanted of it.

    label: int64 (h, w), checked; noise: z (m, n, d) of m pictures, or (m, r, n, d) with `region` (h, w),
    int64 with values 0..r-1; size: see `dpsims.generating.generate_files`. pictures: float (m, 3, h, w) in
    [-1, 1]; cancelling it before its turn takes the job out of the queue.
    """

    model: str
    label: Int[Tensor, "h w"]
    noise: Float[Tensor, "m ..."]
    region: Int[Tensor, "h w"] | None = None
    size: str = "auto"
    pictures: Future[Float[Tensor, "m 3 h w"]] = field(default_factory=Future)
    abandoned: bool = False
    """nobody waits any more: what is not generated yet need not be"""

    @property
    def count(self) -> int:
        return len(self.noise)

    @property
    def work(self) -> float:
        """Of one picture: its pixels, and an eighth more for each region, as memory was measured."""
        return self.label.numel() * (1 if self.region is None else 1 + self.noise.shape[1] / 8)

    @property
    def key(self) -> tuple[object, ...]:
        """Jobs of equal keys fit into one batch."""
        return (self.model, self.size, *self.label.shape, *self.noise.shape[1:])


class Engine:
    """Takes jobs from any thread, and generates in one of its own.

    on_batch(model, pictures, seconds) is called after each batch, in that thread.
    """

    def __init__(
        self,
        models: Mapping[str, Synthesizer],
        max_batch: int = MAX_BATCH,
        wait: float = BATCH_WAIT,
        on_batch: Callable[[str, int, float], None] = lambda model, pictures, seconds: None,
    ) -> None:
        self._models, self._max_batch, self._wait, self._on_batch = models, max_batch, wait, on_batch
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="dpsims-engine", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Pictures in the queue."""
        with self._changed:
            return self._count()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._closing

    def submit(self, job: Job) -> None:
        """Put the job into the queue. Raises QueueFull, or Closed."""
        with self._changed:
            if self._closing:
                raise Closed
            work = sum(waiting.work for waiting in self._waiting if not waiting.pictures.cancelled())
            if self._count() + job.count > MAX_QUEUE or work + job.work > QUEUE_WORK:
                raise QueueFull
            self._waiting.append(job)
            self._changed.notify()

    def close(self) -> None:
        """Finish what was accepted, then end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _count(self) -> int:
        return sum(job.count for job in self._waiting if not job.pictures.cancelled())

    def _run(self) -> None:
        while (batch := self._take()) is not None:
            if batch:
                self._generate(batch)
            del batch  # or its pictures would live until the next one comes

    def _take(self) -> list[Job] | None:
        """The oldest job and those that fit beside it; None at the end."""
        with self._changed:
            while not self._waiting:
                if self._closing:
                    return None
                self._changed.wait()
            batch: list[Job] = []
            until = time.monotonic() + self._wait
            while True:
                self._move_fitting(batch)
                left = until - time.monotonic()
                full = batch and sum(job.count for job in batch) >= self._room(batch[0])
                if not batch or full or left <= 0 or self._closing:
                    return batch
                self._changed.wait(left)

    def _move_fitting(self, batch: list[Job]) -> None:
        """From the queue into the batch; cancelled jobs leave the queue."""
        count = sum(job.count for job in batch)
        kept: deque[Job] = deque()
        for job in self._waiting:
            fits = not batch or (job.key == batch[0].key and count + job.count <= self._room(job))
            if not fits:
                kept.append(job)
            elif job.pictures.set_running_or_notify_cancel():
                batch.append(job)
                count += job.count
        self._waiting = kept

    def _room(self, job: Job) -> int:
        """Pictures such as this job's that are generated at a time."""
        return max(1, min(self._max_batch, int(BATCH_WORK / job.work)))

    def _generate(self, batch: list[Job]) -> None:
        begun = time.monotonic()
        try:
            pictures = self._pictures(batch)
        except Exception as error:  # out of memory, say
            if len(batch) == 1:
                batch[0].pictures.set_exception(error)
            else:  # one of them may be at fault, or all were too much
                for job in batch:
                    self._generate([job])
            return
        self._on_batch(batch[0].model, len(pictures), time.monotonic() - begun)
        for job, part in zip(batch, pictures.split([job.count for job in batch]), strict=True):
            job.pictures.set_result(part)

    def _pictures(self, batch: list[Job]) -> Float[Tensor, "b 3 h w"]:
        label = torch.cat([job.label.expand(job.count, -1, -1) for job in batch])
        noise = torch.cat([job.noise for job in batch])
        regions = [job.region.expand(job.count, -1, -1) for job in batch if job.region is not None]
        region = torch.cat(regions) if regions else None
        model, size, room = self._models[batch[0].model], batch[0].size, self._room(batch[0])
        parts = []
        for i in range(0, len(label), room):  # a job may ask for more pictures than a batch has
            if all(job.abandoned for job in batch):
                raise TimeoutError("nobody waits for these pictures any more")
            part = slice(i, i + room)
            z = noise[part] if region is None else RegionNoise(noise[part], region[part])
            parts.append(generate_sized(model, label[part], z, size))
        return torch.cat(parts)
