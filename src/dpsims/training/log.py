"""What a run writes while it trains: log.jsonl, TensorBoard, a progress line, and the checks that stop a
broken run."""

from __future__ import annotations

import json
import math
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from dpsims.writing import write_whole

PLAIN_SECONDS = 30  # between two lines where there is no terminal
HISTORY = 400  # logged steps that the health check looks back on


class TrainingStopped(ValueError):
    """The run is broken and going on would waste time; the message says what to try."""


class Health:
    """Stops a run whose losses are no numbers, or whose discriminator has won for good."""

    def __init__(self) -> None:
        self.certain: deque[bool] = deque(maxlen=HISTORY)

    def check(self, row: dict[str, Any]) -> None:
        broken = [k for k, v in row.items() if "loss" in k and not math.isfinite(v)]
        if broken:
            raise TrainingStopped(
                f"{broken[0]} is {row[broken[0]]} after {row['images']} pictures: the run diverged; the "
                "checkpoint before it is kept. Try half of training.generator_lr and "
                "training.discriminator_lr, or training.precision fp32"
            )
        self.certain.append(row["fake_probability"] > 0.999 and row["real_accuracy"] > 0.99)
        if len(self.certain) == HISTORY and all(self.certain):
            raise TrainingStopped(
                f"the discriminator has been sure of every pixel for {HISTORY} logged steps "
                f"({row['images']} pictures): the generator learns nothing. Try a lower "
                "training.discriminator_lr, a higher losses.label_smoothing, or "
                "more varied data (data.crop, data.flip)"
            )


class Logger:
    """log.jsonl (a row per logged step), TensorBoard, and progress with images/s and time left.

    seconds_before: training time before this start, in the clock that rows use; seconds_left: what is left
    of `training.max_minutes` in the same clock, infinite where there is no such limit.
    """

    def __init__(
        self, run: Path, images_seen: int, total_images: int, seconds_before: float, seconds_left: float
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # line-buffered: what a killed run has done stays readable
        self.file = (run / "log.jsonl").open("a", buffering=1, encoding="utf-8")
        self.board = SummaryWriter(run / "tensorboard", purge_step=images_seen)
        self.first, self.total, self.seconds_left = images_seen, total_images, seconds_left
        self.seconds_before, self.printed = seconds_before, time.monotonic()
        self.console = Console(stderr=True)
        columns = (BarColumn(), TextColumn("{task.description}"))
        self.progress = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.progress.add_task("", total=total_images, completed=images_seen)
        self.progress.start()

    def row(self, row: dict[str, Any]) -> None:
        self.file.write(json.dumps(row) + "\n")
        images, elapsed = row["images"], row["seconds"] - self.seconds_before
        for name, value in row.items():
            if isinstance(value, float):
                self.board.add_scalar(name, value, images)
        speed = (images - self.first) / max(elapsed, 1e-9)
        left = min((self.total - images) / max(speed, 1e-9), self.seconds_left - elapsed) / 60
        text = f"{images}/{self.total} images, {speed:.1f} images/s, {max(left, 0):.0f} min left"
        self.progress.update(self.task, completed=images, description=text)
        if self.progress.disable and time.monotonic() - self.printed > PLAIN_SECONDS:
            self.printed = time.monotonic()
            losses = " ".join(f"{k.removeprefix('loss_')} {v:.3f}" for k, v in row.items() if "loss" in k)
            self.say(f"{text}: {losses}")

    def validation(self, images: int, seconds: float, figures: dict[str, float], title: str) -> None:
        """Figures of the validation split; `title` says what their `frechet` is."""
        row = {"images": images, "seconds": round(seconds, 3), "validation": figures, "frechet_title": title}
        self.file.write(json.dumps(row) + "\n")
        for name, value in figures.items():
            self.board.add_scalar(f"validation/{name}", value, images)
        self.say(f"{images} images, validation: " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items()))

    def say(self, text: str) -> None:
        self.progress.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        self.progress.stop()
        self.file.close()
        self.board.close()
        sys.stderr.flush()


def forget_after(run: Path, images_seen: int) -> None:
    """Drop the rows of log.jsonl that a stopped run wrote after its last checkpoint, and a half-written
    last one."""
    file = run / "log.jsonl"
    if not file.exists():
        return
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if row["images"] <= images_seen:
            kept.append(line + "\n")
    write_whole(file, "".join(kept).encode())
