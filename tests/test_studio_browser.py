"""The studio's page, driven in Debian's Chromium against a server that runs."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from dpsims.labels import LabelSpace
from dpsims.studio.engine import Engine, Job
from dpsims.studio.hosted import host
from tests.browsers import start_chromium
from tests.command_line import SPACE, write_model
from tests.studio_server import Running, png, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

EARTH = LabelSpace.named("earth")
FOREST, DESERT = EARTH.names.index("broadleaf forest"), EARTH.names.index("desert")
WETLAND = EARTH.names.index("wetland")  # not in the map that it opens with
Point = tuple[float, float]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from start_chromium()


@pytest.fixture(scope="module")
def jobs() -> Iterator[list[Job]]:
    """What reaches the engine, in order."""
    seen: list[Job] = []
    submit = Engine.submit

    def record(engine: Engine, job: Job) -> None:
        seen.append(job)
        submit(engine, job)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "submit", record)
        yield seen


@pytest.fixture(scope="module")
def server(jobs: list[Job], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    tiny = write_model(tmp_path_factory.mktemp("models") / "tiny")
    with running(host(["earth", str(tiny)]), hosts={"127.0.0.1"}) as started:
        yield started


class Studio:
    """The page, and what a person does on it."""

    def __init__(self, page: Page, url: str, jobs: list[Job]) -> None:
        self.page, self.url, self.jobs = page, url, jobs
        self.said: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", lambda dialog: dialog.accept())  # to leave a painted map is asked

    def open(self, fragment: str = "") -> Studio:
        self.page.goto(f"{self.url}/{fragment}")
        self.page.wait_for_selector("body[data-shown]")
        return self.settle()

    def settle(self) -> Studio:
        """Until the newest state's picture is shown."""
        self.page.wait_for_selector("body:not(.busy)")
        return self

    @property
    def last(self) -> Job:
        return self.jobs[-1]

    @property
    def label(self) -> np.ndarray:
        """The map that was sent last."""
        return self.last.label.numpy()

    @property
    def picture(self) -> np.ndarray:
        """What was generated last, in 0..255."""
        return 127.5 * (self.last.pictures.result(0)[0].permute(1, 2, 0).numpy() + 1)

    def tool(self, name: str) -> Studio:
        self.page.locator("#tools").get_by_role("button", name=name).click()
        return self

    def choose(self, name: str) -> Studio:
        self.page.locator("#palette").get_by_role("button", name=name, exact=True).click()
        return self

    def at(self, x: float, y: float) -> Point:
        """Screen position of a place in the map, given as shares of its sides."""
        box = self.page.locator("#map").bounding_box()
        assert box is not None
        height, width = self.label.shape
        scale = 0.98 * min(box["width"] / width, box["height"] / height)
        other = self.page.locator("#picture").bounding_box()
        assert other is not None
        scale = min(scale, 0.98 * min(other["width"] / width, other["height"] / height))
        middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        return middle[0] + (x - 0.5) * width * scale, middle[1] + (y - 0.5) * height * scale

    def drag(self, *places: Point) -> Studio:
        mouse = self.page.mouse
        mouse.move(*self.at(*places[0]))
        mouse.down()
        for place in places[1:]:
            mouse.move(*self.at(*place), steps=4)
        mouse.up()
        return self.settle()

    def click(self, *place: float) -> Studio:
        self.page.mouse.click(*self.at(place[0], place[1]))
        return self.settle()

    def press(self, keys: str) -> Studio:
        self.page.keyboard.press(keys)
        return self.settle()

    def button(self, name: str) -> Studio:
        self.page.get_by_role("button", name=name, exact=True).click()
        return self.settle()

    @property
    def status(self) -> str:
        return self.page.locator("#status").inner_text()

    def index(self, x: float, y: float) -> int:
        height, width = self.label.shape
        return int(self.label[int(y * height), int(x * width)])


@pytest.fixture
def studio(browser: Browser, server: Running, jobs: list[Job]) -> Iterator[Studio]:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    opened = Studio(page, server.url, jobs).open()
    yield opened
    said = [text for text in opened.said if "Failed to load resource" not in text]  # refusals, in some tests
    page.close()
    assert said == []


