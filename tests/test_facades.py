"""CMP Facades: the reader, its fixed splits, downloads and shards, on miniatures of the official archives."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dpsims.config import DataConfig
from dpsims.data import facades, open_source
from dpsims.data.fetch import fetch
from dpsims.data.layouts import find_layout, open_pairs
from dpsims.data.pairs import Layout, Pair
from dpsims.labels import LabelSpace
from tests import miniatures
from tests.archives import Server, tree, zipped
from tests.conftest import Run

COPY = Path(__file__).resolve().parents[2] / "shared" / "data" / "facades"
NAMES = (
    "background", "facade", "window", "door", "cornice", "sill", "balcony", "blind", "deco", "molding",
    "pillar", "shop",
)  # fmt: skip


def names(layout: Layout) -> dict[str, list[str]]:
    return {split: [pair.name for pair in pairs] for split, pairs in layout.splits.items()}


def write_copy(root: Path, listed: list[str], shown: str, **more: object) -> Path:
    """Ten pairs each in train/ and test/, all of the class `shown`; ids count from 20 in the list's order."""
    for split in ("train", "test"):
        for i in range(10):
            label = np.full((8, 12), 20 + listed.index(shown), np.uint8)
            miniatures.save(root / split / "labels" / f"{split}{i}.png", label)
            miniatures.save(root / split / "images" / f"{split}{i}.png", miniatures.picture(f"{i}", label))
    classes = [{"id": 20 + i, "name": name, "color": [i, 0, 0]} for i, name in enumerate(listed)]
    (root / "classes.json").write_text(json.dumps({"ignore_id": None, "classes": classes, **more}))
    return root


def test_the_label_space_is_the_official_list():
    space = LabelSpace.named("facades")
    assert space.names == NAMES and space.ids == tuple(range(1, 13)) and space.ignore_id is None
    assert space.colors == miniatures.FACADES_COLORS


def test_pairs_of_both_archives_are_read_and_recognised(tmp_path: Path):
    root = miniatures.facades(tmp_path)
    layout = find_layout(root)  # auto
    assert layout.source == "facades" and layout.problems == []
    assert {split: len(pairs) for split, pairs in layout.splits.items()} == {"train": 35, "val": 4, "test": 9}
    for pair in itertools.chain(*layout.splits.values()):
        image, label = layout.read(pair)
        assert image.shape == (32, 48, 3) and {0, 1, 11} <= set(np.unique(label)) <= set(range(12))
        ids = miniatures.id_map(pair.name, miniatures.FACADES_IDS, (32, 48))
        assert np.array_equal(label + 1, ids)
    assert layout.notices == [
        "base: 36 pairs, officially 378: incomplete, or a subset",
        "extended: 12 pairs, officially 228: incomplete, or a subset",
    ]


def test_the_splits_of_the_complete_set():
    """Results compare only while these stay as they are: 450, 50 and 106 pairs, always the same."""
    stems = [("cmp_b", 378), ("cmp_x", 228)]
    every = [f"{stem}{i:04d}" for stem, count in stems for i in range(1, count + 1)]
    splits = facades.fixed_splits([Pair(Path(f"{n}.jpg"), Path(f"{n}.png"), n) for n in every])
    assert {split: len(pairs) for split, pairs in splits.items()} == {"train": 450, "val": 50, "test": 106}
    first = {split: [pair.name for pair in pairs[:3]] for split, pairs in splits.items()}
    assert first["test"] == ["cmp_b0001", "cmp_b0003", "cmp_b0007"]
    assert first["val"] == ["cmp_b0032", "cmp_b0036", "cmp_b0053"]


def test_one_archive_is_enough_and_changes_no_pair_of_its_split(tmp_path: Path):
    root = miniatures.facades(tmp_path)
    both = names(facades.scan(root))
    for missing, kept, count in (("extended", "cmp_b", 228), ("base", "cmp_x", 378)):
        aside = tmp_path / f"{missing}_aside"
        (root / missing).rename(aside)
        layout = facades.scan(root)
        assert facades.recognises(root) and layout.problems == []
        assert names(layout) == {s: [n for n in every if n.startswith(kept)] for s, every in both.items()}
        assert any(n.startswith(f"{missing}: 0 pairs, officially {count}") for n in layout.notices)
        aside.rename(root / missing)


def test_folders_named_as_the_archives_are_found(tmp_path: Path):
    root = miniatures.facades(tmp_path / "a")
    before = names(facades.scan(root))
    for part in ("base", "extended"):
        (root / f"CMP_facade_DB_{part}").mkdir()
        (root / part).rename(root / f"CMP_facade_DB_{part}" / part)
    assert facades.recognises(root) and names(facades.scan(root)) == before


def test_missing_partners_are_problems(tmp_path: Path):
    root = miniatures.facades(tmp_path)
    (root / "base" / "cmp_b0002.png").unlink()
    for path in (root / "extended").glob("*.jpg"):
        path.unlink()
    problems = facades.scan(root).problems
    assert [path for path, _ in problems] == [root / "base" / "cmp_b0002.jpg", root / "extended"]
    assert "has no label map" in problems[0][1] and "dpsims data fetch facades" in problems[1][1]


