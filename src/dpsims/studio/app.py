"""The web application: one page, and the API behind it. `create_app(host(["scenes"]))`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping
from importlib.resources import files
from typing import Annotated, Any, Literal

import numpy as np
import torch
from fastapi import FastAPI, File, Form, HTTPException, Request, Response, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from dpsims import __version__
from dpsims.evaluation.report import to_uint8
from dpsims.studio import limits
from dpsims.studio.engine import Closed, Engine, Job, QueueFull
from dpsims.studio.guard import Guard
from dpsims.studio.hosted import Hosted
from dpsims.studio.maps import noise_of, read_map, read_regions, to_content, to_png, to_zip
from dpsims.studio.metrics import Metrics
from dpsims.studio.schemas import ClassInfo, Health, MapContent, ModelInfo, Problem, Settings

STATIC = {
    "studio.css": "text/css",
    "studio.js": "text/javascript",
    "painting.js": "text/javascript",
    "session.js": "text/javascript",
    "png.js": "text/javascript",
    "view.js": "text/javascript",
    "server.js": "text/javascript",
    "tools.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
"""the page's files and what they are"""
ABOUT = """From label maps to photo-like images, in one feed-forward pass.

Send a label map as PNG to `/v1/generate`, get a picture: `curl -F map=@map.png -F seed=1 .../v1/generate -o
picture.png`. What the values in a label map mean is in `/v1/models`. Errors are JSON: `{"detail": "what is
wrong"}`.
"""
Seed = Annotated[int, Form(ge=0, le=limits.MAX_SEED)]


def create_app(
    models: Mapping[str, Hosted],
    token: str | None = None,
    hosts: Collection[str] | None = None,
    max_batch: int = limits.MAX_BATCH,
) -> FastAPI:
    """The application over loaded models, the first one being the default.

    token, hosts: see `studio.guard.Guard`. max_batch: pictures that go through the network together.
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
    app.add_middleware(Guard, token=token, hosts=hosts)
    app.add_middleware(metrics.middleware)
    app.add_exception_handler(RequestValidationError, _explain)
    page = files("dpsims.studio") / "static"

    def find(name: str | None) -> Hosted:
        if not name:
            return next(iter(models.values()))
        if name not in models:
            raise HTTPException(404, f"model: no {name!r}; there are {', '.join(models)}")
        return models[name]

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

    @app.get("/readyz", tags=["server"], responses=_problems(503))
    def readyz() -> Health:
        """Whether the server takes requests."""
        if "engine" not in state or not state["engine"].alive:
            raise HTTPException(503, "not ready")
        return Health(status="ready")

    @app.get("/metrics", tags=["server"], response_class=Response, responses={**_TEXT, **_problems(401)})
    def show_metrics() -> Response:
        """Counters, in the form of Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models", tags=["pictures"], responses=_problems(401))
    def list_models() -> list[ModelInfo]:
        """The models, and what the values in their label maps mean. The first one is the default."""
        return [_info(model) for model in models.values()]

    @app.get("/v1/models/{model}/examples/{number}", tags=["pictures"], responses=_problems(401, 404))
    def example(model: str, number: int) -> MapContent:
        """A label map to start from, as class indices; `/v1/models` has their names, from number 0 on."""
        hosted = find(model)
        if not 0 <= number < len(hosted.examples):
            raise HTTPException(404, f"number: {model} has {len(hosted.examples)} examples, from 0 on")
        chosen = hosted.examples[number]
        try:
            label = chosen.load()
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        return to_content(chosen.name, label, hosted.synthesizer.space)

    @app.post("/v1/maps", tags=["pictures"], responses=_problems(400, 401, 404, 413))
    async def decode_map(
        map: Annotated[UploadFile, File(description="label map: PNG of ids, palette, or class colours")],
        model: Annotated[str | None, Form(description="whose classes; none: the first model's")] = None,
    ) -> MapContent:
        """Read a label map in any of its codings: class indices, or what is wrong with it."""
        space = find(model).synthesizer.space
        label = await _checked(read_map, await map.read(), space)
        return to_content(map.filename or "map", label, space)

    @app.post(
        "/v1/generate",
        tags=["pictures"],
        response_class=Response,
        responses={**_PICTURES, **_problems(400, 401, 404, 413, 503)},
    )
    async def generate(
        request: Request,
        map: Annotated[UploadFile, File(description="label map: PNG of ids, palette, or class colours")],
        model: Annotated[str | None, Form(description="its name; none: the first one")] = None,
        seed: Seed = 0,
        samples: Annotated[
            int, Form(ge=1, le=limits.MAX_SAMPLES, description="pictures, with seeds seed, seed+1 ...")
        ] = 1,
        blend_seed: Annotated[
            int | None, Form(ge=0, le=limits.MAX_SEED, description="another seed, to interpolate to")
        ] = None,
        blend: Annotated[float, Form(ge=0, le=1, description="how far: 0 is seed, 1 is blend_seed")] = 0.0,
        regions: Annotated[
            UploadFile | None,
            File(description="grey PNG of the map's size: region numbers, 0 for the picture's own noise"),
        ] = None,
        region_seeds: Annotated[
            list[int], Form(description="seeds of regions 1, 2 ...; repeat the field")
        ] = [],  # noqa: B006 (FastAPI copies it)
        size: Annotated[
            Literal["auto", "map", "model"],
            Form(description="size the network works at; auto: the map's, unless far from the trained one"),
        ] = "auto",
        format: Annotated[
            Literal["auto", "png", "zip"],
            Form(description="auto: PNG for one picture, ZIP (with map and settings) for several"),
        ] = "auto",
    ) -> Response:
        """One picture of a label map as PNG, or several as ZIP. The same request gives the same pictures."""
        hosted = find(model)
        synthesizer = hosted.synthesizer
        if format == "png" and samples > 1:
            raise HTTPException(422, "format: png holds one picture; use zip, or samples=1")
        if seed + samples - 1 > limits.MAX_SEED or any(not 0 <= s <= limits.MAX_SEED for s in region_seeds):
            raise HTTPException(422, f"seeds: use 0 to {limits.MAX_SEED}")
        if (regions is None) != (not region_seeds):
            raise HTTPException(422, "regions and region_seeds: give both, or none")
        if regions is not None and not hosted.has_regions:
            raise HTTPException(422, f"regions: the model {hosted.name} takes no noise by region")
        content = await map.read()
        label = await _checked(read_map, content, synthesizer.space)
        if label.size * samples > limits.MAX_WORK:
            most = limits.MAX_WORK // label.size
            raise HTTPException(422, f"samples: use at most {most} for a map of {label.size:,} pixels")
        region, region_content = None, None
        if regions is not None:
            region_content = await regions.read()
            region = await _checked(read_regions, region_content, label.shape, len(region_seeds))
        seeds = list(range(seed, seed + samples))
        noise = noise_of(synthesizer, seeds, blend_seed, blend, region_seeds)
        job = Job(
            hosted.name,
            torch.from_numpy(label),
            noise,
            None if region is None else torch.from_numpy(region),
            size,
        )
        pictures = to_uint8(await _generated(state.get("engine"), job, request))
        settings = Settings(
            model=hosted.name,
            model_digest=synthesizer.weights,
            seeds=seeds,
            blend_seed=blend_seed,
            blend=blend,
            region_seeds=region_seeds,
            size=size,
        )
        if format == "zip" or samples > 1:
            packed = await run_in_threadpool(to_zip, pictures, content, region_content, settings)
            return Response(packed, media_type="application/zip")
        return Response(await run_in_threadpool(to_png, pictures[0]), media_type="image/png")

    return app


