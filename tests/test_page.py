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


def full_report(**changes: Any) -> dict[str, Any]:
    """A report with every part that there is."""
    utility = {part: {"miou": miou, "pixel_accuracy": miou + 0.3, "iou": {"sky": miou, "car": None},
                      "runs": [miou - 0.01, miou + 0.01], "spread": 0.0141}
               for part, miou in (("real", 0.5), ("synthetic", 0.4), ("both", 0.525))}  # fmt: skip
    more = {
        "protocol": {"name": "oasis", "size": [64, 80], "resize": "bicubic", "maps": "native", "seed": 7,
                     "diversity_samples": 20, "diversity_maps": None, "reference": "test", "samples": 1},
        "weights": {"net": "0f3b1c88a2d94e17", "lpips alex": "77aa00b1c2d3e4f5", "model": "deadbeef01234567",
                    "segmenter": "c0ffee0123456789"},
        "lpips": {"alex": 0.4321},
        "diversity_regions": {"pixels": {"sky": 0.1, "road": 0.2, "car": None},
                              "net": {"sky": 0.0, "road": 0.03}, "lpips alex": {"sky": 0.4, "road": 0.3}},
        "worst": [{"index": 3, "miou": 0.0456, "name": "bad map", "real_miou": 0.61}],
        "utility": {"images": 6000, "seeds": [0, 1], "size": [64, 80], "pairs": 367, "test": 233, **utility,
                    "gain": 0.025, "gain_runs": [0.02, 0.03], "gain_spread": 0.0071},
    }  # fmt: skip
    whole = report(**more)
    whole["real"] |= {"diversity_regions": {"pixels": {"sky": 0.4, "road": 0.3}}, "lpips": {"alex": 0.6}}
    return {**whole, **changes}


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
    both = Walk(write_page(report(kid={"a": kid, "b": kid}), PageSamples())).text("p")
    told = (
        "Kernel distance (a features) and Kernel distance (b features), generated: subsets of 233, not 1,000."
    )
    assert told in both and both.count("subsets of 233") == 1
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
    assert "Protocol oasis." in walk.text("header") and not walk.text("details").count("oasis.")
    assert found["protocol.resize.filter"] == ["bicubic"] and found["protocol.seeds"] == ["1, 2"]
    assert found["segmenter.images"] == ["6000"] and found["versions.torch"] == ["2.15"]
    assert not any(key.startswith(("real", "iou", "warnings")) for key in found)


def test_the_protocol_is_told_in_a_line():
    told = Walk(write_page(full_report(), PageSamples())).text("header")
    assert told.endswith(
        "Protocol oasis. Reference: the real pictures of the test split; compared at 64 x 80; resized by a "
        "bicubic filter; maps compared at the maps' own size; pictures of each map: 1; for diversity 20 of "
        "every map; seed 7."
    )
    own = {"name": None, "maps": [256, 512], "diversity_samples": 2, "diversity_maps": 64}
    told = Walk(write_page(report(protocol=own), PageSamples())).text("header")
    assert told.endswith("No named protocol. Maps compared at 256 x 512; for diversity 2 of each of 64 maps.")
    assert "rotocol" not in Walk(write_page(report(), PageSamples())).text("header")


def test_hashes_and_versions_are_folded_away_at_the_end():
    page = write_page(full_report(), samples())
    folded = re.findall("<details.*?</details>", page, re.DOTALL)[-1]
    assert page.index("How it was measured") > page.index("Nearest training pictures")
    assert not Walk(folded).all("details")[0].get("open")
    found = cells(folded)
    assert list(found)[1] == "protocol.name"
    assert found["weights.model"] == ["deadbeef01234567"] and found["weights.net"] == ["0f3b1c88a2d94e17"]
    assert found["versions.torch"] == ["2.15"] and found["protocol.diversity_maps"] == ["None"]
    assert not any(key.startswith(("utility", "lpips", "diversity_regions")) for key in found)


def test_classes_are_sorted_with_a_bar_each():
    page = write_page(report(), samples())
    rows = [name for name in cells(page) if name in ("sky", "road", "car")]
    assert rows == ["sky", "road", "car"]  # best first, not measured last
    assert cells(page)["sky"] == ["", "0.6000", "0.9000", "12 %"] and cells(page)["car"][1:] == ["-"] * 3
    assert "width:60.0%;background:rgb(70,130,180)" in page and "width:90.0%" in page
    assert page.count('class="bar"') == 2 and page.count('class="bar thin"') == 2
    assert "pixels" not in cells(write_page(report(), PageSamples()))["class"]


def section(page: str, title: str) -> str:
    """The section of a page below a heading; "" where there is none."""
    found = re.search(f"<section[^>]*><h2>{title}</h2>.*?</section>", page, re.DOTALL)
    return found[0] if found else ""


def test_what_the_segmenter_scores_on_real_pictures_stands_above_its_answers():
    said = Walk(section(write_page(report(), samples()), "IoU of each class")).text("p")
    assert (
        "the segmenter itself reaches mIoU 0.7000 and pixel accuracy 0.9000." in said and "Thin bar" in said
    )
    said = Walk(section(write_page(report(real=None), samples()), "IoU of each class")).text("p")
    assert "itself reaches" not in said and "Thin bar" not in said


