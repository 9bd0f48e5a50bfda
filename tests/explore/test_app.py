import asyncio
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from gan_lab.data.images import image_spec, to_uint8
from gan_lab.explore import app as app_module
from gan_lab.explore.app import LARGEST_UPLOAD, build_app
from gan_lab.explore.studio import Studio
from gan_lab.models import bigan
from gan_lab.sampling.gan import Gan

HOST = "http://127.0.0.1"


@pytest.fixture
def client(styled: Gan, unstyled: Gan) -> Iterator[TestClient]:
    studios = [Studio(styled, name="styled"), Studio(unstyled, name="unstyled")]
    with TestClient(build_app(studios, hosts=["127.0.0.1"]), base_url=HOST) as client:
        yield client


def drawn(client: TestClient, **recipe) -> np.ndarray:
    """Return the pixels [H, W] or [H, W, 3] of a recipe."""
    answer = client.post("/api/draw", json={"point": {"seed": 0}, **recipe})
    assert answer.status_code == 200, answer.text
    return np.array(Image.open(io.BytesIO(answer.content)))


def refusal(client: TestClient, **recipe) -> str:
    answer = client.post("/api/draw", json={"point": {"seed": 0}, **recipe})
    assert answer.status_code == 400
    return answer.json()["error"]


def pixels(images: torch.Tensor) -> np.ndarray:
    return to_uint8(images)[0].permute(1, 2, 0).squeeze(2).numpy()


def near(a: np.ndarray, b: np.ndarray) -> bool:
    # a live image is drawn alone, and may differ in the last bits
    return a.shape == b.shape and np.abs(a.astype(int) - b.astype(int)).max() <= 1


def png(size: tuple[int, int] = (16, 16)) -> bytes:
    file = io.BytesIO()
    rows = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(rows).save(file, "png")
    return file.getvalue()


def test_attributes_have_their_names_and_ranges_and_are_drawn(styled: Gan) -> None:
    spec = replace(
        image_spec(channels=1, image_size=(16, 16)),
        attributes=("smile", "age", "hat"),
        attribute_ranges=((0, 1), (-1, 2), (0, 1)),
        label_vectors=((0, 0.5, 1),),
    )
    gan = Gan(styled.generator, spec=spec)
    app = build_app([Studio(gan, name="faces"), Studio(styled, name="cats")], hosts=["127.0.0.1"])
    with TestClient(app, base_url=HOST) as client:
        faces, cats = client.get("/api/models").json()
        assert faces["attributes"] == [["smile", 0, 1], ["age", -1, 2], ["hat", 0, 1]]
        assert (faces["classes"], faces["projects"], cats["attributes"]) == ([], False, [])
        for label in ({"age": -1.0}, {"smile": 1, "age": 2}):
            shown = drawn(client, point={"seed": 4, "label": label})
            assert near(shown, pixels(gan.sample(seed=[4], labels=label)))
        assert near(drawn(client, point={"seed": 4}), pixels(gan.sample(seed=[4])))
        # what is of the other run's labels is left out
        assert near(drawn(client, point={"seed": 4, "label": 2}), pixels(gan.sample(seed=[4])))
        other = drawn(client, model=1, point={"seed": 4, "label": {"age": 1}})
        assert near(other, pixels(styled.sample(seed=[4])))


def test_abilities_of_generators(client: TestClient):
    styled, unstyled = client.get("/api/models").json()
    assert (styled["size"], styled["styles"], styled["truncation"]) == ([16, 16], 6, "psi")
    assert styled["classes"] == ["cat", "dog", "<owl>"]
    assert styled["levels"] == {"coarse": [0, 2], "middle": [3, 5]}
    assert (unstyled["styles"], unstyled["truncation"], unstyled["noise"]) == (
        0,
        "threshold",
        False,
    )


def test_a_seed_gives_the_image_that_sample_gives(client: TestClient, styled: Gan, unstyled: Gan):
    for model, gan in enumerate((styled, unstyled)):
        point = {"seed": 5, "label": 1}
        expected = gan.sample(1, seed=5, labels=1, truncation=0.5)
        assert near(drawn(client, model=model, point=point, truncation=0.5), pixels(expected))


