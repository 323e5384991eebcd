"""Reports side by side: the cells, the best of each row, and what is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from dpsims.evaluation.compare import compare_reports, to_html
from tests.html_pages import EVIL, Walk, cells
from tests.test_page import full_report, report

COUNTS = {"generated": 233, "test": 233, "train": 367, "diversity_maps": 64}


def write(folder: Path, name: str, values: Any) -> Path:
    path = folder / f"{name}.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return path


def full(**changes: Any) -> dict[str, Any]:
    """A report with every field that decides whether figures compare."""
    return report(
        **{
            "split": "test",
            "protocol": {"name": "oasis", "resize": "bicubic", "seed": 3},
            "counts": COUNTS,
            "segmenter": {"digest": "77aa", "images": 6000, "seed": 0},
            "weights": {"net": "cafe", "segmenter": "5e9", "model": "0de1"},
            **changes,
        }
    )


def pair(folder: Path, **changes: Any) -> list[Path]:
    return [write(folder, "a", full(model="A")), write(folder, "b", full(model="B", **changes))]


def rows(text: str) -> dict[str, list[str]]:
    """First words of each line of the text table -> its cells."""
    lines = [line for line in text.splitlines() if "  " in line]
    found = [[word.strip() for word in line.split("  ") if word.strip()] for line in lines]
    return {line[0]: line[1:] for line in found}


# ---------------------------------------------------------------- the table


def test_cells_stand_under_their_model_and_the_best_is_marked(tmp_path: Path):
    other = {"frechet": {"net": 1000.0}, "miou": 0.44, "diversity_features": {"net": 0.1}}
    text = compare_reports(pair(tmp_path, **other))
    found = rows(text)
    assert text.splitlines()[0] == (
        "camvid test, split test, 64 x 80, protocol oasis, 233 generated pictures, 233 real ones"
    )
    assert found["better"] == ["A", "B", "real"]
    name = "Frechet distance (net (pretrained) features), oasis"
    assert found[name] == ["lower", "1,234.6", "1,000.0*", "3.5000"]
    assert found["mIoU, oasis"] == ["higher", "0.4500*", "0.4400", "0.7000"]
    assert found["Diversity (net features), oasis"] == ["higher", "0.1000*", "0.1000*", "-"]  # a tie
    assert "note: only 233 pictures" in text and text.count("only 233 pictures") == 1


def test_intervals_and_spreads_are_shown(tmp_path: Path):
    files = pair(
        tmp_path,
        kid={"net": {"value": 0.0123, "std": 0.0004, "subsets": 100, "subset_size": 233, "note": "few"}},
        intervals={"frechet": {"net": [1200.0, 1300.5]}, "miou": [0.44, 0.46]},
    )
    found = rows(compare_reports(files))
    assert found["Kernel distance (net features), oasis"] == ["lower", "-", "0.0123 +- 0.000400", "-"]
    assert found["mIoU, oasis"][1:3] == ["0.4500*", "0.4500 [0.4400, 0.4600]*"]


def test_one_figure_alone_is_not_the_best(tmp_path: Path):
    found = rows(compare_reports(pair(tmp_path, precision={"net": 0.5})))
    assert found["Precision (net features), oasis"] == ["higher", "-", "0.5000", "-"]
    found = rows(compare_reports(pair(tmp_path, frechet={"net": float("nan")})))
    name = "Frechet distance (net (pretrained) features), oasis"
    assert found[name] == ["lower", "1,234.6", "nan", "3.5000"]


def test_classes_are_shown_on_demand_and_folded_on_the_page(tmp_path: Path):
    files = pair(tmp_path, iou={"road": 0.4, "car": None, "sky": 0.5})
    assert "IoU sky" not in compare_reports(files)
    found = rows(compare_reports(files, classes=True))
    assert found["IoU sky"] == ["higher", "0.6000*", "0.5000", "0.9000"]
    assert "IoU car" not in found
    assert cells(to_html(files))["IoU road ↑"] == ["0.3000", "0.4000*", "0.5000"]


def everything(folder: Path, **changes: Any) -> list[Path]:
    """Two reports with every part that there is; changes: of the second."""
    return [
        write(folder, "a", full_report(model="A", counts=COUNTS)),
        write(folder, "b", full_report(model="B", counts=COUNTS, **changes)),
    ]


def test_later_measures_have_their_rows(tmp_path: Path):
    utility = copy.deepcopy(full_report()["utility"]) | {"gain": 0.01}
    utility["real"]["miou"] = 0.51
    text = compare_reports(everything(tmp_path, lpips={"alex": 0.5}, utility=utility), classes=True)
    found = rows(text)
    assert found["LPIPS (alex), oasis"] == ["higher", "0.4321", "0.5000*", "0.6000"]
    # what real pictures are worth as training data is no merit of either model
    assert found["mIoU trained on real pictures"][1:3] == ["0.5000 +- 0.0141", "0.5100 +- 0.0141"]
    assert found["mIoU trained on generated pictures"][1:3] == ["0.4000 +- 0.0141*"] * 2
    assert found["mIoU trained on real and generated"][1:3] == ["0.5250 +- 0.0141*"] * 2
    gained = ["higher", "0.0250 +- 0.0071*", "0.0100 +- 0.0071", "-"]
    assert found["mIoU gained by adding generated pictures"] == gained
    assert found["IoU sky"] == ["higher", "0.6000*", "0.6000*", "0.9000"]
    assert found["Diversity in sky (pixels)"] == ["higher", "0.1000*", "0.1000*", "0.4000"]
    assert found["Diversity in road (LPIPS alex)"] == ["higher", "0.3000*", "0.3000*", "-"]
    assert "Diversity in car (pixels)" not in found
    names = list(found)
    assert names.index("IoU road") < names.index("Diversity in sky (pixels)")
    walk = Walk(to_html(everything(tmp_path)))
    assert walk.text("summary") == "IoU of each classDiversity inside regions"


def test_three_reports_without_real_figures_or_protocol(tmp_path: Path):
    files = [
        write(tmp_path, name, report(model=name, real=None, miou=miou))
        for name, miou in (("x", 0.1), ("y", 0.3), ("z", 0.2))
    ]
    found = rows(compare_reports(files))
    assert found["better"] == ["x", "y", "z"]
    assert found["mIoU"] == ["higher", "0.1000", "0.3000*", "0.2000"]


def test_columns_are_told_apart(tmp_path: Path):
    first, second = (write(tmp_path, name, report(model="runs/same")) for name in ("first", "second"))
    assert rows(compare_reports([first, second]))["better"][:2] == ["first", "second"]
    assert rows(compare_reports([first, first]))["better"][:2] == ["1 first", "2 first"]
    tails = [write(tmp_path, name, report(model=f"{'long/' * 20}{name}")) for name in ("one", "two")]
    shown = rows(compare_reports(tails))["better"][:2]
    assert shown[0].startswith("...") and shown[0].endswith("/one") and len(shown[0]) == 32
    named_real = write(tmp_path, "c", report(model="real"))
    assert rows(compare_reports([first, named_real]))["better"] == ["first", "c", "real"]


def test_a_terminal_is_not_driven_by_names(tmp_path: Path):
    files = pair(tmp_path, warnings=["\x1b[2Jgone\nnote: forged"])
    text = compare_reports(files)
    assert "\x1b" not in text and "gone note: forged" in text


# ---------------------------------------------------------------- what does not compare

DIFFERENT = {
    "data": ("data", {"data": "other set"}),
    "size": ("size", {"size": [128, 160]}),
    "split": ("split", {"split": "val"}),
    "no split": ("split", {"split": None}),
    "protocol": ("protocol.resize", {"protocol": {"name": "oasis", "resize": "box", "seed": 3}}),
    "no protocol": ("protocol.name", {"protocol": None}),
    "counts": ("counts.generated", {"counts": {**COUNTS, "generated": 100}}),
    "diversity": ("counts.diversity_maps", {"counts": {**COUNTS, "diversity_maps": 9}}),
    "segmenter": ("segmenter.digest", {"segmenter": {"digest": "0123", "images": 6000, "seed": 0}}),
    "segmenter's seed": ("segmenter.seed", {"segmenter": {"digest": "77aa", "images": 6000, "seed": 1}}),
    "classes": ("classes", {"iou": {"road": 0.3}}),
    "titles": ("frechet_titles.net", {"frechet_titles": {"net": "Frechet distance (net (file x) features)"}}),
    "weights": ("weights.net", {"weights": {"net": "beef", "segmenter": "5e9"}}),
    "segmenter's weights": ("weights.segmenter", {"weights": {"net": "cafe", "segmenter": "0"}}),
    "maps' size": (
        "protocol.maps", {"protocol": {"name": "oasis", "resize": "bicubic", "seed": 3, "maps": "native"}}
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DIFFERENT)
def test_figures_that_do_not_compare_are_refused(tmp_path: Path, case: str):
    field, changes = DIFFERENT[case]
    files = pair(tmp_path, **changes)
    for make in (compare_reports, to_html):
        with pytest.raises(ValueError, match=r"do not compare") as error:
            make(files)
        message = str(error.value)
        assert message.startswith(f"{files[1]}: {field} is ") and f" in {files[0]}" in message
        assert "--force" in message and "\n" not in message
    text = compare_reports(files, force=True)
    assert f"note: not comparable: {field} is " in text and "0.4500" in text
    assert f"not comparable: {field} is " in Walk(to_html(files, force=True)).text("section")


def changed(part: str, **values: Any) -> dict[str, Any]:
    return {part: {**full_report()[part], **values}}


DIFFERENT_PARTS = {
    "weights.lpips alex": changed("weights", **{"lpips alex": "0"}),
    "utility.images": changed("utility", images=60),
    "utility.seeds": changed("utility", seeds=[0]),
    "utility.size": changed("utility", size=[1, 2]),
    "utility.test": changed("utility", test=10),
    "protocol.diversity_samples": changed("protocol", diversity_samples=2),
    "protocol.diversity_maps": changed("protocol", diversity_maps=64),
}


@pytest.mark.parametrize("field", DIFFERENT_PARTS)
def test_later_measures_that_do_not_compare_are_refused(tmp_path: Path, field: str):
    files = everything(tmp_path, **DIFFERENT_PARTS[field])
    with pytest.raises(ValueError, match=rf"b\.json: {field} is .* do not compare"):
        compare_reports(files)
    assert f"note: not comparable: {field} is " in compare_reports(files, force=True)


NO_DIVERSITY = {
    "diversity": None,
    "diversity_features": None,
    "lpips": {"alex": None},
    "diversity_regions": {},
}


@pytest.mark.parametrize(
    "changes",
    [
        changed("weights", model="another model is what is compared"),
        {**NO_DIVERSITY, **changed("protocol", diversity_samples=2)},
        {**NO_DIVERSITY, **changed("weights", **{"lpips alex": "0"})},
        {"miou": None, "iou": None, **changed("weights", segmenter="0")},
        {"miou": None, "iou": None, **changed("protocol", maps="picture")},
        {"utility": None},
    ],
)
def test_settings_of_what_was_not_measured_are_no_hindrance(tmp_path: Path, changes: dict[str, Any]):
    text = compare_reports(everything(tmp_path, **changes))
    assert [line for line in text.splitlines() if line.startswith("note")] == ["note: only 233 pictures"]


def test_weights_of_a_network_that_only_measured_regions_count(tmp_path: Path):
    files = [
        write(tmp_path, name, report(diversity_regions={"other": {"sky": 1.0}}, weights={"other": name}))
        for name in ("a", "b")
    ]
    with pytest.raises(ValueError, match=r"weights\.other is 'b', but 'a' in"):
        compare_reports(files)


def test_reports_of_before_still_compare(tmp_path: Path):
    """Without protocol, weights and all that came with them; kinds of networks by their title alone."""
    old = {"model": "a", "frechet": {"net": 1.0}, "miou": 0.5, "iou": {"sky": 0.5}, "size": [64, 80],
           "frechet_titles": {"net": "Frechet distance (net)"}, "data": "x", "split": "test",
           "counts": {"generated": 9, "diversity_maps": 64, "diversity_samples": 2}, "diversity": 0.2,
           "seeds": {"generate": 0}, "segmenter": {"images": 6000}}  # fmt: skip
    files = [write(tmp_path, "a", old), write(tmp_path, "b", {**old, "model": "b", "miou": 0.6})]
    found = rows(compare_reports(files))
    assert found["Frechet distance (net)"] == ["lower", "1.0000*", "1.0000*"]
    assert found["mIoU"] == ["higher", "0.5000", "0.6000*"]
    new = write(tmp_path, "c", {**old, "protocol": {"name": None, "resize": "bicubic"}})
    with pytest.raises(ValueError, match=r"c\.json: protocol\.resize is 'bicubic', but not given in"):
        compare_reports([files[0], new])


def test_all_that_differs_is_named(tmp_path: Path):
    files = pair(tmp_path, data="x", size=[1, 2], split="val", segmenter=None)
    with pytest.raises(
        ValueError, match=r"data is 'x', but 'camvid test' in .*also: size, split, segmenter\.d"
    ):
        compare_reports(files)
    text = compare_reports(files, force=True)
    assert text.splitlines()[0] == "protocol oasis, 233 generated pictures, 233 real ones"


def test_any_two_of_several_must_compare(tmp_path: Path):
    """The first has no mIoU: it is the other two whose segmenters differ."""
    files = [
        write(tmp_path, "a", full(model="A", miou=None, iou={}, segmenter=None)),
        write(tmp_path, "b", full(model="B")),
        write(tmp_path, "c", full(model="C", segmenter={"digest": "other"})),
    ]
    with pytest.raises(ValueError, match=r"c\.json: segmenter\.digest is 'other', but '77aa' in .*b\.json"):
        compare_reports(files)
    assert rows(compare_reports(files[:2]))["mIoU, oasis"] == ["higher", "-", "0.4500", "0.7000"]


def test_networks_that_only_one_has_are_no_hindrance(tmp_path: Path):
    files = pair(tmp_path, frechet={"other": 2.0}, frechet_titles={"other": "Frechet distance (other)"})
    found = rows(compare_reports(files))
    assert found["Frechet distance (other), oasis"] == ["lower", "-", "2.0000", "-"]


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("seeds.generate", {"seeds": {"generate": 8}}),
        ("protocol.seed", {"protocol": {"name": "oasis", "resize": "bicubic", "seed": 4}}),
        ("versions.torch", {"versions": {"torch": "2.16", "dpsims": "0.1.0"}}),
    ],
)
def test_other_seeds_and_versions_are_a_note(tmp_path: Path, field: str, changes: dict[str, Any]):
    files = pair(tmp_path, **changes)
    text = compare_reports(files)
    assert f"note: {field} is " in text and "not comparable" not in text and str(files[1]) in text


def test_equal_settings_say_nothing(tmp_path: Path):
    text = compare_reports(pair(tmp_path, miou=0.1, seconds=99, date="today"))
    assert [line for line in text.splitlines() if line.startswith("note")] == ["note: only 233 pictures"]


def test_real_figures_that_differ_are_not_shown_as_one(tmp_path: Path):
    real = copy.deepcopy(report()["real"])
    real["miou"] = 0.6
    found = rows(compare_reports(pair(tmp_path, data="other", real=real), force=True))
    assert found["mIoU, oasis"][-1] == "-" and found["Pixel accuracy, oasis"][-1] == "0.9000"


# ---------------------------------------------------------------- files

DAMAGED = {
    "empty": "",
    "cut off": '{"frechet": {"net": 1',
    "deep": "[" * 100_000,
    "list": "[]",
    "number": "3",
    "other": '{"name": "x"}',
    "no figures": '{"frechet": {}, "miou": null}',
    "frechet": '{"frechet": {"net": "low"}}',
    "frechet ": '{"frechet": [1]}',
    "huge": '{"miou": 1' + "0" * 400 + "}",
    "truth": '{"miou": true}',
    "kid": '{"kid": {"net": {"value": {"a": 1}}}}',
    "kid's spread": '{"kid": {"net": {"value": 1, "std": "x"}}}',
    "kid's note": '{"kid": {"net": {"value": 1, "note": 3}}}',
    "iou": '{"miou": 0.5, "iou": {"sky": {"a": 1}}}',
    "iou ": '{"miou": 0.5, "iou": [0.5]}',
    "real": '{"miou": 0.5, "real": 3}',
    "real.miou": '{"miou": 0.5, "real": {"miou": "x"}}',
    "counts": '{"miou": 0.5, "counts": [1]}',
    "size": '{"miou": 0.5, "size": 64}',
    "titles": '{"frechet": {"n": 1}, "frechet_titles": {"n": 3}}',
    "intervals": '{"miou": 0.5, "intervals": {"miou": [1]}}',
    "intervals ": '{"miou": 0.5, "intervals": {"miou": 3}}',
    "warnings": '{"miou": 0.5, "warnings": "few"}',
    "protocol": '{"miou": 0.5, "protocol": [1]}',
    "protocol.name": '{"miou": 0.5, "protocol": {"name": 3}}',
    "weights": '{"miou": 0.5, "weights": "x"}',
    "weights.net": '{"miou": 0.5, "weights": {"net": 3}}',
    "lpips": '{"lpips": {"alex": "x"}}',
    "diversity_regions": '{"miou": 0.5, "diversity_regions": [1]}',
    "diversity_regions.pixels": '{"miou": 0.5, "diversity_regions": {"pixels": {"sky": "x"}}}',
    "worst": '{"miou": 0.5, "worst": [3]}',
    "worst ": '{"miou": 0.5, "worst": [{"miou": 0.1, "real_miou": "x"}]}',
    "utility": '{"miou": 0.5, "utility": [1]}',
    "utility.real": '{"miou": 0.5, "utility": {"real": 0.5}}',
    "utility.both": '{"utility": {"both": {"miou": 1, "runs": 3}}}',
    "utility.synthetic": '{"utility": {"synthetic": {"miou": 1, "iou": {"sky": []}}}}',
    "utility.gain": '{"utility": {"gain": "x"}}',
    "utility.seeds": '{"miou": 0.5, "utility": {"seeds": 3}}',
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_is_no_report_is_refused_in_a_line(tmp_path: Path, case: str):
    good, bad = write(tmp_path, "good", full()), write(tmp_path, "bad", DAMAGED[case])
    with pytest.raises(ValueError, match="dpsims evaluate --json") as error:
        compare_reports([good, bad], force=True)
    assert str(error.value).startswith(f"{bad}: ") and "\n" not in str(error.value)
    if "." in case:
        assert f": {case} is damaged" in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path):
    good = write(tmp_path, "good", full())
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("missing", "binary", "."):
        with pytest.raises(ValueError, match="dpsims evaluate --json") as error:
            compare_reports([good, tmp_path / name])
        assert str(error.value).startswith(str(tmp_path))
    with pytest.raises(ValueError, match="at least two"):
        compare_reports([good])


# ---------------------------------------------------------------- the page


def test_the_page_holds_the_table_and_escapes_names(tmp_path: Path):
    files = pair(tmp_path, frechet={"net": 1000.0}, warnings=[EVIL], seeds={EVIL: 1})
    files.append(write(tmp_path, "c", full(model=EVIL, frechet={"net": 1100.0, EVIL: 1})))
    page = to_html(files)
    walk = Walk(page)
    assert not walk.all("script") and not walk.all("img") and EVIL in walk.text("li")
    found = cells(page)
    name = "Frechet distance (net (pretrained) features), oasis ↓"
    assert found[name] == ["1,234.6", "1,000.0*", "1,100.0", "3.5000"]
    assert page.count('class="best"') == page.count("*</td>") > 0
    assert {a.get("scope") for a in walk.all("th")} == {"col", "row"}
