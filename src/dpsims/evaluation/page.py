"""A report of `dpsims evaluate` as one HTML page that stands alone: figures, class bars, pictures, settings.

The page asks nothing of any other file or host, and runs no script. Whatever comes from data (names, paths,
settings) is escaped where the element that holds it is made, see `tag`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dpsims.evaluation.figures import MEASURES, figures, in_order, number
from dpsims.evaluation.galleries import Picture, fitting, gallery, map_row, neighbour_row
from dpsims.evaluation.markup import Html, document, table, tag

PAGE_LIMIT = 12_000_000  # bytes: what mail programs and issue trackers still take
FEW_CLASSES = 30  # more than this many stay folded, below those that most need a look
_FURTHEST = 15


@dataclass
class PageSamples:
    """Pictures of the page, uint8 (h, w, 3) RGB, in the order in which they are shown; all may be empty.

    rows, chosen at random by the caller: (name, label map in colours, real or None, generated pictures, the
    second of another noise and so on). worst: the same and the IoU, lowest first. neighbours: (name,
    generated picture, name of the nearest training picture, that picture, distance). colors and shares: of
    the classes by name, RGB 0..255 and share of the labelled pixels 0..1.
    """

    rows: Sequence[tuple[str, Picture, Picture | None, Sequence[Picture]]] = ()
    worst: Sequence[tuple[str, Picture, Picture | None, Sequence[Picture], float]] = ()
    neighbours: Sequence[tuple[str, Picture, str, Picture, float]] = ()
    colors: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)


def write_page(report: Mapping[str, Any], samples: PageSamples, limit: int = PAGE_LIMIT) -> str:
    """The page of a report of `evaluate`; parts that the report does not have are left out.

    limit: bytes of the page; where the pictures are larger, fewer are shown and the page says so. The same
    arguments give the same page.
    """
    text = (_head(report), _warnings(report), _table(report), _classes(report, samples), _settings(report))
    room = limit - len(document("", Html().join(text)).encode()) - 20_000  # titles, captions and notes
    # The few that are looked for come first; the random rows take what is left.
    worst, used = fitting(samples.worst, room // 4, map_row)
    usual = _real_distance(report)
    pairs = [(*pair, usual) for pair in samples.neighbours]
    neighbours, also = fitting(pairs, room // 4, neighbour_row)
    rows, _ = fitting(samples.rows, room - used - also, map_row)
    body = [
        *text[:4],
        gallery("Samples", _SAMPLES, rows, len(samples.rows), limit),
        gallery("Worst maps", _WORST, worst, len(samples.worst), limit, _worst_list(report)),
        gallery(_NEIGHBOURS, _NEAREST, neighbours, len(samples.neighbours), limit, _neighbour_list(report)),
        text[4],
    ]
    return document(f"Evaluation of {report.get('model', 'a model')}", Html().join(body))


# ---------------------------------------------------------------- parts of the page


def _head(report: Mapping[str, Any]) -> Html:
    protocol, versions = report.get("protocol"), report.get("versions") or {}
    name = protocol.get("name") if isinstance(protocol, Mapping) else protocol
    facts = {
        "data": report.get("data"),
        "split": report.get("split"),
        "size": " x ".join(map(str, report.get("size") or ())) or None,
        "protocol": name,
        "pictures": _listed(report.get("counts")),
        "seeds": _listed(report.get("seeds")),
        "date": report.get("date"),
        "commit": report.get("commit"),
        "version": f"dpsims {versions['dpsims']}" if "dpsims" in versions else None,
    }
    lines = [
        tag("div", tag("dt", key), tag("dd", value)) for key, value in facts.items() if value is not None
    ]
    return tag("header", tag("h1", f"Evaluation of {report.get('model', 'a model')}"), tag("dl", *lines))


def _listed(values: Mapping[str, Any] | None) -> str | None:
    return ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in values.items()) if values else None


def _warnings(report: Mapping[str, Any]) -> Html:
    found = report.get("warnings") or ()
    lines = tag("ul", *(tag("li", warning) for warning in found))
    return tag("section", tag("h2", "Read this first"), lines, class_="warnings") if found else Html()


def _table(report: Mapping[str, Any]) -> Html:
    titles = report.get("frechet_titles")
    sections = {"generated": report, "real": report.get("real"), "untrained": report.get("untrained")}
    columns = {name: figures(section, titles) for name, section in sections.items() if section}
    cells, said, notes = [], [], []
    for name, measure in in_order(columns.values()).items():
        row = [column.get(name) for column in columns.values()]
        if any(figure is not None and figure.value is not None for figure in row):
            label = f"{name} {measure.arrow}"
            cells.append([label, *("-" if figure is None else figure.shown() for figure in row)])
            said.append(measure)
            noted = zip(columns, row, strict=True)
            notes += [f"{name}, {column}: {f.note}." for column, f in noted if f is not None and f.note]
    if not cells:
        return tag("section", tag("h2", "Figures"), tag("p", "The report holds no figures."))
    meanings = [
        tag("li", tag("b", f"{measure.title} {measure.arrow} {measure.better} is better. "), measure.meaning)
        for measure in dict.fromkeys(said)
    ]
    caption = "Measures of the generated pictures, and of real ones for comparison"
    return tag(
        "section",
        tag("h2", "Figures"),
        table(["measure", *columns], cells, caption),
        tag("p", _REAL, class_="soft"),
        *(tag("p", note, class_="soft") for note in notes),
        tag("h2", "How to read this"),
        tag("ul", *meanings),
    )


def _classes(report: Mapping[str, Any], samples: PageSamples) -> Html:
    iou, real = report.get("iou") or {}, (report.get("real") or {}).get("iou") or {}
    measured = [name for name in iou if iou[name] is not None]
    if not measured:
        return Html()

    def shown(names: list[str], summary: str, opened: bool) -> Html:
        rows = [_class_row(name, iou[name], real.get(name), samples) for name in names]
        head = ["class", "IoU", "generated", "real", *(["pixels"] if samples.shares else [])]
        whole = table(head, rows, f"IoU of each class: {summary}")
        return tag("details", tag("summary", summary), whole, **({"open": "open"} if opened else {}))

    # best first; classes that occur neither in the maps nor in the segmenter's answers come last
    everything = sorted(iou, key=lambda name: (iou[name] is None, -(iou[name] or 0)))
    few = len(iou) <= FEW_CLASSES
    parts = [shown(everything, f"all {len(iou)} classes, best first", few)]
    if not few:
        gaps = sorted(measured, key=lambda name: iou[name] - (real.get(name) or 0))[:_FURTHEST]
        parts.insert(0, shown(gaps, f"the {len(gaps)} classes furthest below real pictures", True))
    return tag("section", tag("h2", "IoU of each class"), tag("p", _BARS, class_="soft"), *parts)


def _class_row(name: str, iou: float | None, real: float | None, samples: PageSamples) -> list[object]:
    red, green, blue = (int(value) for value in samples.colors.get(name, (120, 130, 145)))
    bars = [
        tag("div", class_=kind, style=f"width:{100 * min(max(value, 0), 1):.1f}%;background:{color}")
        for kind, value, color in (
            ("bar", iou, f"rgb({red},{green},{blue})"),
            ("bar thin", real, "var(--soft)"),
        )
        if value is not None and math.isfinite(value)
    ]
    share = samples.shares.get(name)
    row: list[object] = [name, tag("td", tag("div", *bars, class_="track"), class_="bars"), number(iou)]
    row += [number(real)]
    return row + ([("-" if share is None else f"{100 * share:.2g} %")] if samples.shares else [])


def _settings(report: Mapping[str, Any]) -> Html:
    left = {key: value for key, value in report.items() if key not in _SHOWN_ELSEWHERE}
    rows = [[key, value] for key, value in _flat(left)]
    # how a kernel distance was taken stands in with its value
    for key, value in _flat({"kid": report.get("kid")}):
        if key.endswith(_HOW):
            rows.append([key, value])
    whole = table(["setting", "value"], rows, "Every setting and version of this evaluation")
    return tag("section", tag("h2", "Settings and versions"), whole, class_="settings")


def _flat(values: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{where}{key}.")
        elif isinstance(value, list | tuple):
            yield f"{where}{key}", ", ".join(map(str, value))
        else:
            yield f"{where}{key}", str(value)


def _worst_list(report: Mapping[str, Any]) -> Html | None:
    rows = [[worst["name"], number(worst["miou"])] for worst in report.get("worst") or ()]
    return table(["map", "IoU"], rows, "The maps with the lowest IoU") if rows else None


def _neighbour_list(report: Mapping[str, Any]) -> Html | None:
    usual = number(_real_distance(report))
    rows = [
        [n["name"], n.get("nearest_name", n["nearest"]), number(n["distance"]), usual]
        for n in report.get("neighbours") or ()
    ]
    head = ["generated from", "nearest", "distance", "usual for real pictures"]
    return table(head, rows, _NEIGHBOURS) if rows else None


def _real_distance(report: Mapping[str, Any]) -> float | None:
    """How near real test pictures come to training pictures, their median: the same for all neighbours."""
    return next((n.get("real_distance") for n in report.get("neighbours") or ()), None)


_NEIGHBOURS = "Nearest training pictures"
_SAMPLES = (
    "Chosen at random, not by how they look. Label map, real picture of that map, generated picture, and "
    "the same map with other noise."
)
_WORST = (
    "The maps whose generated picture the segmenter read worst: mean IoU over the classes of that map. "
    "Small maps of rare classes come up here on real pictures, too."
)
_NEAREST = (
    "The generated pictures that come nearest to a training picture in the features of the first network, "
    "each beside that picture. Usual for real pictures: how far a test picture is from its nearest training "
    "picture (median). These are the nearest of many, so somewhat below that is no surprise; a picture far "
    "below it, or one that repeats its neighbour down to what the label map does not ask for, was memorised."
)
_BARS = "Wide bar: generated pictures, in the colour of the class. Thin bar: the segmenter on real pictures."
_REAL = (
    "The real column says what real pictures score: training pictures against the same test pictures for "
    "realism, the segmenter on the test pictures for layout, pairs of test pictures for diversity. A "
    "generator is judged beside it, not against 0 or 1. In square brackets: 95 % interval, by resampling the "
    "pictures."
)

_HOW = (".subsets", ".subset_size")
_SHOWN_ELSEWHERE = {measure.key for measure in MEASURES} | {
    *("intervals", "iou", "real", "untrained", "worst", "neighbours", "warnings")
}
