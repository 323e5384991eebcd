"""Segmenters on encoders of timm: any size, weights that fit or are refused, files that give them back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dpsims.evaluation.encoder_segmenter import (
    ARCHITECTURES,
    EncoderSegmenter,
    enlargement,
    load_encoder,
    train_encoder_segmenter,
)
from dpsims.evaluation.segmentation import load_segmenter
from tests.test_segmentation import blocks


def small(encoder: str = "test_resnet", architecture: str = "linknet", **options) -> EncoderSegmenter:
    torch.manual_seed(0)
    return EncoderSegmenter(3, architecture, encoder, **options)


# --- the network


@pytest.mark.parametrize("size", [(64, 96), (33, 70), (3, 50)])
@pytest.mark.parametrize("scale", [1.0, 1.6])
def test_pictures_keep_their_size(size: tuple[int, int], scale: float):
    segmenter, image = small(scale=scale).eval(), torch.rand(2, 3, *size) * 2 - 1
    with torch.no_grad():
        assert segmenter(image).shape == (2, 3, *size)
    answer = segmenter.predict(image)
    assert answer.shape == (2, *size) and answer.dtype == torch.int64 and not segmenter.training
    assert segmenter.predict(image, (20, 31)).shape == (2, 20, 31)
    assert torch.equal(answer[1:], segmenter.predict(image[1:]))  # whatever else is in the batch


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_trains_a_step(architecture: str):
    segmenter = small("test_efficientnet", architecture)
    before = [p.detach().clone() for p in segmenter.parameters()]
    train_encoder_segmenter(segmenter, blocks(2), 2, learnt=False)
    assert not all(torch.equal(a, b) for a, b in zip(before, segmenter.parameters(), strict=True))
    assert segmenter.predict(torch.zeros(1, 3, 17, 24)).shape == (1, 17, 24)


@pytest.mark.slow  # no small one is in timm
def test_windowed_transformers_take_any_size():
    """Those that refuse other sizes unless asked not to."""
    segmenter = small("swin_tiny_patch4_window7_224", "fpn")
    assert segmenter.predict(torch.zeros(1, 3, 40, 72)).shape == (1, 40, 72)


def test_the_encoder_sees_what_it_was_trained_on():
    """Its own mean and std, of RGB in [0, 1]."""
    segmenter, seen = small(), []
    cfg = timm.models.get_pretrained_cfg("test_resnet")
    assert cfg is not None
    segmenter.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    red = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 20, 20)
    segmenter.predict(red)
    wanted = [(value - m) / s for value, m, s in zip((1, 0, 0), cfg.mean, cfg.std, strict=True)]
    assert seen[0].shape == (1, 3, 32, 32)  # padded by its own pixels
    torch.testing.assert_close(seen[0], torch.tensor(wanted).view(1, 3, 1, 1).expand(1, 3, 32, 32))


def test_small_pictures_are_enlarged():
    assert [enlargement(size) for size in ((64, 80), (32, 32), (100, 200), (256, 256))] == [2, 2, 1.28, 1]


def test_names_that_do_not_work_are_refused(monkeypatch: pytest.MonkeyPatch):
    for match, arguments in {
        "--architecture unet3: use one of unet, ": ("unet3", "test_resnet"),
        r"--encoder resnet5: unknown; did you mean .*resnet50": ("unet", "resnet5"),
        r"--encoder resnet50.none: unknown; use one of resnet50.a1_in1k": ("unet", "resnet50.none"),
        r"--encoder test_vit: gives unet no feature pyramid": ("unet", "test_vit"),
    }.items():
        with pytest.raises(ValueError, match=match):
            EncoderSegmenter(3, *arguments)
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(ValueError, match=r"pip install 'dpsims\[evaluation\]'"):
        small()


# --- weights


def features(network: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found = network.eval()(image)
    return found[-1] if isinstance(found, list) else found


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet"])
def test_a_file_of_timm_fits(name: str, tmp_path: Path):
    """Of the whole network, whose weights have other names than the pyramid's."""
    torch.manual_seed(5)
    whole: Any = timm.create_model(name).eval()
    image = torch.randn(2, 3, 64, 64)
    save_file(whole.state_dict(), tmp_path / "whole.safetensors")
    segmenter = small(name)
    before = features(segmenter.encoder, image)
    load_encoder(segmenter, str(tmp_path / "whole.safetensors"))
    with torch.no_grad():
        wanted = whole.forward_intermediates(image, norm=False, intermediates_only=True)[-1]
    assert not torch.equal(features(segmenter.encoder, image), before)
    torch.testing.assert_close(features(segmenter.encoder, image), wanted)


