import pytest
import torch

from dpsims.data.examples import example_maps
from dpsims.data.files import read_label
from dpsims.labels import LabelSpace
from dpsims.models.folding import fold
from dpsims.models.generator import RegionNoise
from dpsims.models.tiling import Span, _ramps, blended_guides, generate_tiled, paint, spans
from tests.command_line import load_generator
from tests.test_folding import generator, labels


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (5, [(0, 5)]),
        (16, [(0, 16)]),
        (17, [(0, 16), (4, 17)]),
        (28, [(0, 16), (12, 28)]),
        (41, [(0, 16), (12, 28), (24, 40), (28, 41)]),
    ],
)
def test_windows_cover_a_length_and_start_on_cells(length, expected):
    assert spans(length, window=16, overlap=4, cell=4) == [Span(*s) for s in expected]


@pytest.mark.parametrize(("length", "overlap"), [(41, 4), (41, 0), (48, 12), (16, 8)])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_ramps_sum_to_one_everywhere(length, overlap, stride):
    windows = spans(length, 16, overlap, 4)
    total = torch.zeros(-(-length // stride))
    for window, ramp in zip(windows, _ramps(windows, length, stride), strict=True):
        assert ramp.min() > 0
        total[window.start // stride : window.start // stride + len(ramp)] += ramp
    assert torch.allclose(total, torch.ones(1))


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("changes", [{}, {"modulation_kernel": 1}, {"normalisation": "pixel"}], ids=str)
@torch.inference_mode()
def test_strips_change_nothing(folded, changes):
    made = generator(**changes)
    made = fold(made) if folded else made
    label, noise = labels(41, 23), made.sample_noise(2)
    expected = made(label, noise)
    guides = [g(h, made.mapping(noise)) for g, h in zip(made.injection, made.encoder(label), strict=True)]
    for strip in (1, 2 * 8 * 23 * 6, 10**9):  # two rows, six rows, all rows at full resolution
        assert (paint(made, label, list(guides), strip) - expected).abs().max() <= 1e-6


@torch.inference_mode()
def test_a_map_that_fits_a_window_is_painted_as_ever():
    made, label = generator(), labels(14, 16)
    noise = made.sample_noise(2)
    assert (generate_tiled(made, label, noise, 16, 4) - made(label, noise)).abs().max() <= 1e-6
    noise = RegionNoise(made.sample_noise(2, regions=3), label // 2)
    assert (generate_tiled(made, label, noise, 16, 4) - made(label, noise)).abs().max() <= 1e-6


@torch.inference_mode()
def test_noise_by_region_follows_its_window():
    """One region everywhere is the plain noise, whatever the window."""
    made, label = generator(), labels(33, 21)
    z = made.sample_noise(2)
    regions = RegionNoise(torch.stack([z, torch.zeros_like(z)], dim=1), torch.zeros_like(label))
    expected = generate_tiled(made, label, z, 16, 8)
    assert (generate_tiled(made, label, regions, 16, 8) - expected).abs().max() <= 1e-5


@torch.inference_mode()
def test_without_a_view_of_the_plane_windows_change_nothing_far_from_their_borders():
    """Half of a map sees the same window whether the rest is there or not."""
    made = generator()
    label, noise = labels(16 + 12, 16, batch=1), made.sample_noise(1)
    both = blended_guides(made, label, noise, 16, 4)
    alone = blended_guides(made, label[:, :16], noise, 16, 4)
    for i, (guide, part) in enumerate(zip(both, alone, strict=True)):
        rows = 12 // 2**i  # where the next window begins
        assert torch.allclose(guide[:, :, :rows], part[:, :, :rows], atol=1e-6)
        assert not torch.allclose(guide[:, :, rows : rows + 1], part[:, :, rows : rows + 1], atol=1e-6)


@torch.inference_mode()
def test_seams_are_no_stronger_than_what_lies_between_them():
    """Steps from row to row where a window begins or ends, against those in between; both against the image
    generated in one piece, whose content has steps of its own. A trained generator, the mean over all example
    maps: a single one's content may hide a seam, or look like one."""
    made, size, cell = fold(load_generator("earth")), 192, 16
    space = LabelSpace.named("earth")
    maps = [torch.from_numpy(read_label(file, space))[None, :size, :size] for file in example_maps("earth")]
    assert len(maps) == 6
    noise = made.sample_noise(1, torch.Generator().manual_seed(0))

    def contrast(image: torch.Tensor, rows: set[int]) -> float:
        steps = (image[:, :, 1:] - image[:, :, :-1]).abs().mean(dim=(0, 1, 3))
        others = set(range(cell, size, cell)) - rows
        return float(steps[[r - 1 for r in rows]].mean() / steps[[r - 1 for r in others]].mean())

    def seam(overlap: int) -> float:
        windows = spans(size, 64, overlap, cell)
        rows = {w.start for w in windows[1:]} | {w.stop for w in windows[:-1]}
        ratios = (
            contrast(generate_tiled(made, label, noise, 64, overlap), rows) / contrast(whole, rows)
            for label, whole in zip(maps, wholes, strict=True)
        )
        return sum(ratios) / len(maps)

    wholes = [made(label, noise) for label in maps]
    assert seam(overlap=16) < 1.2
    assert seam(overlap=0) > 1.4


@pytest.mark.parametrize(
    ("window", "overlap", "changes", "message"),
    [
        (18, 4, {}, r"window=18, overlap=4: use multiples of 4"),
        (16, 3, {}, r"window=16, overlap=3"),
        (16, 16, {}, r"the overlap below the window"),
        (16, 4, {"normalisation": "instance"}, r"normalisation=instance.*cannot be tiled"),
    ],
)
def test_what_cannot_be_tiled(window, overlap, changes, message):
    made = generator(**changes)
    with pytest.raises(ValueError, match=message):
        generate_tiled(made, labels(), made.sample_noise(2), window, overlap)
