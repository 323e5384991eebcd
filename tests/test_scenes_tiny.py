"""The small backbone of our own: its shapes, its training task, and the weights that ship."""

from importlib import resources
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dpsims.data.scenes import LIGHTS, SCENES_SPACE, SEASONS
from dpsims.models import scenes_tiny as model
from dpsims.training import scenes_tiny as training

ASSET = Path(str(resources.files("dpsims") / "assets" / model.WEIGHTS))


def test_heads_fit_the_scenes() -> None:
    counts = (len(SCENES_SPACE.names), len(LIGHTS), len(SEASONS))
    assert counts == (model.NUM_CLASSES, model.NUM_LIGHTS, model.NUM_SEASONS)


@pytest.mark.parametrize("size", [(64, 96), (65, 33), (48, 50)])
def test_levels_have_their_nominal_sizes(size: tuple[int, int]) -> None:
    image = torch.randn(2, 3, *size, requires_grad=True)
    features = model.scenes_tiny().eval()(image)
    for feature, channels, stride in zip(features, model.CHANNELS, model.STRIDES, strict=True):
        assert feature.shape == (2, channels, -(-size[0] // stride), -(-size[1] // stride))
    torch.stack([feature.square().mean() for feature in features]).sum().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0


def test_targets_say_which_cells_a_class_is_in() -> None:
    label = torch.zeros(1, 20, 24, dtype=torch.long)
    label[0, 9, 17] = 8
    targets = training.presence_targets(label)
    assert targets.fine.shape == (1, 10, 3, 3) and targets.coarse.shape == (1, 10, 2, 2)
    assert targets.fine[0, 8].nonzero().tolist() == [[1, 2]]
    assert targets.coarse[0, 8].nonzero().tolist() == [[0, 1]]
    assert targets.presence[0].nonzero().flatten().tolist() == [0, 8]
    predictions = model.scenes_tiny().eval().classify(torch.randn(1, 3, 20, 24))
    assert predictions.fine.shape == targets.fine.shape and predictions.coarse.shape == targets.coarse.shape


def test_every_head_gives_every_block_that_it_stands_on_a_gradient() -> None:
    examples = training.draw_examples(0, 2, 32, 48)
    targets = training.presence_targets(examples.label.long())
    for name, blocks in {"fine": 3, "coarse": 4, "presence": 5, "light": 5, "season": 5}.items():
        network = model.scenes_tiny()
        predictions = network.classify(training.normalise(examples.image / 255.0))
        training.loss_terms(predictions, targets, examples.light, examples.season)[name].backward()
        gradients = [[p.grad for p in block.parameters()] for block in network.blocks]
        reached = [any(g is not None and bool(g.any()) for g in block) for block in gradients]
        assert reached == [i < blocks for i in range(5)]


def test_augmentation_moves_image_and_label_together() -> None:
    examples = training.draw_examples(0, 4, 48, 72)
    as_picture = examples._replace(image=examples.label[:, None].expand(-1, 3, -1, -1) * 20)
    image, label = training.augment(as_picture, 40, 48, torch.Generator().manual_seed(0))
    assert image.shape == (4, 3, 40, 48) and label.shape == (4, 40, 48)
    for picture, classes in zip(image, label, strict=True):
        pair = torch.stack([picture.mean(0).flatten(), classes.float().flatten()])
        assert torch.corrcoef(pair)[0, 1] > 0.9
    assert len({classes.numpy().tobytes() for classes in label}) == 4


def test_short_training_writes_a_file_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "new" / "weights.safetensors"
    training.main(["--out", str(out), "--minutes", "0.001", "--scenes", "8", "--held-out", "2"])
    state = load_file(out)
    model.scenes_tiny().load_state_dict(state)
    assert {v.dtype for v in state.values()} == {torch.float16, torch.int64}
    assert [p.name for p in out.parent.iterdir()] == [out.name]
    assert '"light"' in capsys.readouterr().out


def test_shipped_weights_are_small_and_know_scenes_they_never_saw() -> None:
    assert ASSET.stat().st_size < 3_000_000
    network = model.scenes_tiny()
    network.load_state_dict(load_file(ASSET))
    figures = training.measure(network, 40, 64, 96)
    assert figures["fine"] > 0.78 and figures["coarse"] > 0.78 and figures["presence"] > 0.7
    assert figures["light"] > 0.95 and figures["season"] > 0.9


def test_mean_and_std_are_those_of_scenes() -> None:
    image = training.draw_examples(0, 60, 16, 24).image / 255.0
    torch.testing.assert_close(image.mean((0, 2, 3)), torch.tensor(model.MEAN), atol=0.04, rtol=0.0)
    torch.testing.assert_close(image.std((0, 2, 3)), torch.tensor(model.STD), atol=0.04, rtol=0.0)
