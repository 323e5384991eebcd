"""What the server counts, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30, 60)
PATHS = ("/v1/generate", "/v1/maps", "/v1/models", "/healthz", "/readyz", "/metrics", "/")
"""counted each; all others together, or a client could make as many counters as it likes"""


class Metrics:
    """Counters of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "dpsims_requests", "requests answered", ["path", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "dpsims_generate_seconds", "time of /v1/generate", buckets=SECONDS, registry=self.registry
        )
        self._pictures = Counter("dpsims_pictures", "pictures generated", ["model"], registry=self.registry)
        self._batch = Histogram(
            "dpsims_batch_pictures",
            "pictures of a batch",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self.registry,
        )
        self._network = Counter("dpsims_network_seconds", "time spent in the network", registry=self.registry)
        self._queue = Gauge("dpsims_queue_pictures", "pictures waiting", registry=self.registry)

    def watch_queue(self, count: Callable[[], int]) -> None:
        self._queue.set_function(count)

    def count_batch(self, model: str, pictures: int, seconds: float) -> None:
        self._pictures.labels(model).inc(pictures)
        self._batch.observe(pictures)
        self._network.inc(seconds)

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """Counts every answer, refusals included."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            begun, path = time.monotonic(), scope["path"]

            async def send_counted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    known = path if path in PATHS else "other"
                    self._requests.labels(known, str(message["status"])).inc()
                await send(message)

            await app(scope, receive, send_counted)
            if path == "/v1/generate":
                self._seconds.observe(time.monotonic() - begun)

        return counted
