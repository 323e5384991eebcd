"""Export of a generator to ONNX, torch.export or OpenVINO, checked in the real runtime before it appears.

What goes in: `label` int32 (b, h, w), classes 0..K-1 and K for unlabelled (32 bits: more than 255 classes
fit, and JavaScript has plain arrays of them, unlike 64); `noise` float32 (b, n, d), standard normal. What
comes out: `image` float32 (b, 3, h, w) in [-1, 1]. Batch, height and width are free, odd sizes included.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import dpsims
from dpsims.checkpoint import Model
from dpsims.exported import FORMAT, KEY, SUFFIXES, load_session, quiet, weights_checksum
from dpsims.graphs import exported_program, onnx_model, store_weights
from dpsims.models.generator import Generator

FORMATS = tuple(SUFFIXES.values())
PRECISIONS = ("fp32", "fp16", "int8")
LIMITS = {"fp32": 1 / 255, "fp16": 0.1}
"""largest difference to the checkpoint's pictures, of a range of 2; int8 weights have none: it is reported"""


@dataclass
class Parity:
    """How far the exported file's pictures are from the checkpoint's, on a scale of -1..1."""

    largest: float
    mean: float
    maps: list[list[int]]
    """shapes (b, h, w) of the label maps that it was measured on"""


def export_model(model: Model, out: Path, format: str | None = None, precision: str = "fp32") -> Parity:
    """Write `out`; an OpenVINO file is two, .xml and .bin. `format` None: as the name of `out` ends.

    precision: how weights are stored. Half or a quarter of the size in `fp16` and `int8` (weights of
    convolutions and linear layers, a scale for each output channel); runtimes on the CPU compute in float32
    either way. torch-export has fp32 only. The file appears whole, after its pictures were compared with the
    checkpoint's in its own runtime; one that is there stays until then. The figures also travel in the file.
    Raises ValueError for a name, format or precision that does not fit, a package that is not installed, and
    pictures that differ by more than LIMITS.
    """
    format, generator = checked_format(out, format, precision), model.generator.eval()
    if not isinstance(generator, Generator):
        kind = generator.config.kind
        raise ValueError(f"generator.kind={kind}: a baseline cannot be exported; export one of kind dpsims")
    # by a fixed name: what a killed process left behind, the next one clears away
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        write = WRITERS[format](generator, precision, partial)
        about, candidate = description(model, format, precision), partial / out.name
        write(candidate, about)
        parity = compare(model, candidate)
        if parity.largest > LIMITS.get(precision, torch.inf):
            raise ValueError(
                f"{out}: not written; its pictures differ from the checkpoint's by {parity.largest:.2g} "
                f"(allowed: {LIMITS[precision]:.2g}); try another format or precision"
            )
        write(candidate, {**about, "parity": vars(parity)})
        place(candidate, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return parity


def checked_format(out: Path, format: str | None, precision: str) -> str:
    """The format that is meant. ValueError for what does not fit, or needs a package that is not there."""
    suffix = out.suffix.lower()
    ends = {name: end for end, name in SUFFIXES.items()}
    if format is not None and format not in ends:
        raise ValueError(f"--format {format}: unknown; use {', '.join(FORMATS)}")
    if format is None and suffix not in SUFFIXES:
        raise ValueError(f"--out {out}: give it a name that ends in {', '.join(SUFFIXES)}, or give --format")
    format = format or SUFFIXES[suffix]
    if suffix != ends[format]:
        raise ValueError(f"--out {out}: {format} files end in {ends[format]}; choose another name")
    if precision not in PRECISIONS:
        raise ValueError(f"--precision {precision}: unknown; use {', '.join(PRECISIONS)}")
    if format == "torch-export" and precision != "fp32":
        raise ValueError(
            f"--precision {precision}: torch-export has fp32 only; use --format onnx or openvino"
        )
    for package, extra in _NEEDED[format].items():
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"export to {format} needs {package}: pip install 'dpsims[{extra}]'")
    return format


