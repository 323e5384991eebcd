"""benchmarks/experiments.py: its YAML files fit the recipes, and its table says what was measured."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
FILES = sorted((BENCHMARKS / "experiments").glob("*.yaml"))


@pytest.fixture(scope="module")
def experiments() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("experiments", BENCHMARKS / "experiments.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:  # dataclasses look their module up
        patch.setitem(sys.modules, "experiments", module)
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
    file.write_text(json.dumps({"fields": {"training.batch_size": 4, "training.gone": 1}}))
    training.refuse_others(file)
    file.write_text(json.dumps({"fields": {"training.batch_size": 8}}))
    with pytest.raises(SystemExit, match="made with training.batch_size=8, not 4; delete it"):
        training.refuse_others(file)
    experiments.refuse_other_instruments(tmp_path / "real.json", {"net": "1"})
    (tmp_path / "real.json").write_text(json.dumps({"instruments": {"net": "1"}}))
    experiments.refuse_other_instruments(tmp_path / "real.json", {"net": "1"})
    with pytest.raises(SystemExit, match="use the same --features and --segmenter"):
        experiments.refuse_other_instruments(tmp_path / "real.json", {"net": "2"})


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
    command = found[2].command(Path("data"), {"mobilenet_v2": "file"}, Path("runs"))
    assert command[3:] == [
        *("train", "camvid", "--data", "data", "--out", "runs/some/b_b-1", "--training.batch_size", "2"),
        *("--training.seed", "1", "--backbone.weights", "file"),
    ]


def test_the_table_holds_means_and_their_intervals(experiments):
    def row(variant: str, frechet: float) -> dict:
        return {
            "variant": variant, "images": 100, "minutes": 2.0, "frechet": {"net": frechet},
            "recall": {"net": 0.5}, "miou": 0.25, "pixel_accuracy": 0.5, "diversity": None,
        }  # fmt: skip

    lines = list(experiments.table_lines([row("a", 1.0), row("a", 3.0), row("b", 4.0)], row("real", 0.5)))
    # two values 2 apart: t is 12.706, the standard error 1
    assert lines[2].startswith("| a | 2 | 100 | 2.0 | 2 +- 12.7 | 0.5 +- 0 | 0.25 +- 0 |")
    assert lines[3] == "| b | 1 | 100 | 2.0 | 4 | 0.5 | 0.25 | 0.5 | - |"
    assert lines[4] == "| real training pictures |  |  |  | 0.5 | 0.5 | 0.25 | 0.5 | - |"
