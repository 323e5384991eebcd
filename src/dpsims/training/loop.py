"""`train`: one linear loop. A stopped run goes on with the very same command.

Everything random follows from (seed, pictures seen): the data's order and crops, the noise. So a resumed
run needs no saved generator states, and on the CPU its losses are those of a run never stopped, to the bit.
"""

from __future__ import annotations

import hashlib
import math
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from dpsims import checkpoint
from dpsims.config import BackboneConfig, Recipe
from dpsims.data import Batch, Source, fixed_batches, flip_warnings, open_source, training_batches
from dpsims.data.base import epoch_order
from dpsims.data.shards import is_sharded
from dpsims.evaluation.features import PooledFeatures
from dpsims.evaluation.validate import validate
from dpsims.losses import to_device
from dpsims.models.backbones import Backbone, load_backbone
from dpsims.plain import to_dict
from dpsims.synthesis import Synthesizer, pick_device
from dpsims.training.ema import reestimate_batchnorm
from dpsims.training.grids import Grids
from dpsims.training.log import Health, Logger, forget_after
from dpsims.training.memory import on_device
from dpsims.training.networks import Networks
from dpsims.training.steps import autocast, pick_precision, real_probability
from dpsims.training.transfers import Rows
from dpsims.writing import write_whole

clock = time.monotonic
"""seconds that `max_minutes` and logs count; benchmarks/core_time.py counts CPU time instead"""
BATCHNORM_IMAGES = 256  # label maps that BatchNorm's statistics are measured on
CALIBRATION_IMAGES = 256
WATCHED_IMAGES = 64  # of each split, to see whether the discriminator remembers the training pictures
EVALUATION_BATCH = 16
# a resumed run may change these, which change no result; with any other change it would be another run
MAY_CHANGE = {
    *(f"training.{f}" for f in ("total_images", "max_minutes", "keep", "grid_images", "checkpoint_images")),
    *("training.log_steps", "training.device", "data.root", "data.workers", "data.cache_mb"),
    *("training.compile", "training.recompute_backbone"),
}
# fields that runs begun with an earlier version lack, and the values that change nothing for them
NEW_FIELDS = {
    "generator.pixel_noise": False,
    "generator.upsampling": "nearest",
    "generator.downsampling": "strided",
    "generator.padding": "zeros",
    "training.grid_jitter": False,
    "losses.diversity_space": "pixels",
    "losses.fake_class_weights": False,
}


