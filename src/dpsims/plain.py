"""Config dataclasses from the plain values of YAML, JSON and the command line, and back. Standard library
only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import types
import typing
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def settable_fields(section: type) -> dict[str, Any]:
    """Name -> type of the fields of a config class that a recipe or the command line may set."""
    hints = get_type_hints(section)
    return {f.name: hints[f.name] for f in dataclasses.fields(section) if not f.metadata.get("derived")}


def from_dict(cls: type, values: dict[str, Any], path: str = "", where: str = "recipe") -> Any:
    """Build a config dataclass from plain values; absent fields keep their defaults.

    Raises ValueError for an unknown field or a value of the wrong type, naming `where`, the field and the
    mend.
    """
    hints, kwargs = get_type_hints(cls), {}
    for key, value in values.items():
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            hint = f"did you mean {path}{near[0]}?" if near else f"known: {', '.join(hints)}"
            raise ValueError(f"{where}: unknown field {path}{key}; {hint}")
        kwargs[key] = _convert(hints[key], value, path + key, where)
    return cls(**kwargs)


def to_dict(config: Any) -> dict[str, Any]:
    """Plain values (lists, not tuples) that YAML and JSON can hold."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, (tuple, list)) else value

    return plain(dataclasses.asdict(config))


def _convert(kind: Any, value: Any, name: str, where: str) -> Any:
    def refuse(wanted: str) -> ValueError:
        return ValueError(f"{where}: {name}={value!r} should be {wanted}")

    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise refuse("a section with fields")
        return from_dict(typing.cast(type, kind), value, f"{name}.", where)
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):  # only `X | None` is used
        inner = next(a for a in get_args(kind) if a is not type(None))
        return None if value is None else _convert(inner, value, name, where)
    if origin is Literal:
        if value not in get_args(kind):
            raise refuse("one of " + ", ".join(map(str, get_args(kind))))
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            text = get_args(kind)[0] is str
            raise refuse("a list, such as [a, b]" if text else "a list of whole numbers, such as [1, 2]")
        return tuple(_convert(get_args(kind)[0], v, name, where) for v in value)
    if kind in (int, float) and isinstance(value, str):  # YAML reads 1e-4 and 1e6, without a dot, as text
        with contextlib.suppress(ValueError):
            value = float(value)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():  # YAML reads 1.0e+6 as a float
        return int(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise refuse({int: "a whole number", float: "a number", bool: "true or false", str: "text"}[kind])
    return value
