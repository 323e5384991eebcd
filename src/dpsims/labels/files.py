"""Label spaces from files: `classes.json`, `classes.yaml` or `classes.txt`."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpsims.labels import CLASSES_FILES, Alias, Color, LabelSpace
from dpsims.labels.palette import distinct_colors

_OPTIONAL = ("ignore_id", "ignore_color", "merge", "ignore", "evaluate", "flip_pairs")
_FORM = '{"classes": ["sky", "road", ...]}'
_FIELD_NAMES = {
    **dict.fromkeys(("id", "index", "label", "trainid", "train_id", "value"), "id"),
    **dict.fromkeys(("color", "colour", "rgb"), "color"),
}
"""what other programs call the fields of a class, in lower case -> our name"""


@dataclass
class _Entry:
    """A class as a file lists it. color: None where it has none."""

    id: int | None
    name: str
    color: Color | None


def load_space(path: Path) -> LabelSpace:
    """The label space in a JSON or YAML file, or in the folder's `classes.*`.

    Raises ValueError (with the file's name) where it is missing or malformed.
    """
    if path.is_dir():
        found = [path / name for name in CLASSES_FILES if (path / name).is_file()]
        if len(found) > 1:
            raise ValueError(f"{found[1]}: stands beside {found[0].name}; keep one of them")
        path = found[0] if found else path / CLASSES_FILES[0]
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = (
            f"cannot be read ({error.strerror}); it lists the classes: {_FORM}, or, as classes.txt, one name "
            "a line"
        )
        raise ValueError(f"{path}: {reason}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no text (UTF-8)") from error
    if path.suffix.lower() == ".txt":
        return read_space(_lines(text, path), str(path))
    if path.suffix.lower() in (".yaml", ".yml"):
        import yaml

        try:
            values = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:  # the latter: a date that is none
            raise ValueError(f"{path}: is not YAML ({' '.join(str(error).split())})") from error
        return read_space(values, str(path))
    try:
        return read_space(json.loads(text), str(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: is not JSON (line {error.lineno}: {error.msg})") from error


def _lines(text: str, path: Path) -> list[str]:
    """The names in a classes.txt, one a line. A line's number, from 0, is the id."""
    if not text.strip():
        raise ValueError(f"{path}: is empty; write one class name a line")
    names = [line.strip() for line in text.rstrip().split("\n")]
    lines: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if not name:
            raise ValueError(f"{path}: line {number} is empty, which shifts the ids below it; remove it")
        first = lines.setdefault(name.casefold(), number)
        if first != number:
            raise ValueError(f"{path}: lines {first} and {number} are both {name}; give each class one line")
    return names


def read_space(values: Any, where: str) -> LabelSpace:
    """What such a file holds -> the label space; see `LabelSpace.from_dict`."""
    if isinstance(values, list):
        values = {"classes": values}
    if not isinstance(values, dict) or not isinstance(values.get("classes"), list):
        raise ValueError(f"{where}: give {_FORM}")
    ignore_id = values.get("ignore_id")
    if ignore_id is not None and not _is_id(ignore_id):
        raise ValueError(f"{where}: ignore_id={ignore_id!r} should be null or a whole number 0..65535")
    ignore_color = _color(values.get("ignore_color", (0, 0, 0)), f"{where}: ignore_color")
    _refuse_misspelt(values, where)
    ignored = _names(values.get("ignore"), f"{where}: ignore")
    entries = _entries(values["classes"], {*ignored, *_members(values.get("merge"), where)}, where)
    unlabelled = next((e for e in entries.values() if e.id is not None and e.id == ignore_id), None)
    if unlabelled is not None:
        ignore_color = unlabelled.color or ignore_color
        del entries[unlabelled.name.casefold()]
        ignored = [name for name in ignored if name.casefold() != unlabelled.name.casefold()]
    merged_into = _merges(values.get("merge"), entries, where)
    for name in ignored:
        _known(name, entries, f"{where}: ignore")
        if name.casefold() in merged_into:
            raise ValueError(f"{where}: {name} stands under both `merge` and `ignore`; choose one")

    # the classes that are kept, in the file's order; a merged one where its first member stands
    groups: dict[str, list[_Entry]] = {}
    skipped = {name.casefold() for name in ignored}
    for key, entry in entries.items():
        if key not in skipped:
            groups.setdefault(merged_into.get(key, entry.name), []).append(entry)
    if not groups:
        raise ValueError(f"{where}: has no class besides the unlabelled one; give {_FORM}")
    heads = [_head(name, members, where) for name, members in groups.items()]
    colors = _colors(heads, [ignore_color, *(e.color for e in entries.values() if e.color is not None)])
    aliases: list[Alias] = []
    for index, (name, head) in enumerate(zip(groups, heads, strict=True)):
        if head.name.casefold() != name.casefold():  # the merged class has its id and colour, not its name
            aliases.append(Alias(None, head.name, None, index))
        others = (member for member in groups[name] if member is not head)
        aliases += [Alias(member.id, member.name, member.color, index) for member in others]
    dropped = (entry for key, entry in entries.items() if key in skipped)
    aliases += [Alias(entry.id, entry.name, entry.color, len(groups)) for entry in dropped]
    by_key = {name.casefold(): name for name in groups}
    evaluated = _names(values.get("evaluate"), f"{where}: evaluate")
    for name in evaluated:
        if name.casefold() not in by_key:
            raise ValueError(f"{where}: evaluate: {name} is no class; there are {', '.join(groups)}")
    return LabelSpace(
        tuple(groups),
        colors,
        tuple(head.id for head in heads if head.id is not None),
        ignore_id,
        ignore_color,
        tuple(aliases),
        tuple(by_key[name.casefold()] for name in evaluated),
        _flip_pairs(values.get("flip_pairs"), by_key, merged_into, where),
    )


def _refuse_misspelt(values: dict[str, Any], where: str) -> None:
    """Other fields are the user's own; one that is nearly ours would be passed over without a word."""
    for key in values.keys() - set(_OPTIONAL):
        near = difflib.get_close_matches(str(key), _OPTIONAL, n=1, cutoff=0.8)
        if near:
            raise ValueError(f"{where}: unknown field {key}; did you mean {near[0]}?")


def _head(name: str, members: list[_Entry], where: str) -> _Entry:
    """The class that gives a (merged) class its id and colour: the one of its name, or else the first."""
    same = [member for member in members if member.name.casefold() == name.casefold()]
    numbered = [member for member in same or members if member.id is not None]
    for head in numbered:
        if head.color is not None:
            return head
    if not numbered:
        raise ValueError(f"{where}: class {name} needs an id")
    return numbered[0]


def _colors(heads: list[_Entry], given: list[Color]) -> tuple[Color, ...]:
    """The classes' colors, distinct ones for those that have none."""
    lacking = sum(head.color is None for head in heads)
    made = iter(distinct_colors(lacking, given) if lacking else ())
    return tuple(next(made) if head.color is None else head.color for head in heads)


def _entries(classes: list[Any], other: set[str], where: str) -> dict[str, _Entry]:
    """Name in lower case -> class, in the file's order.

    other: the classes that are ignored or merged, whose id may be null.
    """
    optional = {name.casefold() for name in other}
    items = [_item(item, where) for item in classes]
    numbered = [item["name"] for item in items if "id" in item]
    entries: dict[str, _Entry] = {}
    ids: dict[int, str] = {}
    for place, item in enumerate(items):
        name = item["name"]
        if numbered and "id" not in item:
            raise ValueError(
                f"{where}: class {name} has no id, but {numbered[0]} has one; give all an id, or none (then "
                "they are 0, 1, ... in order)"
            )
        number = item.get("id", place)
        if not (_is_id(number) or (name.casefold() in optional and number is None)):
            raise ValueError(f"{where}: class id {number!r} ({name}): use unique whole numbers 0..65535")
        if number is not None and number in ids:
            raise ValueError(
                f"{where}: class id {number} ({name}): {ids[number]} has it, too; use unique whole numbers"
            )
        if name.casefold() in entries:
            raise ValueError(f"{where}: two classes are named {name}; give each a name of its own")
        if number is not None:
            ids[number] = name
        color = item.get("color")
        rgb = None if color is None else _color(color, f"{where}: class {name}")
        entries[name.casefold()] = _Entry(number, name, rgb)
    return entries


def _item(item: Any, where: str) -> dict[str, Any]:
    """A class as listed, by its name alone or with more, as {"name", maybe "id", maybe "color"}."""
    values = item if isinstance(item, dict) else {"name": item}
    if "name" not in values:
        raise ValueError(f'{where}: class {item!r} needs a name, as in {{"name": "sky"}}')
    name = values["name"]
    if not isinstance(name, str):  # YAML reads no, on, 7 and dates as other things
        raise ValueError(f"{where}: class name {name!r} is no text; put it in quotes")
    if not name.strip():
        raise ValueError(f"{where}: class {item!r} has an empty name; give it one")
    missing = [field for field in ("id", "color") if field not in values]
    for field in sorted(map(str, values.keys() - {"id", "name", "color"})) if missing else ():
        # it may mean the missing one, for which a generated value would be taken silently
        near = difflib.get_close_matches(field.casefold(), _FIELD_NAMES, n=1, cutoff=0.8)
        meant = _FIELD_NAMES[near[0]] if near else None
        fix = f"remove it, or give {' and '.join(missing)} too"
        if meant in missing:
            fix = f"did you mean {meant}?"
        raise ValueError(f"{where}: class {name}: unknown field {field}; {fix}")
    return values


def _flip_pairs(
    values: Any, names: dict[str, str], merged_into: dict[str, str], where: str
) -> tuple[tuple[str, str], ...]:
    """The pairs of classes that a mirrored image exchanges. names: lower case -> name, of all classes."""
    if not isinstance(values, (list, tuple, type(None))):
        raise ValueError(f'{where}: flip_pairs={values!r} should look like [["left arm", "right arm"]]')
    found: list[tuple[str, str]] = []
    used: set[str] = set()
    for pair in values or ():
        listed = f"{where}: flip_pairs: {pair!r}"
        if not isinstance(pair, (list, tuple)) or [type(name) for name in pair] != [str, str]:
            raise ValueError(f"{listed} should be two class names")
        for name in pair:
            if name.casefold() not in names:
                into = merged_into.get(name.casefold())
                fix = f"it is merged into {into}" if into else f"there are {', '.join(names.values())}"
                raise ValueError(f"{listed}: {name} is no class; {fix}")
            if name.casefold() in used:
                raise ValueError(f"{listed}: {name} is listed twice; a class has one partner")
            used.add(name.casefold())
        found.append((names[pair[0].casefold()], names[pair[1].casefold()]))
    return tuple(found)


def _members(values: Any, where: str) -> list[str]:
    """All classes that are merged into others."""
    if values is not None and not isinstance(values, dict):
        raise ValueError(f'{where}: merge should look like {{"car": ["car", "truck"]}}')
    lists = (_names(members, f"{where}: merge {target}") for target, members in (values or {}).items())
    return [name for names in lists for name in names]


def _merges(values: Any, entries: dict[str, _Entry], where: str) -> dict[str, str]:
    """Member (lower case) -> name of the class that it becomes part of."""
    merged: dict[str, str] = {}
    for target, members in (values or {}).items():
        for name in _names(members, f"{where}: merge {target}"):
            _known(name, entries, f"{where}: merge {target}")
            if name.casefold() in merged:
                raise ValueError(f"{where}: merge: {name} is listed twice; name it once")
            merged[name.casefold()] = str(target)
    for target in values or ():
        if str(target).casefold() in entries and merged.get(str(target).casefold()) != target:
            raise ValueError(f"{where}: merge: {target} is a class of its own; list it among its members")
    return merged


def _known(name: str, entries: dict[str, _Entry], where: str) -> None:
    if name.casefold() not in entries:
        raise ValueError(f"{where}: {name} is no class; list it under `classes`, or correct the name")


def _names(values: Any, where: str) -> list[str]:
    if values is None:
        return []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{where}: should be a list of class names, not {values!r}")
    if len({value.casefold() for value in values}) < len(values):
        raise ValueError(f"{where}: names a class twice: {', '.join(values)}")
    return values


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65535


def _color(value: Any, where: str) -> Color:
    whole = isinstance(value, (list, tuple)) and all(isinstance(c, int) and 0 <= c <= 255 for c in value)
    if not whole or len(value) != 3:
        raise ValueError(f"{where}: color {value!r} should be [r, g, b], each a whole number 0..255")
    return value[0], value[1], value[2]
