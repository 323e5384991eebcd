"""What the README and the guide say can be done: commands parse, files exist, names are there."""

from __future__ import annotations

import ast
import functools
import json
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import dpsims
from dpsims import cli
from dpsims.labels import LabelSpace
from dpsims.recipes import load_recipe, recipe_names

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/guide.md"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """(language, text) of the page's fenced blocks."""
    yield from re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)


def commands(program: str) -> list[str]:
    lines = (
        line
        for page in PAGES
        for language, text in blocks(page)
        if not language
        for line in text.splitlines()
    )
    stripped = (line.partition("#")[0].strip().removeprefix(".venv/bin/") for line in lines)
    return [line for line in stripped if line.startswith(program + " ") and "[" not in line]


def test_the_top_of_the_readme_is_make_demo_and_make_test():
    first = next(text for _, text in blocks("README.md"))
    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["make demo", "make test"]


@pytest.mark.parametrize("command", commands("make"))
def test_make_targets_exist(command: str):
    target = shlex.split(command)[1]
    assert re.search(rf"^{target}:", MAKEFILE, re.M), f"no target {target}"


@pytest.mark.parametrize("command", commands("dpsims"))
def test_commands_parse(command: str, monkeypatch: pytest.MonkeyPatch):
    """Run the real parser over the command, with the work itself taken out."""
    ran: list[str] = []
    arguments = shlex.split(command)[1:]
    _stub_commands(monkeypatch, ran)
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 0 and (ran or "--help" in arguments)


def _stub_commands(monkeypatch: pytest.MonkeyPatch, ran: list[str]) -> None:
    for app in (cli.app, cli.data_app):
        for info in app.registered_commands:
            callback = info.callback
            assert callback is not None

            def stub(*args, _name=callback.__name__, **kwargs):
                ran.append(_name)

            monkeypatch.setattr(info, "callback", functools.wraps(callback)(stub))


def test_there_are_commands_to_check():
    subcommands = {shlex.split(command)[1] for command in commands("dpsims")}
    assert {"train", "generate", "evaluate", "data"} <= subcommands


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str):
    for target in re.findall(r"\]\(([^)]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        if not target.startswith(("http", "#")):
            assert ((ROOT / page).parent / target.partition("#")[0]).exists(), f"{page} links {target}"


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md"])
def test_examples_of_classes_json_and_recipes_are_valid(page: str, tmp_path: Path):
    for language, text in blocks(page):
        if language == "json":
            assert LabelSpace.from_dict(json.loads(text)).num_classes == 2
        if language == "yaml" and "classes:" in text:
            space = LabelSpace.from_dict(yaml.safe_load(text))
            assert space.names == ("sky", "road", "car") and space.evaluation.names == ("road", "car")
        elif language == "yaml":
            (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
            assert load_recipe(tmp_path / "own.yaml").data.height == yaml.safe_load(text)["data"]["height"]


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md"])
def test_python_examples_use_names_that_exist(page: str):
    for language, text in blocks(page):
        if language == "python":
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ImportFrom):
                    module = import_module(node.module or "")
                    assert all(hasattr(module, alias.name) for alias in node.names)


def test_named_inputs_of_the_readme_exist():
    assert list((ROOT / "examples/earth").glob("*.png"))


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_valid_and_says_what_it_needs(name: str):
    recipe = load_recipe(name)
    assert recipe.data.height > 0
    text = (Path(cli.__file__).parent / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    assert len(yaml.safe_load(text)["about"]) > 40


def test_changelog_has_the_version():
    assert f"## {dpsims.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
