"""A report of `dpsims evaluate` as one HTML page that stands alone: figures, class bars, pictures, settings.

The page asks nothing of any other file or host, and runs no script. Whatever comes from data (names, paths,
settings) is escaped where the element that holds it is made, see `tag`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dpsims.evaluation.bars import artifact_section, layout_section, region_section, utility_section
from dpsims.evaluation.figures import MEASURES, figures, in_order, number
from dpsims.evaluation.galleries import Picture, fitting, gallery, map_row, neighbour_row
from dpsims.evaluation.markup import Html, document, table, tag

PAGE_LIMIT = 12_000_000  # bytes: what mail programs and issue trackers still take


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
    text = (
        *(_head(report), _warnings(report), _table(report)),
        layout_section(report, samples.colors, samples.shares),
        region_section(report, samples.colors),
        artifact_section(report, samples.colors),
        utility_section(report),
        _settings(report),
    )
    room = limit - len(document("", Html().join(text)).encode()) - 20_000  # titles, captions and notes
    # The few that are looked for come first; the random rows take what is left.
    on_real = {row.get("name"): row.get("real_miou") for row in report.get("worst") or ()}
    worst_rows = [(*row, on_real.get(row[0])) for row in samples.worst]
    worst, used = fitting(worst_rows, room // 4, map_row)
    usual = _real_distance(report)
    pairs = [(*pair, usual) for pair in samples.neighbours]
    neighbours, also = fitting(pairs, room // 4, neighbour_row)
    rows, _ = fitting(samples.rows, room - used - also, map_row)
    body = [
        *text[:-1],
        gallery("Samples", _SAMPLES, rows, len(samples.rows), limit),
        gallery("Worst maps", _about_worst(report), worst, len(samples.worst), limit, _worst_list(report)),
        gallery(_NEIGHBOURS, _NEAREST, neighbours, len(samples.neighbours), limit, _neighbour_list(report)),
        text[-1],
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
    title = tag("h1", f"Evaluation of {report.get('model', 'a model')}")
    told = tag("p", _protocol(protocol), class_="soft") if isinstance(protocol, Mapping) else Html()
    return tag("header", title, tag("dl", *lines), told)


def _protocol(protocol: Mapping[str, Any]) -> str:
    """A protocol in a line: which pictures, at which size, how many of each map."""

    def size(value: Any) -> str:
        return " x ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

    has, maps, many = protocol.get, protocol.get("maps"), protocol.get("diversity_samples")
    of = "every map" if has("diversity_maps") is None else f"each of {has('diversity_maps')} maps"
    at = {"picture": "the pictures' size", "native": "the maps' own size"}
    facts = [
        f"reference: the real pictures of the {has('reference')} split" if has("reference") else None,
        f"compared at {size(has('size'))}" if has("size") else None,
        f"resized by a {has('resize')} filter" if isinstance(has("resize"), str) else None,
        f"maps compared at {at.get(str(maps), size(maps))}" if maps is not None else None,
        f"pictures of each map: {has('samples')}" if has("samples") is not None else None,
        f"for diversity {many} of {of}" if many else None,
        f"seed {has('seed')}" if has("seed") is not None else None,
    ]
    name = protocol.get("name")
    start = "No named protocol" if name is None else f"Protocol {name}"
    told = "; ".join(filter(None, facts))
    return f"{start}. {told[:1].upper()}{told[1:]}." if told else f"{start}."


def _listed(values: Mapping[str, Any] | None) -> str | None:
    return ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in values.items()) if values else None


def _warnings(report: Mapping[str, Any]) -> Html:
    found = report.get("warnings") or ()
    lines = tag("ul", *(tag("li", warning) for warning in found))
    return tag("section", tag("h2", "Read this first"), lines, class_="warnings") if found else Html()


def _table(report: Mapping[str, Any]) -> Html:
    titles = report.get("frechet_titles")
    sections = {"generated": report, "real": report.get("real"), "untrained": report.get("untrained")}
    columns = {
        # what the pictures are worth as training data has a section of its own
        name: {key: f for key, f in figures(section, titles).items() if f.measure.key != "utility"}
        for name, section in sections.items()
        if section
    }
    cells, said = [], []
    notes: dict[tuple[str, str], list[str]] = {}  # (note, column) -> the figures that it belongs to
    for name, measure in in_order(columns.values()).items():
        row = [column.get(name) for column in columns.values()]
        if any(figure is not None and figure.value is not None for figure in row):
            label = f"{name} {measure.arrow}"
            cells.append([label, *("-" if figure is None else figure.shown() for figure in row)])
            said.append(measure)
            for column, figure in zip(columns, row, strict=True):
                if figure is not None and figure.note:
                    notes.setdefault((figure.note, column), []).append(name)
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
        *(
            tag("p", f"{' and '.join(names)}, {column}: {note}.", class_="soft")
            for (note, column), names in notes.items()
        ),
        tag("h2", "How to read this"),
        tag("ul", *meanings),
    )


def _settings(report: Mapping[str, Any]) -> Html:
    left = {key: value for key, value in report.items() if key not in _SHOWN_ELSEWHERE}
    first = {key: left[key] for key in _ASKED_FIRST if key in left}
    rows = [[key, value] for key, value in _flat({**first, **left})]
    # how a kernel distance was taken stands in with its value
    for key, value in _flat({"kid": report.get("kid")}):
        if key.endswith(_HOW):
            rows.append([key, value])
    whole = table(["setting", "value"], rows, "Every setting, version and hash of this evaluation")
    summary = tag("summary", "protocol, hashes of the weights, versions, seeds, counts")
    return tag("section", tag("h2", "How it was measured"), tag("details", summary, whole), class_="settings")


def _flat(values: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{where}{key}.")
        elif isinstance(value, list | tuple):
            yield f"{where}{key}", ", ".join(map(str, value))
        else:
            yield f"{where}{key}", str(value)


def _worst_list(report: Mapping[str, Any]) -> Html | None:
    worst, beside = report.get("worst") or (), _knows_real(report)
    rows = [
        [row["name"], number(row["miou"]), *([number(row.get("real_miou"))] if beside else [])]
        for row in worst
    ]
    head = ["map", "IoU", *(["of the real picture"] if beside else [])]
    return table(head, rows, "The maps with the lowest IoU") if rows else None


def _about_worst(report: Mapping[str, Any]) -> str:
    return f"{_WORST} {_WHOSE_FAULT if _knows_real(report) else _AT_RISK}"


def _knows_real(report: Mapping[str, Any]) -> bool:
    return any(row.get("real_miou") is not None for row in report.get("worst") or ())


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
    "The maps whose generated picture the segmenter read worst: mean IoU over the classes that occur in that "
    "map or in its answer."
)
_AT_RISK = "Maps with small regions of rare classes come up here on real pictures, too."
_WHOSE_FAULT = (
    "Behind it the same of the real picture: where that is as low, the map is a hard one, or the segmenter "
    "weak there; where it is much higher, the generated picture is at fault."
)
_NEAREST = (
    "The generated pictures that come nearest to a training picture in the features of the first network, "
    "each beside that picture. Usual for real pictures: how far a test picture is from its nearest training "
    "picture (median). These are the nearest of many, so somewhat below that is no surprise; a picture far "
    "below it, or one that repeats its neighbour down to what the label map does not ask for, was memorised."
)
_REAL = (
    "The real column says what real pictures score: training pictures against the same reference for "
    "realism, the segmenter on the real pictures of the maps for layout, pairs of different real pictures "
    "for diversity, the real images of the maps for artifacts. "
    "A generator is judged beside it, not against 0 or 1. In square brackets: 95 % interval, "
    "by resampling the pictures."
)

_HOW = (".subsets", ".subset_size")
_SHOWN_ELSEWHERE = {measure.key for measure in MEASURES} | {
    *("intervals", "iou", "diversity_regions", "real", "untrained"),
    *("artifacts", "artifacts_by_class", "lattice_by_shift"),
    *("worst", "neighbours", "warnings"),
}
_ASKED_FIRST = ("protocol", "weights", "versions", "seeds", "counts", "segmenter")
