"""Texture lock, lattice and noise detail: known answers, and where they stand in reports."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dpsims.data import Batch
from dpsims.evaluation import evaluate, measure_real
from dpsims.evaluation.artifacts import KEPT, NAMES, Artifacts, Detail, fine_detail, locked, products
from dpsims.evaluation.compare import compare_reports, to_html
from dpsims.evaluation.figures import class_figures, figures
from dpsims.evaluation.page import PageSamples, write_page
from dpsims.evaluation.progress import Progress
from dpsims.evaluation.reading import read_report
from dpsims.evaluation.report import text_table
from tests.conftest import Run
from tests.test_evaluation import SPACE, painter, settings, split


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.3


def maps(count: int = 12, seed: int = 0) -> Tensor:
    """Blocks of three classes and unlabeled pixels, (count, 64, 96)."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, 4, (count, 2, 3), generator=generator)
    return blocks.repeat_interleave(32, 1).repeat_interleave(32, 2)


def measured(image: Tensor, label: Tensor, other: Tensor | None = None, batch: int = 5) -> dict[str, Any]:
    artifacts = Artifacts(SPACE)
    for i in range(0, len(label), batch):
        artifacts.update(image[i : i + batch], label[i : i + batch])
        if other is not None:
            artifacts.update_noise(image[i : i + batch], other[i : i + batch], label[i : i + batch])
    return artifacts.report()


