"""Writing shards on a full disk, and what Ctrl-C and a kill leave."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dpsims.data.layouts import find_layout
from dpsims.data.shards import Shards, is_sharded, verify
from dpsims.data.write_shards import write_shards
from tests.pair_folders import files_in, listed, make, tars_in


def test_a_full_disk_is_one_line(tmp_path: Path):
    make(tmp_path / "data", 3, size=(200, 300))
    code = (  # a limit of file size stands for the end of the disk: writing fails half-way just so
        "import resource, sys\nfrom pathlib import Path\nfrom dpsims.data.layouts import find_layout\n"
        "from dpsims.data.write_shards import write_shards\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try:\n    write_shards(find_layout(Path('data')), Path('out'), workers=1)\n"
        "except ValueError as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert "train-000000.tar: cannot be written (File too large); make room" in run.stdout, run.stderr
    assert listed(tmp_path / "out") == ["plan.json"]


WRITE = (
    "import sys\nfrom pathlib import Path\nfrom dpsims.data.layouts import find_layout\n"
    "from dpsims.data.write_shards import write_shards\n"
    "write_shards(find_layout(Path('data')), Path('out'), 1, size=280, workers=2)"
)


def processes_in(folder: Path) -> list[int]:
    """Ids of the processes whose working directory is `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").resolve() == folder and (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:  # it has ended, or is not ours
            continue
    return found


def twenty_pairs(root: Path) -> Path:
    make(root, 2, size=(600, 800))
    for k in range(2, 20):
        shutil.copy(root / "images/p000.jpg", root / f"images/p{k:03d}.jpg")
        shutil.copy(root / "labels/p000.png", root / f"labels/p{k:03d}.png")
    return root


@pytest.mark.parametrize("times", [1, 3])
def test_ctrl_c_tells_that_finished_shards_are_kept(tmp_path: Path, times: int):
    root, out = twenty_pairs(tmp_path / "data"), tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 30
    while len(list(out.glob("*-*.json"))) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.001)
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert "finished shards are kept in out, no others: the same command goes on\n" in err
    assert process.returncode == -signal.SIGINT and err.count("Traceback") == 1, err
    assert not processes_in(tmp_path)
    before = tars_in(out)
    finished = {path.with_suffix(".tar").name for path in out.glob("*-*.json")}
    assert 2 <= len(finished) < 20 and not (out / "index.json").exists()
    write_shards(find_layout(root), out, 1, size=280, workers=1)
    after = tars_in(out)
    assert all(after[name] == before[name] for name in finished) and verify(out) == []


def test_a_kill_leaves_nothing_that_passes_for_whole(tmp_path: Path):
    root, out = twenty_pairs(tmp_path / "data"), tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", WRITE], cwd=tmp_path) as process:
        deadline = time.monotonic() + 30
        while len(list(out.glob("*-*.json"))) < 2:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.001)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    while processes_in(tmp_path):  # the ones that it had started end by themselves
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert is_sharded(out) and not (out / "index.json").exists()
    with pytest.raises(
        ValueError, match=r"out: its shards are unfinished .* run the same `dpsims data shard`"
    ):
        Shards(out, "train")
    # what else a kill can leave: half a shard, a shard without its .json, half an index
    finished = {p: p.with_suffix(".tar").stat().st_ino for p in out.glob("*-*.json")}
    assert 2 <= len(finished) < 20
    (out / ".train-000011.tar.77.part").write_bytes(b"half")
    (out / ".index.json.77.part").write_bytes(b"{")
    (out / "val-000000.tar").write_bytes(b"no one knows")
    (out / "val-000000.json").unlink(missing_ok=True)
    finished.pop(out / "val-000000.json", None)
    said: list[str] = []
    layout = find_layout(root)
    write_shards(layout, out, 1, size=280, workers=1, say=said.append)
    assert said[-1].endswith("(20 of 20)") and len(said) == 20 - len(finished)
    assert {p: p.with_suffix(".tar").stat().st_ino for p in finished} == finished
    undisturbed = write_shards(layout, tmp_path / "undisturbed", 1, size=280, workers=1).parent
    assert files_in(out) == files_in(undisturbed)
    said.clear()
    write_shards(layout, out, 1, size=280, say=said.append)
    assert said == [f"{out}: already complete, 20 shards"]
