"""The readers of the benchmark sets, on miniatures in the official folders."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from dpsims.data import ade20k as ade20k_reader
from dpsims.data import cityscapes as cityscapes_reader
from dpsims.data import cocostuff as cocostuff_reader
from dpsims.data.files import read_label
from dpsims.data.official import held_out
from dpsims.data.pairs import Pair
from dpsims.labels import LabelSpace
from tests.miniatures import ade20k, cityscapes, cocostuff

MAKE: dict[str, Callable[..., Path]] = {"ade20k": ade20k, "cocostuff": cocostuff, "cityscapes": cityscapes}
READ: dict[str, ModuleType] = {
    "ade20k": ade20k_reader, "cocostuff": cocostuff_reader, "cityscapes": cityscapes_reader
}  # fmt: skip
TITLES = {
    "ade20k": ("training", "validation"),
    "cocostuff": ("train2017", "val2017"),
    "cityscapes": ("train", "val"),
}
OFFICIAL = {"ade20k": (20_210, 2_000), "cocostuff": (118_287, 5_000), "cityscapes": (2_975, 500)}
FIRST = {"ade20k": "ADE_val_00000001", "cocostuff": "000000000285", "cityscapes": "frankfurt_000000_000019"}


def names(pairs: list[Pair]) -> list[str]:
    return [pair.name for pair in pairs]


@pytest.mark.parametrize("name", MAKE)
def test_the_pairs_of_a_set_in_its_official_folders(tmp_path: Path, name: str):
    reader = READ[name]
    assert not reader.recognises(tmp_path)
    root = MAKE[name](tmp_path / "set", train=30, val=4)
    assert reader.recognises(root)
    assert [other for other in READ if READ[other].recognises(root)] == [name]
    layout = reader.scan(root)
    assert layout.problems == [] and layout.file_space is None
    assert layout.space == LabelSpace.named(name)
    assert {split: len(pairs) for split, pairs in layout.splits.items()} == {"train": 28, "val": 2, "test": 4}
    assert names(layout.splits["test"])[0] == FIRST[name]
    every = [*itertools.chain(*layout.splits.values())]
    assert len({pair.name for pair in every}) == len({pair.image for pair in every}) == 34
    for pair in every:
        assert pair.name in pair.image.name and pair.name in pair.label.name
        image, label = layout.read(pair)
        assert image.shape == (32, 48, 3) and label.shape == (32, 48)
    # the first test pair holds the lowest id, the highest one and the unlabelled one
    shown = set(np.unique(layout.read(layout.splits["test"][0])[1]))
    assert {0, layout.space.num_classes - 1, layout.space.ignore_index} <= shown


@pytest.mark.parametrize("name", MAKE)
def test_no_official_validation_pair_is_trained_or_chosen_on(tmp_path: Path, name: str):
    """Our test split is the official validation split, whole; checkpoints are chosen on others."""
    layout = READ[name].scan(MAKE[name](tmp_path / "a", train=45, val=3))
    train, val, test = (names(layout.splits[split]) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (43, 2, 3)
    assert not (set(train) & set(val) or set(train) & set(test) or set(val) & set(test))
    official = TITLES[name]
    for split, folder in (("train", official[0]), ("val", official[0]), ("test", official[1])):
        for pair in layout.splits[split]:
            assert folder in pair.image.parts and folder in pair.label.parts
    assert layout.split_titles == {"val": f"held out of {official[0]}", "test": f"official {official[1]}"}
    again = READ[name].scan(MAKE[name](tmp_path / "b", train=45, val=3))
    assert [names(again.splits[split]) for split in ("train", "val", "test")] == [train, val, test]


@pytest.mark.parametrize(
    ("count", "share"), [(1, 0), (2, 1), (7, 1), (8, 2), (59, 2), (60, 3), (2_975, 148), (118_287, 200)]
)
def test_the_share_held_out_for_choosing_checkpoints(count: int, share: int):
    pairs = [Pair(Path("a.jpg"), Path("a.png"), str(i)) for i in range(count)]
    parts = held_out(pairs)
    assert (len(parts["val"]), len(parts["train"])) == (share, count - share)
    assert {*names(parts["val"]), *names(parts["train"])} == set(names(pairs))


@pytest.mark.parametrize("name", MAKE)
def test_other_numbers_than_the_official_ones_are_told(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    root = MAKE[name](tmp_path, train=3, val=2)
    (train, val), (all_train, all_val) = TITLES[name], OFFICIAL[name]
    assert READ[name].scan(root).notices == [
        f"{train}: 3 pairs, officially {all_train:,}: incomplete, or a subset",
        f"{val}: 2 pairs, officially {all_val:,}: incomplete, or a subset",
    ]
    monkeypatch.setattr(READ[name], "COUNTS", {train: 3, val: 1})
    assert READ[name].scan(root).notices == [f"{val}: 2 pairs, officially 1: other files are among them"]


@pytest.mark.parametrize("name", MAKE)
def test_a_file_without_partner_is_a_problem_with_its_name(tmp_path: Path, name: str):
    root = MAKE[name](tmp_path, train=9, val=4)
    layout = READ[name].scan(root)
    first, second = layout.splits["train"][0], layout.splits["test"][1]
    first.label.unlink()
    second.image.unlink()
    layout = READ[name].scan(root)
    assert [path for path, _ in layout.problems] == [first.image, second.label]
    assert str(first.label.parent) in layout.problems[0][1] and "no label map" in layout.problems[0][1]
    assert str(second.image.parent) in layout.problems[1][1] and "no picture" in layout.problems[1][1]
    assert not {first.name, second.name} & set(names([*itertools.chain(*layout.splits.values())]))


@pytest.mark.parametrize("name", MAKE)
def test_a_missing_or_empty_folder_is_one_problem(tmp_path: Path, name: str):
    root = MAKE[name](tmp_path, train=9, val=4)
    pair = READ[name].scan(root).splits["test"][0]
    empty = pair.label.parent
    for path in empty.iterdir():
        path.unlink()
    (empty / ".hidden.png").touch()
    problems = READ[name].scan(root).problems
    assert len(problems) == 1 and problems[0][0] == empty
    assert "holds no label maps of this set" in problems[0][1] and "dpsims data fetch" in problems[0][1]
    shutil.rmtree(empty)
    problems = READ[name].scan(root).problems
    assert len(problems) == 1 and problems[0][0] == empty and "missing" in problems[0][1]


@pytest.mark.parametrize("name", MAKE)
def test_hidden_files_are_passed_over_and_suffixes_may_be_capitals(tmp_path: Path, name: str):
    root = MAKE[name](tmp_path, train=9, val=4)
    before = READ[name].scan(root)
    first, second = before.splits["train"][:2]
    for path in (first.image, first.label):
        path.with_name(f"._{path.name}").write_bytes(b"left by a Mac")
    for path in (second.image, second.label):
        path.rename(path.with_name(path.stem + path.suffix.upper()))
    after = READ[name].scan(root)
    assert after.problems == []
    assert [names(pairs) for pairs in after.splits.values()] == [
        names(pairs) for pairs in before.splits.values()
    ]
    assert after.read(after.splits["train"][1])[0].shape == (32, 48, 3)


@pytest.mark.parametrize("name", MAKE)
def test_a_folder_that_is_no_such_set_is_refused_with_the_mend(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match=r"nowhere: no such folder; .* was wanted; unpack .*data fetch"):
        READ[name].scan(tmp_path / "nowhere")
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match=rf"{tmp_path}: holds no .* \(looked for .*\); unpack .*data fetch"):
        READ[name].scan(tmp_path)


@pytest.mark.parametrize("name", MAKE)
def test_a_split_that_is_not_there_at_all_is_only_told(tmp_path: Path, name: str):
    root = MAKE[name](tmp_path, train=0, val=4)
    layout = READ[name].scan(root)
    assert layout.problems == [] and len(layout.splits["test"]) == 4
    assert layout.notices[0].startswith(f"{TITLES[name][0]}: 0 pairs, officially")


@pytest.mark.parametrize("name", MAKE)
def test_a_picture_in_both_official_splits_is_a_problem(tmp_path: Path, name: str):
    root = MAKE[name](tmp_path, train=9, val=4)
    pair = READ[name].scan(root).splits["test"][0]
    train, val = TITLES[name]
    for path in (pair.image, pair.label):
        copy = root / str(path.relative_to(root)).replace(f"/{val}/", f"/{train}/")
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(path, copy)
    problems = READ[name].scan(root).problems
    assert [path for path, _ in problems] == [pair.image] and f"is in {train}, too" in problems[0][1]


def test_ade20k_is_found_from_inside_its_folder_as_well(tmp_path: Path):
    root = ade20k(tmp_path)
    inside = root / "ADEChallengeData2016"
    assert ade20k_reader.recognises(inside)
    assert ade20k_reader.scan(inside).splits == ade20k_reader.scan(root).splits


@pytest.mark.parametrize(
    ("images", "maps"),
    [
        ("images", "annotations"),
        ("images", "stuffthingmaps"),
        ("", "stuffthingmaps"),
        ("", ""),
        ("images", ""),
    ],
)
def test_cocostuff_in_the_folders_people_unpack_it_to(tmp_path: Path, images: str, maps: str):
    root = cocostuff(tmp_path, images=images, maps=maps)
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / "instances_val2017.json").touch()  # from another of COCO's zips
    layout = cocostuff_reader.scan(root)
    assert cocostuff_reader.recognises(root) and layout.problems == []
    assert [len(pairs) for pairs in layout.splits.values()] == [6, 2, 4]
    assert all(pair.label.parent.parent == root / maps for pair in layout.splits["test"])


def test_cocostuff_maps_of_another_coding_are_passed_over(tmp_path: Path):
    root = cocostuff(tmp_path)
    maps = [*(root / "annotations").glob("*/*.png")]
    for path in maps:
        shutil.copy(path, path.with_name(f"{path.stem}_labelTrainIds.png"))
    layout = cocostuff_reader.scan(root)
    assert layout.problems == [] and sum(map(len, layout.splits.values())) == 12
    for path in maps:
        path.unlink()
    problems = cocostuff_reader.scan(root).problems
    assert [path.name for path, _ in problems] == ["train2017", "val2017"]
    assert all("labelTrainIds.png are mmsegmentation's" in reason for _, reason in problems)


def test_cityscapes_train_ids_are_read_or_converted(tmp_path: Path):
    """The same classes, whether the 19 come from files of their own or from labelIds."""
    made, plain = cityscapes(tmp_path / "a", train_ids=True), cityscapes(tmp_path / "b")
    read, converted = (cityscapes_reader.scan(root, "trainIds") for root in (made, plain))
    assert read.space == converted.space == LabelSpace.named("cityscapes_trainids")
    assert read.file_space is None and converted.file_space == LabelSpace.named("cityscapes")
    assert read.problems == converted.problems == [] and read.notices == converted.notices
    for split in ("train", "val", "test"):
        assert names(read.splits[split]) == names(converted.splits[split])
        for a, b in zip(read.splits[split], converted.splits[split], strict=True):
            assert a.label.name.endswith("_labelTrainIds.png") and b.label.name.endswith("_labelIds.png")
            label = read.read(a)[1]
            assert np.array_equal(label, converted.read(b)[1])
            # and so does the official colour picture, through the colours
            assert np.array_equal(
                label, read_label(a.label.with_name(f"{a.name}_gtFine_color.png"), read.space)
            )
            assert {0, 18, 19} & set(np.unique(label)) >= {18, 19}
    labels = cityscapes_reader.scan(made)
    assert all(p.label.name.endswith("_labelIds.png") for p in labels.splits["train"])
    with pytest.raises(ValueError, match="coding='ids': use one of labelIds, trainIds"):
        cityscapes_reader.scan(made, "ids")  # pyright: ignore[reportArgumentType]


def test_cityscapes_train_ids_for_some_pictures_only(tmp_path: Path):
    root = cityscapes(tmp_path, train_ids=True)
    next(root.glob("gtFine/val/*/*_labelTrainIds.png")).unlink()
    layout = cityscapes_reader.scan(root, "trainIds")
    assert layout.problems == [] and layout.file_space == LabelSpace.named("cityscapes")
    assert all(p.label.name.endswith("_labelIds.png") for p in itertools.chain(*layout.splits.values()))
    assert "labelIds are read for all" in layout.notices[-1]


def test_cityscapes_without_its_maps_is_one_problem_a_split(tmp_path: Path):
    root = cityscapes(tmp_path)
    shutil.rmtree(root / "gtFine")
    problems = cityscapes_reader.scan(root).problems
    assert [path for path, _ in problems] == [root / "gtFine" / "train", root / "gtFine" / "val"]
    assert all("missing; unpack" in reason for _, reason in problems)


def test_readers_do_not_load_torch():
    code = (
        "import sys, dpsims.data.ade20k, dpsims.data.cocostuff, dpsims.data.cityscapes\n"
        "print([name for name in ('torch', 'torchvision', 'jaxtyping') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