def tiled(count: int, size: int = 8) -> Tensor:
    return random(1, 3, size, size).repeat(1, 64 // size, 96 // size).expand(count, 3, 64, 96)


# ---------------------------------------------------------------- known answers


def test_white_texture_has_none():
    label = maps(40)
    report = measured(random(1, 40, 3, 64, 96), label, random(2, 40, 3, 64, 96))
    found = report["artifacts"]
    assert found == {name: pytest.approx(0, abs=0.02) for name in NAMES}
    # what the 9x9 mean does to white noise is taken out
    assert report["lattice_by_shift"] == dict.fromkeys(report["lattice_by_shift"], pytest.approx(0, abs=0.02))


def test_a_texture_that_is_nailed_to_the_grid_is_locked():
    texture = random(1, 3, 64, 96).expand(12, 3, 64, 96)
    found = measured(texture, maps(), texture)["artifacts"]
    assert found["texture_lock"] == pytest.approx(1, abs=0.02) and abs(found["lattice"]) < 0.05
    assert found["noise_detail"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("size", [4, 8, 16])
def test_a_tile_is_a_lattice(size: int):
    """Each image has the tile at another place: a lattice that is not locked."""
    image = torch.stack([one.roll((3 * i, 5 * i), (1, 2)) for i, one in enumerate(tiled(12, size))])
    found = measured(image, maps())
    assert found["artifacts"]["lattice"] == pytest.approx(1, abs=0.02)
    assert found["lattice_by_shift"]["16,16"] == pytest.approx(1, abs=0.02)
    assert found["artifacts"]["texture_lock"] < 0.5


def test_a_checkerboard_is_a_lattice():
    cell = random(3, 3, 8, 8)
    board = torch.cat([torch.cat([cell, -cell], 2), torch.cat([-cell, cell], 2)], 1)
    found = measured(board.repeat(1, 4, 6).expand(12, 3, 64, 96), maps())
    assert found["lattice_by_shift"]["0,8"] == pytest.approx(-1, abs=0.02)
    assert found["artifacts"]["lattice"] == pytest.approx(1, abs=0.02)


def test_a_structure_in_one_direction_counts_less():
    poles = random(3, 12, 3, 1, 96).expand(12, 3, 64, 96)
    found = measured(poles, maps())
    assert found["lattice_by_shift"]["8,0"] == pytest.approx(1, abs=0.02)
    assert found["artifacts"]["lattice"] == pytest.approx(3**-0.5, abs=0.06)


def test_brightness_and_contrast_do_not_count():
    label, mixed = maps(), 0.5 * tiled(12) + random(4, 12, 3, 64, 96)
    other = mixed + 0.2 * random(5, 12, 3, 64, 96)
    gain = torch.linspace(0.1, 3, 12)[:, None, None, None]
    one, same = measured(mixed, label, other), measured(mixed * gain - 0.4 * gain, label, other * gain + 1)
    for name in NAMES:
        assert 0.1 < one["artifacts"][name] < 0.99
        assert same["artifacts"][name] == pytest.approx(one["artifacts"][name], abs=1e-3)


def test_small_classes_and_unlabeled_pixels_do_not_count():
    label = torch.zeros(30, 64, 96, dtype=torch.int64)
    label[:, 20:27, 20:30] = 1  # 1.8 % of the labeled pixels
    label[:, 40:] = 3
    label[:3] = 3  # all of them
    image = random(1, 30, 3, 64, 96)
    image[:, :, 20:27, 20:32] = image[:1, :, 20:27, 20:32]
    image[:, :, 40:] = tiled(30)[:, :, 40:]
    found = measured(image, label)
    assert found["artifacts_by_class"]["texture_lock"]["road"] > 0.9
    assert found["artifacts_by_class"]["texture_lock"]["car"] is None
    assert found["artifacts"]["texture_lock"] == found["artifacts_by_class"]["texture_lock"]["sky"] < 0.1
    label[3:, 20:27, 20:32] = 1  # 2.2 % of the labeled pixels
    assert measured(image, label)["artifacts"]["texture_lock"] > 0.3


def test_flat_and_tiny_images_have_no_value():
    nothing = dict.fromkeys(NAMES)
    assert measured(torch.full((12, 3, 64, 96), 0.3), maps())["artifacts"] == nothing
    assert fine_detail(torch.zeros(2, 3, 8, 20)).numel() == 0
    assert measured(random(1, 12, 3, 8, 8), maps()[:, :8, :8])["artifacts"] == nothing
    assert Artifacts(SPACE).report()["artifacts"] == nothing


def test_running_sums_are_those_of_the_pairs_a_quarter_apart():
    label = maps(9)
    details = [Detail(random(i, 64, 96) + tiled(1)[0, 0], label[i]) for i in range(9)]
    sums = torch.zeros(2, 3)
    for i in range(9):
        for j in range(i + 2, 9):
            both = products(details[i], details[j])
            sums += torch.stack([both[:, label[i] == c].sum(dim=1) for c in range(3)], dim=1)
    torch.testing.assert_close(locked(details, 3).float(), sums[0] / sums[1])


# ---------------------------------------------------------------- streams


def test_memory_is_bounded_and_batches_do_not_count():
    image, label = random(1, 150, 3, 24, 24), maps(150)[:, 20:44, 20:44]
    parts = [Artifacts(SPACE) for _ in range(2)]
    for artifacts, batch in zip(parts, (7, 50), strict=True):
        for i in range(0, 150, batch):
            artifacts.update(image[i : i + batch], label[i : i + batch])
    assert parts[0].report() == parts[1].report()
    assert len(parts[0]._kept) == 38 <= KEPT and parts[0]._stride == 4
    torch.testing.assert_close(
        parts[0]._kept[1].label.long(), Artifacts(SPACE)._details(image, label)[4].label
    )


def test_a_stored_state_goes_on():
    image, label = random(1, 80, 3, 24, 24), maps(80)[:, 20:44, 20:44]
    whole, first, second = (Artifacts(SPACE) for _ in range(3))
    second.load_state_dict(first.state_dict())  # of nothing yet
    whole.update(image, label)
    first.update(image[:70], label[:70])
    second.load_state_dict(first.state_dict())
    second.update(image[70:], label[70:])
    assert second.report() == whole.report()


# ---------------------------------------------------------------- reports


def large(count: int, seed: int) -> Callable[[int], Iterator[Batch]]:
    """`split` with images of 48x72 pixels."""
    return lambda first: (
        Batch(*(part.repeat_interleave(3, -1).repeat_interleave(3, -2) for part in batch))
        for batch in split(count, seed)(first)
    )


def generate(label: Tensor, indices: Any, sample: int) -> Tensor:
    return painter()(label, indices, sample) + tiled(1)[0, :, :48, :72]


def report_of(**options: Any) -> dict[str, Any]:
    chosen = settings(**{"networks": [], "metrics": ["artifacts"], **options})
    return json.loads(json.dumps(evaluate(generate, large(13, 1), large(10, 2), chosen)))


@pytest.mark.parametrize("part", ["real", "generated"])
def test_a_stopped_evaluation_gives_the_same_values(tmp_path: Path, part: str):
    chosen = settings(networks=[], metrics=["artifacts"])
    kept = Progress(tmp_path, {}, seconds=0)

    def stopping(first: int) -> Iterator[Batch]:
        for i, batch in enumerate(large(10, 2)(first)):
            if i == 2:
                raise InterruptedError
            yield batch

    whole = measure_real(large(13, 1), large(10, 2), chosen)
    with pytest.raises(InterruptedError):
        if part == "real":
            measure_real(large(13, 1), stopping, chosen, kept)
        else:
            evaluate(generate, large(13, 1), stopping, chosen, reference=whole, progress=kept)
    report = evaluate(generate, large(13, 1), large(10, 2), chosen, progress=kept)
    assert {**report, "seconds": 0} == {
        **evaluate(generate, large(13, 1), large(10, 2), chosen),
        "seconds": 0,
    }
    assert report["artifacts"]["noise_detail"]["generated"] > 0.2


def test_generated_and_real_stand_side_by_side(tmp_path: Path):
    report = report_of()
    assert list(report["artifacts"]) == list(NAMES) and report["counts"]["diversity_maps"] == 6
    for name, values in report["artifacts"].items():
        assert values["generated"] > 0.2 and set(values) == {"generated", "real"}
        assert values["real"] == report["real"]["artifacts"][name]
        assert set(report["artifacts_by_class"][name]) == set(SPACE.names)
    assert report["artifacts"]["noise_detail"]["real"] is None
    lock = report["artifacts"]["texture_lock"]["generated"]
    assert figures(report)["Texture lock"].value == lock
    assert class_figures(report)["Lattice in sky"].value is not None
    text = text_table({"generated": report, "real": report["real"]})
    assert text.splitlines()[1].split()[:3] == ["texture", "lock", f"{lock:.4f}"]
    page = write_page(report, PageSamples())
    assert "Artifacts of each class" in page and "Noise detail" in page and "lattice_by_shift" not in page
    files = [tmp_path / "new.json", tmp_path / "old.json"]
    files[0].write_text(json.dumps({**report, "model": "new"}))
    old = {key: value for key, value in report.items() if not key.startswith(("artifacts", "lattice"))}
    files[1].write_text(json.dumps({**old, "miou": 0.5, "model": "old"}))
    lines = compare_reports(files).splitlines()
    [line] = [line for line in lines if line.startswith("Texture lock")]
    assert line.split()[2:5] == ["lower", f"{lock:.4f}", "-"]
    assert "Artifacts of each class" in to_html(files)
    for wrong in ({"lattice": "x"}, {"lattice": {"generated": "x"}}, []):
        files[0].write_text(json.dumps({**report, "artifacts": wrong or ["x"]}))
        with pytest.raises(ValueError, match="artifacts"):
            read_report(files[0])


def test_one_image_of_each_map_has_no_noise_detail():
    found = report_of(diversity_samples=1)["artifacts"]
    assert found["noise_detail"]["generated"] is None and found["lattice"]["generated"] > 0.2
    both = report_of(metrics=["artifacts", "diversity"], diversity_samples=3)
    assert both["artifacts"] == report_of()["artifacts"] and both["counts"]["diversity_samples"] == 3


def test_a_folder_of_images(dpsims: Run, tmp_path: Path, photos: Path):
    file, page = tmp_path / "report.json", tmp_path / "page.html"
    args = ["evaluate", photos / "images", "--data", photos, "--split", "train", "--metrics", "artifacts"]
    code, table, err = dpsims(*args, "--json", file, "--html", page)
    assert code == 0 and "texture lock" in table and page.exists(), err
    report = read_report(file)
    for name in ("texture_lock", "lattice"):
        assert report["artifacts"][name]["generated"] == report["artifacts"][name]["real"] is not None
    assert report["artifacts"]["noise_detail"] == {"generated": None, "real": None}
