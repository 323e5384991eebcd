"""Time, compute and memory of a picture: our generator beside OASIS, SPADE, ControlNet and SDM.

    python benchmarks/inference.py [--quick] [--json FILE]
    python benchmarks/inference.py --mode bf16 --mode compile_bf16 --device cuda
    python benchmarks/inference.py --parts [--mode channels_last]
    python benchmarks/inference.py --growth docs/measurements/growth

Every network has a process of its own and waits there while another one is measured: they take turns, round
after round, and the least and the median of the rounds stand in the table. Weights are random: the cost does
not depend on them. All run in the first --mode; ours and OASIS's also in the others, at the first size. One
call of each diffusion network is timed and multiplied by the number of steps. `--parts` tells where our
generator's cost lies, `--growth` how it grows with resolution and classes.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from dpsims.writing import write_whole
from inference_growth import grow
from inference_modes import MODES, ONLY_OURS, Job
from inference_parts import Peaks, machine_peaks, parts_report
from inference_worker import Worker, counted, machine_memory
from peers import OURS, ROWS

SIZES = ("256x256", "256x512", "512x512", "1024x1024")
ALL_MODES = ("default", "OASIS")  # the rows that run in every mode
NOT_ON = {"cpu": ("compile_bf16", "compile_graphs"), "cuda": ("onnx", "openvino")}  # not by default
SLOW = 15.0  # seconds a picture: batches would tell nothing new here
Found = dict[str, Any]


def main(
    size: Annotated[list[str], typer.Option(help="HEIGHTxWIDTH, several")] = list(SIZES),  # noqa: B006
    row: Annotated[list[str], typer.Option(help="some of: " + ", ".join(ROWS))] = list(ROWS),  # noqa: B006
    mode: Annotated[list[str], typer.Option(help="some of: " + ", ".join(MODES))] = [],  # noqa: B006
    batch: Annotated[list[int], typer.Option(help="pictures at once, tried beside 1")] = [4, 8],  # noqa: B006
    rounds: Annotated[int, typer.Option(help="turns of each network")] = 5,
    heavy_rounds: Annotated[int, typer.Option(help="turns of the diffusion networks")] = 2,
    quick: Annotated[bool, typer.Option(help="256x256 only, 2 rounds, no batches")] = False,
    classes: Annotated[int, typer.Option(help="besides `unlabelled`; 150 as ADE20K")] = 150,
    threads: Annotated[int | None, typer.Option(help="as many as there are cores to use")] = None,
    device: str = "cpu",
    parts: Annotated[bool, typer.Option(help="our generator part by part, nothing else")] = False,
    growth: Annotated[Path | None, typer.Option(help="write FILE.csv and FILE.svg, nothing else")] = None,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Print the tables; see above."""
    if mode and mode[0] in ONLY_OURS:
        raise typer.BadParameter(f"--mode {mode[0]}: only ours has it; put one first that all have, as eager")
    unknown = [name for name in mode if name not in MODES] + [name for name in row if name not in ROWS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]}; modes: {', '.join(MODES)}; rows: {', '.join(ROWS)}")
    if device != "cpu" and not torch.cuda.is_available():
        raise typer.BadParameter(f"--device {device}: there is no CUDA device; leave it out")
    modes = mode or [name for name in MODES if name not in NOT_ON["cpu" if device == "cpu" else "cuda"]]
    threads = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    if quick:
        size, rounds, heavy_rounds, batch = size[:1], 2, 1, []
    sizes = [(int(h), int(w)) for h, w in (text.split("x") for text in size)]
    job = Job(ALL_MODES[0], modes[0], *sizes[0], classes, device, threads)
    result: Found = {"machine": machine(device, threads), "classes": classes, "modes": modes}
    print(result["machine"], flush=True)
    if growth is not None:
        result["growth"] = grow(job, growth, quick)
    elif parts:
        found, text = parts_report(job)
        result["parts"] = found
        print(text)
    else:
        dtype = torch.bfloat16 if "bf16" in modes[0] else torch.float32
        peaks = machine_peaks(device, dtype)
        result |= {"sizes": {}, "in_modes": {}}
        jobs = [
            Job(name, modes[0], *hw, classes, device, threads) for hw in sizes for name in fitting(row, hw)
        ]
        amounts = counted(jobs)
        for hw in sizes:
            here = [job for job in jobs if (job.height, job.width) == hw]
            light = [job for job in here if ROWS[job.row].single]
            measured = take_turns(light, rounds, batch)
            for heavy in (job for job in here if not ROWS[job.row].single):  # one after the other, for memory
                anchor = [job for job in light if job.row == ALL_MODES[0]]
                measured |= take_turns([*anchor, heavy], heavy_rounds, [], keep=measured)
            # once more: what else runs on the machine may have held it down
            now = machine_peaks(device, dtype)
            peaks = Peaks(max(peaks.gflops, now.gflops), max(peaks.copy, now.copy))
            result["peaks"] = peaks._asdict()
            lines = [line for job in here for line in lines_of(job, measured[job], amounts[job])]
            result["sizes"]["x".join(map(str, hw))] = lines
            print(size_table(hw, lines, peaks, modes[0], device), flush=True)
        if len(modes) > 1:
            rows = [name for name in ALL_MODES if name in row]
            pairs = [(m, name) for m in modes for name in rows if name == "default" or m not in ONLY_OURS]
            every = [Job(name, m, *sizes[0], classes, device, threads) for m, name in pairs]
            result["in_modes"] = mode_rows(take_turns(every, rounds, []))
            print(mode_table(sizes[0], result["in_modes"]), flush=True)
        print(targets(result), flush=True)
    if json_file is not None:
        write_whole(json_file, json.dumps(result, indent=1).encode())


