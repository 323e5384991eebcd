"""Where an evaluation stands, on disk, so that one that was killed goes on.

A part of an evaluation is a pass over a split; what it has gathered is kept in a file of its own every now
and then. The name of the file says what the figures depend on, so that no other evaluation finds it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

State = dict[str, Tensor]
Listener = Callable[[str, int, int], None]
"""Called with (what is being done, pictures done, of how many; 0: not known)."""
SECONDS = 30.0
"""between two savings: what a kill costs at most, and a batch"""
KEPT_DAYS = 14


class Accumulator(Protocol):
    """What gathers figures over batches, and can be stored between two of them."""

    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State, /) -> None: ...


class Progress:
    """Stored states of the parts of one evaluation.

    folder: made where missing. key: plain values, all that the figures depend on. A file that cannot be read
    is taken for none: the part begins anew.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], seconds: float = SECONDS) -> None:
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        self.folder, self.digest, self.seconds = folder, digest, seconds
        self._saved = time.monotonic()

    def load(self, part: str, gathered: Mapping[str, Accumulator]) -> bool:
        """Fill the accumulators with what was stored of a part; whether there was anything."""
        self._saved = time.monotonic()
        try:
            state = load_file(self._file(part))
        except (OSError, SafetensorError):
            return False
        for name, accumulator in gathered.items():
            prefix = f"{name}/"
            accumulator.load_state_dict(
                {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            )
        return True

    def save(self, part: str, gathered: Mapping[str, Accumulator], now: bool = False) -> None:
        """Store a part, where the last time is long enough ago (or `now`).

        The file appears whole or not at all. A full disk is no reason to stop: nothing is stored then.
        """
        if not now and time.monotonic() - self._saved < self.seconds:
            return
        state = {
            f"{name}/{key}": value.contiguous()
            for name, accumulator in gathered.items()
            for key, value in accumulator.state_dict().items()
        }
        file = self._file(part)
        unfinished = file.with_name(f"{file.name}.{os.getpid()}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(state, unfinished)
            os.replace(unfinished, file)
        except (OSError, SafetensorError):
            with contextlib.suppress(OSError):
                unfinished.unlink()
        self._saved = time.monotonic()

    def clear(self) -> None:
        """Forget all parts, the evaluation being done, and those of others that nobody went on with."""
        old = time.time() - KEPT_DAYS * 86400
        for file in self.folder.glob("*-*.safetensors*"):
            with contextlib.suppress(OSError):  # another process may have been faster
                if file.name.startswith(self.digest) or file.stat().st_mtime < old:
                    file.unlink()

    def _file(self, part: str) -> Path:
        return self.folder / f"{self.digest}-{part}.safetensors"
