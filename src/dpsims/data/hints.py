"""What ids and colours that no class has most likely mean, and the mend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dpsims.labels import LabelSpace

if TYPE_CHECKING:
    from dpsims.data.report import DataReport, Unknown

_MANY_CODES = 50  # more than anybody forgets to list
_SOME_CODES = 5  # enough, where they also look like what smoothing leaves
_FEW_FILES = 0.05  # of all
_OVERSHOOT = 8  # ids beyond the first and the last
_LEAST_IDS = 3  # of fewer, any numbering fits
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def hints(report: DataReport) -> list[str]:
    """One line for each mistake that would explain the unknown codes of a report; most often none."""
    ids = {int(code): u for code, u in report.unknown.items() if not code.startswith("#")}
    colors = {code: u for code, u in report.unknown.items() if code.startswith("#")}
    return [*_id_hints(report, ids), *_color_hints(report, colors)]


def _id_hints(report: DataReport, unknown: dict[int, Unknown]) -> list[str]:
    """unknown: the ids that no class has."""
    if not unknown:
        return []
    space, used = report.file_space, report.ids
    mask = _mask(used, space)
    numbering = mask or _stretched(used, space) or _smoothed(report, unknown)
    if not numbering and set(unknown) - {255} and len(used - {255}) >= _LEAST_IDS:
        numbering = _shifted(used, space) or _from_one(used, space) or _in_order(used, space)
    found = [numbering] if numbering else []
    for code in (255, 0):
        if code in unknown and not mask and not (code == 0 and numbering):
            now = "none" if space.ignore_id is None else str(space.ignore_id)
            found.append(
                f"{code} is unlabelled in many sets; if it is here, set ignore_id to {code} in the class "
                f'list (now {now}): "ignore_id": {code} in classes.json (not possible in classes.txt)'
            )
    return found


def _classes(space: LabelSpace) -> set[int]:
    """The ids of classes, merged and ignored ones included."""
    return {*space.ids, *(alias.id for alias in space.aliases if alias.id is not None)}


def _known(space: LabelSpace) -> set[int]:
    return _classes(space) | ({space.ignore_id} if space.ignore_id is not None else set())


def _covers_half(ids: set[int], space: LabelSpace) -> bool:
    return 2 * len(ids & _classes(space)) >= len(_classes(space))


def _mask(used: set[int], space: LabelSpace) -> str:
    if used != {0, 255} or space.num_classes != 2 or 255 in _known(space) or 0 not in space.ids:
        return ""
    name = space.names[1 - space.ids.index(0)]
    return f"the maps hold 0 and 255 only, as masks do: give {name} the id 255 in the class list"


def _stretched(used: set[int], space: LabelSpace) -> str:
    eight_bits = {i // 257 for i in used}
    if max(used) <= 255 or any(i % 257 for i in used) or not eight_bits <= _known(space) | {255}:
        return ""
    return "all ids are 257 times an id of the class list: 8-bit ids stretched to 16 bits; divide by 257"


def _smoothed(report: DataReport, unknown: dict[int, Unknown]) -> str:
    """Smoothing makes ids that lie between those of the classes."""
    what = (
        "maps that were resized with smoothing or went through JPEG, pictures in the place of maps, or other "
        "classes; resize maps by nearest neighbour, save them as PNG"
    )
    if len(unknown) > _MANY_CODES:
        return f"{len(unknown):,} ids that no class has: {what}"
    space = report.file_space
    # in few files, JPEG also overshoots; all over the set, ids outside may be classes that the list lacks
    few = _in_few_files(report, unknown)
    ends, over = (_known(space), _OVERSHOOT) if few else (_classes(space), 0)
    between = [i for i in unknown if min(ends) - over < i < max(ends) + over]
    if len(between) < (_LEAST_IDS if few else _SOME_CODES) or len(between) < 0.8 * len(unknown):
        return ""
    if _in_order(report.ids, space):
        return ""
    return f"{len(unknown)} ids that no class has, in between those of classes or near: {what}"


def _in_few_files(report: DataReport, unknown: dict[int, Unknown] | dict[str, Unknown]) -> bool:
    most = max(1, int(_FEW_FILES * sum(report.pairs.values())))
    return max(u.files for u in unknown.values()) <= most


def _shifted(used: set[int], space: LabelSpace) -> str:
    """All ids would be classes, were it not for the same step of each. 255 may stay in its place."""
    known, plain = _known(space), used - {255}
    for ids in (plain, plain - {space.ignore_id}):
        if not ids:
            continue
        for step in sorted({min(ids) - i for i in known} - {0}, key=abs):
            meant = {i - step for i in ids}
            # many steps fit a few ids: one by one is a common mistake, others have to explain most classes
            if meant <= known and (abs(step) == 1 or _covers_half(meant, space)):
                size = "one" if abs(step) == 1 else str(abs(step))
                return (
                    f"the maps' ids lie {size} {'above' if step > 0 else 'below'} those of the class list: "
                    f"shifted by {size}, all would be classes; correct the ids in the class list"
                )
    return ""


def _from_one(used: set[int], space: LabelSpace) -> str:
    """As in ADE20K's files: 0 is unlabelled, the first class is 1."""
    meant = {i - 1 for i in used - {0, 255}}
    if 0 not in used or not meant <= _classes(space) or not _covers_half(meant, space):
        return ""
    return (
        "either the class list lacks a class, or 0 is unlabelled in the maps and the classes begin at 1: "
        'then add 1 to each id in the class list and set ignore_id to 0 (a list of names: "ignore_id": 0 in '
        'classes.json, and "unlabeled" as the first name)'
    )


