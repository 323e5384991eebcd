"""Your own images: a list of classes, `images/`, `labels/`, with or without split folders above these two."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path

from dpsims.data.files import IMAGE_SUFFIXES, LABEL_SUFFIX, files_with
from dpsims.data.pairs import SPLITS, Layout, Pair, Problem, hold_out, match_pairs
from dpsims.labels import LabelSpace

_FOLDERS = {"images": IMAGE_SUFFIXES, "labels": (LABEL_SUFFIX,)}


def scan(root: Path) -> Layout:
    """The pairs of a folder.

    ROOT holds `classes.json` (or .yaml, .txt), and either `images/` (jpg, jpeg, png, webp) and `labels/`
    (png), with the same stems, or those two below `train/`, `val/` and `test/`. A split that has no folder of
    its own is a tenth of the training pictures, chosen by a hash of their names and taken out of the training
    split (two at least, since measuring takes two, where that leaves most of them to training). Pictures and
    maps that lie elsewhere below ROOT, and would be left out unseen, are problems of the layout.

    Raises ValueError where ROOT or its classes are missing or malformed.
    """
    if not root.is_dir():
        raise ValueError(
            f"{root}: no such folder; give one with classes.json or classes.txt, images/ and labels/"
        )
    layout = Layout(root, "folder", LabelSpace.load(root), {split: [] for split in SPLITS})
    folders = {split: root / split for split in SPLITS if (root / split).is_dir()}
    layout.problems = _not_read(root, folders)
    if not folders:
        if layout.problems and not any((root / name).is_dir() for name in _FOLDERS):
            return layout  # misspelt splits; that images/ is missing would mislead
        folders = {"train": root}
    for split, folder in folders.items():
        layout.splits[split], found = _scan_pairs(folder)
        layout.problems += found
    if "train" not in folders:
        reason = f"missing, though there is {'/ and '.join(folders)}/; add train/"
        layout.problems.append((root / "train", reason))
        return layout
    pairs = layout.splits["train"]
    share = max(2 if len(pairs) >= 8 else 1, len(pairs) // 10)
    layout.splits |= hold_out(pairs, [split for split in SPLITS if split not in folders], share)
    return layout


def _not_read(root: Path, folders: dict[str, Path]) -> list[Problem]:
    """Pairs that are nobody's: under no split's name, or beside the splits. folders: the splits'."""
    problems: list[Problem] = []
    free = [split for split in SPLITS if split not in folders]
    for path in _subfolders(root):
        # where the system does not tell Train from train, that is a split
        if not (path / "images").is_dir() or any(path.samefile(folder) for folder in folders.values()):
            continue
        meant = get_close_matches(path.name.lower(), free, 1, 0.4)  # validation: 0.46 to val
        if meant:
            problems.append((path, f"is no split; did you mean {meant[0]}? Rename it, or move it elsewhere"))
        elif folders:
            names = ", ".join(SPLITS)
            problems.append((path, f"is no split ({names}), is not read; move its files into one, or away"))
    for name, suffixes in _FOLDERS.items() if folders else ():
        if (root / name).is_dir() and files_with(root / name, suffixes):
            beside = next(iter(folders))
            reason = f"stands beside {beside}/, is not read; move its files into {beside}/{name}/, or away"
            problems.append((root / name, reason))
    return problems


