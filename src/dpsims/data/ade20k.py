"""ADE20K, the SceneParsing set: 150 classes, as ADEChallengeData2016.zip unpacks.

Source: Zhou et al., Scene Parsing through ADE20K Dataset, CVPR 2017.
"""

from __future__ import annotations

from pathlib import Path

from dpsims.data.official import OfficialSplit, files_by_key, no_such_set, official_layout, pair_folders
from dpsims.data.pairs import Layout
from dpsims.labels import LabelSpace

FOLDER = "ADEChallengeData2016"
COUNTS = {"training": 20_210, "validation": 2_000}


def scan(root: Path) -> Layout:
    """The pairs of ADE20K.

    ROOT, or ROOT/ADEChallengeData2016, holds images/{training,validation}/*.jpg and
    annotations/{training,validation}/*.png. Raises ValueError where it holds none of these folders.
    """
    mend = f"unpack {FOLDER}.zip here, or run: dpsims data fetch ade20k --out DIR"
    inside = root / FOLDER if (root / FOLDER).is_dir() else root
    if not any((inside / kind / split).is_dir() for kind in ("images", "annotations") for split in COUNTS):
        wanted = f"images/training and annotations/training, here or in {FOLDER}/"
        raise no_such_set(root, "ADE20K", wanted, mend)
    splits = []
    for split, count in COUNTS.items():
        images, labels = inside / "images" / split, inside / "annotations" / split
        pictures, maps = files_by_key(images, ".jpg"), files_by_key(labels, ".png")
        pairs, problems = pair_folders(images, pictures, labels, maps, mend)
        splits.append(OfficialSplit(split, count, pairs, problems))
    return official_layout(root, "ADE20K", LabelSpace.named("ade20k"), splits[0], splits[1])


def recognises(root: Path) -> bool:
    """Whether a folder is laid out as ADE20K is."""
    return any(
        (inside / "images" / split).is_dir() and (inside / "annotations" / split).is_dir()
        for inside in (root, root / FOLDER)
        for split in COUNTS
    )
