"""Label spaces: class names, colours, and conversion between a file's ids or colours and class indices.

Inside the package a label map is an int64 tensor with indices 0..K-1 and `ignore_index` = K for an unlabelled
pixel. Files keep their own ids; the conversion happens here and nowhere else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class LabelSpace:
    """Names and colours of K classes, and the ids that stand for them in files.

    names, colors, ids: K entries each; index i of a label map is class `names[i]`, coded `ids[i]` (0..65535)
    in index PNGs and `colors[i]` (RGB, 0..255) in colour-coded ones. `ignore_id`: id of unlabelled pixels in
    files, or None where every pixel has a class; `ignore_color`: their colour.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    ids: tuple[int, ...]
    ignore_id: int | None = None
    ignore_color: tuple[int, int, int] = (0, 0, 0)

    @property
    def num_classes(self) -> int:
        return len(self.names)

    @property
    def ignore_index(self) -> int:
        """Index of an unlabelled pixel in our label maps: always K, also where files have no such id."""
        return len(self.names)

    @cached_property
    def _index_of_id(self) -> np.ndarray:
        table = np.full(65536, -1, dtype=np.int32)
        table[list(self.ids)] = np.arange(self.num_classes)
        if self.ignore_id is not None:
            table[self.ignore_id] = self.ignore_index
        return table

    @cached_property
    def palette(self) -> np.ndarray:
        """uint8 (K+1, 3): the colour of each index, the unlabelled one last."""
        return np.array([*self.colors, self.ignore_color], dtype=np.uint8)

    def decode_ids(self, ids: np.ndarray, where: str = "label map") -> np.ndarray:
        """File ids (H, W), any integer type -> indices (H, W) int64.

        Raises ValueError naming `where`, the id, its first position and the ids that are allowed.
        """
        inside = (ids >= 0) & (ids < 65536)
        index = self._index_of_id[np.where(inside, ids, 0)]
        bad = (index < 0) | ~inside
        if bad.any():
            y, x = np.argwhere(bad)[0]
            raise ValueError(
                f"{where}: label id {ids[y, x]} at row {y}, column {x} ({int(bad.sum())} such pixels) is not "
                f"in the label space ({self._allowed()}); correct the map, or add the class to classes.json"
            )
        return index.astype(np.int64)

    def decode_colors(self, rgb: np.ndarray, where: str = "label map") -> np.ndarray:
        """Colour-coded map uint8 (H, W, 3) -> indices (H, W) int64.

        Raises ValueError naming `where` for a colour that no class has, or where two classes share one.
        """
        if len(set(self.colors)) < self.num_classes:
            shared = next(c for i, c in enumerate(self.colors) if c in self.colors[:i])
            both = " and ".join(n for n, c in zip(self.names, self.colors, strict=True) if c == shared)
            raise ValueError(f"{where}: is colour-coded, but {both} share the colour {shared}; use ids")
        code = (rgb[..., 0].astype(np.int64) << 16) | (rgb[..., 1].astype(np.int64) << 8) | rgb[..., 2]
        # without an ignore_id no pixel may be unlabelled: the unlabelled colour is then one that no class has
        count = self.num_classes + (self.ignore_id is not None)
        palette = self.palette[:count].astype(np.int64)
        keys = (palette[:, 0] << 16) | (palette[:, 1] << 8) | palette[:, 2]
        order = np.argsort(keys, kind="stable")
        slot = np.clip(np.searchsorted(keys[order], code), 0, len(keys) - 1)
        bad = keys[order][slot] != code
        if bad.any():
            y, x = np.argwhere(bad)[0]
            color = tuple(int(c) for c in rgb[y, x])
            raise ValueError(
                f"{where}: colour {color} at row {y}, column {x} ({int(bad.sum())} such pixels) belongs to "
                "no class; save the map without anti-aliasing, or correct the palette"
            )
        return order[slot]

    def encode_ids(self, index: np.ndarray) -> np.ndarray:
        """Indices (H, W) -> file ids uint8 or uint16. ValueError for unlabelled pixels without an id."""
        if self.ignore_id is None and (index == self.ignore_index).any():
            raise ValueError("label map has unlabelled pixels, but its label space has no ignore_id")
        table = np.array([*self.ids, self.ignore_id or 0])
        return table[index].astype(np.uint8 if table.max() < 256 else np.uint16)

    def colorize(self, index: np.ndarray) -> np.ndarray:
        """Indices (..., H, W) -> uint8 (..., H, W, 3) in the palette's colours."""
        return self.palette[index]

    def _allowed(self) -> str:
        low, high = min(self.ids), max(self.ids)
        ids = f"{low}..{high}" if high - low + 1 == len(self.ids) else ", ".join(map(str, self.ids))
        return ids + (f", unlabelled {self.ignore_id}" if self.ignore_id is not None else "")

    def to_dict(self) -> dict[str, Any]:
        """The form of classes.json."""
        classes = [
            {"id": i, "name": n, "color": list(c)}
            for i, n, c in zip(self.ids, self.names, self.colors, strict=True)
        ]
        return {"ignore_id": self.ignore_id, "ignore_color": list(self.ignore_color), "classes": classes}

    @classmethod
    def from_dict(cls, values: Any, where: str = "classes.json") -> LabelSpace:
        """Read the form of classes.json: `{"ignore_id": null, "classes": [{"id", "name", "color"}, ...]}`.

        The class whose id is `ignore_id` may be listed too. Raises ValueError naming `where` and the entry at
        fault.
        """
        form = '{"ignore_id": ..., "classes": [{"id", "name", "color"}, ...]}'
        if not isinstance(values, dict) or not isinstance(values.get("classes"), list):
            raise ValueError(f"{where}: give {form}")
        ignore_id = values.get("ignore_id")
        if ignore_id is not None and not (isinstance(ignore_id, int) and 0 <= ignore_id <= 65535):
            raise ValueError(f"{where}: ignore_id={ignore_id!r} should be null or a whole number 0..65535")
        ignore_color = _color(values.get("ignore_color", (0, 0, 0)), f"{where}: ignore_color")
        names, colors, ids = [], [], []
        for entry in values["classes"]:
            try:
                number, name, color = int(entry["id"]), str(entry["name"]), entry["color"]
            except (KeyError, TypeError, ValueError) as error:
                wanted = "a whole id, a name and a color [r, g, b]"
                raise ValueError(f"{where}: class {entry!r} needs {wanted}") from error
            if not 0 <= number <= 65535 or number in ids:
                raise ValueError(f"{where}: class id {number} ({name}): use unique whole numbers 0..65535")
            color = _color(color, f"{where}: class {name}")
            if number == ignore_id:
                ignore_color = color
                continue
            ids.append(number)
            names.append(name)
            colors.append(color)
        if not ids:
            raise ValueError(f"{where}: has no class besides the unlabelled one; give {form}")
        return cls(tuple(names), tuple(colors), tuple(ids), ignore_id, ignore_color)

    @classmethod
    def load(cls, path: str | Path) -> LabelSpace:
        """Read a classes.json. Raises ValueError (with the file's name) where it is missing or malformed."""
        path = Path(path)
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8-sig")), str(path))
        except OSError as error:
            reason = f"cannot be read ({error.strerror}); it holds class names and colours"
            raise ValueError(f"{path}: {reason}") from error
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: is not JSON (line {error.lineno}: {error.msg})") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: is not JSON (no UTF-8 text)") from error


def _color(value: Any, where: str) -> tuple[int, int, int]:
    whole = isinstance(value, (list, tuple)) and all(isinstance(c, int) and 0 <= c <= 255 for c in value)
    if not whole or len(value) != 3:
        raise ValueError(f"{where}: color {value!r} should be [r, g, b], each a whole number 0..255")
    return value[0], value[1], value[2]
