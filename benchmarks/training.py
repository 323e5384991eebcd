"""Whole training steps: pictures a second and peak memory, ours beside OASIS's, and where our time goes.

    python benchmarks/training.py [--size 256] [--batch 4] [--classes 150] [--threads 2] [--rounds 3]
    python benchmarks/training.py --device cuda --batch 16 --precision bf16 [--compiled]
    python benchmarks/training.py --quick

Ours: the generator and discriminator of the default recipe on each backbone, random weights (the cost does
not depend on them), all its losses, moving average included. OASIS: generator, discriminator and LabelMix of
dpsims.models.spade, .baselines and .labelmix at the published sizes; its step makes its fakes once, as ours
(the line `as released` makes them a second time for the discriminator, as the published code does). All sides
have the same size, batch, precision, optimiser and memory layout. Each is a process of its own, whose peak
memory is its own (the program and its libraries included); they take turns, round by round, and the fastest
round of each counts. Where others compute beside it, `--threads 1 --cpu-time` counts each process's CPU
seconds instead of the clock's. Ratios above 1 say that ours is faster or smaller.
"""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer

LABELMIX_WEIGHT = 10.0  # OASIS's
OASIS_NOISE = 64


def sides(backbones: list[str]) -> list[str]:
    return ["oasis", "oasis, as released", *backbones]


