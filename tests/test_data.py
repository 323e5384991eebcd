"""Sources, on tiny folders; CamVid where it is at hand."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpsims.config import DataConfig
from dpsims.data import camvid, folder, open_source
from dpsims.data.pairs import PairSource
from dpsims.labels import LabelSpace

CAMVID = Path(__file__).resolve().parents[2] / "shared" / "data" / "camvid"
SPACE = LabelSpace(
    ("sky", "road", "tree"), ((0, 0, 200), (90, 90, 90), (0, 120, 0)), (0, 1, 2), ignore_id=255
)


def write_pair(folder: Path, stem: str, height: int = 12, width: int = 16, suffix: str = ".png") -> None:
    """A picture whose red channel is its map's class times 80 (240: unlabelled)."""
    rng = np.random.default_rng(list(stem.encode()))
    index = rng.integers(0, 4, (height // 4 + 1, width // 4 + 1)).repeat(4, 0).repeat(4, 1)[:height, :width]
    image = np.stack([index * 80, rng.integers(0, 255, index.shape), np.full_like(index, 7)], axis=-1)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.astype(np.uint8)).save(folder / "images" / (stem + suffix))
    Image.fromarray(SPACE.encode_ids(index)).save(folder / "labels" / f"{stem}.png")


def make_folder(root: Path, count: int = 5, splits: tuple[str, ...] = ("",)) -> Path:
    root.mkdir(exist_ok=True)
    (root / "classes.json").write_text(json.dumps(SPACE.to_dict()))
    for split, i in itertools.product(splits, range(count)):
        write_pair(root / split, f"{split}{i}")
    return root


def test_a_folder_without_splits_is_split_by_name_and_the_same_each_time(tmp_path: Path):
    root = make_folder(tmp_path / "a", 20)
    splits = {split: PairSource(folder.scan(root), split).names for split in ("train", "val", "test")}
    assert [len(names) for names in splits.values()] == [16, 2, 2]
    assert sorted(sum(splits.values(), [])) == sorted(str(i) for i in range(20))
    again = make_folder(tmp_path / "b", 20)
    assert {split: PairSource(folder.scan(again), split).names for split in splits} == splits


def test_missing_split_folders_are_taken_out_of_train(tmp_path: Path):
    root = make_folder(tmp_path / "a", 10, ("train", "test"))
    train, val, test = (PairSource(folder.scan(root), split) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (8, 2, 10)
    assert not set(train.names) & set(val.names)
    full = make_folder(tmp_path / "b", 2, ("train", "val", "test"))
    assert [PairSource(folder.scan(full), split).names[0] for split in ("train", "val", "test")] == [
        "train0",
        "val0",
        "test0",
    ]


def test_images_of_every_suffix_pair_with_png_labels(tmp_path: Path):
    root = make_folder(tmp_path / "a", 0)
    for i, suffix in enumerate((".jpg", ".JPEG", ".png", ".webp")):
        write_pair(root, str(i), suffix=suffix)
    (root / "images" / "Thumbs.db").touch()
    train = PairSource(folder.scan(root), "train")
    assert sum(len(PairSource(folder.scan(root), split)) for split in ("train", "val", "test")) == 4
    image, label = train.load(0)
    assert image.dtype == np.uint8 and image.shape == (12, 16, 3)
    assert label.dtype == np.int64 and label.shape == (12, 16)


def test_a_space_without_unlabelled_id(tmp_path: Path):
    root = make_folder(tmp_path / "a", 4)
    (root / "classes.json").write_text(json.dumps({**SPACE.to_dict(), "ignore_id": None}))
    with pytest.raises(ValueError, match="label id 255"):
        for i in range(2):
            PairSource(folder.scan(root), "train").load(i)


def spoil(root: Path, how: str) -> None:
    """Make one thing of a good folder bad."""
    image, label = root / "images" / "1.png", root / "labels" / "1.png"
    if how == "image":
        image.unlink()
    elif how == "label":
        label.unlink()
    elif how == "twice":
        image.with_suffix(".jpg").touch()
    elif how == "classes":
        (root / "classes.json").unlink()
    elif how == "labels":
        (root / "labels").rename(root / "masks")
    elif how == "empty":
        for path in [*root.glob("images/*"), *root.glob("labels/*")]:
            path.unlink()
    elif how == "jpeg":
        for path in root.glob("labels/*"):
            path.rename(path.with_suffix(".jpg"))
    elif how == "few":
        for name in ("1.png", "2.png", "3.png"):
            (root / "images" / name).unlink()
            (root / "labels" / name).unlink()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("image", r"labels/1\.png: has no picture"),
        ("label", r"images/1\.png: has no label map in .*labels; add it"),
        ("twice", r"images/1\.png: same stem as 1\.jpg"),
        ("classes", r"classes\.json: cannot be read"),
        ("labels", r"labels: missing"),
        ("empty", r"images: is empty"),
        ("jpeg", r"labels: holds no PNG; label maps are PNG"),
        ("few", r"no pairs for val .val., or too few to set"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(tmp_path: Path, how: str, said: str):
    root = make_folder(tmp_path / "a", 4 if how == "few" else 5)
    spoil(root, how)
    with pytest.raises(ValueError, match=said) as error:
        PairSource(folder.scan(root), "val")
    assert "\n" not in str(error.value)


def test_missing_roots_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        PairSource(folder.scan(tmp_path / "nowhere"), "train")
    with pytest.raises(ValueError, match="--data DIR"):
        open_source(DataConfig(source="folder"), "train")
    root = make_folder(tmp_path / "a", 2, ("val", "test"))
    with pytest.raises(ValueError, match="train: missing"):
        PairSource(folder.scan(root), "test")


def test_a_pair_of_different_sizes_is_named_when_loaded(tmp_path: Path):
    root = make_folder(tmp_path / "a", 3, ("train", "val", "test"))
    Image.new("L", (16, 11)).save(root / "train" / "labels" / "train1.png")
    with pytest.raises(ValueError, match=r"labels/train1\.png: is 16x11 .*images/train1\.png is 16x12"):
        PairSource(folder.scan(root), "train").load(1)


def test_camvid_source_refuses_other_data(tmp_path: Path):
    root = make_folder(tmp_path / "a", 2, ("train", "val", "test"))
    with pytest.raises(ValueError, match="not CamVid's list"):
        PairSource(camvid.scan(root), "train")
    with pytest.raises(ValueError, match="val: missing"):
        PairSource(camvid.scan(make_folder(tmp_path / "b", 2, ("train",))), "train")


@pytest.mark.skipif(not CAMVID.is_dir(), reason=f"{CAMVID} is not there")
def test_camvid_itself():
    config = DataConfig(source="camvid", root=str(CAMVID))
    sources = [open_source(config, "train"), open_source(config, "val"), open_source(config, "test")]
    assert [len(source) for source in sources] == [367, 101, 233]
    assert sources[0].space.num_classes == 11 and sources[0].space.ignore_index == 11
    image, label = sources[0].load(0)
    assert image.shape == (360, 480, 3) and label.shape == (360, 480)
    assert set(np.unique(label)) <= set(range(12))


def test_decoded_pairs_are_kept_while_they_fit(tmp_path: Path):
    root = make_folder(tmp_path / "a", 2, ("train", "val", "test"))
    kept = open_source(DataConfig(root=str(root), cache_mb=1), "train")
    anew = open_source(DataConfig(root=str(root), cache_mb=0), "train")
    first = [source.load(0) for source in (kept, anew)]
    (root / "train" / "images" / "train0.png").unlink()
    image, label = kept.load(0)
    assert np.array_equal(image, first[0][0]) and np.array_equal(label, first[0][1])
    assert label.dtype == np.int64
    with pytest.raises(ValueError, match="no such file"):
        anew.load(0)


# --- pairs that would be left out unseen


def problems_of(root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): reason for path, reason in folder.scan(root).problems}


def move(root: Path, stems: tuple[str, ...], name: str) -> None:
    """Pairs into subfolders of images/ and labels/."""
    for kind, stem in itertools.product(("images", "labels"), stems):
        (root / kind / name).mkdir(exist_ok=True)
        (root / kind / f"{stem}.png").rename(root / kind / name / f"{stem}.png")


def test_files_in_subfolders_are_named_and_no_partner_is_missed(tmp_path: Path):
    root = make_folder(tmp_path / "a", 8)
    move(root, ("0", "1"), "a")
    move(root, ("2",), "b")
    (root / "images" / "c").mkdir()  # holds nothing
    (root / "images" / ".thumbs").mkdir()
    (root / "images" / ".thumbs" / "0.png").touch()
    (root / "labels" / "b" / "2.png").rename(root / "labels" / "2.png")
    assert problems_of(root) == {
        "images/a": "2 pictures in a subfolder are not read; move them up",
        "images/b": "1 picture in a subfolder is not read; move it up",
        "labels/a": "2 label maps in a subfolder are not read; move them up",
    }
    every = make_folder(tmp_path / "b", 5)
    move(every, tuple("01234"), "train")
    assert problems_of(every) == {
        "images/train": "5 pictures in a subfolder are not read; move them into train/images/",
        "labels/train": "5 label maps in a subfolder are not read; move them into train/labels/",
    }


@pytest.mark.parametrize(
    ("splits", "name", "said"),
    [
        (("train", "test"), "validation", "did you mean val?"),
        (("train",), "valid", "did you mean val?"),
        (("val", "test"), "Training", "did you mean train?"),
        (("",), "validation", "did you mean val?"),
        (("train", "val"), "zzz", "is no split (train, val, test), is not read"),
        (("train", "val", "test"), "validation", "is no split (train, val, test), is not read"),
    ],
)
def test_folders_that_are_no_splits_are_named(tmp_path: Path, splits: tuple[str, ...], name: str, said: str):
    root = make_folder(tmp_path / "a", 4, splits)
    (root / "notes").mkdir()
    assert problems_of(root).keys() <= {"train"}
    write_pair(root / name, "x")
    assert said in problems_of(root)[name]


def test_only_misspelt_splits_are_not_called_missing_pictures(tmp_path: Path):
    root = make_folder(tmp_path / "a", 2, ("training", "validation"))
    assert list(problems_of(root)) == ["training", "validation"]
    beside = make_folder(tmp_path / "b", 4)  # a flat set may have what it likes beside it
    write_pair(beside / "zzz", "x")
    assert problems_of(beside) == {}


def test_pairs_beside_the_splits_are_named(tmp_path: Path):
    root = make_folder(tmp_path / "a", 8, ("train",))
    for name in ("images", "labels"):
        (root / name).mkdir()
    assert problems_of(root) == {}
    write_pair(root, "x")
    found = problems_of(root)
    assert list(found) == ["images", "labels"]
    assert found["images"].startswith("stands beside train/, is not read; move its files into train/images/")


@pytest.mark.parametrize(
    ("picture", "label", "said"),
    [
        ("{}", "{}_mask", "by `_mask` (10_mask.png for 10.png)"),
        ("{}", "mask_{}", "by `mask_` (mask_10.png for 10.png)"),
        ("{}_sat", "{}_mask", "by `_sat` and `_mask` (10_mask.png for 10_sat.png)"),
        ("x{}_leftImg8bit", "x{}", "by `_leftImg8bit` (x10.png for x10_leftImg8bit.png)"),
    ],
)
def test_stems_that_differ_alike_are_one_problem(tmp_path: Path, picture: str, label: str, said: str):
    root = make_folder(tmp_path / "a", 0)
    for stem in ("10", "20", "30"):
        write_pair(root, stem)
        (root / "labels" / f"{stem}.png").rename(root / "labels" / f"{label.format(stem)}.png")
        (root / "images" / f"{stem}.png").rename(root / "images" / f"{picture.format(stem)}.png")
    found = problems_of(root)
    assert list(found) == ["labels"] and found["labels"].startswith(f"stems differ {said}: rename"), found


def test_stems_that_differ_otherwise_are_named_one_by_one(tmp_path: Path):
    root = make_folder(tmp_path / "a", 3)
    for i, name in enumerate(("x_mask", "y", "z_mask")):
        (root / "labels" / f"{i}.png").rename(root / "labels" / f"{name}.png")
    assert len(problems_of(root)) == 6


def test_a_jpeg_in_the_place_of_a_map_is_named_for_its_picture(tmp_path: Path):
    root = make_folder(tmp_path / "a", 5)
    (root / "labels" / "3.png").rename(root / "labels" / "3.jpg")
    (root / "labels" / "4.jpg").touch()  # beside the PNG: nobody reads it
    assert problems_of(root) == {
        "labels/3.jpg": "is no PNG; JPEG changes ids; export the map as PNG from its source"
    }
