"""The parts of a page that show figures by class, or by training, as tables with bars."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dpsims.evaluation.figures import ARTIFACTS, MEASURES, TRAINED_ON, number, region_title
from dpsims.evaluation.markup import Html, table, tag

Values = Mapping[str, float | None]
Colors = Mapping[str, tuple[int, int, int]]

FEW_CLASSES = 30  # more than this many stay folded, below those that most need a look
_FURTHEST = 15


def layout_section(report: Mapping[str, Any], colors: Colors, shares: Values) -> Html:
    """IoU of each class, with what the segmenter scores on real pictures; nothing where not measured."""
    iou, on_real = report.get("iou") or {}, report.get("real") or {}
    real = on_real.get("iou") or {}
    measured = [name for name in iou if iou[name] is not None]
    if not measured:
        return Html()
    says = []
    if on_real.get("miou") is not None:
        accuracy = on_real.get("pixel_accuracy")
        also = "" if accuracy is None else f" and pixel accuracy {number(accuracy)}"
        says.append(tag("p", f"{_ON_REAL} mIoU {number(on_real['miou'])}{also}. {_JUDGE}"))

    def shown(names: Sequence[str], summary: str, opened: bool) -> Html:
        rows = [
            [*_class_row(name, iou, real, 1, colors), *([_share(shares.get(name))] if shares else [])]
            for name in names
        ]
        head = ["class", "IoU", "generated", "real", *(["pixels"] if shares else [])]
        return _folded(summary, table(head, rows, f"IoU of each class: {summary}"), opened)

    few = len(iou) <= FEW_CLASSES
    # classes that occur neither in the maps nor in the segmenter's answers come last
    parts = [shown(_largest_first(iou), f"all {len(iou)} classes, best first", few)]
    if not few:
        gaps = sorted(measured, key=lambda name: iou[name] - (real.get(name) or 0))[:_FURTHEST]
        parts.insert(0, shown(gaps, f"the {len(gaps)} classes furthest below real pictures", True))
    about = tag("p", _BARS if real else _BARS[: _BARS.index(" Thin")], class_="soft")
    return tag("section", tag("h2", "IoU of each class"), *says, about, *parts)


def region_section(report: Mapping[str, Any], colors: Colors) -> Html:
    """Diversity inside the regions of each class, a table for each distance; nothing where not measured."""
    kinds = report.get("diversity_regions") or {}
    on_real = (report.get("real") or {}).get("diversity_regions") or {}
    parts = []
    for kind, values in kinds.items():
        known = [value for value in values.values() if value is not None]
        if not known:
            continue
        real = on_real.get(kind) or {}
        full = max([*known, *(real[name] or 0 for name in values if name in real)])
        rows = [
            _class_row(name, values, real if any(real.values()) else None, full, colors)
            for name in _largest_first(values)
        ]
        head = ["class", "diversity", "generated", *(["real"] if any(real.values()) else [])]
        summary = f"{region_title(kind)}: {len(known)} classes, largest first"
        caption = f"Diversity inside regions, {summary}"
        opened = not parts and len(values) <= FEW_CLASSES
        parts.append(_folded(summary, table(head, rows, caption), opened))
    if not parts:
        return Html()
    return tag("section", tag("h2", "Diversity inside regions"), tag("p", _REGIONS, class_="soft"), *parts)


def artifact_section(report: Mapping[str, Any], colors: Colors) -> Html:
    """The artifacts of each class, a table for each; nothing where not measured."""
    kinds = report.get("artifacts_by_class") or {}
    on_real = (report.get("real") or {}).get("artifacts_by_class") or {}
    parts = []
    for measure in MEASURES:
        values = kinds.get(measure.key) or {} if measure.key in ARTIFACTS else {}
        if all(value is None for value in values.values()):
            continue
        real = on_real.get(measure.key) or {}
        beside = real if any(value is not None for value in real.values()) else None
        rows = [_class_row(name, values, beside, 1, colors) for name in _largest_first(values)]
        head = ["class", "correlation", "generated", *(["real"] if beside else [])]
        parts.append(_folded(measure.title, table(head, rows, f"{measure.title} of each class"), False))
    if not parts:
        return Html()
    about = tag("p", _CORRELATIONS, class_="soft")
    return tag("section", tag("h2", "Artifacts of each class"), about, *parts)


def utility_section(report: Mapping[str, Any]) -> Html:
    """What the generated pictures are worth as training data; nothing where it was not measured."""
    utility = report.get("utility") or {}
    scores = {of: utility[part] for part, of in TRAINED_ON.items() if utility.get(part)}
    if not scores:
        return Html()
    alone = (utility.get("real") or {}).get("miou")
    rows: list[list[object]] = []
    for of, score in scores.items():
        value, spread = score.get("miou"), score.get("spread")
        beside = "-" if None in (value, alone) or of == TRAINED_ON["real"] else f"{value - alone:+.4f}"
        shown = number(value) if spread is None else f"{number(value)} \u00b1 {number(spread)}"
        bar = _bars(((value, "bar", "var(--soft)" if of == TRAINED_ON["real"] else "var(--bar)"),), 1)
        rows.append([of, bar, shown, beside, number(score.get("pixel_accuracy"))])
    head = ["trained on", "mIoU", "mean", "gain over real", "pixel accuracy"]
    parts = [tag("p", _WORTH), table(head, rows, "Segmenters by what they were trained on")]
    seeds, size = utility.get("seeds") or (), " x ".join(map(str, utility.get("size") or ()))
    facts = [
        f"{utility['images']:,} pictures seen by each training" if utility.get("images") else "",
        f"of {utility['pairs']:,} of each kind" if utility.get("pairs") else "",
        f"at {size}" if size else "",
        f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" if seeds else "",
    ]
    told = ", ".join(filter(None, facts))
    if told:
        spread = " \u00b1: the spread over the trainings with these seeds." if len(seeds) > 1 else ""
        parts.append(tag("p", f"{told}.{spread}", class_="soft"))
    names = list(dict.fromkeys(name for score in scores.values() for name in score.get("iou") or ()))
    if names:
        by_class = [
            [name, *(number((score.get("iou") or {}).get(name)) for score in scores.values())]
            for name in names
        ]
        whole = table(["class", *scores], by_class, "IoU of each class by what was trained on")
        parts.append(_folded(f"IoU of each of the {len(names)} classes", whole, False))
    return tag("section", tag("h2", "Use as training data"), *parts)


def _class_row(name: str, values: Values, real: Values | None, full: float, colors: Colors) -> list[object]:
    """Name, bars whose whole width is `full`, figure; real: None leaves that column out."""
    red, green, blue = (int(value) for value in colors.get(name, (120, 130, 145)))
    bars = [(values[name], "bar", f"rgb({red},{green},{blue})")]
    if real is not None:
        bars.append((real.get(name), "bar thin", "var(--soft)"))
    row: list[object] = [name, _bars(bars, full), number(values[name])]
    return row if real is None else [*row, number(real.get(name))]


def _bars(bars: Sequence[tuple[float | None, str, str]], full: float) -> Html:
    shown = [
        tag(
            "div",
            class_=kind,
            style=f"width:{100 * min(max(value / (full or 1), 0), 1):.1f}%;background:{color}",
        )
        for value, kind, color in bars
        if value is not None and math.isfinite(value)
    ]
    return tag("td", tag("div", *shown, class_="track"), class_="bars")


def _largest_first(values: Values) -> list[str]:
    return sorted(values, key=lambda name: (values[name] is None, -(values[name] or 0)))


def _share(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2g} %"


def _folded(summary: str, inside: Html, opened: bool) -> Html:
    return tag("details", tag("summary", summary), inside, open="open" if opened else None)


_BARS = "Wide bar: generated pictures, in the colour of the class. Thin bar: the segmenter on real pictures."
_ON_REAL = "On the real pictures of these maps the segmenter itself reaches"
_JUDGE = "That is what its answers are worth: judge the generated pictures beside it, class by class."
_REGIONS = (
    "How much pictures of one label map differ inside the regions of each class: 0 is a class that always "
    "looks the same. The longest bar is the largest figure of its table. Thin bar, where there is one: pairs "
    "of different real pictures where both show the class."
)
_CORRELATIONS = (
    "Correlations of fine detail by class, largest first; a full bar is 1. Thin bar, where there is one: "
    "real images. What exceeds them is the generator's own."
)
_WORTH = (
    "Segmenters alike in all but their training pictures - real ones, generated ones of the same maps in "
    "their place, or both - read the real pictures of the split. Generated pictures are worth adding to a "
    "training where both together beat the real ones alone by more than the spread."
)
