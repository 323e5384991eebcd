"""CMP Facades: 606 rectified photographs of facades with 12 classes, as its two archives unpack.

Source: Tylecek and Sara, Spatial Pattern Templates for Recognition of Objects with Regular Structure, GCPR
2013. The set has no official split; ours is fixed by the files' names (docs/decisions/benchmark-splits.md).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from dpsims.data import folder
from dpsims.data.official import count_notices, files_by_key, no_such_set, pair_folders
from dpsims.data.pairs import SPLITS, Layout, Pair
from dpsims.labels import CLASSES_FILES, LabelSpace

COUNTS = {"base": 378, "extended": 228}
TEST, VAL = 106, 50
_STEMS = {"base": "cmp_b", "extended": "cmp_x"}


def scan(root: Path) -> Layout:
    """The pairs of CMP Facades.

    ROOT holds base/cmp_bNNNN.{jpg,png} and extended/cmp_xNNNN.{jpg,png}, or one of these two folders, each of
    them also inside a folder named as its archive. Where it holds neither but a class list, it is read as the
    source `folder` reads it (copies of the set have that layout), with the list's own ids.

    Raises ValueError where ROOT holds neither, or its class list names other classes than the set's twelve.
    """
    hint = "unpack CMP_facade_DB_base.zip and CMP_facade_DB_extended.zip here, or run: dpsims data fetch "
    hint += "facades --out DIR"
    places = {part: _place(root, part) for part in COUNTS}
    if not any(place.is_dir() for place in places.values()):
        if any((root / name).is_file() for name in CLASSES_FILES):
            return _scan_folder(root)
        raise no_such_set(root, "CMP Facades", "base/, extended/ and classes.json", hint)
    layout = Layout(root, "CMP Facades", LabelSpace.named("facades"), {})
    pairs: list[Pair] = []
    for part, count in COUNTS.items():
        place = places[part]
        images, maps = files_by_key(place, ".jpg"), files_by_key(place, ".png")
        found, problems = pair_folders(place, images, place, maps, hint)
        pairs += found
        layout.problems += problems
        layout.notices += count_notices(part, len(found), count)
    layout.splits = fixed_splits(pairs)
    layout.split_titles = {split: f"{split}, no official split" for split in ("val", "test")}
    return layout


def recognises(root: Path) -> bool:
    """Whether a folder is laid out as CMP Facades is; `base` alone is too common a name."""
    return any(
        name.startswith(stem)
        for part, stem in _STEMS.items()
        for name in files_by_key(_place(root, part), ".jpg")
    )


def _place(root: Path, part: str) -> Path:
    """The folder of an archive's pairs; some programs unpack into a folder named as the archive."""
    places = [root / part, root / f"CMP_facade_DB_{part}" / part]
    return next((place for place in places if place.is_dir()), places[0])


def fixed_splits(pairs: list[Pair]) -> dict[str, list[Pair]]:
    """The splits by name: a pair is in the same one, however many of the set's pairs are present.

    106 for test and 50 for val of the complete set, by a hash of the official names; the rest is train.
    """
    names = [f"{_STEMS[part]}{i:04d}" for part, count in COUNTS.items() for i in range(1, count + 1)]
    names.sort(key=lambda name: hashlib.sha256(name.encode()).digest())
    split_of = dict.fromkeys(names[:TEST], "test") | dict.fromkeys(names[TEST : TEST + VAL], "val")
    splits: dict[str, list[Pair]] = {split: [] for split in SPLITS}
    for pair in pairs:
        splits[split_of.get(pair.name, "train")].append(pair)
    return splits


def _scan_folder(root: Path) -> Layout:
    """A copy in the layout of the source `folder`."""
    layout = folder.scan(root)
    layout.title = "CMP Facades"
    layout.space = _in_official_order(layout.space, root)
    return layout


def _in_official_order(space: LabelSpace, root: Path) -> LabelSpace:
    """The same ids and colors, with names and order of classes as in the official set."""
    names = LabelSpace.named("facades").names
    theirs = [name.casefold() for name in space.names]
    if sorted(theirs) != sorted(names):
        raise ValueError(
            f"{root}: its class list ({', '.join(space.names)}) is not that of CMP Facades "
            f"({', '.join(names)}); for data of your own use the recipe `folder`"
        )
    order = [theirs.index(name) for name in names]
    place = {old: new for new, old in enumerate(order)}
    return replace(
        space,
        names=names,
        colors=tuple(space.colors[i] for i in order),
        ids=tuple(space.ids[i] for i in order),
        aliases=tuple(replace(a, index=place.get(a.index, a.index)) for a in space.aliases),
        evaluated=tuple(name.casefold() for name in space.evaluated),
        flip_pairs=tuple((left.casefold(), right.casefold()) for left, right in space.flip_pairs),
    )