class Stopwatch:
    """Seconds by the name of what was going on; `enter` says what goes on from now."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now, self.seconds, self.name, self.since = now, {}, "", now()

    def enter(self, name: str) -> None:
        time_ = self.now()
        self.seconds[self.name] = self.seconds.get(self.name, 0.0) + time_ - self.since
        self.name, self.since = name, self.now()


class Side:
    """One side, ready to step."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        import torch

        from dpsims.config import BackboneConfig, DiscriminatorConfig, GeneratorConfig, Recipe
        from dpsims.data import Batch, open_source, training_batches
        from dpsims.losses import to_device
        from dpsims.models.baselines import PUBLISHED_CHANNELS, OasisDiscriminator
        from dpsims.models.spade import PUBLISHED_CHANNELS as GENERATOR_CHANNELS
        from dpsims.models.spade import OasisGenerator
        from dpsims.training.ema import GeneratorAverage
        from dpsims.training.networks import Networks, compile_parts
        from dpsims.training.steps import pick_precision

        torch.set_num_threads(options["threads"])
        self.torch, self.name, self.options = torch, name, options
        self.device = torch.device(options["device"])
        self.precision = pick_precision(options["precision"], self.device)
        size, count, classes = options["size"], options["batch"], options["classes"]
        recipe, layout = Recipe(), torch.channels_last
        recipe.data.source, recipe.data.size = "scenes", max(16, count)
        recipe.data.height = recipe.data.width = size
        if options["quick"]:
            recipe.generator.channels = recipe.discriminator.channels = (8, 16, 16)
            recipe.generator.attention_strides = (4,)
        self.oasis = name.startswith("oasis")
        if self.oasis:
            quick = (8, 16, 16)
            config = GeneratorConfig(
                classes,
                channels=quick if options["quick"] else GENERATOR_CHANNELS,
                noise_channels=OASIS_NOISE,
            )
            generator = OasisGenerator(config)
            discriminator = OasisDiscriminator(
                DiscriminatorConfig(
                    classes, kind="oasis", channels=quick if options["quick"] else PUBLISHED_CHANNELS
                )
            )
            for network in (generator, discriminator):
                network.to(memory_format=layout).to(self.device).train()
            adam = {"fused": True, "betas": (0.0, 0.99)}
            optimizers = {
                "generator": torch.optim.Adam(generator.parameters(), 1e-4, **adam),
                "discriminator": torch.optim.Adam(discriminator.parameters(), 4e-4, **adam),
            }
            if options["compiled"]:
                generator.compile()
                discriminator.decode = torch.compile(discriminator.decode)
            average: Any = GeneratorAverage(generator, 1000)  # pyright: ignore[reportArgumentType]
            self.networks: Any = None
        else:
            recipe.backbone = BackboneConfig(name, "random")
            recipe.training.device = options["device"]
            found = Networks.build(recipe.resolved(classes), self.device, self.precision)
            generator, discriminator, optimizers = found.generator, found.discriminator, found.optimizers
            if options["compiled"]:
                compile_parts(found.generator, found.discriminator)
            average, self.networks = found.average, found
        self.generator: Any = generator
        self.discriminator: Any = discriminator
        self.optimizers, self.average, self.config = optimizers, average, recipe.losses
        # pictures of the loader, label maps of `classes` classes: blocks, as the cost does not depend on them
        self.batches = training_batches(open_source(recipe.data, "train"), recipe.data, count, 0)
        random = torch.Generator().manual_seed(0)
        edge = -(-size // 16)
        blocks = torch.randint(0, classes + 1, (count, edge, edge), generator=random)
        self.label = to_device(
            blocks.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, :size, :size].contiguous(),
            self.device,
        )
        image = next(self.batches).image.contiguous(memory_format=layout)
        self.batch = Batch(to_device(image, self.device), self.label)
        self.done = 0

    def now(self) -> float:
        if self.device.type == "cuda":
            self.torch.cuda.synchronize()
        return time.process_time() if self.options["cpu_time"] else time.perf_counter()

    def step(self) -> Any:
        self.done += 1
        rng = self.torch.Generator().manual_seed(self.done)
        if self.oasis:
            self.oasis_step(rng)
            found = None
        else:
            found = self.networks.step(self.batch, self.config, self.precision, rng)
        self.average.update(self.generator, self.options["batch"], 10_000)
        return found

    def oasis_step(self, rng: Any) -> None:
        """Both halves of OASIS (its paper's eq. 1, 2 and 4): weighted cross-entropy, and LabelMix."""
        from dpsims.labelmix import labelmix, labelmix_loss, toss
        from dpsims.losses import fake_loss, real_loss
        from dpsims.training.steps import autocast, set_trainable

        torch, batch, classes = self.torch, self.batch, self.options["classes"]
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        set_trainable(self.discriminator, False)
        noise = self.generator.sample_noise(len(batch.label), rng)
        with autocast(self.device, self.precision):
            fake = self.generator(batch.label, noise).float()
            logits = self.discriminator.decode(fake, [])
        real_loss(logits, batch.label).backward()
        self.optimizers["generator"].step()
        set_trainable(self.discriminator, True)
        fake = fake.detach()
        with autocast(self.device, self.precision):
            if "released" in self.name:
                with torch.no_grad():
                    fake = self.generator(batch.label, noise).float()
            coins = toss(len(batch.label), classes, rng).to(self.device)
            mixed, mask = labelmix(batch.label, batch.image, fake, coins)
            of_real, of_fake, of_mixed = (
                self.discriminator.decode(x, []) for x in (batch.image, fake, mixed)
            )
        loss = real_loss(of_real, batch.label) + fake_loss(of_fake, batch.label)
        (loss + LABELMIX_WEIGHT * labelmix_loss(of_mixed, of_real, of_fake, mask)).backward()
        self.optimizers["discriminator"].step()

    def breakdown(self, steps: int) -> dict[str, float]:
        """Seconds a step by part, read with hooks in whole steps; backward passes begin where the gradient of
        a network's output arrives. Loading and a logged row are measured beside them."""
        from dpsims.training.transfers import Rows

        watch = Stopwatch(self.now)
        hooks = []

        def forwards(module: Any, name: str, backward: str) -> None:
            def after(_: Any, __: Any, output: Any) -> None:
                last = output[-1] if isinstance(output, list) else output
                if last.requires_grad:
                    last.register_hook(lambda _: watch.enter(backward))
                watch.enter("losses, the rest")

            hooks.append(module.register_forward_pre_hook(lambda *_: watch.enter(name)))
            hooks.append(module.register_forward_hook(after))

        forwards(self.generator, "generator, forward", "generator, backward")
        forwards(self.discriminator.backbone, "backbone, forward", "backbone, backward")
        forwards(self.discriminator.decoder, "decoder, forward", "decoder, backward")
        for optimizer in self.optimizers.values():
            hooks.append(optimizer.register_step_pre_hook(lambda *_: watch.enter("optimisers")))
            hooks.append(optimizer.register_step_post_hook(lambda *_: watch.enter("losses, the rest")))
        update = self.average.update

        def timed(*arguments: Any) -> None:
            watch.enter("moving average")
            update(*arguments)
            watch.enter("")

        self.average.update = timed
        for _ in range(steps):
            watch.enter("losses, the rest")
            terms, measures = self.step()
            watch.enter("a row of figures")
            rows = Rows()
            rows.add({}, terms | measures)
            list(rows.arrived(every=True))
            watch.enter("data (scenes, in this process)")
            next(self.batches)
            watch.enter("")
        for hook in hooks:
            hook.remove()
        self.average.update = update
        return {name: seconds / steps for name, seconds in watch.seconds.items() if name}

    def serve(self) -> None:
        """Answer the parent's questions: `steps N`, `breakdown N`, `memory`."""
        for line in sys.stdin:
            what, number = line.split()
            if what == "steps":
                start = self.now()
                for _ in range(int(number)):
                    self.step()
                answer: Any = (self.now() - start) / int(number)
            elif what == "breakdown":
                answer = self.breakdown(int(number))
            elif self.device.type == "cuda":
                answer = self.torch.cuda.max_memory_allocated() / 2**20
            else:
                answer = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(json.dumps(answer), flush=True)


