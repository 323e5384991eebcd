"""Download one large file, going on where an earlier attempt stopped."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["AGAIN", "download", "readable"]

AGAIN = "run the same command again: it goes on where it stopped"
_BLOCK = 2**16


def download(url: str, size: int | None, part: Path, own: Path) -> None:
    """Append to `part` what is missing from it. It may be wrong in the end: the caller checks it.

    Raises ValueError where the server or the network fails, OSError where the disk does.
    """
    if size is not None and part.exists() and part.stat().st_size > size:
        part.unlink()
    other = f"give another server with --mirror URL, or put the file at {own}"
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _append(url, size, part)
            return
        except _BrokenOff as error:
            # going on helps as long as each connection brings something
            if part.stat().st_size <= before:
                raise ValueError(
                    f"{url}: no connection ({error}); check the network, then {AGAIN}; or {other}"
                ) from error
        except _Refused as error:
            if error.status == 416 and before:  # nothing lies behind what is there
                if error.total == before:
                    return
                part.unlink()
            elif error.status in (404, 410):
                raise ValueError(f"{url}: the server has no such file ({error.status}); {other}") from error
            else:
                reason = f"the server refuses ({error.status})"
                raise ValueError(f"{url}: {reason}; try again later, {other}") from error


class _BrokenOff(Exception):
    """The connection failed, or could not be made."""


class _Refused(Exception):
    """The server answered with an error. total: the file's size where the answer tells it."""

    def __init__(self, status: int, content_range: str) -> None:
        self.status = status
        total = content_range.rpartition("/")[2]
        self.total = int(total) if total.isdecimal() else None


def _append(url: str, size: int | None, part: Path) -> None:
    """One call of the hub's downloader, which retries and resumes by itself; its errors become ours."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.file_download import http_get

    try:
        with _hub_settings(), part.open("ab") as file:
            # packed on the way, a file could not be resumed by its own bytes
            headers = {"Accept-Encoding": "identity"}
            http_get(
                url,
                file,
                resume_size=file.tell(),
                headers=headers,
                expected_size=size,
                displayed_filename=part.stem,
            )
    except OfflineModeIsEnabled as error:
        raise ValueError(
            f"{url}: HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set and forbids downloads; unset it"
        ) from error
    except HfHubHTTPError as error:
        headers = error.response.headers
        raise _Refused(error.response.status_code, headers.get("Content-Range", "")) from error
    except OSError as error:
        if error.errno is not None:  # the disk's
            raise
        # received all that the server has, and that is not as much as expected: the check will say so
        if "Consistency check" not in str(error):
            raise _BrokenOff(_first_line(error)) from error
    except Exception as error:  # of the HTTP library, which one depends on the hub's version
        raise _BrokenOff(_first_line(error)) from error


@contextmanager
def _hub_settings() -> Iterator[None]:
    """Silence the hub's warnings, which advise what is no option here, and let it write in small blocks.

    What is not yet a whole block is lost with the connection. With its own 10 MiB, a line that breaks every
    few MiB would never get on.
    """
    from huggingface_hub import constants

    logger = logging.getLogger("huggingface_hub")
    level, block = logger.level, constants.DOWNLOAD_CHUNK_SIZE
    logger.setLevel(logging.CRITICAL)
    constants.DOWNLOAD_CHUNK_SIZE = _BLOCK
    try:
        yield
    finally:
        logger.setLevel(level)
        constants.DOWNLOAD_CHUNK_SIZE = block


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def readable(size: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
