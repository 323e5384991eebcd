"""The Earth from orbit: satellite images with land cover, as `dpsims data fetch earth` makes them."""

from __future__ import annotations

from pathlib import Path

from dpsims.data import folder
from dpsims.data.pairs import SPLITS, Layout
from dpsims.labels import LabelSpace


def scan(root: Path) -> Layout:
    """Earth: `{train,val,test}/{images,labels}/` and `classes.json` below ROOT.

    Raises ValueError where a split's folder is missing, or where `classes.json` has other classes.
    """
    hint = "make the set again: dpsims data fetch earth --out DIR"
    missing = [root / split for split in SPLITS if not (root / split).is_dir()]
    if root.is_dir() and missing:
        raise ValueError(f"{missing[0]}: missing; {hint}")
    layout = folder.scan(root)
    if not layout.space.has_classes(LabelSpace.named("earth").names):
        raise ValueError(f"{root / 'classes.json'}: holds other classes than the source `earth`; {hint}")
    layout.title = "Earth"
    return layout