def test_other_folders_are_rejected(tmp_path: Path):
    with pytest.raises(ValueError, match="nowhere: no such folder; CMP Facades was wanted; unpack .*fetch"):
        facades.scan(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds no CMP Facades \(looked for base/, .*unpack .*data fetch"):
        facades.scan(tmp_path)
    (tmp_path / "base").mkdir()
    assert not facades.recognises(tmp_path)
    other = write_copy(tmp_path / "other", ["sky", *NAMES[1:]], "sky")
    with pytest.raises(ValueError, match=r"other: its class list \(sky, .*not that of CMP Facades"):
        facades.scan(other)


def test_a_copy_in_the_folder_layout_is_accepted_by_class_names(tmp_path: Path):
    """Its own ids count; classes have the official names and order, so that models compare."""
    listed = [*reversed(NAMES[:-1]), "Shop"]
    layout = find_layout(write_copy(tmp_path, listed, "window"), "facades")
    assert layout.title == "CMP Facades" and layout.problems == []
    assert {split: len(pairs) for split, pairs in layout.splits.items()} == {"train": 8, "val": 2, "test": 10}
    assert layout.space.names == NAMES
    assert layout.space.ids == tuple(20 + [n.lower() for n in listed].index(name) for name in NAMES)
    label = layout.read(layout.splits["test"][0])[1]
    assert np.unique(label).tolist() == [NAMES.index("window")]


def test_flip_pairs_of_a_copy_get_the_official_case(tmp_path: Path):
    listed = ["Background", "Facade", "Window", *reversed(NAMES[3:])]
    space = facades.scan(write_copy(tmp_path, listed, "door", flip_pairs=[["Window", "Facade"]])).space
    assert space.names == NAMES and space.flip_pairs == (("window", "facade"),)
    assert space.flip_table[:3].tolist() == [0, 2, 1]


def test_merged_classes_stay_with_theirs_when_reordered(tmp_path: Path):
    merge = {"shop": ["shop", "shop window"]}
    root = write_copy(tmp_path, [*reversed(NAMES), "shop window"], "shop window", merge=merge)
    space = facades.scan(root).space
    assert space.names == NAMES
    assert space.decode_ids(np.array([[20, 32, 31]])).tolist() == [[11, 11, 0]]


def test_shards_are_recognised_as_this_set(tmp_path: Path, dpsims: Run):
    root, shards = miniatures.facades(tmp_path / "set"), tmp_path / "shards"
    code, out, err = dpsims("data", "shard", root, "--out", shards, "--workers", 1)
    assert code == 0, err
    code, out, err = dpsims("data", "check", shards, "--workers", 1)
    assert code == 0 and "no problems" in out and "CMP Facades" in out and "officially 378" in out, err
    for split in ("train", "val", "test"):
        packed, files = open_pairs(shards, "facades", split), open_pairs(root, "facades", split)
        assert packed.names == files.names and packed.space == files.space
        assert np.array_equal(packed.load(1)[1], files.load(1)[1])
    with pytest.raises(ValueError, match="holds shards of facades, not of ade20k"):
        open_pairs(shards, "ade20k", "train")


def test_shards_of_a_copy_are_recognised(tmp_path: Path, dpsims: Run):
    root, shards = write_copy(tmp_path / "set", [*reversed(NAMES)], "shop"), tmp_path / "shards"
    code, _, err = dpsims("data", "shard", root, "--source", "facades", "--out", shards, "--workers", 1)
    assert code == 0, err
    source = open_pairs(shards, "facades", "test")
    assert source.space.names == NAMES and np.unique(source.load(0)[1]).tolist() == [NAMES.index("shop")]


def test_fetch_brings_both_archives(tmp_path: Path, server: Server):
    made = miniatures.facades(tmp_path / "made", base=2, extended=1)
    files = tree(made)
    extras = {name: files[name] for name in ("label_names.txt", "readme.txt")}
    for part in ("base", "extended"):
        inside = {name: content for name, content in files.items() if name.startswith(f"{part}/")}
        server.files[f"CMP_facade_DB_{part}.zip"] = zipped({**inside, **extras})
    said: list[str] = []
    root = fetch("facades", tmp_path / "set", mirror=server.url, say=said.append)
    assert tree(root) == {name: content for name, content in files.items() if name not in extras}
    assert facades.recognises(root)
    assert sum("no published checksum" in line for line in said) == 2
    assert "cmp.felk.cvut.cz" in said[0]
    shutil.rmtree(root / "extended")  # one that is missing is fetched again, the other left alone
    fetch("facades", root, mirror=server.url, say=lambda _: None)
    assert len(server.ranges) == 3 and (root / "extended").is_dir()


@pytest.mark.skipif(not COPY.is_dir(), reason=f"{COPY} is not there")
def test_the_copy_for_measurement():
    sources = [open_source(DataConfig("facades", str(COPY)), split) for split in ("train", "val", "test")]
    assert [len(source) for source in sources] == [450, 50, 106]
    assert sources[0].space.names == NAMES
    image, label = sources[2].load(0)
    assert image.shape == (256, 256, 3) and label.shape == (256, 256) and label.max() <= 11
