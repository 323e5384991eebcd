"""Writing shards: what they hold, and what is refused."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from webdataset.autodecode import handle_extension
from webdataset.compat import WebDataset

from dpsims.data.layouts import find_layout
from dpsims.data.pairs import Pair, PairSource
from dpsims.data.shards import Shards, is_sharded, verify
from dpsims.data.write_shards import write_shards
from tests.pair_folders import CLASSES, WIDE, files_in, listed, make, tars_in


def assert_same(shards: Shards, source: PairSource) -> None:
    assert shards.names == source.names and len(shards) == len(source)
    for i in range(len(source)):
        for ours, theirs in zip(shards.load(i), source.load(i), strict=True):
            assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)


@pytest.mark.parametrize("classes", [CLASSES, WIDE], ids=["8 bits", "16 bits"])
def test_shards_hold_what_the_files_hold(tmp_path: Path, classes: dict):
    root = make(tmp_path / "data", 13, classes)
    layout = find_layout(root)
    assert layout.root == root and not is_sharded(root)
    index = write_shards(layout, tmp_path / "out", pairs_per_shard=4, workers=1)
    assert is_sharded(index.parent)
    for split in layout.splits:
        shards = Shards(index.parent, split)
        assert_same(shards, PairSource(layout, split))
        assert shards.space == layout.space
    listed = json.loads(index.read_text())["shards"]
    assert [entry["pairs"] for entry in listed if entry["split"] == "train"] == [3, 3, 3]
    assert verify(index.parent) == []


# WebDataset leaves closing its file to the garbage collector
@pytest.mark.filterwarnings("ignore:unclosed file.*train-000000:ResourceWarning")
def test_webdataset_reads_them(tmp_path: Path):
    root = make(tmp_path / "data", 6)
    layout = find_layout(root)
    long = "a.b%" + "ü" * 90  # dots in keys end them, and a name longer than a tar header's field
    layout.splits["train"].append(Pair(root / "images/p001.png", root / "labels/p001.png", long))
    out = write_shards(layout, tmp_path / "out", workers=1).parent
    data = WebDataset(str(out / "train-000000.tar"), shardshuffle=False).decode(
        handle_extension("label.png", lambda content: np.array(Image.open(io.BytesIO(content)))),
        "rgb8",
    )
    source = PairSource(layout, "train")
    found = {}
    for sample in cast(Iterable[dict[str, Any]], data):
        picture = next(sample[key] for key in ("jpg", "png", "webp") if key in sample)
        found[sample["__key__"]] = picture, sample["label.png"]
    keys = [name.replace("%", "%25").replace(".", "%2E") for name in source.names]
    assert sorted(found) == sorted(keys) and len(keys) == 5
    for i, key in enumerate(keys):
        image, label = source.load(i)
        picture, ids = found[key]
        if picture.shape == image.shape:  # WebDataset does not turn a picture as its EXIF says
            assert np.array_equal(picture, image)
        assert np.array_equal(layout.space.decode_ids(ids), label)


def test_size_scales_down_and_keeps_map_and_picture_together(tmp_path: Path):
    root = make(tmp_path / "data", 3, size=(64, 96))
    cells = np.random.default_rng(5).choice([7, 11, 23, 255], (8, 12)).repeat(8, 0).repeat(8, 1)
    for i, suffix in enumerate(("jpg", "png", "webp")):
        for path in (root / "images").glob(f"p{i:03d}.*"):
            path.unlink()
        image = np.repeat(cells[..., None], 3, axis=2).astype(np.uint8)
        Image.fromarray(image).save(root / f"images/p{i:03d}.{suffix}", quality=100)
        Image.fromarray(cells.astype(np.uint8)).save(root / f"labels/p{i:03d}.png")
    layout = find_layout(root)
    whole = write_shards(layout, tmp_path / "whole", size=64, workers=1).parent
    assert_same(Shards(whole, "train"), PairSource(layout, "train"))  # none is larger: not touched
    out = write_shards(layout, tmp_path / "out", size=24, workers=1).parent
    expected = layout.space.decode_ids(cells[::8, ::8].repeat(3, 0).repeat(3, 1))
    for split in layout.splits:
        image, label = Shards(out, split).load(0)
        assert image.shape == (24, 36, 3) and np.array_equal(label, expected)
        told = np.array([7, 11, 23, 255])[label]
        inner = np.ix_(range(1, 24, 3), range(1, 36, 3))  # the middle of each cell, away from its rims
        assert np.abs(image[..., 0].astype(int) - told)[inner].max() < 40
    noise = np.random.default_rng(6).choice([7, 11, 23], (63, 95)).astype(np.uint8)
    Image.fromarray(noise).save(root / "labels/p000.png")
    Image.fromarray(noise).save(root / "images/p000.jpg")
    layout = find_layout(root)
    split = next(split for split, pairs in layout.splits.items() if pairs[0].name == "p000")
    _, label = Shards(write_shards(layout, tmp_path / "noise", size=25, workers=1).parent, split).load(0)
    # odd sizes, for an even one has new pixels whose middle lies between two old ones
    centred = Image.fromarray(noise).resize((38, 25), Image.Resampling.NEAREST)
    assert np.array_equal(label, layout.space.decode_ids(np.array(centred)))
    members = []
    for path in out.glob("*.tar"):
        with tarfile.open(path) as tar:
            members += tar.getmembers()
    pictures = sorted(member.name for member in members if ".label." not in member.name)
    assert pictures == ["p000.jpg", "p001.png", "p002.jpg"]  # WebP becomes JPEG
    assert all(member.mtime == member.uid == member.gid == 0 for member in members)


def test_bad_pairs_and_options_are_named(tmp_path: Path):
    root = make(tmp_path / "data", 12)
    layout, out = find_layout(root), tmp_path / "out"
    with pytest.raises(ValueError, match="--shard-pairs 0: use 1 or more"):
        write_shards(layout, out, pairs_per_shard=0)
    with pytest.raises(ValueError, match="--size -3"):
        write_shards(layout, out, size=-3)
    with pytest.raises(ValueError, match="--workers 0"):
        write_shards(layout, out, workers=0)
    assert not out.exists()
    bad = layout.splits["test"][-1]
    good = bad.label.read_bytes()
    ids = np.array(Image.open(bad.label))
    ids[2, 3] = 99
    Image.fromarray(ids).save(bad.label)
    with pytest.raises(ValueError, match=rf"{bad.name}\.png: label id 99 at row 2, column 3"):
        write_shards(layout, out, 4, workers=2)
    with pytest.raises(ValueError, match=rf"\(`dpsims data check {root}` lists all\)$"):
        write_shards(layout, out, 4, workers=1)
    assert list(out.glob("train-*.json")) and not list(out.glob(".*"))
    with pytest.raises(ValueError, match="unfinished"):
        Shards(out, "train")
    # the map mended: the same command finishes, and what was whole stays
    bad.label.write_bytes(good)
    before = {path: path.stat().st_ino for path in out.glob("train-*")}
    write_shards(layout, out, 4, workers=1)
    assert {path: path.stat().st_ino for path in out.glob("train-*")} == before
    assert files_in(out) == files_in(write_shards(layout, tmp_path / "undisturbed", 4, workers=1).parent)
    (root / "labels" / f"{bad.name}.png").unlink()
    with pytest.raises(ValueError, match="has no label map"):
        write_shards(find_layout(root), tmp_path / "new")


@pytest.mark.parametrize(
    "name", ["train-000000.tar", "index.json", "plan.json", "lock", "notes.txt", ".train-000000.tar.7.part"]
)
def test_other_peoples_files_are_left_alone(tmp_path: Path, name: str):
    layout, out = find_layout(make(tmp_path / "data")), tmp_path / "out"
    out.mkdir()
    for content in (b'{"format": "theirs", "shards": []}', b"[]"):
        (out / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"out: holds .*{name}.*; choose a new folder as --out"):
            write_shards(layout, out, workers=1)
        assert files_in(out) == {name: content}


def test_what_stands_beside_shards_is_refused_too(tmp_path: Path):
    layout = find_layout(make(tmp_path / "data"))
    out = write_shards(layout, tmp_path / "out", workers=1).parent
    (out / "notes.txt").touch()
    before = files_in(out)
    with pytest.raises(ValueError, match=r"out: holds something else \(notes\.txt\)"):
        write_shards(layout, out, workers=1)
    assert files_in(out) == before
    # shards whose mark is lost might be anyone's
    (out / "notes.txt").unlink()
    (out / "plan.json").unlink()
    with pytest.raises(ValueError, match=r"out: holds index\.json, but no plan\.json of"):
        write_shards(layout, out, workers=1)


def test_a_changed_pair_rewrites_its_shard_and_other_data_are_refused(tmp_path: Path):
    layout = find_layout(make(tmp_path / "data"))
    out = write_shards(layout, tmp_path / "out", 3, workers=1).parent
    before, changed = tars_in(out), layout.splits["train"][0]
    Image.fromarray(np.full((12, 18), 11, np.uint8)).save(changed.label)
    (shard,) = (
        path.stem for path in out.glob("*-*.json") if changed.name in json.loads(path.read_text())["names"]
    )
    said: list[str] = []
    write_shards(layout, out, 3, workers=1, say=said.append)
    total = len(before)
    assert said == [f"{out / shard}.tar ({total} of {total})"]
    after = tars_in(out)
    assert {name for name in before if after[name] != before[name]} == {f"{shard}.tar"}
    assert_same(Shards(out, "train"), PairSource(layout, "train"))
    assert files_in(out) == files_in(write_shards(layout, tmp_path / "new", 3, workers=1).parent)
    whole = files_in(out)
    layout.splits["val"].pop()
    for other, pairs in ((layout, 3), (find_layout(tmp_path / "data"), 4)):
        with pytest.raises(ValueError, match=r"out: holds shards of other data or options \(index\.json\)"):
            write_shards(other, out, pairs, workers=1)
        assert files_in(out) == whole


def test_options_may_change_before_the_first_shard_is_there(tmp_path: Path):
    layout = find_layout(make(tmp_path / "data"))
    bad = layout.splits["train"][0].label
    good = bad.read_bytes()
    bad.write_bytes(b"")
    with pytest.raises(ValueError, match=bad.name):
        write_shards(layout, tmp_path / "out", workers=1)
    bad.write_bytes(good)
    assert listed(tmp_path / "out") == ["plan.json"]
    out = write_shards(layout, tmp_path / "out", 4, workers=1).parent
    assert_same(Shards(out, "train"), PairSource(layout, "train"))
    said: list[str] = []
    write_shards(layout, out, 4, say=said.append)
    assert "already complete" in said[0]


@pytest.mark.parametrize("damage", ["empty", "foreign", "cut", "without shards"])
def test_a_damaged_index_is_written_again(tmp_path: Path, damage: str):
    layout = find_layout(make(tmp_path / "data"))
    index = write_shards(layout, tmp_path / "out", 3, workers=1)
    whole, before = files_in(index.parent), tars_in(index.parent)
    values = json.loads(index.read_text())
    values.pop("shards")
    index.write_text(
        {
            "empty": "",
            "foreign": '{"name": "theirs"}',
            "cut": index.read_text()[:200],
            "without shards": json.dumps(values),
        }[damage]
    )
    with pytest.raises(ValueError, match=r"out/index\.json: is damaged.*run the same `dpsims data shard`"):
        Shards(index.parent, "train")
    said: list[str] = []
    write_shards(layout, index.parent, 3, workers=1, say=said.append)
    assert said == [] and files_in(index.parent) == whole and tars_in(index.parent) == before


def test_two_at_once_do_not_mix(tmp_path: Path):
    layout, out = find_layout(make(tmp_path / "data")), tmp_path / "out"
    out.mkdir()
    with (
        FileLock(out / "lock"),
        pytest.raises(ValueError, match="out: another `dpsims data shard` works there; wait until it ends"),
    ):
        write_shards(layout, out, workers=1)
    assert listed(out) == ["lock"]  # it stays when the other one is killed, and is no obstacle
    write_shards(layout, out, workers=1)
    assert "lock" not in listed(out) and "plan.json" in listed(out)


def test_no_second_command_starts_while_shards_are_written(tmp_path: Path):
    layout, out = find_layout(make(tmp_path / "data")), tmp_path / "out"
    refused: list[str] = []

    def second(_: str) -> None:
        with pytest.raises(ValueError, match="another `dpsims data shard` works there") as error:
            write_shards(layout, out, 3, workers=1)
        refused.append(str(error.value))

    write_shards(layout, out, 3, workers=1, say=second)
    assert len(refused) == len(list(out.glob("*.tar")))


def test_unlabelled_pixels_without_an_id_are_refused_by_file(tmp_path: Path):
    layout = find_layout(make(tmp_path / "data", 3, WIDE))
    layout.file_space, ids = layout.space, layout.space.ids
    layout.space = type(layout.space)(layout.space.names[:3], layout.space.colors[:3], ids[:3])  # no car
    with pytest.raises(ValueError, match=r"p\d+\.png: label map has unlabelled pixels.*ignore_id"):
        write_shards(layout, tmp_path / "out", workers=1)