def _in_order(used: set[int], space: LabelSpace) -> str:
    """Numbers without gaps, where the list has some."""
    ids, count = used - {255, space.ignore_id}, space.num_classes
    if max(space.ids) - min(space.ids) < count or 2 * len(ids) < count:
        return ""
    for start in (0, 1):
        if ids <= set(range(start, start + count)):
            return (
                "the maps' ids lack the gaps of the class list: numbered in the order of the classes? Then "
                f"list them as {start}..{start + count - 1}"
            )
    return ""


def _color_hints(report: DataReport, unknown: dict[str, Unknown]) -> list[str]:
    """unknown: the colours that no class has, as #rrggbb."""
    if not unknown:
        return []
    space = report.file_space
    rgb = np.array([list(bytes.fromhex(code[1:])) for code in unknown], np.uint8)
    plain = ~((rgb == _WHITE).all(1) | (rgb == _BLACK).all(1))  # the same grey and with channels swapped
    others = rgb[plain]
    found = []
    if len(others) > 1 and (others == others[:, :1]).all() and set(others[:, 0].tolist()) <= _known(space):
        return ["the maps are grey, and their grey levels are ids: save them as grey, not RGB"]
    if space.has_generated_colors:
        found.append(
            'a class list without colors gets generated ones, and the maps are RGB: add the "color" of each '
            "class, or save the maps as ids"
        )
    if len(others) and (space.classes_of_colors(others[:, ::-1]) >= 0).all():
        found.append(
            "with red and blue exchanged the colours are classes: the maps were saved as BGR (OpenCV); swap "
            "the channels"
        )
    elif len(unknown) > _MANY_CODES or (
        len(unknown) >= _SOME_CODES
        and (_in_few_files(report, unknown) or 2 * sum(bool(u.nearest) for u in unknown.values()) >= len(rgb))
    ):
        count = ("more than " if report.unknown_left_out else "") + f"{len(unknown):,}"
        lacking = "" if len(unknown) > _MANY_CODES else " (or the class list lacks classes)"
        found.append(
            f"{count} colours that no class has: the maps were resized with smoothing, drawn with "
            "anti-aliasing or saved as JPEG; make them anew, resized by nearest neighbour and saved as PNG"
            f"{lacking}"
        )
    most = max(unknown, key=lambda code: unknown[code].pixels)
    for name, color in (("white", _WHITE), ("black", _BLACK)):
        code = f"#{bytes(color).hex()}"
        # a smoothed map has every colour; only what covers much of it can be meant
        if code in unknown and (len(unknown) < _SOME_CODES or code == most):
            also = " and an ignore_id" if space.ignore_id is None else ""
            found.append(
                f"{name} {color} is unlabelled in many sets; if it is here, set ignore_color: {list(color)}"
                f"{also} in the class list"
            )
    return found
