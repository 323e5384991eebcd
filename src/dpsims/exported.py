"""Files of `dpsims export`, run alone: no checkpoint, no generator of ours, only the file's runtime.

Label space, trained size, noise shape and provenance travel in the file: as ONNX metadata, as rt_info of the
OpenVINO .xml, as an extra file inside the .pt2. Torch holds the pictures and draws the noise, so that a seed
means here what it means to `Synthesizer`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int32
from torch import Tensor

from dpsims.labels import LabelSpace
from dpsims.models.layers import RegionNoise

KEY = "dpsims"
"""name of our JSON text in the file's metadata"""
FORMAT = 1
NOISE_STRIDE = 1_000_003  # of seeds, as in Synthesizer.noise: the same seed, the same noise

Run = Callable[[Int32[np.ndarray, "b h w"], Float32[np.ndarray, "b n d"]], Float32[np.ndarray, "b 3 h w"]]


@dataclass
class Session:
    """An exported file, open: `run(label, noise)` gives pictures in [-1, 1]; `about` travels in it."""

    run: Run
    about: dict[str, Any]
    runtime: str


def is_exported(path: str | Path) -> bool:
    """Whether the name is that of an exported file (.onnx, .xml, .pt2), there or not."""
    return Path(path).suffix.lower() in SUFFIXES and not Path(path).is_dir()


def load_session(
    path: str | Path, threads: int | None = None, runtime: str = "auto", device: str = "auto"
) -> Session:
    """Open an exported file in its runtime; `openvino` also runs .onnx files.

    threads: none given takes as many as torch does (all cores, or OMP_NUM_THREADS; onnxruntime itself does
    not read that). For a .pt2 the number counts for the whole process. device: auto and cpu; cuda for
    onnxruntime where its CUDA provider is installed (untested), auto never takes it. A .pt2 is
    torch's format, which may hold pickles: open files that you trust. Raises ValueError for a file that is
    missing, damaged or another program's, a runtime that does not run it, and one that is not installed.
    """
    path = Path(path)
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path}: no exported file; its name ends in {', '.join(SUFFIXES)}")
    if runtime == "auto":
        runtime = kind
    if runtime not in _OPENERS or (runtime != kind and (kind, runtime) != ("onnx", "openvino")):
        raise ValueError(f"{path}: --runtime {runtime} does not run it; use auto or {kind}")
    if device not in ("auto", "cpu") and not (runtime == "onnx" and device == "cuda"):
        raise ValueError(f"device={device}: {runtime} runs on the CPU here; use auto or cpu")
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    run, text = _OPENERS[runtime](path, threads or torch.get_num_threads(), device)
    try:
        about = json.loads(text or "")
        newer = about["format"] > FORMAT
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: no file of `dpsims export` (it names no label space)") from error
    if newer:
        raise ValueError(f"{path}: written by a newer dpsims (format {about['format']}); upgrade dpsims")
    return Session(run, about, runtime)


