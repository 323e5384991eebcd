"""Reports of `dpsims evaluate` side by side; figures that were measured differently are not put there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dpsims.evaluation.figures import (
    ARTIFACTS,
    MEASURES,
    Figure,
    class_figures,
    figures,
    in_order,
    number,
    region_measure,
)
from dpsims.evaluation.markup import Html, document, plain, table, tag
from dpsims.evaluation.reading import read_report

_NOT_GIVEN = "not given"
_OF_DIVERSITY = ("diversity", "diversity_features", "lpips", "diversity_regions")
_OF_UTILITY = ("images", "seeds", "size", "pairs", "test")


@dataclass(frozen=True)
class Row:
    """A measure: a figure for each column, None where it was not measured, and whether it is the best one."""

    name: str
    better: str  # "lower" or "higher"
    cells: list[Figure | None]
    best: list[bool]
    key: str  # of the measure in a report


@dataclass(frozen=True)
class Comparison:
    """What stands in the table. columns: names of the models, then "real" where reports have real figures."""

    columns: list[str]
    rows: list[Row]
    classes: list[Row]  # the figures of each class: IoU, diversity inside regions, artifacts
    setting: str  # what all have in common, in a line
    notes: list[str]


def compare_reports(files: Sequence[Path], force: bool = False, classes: bool = False) -> str:
    """The reports as a text table, a column each; the best of a row has a "*", notes follow below.

    force: figures that do not compare become a note. classes: also those of each class. Raises
    ValueError as `compare`.
    """
    found = compare(files, force)
    lines = [["", "better", *(f"{column} " for column in found.columns)]]
    for row in [*found.rows, *(found.classes if classes else ())]:
        cells = [("-" if f is None else f.shown("+-")) for f in row.cells]
        marked = [cell + ("*" if best else " ") for cell, best in zip(cells, row.best, strict=True)]
        lines.append([row.name, row.better, *marked])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = []
    for name, better, *cells in lines:
        words = [name.ljust(widths[0]), better.ljust(widths[1]), *map(str.rjust, cells, widths[2:])]
        text.append("  ".join(words).rstrip())
    return "\n".join([found.setting, *text, "* best of the models", *(f"note: {n}" for n in found.notes)])


def to_html(files: Sequence[Path], force: bool = False) -> str:
    """The same as a page that stands alone, classes folded. Raises ValueError as `compare`."""
    found = compare(files, force)

    def lines(rows: Sequence[Row]) -> list[list[object]]:
        return [[f"{row.name} {_arrow(row)}", *map(_cell, row.cells, row.best)] for row in rows]

    head = ["measure", *found.columns]
    parts = [tag("header", tag("h1", "Models side by side"), tag("p", found.setting))]
    if found.notes:
        notes = tag("ul", *(tag("li", note) for note in found.notes))
        parts.append(tag("section", tag("h2", "Read this first"), notes, class_="warnings"))
    about = "\u2193: lower is better, \u2191: higher is better. An asterisk marks the best of the models."
    parts.append(table(head, lines(found.rows), about))
    kinds = {"IoU of each class": ("miou",), "Diversity inside regions": _OF_DIVERSITY}
    for title, keys in {**kinds, "Artifacts of each class": ARTIFACTS}.items():
        rows = [row for row in found.classes if row.key in keys]
        if rows:
            parts.append(tag("details", tag("summary", title), table(head, lines(rows), title)))
    return document("Models side by side", Html().join(parts))


def compare(files: Sequence[Path], force: bool = False) -> Comparison:
    """Read reports and put their figures side by side.

    Raises ValueError for fewer than two files, for one that cannot be read or is no report, and (not with
    `force`) for figures that do not compare: of other data, size, split, protocol, counts, segmenter, network
    weights or trainings. Other seeds and versions are a note.
    """
    reports = [read_report(file) for file in files]
    if len(files) < 2:
        raise ValueError(f"{len(files)} reports: a comparison needs at least two")
    names = [str(file) for file in files]
    refused, notes = _differences(names, reports)
    if refused and not force:
        field, (value, file), (other, first) = refused[0]
        more = list(dict.fromkeys(field for field, _, _ in refused[1:]))
        also = f" (and also: {', '.join(more[:5])}{', ...' if len(more) > 5 else ''})" if more else ""
        raise ValueError(
            f"{file}: {field} is {value}, but {other} in {first}{also}; such figures do not compare: measure "
            "both models alike, or put them side by side all the same with --force"
        )
    told = [f"not comparable: {_told(difference)}" for difference in refused] + [*map(_told, notes)]
    told += [w for report in reports for w in report.get("warnings") or ()]
    columns, real = _columns(names, reports), [report.get("real") or {} for report in reports]
    titles = [report.get("frechet_titles") for report in reports]
    rows = _rows([*map(figures, reports)], [*map(figures, real, titles)])
    classes = _rows([*map(class_figures, reports)], [*map(class_figures, real)])
    name = _protocol(reports[0])
    if name and not any(field.startswith("protocol") for field, *_ in refused):
        # trainings are not what a protocol is about
        rows = [row if row.key == "utility" else replace(row, name=f"{row.name}, {name}") for row in rows]
    if any(real):
        columns.append("real")
    else:
        rows, classes = ([_without_last(row) for row in part] for part in (rows, classes))
    setting = plain(_setting(reports[0], {field for field, *_ in refused}))
    return Comparison(columns, rows, classes, setting, [plain(note) for note in dict.fromkeys(told)])


# ---------------------------------------------------------------- what compares


Difference = tuple[str, tuple[str, str], tuple[str, str]]
"""(field, (value, file), (value before that, its file))"""


def _differences(
    names: list[str], reports: list[dict[str, Any]]
) -> tuple[list[Difference], list[Difference]]:
    """The settings that differ: those that forbid a comparison, and those that are only to be said."""
    refused, notes = [], []
    settings = [_settings(report) for report in reports]
    for group in dict.fromkeys(group for setting in settings for group in setting):
        # a group is there where the report has figures that depend on it
        having = [
            (name, setting[group]) for name, setting in zip(names, settings, strict=True) if group in setting
        ]
        for field in dict.fromkeys(field for _, setting in having for field in setting):
            first, before = having[0][0], having[0][1].get(field, _NOT_GIVEN)
            for name, setting in having[1:]:
                value = setting.get(field, _NOT_GIVEN)
                if value != before:
                    said = _only_said(field)
                    (notes if said else refused).append(
                        (field, (_short(value), name), (_short(before), first))
                    )
    return refused, notes


def _settings(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What the figures of a report depend on, by dotted field, in groups of figures."""
    counts, protocol = report.get("counts") or {}, report.get("protocol")
    weights, titles = report.get("weights") or {}, report.get("frechet_titles") or {}
    asked = protocol if isinstance(protocol, dict) else {"name": protocol}
    of_diversity = {f"counts.{key}": value for key, value in counts.items() if "diversity" in key}
    of_diversity |= {f"protocol.{key}": value for key, value in asked.items() if "diversity" in key}
    general = {key: report.get(key) for key in ("data", "size", "split", "seeds", "versions")}
    general["protocol"] = {k: v for k, v in asked.items() if k != "maps" and "diversity" not in k}
    general["counts"] = {key: counts[key] for key in counts if "diversity" not in key and key != "train"}
    groups = {"": dict(_flat(general))}
    if any(_measured(report.get(key)) for key in ("frechet", "kid")):
        groups["realism"] = {"counts.train": counts.get("train")}
    if any(_measured(report.get(key)) for key in _OF_DIVERSITY):
        groups["diversity"] = of_diversity
    if _measured((report.get("artifacts") or {}).get("noise_detail")):
        groups["noise detail"] = {k: v for k, v in of_diversity.items() if k.endswith("diversity_maps")}
    if report.get("miou") is not None:
        layout = {"segmenter": report.get("segmenter"), "classes": list(report.get("iou") or ())}
        layout |= {"weights": {"segmenter": weights.get("segmenter")}}
        groups["layout"] = dict(_flat({**layout, "protocol": {"maps": asked.get("maps")}}))
    utility = report.get("utility")
    if utility is not None:
        groups["utility"] = dict(_flat({"utility": {key: utility.get(key) for key in _OF_UTILITY}}))
    for key, network, value in _by_network(report):
        if _measured(value):
            of = f"lpips {network}" if key == "lpips" else network
            groups[f"features {of}"] = dict(_flat({"weights": {of: weights.get(of)}}))
            if key.startswith("frechet"):
                groups[f"title {of}"] = dict(_flat({"frechet_titles": {of: titles.get(of)}}))
    return groups


