"""Classes that a mirrored image exchanges."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpsims.checkpoint import load_model
from dpsims.config import DataConfig
from dpsims.data import flip_warnings, training_batches
from dpsims.evaluation.segmentation import segmenter_key
from dpsims.labels import LabelSpace, space_names
from dpsims.labels.sides import left_right_pairs
from tests.command_line import TINY_OPTIONS
from tests.conftest import Run

FACE = LabelSpace.from_dict({"classes": ["skin", "l_eye", "r_eye"], "flip_pairs": [["L_eye", "r_eye"]]})


# --- names that say left or right


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("l_eye", "r_eye"),
        ("eye l", "eye r"),
        ("left arm", "right arm"),
        ("eye_left", "eye_right"),
        ("LeftHand", "RightHand"),
        ("LHand", "RHand"),
        ("handL", "handR"),
        ("lefteye", "righteye"),
        ("eyeleft", "eyeright"),
        ("LEFT-ARM", "RIGHT-ARM"),
        ("left", "right"),
        ("left_front_2", "right_front_2"),
        ("left of right", "right of left"),
        ("left-Bürste", "Right Bürste"),
        ("left arm a", "right arm a"),
    ],
)
def test_a_pair_is_found_in_any_order(left: str, right: str):
    for names in ([left, "sky", right], [right, left]):
        assert left_right_pairs(names) == [(left, right)]


@pytest.mark.parametrize(
    "names",
    [
        ["light", "right"],
        ["lane", "rane", "lock", "rock", "load", "road", "lamp", "ramp"],
        ["bright", "bleft area", "upright", "copyright"],
        ["left eye", "right ear"],
        ["left eye 1", "right eye 2"],
        ["l_eye", "eye"],
        ["left", "leftover", "rights"],
        ["l", "r"],
        [*"abclr"],  # letters
        ["key k", "key l", "key r"],
        ["u_lip", "l_lip", "r_lip"],
        ["sky", "", "7", "l", "road"],
    ],
)
def test_other_names_are_no_pair(names: list[str]):
    assert not left_right_pairs(names)


def test_celebamask_has_three_pairs_and_the_benchmarks_none():
    names = (
        "skin nose eye_g l_eye r_eye l_brow r_brow l_ear r_ear mouth u_lip l_lip hair hat ear_r neck_l neck"
    )
    found = left_right_pairs(names.split())
    assert found == [("l_eye", "r_eye"), ("l_brow", "r_brow"), ("l_ear", "r_ear")]
    assert not any(left_right_pairs(LabelSpace.named(name).names) for name in space_names())


# --- in the label space


def test_flip_pairs_are_kept_and_make_a_table():
    assert FACE.flip_pairs == (("l_eye", "r_eye"),)
    assert FACE.flip_table.tolist() == [0, 2, 1, 3] and FACE.flip_table.dtype == np.int64
    assert LabelSpace.from_dict(json.loads(json.dumps(FACE.to_dict()))) == FACE
    assert "flip_pairs" not in LabelSpace.from_dict(["l_eye", "r_eye"]).to_dict()


def test_flip_pairs_name_the_resulting_classes():
    values: dict[str, Any] = {"classes": ["skin", "a l", "b l", "a r", "b r"], "flip_pairs": [["l", "r"]]}
    space = LabelSpace.from_dict({**values, "merge": {"l": ["a l", "b l"], "r": ["a r", "b r"]}})
    assert space.flip_table.tolist() == [0, 2, 1, 3]
    assert LabelSpace.from_dict(space.to_dict()) == space


def test_evaluation_keeps_the_pairs_that_it_counts():
    counted = LabelSpace.from_dict({**FACE.to_dict(), "evaluate": ["r_eye", "l_eye"]}).evaluation
    assert counted.flip_pairs == (("l_eye", "r_eye"),) and counted.flip_table.tolist() == [1, 0, 2]
    assert not LabelSpace.from_dict({**FACE.to_dict(), "evaluate": ["r_eye", "skin"]}).evaluation.flip_pairs


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ({"l_eye": "r_eye"}, "should look like"),
        (["l_eye", "r_eye"], "'l_eye' should be two class names"),
        ([["l_eye"]], "['l_eye'] should be two class names"),
        ([["l_eye", 3]], "should be two class names"),
        ([["l_eye", "nose"]], "nose is no class; there are skin, l_eye, r_eye"),
        ([["l_eye", "l_eye"]], "l_eye is listed twice"),
        ([["l_eye", "r_eye"], ["R_eye", "skin"]], "['R_eye', 'skin']: R_eye is listed twice"),
    ],
)
def test_malformed_pairs_are_rejected(pairs: Any, said: str):
    with pytest.raises(ValueError) as error:
        LabelSpace.from_dict({"classes": list(FACE.names), "flip_pairs": pairs}, "my.json")
    assert str(error.value).startswith("my.json: flip_pairs") and said in str(error.value)


def test_a_merged_class_in_a_pair_is_named():
    values = {
        "classes": [*FACE.names],
        "merge": {"eyes": ["l_eye", "r_eye"]},
        "flip_pairs": [["l_eye", "r_eye"]],
    }
    with pytest.raises(ValueError, match="l_eye is no class; it is merged into eyes"):
        LabelSpace.from_dict(values)


# --- in batches


class Faces:
    """Images of three columns: the index of the class, times 50, in red. Unlabeled on the right."""

    name = "faces"

    def __init__(self, space: LabelSpace) -> None:
        self.space, self.names = space, ["0", "1"]

    def __len__(self) -> int:
        return 2

    def load(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        label = np.array([[1, 0, 2, 3]]).repeat(4, 0)
        return np.stack([label * 50] * 3, axis=-1).astype(np.uint8), label


PLAIN = DataConfig(height=4, width=4, crop=1.0)


def rows(space: LabelSpace, config: DataConfig = PLAIN) -> list[tuple[list[int], list[int]]]:
    """The first row of each sample's map, and of its image as classes."""
    batches = itertools.islice(training_batches(Faces(space), config, 4, seed=0), 4)
    found = []
    for batch in batches:
        seen = ((batch.image[:, 0, 0] + 1) * 127.5 / 50).round().long()
        found += list(zip(batch.label[:, 0].tolist(), seen.tolist(), strict=True))
    return found


