"""The data check: what it counts, what it names, what it says of it, and over how many processes."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpsims.data import folder, parallel
from dpsims.data.check import DataReport, check_data, contact_sheet
from dpsims.data.files import read_label
from dpsims.data.pairs import Layout, Pair
from dpsims.data.parallel import run_many
from dpsims.labels import LabelSpace

CAMVID = Path(__file__).resolve().parents[2] / "shared" / "data" / "camvid"
SPACE = LabelSpace(
    ("sky", "road", "tree"), ((0, 0, 200), (90, 90, 90), (0, 120, 0)), (0, 1, 2), ignore_id=255
)
SIZE = (12, 16)


def ids_of(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).choice([0, 1, 2, 255], size).astype(np.uint8)


def write_pair(root: Path, stem: str, ids: np.ndarray | Image.Image) -> None:
    """ids: the map, as ids or as a Pillow image in any coding; the picture is grey."""
    label = ids if isinstance(ids, Image.Image) else Image.fromarray(ids)
    for kind, image in (("images", Image.new("RGB", label.size, (99, 99, 99))), ("labels", label)):
        (root / kind).mkdir(parents=True, exist_ok=True)
        image.save(root / kind / f"{stem}.png")


def make_folder(root: Path, count: int = 8, space: LabelSpace = SPACE) -> Path:
    root.mkdir(exist_ok=True)
    (root / "classes.json").write_text(json.dumps(space.to_dict()))
    for i in range(count):
        write_pair(root, str(i), ids_of(i))
    return root


def check(root: Path, workers: int | None = None) -> DataReport:
    return check_data(folder.scan(root), workers)


def with_maps(root: Path, maps: list[np.ndarray], space: LabelSpace = SPACE) -> DataReport:
    """The report on a folder of these maps."""
    make_folder(root, 0, space)
    for i, ids in enumerate(maps):
        write_pair(root, str(i), ids)
    return check(root)


# --- what it counts and names


def test_a_good_folder_is_counted(tmp_path: Path):
    root = tmp_path / "a"
    for split in ("train", "val", "test"):
        make_folder(root, 0)
        for i in range(3):
            write_pair(root / split, f"{split}{i}", ids_of(i))
    write_pair(root / "train", "wide", ids_of(7, (8, 20)))
    report = check(root)
    assert report.ok and report.pairs == {"train": 4, "val": 3, "test": 3}
    assert report.sizes == {(12, 16): 9, (8, 20): 1} and report.good == 10
    maps = [read_label(path, SPACE) for path in root.glob("*/labels/*.png")]
    counts = np.array([np.bincount(label.ravel(), minlength=4) for label in maps])
    assert report.pixels.tolist() == counts.sum(0).tolist()
    assert report.pictures.tolist() == (counts > 0).sum(0).tolist()
    text = str(report)
    for line in (
        r"train +4",
        r"16 x 12 +9",
        r"0 +sky +\d\d\.\d+ +10",
        r"255 +\(unlabelled\)",
        r"no problems$",
    ):
        assert any(re.search(line, row) for row in text.splitlines()), line


def test_every_bad_file_is_named_once_and_the_rest_is_counted(tmp_path: Path):
    root = make_folder(tmp_path / "a")
    images, labels = root / "images", root / "labels"
    (images / "0.png").write_bytes((images / "0.png").read_bytes()[:45])
    ids = np.zeros(SIZE, np.uint8)
    ids[0, :5], ids[1, :2] = 77, 99
    Image.fromarray(ids).save(labels / "1.png")
    Image.fromarray(np.full((5, 5), 77, np.uint8)).save(labels / "2.png")  # bad in two ways
    (labels / "3.png").unlink()
    Image.new("RGB", (16, 12), (1, 2, 203)).save(labels / "4.png")
    Image.new("L", (16, 12)).save(labels / "5.png", "JPEG")
    report = check(root)
    assert not report.ok
    assert sorted(bad.path.relative_to(root).as_posix() for bad in report.bad) == [
        "images/0.png", "images/3.png", "labels/1.png", "labels/2.png", "labels/4.png", "labels/5.png"
    ]  # fmt: skip
    found = {code: (u.pixels, u.files, u.example.name, u.nearest) for code, u in report.unknown.items()}
    assert found == {
        "77": (30, 2, "1.png", ""), "99": (2, 1, "1.png", ""), "#0102cb": (192, 1, "4.png", "sky")
    }  # fmt: skip
    assert report.sizes == {SIZE: 2}
    lines = str(report).splitlines()
    assert lines[0].endswith("7 pairs, 5 of them bad (not in the figures below)")
    assert lines[-1] == "6 problems"
    at = lines.index("label maps that do not fit the classes (3):")
    assert "labels/1.png: label id 77 at row 0, column 0" in lines[at + 1]
    assert "labels/2.png: label id 77" in lines[at + 2] and "; also is 5x5 pixels" in lines[at + 2]
    assert "  labels/4.png: colour (1, 2, 203)" in lines[at + 3]
    assert any("labels/5.png: is a JPEG" in line for line in lines)
    row = next(line for line in lines if line.startswith("#0102cb"))
    assert row.split() == ["#0102cb", "192", "1", "labels/4.png", "(nearly", "sky)"]


def test_a_report_as_plain_values_leaves_nothing_out(tmp_path: Path):
    root = make_folder(tmp_path / "a", 30)
    for i in range(25):
        Image.fromarray(np.full(SIZE, 100 + i, np.uint8)).save(root / "labels" / f"{i}.png")
    report = check(root)
    values = json.loads(json.dumps(report.to_dict()))
    assert len(values["problems"]) == len(values["unknown"]) == 25 and not values["ok"]
    assert values["problems"][24]["path"] == str(report.bad[24].path)
    assert values["classes"][-1] == {
        "id": 255, "name": "(unlabelled)", "pixels": int(report.pixels[-1]), "pictures": 5
    }  # fmt: skip
    assert values["sizes"] == [{"width": 16, "height": 12, "pairs": 5}]
    text = str(report)
    assert "  and 5 more; all are in --json FILE" in text and "\nand 5 more; all are in --json FILE" in text
    assert text.count("labels/") == 20 + 20  # of the files, and of the ids


def test_classes_that_hardly_occur_and_maps_without_labels_are_pointed_at(tmp_path: Path):
    common, rare = np.zeros((2, 2), np.uint8), np.array([[0, 1]], np.uint8)
    report = with_maps(tmp_path / "a", [common] * 101 + [rare])
    assert "never: tree\n" in str(report) and "rare (in fewer than 1% of the pictures): road (1)" in str(
        report
    )
    report = with_maps(tmp_path / "b", [np.full((2, 2), 255, np.uint8)] * 2 + [common] * 5)
    assert report.ok and "note: 2 label maps have unlabelled pixels only (labels/0.png, labels/1.png)" in str(
        report
    )
    assert "note: val has 1 pair; measuring takes 2" in str(report)  # of 7, one is set aside for each


def test_many_sizes_are_summed_up(tmp_path: Path):
    report = with_maps(tmp_path / "a", [np.zeros((2, 2 + i), np.uint8) for i in range(12)])
    assert "2 other sizes" in str(report) and "smallest 2 x 2, largest 13 x 2" in str(report)


def test_a_set_with_nothing_to_train_on_is_refused(tmp_path: Path):
    assert "too few pairs" in str(check(make_folder(tmp_path / "a", 1)))
    empty = str(check(make_folder(tmp_path / "b", 0)))
    assert "images: missing" in empty and "labels: missing" in empty and empty.endswith("\n\n2 problems")


def test_files_in_another_coding_count_as_the_classes_that_are_loaded(tmp_path: Path):
    other = LabelSpace(("tree", "hill"), ((0, 1, 0), (0, 2, 0)), (7, 8), ignore_id=0)
    root = make_folder(tmp_path / "a", 0)
    write_pair(root, "0", np.array([[7, 7, 8, 0, 7, 9]], np.uint8))
    write_pair(root, "1", np.array([[7, 7, 8, 0]], np.uint8))
    pairs = [Pair(root / "images" / f"{i}.png", root / "labels" / f"{i}.png", str(i)) for i in range(2)]
    splits = {"train": pairs, "val": pairs[1:], "test": pairs[1:]}
    report = check_data(Layout(root, "both", SPACE, splits, file_space=other))
    assert report.pixels.tolist() == [0, 0, 6, 6]  # of the good map, three times
    assert list(report.unknown) == ["9"] and len(report.bad) == 1


# --- what it makes of unknown ids and colours


def test_ids_shifted_by_one_are_recognised(tmp_path: Path):
    up = np.arange(1, 4, dtype=np.uint8).reshape(1, 3)
    text = str(with_maps(tmp_path / "a", [up] * 5))
    assert "-> the maps' ids lie one above those of the class list" in text
    base = LabelSpace(SPACE.names, SPACE.colors, (1, 2, 3), 255)
    text = str(with_maps(tmp_path / "b", [up - 1] * 5, base))
    assert "-> the maps' ids lie one below those of the class list" in text
    last = LabelSpace(SPACE.names, SPACE.colors, SPACE.ids, ignore_id=3)
    assert "lie one above" in str(with_maps(tmp_path / "d", [np.array([[1, 2, 3, 4]], np.uint8)] * 5, last))
    everything = np.arange(0, 4, dtype=np.uint8).reshape(1, 4)
    text = str(with_maps(tmp_path / "c", [everything] * 5))
    assert "3 " in text and "-> " not in text  # a class more than listed: no shift would help


def test_another_unlabelled_id_is_recognised(tmp_path: Path):
    eleven = LabelSpace(SPACE.names, SPACE.colors, SPACE.ids, ignore_id=11)
    text = str(with_maps(tmp_path / "a", [np.array([[0, 1, 2, 255]], np.uint8)] * 5, eleven))
    assert (
        "-> 255 is unlabelled in many sets; if it is here, set ignore_id to 255" in text
        and "(now 11)" in text
    )
    base = LabelSpace(SPACE.names, SPACE.colors, (1, 2, 3))
    text = str(with_maps(tmp_path / "b", [np.array([[0, 1, 2, 3]], np.uint8)] * 5, base))
    assert "-> 0 is unlabelled" in text and "(now none)" in text and text.count("-> ") == 1


def test_smoothed_maps_are_recognised(tmp_path: Path):
    colored = Image.fromarray(SPACE.colorize(SPACE.decode_ids(ids_of(1)))).resize((64, 48))
    root = make_folder(tmp_path / "a")
    colored.save(root / "labels" / "1.png")
    report = check(root)
    assert report.unknown_left_out and len(report.unknown) == 200  # of one file
    assert "more than 200 colours that no class has: the maps were resized with smoothing" in str(report)
    grey = Image.fromarray(ids_of(1)).resize((64, 48), Image.Resampling.BICUBIC)
    root = make_folder(tmp_path / "b")
    grey.save(root / "labels" / "1.png")
    assert "ids that no class has: maps that were resized with smoothing" in str(check(root))


def test_smoothed_ids_that_are_all_known_are_noticed(tmp_path: Path):
    colors = tuple((i, 0, 0) for i in range(1, 9))
    eight = LabelSpace(tuple("abcdefgh"), colors, tuple(range(8)), 255)
    steps = np.arange(8, dtype=np.uint8).reshape(1, 8)
    assert "every class occurs in nearly every picture" in str(with_maps(tmp_path / "a", [steps] * 20, eight))
    some = [steps] * 19 + [steps[:, :7]]
    assert "every class" not in str(with_maps(tmp_path / "b", some, eight))


def test_unknown_codes_that_are_kept_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dpsims.data.check._CODES_KEPT", 3)
    report = with_maps(tmp_path / "a", [np.full(SIZE, 100 + i, np.uint8) for i in range(5)])
    assert list(report.unknown) == ["100", "101", "102"] and report.unknown_left_out and len(report.bad) == 5


# --- the contact sheet


def test_a_contact_sheet_shows_good_pairs_and_the_classes_in_them(tmp_path: Path):
    root = make_folder(tmp_path / "a", 0)
    for i in range(12):
        write_pair(root, str(i), np.full((20, 10), i % 2, np.uint8))  # sky or road, no tree
    Image.new("L", (1, 1)).save(root / "labels" / "3.png")
    layout = folder.scan(root)
    report = check_data(layout)
    sheet = contact_sheet(layout, report, 5)
    colors = {color for _, color in sheet.getcolors(1 << 24) or ()}
    assert {SPACE.colors[0], SPACE.colors[1], (99, 99, 99)} <= colors and SPACE.colors[2] not in colors
    assert sheet.width > 600 and contact_sheet(layout, report, 1).height < sheet.height
    with pytest.raises(ValueError, match="no good pair to show"):
        bad = with_maps(tmp_path / "b", [np.full(SIZE, 9, np.uint8)] * 5)
        contact_sheet(folder.scan(tmp_path / "b"), bad)


# --- processes


def slow_square(shared: int, item: int) -> int:
    time.sleep(0.001 * (item % 3))
    return shared + item * item


def process(_: None, item: int) -> int:
    return os.getpid()


def ctrl_c_is_blocked(_: None, item: int) -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def fail(_: None, item: int) -> int:
    if item in (70, 90):
        raise ValueError(f"item {item}: bad")
    return item


def die(_: None, item: int) -> int:
    if item == 70:
        os.kill(os.getpid(), signal.SIGKILL)  # as the system does for lack of memory
    return item


def test_results_come_in_order_and_a_thread_beside_does_not_matter():
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        results = list(run_many(slow_square, 5, range(100), 2))
    finally:
        stop.set()
        thread.join()
    assert results == [5 + i * i for i in range(100)]


def test_few_items_and_one_worker_need_no_processes():
    assert set(run_many(process, None, range(parallel.FEW - 1), 2)) == {os.getpid()}
    assert set(run_many(process, None, range(100), 1)) == {os.getpid()}
    assert os.getpid() not in set(run_many(process, None, range(100), 2))
    with pytest.raises(ValueError, match="workers=0: use 1 or more"):
        run_many(process, None, range(100), 0)


def test_progress_is_shown_on_a_terminal_only_and_leaves_no_trace(monkeypatch: pytest.MonkeyPatch):
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    list(run_many(process, None, range(3), 1, "read"))
    assert not screen.getvalue()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    list(run_many(process, None, range(3), 1, "read"))
    assert screen.getvalue() == "\r1 of 3 read\r\x1b[K"


def test_the_first_error_in_the_order_of_the_items_is_raised():
    with pytest.raises(ValueError, match="item 70: bad"):
        list(run_many(fail, None, range(100), 2))


def test_a_process_that_dies_is_an_error_and_no_hang():
    with pytest.raises(ValueError, match="one of 2 worker processes died.*use fewer workers"):
        list(run_many(die, None, range(100), 2))


def test_a_script_that_processes_cannot_load_is_told_so(tmp_path: Path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from dpsims.data.parallel import run_many\nprint(sum(run_many(divmod, 7, range(1, 99), 2), ()))"
    )
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=30)
    assert run.returncode == 1
    assert 'a script must call this below `if __name__ == "__main__":`' in run.stderr


def test_workers_leave_ctrl_c_to_their_parent():
    assert all(run_many(ctrl_c_is_blocked, None, range(100), 2))
    assert not ctrl_c_is_blocked(None, 0)


def test_a_report_is_the_same_over_several_processes(tmp_path: Path):
    root = make_folder(tmp_path / "a", 70)
    for i in (3, 40, 69):
        Image.fromarray(np.full(SIZE, 50 + i, np.uint8)).save(root / "labels" / f"{i}.png")
    one, two = check(root, 1), check(root, 2)
    assert str(one) == str(two) and one.to_dict() == two.to_dict() and len(one.bad) == 3


SLOW = """
import sys, time
from dpsims.data.parallel import run_many
import {module} as work
if __name__ == "__main__":
    print("started", flush=True)
    for pid in run_many(work.sleep, None, range(100_000), 2):
        print(pid, flush=True)
