import dataclasses

import pytest
import torch

from dpsims.config import GeneratorConfig
from dpsims.models.generator import Generator
from dpsims.models.layers import NoiseCrossAttention, RegionNoise, RegionTokens, downsample_ids, upsample_to

TINY = GeneratorConfig(
    3,
    channels=(8, 16, 16),
    attention_strides=(4,),
    attention_heads=2,
    noise_tokens=3,
    noise_channels=8,
    token_channels=16,
)


def make(**changes) -> Generator:
    torch.manual_seed(0)
    return Generator(dataclasses.replace(TINY, **changes)).eval()


def labels(height: int, width: int, batch: int = 2) -> torch.Tensor:
    return torch.randint(0, 4, (batch, height, width), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (5, 48), (1, 1)])
@pytest.mark.parametrize("normalisation", ["batch", "instance", "pixel"])
def test_any_size(size, normalisation):
    if normalisation == "instance" and size == (1, 1):
        pytest.skip("instance normalisation is not defined on one pixel")
    image = make(normalisation=normalisation, attention_strides=(2, 4))(labels(*size))
    assert image.shape == (2, 3, *size) and image.dtype == torch.float32
    assert image.abs().max() <= 1


def test_ids_matter_and_unlabelled_is_a_class_of_its_own():
    generator = make()
    noise = generator.sample_noise(1, torch.Generator().manual_seed(0))
    images = [generator(torch.full((1, 8, 8), k), noise) for k in range(4)]
    assert all(not torch.allclose(a, b) for i, a in enumerate(images) for b in images[:i])


@pytest.mark.parametrize("bad", [-1, 4])
def test_a_label_out_of_range_is_named(bad):
    label = labels(8, 8)
    label[1, 2, 3] = bad
    with pytest.raises(ValueError, match=f"index {bad}; classes are 0..2, unlabelled is 3"):
        make()(label)


def test_noise_matters_and_is_reproducible():
    generator, label = make(), labels(16, 16, 1)
    first, again, other = (generator.sample_noise(1, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(generator(label, first), generator(label, again))
    assert not torch.allclose(generator(label, first), generator(label, other), atol=1e-4)
    torch.manual_seed(3)
    one = generator(label)
    assert not torch.equal(one, generator(label))  # noise=None draws


def test_one_region_with_everyones_noise_is_plain_noise():
    generator, label = make(), labels(16, 16)
    z = generator.sample_noise(2)
    regional = RegionNoise(z[:, None], torch.zeros_like(label))
    assert torch.allclose(generator(label, z), generator(label, regional), atol=1e-5)


def test_resampling_one_region_keeps_the_far_pixels():
    generator, label = make(attention_strides=()), labels(16, 128, 1)
    region = torch.zeros_like(label)
    region[:, :, 64:] = 1
    z = generator.sample_noise(1, regions=2)
    other = z.clone()
    other[:, 1] = generator.sample_noise(1)
    change = (generator(label, RegionNoise(z, region)) - generator(label, RegionNoise(other, region))).abs()
    assert change[..., :32].max() == 0
    assert change[..., 64:].mean() > 1e-3


def test_region_maps_that_do_not_fit_are_refused():
    generator, label = make(), labels(16, 16)
    z = generator.sample_noise(2, regions=2)
    with pytest.raises(ValueError, match="differ in size"):
        generator(label, RegionNoise(z, torch.zeros(2, 8, 8, dtype=torch.long)))
    with pytest.raises(ValueError, match="noise for 2 regions"):
        generator(label, RegionNoise(z, torch.full_like(label, 2)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 0}, "num_classes=0"),
        ({"channels": (9,)}, "attention_heads=2"),
        ({"modulation_kernel": 2}, "odd"),
    ],
)
def test_bad_configs(change, message):
    with pytest.raises(ValueError, match=message):
        make(**change)


def test_batchnorm_in_training_needs_the_batch_and_eval_does_not():
    generator, label = make(), labels(16, 16)
    noise = generator.sample_noise(2)
    alone = generator(label[:1], noise[:1])
    assert torch.allclose(generator(label, noise)[:1], alone, atol=1e-5)
    generator.train()
    assert not torch.allclose(generator(label, noise)[:1], alone, atol=1e-3)


def test_downsample_ids_takes_the_middle():
    ids = torch.arange(9).view(1, 3, 3)
    assert downsample_ids(ids, (1, 1)).item() == 4
    assert torch.equal(downsample_ids(ids, (3, 3)), ids)


def test_upsample_to_crops_odd_sizes():
    x = torch.arange(4.0).view(1, 1, 2, 2)
    assert upsample_to(x, (3, 4))[0, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3]]


def test_noise_attention_has_the_gradients_of_plain_attention():
    """`_by_region` with one region is textbook attention, by torch's own."""
    torch.manual_seed(0)
    attention = NoiseCrossAttention(8, 16, heads=2)
    h, tokens = torch.randn(2, 8, 5, 6, requires_grad=True), torch.randn(2, 4, 16, requires_grad=True)
    plain = attention(h, RegionTokens(tokens, torch.zeros(2, 5, 6, dtype=torch.int64), 1))
    thin = attention(h, tokens)
    assert torch.allclose(thin, plain, atol=1e-5)
    inputs = [h, tokens, *attention.parameters()]
    weight = torch.randn(plain.shape)
    for a, b in zip(*(torch.autograd.grad((x * weight).sum(), inputs) for x in (plain, thin)), strict=True):
        assert torch.allclose(a, b, atol=1e-4)
