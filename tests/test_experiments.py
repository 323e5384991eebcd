"""benchmarks/experiments.py: its YAML files fit the recipes, and its table says what was measured."""

import importlib.util
import itertools
import json
import runpy
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from dpsims.checkpoint import checkpoints, read_json
from dpsims.data.scenes import Scenes
from dpsims.evaluation.features import PooledFeatures
from dpsims.instruments import feature_scale
from dpsims.recipes import load_recipe
from dpsims.training import loop

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
FILES = sorted((BENCHMARKS / "experiments").glob("*.yaml"))
JUDGES = Path(__file__).resolve().parents[2] / "shared" / "judges"
needs_judges = pytest.mark.skipif(
    not JUDGES.is_dir(), reason="the judge's weights are not part of the project"
)


@pytest.fixture(scope="module")
def experiments() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("experiments", BENCHMARKS / "experiments.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)  # as for a script, whose siblings can be imported
        patch.setitem(sys.modules, "experiments", module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_training_of_an_experiment_is_a_recipe(experiments, file):
    trainings = experiments.read_trainings(file)
    assert len({training.name for training in trainings}) == len(trainings) >= 1
    for training in trainings:
        fields = training.fields  # raises for what does not fit
        assert all(fields[key] == value for key, value in training.settings.items())
        training.refuse_others(training.result)


def test_results_of_other_settings_or_instruments_are_refused(experiments, tmp_path):
    training = experiments.Training("some", "a", 0, "camvid", {"training.batch_size": 4})
    file = tmp_path / "a-0.json"
    training.refuse_others(file)  # nothing there
    fields = {**training.fields, "training.gone": 1}
    file.write_text(json.dumps({"fields": fields}))
    training.refuse_others(file)
    # a field that came later: its default, which the recipe no longer has
    del fields["generator.pixel_noise"]
    file.write_text(json.dumps({"fields": fields}))
    with pytest.raises(SystemExit, match="made with generator.pixel_noise=False, not True; delete it"):
        training.refuse_others(file)
    file.write_text(json.dumps({"fields": {**training.fields, "training.batch_size": 8}}))
    with pytest.raises(SystemExit, match="made with training.batch_size=8, not 4; delete it"):
        training.refuse_others(file)


def test_results_of_other_networks_or_other_data_are_rejected(experiments, tmp_path):
    real, means = tmp_path / "real.json", {"instruments": {"net": "1"}, "data": {"height": 96}}
    experiments.reject_other_setup(real, means)  # nothing there
    real.write_text(json.dumps({"instruments": {"net": "1"}}))  # an older file
    experiments.reject_other_setup(real, means)
    real.write_text(json.dumps(means))
    experiments.reject_other_setup(real, means)
    with pytest.raises(SystemExit, match="other instruments.*use the same --features, --segmenter"):
        experiments.reject_other_setup(real, {**means, "instruments": {"net": "2"}})
    with pytest.raises(SystemExit, match="other data: {'height': 96}, not {'height': 64}"):
        experiments.reject_other_setup(real, {**means, "data": {"height": 64}})


def test_core_time_trains_by_cpu_time(monkeypatch):
    seen = []
    monkeypatch.setattr(loop, "clock", time.monotonic)  # and is put back
    monkeypatch.setattr("dpsims.cli.main", lambda: seen.append(loop.clock))
    runpy.run_path(str(BENCHMARKS / "core_time.py"), run_name="__main__")
    assert seen == [time.process_time]


def test_minutes_are_counted_by_the_clock_of_the_loop(tmp_path, monkeypatch):
    """A step that takes no time by the wall, but a minute by the other clock, ends a minute's training."""
    ticks = itertools.count(step=60)
    monkeypatch.setattr(loop, "clock", lambda: float(next(ticks)))
    changes = {"total_images": 100, "batch_size": 2, "max_minutes": 5}
    small = {"height": 32, "width": 48, "size": 4}
    recipe = load_recipe("scenes", {"data": small, "training": changes})
    recipe.generator.channels = recipe.discriminator.channels = (8, 8, 8, 8, 8)
    recipe.evaluation.validation_images = 2
    newest = checkpoints(loop.train(recipe, tmp_path))[-1]
    state = read_json(newest / "state.json")
    assert state["images_seen"] < 10 and state["seconds"] >= 300


def test_minutes_by_different_clocks_are_rejected(experiments, tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "RESULTS", tmp_path / "results")
    trainings = [experiments.Training("some", name, 0, "camvid", {}) for name in "ab"]
    experiments.reject_other_clock(trainings, tmp_path, "cpu")  # nothing there
    experiments.write_json(trainings[0].result, {"minutes": 60})  # an older file
    experiments.reject_other_clock(trainings, tmp_path, "cpu")
    experiments.write_json(trainings[1].folder(tmp_path) / "trained.json", {"clock": "wall"})
    experiments.reject_other_clock(trainings, tmp_path, "wall")
    experiments.reject_other_clock(trainings, tmp_path, None)
    with pytest.raises(SystemExit, match=r"different clocks: cpu \(this command\) and wall \(.*trained.json"):
        experiments.reject_other_clock(trainings, tmp_path, "cpu")
    experiments.write_json(trainings[0].result, {"minutes": 60, "clock": "cpu"})
    with pytest.raises(SystemExit, match="different clocks"):
        experiments.reject_other_clock(trainings, tmp_path, None)


def test_variants_are_measured_on_one_data_set_at_one_size(experiments, tmp_path):
    def training(**settings: object) -> object:
        return experiments.Training("some", "a", 0, "scenes", {"data.size": 8, **settings})

    one = {"data.height": 32, "data.width": 48}
    bench = experiments.open_bench([training(**one), training(**one)], tmp_path, ["scenes_tiny"])
    assert (bench.size, bench.real.name) == ((32, 48), "scenes test")
    assert [network.name for network in bench.networks] == ["scenes_tiny"]
    data = experiments.data_of(bench)
    assert (data["height"], data["width"], data["train_images"]) == (32, 48, 8)
    with pytest.raises(ValueError, match="scenes at 32x48 and scenes at 32x64 are not comparable"):
        experiments.open_bench([training(**one), training(**{**one, "data.width": 64})], tmp_path, [])


def test_unknown_variants_are_rejected(experiments):
    trainings = [experiments.Training("some", name, 0, "camvid", {}) for name in ("a", "b")]
    assert [t.variant for t in experiments.choose(trainings, ["b"])] == ["b"]
    assert experiments.choose(trainings, None) == trainings
    with pytest.raises(SystemExit, match="--only c: no such variant; use one of: a, b"):
        experiments.choose(trainings, ["a", "c"])


def test_a_report_without_a_stored_value_is_an_error(experiments):
    report = {key: None for key in experiments.STORED}
    assert experiments.stored({**report, "more": 1}) == report
    del report["kid"]
    with pytest.raises(KeyError, match="the report lacks kid; it has frechet"):
        experiments.stored(report)


def test_every_stored_value_is_one_that_an_evaluation_reports(experiments, tmp_path, monkeypatch):
    settings = {"data.size": 8, "data.height": 16, "data.width": 16}
    training = experiments.Training("some", "a", 0, "scenes", settings)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(Scenes, "__len__", lambda scenes: 8)  # the test split has 200
    bench = experiments.open_bench([training], tmp_path, ["scenes_tiny"], segmenter_images=1)
    real = experiments.stored(bench.reference.report)
    assert real["kid"]["scenes_tiny"]["value"] == real["kid"]["scenes_tiny"]["value"]  # no NaN
    assert real["miou"] is not None


@needs_judges
def test_the_judge_is_a_feature_network(experiments):
    size = (48, 64)
    judge, other = experiments.networks_of([f"judge={JUDGES}", "scenes_tiny"], size)
    assert isinstance(judge, PooledFeatures) and (judge.name, other.name) == ("judge", "scenes_tiny")
    assert judge.title.endswith(f"features, pictures enlarged {feature_scale(size):g}x)")
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    vectors = judge(image)
    assert vectors.shape == (2, 1024) and vectors.dtype == torch.float32
    torch.testing.assert_close(judge.level(image).mean((2, 3)), vectors)
    weights = next(JUDGES.glob("*.safetensors"))
    again = experiments.load_judge(weights, feature_scale(size))
    assert again.weights == judge.weights and again.key == judge.key
    # by hand, without enlargement: RGB in [0, 1], ImageNet's mean and std, third stage
    plain = experiments.load_judge(JUDGES)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = plain.backbone.network.network(((image + 1) / 2 - mean) / std)[3].mean((2, 3))
    torch.testing.assert_close(plain(image), expected, rtol=1e-3, atol=1e-3)


def test_a_judge_that_cannot_be_loaded_is_one_line(experiments, tmp_path):
    with pytest.raises(ValueError, match=r"judge=.*there is no .*give the folder that holds resnet50v2.py"):
        experiments.load_judge(tmp_path)
    (tmp_path / "resnet50v2_to_stride16.safetensors").write_bytes(b"none")
    (tmp_path / "resnet50v2.py").write_text("R50v3 = None")
    with pytest.raises(ValueError, match="resnet50v2.py: does not run .AttributeError.*defines R50v2"):
        experiments.load_judge(tmp_path)


def test_seeds_come_round_after_round_and_settings_on_top(experiments, tmp_path):
    file = tmp_path / "some.yaml"
    file.write_text(
        "recipe: camvid\nsettings: {training.batch_size: 4}\nseeds: [0, 1]\n"
        "variants:\n  a: {}\n  b b: {training.batch_size: 2, seeds: [1]}\n"
    )
    found = experiments.read_trainings(file)
    assert [(t.name, t.settings["training.batch_size"]) for t in found] == [
        ("a-0", 4),
        ("a-1", 4),
        ("b_b-1", 2),
    ]
    command = found[2].command(Path("data"), {"tf_efficientnet_lite0": "file"}, Path("runs"))
    assert command[3:] == [
        *("train", "camvid", "--data", "data", "--out", "runs/some/b_b-1", "--training.batch_size", "2"),
        *("--training.seed", "1", "--backbone.weights", "file"),
    ]


def test_the_table_holds_means_and_their_intervals(experiments):
    def row(variant: str, frechet: float, **more: object) -> dict:
        return {
            "variant": variant, "images": 100, "minutes": 2.0, "frechet": {"net": frechet},
            "recall": {"net": 0.5}, "miou": 0.25, "pixel_accuracy": 0.5, "diversity": None, **more,
        }  # fmt: skip

    def kid(value: float) -> dict:
        return {"net": {"value": value, "std": None}}

    def artifacts(lock: float, real: float | None) -> dict:
        own = {"texture_lock": lock, "lattice": 0.125, "noise_detail": None if real is None else 0.75}
        return own if real is None else {k: {"generated": v, "real": real} for k, v in own.items()}

    rows = [row("a", 1.0, kid=kid(0.125), artifacts=artifacts(0.25, 0.5))]
    rows += [row("a", 3.0, kid=kid(0.125), artifacts=artifacts(0.25, 0.5))]
    rows += [row("b", 4.0, kernel=None)]  # from before KID and artifacts were stored
    real = row("real", 0.5, kid=kid(-0.25), artifacts=artifacts(0.125, None))
    lines = list(experiments.table_lines(rows, real))
    assert lines[0].startswith(
        "| variant | seeds | images | minutes | Frechet (net) | KID (net) | recall (net)"
    )
    # two values 2 apart: t is 12.706, the standard error 1
    assert lines[2].startswith("| a | 2 | 100 | 2.0 | 2 +- 12.7 | 0.125 +- 0 | 0.5 +- 0 | 0.25 +- 0 |")
    assert lines[2].endswith("| 0.25 +- 0 | 0.125 +- 0 | 0.75 +- 0 |")
    assert lines[3] == "| b | 1 | 100 | 2.0 | 4 | - | 0.5 | 0.25 | 0.5 | - | - | - | - |"
    assert lines[4].startswith("| real training images |  |  |  | 0.5 | -0.25 | 0.5 | 0.25 | 0.5 | - |")
    assert lines[4].endswith("| 0.125 | 0.125 | - |")