def description(model: Model, format: str, precision: str) -> dict[str, Any]:
    """What `ExportedSynthesizer` needs, and where the file comes from."""
    levels = len(model.generator.config.channels)
    return {
        "format": FORMAT,
        "label_space": model.space.to_dict(),
        "height": model.height,
        "width": model.width,
        "noise": list(model.generator.sample_noise(1).shape[1:]),
        # torch.export takes a size of 1 for another program than larger ones, at every level
        "smallest": 2 ** (levels - 1) + 1 if format == "torch-export" else 1,
        "precision": precision,
        "about": model.about,
        "made_by": {"dpsims": dpsims.__version__, "torch": torch.__version__},
    }


@torch.inference_mode()
def compare(model: Model, file: Path) -> Parity:
    """The file's pictures against the checkpoint's: batches of 1, 2 and 3; the trained size, odd, even."""
    session, config = load_session(file), model.generator.config
    stride = 2 ** (len(config.channels) - 1)
    shapes = [
        [1, max(model.height, stride + 1), max(model.width, stride + 1)],
        [2, 3 * stride + 1, 2 * stride + 5],
        [3, 2 * stride, 4 * stride],
    ]
    largest, total, count = 0.0, 0.0, 0
    rng = torch.Generator().manual_seed(0)
    for shape in shapes:
        label = torch.randint(0, config.num_classes + 1, shape, generator=rng)
        label = torch.where(torch.rand(shape, generator=rng) < 0.5, label, label[:, :1, :1])  # areas, too
        noise = model.generator.sample_noise(shape[0], rng)
        expected = model.generator(label, noise)
        found = torch.from_numpy(session.run(label.int().numpy(), noise.numpy()))
        difference = (found - expected).abs()
        # a NaN would pass any comparison
        largest = max(largest, float(difference.nan_to_num(torch.inf).max()))
        total, count = total + float(difference.sum()), count + difference.numel()
    return Parity(largest, total / count, shapes)


def place(candidate: Path, out: Path) -> None:
    """Move the file, or both, to where they belong: at no time does an .xml stand beside another's .bin."""
    weights = candidate.with_suffix(".bin")
    if weights.exists():
        out.unlink(missing_ok=True)
        weights.replace(out.with_suffix(".bin"))
    candidate.replace(out)


Write = Callable[[Path, dict[str, Any]], None]  # (file, what travels in it)


def _write_onnx(generator: Generator, precision: str, folder: Path) -> Write:
    proto = onnx_model(generator)
    if precision != "fp32":
        store_weights(proto, precision)

    def write(file: Path, about: dict[str, Any]) -> None:
        del proto.metadata_props[:]
        proto.metadata_props.add(key=KEY, value=json.dumps(about))
        file.write_bytes(proto.SerializeToString())

    return write


def _write_openvino(generator: Generator, precision: str, folder: Path) -> Write:
    import openvino

    _write_onnx(generator, "int8" if precision == "int8" else "fp32", folder)(folder / "model.onnx", {})
    model = openvino.convert_model(folder / "model.onnx")
    half = precision == "fp16"
    openvino.save_model(model, folder / "weights.xml", compress_to_fp16=half)
    checksum = weights_checksum(folder / "weights.bin")

    def write(file: Path, about: dict[str, Any]) -> None:
        model.set_rt_info(json.dumps({**about, "weights": checksum}), ["about", KEY])
        openvino.save_model(model, file, compress_to_fp16=half)

    return write


def _write_torch_export(generator: Generator, precision: str, folder: Path) -> Write:
    program = exported_program(generator)

    def write(file: Path, about: dict[str, Any]) -> None:
        with quiet():
            torch.export.save(program, file, extra_files={f"{KEY}.json": json.dumps(about)})

    return write


WRITERS = {"onnx": _write_onnx, "openvino": _write_openvino, "torch-export": _write_torch_export}
_NEEDED = {
    "onnx": {"onnx": "export", "onnxscript": "export", "onnxruntime": "export"},
    "openvino": {"onnx": "openvino", "onnxscript": "openvino", "openvino": "openvino"},
    "torch-export": {},
}
