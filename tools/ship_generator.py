"""Put a run's generator into the package, as the one that ships: float16 weights and model.json.

.venv/bin/python tools/ship_generator.py runs/earth src/dpsims/assets/earth_generator 4

The number, where given: up to how many times its training area the model may generate a map at the map's own
size. Look at such images first.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dpsims.checkpoint import load_model, save_model


def main(run: str, out: str, own_size_up_to: str = "") -> None:
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    model = load_model(run)
    model.about["data"] = f"{model.about['source']} train"  # not the folder that it was in here
    if own_size_up_to:
        model.about["own_size_up_to"] = float(own_size_up_to)
    save_model(model, folder, half=True)
    print(f"{out}: {(folder / 'generator.safetensors').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