@pytest.mark.parametrize("workers", [0, 1])
def test_in_a_mirrored_batch_the_pair_has_changed_places(workers: int):
    found = rows(FACE, dataclasses.replace(PLAIN, workers=workers))
    # mirrored, the right eye (2) lies where a left one would, and looks like one: it is labeled 1
    assert {tuple(label) for label, _ in found} == {(1, 0, 2, 3), (3, 1, 0, 2)}
    for label, seen in found:
        assert seen == ([1, 0, 2, 3] if label == [1, 0, 2, 3] else [3, 2, 0, 1])


def test_without_pairs_or_mirrors_nothing_is_exchanged():
    plain = dataclasses.replace(FACE, flip_pairs=())
    assert {tuple(label) for label, _ in rows(plain)} == {(1, 0, 2, 3), (3, 2, 0, 1)}
    assert {tuple(label) for label, _ in rows(FACE, dataclasses.replace(PLAIN, flip=False))} == {(1, 0, 2, 3)}
    assert [seen for _, seen in rows(plain)] == [seen for _, seen in rows(FACE)]


def test_a_stored_segmenter_of_other_pairs_is_another():
    plain = dataclasses.replace(FACE, flip_pairs=())
    keys = [segmenter_key(Faces(space), 4, 4, 10, 0) for space in (FACE, plain)]
    assert keys[0] != keys[1] and "flip_pairs" not in keys[1]


# --- the warning


def test_the_warning_names_pairs_and_both_fixes():
    space = dataclasses.replace(FACE, flip_pairs=())
    (warning,) = flip_warnings(space, flip=True)
    assert '"flip_pairs": [["l_eye", "r_eye"]]' in warning and "--data.flip false" in warning
    assert "data shard" not in warning and "dpsims data shard" in flip_warnings(space, True, sharded=True)[0]
    assert not flip_warnings(space, flip=False) and not flip_warnings(FACE, flip=True)
    assert not flip_warnings(LabelSpace.from_dict(["l_eye", "skin"]), flip=True)


def test_listing_one_pair_does_not_silence_the_others():
    names = ["l_eye", "r_eye", "left arm", "right arm"]
    space = LabelSpace.from_dict({"classes": names, "flip_pairs": [["l_eye", "r_eye"]]})
    (warning,) = flip_warnings(space, flip=True)
    assert '"flip_pairs": [["l_eye", "r_eye"], ["left arm", "right arm"]]' in warning


def test_training_warns_once(dpsims: Run, photos: Path, tmp_path: Path):
    classes = [{"id": i, "name": name} for i, name in ((0, "left"), (1, "right"), (4, "sky"))]
    (photos / "classes.json").write_text(json.dumps({"ignore_id": 255, "classes": classes}))
    train = ["train", "folder", "--data", photos, *TINY_OPTIONS, "--training.total_images", "2"]
    train += ["--evaluation.validation_images", "2", "--data.workers", "0"]
    code, _, err = dpsims(*train, "--out", tmp_path / "run")
    assert code == 0, err
    assert err.count('"flip_pairs": [["left", "right"]]') == 1
    assert load_model(tmp_path / "run").space == LabelSpace.load(photos)  # with the generated colors
