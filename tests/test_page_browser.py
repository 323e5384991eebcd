"""The pages of reports in a real browser: nothing is fetched, all is decoded, and a phone shows it, too."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dpsims.evaluation.compare import to_html
from dpsims.evaluation.page import write_page
from tests.browsers import start_chromium
from tests.test_page import full_report, samples

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDTHS = (1280, 400)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from start_chromium()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a whole report, and that of six side by side, which no phone is wide enough for."""
    folder = tmp_path_factory.mktemp("pages")
    long = "a_network_of_a_very_long_name_that_nobody_breaks_into_lines"
    report = full_report(
        kid={"net": {"value": 0.0123, "std": 0.0004, "note": "subsets of 233, not 1,000"}},
        intervals={"miou": [0.44, 0.46], "frechet": {"net": [1200.0, 1300.5]}},
        precision={long: 0.5},
        untrained={"frechet": {"net": 9000.0}, "miou": 0.05},
    )
    files = []
    for name in "abcdef":
        files.append(folder / f"{name}.json")
        files[-1].write_text(json.dumps({**report, "model": f"runs/{name}/{long}"}), encoding="utf-8")
    found = {"report": folder / "report.html", "comparison": folder / "comparison.html"}
    found["report"].write_text(write_page(report, samples(4)), encoding="utf-8")
    found["comparison"].write_text(to_html(files), encoding="utf-8")
    return found


@pytest.fixture(params=["report", "comparison"])
def opened(request: pytest.FixtureRequest, browser: Browser, pages: dict[str, Path]) -> Iterator[Page]:
    """A page that was opened; whatever it said or asked for is held against it at the end."""
    page = browser.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda wanted: asked.append(wanted.url))
    address = pages[request.param].as_uri()
    page.goto(address)
    yield page
    page.close()
    assert said == []
    assert asked[0] == address
    assert all(url.startswith("data:") for url in asked[1:])


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_as_wide_as_the_screen(opened: Page, width: int):
    opened.set_viewport_size({"width": width, "height": 800})
    opened.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert opened.evaluate("document.documentElement.scrollWidth") == width
    # only a table's frame may scroll inside it; nothing else reaches out of the screen
    beyond = opened.evaluate(
        """width => [...document.querySelectorAll('main, main *:not(.scroll *)')]
        .filter(part => part.getBoundingClientRect().right > width + 0.5)
        .map(part => part.outerHTML.slice(0, 80))""",
        width,
    )
    assert beyond == []


def test_a_phone_shows_all_columns_of_the_report(browser: Browser, pages: dict[str, Path]):
    page = browser.new_page(viewport={"width": 400, "height": 800})
    page.goto(pages["report"].as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    wider = page.evaluate(
        """[...document.querySelectorAll('.scroll')].filter(frame => frame.scrollWidth > frame.clientWidth)
        .map(frame => [frame.getAttribute('aria-label'), frame.scrollWidth, frame.clientWidth])"""
    )
    page.close()
    assert wider == []


def test_what_is_folded_opens(opened: Page):
    folded = opened.locator("details:not([open])")
    count = folded.count()
    assert count >= 2
    for _ in range(count):
        part = folded.first
        table = part.locator("table").element_handle()
        assert table is not None and not table.is_visible()
        part.locator("summary").click()
        assert table.is_visible()
    assert folded.count() == 0


def test_every_picture_is_decoded_and_maps_keep_their_pixels(browser: Browser, pages: dict[str, Path]):
    page = browser.new_page()
    page.goto(pages["report"].as_uri())
    found = page.evaluate(
        """[...document.images].map(image => [image.complete, image.naturalWidth, image.naturalHeight,
        image.clientWidth / image.clientHeight, getComputedStyle(image).imageRendering,
        image.classList.contains('map')])"""
    )
    page.close()
    assert len(found) == 4 * 4 + 3 + 2
    for complete, width, height, shape, drawn, is_map in found:
        assert complete and (width, height) == (16, 12) and abs(shape - 16 / 12) < 0.03
        assert (drawn == "pixelated") == is_map


def test_bars_are_as_long_as_their_figures(browser: Browser, pages: dict[str, Path]):
    page = browser.new_page()
    page.goto(pages["report"].as_uri())
    bars = page.evaluate(
        """[...document.querySelectorAll('tr:has(.track)')].filter(row => row.checkVisibility()).map(row => [
            row.cells[0].innerText,
            [...row.querySelectorAll('.bar')].map(bar =>
                bar.getBoundingClientRect().width / bar.parentElement.getBoundingClientRect().width),
        ])"""
    )
    page.close()
    expected = [
        *(["sky", [0.6, 0.9]], ["road", [0.3, 0.5]], ["car", []]),  # IoU: generated, real
        *(["road", [0.5, 0.75]], ["sky", [0.25, 1.0]], ["car", []]),  # diversity, of the largest: 0.4
        *(["real pictures", [0.5]], ["generated pictures", [0.4]], ["real and generated", [0.525]]),
    ]
    assert [name for name, _ in bars] == [name for name, _ in expected]
    for (name, widths), (_, wanted) in zip(bars, expected, strict=True):
        assert widths == pytest.approx(wanted, abs=0.01), name


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Browser, pages: dict[str, Path], scheme: str):
    """Contrast of at least 4.5, as accessibility guidelines (WCAG 2, AA) ask for."""
    page = browser.new_page(color_scheme=scheme)  # pyright: ignore[reportArgumentType]
    page.goto(pages["comparison"].as_uri())
    colors = page.evaluate(
        """['body', 'caption', '.best', '.warnings li', 'thead th'].map(where => {
            const part = document.querySelector(where);
            let ground = part;
            const behind = () => getComputedStyle(ground).backgroundColor;
            while (behind() === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
            return [where, getComputedStyle(part).color, behind()];
        })"""
    )
    page.close()
    assert (luminance(colors[0][2]) < 0.1) == (scheme == "dark")
    for where, text, ground in colors:
        low, high = sorted((luminance(text), luminance(ground)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, where


def luminance(color: str) -> float:
    """Relative luminance of `rgb(r, g, b)`, as WCAG 2 defines it."""
    channels = [int(value) / 255 for value in re.findall(r"\d+", color)[:3]]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