def test_a_missing_label_is_drawn_as_by_sample(client: TestClient, styled: Gan):
    for seed in range(4):
        expected = pixels(styled.sample(1, seed=seed))
        assert near(drawn(client, point={"seed": seed}), expected)


def test_an_interpolation_starts_and_ends_at_its_pins(client: TestClient):
    a, b = {"seed": 1, "label": 0}, {"seed": 2, "label": 2}
    for model in (0, 1):
        ends = [
            drawn(client, model=model, point={"start": a, "end": b, "t": t}) for t in (0, 0.5, 1)
        ]
        assert near(ends[0], drawn(client, model=model, point=a))
        assert near(ends[2], drawn(client, model=model, point=b))
        assert not near(ends[1], ends[0]) and not near(ends[1], ends[2])


def test_mixing_all_styles_gives_the_other_image(client: TestClient):
    a, b = {"seed": 1, "label": 0}, {"seed": 2, "label": 0}
    mix = {"seed": 2, "first": 0, "last": 5}
    assert near(drawn(client, point=a, mix=mix), drawn(client, point=b))
    some = drawn(client, point=a, mix=mix | {"first": 3})
    assert not near(some, drawn(client, point=a)) and not near(some, drawn(client, point=b))


def test_psi_0_with_class_centers_gives_one_image_per_class(client: TestClient):
    def center(seed: int, label: int) -> np.ndarray:
        point = {"seed": seed, "label": label}
        return drawn(client, point=point, truncation=0, center="class")

    assert near(center(1, 0), center(2, 0))
    assert not near(center(1, 0), center(1, 1))


@pytest.mark.parametrize("model", [0, 1])
def test_latents_can_be_downloaded(
    client: TestClient, styled: Gan, unstyled: Gan, model: int, tmp_path: Path
):
    gan = (styled, unstyled)[model]
    recipe = {"model": model, "point": {"seed": 3, "label": 1}, "truncation": 0.6}
    if gan.has_styles:
        recipe["mix"] = {"seed": 4, "first": 2, "last": 3}
    file = tmp_path / "latents.safetensors"
    file.write_bytes(client.post("/api/latents", json=recipe).content)
    images = gan.synthesize(gan.read_latents(file))
    assert near(pixels(images), drawn(client, **recipe))


@pytest.mark.parametrize("model", [0, 1])
@pytest.mark.parametrize("method", ["sefa", "ganspace"])
def test_directions_move_the_image_and_back(client: TestClient, model: int, method: str):
    if method not in client.get("/api/models").json()[model]["walks"]:
        pytest.skip("this generator has no such directions")
    answer = client.get("/api/directions", params={"model": model, "method": method})
    count = len(answer.json()["shares"])
    assert 1 < count <= 8
    still = drawn(client, model=model)
    walk = {"method": method, "amounts": [0.0] * count}
    assert near(drawn(client, model=model, walk=walk), still)
    walk["amounts"][0] = 4.0
    assert not near(drawn(client, model=model, walk=walk), still)


def test_unsupported_settings_are_rejected(client: TestClient):
    assert "styles" in refusal(client, model=1, mix={"seed": 1, "first": 0, "last": 1})
    assert "6" in refusal(client, point={"seed": 1, "label": 6})
    assert "0 to 5" in refusal(client, mix={"seed": 1, "first": 0, "last": 6})
    assert "stylegan3" in refusal(client, rotate=10)
    assert "threshold" in refusal(client, model=1, truncation=-1)
    assert "counted from 0" in refusal(client, model=2)
    assert "project the image again" in refusal(client, point={"latents": "gone"})
    assert client.post("/api/draw", content="{").status_code == 400
    assert client.get("/api/directions", params={"method": "magic"}).status_code == 400


