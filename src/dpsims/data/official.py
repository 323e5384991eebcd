"""What the readers of published sets share: pairs in folders, and how our splits come of the official ones.

Our `test` is the official validation split, which papers report on; our `val`, on which checkpoints are
chosen, is taken out of the official training split. So nobody chooses a checkpoint on the set that is
reported.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dpsims.data.files import files_with
from dpsims.data.pairs import Layout, Pair, Problem, hold_out, match_pairs
from dpsims.labels import LabelSpace


@dataclass
class OfficialSplit:
    """A split as it is published: its name there, its number of pairs there, and what was found of it."""

    title: str
    count: int
    pairs: list[Pair] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def official_layout(
    root: Path, title: str, space: LabelSpace, training: OfficialSplit, validation: OfficialSplit
) -> Layout:
    """The layout of a set that is published in two splits."""
    parts = held_out(training.pairs)
    splits = {"train": parts["train"], "val": parts["val"], "test": validation.pairs}
    layout = Layout(root, title, space, splits)
    layout.split_titles = {"val": f"held out of {training.title}", "test": f"official {validation.title}"}
    layout.problems = [*training.problems, *validation.problems]
    trained = {pair.name for pair in training.pairs}
    for pair in validation.pairs:
        if pair.name in trained:
            reason = (
                f"is in {training.title}, too, and would be tested on what was learnt; remove one of them"
            )
            layout.problems.append((pair.image, reason))
    for split in (training, validation):
        layout.notices += count_notices(split.title, len(split.pairs), split.count)
    return layout


def count_notices(title: str, found: int, count: int) -> list[str]:
    """What to report of a part of the set that has another number of pairs than the official one."""
    if found == count:
        return []
    why = "incomplete, or a subset" if found < count else "other files are among them"
    return [f"{title}: {found:,} pairs, officially {count:,}: {why}"]


def held_out(pairs: list[Pair]) -> dict[str, list[Pair]]:
    """`train`, and a twentieth of it as `val`: 200 pairs at most, 2 at least (1 of fewer than 8)."""
    least = 2 if len(pairs) >= 8 else 1
    return hold_out(pairs, ["val"], max(least, min(200, len(pairs) // 20)))


def pair_folders(
    images: Path, pictures: dict[str, Path], labels: Path, maps: dict[str, Path], mend: str
) -> tuple[list[Pair], list[Problem]]:
    """The pairs of two folders, or of one that holds both.

    A folder that is missing or holds nothing of its kind is one problem, not one for each file in the other;
    where both are missing, there is none. pictures, maps: what they hold (`files_by_key`); mend: what to do
    about a folder without any.
    """
    if pictures and maps:
        return match_pairs(pictures, maps, images, labels)
    if not (images.is_dir() or labels.is_dir()):
        return [], []
    problems: list[Problem] = []
    for folder, found, kind in ((images, pictures, "pictures"), (labels, maps, "label maps")):
        if not found:
            what = f"holds no {kind} of this set" if folder.is_dir() else "missing"
            problems.append((folder, f"{what}; {mend}"))
    return [], problems


def files_by_key(folder: Path, ending: str) -> dict[str, Path]:
    """File name less `ending` (lower case; files may have it in any case) -> file; nothing without folder."""
    if not folder.is_dir():
        return {}
    return {path.name[: -len(ending)]: path for path in files_with(folder, (ending,))}


def no_such_set(root: Path, title: str, wanted: str, mend: str) -> ValueError:
    """The error for a root that is missing or another set; wanted: what was looked for."""
    what = (
        f"holds no {title} (looked for {wanted})" if root.is_dir() else f"no such folder; {title} was wanted"
    )
    return ValueError(f"{root}: {what}; {mend}")
