"""An evaluation that was stopped goes on, and gives the same figures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dpsims.evaluation import evaluate, measure_real
from dpsims.evaluation.progress import Progress
from dpsims.evaluation.segmentation import Segmenter
from tests.command_line import write_model, write_photos
from tests.test_evaluation import painter, settings, split


class Sum:
    def __init__(self) -> None:
        self.total = torch.zeros(3)

    def state_dict(self) -> dict[str, Tensor]:
        return {"total": self.total.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.total = state["total"]


def test_parts_and_keys_are_kept_apart(tmp_path: Path):
    first = Progress(tmp_path / "new", {"model": "a"}, seconds=0)
    one, other = Sum(), Sum()
    one.total += 1
    first.save("test", {"one": one, "other": other})
    assert not first.load("train", {"one": Sum()})
    assert not Progress(tmp_path / "new", {"model": "b"}).load("test", {"one": Sum()})
    found, empty = Sum(), Sum()
    assert Progress(tmp_path / "new", {"model": "a"}).load("test", {"one": found, "other": empty})
    assert found.total.tolist() == [1, 1, 1] and empty.total.tolist() == [0, 0, 0]
    first.clear()
    assert not list((tmp_path / "new").iterdir())


def test_it_is_saved_every_now_and_then(tmp_path: Path):
    slow = Progress(tmp_path, {}, seconds=1000)
    slow.save("test", {"one": Sum()})
    assert not list(tmp_path.iterdir())
    slow.save("test", {"one": Sum()}, now=True)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_damaged_file_is_none_and_old_ones_go(tmp_path: Path):
    kept = Progress(tmp_path, {"model": "a"}, seconds=0)
    kept.save("test", {"one": Sum()})
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-4])
    assert not kept.load("test", {"one": Sum()})
    old, new = tmp_path / "0-x.safetensors", tmp_path / "1-x.safetensors"
    for other in (old, new):
        save_file({"x": torch.zeros(1)}, other)
    past = time.time() - 30 * 86400
    os.utime(old, (past, past))
    kept.clear()
    assert list(tmp_path.iterdir()) == [new]


def test_a_full_disk_does_not_end_the_evaluation(tmp_path: Path):
    (tmp_path / "file").write_text("")
    Progress(tmp_path / "file" / "below", {}, seconds=0).save("test", {"one": Sum()})


class Stopped(Exception):
    pass


@pytest.mark.parametrize("part", ["real", "train", "generated"])
@pytest.mark.parametrize("batches", [0, 1, 2])
def test_stopped_anywhere_it_gives_the_same_figures(tmp_path: Path, part: str, batches: int):
    chosen = settings(segmenter=Segmenter(3, (4, 8)), diversity_samples=3)
    test, train = split(10, 2), split(13, 1)
    seen: list[int] = []

    def stopping(passes, when: int):
        def start(first: int):
            seen.append(first)
            for i, batch in enumerate(passes(first)):
                if i == when:
                    raise Stopped
                yield batch

        return start

    kept = Progress(tmp_path, {}, seconds=0)
    with pytest.raises(Stopped):
        if part != "generated":
            parts = {"real": test, "train": train} | {
                part: stopping({"real": test, "train": train}[part], batches)
            }
            measure_real(parts["train"], parts["real"], chosen, kept)
        else:
            evaluate(
                painter(),
                train,
                stopping(test, batches),
                chosen,
                reference=measure_real(train, test, chosen),
                progress=kept,
            )
    seen.clear()
    report = evaluate(painter(), stopping(train, 99), stopping(test, 99), chosen, progress=kept)
    starts: dict[str, int] = dict(zip(("real", "train", "generated"), seen, strict=True))
    assert starts[part] == 4 * batches
    undisturbed = evaluate(painter(), train, test, chosen)
    assert {**report, "seconds": 0} == {**undisturbed, "seconds": 0}


def test_killed_and_started_again(tmp_path: Path):
    """A real second process, killed with its evaluation half done; the same command then finishes it."""
    write_photos(tmp_path / "photos")
    write_model(tmp_path / "model")
    code = (
        "import sys, time\nfrom dpsims.evaluation import progress\n"
        "progress.Progress.__init__.__defaults__ = (0.0,)\n"
        "from dpsims.synthesis import Synthesizer\nplain = Synthesizer.generate_numbered\n"
        "def slowly(self, label, indices, sample=0, seed=0):\n"
        "    if indices[0] >= 8 and sys.argv[1] == 'stop':\n"
        "        print('half', flush=True)\n        time.sleep(60)\n"
        "    print('made', list(indices), sample, flush=True)\n"
        "    return plain(self, label, indices, sample, seed)\n"
        "Synthesizer.generate_numbered = slowly\n"
        "from dpsims import cli\n"
        "cli.main(['evaluate', 'model', '--data', 'photos', '--split', 'train', '--batch-size', '4',\n"
        "          '--features', 'scenes_tiny', '--segmenter-images', '8', '--json', sys.argv[2]])\n"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def start(how: str, name: str, cache: str = "cache") -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code, how, name],
            cwd=tmp_path,
            env={**environment, "XDG_CACHE_HOME": str(tmp_path / cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    with start("stop", "first.json") as run:
        assert run.stdout is not None
        while "half" not in run.stdout.readline():
            assert run.poll() is None
        run.send_signal(signal.SIGKILL)
    assert not (tmp_path / "first.json").exists()
    with start("go", "first.json") as again:
        out, _ = again.communicate()
    assert again.returncode == 0 and "made [0" not in out and "made [8" in out
    with start("go", "second.json", "other cache") as undisturbed:
        undisturbed.communicate()
    first, second = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("first", "second"))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert not list((tmp_path / "cache" / "dpsims" / "evaluations").iterdir())