def test_diversity_inside_regions_has_a_table_for_each_distance():
    part = section(write_page(full_report(), samples()), "Diversity inside regions")
    tables = re.findall("<details.*?</details>", part, re.DOTALL)
    assert [Walk(one).text("summary") for one in tables] == [
        "pixels: 2 classes, largest first",
        "net features: 2 classes, largest first",
        "LPIPS alex: 2 classes, largest first",
    ]
    assert ["open" in Walk(one).all("details")[0] for one in tables] == [True, False, False]
    assert cells(tables[0]) == {
        "class": ["diversity", "generated", "real"],
        "road": ["", "0.2000", "0.3000"],
        "sky": ["", "0.1000", "0.4000"],
        "car": ["", "-", "-"],
    }
    assert cells(tables[2]) == {
        "class": ["diversity", "generated"],
        "sky": ["", "0.4000"],
        "road": ["", "0.3000"],
    }
    # of the largest figure, 0.4 of real pictures
    assert re.findall(r"width:([\d.]+)%", tables[0]) == ["50.0", "75.0", "25.0", "100.0"]
    assert re.findall(r"width:([\d.]+)%", tables[1]) == ["100.0", "0.0"]


def test_regions_that_all_look_the_same_have_no_bar_of_nothing():
    flat = report(diversity_regions={"pixels": {"sky": 0.0, "road": 0.0}})
    part = section(write_page(flat, samples()), "Diversity inside regions")
    assert re.findall(r"width:([\d.]+)%", part) == ["0.0", "0.0"]
    many = {f"class {i}": i / 200 for i in range(31)}
    part = section(
        write_page(report(diversity_regions={"pixels": many}), samples()), "Diversity inside regions"
    )
    assert [("open" in attributes) for attributes in Walk(part).all("details")] == [False]


def test_use_as_training_data_is_a_section_of_its_own():
    page = write_page(full_report(), samples())
    part = section(page, "Use as training data")
    summary, by_class = re.findall("<table.*?</table>", part, re.DOTALL)
    assert cells(summary) == {
        "trained on": ["mIoU", "mean", "gain over real", "pixel accuracy"],
        "real pictures": ["", "0.5000 ± 0.0141", "-", "0.8000"],
        "generated pictures": ["", "0.4000 ± 0.0141", "-0.1000", "0.7000"],
        "real and generated": ["", "0.5250 ± 0.0141", "+0.0250", "0.8250"],
    }
    assert re.findall(r"width:([\d.]+)%", summary) == ["50.0", "40.0", "52.5"]
    assert cells(by_class)["sky"] == ["0.5000", "0.4000", "0.5250"] and cells(by_class)["car"] == ["-"] * 3
    assert "6,000 pictures seen by each training, of 367 of each kind, at 64 x 80, seeds 0, 1." in Walk(
        part
    ).text("section")
    assert "trained on" not in section(page, "Figures")
    once = {"real": {"miou": 0.5, "runs": [0.5], "spread": None}, "images": 10, "seeds": [3]}
    part = section(write_page(report(utility=once), samples()), "Use as training data")
    assert cells(part)["real pictures"] == ["", "0.5000", "-", "-"] and "seed 3." in part and "±" not in part


def test_parts_that_were_not_measured_have_no_section():
    nothing = {
        "miou": None,
        "pixel_accuracy": None,
        "iou": None,
        "diversity": None,
        "diversity_features": None,
    }
    nothing |= {"lpips": None, "diversity_regions": {"pixels": {"sky": None}}, "utility": None, "real": None}
    page = write_page(report(**nothing, worst=None, neighbours=None), PageSamples())
    assert re.findall("<h2>(.*?)</h2>", page) == [
        "Read this first",
        "Figures",
        "How to read this",
        "How it was measured",
    ]
    assert list(cells(section(page, "Figures"))) == [
        "measure",
        "Frechet distance (net (pretrained) features) ↓",
    ]


def test_many_classes_are_folded_below_those_furthest_from_real():
    names = [f"class {i}" for i in range(171)]
    iou = {name: i / 200 for i, name in enumerate(names)}
    page = write_page(report(iou=iou, real={"iou": {**iou, "class 9": 0.99}}), PageSamples())
    walk = Walk(page)
    assert [("open" in attributes) for attributes in walk.all("details")] == [True, False, False]
    first, second, _ = re.findall("<details.*?</details>", page, re.DOTALL)
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
    assert "the real picture" not in text


def test_the_real_picture_of_a_worst_map_says_whose_fault_it_is():
    page = write_page(full_report(), samples())
    assert "bad map: IoU 0.0456; the real picture: 0.6100" in Walk(page).text("h3")
    assert "the generated picture is at fault" in Walk(section(page, "Worst maps")).text("p")
    page = write_page(full_report(), PageSamples())
    assert cells(section(page, "Worst maps")) == {
        "map": ["IoU", "of the real picture"],
        "bad map": ["0.0456", "0.6100"],
    }
    page = write_page(full_report(worst=[{"name": "bad map", "miou": 0.0456}]), samples())
    assert "at fault" not in page and "the real picture:" not in page


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
        protocol={
            EVIL: EVIL, "name": EVIL, "maps": EVIL, "resize": EVIL, "reference": EVIL, "size": [EVIL]
        },
        weights={EVIL: EVIL}, lpips={EVIL: 0.1},
        diversity_regions={EVIL: {EVIL: 0.5}, f"lpips {EVIL}": {EVIL: 1}},
        utility={"real": {"miou": 0.1, "iou": {EVIL: 0.5}}, "seeds": [EVIL], "size": [EVIL]},
        warnings=[EVIL], iou={EVIL: 0.5, "sky": 0.1},
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
    assert walk.text().count(EVIL) >= 30
    if pictured:
        assert f"label map of {EVIL} 0" in [attributes["alt"] for attributes in walk.all("img")]


def test_the_page_asks_for_nothing_outside():
    page = write_page(full_report(), samples())
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
    page = write_page(full_report(), samples())
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
