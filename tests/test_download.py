"""Downloads that break off: they go on where they stopped, after a kill too."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpsims.data.download import _BLOCK
from dpsims.data.fetch import fetch
from tests.archives import PICTURES, Server, archive_of, kill_when, refusal, start, tree


@pytest.mark.parametrize("published", [True, False])
def test_a_cut_connection_goes_on_where_it_was(tmp_path: Path, server: Server, offer, published: bool):
    archive = offer(archive_of(server, published=published))
    server.tricks = ["cut", "cut"]
    fetch("mini", tmp_path, say=lambda _: None)
    assert tree(tmp_path) == PICTURES
    size = len(server.files[archive.name])
    starts = [int(r.removeprefix("bytes=").removesuffix("-")) for r in server.ranges if r]
    assert len(server.ranges) == 3 and len(starts) == 2
    assert size // 2 - _BLOCK < starts[0] <= size // 2 and starts[1] > starts[0]
    assert server.sent < size + 2 * _BLOCK  # no more twice than the blocks that the cuts went through


def test_a_reset_connection_goes_on_where_it_was(tmp_path: Path, server: Server, offer):
    archive = offer(archive_of(server))
    server.tricks = ["reset", "reset"]
    fetch("mini", tmp_path, say=lambda _: None)
    assert tree(tmp_path) == PICTURES
    starts = [int(r.removeprefix("bytes=").removesuffix("-")) for r in server.ranges if r]
    assert len(starts) == 2 and 0 < starts[0] < starts[1] < len(server.files[archive.name])


@pytest.mark.parametrize("old", ["beginning", "other", "longer"])
def test_a_part_left_by_an_earlier_run(tmp_path: Path, server: Server, offer, old: str):
    """Gone on with where it is the beginning; else found out, and downloaded anew."""
    archive = offer(archive_of(server))
    body = server.files[archive.name]
    part = tmp_path / ".fetch" / f"{archive.name}.part"
    part.parent.mkdir()
    part.write_bytes({"beginning": body[:700_000], "other": bytes(700_000), "longer": body + b"x"}[old])
    fetch("mini", tmp_path, say=lambda _: None)
    assert tree(tmp_path) == PICTURES
    expected = {"beginning": ["bytes=700000-"], "other": ["bytes=700000-", None], "longer": [None]}
    assert server.ranges == expected[old]


def test_a_server_that_knows_no_ranges(tmp_path: Path, server: Server, offer):
    offer(archive_of(server))
    server.tricks = ["cut", "no ranges"]
    fetch("mini", tmp_path, say=lambda _: None)
    assert tree(tmp_path) == PICTURES and server.ranges[1] is not None


def test_a_whole_part_of_unknown_size_is_not_downloaded_again(tmp_path: Path, server: Server, offer):
    archive = offer(archive_of(server, published=False))
    (tmp_path / ".fetch").mkdir()
    (tmp_path / ".fetch" / f"{archive.name}.part").write_bytes(server.files[archive.name])
    fetch("mini", tmp_path, say=lambda _: None)
    assert tree(tmp_path) == PICTURES and len(server.ranges) == 1 and server.sent == 0


def test_server_errors_name_url_and_mend(tmp_path: Path, server: Server, offer):
    archive = offer(archive_of(server))
    server.tricks = ["503"]
    message = refusal(tmp_path)
    assert archive.url in message and "(503)" in message and "try again later" in message
    server.tricks = ["404"]
    message = refusal(tmp_path)
    assert "no such file (404)" in message and "--mirror" in message
    assert f"at {tmp_path / archive.name}" in message


def test_a_server_that_is_off_keeps_what_is_there(tmp_path: Path, server: Server, offer):
    archive = offer(archive_of(server))
    part = tmp_path / ".fetch" / f"{archive.name}.part"
    part.parent.mkdir()
    part.write_bytes(server.files[archive.name][:5000])
    message = refusal(tmp_path, mirror="http://127.0.0.1:9/")  # nobody listens at the port "discard"
    assert message.startswith("http://127.0.0.1:9/mini0.zip: no connection") and "goes on where" in message
    assert part.stat().st_size == 5000
    fetch("mini", tmp_path, say=lambda _: None)
    assert tree(tmp_path) == PICTURES and server.ranges == ["bytes=5000-"]


def test_offline_mode_is_named(tmp_path: Path, server: Server, offer, monkeypatch: pytest.MonkeyPatch):
    offer(archive_of(server))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "unset it" in refusal(tmp_path) and not server.ranges


def test_killed_while_downloading(tmp_path: Path, server: Server, offer):
    archive = offer(archive_of(server))
    part = tmp_path / ".fetch" / f"{archive.name}.part"
    server.tricks = ["slow"]
    kill_when(start(archive, tmp_path), lambda: part.exists() and part.stat().st_size >= 6 * _BLOCK)
    server.hurry.set()
    have = part.stat().st_size
    assert have < len(server.files[archive.name]) and not (tmp_path / "set").exists()
    fetch("mini", tmp_path, say=lambda _: None)
    assert tree(tmp_path) == PICTURES and server.ranges == [None, f"bytes={have}-"]
