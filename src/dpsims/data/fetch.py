"""`dpsims data fetch`: download a benchmark's archives, check them and unpack them where the readers look.

Everything unfinished stands in ROOT/.fetch: a folder of the data set appears under its own name in one step,
when it is whole. The same command again goes on where a stopped one ended, in mid-download too.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dpsims.data.download import AGAIN, download, readable
from dpsims.data.parallel import locked
from dpsims.data.unpack import DamagedZip, unpack

__all__ = ["BY_HAND", "DOWNLOADS", "Archive", "Download", "fetch"]

Say = Callable[[str], object]


@dataclass(frozen=True)
class Archive:
    """A zip file of a data set."""

    url: str
    size: int | None
    """bytes; None where no source gives them"""
    digest: str | None
    """`sha256:...`, `sha1:...` or `md5:...`; None where none was published"""
    target: str
    """folder below ROOT that it is unpacked into; "." for ROOT itself"""
    holds: tuple[str, ...]
    """folders below ROOT that it brings: where they exist, it is finished"""

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Download:
    """What `fetch` knows of a data set. terms: one line on its terms of use, and where they stand."""

    title: str
    archives: tuple[Archive, ...]
    terms: str


DOWNLOADS: dict[str, Download] = {
    "ade20k": Download(
        "ADE20K (SceneParsing, 150 classes)",
        (
            # size, SHA-256: tensorflow/datasets, url_checksums/ade20k.txt; other projects name the same one
            # (gluon-cv's scripts/datasets/ade20k.py has a SHA-1: 219e1696abb36c8ba3a3afe7fb2f4b4606a897c7)
            Archive(
                "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
                967382037,
                "sha256:7ff1be44964418441f542a7cc1e1a650e7dc0fc275f5d23252bc9bbdbc977b29",
                ".",
                ("ADEChallengeData2016",),
            ),
        ),
        "pictures for non-commercial research and education only, annotations BSD 3-clause: "
        "https://groups.csail.mit.edu/vision/datasets/ADE20K/terms/",
    ),
    "cocostuff": Download(
        "COCO-Stuff (164k pictures of COCO 2017)",
        (
            # no checksum found in any source; nightrome/cocostuff's README says "659 MB". It comes first: a
            # server of its own, whose absence is better known before 20 GB are there.
            Archive(
                "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/"
                "stuffthingmaps_trainval2017.zip",
                None,
                None,
                "annotations",
                ("annotations/train2017", "annotations/val2017"),
            ),
            # sizes, SHA-256 of both: tensorflow/datasets, url_checksums/coco.txt and coco2017.txt; lists of
            # several other projects agree
            Archive(
                "http://images.cocodataset.org/zips/val2017.zip",
                815585330,
                "sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
                "images",
                ("images/val2017",),
            ),
            Archive(
                "http://images.cocodataset.org/zips/train2017.zip",
                19336861798,
                "sha256:69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
                "images",
                ("images/train2017",),
            ),
        ),
        "pictures under Flickr's terms of use, COCO's and COCO-Stuff's annotations CC BY 4.0: "
        "https://cocodataset.org/#termsofuse, https://github.com/nightrome/cocostuff#licensing",
    ),
    "facades": Download(
        "CMP Facades (base and extended, 12 classes)",
        tuple(
            # no size and no checksum found in any source
            Archive(
                f"https://cmp.felk.cvut.cz/~tylecr1/facade/CMP_facade_DB_{part}.zip", None, None, ".", (part,)
            )
            for part in ("base", "extended")
        ),
        "no license of the authors is known to us (copies elsewhere say MIT, which is not theirs to grant); "
        "cite Tylecek and Sara, GCPR 2013: https://cmp.felk.cvut.cz/~tylecr1/facade/",
    ),
}

BY_HAND: dict[str, str] = {
    "cityscapes": """\
Cityscapes cannot be fetched for you: its licence (non-commercial use) asks for an account of your own.

1. Register at https://www.cityscapes-dataset.com/register/ (an address of a university or company helps).
2. Download two packages from https://www.cityscapes-dataset.com/downloads/ :
     leftImg8bit_trainvaltest.zip (11 GB)    the pictures
     gtFine_trainvaltest.zip (241 MB)        the label maps
   On a machine without a browser, the official tool asks for the account's name and password:
     pip install cityscapesscripts
     csDownload leftImg8bit_trainvaltest.zip gtFine_trainvaltest.zip
