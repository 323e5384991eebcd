"""What the commands share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

PLAIN: dict[str, Any] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
}

Model = Annotated[str, typer.Argument(help="run directory, checkpoint, or `earth` (ships with the package)")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="another seed, other pictures")]


def writable_file(file: Path, option: str) -> None:
    """The same for the folder of a file that will be written. ValueError for one that is a folder."""
    writable(file.parent, option)
    if file.is_dir():
        raise ValueError(f"{file}: is a folder; give {option} a file")


def writable(folder: Path, option: str = "--out") -> Path:
    """Make the folder and try to write there: better now than after hours. ValueError where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ValueError(
            f"{folder}: cannot write there ({error.strerror}); choose another {option}"
        ) from error


@contextmanager
def folder_for(folder: Path) -> Iterator[None]:
    """`writable`, and where nothing came to lie in it because of an error, the folder is gone again."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]  # innermost first
    writable(folder)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for path in new:
                path.rmdir()  # only an empty one
        raise


LARGEST_SIDE = 16_384  # of pictures that are compared; beyond it, a slip of the pen is likelier


def size_of(text: str | None, option: str = "--size") -> Any:
    """`256x512` -> (256, 512); None for None. ValueError for anything else."""
    if text is None:
        return None
    sides = text.split("x")
    if len(sides) != 2 or not all(side.isdecimal() and 0 < int(side) <= LARGEST_SIDE for side in sides):
        raise ValueError(
            f"{option} {text}: give HEIGHTxWIDTH, such as 256x512, each up to {LARGEST_SIDE:,} pixels"
        )
    return int(sides[0]), int(sides[1])