def finished(client: TestClient, begun: dict) -> dict:
    """Poll until a projection has ended, by itself or by a stop."""
    while not (now := client.get(f"/api/projections/{begun['id']}").json())["done"]:
        pass
    return now


@pytest.mark.parametrize("model", [0, 1])
def test_a_projected_image_can_be_drawn_from(
    client: TestClient, styled: Gan, unstyled: Gan, model: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(app_module, "STEPS", 30)
    own = (styled, unstyled)[model].sample(1, seed=3, labels=1)
    file = io.BytesIO()
    Image.fromarray(pixels(own)).save(file, "png")
    form = {"model": str(model), "label": "1"}
    answer = client.post("/api/projections", data=form, files={"image": ("a.png", file.getvalue())})
    assert answer.status_code == 200, answer.text
    now = finished(client, answer.json())
    assert now["failed"] is None and now["step"] == 30
    found = drawn(client, model=model, point={"latents": now["latents"]})
    shown = client.get(f"/api/projections/{answer.json()['id']}/image").content
    assert near(found, np.array(Image.open(io.BytesIO(shown))))
    error = np.square(found / 127.5 - pixels(own) / 127.5).mean()
    # pixels are cut off at black and white, where the target lies
    assert error <= now["error"] + 0.01


def test_an_encoder_starts_one_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "STEPS", 3)
    torch.manual_seed(0)
    made = bigan.Generator(
        image_size=16, channels=1, num_classes=3, z_dim=4, width=4, encoder_width=4
    )
    studio = Studio(Gan(made.eval().requires_grad_(False)), name="encodes")
    with TestClient(build_app([studio], hosts=["127.0.0.1"]), base_url=HOST) as client:
        begun = client.post("/api/projections", files={"image": ("a.png", png())}).json()
        now = finished(client, begun)
    assert now["failed"] is None and now["step"] == 3


def test_one_projection_at_a_time_and_stopping_keeps_the_result(client: TestClient):
    files = {"image": ("a.png", png((20, 30)))}
    begun = client.post("/api/projections", files=files).json()
    assert "cropped" in begun["said"]
    second = client.post("/api/projections", files=files)
    assert client.get(f"/api/projections/{begun['id']}").json()["failed"] is None
    assert second.status_code == 400 and "another projection" in second.json()["error"]
    while client.get(f"/api/projections/{begun['id']}").json()["step"] < 1:
        pass
    client.delete(f"/api/projections/{begun['id']}")
    now = finished(client, begun)
    assert now["failed"] is None and 1 <= now["step"] < now["steps"]
    drawn(client, point={"latents": now["latents"]})


def test_files_that_are_no_images_are_rejected(client: TestClient):
    animated = io.BytesIO()
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 200)]
    frames[0].save(animated, "gif", save_all=True, append_images=frames[1:])
    for content, said in [
        (b"hello", "not an image"),
        (png()[:200], "cannot be read"),
        (animated.getvalue(), "2 frames"),
    ]:
        answer = client.post("/api/projections", files={"image": ("odd.file", content)})
        assert answer.status_code == 400
        assert said in answer.json()["error"] and "odd.file" in answer.json()["error"]
    assert "no image" in client.post("/api/projections", data={"model": "0"}).json()["error"]
    wrong = client.post("/api/projections", data={"label": "x"}, files={"image": ("a.png", png())})
    assert "label" in wrong.json()["error"]


def test_a_huge_upload_is_rejected_before_reading(client: TestClient):
    answer = client.post("/api/draw", content=b"0" * (LARGEST_UPLOAD + 1))
    assert answer.status_code == 413 and "20 MiB" in answer.json()["error"]
    endless = client.post("/api/draw", content=iter([b"0"]))
    assert endless.status_code == 411


NINES = "9" * 5000
DEEP = "[" * 100_000
POINT = '{"seed": 0}'
FAR = '{"start": %s, "end": {"seed": 1}, "t": 0.5}'


def between(depth: int) -> str:
    point = POINT
    for _ in range(depth):
        point = FAR % point
    return point


