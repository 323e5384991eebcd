"""`dpsims export`, and files of it that run alone. The graph is made once: that takes most of the time."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from dpsims import cli
from dpsims import export as export_module
from dpsims.checkpoint import load_model
from dpsims.export import export_model, place
from dpsims.exported import ExportedSynthesizer, is_exported, load_session
from dpsims.graphs import exported_program, onnx_model, store_weights
from dpsims.models.generator import RegionNoise
from dpsims.synthesis import Synthesizer
from tests.command_line import SPACE, check_refused, load_generator, write_model
from tests.conftest import Run

FILES = {"a.onnx": "fp32", "half.onnx": "fp16", "bytes.onnx": "int8", "a.xml": "fp32", "bytes.xml": "int8"}
FILES |= {"half.xml": "fp16", "a.pt2": "fp32"}
TOLERANCE = {"fp32": 1e-5, "fp16": 0.01, "int8": 0.1}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the checkpoint `model` and the FILES, all written by the command line."""
    folder = tmp_path_factory.mktemp("exported")
    write_model(folder / "model")
    program = exported_program(load_generator(folder / "model"))
    with pytest.MonkeyPatch.context() as patch:
        for module in ("graphs", "export"):
            patch.setattr(f"dpsims.{module}.exported_program", lambda generator: program)
        proto = onnx_model(load_generator(folder / "model"))
        patch.setattr(export_module, "onnx_model", lambda generator: copy.deepcopy(proto))
        for name, precision in FILES.items():
            with pytest.raises(SystemExit) as end:
                args = ["export", folder / "model", "--out", folder / name, "--precision", precision]
                cli.main([str(a) for a in args])
            assert end.value.code == 0, name
        yield folder


