"""The studio, measured: from stroke to picture in a real browser, and under the load of many clients.

    python benchmarks/studio.py latency [--model earth] [--size 256x256]
    python benchmarks/studio.py load [--clients 64] [--seconds 60]

`latency`: Chromium paints short strokes on a blank map; for every change of the map, the time until a picture
that has it is on the screen. `load`: clients that ask for one picture after the other over loopback, of a
server that batches and of one that does not, in turns; the server's memory, and every answer's status.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import httpx
import numpy as np
import typer

from dpsims.commands.parts import size_of
from dpsims.studio.limits import MAX_BATCH
from dpsims.studio.maps import to_png

STROKES = 40
OBSERVER = """
window.changes = {}; window.latencies = []; window.finals = []; let done = 0;
new PerformanceObserver((list) => { for (const entry of list.getEntries()) {
  if (entry.entryType === 'mark') { changes[Number(entry.name.split(' ')[1])] = entry.startTime; continue; }
  const end = entry.startTime + entry.duration;
  for (let k = done + 1; k <= entry.detail; k++) if (k in changes) latencies.push(end - changes[k]);
  finals.push(end - changes[entry.detail]); done = entry.detail;
} }).observe({ entryTypes: ['mark', 'measure'] });
"""
app = typer.Typer(add_completion=False, help=__doc__, rich_markup_mode=None)


@contextlib.contextmanager
def served(model: str, max_batch: int = MAX_BATCH) -> Iterator[tuple[str, int]]:
    """Its address and process id."""
    command = [sys.executable, __file__, "serve", model, "--max-batch", str(max_batch)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            yield line.split()[1].rstrip("/"), process.pid
        finally:
            process.send_signal(signal.SIGINT)


@app.command()
def serve(model: str, max_batch: int = MAX_BATCH) -> None:
    """`dpsims studio MODEL --port 0`, with another size of batches."""
    from dpsims.studio.hosted import host
    from dpsims.studio.serving import serve as run

    run(host([model]), "127.0.0.1", 0, None, max_batch=max_batch)


@app.command()
def latency(
    model: Annotated[str, typer.Option(help="run, checkpoint or shipped model")] = "earth",
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH of the map")] = "256x256",
) -> None:
    """From stroke to picture: p50 and p95."""
    from playwright.sync_api import sync_playwright

    height, width = size_of(size)
    print(
        "| network works at | changes | every change, p50 | p95 | end of a stroke, p50 | p95 |\n"
        + "|---" * 6
        + "|"
    )
    with served(model) as (url, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for works_at in ("model", "map"):
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.add_init_script(OBSERVER)
            page.goto(url)
            page.wait_for_selector("body[data-shown]:not(.busy)")
            page.get_by_role("button", name="Blank").click()
            page.locator("#new-width").fill(str(width))
            page.locator("#new-height").fill(str(height))
            page.get_by_role("button", name="Make").click()
            page.locator("#works-at").select_option(works_at)
            page.wait_for_selector("body:not(.busy)")
            page.wait_for_timeout(500)
            page.evaluate("latencies.length = 0; finals.length = 0")
            ends = [stroke(page, i) for i in range(STROKES)]
            every = page.evaluate("latencies")
            name = "its trained size" if works_at == "model" else f"the map's size, {size}"
            figures = [f"{np.percentile(v, q):.0f} ms" for v in (every, ends) for q in (50, 95)]
            print(f"| {name} | {len(every)} | " + " | ".join(figures) + " |", flush=True)
            page.close()
        browser.close()


def stroke(page, number: int) -> float:
    """Paint one; ms from its last change to the picture that has it."""
    box = page.locator("#map").bounding_box()
    random = np.random.default_rng(number)
    places = random.uniform(0.35, 0.65, (2, 2)) * (box["width"], box["height"]) + (box["x"], box["y"])
    page.locator("#palette button").nth(number % 10).click()
    page.mouse.move(*places[0])
    page.mouse.down()
    page.mouse.move(*places[1], steps=8)
    page.mouse.up()
    page.wait_for_selector("body:not(.busy)")
    page.wait_for_timeout(100)
    return page.evaluate("finals.at(-1)")


@app.command()
def load(
    model: Annotated[str, typer.Option(help="run, checkpoint or shipped model")] = "earth",
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH of the maps")] = "128x128",
    clients: int = 64,
    seconds: float = 60.0,
    classes: Annotated[int, typer.Option(help="class ids 0..N-1 of the maps")] = 14,
) -> None:
    """Pictures a second with and without batching, answers by status, memory."""
    height, width = size_of(size)
    random = np.random.default_rng(0)
    cells = random.integers(0, classes, (16, -(-height // 16), -(-width // 16)), dtype=np.uint8)
    maps = [to_png(c.repeat(16, 0).repeat(16, 1)[:height, :width]) for c in cells]
    print(
        "| batches of up to | seconds | pictures/s | answers | p50 | p95 | memory, a tenth in | at the end |"
    )
    print("|---" * 8 + "|")
    for max_batch in (1, MAX_BATCH):
        with served(model, max_batch) as (url, process):
            asyncio.run(ask(url, maps, 8, 3.0))  # warm
            tenth = asyncio.run(ask(url, maps, clients, seconds / 10))
            before = memory(process)
            rest = asyncio.run(ask(url, maps, clients, seconds * 9 / 10))
            after = memory(process)
        times = tenth[1] + rest[1]
        counts = Counter(tenth[0]) + Counter(rest[0])
        p50, p95 = (f"{np.percentile(times, q):.2f} s" for q in (50, 95))
        told = ", ".join(f"{status}: {count}" for status, count in sorted(counts.items()))
        print(
            f"| {max_batch} | {seconds:.0f} | {len(times) / (tenth[2] + rest[2]):.1f} | {told} | {p50} "
            f"| {p95} | {before / 2**20:.0f} MiB | {after / 2**20:.0f} MiB |",
            flush=True,
        )


async def ask(
    url: str, maps: list[bytes], clients: int, seconds: float
) -> tuple[list[str], list[float], float]:
    """Status of every answer, seconds of the good ones, and the time that all took."""
    statuses: list[str] = []
    times: list[float] = []
    begun = time.monotonic()
    bodies = [httpx.Request("POST", url, files={"map": ("m.png", content)}) for content in maps]
    sent = [(body.read(), body.headers["content-type"]) for body in bodies]

    async def one(client: httpx.AsyncClient, number: int) -> None:
        while time.monotonic() - begun < seconds:
            content, kind = sent[number % len(sent)]
            start = time.monotonic()
            try:
                answer = await client.post("/v1/generate", content=content, headers={"content-type": kind})
            except httpx.TransportError as error:
                statuses.append(type(error).__name__)
                continue
            statuses.append(str(answer.status_code))
            if answer.status_code == 200:
                times.append(time.monotonic() - start)
            elif answer.status_code == 503:
                await asyncio.sleep(float(answer.headers["retry-after"]))
            number += 1

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=120, limits=limits) as client:
        await asyncio.gather(*(one(client, i) for i in range(clients)))
    return statuses, times, time.monotonic() - begun


def memory(process: int) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096


if __name__ == "__main__":
    app()
