"""Shards: what is written, what is read back, and what a kill leaves."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from webdataset.autodecode import handle_extension
from webdataset.compat import WebDataset

from dpsims.data.layouts import find_layout
from dpsims.data.pairs import Pair, PairSource
from dpsims.data.shards import Shards, is_sharded, verify
from dpsims.data.write_shards import write_shards

CLASSES = {
    "ignore_id": 255,
    "classes": [
        {"id": 7, "name": "sky", "color": [0, 0, 200]},
        {"id": 11, "name": "road", "color": [90, 90, 90]},
        {"id": 23, "name": "tree", "color": [0, 120, 0]},
    ],
}
WIDE = {"ignore_id": None, "classes": [*CLASSES["classes"], {"id": 700, "name": "car", "color": [9, 9, 9]}]}


def make(root: Path, count: int = 11, classes: dict | None = None, size: tuple[int, int] = (12, 18)) -> Path:
    """A folder of pairs that are all different: JPEG, PNG, WebP and, last, a JPEG turned by its EXIF."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    (root / "classes.json").write_text(json.dumps(classes or CLASSES))
    for i in range(count):
        rng = np.random.default_rng(i)
        image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        label = rng.choice([7, 11, 23, 700 if classes is WIDE else 255], size)
        exif = Image.Exif()
        suffix = ("jpg", "png", "webp")[i % 3]
        if i == count - 1:
            suffix, exif[0x0112] = "jpg", 6  # turn right by 90 degrees
            label = label.T.copy()
        image.save(root / f"images/p{i:03d}.{suffix}", exif=exif)
        Image.fromarray(label.astype(np.uint16 if classes is WIDE else np.uint8)).save(
            root / f"labels/p{i:03d}.png"
        )
    return root


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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


def test_a_data_set_with_an_index_of_its_own_is_no_shards(tmp_path: Path):
    root = make(tmp_path / "data", 3)
    (root / "index.json").write_text("[1, 2]")
    assert not is_sharded(root) and not is_sharded(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"data: holds no shards; make some"):
        Shards(root, "train")


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
    assert list(out.glob("train-*.json")) and not list(out.glob(".*"))
    with pytest.raises(ValueError, match="unfinished"):
        Shards(out, "train")
    # shards of the earlier data do not mix with those of the mended
    bad.label.write_bytes(good)
    with pytest.raises(ValueError, match=r"out: holds shards of other data or options \(.*choose another"):
        write_shards(layout, out, 4, workers=1)
    with pytest.raises(ValueError, match=r"data: holds something else \(classes.json\)"):
        write_shards(layout, root)
    (root / "labels" / f"{bad.name}.png").unlink()
    with pytest.raises(ValueError, match="has no label map"):
        write_shards(find_layout(root), tmp_path / "new")


def test_unlabelled_pixels_without_an_id_are_refused_by_file(tmp_path: Path):
    layout = find_layout(make(tmp_path / "data", 3, WIDE))
    layout.file_space, ids = layout.space, layout.space.ids
    layout.space = type(layout.space)(layout.space.names[:3], layout.space.colors[:3], ids[:3])  # no car
    with pytest.raises(ValueError, match=r"p\d+\.png: label map has unlabelled pixels.*ignore_id"):
        write_shards(layout, tmp_path / "out", workers=1)


def test_a_full_disk_is_one_line(tmp_path: Path):
    make(tmp_path / "data", 3, size=(200, 300))
    code = (  # a limit of file size stands for the end of the disk: writing fails half-way just so
        "import resource, sys\nfrom pathlib import Path\nfrom dpsims.data.layouts import find_layout\n"
        "from dpsims.data.write_shards import write_shards\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try:\n    write_shards(find_layout(Path('data')), Path('out'), workers=1)\n"
        "except ValueError as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert "train-000000.tar: cannot be written (File too large); make room" in run.stdout, run.stderr
    assert list((tmp_path / "out").iterdir()) == []


WRITE = (
    "import sys\nfrom pathlib import Path\nfrom dpsims.data.layouts import find_layout\n"
    "from dpsims.data.write_shards import write_shards\n"
    "write_shards(find_layout(Path('data')), Path('out'), 1, size=280, workers=2)"
)


def processes_in(folder: Path) -> list[int]:
    """Ids of the processes whose working directory is `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").resolve() == folder and (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:  # it has ended, or is not ours
            continue
    return found


def test_a_kill_leaves_nothing_that_passes_for_whole(tmp_path: Path):
    root = make(tmp_path / "data", 2, size=(600, 800))
    for k in range(2, 20):
        shutil.copy(root / "images/p000.jpg", root / f"images/p{k:03d}.jpg")
        shutil.copy(root / "labels/p000.png", root / f"labels/p{k:03d}.png")
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", WRITE], cwd=tmp_path) as process:
        deadline = time.monotonic() + 30
        while len(list(out.glob("*.json"))) < 2:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.001)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    while processes_in(tmp_path):  # the ones that it had started end by themselves
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert is_sharded(out) and not (out / "index.json").exists()
    with pytest.raises(
        ValueError, match=r"out: its shards are unfinished .* run the same `dpsims data shard`"
    ):
        Shards(out, "train")
    # what else a kill can leave: half a shard, a shard without its .json, half an index
    finished = {p: p.with_suffix(".tar").stat().st_ino for p in out.glob("*.json")}
    assert 2 <= len(finished) < 20
    (out / ".train-000011.tar.77.part").write_bytes(b"half")
    (out / ".index.json.77.part").write_bytes(b"{")
    (out / "val-000000.tar").write_bytes(b"no one knows")
    (out / "val-000000.json").unlink(missing_ok=True)
    finished.pop(out / "val-000000.json", None)
    said: list[str] = []
    layout = find_layout(root)
    write_shards(layout, out, 1, size=280, workers=1, say=said.append)
    assert said[-1].endswith("(20 of 20)") and len(said) == 20 - len(finished)
    assert {p: p.with_suffix(".tar").stat().st_ino for p in finished} == finished
    undisturbed = write_shards(layout, tmp_path / "undisturbed", 1, size=280, workers=1).parent
    assert files_in(out) == files_in(undisturbed)
    said.clear()
    write_shards(layout, out, 1, size=280, say=said.append)
    assert said == [f"{out}: already complete, 20 shards"]


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
