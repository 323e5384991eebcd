"""Data sets in shards: a few large tar files instead of very many small ones, readable by WebDataset.

A folder of shards, as `write_shards` makes it, holds

    train-000000.tar    pairs as KEY.jpg (or .png, .webp) and KEY.label.png, one after the other, uncompressed
    train-000000.json   where in the tar each of them stands, and the tar's size and SHA-256
    plan.json           what all shards are made of; written first, it tells them from other tar files
    index.json          the label space and the list of all shards; written last: without it nothing is whole

KEY is the pair's name with `%` as %25 and `.` as %2E, since WebDataset ends a key at the first dot. The label
maps hold the ids of the label space in index.json, 8 or 16 bits grey.

`Shards` reads any pair by its place, without looking through the tar: which pair comes when stays with the
sampling in `batches`, and so do processes that share an epoch and runs that go on in the midst of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dpsims.data.files import NamedBytes, read_codes, read_image
from dpsims.data.pairs import Problem
from dpsims.labels import LabelSpace

INDEX = "index.json"
MARKER = "plan.json"
FORMAT = "dpsims shards"
VERSION = 1
LABEL = "label.png"
"""what follows KEY in the name of a label map"""
OPEN_FILES = 64

_SHARD = r"(train|val|test)-\d{6,}\.(tar|json)"
_INDEX_KEYS: dict[str, type] = {
    "title": str,
    "source": str,
    "space": dict,
    "split_titles": dict,
    "notices": list,
    "shards": list,
}
_ENTRY_KEYS: dict[str, type] = {"file": str, "split": str, "pairs": int, "bytes": int, "sha256": str}
_SIDE_LISTS = ("numbers", "names", "members")
_AGAIN = "run the same `dpsims data shard` command again"


class Shards:
    """The pairs of one split of a folder of shards, as a `Source`: those of the data set, in its order.

    source: the reader that they were made with (`ade20k`, `folder` ...). window: how many shards `order`
    mixes. Raises ValueError where the shards are unfinished, of another
    version, damaged at a glance (a file that is missing or has another size), or have no pairs for `split`;
    `load` for what a glance does not show. May go to other processes: files are opened where they are read.
    """

    def __init__(self, root: str | Path, split: str, window: int = 8) -> None:
        if window < 1:
            raise ValueError(f"window={window}: use 1 or more (shards that are mixed)")
        root = Path(root)
        index = read_index(root)
        self.space = LabelSpace.from_dict(index["space"], str(root / INDEX))
        self.title: str = index["title"]
        self.source: str = index["source"]
        self.split_titles: dict[str, str] = index["split_titles"]
        self.notices: list[str] = index["notices"]
        self.name = f"{root} ({index['split_titles'].get(split, split)}, shards)"
        entries = [entry for entry in index["shards"] if entry["split"] == split]
        if not entries:
            there = sorted({entry["split"] for entry in index["shards"]})
            raise ValueError(f"{root}: has no pairs for {split}, only for {', '.join(there)}")
        self.window = window
        self._files = [(root / entry["file"], str(entry["sha256"])) for entry in entries]
        sides = [_read_side(root, entry) for entry in entries]
        numbers = np.concatenate([side["numbers"] for side in sides]).astype(np.int64)
        counts = [len(side["numbers"]) for side in sides]
        shard = np.repeat(np.arange(len(sides)), counts)
        members = np.concatenate([np.array(side["members"], np.int64).reshape(-1, 4) for side in sides])
        if not np.array_equal(np.sort(numbers), np.arange(len(numbers))):
            raise ValueError(f"{root}: its shards for {split} are not of one data set; {_AGAIN}")
        # from the order of the shards to that of the data set: both sources have the same pair i
        self._places = np.column_stack([shard, members])[np.argsort(numbers)]
        names = np.array([name for side in sides for name in side["names"]], dtype=object)
        self.names: list[str] = names[np.argsort(numbers)].tolist()
        self._members = np.split(numbers, np.cumsum(counts)[:-1])

    def __len__(self) -> int:
        return len(self.names)

    def fingerprint(self) -> str:
        """A digest of the shards' own."""
        return hashlib.sha256(repr(self._files).encode()).hexdigest()[:16]

    def load(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Pair i: uint8 RGB (h, w, 3) and int64 class indices (h, w). ValueError names shard and pair."""
        picture, label = self.files(i)
        return read_image(picture), self.space.decode_ids(read_codes(label).values, str(label))

    def path(self, i: int) -> Path:
        """The shard that holds pair i."""
        return self._files[int(self._places[i, 0])][0]

    def files(self, i: int) -> tuple[NamedBytes, NamedBytes]:
        """Picture and label map of pair i, not decoded. ValueError names a shard that cannot be read."""
        shard, image_at, image_size, label_at, label_size = self._places[i].tolist()
        path, digest = self._files[shard]
        # the two stand side by side: one read, a tar header or two more than needed
        content = _read(path, digest, image_at, label_at + label_size - image_at)
        where = f"{path}: {self.names[i]}"
        picture = NamedBytes(content[:image_size], f"{where} (picture)")
        return picture, NamedBytes(content[label_at - image_at :], f"{where} (label map)")

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """0..len-1 in the order of an epoch, int64: shards shuffled, then the pairs of each `window` shards.

        So reading stays within a few files for a while. Depends on the arguments alone, on every machine.
        """
        rng = np.random.default_rng((seed, 2, epoch))
        shards = rng.permutation(len(self._members)).tolist()
        windows = [shards[k : k + self.window] for k in range(0, len(shards), self.window)]
        return np.concatenate(
            [rng.permutation(np.concatenate([self._members[s] for s in w])) for w in windows]
        )


def is_sharded(root: str | Path) -> bool:
    """Whether ROOT holds shards, finished or not."""
    return any(read_ours(Path(root) / name) is not None for name in (MARKER, INDEX))


def is_shard_file(name: str) -> bool:
    """Whether a file's name is that of a shard or of its .json."""
    return re.fullmatch(_SHARD, name) is not None


def is_part(name: str, of: str = f"{_SHARD}|{INDEX}|{MARKER}") -> bool:
    """Whether a file's name is that of something half-written by `write_shards`. of: what, as a pattern."""
    return re.fullmatch(rf"\.({of})\.\d+\.part", name) is not None


def read_index(root: Path) -> dict[str, Any]:
    """ROOT/index.json, after a look at whether every file it lists is there in full size.

    Raises ValueError naming what is missing or does not fit, and the mend.
    """
    index = read_ours(root / INDEX)
    if index is None:
        if is_sharded(root) and (root / INDEX).exists():
            raise ValueError(f"{root / INDEX}: is damaged; {_AGAIN}")
        if is_sharded(root):
            raise ValueError(f"{root}: its shards are unfinished (no {INDEX}); {_AGAIN}")
        raise ValueError(f"{root}: holds no shards; make some: dpsims data shard DIR --out {root}")
    if index.get("version") != VERSION:
        raise ValueError(
            f"{root / INDEX}: shards of version {index.get('version')}, this program reads {VERSION}; "
            "write them anew: dpsims data shard"
        )
    if wrong := _what_is_wrong(index):
        raise ValueError(f"{root / INDEX}: is damaged ({wrong}); {_AGAIN}")
    for entry in index["shards"]:
        path = root / entry["file"]
        if not path.is_file() or not side_of(path).is_file():
            missing = side_of(path) if path.is_file() else path
            raise ValueError(f"{missing}: missing; {_AGAIN}, or copy it anew")
        if (size := path.stat().st_size) != entry["bytes"]:
            raise ValueError(
                f"{path}: has {size:,} bytes instead of {entry['bytes']:,}; {_AGAIN}, or copy it anew"
            )
    return index


def verify(root: str | Path) -> list[Problem]:
    """Read all shards below ROOT; those that are not what was written, by file. Raises as `read_index`."""
    root, problems = Path(root), []
    for entry in read_index(root)["shards"]:
        path = root / entry["file"]
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != entry["sha256"]:
            problems.append((path, f"is damaged (other SHA-256 than written); delete it, then {_AGAIN}"))
        try:
            _read_side(root, entry)
        except ValueError as error:
            problems.append((side_of(path), str(error).removeprefix(f"{side_of(path)}: ")))
    return problems


def side_of(shard: Path) -> Path:
    """The file that says where in a shard its pairs stand."""
    return shard.with_suffix(".json")


def key_of(name: str) -> str:
    """A pair's name as the key of its files in a tar: no dots, and no two names alike."""
    return name.replace("%", "%25").replace(".", "%2E")


def read_ours(path: Path) -> dict[str, Any] | None:
    """An index.json or plan.json, or None where there is none, or one that `write_shards` did not write."""
    values = read_dict(path)
    return values if values.get("format") == FORMAT else None


def _what_is_wrong(index: dict[str, Any]) -> str:
    """What an index lacks; "" if nothing."""
    lacking = [key for key, kind in _INDEX_KEYS.items() if not isinstance(index.get(key), kind)]
    if lacking:
        return f"no {', '.join(lacking)}"
    for entry in index["shards"]:
        if not isinstance(entry, dict):
            return f"{entry!r} in its shards"
        if lacking := [key for key, kind in _ENTRY_KEYS.items() if not isinstance(entry.get(key), kind)]:
            return f"a shard without {', '.join(lacking)}"
        if not is_shard_file(entry["file"]):
            return f"a shard called {entry['file']!r}"
    return "" if index["shards"] else "no shards"


def read_dict(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing where it is missing, or is no object."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _read_side(root: Path, entry: dict[str, Any]) -> dict[str, Any]:
    path = side_of(root / entry["file"])
    side = read_dict(path)
    lists = [side.get(key) for key in _SIDE_LISTS]
    if any(side.get(key) != entry[key] for key in ("file", "bytes", "pairs", "sha256")) or not all(
        isinstance(values, list) and len(values) == entry["pairs"] for values in lists
    ):
        raise ValueError(f"{path}: does not belong to {root / INDEX}; delete it, then {_AGAIN}")
    return side


class _Handle:
    """An open file, closed when the last one who reads it lets go."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


@lru_cache(maxsize=OPEN_FILES)
def _handle(path: Path, digest: str) -> _Handle:
    """The open shard; `digest` tells it from another that stood there before."""
    return _Handle(path)


def _read(path: Path, digest: str, start: int, count: int) -> bytes:
    try:
        if hasattr(os, "pread"):
            # no position is kept, so processes forked with the file open do not disturb each other
            content = os.pread(_handle(path, digest).number, count, start)
        else:  # Windows: slower, but nothing is shared there either
            with path.open("rb") as file:
                file.seek(start)
                content = file.read(count)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); {_AGAIN}, or copy it anew") from error
    if len(content) < count:
        raise ValueError(f"{path}: is cut short; delete it, then {_AGAIN}")
    return content
