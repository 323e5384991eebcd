"""The figures of a report: which measures there are, what they say, their order, and how they are printed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Measure:
    """A measure of the report: its key there, its names, which way is better, and what it says."""

    key: str
    title: str
    row: str  # as the table in the terminal calls it
    better: str  # "lower" or "higher"
    meaning: str

    @property
    def arrow(self) -> str:
        return {"lower": "\u2193", "higher": "\u2191"}[self.better]


@dataclass(frozen=True)
class Figure:
    """One figure of a report; value: None if not measured.

    name: measure and network, as a row of a page is called; row: as one of the table in the terminal is. std:
    spread over subsets or trainings; interval: 95 %; note: what is not as was asked for; of_model: whether it
    depends on the generated pictures, and so can be the best of several.
    """

    measure: Measure
    name: str
    value: float | None
    std: float | None = None
    interval: tuple[float, float] | None = None
    row: str = ""
    note: str | None = None
    of_model: bool = True

    def shown(self, plus_minus: str = "\u00b1") -> str:
        text = number(self.value)
        if self.std is not None:
            text += f" {plus_minus} {number(self.std)}"
        if self.interval is not None:
            text += f" [{number(self.interval[0])}, {number(self.interval[1])}]"
        return text


def figures(section: Mapping[str, Any], titles: Mapping[str, str] | None = None) -> dict[str, Figure]:
    """All figures of a report (or of its "real" section) by name, in the order of MEASURES.

    titles: those of the Frechet distances, where the section has none of its own.
    """
    named = section.get("frechet_titles") or titles or {}
    found: dict[str, Figure] = {}
    section = {**section, **_of_artifacts(section)}
    for measure in MEASURES:
        if measure.key not in section:
            continue
        entry = section[measure.key]
        if measure.key in _ONLY_ON_DEMAND and entry is None:
            continue
        if measure.key == "utility":
            found |= _of_utility(measure, entry)
            continue
        interval = (section.get("intervals") or {}).get(measure.key)
        if not isinstance(entry, Mapping):
            found[measure.title] = Figure(
                measure, measure.title, entry, interval=_pair(interval), row=measure.row
            )
            continue
        for network, value in entry.items():
            of = network if measure.key == "lpips" else f"{network} features"
            name = f"{measure.title} ({of})"
            if measure.key.startswith("frechet"):
                name = named.get(network, f"Frechet distance ({network} features)")
                name += _AT_INFINITY if measure.key == "frechet_infinity" else ""
            parts = value if isinstance(value, Mapping) else {"value": value}
            found[name] = Figure(
                measure,
                name,
                parts.get("value"),
                parts.get("std"),
                _pair(interval.get(network) if isinstance(interval, Mapping) else None),
                f"{measure.row} ({of})",
                parts.get("note"),
            )
    return found


def _of_artifacts(section: Mapping[str, Any]) -> dict[str, float | None]:
    """Artifact -> value, of a report ("generated" and "real" of each) or of its "real" section (a value)."""
    entries = section.get("artifacts") or {}
    return {
        key: entry.get("generated") if isinstance(entry, Mapping) else entry
        for key, entry in entries.items()
        if key in ARTIFACTS
    }


def _of_utility(measure: Measure, utility: Mapping[str, Any]) -> dict[str, Figure]:
    found = {}
    for part, of in TRAINED_ON.items():
        scores, name = utility.get(part), f"mIoU trained on {of}"
        if scores is not None:
            figure = Figure(measure, name, scores.get("miou"), scores.get("spread"), row=name)
            found[name] = replace(figure, of_model=part != "real")
    if utility.get("gain") is not None:
        name = "mIoU gained by adding generated pictures"
        found[name] = Figure(measure, name, utility["gain"], utility.get("gain_spread"), row=name)
    return found


def class_figures(section: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures of each class of a report (or of its "real" section): "IoU NAME", then diversity inside
    regions, "Diversity in NAME (pixels)" and so on, then artifacts, "Lattice in NAME" and so on.
    """
    by_key = {measure.key: measure for measure in MEASURES}
    found = {
        (name := f"IoU {of}"): Figure(by_key["miou"], name, value, row=name)
        for of, value in (section.get("iou") or {}).items()
    }
    for kind, values in (section.get("diversity_regions") or {}).items():
        measure, told = by_key[region_measure(kind)], region_title(kind)
        for of, value in values.items():
            name = f"Diversity in {of} ({told})"
            found[name] = Figure(measure, name, value, row=name)
    return found | artifact_figures(section)


def artifact_figures(section: Mapping[str, Any]) -> dict[str, Figure]:
    """The artifacts of each class of a report (or of its "real" section), such as "Texture lock in NAME"."""
    by_class = section.get("artifacts_by_class") or {}
    found = {}
    for measure in MEASURES:
        for of, value in (by_class.get(measure.key) or {}).items() if measure.key in ARTIFACTS else ():
            name = f"{measure.title} in {of}"
            found[name] = Figure(measure, name, value, row=name)
    return found


def region_measure(kind: str) -> str:
    """Key of the measure that "pixels", "lpips NAME" or the name of a network takes inside regions."""
    return {"pixels": "diversity", "lpips": "lpips"}.get(kind.partition(" ")[0], "diversity_features")


