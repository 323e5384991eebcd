import pytest
import torch

from dpsims.generating import generate_sized

NOISE = torch.zeros(2, 1, 1)


class Recorder:
    """Stands for a Synthesizer trained at 16x24; notes the sizes it is asked for."""

    size = (16, 24)

    def __init__(self, **about: float) -> None:
        self.asked, self.about = [], about

    def generate(self, labels, noise):
        self.asked.append(tuple(labels.shape[1:]))
        return (labels[:, None].repeat(1, 3, 1, 1).float() / 10).clamp(-1, 1)


@pytest.mark.parametrize(
    ("size", "map_size", "works_at", "picture"),
    [
        ("auto", (16, 24), (16, 24), (16, 24)),
        ("auto", (20, 30), (20, 30), (20, 30)),  # near: the map's own size
        ("auto", (64, 80), (16, 24), (64, 80)),  # far: at the training size, then resized
        ("auto", (4, 6), (16, 24), (4, 6)),
        ("map", (64, 80), (64, 80), (64, 80)),
        ("model", (64, 80), (16, 24), (16, 24)),
    ],
)
def test_sizes(size, map_size, works_at, picture):
    model = Recorder()
    image = generate_sized(model, torch.zeros(2, *map_size, dtype=torch.int64), NOISE, size)  # pyright: ignore
    assert model.asked == [works_at] and image.shape == (2, 3, *picture)


def test_a_model_may_allow_larger_maps():
    for map_size, works_at in (((32, 48), (32, 48)), ((33, 48), (16, 24)), ((8, 12), (16, 24))):
        model = Recorder(own_size_up_to=4.0)
        generate_sized(model, torch.zeros(2, *map_size, dtype=torch.int64), NOISE, "auto")  # pyright: ignore
        assert model.asked == [works_at]


def test_a_resized_picture_keeps_its_layout():
    label = torch.zeros(1, 64, 96, dtype=torch.int64)
    label[:, :, 48:] = 10
    image = generate_sized(Recorder(), label, NOISE, "auto")  # pyright: ignore
    assert torch.allclose(image[..., :40], torch.zeros(1), atol=0.1)
    assert torch.allclose(image[..., 56:], torch.ones(1), atol=0.1)
