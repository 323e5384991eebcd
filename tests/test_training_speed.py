"""What makes a step short and small, and that it changes no figure."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dpsims.augmentation import augment
from dpsims.config import (
    AUGMENTATIONS,
    BackboneConfig,
    DiscriminatorConfig,
    GeneratorConfig,
    LossConfig,
    Recipe,
)
from dpsims.data import Batch
from dpsims.losses import diversity_loss
from dpsims.models.backbones import Backbone, load_backbone
from dpsims.models.discriminator import Discriminator
from dpsims.models.generator import Generator
from dpsims.training import loop
from dpsims.training.memory import blocks, in_bf16, recompute
from dpsims.training.networks import Networks, compile_parts
from dpsims.training.steps import make_plan
from dpsims.training.transfers import MOST, OnItsWay, Rows

K = 3
CPU = torch.device("cpu")


def networks(
    kind: Any = "dpsims", conditioning: Any = "none", precision: str = "fp32", augmentation: Any = ()
) -> Networks:
    recipe = Recipe(
        backbone=BackboneConfig("squeezenet1_1", "random"),
        generator=GeneratorConfig(
            channels=(8, 16), attention_strides=(2,), noise_channels=8, normalisation="pixel"
        ),
        discriminator=DiscriminatorConfig(
            kind=kind,
            channels=(8, 8, 16),
            conditioning=conditioning,
            augmentation=augmentation,
        ),
    )
    return Networks.build(recipe.resolved(K), CPU, precision)


LOSSES = LossConfig(contrastive_places=8, diversity_fraction=0.5, labelmix_weight=0.1)


def a_batch(size: int = 5, device: str = "cpu") -> Batch:
    random = torch.Generator().manual_seed(0)
    image = torch.rand(size, 3, 24, 32, generator=random) * 2 - 1
    label = torch.randint(0, K + 1, (size, 24, 32), generator=random)
    return Batch(image.to(device, memory_format=torch.channels_last), label.to(device))


def step(
    of: Networks, batch: Batch, precision: str = "fp32", parts: int = 1, losses: LossConfig = LOSSES
) -> dict[str, torch.Tensor]:
    terms, measures = of.step(batch, losses, precision, torch.Generator().manual_seed(1), parts)
    return terms | measures


def gradients(of: Networks) -> dict[str, torch.Tensor]:
    """After a step: they stay until the next."""
    named = [*of.generator.named_parameters(), *of.discriminator.named_parameters()]
    return {name: p.grad for name, p in named if p.grad is not None}


IN_FEATURES = dataclasses.replace(
    LOSSES, diversity_space="features", diversity_threshold=5.0, fake_class_weights=True
)


@pytest.mark.parametrize("losses", [LOSSES, IN_FEATURES])
@pytest.mark.parametrize("augmentation", [(), AUGMENTATIONS])
@pytest.mark.parametrize("parts", [2, 5])
def test_the_parts_of_a_batch_add_up_to_its_step(parts, augmentation, losses):
    whole = networks(augmentation=augmentation)
    whole.discriminator.eval()  # spectral norms move in each pass, and parts have more passes
    divided = copy.deepcopy(whole)
    batch = a_batch()
    batch.label[1:] = batch.label[1:].clamp(max=K - 1)
    batch.label[0, :12] = 0  # parts in which classes are not as frequent, and fewer pixels labelled
    batch.label[0, 12:] = K
    terms, others = step(whole, batch, losses=losses), step(divided, batch, parts=parts, losses=losses)
    assert terms.keys() == others.keys()
    for name, term in terms.items():
        torch.testing.assert_close(others[name], term, rtol=1e-4, atol=1e-6, msg=name)
    expected, found = gradients(whole), gradients(divided)
    assert expected.keys() == found.keys() and len(found) > 50
    for name, gradient in expected.items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-3 * scale + 1e-7, msg=name)


def test_diversity_in_features_compares_what_the_discriminator_sees():
    parts, batch = networks(augmentation=AUGMENTATIONS), a_batch(2)
    generator, discriminator = parts.generator, parts.discriminator
    random = torch.Generator().manual_seed(1)
    plan = make_plan(generator, discriminator, batch, IN_FEATURES, random)
    with torch.no_grad():
        first, second = (
            discriminator.features(augment(generator(batch.label[:1], noise), plan.changes[:1]))
            for noise in (plan.noise[:1], plan.noise[2:])
        )
        expected = diversity_loss(first, second, plan.noise[:1], plan.noise[2:], 5.0)
    assert 0 < expected.item() < 5
    torch.testing.assert_close(step(parts, batch, losses=IN_FEATURES)["diversity"], expected)


def on_meta(kind: str, conditioning: str) -> Networks:
    """On a device without data: reading a figure from it is an error."""
    parts = networks(kind, conditioning, augmentation=AUGMENTATIONS)
    for network in (parts.generator, parts.average.average, parts.discriminator):
        network.to("meta")
    for optimizer, network in (("generator", parts.generator), ("discriminator", parts.discriminator)):
        trained = [p for p in network.parameters() if p.requires_grad]
        parts.optimizers[optimizer] = torch.optim.SGD(trained, foreach=False)
    return parts


@pytest.mark.parametrize(("kind", "conditioning"), [("dpsims", "batch"), ("oasis", "none")])
def test_no_figure_is_read_within_a_step(kind, conditioning):
    trained = on_meta(kind, conditioning)
    found = step(trained, a_batch(device="meta"))
    assert all(value.is_meta for value in found.values()) and "fake_probability" in found
    trained.average.update(trained.generator, 5, 1000)
    with pytest.raises(RuntimeError):  # so would any figure that is read inside
        found["generator"].item()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_step_waits_for_the_gpu(precision):
    trained = networks(precision=precision, augmentation=AUGMENTATIONS)
    batch = a_batch(device="cuda")
    for network in (trained.generator, trained.average.average, trained.discriminator):
        network.to("cuda")
    step(trained, batch, precision)  # libraries and optimisers set themselves up
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(trained, batch, precision)
        trained.average.update(trained.generator, 5, 1000)
        loop._to(a_batch(), torch.device("cuda"))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_frozen_backbone_has_neither_gradients_nor_a_state_in_the_optimiser(precision):
    trained = networks(precision=precision)
    step(trained, a_batch(), precision)
    assert isinstance(trained.discriminator, Discriminator)
    frozen = list(trained.discriminator.backbone.parameters())
    assert frozen and all(p.grad is None and not p.requires_grad for p in frozen)
    updated = {id(p) for optimizer in trained.optimizers.values() for p in optimizer.state}
    assert updated and updated.isdisjoint(id(p) for p in frozen)


def test_bf16_weights_give_the_features_of_autocast_in_half_the_memory():
    backbone = load_backbone(BackboneConfig("squeezenet1_1", "random"))
    held, image = in_bf16(backbone, torch.device("cpu")), a_batch(2).image
    with torch.autocast("cpu", torch.bfloat16):
        for mine, expected in zip(held(image), backbone(image), strict=True):
            assert torch.equal(mine, expected) and mine.dtype == torch.float32
    size, before = (sum(p.nbytes for p in b.parameters()) for b in (held, backbone))
    assert size < 0.55 * before


def test_strided_depthwise_convolutions_stay_float32_on_a_cpu():
    backbone = load_backbone(BackboneConfig("mobilenet_v2", "random"))
    image = a_batch(2).image
    for device, count in (("cpu", 4), ("cuda", 0)):
        held = in_bf16(backbone, torch.device(device))
        float32_convs = [
            m for m in held.modules() if isinstance(m, torch.nn.Conv2d) and m.weight.dtype == torch.float32
        ]
        assert len(float32_convs) == count and all(m.stride == (2, 2) and m.groups > 1 for m in float32_convs)
    with torch.autocast("cpu", torch.bfloat16):
        mixed, plain = in_bf16(backbone, torch.device("cpu"))(image), backbone(image)
    for exact, mine, other in zip(backbone(image), mixed, plain, strict=True):
        assert (mine - exact).abs().mean() < 1.2 * (other - exact).abs().mean()


def test_losses_are_float32_in_a_bf16_step():
    found = step(networks(precision="bf16"), a_batch(), "bf16")
    assert {value.dtype for value in found.values()} == {torch.float32}


def features_and_gradient(backbone: Backbone) -> tuple[list[torch.Tensor], int]:
    """Features, the picture's gradient, and the bytes that were kept for the way back."""
    kept: dict[int, int] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    image = a_batch(2).image.requires_grad_()
    weights = {p.untyped_storage().data_ptr() for p in backbone.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        features = backbone(image)
    torch.stack([f.square().mean() for f in features]).sum().backward()
    assert image.grad is not None
    return [*features, image.grad], sum(n for pointer, n in kept.items() if pointer not in weights)


@pytest.mark.parametrize(("name", "count"), [("squeezenet1_1", 8), ("mobilenet_v2", 17)])
def test_recomputed_activations_save_memory_and_change_nothing(name, count):
    backbone = load_backbone(BackboneConfig(name, "random"))
    assert len(list(blocks(backbone.network))) == count
    expected, kept = features_and_gradient(backbone)
    recompute(backbone)
    found, less = features_and_gradient(backbone)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert less < 0.75 * kept


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # by torch.compile itself
def test_compiled_networks_give_what_plain_ones_do():
    plain, graphs = networks(), []
    plain.discriminator.eval()
    compiled = copy.deepcopy(plain)

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable:
        graphs.append(graph)
        return graph.forward

    compile_parts(compiled.generator, compiled.discriminator, backend)
    assert compiled.tensors().keys() == plain.tensors().keys()  # checkpoints fit both
    label, noise = a_batch(2).label, plain.generator.sample_noise(2)
    with torch.no_grad():
        pictures = [n.generator(label, noise) for n in (plain, compiled)]
        logits = [n.discriminator(pictures[0]) for n in (plain, compiled)]
    assert torch.equal(*pictures) and torch.equal(*logits)
    assert len(graphs) == 4  # encoder, image network, backbone and decoder, each whole


class Late(OnItsWay):
    here = False

    def arrived(self) -> bool:
        return self.here


def test_rows_are_written_in_order_when_their_figures_have_arrived(monkeypatch):
    monkeypatch.setattr("dpsims.training.transfers.OnItsWay", Late)
    rows = Rows()
    for images in (4, 8):
        rows.add({"images": images}, {"loss": torch.tensor(0.5), "measure": torch.tensor(1.0)})
    assert list(rows.arrived()) == []
    rows.waiting[1][2].here = True  # pyright: ignore
    assert list(rows.arrived()) == []
    assert list(rows.arrived(every=True)) == [
        {"images": images, "loss": 0.5, "measure": 1.0} for images in (4, 8)
    ]
    for images in range(MOST + 2):
        rows.add({"images": images}, {"loss": torch.tensor(0.5)})
    assert [row["images"] for row in rows.arrived()] == [0, 1]  # the host does not run ahead for ever


def test_a_grid_that_cannot_be_written_stops_the_run_in_the_end(tmp_path: Path):
    from dpsims.data import open_source
    from dpsims.training.grids import Grids

    recipe = Recipe()
    recipe.data.source, recipe.data.size, recipe.data.height, recipe.data.width = "scenes", 8, 16, 24
    source = open_source(recipe.data, "val")
    generator = Generator(GeneratorConfig(source.space.num_classes, channels=(8,), noise_channels=4))
    grids = Grids(tmp_path, generator, source, recipe)
    grids.save(4)  # there is no folder
    with pytest.raises(FileNotFoundError):
        grids.close()
