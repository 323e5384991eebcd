"""Reading shards: their order, damaged ones, and several processes with several workers."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpsims.data.check import check_shards
from dpsims.data.layouts import find_layout
from dpsims.data.shards import Shards, is_sharded, read_dict, verify
from dpsims.data.write_shards import write_shards
from tests.pair_folders import files_in, make


def test_a_data_set_with_an_index_of_its_own_is_no_shards(tmp_path: Path):
    root = make(tmp_path / "data", 3)
    (root / "index.json").write_text("[1, 2]")
    assert not is_sharded(root) and not is_sharded(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"data: holds no shards; make some"):
        Shards(root, "train")


def test_a_data_set_beside_other_peoples_tar_files_is_no_shards(tmp_path: Path):
    root = make(tmp_path / "data", 3)
    (root / "train-000000.tar").touch()
    assert not is_sharded(root)


def test_shards_name_their_set_and_its_reader(tmp_path: Path):
    layout = find_layout(make(tmp_path / "data", 3))
    layout.title, layout.source = "Cityscapes", "cityscapes_trainids"
    shards = Shards(write_shards(layout, tmp_path / "out", workers=1).parent, "train")
    assert (shards.title, shards.source) == ("Cityscapes", "cityscapes_trainids")


def test_order_is_a_permutation_that_stays_within_a_few_shards(tmp_path: Path):
    out = write_shards(find_layout(make(tmp_path / "data", 40)), tmp_path / "out", 4, workers=1).parent
    shards = Shards(out, "train", window=2)
    orders = [shards.order(seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert all(sorted(order.tolist()) == list(range(len(shards))) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 3
    assert np.array_equal(orders[0], pickle.loads(pickle.dumps(shards)).order(0, 0))
    sides = [json.loads(path.read_text()) for path in sorted(out.glob("train-*.json"))]
    shard_of = {name: k for k, side in enumerate(sides) for name in side["names"]}
    visited = [shard_of[shards.names[i]] for i in orders[0]]
    windows = [visited[k : k + 8] for k in range(0, 32, 8)]
    assert len(sides) == 8 and all(len(set(window)) == 2 for window in windows)
    # mixed: not one shard after the other
    assert any(window != sorted(window) and window != sorted(window)[::-1] for window in windows)
    assert sorted(visited) != visited


def test_damage_is_named_with_its_mend(tmp_path: Path):
    layout = find_layout(make(tmp_path / "data"))
    out = write_shards(layout, tmp_path / "out", 3, workers=1).parent
    tar, side, index = out / "train-000001.tar", out / "train-000001.json", out / "index.json"
    whole = files_in(out)

    def refused(said: str) -> None:
        with pytest.raises(ValueError, match=said):
            Shards(out, "train")
        for name, content in whole.items():
            (out / name).write_bytes(content)

    tar.unlink()
    refused(r"train-000001\.tar: missing; run the same `dpsims data shard` command again")
    tar.write_bytes(whole[tar.name][:-1])
    refused(r"train-000001\.tar: has 10,239 bytes instead of 10,240")
    side.unlink()
    refused(r"train-000001\.json: missing")
    side.write_bytes(whole["train-000000.json"])
    refused(r"train-000001\.json: does not belong to .*index\.json")
    side.write_bytes(b'{"numbers"')
    refused(r"train-000001\.json: does not belong")
    index.unlink()
    refused(r"out: its shards are unfinished \(no index\.json\); run the same `dpsims data shard` command")
    index.write_bytes(whole["index.json"].replace(b'"version": 1', b'"version": 9'))
    refused(r"index\.json: shards of version 9, this program reads 1")
    index.write_text('{"format": "dpsims shards", "version": 1}')
    refused(r"out/index\.json: is damaged \(no title, source, space, .*, shards\); run the same `dpsims")
    values = json.loads(whole["index.json"])
    index.write_text(json.dumps(values | {"shards": []}))
    refused(r"index\.json: is damaged \(no shards\)")
    index.write_text(json.dumps(values | {"shards": [{"file": "train-000000.tar", "split": "train"}]}))
    refused(r"index\.json: is damaged \(a shard without pairs, bytes, sha256\)")
    index.write_text(json.dumps(values | {"shards": [values["shards"][0] | {"file": "../data/x.tar"}]}))
    refused(r"index\.json: is damaged \(a shard called '\.\./data/x\.tar'\)")
    cut = json.loads(whole[side.name])
    cut.pop("members")
    side.write_text(json.dumps(cut))
    refused(r"train-000001\.json: does not belong to")
    with pytest.raises(ValueError, match="has no pairs for dev, only for test, train, val"):
        Shards(out, "dev")

    shards = Shards(out, "train")
    with tarfile.open(tar) as opened:
        first = opened.getmembers()[0]
        name = first.name.split(".")[0]
    content = bytearray(whole[tar.name])
    content[first.offset_data : first.offset_data + 40] = bytes(40)
    tar.write_bytes(content)
    assert [path for path, _ in verify(out)] == [tar]
    with pytest.raises(ValueError, match=rf"train-000001\.tar: {name} \(picture\): is not a JPEG or PNG"):
        shards.load(shards.names.index(name))
    # a damaged one is written anew, the others stay
    before = {path: path.stat().st_ino for path in out.glob("*.tar")}
    tar.unlink()
    write_shards(layout, out, 3, workers=1)
    assert files_in(out) == whole
    assert [p for p, number in before.items() if p.stat().st_ino != number] in ([], [tar])
    assert all(p.stat().st_ino == number for p, number in before.items() if p != tar)


def test_a_shard_that_vanishes_while_in_use_is_named(tmp_path: Path):
    out = write_shards(find_layout(make(tmp_path / "data")), tmp_path / "out", workers=1).parent
    first, second = Shards(out, "train"), Shards(out, "val")
    image, _ = first.load(0)
    for path in out.glob("*.tar"):
        path.unlink()
    assert np.array_equal(first.load(0)[0], image)  # its file is open
    with pytest.raises(ValueError, match=r"val-000000\.tar: cannot be read \(No such file"):
        second.load(0)


def test_reading_without_pread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = write_shards(find_layout(make(tmp_path / "data")), tmp_path / "out", 3, workers=1).parent
    shards = Shards(out, "train")
    expected = [shards.load(i) for i in range(len(shards))]
    monkeypatch.delattr(os, "pread")  # Windows has none
    for i, pair in enumerate(expected):
        assert all(np.array_equal(ours, known) for ours, known in zip(shards.load(i), pair, strict=True))
    path = shards.path(0)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=rf"{path.name}: is cut short"):
        shards.load(0)


def test_checking_reads_each_list_of_pairs_a_fixed_number_of_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = write_shards(find_layout(make(tmp_path / "data", 30)), tmp_path / "out", 4, workers=1).parent
    reads: Counter[str] = Counter()

    def counted(path: Path) -> dict:
        reads[path.name] += 1
        return read_dict(path)

    monkeypatch.setattr("dpsims.data.shards.read_dict", counted)
    report = check_shards(out, workers=1)
    assert not report.bad and sum(report.sizes.values()) == 30
    sides = {name: count for name, count in reads.items() if "-" in name}
    # once to open its split, once for its checksum, whatever the number of shards
    assert len(sides) == 8 and set(sides.values()) == {2}


def test_a_check_tells_damaged_pictures_from_damaged_label_maps(tmp_path: Path):
    out = write_shards(find_layout(make(tmp_path / "data: mine")), tmp_path / "o: ut", 20, workers=1).parent
    tar = out / "train-000000.tar"
    content = bytearray(tar.read_bytes())
    with tarfile.open(tar) as opened:
        members = {member.name: member for member in opened.getmembers()}
    side = json.loads((out / "train-000000.json").read_text())
    first, second, third = side["names"][:3]
    (picture,) = (m for name, m in members.items() if name.startswith(first) and ".label" not in name)
    content[picture.offset_data : picture.offset_data + 8] = bytes(8)
    label = members[f"{second}.label.png"]
    content[label.offset_data : label.offset_data + 8] = bytes(8)
    unknown = io.BytesIO()
    Image.fromarray(np.full((2, 2), 99, np.uint8)).save(unknown, "PNG")
    label, png = members[f"{third}.label.png"], unknown.getvalue()
    assert len(png) < label.size
    content[label.offset_data : label.offset_data + label.size] = png.ljust(label.size, b"\0")
    tar.write_bytes(content)
    found = {bad.reason.split(":")[0]: bad for bad in check_shards(out, workers=1).bad}
    assert {bad.path for bad in found.values()} == {tar}
    kinds = {name: bad.kind for name, bad in found.items() if name.startswith("p")}
    assert kinds == {
        f"{first} (picture)": "pictures that cannot be read",
        f"{second} (label map)": "label maps that cannot be read",
        f"{third} (label map)": "label maps that do not fit the classes",
    }


EPOCH = """
import itertools, json, sys
import numpy as np
from dpsims.config import DataConfig
from dpsims.data.batches import training_batches
from dpsims.data.shards import Shards
config = DataConfig(height=16, width=16, crop=1.0, flip=False, workers=2)
for run in sys.argv[1:]:
    rank, first, count = map(int, run.split(","))
    batches = training_batches(Shards("out", "train", window=2), config, 4, 3, first, rank, 2)
    seen = [batch.image[:, :, 0, 0] for batch in itertools.islice(batches, count)]
    print(json.dumps([((pixel + 1) * 127.5).round().int().tolist() for part in seen for pixel in part]))
