import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from dpsims.config import DiscriminatorConfig, GeneratorConfig
from dpsims.models import baselines, spade
from dpsims.models.baselines import OasisDiscriminator
from dpsims.models.generator import RegionNoise
from dpsims.models.spade import OasisGenerator, SpadeGenerator

K = 3
Make = Callable[[], OasisGenerator | SpadeGenerator]


def oasis(**changes) -> OasisGenerator:
    torch.manual_seed(0)
    settings = {"num_classes": K, "channels": (4, 8, 8), "noise_channels": 5, **changes}
    return OasisGenerator(GeneratorConfig(**settings, hidden_channels=6)).eval()


def a_spade(**changes) -> SpadeGenerator:
    torch.manual_seed(0)
    settings = {"num_classes": K, "channels": (4, 8, 8), **changes}
    return SpadeGenerator(GeneratorConfig(**settings, hidden_channels=6)).eval()


GENERATORS = [oasis, a_spade]


def labels(height: int = 16, width: int = 20, batch: int = 2) -> torch.Tensor:
    return torch.randint(0, K + 1, (batch, height, width), generator=seeded(2))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def published(num_classes: int) -> GeneratorConfig:
    return GeneratorConfig(num_classes, channels=spade.PUBLISHED_CHANNELS)


@pytest.mark.parametrize(
    ("make", "size", "millions", "billions"),
    [
        # 150 and 34 classes and the unlabelled: the published networks' inputs of 151 and 35
        (lambda: OasisGenerator(published(150)), (256, 256), 74.3, 194),
        (lambda: OasisGenerator(published(34)), (256, 512), 71.1, 319),
        (lambda: SpadeGenerator(published(150)), (256, 256), 96.5, 181.3),
        (
            lambda: OasisDiscriminator(DiscriminatorConfig(151, channels=baselines.PUBLISHED_CHANNELS)),
            (3, 256, 256),
            22.3,
            49,
        ),
    ],
    ids=["OASIS ADE20K", "OASIS Cityscapes", "SPADE ADE20K", "OASIS discriminator"],
)
def test_parameters_and_multiply_adds_as_published(
    make: Callable[[], nn.Module],
    size: tuple[int, ...],
    millions: float,
    billions: float,
    monkeypatch: pytest.MonkeyPatch,
):
    for module in (spade, baselines):  # it has no parameters and no convolutions, but takes seconds to set up
        monkeypatch.setattr(module, "spectral_norm", lambda layer: layer)
    counted = []

    def count(layer: nn.Module, _: object, out: torch.Tensor) -> None:
        if isinstance(layer, nn.Conv2d):  # torch's flop counter says the same, but takes seconds to load
            counted.append(out.numel() * layer.weight[0].numel())

    with torch.device("meta"), register_module_forward_hook(count):
        network = make().eval()
        network(torch.zeros(1, *size, dtype=torch.float32 if len(size) == 3 else torch.int64))
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.005)
    assert sum(counted) / 1e9 == pytest.approx(billions, rel=0.005)


@pytest.mark.parametrize("make", GENERATORS)
@pytest.mark.parametrize("size", [(16, 20), (24, 8), (17, 31), (1, 1)])
def test_images_of_any_size(make: Make, size: tuple[int, int]):
    generator = make()
    noise = generator.sample_noise(2, seeded(0))
    image = generator(labels(*size), noise)
    assert image.shape == (2, 3, *size) and image.dtype == torch.float32
    assert 0 < image.abs().max() <= 1


@pytest.mark.parametrize("make", GENERATORS)
def test_ids_matter_and_unlabelled_is_a_class_of_its_own(make: Make):
    generator = make()
    noise = generator.sample_noise(1, seeded(0))
    images = [generator(torch.full((1, 16, 20), k), noise) for k in range(K + 1)]
    assert all(not torch.allclose(a, b) for i, a in enumerate(images) for b in images[:i])