def test_it_opens_with_the_shipped_model_and_a_picture(studio: Studio):
    assert studio.last.model == "earth"
    assert len(np.unique(studio.label)) >= 3
    chosen = studio.page.locator("#palette [aria-pressed=true]").get_attribute("data-index")
    assert chosen is not None and 0.02 <= (studio.label == int(chosen)).mean() < 0.2  # no specks, no sea
    seen = studio.page.evaluate(
        """() => { const pane = document.getElementById('picture');
        const {data} = pane.getContext('2d').getImageData(0, 0, pane.width, pane.height);
        const colors = new Set();
        for (let i = 0; i < data.length; i += 4) colors.add(data[i] << 16 | data[i + 1] << 8 | data[i + 2]);
        return colors.size; }"""
    )
    assert seen > 500  # a picture, no plain ground
    assert studio.page.locator("#timing").inner_text().endswith(" ms")


def test_painting_reaches_the_map_and_another_picture_comes(studio: Studio):
    before, old = studio.label.copy(), studio.picture.copy()
    studio.choose("wetland").tool("Brush").drag((0.2, 0.2), (0.4, 0.3))
    changed = studio.label != before
    assert (studio.label[changed] == WETLAND).all() and 0.005 < changed.mean() < 0.2
    assert studio.index(0.3, 0.25) == WETLAND
    assert np.abs(studio.picture - old).mean() > 1
    studio.tool("Eraser").drag((0.1, 0.15), (0.5, 0.35))
    studio.drag((0.15, 0.15), (0.45, 0.33))
    assert (studio.label != before).mean() < changed.mean() / 2  # back to what was opened


def test_fill_rectangle_polygon_and_eyedropper(studio: Studio):
    studio.tool("Rectangle").choose("wetland").drag((0.25, 0.25), (0.75, 0.75))
    height, width = studio.label.shape
    assert abs((studio.label == WETLAND).mean() - 0.25) < 0.02
    assert studio.index(0.5, 0.5) == WETLAND and studio.index(0.77, 0.5) != WETLAND
    studio.tool("Fill").choose("broadleaf forest").click(0.5, 0.5)
    assert WETLAND not in studio.label[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3]
    studio.tool("Polygon").choose("wetland")
    for place in ((0.3, 0.3), (0.7, 0.3), (0.5, 0.7)):
        studio.page.mouse.click(*studio.at(*place))
    studio.press("Enter")
    assert studio.index(0.5, 0.4) == WETLAND and studio.index(0.32, 0.6) == FOREST
    studio.tool("Eyedropper").click(0.32, 0.6)
    assert studio.page.locator("#palette [aria-pressed=true]").inner_text().startswith("broadleaf forest")


def test_undo_and_redo(studio: Studio):
    opened = studio.label.copy()
    studio.choose("wetland").tool("Rectangle").drag((0.1, 0.1), (0.3, 0.3))
    once = studio.label.copy()
    studio.drag((0.6, 0.6), (0.9, 0.9))
    twice = studio.label.copy()
    studio.press("Control+z")
    assert (studio.label == once).all()
    studio.button("Undo")
    assert (studio.label == opened).all()
    assert studio.page.get_by_role("button", name="Undo").is_disabled()
    studio.press("Control+Shift+z").press("Control+y")
    assert (studio.label == twice).all()


INSIDE, OUTSIDE = 3.0, 3.0
"""mean change of a resampled area, and of what is far from it, on 0..255"""


