"""The server with a generator of sound."""

import io
import wave

import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from gan_lab.explore.app import build_app
from gan_lab.explore.studio import Studio
from gan_lab.models.wavegan import Generator
from gan_lab.sampling.gan import Gan
from tests.helpers.sounds import sound_spec


@pytest.fixture
def client() -> TestClient:
    torch.manual_seed(0)
    gan = Gan(Generator(sample_shape=(1, 256), width=2).eval(), spec=sound_spec(256))
    app = build_app([Studio(gan, name="notes")], hosts=["127.0.0.1"])
    return TestClient(app, base_url="http://127.0.0.1")


def test_clips_and_their_spectrograms(client: TestClient) -> None:
    (model,) = client.get("/api/models").json()
    assert (model["sample"], model["media_type"]) == ("audio 1×256", "audio/wav")
    assert model["size"] == [128, 128] and not model["projects"] and not model["styles"]
    recipe = {"point": {"seed": 3}}
    answer = client.post("/api/draw", json=recipe)
    assert answer.headers["content-type"] == "audio/wav"
    with wave.open(io.BytesIO(answer.content)) as file:
        assert file.getnframes() == 256
    image = client.post("/api/image", json=recipe)
    assert Image.open(io.BytesIO(image.content)).size == (128, 128)
    assert "media-src 'self' blob:" in answer.headers["content-security-policy"]


def test_unsupported_requests_for_sound_are_rejected(client: TestClient) -> None:
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "png")
    answer = client.post("/api/projections", files={"image": ("a.png", file.getvalue())})
    assert answer.status_code == 400 and "only 8-bit images" in answer.json()["error"]
    mix = {"point": {"seed": 0}, "mix": {"seed": 1, "first": 0, "last": 1}}
    answer = client.post("/api/draw", json=mix)
    assert answer.status_code == 400 and "no styles" in answer.json()["error"]
    answer = client.post("/api/draw", json={"point": {"seed": 0}, "truncation": 0.5})
    assert answer.status_code == 400 and "uniform" in answer.json()["error"]
