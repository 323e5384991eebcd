"""COCO-Stuff: the 2017 pictures of COCO with the pixel maps of all 164k (`stuffthingmaps`), 171 classes.

Source: Caesar et al., COCO-Stuff: Thing and Stuff Classes in Context, CVPR 2018.
"""

from __future__ import annotations

from pathlib import Path

from dpsims.data.official import OfficialSplit, files_by_key, no_such_set, official_layout, pair_folders
from dpsims.data.pairs import Layout
from dpsims.labels import LabelSpace

COUNTS = {"train2017": 118_287, "val2017": 5_000}
IMAGE_FOLDERS = ("images", ".")
LABEL_FOLDERS = ("annotations", "stuffthingmaps", ".")
CONVERTED = "_labeltrainids"  # maps of mmsegmentation's conversion: they stand beside the official ones


def scan(root: Path) -> Layout:
    """The pairs of COCO-Stuff.

    Pictures in ROOT/images/{train2017,val2017} or ROOT/{train2017,val2017}, maps in
    ROOT/{annotations,stuffthingmaps}/{train2017,val2017} or beside the pictures. Maps whose names end in
    `_labelTrainIds.png` have other ids and are passed over. Raises ValueError where ROOT holds none of these
    folders.
    """
    fetch = "or run: dpsims data fetch cocostuff --out DIR"
    mend = f"unpack train2017.zip, val2017.zip and stuffthingmaps_trainval2017.zip here, {fetch}"
    if not any(
        (root / kind / split).is_dir() for kind in (*IMAGE_FOLDERS, *LABEL_FOLDERS) for split in COUNTS
    ):
        raise no_such_set(root, "COCO-Stuff", "images/train2017 and annotations/train2017", mend)
    splits = []
    for split, count in COUNTS.items():
        images, pictures = _first_with(root, IMAGE_FOLDERS, split, ".jpg")
        labels, maps = _first_with(root, LABEL_FOLDERS, split, ".png")
        what_to_do = mend
        if not maps and files_by_key(labels, f"{CONVERTED}.png"):
            what_to_do = f"its *_labelTrainIds.png are mmsegmentation's, with other ids; {mend}"
        pairs, problems = pair_folders(images, pictures, labels, maps, what_to_do)
        splits.append(OfficialSplit(split, count, pairs, problems))
    return official_layout(root, "COCO-Stuff", LabelSpace.named("cocostuff"), splits[0], splits[1])


def recognises(root: Path) -> bool:
    """Whether a folder is laid out as COCO-Stuff is."""
    return any(
        (root / images / split).is_dir() and (root / labels / split).is_dir()
        for images in IMAGE_FOLDERS
        for labels in LABEL_FOLDERS
        for split in COUNTS
    )


def _first_with(root: Path, kinds: tuple[str, ...], split: str, ending: str) -> tuple[Path, dict[str, Path]]:
    """The first of the folders ROOT/KIND/SPLIT that has files of this ending, and these files by name.

    Where none has, the first one that is there at all, or else that would be looked for first.
    """
    folders = [root / kind / split for kind in kinds]
    for folder in folders:
        found = files_by_key(folder, ending)
        found = {key: path for key, path in found.items() if not key.lower().endswith(CONVERTED)}
        if found:
            return folder, found
    return next((folder for folder in folders if folder.is_dir()), folders[0]), {}
