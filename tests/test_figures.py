"""Figures of a report: what is found in it, in which order, and how it is printed; elements of its pages."""

from __future__ import annotations

from typing import Any

from dpsims.evaluation.figures import MEASURES, class_figures, figures, in_order, number
from dpsims.evaluation.markup import Html, plain, tag
from dpsims.evaluation.report import text_table

REPORT: dict[str, Any] = {
    "pixel_accuracy": None,
    "miou": 0.45,
    "kid": {"net": {"value": 0.0123, "std": 0.0004, "note": "few"}},
    "frechet": {"net": 1234.56, "other": 2.0},
    "frechet_infinity": {"net": {"value": 1100.0}},
    "frechet_titles": {"net": "Frechet distance (net (pretrained) features)"},
    "intervals": {"frechet": {"net": [1200.0, 1300.5]}, "miou": [0.44, 0.46]},
    "iou": {"sky": 0.5, "car": None},
}


def test_numbers_are_printed_alike_everywhere():
    values = [None, 0.0, 0.45, 1234.56, 0.0004, -2e-7, float("nan")]
    assert [number(v) for v in values] == ["-", "0.0000", "0.4500", "1,234.6", "0.000400", "-2.0e-07", "nan"]


def test_figures_have_both_names_in_the_order_of_the_measures():
    found = figures(REPORT)
    assert [(name, figure.row, figure.shown()) for name, figure in found.items()] == [
        (
            "Frechet distance (net (pretrained) features)",
            "Frechet distance (net features)",
            "1,234.6 [1,200.0, 1,300.5]",
        ),
        ("Frechet distance (other features)", "Frechet distance (other features)", "2.0000"),
        (
            "Frechet distance (net (pretrained) features), at infinitely many pictures",
            "Frechet distance at infinity (net features)",
            "1,100.0",
        ),
        ("Kernel distance (net features)", "kernel distance (net features)", "0.0123 ± 0.000400"),
        ("mIoU", "mIoU by the segmenter", "0.4500 [0.4400, 0.4600]"),
        ("Pixel accuracy", "pixel accuracy", "-"),
    ]
    kid = found["Kernel distance (net features)"]
    assert kid.note == "few" and kid.shown("+-") == "0.0123 +- 0.000400"
    assert figures({}) == {}


def test_titles_of_the_whole_report_name_the_figures_of_its_real_part():
    found = figures({"frechet": {"net": 3.5}}, REPORT["frechet_titles"])
    assert list(found) == ["Frechet distance (net (pretrained) features)"]


def test_classes_are_figures_too():
    found = class_figures(REPORT)
    assert {name: figure.shown() for name, figure in found.items()} == {"IoU sky": "0.5000", "IoU car": "-"}
    assert all(figure.measure.key == "miou" and figure.row == name for name, figure in found.items())
    assert class_figures({"iou": None}) == {}


def test_diversity_inside_regions_is_a_figure_of_each_class():
    regions = {"net": {"sky": 0.5}, "lpips alex": {"sky": 0.4}, "pixels": {"sky": 0.3, "car": None}}
    found = class_figures({"diversity_regions": regions})
    assert {name: (figure.shown(), figure.measure.key) for name, figure in found.items()} == {
        "Diversity in sky (net features)": ("0.5000", "diversity_features"),
        "Diversity in sky (LPIPS alex)": ("0.4000", "lpips"),
        "Diversity in sky (pixels)": ("0.3000", "diversity"),
        "Diversity in car (pixels)": ("-", "diversity"),
    }
    assert class_figures({"diversity_regions": None}) == {}


def test_use_as_training_data_is_a_figure_for_each_training():
    utility = {
        "images": 10, "seeds": [0], "gain": 0.02, "gain_spread": 0.005,
        "real": {"miou": 0.5, "spread": 0.01}, "both": {"miou": 0.52, "runs": [0.52], "spread": None},
    }  # fmt: skip
    found = figures({"utility": utility, "lpips": {"alex": 0.4}})
    assert {name: (figure.shown(), figure.row, figure.of_model) for name, figure in found.items()} == {
        "LPIPS (alex)": ("0.4000", "LPIPS (alex)", True),
        "mIoU trained on real pictures": ("0.5000 ± 0.0100", "mIoU trained on real pictures", False),
        "mIoU trained on real and generated": ("0.5200", "mIoU trained on real and generated", True),
        "mIoU gained by adding generated pictures": (
            *("0.0200 ± 0.0050", "mIoU gained by adding generated pictures"),
            True,
        ),
    }
    assert figures({"utility": None, "lpips": None}) == {}  # not asked for: not even a row


def test_a_column_of_other_figures_moves_no_measure():
    first, second = figures({"miou": 0.5}), figures(REPORT)
    assert list(in_order([first, second])) == list(second)
    assert list(in_order([figures({"frechet": {"b": 1.0}}), figures({"frechet": {"a": 1.0, "b": 1.0}})])) == [
        "Frechet distance (b features)",
        "Frechet distance (a features)",
    ]


def test_no_two_measures_share_a_name():
    for names in ([m.key for m in MEASURES], [m.title for m in MEASURES], [m.row for m in MEASURES]):
        assert len(set(names)) == len(MEASURES)
    assert {measure.arrow for measure in MEASURES} == {"↓", "↑"}


def test_text_table_shows_every_measure_in_order():
    """The rows that a real report has, under names that need no title of a weights file."""
    report = {
        "frechet": {"net": 1234.56, "other": 2.0},
        "frechet_titles": {"net": "Frechet distance (net (net.safetensors) features)"},
        "frechet_infinity": {"net": 1100.0},
        "kid": {"net": {"value": 0.0123, "std": 0.0456, "subsets": 100, "note": "few"}},
        **{name: {"net": 0.5} for name in ("precision", "recall", "density", "coverage")},
        "miou": 0.45, "pixel_accuracy": 0.8, "diversity": 0.2, "diversity_features": {"net": 0.1},
        "intervals": {"miou": [0.44, 0.46]},
    }  # fmt: skip
    real = {"frechet": {"net": 3.5}, "kid": {"net": {"value": 0.01, "std": None}}, "miou": 0.7}
    header, *lines = text_table({"generated": report, "real": real}).splitlines()
    rows = [[word.strip() for word in line.split("  ") if word.strip()] for line in lines]
    assert header.split() == ["generated", "real"] and {len(line) for line in (header, *lines)} == {
        len(header)
    }
    assert rows == [
        ["Frechet distance (net features)", "1,234.6", "3.5000"],
        ["Frechet distance (other features)", "2.0000", "-"],
        ["Frechet distance at infinity (net features)", "1,100.0", "-"],
        ["kernel distance (net features)", "0.0123 +- 0.0456", "0.0100"],
        ["precision (net features)", "0.5000", "-"],
        ["recall (net features)", "0.5000", "-"],
        ["density (net features)", "0.5000", "-"],
        ["coverage (net features)", "0.5000", "-"],
        ["mIoU by the segmenter", "0.4500 [0.4400, 0.4600]", "0.7000"],
        ["pixel accuracy", "0.8000", "-"],
        ["diversity (pixels)", "0.2000", "-"],
        ["diversity (net features)", "0.1000", "-"],
    ]


def test_elements_escape_text_and_keep_markup():
    assert tag("td", "<b>", Html("<i></i>"), 3) == "<td>&lt;b&gt;<i></i>3</td>"
    assert tag("img", alt='"<', class_=None) == '<img alt="&quot;&lt;">'
    assert plain("a\x1b\nb\ud800") == "a\ufffd b\ufffd"
