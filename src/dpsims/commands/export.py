"""`dpsims export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dpsims.commands.parts import Model, writable_file


def export(
    model: Model,
    out: Annotated[Path, typer.Option(help="file to write: .onnx, .xml (OpenVINO, .bin beside it) or .pt2")],
    format: Annotated[
        str | None,
        typer.Option(metavar="onnx|openvino|torch-export", help="[default: as the file's name ends]"),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            metavar="fp32|fp16|int8",
            help="how weights are stored; fp16 and int8 make the file smaller, and change pictures a little",
        ),
    ] = "fp32",
) -> None:
    """Write the model as one file that runs without this package; `dpsims generate FILE` runs it, too."""
    writable_file(out, "--out")

    from dpsims.checkpoint import load_model
    from dpsims.export import checked_format, export_model

    checked_format(out, format, precision)
    parity = export_model(load_model(model), out, format, precision)
    files = [file for file in (out, out.with_suffix(".bin")) if file == out or out.suffix == ".xml"]
    size = sum(file.stat().st_size for file in files) / 1e6
    shapes = ", ".join("x".join(map(str, shape)) for shape in parity.maps)
    print(
        f"{out}: {size:.1f} MB, {precision} weights\n"
        f"pictures differ from the checkpoint's by {parity.largest:.1e} at most, {parity.mean:.1e} on "
        f"average (of -1..1; label maps {shapes})"
    )
    if precision == "int8":
        print("note: int8 weights were not tuned with data; compare the file's pictures before you use it")
