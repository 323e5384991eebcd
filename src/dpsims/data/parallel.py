"""The same work on each of many files, over several processes; a folder for one of them at a time."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, TypeVar

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")

FEW = 64  # starting processes takes longer than reading so many files
_AHEAD = 4  # chunks sent ahead for each process: results that are not yet asked for stay few
_SECONDS_A_LINE = 0.2
LOCK = "lock"
"""name of the file in a folder that `locked` keeps for one process"""

_work: tuple[Callable[[Any, Any], Any], Any] | None = None  # of this worker process


def run_many(
    work: Callable[[Shared, Item], Result],
    shared: Shared,
    items: Sequence[Item],
    workers: int | None = None,
    doing: str = "",
    chunk: int = 8,
) -> Iterator[Result]:
    """`work(shared, item)` for each item; the results come in the items' order, and few are held at a time.

    work: a function of a module (processes find it by name); shared: sent once to each process. workers:
    number of processes, one for each core by default; few items are worked on in this one. doing:
    said on stderr beside the count, where that is a terminal ("120 of 701 read"); nothing is, if empty.
    chunk: items sent at once; a stop waits until the chunks under way are done. 1: each item is much work,
    and two are worth a second process.

    The processes are spawned, not forked: a fork copies locks that other threads (torch's, a server's) hold.
    A script that calls this needs `if __name__ == "__main__":`, as with all of multiprocessing.

    Raises what `work` raises, for the first item that fails, and ValueError where a process dies or for
    workers < 1.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers}: use 1 or more")
    count = min(workers or _cores(), -(-len(items) // chunk))
    if count < 2 or len(items) < (FEW if chunk > 1 else 2):
        results = (work(shared, item) for item in items)
    else:
        results = _over_processes(work, shared, items, count, chunk)
    return _with_progress(results, len(items), doing) if doing else results


@contextmanager
def locked(folder: Path, command: str, remove: bool = False) -> Iterator[None]:
    """FOLDER, made where missing, for one process at a time: that of `dpsims data COMMAND`.

    remove: whether the lock's file goes afterwards, as it has to from a folder that is itself the result.
    Raises ValueError where another process works there, and OSError.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)  # the system lets go of it when a process dies, however it does
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"{folder}: another `dpsims data {command}` works there; wait until it ends"
        ) from None
    try:
        yield
    finally:
        if remove:
            with suppress(OSError):  # Windows removes no open file: there, filelock itself does, later
                (folder / LOCK).unlink()
        lock.release()


def _over_processes(
    work: Callable[[Shared, Item], Result], shared: Shared, items: Sequence[Item], count: int, chunk: int
) -> Iterator[Result]:
    chunks = iter([items[i : i + chunk] for i in range(0, len(items), chunk)])
    pool = ProcessPoolExecutor(count, get_context("spawn"), _start, (work, shared))
    pending: deque[Future[list[Result]]] = deque()
    begun = False
    try:
        with _interrupts_held():
            pending += [pool.submit(_work_on, chunk) for chunk in islice(chunks, count * _AHEAD)]
        while pending:
            results = pending.popleft().result()
            begun = True
            yield from results
            pending += [pool.submit(_work_on, chunk) for chunk in islice(chunks, 1)]
    except BrokenProcessPool as error:
        more = "" if begun else '; a script must call this below `if __name__ == "__main__":`'
        raise ValueError(
            f"one of {count} worker processes died, most often for lack of memory; use fewer workers{more}"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start(work: Callable[[Shared, Item], Result], shared: Shared) -> None:
    """First thing in a worker process."""
    global _work
    _work = work, shared
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever, or go on with what it was sent."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work_on(chunk: Sequence[Any]) -> list[Any]:
    assert _work is not None
    work, shared = _work
    return [work(shared, item) for item in chunk]


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes started meanwhile never see Ctrl-C, which a terminal sends to all: the parent stops them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _with_progress(results: Iterator[Result], total: int, doing: str) -> Iterator[Result]:
    """Hand the results on; on a terminal, keep a line on stderr that is gone in the end."""
    if not sys.stderr.isatty():
        yield from results
        return
    shown = 0.0
    try:
        for done, result in enumerate(results, 1):
            if time.monotonic() - shown > _SECONDS_A_LINE:
                shown = time.monotonic()
                print(f"\r{done:,} of {total:,} {doing}", end="", file=sys.stderr, flush=True)
            yield result
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # what a container or taskset leaves of the machine
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
