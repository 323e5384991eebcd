"""Label spaces: class names, colours, and conversion between a file's ids or colours and class indices.

Inside the package a label map is an int64 tensor with indices 0..K-1 and `ignore_index` = K for an unlabelled
pixel. Files keep their own ids; the conversion happens here and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

Color = tuple[int, int, int]
CLASSES_FILES = ("classes.json", "classes.yaml", "classes.yml", "classes.txt")


@dataclass(frozen=True)
class Alias:
    """A class of the files that is read as another one (merged into it) or as unlabelled (index K).

    id, color: None where files never show it so.
    """

    id: int | None
    name: str
    color: Color | None
    index: int


@dataclass(frozen=True)
class LabelSpace:
    """Names and colours of K classes, and the ids that stand for them in files.

    names, colors, ids: K entries each; index i of a label map is class `names[i]`, coded `ids[i]` (0..65535)
    in index PNGs and `colors[i]` (RGB, 0..255) in colour-coded ones. `ignore_id`: id of unlabelled pixels in
    files, or None where every pixel has a class; `ignore_color`: their colour. `aliases`: further classes of
    the files, read as one of the K or as unlabelled. `evaluated`: the names of the classes that evaluation
    counts, in its order; none given counts all. `flip_pairs`: the names of two classes each that a mirrored
    image exchanges, such as left and right arm.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    ids: tuple[int, ...]
    ignore_id: int | None = None
    ignore_color: Color = (0, 0, 0)
    aliases: tuple[Alias, ...] = ()
    evaluated: tuple[str, ...] = ()
    flip_pairs: tuple[tuple[str, str], ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.names)

    @property
    def ignore_index(self) -> int:
        """Index of an unlabelled pixel in our label maps: always K, also where files have no such id."""
        return len(self.names)

    def has_classes(self, names: Sequence[str]) -> bool:
        """Whether these are the classes, in this order; upper and lower case are alike."""
        return [name.casefold() for name in self.names] == [name.casefold() for name in names]

    @cached_property
    def _index_of_id(self) -> np.ndarray:
        table = np.full(65536, -1, dtype=np.int32)
        table[list(self.ids)] = np.arange(self.num_classes)
        if self.ignore_id is not None:
            table[self.ignore_id] = self.ignore_index
        for alias in self.aliases:
            if alias.id is not None:
                table[alias.id] = alias.index
        return table

    @cached_property
    def _index_of_byte(self) -> np.ndarray:
        """uint8 (256,): the index of an 8-bit id; 255 for an id that is no class (and there are fewer)."""
        table = self._index_of_id[:256]
        return np.where(table < 0, 255, table).astype(np.uint8)

    @cached_property
    def _indices_of_color(self) -> dict[int, set[int]]:
        """Colour as a number -> indices that have it; more than one where classes share a colour."""
        found: dict[int, set[int]] = {}
        entries = [*zip(self.colors, range(self.num_classes), strict=True)]
        entries += [(alias.color, alias.index) for alias in self.aliases if alias.color is not None]
        # without an ignore_id no pixel may be unlabelled: the unlabelled colour is then one that no class has
        if self.ignore_id is not None:
            entries.append((self.ignore_color, self.ignore_index))
        for (r, g, b), index in entries:
            found.setdefault(r << 16 | g << 8 | b, set()).add(index)
        return found

    @cached_property
    def palette(self) -> np.ndarray:
        """uint8 (K+1, 3): the colour of each index, the unlabelled one last."""
        return np.array([*self.colors, self.ignore_color], dtype=np.uint8)

    @cached_property
    def has_generated_colors(self) -> bool:
        """Whether the colors are those that a list of classes without colors gets."""
        from dpsims.labels.palette import distinct_colors

        return distinct_colors(self.num_classes, [self.ignore_color]) == list(self.colors)

    @cached_property
    def evaluation(self) -> LabelSpace:
        """The classes that evaluation counts, as a label space of their own; most often this one."""
        if not self.evaluated:
            return self
        kept = [self.names.index(name) for name in self.evaluated]
        colors, ids = [self.colors[i] for i in kept], [self.ids[i] for i in kept]
        return LabelSpace(
            self.evaluated,
            tuple(colors),
            tuple(ids),
            self.ignore_id,
            self.ignore_color,
            flip_pairs=tuple(pair for pair in self.flip_pairs if set(pair) <= set(self.evaluated)),
        )

    @cached_property
    def evaluation_table(self) -> np.ndarray:
        """int64 (K+1,): index -> index in `evaluation`; what is not counted becomes unlabelled there."""
        return self.table_to(self.evaluation, drop=True)

    @cached_property
    def flip_table(self) -> np.ndarray:
        """int64 (K+1,): index -> index in the mirrored image; `flip_pairs` change places, others stay."""
        table = np.arange(self.num_classes + 1)
        for left, right in self.flip_pairs:
            i, j = self.names.index(left), self.names.index(right)
            table[[i, j]] = j, i
        return table

    def table_to(self, other: LabelSpace, drop: bool = False) -> np.ndarray:
        """int64 (K+1,): index here -> index in another space, class by class of the same name (in any case).

        A class that `other` lists as merged or ignored goes where it says. drop: classes that it does not
        list become unlabelled; otherwise ValueError names them.
        """
        theirs = {name.casefold(): index for index, name in enumerate(other.names)}
        theirs |= {alias.name.casefold(): alias.index for alias in other.aliases}
        missing = [name for name in self.names if name.casefold() not in theirs]
        if missing and not drop:
            raise ValueError(
                f"no such class in the other label space: {', '.join(missing)}; name them as there, merge "
                "them, or list them under `ignore`"
            )
        table = [theirs.get(name.casefold(), other.ignore_index) for name in self.names]
        return np.array([*table, other.ignore_index], dtype=np.int64)

    def check_range(self, low: int, high: int) -> None:
        """ValueError where a label map's lowest or highest index is neither a class nor `ignore_index`."""
        if low < 0 or high > self.ignore_index:
            raise ValueError(
                f"label map has index {low if low < 0 else high}; classes are 0..{self.num_classes - 1}, "
                f"unlabelled is {self.ignore_index}"
            )

    def classes_of_ids(self, ids: np.ndarray) -> np.ndarray:
        """Ids 0..65535 (n,) -> indices (n,) int32; -1 for an id that is no class."""
        return self._index_of_id[ids]

    def classes_of_colors(self, rgb: np.ndarray) -> np.ndarray:
        """Colours uint8 (..., 3) -> indices (...) int64; -1 for a colour that no class has, or several."""
        codes = rgb.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
        known = self._indices_of_color
        keys = np.array(sorted(known), dtype=np.int64)
        indices = np.array([min(known[key]) if len(known[key]) == 1 else -1 for key in keys.tolist()])
        slot = np.clip(np.searchsorted(keys, codes), 0, len(keys) - 1)
        return np.where(keys[slot] == codes, indices[slot], -1)

    def decode_ids(self, ids: np.ndarray, where: str = "label map") -> np.ndarray:
        """File ids (H, W), any integer type -> indices (H, W) int64.

        Raises ValueError naming `where`, the id, its first position and the ids that are allowed.
        """
        if ids.dtype == np.uint8 and self.num_classes < 255:  # the usual map, and the fast way
            small = self._index_of_byte.take(ids)
            if not small.size or small.max() < 255:
                return small.astype(np.int64)
        inside = (ids >= 0) & (ids < 65536)
        index = np.where(inside, self._index_of_id[np.where(inside, ids, 0)], -1)
        if index.size and index.min() < 0:
            bad = index < 0
            y, x = np.argwhere(bad)[0]
            raise ValueError(
                f"{where}: label id {ids[y, x]} at row {y}, column {x} ({_pixels(ids == ids[y, x])}) is not "
                f"in the label space ({self._allowed()}); correct the map (or classes.json, of your own set)"
                + self._unlabeled_hint(int(ids[y, x]))
            )
        return index.astype(np.int64)

    def decode_colors(self, rgb: np.ndarray, where: str = "label map") -> np.ndarray:
        """Colour-coded map uint8 (H, W, 3) -> indices (H, W) int64.

        Raises ValueError naming `where`, the colour and its first position for a colour that no class has, or
        that several have.
        """
        index = self.classes_of_colors(rgb)
        if index.size and index.min() < 0:
            bad = index < 0
            y, x = np.argwhere(bad)[0]
            color, place = tuple(int(c) for c in rgb[y, x]), f"at row {y}, column {x}"
            indices = self._indices_of_color.get(color[0] << 16 | color[1] << 8 | color[2], ())
            sharing = [[*self.names, "unlabelled"][i] for i in sorted(indices)]
            if sharing:
                both = " and ".join(sharing)
                raise ValueError(f"{where}: {both} share the colour {color}, seen {place}; use ids")
            count = _pixels((rgb == rgb[y, x]).all(-1))
            fix = "save the map without anti-aliasing, or correct the list of classes"
            if self.has_generated_colors:
                fix = f'{fix}, which gets generated colors where it gives none: add the "color" of each class'
            raise ValueError(f"{where}: color {color} {place} ({count}) belongs to no class; {fix}")
        return index

    def encode_ids(self, index: np.ndarray) -> np.ndarray:
        """Indices (H, W) -> file ids uint8 or uint16. ValueError for unlabelled pixels without an id."""
        if self.ignore_id is None and (index == self.ignore_index).any():
            raise ValueError("label map has unlabelled pixels, but its label space has no ignore_id")
        table = np.array([*self.ids, self.ignore_id or 0])
        return table[index].astype(np.uint8 if table.max() < 256 else np.uint16)

    def colorize(self, index: np.ndarray) -> np.ndarray:
        """Indices (..., H, W) -> uint8 (..., H, W, 3) in the palette's colours."""
        return self.palette[index]

    def _unlabeled_hint(self, code: int) -> str:
        if code != 255 or self.ignore_id is not None:
            return ""
        return '; if it marks unlabeled pixels, set "ignore_id": 255 in classes.json (classes.txt cannot)'

    def _allowed(self) -> str:
        known = sorted({*self.ids, *(alias.id for alias in self.aliases if alias.id is not None)})
        starts = [i for i in known if i - 1 not in known]
        ends = [i for i in known if i + 1 not in known]
        runs = (f"{low}..{high}" if low < high else str(low) for low, high in zip(starts, ends, strict=True))
        return ", ".join(runs) + (f", unlabelled {self.ignore_id}" if self.ignore_id is not None else "")

    def to_dict(self) -> dict[str, Any]:
        """The form of classes.json; `from_dict` gives the same space back."""
        classes: list[dict[str, Any]] = [
            {"id": i, "name": n, "color": list(c)}
            for i, n, c in zip(self.ids, self.names, self.colors, strict=True)
        ]
        merge: dict[str, list[str]] = {}
        for alias in self.aliases:
            color = alias.color if alias.color is None else list(alias.color)
            classes.append({"id": alias.id, "name": alias.name, "color": color})
            if alias.index < self.num_classes:
                name = self.names[alias.index]
                merge.setdefault(name, [name]).append(alias.name)
        values: dict[str, Any] = {"ignore_id": self.ignore_id, "ignore_color": list(self.ignore_color)}
        values["classes"] = classes
        ignore = [alias.name for alias in self.aliases if alias.index == self.num_classes]
        extras: dict[str, Any] = {"merge": merge, "ignore": ignore, "evaluate": list(self.evaluated)}
        extras["flip_pairs"] = [list(pair) for pair in self.flip_pairs]
        return values | {key: value for key, value in extras.items() if value}

    @classmethod
    def from_dict(cls, values: Any, where: str = "classes.json") -> LabelSpace:
        """Read the form of classes.json: `{"ignore_id": 255, "classes": [{"id", "name", "color"}, ...]}`.

        A class may be its name alone, and the list of classes may be all there is. Without ids (of any class)
        they are 0..K-1 in order; a class without a color gets one that is distinct and follows from `values`
        alone. Without `ignore_id` no pixel may be unlabeled.

        The class whose id is `ignore_id` may be listed too. Besides: `"merge": {"car": ["car", "truck"]}`
        makes one class of several, `"ignore": [names]` reads classes as unlabeled (their id may be null),
        `"evaluate": [names]` says which ones evaluation counts, `"flip_pairs": [["l_eye", "r_eye"]]` which
        ones a mirrored image exchanges. Raises ValueError naming `where` and the entry at fault.
        """
        from dpsims.labels.files import read_space

        return read_space(values, where)

    @classmethod
    def load(cls, path: str | Path) -> LabelSpace:
        """Read a classes.json, classes.yaml or classes.txt (a name a line), or the one in a folder.

        Raises ValueError (with the file's name) where it is missing or malformed.
        """
        from dpsims.labels.files import load_space

        return load_space(Path(path))

    @classmethod
    def named(cls, name: str) -> LabelSpace:
        """A label space that comes with the package. Raises ValueError for an unknown name."""
        if name not in space_names():
            raise ValueError(f"unknown label space {name!r}; there are {', '.join(space_names())}")
        text = resources.files(__name__).joinpath("spaces", f"{name}.json").read_text(encoding="utf-8")
        return cls.from_dict(json.loads(text), name)

    @classmethod
    def find(cls, name: str) -> LabelSpace:
        """A label space by the name of one in the package, or from a file or folder."""
        return cls.named(name) if name in space_names() else cls.load(name)


def _pixels(these: np.ndarray) -> str:
    """How many there are, for a message."""
    count = int(these.sum())
    return f"{count} such pixel" + ("s" if count > 1 else "")


def space_names() -> list[str]:
    """Names of the label spaces inside the package."""
    files: Iterable[Any] = resources.files(__name__).joinpath("spaces").iterdir()
    return sorted(f.name.removesuffix(".json") for f in files if f.name.endswith(".json"))
