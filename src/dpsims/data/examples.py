"""The example label maps in the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from dpsims.data.files import list_maps


def example_maps(space: str) -> list[Path]:
    """The example maps of a label space (`earth`), by name. Raises ValueError where it has none."""
    return list_maps([Path(str(files("dpsims") / "assets" / "examples" / space))])
