"""`dpsims data shard`: write a data set as shards (see `shards` for what they are)."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dpsims.data.pairs import Layout, Pair, PairSource
from dpsims.data.parallel import LOCK, locked, run_many
from dpsims.data.shard_contents import contents
from dpsims.data.shards import (
    FORMAT,
    INDEX,
    LABEL,
    MARKER,
    VERSION,
    is_part,
    is_shard_file,
    key_of,
    read_dict,
    read_ours,
    side_of,
)
from dpsims.writing import write_whole

Say = Callable[[str], object]


def write_shards(
    layout: Layout,
    out: str | Path,
    pairs_per_shard: int = 1000,
    size: int | None = None,
    workers: int | None = None,
    say: Say = lambda text: None,
) -> Path:
    """Write all splits of a data set into OUT, as shards of `pairs_per_shard` pairs at most; gives its index.

    Training pairs are shuffled, the same way each time, so that the neighbours of a film do not share a
    shard; the other splits keep their order. Pictures stay the bytes that they are, unless `size` is given:
    then those whose shorter side is longer are scaled down to it (bicubic, label maps nearest), and saved as
    JPEG or, if they were PNG, as PNG. Label maps are read through the layout and saved with its space's ids.

    A shard appears under its name when it is whole, index.json when all are. The same call finishes what a
    killed one left, or one that met a bad pair: whole shards stay, but for those whose pairs have changed.
    workers: processes, one for each core if None; say: is told of each.

    Raises ValueError for an option out of range, the layout's first problem, a bad pair (by its file), an OUT
    that holds anything else or is written by another process, and where it cannot be written (disk full).
    """
    out = Path(out)
    for option, value in (("shard-pairs", pairs_per_shard), ("size", size), ("workers", workers)):
        if value is not None and value < 1:
            raise ValueError(f"--{option} {value}: use 1 or more")
    PairSource(layout, "train")  # raises what there is to mend
    plan = _plan(layout, pairs_per_shard, size)
    tasks = list(_tasks(layout, out, plan, pairs_per_shard, size))
    with ExitStack() as stack:
        try:
            _refuse_others(out, plan)
            stack.enter_context(locked(out, "shard", remove=True))
            _prepare(out, plan)
        except OSError as error:
            raise _unwritable(out, error) from error
        index = out / INDEX
        try:
            _write_missing(layout, index, tasks, workers, say)
        except KeyboardInterrupt:
            print(f"finished shards are kept in {out}, no others: the same command goes on", file=sys.stderr)
            raise
    return index


def _write_missing(layout: Layout, index: Path, tasks: list[_Task], workers: int | None, say: Say) -> None:
    """Write the shards that are not whole, then the index if it is not what it has to be."""
    left = [task for task in tasks if not _finished(task)]
    try:
        if not left and index.is_file() and index.read_bytes() == _index_of(layout, tasks):
            say(f"{index.parent}: already complete, {len(tasks)} shards")
            return
        index.unlink(missing_ok=True)  # until the missing ones are there again
    except OSError as error:
        raise _unwritable(index, error) from error
    light = replace(layout, splits={}, problems=[])  # goes to other processes; a task has its pairs with it
    written = run_many(_write_shard, light, left, workers, chunk=1)
    for done, path in enumerate(written, len(tasks) - len(left) + 1):
        say(f"{path} ({done} of {len(tasks)})")
    try:
        write_whole(index, _index_of(layout, tasks))
    except OSError as error:
        raise _unwritable(index, error) from error


def _index_of(layout: Layout, tasks: list[_Task]) -> bytes:
    """What index.json holds when all shards are whole."""
    plans = hashlib.sha256(json.dumps([task.plan for task in tasks]).encode()).hexdigest()
    values = {"format": FORMAT, "version": VERSION, "plan": plans, "title": layout.title}
    values |= {"source": layout.source, "size": tasks[0].size, "split_titles": layout.split_titles}
    values |= {"notices": layout.notices, "space": layout.space.to_dict()}
    sides = [read_dict(side_of(task.path)) for task in tasks]
    keys = ("file", "split", "pairs", "bytes", "sha256")
    values |= {"shards": [{key: side[key] for key in keys} for side in sides]}
    return json.dumps(values, indent=1).encode()


@dataclass(frozen=True)
class _Task:
    """A shard to be written. numbers: of its pairs, in the layout's split; plan: see `_shard_plan`."""

    path: Path
    split: str
    pairs: list[Pair]
    numbers: list[int]
    size: int | None
    plan: str


def _plan(layout: Layout, pairs_per_shard: int, size: int | None) -> str:
    """A digest of all that the shards have in common: options, label spaces, which pairs there are."""
    spaces = [space and space.to_dict() for space in (layout.space, layout.file_space)]
    values = [VERSION, pairs_per_shard, size, layout.title, layout.source, layout.split_titles, spaces]
    names = {split: [pair.name for pair in pairs] for split, pairs in layout.splits.items()}
    return hashlib.sha256(json.dumps([*values, names]).encode()).hexdigest()


