"""The web application: one page, and the API behind it. `create_app(host(["earth"]))`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping
from importlib.resources import files
from typing import Any

import torch
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from dpsims import __version__
from dpsims.studio import limits
from dpsims.studio.api import picture_routes, problems
from dpsims.studio.engine import Engine, Job
from dpsims.studio.guard import Guard
from dpsims.studio.hosted import Hosted
from dpsims.studio.metrics import Metrics
from dpsims.studio.schemas import Health

STATIC = {
    "studio.css": "text/css",
    "studio.js": "text/javascript",
    "painting.js": "text/javascript",
    "session.js": "text/javascript",
    "png.js": "text/javascript",
    "view.js": "text/javascript",
    "server.js": "text/javascript",
    "tools.js": "text/javascript",
    "asking.js": "text/javascript",
    "keys.js": "text/javascript",
    "classes.js": "text/javascript",
    "variations.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
"""the page's files and what they are"""
ABOUT = """From label maps to photo-like images, in one feed-forward pass.

Send a label map as PNG to `/v1/generate`, get a picture: `curl -F map=@map.png -F seed=1 .../v1/generate -o
picture.png`. What the values in a label map mean is in `/v1/models`. Errors are JSON: `{"detail": "what is
wrong"}`.
"""


def create_app(
    models: Mapping[str, Hosted],
    token: str | None = None,
    hosts: Collection[str] | None = None,
    sites: Collection[str] = (),
    max_batch: int = limits.MAX_BATCH,
) -> FastAPI:
    """The application over loaded models, the first one being the default.

    token, hosts, sites: see `studio.guard.Guard`. max_batch: pictures that go through the network together.
    """
    metrics = Metrics()
    state: dict[str, Engine] = {}

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        synthesizers = {name: model.synthesizer for name, model in models.items()}
        engine = Engine(synthesizers, max_batch, on_batch=metrics.count_batch)
        metrics.watch_queue(lambda: engine.waiting)
        warm = [_warm_up(engine, model) for model in models.values()]
        await asyncio.gather(*warm)
        state["engine"] = engine
        yield
        del state["engine"]
        await run_in_threadpool(engine.close)

    app = FastAPI(
        title="dpsims studio",
        version=__version__,
        description=ABOUT,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(Guard, token=token, hosts=hosts, sites=sites)
    app.add_middleware(metrics.middleware)
    app.add_exception_handler(RequestValidationError, _explain)
    page = files("dpsims.studio") / "static"

    @app.get("/", include_in_schema=False)
    def index() -> FileResponse:
        return FileResponse(str(page / "index.html"), media_type="text/html", headers=_FRESH)

    @app.get("/static/{name}", include_in_schema=False)
    def static(name: str) -> FileResponse:
        if name not in STATIC:  # a name, never a path
            raise HTTPException(404, "no such file")
        return FileResponse(str(page / name), media_type=STATIC[name], headers=_FRESH)

    @app.get("/healthz", tags=["server"])
    def healthz() -> Health:
        """Whether the server lives."""
        return Health(status="ok")

    @app.get("/readyz", tags=["server"], responses=problems(503))
    def readyz() -> Health:
        """Whether the server takes requests."""
        if "engine" not in state or not state["engine"].alive:
            raise HTTPException(503, "not ready")
        return Health(status="ready")

    @app.get("/metrics", tags=["server"], response_class=Response, responses={**_TEXT, **problems(401)})
    def show_metrics() -> Response:
        """Counters, in the form of Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    app.include_router(picture_routes(models, state))
    return app


async def _warm_up(engine: Engine, model: Hosted) -> None:
    """The first picture takes longer than those after it: let it be nobody's."""
    synthesizer = model.synthesizer
    label = torch.zeros(synthesizer.size, dtype=torch.int64)
    job = Job(model.name, label, synthesizer.noise(1, 0))
    engine.submit(job)
    await asyncio.wrap_future(job.pictures)


def _in_words(message: str) -> str:
    return "send it as a file: curl -F map=@map.png" if "UploadFile" in message else message


def _explain(request: Request, error: Exception) -> JSONResponse:
    """One sentence, in the place of pydantic's list."""
    assert isinstance(error, RequestValidationError)
    parts = [
        f"{'.'.join(str(part) for part in item['loc'][1:]) or item['loc'][0]}: {_in_words(item['msg'])}"
        for item in error.errors()
    ]
    return JSONResponse({"detail": "; ".join(parts)}, 422)


_TEXT: dict[int | str, dict[str, Any]] = {200: {"description": "text", "content": {"text/plain": {}}}}
_FRESH = {"cache-control": "no-cache"}  # after an upgrade, the page and its scripts go together
