"""`dpsims data fetch` against a real server: what it puts where, and what it refuses."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dpsims.data import fetch as module
from dpsims.data.fetch import BY_HAND, Archive, fetch
from tests.archives import PICTURES, Files, Server, archive_of, refusal, tree


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


def test_an_empty_folder_is_not_the_set(tmp_path: Path, server: Server, offer):
    archive = offer(archive_of(server))
    for folder in archive.holds:
        (tmp_path / folder).mkdir(parents=True)
    fetch("mini", tmp_path, say=lambda text: None)
    assert tree(tmp_path) == PICTURES


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


def test_the_mirror_replaces_all_but_the_name(tmp_path: Path, server: Server, offer):
    archive = archive_of(server)
    offer(Archive("http://127.0.0.1:9/a/b/mini0.zip", archive.size, archive.digest, ".", archive.holds))
    fetch("mini", tmp_path, mirror=f"{server.url}/c/", say=lambda _: None)
    assert tree(tmp_path) == PICTURES
    assert "begins with http://" in refusal(tmp_path, mirror="ftp://host/")


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


def test_names_that_cannot_be_fetched(tmp_path: Path):
    with pytest.raises(ValueError, match="coco: unknown data set; use one of ade20k, cocostuff, facades, "):
        fetch("coco", tmp_path)
    with pytest.raises(ValueError, match="cityscapes: asks for a login.*BY_HAND"):
        fetch("cityscapes", tmp_path)
    assert "gtFine_trainvaltest.zip" in BY_HAND["cityscapes"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["ade20k", "cocostuff", "facades"])
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
