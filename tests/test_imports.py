"""Who may import whom, and that the light parts stay light."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dpsims

SOURCE = Path(dpsims.__file__).parent
ROWS = [
    {"config", "labels", "plain", "writing"},
    {"data", "models", "losses", "labelmix", "augmentation", "recipes"},
    {"checkpoint", "modes"},
    {"synthesis", "evaluation", "exported"},
    {"pictures", "instruments", "graphs"},
    {"training", "export", "generating"},
    {"measuring", "studio"},
    {"demo", "evaluating"},
    {"commands"},
    {"cli"},
]
ROW = {part: row for row, parts in enumerate(ROWS) for part in parts}


def part_of(module: str) -> str | None:
    """`dpsims.data.files` -> `data`; None for the package itself."""
    return module.split(".")[1] if "." in module else None


def imported_parts(path: Path) -> set[tuple[int, str]]:
    """(line, part) of every import of our own, wherever in the file it stands."""
    found = set()
    package = ["dpsims", *path.relative_to(SOURCE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            modules = [f"dpsims.{alias.name}" for alias in node.names] if base == "dpsims" else [base]
        else:
            continue
        for module in modules:
            part = part_of(module) if module.split(".")[0] == "dpsims" else None
            if part in ROW:
                found.add((node.lineno, part))
    return found


FILES = sorted(p for p in SOURCE.rglob("*.py") if p != SOURCE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_come_from_rows_above(path: Path):
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    assert own in ROW, f"{own} has no row: add it to the table"
    wrong = [(line, part) for line, part in imported_parts(path) if part != own and ROW[part] >= ROW[own]]
    assert not wrong, f"{path.name} imports {wrong}: only rows above {own}'s are allowed"


def test_rule_sees_every_form_of_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "x.py"
    file.write_text(
        "import dpsims.training.loop\nfrom dpsims.cli import main\nfrom dpsims import demo\n"
        "from ..export import y\nfrom .base import Batch\nimport torch\n"
        "def f():\n    from dpsims.losses import z\n"
    )
    assert {part for _, part in imported_parts(file)} == {
        "training",
        "cli",
        "demo",
        "export",
        "data",
        "losses",
    }


HEAVY = ("fastapi", "torch", "torchvision", "timm", "PIL", "yaml", "tensorboard")
PROBE = f"import sys; print([m for m in {HEAVY} if m in sys.modules])"


def loaded_after(code: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", f"{code}\n{PROBE}"], capture_output=True, text=True, check=True
    )
    return run.stdout.strip().splitlines()[-1]


def test_import_dpsims_is_light():
    assert loaded_after("import dpsims; assert dpsims.__version__") == "[]"


@pytest.mark.parametrize(
    "command", [[], ["train"], ["generate"], ["evaluate"], ["studio"], ["data", "check"]]
)
def test_help_is_light(command: list[str]):
    code = (
        f"from dpsims.cli import main\ntry:\n    main({[*command, '--help']})\n"
        "except SystemExit as end:\n    assert not end.code"
    )
    assert loaded_after(code) == "[]"


def test_public_names_exist():
    for name in dpsims.__all__:
        assert getattr(dpsims, name).__name__ == name
    assert set(dpsims.__all__) <= set(dir(dpsims))
    with pytest.raises(AttributeError, match="generate"):
        _ = dpsims.generate  # pyright: ignore[reportAttributeAccessIssue]


def test_core_imports_without_the_extras():
    """The GPU machine has none of these: training, generation and evaluation must not need them."""
    absent = ("pydantic", "fastapi", "omegaconf", "segmentation_models_pytorch")
    parts = [
        part for part in ("data", "models", "losses", "checkpoint", "synthesis", "evaluation", "training")
    ]
    imports = "; ".join(f"import dpsims.{part}" for part in parts)
    code = f"import sys\nfor name in {absent}:\n    sys.modules[name] = None\n{imports}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