def _shard_plan(plan: str, pairs: list[Pair], root: Path) -> str:
    """A digest of all that one shard is made of: its pairs' files, too, with size and time."""
    files = [_seen(path, root) for pair in pairs for path in (pair.image, pair.label)]
    return hashlib.sha256(json.dumps([plan, files]).encode()).hexdigest()


def _seen(path: Path, root: Path) -> tuple[str, int, int]:
    try:
        state = path.stat()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    return os.path.relpath(path, root), state.st_size, state.st_mtime_ns


def _tasks(layout: Layout, out: Path, plan: str, pairs_per_shard: int, size: int | None) -> Iterator[_Task]:
    for split, pairs in layout.splits.items():
        numbers = np.arange(len(pairs))
        if split == "train":
            numbers = np.random.default_rng(0).permutation(numbers)
        count = -(-len(pairs) // pairs_per_shard)
        for k, part in enumerate(np.array_split(numbers, count) if count else []):
            chosen = [pairs[i] for i in part]
            path = out / f"{split}-{k:06d}.tar"
            yield _Task(path, split, chosen, part.tolist(), size, _shard_plan(plan, chosen, layout.root))


def _refuse_others(out: Path, plan: str) -> None:
    """Raise ValueError where OUT holds anything but shards of this plan, finished or not; touch nothing."""
    names = sorted(os.listdir(out)) if out.exists() else []
    marker = read_ours(out / MARKER)
    whole = [name for name in names if name == INDEX or is_shard_file(name)]
    if marker is None and whole:
        raise ValueError(
            f"{out}: holds {whole[0]}, but no {MARKER} of `dpsims data shard`; choose a new folder as --out"
        )
    for name in sorted(set(names) - set(whole)):
        if marker is None:  # the lock, and what a kill or a power cut may leave of the marker
            ours = is_part(name, MARKER) or (name in (LOCK, MARKER) and _is_empty(out / name))
        else:
            ours = name in (LOCK, MARKER) or is_part(name)
        if not ours:
            raise ValueError(f"{out}: holds something else ({name}); choose a new folder as --out")
    if marker is not None and whole and marker.get("plan") != plan:
        raise ValueError(
            f"{out}: holds shards of other data or options ({whole[0]}); choose another --out, or delete it"
        )


def _is_empty(path: Path) -> bool:
    try:
        return path.stat().st_size == 0
    except FileNotFoundError:  # another process has just ended, and its lock is gone
        return True


def _prepare(out: Path, plan: str) -> None:
    """Mark OUT as a folder of these shards, and remove what a killed process left half-written."""
    _refuse_others(out, plan)  # again: another command may have ended between the first time and the lock
    for name in os.listdir(out):
        if is_part(name):
            (out / name).unlink(missing_ok=True)
    marker = {"format": FORMAT, "version": VERSION, "plan": plan}
    if read_ours(out / MARKER) != marker:
        write_whole(out / MARKER, json.dumps(marker).encode())


def _finished(task: _Task) -> bool:
    side = read_dict(side_of(task.path))
    if side.get("plan") != task.plan or not task.path.is_file():
        return False
    return task.path.stat().st_size == side.get("bytes")


def _write_shard(layout: Layout, task: _Task) -> Path:
    """Write one shard, then the file beside it that makes it count as whole."""
    path = task.path
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            with part.open("wb") as file:
                members = _write_tar(file, layout, task)
                file.flush()
                os.fsync(file.fileno())  # the name must not outlive the bytes when the power fails
            with part.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            values = {"file": path.name, "split": task.split, "pairs": len(task.pairs), "plan": task.plan}
            values |= {"bytes": part.stat().st_size, "sha256": digest, "numbers": task.numbers}
            values |= {"names": [pair.name for pair in task.pairs], "members": members}
            side_of(path).unlink(missing_ok=True)  # one of an earlier tar does not fit the new one
            part.replace(path)
            write_whole(side_of(path), json.dumps(values, separators=(",", ":")).encode())
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


def _write_tar(file: io.BufferedWriter, layout: Layout, task: _Task) -> list[list[int]]:
    """All pairs into a tar; place and size of each picture and label map: [[at, size, at, size], ...]."""
    members: list[list[int]] = []
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for pair in task.pairs:
            suffix, picture, label = contents(layout, pair, task.size)
            key = key_of(pair.name)
            members.append([*_add(tar, f"{key}.{suffix}", picture), *_add(tar, f"{key}.{LABEL}", label)])
    return members


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> tuple[int, int]:
    member = tarfile.TarInfo(name)  # its time and owner are 0
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
    padded = -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return tar.offset - padded, len(content)


def _unwritable(path: Path, error: OSError) -> ValueError:
    return ValueError(
        f"{path}: cannot be written ({error.strerror}); make room or choose another --out, then run the same "
        "command again: finished shards stay"
    )