def labels(*shape: int) -> torch.Tensor:
    return torch.randint(0, 4, shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", FILES)
def test_pictures_are_the_checkpoints_at_any_size_and_batch(made: Path, name: str):
    exported, plain = ExportedSynthesizer(made / name), Synthesizer.load(made / "model", "cpu")
    assert exported.space == SPACE and exported.size == (32, 40) and exported.about == plain.about
    for shape in ((1, 32, 40), (4, 9, 14), (2, 33, 17), (1, 3, 50)):
        expected = plain.generate(labels(*shape), seed=3, first=5)
        found = exported.generate(labels(*shape), seed=3, first=5)
        assert found.shape == expected.shape and found.dtype == torch.float32
        assert (found - expected).abs().max() < TOLERANCE[FILES[name]]
    assert torch.equal(exported.noise(3, 7, 2), plain.noise(3, 7, 2))
    same = exported.generate_numbered(labels(2, 9, 9), [4, 1], sample=1)
    expected = plain.generate_numbered(labels(2, 9, 9), [4, 1], sample=1)
    assert (same - expected).abs().max() < TOLERANCE[FILES[name]]


def test_an_onnx_file_also_runs_in_openvino(made: Path):
    plain = Synthesizer.load(made / "model", "cpu").generate(labels(2, 20, 11))
    for name, precision in FILES.items():
        if name.endswith(".onnx"):
            found = ExportedSynthesizer(made / name, threads=1, runtime="openvino").generate(
                labels(2, 20, 11)
            )
            assert (found - plain).abs().max() < TOLERANCE[precision]


def test_signals_are_handled_after_openvino_files_are_closed(made: Path):
    """A second process: with one core each, the first file's stack for signal handlers was gone by then."""
    code = (
        "import gc, signal, sys\nfrom dpsims.exported import load_session\n"
        "first, second = load_session(sys.argv[1], threads=1), load_session(sys.argv[1], threads=1)\n"
        "del first\ngc.collect()\ndel second\ngc.collect()\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('heard'))\nsignal.raise_signal(signal.SIGUSR1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, made / "a.xml"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr


def test_the_file_says_what_it_is(made: Path):
    proto = onnx.load(made / "a.onnx")
    onnx.checker.check_model(proto)
    shapes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in
              [*proto.graph.input, *proto.graph.output]}  # fmt: skip
    assert shapes == {
        "label": ["batch", "height", "width"], "noise": ["batch", 2, 4],
        "image": ["batch", 3, "height", "width"],
    }  # fmt: skip
    assert str(Path(export_module.__file__).parent).encode() not in (made / "a.onnx").read_bytes()
    for name, precision in FILES.items():
        about = load_session(made / name).about
        assert about["precision"] == precision and about["about"]["backbone"]["name"] == "squeezenet1_1"
        assert len(about["parity"]["maps"]) == 3
        assert 0 <= about["parity"]["mean"] <= about["parity"]["largest"] < TOLERANCE[precision]
    assert not list(made.glob(".*"))


def test_smaller_weights_are_smaller_and_change_pictures(made: Path):
    generator = load_generator(made / "model")
    stored = {}
    for precision in ("fp16", "int8"):
        proto = export_module.onnx_model(generator)
        store_weights(proto, precision)
        stored[precision] = {w.name: (w.data_type, len(w.raw_data)) for w in proto.graph.initializer}
    kinds = {precision: {kind for kind, _ in found.values()} for precision, found in stored.items()}
    assert onnx.TensorProto.FLOAT16 in kinds["fp16"] and onnx.TensorProto.INT8 in kinds["int8"]
    convolutions = [n for n in stored["int8"] if n.endswith("conv1.weight_int8")]
    assert convolutions and all(
        stored["fp16"][n.replace("int8", "fp16")][1] == 2 * stored["int8"][n][1] for n in convolutions
    )
    largest = [load_session(made / f"{n}.onnx").about["parity"]["largest"] for n in ("a", "half", "bytes")]
    assert largest == sorted(largest) and len(set(largest)) == 3


@pytest.mark.parametrize("name", ["a.onnx", "a.xml", "a.pt2"])
def test_generate_needs_the_file_alone(dpsims: Run, made: Path, tmp_path: Path, name: str):
    alone = tmp_path / "alone"
    alone.mkdir()
    for file in made.glob(name.replace(".xml", ".*") if name.endswith(".xml") else name):
        shutil.copy(file, alone)
    for i, shape in enumerate([(32, 40), (32, 40), (31, 35)]):
        Image.fromarray(SPACE.encode_ids(np.asarray(labels(*shape)))).save(tmp_path / f"{i}.png")
    maps = [tmp_path / f"{i}.png" for i in range(3)]
    for out, model in (("plain", made / "model"), ("exported", alone / name)):
        code, _, err = dpsims("generate", model, *maps, "--out", tmp_path / out, "--seed", 4)
        assert code == 0, err
    for i in range(3):
        a, b = (
            np.array(Image.open(tmp_path / out / f"{i}.png")).astype(int) for out in ("plain", "exported")
        )
        assert a.shape == b.shape and abs(a - b).max() <= 1


def test_what_an_exported_file_does_not_take(made: Path):
    synthesizer = ExportedSynthesizer(made / "a.onnx")
    with pytest.raises(ValueError, match=r"index 4; classes are 0\.\.2, unlabelled is 3"):
        synthesizer.generate(torch.full((1, 8, 8), 4))
    region = RegionNoise(torch.zeros(1, 2, 2, 4), torch.zeros(1, 8, 8, dtype=torch.int64))
    noises: list[Any] = [torch.zeros(2, 2, 4), torch.zeros(1, 2, 5), region]
    for noise in noises:
        with pytest.raises(ValueError, match=r"takes \(1, 2, 4\)"):
            synthesizer.generate(torch.zeros(1, 8, 8, dtype=torch.int64), noise=noise)
    with pytest.raises(ValueError, match="3 pixels or more"):
        ExportedSynthesizer(made / "a.pt2").generate(torch.zeros(1, 2, 8, dtype=torch.int64))


@pytest.mark.parametrize("name", ["a.onnx", "a.xml", "a.pt2", "bytes.onnx"])
@pytest.mark.parametrize("how", ["cut", "empty", "text"])
def test_damaged_files_are_named_in_one_line(dpsims: Run, made: Path, tmp_path: Path, name: str, how: str):
    content = {"cut": (made / name).read_bytes()[:-1000], "empty": b"", "text": b"hello"}[how]
    (tmp_path / name).write_bytes(content)
    shutil.copy(made / "a.bin", tmp_path)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "m.png")
    result = dpsims("generate", tmp_path / name, tmp_path / "m.png", "--out", tmp_path / "out")
    check_refused(result, name, "damaged")