"""


@pytest.fixture
def slow_run(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process group of its own that works in two processes without end and prints their ids."""
    (tmp_path / "sleeping.py").write_text(
        "import os, time\ndef sleep(_, item):\n    time.sleep(0.02)\n    return os.getpid()\n"
    )
    (tmp_path / "main.py").write_text(SLOW.format(module="sleeping"))
    run = subprocess.Popen(
        [sys.executable, tmp_path / "main.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    yield run
    run.kill()
    run.communicate()


def read_workers(run: subprocess.Popen[str]) -> set[int]:
    assert run.stdout is not None and run.stdout.readline() == "started\n"
    found: set[int] = set()
    while len(found) < 2:
        found.add(int(run.stdout.readline()))
    return found


def test_ctrl_c_ends_all_processes_without_noise(slow_run: subprocess.Popen[str]):
    workers = read_workers(slow_run)
    os.killpg(slow_run.pid, signal.SIGINT)  # a terminal sends it to every process
    _, err = slow_run.communicate(timeout=20)
    assert err.count("Traceback") == 1 and err.rstrip().endswith("KeyboardInterrupt")  # the caller's own
    assert not any(alive(pid) for pid in workers)


def test_workers_do_not_outlive_a_killed_parent(slow_run: subprocess.Popen[str]):
    workers = read_workers(slow_run)
    slow_run.kill()
    end = time.monotonic() + 10
    while any(alive(pid) for pid in workers) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(alive(pid) for pid in workers)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # dead, only nobody has asked for its exit status


# --- how it starts


def test_check_and_convert_load_no_torch():
    code = (
        "import dpsims.data.check, dpsims.data.convert, sys; "
        "print([m for m in ('torch', 'torchvision', 'jaxtyping', 'yaml') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.skipif(not CAMVID.is_dir(), reason=f"{CAMVID} is not there")
def test_camvid_has_no_problems():
    layout = folder.scan(CAMVID)
    layout.splits = {split: pairs[:4] for split, pairs in layout.splits.items()}
    report = check_data(layout)
    assert report.ok and report.sizes == {(360, 480): 12}
    assert contact_sheet(layout, report, 3).width > 900
