"""`dpsims data shard`: write a data set as shards (see `shards` for what they are)."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from PIL import Image

from dpsims.data.pairs import Layout, Pair, PairSource
from dpsims.data.shards import FORMAT, INDEX, LABEL, VERSION, is_shard_file, key_of, read_dict, side_of
from dpsims.writing import write_whole

_SAVING: dict[str, tuple[str, dict[str, Any]]] = {  # a scaled picture: as what, and how
    # colours in full resolution: they were scaled down like the rest, and halving them again would show
    "jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    "png": ("PNG", {}),
}


def write_shards(
    layout: Layout,
    out: str | Path,
    pairs_per_shard: int = 1000,
    size: int | None = None,
    workers: int | None = None,
    say: Callable[[str], object] = lambda text: None,
) -> Path:
    """Write all splits of a data set into OUT, as shards of `pairs_per_shard` pairs at most; gives its index.

    Training pairs are shuffled, the same way each time, so that the neighbours of a film do not share a
    shard; the other splits keep their order. Pictures stay the bytes that they are, unless `size` is given:
    then those whose shorter side is longer are scaled down to it (bicubic, label maps nearest), and saved as
    JPEG or, if they were PNG, as PNG. Label maps are read through the layout and saved with its space's ids.

    A shard appears under its name when it is whole, index.json when all are. The same call finishes what a
    killed one left, whole shards stay. workers: processes, one for each core if None; say: is told of each.

    Raises ValueError for an option out of range, the layout's first problem, a bad pair (by its file), an OUT
    that holds anything else, and where it cannot be written (disk full).
    """
    out = Path(out)
    for option, value in (("shard-pairs", pairs_per_shard), ("size", size), ("workers", workers)):
        if value is not None and value < 1:
            raise ValueError(f"--{option} {value}: use 1 or more")
    PairSource(layout, "train")  # raises what there is to mend
    plan = _plan(layout, pairs_per_shard, size)
    tasks = list(_tasks(layout, out, plan, pairs_per_shard, size))
    _prepare(out, plan)
    left = [task for task in tasks if not _finished(task)]
    index = out / INDEX
    if not left and index.is_file():
        say(f"{out}: already complete, {len(tasks)} shards")
        return index
    index.unlink(missing_ok=True)  # until the missing ones are there again
    for done, path in enumerate(_write_all(left, workers), len(tasks) - len(left) + 1):
        say(f"{path} ({done} of {len(tasks)})")
    values = {"format": FORMAT, "version": VERSION, "plan": plan, "source": layout.title, "size": size}
    values |= {"split_titles": layout.split_titles, "notices": layout.notices}
    keys = ("file", "split", "pairs", "bytes", "sha256")
    sides = [read_dict(side_of(task.path)) for task in tasks]
    values |= {
        "space": layout.space.to_dict(),
        "shards": [{key: side[key] for key in keys} for side in sides],
    }
    try:
        write_whole(index, json.dumps(values, indent=1).encode())
    except OSError as error:
        raise _unwritable(index, error) from error
    return index


@dataclass(frozen=True)
class _Task:
    """A shard to be written. numbers: of its pairs, in the layout's split."""

    path: Path
    split: str
    layout: Layout
    pairs: list[Pair]
    numbers: list[int]
    size: int | None
    plan: str


def _plan(layout: Layout, pairs_per_shard: int, size: int | None) -> str:
    """A digest of all that the shards are made of: options, label spaces, files with size and time."""
    spaces = [space and space.to_dict() for space in (layout.space, layout.file_space)]
    values = [VERSION, pairs_per_shard, size, layout.title, layout.split_titles, spaces]
    digest = hashlib.sha256(json.dumps(values).encode())
    for split, pairs in layout.splits.items():
        for pair in pairs:
            files = [_seen(path, layout.root) for path in (pair.image, pair.label)]
            digest.update(json.dumps([split, pair.name, *files]).encode())
    return digest.hexdigest()


def _seen(path: Path, root: Path) -> tuple[str, int, int]:
    try:
        state = path.stat()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    return os.path.relpath(path, root), state.st_size, state.st_mtime_ns