def test_files_of_other_programs_and_weights_of_other_exports(made: Path, tmp_path: Path):
    proto = onnx.load(made / "a.onnx")
    for text, message in (("{}", "no label space"), (None, "no label space"), ('{"format": 99}', "newer")):
        del proto.metadata_props[:]
        if text is not None:
            proto.metadata_props.add(key="dpsims", value=text)
        onnx.save(proto, tmp_path / "other.onnx")
        with pytest.raises(ValueError, match=message):
            load_session(tmp_path / "other.onnx")
    proto.metadata_props[0].value = json.dumps({"format": 1})
    onnx.save(proto, tmp_path / "other.onnx")
    with pytest.raises(ValueError, match="'label_space' is missing"):
        ExportedSynthesizer(tmp_path / "other.onnx")
    shutil.copy(made / "a.xml", tmp_path)
    weights = bytearray((made / "a.bin").read_bytes())
    weights[len(weights) // 2] ^= 1
    (tmp_path / "a.bin").write_bytes(weights)
    with pytest.raises(ValueError, match=r"a\.bin: damaged, or of another export than a\.xml"):
        load_session(tmp_path / "a.xml")
    (tmp_path / "a.bin").unlink()
    with pytest.raises(ValueError, match=r"a\.xml: damaged"):
        load_session(tmp_path / "a.xml")


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["--out", "m.bin"], ["m.bin", ".onnx, .pt2, .xml"]),
        (["--out", "m.onnx", "--format", "openvino"], ["m.onnx", "end in .xml"]),
        (["--out", "m.onnx", "--format", "tflite"], ["--format tflite", "openvino"]),
        (["--out", "m.onnx", "--precision", "fp8"], ["--precision fp8", "int8"]),
        (["--out", "m.pt2", "--precision", "fp16"], ["--precision fp16", "torch-export has fp32 only"]),
        (["--out", "folder.onnx"], ["folder.onnx", "is a folder"]),
        ([], ["--out"]),
    ],
)
def test_export_refuses_bad_input_in_one_line(
    dpsims: Run,
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    parts: list[str],
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.onnx").mkdir()
    check_refused(dpsims("export", made / "model", *args), *parts)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.onnx"]


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["a.onnx", "--runtime", "torch"], ["a.onnx", "--runtime torch", "use auto or onnx"]),
        (["a.pt2", "--runtime", "onnx"], ["a.pt2", "use auto or torch-export"]),
        (["model", "--runtime", "onnx"], ["--runtime onnx", "dpsims export"]),
        (["a.xml", "--device", "cuda"], ["device=cuda", "use auto or cpu"]),
        (["missing.onnx"], ["missing.onnx", "no such file"]),
    ],
)
def test_generate_refuses_a_runtime_that_does_not_fit(
    dpsims: Run, made: Path, tmp_path: Path, args: list[str], parts: list[str]
):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "m.png")
    result = dpsims("generate", made / args[0], tmp_path / "m.png", "--out", tmp_path / "out", *args[1:])
    check_refused(result, *parts)


def test_a_missing_package_says_how_to_get_it(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for package, name, extra in (("onnxscript", "a.onnx", "export"), ("openvino", "a.xml", "openvino")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ValueError, match=rf"pip install 'dpsims\[{extra}\]'"):
            export_model(load_model(made / "model"), tmp_path / name)
    with pytest.raises(ValueError, match=r"pip install 'dpsims\[openvino\]'"):
        load_session(made / "a.xml")


def test_a_bad_export_is_not_written_and_what_is_there_stays(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model, out = load_model(made / "model"), tmp_path / "a.onnx"
    out.write_bytes(b"precious")
    (tmp_path / ".a.onnx.partial").mkdir()  # of a process that was killed
    (tmp_path / ".a.onnx.partial" / "a.onnx").write_bytes(b"half")
    with torch.no_grad():
        model.generator.image_network.to_rgb.weight.mul_(-1)  # the graph of `made` has the old weights
    with pytest.raises(ValueError, match=r"a\.onnx: not written; its pictures differ .* by \d"):
        export_model(model, out)
    assert out.read_bytes() == b"precious" and [p.name for p in tmp_path.iterdir()] == ["a.onnx"]
    good = load_model(made / "model")
    good.generator.train()  # as a caller may leave it
    assert export_model(good, out).largest < 1e-5 and not good.generator.training
    assert [p.name for p in tmp_path.iterdir()] == ["a.onnx"]


def test_an_xml_never_stands_beside_weights_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "new").mkdir()
    for folder, text in ((tmp_path, "old"), (tmp_path / "new", "new")):
        for end in ("xml", "bin"):
            (folder / f"m.{end}").write_text(text)
    seen, replace = [], Path.replace

    def watched(self: Path, target: Path) -> Path:
        seen.append({p.suffix: p.read_text() for p in tmp_path.glob("m.*")})
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    place(tmp_path / "new" / "m.xml", tmp_path / "m.xml")
    seen.append({p.suffix: p.read_text() for p in tmp_path.glob("m.*")})
    assert seen == [{".bin": "old"}, {".bin": "new"}, {".bin": "new", ".xml": "new"}]


def test_which_names_are_exported_files(tmp_path: Path):
    (tmp_path / "run.onnx").mkdir()
    assert is_exported("x.ONNX") and is_exported("x.pt2") and not is_exported("earth")
    assert not is_exported(tmp_path / "run.onnx")