HOSTILE = {
    "digits": f'{{"point": {{"seed": {NINES}}}}}',
    "digits of a model": f'{{"model": {NINES}, "point": {POINT}}}',
    "a class beyond integers": f'{{"point": {{"seed": 0, "label": {10**30}}}}}',
    "a class beyond 2^31": f'{{"point": {{"seed": 0, "label": {2**40}}}}}',
    "a model beyond integers": f'{{"model": {10**30}, "point": {POINT}}}',
    "deep": DEEP,
    "deep objects": '{"point":' * 5000,
    "deep points": f'{{"point": {between(400)}}}',
    "many points": f'{{"point": {between(64)}}}',
    "long": f'{{"point": {POINT}, "a": "{"x" * 300_000}"}}',
    "psi of 1e308": f'{{"point": {POINT}, "truncation": 1e308}}',
    "a way of 1e308": f'{{"point": {{"start": {POINT}, "end": {POINT}, "t": 1e308}}}}',
    "a walk of 1e308": f'{{"point": {POINT}, "walk": {{"method": "sefa", "amounts": [1e308]}}}}',
    "beyond floats": f'{{"point": {POINT}, "truncation": 1e999}}',
    "no number": f'{{"point": {POINT}, "rotate": NaN}}',
    "half a character": '{"point": {"seed": 0}, "\\ud800": 1}',
    "layers beyond integers": f'{{"point": {POINT}, "mix": {{"seed": 1, "first": 0, "last": {10**20}}}}}',
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("path", ["/api/draw", "/api/latents"])
def test_a_malicious_recipe_gets_status_400(client: TestClient, path: str, content: str):
    answer = client.post(path, content=content)
    assert answer.status_code == 400 and answer.json()["error"]


@pytest.mark.parametrize("number", [NINES, "-1", "", "²", "1e3", "\x1b[1m", "2"])
def test_malicious_numbers(client: TestClient, number: str):
    assert client.get("/api/directions", params={"model": number}).status_code == 400
    files = {"image": ("a.png", png())}
    for field in ("model", "label"):
        if (field, number) != ("label", "2"):
            answer = client.post("/api/projections", data={field: number}, files=files)
            assert answer.status_code == 400 and answer.json()["error"]


def test_a_decompression_bomb_is_rejected(client: TestClient):
    file = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(file, "png")
    answer = client.post("/api/projections", files={"image": ("large.png", file.getvalue())})
    assert answer.status_code == 400 and "144 megapixels" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/api/projections", "/api/draw"])
def test_an_aborted_upload_is_no_error(styled: Gan, path: str):
    app = build_app([Studio(styled, name="a")], hosts=["127.0.0.1"])
    parts = iter(
        [
            {"type": "http.request", "body": b"--x\r\nContent-Dis", "more_body": True},
            {"type": "http.disconnect"},
        ]
    )
    sent = []

    async def receive() -> dict:
        return next(parts)

    async def send(message: dict) -> None:
        sent.append(message)

    kind = "multipart/form-data; boundary=x"
    headers = {"host": "127.0.0.1", "content-length": "500", "content-type": kind}
    scope = {
        **{"type": "http", "method": "POST", "path": path, "raw_path": path.encode()},
        **{"query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": ""},
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 499


def test_cross_site_requests_and_other_host_names_are_rejected(client: TestClient):
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400
    assert client.get("/", headers={"host": "[::1"}).status_code == 400
    for name, value, there in [
        ("origin", "http://evil.example", 403),
        ("origin", "http://127.0.0.1:1", 403),
        ("origin", "http://[", 403),
        ("origin", "null", 403),
        ("origin", HOST, 200),
        ("referer", "http://evil.example/page", 403),
        ("referer", HOST + "/", 200),
        ("sec-fetch-site", "cross-site", 403),
        ("sec-fetch-site", "same-site", 403),
        ("sec-fetch-site", "same-origin", 200),
        ("sec-fetch-site", "none", 200),
    ]:
        headers = {name: value}
        assert client.get("/api/models", headers=headers).status_code == there, headers
        assert client.get("/api/directions", headers=headers).status_code == there, headers
    assert client.get("/", headers={"sec-fetch-site": "cross-site"}).status_code == 200


@pytest.mark.parametrize(
    ("host", "header", "status"),
    [
        ("::1", "[::1]:8000", 200),
        ("::1", "[::1]", 200),
        ("::1", "[::2]:8000", 400),
        ("127.0.0.1", "127.0.0.1:8000", 200),
        ("localhost", "LOCALHOST:8000", 200),
        ("localhost", "localhost.evil.example", 400),
        ("localhost", "", 400),
        ("*", "anything", 200),
    ],
)
def test_allowed_host_names(styled: Gan, host: str, header: str, status: int):
    with TestClient(build_app([Studio(styled, name="a")], hosts=[host]), base_url=HOST) as client:
        assert client.get("/api/models", headers={"host": header}).status_code == status


def test_it_is_served_behind_a_proxy(styled: Gan) -> None:
    proxied = {"host": "10.0.0.7:7860", "x-forwarded-host": "somebody-digits.hf.space"}
    with TestClient(build_app([Studio(styled, name="a")], hosts=["*"]), base_url=HOST) as client:
        for origin, status in (("somebody-digits.hf.space", 200), ("evil.example", 403)):
            headers = {**proxied, "origin": f"https://{origin}"}
            assert client.get("/api/models", headers=headers).status_code == status


def test_it_is_framed_where_that_is_allowed(styled: Gan) -> None:
    for allowed, policy in (([], "'none'"), (["https://a.example"], "https://a.example")):
        app = build_app([Studio(styled, name="a")], hosts=["*"], frame_ancestors=allowed)
        with TestClient(app, base_url=HOST) as client:
            said = client.get("/").headers["content-security-policy"]
        assert said.endswith(f"frame-ancestors {policy}")


def test_content_security_policy(client: TestClient):
    page = client.get("/")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for name in ("page.css", "page.js"):
        assert name in page.text and client.get(f"/{name}").status_code == 200


ATTRIBUTES = {
    "of 1e300": {"smile": 1e300},
    "a text": {"smile": "wide"},
    "nothing": {"smile": None},
    "deep": {"smile": {"of": {"a": 1}}},
    "a list": [1, 2],
    "true": True,
    "a class below 0": -1,
}


@pytest.fixture
def attributes_app(styled: Gan) -> Starlette:
    spec = replace(
        image_spec(channels=1, image_size=(16, 16)),
        attributes=("smile", "age", "hat"),
        attribute_ranges=((0, 1), (-1, 2), (0, 1)),
        label_vectors=((0, 0.5, 1),),
    )
    return build_app([Studio(Gan(styled.generator, spec=spec), name="a")], hosts=["127.0.0.1"])


@pytest.mark.parametrize("label", ATTRIBUTES.values(), ids=ATTRIBUTES)
def test_malicious_attributes_get_status_400(attributes_app: Starlette, label: object):
    with TestClient(attributes_app, base_url=HOST) as client:
        for path in ("/api/draw", "/api/latents"):
            answer = client.post(path, json={"point": {"seed": 0, "label": label}})
            assert answer.status_code == 400 and "\x1b" not in answer.json()["error"], answer.text


@pytest.mark.parametrize(
    "names",
    [["nose"], [str(i) for i in range(10_000)], ["\ud800"], ["\x1b[2J"]],
    ids=["unknown", "many", "half a character", "commands to a terminal"],
)
def test_attributes_of_other_models_are_ignored(attributes_app: Starlette, names: list[str]):
    with TestClient(attributes_app, base_url=HOST) as client:
        images = []
        for label in ({"smile": 1}, {"smile": 1, **dict.fromkeys(names, 1)}):
            content = json.dumps({"point": {"seed": 0, "label": label}})
            answer = client.post("/api/draw", content=content)
            assert answer.status_code == 200, answer.text
            images.append(answer.content)
        assert images[0] == images[1]
