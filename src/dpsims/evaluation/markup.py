"""Markup of the pages of reports: escaped elements, tables, and a document that asks for nothing outside."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any


class Html(str):
    """A string that is markup already; `tag` escapes all others."""

    __slots__ = ()

    def join(self, parts: Any) -> Html:
        return Html(str.join(self, parts))


def tag(name: str, /, *inside: object, **attributes: object) -> Html:
    """One element with what is inside it; text is escaped, `class_` stands for class, None is left out."""
    given = {key.rstrip("_"): value for key, value in attributes.items() if value is not None}
    start = "".join(f' {key}="{html.escape(plain(value))}"' for key, value in given.items())
    if name in ("img", "meta", "link", "br"):
        return Html(f"<{name}{start}>")
    text = "".join(part if isinstance(part, Html) else html.escape(plain(part)) for part in inside)
    return Html(f"<{name}{start}>{text}</{name}>")


def plain(value: object) -> str:
    """Text in one line that any file and terminal takes: no control characters, no halves of surrogates."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)


def document(title: str, body: Html) -> str:
    """A whole page with the style of the reports; nothing is ever fetched, not even an icon."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = (
        tag("meta", charset="utf-8"),
        tag("meta", **{"http-equiv": "Content-Security-Policy"}, content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", Html(STYLE)),
    )
    return f"<!doctype html>\n{tag('html', tag('head', *head), tag('body', tag('main', body)), lang='en')}\n"


def table(head: Sequence[object], rows: Sequence[Sequence[object]], caption: str) -> Html:
    """A table whose first row and column are headings, in a frame that scrolls where a screen is narrow.

    A cell that is markup stands for itself: it brings its own <td>.
    """
    top = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    lines = []
    for first, *others in rows:
        cells = (cell if isinstance(cell, Html) else tag("td", cell) for cell in others)
        lines.append(tag("tr", tag("th", first, scope="row"), *cells))
    whole = tag("table", tag("caption", caption), tag("thead", top), tag("tbody", *lines))
    return tag("div", whole, class_="scroll", tabindex=0, role="region", **{"aria-label": caption})


STYLE = """
:root{color-scheme:light;--paper:#fff;--ink:#1c2128;--soft:#5b6672;--line:#d6dbe1;--panel:#f4f6f8;
--warn:#fff3d1;--warn-line:#b97f00;--best:#0a6b3b;--bar:#3b6ea5}
@media screen and (prefers-color-scheme:dark){:root{color-scheme:dark;--paper:#14171b;--ink:#e4e8ec;
--soft:#9aa5b1;--line:#353c45;--panel:#1e2329;--warn:#3a2f10;--warn-line:#e0aa30;--best:#6fd29b;--bar:#7fb0e6}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:72rem;margin:0 auto;padding:1rem}
h1{font-size:1.5rem;line-height:1.25;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2rem 0 .5rem;border-bottom:1px solid var(--line)}
h3{font-size:.95rem;margin:1rem 0 .3rem;overflow-wrap:anywhere}
dl{display:flex;flex-wrap:wrap;gap:.4rem 2rem;margin:0}
dt{color:var(--soft);font-size:.85rem}
dd{margin:0;overflow-wrap:anywhere}
ul{padding-left:1.2rem}
.soft,figcaption,caption{color:var(--soft);font-size:.9rem}
.warnings{background:var(--warn);border-left:.4rem solid var(--warn-line);padding:.5rem 1rem;margin:1rem 0}
.warnings h2{margin:0;border:0}
.scroll{overflow-x:auto}
table{border-collapse:collapse;min-width:min(100%,30rem)}
caption{text-align:left;padding:.3rem 0}
th,td{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:right;vertical-align:middle;
font-variant-numeric:tabular-nums}
thead th{background:var(--panel)}
th:first-child{text-align:left}
tbody th{font-weight:400}
tbody th,thead th:first-child{position:sticky;left:0}
tbody th{background:var(--paper)}
table:has(.bars) thead th:nth-child(2){text-align:left}
.best{color:var(--best);font-weight:700}
.bars{width:45%;min-width:8rem}
.track{background:var(--panel);min-height:.9rem}
.bar{height:.7rem;outline:1px solid var(--soft);outline-offset:-1px}
.thin{height:.25rem;margin-top:2px;outline:0}
summary{cursor:pointer;padding:.4rem 0}
.settings td{text-align:left;overflow-wrap:anywhere}
.settings table{table-layout:fixed;width:100%;font-size:.85rem}
.tiles{display:grid;gap:.5rem;grid-template-columns:repeat(auto-fill,minmax(min(15rem,47%),1fr))}
.rows:has(.pair){display:grid;gap:.5rem 2rem;
grid-template-columns:repeat(auto-fill,minmax(min(26rem,100%),1fr))}
.pair .tiles{grid-template-columns:1fr 1fr}
figure{margin:0}
img{display:block;width:100%;height:auto;background:var(--panel)}
img.map{image-rendering:pixelated}
@media (min-width:40rem){td{white-space:nowrap}.settings td{white-space:normal}}
@media (max-width:40rem){table{font-size:.85rem}th,td{padding:.25rem .3rem}.bars{min-width:3rem}
th:first-child{overflow-wrap:anywhere;min-width:6rem}}
@media print{body{font-size:11px}main{max-width:none;padding:0}article,tr,.warnings{break-inside:avoid}
h2,h3{break-after:avoid}.scroll{overflow:visible}.bar,.warnings,thead th{print-color-adjust:exact}
.tiles{grid-template-columns:repeat(4,1fr)}details::details-content{content-visibility:visible;block-size:auto}}
"""
