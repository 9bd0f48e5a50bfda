"""gan-lab prefetch, without a network."""

import hashlib

import pytest
import torch

from gan_lab.commands.launch import launch
from gan_lab.metrics.features import PublishedWeights, inception, vgg16


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """torch's cache, empty; all network access fails."""

    def unreachable(request):
        raise OSError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def published(cache, monkeypatch):
    """Weights of VGG16 that are in the cache."""
    content = b"weights"
    weights = PublishedWeights(
        of="VGG16's",
        url="https://example.org/vgg16.pth",
        sha256=hashlib.sha256(content).hexdigest(),
    )
    monkeypatch.setattr(vgg16.VGG16, "published", weights)
    cache.mkdir(parents=True)
    (cache / "vgg16.pth").write_bytes(content)
    return cache / "vgg16.pth"


def test_what_is_missing_is_reported_with_address_and_place(published, cache, capsys):
    assert launch("prefetch", ["features=[inception,vgg16,digits]"]) == 2
    out, err = capsys.readouterr()
    output = " ".join(out.split())
    assert "inception-v3-compat missing" in output and "digits classifier needs no file" in output
    assert f"vgg16 {published}" in output
    assert inception.WEIGHTS.url in err and str(cache / inception.WEIGHTS.file_name) in err
    assert "VGG16" not in err


def test_everything_there_is_success(published, capsys):
    assert launch("prefetch", ["features=vgg16"]) == 0
    assert f" {published}\n" in capsys.readouterr().out


def test_a_damaged_file_is_no_success(published, capsys):
    published.write_bytes(b"cut")
    assert launch("prefetch", ["features=[vgg16]"]) == 2
    out, err = capsys.readouterr()
    assert "damaged" in out and "its name says" in err and "delete it" in err


def test_a_file_elsewhere_is_checked(published, tmp_path, capsys):
    other = tmp_path / "mine.pth"
    other.write_bytes(b"mine")
    sha256 = hashlib.sha256(b"mine").hexdigest()
    overrides = ["features=vgg16", f"features.weights={other}"]
    assert launch("prefetch", [*overrides, f"features.sha256='{sha256}'"]) == 0
    assert launch("prefetch", [*overrides, "features.sha256=abc"]) == 2
    assert "features.sha256 says abc" in capsys.readouterr().err


def test_a_name_unknown(capsys):
    assert launch("prefetch", ["features=inceptoin"]) == 2
    assert "inception" in capsys.readouterr().err
