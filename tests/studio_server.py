"""A studio that runs: uvicorn on this machine, a tiny model, maps to send it."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from PIL import Image

from dpsims.studio.app import create_app
from dpsims.studio.hosted import Hosted, host
from dpsims.studio.serving import open_socket
from tests.command_line import SPACE, write_model

SIZE = (32, 40)
SECONDS = 30  # until a test gives up


class Running:
    """A server that answers at `url`; `models` are those it has."""

    def __init__(self, models: dict[str, Hosted], **options: Any) -> None:
        listening = open_socket("127.0.0.1", 0)
        self.models = models
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        config = uvicorn.Config(create_app(models, **options), log_level="error", ws="none")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([listening],))
        self.thread.start()
        until = time.monotonic() + 30
        while not self.server.started and time.monotonic() < until:
            time.sleep(0.01)
        assert self.server.started

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


class Process:
    """`dpsims studio` with the given options, until it says where it is."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "dpsims.cli", "studio", *options, "--port", "0"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("studio: http://127.0.0.1:"):
            self.process.kill()
            raise AssertionError(self.process.communicate()[1])
        self.url = line.split()[1].rstrip("/")

    def end(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, err


@contextlib.contextmanager
def running(models: dict[str, Hosted], **options: Any) -> Iterator[Running]:
    server = Running(models, **options)
    try:
        yield server
    finally:
        server.stop()


def tiny_models(folder: Path) -> dict[str, Hosted]:
    """One untrained model, named `model`."""
    return host([str(write_model(folder / "model"))])


def ids_of(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A map of three classes, as ids of `tests.command_line.SPACE`."""
    return np.random.default_rng(seed).choice(SPACE.ids, size).astype(np.uint8)


def png(pixels: np.ndarray | Image.Image) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, "PNG")
    return buffer.getvalue()


def ask(url: str, content: bytes, regions: bytes | None = None, **fields: Any) -> httpx.Response:
    """POST /v1/generate."""
    files = {"map": ("map.png", content, "image/png")}
    if regions is not None:
        files["regions"] = ("regions.png", regions, "image/png")
    with httpx.Client(trust_env=False, timeout=30) as client:
        return client.post(f"{url}/v1/generate", files=files, data=fields)


def picture(answer: httpx.Response) -> np.ndarray:
    """Of an answer that is a PNG: (h, w, 3), float."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    return np.array(Image.open(io.BytesIO(answer.content))).astype(float)
