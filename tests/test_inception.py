"""Inception's features: as torch-fidelity's own, from weights that come safely from a file or the network.

The published weights are not here: the network is of the same architecture, with random weights.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch_fidelity
from torch import nn
from torch_fidelity import feature_extractor_inceptionv3
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from dpsims.evaluation import Moments, frechet_distance, inception, to_uint8
from dpsims.evaluation.features import PooledFeatures
from dpsims.evaluation.inception import InceptionFeatures, standard_weights
from dpsims.evaluation.report import to_bytes
from tests.archives import Server


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .pth file of random weights, such that pictures that differ have features that differ."""
    with (
        torch.random.fork_rng(),
        patch.object(feature_extractor_inceptionv3, "load_state_dict_from_url", lambda *_, **__: {}),
        patch.object(FeatureExtractorInceptionV3, "load_state_dict"),
    ):
        torch.manual_seed(0)
        network = FeatureExtractorInceptionV3("random", ["2048"])
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    # as pytorch-fid's: of the old format, without the counters
    state = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path


@pytest.mark.slow
def test_features_are_those_of_torch_fidelity(weights: Path):
    bytes_ = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 40, 56), np.uint8))
    theirs = FeatureExtractorInceptionV3("theirs", ["2048"], feature_extractor_weights_path=weights)
    ours = InceptionFeatures(weights)
    features = ours(bytes_.float() / 127.5 - 1)
    assert features.shape == (2, 2048) and features.dtype == torch.float32
    assert torch.equal(features, theirs(bytes_)[0])
    assert (features[0] - features[1]).abs().max() > 0.01  # they see the picture
    with torch.autocast("cpu", torch.bfloat16):  # a training's precision does not matter
        torch.testing.assert_close(ours(bytes_[:1].float() / 127.5 - 1), features[:1], rtol=1e-4, atol=1e-4)

    assert isinstance(ours, PooledFeatures) and ours.name == "inception" and not ours.standard
    assert ours.title == "Frechet distance (Inception, weights random.pth)"
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    network = f"inception-v3-compat (torch-fidelity {torch_fidelity.__version__})"
    assert ours.origin == {"network": network, "weights": "random.pth", "sha256": sha256}
    with pytest.raises(ValueError, match="NaN"):
        ours(torch.full((1, 3, 8, 8), torch.nan))


@pytest.mark.slow
def test_the_published_checksum_makes_it_a_fid(weights: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(weights.read_bytes()).hexdigest())
    features = InceptionFeatures(weights)
    assert features.standard and features.title == "FID (Inception, torch-fidelity)"


def test_bytes_of_files_come_back_and_are_those_that_are_saved():
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    for read in (every.float() / 127.5 - 1, every.float() / 255 * 2 - 1, (every.float() / 255 - 0.5) / 0.5):
        assert torch.equal(to_bytes(read), every)
    generated = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(to_bytes(generated).movedim(1, -1).numpy(), to_uint8(generated))


def vectors(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(count, 48, generator=generator) @ torch.randn(48, 48, generator=generator)
    ).relu() * 0.1


def moments_of(features: torch.Tensor) -> Moments:
    moments = Moments()
    moments.update(features)
    return moments


def test_fid_of_the_same_features_is_that_of_torch_fidelity():
    a, b = vectors(300, 0), vectors(250, 1) + 0.05
    statistics = [fid_features_to_statistics(features) for features in (a, b)]
    theirs = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(moments_of(a), moments_of(b)) == pytest.approx(theirs, rel=1e-6)


def test_fid_of_the_same_features_is_that_of_torchmetrics():
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Lookup(nn.Module):
        """Gives the vector whose number is the picture's grey."""

        num_features = 48

        def __init__(self, table: torch.Tensor) -> None:
            super().__init__()
            self.table = table

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.table[image[:, 0, 0, 0].long()]

    table = torch.cat([vectors(150, 0), vectors(100, 1) + 0.05])
    theirs = FrechetInceptionDistance(feature=Lookup(table), antialias=False)
    greys = torch.arange(250, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4)
    theirs.update(greys[:150], real=True)
    theirs.update(greys[150:], real=False)
    ours = frechet_distance(moments_of(table[:150]), moments_of(table[150:]))
    assert ours == pytest.approx(theirs.compute().item(), rel=1e-5)