async def _checked(function: Any, *arguments: Any) -> np.ndarray:
    """Its result, off the event loop; what the sender can mend as 400."""
    try:
        return await run_in_threadpool(function, *arguments)
    except ValueError as error:
        raise HTTPException(400, str(error)) from error


async def _generated(engine: Engine | None, job: Job, request: Request) -> torch.Tensor:
    """The job's pictures. 503 where the queue is full or time is over; a client that is gone cancels it."""
    try:
        if engine is None:
            raise Closed
        engine.submit(job)
    except QueueFull as error:
        raise _busy("too many pictures are waiting") from error
    except Closed as error:
        raise _busy("the server is shutting down, or not ready") from error
    pictures = asyncio.wrap_future(job.pictures)
    gone = asyncio.create_task(_until_gone(request))
    try:
        await asyncio.wait(
            {pictures, gone}, timeout=limits.REQUEST_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        if pictures.done():
            return pictures.result()
        if gone.done():
            raise HTTPException(499, "the client is gone")  # nobody reads it; the metrics count it
        raise _busy(f"no picture within {limits.REQUEST_SECONDS:g} seconds")
    finally:
        gone.cancel()
        pictures.cancel()


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _warm_up(engine: Engine, model: Hosted) -> None:
    """The first picture takes longer than those after it: let it be nobody's."""
    synthesizer = model.synthesizer
    label = torch.zeros(synthesizer.size, dtype=torch.int64)
    job = Job(model.name, label, synthesizer.noise(1, 0))
    engine.submit(job)
    await asyncio.wrap_future(job.pictures)


def _busy(reason: str) -> HTTPException:
    return HTTPException(503, f"{reason}; try again", headers={"Retry-After": str(limits.RETRY_AFTER)})


def _explain(request: Request, error: Exception) -> JSONResponse:
    """One sentence, in the place of pydantic's list."""
    assert isinstance(error, RequestValidationError)
    parts = [
        f"{'.'.join(str(part) for part in item['loc'][1:]) or item['loc'][0]}: {item['msg']}"
        for item in error.errors()
    ]
    return JSONResponse({"detail": "; ".join(parts)}, 422)


def _info(model: Hosted) -> ModelInfo:
    space = model.synthesizer.space
    rows = zip(space.ids, space.names, space.colors, strict=True)
    return ModelInfo(
        name=model.name,
        classes=[
            ClassInfo(index=i, id=number, name=name, color=color)
            for i, (number, name, color) in enumerate(rows)
        ],
        unlabelled=ClassInfo(
            index=space.ignore_index, id=space.ignore_id, name="unlabelled", color=space.ignore_color
        ),
        height=model.synthesizer.size[0],
        width=model.synthesizer.size[1],
        region_noise=model.has_regions,
        examples=[item.name for item in model.examples],
    )


def _problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: what a refusal looks like; 422 is possible everywhere."""
    return {code: {"model": Problem, "description": _REFUSALS[code]} for code in (*codes, 422)}


_REFUSALS = {
    400: "the map or the regions cannot be read",
    401: "a token is needed",
    404: "no such model or example",
    413: "the request is too large",
    422: "a field is wrong",
    503: "busy; try again after the seconds in Retry-After",
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_PICTURES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "picture, or pictures",
        "content": {"image/png": _BINARY, "application/zip": _BINARY},
    }
}
_TEXT: dict[int | str, dict[str, Any]] = {200: {"description": "text", "content": {"text/plain": {}}}}
_FRESH = {"cache-control": "no-cache"}  # after an upgrade, the page and its scripts go together
