"""What tests share. One thread a process, also in the processes that tests start: several that fight for few
cores are many times slower."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import setuptools  # noqa: F401  (before any test imports distutils: replacing it later warns)

if TYPE_CHECKING:  # the fixtures load what they need: not every test waits for torch or a downloader
    from dpsims.data.fetch import Archive
    from tests.archives import Server

os.environ["OMP_NUM_THREADS"] = "1"
pytest.register_assert_rewrite("tests.archives", "tests.command_line")  # they assert as tests do

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def dpsims(capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the program in this process: exit code, stdout, stderr."""

    def run(*args: Any) -> tuple[int, str, str]:
        from dpsims import cli

        with pytest.raises(SystemExit) as end:
            cli.main([str(a) for a in args])
        out, err = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, out, err

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twenty tiny pairs: two each are set aside for val and test."""
    from tests.command_line import write_photos

    return write_photos(tmp_path / "photos")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An untrained generator, saved, of the classes that `photos` has."""
    from tests.command_line import write_model

    return write_model(tmp_path / "model")


@pytest.fixture
def server(direct_and_without_waiting: None) -> Iterator[Server]:
    """A server of archives on this machine."""
    from tests.archives import Server

    server = Server()
    thread = threading.Thread(target=lambda: server.serve_forever(0.01))
    thread.start()
    yield server
    server.hurry.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def direct_and_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The downloader waits a second before it tries again; and no proxy should come between."""
    monkeypatch.setenv("NO_PROXY", "*")
    from huggingface_hub import file_download
    from huggingface_hub.utils import _http

    for hub in (file_download, _http):
        monkeypatch.setattr(hub, "time", SimpleNamespace(sleep=lambda _: None))


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Archive]:
    """Make `mini` the name of the given archives; gives the first."""
    from dpsims.data.fetch import DOWNLOADS, Download

    def set_mini(*archives: Archive) -> Archive:
        monkeypatch.setitem(DOWNLOADS, "mini", Download("Miniature", archives, "free for all"))
        return archives[0]

    return set_mini
