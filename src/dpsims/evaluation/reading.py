"""A report of `dpsims evaluate` read back from its JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dpsims.evaluation.figures import ARTIFACTS, MEASURES, TRAINED_ON
from dpsims.evaluation.markup import plain

_MADE_BY = "give a file that `dpsims evaluate --json` has written"
_MAPPINGS = (
    *("intervals", "counts", "frechet_titles", "seeds", "versions", "weights", "iou"),
    *("diversity_regions", "utility", "artifacts", "artifacts_by_class", "lattice_by_shift"),
)


def read_report(path: Path) -> dict[str, Any]:
    """A report from its JSON file. ValueError, in a line, for a file that is none or was damaged."""
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); {_MADE_BY}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is no JSON, or cut off ({plain(error)[:80]}); {_MADE_BY}") from error
    if not isinstance(report, dict):
        raise ValueError(f"{path}: holds a {type(report).__name__} and no report; {_MADE_BY}")
    if not any(report.get(key) for key in ("artifacts", *(measure.key for measure in MEASURES))):
        raise ValueError(f"{path}: has no figures, such as 'frechet' or 'miou'; {_MADE_BY}")
    for section, where in ((report, ""), (report.get("real"), "real.")):
        wrong = _wrong(section, where)
        if wrong is not None:
            raise ValueError(f"{path}: {wrong} is damaged or of another program; {_MADE_BY}")
    return report


def _wrong(section: Any, where: str) -> str | None:
    """The name of the first field that is not of its kind."""
    if section is None:
        return None
    if not isinstance(section, dict):
        return where.rstrip(".")
    for field in _MAPPINGS:
        if not isinstance(section.get(field), dict | None):
            return where + field
    for field in ("warnings", "size", "worst"):
        if not isinstance(section.get(field), list | None):
            return where + field
    for field in ("frechet_titles", "weights"):
        for name, text in (section.get(field) or {}).items():
            if not isinstance(text, str | None):
                return f"{where}{field}.{name}"
    protocol = section.get("protocol")
    if not isinstance(protocol, dict | str | None):
        return f"{where}protocol"
    if isinstance(protocol, dict) and not isinstance(protocol.get("name"), str | None):
        return f"{where}protocol.name"
    for measure in MEASURES:
        if measure.key != "utility" and not _is_measure(section.get(measure.key)):
            return where + measure.key
    if not _are_figures(section.get("iou")):
        return f"{where}iou"
    for kind, values in (section.get("diversity_regions") or {}).items():
        if not _are_figures(values):
            return f"{where}diversity_regions.{kind}"
    for key, entry in (section.get("artifacts") or {}).items():
        if not (_are_figures(entry) if isinstance(entry, dict) else _is_figure(entry)):
            return f"{where}artifacts.{key}"
    for key in ARTIFACTS:
        if not _are_figures((section.get("artifacts_by_class") or {}).get(key)):
            return f"{where}artifacts_by_class.{key}"
    for row in section.get("worst") or ():
        if not isinstance(row, dict) or not all(_is_figure(row.get(key)) for key in ("miou", "real_miou")):
            return f"{where}worst"
    wrong = _wrong_utility(section.get("utility") or {})
    if wrong is not None:
        return f"{where}utility.{wrong}"
    for key, interval in (section.get("intervals") or {}).items():
        for pair in interval.values() if isinstance(interval, dict) else [interval]:
            if pair is not None and not (
                isinstance(pair, list) and len(pair) == 2 and all(type(end) in (int, float) for end in pair)
            ):
                return f"{where}intervals.{key}"
    return None


def _wrong_utility(utility: dict[str, Any]) -> str | None:
    for part in TRAINED_ON:
        scores = utility.get(part)
        if scores is None:
            continue
        if not isinstance(scores, dict) or not _are_figures(scores.get("iou")):
            return part
        runs = scores.get("runs")
        single = [scores.get(key) for key in ("miou", "pixel_accuracy", "spread")]
        if not isinstance(runs, list | None) or not all(map(_is_figure, [*single, *(runs or ())])):
            return part
    for field in ("gain", "gain_spread", "images"):
        if not _is_figure(utility.get(field)):
            return field
    for field in ("seeds", "size"):
        if not isinstance(utility.get(field), list | None):
            return field
    return None


def _are_figures(values: Any) -> bool:
    """A figure for each class, by name; or nothing."""
    return values is None or (isinstance(values, dict) and all(map(_is_figure, values.values())))


def _is_measure(value: Any) -> bool:
    """A figure, or one for each network; of a kernel distance value and spread."""
    if not isinstance(value, dict):
        return _is_figure(value)
    parts = [
        part
        for figure in value.values()
        for part in ([figure.get("value"), figure.get("std")] if isinstance(figure, dict) else [figure])
    ]
    notes = [figure.get("note") for figure in value.values() if isinstance(figure, dict)]
    return all(map(_is_figure, parts)) and all(isinstance(note, str | None) for note in notes)


def _is_figure(value: Any) -> bool:
    return value is None or isinstance(value, float) or (type(value) is int and abs(value) < 1e300)
