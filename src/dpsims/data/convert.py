"""`dpsims data convert`: label maps from one coding to another.

Everything unfinished stands in OUT.partial, beside OUT: OUT appears under its name in one step, when it is
complete. The same call again goes on where a stopped one ended, and leaves alone what is complete: the file
convert.json, in either folder, tells what was converted, and how.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from dpsims.data.files import Codes, decode_codes, read_codes
from dpsims.data.parallel import LOCK, locked, run_many
from dpsims.data.report import plural
from dpsims.labels import LabelSpace
from dpsims.writing import write_whole

Coding = Literal["ids", "colors"]

_NOTE = "convert.json"
_FORMAT = 1  # of the results; another number starts half-done conversions afresh


@dataclass(frozen=True)
class _Task:
    """What to do with each map. table: index in `source` -> index in `target`, int64 (K+1,)."""

    source: LabelSpace
    target: LabelSpace
    table: np.ndarray
    to: Coding
    palette: Coding | None
    folder: Path


def convert_maps(
    files: list[Path],
    out: Path,
    source: LabelSpace,
    target: LabelSpace,
    to: Coding = "ids",
    palette: Coding | None = None,
    drop: bool = False,
    workers: int | None = None,
) -> int:
    """Write each label-map PNG into the folder `out`, under its stem, in another coding; how many there are.

    source, target: the classes of the files and of the results; classes go by name (`LabelSpace.table_to`),
    drop: those that `target` does not have become unlabelled. to: `ids` writes palette PNGs, their indices
    the ids of `target` and their palette its colours (16-bit grey where an id is above 255); `colors` writes
    RGB PNGs. palette: how palette PNGs among the files are read: by their `ids`, by their `colors`, or
    (None) by their ids if the colours do not contradict them. `out` also gets the `classes.json` of the
    results, and a `convert.json` by which the same call again, on unchanged files, finds nothing to do. What
    happens beside the results is told on stderr.

    Raises ValueError, before anything is written, where `out` exists and is not the result of this very call,
    where `out` and the files' folders lie in one another, and where the label spaces do not fit; later for a
    bad file and a full disk: what is done by then stays in OUT.partial, and the same call goes on.
    """
    if to not in ("ids", "colors"):
        raise ValueError(f"--to {to}: use ids or colors")
    if palette not in (None, "ids", "colors"):
        raise ValueError(f"--palette {palette}: use ids or colors, or leave it out")
    if out.name in ("", ".."):
        raise ValueError(f"{out}: name a new folder")
    work = out.with_name(f"{out.name}.partial")
    task = _Task(source, target, _table(source, target, to, drop), to, palette, work / "maps")
    names = _output_names(files)
    settings = _settings(files, names, task, drop)
    try:
        if _is_complete(out, names, settings):
            _tell(f"{out}: already complete")
            if not task.folder.exists() and _read_settings(work) == settings:  # killed just before the end
                with locked(work, "convert"):
                    _remove(work)
            return len(files)
        _check_places(files, out, work)
        if work.exists() and not _is_ours(work):
            raise ValueError(
                f"{work}: in the way, and holds other things than a half-done conversion; move it"
            )
        with locked(work, "convert"):
            _prepare(work, settings)
            done = {path.name for path in task.folder.iterdir()}
            todo = [(file, name) for file, name in zip(files, names, strict=True) if name not in done]
            _convert_all(task, todo, workers)
            write_whole(task.folder / "classes.json", _pretty(target).encode())
            write_whole(task.folder / _NOTE, json.dumps(settings).encode())
            task.folder.rename(out)
            _remove(work)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ValueError(f"{out}: the disk is full; make room, then {_again(work)}") from error
        reason = f"{error.filename or out}: {error.strerror or error}"
        raise ValueError(f"{reason}; mend that, then {_again(work)}") from error
    return len(files)


def _convert_all(task: _Task, todo: list[tuple[Path, str]], workers: int | None) -> None:
    try:
        for _ in run_many(_convert, task, todo, workers, "maps converted"):
            pass
    except ValueError as error:
        raise ValueError(f"{error}; then {_again(task.folder.parent)}") from error
    except KeyboardInterrupt:
        _tell(f"what is done is kept in {task.folder.parent}: the same command goes on")
        raise


def _convert(task: _Task, item: tuple[Path, str]) -> None:
    file, name = item
    codes = read_codes(file)
    if codes.palette is not None and task.palette is not None:
        codes = Codes(codes.values) if task.palette == "ids" else _by_colors(codes, codes.palette, file)
    index = task.table[decode_codes(codes, task.source, str(file))]
    write_whole(task.folder / name, _png(index, task.target, task.to, str(file)))


def _by_colors(codes: Codes, palette: np.ndarray, file: Path) -> Codes:
    if codes.values.size and codes.values.max() >= len(palette):
        raise ValueError(
            f"{file}: id {codes.values.max()} has no colour in the file's palette ({len(palette)} colours); "
            "save the map anew, or use --palette ids"
        )
    return Codes(palette[codes.values])


def _png(index: np.ndarray, target: LabelSpace, to: Coding, where: str) -> bytes:
    """Indices in `target` (h, w) -> the file's bytes. ValueError where unlabelled pixels have no code."""
    if target.ignore_id is None and (index == target.ignore_index).any():
        y, x = np.argwhere(index == target.ignore_index)[0]
        raise ValueError(
            f"{where}: unlabelled at row {y}, column {x}, and the target classes have no ignore_id; "
            "give them one"
        )
    if to == "colors":
        image = Image.fromarray(target.colorize(index))
    else:
        ids = target.encode_ids(index)
        image = Image.fromarray(ids)
        if ids.dtype == np.uint8:
            image.putpalette(_palette_of_ids(target).tobytes())
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _palette_of_ids(space: LabelSpace) -> np.ndarray:
    """uint8 (n, 3): the colour of each id up to the highest; black where there is no class."""
    ids = [*space.ids, *([] if space.ignore_id is None else [space.ignore_id])]
    palette = np.zeros((max(ids) + 1, 3), np.uint8)
    palette[ids] = space.palette[: len(ids)]
    return palette


