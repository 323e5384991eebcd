"""The same work on each of many files, over several processes; a folder for one of them at a time."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")

FEW = 64  # starting processes takes longer than reading so many files
_AHEAD = 4  # chunks sent ahead for each process: results that are not yet asked for stay few
_SECONDS_A_LINE = 0.2
_SECONDS_A_LOOK = 0.1  # how late Ctrl-C is heard while a result is waited for
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

    Ctrl-C is heard when the next result is asked for: KeyboardInterrupt, after the chunks under way. A second
    one ends the processes at once, in the middle of their work.

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
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    with theirs, ours, _interrupts_counted(ours.close) as interrupts:
        pool = ProcessPoolExecutor(count, context, _start, (work, shared, theirs))
        begun = False
        try:
            pending = deque(_submit(pool, islice(chunks, count * _AHEAD)))
            while pending:
                future = pending.popleft()
                while not interrupts and not wait((future,), _SECONDS_A_LOOK).done:
                    pass
                if interrupts:
                    if chunk == 1 and len(interrupts) == 1:  # it may take minutes
                        print("stops after the work under way; Ctrl-C again: at once", file=sys.stderr)
                    break  # KeyboardInterrupt comes with the end of `_interrupts_counted`
                results = future.result()
                begun = True
                yield from results
                pending += _submit(pool, islice(chunks, 1))
        except BrokenProcessPool as error:
            if interrupts:
                raise KeyboardInterrupt from None
            more = "" if begun else '; a script must call this below `if __name__ == "__main__":`'
            raise ValueError(
                f"one of {count} worker processes died, most often for lack of memory; "
                f"use fewer workers{more}"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, chunks: Iterable[Sequence[Any]]) -> list[Future[list[Any]]]:
    with _interrupts_held():  # any of them may start a process
        return [pool.submit(_work_on, chunk) for chunk in chunks]


def _start(work: Callable[[Shared, Item], Result], shared: Shared, parent: Any) -> None:
    """First thing in a worker process."""
    global _work
    _work = work, shared
    threading.Thread(target=_die_with_parent, args=(parent,), daemon=True).start()


def _die_with_parent(parent: Any) -> None:
    """A worker whose parent was killed would wait for work for ever, or go on with what it was sent.

    parent: a connection. Nothing is ever sent; its other end closes when the parent dies, or wants its
    workers to.
    """
    with suppress(EOFError, OSError):
        parent.recv_bytes()
    os._exit(1)


def _work_on(chunk: Sequence[Any]) -> list[Any]:
    assert _work is not None
    work, shared = _work
    return [work(shared, item) for item in chunk]


@contextmanager
def _interrupts_counted(end_workers: Callable[[], None]) -> Iterator[list[int]]:
    """Count Ctrl-C instead of raising KeyboardInterrupt, which comes at the end; the second ends the workers.

    Raised inside the pool, it would leave locks that nobody opens: joining a thread, once interrupted, takes
    it for ended, and the program then waits for processes that no one tells to end.
    Other threads than the main one get no KeyboardInterrupt; whoever has a handler of their own keeps it.
    """
    heard: list[int] = []
    ends = [end_workers]

    def hear(number: int, _: object) -> None:
        heard.append(number)
        if len(heard) > 1:
            with suppress(IndexError):  # one more comes in the middle of this, and must not do it again
                ends.pop()()

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield heard
        return
    signal.signal(signal.SIGINT, hear)
    try:
        yield heard
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if heard:
        raise KeyboardInterrupt


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