3. Unzip both into one folder DIR. It then holds
     DIR/leftImg8bit/{train,val,test}/CITY/*_leftImg8bit.png
     DIR/gtFine/{train,val,test}/CITY/*_gtFine_labelIds.png
4. See whether all is there:
     dpsims data check DIR""",
}


def fetch(
    name: str, root: Path, mirror: str | None = None, keep_archives: bool = False, say: Say = print
) -> Path:
    """Download, check and unpack a data set of DOWNLOADS below `root`; what is there already is skipped.

    mirror: a URL that replaces all of an archive's URL but the file's name; checksums are checked all the
    same. An archive that the user has put at ROOT/NAME.zip is used and left there; with `keep_archives` the
    downloaded ones end up there too. say: gets a line of text for every step. Returns `root`.

    Raises ValueError, with the mend, for an unknown name, a failing network or server, a wrong or damaged
    archive, a full disk. What was downloaded is kept then, unless it is wrong.
    """
    if name in BY_HAND:
        raise ValueError(
            f"{name}: asks for a login and so has to be fetched by hand; dpsims.data.fetch.BY_HAND says how"
        )
    if name not in DOWNLOADS:
        raise ValueError(f"{name}: unknown data set; use one of {', '.join([*DOWNLOADS, *BY_HAND])}")
    if mirror is not None and not mirror.startswith(("http://", "https://")):
        raise ValueError(f"--mirror {mirror}: give a URL that begins with http:// or https://")
    wanted = DOWNLOADS[name]
    say(f"{wanted.title}; terms: {wanted.terms}")
    work = root / ".fetch"
    try:
        with locked(work, "fetch"):
            for archive in wanted.archives:
                _fetch_archive(archive, root, work, mirror, keep_archives, say)
        shutil.rmtree(work)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ValueError(f"{root}: the disk is full; make room, then {AGAIN}") from error
        raise ValueError(
            f"{error.filename or root}: {error.strerror or error}; mend that, then {AGAIN}"
        ) from error
    return root


def _fetch_archive(
    archive: Archive, root: Path, work: Path, mirror: str | None, keep_archives: bool, say: Say
) -> None:
    missing = [folder for folder in archive.holds if not _there(root / folder)]
    if not missing:
        say(f"{archive.name}: already there ({', '.join(archive.holds)})")
        return
    file = _obtain(archive, root, work, mirror, say)
    say(f"{archive.name}: unpacking" + ("" if archive.digest else " (checked by the zip's own CRCs)"))
    unpacked = work / f"{archive.name.removesuffix('.zip')}.unpacked"
    if unpacked.exists():  # a run stopped in the midst of it
        shutil.rmtree(unpacked)
    inside = {folder: PurePosixPath(folder).relative_to(archive.target) for folder in missing}
    try:
        unpack(file, unpacked, tuple(inside.values()))
    except DamagedZip as error:
        if file.parent == work:
            file.unlink()
            mend = "it is deleted; run the same command again, or give another server with --mirror URL"
        else:
            mend = "remove it, then run the same command again"
        raise ValueError(f"{file}: {error}; {mend}") from error
    (root / archive.target).mkdir(parents=True, exist_ok=True)
    for folder in missing:
        (unpacked / inside[folder]).rename(root / folder)
    shutil.rmtree(unpacked)
    if file.parent == work and keep_archives:
        file.rename(root / archive.name)
    elif file.parent == work:
        file.unlink()
    say(f"{archive.name}: done ({', '.join(str(root / folder) for folder in missing)})")


def _there(folder: Path) -> bool:
    """Whether something stands there; an empty folder does not count, and is replaced."""
    return folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))


def _obtain(archive: Archive, root: Path, work: Path, mirror: str | None, say: Say) -> Path:
    """The checked archive: the user's own, or one downloaded by an earlier run or now."""
    own, file, part = root / archive.name, work / archive.name, work / f"{archive.name}.part"
    if own.exists():
        say(f"{archive.name}: using {own}")
        if wrong := _what_is_wrong(own, archive):
            raise ValueError(f"{own}: {wrong}; remove or rename it, then run the same command again")
        return own
    if file.exists():  # it got this name only after its check
        return file
    url = archive.url if mirror is None else f"{mirror.rstrip('/')}/{archive.name}"
    wrong = None
    for _ in range(2):
        if wrong:
            say(f"{url}: {wrong}; downloading it once more")
        _announce(archive, url, part, say)
        download(url, archive.size, part, own)
        wrong = _what_is_wrong(part, archive)
        if not wrong:
            part.rename(file)
            return file
        part.unlink()
    raise ValueError(
        f"{url}: {wrong}, twice; try again later, give another server with --mirror URL, "
        f"or put the right file at {own}"
    )


def _announce(archive: Archive, url: str, part: Path, say: Say) -> None:
    """Say what is about to be downloaded. Raises ValueError where the disk has no room for it."""
    have = part.stat().st_size if part.exists() else 0
    size = "size unknown" if archive.size is None else readable(archive.size)
    say(f"{archive.name}: downloading {url} ({size})" + (f", {readable(have)} are there" if have else ""))
    if archive.digest is None:
        say(f"{archive.name}: no published checksum")
    free = shutil.disk_usage(part.parent).free
    if archive.size is not None and archive.size - have > free:
        raise ValueError(
            f"{part.parent}: {archive.name} needs {readable(archive.size - have)}, {readable(free)} are "
            f"free; make room, then {AGAIN}"
        )


def _what_is_wrong(file: Path, archive: Archive) -> str | None:
    """Why this is not the archive, or None if it is."""
    size = file.stat().st_size
    if archive.size is not None and size != archive.size:
        return f"is {size} bytes, expected {archive.size}"
    if archive.digest is None:
        return None if zipfile.is_zipfile(file) else "is not a whole zip file"
    method = archive.digest.partition(":")[0]
    with file.open("rb") as stream:
        found = f"{method}:{hashlib.file_digest(stream, method).hexdigest()}"
    return None if found == archive.digest else f"has {found}, expected {archive.digest}"
