"""A thousand requests that are wrong: no answer of 500 or more, no growing memory, and then a good one."""

from __future__ import annotations

import random
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from PIL import Image

from tests.command_line import SPACE, write_model
from tests.studio_server import Process, ask, ids_of, picture, png

FILES = 700
EXAMPLES = 60  # of each operation and kind; two of them take a form, one a path
GROWTH = 24e6  # bytes that the process may gain over all of it


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def header(width: int, height: int, depth: int = 8, kind: int = 0, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlace))


def crafted() -> Iterator[bytes]:
    """Files that are wrong in ways that chance does not find."""
    start, end = b"\x89PNG\r\n\x1a\n", chunk(b"IEND", b"")
    data = chunk(b"IDAT", zlib.compress(bytes(41 * 32)))
    bomb = zlib.compress(bytes(50_000_000), 9)
    for width, height in ((0, 32), (40, 0), (2**31 - 1, 2**31 - 1), (2**32 - 1, 1), (100_000, 100_000)):
        yield start + header(width, height) + data + end
    for depth, kind in ((3, 0), (16, 3), (1, 2), (8, 5), (32, 0), (0, 0)):
        yield start + header(40, 32, depth, kind) + data + end
    yield start + header(40, 32, interlace=7) + data + end
    yield start + header(40, 32) + chunk(b"IDAT", bomb) + end  # far more pixels than the header says
    yield start + header(40, 32) + chunk(b"zTXt", b"a\0\0" + bomb) + data + end
    yield start + header(40, 32) + chunk(b"iCCP", b"a\0\0" + bomb) + data + end
    yield start + header(40, 32) + chunk(b"iTXt", b"a\0\1\0\0\0" + bomb) + data + end
    yield start + header(40, 32, kind=3) + chunk(b"PLTE", bytes(4)) + data + end
    yield start + header(40, 32, kind=3) + data + end  # no palette
    yield start + data + end  # no header
    yield start + header(40, 32) + end  # no pixels
    yield start + header(40, 32) + chunk(b"acTL", struct.pack(">II", 2**31, 0)) + data + end
    yield start + header(40, 32) + struct.pack(">I", 2**31 - 1) + b"IDAT" + bytes(9)
    yield start + header(1024, 1024) + chunk(b"IDAT", zlib.compress(bytes(99))) + end
    yield from (
        b"",
        start,
        start[:4],
        b"\0" * 5000,
        b"GIF89a",
        b"II*\0" + bytes(50),
        b"\xff\xd8\xff" + bytes(50),
    )


def mutated(count: int) -> Iterator[bytes]:
    """Whole files with bytes changed, cut out, doubled, or cut off."""
    chance = random.Random(0)
    palette = Image.fromarray(ids_of(1)).convert("P")
    index = SPACE.decode_ids(ids_of(2))
    whole = [png(ids_of(0)), png(palette), png(SPACE.colorize(index)), png(ids_of(3).astype(np.uint16))]
    for _ in range(count):
        content = bytearray(chance.choice(whole))
        for _ in range(chance.choice((1, 1, 3, 30))):
            at = chance.randrange(8, len(content))
            kind = chance.randrange(4)
            if kind == 0:
                content[at] = chance.randrange(256)
            elif kind == 1:
                del content[at : at + chance.randrange(1, 20)]
            elif kind == 2:
                content[at:at] = content[at : at + chance.randrange(1, 20)]
            elif len(content) > 60:
                del content[chance.randrange(40, len(content)) :]
            if len(content) < 10:
                break
        yield bytes(content)


def memory(process: int) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    started = Process(str(write_model(tmp_path / "model")))
    yield started
    started.process.kill()
    started.process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc (Linux)")
def test_a_thousand_broken_requests(process: Process):
    good = png(ids_of(0))
    right = picture(ask(process.url, good))
    files = [*crafted(), *mutated(FILES)]
    answers = Counter(send_files(process.url, files[:200]))
    before = memory(process.process.pid)
    answers += Counter(send_files(process.url, files[200:]))
    answers += send_made_up(process.url)
    assert sum(answers.values()) >= 1000
    assert max(answers) < 500, answers
    assert answers[400] > 300 and answers[422] > 100, answers  # most were refused, not repaired
    assert memory(process.process.pid) - before < GROWTH
    assert (picture(ask(process.url, good)) == right).all()
    assert process.process.poll() is None


def send_files(url: str, files: list[bytes]) -> Iterator[int]:
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        for i, content in enumerate(files):
            form = {"map": ("m.png", content)} if i % 3 else {"map": png(ids_of(0)), "regions": content}
            fields = {} if i % 3 else {"region_seeds": "1"}
            yield client.post("/v1/generate", files=form, data=fields).status_code


def send_made_up(url: str) -> Counter[int]:
    """What schemathesis makes up from the OpenAPI description."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies
        import schemathesis
        from schemathesis.generation import GenerationMode

        found: Counter[int] = Counter()
        for result in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations():
            operation: Any = result.ok()  # pyright: ignore[reportAttributeAccessIssue]
            if not (operation.method == "post" or "{" in operation.path):
                continue  # nothing in them can be wrong
            for mode in (GenerationMode.NEGATIVE, GenerationMode.POSITIVE):

                @given(case=operation.as_strategy(generation_mode=mode))
                @settings(
                    max_examples=EXAMPLES,
                    deadline=None,
                    database=None,
                    derandomize=True,
                    suppress_health_check=[*HealthCheck],  # pyright: ignore
                    phases=[Phase.generate],
                )
                def send(case):
                    found[case.call().status_code] += 1

                send()
        return found