def _by_network(report: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(measure, network, figures) of all that was measured by a network."""
    for measure in MEASURES:
        values = report.get(measure.key)
        if measure.key != "utility" and isinstance(values, dict):
            yield from ((measure.key, network, value) for network, value in values.items())
    for kind, values in (report.get("diversity_regions") or {}).items():
        key = region_measure(kind)
        if key != "diversity":
            yield key, kind.removeprefix("lpips "), values


def _measured(value: Any) -> bool:
    """Whether a figure, or one of several, is there."""
    return any(map(_measured, value.values())) if isinstance(value, dict) else value is not None


def _flat(values: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted fields and their values; those without a value are left out."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{where}{key}.")
        elif value is not None:
            yield where + key, value


def _only_said(field: str) -> bool:
    """Whether other values of a setting still compare: seeds and versions, but not a segmenter's seed."""
    top, *rest = field.split(".")
    return top in ("seeds", "versions") or (top == "protocol" and any("seed" in part for part in rest))


def _short(value: Any) -> str:
    text = plain(value if value is _NOT_GIVEN else repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def _told(difference: Difference) -> str:
    field, (value, file), (other, first) = difference
    return f"{field} is {value} in {file}, {other} in {first}"


# ---------------------------------------------------------------- the table


def _rows(models: list[dict[str, Figure]], real: list[dict[str, Figure]]) -> list[Row]:
    """A row for each figure that any model has; the last cell is that of the real pictures."""
    rows = []
    for name, measure in in_order(models).items():
        cells = [column.get(name) for column in models]
        if all(cell is None or cell.value is None for cell in cells):
            continue
        judged = [c for c in cells if c is not None and c.of_model]
        known = [c.value for c in judged if c.value is not None and c.value == c.value]
        # one figure alone is not the best of anything
        best = (min if measure.better == "lower" else max)(known) if len(known) > 1 else None
        # what prints alike is marked alike
        marks = [best is not None and c is not None and number(c.value) == number(best) for c in cells]
        measured = [column[name] for column in real if name in column and column[name].value is not None]
        # real figures that differ belong to reports that do not compare: no column of theirs is right
        alike = all(number(figure.value) == number(measured[0].value) for figure in measured)
        cells.append(measured[0] if measured and alike else None)
        rows.append(Row(plain(name), measure.better, cells, [*marks, False], measure.key))
    return rows


def _without_last(row: Row) -> Row:
    return replace(row, cells=row.cells[:-1], best=row.best[:-1])


def _columns(names: list[str], reports: list[dict[str, Any]]) -> list[str]:
    """A name for each report: its model's, or its file's where models are called alike."""
    models = [str(report.get("model") or name) for name, report in zip(names, reports, strict=True)]
    for chosen in (models, [Path(name).stem for name in names], names):
        short = [plain(name) if len(name) <= 32 else f"...{plain(name)[-29:]}" for name in chosen]
        if len(set(short)) == len(short) and "real" not in short:
            return short
    return [f"{i} {Path(name).stem}" for i, name in enumerate(names, 1)]


def _protocol(report: Mapping[str, Any]) -> str | None:
    protocol = report.get("protocol")
    name = protocol.get("name") if isinstance(protocol, dict) else protocol
    return None if name is None else plain(name)


def _setting(report: Mapping[str, Any], differing: set[str]) -> str:
    """Data, size, protocol and counts that all reports share."""
    counts = report.get("counts") or {}
    parts = {
        "data": report.get("data"),
        "split": report.get("split") and f"split {report['split']}",
        "size": " x ".join(map(str, report.get("size") or ())),
        "protocol": _protocol(report) and f"protocol {_protocol(report)}",
        "counts.generated": counts.get("generated") and f"{counts['generated']} generated pictures",
        "counts.test": counts.get("test") and f"{counts['test']} real ones",
    }
    shared = [str(part) for field, part in parts.items() if part and field not in differing]
    return ", ".join(shared) or "models side by side"


def _cell(figure: Figure | None, best: bool) -> Html:
    text = "-" if figure is None else figure.shown()
    return tag("td", f"{text}*" if best else text, class_="best" if best else None)


def _arrow(row: Row) -> str:
    return {measure.better: measure.arrow for measure in MEASURES}[row.better]
