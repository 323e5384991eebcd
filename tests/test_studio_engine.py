"""The thread that generates: batches, order, refusals, cancelling, closing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dpsims.models.layers import RegionNoise
from dpsims.studio import engine as engine_module
from dpsims.studio.engine import Closed, Engine, Job, QueueFull

SECONDS = 10  # until a test gives up


class Painter:
    """Stands for a Synthesizer: every picture is its map plus its noise. Waits while `gate` is closed."""

    size = (8, 8)
    about: dict[str, float] = {}

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.batches: list[int] = []
        self.fail = False

    def generate(self, label: Tensor, noise: Tensor | RegionNoise) -> Tensor:
        self.entered.set()
        assert self.gate.wait(SECONDS)
        if self.fail:
            raise RuntimeError("out of memory, say")
        if not isinstance(noise, RegionNoise) and noise.isnan().any():
            raise ValueError("not a number")
        self.batches.append(len(label))
        if isinstance(noise, RegionNoise):
            value = noise.z.flatten(2).mean(2).gather(1, noise.region.flatten(1)).view(label.shape)
        else:
            value = noise.mean((1, 2))[:, None, None]
        return (label + value)[:, None].expand(-1, 3, -1, -1)


def job(value: float, label: int = 0, count: int = 1, side: int = 8) -> Job:
    noise = torch.full((count, 2, 4), float(value))
    return Job("m", torch.full((side, side), label), noise, size="map")


def region_job(value: float, regions: int) -> Job:
    region = torch.zeros(8, 8, dtype=torch.int64)
    region[4:] = regions - 1
    z = torch.arange(regions).float()[None, :, None, None].expand(1, -1, 2, 4) + value
    return Job("m", torch.zeros(8, 8, dtype=torch.int64), z, region, "map")


@pytest.fixture
def painter() -> Painter:
    return Painter()


@pytest.fixture
def start(painter: Painter):
    started: list[Engine] = []

    def make(**options: object) -> Engine:
        started.append(Engine({"m": painter}, **options))  # pyright: ignore
        return started[-1]

    yield make
    painter.gate.set()
    for engine in started:
        engine.close()


def hold(engine: Engine, painter: Painter) -> Job:
    """A job that occupies the thread until the gate opens."""
    painter.gate.clear()
    painter.entered.clear()
    first = job(0, side=16)
    engine.submit(first)
    assert painter.entered.wait(SECONDS)
    return first


def test_each_job_gets_its_own_pictures_out_of_one_batch(start: Callable[..., Engine], painter: Painter):
    engine = start()
    hold(engine, painter)
    jobs = [job(0.1 * i, label=i, count=1 + i % 3) for i in range(4)]
    for item in jobs:
        engine.submit(item)
    painter.gate.set()
    for i, item in enumerate(jobs):
        pictures = item.pictures.result(SECONDS)
        assert pictures.shape == (1 + i % 3, 3, 8, 8)
        assert torch.allclose(pictures, torch.tensor(1.1 * i))
    assert painter.batches == [1, 7]  # 1 + 2 + 3 + 1


def test_jobs_of_other_sizes_and_regions_go_alone_and_in_order(
    start: Callable[..., Engine], painter: Painter
):
    engine = start()
    first = hold(engine, painter)
    jobs = [job(1), job(2, side=12), region_job(3, 2), job(4), region_job(5, 3), region_job(6, 2)]
    for item in jobs:
        engine.submit(item)
    painter.gate.set()
    shapes = [tuple(item.pictures.result(SECONDS).shape) for item in jobs]
    assert shapes[1] == (1, 3, 12, 12) and set(shapes) - {shapes[1]} == {(1, 3, 8, 8)}
    assert painter.batches == [
        1,
        2,
        1,
        2,
        1,
    ]  # the held one; both plain ones; 12x12; both of two regions; one
    pictures = jobs[5].pictures.result()[0, 0]
    assert (pictures[:4] == 6).all() and (pictures[4:] == 7).all()
    assert first.pictures.done()


def test_a_batch_has_at_most_max_batch_pictures(start: Callable[..., Engine], painter: Painter):
    engine = start(max_batch=3)
    hold(engine, painter)
    jobs = [job(1, count=2), job(2, count=2), job(3, count=1), job(4, count=7)]
    for item in jobs:
        engine.submit(item)
    painter.gate.set()
    assert [len(item.pictures.result(SECONDS)) for item in jobs] == [2, 2, 1, 7]
    assert painter.batches == [1, 3, 2, 3, 3, 1]  # 2+1, 2, and the large job in parts


def test_a_cancelled_job_is_not_generated(start: Callable[..., Engine], painter: Painter):
    engine = start()
    hold(engine, painter)
    gone, kept = job(1), job(2)
    engine.submit(gone)
    engine.submit(kept)
    assert gone.pictures.cancel() and engine.waiting == 1
    painter.gate.set()
    kept.pictures.result(SECONDS)
    assert painter.batches == [1, 1]


def test_a_full_queue_refuses_and_cancelled_jobs_make_room(
    start: Callable[..., Engine], painter: Painter, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine_module, "MAX_QUEUE", 4)
    engine = start()
    hold(engine, painter)
    last = job(1, count=3)
    engine.submit(last)
    with pytest.raises(QueueFull):
        engine.submit(job(2, count=2))
    engine.submit(job(2, count=1))
    last.pictures.cancel()
    engine.submit(job(3, count=3))
    assert engine.waiting == 4


def test_a_batch_has_at_most_so_many_pixels(
    start: Callable[..., Engine], painter: Painter, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine_module, "BATCH_WORK", 3 * 64)
    engine = start()
    hold(engine, painter)
    jobs = [job(1), job(2), job(3), job(4), region_job(5, 2), region_job(6, 2), region_job(7, 16)]
    for item in jobs:
        engine.submit(item)
    painter.gate.set()
    for item in jobs:
        item.pictures.result(SECONDS)
    assert painter.batches == [1, 3, 1, 2, 1]  # regions cost more: 2 x 1.25 x 64, 3 x 64


def test_what_nobody_waits_for_is_not_generated_to_the_end(start: Callable[..., Engine], painter: Painter):
    engine = start(max_batch=2)
    painter.gate.clear()
    large = job(1, count=6)
    engine.submit(large)
    assert painter.entered.wait(SECONDS)
    large.abandoned = True
    painter.gate.set()
    with pytest.raises(TimeoutError):
        large.pictures.result(SECONDS)
    assert painter.batches == [2]


def test_one_jobs_error_is_not_the_others(start: Callable[..., Engine], painter: Painter):
    engine = start()
    hold(engine, painter)
    jobs = [job(1), job(float("nan")), job(3)]
    for item in jobs:
        engine.submit(item)
    painter.gate.set()
    with pytest.raises(ValueError, match="not a number"):
        jobs[1].pictures.result(SECONDS)
    assert float(jobs[0].pictures.result()[0, 0, 0, 0]) == 1 and float(jobs[2].pictures.result().mean()) == 3


def test_an_error_reaches_its_jobs_and_the_next_ones_are_done(start: Callable[..., Engine], painter: Painter):
    engine = start()
    painter.fail = True
    broken = job(1)
    engine.submit(broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        broken.pictures.result(SECONDS)
    painter.fail = False
    whole = job(2)
    engine.submit(whole)
    assert len(whole.pictures.result(SECONDS)) == 1 and engine.alive


def test_closing_finishes_what_was_accepted(start: Callable[..., Engine], painter: Painter):
    engine = start(max_batch=1)
    hold(engine, painter)
    jobs = [job(i) for i in range(5)]
    for item in jobs:
        engine.submit(item)
    closing = threading.Thread(target=engine.close)
    closing.start()
    until = time.monotonic() + SECONDS
    while engine.alive and time.monotonic() < until:
        time.sleep(0.01)
    with pytest.raises(Closed):
        engine.submit(job(9))
    painter.gate.set()
    closing.join(SECONDS)
    assert all(item.pictures.done() for item in jobs) and painter.batches == [1] * 6


def test_batches_are_reported(start: Callable[..., Engine], painter: Painter):
    told: list[tuple[str, int]] = []
    engine = start(on_batch=lambda model, pictures, seconds: told.append((model, pictures)))
    engine.submit(item := job(1, count=2))
    item.pictures.result(SECONDS)
    engine.close()
    assert told == [("m", 2)]
