import shutil

import pytest
import torch

from dpsims.config import GeneratorConfig
from dpsims.models.generator import build_generator
from dpsims.modes import GRAPHS, GraphedGenerator, Mode, prepare
from tests.test_folding import generator, labels

CPU = torch.device("cpu")


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
@torch.inference_mode()
def test_half_precision_stays_near(precision, dtype):
    plain = generator()
    noise = plain.sample_noise(2)
    half = prepare(plain, Mode(precision), CPU)
    image = half(labels(), noise.to(dtype))
    assert image.dtype == dtype
    bound = {"bf16": 0.01, "fp16": 0.002}[precision]
    assert 0 < (image.float() - plain(labels(), noise)).abs().mean() <= bound
    assert all(p.dtype == torch.float32 for p in plain.parameters())


def test_unfolded_is_the_generator_itself():
    plain = generator()
    plain.train()
    prepare(plain, Mode(), CPU)
    assert plain.training  # only a copy was changed
    assert prepare(plain, Mode(fold=False), CPU) is plain
    assert prepare(plain, Mode(), CPU) is not plain


@torch.inference_mode()
def test_of_a_baseline_spectral_norm_is_folded_and_other_modes_are_refused():
    plain = build_generator(GeneratorConfig(3, "oasis", channels=(4, 8), hidden_channels=4))
    label, noise = labels() % 4, plain.sample_noise(2)
    folded = prepare(plain, Mode(), CPU)  # was in train mode
    assert not any("parametrizations" in name for name in folded.state_dict())
    assert any("parametrizations" in name for name in plain.state_dict())
    assert torch.equal(folded(label, noise), folded(label, noise))
    assert torch.allclose(folded(label, noise), plain.eval()(label, noise), atol=1e-5)
    for mode in (Mode("bf16"), Mode(compile=True)):
        with pytest.raises(ValueError, match="a generator of kind oasis has none but fp32, plain"):
            prepare(plain, mode, CPU)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (Mode("int8"), r"precision=int8: unknown; use one of fp32, bf16, fp16"),  # pyright: ignore
        (Mode("bf16", fold=False), r"precision=bf16: needs fold=True"),
        (Mode(cuda_graphs=True), r"cuda_graphs=True: device=cpu has none"),
    ],
)
def test_modes_that_do_not_go(mode, message):
    with pytest.raises(ValueError, match=message):
        prepare(generator(), mode, CPU)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore")
@torch.inference_mode()
def test_compiled_blocks_paint_the_same_at_any_size(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    from torch._dynamo.utils import counters

    plain = generator(channels=(8, 8), attention_strides=())
    compiled = prepare(plain, Mode(compile=True), CPU)
    codes = []
    for size in ((18, 23), (26, 31), (40, 34)):
        label, noise = labels(*size), plain.sample_noise(2)
        assert (compiled(label, noise) - plain(label, noise)).abs().max() <= 1e-4
        codes.append(counters["stats"]["unique_graphs"])
    assert codes[0] == codes[1] == codes[2] > 0  # blocks that are alike share theirs, and sizes too
    assert any(tmp_path.rglob("*.so"))  # for the next process


@pytest.mark.gpu
@torch.inference_mode()
def test_graphs_replay_what_the_generator_paints():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    device = torch.device("cuda")
    made = prepare(generator(), Mode(cuda_graphs=True), device)
    graphed = GraphedGenerator(made)
    for seed in range(2):
        for height in range(16, 16 + 4 * (GRAPHS + 1), 4):
            label = labels(height, 24).to(device)
            noise = made.sample_noise(2, torch.Generator().manual_seed(seed)).to(device)
            assert torch.allclose(graphed(label, noise), made(label, noise), atol=1e-5)
    assert len(graphed.graphs) == GRAPHS