class ExportedSynthesizer:
    """An exported file for use, as `Synthesizer` is: `ExportedSynthesizer("earth.onnx").generate(label)`."""

    def __init__(
        self, path: str | Path, threads: int | None = None, runtime: str = "auto", device: str = "auto"
    ) -> None:
        """Raises ValueError as `load_session` does, and for a file without what is needed to use it."""
        self.session = load_session(path, threads, runtime, device)
        values = self.session.about
        try:
            self.space = LabelSpace.from_dict(values["label_space"], str(path))
            self.size: tuple[int, int] = (values["height"], values["width"])
            """height and width that the model was trained at; other sizes work, the further away the worse"""
            self.about: dict[str, Any] = values["about"]
            self.noise_shape: tuple[int, int] = tuple(values["noise"])
            self.smallest: int = values["smallest"]
            """smallest height and width that the file takes"""
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}: damaged, {error} is missing or wrong; export it again") from error

    def noise(self, batch: int, seed: int, first: int = 0) -> Float[Tensor, "b n d"]:
        """Noise of samples first..first+batch-1 under `seed`: the same as `Synthesizer.noise`."""
        rngs = (torch.Generator().manual_seed(seed * NOISE_STRIDE + first + i) for i in range(batch))
        return torch.cat([torch.randn(1, *self.noise_shape, generator=rng) for rng in rngs])

    def generate_numbered(
        self, label: Int[Tensor, "b h w"], indices: Sequence[int], sample: int = 0, seed: int = 0
    ) -> Float[Tensor, "b 3 h w"]:
        """As `Synthesizer.generate_numbered`."""
        noise = torch.cat([self.noise(1, seed + sample, index) for index in indices])
        return self.generate(label, noise=noise)

    def generate(
        self,
        label: Int[Tensor, "b h w"],
        seed: int = 0,
        first: int = 0,
        noise: Float[Tensor, "b n d"] | RegionNoise | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        """As `Synthesizer.generate`; noise by region did not travel with the file, and is refused.

        Raises ValueError for a label out of range, a map that is too small, and noise of another shape.
        """
        if noise is None:
            noise = self.noise(label.shape[0], seed, first)
        wanted = (label.shape[0], *self.noise_shape)
        if not isinstance(noise, Tensor) or noise.shape != wanted:
            given = tuple(noise.shape) if isinstance(noise, Tensor) else "by region"
            raise ValueError(f"noise {given}: an exported file takes {wanted}; use the checkpoint for others")
        self.space.check_range(*(int(v) for v in label.aminmax()))
        height, width = label.shape[-2:]
        if min(height, width) < self.smallest:
            raise ValueError(
                f"label map {height}x{width}: this exported file takes maps of {self.smallest} pixels or "
                "more each way; enlarge the map, or use the checkpoint"
            )
        ids, z = label.to(torch.int32).cpu().numpy(), noise.float().cpu().numpy()
        return torch.from_numpy(self.session.run(ids, z))


_Opened = tuple[Run, str | None]  # what runs, and our JSON text


def _open_onnx(path: Path, threads: int, device: str) -> _Opened:
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError("files of ONNX need onnxruntime: pip install 'dpsims[export]'") from error

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what matters is raised
    # int8 weights become float32 once, at loading, and not again for each picture
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    providers = ["CPUExecutionProvider"]
    if device == "cuda":
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise ValueError("device=cuda: this onnxruntime runs on the CPU; install onnxruntime-gpu")
        providers.insert(0, "CUDAExecutionProvider")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # it has a class of its own for each of a dozen reasons
        raise _damaged(path, error) from error

    def run(label: np.ndarray, noise: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(["image"], {"label": label, "noise": noise})[0])

    return run, session.get_modelmeta().custom_metadata_map.get(KEY)


def _open_openvino(path: Path, threads: int, device: str) -> _Opened:
    try:
        import openvino  # noqa: F401
    except ImportError as error:
        raise ValueError("OpenVINO needs openvino: pip install 'dpsims[openvino]'") from error

    is_onnx = path.suffix.lower() == ".onnx"
    core = _openvino_core()
    try:
        model = core.read_model(path)
        info = "framework" if is_onnx else "about"  # OpenVINO keeps ONNX metadata under `framework`
        text = model.get_rt_info([info, KEY]).astype(str) if model.has_rt_info([info, KEY]) else None
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",  # it takes bf16 by itself where it is slower, and less exact
            "PERFORMANCE_HINT": "LATENCY",
        }
        compiled = core.compile_model(model, "CPU", settings)
    except Exception as error:  # RuntimeError and others
        raise _damaged(path, error) from error
    if not is_onnx and text is not None:
        _check_weights(path, text)
    request = compiled.create_infer_request()

    def run(label: np.ndarray, noise: np.ndarray) -> np.ndarray:
        return request.infer({"label": label, "noise": noise})["image"].copy()  # the next run overwrites it

    return run, text


@functools.cache
def _openvino_core() -> Any:
    """One for the process: each sets its own stack for signal handlers (on CPUs with AMX), and two that end
    in the order they began in leave a freed one behind, on which the next Ctrl-C crashes."""
    import openvino

    return openvino.Core()


def weights_checksum(file: Path) -> int:
    """Of the .bin file beside an OpenVINO .xml. May raise OSError."""
    return zlib.crc32(file.read_bytes())


def _check_weights(path: Path, text: str) -> None:
    """OpenVINO reads any .bin of the right length, such as another model's."""
    if json.loads(text).get("weights") != weights_checksum(path.with_suffix(".bin")):
        raise ValueError(f"{path.with_suffix('.bin')}: damaged, or of another export than {path.name}")


def _open_torch_export(path: Path, threads: int, device: str) -> _Opened:
    extra = {f"{KEY}.json": ""}
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("no zip archive")  # torch would print before it raises
        with quiet():
            module = torch.export.load(path, extra_files=extra).module()
    except Exception as error:  # of many kinds
        raise _damaged(path, error) from error
    torch.set_num_threads(threads)

    @torch.inference_mode()
    def run(label: np.ndarray, noise: np.ndarray) -> np.ndarray:
        return module(torch.from_numpy(label), torch.from_numpy(noise)).numpy()

    return run, extra[f"{KEY}.json"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without warnings and logs of torch's exporter; what matters is raised, or seen in a comparison."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _damaged(path: Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())[:200]
    return ValueError(
        f"{path}: damaged, or no {SUFFIXES[path.suffix.lower()]} file ({reason}); export it again"
    )


SUFFIXES = {".onnx": "onnx", ".pt2": "torch-export", ".xml": "openvino"}
"""end of an exported file's name -> format, which is also the name of its runtime"""
_OPENERS = {"onnx": _open_onnx, "openvino": _open_openvino, "torch-export": _open_torch_export}