"""


def test_two_processes_with_two_workers_each_see_every_pair_once_and_resume(tmp_path: Path):
    root = make(tmp_path / "data", 3)
    for path in [*root.glob("images/*"), *root.glob("labels/*")]:
        path.unlink()
    for i in range(30):  # 24 of them for training
        Image.fromarray(np.full((16, 16, 3), (i, 2 * i, 7), np.uint8)).save(root / f"images/{i}.png")
        Image.fromarray(np.full((16, 16), 7, np.uint8)).save(root / f"labels/{i}.png")
    layout = find_layout(root)
    expected = sorted(int(pair.name) for pair in layout.splits["train"])
    write_shards(layout, tmp_path / "out", 5, workers=1)
    # rank, first image, batches; an epoch of 24 is 6 batches of 4. Rank 1 also anew from the third batch on
    runs = [["0,0,6"], ["1,0,6", "1,8,4"]]
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", EPOCH, *run],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
        )
        for run in runs
    ]
    output = "".join(process.communicate(timeout=60)[0] for process in processes)
    pixels = [json.loads(line) for line in output.splitlines()]
    assert all(green == 2 * red and blue == 7 for run in pixels for red, green, blue in run)
    zero, one, resumed = [[pixel[0] for pixel in run] for run in pixels]
    assert len(zero) == len(one) == 12 and sorted(zero + one) == expected
    assert zero + one != expected
    assert resumed == one[4:]
