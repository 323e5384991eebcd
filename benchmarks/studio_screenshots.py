"""Screenshots of the studio for the docs, taken in a real browser with a real server.

    python benchmarks/studio_screenshots.py [--model earth] [--out docs] [--works-at auto|map|model]

Chromium opens the studio with the model's first example map and writes `studio.png` (the page),
`studio_region.png` (map, image, and image after one region was resampled) and `studio_variations.png` (the
page with six variations). Seeds are fixed, so the same model gives the same images.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from PIL import Image

from studio import served

if TYPE_CHECKING:
    from playwright.sync_api import Page

FIXED_SEEDS = """
let drawn = 0;
crypto.getRandomValues = (array) => array.map((_, i) => (array[i] = ++drawn));
"""
GAP = 8
"""pixels between the images of studio_region.png"""
app = typer.Typer(add_completion=False, help=__doc__, rich_markup_mode=None)


@app.command()
def take(
    model: Annotated[str, typer.Option(help="run, checkpoint or shipped model")] = "earth",
    out: Annotated[Path, typer.Option(help="folder for the screenshots")] = Path("docs"),
    region: Annotated[str, typer.Option(help="place to resample: X,Y in shares of the map")] = "0.7,0.45",
    works_at: Annotated[str, typer.Option(help="as `Works at` on the page: auto, map or model")] = "auto",
) -> None:
    """Write the three screenshots."""
    from playwright.sync_api import sync_playwright

    x, y = (float(share) for share in region.split(","))
    out.mkdir(parents=True, exist_ok=True)
    with served(model) as (url, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.add_init_script(FIXED_SEEDS)
        page.goto(url)
        page.wait_for_selector("body[data-shown]")
        page.locator("#works-at").select_option(works_at)
        settle(page)
        page.screenshot(path=out / "studio.png")

        before = [of_canvas(page, "#map"), of_canvas(page, "#picture")]
        page.get_by_role("button", name="Resample area").click()
        page.mouse.click(*place(page, x, y))
        settle(page)
        joined([*before, of_canvas(page, "#picture")]).save(out / "studio_region.png", optimize=True)

        page.get_by_role("button", name="Reset areas").click()
        page.get_by_role("button", name="Brush").click()
        page.get_by_role("button", name="Variations", exact=True).click()
        page.wait_for_selector("#choices button:nth-child(6) img")
        settle(page)
        page.screenshot(path=out / "studio_variations.png")
        browser.close()


def settle(page: Page) -> None:
    """Wait for the image of the newest state, with the pointer out of the way."""
    page.mouse.move(5, 5)
    page.wait_for_timeout(200)
    page.wait_for_selector("body:not(.busy)")
    page.wait_for_timeout(200)


def box_of(page: Page, canvas: str) -> tuple[float, float, float]:
    """Middle (x, y) of a canvas on the screen, and the side of the square map that is shown in it."""
    boxes = [page.locator(name).bounding_box() for name in ("#map", "#picture")]
    sides = [side for box in boxes if box is not None for side in (box["width"], box["height"])]
    box = page.locator(canvas).bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, 0.98 * min(sides)


def place(page: Page, x: float, y: float) -> tuple[float, float]:
    """Screen position of a place of the (square) map, given as shares of its sides."""
    middle_x, middle_y, side = box_of(page, "#map")
    return middle_x + (x - 0.5) * side, middle_y + (y - 0.5) * side


def of_canvas(page: Page, canvas: str) -> Image.Image:
    """What a canvas shows of the map or image, without the ground around it."""
    x, y, side = box_of(page, canvas)
    clip = {"x": x - side / 2, "y": y - side / 2, "width": side, "height": side}
    return Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")  # pyright: ignore


def joined(images: list[Image.Image]) -> Image.Image:
    """Side by side."""
    width, height = images[0].size
    row = Image.new("RGB", (len(images) * (width + GAP) - GAP, height), "white")
    for number, image in enumerate(images):
        row.paste(image, (number * (width + GAP), 0))
    return row


if __name__ == "__main__":
    app()