def region_title(kind: str) -> str:
    """How a page calls "pixels", "lpips NAME" or the name of a network."""
    if kind.startswith("lpips "):
        return f"LPIPS {kind.removeprefix('lpips ')}"
    return kind if kind == "pixels" else f"{kind} features"


def in_order(columns: Iterable[Mapping[str, Figure]]) -> dict[str, Measure]:
    """Every key of any column and its measure, in the order of MEASURES, as first met within a measure.

    A column that has a figure of another's order must not move a measure out of its place.
    """
    found = {key: figure.measure for column in columns for key, figure in column.items()}
    return dict(sorted(found.items(), key=lambda item: MEASURES.index(item[1])))


def number(value: float | None) -> str:
    """A figure as it is printed: "-" for none, four decimals, more only where they would show hardly any."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 100:
        return f"{value:,.1f}"
    if value == 0 or abs(value) >= 0.001:
        return f"{value:.4f}"
    return f"{value:.6f}" if abs(value) >= 1e-5 else f"{value:.1e}"


def _pair(interval: Any) -> tuple[float, float] | None:
    return (interval[0], interval[1]) if isinstance(interval, Sequence) else None


_AT_INFINITY = ", at infinitely many pictures"
_ONLY_ON_DEMAND = ("lpips", "utility")  # where nobody asked for them, no row says so

ARTIFACTS = ("texture_lock", "lattice", "noise_detail")
"""keys of "artifacts" in a report"""
TRAINED_ON = {"real": "real pictures", "synthetic": "generated pictures", "both": "real and generated"}
"""the trainings of "utility" in a report, and how they are called"""

MEASURES = (
    Measure(
        "frechet", "Frechet distance", "Frechet distance", "lower",
        "How far generated and real pictures lie apart in the features of a network, by mean and covariance. "
        "It is FID with the Inception network only. Few pictures push it up: compare at equal counts.",
    ),
    Measure(
        "frechet_infinity", "Frechet distance at infinity", "Frechet distance at infinity", "lower",
        "The same distance extrapolated to endlessly many pictures, which takes most of that push out.",
    ),
    Measure(
        "kid", "Kernel distance", "kernel distance", "lower",
        "The same question by a kernel; it is KID with the Inception network. Not pushed up by few pictures: "
        "sets that do not differ lie around 0, on either side. Behind \u00b1 the spread over subsets.",
    ),
    Measure(
        "precision", "Precision", "precision", "higher",
        "Share of the generated pictures that lie among real ones: realism without variety.",
    ),
    Measure(
        "recall", "Recall", "recall", "higher",
        "Share of the real pictures that lie among generated ones: variety; what was never drawn lowers it.",
    ),
    Measure(
        "density", "Density", "density", "higher",
        "As precision, but counts how densely real pictures lie there, so that outliers weigh less; may "
        "exceed 1.",
    ),
    Measure(
        "coverage", "Coverage", "coverage", "higher",
        "Share of the real pictures that have a generated one close by.",
    ),
    Measure(
        "miou", "mIoU", "mIoU by the segmenter", "higher",
        "A segmenter reads the generated pictures back, and its answer is compared with the label map that "
        "was asked for: intersection over union, mean over the classes. Says nothing of realism, and little "
        "where the segmenter misreads real pictures, too.",
    ),
    Measure(
        "pixel_accuracy", "Pixel accuracy", "pixel accuracy", "higher",
        "Share of the labelled pixels that the segmenter reads as asked for; large classes decide it.",
    ),
    Measure(
        "diversity", "Diversity (pixels)", "diversity (pixels)", "higher",
        "How much pictures of one label map differ (mean absolute difference, values from -1 to 1); 0 is a "
        "model that ignores its noise. "
        "Garbage is diverse, too: read it beside realism.",
    ),
    Measure(
        "diversity_features", "Diversity", "diversity", "higher",
        "The same in the features of a network: 1 - cosine.",
    ),
    Measure(
        "lpips", "LPIPS", "LPIPS", "higher",
        "The same by LPIPS, a distance of network features weighted to agree with what people see; the usual "
        "figure of papers. It depends on the network, which is named.",
    ),
    Measure(
        "texture_lock", "Texture lock", "texture lock", "lower",
        "Correlation of fine detail (luminance minus its 9x9 mean) at the same place of images of different "
        "maps, where both have the same class; mean over the classes that cover 2 % or more. Near 0 in real "
        "photographs; 1 is a texture that stays at its place whatever the map.",
    ),
    Measure(
        "lattice", "Lattice", "lattice", "lower",
        "Autocorrelation of fine detail inside a class at shifts of 4, 8 or 16 pixels, along both axes and "
        "the diagonal (root mean square of the three, the largest shift). 1 is a pattern that repeats; what "
        "exceeds the real value is the generator's grid. Windows and fences repeat in real photographs, too.",
    ),
    Measure(
        "noise_detail", "Noise detail", "noise detail", "lower",
        "Correlation of fine detail between two images of one map with different noise; 1 is noise that "
        "changes no detail. Class borders, which both share, keep it above 0. Real photographs have no "
        "second noise.",
    ),
    Measure(
        "utility", "Use as training data", "mIoU trained on", "higher",
        "A segmenter is trained on real pictures, on generated ones of the same maps, and on both, and reads "
        "real pictures that none of them was trained on: mIoU. Behind \u00b1 the spread over trainings.",
    ),
)  # fmt: skip
