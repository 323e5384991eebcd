"""Does the evaluation rank as a person would? Cases whose order is known, measured like any other pictures.

    python benchmarks/known_cases.py RUN --data DIR --features NAME=WEIGHTS [--features ...] [--out DIR]

On the test split of a data set: the model of RUN; the same generator untrained; the real pictures, each under
another one's label map (as real as can be, in the wrong layout); the real pictures blurred (the right layout,
not sharp); and, as every report has it, real training pictures beside real test ones. The first two are
models, the others folders of PNG files, as another program would leave them. Writes a report and a page for
each and the comparison of all; prints the comparison.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageFilter

from dpsims.config import DataConfig
from dpsims.evaluating import page_samples
from dpsims.evaluation import to_uint8
from dpsims.evaluation.compare import compare_reports, to_html
from dpsims.evaluation.page import write_page
from dpsims.instruments import feature_networks
from dpsims.measuring import Bench
from dpsims.pictures import PictureFolder
from dpsims.synthesis import Synthesizer
from dpsims.writing import write_png, write_whole


def main(
    run: Path,
    data: Annotated[str, typer.Option(help="folder of the data set")],
    features: Annotated[list[str], typer.Option(metavar="NAME=WEIGHTS")],
    out: Annotated[Path, typer.Option(help="folder of reports and pages")] = Path("runs/known_cases"),
    blur: Annotated[float, typer.Option(help="radius of the blur, in pixels")] = 2.0,
    segmenter: Annotated[str | None, typer.Option(help="see `dpsims evaluate`")] = None,
    segmenter_images: int = 6000,
    lpips: Annotated[str | None, typer.Option(help="see `dpsims evaluate`")] = None,
) -> None:
    """Write the reports and print the table; see above."""
    out.mkdir(parents=True, exist_ok=True)
    model = Synthesizer.load(run)
    bench = Bench(
        DataConfig(root=data, height=model.size[0], width=model.size[1]),
        feature_networks(features, model.size, model.about),
        segmenter=segmenter,
        segmenter_images=segmenter_images,
        lpips=lpips,
    )
    names = bench.real.names
    other = np.roll(np.random.default_rng(0).permutation(len(names)), 1)
    order = np.random.default_rng(0).permutation(len(names))
    swapped = dict(zip(order.tolist(), other.tolist(), strict=True))  # one cycle: no map keeps its picture
    for folder in ("other_maps", "blurred"):
        (out / folder).mkdir(exist_ok=True)
    for index, name in enumerate(names):
        picture = Image.fromarray(to_uint8(bench.pair(bench.real, index).image)[0])
        write_png(out / "blurred" / f"{name}.png", picture.filter(ImageFilter.GaussianBlur(blur)))
        write_png(out / "other_maps" / f"{names[swapped[index]]}.png", picture)
    cases = {
        "model": model,
        "untrained": bench.untrained(model),
        "other_maps": PictureFolder(out / "other_maps", names, bench.space),
        "blurred": PictureFolder(out / "blurred", names, bench.space),
    }
    files = []
    for title, case in cases.items():
        report = {
            "model": title,
            "data": bench.real.name,
            "split": "test",
            "size": list(model.size),
            **bench.measure(case),
        }
        files.append(out / f"{title}.json")
        write_whole(files[-1], json.dumps(report, indent=1).encode())
        page = write_page(report, page_samples(bench, case, report))
        write_whole(out / f"{title}.html", page.encode())
    print(compare_reports(files, force=True))  # samples for diversity differ: folders have one a map
    write_whole(out / "comparison.html", to_html(files, force=True).encode())


if __name__ == "__main__":
    typer.run(main)
