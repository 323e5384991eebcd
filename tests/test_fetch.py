"""`dpsims data fetch` against a real server that cuts, lies and dawdles, and with real kills."""

from __future__ import annotations

import hashlib
import io
import random
import re
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from dpsims.data import fetch as module
from dpsims.data.download import _BLOCK
from dpsims.data.fetch import BY_HAND, DOWNLOADS, Archive, Download, fetch

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


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=lambda: server.serve_forever(0.01))
    thread.start()
    yield server
    server.hurry.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def direct_and_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The downloader waits a second before it tries again; and no proxy should come between."""
    monkeypatch.setenv("NO_PROXY", "*")
    from huggingface_hub import file_download
    from huggingface_hub.utils import _http

    for hub in (file_download, _http):
        monkeypatch.setattr(hub, "time", SimpleNamespace(sleep=lambda _: None))


def archive_of(server: Server, files: Files = PICTURES, target: str = ".", published: bool = True) -> Archive:
    """A miniature on the server; without `published` its size and checksum are unknown."""
    body, name = zipped(files), f"mini{len(server.files)}.zip"
    server.files[name] = body
    tops = sorted({file.split("/")[0] for file in files})
    holds = tuple(top if target == "." else f"{target}/{top}" for top in tops)
    size, digest = (len(body), "sha256:" + hashlib.sha256(body).hexdigest()) if published else (None, None)
    return Archive(f"{server.url}/somewhere/{name}", size, digest, target, holds)


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Archive]:
    """Make `mini` the name of the given archives; gives the first."""

    def set_mini(*archives: Archive) -> Archive:
        monkeypatch.setitem(DOWNLOADS, "mini", Download("Miniature", archives, "free for all"))
        return archives[0]

    return set_mini


def tree(root: Path) -> Files:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def refusal(root: Path, mirror: str | None = None) -> str:
    """The message of a fetch that fails: one line, and none of the downloader's advice."""
    with pytest.raises(ValueError) as error:
        fetch("mini", root, mirror, say=lambda _: None)
    message = str(error.value)
    assert "\n" not in message and "force_download" not in message
    return message


def test_archives_come_into_their_places_and_nothing_else_stays(tmp_path: Path, server: Server, offer):
    maps: Files = {"train/1.png": b"one", "val/2.png": b"two"}
    first = archive_of(server, maps, "annotations", published=False)
    pictures: Files = {"train/1.jpg": b"1", "train/deep/er/3.jpg": b"", "__MACOSX/x": b"no part of it"}
    second = archive_of(server, pictures, "images")
    offer(first, Archive(second.url, second.size, second.digest, "images", ("images/train",)))
    said: list[str] = []
    assert fetch("mini", tmp_path / "set", say=said.append) == tmp_path / "set"
    assert tree(tmp_path / "set") == {f"annotations/{k}": v for k, v in maps.items()} | {
        "images/train/1.jpg": b"1",
        "images/train/deep/er/3.jpg": b"",
    }
    assert said[0] == "Miniature; terms: free for all"
    text = "\n".join(said)
    assert "mini0.zip: no published checksum" in text and "checked by the zip's own CRCs" in text
    assert re.search(r"mini1\.zip: downloading http\S+ \(\d+ bytes\)", text)
    said.clear()
    fetch("mini", tmp_path / "set", say=said.append)
    assert len(server.ranges) == 2 and sum("already there" in line for line in said) == 2
    assert not (tmp_path / "set" / ".fetch").exists()


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


def test_wrong_bytes_are_downloaded_anew_once(tmp_path: Path, server: Server, offer):
    offer(archive_of(server))
    server.tricks, said = ["wrong"], []
    fetch("mini", tmp_path, say=said.append)
    assert tree(tmp_path) == PICTURES and server.ranges == [None, None]
    assert any("has sha256:" in line and "once more" in line for line in said)


@pytest.mark.parametrize("trick", ["wrong", "page"])
def test_twice_wrong_bytes_are_refused(tmp_path: Path, server: Server, offer, trick: str):
    archive = offer(archive_of(server))
    server.tricks = [trick, trick]
    message = refusal(tmp_path)
    own = tmp_path / archive.name
    found = {
        "wrong": "sha256:" + hashlib.sha256(bytes(archive.size or 0)).hexdigest(),
        "page": "is 26 bytes",
    }
    expected = {"wrong": archive.digest or "", "page": str(archive.size)}
    for part in (archive.url, found[trick], expected[trick], "try again later", "--mirror", f"at {own}"):
        assert part in message
    assert not [name for name in tree(tmp_path) if name != ".fetch/lock"]
    fetch("mini", tmp_path, say=lambda _: None)
    assert tree(tmp_path) == PICTURES


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


