"""Options `--section.field` for every setting of a recipe, read from the dataclasses in `config.py`."""

from __future__ import annotations

import ast
import inspect
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from dpsims import config
from dpsims.config import Recipe
from dpsims.plain import settable_fields


def plain_value(section: str, name: str, value: Any) -> Any:
    """What typer leaves as text: true/false, and lists such as 4,8,16 or [4, 8, 16]. YAML reads both."""
    import yaml

    kind: Any = settable_fields(settable_fields(Recipe)[section])[name]
    if kind is not bool and get_origin(kind) is not tuple:
        return value
    try:
        return yaml.safe_load(value if kind is bool or value.startswith("[") else f"[{value}]")
    except yaml.YAMLError:
        return value  # not readable as what it should be: the check of the recipe says what that is


def _field_options() -> list[inspect.Parameter]:
    """An option `--section.field` for every field that a user may set."""
    options = []
    for section, kind in settable_fields(Recipe).items():
        helps = field_helps(kind)
        for name, hint in settable_fields(kind).items():
            typed: Any = hint if hint in (int, float) else str
            option = typer.Option(
                f"--{section}.{name}", help=helps[name], metavar=_metavar(hint), show_default=False
            )
            parameter = inspect.Parameter(f"{section}__{name}", inspect.Parameter.KEYWORD_ONLY, default=None)
            options.append(parameter.replace(annotation=Annotated[typed | None, option]))
    return options


def _metavar(hint: Any) -> str | None:
    if get_origin(hint) is Literal:
        return "|".join(map(str, get_args(hint)))
    if get_origin(hint) is tuple:
        return "NAME,NAME,..." if get_args(hint)[0] is str else "N,N,..."
    return "true|false" if hint is bool else None


def field_helps(kind: type) -> dict[str, str]:
    """Field -> the string that stands below it in config.py."""
    body = next(
        node.body
        for node in ast.parse(inspect.getsource(config)).body
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__
    )
    helps = {}
    for field, text in zip(body, body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            helps[field.target.id] = ""
            if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                helps[field.target.id] = " ".join(str(text.value.value).split())
    return helps


def with_field_options(command: Any) -> Any:
    """Typer reads a function's signature: `**fields` becomes one option for each field."""
    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "fields"]
    parameters = [*own, *_field_options()]
    command.__signature__ = inspect.Signature(parameters)
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command