def _tasks(layout: Layout, out: Path, plan: str, pairs_per_shard: int, size: int | None) -> Iterator[_Task]:
    light = replace(layout, splits={}, problems=[])  # each task goes to another process, with its pairs only
    for split, pairs in layout.splits.items():
        numbers = np.arange(len(pairs))
        if split == "train":
            numbers = np.random.default_rng(0).permutation(numbers)
        count = -(-len(pairs) // pairs_per_shard)
        for k, part in enumerate(np.array_split(numbers, count) if count else []):
            chosen = [pairs[i] for i in part]
            path = out / f"{split}-{k:06d}.tar"
            yield _Task(path, split, light, chosen, part.tolist(), size, plan)


def _prepare(out: Path, plan: str) -> None:
    """Make the folder, refuse one with anything else in it, and remove what a killed process left."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        names = sorted(os.listdir(out))
    except OSError as error:
        raise _unwritable(out, error) from error
    for name in names:
        path = out / name
        if name.endswith(".part") and (is_shard_file(name) or name.startswith(f".{INDEX}.")):
            path.unlink(missing_ok=True)
        elif name == INDEX or is_shard_file(name):
            values = read_dict(path) if name.endswith(".json") else {}
            if values.get("plan", plan) != plan:
                raise ValueError(
                    f"{out}: holds shards of other data or options ({name}); choose another --out, or "
                    "delete it"
                )
        else:
            raise ValueError(f"{out}: holds something else ({name}); choose a new folder as --out")


def _finished(task: _Task) -> bool:
    side = read_dict(side_of(task.path))
    if side.get("plan") != task.plan or not task.path.is_file():
        return False
    return task.path.stat().st_size == side.get("bytes")


def _write_all(tasks: list[_Task], workers: int | None) -> Iterator[Path]:
    """Write shards in several processes; gives each one's path, in order."""
    workers = min(workers or len(os.sched_getaffinity(0)), len(tasks))
    if workers <= 1:
        yield from map(_write_shard, tasks)
        return
    # `spawn`: forking a process that has threads (torch's) can hang
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_end_with_parent)
    try:
        yield from pool.map(_write_shard, tasks)
    except BrokenProcessPool as error:
        raise ValueError(
            "a writing process was killed, perhaps for want of memory; run the same command again, with "
            f"--workers {max(1, workers // 2)}"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Let this process end when its parent is killed (it would wait for ever), and leave Ctrl-C to that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _write_shard(task: _Task) -> Path:
    """Write one shard, then the file beside it that makes it count as whole."""
    path = task.path
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            with part.open("wb") as file:
                members = _write_tar(file, task)
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


def _write_tar(file: io.BufferedWriter, task: _Task) -> list[list[int]]:
    """All pairs into a tar; place and size of each picture and label map: [[at, size, at, size], ...]."""
    members: list[list[int]] = []
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for pair in task.pairs:
            suffix, picture, label = _contents(task.layout, pair, task.size)
            key = key_of(pair.name)
            members.append([*_add(tar, f"{key}.{suffix}", picture), *_add(tar, f"{key}.{LABEL}", label)])
    return members


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> tuple[int, int]:
    member = tarfile.TarInfo(name)  # its time and owner are 0
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
    padded = -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return tar.offset - padded, len(content)


def _contents(layout: Layout, pair: Pair, size: int | None) -> tuple[str, bytes, bytes]:
    """Suffix and bytes of a pair's picture, bytes of its label map. Raises ValueError naming a bad file."""
    image, label = layout.read(pair)  # all of it, so that no bad pair comes to light in a training
    picture = pair.image.read_bytes()
    suffix = {b"\xff\xd8": "jpg", b"\x89P": "png"}.get(picture[:2], "webp")
    if size is not None and min(label.shape) > size:
        image, label = _shrink(image, label, size)
        suffix = "png" if suffix == "png" else "jpg"
        name, options = _SAVING[suffix]
        picture = _encode(image, name, **options)
    try:
        ids = layout.space.encode_ids(label)
    except ValueError as error:
        raise ValueError(f"{pair.label}: {error}; give the label space an ignore_id") from error
    return suffix, picture, _id_png(ids)


def _shrink(image: np.ndarray, label: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Picture and label map with a shorter side of `size`."""
    height, width = (max(1, round(n * size / min(label.shape))) for n in label.shape)
    small = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    # the pixel in the middle of each new one, as in `batches`: the picture's resampling is centred, too
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in zip((height, width), label.shape, strict=True)
    )
    return np.array(small), label[rows[:, None], columns]


def _encode(image: np.ndarray, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, name, **options)
    return buffer.getvalue()


def _id_png(ids: np.ndarray) -> bytes:
    """A grey PNG of ids (h, w), uint8 or uint16.

    Not Pillow's: it filters each row, which makes label maps no smaller, and slower to decode (up to twice).
    """
    height, width = ids.shape
    depth = ids.itemsize
    rows = np.zeros((height, 1 + width * depth), np.uint8)  # each begins with its filter: 0, none
    rows[:, 1:] = ids.astype(f">u{depth}").view(np.uint8).reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8 * depth, 0, 0, 0, 0)  # grey, not interlaced
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _unwritable(path: Path, error: OSError) -> ValueError:
    return ValueError(
        f"{path}: cannot be written ({error.strerror}); make room or choose another --out, then run the same "
        "command again: finished shards stay"
    )
