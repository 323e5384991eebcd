"""Train the small backbone that ships inside the package: `python -m dpsims.training.scenes_tiny --out FILE`.

It looks at procedural scenes and says which classes are in the picture and in each cell of 8x8 and 16x16
pixels, and what light and season it is. Runs on one CPU core; prints what it gets right on scenes that it
never saw.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor

from dpsims.data.scenes import FIRST_SEED, LIGHTS, SCENES_SPACE, SEASONS, draw_scene
from dpsims.models.scenes_tiny import MEAN, NUM_CLASSES, STD, Predictions, ScenesTiny, scenes_tiny

_DRAWN = (96, 144)  # size that training scenes are drawn at, before crops
_SIZES = (48, 56, 64, 72, 80, 96)
_BATCH = 32
_FRESH = 3  # scenes of the pool that each step replaces by new ones
_LEARNING_RATE = 3e-3


class Examples(NamedTuple):
    """Scenes with what there is to know about them."""

    image: UInt8[Tensor, "n 3 h w"]
    label: UInt8[Tensor, "n h w"]
    light: Int[Tensor, " n"]
    season: Int[Tensor, " n"]


def draw_examples(first_seed: int, count: int, height: int, width: int) -> Examples:
    """Scenes first_seed, first_seed + 1 ..."""
    drawn = [draw_scene(first_seed + i, height, width) for i in range(count)]
    image = torch.from_numpy(np.stack([image for image, _, _ in drawn])).permute(0, 3, 1, 2).contiguous()
    label = torch.from_numpy(np.stack([label for _, label, _ in drawn]).astype(np.uint8))
    light = torch.tensor([LIGHTS.index(facts["light"]) for _, _, facts in drawn])
    season = torch.tensor([SEASONS.index(facts["season"]) for _, _, facts in drawn])
    return Examples(image, label, light, season)


def normalise(image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """RGB in [0, 1] -> what the network takes."""
    return (image - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def augment(
    examples: Examples, height: int, width: int, random: torch.Generator
) -> tuple[Float[Tensor, "b 3 h w"], Int[Tensor, "b h w"]]:
    """Cut, flip and resize pictures and maps together; change brightness, contrast and tint, add noise."""
    count, _, rows, cols = examples.image.shape

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=random)

    share = uniform(0.5, 1.0)  # of the picture's height, and of its width where that keeps its aspect
    wide = (share * (width / height) * (rows / cols) * uniform(0.85, 1.15)).clamp(max=1.0)
    flip = uniform(0.0, 1.0).lt(0.5) * -2.0 + 1.0
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = wide * flip, uniform(-1.0, 1.0) * (1.0 - wide)
    theta[:, 1, 1], theta[:, 1, 2] = share, uniform(-1.0, 1.0) * (1.0 - share)
    grid = F.affine_grid(theta, [count, 3, height, width], align_corners=False)
    image = F.grid_sample(examples.image / 255.0, grid, padding_mode="border", align_corners=False)
    label = F.grid_sample(
        examples.label[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False
    )
    image = (image - 0.4) * uniform(0.8, 1.25, 1, 1, 1) + 0.4 + uniform(-0.06, 0.06, 1, 1, 1)
    image = image * uniform(0.95, 1.05, 3, 1, 1)
    image = image + torch.randn(image.shape, generator=random) * uniform(0.0, 0.03, 1, 1, 1)
    return image.clamp(0.0, 1.0), label[:, 0].long()


class Targets(NamedTuple):
    """1 where a class is present: in cells of 8x8 and 16x16 pixels, and anywhere."""

    fine: Float[Tensor, "b classes h8 w8"]
    coarse: Float[Tensor, "b classes h16 w16"]
    presence: Float[Tensor, "b classes"]


def presence_targets(label: Int[Tensor, "b h w"]) -> Targets:
    """What the heads should say about label maps."""
    one_hot = F.one_hot(label, NUM_CLASSES).permute(0, 3, 1, 2).float()
    fine = F.max_pool2d(one_hot, 8, ceil_mode=True)
    return Targets(fine, F.max_pool2d(fine, 2, ceil_mode=True), fine.amax((2, 3)))


def loss_terms(
    predictions: Predictions, targets: Targets, light: Tensor, season: Tensor
) -> dict[str, Tensor]:
    """A cross-entropy for each head."""
    bce = F.binary_cross_entropy_with_logits
    return {
        "fine": 2.0 * bce(predictions.fine, targets.fine),
        "coarse": bce(predictions.coarse, targets.coarse),
        "presence": bce(predictions.presence, targets.presence),
        "light": 0.5 * F.cross_entropy(predictions.light, light),
        "season": 0.5 * F.cross_entropy(predictions.season, season),
    }


def train(minutes: float, pool_size: int = 1500, seed: int = 0) -> tuple[ScenesTiny, int]:
    """Train for so many minutes of CPU time, drawing included -> the network and the number of steps."""
    start = time.process_time()
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    pool, drawn = draw_examples(FIRST_SEED["train"], pool_size, *_DRAWN), pool_size
    print(f"{pool_size} scenes drawn in {time.process_time() - start:.0f} s", flush=True)
    network = scenes_tiny().train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=0.01)
    step, done = 0, 0.0
    while done < 1.0:
        for (
            group
        ) in optimiser.param_groups:  # up over the first 30th of the time, then down in a straight line to 0
            group["lr"] = _LEARNING_RATE * min(1.0, done * 30.0 + 0.01) * (1.0 - done)
        fresh = draw_examples(FIRST_SEED["train"] + drawn, _FRESH, *_DRAWN)
        for kept, new in zip(pool, fresh, strict=True):
            kept[torch.arange(drawn, drawn + _FRESH) % pool_size] = new
        drawn += _FRESH
        choice = torch.randint(pool_size, (_BATCH,), generator=random)
        height = _SIZES[int(torch.randint(len(_SIZES), (), generator=random))]
        width = height * (4 + int(torch.randint(3, (), generator=random))) // 4
        examples = Examples(*(part[choice] for part in pool))
        image, label = augment(examples, height, width, random)
        predictions = network.classify(normalise(image))
        terms = loss_terms(predictions, presence_targets(label), examples.light, examples.season)
        loss = torch.stack(list(terms.values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step, done = step + 1, (time.process_time() - start) / (60.0 * minutes)
        if step % 100 == 0:
            shown = "  ".join(f"{name} {term.item():.3f}" for name, term in terms.items())
            print(f"step {step}  {100 * min(done, 1.0):.0f} %  {shown}", flush=True)
    return network.eval(), step


@torch.no_grad()
def measure(network: ScenesTiny, count: int, height: int, width: int) -> dict[str, float]:
    """Shares of right answers on `count` scenes of the validation split, whole and unchanged.

    `fine`, `coarse` and `presence`: mean over the classes of balanced accuracy (the mean of the shares of
    right answers where the class is and where it is not), so that 0.5 is chance; classes that are everywhere
    or nowhere are left out.
    """
    examples, chosen = draw_examples(FIRST_SEED["val"], count, height, width), []
    for i in range(0, count, 50):
        chosen.append(network.eval().classify(normalise(examples.image[i : i + 50] / 255.0)))
    predictions = Predictions(*(torch.cat(parts) for parts in zip(*chosen, strict=True)))
    figures = {}
    targets = presence_targets(examples.label.long())
    for name, logits, target in zip(("fine", "coarse", "presence"), predictions, targets, strict=False):
        logits, target = logits.transpose(0, 1).flatten(1) > 0, target.transpose(0, 1).flatten(1) > 0.5
        hits = torch.where(target, logits, 0.0).sum(1) / target.sum(1)
        passes = torch.where(~target, ~logits, 0.0).sum(1) / (~target).sum(1)
        balanced = (hits + passes) / 2
        figures[name] = float(balanced[balanced.isfinite()].mean())
        if name == "fine":
            figures |= {f"fine {n}": float(b) for n, b in zip(SCENES_SPACE.names, balanced, strict=True)}
    figures["light"] = float((predictions.light.argmax(1) == examples.light).float().mean())
    figures["season"] = float((predictions.season.argmax(1) == examples.season).float().mean())
    return {name: round(value, 4) for name, value in figures.items()}


def save(network: ScenesTiny, path: Path) -> None:
    """Write fp16 weights; the file appears at once or not at all."""
    state = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(serialise({k: v.contiguous() for k, v in state.items()}))
    os.replace(part, path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m dpsims.training.scenes_tiny", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument(
        "--minutes", type=float, default=5.0, help="CPU time of training, drawing included (default 5)"
    )
    parser.add_argument("--scenes", type=int, default=1500, help="scenes kept in memory (default 1500)")
    parser.add_argument("--held-out", type=int, default=500, help="scenes to measure on (default 500)")
    options = parser.parse_args(arguments)
    network, steps = train(options.minutes, options.scenes)
    save(network, options.out)
    network.load_state_dict(load_file(options.out))  # measured as it ships, rounded to fp16
    for height, width in ((64, 96), (96, 144)):
        figures = measure(network, options.held_out, height, width)
        print(json.dumps({"steps": steps, "height": height, "width": width, **figures}), flush=True)


if __name__ == "__main__":
    main()
