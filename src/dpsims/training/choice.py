"""Which recipe a name stands for that leaves the choice to the device: `folder`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dpsims.config import Recipe
from dpsims.plain import to_dict
from dpsims.recipes import load_recipe, recipes_by_device
from dpsims.synthesis import pick_device
from dpsims.training.loop import flat_settings, settings_of_run


def choose_recipe(name: str, changes: dict[str, dict[str, Any]], run: Path) -> tuple[Recipe, str]:
    """The recipe to train in the folder `run`, with `changes` on top, and a line that says why this one.

    The device that training will use decides, unless `run` holds a run to resume: then its settings do.
    Raises ValueError as `load_recipe` does, for a device that is not there, and for a damaged recipe.yaml.
    """
    by_device = recipes_by_device(name)
    device = changes.get("training", {}).get("device", "auto")
    cuda = pick_device(device).type == "cuda"
    here = by_device["cuda" if cuda else "cpu"]
    reason = f"{'a' if cuda else 'no'} CUDA device" if device == "auto" else f"training.device={device}"
    names = sorted(by_device.values(), key=lambda recipe: recipe != here)  # the device's choice wins a tie
    chosen = _begun_with(run, names, changes) or here
    if chosen != here:
        reason += f", but {run} was begun with {chosen}"
    recipe = load_recipe(chosen, changes)
    size = f"{recipe.data.height}x{recipe.data.width}, batches of {recipe.training.batch_size}"
    other = next(recipe for recipe in names if recipe != chosen)
    return recipe, (
        f"recipe {name}: {reason}, so {chosen} ({size}, backbone {recipe.backbone.name}); "
        f"to use the other: dpsims train {other}"
    )


def _begun_with(run: Path, names: list[str], changes: dict[str, dict[str, Any]]) -> str | None:
    """The recipe that the run's settings agree with in the most fields, those of the command line aside; None
    where there is nothing to resume.

    Not the one that they equal: a setting that was changed since is then reported as itself, by `claim_run`.
    """
    before, given = settings_of_run(run), flat_settings(changes)
    if before is None:
        return None

    def agreeing(name: str) -> int:
        settings = flat_settings(to_dict(load_recipe(name)))
        return sum(before.get(key) == value for key, value in settings.items() if key not in given)

    return max(names, key=agreeing)