def _scan_pairs(folder: Path) -> tuple[list[Pair], list[Problem]]:
    """The pairs in FOLDER/images and FOLDER/labels, by name, and the problems met."""
    images, labels = folder / "images", folder / "labels"
    absent = [p for p in (images, labels) if not p.is_dir()]
    if absent:
        return [], [(p, "missing; pictures belong in images/, their label maps in labels/") for p in absent]
    deep_pictures, problems = _too_deep(images)
    deep_maps, found = _too_deep(labels)
    problems += found
    pictures: dict[str, Path] = {}
    for path in files_with(images, IMAGE_SUFFIXES):
        if path.stem in pictures:
            problems.append((path, f"same stem as {pictures[path.stem].name}; remove or rename one of them"))
        pictures.setdefault(path.stem, path)
    maps = {path.stem: path for path in files_with(labels, (LABEL_SUFFIX,))}
    others = {path.stem: path for path in files_with(labels, IMAGE_SUFFIXES) if path.stem not in maps}
    if not maps and others:
        return [], [*problems, (labels, "holds no PNG; label maps are PNG files (JPEG and WebP change ids)")]
    if not pictures and not maps:
        empty = (images, f"is empty; add pictures ({', '.join(IMAGE_SUFFIXES)})")
        return [], problems or [empty]
    if differ := _how_stems_differ(pictures, maps):
        return [], [*problems, (labels, differ)]
    for stem, path in others.items():
        if stem in pictures:
            kind = "WebP" if path.suffix.lower() == ".webp" else "JPEG"
            reason = f"is no PNG; {kind} changes ids; export the map as PNG from its source"
            problems.append((path, reason))
    # what is said of a file already is not said again of its partner
    pairs, alone = match_pairs(pictures, maps, images, labels)
    told = {pictures[stem] for stem in {*others, *deep_maps} & pictures.keys()}
    told |= {maps[stem] for stem in deep_pictures & maps.keys()}
    return pairs, problems + [problem for problem in alone if problem[0] not in told]


def _too_deep(folder: Path) -> tuple[set[str], list[Problem]]:
    """Stems of the files in subfolders of images/ or labels/, which are not read, and the problems."""
    stems: set[str] = set()
    problems: list[Problem] = []
    noun = "picture" if folder.name == "images" else "label map"
    for path in _subfolders(folder):
        names = [name for _, _, files in os.walk(path) for name in files if not name.startswith(".")]
        names = [name for name in names if name.lower().endswith(_FOLDERS[folder.name])]
        stems |= {Path(name).stem for name in names}
        # images/train and labels/train, as other programs have it
        where = f"into {path.name}/{folder.name}/" if path.name in SPLITS else "up"
        what = f"1 {noun} in a subfolder is not read; move it {where}"
        if len(names) > 1:
            what = f"{len(names):,} {noun}s in a subfolder are not read; move them {where}"
        if names:
            problems.append((path, what))
    return stems, problems


def _subfolders(folder: Path) -> list[Path]:
    """By name; not the hidden ones."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    return [folder / name for name in sorted(names)]


def _how_stems_differ(pictures: dict[str, Path], maps: dict[str, Path]) -> str:
    """What to say where all stems have another ending or beginning; "" where they do not."""
    if pictures.keys() & maps.keys() or min(len(pictures), len(maps)) < 2:
        return ""
    for step in (-1, 1):  # endings, read backwards; beginnings
        ours, theirs = ([stem[::step] for stem in stems] for stems in (pictures, maps))
        a, b = os.path.commonprefix(ours), os.path.commonprefix(theirs)
        by_rest = {stem[len(a) :]: stem[::step] for stem in ours}
        pairs = [(by_rest[s[len(b) :]], s[::step]) for s in theirs if s[len(b) :] in by_rest]
        if len(pairs) < min(len(ours), len(theirs)):
            continue
        a, b = a[::step], b[::step]
        # 00 and 10, 00_mask and 10_mask: the 0 that all have is no difference
        same = os.path.commonprefix([a[::-step], b[::-step]])
        shared = len(same) - (same.endswith(("_", "-", ".")) and len(same) < min(len(a), len(b)))
        a, b = (part[shared:] if step < 0 else part[: len(part) - shared] for part in (a, b))
        picture, label = pairs[0]
        names = f"{maps[label].name} for {pictures[picture].name}"
        parts = " and ".join(f"`{part}`" for part in (a, b) if part)
        return f"stems differ by {parts} ({names}): rename, so that a picture and its map have the same stem"
    return ""
