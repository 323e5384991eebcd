"""The page of a report: what stands in it, that it needs nothing else, and that data cannot become markup."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dpsims.evaluation.page import PageSamples, write_page
from tests.html_pages import EVIL, Walk, cells


def report(**changes: Any) -> dict[str, Any]:
    real = {"frechet": {"net": 3.5}, "miou": 0.7, "pixel_accuracy": 0.9, "diversity": 0.46,
            "diversity_features": {"net": None}, "iou": {"sky": 0.9, "road": 0.5, "car": None}}  # fmt: skip
    return {
        "model": "runs/a", "data": "camvid test", "size": [64, 80], "frechet": {"net": 1234.56},
        "miou": 0.45, "pixel_accuracy": 0.79, "iou": {"road": 0.3, "car": None, "sky": 0.6},
        "diversity": 0.2, "diversity_features": {"net": 0.1}, "real": real,
        "frechet_titles": {"net": "Frechet distance (net (pretrained) features)"},
        "counts": {"generated": 233, "test": 233}, "seeds": {"generate": 7}, "segmenter": {"images": 6000},
        "warnings": ["only 233 pictures"], "versions": {"torch": "2.15", "dpsims": "0.1.0"}, "seconds": 12.5,
        **changes,
    }  # fmt: skip


def picture(seed: int = 0, height: int = 12, width: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def samples(count: int = 2, name: str = "map") -> PageSamples:
    return PageSamples(
        rows=[
            (f"{name} {i}", picture(i), picture(i + 50), [picture(i), picture(i + 1)]) for i in range(count)
        ],
        worst=[(f"bad {name}", picture(1), picture(2), [picture(3)], 0.0456)],
        neighbours=[(f"of {name}", picture(4), f"train {name}", picture(5), 0.321)],
        colors={"sky": (70, 130, 180), "road": (128, 64, 128)},
        shares={"sky": 0.125, "road": 0.5},
    )


# ---------------------------------------------------------------- what stands in it


def test_figures_stand_in_the_table_under_their_column():
    page = write_page(report(untrained={"frechet": {"net": 9000.0}, "miou": 0.05}), PageSamples())
    found = cells(page)
    assert found["measure"] == ["generated", "real", "untrained"]
    assert found["Frechet distance (net (pretrained) features) ↓"] == ["1,234.6", "3.5000", "9,000.0"]
    assert found["mIoU ↑"] == ["0.4500", "0.7000", "0.0500"]
    assert found["Diversity (net features) ↑"] == ["0.1000", "-", "-"]
    text = Walk(page).text()
    assert "lower is better" in text and "higher is better" in text and "Precision" not in text
    assert "only 233 pictures" in Walk(page).text("section") and 'class="warnings"' in page
    assert 'class="warnings"' not in write_page(report(warnings=[]), PageSamples())


def test_measures_that_came_later_are_shown_where_they_are():
    more = report(
        kid={"net": {"value": 0.0123, "std": 0.0004}},
        precision={"net": 0.8},
        coverage={"net": 0.25},
        frechet_infinity={"net": 1100.0},
        intervals={"frechet": {"net": [1200.0, 1300.5]}, "miou": [0.44, 0.46]},
    )
    found = cells(write_page(more, PageSamples()))
    assert found["Frechet distance (net (pretrained) features) ↓"][0] == "1,234.6 [1,200.0, 1,300.5]"
    title = "Frechet distance (net (pretrained) features), at infinitely many pictures ↓"
    assert found[title] == ["1,100.0", "-"]
    assert found["Kernel distance (net features) ↓"] == ["0.0123 ± 0.000400", "-"]
    assert found["Precision (net features) ↑"][0] == "0.8000" and found["Coverage (net features) ↑"]
    assert found["mIoU ↑"][0] == "0.4500 [0.4400, 0.4600]"
    names = list(found)
    assert names.index(title) < names.index("Kernel distance (net features) ↓") < names.index("mIoU ↑")


def test_measures_that_nobody_took_are_left_out():
    page = write_page(report(miou=None, pixel_accuracy=None, iou={"sky": None}, real={}), PageSamples())
    assert "mIoU" not in Walk(page).text() and "IoU of each class" not in page
    assert cells(page)["measure"] == ["generated"]
    assert "holds no figures" in write_page({}, PageSamples())


def test_how_a_kernel_distance_was_taken_stands_with_it():
    kid = {"value": 2.0, "std": None, "subsets": 1, "subset_size": 233, "note": "subsets of 233, not 1,000"}
    page = write_page(report(kid={"net": kid}), PageSamples())
    assert cells(page)["Kernel distance (net features) ↓"] == ["2.0000", "-"]
    assert "Kernel distance (net features), generated: subsets of 233, not 1,000." in Walk(page).text("p")
    settings = {key: value for key, value in cells(page).items() if key.startswith("kid")}
    assert settings == {"kid.net.subsets": ["1"], "kid.net.subset_size": ["233"]}


def test_head_and_settings_name_what_was_measured():
    protocol = {"name": "oasis", "resize": {"filter": "bicubic"}, "seeds": [1, 2]}
    page = write_page(report(protocol=protocol, date="2026-11-22", commit="abc123"), PageSamples())
    walk = Walk(page)
    assert walk.text("h1") == walk.text("title") == "Evaluation of runs/a"
    for told in ("camvid test", "64 x 80", "oasis", "generated 233", "2026-11-22", "abc123", "dpsims 0.1.0"):
        assert told in walk.text("header")
    found = cells(page)
    assert found["protocol.resize.filter"] == ["bicubic"] and found["protocol.seeds"] == ["1, 2"]
    assert found["segmenter.images"] == ["6000"] and found["versions.torch"] == ["2.15"]
    assert not any(key.startswith(("real", "iou", "warnings")) for key in found)


def test_classes_are_sorted_with_a_bar_each():
    page = write_page(report(), samples())
    rows = [name for name in cells(page) if name in ("sky", "road", "car")]
    assert rows == ["sky", "road", "car"]  # best first, not measured last
    assert cells(page)["sky"] == ["", "0.6000", "0.9000", "12 %"] and cells(page)["car"][1:] == ["-"] * 3
    assert "width:60.0%;background:rgb(70,130,180)" in page and "width:90.0%" in page
    assert page.count('class="bar"') == 2 and page.count('class="bar thin"') == 2
    assert "pixels" not in cells(write_page(report(), PageSamples()))["class"]


def test_many_classes_are_folded_below_those_furthest_from_real():
    names = [f"class {i}" for i in range(171)]
    iou = {name: i / 200 for i, name in enumerate(names)}
    page = write_page(report(iou=iou, real={"iou": {**iou, "class 9": 0.99}}), PageSamples())
    walk = Walk(page)
    assert [("open" in attributes) for attributes in walk.all("details")] == [True, False]
    first, second = re.findall("<details.*?</details>", page, re.DOTALL)
    assert list(cells(first))[1] == "class 9" and len(cells(first)) == 15 + 1
    assert list(cells(second))[1] == "class 170" and len(cells(second)) == 171 + 1


# ---------------------------------------------------------------- pictures


def pictures(page: str) -> list[tuple[str, Image.Image, dict[str, str]]]:
    found = []
    for attributes in Walk(page).all("img"):
        kind, data = attributes["src"].split(";base64,")
        image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
        assert kind == f"data:image/{str(image.format).lower()}"
        assert image.size == (int(attributes["width"]), int(attributes["height"]))
        found.append((attributes["alt"], image, attributes))
    return found


def test_pictures_are_put_in_as_they_are():
    found = pictures(write_page(report(), samples(1)))
    assert [alt for alt, _, _ in found] == [
        "label map of map 0",
        "real picture of map 0",
        "picture 1 generated from the label map of map 0",
        "picture 2 generated from the label map of map 0",
        "label map of bad map",
        "real picture of bad map",
        "picture 1 generated from the label map of bad map",
        "picture generated from the label map of of map",
        "training picture train map",
    ]
    for alt, image, attributes in found:
        is_map = alt.startswith("label map")
        assert image.format == ("PNG" if is_map else "JPEG") and (attributes.get("class") == "map") == is_map
    assert np.array_equal(np.asarray(found[0][1]), picture(0))
    smooth = np.full((16, 24, 3), (200, 60, 30), np.uint8)
    page = write_page(report(), PageSamples(rows=[("a", smooth, None, [smooth])]))
    (_, label, _), (_, photo, _) = pictures(page)
    assert np.array_equal(np.asarray(label), smooth)
    assert np.abs(np.asarray(photo).astype(int) - smooth).max() <= 3


def test_sections_of_pictures_tell_name_iou_and_distance():
    text = Walk(write_page(report(), samples())).text("h3")
    assert "map 1" in text and "bad map: IoU 0.0456" in text and "of map: distance 0.3210" in text


def test_distances_stand_beside_those_of_real_pictures():
    neighbour = {
        "name": "of map",
        "distance": 0.321,
        "nearest": 7,
        "nearest_name": "t7",
        "real_distance": 1.5,
    }
    told = report(neighbours=[neighbour])
    text = Walk(write_page(told, samples())).text("h3")
    assert "of map: distance 0.3210 (usual for real pictures: 1.5000)" in text
    found = cells(write_page(told, PageSamples()))
    assert found["generated from"] == ["nearest", "distance", "usual for real pictures"]
    assert found["of map"] == ["t7", "0.3210", "1.5000"]


def test_a_large_page_shows_fewer_rows_and_says_so():
    big = samples(400)
    limit = 120_000
    page = write_page(report(), big, limit)
    shown = len(re.findall("<h3>map ", page))
    assert 0 < shown < 400 and f"{shown} of 400 are shown: the page is kept under 0.12 MB" in page
    assert 0.7 * limit < len(page.encode()) <= limit
    assert "bad map" in page and "train map" in page  # the few have their place beside the many
    one = PageSamples(rows=[("huge", picture(0, 300, 300), None, [picture(0, 300, 300)])])
    page = write_page(report(), one, limit)
    assert "0 of 1 are shown" in page and not pictures(page)


def test_without_pictures_worst_and_neighbours_are_lists():
    told = report(
        worst=[{"name": "w1", "miou": 0.01, "index": 3}],
        neighbours=[{"name": "n1", "distance": 0.5, "nearest": "t9"}],
    )
    found = cells(write_page(told, PageSamples()))
    assert found["w1"] == ["0.0100"] and found["n1"] == ["t9", "0.5000", "-"]
    assert "w1" not in cells(write_page(told, samples()))  # shown as pictures then


def test_a_picture_of_floats_is_a_bug():
    with pytest.raises(AssertionError):
        write_page(report(), PageSamples(rows=[("a", picture() / 255.0, None, [picture()])]))


# ---------------------------------------------------------------- safe and alone


def evil_report() -> dict[str, Any]:
    return report(
        model=EVIL, data=EVIL, split=EVIL, date=EVIL, commit=EVIL, size=[EVIL, 1],
        protocol={EVIL: EVIL, "name": EVIL}, warnings=[EVIL], iou={EVIL: 0.5, "sky": 0.1},
        frechet={EVIL: 1.0}, frechet_titles={EVIL: EVIL}, precision={EVIL: 0.1}, counts={EVIL: 3},
        seeds={EVIL: EVIL}, segmenter=EVIL, versions={"dpsims": EVIL, EVIL: EVIL},
        unknown=[EVIL, {EVIL: EVIL}],
        worst=[{"name": EVIL, "miou": 0.1}], neighbours=[{"name": EVIL, "distance": 1, "nearest": EVIL}],
    )  # fmt: skip


@pytest.mark.parametrize("pictured", [False, True])
def test_strings_of_the_data_never_become_markup(pictured: bool):
    given = samples(2, EVIL) if pictured else PageSamples()
    walk = Walk(write_page(evil_report(), given))
    assert not walk.all("script") and all("script" not in path for path, _ in walk.texts)
    assert len(walk.all("img")) == (2 * 4 + 3 + 2 if pictured else 0)
    for name, attributes in walk.elements:
        assert not [key for key in attributes if key.startswith("on")], name
    assert walk.text().count(EVIL) >= 20
    if pictured:
        assert f"label map of {EVIL} 0" in [attributes["alt"] for attributes in walk.all("img")]


def test_the_page_asks_for_nothing_outside():
    page = write_page(report(), samples())
    walk = Walk(page)
    for _, attributes in walk.elements:
        for key in ("src", "href", "srcset", "action", "data", "poster"):
            assert attributes.get(key, "data:").startswith("data:")
    style = walk.text("head") + "".join(text for path, text in walk.texts if "style" in path)
    style += " ".join(attributes.get("style", "") for _, attributes in walk.elements)
    assert "url(" not in style and "@import" not in style and style.count("{") == style.count("}") > 20
    without = re.sub(r'src="data:[^"]*"', "", page).replace("http-equiv", "")
    assert "http" not in without and "//" not in without
    policy = [a["content"] for a in walk.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_the_page_is_one_that_phones_readers_and_printers_take():
    page = write_page(report(), samples())
    walk = Walk(page)
    assert page.startswith("<!doctype html>\n") and walk.all("html") == [{"lang": "en"}]
    assert {"charset": "utf-8"} in walk.all("meta")
    assert [a["content"] for a in walk.all("meta") if a.get("name") == "viewport"]
    assert {a.get("scope") for a in walk.all("th")} == {"col", "row"}
    assert len(walk.all("caption")) == len(walk.all("table")) == len(walk.all("thead"))
    assert all(a["alt"] for a in walk.all("img"))
    for rule in ("prefers-color-scheme:dark", "@media print", "image-rendering:pixelated"):
        assert rule in page


def test_names_that_no_file_can_hold_are_replaced():
    page = write_page(report(model="a\udc80b\x1b[31m\u202e\nc", warnings=["\ud800"]), PageSamples())
    assert "a\ufffdb\ufffd[31m\ufffd c" in page and page.encode()
    assert not re.search("[\x00-\x09\x0b-\x1f]", page)


def test_the_same_report_gives_the_same_page():
    assert write_page(report(), samples()) == write_page(report(), samples())