def test_resampling_an_area_changes_it_and_little_else(studio: Studio):
    old = studio.picture.copy()
    desert = studio.label == DESERT
    studio.tool("Resample area").click(0.7, 0.45)  # in the middle of the desert
    region = studio.last.region
    assert region is not None
    clicked = region.bool().numpy().reshape(desert.shape)
    assert 0.9 < clicked.sum() / desert.sum() <= 1 and desert[clicked].all()
    change = np.abs(studio.picture - old).mean(-1)
    rows = np.flatnonzero(clicked.any(1))
    far = np.zeros_like(desert)
    far[rows[-1] + desert.shape[0] // 3 :] = True
    assert far.any() and change[far].mean() < OUTSIDE < INSIDE + 1e-9 < change[clicked].mean()
    studio.drag((0.1, 0.8), (0.3, 0.8), (0.3, 0.95), (0.1, 0.95))  # a lasso: a second region
    second = studio.last.region
    assert (
        second is not None
        and int(second.max()) == 2
        and abs(float((second == 2).float().mean()) - 0.03) < 0.01
    )
    studio.button("Reset areas")
    assert studio.last.region is None and np.abs(studio.picture - old).max() < 1
    studio.press("Control+z")
    assert studio.last.region is not None


def test_noise_dice_blend_and_variations(studio: Studio):
    def noise() -> np.ndarray:
        return studio.last.noise.numpy().copy()

    first = noise()
    studio.page.locator("#dice").click()
    studio.settle()
    second = noise()
    assert not np.allclose(first, second)
    studio.page.locator("#blend").fill("50")
    studio.settle()
    halfway = noise()
    assert (
        not np.allclose(halfway, second)
        and abs(float(np.corrcoef(halfway.ravel(), second.ravel())[0, 1]) - 0.7) < 0.2
    )
    studio.page.get_by_role("button", name="Variations").click()
    choices = studio.page.locator("#choices button")
    studio.page.wait_for_selector("#strip img")
    assert choices.count() == 6
    choices.nth(2).click()
    studio.settle()
    chosen = choices.nth(2).get_attribute("aria-label")
    assert chosen is not None and chosen.endswith(studio.page.locator("#seed").input_value())
    assert studio.page.locator("#blend").input_value() == "0"


def give(studio: Studio, name: str, content: bytes) -> None:
    studio.page.locator("#file").set_input_files(
        {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    )


def test_a_map_is_uploaded_in_any_coding(studio: Studio):
    label = np.random.default_rng(0).integers(0, EARTH.num_classes, (12, 20)).repeat(8, 0).repeat(8, 1)
    palette = Image.fromarray(label.astype(np.uint8)).convert("P")
    palette.putpalette(EARTH.palette[: EARTH.num_classes].tobytes())
    for name, content in (
        ("colors.png", png(EARTH.colorize(label))),
        ("palette.png", png(palette)),
        ("ids.png", png(label.astype(np.uint8))),
    ):
        give(studio, name, content)
        studio.page.wait_for_selector(f"text=opened {name}")
        studio.settle()
        assert (studio.label == label).all(), name


def test_a_file_that_is_none_is_refused_and_nothing_is_lost(studio: Studio):
    before = studio.label.copy()
    for name, content, message in (
        ("broken.png", b"not a png", "is not a PNG file"),
        ("wrong.png", png(np.full((20, 20), 77, np.uint8)), "label id 77"),
        ("broken.json", b"{}", "no session of the studio"),
    ):
        give(studio, name, content)
        studio.page.wait_for_selector(f"#status:has-text('{message}')")
    studio.choose("wetland").tool("Fill").click(0.5, 0.03)
    assert studio.label.shape == before.shape and studio.status == ""


def test_download_holds_picture_map_and_settings(studio: Studio):
    studio.choose("wetland").tool("Rectangle").drag((0.2, 0.2), (0.4, 0.4))
    studio.page.locator("#seed").fill("77")
    studio.settle()
    picture, label = studio.picture.copy(), studio.label.copy()
    with studio.page.expect_download() as waiting:
        studio.page.get_by_role("button", name="Download").click()
    with zipfile.ZipFile(waiting.value.path()) as archive:
        found = np.array(Image.open(io.BytesIO(archive.read("picture_0.png")))).astype(float)
        assert np.abs(found - picture).max() <= 1
        assert (np.array(Image.open(io.BytesIO(archive.read("map.png")))) == label).all()
        assert json.loads(archive.read("settings.json"))["seeds"] == [77]


def edited(studio: Studio) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A session with everything in it: map, regions, noise."""
    studio.choose("wetland").tool("Rectangle").drag((0.2, 0.5), (0.6, 0.8))
    studio.page.locator("#seed").fill("12")
    studio.page.locator("#blend-seed").fill("34")
    studio.page.locator("#blend").fill("40")
    studio.tool("Resample area").click(0.4, 0.65)
    region = studio.last.region
    assert region is not None
    return studio.label.copy(), region.numpy().copy(), studio.last.noise.numpy().copy()


def is_restored(studio: Studio, kept: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    region = studio.last.region
    assert (studio.label == kept[0]).all()
    assert region is not None and (region.numpy() == kept[1]).all()
    assert np.allclose(studio.last.noise.numpy(), kept[2])


def test_a_session_comes_back_from_its_file(studio: Studio, tmp_path: Path):
    kept = edited(studio)
    with studio.page.expect_download() as waiting:
        studio.page.get_by_role("button", name="Save session").click()
    content = waiting.value.path().read_bytes()
    studio.open()
    assert studio.last.region is None
    give(studio, "session.json", content)
    studio.page.wait_for_selector("text=opened session.json")
    is_restored(studio.settle(), kept)
    give(studio, "cut.json", content[: len(content) // 2])
    studio.page.wait_for_selector("#status:has-text('no session of the studio')")
    other = json.dumps({**json.loads(content), "model": "another"}).encode()
    give(studio, "other.json", other)
    studio.page.wait_for_selector("#status:has-text('another, which is not here')")


def test_a_session_comes_back_from_its_link(
    studio: Studio, browser: Browser, server: Running, jobs: list[Job]
):
    kept = edited(studio)
    studio.button("Copy link")
    address = studio.page.evaluate("location.href")
    assert "#session=" in address
    page = browser.new_page()
    other = Studio(page, server.url, jobs).open("#" + address.partition("#")[2])
    is_restored(other, kept)
    broken = Studio(browser.new_page(), server.url, jobs).open("#session=broken")
    assert (
        "was it cut short" in broken.status
    )  # the picture of the map that is shown instead does not wipe it
    page.close()
    broken.page.close()


def test_an_older_answer_never_comes_after_a_newer_one(studio: Studio):
    page, waiting = studio.page, []
    page.route("**/v1/generate", lambda route: waiting.append(route))
    studio.choose("wetland").tool("Brush")
    page.mouse.move(*studio.at(0.2, 0.5))
    page.mouse.down()
    page.wait_for_timeout(100)
    for i in range(5):  # painted on while the first answer has not come
        page.mouse.move(*studio.at(0.25 + 0.1 * i, 0.5), steps=3)
    page.mouse.up()
    page.wait_for_timeout(100)
    assert len(waiting) == 1  # one at a time
    waiting[0].continue_()
    page.unroute("**/v1/generate")
    studio.settle()
    assert all(studio.index(x, 0.5) == WETLAND for x in (0.2, 0.4, 0.6))


def test_a_server_that_is_busy_or_gone_is_told_and_asked_again(studio: Studio):
    page, tries = studio.page, []

    def answer(route: Any) -> None:
        tries.append(route)
        if len(tries) == 1:
            route.fulfill(
                status=503, headers={"Retry-After": "1"}, json={"detail": "too many wait; try again"}
            )
        elif len(tries) == 2:
            route.abort()
        else:
            route.continue_()

    page.route("**/v1/generate", answer)
    page.locator("#seed").fill("5")
    page.wait_for_selector("#status:has-text('too many wait')")
    page.wait_for_selector("#status:has-text('cannot be reached')")
    page.wait_for_selector("body:not(.busy)")
    assert len(tries) == 3 and studio.status == ""


def test_models_are_switched(studio: Studio):
    studio.page.locator("#model").select_option("tiny")
    studio.settle()
    assert studio.last.model == "tiny" and studio.label.shape == (64, 80)
    names = studio.page.locator("#palette button").all_inner_texts()
    assert [name.split()[0] for name in names] == [*SPACE.names, "unlabelled"]
    studio.choose("unlabelled").tool("Fill").click(0.5, 0.5)
    assert (studio.label == SPACE.ignore_index).all()
    studio.page.locator("#model").select_option("earth")
    studio.settle()
    assert studio.last.model == "earth"
    studio.page.locator("#examples").select_option(index=3)
    studio.settle()
    assert len(np.unique(studio.label)) >= 3


def test_a_blank_map_has_the_size_and_class_that_is_chosen(studio: Studio):
    studio.choose("wetland")
    studio.page.get_by_role("button", name="Blank").click()
    studio.page.locator("#new-width").fill("150")
    studio.page.locator("#new-height").fill("100")
    studio.page.get_by_role("button", name="Make").click()
    studio.page.wait_for_selector("#new-map:not([open])", state="attached")
    studio.page.wait_for_timeout(50)  # the dialog tells of its end a moment later
    studio.settle()
    assert studio.label.shape == (100, 150) and (studio.label == WETLAND).all()


def test_keys(studio: Studio):
    page = studio.page
    page.locator("#map").focus()
    for key, tool in zip("berpilhf", range(8), strict=True):
        page.keyboard.press(key)
        pressed = page.locator("#tools [aria-pressed=true]").get_attribute("data-tool")
        names = ["brush", "eraser", "rectangle", "polygon", "pick", "resample", "pan", "fill"]
        assert pressed == names[tool]
    page.keyboard.press("5")
    assert page.locator("#palette [aria-pressed=true]").inner_text().startswith("mixed forest")
    page.keyboard.press("/")
    page.keyboard.type("sav")
    assert page.locator("#palette button:visible").all_inner_texts()[0].startswith("savanna")
    page.locator("#map").focus()
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#keys").is_visible()


@pytest.mark.parametrize("size", [(1280, 800), (1180, 820), (820, 1180)])
def test_everything_is_within_reach_on_screens_and_tablets(
    browser: Browser, server: Running, jobs: list[Job], size: tuple[int, int]
):
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, has_touch=True)
    page = context.new_page()
    studio = Studio(page, server.url, jobs).open()
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    unnamed = page.evaluate(
        """[...document.querySelectorAll('button, input:not([hidden]), select')].filter(part =>
        part.checkVisibility() && !(part.ariaLabel || part.title || part.innerText || part.labels?.length))
        .map(part => part.outerHTML)"""
    )
    assert unnamed == []
    before = studio.label.copy()
    studio.choose("wetland").tool("Brush")
    page.locator("#map").scroll_into_view_if_needed()
    page.touchscreen.tap(*studio.at(0.5, 0.5))
    studio.settle()
    assert studio.index(0.5, 0.5) == WETLAND and 0 < (studio.label != before).mean() < 0.1
    context.close()


@pytest.mark.parametrize("tool", ["Brush", "Fill", "Polygon", "Rectangle", "Resample area"])
def test_two_fingers_zoom_and_do_not_paint(browser: Browser, server: Running, jobs: list[Job], tool: str):
    context = browser.new_context(viewport={"width": 1280, "height": 800}, has_touch=True)
    page = context.new_page()
    studio = Studio(page, server.url, jobs).open()
    studio.choose("wetland").tool("Rectangle").drag((0.1, 0.1), (0.2, 0.2)).press("Control+z")
    studio.tool(tool)
    before = studio.label.copy()
    touch = context.new_cdp_session(page)

    def fingers(kind: str, *places: Point) -> None:
        points = [dict(zip("xy", studio.at(*place), strict=True), id=i) for i, place in enumerate(places)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    fingers("touchStart", (0.45, 0.5))
    fingers("touchStart", (0.45, 0.5), (0.55, 0.5))
    for i in range(1, 5):
        fingers("touchMove", (0.45 - 0.05 * i, 0.5), (0.55 + 0.05 * i, 0.5))
    fingers("touchEnd")
    studio.settle()
    assert (studio.label == before).all() and studio.last.region is None
    assert page.get_by_role("button", name="Redo").is_enabled()  # what was undone can still come back
    studio.choose("wetland").tool("Brush")
    page.touchscreen.tap(*studio.at(0.7, 0.5))  # five times as large now: nearer to the middle
    studio.settle()
    column = np.flatnonzero((studio.label != before).any(0)).mean() / before.shape[1]
    assert 0.5 < column < 0.6
    context.close()


def test_a_palm_beside_the_pen_does_not_disturb_it(studio: Studio):
    before = studio.label.copy()
    studio.choose("wetland").tool("Brush")
    studio.page.evaluate(
        """([pen, palm, end]) => {
        const map = document.getElementById('map');
        map.setPointerCapture = () => {};
        const send = (type, id, kind, [x, y]) => map.dispatchEvent(new PointerEvent(type, {pointerId: id,
          pointerType: kind, clientX: x, clientY: y, button: 0, buttons: 1, bubbles: true}));
        send('pointerdown', 7, 'pen', pen); send('pointerdown', 8, 'touch', palm);
        send('pointermove', 8, 'touch', palm); send('pointerup', 8, 'touch', palm);
        send('pointermove', 7, 'pen', end); send('pointerup', 7, 'pen', end); }""",
        [studio.at(0.3, 0.3), studio.at(0.8, 0.9), studio.at(0.5, 0.3)],
    )
    studio.settle()
    assert all(studio.index(x, 0.3) == WETLAND for x in (0.3, 0.4, 0.49))
    assert (studio.label == before)[int(0.6 * len(before)) :].all()  # nothing where the palm was


def test_what_is_zoomed_stays_so_beside_the_variations(studio: Studio):
    studio.choose("wetland").tool("Brush")
    for _ in range(4):
        studio.press("+")
    studio.page.get_by_role("button", name="Variations").click()
    studio.page.wait_for_selector("#strip img")
    before = studio.label.copy()
    studio.click(0.5 + 0.2 * 0.5, 0.5)  # on the screen; the map is 2.4 times as large
    column = np.flatnonzero((studio.label != before).any(0)).mean() / before.shape[1]
    assert 0.5 < column < 0.58
    studio.page.get_by_role("button", name="Close the variations").click()
    assert not studio.page.locator("#strip").is_visible()


def test_another_map_can_be_undone(studio: Studio):
    before = studio.label.copy()
    give(studio, "ids.png", png(np.full((40, 60), WETLAND, np.uint8)))
    studio.page.wait_for_selector("text=opened ids.png")
    assert studio.settle().label.shape == (40, 60)
    studio.press("Control+z")
    assert studio.label.shape == before.shape and (studio.label == before).all()
    studio.press("Control+y")
    assert studio.label.shape == (40, 60)


def test_before_shows_the_picture_before_the_last_change(studio: Studio):
    def pixels() -> str:
        return studio.page.evaluate("document.getElementById('picture').toDataURL()")

    old = pixels()
    studio.choose("wetland").tool("Rectangle").drag((0.1, 0.1), (0.9, 0.9))
    studio.page.mouse.move(5, 5)
    studio.page.wait_for_timeout(50)
    new = pixels()
    assert new != old
    studio.page.keyboard.down("c")
    studio.page.wait_for_timeout(50)
    assert pixels() == old
    studio.page.keyboard.up("c")
    studio.page.wait_for_timeout(50)
    assert pixels() == new


def test_examples_that_cannot_be_read_leave_a_page_that_works(
    browser: Browser, tmp_path: Path, jobs: list[Job]
):
    model = write_model(tmp_path / "tiny")
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "a.png").write_bytes(b"no png")
    Image.new("L", (2000, 1000)).save(tmp_path / "maps" / "b.png")
    with running(host([str(model)], maps=tmp_path / "maps")) as server:
        page = browser.new_page()
        studio = Studio(page, server.url, jobs).open()
        assert studio.label.shape == (724, 1448)  # the second one, scaled down to what the server takes
        (tmp_path / "maps" / "b.png").write_bytes(b"none either")
        studio.open()
        assert studio.label.shape == (64, 80)
        page.locator("#examples").select_option(index=1)
        page.wait_for_selector("#status:has-text('a.png: is not a PNG file')")
        assert str(tmp_path) not in studio.status
        page.close()


def test_a_token_comes_with_the_address(browser: Browser, tmp_path: Path, jobs: list[Job]):
    model = write_model(tmp_path / "tiny")
    with running(host([str(model)]), token="a+b&c%41#") as server:
        page = browser.new_page()
        studio = Studio(page, server.url, jobs).open("#token=" + quote("a+b&c%41#", safe=""))
        assert studio.last.model == "tiny" and page.evaluate("location.hash") == ""
        page.close()


def test_undo_brings_back_seeds_too(studio: Studio):
    seed = studio.page.locator("#seed")
    studio.choose("wetland").tool("Rectangle").drag((0.1, 0.1), (0.3, 0.3))
    painted = studio.label.copy()
    noise = studio.last.noise.numpy().copy()
    studio.page.locator("#dice").click()
    studio.settle()
    assert seed.input_value() != "0" and not np.allclose(studio.last.noise.numpy(), noise)
    seed.fill("5")
    seed.press("Enter")
    studio.settle()
    studio.button("Undo")
    assert seed.input_value() not in ("0", "5")
    studio.button("Undo")
    assert seed.input_value() == "0" and np.allclose(studio.last.noise.numpy(), noise)
    assert (studio.label == painted).all()  # the map was not touched


def test_a_seed_that_is_none_is_told_and_corrected(studio: Studio):
    seed = studio.page.locator("#seed")
    seed.fill("-5")
    seed.press("Enter")
    studio.settle()
    assert seed.input_value() == "0" and "seeds are 0 to" in studio.status


def test_enter_takes_the_class_that_was_found(studio: Studio):
    search = studio.page.locator("#search")
    search.fill("moun")
    search.press("Enter")
    assert studio.page.locator("#palette [aria-pressed=true]").inner_text().startswith("mountain")
    assert studio.page.locator("#palette button:visible").count() == EARTH.num_classes


def test_a_link_survives_a_reload_and_goes_with_the_first_change(studio: Studio):
    kept = edited(studio)
    studio.button("Copy link")
    studio.page.reload()
    studio.page.wait_for_selector("body[data-shown]")
    is_restored(studio.settle(), kept)
    assert "#session=" in studio.page.evaluate("location.href")
    studio.choose("broadleaf forest").tool("Fill").click(0.5, 0.03)
    assert studio.page.evaluate("location.hash") == ""
