"""Features, diversity, the evaluation protocol and its reports: known answers, and figures that repeat."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from dpsims.data import Batch
from dpsims.evaluation import (
    PairwiseDiversity,
    PooledFeatures,
    RealDiversity,
    contact_sheet,
    evaluate,
    grid,
    measure_real,
    measures,
    rows_of,
    summary,
    text_table,
    validate,
)
from dpsims.evaluation.run import Settings
from dpsims.evaluation.segmentation import Segmenter
from dpsims.labels import LabelSpace

SPACE = LabelSpace(("sky", "road", "car"), ((0, 0, 255), (90, 90, 90), (255, 0, 0)), (0, 1, 2), ignore_id=9)


class TinyBackbone(nn.Module):
    """Two levels: the picture itself, and 6 channels at stride 4."""

    channels = (3, 6)
    strides = (1, 4)

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        weight = torch.randn(6, 3, 4, 4, generator=generator) / 4
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, image):
        return [image, torch.relu(nn.functional.conv2d(image, self.weight, stride=4))]


def network(name="tiny"):
    return PooledFeatures(TinyBackbone(), name)


def painter(noise=0.3):
    """A model: each class has its colour, plus noise that depends on (sample, index) alone."""
    colors = torch.tensor([[0.1, 0.3, 0.9], [-0.2, -0.2, -0.2], [0.8, -0.7, -0.6], [0, 0, 0]])

    def generate(label, indices, sample):
        image = colors[label].movedim(-1, 1)
        for i, index in enumerate(indices):
            generator = torch.Generator().manual_seed(1000 * sample + index)
            image[i] += noise * torch.randn(3, 1, 1, generator=generator)
        return image.clamp(-1, 1)

    return generate


def split(count, seed, batch=4):
    """A pass over `count` pictures whose maps are blocks of classes."""
    generator = torch.Generator().manual_seed(seed)
    label = (
        torch.randint(0, 4, (count, 2, 3), generator=generator)
        .repeat_interleave(8, 1)
        .repeat_interleave(8, 2)
    )
    image = painter(0.2)(label, range(count), 1000 + seed)
    return lambda first: (
        Batch(image[i : i + batch], label[i : i + batch]) for i in range(first, count, batch)
    )


def settings(**options):
    return Settings(**{"space": SPACE, "networks": [network()], "diversity_maps": 6, **options})


def run(generate, **options):
    return evaluate(generate, split(13, 1), split(10, 2), settings(**options))


# ---------------------------------------------------------------- features and diversity


def test_pooled_features_are_the_mean_of_the_coarsest_level():
    image = torch.rand(3, 3, 8, 12) * 2 - 1
    image.requires_grad_()
    features = network()(image)
    np.testing.assert_allclose(features, TinyBackbone()(image)[-1].mean((2, 3)).detach(), rtol=1e-6)
    assert features.dtype == torch.float32 and not features.requires_grad
    assert network().collect([image, image]).count == 6
    assert network("squeezenet1_1").title == "Frechet distance (squeezenet1_1 features)"


def test_features_are_float32_within_a_bf16_training():
    image = torch.rand(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        inside = network()(image)
    assert torch.equal(inside, network()(image))


def test_diversity_by_hand_and_zero_for_ignored_noise():
    black, grey = torch.full((2, 3, 8, 8), -1.0), torch.zeros(2, 3, 8, 8)
    diversity = PairwiseDiversity([network()])
    diversity.update([black, grey, black])
    assert diversity.report()["diversity"] == pytest.approx(2 / 3)  # distances 1, 0, 1
    same = PairwiseDiversity([network()])
    same.update([torch.rand(2, 3, 8, 8)] * 2)
    assert same.report() == {"diversity": 0.0, "diversity_features": {"tiny": 0.0}}
    assert PairwiseDiversity([]).report()["diversity"] is None
    with pytest.raises(ValueError, match="2 samples"):
        same.update([black])


def test_real_diversity_compares_pixels_of_one_class_only():
    image = torch.zeros(2, 3, 4, 4)
    image[1] = 0.5
    image[1, :, 2:] = 1.0  # another class there, and unlabelled in both below: neither may count
    label = torch.zeros(2, 4, 4, dtype=torch.int64)
    label[1, 2] = 1
    label[:, 3] = 3
    real = RealDiversity([], ignore_index=3)
    real.update(image, label)
    assert real.report()["diversity"] == pytest.approx(0.5)


def test_real_diversity_keeps_a_bounded_sample():
    real = RealDiversity([network()], ignore_index=3, capacity=5)
    for image, label in split(23, 0)(0):
        real.update(image, label)
    assert len(real._kept) == 5
    assert real.report()["diversity"] > 0.01


# ---------------------------------------------------------------- the protocol


def test_evaluate_reports_every_figure_and_repeats():
    segmenter = Segmenter(3, (4, 8))
    reports = [run(painter(), segmenter=segmenter) for _ in range(2)]
    for report in reports:
        assert report.pop("seconds") >= 0
    assert reports[0] == reports[1]
    report = json.loads(json.dumps(reports[0]))
    assert report["counts"] == {
        "generated": 10,
        "test": 10,
        "train": 13,
        "diversity_maps": 6,
        "diversity_samples": 2,
    }
    assert set(report["iou"]) == set(SPACE.names) and 0 <= report["miou"] <= 1
    assert report["diversity"] > 0.05 and report["real"]["diversity"] > 0.05
    assert "2,048" in report["warnings"][0]
    assert {"torch", "dpsims"} <= set(report["versions"])


def test_evaluate_prefers_the_better_model():
    good, flat = (
        run(painter(0.2)),
        run(lambda label, indices, sample: torch.full((len(label), 3, 16, 24), -0.9)),
    )
    assert good["frechet"]["tiny"] < flat["frechet"]["tiny"] / 3
    assert flat["diversity"] == 0 and flat["diversity_features"]["tiny"] == 0
    assert good["real"] == flat["real"]


def test_evaluate_on_the_real_pictures_themselves_is_zero():
    pictures = {label.numpy().tobytes(): image for image, label in split(10, 2)(0)}
    report = run(lambda label, indices, sample: pictures[label.numpy().tobytes()], diversity_samples=1)
    assert report["frechet"]["tiny"] < 1e-10
    assert report["diversity"] is None


def test_evaluate_asks_for_each_map_and_sample_once():
    seen = []

    def generate(label, indices, sample):
        seen.extend((index, sample) for index in indices)
        return painter()(label, indices, sample)

    report = run(generate, diversity_samples=3)
    # sample 0 again for diversity, unless a whole batch was chosen
    assert {i for i, sample in seen if sample == 0} == set(range(10))
    assert sum(sample > 0 for _, sample in seen) == len({*seen}) - 10 == 2 * 6
    assert report["counts"]["diversity_maps"] == 6
    assert run(painter(), diversity_maps=None)["counts"]["diversity_maps"] == 10


def test_evaluate_takes_a_reference_and_several_networks():
    chosen = settings(networks=[network("a"), network("b")])
    reference = measure_real(split(13, 1), split(10, 2), chosen)

    def no_train(first):
        raise AssertionError("the real pictures were measured again")

    report = evaluate(painter(), no_train, split(10, 2), chosen, reference=reference)
    assert report["frechet"]["a"] == report["frechet"]["b"] > 0
    assert report["real"] == run(painter(), networks=[network("a"), network("b")])["real"]
    assert report["weights"] == dict.fromkeys("ab", network().weights)


def test_the_real_column_reads_as_a_models():
    """Training pictures in the place of generated ones, against the test pictures."""
    rng = np.random.default_rng(0)
    brightness = torch.from_numpy(rng.uniform(-0.9, 0.9, (60, 1, 1, 1))).float()
    label = torch.zeros(60, 8, 8, dtype=torch.int64)
    image = brightness.expand(60, 3, 8, 8).contiguous()

    def part(chosen):
        return lambda first: iter([Batch(image[chosen][first:], label[chosen][first:])] if first == 0 else [])

    few, many = part(slice(0, 12)), part(slice(12, 60))
    real = measure_real(many, few, settings()).report
    # many pictures of one distribution stand near each of few
    assert real["coverage"]["tiny"] == 1 > measure_real(few, many, settings()).report["coverage"]["tiny"]
    model = evaluate(lambda label, indices, sample: image[12:][list(indices)], many, many, settings())
    assert model["real"]["precision"]["tiny"] == model["precision"]["tiny"] == 1


def test_features_are_a_random_sample_of_large_sets(monkeypatch):
    monkeypatch.setattr(measures, "FEATURES_KEPT", 7)
    chosen = settings().measures()
    for image, label in split(23, 0)(0):
        chosen.update(image, label)
    every = {number: network()(image[i : i + 1])[0] for image, number, i in _numbered(split(23, 0)(0))}
    assert len(set(chosen.kept)) == 7 and max(chosen.kept) > 7
    for row, number in zip(chosen.features["tiny"], chosen.kept, strict=True):
        torch.testing.assert_close(row, every[number])


def _numbered(batches):
    count = 0
    for image, _ in batches:
        for i in range(len(image)):
            yield image, count + i, i
        count += len(image)


def test_only_what_was_asked_for_is_measured():
    def no_train(first):
        raise AssertionError("no training picture is needed")

    segmenter = Segmenter(3, (4, 8))
    layout = settings(networks=[], segmenter=segmenter, metrics=["layout"])
    report = evaluate(painter(), no_train, split(10, 2), layout)
    assert report["miou"] == run(painter(), segmenter=segmenter)["miou"]
    assert not {"frechet", "kid", "diversity", "neighbours"} & {*report, *report["real"]}
    diverse = evaluate(painter(), no_train, split(10, 2), settings(metrics=["diversity"]))
    assert diverse["diversity"] == run(painter())["diversity"] and "miou" not in diverse
    with pytest.raises(ValueError, match="'fid' is unknown"):
        settings(metrics=["fid"])
    with pytest.raises(ValueError, match="at least one"):
        settings(networks=[])


def test_evaluate_refuses_broken_models_and_splits():
    with pytest.raises(ValueError, match="NaN"):
        run(lambda label, indices, sample: torch.full((len(label), 3, 16, 24), torch.nan))
    with pytest.raises(ValueError, match="shape"):
        run(lambda label, indices, sample: torch.zeros(len(label), 3, 8, 8))
    with pytest.raises(ValueError, match="name of its own"):
        run(painter(), networks=[network(), network()])
    with pytest.raises(ValueError, match="test split has 1"):
        evaluate(painter(), split(5, 0), split(1, 0), settings())


def test_validate_is_the_same_distance_in_one_pass():
    val = split(10, 2)
    figures = validate(painter(), val, network(), diversity_maps=6)
    assert figures == validate(painter(), val, network(), diversity_maps=6)
    assert figures["frechet"] == pytest.approx(run(painter())["frechet"]["tiny"], rel=1e-9)
    reference = network().collect(image for image, _ in val(0))
    assert validate(painter(), val, network(), reference)["frechet"] == pytest.approx(figures["frechet"])
    assert validate(painter(0.0), val, network())["diversity"] == 0
    assert figures["diversity"] > 0.05


def test_summary_is_flat():
    report = run(painter(), segmenter=Segmenter(3, (4, 8)))
    for part in (report, report["real"]):
        flat = summary(part)
        assert list(flat) == ["frechet", "miou", "diversity"]
        assert all(isinstance(value, float) for value in flat.values())
    assert summary(report, "tiny")["frechet"] == report["frechet"]["tiny"]
    with pytest.raises(ValueError, match="there are: tiny"):
        summary(report, "inception")


# ---------------------------------------------------------------- what is looked at


def test_grid_shows_map_real_and_fakes():
    label = torch.tensor([[[0, 1], [2, 3]]])
    white, black = torch.ones(1, 3, 2, 2), torch.full((1, 3, 2, 2), -1.0)
    picture = grid(label, white, [black, black * 3], SPACE.palette)
    assert picture.dtype == np.uint8 and picture.shape == (2 + 4, 4 * 4 + 2, 3)
    np.testing.assert_array_equal(picture[2:4, 2:4], SPACE.palette[label[0].numpy()])
    assert (
        (picture[2:4, 6:8] == 255).all()
        and (picture[2:4, 10:12] == 0).all()
        and (picture[2:4, 14:16] == 0).all()
    )
    assert grid(label, None, [black], SPACE.palette).shape == (6, 10, 3)


def test_contact_sheet_enlarges_and_titles(tmp_path):
    label = torch.zeros(3, 4, 6, dtype=torch.int64)
    rows = rows_of(label, None, [torch.zeros(3, 3, 4, 6)] * 2, SPACE.palette)
    plain = contact_sheet(rows, tile_height=8)
    assert plain.size == (3 * (12 + 2) + 2, 3 * (8 + 2) + 2)
    titled = contact_sheet(rows, ["map", "one", "two"], tile_height=8)
    assert titled.height > plain.height and (np.asarray(titled)[: titled.height - plain.height] < 128).any()
    titled.save(tmp_path / "sheet.png")
    with pytest.raises(ValueError, match="3 columns"):
        contact_sheet(rows, ["map"])
    with pytest.raises(ValueError, match="one length"):
        contact_sheet([rows[0], rows[1][:2]])
    with pytest.raises(ValueError, match="one length"):
        contact_sheet([])


def test_text_table_names_the_network_and_lines_up():
    report = run(painter())
    text = text_table({"trained": report, "real": report["real"]}, classes=True)
    lines = text.splitlines()
    assert lines[0].split() == ["trained", "real"]
    assert "Frechet distance (tiny features)" in lines[1] and "FID" not in text
    assert f"{report['frechet']['tiny']:.4f}" in lines[1]
    assert "IoU" not in text  # there was no segmenter
    judged = run(painter(), segmenter=Segmenter(3, (4, 8)))
    lines = text_table({"judged": judged, "not": report}, classes=True).splitlines()
    assert any(line.startswith("IoU sky") and line.split()[-1] == "-" for line in lines)
    assert any(line.startswith("mIoU by the segmenter") and line.split()[-1] == "-" for line in lines)
    assert lines[-1].startswith("note: ")