def fitting(rows: Sequence[str], size: tuple[int, int]) -> list[str]:
    return [name for name in rows if size[0] * size[1] <= ROWS[name].largest]


def take_turns(
    jobs: Sequence[Job], rounds: int, batches: Sequence[int], keep: dict[Job, Found] | None = None
) -> dict[Job, Found]:
    """Job -> facts, and under `times` batch -> a list of the seconds of each piece, one for each round; under
    `error` why there are none. keep: earlier ones, whose times are added to."""
    found: dict[Job, Found] = {
        job: (keep or {}).get(job) or {"times": defaultdict(list), "peaks": {}} for job in jobs
    }
    workers: dict[Job, Worker] = {}
    try:
        for job in jobs:  # one after the other: set-up times are told too
            workers[job] = Worker(job)
            attempt(found[job], lambda job=job: found[job].update(workers[job].wait()))
        for size in (1, *batches):
            for _ in range(rounds if size == 1 else min(rounds, 2)):
                for job, worker in workers.items():
                    if "error" not in found[job] and (size == 1 or worth(found[job], size, job)):
                        attempt(found[job], lambda w=worker, n=size, f=found[job]: turn(w, n, f))
    finally:
        for worker in workers.values():
            worker.close()
    return found


def turn(worker: Worker, batch: int, found: Found) -> None:
    measured = worker.measure(batch, warm=ROWS[worker.job.row].group != "diffusion")
    found["times"][batch].append(measured["seconds"])
    found["peaks"][batch] = max(measured["peak"], found["peaks"].get(batch, 0))


def attempt(found: Found, action: Any) -> None:
    try:
        action()
    except RuntimeError as error:
        found["error"] = str(error)
        print(f"  left out: {error}", flush=True)


def worth(found: Found, batch: int, job: Job) -> bool:
    """Whether a batch is worth its time and fits: memory is taken to grow with the batch."""
    if not found["times"].get(1) or min(map(sum, found["times"][1])) > SLOW:
        return False
    return found["peaks"][1] * batch < machine_memory(job.device)


def lines_of(job: Job, found: Found, amounts: list[float] | str) -> list[Found]:
    """The table's lines of a row: calls multiplied, pieces added up, all for one picture."""
    lines = []
    for name, calls in ROWS[job.row].lines.items():
        line: Found = {
            "name": name,
            "row": job.row,
            "group": ROWS[job.row].group,
            "error": found.get("error"),
        }
        line["empty"] = found.get("empty")
        line["parameters"] = sum(found.get("parameters", []))
        line["gmacs"] = None
        if not isinstance(amounts, str):
            line["gmacs"] = sum(n * amount for n, amount in zip(calls, amounts, strict=True))
        times = {
            batch: [sum(n * t for n, t in zip(calls, of, strict=True)) / batch for of in rounds]
            for batch, rounds in found["times"].items()
        }
        if times.get(1):
            line |= {"seconds": min(times[1]), "median": statistics.median(times[1]), "rounds": len(times[1])}
            line["best_batch"] = min(times, key=lambda batch: min(times[batch]))
            line |= {"best_seconds": min(times[line["best_batch"]]), "peak": found["peaks"][1]}
        lines.append(line)
    return lines