def train(recipe: Recipe, out: str | Path, notes: Sequence[str] = ()) -> Path:
    """Train as `recipe` says, in the folder `out`; gives that folder. Called again, it goes on where it
    stopped. notes: lines to log at the start.

    Raises ValueError for settings or data that do not fit, for an `out` that holds another run, and
    (TrainingStopped) for a run that diverged.
    """
    recipe.check()
    run = Path(out)
    source, validation = open_source(recipe.data, "train"), open_source(recipe.data, "val")
    recipe = recipe.resolved(source.space.num_classes)
    settings = recipe.training
    device = pick_device(settings.device)
    newest = claim_run(run, recipe)
    state = {} if newest is None else checkpoint.read_json(newest / "state.json")
    precision = run_precision(settings.precision, state, device)

    networks = Networks.build(recipe, device, precision)
    generator, discriminator, average = networks.generator, networks.discriminator, networks.average
    features = evaluation_features(recipe, networks.backbone)

    # --- where we are
    images_seen, seconds_before, other_order = 0, 0.0, False
    order = data_order(source)
    data_seconds = 0.0  # of them spent waiting for pictures
    if newest is not None:
        images_seen, seconds_before = state["images_seen"], state["seconds"]
        data_seconds = state.get("data_seconds", 0.0)
        other_order = state.get("data_order", order) != order
        networks.load(newest)
    else:
        with autocast(device, precision):
            pictures = whole_pictures(source, recipe, device, CALIBRATION_IMAGES)
            discriminator.calibrate(b.image for b in pictures)
    forget_after(run, images_seen)
    shown = recipe.evaluation.validation_images
    only_here = features.backbone is not getattr(discriminator, "backbone", None)  # not in any step
    with on_device(features.backbone, device, only_here):
        real_moments = features.collect(b.image for b in whole_pictures(validation, recipe, device, shown))

    batches = training_batches(source, recipe.data, settings.batch_size, settings.seed, images_seen)
    seconds_left = settings.max_minutes * 60 - seconds_before if settings.max_minutes else math.inf
    log = Logger(run, images_seen, settings.total_images, seconds_before, seconds_left)
    if other_order:
        log.say(
            "note: the pairs are others than before, or come in another order (files and shards have their "
            "own): the running epoch may miss some and see others twice"
        )
    for note in (*notes, *(f"note: {note}" for note in (*recipe.ignored(), *source.notices))):
        log.say(note)
    sharded = recipe.data.root is not None and is_sharded(recipe.data.root)
    for warning in flip_warnings(source.space, recipe.data.flip, sharded):
        log.say(f"warning: {warning}")
    log.say(f"generator: {sum(p.numel() for p in generator.parameters()) / 1e6:.1f} M parameters")
    backbone = networks.backbone
    weights = {"origin": backbone.description, "digest": checkpoint.weights_digest(backbone)}
    log.say(f"backbone: {weights['origin']}, weights {weights['digest']}")
    log.say(f"precision: {precision}")
    if state.get("precision", precision) != precision:
        log.say(f"warning: the run began in {state['precision']}, which is slow here; results will differ")
    if newest is not None:
        log.say(f"going on from {newest} ({images_seen} images)")
    if images_seen >= settings.total_images:
        log.say(f"nothing to do: {images_seen} images were asked for; more: --training.total_images N")
    elif settings.max_minutes and seconds_left <= 0:
        minutes = seconds_before / 60
        log.say(f"nothing to do: trained for {minutes:.1f} minutes; more: --training.max_minutes N")
    if real_moments.count < 2:
        log.say("fewer than 2 validation pictures: checkpoints are not measured, and the newest is taken")
    health, started, stop = Health(), clock(), _StopOnSignal()
    saved_at, waiting = images_seen, Rows()
    grids = Grids(run, average.average, validation, recipe)

    def write_rows(every: bool = False) -> None:
        for row in waiting.arrived(every):
            health.check(row)
            log.row(row)

    def seconds_trained() -> float:
        return seconds_before + clock() - started

    def save() -> None:
        write_rows(
            every=True
        )  # before a checkpoint of networks that are no numbers could push out a good one
        labels = (b.label for b in whole_pictures(source, recipe, device, BATCHNORM_IMAGES))
        seconds = seconds_trained()
        model = checkpoint.Model(
            reestimate_batchnorm(average.average, labels),
            source.space,
            recipe.data.height,
            recipe.data.width,
            about_model(recipe, source, images_seen) | {"backbone_weights": weights},
        )
        figures: dict[str, float] = {}
        if real_moments.count >= 2:
            with on_device(features.backbone, device, only_here):
                figures = validate(
                    Synthesizer(model, str(device)).generate_numbered,
                    lambda first: whole_pictures(validation, recipe, torch.device("cpu"), shown),
                    features,
                    real_moments,
                )
            for name, of in (("train", source), ("val", validation)):
                some = whole_pictures(of, recipe, device, WATCHED_IMAGES)
                figures[f"real_probability_{name}"] = real_probability(discriminator, some, precision)
            log.validation(images_seen, seconds, figures, features.title)
        state = {
            "images_seen": images_seen,
            "seconds": seconds,
            "data_seconds": data_seconds,
            "data_order": order,
            "precision": precision,
            "validation": figures,
        }
        log.say(f"{images_seen} images: {data_seconds / seconds:.1%} of the time was spent waiting for data")
        checkpoint.save_checkpoint(run, state, model, networks.tensors(), networks.optimizers, settings.keep)

    try:
        while images_seen < settings.total_images and not stop.asked:
            if settings.max_minutes and seconds_trained() / 60 >= settings.max_minutes:
                break
            asked_at = clock()
            batch = next(batches)
            data_seconds += clock() - asked_at
            batch = _to(batch, device)
            rng = torch.Generator().manual_seed(settings.seed * 1_000_003 + images_seen)
            terms, measures = networks.step(
                batch, recipe.losses, precision, rng, settings.accumulate, settings.grid_jitter
            )
            images_seen += settings.batch_size
            average.update(generator, settings.batch_size, images_seen)

            if (images_seen // settings.batch_size) % settings.log_steps == 0:
                row: dict[str, Any] = {"images": images_seen, "seconds": round(seconds_trained(), 3)}
                waiting.add(row, {f"loss_{k}": v for k, v in terms.items()} | measures)
            write_rows()
            if _due(images_seen, settings.batch_size, settings.grid_images):
                grids.save(images_seen)
            if _due(images_seen, settings.batch_size, settings.checkpoint_images):
                save()
                saved_at = images_seen
        if images_seen > saved_at:
            grids.save(images_seen)
            save()
            log.say(f"{'stopped' if stop.asked else 'done'} after {images_seen} images; the run is in {run}")
    finally:
        stop.restore()
        log.close()
        grids.close()
    if stop.asked:
        raise KeyboardInterrupt
    return run


def run_precision(wanted: str, state: Mapping[str, Any], device: torch.device) -> str:
    """`fp32` or `bf16`: `auto` keeps what a resumed run began with, unless that is bf16 and slow here.

    state: of the newest checkpoint, empty for a new run.
    """
    own = pick_precision(wanted, device)
    if wanted != "auto" or not state:
        return own
    unrecorded = "fp32" if device.type == "cpu" else own  # checkpoints until November 2026
    return "fp32" if "fp32" in (own, state.get("precision", unrecorded)) else "bf16"


def claim_run(run: Path, recipe: Recipe) -> Path | None:
    """Make the run's folder, or see that it holds this very run; gives the newest checkpoint to go on from.

    Raises ValueError where it holds a run with other settings, or cannot be written.
    """
    file, found = run / "recipe.yaml", checkpoint.checkpoints(run)
    if changed := differing_settings(run, recipe):
        raise ValueError(
            f"{run}: holds a run with {', '.join(changed)}; resume with its settings, or choose another --out"
        )
    try:
        (run / "grids").mkdir(parents=True, exist_ok=True)
        write_whole(file, yaml.safe_dump(to_dict(recipe), sort_keys=False).encode())
    except OSError as error:
        raise ValueError(f"{run}: cannot be written ({error.strerror}); choose another --out") from error
    return found[-1] if found else None


def differing_settings(run: Path, recipe: Recipe) -> list[str]:
    """Why the run in that folder cannot be resumed with `recipe`, as `field=old, not new`.

    Empty where it can, or where there is no checkpoint to protect. Raises ValueError where its recipe.yaml is
    damaged.
    """
    before = settings_of_run(run)
    return [] if before is None else _changes(before, recipe)


def settings_of_run(run: Path) -> dict[str, Any] | None:
    """`section.field` -> value of the run in that folder; None where it has no checkpoint to resume from.

    Raises ValueError where its recipe.yaml is damaged.
    """
    file = run / "recipe.yaml"
    if not (checkpoint.checkpoints(run) and file.exists()):
        return None
    try:
        return flat_settings(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (yaml.YAMLError, AttributeError) as error:
        raise ValueError(f"{file}: damaged; choose another --out") from error


def _changes(before: dict[str, Any], recipe: Recipe) -> list[str]:
    """The settings that differ from a run's and may not, as `field=old, not new`."""
    changed, before = [], NEW_FIELDS | before
    for key, new in flat_settings(to_dict(recipe)).items():
        old = before.get(key)
        # a file of weights may have moved
        moved = key.endswith("backbone.weights") and {old, new}.isdisjoint({"pretrained", "random"})
        if key not in before:
            changed.append(f"no {key}: it was begun with an earlier version")
        elif old != new and key not in MAY_CHANGE and not moved:
            changed.append(f"{key}={old}, not {new}")
    return changed


def data_order(source: Source) -> str:
    """A digest of the pairs and of the order that the source gives them: what sample numbers refer to."""
    digest = hashlib.sha256("\n".join(source.names).encode())
    digest.update(epoch_order(source, 0, 0).tobytes())
    return digest.hexdigest()[:16]


def evaluation_features(recipe: Recipe, backbone: Backbone) -> PooledFeatures:
    """The network that checkpoints are compared by: the discriminator's own backbone where no other is
    named."""
    if not recipe.evaluation.features:
        return PooledFeatures(backbone, recipe.backbone.name)
    name, _, weights = recipe.evaluation.features.partition("=")
    other = load_backbone(BackboneConfig(name, weights or "pretrained", recipe.backbone.scale))
    return PooledFeatures(other, name)


def about_model(recipe: Recipe, source: Source, images_seen: int) -> dict[str, Any]:
    return {
        "images_seen": images_seen,
        "data": source.name,
        "source": recipe.data.source,
        "backbone": to_dict(recipe.backbone),
        "weights": "exponential moving average; BatchNorm statistics re-estimated on training label maps",
    }


def _size(recipe: Recipe) -> tuple[int, int]:
    return recipe.data.height, recipe.data.width


def _to(batch: Batch, device: torch.device) -> Batch:
    image = batch.image.contiguous(memory_format=torch.channels_last)
    return Batch(to_device(image, device), to_device(batch.label, device))


def whole_pictures(source: Source, recipe: Recipe, device: torch.device, limit: int) -> Iterator[Batch]:
    """Up to `limit` evenly spaced pairs, not augmented, at the training size."""
    return (_to(b, device) for b in fixed_batches(source, *_size(recipe), EVALUATION_BATCH, limit))


def _due(images_seen: int, batch_size: int, every: int) -> bool:
    return images_seen // every > (images_seen - batch_size) // every


def flat_settings(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    """`{"data": {"crop": 1}}` -> `{"data.crop": 1}`, at any depth."""
    flat: dict[str, Any] = {}
    for k, v in values.items():
        flat |= flat_settings(v, f"{path}{k}.") if isinstance(v, dict) else {path + k: v}
    return flat


class _StopOnSignal:
    """Ctrl-C or SIGTERM ends the run after the current step, with a checkpoint; a second one ends it at
    once."""

    def __init__(self) -> None:
        self.asked = False
        self.before: dict[int, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self.before[number] = signal.signal(number, self._ask)
            except ValueError:  # not in the main thread: whoever started us handles signals
                return

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
