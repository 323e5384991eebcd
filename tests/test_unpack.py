"""Archives that are damaged, made to do harm, or unpacked by a process that is killed."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path

import pytest

from dpsims.data.fetch import Archive, fetch
from tests.archives import PICTURES, Server, archive_of, kill_when, refusal, start, tree, zipped


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


SLOW_DISK = """
import shutil, time
copy = shutil.copyfileobj
shutil.copyfileobj = lambda *given: (time.sleep(0.01), copy(*given))
"""


def test_killed_while_unpacking(tmp_path: Path, server: Server, offer):
    files = {f"set/{i}": b"x" * 100 for i in range(1000)}
    archive = offer(archive_of(server, files))
    unpacked = tmp_path / ".fetch" / "mini0.unpacked" / "set"
    kill_when(start(archive, tmp_path, SLOW_DISK), (unpacked / "5").exists)
    assert 5 < len(list(unpacked.iterdir())) < len(files) and not (tmp_path / "set").exists()
    fetch("mini", tmp_path, say=lambda _: None)
    assert tree(tmp_path) == files and len(server.ranges) == 1