def test_the_mirror_replaces_all_but_the_name(tmp_path: Path, server: Server, offer):
    archive = archive_of(server)
    offer(Archive("http://127.0.0.1:9/a/b/mini0.zip", archive.size, archive.digest, ".", archive.holds))
    fetch("mini", tmp_path, mirror=f"{server.url}/c/", say=lambda _: None)
    assert tree(tmp_path) == PICTURES
    assert "begins with http://" in refusal(tmp_path, mirror="ftp://host/")


def test_offline_mode_is_named(tmp_path: Path, server: Server, offer, monkeypatch: pytest.MonkeyPatch):
    offer(archive_of(server))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "unset it" in refusal(tmp_path) and not server.ranges


def test_your_own_archive_is_used_and_stays(tmp_path: Path, server: Server, offer):
    archive = offer(archive_of(server))
    own, body = tmp_path / archive.name, server.files[archive.name]
    own.write_bytes(body[:-1])
    assert f"{own}: is {len(body) - 1} bytes, expected {len(body)}; remove" in refusal(tmp_path)
    own.write_bytes(body)
    fetch("mini", tmp_path, say=lambda _: None)
    assert tree(tmp_path) == {**PICTURES, archive.name: body} and not server.ranges


def test_archives_can_be_kept_and_serve_again(tmp_path: Path, server: Server, offer):
    archive = offer(archive_of(server))
    fetch("mini", tmp_path, keep_archives=True, say=lambda _: None)
    assert tree(tmp_path) == {**PICTURES, archive.name: server.files[archive.name]}
    shutil.rmtree(tmp_path / "set")
    fetch("mini", tmp_path, say=lambda _: None)
    assert tree(tmp_path)["set/images/3.jpg"] == PICTURES["set/images/3.jpg"] and len(server.ranges) == 1


def test_what_is_there_is_never_touched(tmp_path: Path, server: Server, offer):
    offer(archive_of(server, {"train/1.png": b"theirs", "val/2.png": b"theirs"}, "annotations"))
    mine = tmp_path / "annotations" / "train" / "1.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    fetch("mini", tmp_path, say=lambda _: None)
    assert tree(tmp_path) == {"annotations/train/1.png": b"mine", "annotations/val/2.png": b"theirs"}


@pytest.mark.parametrize(
    "name", ["../evil", "set/../../evil", "/tmp/evil", "C:/evil", "C:evil", "set\\..\\..\\evil", "set/.."]
)
def test_names_that_lead_outside_are_refused(tmp_path: Path, server: Server, offer, name: str):
    # the server's file is made by hand: its folder is what the archive should hold
    archive = archive_of(server)
    server.files["mini0.zip"] = zipped({"set/a": b"good", name: b"evil"})
    offer(Archive(archive.url, None, None, ".", ("set",)))
    message = refusal(tmp_path / "deep" / "root")
    assert repr(name) in message and "nothing was unpacked" in message
    assert not [k for k in tree(tmp_path) if not k.endswith(".fetch/lock")]


def test_links_are_refused(tmp_path: Path, server: Server, offer):
    link = zipfile.ZipInfo("set/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("set/a", b"good")
        file.writestr(link, "/etc/passwd")
    archive = archive_of(server)
    server.files[archive.name] = buffer.getvalue()
    offer(Archive(archive.url, None, None, ".", ("set",)))
    assert "link or device ('set/link')" in refusal(tmp_path)
    assert list(tree(tmp_path)) == [".fetch/lock"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "encrypted", "another"])
def test_a_damaged_archive_without_checksum(tmp_path: Path, server: Server, offer, damage: str):
    archive = offer(archive_of(server, published=False))
    whole = server.files[archive.name]
    middle, directory = len(whole) // 2, whole.index(b"PK\1\2")
    bad = {
        "cut": whole[:-100],
        "flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "encrypted": whole[:6] + b"\1" + whole[7 : directory + 8] + b"\1" + whole[directory + 9 :],
        "another": zipped({"other/1.jpg": b""}),
    }
    said = {
        "cut": "is not a whole zip file, twice",
        "flipped": "damaged zip file (Bad CRC-32",
        "encrypted": "cannot be unpacked",
        "another": "has no folder set/",
    }
    server.files[archive.name] = bad[damage]
    message = refusal(tmp_path)
    assert archive.name in message and said[damage] in message and "--mirror" in message
    assert not (tmp_path / "set").exists()
    server.files[archive.name] = whole
    fetch("mini", tmp_path, say=lambda _: None)
    assert tree(tmp_path) == PICTURES


