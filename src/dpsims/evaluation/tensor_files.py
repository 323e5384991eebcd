"""Files of tensors that others published, read without running any code that may stand in them."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import torch
from torch import Tensor


def read_bytes(path: Path, mend: str) -> bytes:
    """The file. ValueError, ending in `mend`, where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error}); {mend}") from error


def torch_tensors(content: bytes, path: Path, mend: str) -> dict[str, Tensor]:
    """The named tensors of a .pth file. ValueError, ending in `mend`, where it holds anything else."""
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: not a file of tensors ({first_lines(error)}); {mend}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: holds something else than named tensors; {mend}")
    return state


def first_lines(error: Exception) -> str:
    """The head of a message that may be long."""
    lines = str(error).strip().splitlines()
    return " ".join(line.strip() for line in lines[:2])[:200] if lines else type(error).__name__