@pytest.mark.parametrize("make", GENERATORS)
@pytest.mark.parametrize("bad", [-1, K + 1])
def test_a_label_out_of_range_is_named(make: Make, bad: int):
    label = labels()
    label[1, 2, 3] = bad
    with pytest.raises(ValueError, match=f"label map has index {bad}; use 0..3"):
        make()(label)


@pytest.mark.parametrize("make", GENERATORS)
def test_every_parameter_is_trained(make: Make):
    generator = make().train()
    generator(labels(batch=3), generator.sample_noise(3, seeded(0))).square().sum().backward()
    assert [n for n, p in generator.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("make", GENERATORS)
def test_a_copy_and_a_saved_state_give_the_same_images(make: Make):
    generator, label = make(), labels()
    noise = generator.sample_noise(2, seeded(0))
    other = make()
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    other.load_state_dict(generator.state_dict())
    image = generator(label, noise)
    assert torch.equal(other(label, noise), image)
    assert torch.equal(copy.deepcopy(generator)(label, noise), image)  # the moving average begins so


def test_noise_matters_and_is_reproducible():
    generator, label = oasis(), labels(batch=1)
    first, again, other = (generator.sample_noise(1, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(generator(label, first), generator(label, again))
    assert not torch.allclose(generator(label, first), generator(label, other), atol=1e-4)
    torch.manual_seed(3)
    assert not torch.equal(generator(label), generator(label))  # noise=None draws


def test_a_picture_does_not_depend_on_its_batch():
    generator, label = oasis(), labels()
    noise = generator.sample_noise(2, seeded(0))
    assert torch.allclose(generator(label, noise)[1:], generator(label[1:], noise[1:]), atol=1e-6)


def test_spade_of_the_map_has_one_picture_a_map():
    generator, label = a_spade(), labels()
    noise = generator.sample_noise(2, seeded(0))
    assert noise.shape == (2, 1, 0)
    assert torch.equal(generator(label, noise), generator(label))


def test_oasis_noise_of_the_picture_of_regions_and_of_pixels_agree():
    generator, label = oasis(), labels(17, 31)
    z = generator.sample_noise(2, seeded(0))
    image = generator(label, z)
    everywhere = z[:, 0, :, None, None].expand(-1, -1, 17, 31)
    assert torch.allclose(generator(label, everywhere), image, atol=1e-6)
    assert torch.allclose(
        generator(label, RegionNoise(z[:, None], torch.zeros_like(label))), image, atol=1e-6
    )
    regions, region = generator.sample_noise(2, seeded(1), regions=3), labels(17, 31) % 3
    by_hand = torch.stack([regions[b, region[b], 0].permute(2, 0, 1) for b in range(2)])
    assert torch.equal(generator(label, RegionNoise(regions, region)), generator(label, by_hand))


def test_resampling_one_region_keeps_the_far_pixels():
    generator, label = oasis(), labels(8, 160, batch=1)
    region = torch.zeros_like(label)
    region[:, :, 80:] = 1
    z = generator.sample_noise(1, seeded(0), regions=2)
    other = z.clone()
    other[:, 1] = generator.sample_noise(1, seeded(1))
    change = (generator(label, RegionNoise(z, region)) - generator(label, RegionNoise(other, region))).abs()
    assert change[..., :40].max() == 0
    assert change[..., 80:].mean() > 1e-4


def test_noise_that_does_not_fit_is_refused():
    label, z = labels(), torch.zeros(2, 1, 5)
    for noise in (z[:1], torch.zeros(2, 2, 5), torch.zeros(2, 5, 8, 8), RegionNoise(z, label)):
        with pytest.raises(ValueError, match="does not fit"):
            oasis()(label, noise)
    with pytest.raises(ValueError, match="differ in size"):
        oasis()(label, RegionNoise(z[:, None], label[:, :8]))
    with pytest.raises(ValueError, match="region map has index 3; use 0..0"):
        oasis()(label, RegionNoise(z[:, None], label))
    for noise in (z, RegionNoise(z[:, None], label)):
        with pytest.raises(ValueError, match=r"does not fit: the SPADE generator takes \(2, 1, 0\)"):
            a_spade()(label, noise)


@pytest.mark.parametrize("make", [oasis, a_spade])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 0}, "num_classes=0"),
        ({"channels": (8,)}, "at least 2"),
        ({"modulation_kernel": 2}, "odd"),
    ],
)
def test_bad_configs(make: Callable[..., nn.Module], change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        make(**change)


def test_the_label_map_is_one_hot_at_every_scale():
    pyramid = oasis().image_network
    label = torch.tensor([[[0, 1], [2, 3]]]).repeat_interleave(4, 1).repeat_interleave(4, 2)  # 8x8, quarters
    noise = torch.arange(64.0).view(1, 1, 8, 8)
    for size in (8, 4, 2):
        condition = pyramid.condition(label, noise, (size, size))
        assert torch.equal(condition[:, : K + 1].argmax(1), label[:, :: 8 // size, :: 8 // size])
        assert torch.equal(condition[:, : K + 1].sum(1), torch.ones(1, size, size))
    # noise is taken from the very pixels that the label is: those in the middle of each cell
    assert condition[0, -1].tolist() == [[18, 22], [50, 54]]


@pytest.mark.parametrize("make", [oasis, a_spade, lambda: discriminator()])
def test_block_convolutions_have_spectral_norm_one(make: Callable[[], nn.Module]):
    network = make().train()
    convolutions = [
        m for m in network.modules() if isinstance(m, nn.Conv2d) and hasattr(m, "parametrizations")
    ]
    blocks = [m for m in network.modules() if type(m).__name__ in ("SpadeBlock", "ResidualBlock")]
    learned = [b for b in blocks if not isinstance(b.shortcut, nn.Identity | None)]
    assert len(convolutions) == 2 * len(blocks) + len(learned) > len(learned) > 0
    with torch.no_grad():
        for convolution in convolutions:
            for _ in range(50):
                _ = convolution.weight  # each look in training is a power iteration
            largest = torch.linalg.matrix_norm(convolution.weight.flatten(1), 2)
            assert largest.item() == pytest.approx(1, abs=0.02)


def discriminator(channels: tuple[int, ...] = (4, 8, 8, 12)) -> OasisDiscriminator:
    torch.manual_seed(0)
    return OasisDiscriminator(DiscriminatorConfig(K, channels=channels)).eval()


@pytest.mark.parametrize("channels", [(4, 8), (4, 8, 8, 12), (4, 4, 4, 4, 4, 4, 4)])
@pytest.mark.parametrize("size", [(16, 24), (17, 31), (1, 1)])
def test_logits_of_any_size(channels: tuple[int, ...], size: tuple[int, int]):
    logits = discriminator(channels)(torch.rand(2, 3, *size, generator=seeded(0)))
    assert logits.shape == (2, K + 1, *size) and logits.isfinite().all()


@pytest.mark.parametrize("scale", [1, 2])
def test_skips_carry_the_image_past_the_lower_resolutions(scale: int):
    network, images = discriminator(), torch.rand(2, 3, 16, 24, generator=seeded(0))

    def silence(block: nn.Module, inputs: object, out: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(out)

    network.up[scale].register_forward_hook(silence)
    first, second = network(images)
    assert not torch.allclose(first, second, atol=1e-4)


def test_every_discriminator_parameter_is_trained():
    network = discriminator().train()
    network(torch.rand(2, 3, 16, 24, generator=seeded(0))).square().sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_discriminator_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="at least 2 numbers"):
        discriminator((8,))
    with pytest.raises(ValueError, match="num_classes=0"):
        OasisDiscriminator(DiscriminatorConfig(0, channels=(4, 8)))
