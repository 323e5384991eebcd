"""Checkpoints: safetensors weights and JSON beside them; never a pickle.

A checkpoint is a folder that appears whole or not at all (written under another name, then renamed):
    generator.safetensors  the generator for use (moving average), beside it
    model.json             all else that is needed to run it
    training.safetensors   generator, moving average and discriminator as they train
    optimizer.safetensors  the optimisers' state
    state.json             pictures seen, training seconds, validation figures
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dpsims.config import GeneratorConfig
from dpsims.labels import LabelSpace
from dpsims.models.generator import AnyGenerator, build_generator
from dpsims.plain import from_dict, to_dict

FORMAT = 1
# A validation split has some hundred pictures; within this factor its distances do not tell checkpoints apart
# (docs/decisions/checkpoint-choice.md), and the longer training is the better bet.
NOISE = 1.25
SHIPPED = {"earth": "earth_generator"}


@dataclass
class Model:
    """A generator ready for use and what its maker knew: label space, training size, and notes (`about`)."""

    generator: AnyGenerator
    space: LabelSpace
    height: int
    width: int
    about: dict[str, Any]


def save_model(model: Model, folder: Path, half: bool = False) -> None:
    """Write generator.safetensors and model.json into `folder`; `half` stores float16 weights."""
    state = {
        k: v.half() if half and v.is_floating_point() else v for k, v in model.generator.state_dict().items()
    }
    save_tensors(state, folder / "generator.safetensors")
    description = {
        "format": FORMAT,
        "generator": to_dict(model.generator.config),
        "label_space": model.space.to_dict(),
        "height": model.height,
        "width": model.width,
        "about": model.about,
    }
    (folder / "model.json").write_text(json.dumps(description, indent=1), encoding="utf-8")


def load_model(path: str | Path) -> Model:
    """Load a generator from a run's folder (see `checkpoint_to_use`), a checkpoint's folder, or a shipped
    model's name.

    Raises ValueError naming the path where there is none, or where its files are damaged or of a newer
    format.
    """
    folder = find_model(path)
    values = read_json(folder / "model.json")
    try:
        if values["format"] > FORMAT:
            raise ValueError(
                f"{folder}: written by a newer dpsims (format {values['format']}); upgrade dpsims"
            )
        where = str(folder / "model.json")
        config = from_dict(GeneratorConfig, values["generator"], where=where)
        model = Model(
            build_generator(config),
            LabelSpace.from_dict(values["label_space"], where),
            values["height"],
            values["width"],
            values["about"],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'model.json'}: damaged, {error} is missing or wrong") from error
    file = folder / "generator.safetensors"
    try:
        model.generator.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in load_tensors(file).items()}
        )
    except RuntimeError as error:
        raise ValueError(f"{file}: does not fit the model.json beside it") from error
    model.generator.eval().requires_grad_(False)
    return model


def find_model(path: str | Path) -> Path:
    """The folder with model.json that `path` means: a checkpoint, a file in it, a run (see
    `checkpoint_to_use`), or a shipped name, unless a model or a run is at the path of that name."""
    folder = Path(path)
    if str(path) in SHIPPED and not is_model_folder(folder):
        return Path(str(files("dpsims") / "assets" / SHIPPED[str(path)]))
    if folder.is_file():
        if folder.suffix not in (".safetensors", ".json"):  # or what lies beside an exported file were taken
            raise ValueError(
                f"model {path}: no file of a checkpoint; give a run's folder or a checkpoint's (exported "
                "files are for `dpsims generate` only)"
            )
        folder = folder.parent
    if (folder / "model.json").is_file():
        return folder
    found = checkpoint_to_use(folder)
    if found is not None:
        return found
    known = ", ".join(SHIPPED)
    what = "holds no checkpoint" if folder.is_dir() else "does not exist"
    raise ValueError(
        f"model {path}: {what}; give a run's folder, a checkpoint's folder, or a shipped model ({known})"
    )


def is_model_folder(folder: Path) -> bool:
    """Whether it is a checkpoint or a run, even one without a checkpoint so far: no data set, no images."""
    names = ("model.json", "recipe.yaml")
    return any((folder / name).is_file() for name in names) or (folder / "checkpoints").is_dir()


def checkpoints(run: Path) -> list[Path]:
    """The run's whole checkpoints, oldest first."""
    found = [p for p in (run / "checkpoints").glob("*") if p.name.isdigit() and (p / "state.json").is_file()]
    return sorted(found, key=lambda p: int(p.name))


def best_checkpoint(run: Path) -> Path | None:
    """The checkpoint with the lowest validation distance; None where there is no checkpoint."""
    return min(checkpoints(run), key=_validation_distance, default=None)


def checkpoint_to_use(run: Path) -> Path | None:
    """The newest checkpoint whose validation distance is near the best one's (see NOISE)."""
    best = best_checkpoint(run)
    if best is None:
        return None
    limit = _validation_distance(best) * NOISE
    return [p for p in checkpoints(run) if _validation_distance(p) <= limit][-1]


def _validation_distance(folder: Path) -> float:
    """Infinite where the validation split was too small to measure."""
    return read_json(folder / "state.json").get("validation", {}).get("frechet", math.inf)


def save_checkpoint(
    run: Path,
    state: dict[str, Any],
    model: Model,
    training: dict[str, Tensor],
    optimizers: Mapping[str, torch.optim.Optimizer],
    keep: int,
) -> Path:
    """Write the checkpoint RUN/checkpoints/IMAGES_SEEN, then delete all but the newest `keep` and the
    best."""
    target = run / "checkpoints" / f"{state['images_seen']:08d}"
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        save_model(model, partial)
        save_tensors(training, partial / "training.safetensors")
        save_tensors(_optimizer_tensors(optimizers), partial / "optimizer.safetensors")
        (partial / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
        for file in partial.iterdir():  # on disk before the rename says that it is
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    best = best_checkpoint(run)
    for old in checkpoints(run)[: -max(keep, 1)]:
        if old != best:
            shutil.rmtree(old)
    return target


def load_optimizers(folder: Path, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
    """Put the saved state back into freshly made optimisers of the same parameters."""
    tensors = load_tensors(folder / "optimizer.safetensors")
    for name, optimizer in optimizers.items():
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            owner, index, field = key.split(".")
            if owner == name:
                state.setdefault(int(index), {})[field] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        for parameter, fields in optimizer.state.items():
            for field, value in fields.items():
                if value.shape == parameter.shape:  # in the parameter's memory layout, as if never saved
                    fields[field] = torch.empty_like(parameter).copy_(value)


def _optimizer_tensors(optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, Tensor]:
    return {
        f"{name}.{index}.{field}": torch.as_tensor(value)
        for name, optimizer in optimizers.items()
        for index, fields in optimizer.state_dict()["state"].items()
        for field, value in fields.items()
    }


def save_tensors(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str] | None = None) -> None:
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, file, metadata)


def load_tensors(file: Path) -> dict[str, Tensor]:
    """Raises ValueError naming the file where it is missing or damaged."""
    try:
        return load_file(file)
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error.strerror or error})") from error
    except SafetensorError as error:
        raise ValueError(f"{file}: damaged, or no safetensors file ({error})") from error


def read_json(file: Path) -> dict[str, Any]:
    """Raises ValueError naming the file where it is missing or damaged."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error.strerror})") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: damaged, no JSON ({error})") from error


def weights_digest(module: nn.Module) -> str:
    """16 hex digits that tell a network's weights (and buffers) from others, wherever they were loaded
    from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
