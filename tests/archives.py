"""A server of archives that cuts, lies and dawdles, and a second process that fetches and is killed."""

from __future__ import annotations

import hashlib
import io
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dpsims.data.fetch import Archive, fetch

Files = dict[str, bytes]
PICTURES: Files = {f"set/images/{i}.jpg": random.Random(i).randbytes(200_000) for i in range(5)}


def zipped(files: Files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


class Server(ThreadingHTTPServer):
    """Serves `files`; each answer is by the next of `tricks`, then as it should be."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: Files = {}
        self.tricks: list[str] = []
        self.ranges: list[str | None] = []
        """of every request"""
        self.sent = 0
        """bytes, all answers together"""
        self.hurry = threading.Event()
        """ends the dawdling of a "slow" answer"""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.ranges.append(wanted)
        trick = self.server.tricks.pop(0) if self.server.tricks else ""
        body = self.server.files.get(urlsplit(self.path).path.rsplit("/", 1)[-1])
        if trick.isdecimal() or body is None:
            return self.answer(int(trick or 404), b"force_download\nis no advice", {})
        if trick == "wrong":
            body = bytes(len(body))
        elif trick == "page":
            body = b"<html>please log in</html>"
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if start == 0 or trick in ("no ranges", "page"):
            return self.answer(200, body, {}, trick)
        if start >= len(body):
            return self.answer(416, b"", {"Content-Range": f"bytes */{len(body)}"})
        part = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
        return self.answer(206, body[start:], part, trick)

    def answer(self, status: int, body: bytes, headers: dict[str, str], trick: str = "") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if trick == "cut":
            body, self.close_connection = body[: len(body) // 2], True
        if trick == "reset":  # as a router does that has forgotten the connection
            self.wfile.write(body[: len(body) // 2])
            time.sleep(0.1)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            raise ConnectionResetError
        half = len(body) // 2 if trick == "slow" else len(body)
        self.wfile.write(body[:half])
        self.server.sent += half
        for i in range(half, len(body)):  # a byte every 50 ms, until it may hurry
            if self.server.hurry.wait(0.05):
                self.close_connection = True
                return
            self.wfile.write(body[i : i + 1])

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:  # a killed client
            self.close_connection = True

    def log_message(self, *_: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        pass


def archive_of(server: Server, files: Files = PICTURES, target: str = ".", published: bool = True) -> Archive:
    """A miniature on the server; without `published` its size and checksum are unknown."""
    body, name = zipped(files), f"mini{len(server.files)}.zip"
    server.files[name] = body
    tops = sorted({file.split("/")[0] for file in files})
    holds = tuple(top if target == "." else f"{target}/{top}" for top in tops)
    size, digest = (len(body), "sha256:" + hashlib.sha256(body).hexdigest()) if published else (None, None)
    return Archive(f"{server.url}/somewhere/{name}", size, digest, target, holds)


def tree(root: Path) -> Files:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def refusal(root: Path, mirror: str | None = None) -> str:
    """The message of a fetch that fails: one line, and none of the downloader's advice."""
    with pytest.raises(ValueError) as error:
        fetch("mini", root, mirror, say=lambda _: None)
    message = str(error.value)
    assert "\n" not in message and "force_download" not in message
    return message


def start(archive: Archive, root: Path, before: str = "") -> subprocess.Popen[bytes]:
    code = before + (
        "from pathlib import Path\nfrom dpsims.data.fetch import *\n"
        f"DOWNLOADS['mini'] = Download('', ({archive!r},), '')\nfetch('mini', Path({str(root)!r}))"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)


def kill_when(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not ready():
        assert process.poll() is None and time.monotonic() < end, "ended before it could be killed"
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