def test_a_damaged_archive_of_your_own_is_not_deleted(tmp_path: Path, server: Server, offer):
    archive = offer(archive_of(server, published=False))
    whole = server.files[archive.name]
    own = tmp_path / archive.name
    own.write_bytes(whole[:500_000] + bytes(1000) + whole[501_000:])
    assert f"{own}: damaged zip" in refusal(tmp_path) and own.stat().st_size == len(whole)


def test_too_small_a_disk_is_told_before_it_is_full(
    tmp_path: Path, server: Server, offer, monkeypatch: pytest.MonkeyPatch
):
    archive = offer(archive_of(server))
    free = 900_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    message = refusal(tmp_path)
    assert "needs 1.0 MB, 900.0 kB are free" in message and not server.ranges
    free = archive.size or 0
    message = refusal(tmp_path)
    assert "unpacking mini0.zip needs 1.0 MB" in message and not list(tmp_path.rglob("*.unpacked"))
    monkeypatch.undo()
    assert (tmp_path / ".fetch" / archive.name).exists()  # kept: only unpacking is left to do


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux' device that is always full")
def test_a_full_disk_is_told(tmp_path: Path, server: Server, offer):
    archive = offer(archive_of(server))
    (tmp_path / ".fetch").mkdir()
    (tmp_path / ".fetch" / f"{archive.name}.part").symlink_to("/dev/full")
    assert "the disk is full; make room" in refusal(tmp_path)


def test_a_root_that_is_a_file(tmp_path: Path, server: Server, offer):
    offer(archive_of(server))
    (tmp_path / "file").touch()
    assert f"{tmp_path / 'file'}" in refusal(tmp_path / "file")


def test_two_at_a_time_are_refused(tmp_path: Path, server: Server, offer):
    from filelock import FileLock

    offer(archive_of(server))
    (tmp_path / ".fetch").mkdir()
    with FileLock(tmp_path / ".fetch" / "lock"):
        assert "another `dpsims data fetch`" in refusal(tmp_path)
    assert not server.ranges


SLOW_DISK = """
import shutil, time
copy = shutil.copyfileobj
shutil.copyfileobj = lambda *given: (time.sleep(0.01), copy(*given))
"""


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


def test_killed_while_unpacking(tmp_path: Path, server: Server, offer):
    files = {f"set/{i}": b"x" * 100 for i in range(1000)}
    archive = offer(archive_of(server, files))
    unpacked = tmp_path / ".fetch" / "mini0.unpacked" / "set"
    kill_when(start(archive, tmp_path, SLOW_DISK), (unpacked / "5").exists)
    assert 5 < len(list(unpacked.iterdir())) < len(files) and not (tmp_path / "set").exists()
    fetch("mini", tmp_path, say=lambda _: None)
    assert tree(tmp_path) == files and len(server.ranges) == 1


def test_names_that_cannot_be_fetched(tmp_path: Path):
    with pytest.raises(ValueError, match="coco: unknown data set; use one of ade20k, cocostuff, cityscapes"):
        fetch("coco", tmp_path)
    with pytest.raises(ValueError, match="cityscapes: asks for a login.*BY_HAND"):
        fetch("cityscapes", tmp_path)
    assert "gtFine_trainvaltest.zip" in BY_HAND["cityscapes"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["ade20k", "cocostuff"])
def test_what_is_offered_is_well_formed(name: str):
    archives = module.DOWNLOADS[name].archives
    assert len({a.name for a in archives}) == len(archives)
    for archive in archives:
        assert archive.url.startswith("http") and archive.name.endswith(".zip")
        assert archive.digest is None or re.fullmatch("sha256:[0-9a-f]{64}", archive.digest)
        assert (archive.size is None) == (archive.digest is None)
        for folder in archive.holds:  # one step below the target, so that one renaming brings it there
            assert str(Path(folder).parent) == archive.target


def test_fetching_starts_without_torch():
    code = (
        "import sys, dpsims.data.fetch as f; print('torch' in sys.modules, 'huggingface_hub' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]
