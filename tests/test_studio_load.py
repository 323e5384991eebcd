"""The studio when much is asked, when clients leave, and when it ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from dpsims.studio import engine, limits
from tests.command_line import write_model
from tests.studio_server import Process, Running, ask, ids_of, picture, png, running, tiny_models

SECONDS = 30
MAPS = [png(ids_of(seed)) for seed in range(4)]


class Gate:
    """In front of a model's network: pictures wait until it opens."""

    def __init__(self, server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.entered = threading.Event(), threading.Event()
        synthesizer = server.models["model"].synthesizer
        inner = synthesizer.generate

        def generate(label, noise):
            self.entered.set()
            assert self.open.wait(SECONDS)
            return inner(label, noise=noise)

        monkeypatch.setattr(synthesizer, "generate", generate)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with running(tiny_models(tmp_path)) as started:
        yield started


@pytest.fixture
def gate(server: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate(server, monkeypatch)
    yield made
    made.open.set()


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def metric(url: str, name: str) -> float:
    text = httpx.get(f"{url}/metrics", trust_env=False).text
    (line,) = (row for row in text.splitlines() if row.startswith(f"{name} ") or row.startswith(f"{name}{{"))
    return float(line.split()[-1])


def wait_until(condition) -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_many_clients_get_each_the_picture_of_their_own_map(server: Running, clients: ThreadPoolExecutor):
    alone = {(i, seed): picture(ask(server.url, MAPS[i], seed=seed)) for i in range(4) for seed in range(3)}
    wanted = list(alone) * 5
    answers = list(clients.map(lambda key: picture(ask(server.url, MAPS[key[0]], seed=key[1])), wanted))
    for key, answer in zip(wanted, answers, strict=True):
        assert np.abs(answer - alone[key]).max() <= 1
    assert metric(server.url, "dpsims_batch_pictures_count") < 12 + len(wanted)  # some went together


def test_a_full_queue_is_told_and_passes(
    server: Running, gate: Gate, clients: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine, "MAX_QUEUE", 1)
    first = clients.submit(ask, server.url, MAPS[0])
    assert gate.entered.wait(SECONDS)
    second = clients.submit(ask, server.url, MAPS[1])
    wait_until(lambda: metric(server.url, "dpsims_queue_pictures") == 1)
    refused = ask(server.url, MAPS[2])
    assert refused.status_code == 503 and refused.headers["retry-after"] == str(limits.RETRY_AFTER)
    assert "waiting" in refused.json()["detail"]
    gate.open.set()
    assert first.result(SECONDS).status_code == second.result(SECONDS).status_code == 200
    assert ask(server.url, MAPS[2]).status_code == 200


def test_time_that_is_over_is_told(server: Running, gate: Gate, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "REQUEST_SECONDS", 0.2)
    answer = ask(server.url, MAPS[0])
    assert answer.status_code == 503 and "within 0.2 seconds" in answer.json()["detail"]
    assert "retry-after" not in answer.headers  # it would take as long again


def test_a_client_that_leaves_costs_no_picture(server: Running, gate: Gate, clients: ThreadPoolExecutor):
    before = metric(server.url, "dpsims_pictures_total")
    first = clients.submit(ask, server.url, MAPS[0])
    assert gate.entered.wait(SECONDS)
    request = httpx.Request("POST", f"{server.url}/v1/generate", files={"map": MAPS[1]})
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    address = (request.url.host, request.url.port or 80)
    with socket.create_connection(address) as leaving:
        leaving.sendall(f"POST /v1/generate HTTP/1.1\r\n{head}\r\n".encode() + request.read())
        wait_until(lambda: metric(server.url, "dpsims_queue_pictures") == 1)
    wait_until(lambda: metric(server.url, "dpsims_queue_pictures") == 0)
    gate.open.set()
    assert first.result(SECONDS).status_code == 200
    assert ask(server.url, MAPS[2]).status_code == 200
    assert metric(server.url, "dpsims_pictures_total") == before + 2


def test_an_error_inside_is_an_answer_and_the_next_is_whole(
    server: Running, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    whole = picture(ask(server.url, MAPS[0]))

    def broken(label, noise):
        raise RuntimeError("out of memory, say")

    with monkeypatch.context() as patch:
        patch.setattr(server.models["model"].synthesizer, "generate", broken)
        answer = ask(server.url, MAPS[0])
    assert answer.status_code == 500 and "the server's log" in answer.json()["detail"]
    assert "content-security-policy" in answer.headers
    text = httpx.get(f"{server.url}/metrics", trust_env=False).text
    assert 'dpsims_requests_total{path="/v1/generate",status="500"} 1.0' in text
    assert (picture(ask(server.url, MAPS[0])) == whole).all()


def test_stopping_finishes_what_was_accepted(server: Running, gate: Gate, clients: ThreadPoolExecutor):
    asked = [clients.submit(ask, server.url, MAPS[0])]
    assert gate.entered.wait(SECONDS)
    asked += [clients.submit(ask, server.url, content) for content in MAPS[1:]]
    wait_until(lambda: metric(server.url, "dpsims_queue_pictures") == 3)
    stopping = clients.submit(server.stop)
    wait_until(lambda: server.server.should_exit)
    gate.open.set()
    stopping.result(SECONDS)
    assert [answer.result(SECONDS).status_code for answer in asked] == [200] * 4


# ---- a process of its own


def test_killed_under_load_it_gives_errors_and_never_wrong_pictures(
    tmp_path: Path, clients: ThreadPoolExecutor
):
    model = str(write_model(tmp_path / "model"))
    process = Process(model)
    right = [picture(ask(process.url, content)) for content in MAPS]

    def keep_asking(i: int) -> list[np.ndarray]:
        found = []
        while True:
            try:
                found.append(picture(ask(process.url, MAPS[i % 4])))
            except httpx.TransportError:
                return found

    asked: list[Future[list[np.ndarray]]] = [clients.submit(keep_asking, i) for i in range(8)]
    before = metric(process.url, "dpsims_pictures_total")
    wait_until(lambda: metric(process.url, "dpsims_pictures_total") > before + 20)
    process.end(signal.SIGKILL)
    answers = [future.result(SECONDS) for future in asked]  # each ended by an error of its connection
    assert sum(map(len, answers)) > 10
    for i, found in enumerate(answers):
        assert all(np.abs(answer - right[i % 4]).max() <= 1 for answer in found)
    again = Process(model)
    assert np.abs(picture(ask(again.url, MAPS[0])) - right[0]).max() <= 1
    assert again.end(signal.SIGINT) == (0, "")


def test_what_keeps_it_from_starting_is_told(tmp_path: Path, dpsims):
    model = write_model(tmp_path / "model")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err = dpsims("studio", model, "--port", port)
    assert code == 1 and err.startswith(f"error: 127.0.0.1:{port}: Address already in use; choose another")
    code, _, err = dpsims("studio", model, "--host", "0.0.0.0")
    assert code == 1 and "--token" in err
    code, _, err = dpsims("studio", tmp_path / "none")
    assert code == 1 and "does not exist" in err
    code, _, err = dpsims("studio", model, "--token", "with space")
    assert code == 1 and "--token" in err


def test_without_the_extra_it_says_how_to_get_it():
    code = "import sys\nsys.modules['fastapi'] = None\nfrom dpsims.cli import main\nmain(['studio'])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr == "error: fastapi is missing: pip install 'dpsims[studio]'\n"
