"""Unpack a zip file that may be damaged, or made to do harm."""

from __future__ import annotations

import re
import shutil
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from dpsims.data.download import AGAIN, readable

__all__ = ["DamagedZip", "unpack"]

_OUTSIDE = re.compile(r"^/|^[A-Za-z]:|(^|/)\.\.(/|$)|[\\\0]")  # absolute, drive, parent, other separators


class DamagedZip(Exception):
    """The archive is not what it should be; the message says why."""


def unpack(file: Path, into: Path, folders: tuple[PurePosixPath, ...]) -> None:
    """Unpack what lies in `folders` of a zip file below the new folder `into`; shows a bar on a terminal.

    Nothing is written where the archive holds a name that leads outside of `into`, or a link, or more than
    the disk has room for. Raises DamagedZip for a bad archive, which zip's own CRCs tell as well; ValueError
    for too full a disk; OSError where files cannot be written.
    """
    from huggingface_hub.utils import tqdm  # the bar that the download has; none where there is no terminal

    try:
        with zipfile.ZipFile(file) as archive:
            members = [m for m in _checked(archive) if _lies_in(m, folders)]
            for folder in folders:
                if not any(_lies_in(m, (folder,)) for m in members):
                    raise DamagedZip(f"has no folder {folder}/")
            # a file takes whole blocks of the disk
            need, free = sum(m.file_size + 4096 for m in members), shutil.disk_usage(into.parent).free
            if need > free:
                raise ValueError(
                    f"{into.parent}: unpacking {file.name} needs {readable(need)}, {readable(free)} are "
                    f"free; make room, then {AGAIN}"
                )
            into.mkdir()
            for member in tqdm(members, desc=f"unpacking {file.name}", unit=" files", disable=None):
                _write(archive, member, into)
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError) as error:
        raise DamagedZip(f"damaged zip file ({error})") from error
    except (NotImplementedError, RuntimeError) as error:  # packed in an unknown way; with a password
        raise DamagedZip(f"cannot be unpacked ({error})") from error


def _checked(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """All members, each of them a plain file or folder with a harmless name."""
    for member in archive.infolist():
        # two names: as it stands in the file, and what zipfile makes of it and of the Unicode name beside it
        for name in (member.orig_filename, member.filename):
            if _OUTSIDE.search(name):
                raise DamagedZip(f"holds a name that leads elsewhere ({name!r}); nothing was unpacked")
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DamagedZip(f"holds a link or device ({member.filename!r}); nothing was unpacked")
    return archive.infolist()


def _lies_in(member: zipfile.ZipInfo, folders: tuple[PurePosixPath, ...]) -> bool:
    return any(member.filename.startswith(f"{folder}/") for folder in folders)


def _write(archive: zipfile.ZipFile, member: zipfile.ZipInfo, into: Path) -> None:
    path = into / member.filename
    if member.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target, 2**20)