def ask(process: subprocess.Popen[str], question: str) -> Any:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(question + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise SystemExit("error: a side has ended; its message is above")
    return json.loads(answer)


def main(
    size: int = 256,
    batch: int = 4,
    classes: int = 150,
    backbones: Annotated[str, typer.Option(help="of ours, with commas between")] = "squeezenet1_1,resnet50",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    device: Literal["cpu", "cuda"] = "cpu",
    compiled: Annotated[bool, typer.Option(help="all sides by torch.compile")] = False,
    threads: int = 2,
    steps: Annotated[int, typer.Option(help="in a round")] = 1,
    rounds: int = 3,
    quick: Annotated[bool, typer.Option(help="a rehearsal: small networks, 64 x 64")] = False,
    alone: Annotated[bool, typer.Option(help="ours alone, without OASIS")] = False,
    cpu_time: Annotated[bool, typer.Option(help="CPU seconds, not the clock's (one thread, CPU)")] = False,
    child: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Print the tables; see above."""
    if child:
        name, options = json.loads(child)
        Side(name, options).serve()
        return
    if cpu_time and (threads != 1 or device != "cpu"):
        raise SystemExit("error: --cpu-time counts the seconds of all threads; use it with --threads 1, cpu")
    if quick:
        size, batch, classes, rounds = 64, 2, 12, 2
    options = {"size": size, "batch": batch, "classes": classes, "precision": precision, "device": device}
    options |= {"compiled": compiled, "threads": threads, "quick": quick, "cpu_time": cpu_time}
    names = backbones.split(",") if alone else sides(backbones.split(","))
    limits = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS")}
    processes, best = {}, dict.fromkeys(names, float("inf"))
    try:
        for name in names:
            command = [sys.executable, __file__, "--child", json.dumps([name, options])]
            process = subprocess.Popen(
                command,
                text=True,
                env={**os.environ, **limits},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            processes[name] = process
            ask(process, "steps 1")  # to warm up, and so that they do not start at the same time
        for _ in range(rounds):
            for name, process in processes.items():
                best[name] = min(best[name], ask(process, f"steps {steps}"))
        memory = {name: ask(process, "memory 0") for name, process in processes.items()}
        ours = [name for name in names if not name.startswith("oasis")]
        parts = {name: ask(processes[name], f"breakdown {max(2, steps)}") for name in ours}
    finally:
        for process in processes.values():
            assert process.stdin is not None
            process.stdin.close()
            process.wait()
    import torch

    from dpsims.training.steps import pick_precision

    taken = pick_precision(precision, torch.device(device))
    print(f"{size} x {size}, {classes} classes, batch {batch}, {device}, precision {taken}, ", end="")
    print(f"{threads} threads{', compiled' if compiled else ''}, best of {rounds} rounds\n")
    print("| step | s | images/s | times OASIS's | peak MiB | OASIS's / ours |\n|---|---|---|---|---|---|")
    for name in names:
        speed, less = best.get("oasis", math.nan) / best[name], memory.get("oasis", math.nan) / memory[name]
        title = name if name.startswith("oasis") else f"ours, {name}"
        print(
            f"| {title} | {best[name]:.4g} | {batch / best[name]:.4g} | {speed:.2f} "
            f"| {memory[name]:,.0f} | {less:.2f} |"
        )
    rows = list(dict.fromkeys(row for part in parts.values() for row in part))
    print("\n| ours, ms a step | " + " | ".join(ours) + " |\n" + "|---" * (len(ours) + 1) + "|")
    for row in rows:
        print(f"| {row} | " + " | ".join(f"{1000 * parts[name].get(row, 0):.1f}" for name in ours) + " |")


if __name__ == "__main__":
    typer.run(main)
