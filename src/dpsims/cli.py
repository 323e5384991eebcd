"""The command line: `dpsims train | generate | evaluate | data ... | demo`.

Each command is a typed function that typer reads; the options of `train` are the fields of the dataclasses
in `config.py`, a field's docstring being its help. Torch is imported inside the commands: `dpsims --help`
stays light.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from dpsims.commands.data import data_app
from dpsims.commands.fields import plain_value, with_field_options
from dpsims.commands.parts import PLAIN, writable, writable_file
from dpsims.writing import write_whole

app = typer.Typer(help="From label maps to photo-like images: DP-SIMS.", **PLAIN)
app.add_typer(data_app, name="data")

Model = Annotated[str, typer.Argument(help="run directory, checkpoint, or `scenes` (ships with the package)")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="another seed, other pictures")]
_FEATURES_HELP = (
    "network of a Frechet distance; may be given several times [default: the discriminator's backbone]"
)


def train(
    recipe: Annotated[str, typer.Argument(help="a name (camvid, scenes, folder) or a YAML file")],
    out: Annotated[Path | None, typer.Option(help="run directory [default: runs/RECIPE]")] = None,
    data: Annotated[str | None, typer.Option(help="folder of the data set")] = None,
    **fields: Any,
) -> None:
    """Train a model. The same command again goes on where it stopped."""
    from dpsims.recipes import load_recipe

    changes: dict[str, dict[str, Any]] = {}
    for option, value in fields.items():
        section, _, name = option.partition("__")
        if value is not None:
            changes.setdefault(section, {})[name] = plain_value(section, name, value)
    if data is not None:
        changes.setdefault("data", {})["root"] = data
    settings = load_recipe(recipe, changes)
    out = writable(out or Path("runs") / Path(recipe).stem)

    from dpsims import training

    training.train(settings, out)


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
) -> None:
    """Generate pictures from label maps; STEM.png becomes OUT/STEM.png, of the same size."""
    from dpsims.data.files import list_maps

    files = list_maps(maps)
    if out.is_dir() and any(file.parent.samefile(out) for file in files):
        raise ValueError(f"{out}: holds the label maps themselves; choose another --out")
    writable(out)

    from dpsims.generating import generate_files
    from dpsims.synthesis import Synthesizer

    synthesizer = Synthesizer.load(model, device)
    count = generate_files(synthesizer, files, out, seed, samples, batch_size, size)
    print(f"{count} pictures in {out}")


@app.command()
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|IMAGE_DIR",
            help="run directory, checkpoint, `scenes`, or a folder of pictures that any program made, named "
            "as the label maps",
        ),
    ],
    data: Annotated[
        str | None, typer.Option(help="folder of the data set [default: new scenes, for a model of scenes]")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="how DIR is laid out [default: as the set that the model was trained on]",
        ),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the figures into this file")] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", help="write a page with figures and pictures into this file")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HEIGHTxWIDTH",
            help="size at which a folder's pictures are compared [default: the first's]",
        ),
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            metavar="train|val|test",
            help="real pictures to compare with; `test` of a benchmark is its official validation split",
        ),
    ] = "test",
    features: Annotated[list[str] | None, typer.Option(help=_FEATURES_HELP, metavar="NAME[=WEIGHTS]")] = None,
    segmenter: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|hf:NAME",
            help="file of a trained one, or a Hugging Face model by name or folder [default: trained once "
            "and kept]",
        ),
    ] = None,
    segmenter_classes: Annotated[
        Path | None,
        typer.Option(help="YAML or JSON {class of the Hugging Face model: class of the data set, or null}"),
    ] = None,
    segmenter_images: Annotated[int, typer.Option(min=1, help="pictures to train the segmenter on")] = 6000,
    grid: Annotated[
        Path | None, typer.Option(help="write label maps, real and generated pictures into it")
    ] = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="measure the untrained generator, too")
    ] = False,
    seed: Seed = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="decides which noise a map gets")] = 16,
    device: Device = "auto",
) -> None:
    """Measure a model: realism (Frechet distance), layout (mIoU by a segmenter), diversity."""
    for file, option in ((json_file, "--json"), (html_file, "--html"), (grid, "--grid")):
        if file is not None:
            writable_file(file, option)

    from dpsims import evaluating

    evaluating.evaluate_model(
        model, data, source=source, split=split, size=_size(size), features=features or [],
        segmenter=segmenter, segmenter_images=segmenter_images, segmenter_classes=segmenter_classes,
        json_file=json_file, html_file=html_file, grid=grid, untrained=untrained, seed=seed,
        batch_size=batch_size, device=device,
    )  # fmt: skip


def _size(text: str | None) -> tuple[int, int] | None:
    """`256x512` -> (256, 512)."""
    if text is None:
        return None
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) > 0 and int(width) > 0):
        raise ValueError(f"--size {text}: give HEIGHTxWIDTH, such as 256x512")
    return int(height), int(width)


@app.command()
def compare(
    reports: Annotated[list[Path], typer.Argument(metavar="REPORT.json ...", help="of `evaluate --json`")],
    html_file: Annotated[Path | None, typer.Option("--html", help="write a page into this file")] = None,
    classes: Annotated[bool, typer.Option("--classes", help="also the IoU of each class")] = False,
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
    out: Annotated[Path, typer.Option(help="run directory, pictures and report")] = Path("runs/demo"),
    minutes: Annotated[float, typer.Option(min=0, help="training time")] = 5.0,
) -> None:
    """Train on procedural scenes for some minutes, generate, measure: the whole way at a small size."""
    writable(out)

    from dpsims import demo

    demo.run(out, minutes)


def main(args: list[str] | None = None) -> None:
    """Entry point. What a user can mend is one line on stderr; exit code 2 for usage, 1 for the rest."""
    is_program, args = args is None, sys.argv[1:] if args is None else args
    try:
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
