"""The part of the API that makes pictures: `/v1/...`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import torch
from fastapi import APIRouter, Depends, File, Form, HTTPException, Request, Response, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPBearer

from dpsims.evaluation.report import to_uint8
from dpsims.studio import limits
from dpsims.studio.engine import Closed, Engine, Job, QueueFull
from dpsims.studio.hosted import Hosted
from dpsims.studio.maps import noise_of, read_map, read_regions, to_content, to_png, to_zip
from dpsims.studio.schemas import ClassInfo, MapContent, ModelInfo, Problem, Settings

LOG = logging.getLogger(__name__)
TOKEN = HTTPBearer(auto_error=False, description="the server's --token, where it has one")
"""for the description only: studio.guard checks it"""


def picture_routes(models: Mapping[str, Hosted], state: Mapping[str, Engine]) -> APIRouter:
    """Over loaded models, the first one being the default; `state["engine"]` is there while it runs."""
    routes = APIRouter(tags=["pictures"], dependencies=[Depends(TOKEN)])

    def find(name: str | None) -> Hosted:
        if not name:
            return next(iter(models.values()))
        if name not in models:
            raise HTTPException(404, f"model: no {name!r}; there are {', '.join(models)}")
        return models[name]

    @routes.get("/v1/models", responses=problems(401))
    def list_models() -> list[ModelInfo]:
        """The models, and what the values in their label maps mean. The first one is the default."""
        return [_info(model) for model in models.values()]

    @routes.get("/v1/models/{model}/examples/{number}", responses=problems(401, 404))
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

    @routes.post("/v1/maps", responses=problems(400, 401, 404, 413))
    async def decode_map(
        map: Annotated[UploadFile, File(description="label map: PNG of ids, palette, or class colours")],
        model: Annotated[str | None, Form(description="whose classes; none: the first model's")] = None,
    ) -> MapContent:
        """Read a label map in any of its codings: class indices, or what is wrong with it."""
        space = find(model).synthesizer.space
        label = await _checked(read_map, await map.read(), space)
        return to_content(map.filename or "map", label, space)

    @routes.post(
        "/v1/generate",
        response_class=Response,
        responses={**_PICTURES, **problems(400, 401, 404, 413, 500, 503)},
    )
    async def generate(
        request: Request,
        map: Annotated[UploadFile, File(description="label map: PNG of ids, palette, or class colours")],
        model: Annotated[str | None, Form(description="its name; none: the first one")] = None,
        seed: Annotated[int, Form(ge=0, le=limits.MAX_SEED, description="another seed, another picture")] = 0,
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
        for value in (seed + samples - 1, *region_seeds):
            if not 0 <= value <= limits.MAX_SEED:
                raise HTTPException(422, f"seed {value}: use 0 to {limits.MAX_SEED}")
        if blend > 0 and blend_seed is None:
            raise HTTPException(422, f"blend={blend:g}: give blend_seed, too")
        if (regions is None) != (not region_seeds):
            raise HTTPException(422, "regions and region_seeds: give both, or none")
        if regions is not None and not hosted.has_regions:
            raise HTTPException(422, f"regions: the model {hosted.name} takes no noise by region")
        content = await map.read()
        label = await _checked(read_map, content, synthesizer.space)
        if label.size * len(region_seeds) > limits.MAX_REGION_WORK:
            most = limits.MAX_REGION_WORK // label.size
            raise HTTPException(422, f"region_seeds: use at most {most} for a map of {label.size:,} pixels")
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
        pictures = await run_in_threadpool(to_uint8, await _generated(state.get("engine"), job, request))
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

    return routes


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
            return _result(pictures, job)
        if gone.done():
            raise HTTPException(499, "the client is gone")  # nobody reads it; the metrics count it
        # no Retry-After: the same request would take as long again
        raise HTTPException(
            503,
            f"no picture within {limits.REQUEST_SECONDS:g} seconds; ask for fewer, smaller, or size=model",
        )
    finally:
        job.abandoned = True
        gone.cancel()
        pictures.cancel()


def _result(pictures: asyncio.Future[torch.Tensor], job: Job) -> torch.Tensor:
    """What was generated; an error inside the network as an answer that passes the guard and is counted."""
    try:
        return pictures.result()
    except Exception as error:
        LOG.exception("generating %d pictures of %s failed", job.count, job.key)
        raise HTTPException(
            500, "the network failed on this map; the server's log says why (memory, or a size it cannot do)"
        ) from error


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _busy(reason: str) -> HTTPException:
    return HTTPException(503, f"{reason}; try again", headers={"Retry-After": str(limits.RETRY_AFTER)})


def _info(model: Hosted) -> ModelInfo:
    space = model.synthesizer.space
    rows = zip(space.ids, space.names, space.colors, strict=True)
    return ModelInfo(
        name=model.name,
        digest=model.synthesizer.weights,
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


def problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: what a refusal looks like; 422 is possible everywhere."""
    return {code: {"model": Problem, "description": _REFUSALS[code]} for code in (*codes, 422)}


_REFUSALS = {
    400: "the map or the regions cannot be read",
    401: "a token is needed",
    404: "no such model or example",
    413: "the request is too large",
    422: "a field is wrong",
    500: "the network failed",
    503: "busy; try again after the seconds in Retry-After",
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_PICTURES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "picture, or pictures",
        "content": {"image/png": _BINARY, "application/zip": _BINARY},
    }
}
