"""CamVid with its 11 classes (480x360, as SegNet used it): street scenes filmed from a car."""

from __future__ import annotations

from pathlib import Path

from dpsims.data import folder
from dpsims.data.pairs import SPLITS, Layout

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree",
    "signsymbol", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip


def scan(root: Path) -> Layout:
    """CamVid: `{train,val,test}/{images,labels}/` and `classes.json` below ROOT.

    Raises ValueError where a split's folder is missing (its splits are fixed, so that results compare) or
    where `classes.json` has other classes than CamVid's eleven.
    """
    for path in (root / name for name in SPLITS):
        if root.is_dir() and not path.is_dir():
            raise ValueError(f"{path}: missing; for data of your own use the recipe `folder`")
    layout = folder.scan(root)
    if not layout.space.has_classes(CLASSES):
        raise ValueError(
            f"{root / 'classes.json'}: is not CamVid's list ({', '.join(CLASSES)}); "
            "for data of your own use the recipe `folder`"
        )
    layout.title = "CamVid"
    return layout