def _table(source: LabelSpace, target: LabelSpace, to: Coding, drop: bool) -> np.ndarray:
    """`source.table_to(target)`, if its results can be coded."""
    table = source.table_to(target, drop)
    dropped = [source.names[i] for i in np.flatnonzero(table[:-1] == target.ignore_index)]
    if dropped and target.ignore_id is None:
        raise ValueError(
            f"{', '.join(dropped)} would become unlabelled, and the target classes have no ignore_id; "
            "give them one"
        )
    if to == "colors":
        count = target.num_classes + (target.ignore_id is not None)
        read_back = target.classes_of_colors(target.palette[:count])
        shared = [name for name, i in zip([*target.names, "unlabelled"], read_back, strict=False) if i < 0]
        if shared:
            raise ValueError(
                f"target classes share a colour with others ({', '.join(shared)}): a map of colours could "
                "not be read back; give each a colour of its own, or convert to ids"
            )
    return table


def _output_names(files: list[Path]) -> list[str]:
    if not files:
        raise ValueError("no label maps given: name PNG files or folders of them")
    found: dict[str, Path] = {}
    for file in files:
        other = found.setdefault(f"{file.stem}.png", file)
        if other is not file:
            raise ValueError(f"{file}: same name as {other}; give each a call and an output of its own")
    return list(found)


def _check_places(files: list[Path], out: Path, work: Path) -> None:
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        other = ", made of other files or with other options" if "spaces" in _read_settings(out) else ""
        raise ValueError(f"{out}: exists{other}; choose another folder, or remove it")
    for folder in {file.parent.resolve() for file in files}:
        for mine in (out.resolve(), work.resolve()):
            if mine.is_relative_to(folder) or folder.is_relative_to(mine):
                raise ValueError(f"{out}: lies in one place with the maps in {folder}; choose another folder")


def _settings(files: list[Path], names: list[str], task: _Task, drop: bool) -> dict[str, Any]:
    """All that the results depend on; of each file what tells whether it has changed."""
    inputs = {}
    for file, name in zip(files, names, strict=True):
        try:
            stat = file.stat()
        except OSError as error:
            raise ValueError(f"{file}: {error.strerror}; give label-map PNGs that can be read") from error
        inputs[name] = [str(file.resolve()), stat.st_size, stat.st_mtime_ns]
    spaces = json.dumps([task.source.to_dict(), task.target.to_dict()])
    return {
        "format": _FORMAT,
        "to": task.to,
        "palette": task.palette,
        "drop": drop,
        "spaces": hashlib.sha256(spaces.encode()).hexdigest(),
        "inputs": inputs,
    }


def _is_complete(out: Path, names: list[str], settings: dict[str, Any]) -> bool:
    """Whether `out` is what this conversion makes, and nothing of it has been removed."""
    return _read_settings(out) == settings and all(
        (out / name).is_file() for name in [*names, "classes.json"]
    )


def _is_ours(work: Path) -> bool:
    """Whether a folder holds nothing but what a conversion leaves there."""
    maps = work / "maps"
    if not work.is_dir() or work.is_symlink() or maps.is_symlink():
        return False
    if maps.exists() and _read_settings(work).get("format") is None:
        return False
    others = [p for p in work.iterdir() if p.name not in (_NOTE, LOCK, "maps") and not _is_part(p)]
    inside = maps.iterdir() if maps.is_dir() else ()
    return not others and all(
        p.is_file() and (p.suffix == ".png" or p.name in ("classes.json", _NOTE) or _is_part(p))
        for p in inside
    )


def _is_part(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".part")


def _prepare(work: Path, settings: dict[str, Any]) -> None:
    """Keep the maps that an earlier call made of the same files with the same settings, and no others."""
    before, maps = _read_settings(work), work / "maps"
    if before | {"inputs": None} == settings | {"inputs": None}:
        same = {name for name, entry in settings["inputs"].items() if before["inputs"].get(name) == entry}
    else:
        same = set()
    left = list(maps.iterdir()) if maps.is_dir() else []
    unfit = [path for path in left if path.name not in same]  # also what a killed process left half-written
    if lost := sum(path.name in before["inputs"] for path in unfit):
        _tell(f"{work}: {plural(lost, 'map')} of a stopped conversion of other files or options: removed")
    for path in unfit:
        path.unlink()
    write_whole(work / _NOTE, json.dumps(settings).encode())
    maps.mkdir(exist_ok=True)  # after the note: maps without it are not ours


def _read_settings(folder: Path) -> dict[str, Any]:
    try:
        settings = json.loads((folder / _NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _remove(work: Path) -> None:
    """Remove what is left of OUT.partial; the lock is still held, and its file goes with it."""
    for path in work.iterdir():
        path.unlink()
    work.rmdir()


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def _again(work: Path) -> str:
    return f"run the same command again: what is done stays in {work}"


def _pretty(space: LabelSpace) -> str:
    """classes.json with one class a line."""
    values = space.to_dict()
    classes = ",\n".join(f"  {json.dumps(item)}" for item in values.pop("classes"))
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in values.items()]
    return "{\n" + ",\n".join([*lines, f' "classes": [\n{classes}\n ]']) + "\n}\n"