class Bomb:
    """Runs a command where it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def refusal(path: Path | None) -> str:
    with pytest.raises(ValueError) as error:
        InceptionFeatures(path)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_file_with_code_in_it_is_refused_and_does_not_run(tmp_path: Path):
    path, target = tmp_path / "weights.pth", tmp_path / "ran"
    torch.save({"fc.weight": Bomb(target)}, path)
    assert refusal(path).startswith(f"{path}: not a file of tensors")
    assert not target.exists()


def test_files_that_are_none_are_refused(tmp_path: Path):
    path = tmp_path / "weights.pth"
    assert refusal(path).startswith(f"{path}: cannot be read (No such file")
    path.write_bytes(b"<html>not found</html>")
    assert refusal(path).startswith(f"{path}: not a file of tensors")
    path.write_bytes(b"")
    assert refusal(path).startswith(f"{path}: not a file of tensors")
    torch.save({"epoch": 3}, path)
    assert refusal(path).startswith(f"{path}: holds something else than named tensors")
    named = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    torch.save({"fc.weight": torch.zeros(3)}, named)
    assert refusal(named).startswith(f"{named}: damaged, its SHA-256 ")


@pytest.mark.slow
def test_weights_of_another_network_are_refused(tmp_path: Path):
    path = tmp_path / "weights.pth"
    torch.save({"fc.weight": torch.zeros(3)}, path)
    message = refusal(path)
    assert message.startswith(f"{path}: weights of another network") and "Conv2d_1a_3x3" in message


def test_a_missing_extra_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    assert refusal(tmp_path / "x.pth").endswith("pip install 'dpsims[evaluation]'")


BODY = bytes(range(256)) * 1000


@pytest.fixture
def published(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """What `standard_weights` fetches from a server on this machine; empty caches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    server.files["weights-6726825d.pth"] = BODY
    url = f"{server.url}/releases/weights-6726825d.pth"
    return {"url": url, "size": len(BODY), "sha256": hashlib.sha256(BODY).hexdigest()}


def test_weights_are_fetched_once_into_the_cache(server: Server, published: dict, tmp_path: Path):
    server.tricks = ["cut"]
    path = standard_weights(**published)
    assert path == tmp_path / "cache" / "dpsims" / "weights-6726825d.pth" and path.read_bytes() == BODY
    asked = len(server.ranges)
    assert standard_weights(**published) == path and len(server.ranges) == asked
    path.write_bytes(BODY[:-1])
    with pytest.raises(ValueError, match=f"{path}: has SHA-256 .* delete it"):
        standard_weights(**published)


def test_weights_in_the_cache_of_torch_are_used(server: Server, published: dict, tmp_path: Path):
    other = tmp_path / "torch" / "hub" / "checkpoints" / "pt_inception-2015-12-05-6726825d.pth"
    other.parent.mkdir(parents=True)
    other.write_bytes(BODY)
    assert standard_weights(**published) == other and not server.ranges
    other.write_bytes(bytes(len(BODY)))  # damaged
    assert standard_weights(**published).read_bytes() == BODY


def test_wrong_weights_are_thrown_away(server: Server, published: dict, tmp_path: Path):
    server.tricks = ["wrong"]
    with pytest.raises(ValueError, match="sends has SHA-256") as error:
        standard_weights(**published)
    assert str(error.value).endswith("or give it with --features inception=FILE")
    assert not list((tmp_path / "cache").rglob("*.part")) and not list((tmp_path / "cache").rglob("*.pth"))
    assert standard_weights(**published).read_bytes() == BODY


def test_without_a_network_one_line_says_where_to_put_the_file(
    server: Server, published: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    place = tmp_path / "cache" / "dpsims" / "weights-6726825d.pth"
    mend = f"download {published['url']} elsewhere and put it at {place}"
    server.tricks = ["404"]
    with pytest.raises(ValueError) as error:
        standard_weights(**published)
    start = "FID's Inception weights cannot be fetched: "
    assert str(error.value) == (
        f"{start}the server has no such file (404); {mend}, or give it with --features inception=FILE"
    )
    url = published["url"].replace(server.url, "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(ValueError) as error:
        standard_weights(**{**published, "url": url})
    assert str(error.value).startswith(f"{start}no connection (") and "\n" not in str(error.value)
    assert url in str(error.value) and "--mirror" not in str(error.value)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    with pytest.raises(ValueError, match="cannot be written"):
        standard_weights(**published)


def test_the_published_file_is_the_one_that_torch_fidelity_names():
    assert inception.URL == feature_extractor_inceptionv3.URL_INCEPTION_V3
    assert inception.SHA256.startswith(inception.URL.rsplit("-", 1)[1].removesuffix(".pth"))