def size_table(size: tuple[int, int], lines: list[Found], peaks: Peaks, mode: str, device: str) -> str:
    ours = next((line for line in lines if line["name"] == OURS), {})
    head = [
        "network",
        "parameters, M",
        "GMACs",
        "kMACs/pixel",
        "s, batch 1",
        "median",
        "s/picture, best batch",
    ]
    head += ["peak MiB", "compute / ours", "time / ours", "share of matmul peak"]
    rows = []
    for line in lines:
        gmacs, seconds = line["gmacs"], line.get("seconds")
        row = [line["name"], number(line["parameters"] / 1e6), number(gmacs)]
        row.append(number(gmacs and gmacs * 1e6 / (size[0] * size[1])))
        if line["error"] and seconds is None:
            rows.append([*row, line["error"], *[""] * 6])
            continue
        best = f"{number(line['best_seconds'])} ({line['best_batch']})"
        row += [number(seconds), number(line["median"]), best, f"{line['peak']:.0f}"]
        row += [ratio(gmacs, ours.get("gmacs")), ratio(seconds, ours.get("seconds"))]
        rows.append([*row, f"{2 * gmacs / seconds / peaks.gflops:.0%}" if gmacs else "-"])
    empty = max((line["empty"] or 0 for line in lines), default=0)
    about = f"\n{size[0]} x {size[1]}, {mode}, {device}; an empty process: {empty:.0f} MiB"
    return f"{about}\n\n" + table(head, rows)


def mode_rows(measured: dict[Job, Found]) -> list[Found]:
    lines = []
    for job, found in measured.items():
        facts = {key: found.get(key) for key in ("set_up", "difference", "error")}
        times = [sum(of) for of in found["times"][1]]
        line: Found = {"row": job.row, "mode": job.mode, **facts, "seconds": min(times, default=None)}
        lines.append({**line, "peak": found["peaks"].get(1)})
    return lines


def mode_table(size: tuple[int, int], lines: list[Found]) -> str:
    seconds = {(line["row"], line["mode"]): line["seconds"] for line in lines}
    head = ["network", "mode", "s, batch 1", "eager / this", "OASIS / ours", "mean difference from eager"]
    rows = []
    for line in lines:
        name, mode = line["row"], line["mode"]
        equal = ratio(seconds.get(("OASIS", mode)), line["seconds"]) if name == "default" else ""
        row = [
            name,
            mode,
            number(line["seconds"]),
            ratio(seconds.get((name, "eager")), line["seconds"]),
            equal,
        ]
        row += [number(line["difference"]), number(line["set_up"]), number(line["peak"])]
        rows.append([*row[:2], line["error"], *[""] * 5] if line["seconds"] is None else row)
    return f"\nmodes, {size[0]} x {size[1]}\n\n" + table([*head, "set-up, s", "peak MiB"], rows)


def targets(result: Found) -> str:
    """What was to be shown, and what was: at the first size."""
    lines = {line["name"]: line for line in next(iter(result["sizes"].values()))}
    ours, told = lines.get(OURS, {}), ["\ntargets at the first size"]

    def tell(what: str, found: float | None, wanted: float) -> None:
        if found is not None:
            told.append(f"- {what}: {found:,.2f} (wanted: {wanted:g} or more)")

    plain = quotient(lines.get("OASIS", {}).get("seconds"), ours.get("seconds"))
    tell(f"OASIS's time / ours, both {result['modes'][0]}, first table", plain, 4)
    for mode in dict.fromkeys(line["mode"] for line in result["in_modes"]):
        of = {line["row"]: line["seconds"] for line in result["in_modes"] if line["mode"] == mode}
        tell(f"OASIS's time / ours, both {mode}", quotient(of.get("OASIS"), of.get("default")), 4)
    wanted = {"OASIS": 4, "ControlNet-seg, SD 1.5, 20 guided steps": 100, "SDM, 25 guided steps": 500}
    for name, least in wanted.items():
        share = quotient(lines.get(name, {}).get("gmacs"), ours.get("gmacs"))
        tell(f"compute of {name} / ours", share, least)
    found = {m["mode"]: m["seconds"] for m in result["in_modes"] if m["row"] == "default" and m["seconds"]}
    if len(found) > 1 and "eager" in found:
        best = min(found, key=lambda mode: found[mode])
        tell(f"ours: eager / best mode ({best})", found["eager"] / found[best], 3)
    return "\n".join(told)


def quotient(a: float | None, b: float | None) -> float | None:
    return a / b if a and b else None


def ratio(a: float | None, b: float | None) -> str:
    return number(quotient(a, b))


def number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def machine(device: str, threads: int) -> str:
    if device != "cpu":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    return f"{model or platform.processor()}, {threads} threads, {versions}"


if __name__ == "__main__":
    typer.run(main)
