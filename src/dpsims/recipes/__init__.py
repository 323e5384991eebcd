"""Recipes: one YAML file per experiment, found by name, with changes on top.

A recipe names only what differs from the defaults in `config.py`; its `about` says what it needs, what it
cost and what it scored. `folder` has no settings of its own: it chooses one of two recipes by device.
"""

from __future__ import annotations

import dataclasses
import difflib
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml

from dpsims.config import DataConfig, Recipe
from dpsims.plain import from_dict, settable_fields


def recipe_names() -> list[str]:
    """Names of the recipes inside the package."""
    return sorted(
        f.name.removesuffix(".yaml") for f in resources.files(__name__).iterdir() if f.name.endswith(".yaml")
    )


def load_recipe(recipe: str | Path, changes: dict[str, dict[str, Any]] | None = None) -> Recipe:
    """The recipe of that name, or in a YAML file, with `changes` (section -> field -> value) on top.

    A name that leaves the choice to the device, `folder`, gives the recipe for a CPU here (`folder_small`),
    whatever the machine; for a GPU load `folder_large`. `dpsims train folder` chooses: `training.choice`.

    Raises ValueError where there is no such recipe, or for a field or value that does not fit, naming it and
    the mend.
    """
    values, where = _read(recipes_by_device(recipe).get("cpu", recipe))
    values.pop("about", None)
    _refuse_derived(values, where)
    _refuse_derived(changes or {}, "command line")
    _ = from_dict(Recipe, values, where=where)  # on its own first: an error names the file it stands in
    for section, fields in (changes or {}).items():
        _ = from_dict(Recipe, {section: fields}, where="command line")
        values[section] = {**values.get(section, {}), **fields}
    merged = from_dict(Recipe, values, where=where)
    merged.check()
    return merged


def recipes_by_device(recipe: str | Path) -> dict[str, str]:
    """`cuda` and `cpu` -> the recipe that `recipe` (`folder`) stands for there; empty for all others."""
    return _read(recipe)[0].get("choose", {}) if str(recipe) in recipe_names() else {}


def _read(recipe: str | Path) -> tuple[dict[str, Any], str]:
    name = str(recipe)
    if name in recipe_names():
        text, where = (
            resources.files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8"),
            f"recipe {name}",
        )
    elif Path(name).suffix in (".yaml", ".yml"):
        try:
            text, where = Path(name).read_text(encoding="utf-8"), name
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{name}: the recipe cannot be read ({getattr(error, 'strerror', error)})"
            ) from error
    else:
        if name in get_args(settable_fields(DataConfig)["source"]):
            raise ValueError(f"{name} is a source, not a recipe: dpsims train RECIPE --data.source {name}")
        near = difflib.get_close_matches(name, recipe_names(), n=1)
        hint = (
            f"did you mean {near[0]}?"
            if near
            else f"known: {', '.join(recipe_names())}, or a file ending in .yaml"
        )
        raise ValueError(f"unknown recipe {name!r}; {hint}")
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: is not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{where}: should hold sections such as `data:` and `training:`")
    return values, where


def _refuse_derived(values: dict[str, Any], where: str) -> None:
    for section, kind in settable_fields(Recipe).items():
        fields = values.get(section)
        derived = {f.name for f in dataclasses.fields(kind)} - settable_fields(kind).keys()
        for name in derived & fields.keys() if isinstance(fields, dict) else ():
            raise ValueError(
                f"{where}: {section}.{name} follows from the data and the backbone; leave it out"
            )
