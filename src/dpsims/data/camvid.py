"""CamVid with its 11 classes (480x360, as SegNet used it): street scenes filmed from a car."""

from __future__ import annotations

from pathlib import Path

from dpsims.data.folder import SPLITS, Folder

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree",
    "signsymbol", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip


class CamVid(Folder):
    """CamVid's train, val or test split: `{train,val,test}/{images,labels}/` and `classes.json` below ROOT.

    Raises ValueError where a split's folder is missing (its splits are fixed, so that results compare) or
    where `classes.json` has other classes than CamVid's eleven.
    """

    def __init__(self, root: str | Path, split: str) -> None:
        for folder in (Path(root) / name for name in SPLITS):
            if Path(root).is_dir() and not folder.is_dir():
                raise ValueError(f"{folder}: missing; for data of your own use the recipe `folder`")
        super().__init__(root, split)
        if tuple(name.casefold() for name in self.space.names) != CLASSES:
            raise ValueError(
                f"{self.root / 'classes.json'}: is not CamVid's list ({', '.join(CLASSES)}); "
                "for data of your own use the recipe `folder`"
            )