def test_a_file_of_torchvision_fits(tmp_path: Path):
    torch.manual_seed(5)
    whole, image = torchvision.models.mobilenet_v2(weights=None).eval(), torch.randn(1, 3, 64, 64)
    save_file(
        {k: t for k, t in whole.state_dict().items() if "classifier" not in k}, tmp_path / "t.safetensors"
    )
    segmenter = small("mobilenetv2_100")
    load_encoder(segmenter, str(tmp_path / "t.safetensors"))
    torch.testing.assert_close(
        features(segmenter.encoder, image), features(whole.features[:18], image), atol=0, rtol=0
    )


def test_weights_that_do_not_fit_are_refused(tmp_path: Path):
    segmenter, file = small(), tmp_path / "w.safetensors"
    untouched = {k: t.clone() for k, t in segmenter.state_dict().items()}

    def refused(match: str, weights: str | Path = file) -> None:
        with pytest.raises(ValueError, match=match) as caught:
            load_encoder(segmenter, str(weights))
        assert "\n" not in str(caught.value) and "backbone" not in str(caught.value)

    refused(r"--weights .*none: no such file", tmp_path / "none")
    file.write_bytes(b"no such thing")
    refused("w.safetensors: not a readable safetensors file")
    whole = timm.create_model("test_resnet").state_dict()
    save_file(timm.create_model("test_convnext").state_dict(), file)
    refused("does not fit test_resnet: .* missing")
    save_file({k: t for k, t in whole.items() if k != "conv1.0.weight"}, file)
    refused("conv1.0.weight missing")
    save_file({**whole, "conv1.0.weight": torch.zeros(1)}, file)
    refused("conv1.0.weight of another shape")
    assert all(torch.equal(t, untouched[k]) for k, t in segmenter.state_dict().items())
    load_encoder(segmenter, "random")
    assert all(torch.equal(t, untouched[k]) for k, t in segmenter.state_dict().items())


def test_pretrained_weights_that_are_not_to_be_had(monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    with pytest.raises(
        ValueError, match="--weights pretrained: no weights of test_resnet .* .*--weights FILE"
    ):
        load_encoder(small(), "pretrained")


def test_fetched_weights_are_all_used(monkeypatch: pytest.MonkeyPatch):
    """timm fetches whole networks; here it makes one up."""
    torch.manual_seed(5)
    whole: Any = timm.create_model("test_convnext").eval()
    image = torch.randn(1, 3, 64, 64)
    segmenter = small("test_convnext")
    monkeypatch.setattr("dpsims.models.pretrained.timm_file", lambda _: None)
    create = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, pretrained=False: whole if pretrained else create(name)
    )
    load_encoder(segmenter, "pretrained")
    with torch.no_grad():
        wanted = whole.forward_intermediates(image, norm=False, intermediates_only=True)[-1]
    torch.testing.assert_close(features(segmenter.encoder, image), wanted)


# --- training and files


def test_training_learns_and_repeats():
    def trained(architecture: str, images: int) -> tuple[EncoderSegmenter, list[float]]:
        losses: list[float] = []
        segmenter = small(architecture=architecture)
        train_encoder_segmenter(
            segmenter, blocks(4), images, learnt=False, progress=lambda _, loss: losses.append(loss)
        )
        return segmenter, losses

    _, losses = trained("linknet", 80)
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    first, again = trained("deeplabv3plus", 4)[0], trained("deeplabv3plus", 4)[0]  # it drops at random
    assert first.weights == again.weights


def test_a_file_gives_it_back(tmp_path: Path):
    path, image = tmp_path / "s.safetensors", torch.rand(2, 3, 40, 50)
    segmenter = train_encoder_segmenter(small("test_convnext", "fpn", scale=1.5), blocks(2), 4, learnt=False)
    segmenter.key, segmenter.score = {"classes": ["a", "b", "c"]}, {"miou": 0.5}
    segmenter.save(path)
    loaded = load_segmenter(path, {"classes": ["a", "b", "c"]})
    assert isinstance(loaded, EncoderSegmenter) and not loaded.training
    assert loaded.score == {"miou": 0.5} and loaded.settings() == segmenter.settings()
    assert (
        torch.equal(loaded.predict(image), segmenter.predict(image)) and loaded.weights == segmenter.weights
    )
    with pytest.raises(ValueError, match="classes"):
        load_segmenter(path, {"classes": ["a", "b"]})


def test_a_file_with_weights_missing_is_refused(tmp_path: Path):
    path = tmp_path / "s.safetensors"
    small().save(path)
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    tensors = load_file(path)
    del tensors["network.encoder.model.conv1.0.weight"]
    save_file(tensors, path, header)
    with pytest.raises(ValueError, match=r"s.safetensors: its weights do not fit") as caught:
        load_segmenter(path)
    assert "\n" not in str(caught.value)
