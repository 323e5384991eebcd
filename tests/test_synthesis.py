import json
import shutil

import pytest
import torch

from dpsims import synthesis
from dpsims.checkpoint import Model, find_model, load_model, save_model
from dpsims.config import GeneratorConfig
from dpsims.data.examples import example_maps
from dpsims.data.files import read_label
from dpsims.labels import LabelSpace
from dpsims.models.generator import Generator, RegionNoise
from dpsims.modes import Mode
from dpsims.synthesis import Synthesizer

SPACE = LabelSpace(("sky", "road"), ((0, 0, 255), (90, 90, 90)), (0, 1), ignore_id=255)
CONFIG = GeneratorConfig(2, channels=(8, 16), attention_strides=(), noise_channels=8, token_channels=16)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    save_model(Model(Generator(CONFIG), SPACE, 16, 24, {"data": "test"}), tmp_path)
    return tmp_path


def labels() -> torch.Tensor:
    return torch.randint(0, 3, (3, 16, 24), generator=torch.Generator().manual_seed(0))


def test_a_model_round_trips(folder):
    model = load_model(folder)
    assert model.space == SPACE and (model.height, model.width) == (16, 24)
    assert model.about == {"data": "test"} and model.generator.config == CONFIG
    assert not model.generator.training
    assert find_model(folder / "generator.safetensors") == folder


def test_half_precision_weights_load_as_float(folder):
    save_model(load_model(folder), folder, half=True)
    assert all(v.dtype == torch.float32 for v in load_model(folder).generator.parameters())


def test_the_same_seed_gives_the_same_picture_however_it_is_batched(folder):
    synthesizer, label = Synthesizer.load(folder), labels()
    together = synthesizer.generate(label, seed=5)
    assert together.shape == (3, 3, 16, 24) and together.abs().max() <= 1
    for i in range(3):
        alone = synthesizer.generate(label[i : i + 1], seed=5, first=i)
        assert torch.allclose(alone, together[i : i + 1], atol=1e-5)
    assert not torch.allclose(synthesizer.generate(label, seed=6), together, atol=1e-3)


def test_noise_by_region(folder):
    synthesizer, label = Synthesizer.load(folder), labels()[:1]
    z = synthesizer.noise(2, seed=0)[None]
    image = synthesizer.generate(label, noise=RegionNoise(z, (label == 1).long()))
    assert image.shape == (1, 3, 16, 24)


def test_samples_of_one_map_are_those_of_the_map_repeated(folder):
    synthesizer, label = Synthesizer.load(folder), labels()[:1]
    expected = synthesizer.generate(label.expand(3, -1, -1), seed=5, first=2)
    assert torch.allclose(synthesizer.generate_samples(label, 3, seed=5, first=2), expected, atol=1e-5)
    plain = Synthesizer.load(folder, mode=Mode(fold=False))
    assert torch.allclose(plain.generate_samples(label, 3, seed=5, first=2), expected, atol=1e-5)
    with pytest.raises(ValueError, match="3 maps; give one"):
        synthesizer.generate_samples(labels(), 3)


def test_very_large_maps_are_tiled(folder, monkeypatch):
    synthesizer, label = Synthesizer.load(folder), labels().repeat(1, 2, 2)
    whole = synthesizer.generate(label, seed=5)
    tiled = synthesizer.generate_tiled(label, seed=5, window=24, overlap=6)  # trained at 16x24
    assert not torch.allclose(tiled, whole, atol=1e-4)  # each window has its own group normalisation
    assert (tiled - whole).abs().mean() < 0.05
    monkeypatch.setattr(synthesis, "TILED_ABOVE", 32 * 48)
    assert torch.equal(synthesizer.generate(label, seed=5), whole)
    monkeypatch.setattr(synthesis, "TILED_ABOVE", 32 * 48 - 1)
    assert torch.allclose(synthesizer.generate(label, seed=5), tiled, atol=1e-5)
    z = synthesizer.noise(6, seed=0).unflatten(0, (3, 2))
    regional = RegionNoise(z, (label == 1).long())
    expected = synthesizer.generate_tiled(label, noise=regional)
    assert torch.allclose(synthesizer.generate(label, noise=regional), expected, atol=1e-5)


def test_a_lower_precision(folder):
    label, plain = labels(), Synthesizer.load(folder)
    half = Synthesizer.load(folder, mode=Mode("bf16"))
    for noise in (None, RegionNoise(plain.noise(6, seed=0).unflatten(0, (3, 2)), (label == 1).long())):
        image = half.generate(label, seed=5, noise=noise)
        assert image.dtype == torch.float32
        assert 0 < (image - plain.generate(label, seed=5, noise=noise)).abs().mean() < 0.01
    expected = half.generate_samples(label[:1], 2, seed=5)
    assert (expected - plain.generate_samples(label[:1], 2, seed=5)).abs().mean() < 0.01


