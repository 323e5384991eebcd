"""A miniature planet, and the two wheels that `fetch_earth` reads with it inside."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpsims.data import earth_tiles, fetch_earth
from dpsims.data.earth_tiles import Planet


def planet(seed: int = 0) -> Planet:
    """Continents of all 17 classes in a sea, with gray relief."""
    rng = np.random.default_rng(seed)
    cover = rng.integers(0, 17, (9, 18), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    cover[:, ::3] = np.where(cover[:, ::3] == 0, 1, cover[:, ::3])
    image = rng.integers(0, 90, (54, 108, 3), dtype=np.uint8)
    relief = rng.integers(0, 255, (108, 216, 3), dtype=np.uint8)
    return Planet(Image.fromarray(image), Image.fromarray(cover), Image.fromarray(relief))


def small_tiles(monkeypatch: pytest.MonkeyPatch, block: int = 40, tile: int = 32) -> None:
    """Two bands of `block` pixels, so that the planet is made in no time."""
    values = {"BANDS": 2, "BLOCK": block, "TILE": tile, "STEP": (block - tile) or block, "LEAST_LAND": 0.01}
    for name, value in values.items():
        monkeypatch.setattr(earth_tiles, name, value)


def write_wheels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both wheels, whose digests are the expected ones from here on. Gives the folder."""
    world = planet()
    folder.mkdir()
    for name, images in (("BASEMAP", (world.image, world.relief)), ("LAND_COVER", (world.cover,))):
        wheel: fetch_earth.Wheel = getattr(fetch_earth, name)
        info = f"{wheel.file.split('-')[0]}-{wheel.version}.dist-info"
        with zipfile.ZipFile(folder / wheel.file, "w") as archive:
            for member, image in zip(wheel.members, images, strict=True):
                buffer = io.BytesIO()
                image.save(buffer, "TIFF" if member.endswith("tif") else "PNG")
                archive.writestr(member, buffer.getvalue())
            archive.writestr(
                f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {wheel.name}\nVersion: {wheel.version}\n"
            )
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        digest = hashlib.sha256((folder / wheel.file).read_bytes()).hexdigest()
        monkeypatch.setattr(fetch_earth, name, replace(wheel, sha256=digest))
    return folder
