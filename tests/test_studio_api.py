"""The studio's HTTP API, asked over a real socket."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from dpsims import studio
from dpsims.evaluation.report import to_uint8
from dpsims.models.layers import RegionNoise
from dpsims.studio.app import STATIC
from dpsims.studio.limits import MAX_BODY, MAX_PIXELS, MAX_SAMPLES, MAX_SEED
from tests.command_line import SPACE
from tests.studio_server import SIZE, Running, ask, ids_of, picture, png, running, tiny_models


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tiny_models(tmp_path_factory.mktemp("studio"))) as started:
        yield started


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as opened:
        yield opened


def expected(server: Running, ids: np.ndarray, **noise: Any) -> np.ndarray:
    """What the synthesizer itself makes of it."""
    label = torch.from_numpy(SPACE.decode_ids(ids))[None]
    return to_uint8(server.models["model"].synthesizer.generate(label, **noise))[0].astype(float)


def test_a_picture_is_the_synthesizers(server: Running):
    ids = ids_of(0)
    found = picture(ask(server.url, png(ids), seed=7))
    assert np.abs(found - expected(server, ids, seed=7)).max() <= 1
    assert np.abs(found - picture(ask(server.url, png(ids), seed=8))).max() > 1


def test_all_codings_of_a_map_give_the_same_picture(server: Running):
    ids = ids_of(1)
    index = SPACE.decode_ids(ids)
    palette = Image.fromarray(ids).convert("P")
    palette.putpalette(np.eye(256, 3, dtype=np.uint8).tobytes())  # colours that say nothing
    codings = [png(ids), png(SPACE.colorize(index)), png(ids.astype(np.uint16)), png(palette)]
    pictures = [ask(server.url, content).content for content in codings]
    assert len(set(pictures)) == 1


def test_several_samples_come_as_a_zip(server: Running):
    content = png(ids_of(2))
    answer = ask(server.url, content, seed=3, samples=2)
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == ["picture_0.png", "picture_1.png", "map.png", "settings.json"]
        assert archive.read("map.png") == content
        settings = json.loads(archive.read("settings.json"))
        pictures = [np.array(Image.open(io.BytesIO(archive.read(f"picture_{i}.png")))) for i in (0, 1)]
    assert settings["seeds"] == [3, 4] and settings["model"] == "model"
    assert settings["model_digest"] == server.models["model"].synthesizer.weights
    for i in (0, 1):
        assert np.abs(pictures[i] - picture(ask(server.url, content, seed=3 + i))).max() <= 1


def test_regions_have_noise_of_their_own(server: Running):
    ids = ids_of(3)
    region = np.zeros(SIZE, np.uint8)
    region[:, 20:] = 1
    found = picture(ask(server.url, png(ids), png(region), seed=1, region_seeds=[5]))
    synthesizer = server.models["model"].synthesizer
    z = torch.stack([synthesizer.noise(1, 1)[0], synthesizer.noise(1, 5)[0]])[None]
    noise = RegionNoise(z, torch.from_numpy(region.astype(np.int64))[None])
    assert np.abs(found - expected(server, ids, noise=noise)).max() <= 1
    whole = picture(ask(server.url, png(ids), seed=1))
    assert np.abs(found - whole)[:, :12].max() <= 1 < np.abs(found - whole)[:, 20:].max()
    archive = zipfile.ZipFile(
        io.BytesIO(ask(server.url, png(ids), png(region), region_seeds=[5], format="zip").content)
    )
    assert archive.read("regions.png") == png(region)


def test_blending_goes_from_one_seed_to_the_other(server: Running):
    content = png(ids_of(4))
    start, end = (picture(ask(server.url, content, seed=seed)) for seed in (1, 2))
    ways = [picture(ask(server.url, content, seed=1, blend_seed=2, blend=b)) for b in (0, 0.5, 1)]
    assert np.abs(ways[0] - start).max() <= 1 and np.abs(ways[2] - end).max() <= 1
    synthesizer = server.models["model"].synthesizer
    halfway = (synthesizer.noise(1, 1) + synthesizer.noise(1, 2)) / 2**0.5  # of the same variance
    assert np.abs(ways[1] - expected(server, ids_of(4), noise=halfway)).max() <= 1


@pytest.mark.parametrize(("size", "shape"), [("auto", (64, 100)), ("map", (64, 100)), ("model", (32, 40))])
def test_sizes(server: Running, size: str, shape: tuple[int, int]):
    assert picture(ask(server.url, png(ids_of(5, (64, 100))), size=size)).shape[:2] == shape


def bad_regions(value: int, size: tuple[int, int] = SIZE) -> bytes:
    return png(np.full(size, value, np.uint8))


WHOLE = png(ids_of(0))
REFUSED: dict[str, tuple[int, str, dict[str, Any]]] = {
    "no PNG": (400, "is not a PNG file", {"content": b"GIF89a"}),
    "cut": (400, "cut short", {"content": WHOLE[:90]}),
    "empty": (400, "is not a PNG file", {"content": b""}),
    "JPEG": (400, "is not a PNG file", {"content": b"\xff\xd8\xff\xe0" + bytes(64)}),
    "id": (400, "label id 9 at row 0, column 0", {"content": png(np.full(SIZE, 9, np.uint8))}),
    "colour": (400, "belongs to no class", {"content": png(np.zeros((*SIZE, 3), np.uint8) + 77)}),
    "tiny": (400, "at least 8", {"content": png(np.zeros((7, 40), np.uint8))}),
    "model": (404, "there are model", {"model": "../model"}),
    "seed": (422, "seed: Input should be", {"seed": MAX_SEED + 1}),
    "seeds": (422, f"seed {MAX_SEED + 1}: use 0 to", {"seed": MAX_SEED, "samples": 2}),
    "samples": (422, "samples: Input should be", {"samples": MAX_SAMPLES + 1}),
    "blend": (422, "blend: Input should be", {"blend": "nan"}),
    "blend alone": (422, "blend=0.5: give blend_seed", {"blend": 0.5}),
    "size": (422, "size: Input should be", {"size": "huge"}),
    "png of two": (422, "png holds one", {"samples": 2, "format": "png"}),
    "regions alone": (422, "give both", {"regions": bad_regions(0)}),
    "region seeds alone": (422, "give both", {"region_seeds": [1]}),
    "region seed": (422, "seed -1: use", {"regions": bad_regions(0), "region_seeds": [-1]}),
    "region number": (400, "number 2", {"regions": bad_regions(2), "region_seeds": [1]}),
    "region size": (400, "same size", {"regions": bad_regions(0, (8, 8)), "region_seeds": [1]}),
    "region colours": (
        400,
        "coloured PNG",
        {"regions": png(np.zeros((*SIZE, 3), np.uint8)), "region_seeds": [1]},
    ),
    "many regions": (400, "at most 32", {"regions": bad_regions(0), "region_seeds": [1] * 33}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_what_is_wrong(server: Running, name: str):
    status, message, fields = REFUSED[name]
    answer = ask(server.url, **{"content": WHOLE, **fields})
    assert answer.status_code == status and message in answer.json()["detail"], answer.text


def test_a_bomb_is_refused_by_its_header(server: Running):
    width = MAX_PIXELS // 1000
    rows = png(np.zeros((1001, width + 1), np.uint8))
    assert len(rows) < 20_000
    answer = ask(server.url, rows)
    assert answer.status_code == 400 and f"more than {MAX_PIXELS:,} pixels" in answer.json()["detail"]


def test_much_work_is_refused(server: Running):
    whole, seeds = png(np.zeros((1024, 1024), np.uint8)), list(range(9))
    answer = ask(server.url, whole, whole, region_seeds=seeds)
    assert answer.status_code == 422 and "at most 8" in answer.json()["detail"]
    answer = ask(server.url, png(np.zeros((1024, 1024), np.uint8)), samples=5)
    assert answer.status_code == 422 and "at most 4" in answer.json()["detail"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_long_body_is_refused(client: httpx.Client, chunked: bool):
    content = bytes(MAX_BODY + 1000)
    head = b'--b\r\ncontent-disposition: form-data; name="map"; filename="m.png"\r\n\r\n'
    body: Any = head + content
    if chunked:
        body = (part for part in (head, content))
    answer = client.post(
        "/v1/generate", content=body, headers={"content-type": "multipart/form-data; boundary=b"}
    )
    assert answer.status_code == 413 and "smaller" in answer.json()["detail"]
    assert ask(str(client.base_url), WHOLE).status_code == 200


def test_models_tell_their_classes(client: httpx.Client):
    (model,) = client.get("/v1/models").json()
    assert [item["name"] for item in model["classes"]] == list(SPACE.names)
    assert [item["id"] for item in model["classes"]] == list(SPACE.ids)
    assert model["unlabelled"] == {"index": 3, "id": 255, "name": "unlabelled", "color": [0, 0, 0]}
    assert (model["height"], model["width"], model["region_noise"]) == (32, 40, True)


def test_maps_are_decoded(client: httpx.Client):
    ids = ids_of(6)
    answer = client.post("/v1/maps", files={"map": ("a.png", png(ids))}).json()
    found = np.frombuffer(base64.b64decode(answer["indices"]), np.uint8).reshape(SIZE)
    assert (found == SPACE.decode_ids(ids)).all() and answer["name"] == "a.png"
    assert client.post("/v1/maps", files={"map": ("a.png", b"x")}).status_code == 400


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static/nothing.js", "/docs",
     "/v1/models/model/examples/0", "/v1/models/other/examples/0"],
)  # fmt: skip
def test_what_is_not_offered_is_not_found(client: httpx.Client, path: str):
    assert client.get(path).status_code == 404


def test_health_and_metrics(client: httpx.Client):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}

    def count() -> float:
        lines = client.get("/metrics").text.splitlines()
        (line,) = (row for row in lines if row.startswith('dpsims_pictures_total{model="model"}'))
        return float(line.split()[-1])

    before = count()
    assert ask(str(client.base_url), WHOLE, samples=3).status_code == 200
    assert count() == before + 3


def test_the_page_and_its_files_come_with_their_policy(client: httpx.Client):
    page = client.get("/")
    assert page.status_code == 200 and "dpsims studio" in page.text
    for answer in (page, client.get("/static/studio.js"), client.get("/static/none")):
        assert "default-src 'none'; script-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    # nothing inline, nothing from elsewhere: the policy would stop it
    assert "style=" not in page.text and "http:" not in page.text and "https:" not in page.text


def test_every_file_of_the_page_is_served(client: httpx.Client):
    names = {file.name for file in (Path(studio.__file__).parent / "static").iterdir()} - {"index.html"}
    assert names == set(STATIC)
    for name, kind in STATIC.items():
        answer = client.get(f"/static/{name}")
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind)


def test_openapi_describes_the_api(client: httpx.Client):
    description = client.get("/openapi.json").json()
    assert set(description["paths"]) == {
        "/healthz", "/readyz", "/metrics", "/v1/models", "/v1/models/{model}/examples/{number}", "/v1/maps",
        "/v1/generate",
    }  # fmt: skip
    generate = description["paths"]["/v1/generate"]["post"]
    assert set(generate["responses"]) == {"200", "400", "401", "404", "413", "422", "500", "503"}
    assert set(generate["responses"]["200"]["content"]) == {"image/png", "application/zip"}
    form = description["components"]["schemas"]["Body_generate_v1_generate_post"]["properties"]
    assert all(field.get("description") for field in form.values())
    assert generate["security"] == [{"HTTPBearer": []}]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 400),  # a name of another site that resolves to this machine
        ({"host": "localhost:1"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_other_sites_are_refused(tmp_path, headers: dict[str, str], status: int):
    with (
        running(tiny_models(tmp_path), hosts={"127.0.0.1", "localhost"}) as server,
        httpx.Client(base_url=server.url, trust_env=False) as client,
    ):
        assert client.get("/v1/models", headers=headers).status_code == status
        assert client.get("/v1/models", headers={"origin": server.url}).status_code == 200


def test_a_proxys_name_is_let_in(tmp_path):
    options: dict[str, Any] = {"hosts": {"127.0.0.1"}, "sites": ["studio.example"]}
    origin = {"origin": "https://studio.example"}
    with (
        running(tiny_models(tmp_path), **options) as server,
        httpx.Client(base_url=server.url, trust_env=False) as client,
    ):
        for headers in (
            origin,
            {**origin, "host": "studio.example"},
        ):  # the proxy may hand its name on, or not
            assert client.post("/v1/generate", files={"map": WHOLE}, headers=headers).status_code == 200
        assert client.get("/", headers={"host": "other.example"}).status_code == 400


def test_a_token_is_wanted_where_there_is_one(tmp_path):
    with (
        running(tiny_models(tmp_path), token="open-sesame") as server,
        httpx.Client(base_url=server.url, trust_env=False) as client,
    ):
        assert client.get("/").status_code == client.get("/healthz").status_code == 200
        for path in ("/v1/models", "/metrics", "/v1/models/model/examples/0"):
            assert client.get(path).status_code == 401
            wrong = client.get(path, headers={"authorization": "Bearer open-sesamE"})
            assert wrong.status_code == 401 and "Bearer TOKEN" in wrong.json()["detail"]
        right = {"authorization": "Bearer open-sesame"}
        assert client.get("/v1/models", headers=right).status_code == 200
        assert client.post("/v1/generate", files={"map": WHOLE}).status_code == 401
        assert client.post("/v1/generate", files={"map": WHOLE}, headers=right).status_code == 200