def test_labels_out_of_range_are_refused(folder):
    with pytest.raises(ValueError, match=r"index 3; classes are 0\.\.1, unlabelled is 2"):
        Synthesizer.load(folder).generate(torch.full((1, 8, 8), 3))
    with pytest.raises(ValueError, match="index -1"):
        Synthesizer.load(folder).generate_samples(torch.full((1, 8, 8), -1), 2)
    with pytest.raises(ValueError, match="index 3"):
        Synthesizer.load(folder).generate_tiled(torch.full((1, 8, 8), 3))
    for dtype in (torch.float32, torch.int32, torch.uint8):
        with pytest.raises(ValueError, match=f"label map is of {dtype}: give class ids as torch.int64"):
            Synthesizer.load(folder).generate(torch.zeros(1, 8, 8, dtype=dtype))


@pytest.mark.parametrize(
    ("distances", "taken"),
    [((9.0, 4.0, 4.9), 3), ((9.0, 4.0, 5.1), 2), ((4.0, 6.0, 9.0), 1), ((4.0,), 1)],
)
def test_a_run_means_its_newest_checkpoint_unless_one_before_was_clearly_better(distances, taken, tmp_path):
    for i, distance in enumerate(distances, start=1):
        folder = tmp_path / "checkpoints" / f"{i:08d}"
        folder.mkdir(parents=True)
        (folder / "state.json").write_text(json.dumps({"validation": {"frechet": distance}}))
    assert find_model(tmp_path).name == f"{taken:08d}"


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:99"])
def test_a_device_that_is_not_there(folder, device):
    with pytest.raises(ValueError, match=f"device={device}"):
        Synthesizer.load(folder, device)


def test_no_model_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere: does not exist; give a run's folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no checkpoint"):
        load_model(tmp_path)


def test_a_shipped_name_means_the_path_only_where_that_holds_a_model_or_a_run(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = find_model("earth")
    assert (shipped / "model.json").is_file() and shipped.is_absolute()
    (tmp_path / "earth" / "train" / "images").mkdir(parents=True)  # the data set that it was trained on
    (tmp_path / "earth" / "classes.json").write_text("{}")
    assert find_model("earth") == shipped
    (tmp_path / "earth" / "recipe.yaml").write_text("about: a run that has just begun")
    with pytest.raises(ValueError, match="model earth: holds no checkpoint"):
        find_model("earth")
    for name in ("model.json", "generator.safetensors"):
        shutil.copy(folder / name, tmp_path / "earth")
    assert find_model("earth").resolve() == tmp_path / "earth"
    assert load_model("earth").space == SPACE


def test_damaged_models_are_named(folder, tmp_path_factory):
    cut = shutil.copytree(folder, tmp_path_factory.mktemp("models") / "cut")
    weights = (cut / "generator.safetensors").read_bytes()
    (cut / "generator.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ValueError, match=r"generator\.safetensors: damaged"):
        load_model(cut)
    (cut / "generator.safetensors").unlink()
    with pytest.raises(ValueError, match=r"generator\.safetensors: cannot be read"):
        load_model(cut)
    values = json.loads((folder / "model.json").read_text())
    for change, message in (
        ({"format": 99}, "newer dpsims"),
        ({"generator": {**values["generator"], "channels": [8, 32]}}, "does not fit"),
        ({"label_space": {}}, "model.json"),
    ):
        (folder / "model.json").write_text(json.dumps({**values, **change}))
        with pytest.raises(ValueError, match=message):
            load_model(folder)
    (folder / "model.json").write_text("{")
    with pytest.raises(ValueError, match=r"model\.json: damaged"):
        load_model(folder)


def test_the_shipped_generator_generates_the_earth():
    synthesizer = Synthesizer.load("earth")
    assert synthesizer.space == LabelSpace.named("earth") and synthesizer.space.ignore_id is None
    label = torch.zeros(1, *synthesizer.size, dtype=torch.int64)
    image = synthesizer.generate(label, seed=1)
    assert image.shape == (1, 3, *synthesizer.size)
    maps = [torch.from_numpy(read_label(file, synthesizer.space))[None] for file in example_maps("earth")]
    pairs = [[synthesizer.generate(one, seed=seed) for seed in (1, 2)] for one in maps]
    assert sum(float((a - b).abs().mean()) for a, b in pairs) / len(pairs) > 0.05  # noise counts
    desert = torch.full_like(label, synthesizer.space.names.index("desert"))
    assert (image - synthesizer.generate(desert, seed=1)).abs().mean() > 0.05  # and so do classes
