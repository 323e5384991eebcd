import pytest
import torch
from torch import nn

from dpsims.config import GeneratorConfig
from dpsims.models.folding import fold
from dpsims.models.generator import Generator, RegionNoise


def generator(**changes) -> Generator:
    """In eval mode, its BatchNorm statistics far from where they start."""
    torch.manual_seed(0)
    values = {"channels": (8, 16, 16), "attention_strides": (4,), "noise_channels": 8, "token_channels": 16}
    made = Generator(GeneratorConfig(5, **{**values, **changes})).eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()  # pyright: ignore
            module.running_var.uniform_(0.2, 4)  # pyright: ignore
    return made


def labels(height: int = 18, width: int = 23, batch: int = 2) -> torch.Tensor:
    return torch.randint(0, 6, (batch, height, width), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"normalisation": "instance"},
        {"normalisation": "pixel"},
        {"modulation_kernel": 1},
        {"attention_heads": 1, "noise_tokens": 3},
        {"noise_injection": "concatenation"},
        {"channels": (8,), "attention_strides": ()},
    ],
    ids=str,
)
@torch.inference_mode()
def test_a_folded_generator_paints_the_same(changes):
    plain = generator(**changes)
    noise = plain.sample_noise(2, torch.Generator().manual_seed(2))
    expected = plain(labels(), noise)
    assert expected.std() > 0.02
    assert (fold(plain)(labels(), noise) - expected).abs().max() <= 1e-5


@torch.inference_mode()
def test_noise_by_region_and_single_rows():
    plain = generator()
    noise = RegionNoise(plain.sample_noise(2, regions=3), labels() // 2)
    assert (fold(plain)(labels(), noise) - plain(labels(), noise)).abs().max() <= 1e-5
    thin, z = labels(1, 9), plain.sample_noise(2)
    assert (fold(plain)(thin, z) - plain(thin, z)).abs().max() <= 1e-5


@pytest.mark.parametrize("noise_injection", ["cross_attention", "concatenation"])
@torch.inference_mode()
def test_label_features_can_be_shared_by_many_noises(noise_injection):
    plain = generator(noise_injection=noise_injection)
    folded, label, noise = fold(plain), labels(batch=1), plain.sample_noise(3)
    tokens = folded.mapping(noise)
    guides = [g(h, tokens) for g, h in zip(folded.injection, folded.encoder(label), strict=True)]
    label = label.expand(3, -1, -1)
    assert (folded.image_network(label, guides) - plain(label, noise)).abs().max() <= 1e-5


def test_the_generator_itself_is_left_as_it_was():
    plain = generator().train()
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    folded = fold(plain)
    with torch.no_grad():
        for value in folded.parameters():
            value.zero_()
    assert plain.training and all(p.requires_grad for p in plain.parameters())
    assert before.keys() == plain.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())


def test_no_normalisation_is_left_in_the_image_network():
    kinds = {type(m) for m in fold(generator()).image_network.modules()}
    assert nn.BatchNorm2d not in kinds and nn.BatchNorm2d in {type(m) for m in generator().modules()}
