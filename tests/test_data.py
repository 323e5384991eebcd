"""Sources and the data check, on tiny folders; CamVid where it is at hand."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpsims.config import DataConfig
from dpsims.data import open_source
from dpsims.data.camvid import CamVid
from dpsims.data.check import check_data
from dpsims.data.files import read_label
from dpsims.data.folder import Folder
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
    splits = {split: Folder(root, split).names for split in ("train", "val", "test")}
    assert [len(names) for names in splits.values()] == [16, 2, 2]
    assert sorted(sum(splits.values(), [])) == sorted(str(i) for i in range(20))
    again = make_folder(tmp_path / "b", 20)
    assert {split: Folder(again, split).names for split in splits} == splits


def test_missing_split_folders_are_taken_out_of_train(tmp_path: Path):
    root = make_folder(tmp_path / "a", 10, ("train", "test"))
    train, val, test = (Folder(root, split) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (8, 2, 10)
    assert not set(train.names) & set(val.names)
    full = make_folder(tmp_path / "b", 2, ("train", "val", "test"))
    assert [Folder(full, split).names[0] for split in ("train", "val", "test")] == ["train0", "val0", "test0"]


def test_images_of_every_suffix_pair_with_png_labels(tmp_path: Path):
    root = make_folder(tmp_path / "a", 0)
    for i, suffix in enumerate((".jpg", ".JPEG", ".png", ".webp")):
        write_pair(root, str(i), suffix=suffix)
    (root / "images" / "Thumbs.db").touch()
    train = Folder(root, "train")
    assert sum(len(Folder(root, split)) for split in ("train", "val", "test")) == 4
    image, label = train.load(0)
    assert image.dtype == np.uint8 and image.shape == (12, 16, 3)
    assert label.dtype == np.int64 and label.shape == (12, 16)


def test_a_space_without_unlabelled_id(tmp_path: Path):
    root = make_folder(tmp_path / "a", 4)
    (root / "classes.json").write_text(json.dumps({**SPACE.to_dict(), "ignore_id": None}))
    with pytest.raises(ValueError, match="label id 255"):
        for i in range(2):
            Folder(root, "train").load(i)


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
    elif how == "few":
        for name in ("1.png", "2.png", "3.png"):
            (root / "images" / name).unlink()
            (root / "labels" / name).unlink()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("image", r"labels/1\.png: has no picture"),
        ("label", r"images/1\.png: has no label map .*labels/1\.png"),
        ("twice", r"images/1\.png: same stem as 1\.jpg"),
        ("classes", r"classes\.json: cannot be read"),
        ("labels", r"labels: missing"),
        ("empty", r"images: is empty"),
        ("few", r"too few pairs to set some aside for val"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(tmp_path: Path, how: str, said: str):
    root = make_folder(tmp_path / "a", 4 if how == "few" else 5)
    spoil(root, how)
    with pytest.raises(ValueError, match=said) as error:
        Folder(root, "val")
    assert "\n" not in str(error.value)


def test_missing_roots_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        Folder(tmp_path / "nowhere", "train")
    with pytest.raises(ValueError, match="--data DIR"):
        open_source(DataConfig(source="folder"), "train")
    root = make_folder(tmp_path / "a", 2, ("val", "test"))
    with pytest.raises(ValueError, match="train: missing"):
        Folder(root, "test")


def test_a_pair_of_different_sizes_is_named_when_loaded(tmp_path: Path):
    root = make_folder(tmp_path / "a", 3, ("train", "val", "test"))
    Image.new("L", (16, 11)).save(root / "train" / "labels" / "train1.png")
    with pytest.raises(ValueError, match=r"labels/train1\.png: is 16x11 .*images/train1\.png is 16x12"):
        Folder(root, "train").load(1)


def test_camvid_source_refuses_other_data(tmp_path: Path):
    root = make_folder(tmp_path / "a", 2, ("train", "val", "test"))
    with pytest.raises(ValueError, match="not CamVid's list"):
        CamVid(root, "train")
    with pytest.raises(ValueError, match="val: missing"):
        CamVid(make_folder(tmp_path / "b", 2, ("train",)), "train")


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


def test_check_counts_a_good_folder(tmp_path: Path):
    root = make_folder(tmp_path / "a", 3, ("train", "val", "test"))
    write_pair(root / "train", "wide", 8, 20)
    report = check_data(root)
    assert report.ok and report.pairs == {"train": 4, "val": 3, "test": 3}
    assert report.sizes == {(12, 16): 9, (8, 20): 1}
    assert report.pixels.sum() == 9 * 12 * 16 + 8 * 20
    label = read_label(root / "train" / "labels" / "wide.png", SPACE)
    alone = make_folder(tmp_path / "b", 0)
    for split in ("train", "val", "test"):
        write_pair(alone / split, "wide", 8, 20)
    assert check_data(alone).pixels.tolist() == (3 * np.bincount(label.ravel(), minlength=4)).tolist()
    for part in ("train 4", "16 x 12", "sky", "road", "no problems"):
        assert part in str(report)


def test_check_names_every_bad_file_and_goes_on(tmp_path: Path):
    root = make_folder(tmp_path / "a", 8)
    images, labels = root / "images", root / "labels"
    (images / "0.png").write_bytes((images / "0.png").read_bytes()[:60])
    ids = np.zeros((12, 16), np.uint8)
    ids[0, :5], ids[1, :2] = 77, 99
    Image.fromarray(ids).save(labels / "1.png")
    Image.new("L", (5, 5)).save(labels / "2.png")
    (labels / "3.png").unlink()
    Image.new("RGB", (16, 12), (1, 2, 3)).save(labels / "4.png")
    report = check_data(root)
    assert not report.ok
    assert {path.relative_to(root).as_posix() for path, _ in report.bad} == {
        "images/0.png", "labels/1.png", "labels/2.png", "images/3.png", "labels/4.png"
    }  # fmt: skip
    assert report.unknown == {"77": 5, "99": 2, "#010203": 12 * 16}
    assert report.sizes == {(12, 16): 3}
    text = str(report)
    assert "5 problems" in text and "77: 5 pixels" in text and "labels/4.png: colour (1, 2, 3)" in text


def test_check_says_where_there_is_nothing_to_train_on(tmp_path: Path):
    assert "too few pairs" in str(check_data(make_folder(tmp_path / "a", 1)))
    assert "missing" in str(check_data(make_folder(tmp_path / "b", 0)))
    with pytest.raises(ValueError, match="no such folder"):
        check_data(tmp_path / "nowhere")
