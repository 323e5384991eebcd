"""Train the small segmenter that ships with the package, so that `make demo` need not: float16 weights.

OMP_NUM_THREADS=1 .venv/bin/python tools/ship_segmenter.py earth DATA 64 \\
    src/dpsims/assets/earth_segmenter.safetensors
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from dpsims.data import fixed_batches, open_source
from dpsims.evaluation.segmentation import score_segmenter
from dpsims.instruments import open_segmenter
from dpsims.recipes import load_recipe

IMAGES = 12_000


def main(recipe: str, data: str, side: str, out: str) -> None:
    size = {"height": int(side), "width": int(side)}
    config = load_recipe(recipe, {"data": {"root": data, **size}}).data
    segmenter: Any = open_segmenter(None, open_source(config, "train"), config, torch.device("cpu"), IMAGES)
    segmenter.half().float()  # scored as it will be loaded
    test = open_source(config, "test")
    batches = fixed_batches(test, config.height, config.width, 16)
    segmenter.score = score_segmenter(segmenter, batches, test.space)
    segmenter.half().save(Path(out))
    megabytes, score = Path(out).stat().st_size / 1e6, segmenter.score["miou"]
    print(f"{out}: {megabytes:.1f} MB, mIoU {score:.3f} on real test images")


if __name__ == "__main__":
    main(*sys.argv[1:])
