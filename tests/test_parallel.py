"""Work over several processes: its order, its errors, and what is left when a process ends."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dpsims.data import parallel
from dpsims.data.parallel import run_many


def slow_square(shared: int, item: int) -> int:
    time.sleep(0.001 * (item % 3))
    return shared + item * item


def process(_: None, item: int) -> int:
    return os.getpid()


def ctrl_c_is_blocked(_: None, item: int) -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def fail(_: None, item: int) -> int:
    if item in (70, 90):
        raise ValueError(f"item {item}: bad")
    return item


def die(_: None, item: int) -> int:
    if item == 70:
        os.kill(os.getpid(), signal.SIGKILL)  # as the system does for lack of memory
    return item


def test_results_come_in_order_and_a_thread_beside_does_not_matter():
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        results = list(run_many(slow_square, 5, range(100), 2))
    finally:
        stop.set()
        thread.join()
    assert results == [5 + i * i for i in range(100)]


def test_few_items_and_one_worker_need_no_processes():
    assert set(run_many(process, None, range(parallel.FEW - 1), 2)) == {os.getpid()}
    assert set(run_many(process, None, range(100), 1)) == {os.getpid()}
    assert os.getpid() not in set(run_many(process, None, range(100), 2))
    with pytest.raises(ValueError, match="workers=0: use 1 or more"):
        run_many(process, None, range(100), 0)


def test_progress_is_shown_on_a_terminal_only_and_leaves_no_trace(monkeypatch: pytest.MonkeyPatch):
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    list(run_many(process, None, range(3), 1, "read"))
    assert not screen.getvalue()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    list(run_many(process, None, range(3), 1, "read"))
    assert screen.getvalue() == "\r1 of 3 read\r\x1b[K"


def test_the_first_error_in_the_order_of_the_items_is_raised():
    with pytest.raises(ValueError, match="item 70: bad"):
        list(run_many(fail, None, range(100), 2))


def test_a_process_that_dies_is_an_error_and_no_hang():
    with pytest.raises(ValueError, match="one of 2 worker processes died.*use fewer workers"):
        list(run_many(die, None, range(100), 2))


def test_a_script_that_processes_cannot_load_is_told_so(tmp_path: Path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from dpsims.data.parallel import run_many\nprint(sum(run_many(divmod, 7, range(1, 99), 2), ()))"
    )
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=30)
    assert run.returncode == 1
    assert 'a script must call this below `if __name__ == "__main__":`' in run.stderr


def test_workers_leave_ctrl_c_to_their_parent():
    assert all(run_many(ctrl_c_is_blocked, None, range(100), 2))
    assert not ctrl_c_is_blocked(None, 0)


SLOW = """
import sys, time
from dpsims.data.parallel import run_many
import {module} as work
if __name__ == "__main__":
    print("started", flush=True)
    for pid in run_many(work.sleep, None, range(100_000), 2):
        print(pid, flush=True)
"""


@pytest.fixture
def slow_run(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process group of its own that works in two processes without end and prints their ids."""
    (tmp_path / "sleeping.py").write_text(
        "import os, time\ndef sleep(_, item):\n    time.sleep(0.02)\n    return os.getpid()\n"
    )
    (tmp_path / "main.py").write_text(SLOW.format(module="sleeping"))
    run = subprocess.Popen(
        [sys.executable, tmp_path / "main.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    yield run
    run.kill()
    run.communicate()


def read_workers(run: subprocess.Popen[str]) -> set[int]:
    assert run.stdout is not None and run.stdout.readline() == "started\n"
    found: set[int] = set()
    while len(found) < 2:
        found.add(int(run.stdout.readline()))
    return found


def test_ctrl_c_ends_all_processes_without_noise(slow_run: subprocess.Popen[str]):
    workers = read_workers(slow_run)
    os.killpg(slow_run.pid, signal.SIGINT)  # a terminal sends it to every process
    _, err = slow_run.communicate(timeout=20)
    assert err.count("Traceback") == 1 and err.rstrip().endswith("KeyboardInterrupt")  # the caller's own
    assert not any(alive(pid) for pid in workers)


@pytest.mark.parametrize("pauses", [(0.0,), (0.02,), (0.3,), (0.0, 0.0), (0.05, 0.05)])
def test_ctrl_c_again_ends_at_once_and_never_hangs(slow_run: subprocess.Popen[str], pauses: tuple[float]):
    workers = read_workers(slow_run)
    os.killpg(slow_run.pid, signal.SIGINT)
    for pause in pauses:
        time.sleep(pause)
        with suppress(ProcessLookupError):
            os.killpg(slow_run.pid, signal.SIGINT)
    _, err = slow_run.communicate(timeout=20)
    assert slow_run.returncode == -signal.SIGINT, err
    if not any(pauses):  # a later one may meet Python at its own end, and that be noisy
        assert err.count("Traceback") == 1 and err.rstrip().endswith("KeyboardInterrupt")
    assert not any(alive(pid) for pid in workers)


@pytest.mark.parametrize("chunk", [1, 8])
def test_a_second_ctrl_c_does_not_wait_for_work(tmp_path: Path, chunk: int):
    (tmp_path / "sleeping.py").write_text(
        "import os, time\nfrom pathlib import Path\ndef sleep(folder, item):\n"
        "    Path(folder, f'{os.getpid()}').touch()\n    time.sleep(60)\n"
    )
    (tmp_path / "main.py").write_text(
        "import sys\nfrom dpsims.data.parallel import run_many\nimport sleeping\n"
        "if __name__ == '__main__':\n"
        f"    list(run_many(sleeping.sleep, sys.argv[1], range(100), 2, chunk={chunk}))\n"
    )
    (begun := tmp_path / "begun").mkdir()
    run = subprocess.Popen(
        [sys.executable, tmp_path / "main.py", begun],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 20
        while len(workers := [int(path.name) for path in begun.iterdir()]) < 2:
            assert time.monotonic() < end
            time.sleep(0.01)
        os.killpg(run.pid, signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):  # the work under way may end
            run.wait(timeout=0.4)
        assert all(alive(pid) for pid in workers)
        os.killpg(run.pid, signal.SIGINT)
        _, err = run.communicate(timeout=20)
    finally:
        run.kill()
    assert run.returncode == -signal.SIGINT and err.count("Traceback") == 1, err
    assert ("stops after the work under way; Ctrl-C again: at once" in err) == (chunk == 1)
    assert not any(alive(pid) for pid in workers)


def test_ctrl_c_while_results_are_used_is_heard_and_the_handler_comes_back():
    used = 0
    with pytest.raises(KeyboardInterrupt):
        for _ in run_many(slow_square, 0, range(100), 2):
            signal.raise_signal(signal.SIGINT)
            used += 1
    assert used == 8  # up to the end of the chunk
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_caller_is_kept():
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        for result in run_many(slow_square, 0, range(100), 2):
            if result == 0:
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]


def test_workers_do_not_outlive_a_killed_parent(slow_run: subprocess.Popen[str]):
    workers = read_workers(slow_run)
    slow_run.kill()
    end = time.monotonic() + 10
    while any(alive(pid) for pid in workers) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(alive(pid) for pid in workers)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # dead, only nobody has asked for its exit status
