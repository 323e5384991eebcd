"""What the tests of pages read them with."""

from __future__ import annotations

import re
from html.parser import HTMLParser

EVIL = "<script>alert('x')</script>\"&<img src=http://evil.example/x onerror=alert(1)>"
VOID = {"img", "meta", "link", "br"}


class Walk(HTMLParser):
    """Holds a page to balanced tags, and gathers its elements and the text of each."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[tuple[str, ...], str]] = []
        self.feed(page)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.texts.append((tuple(self.open), data))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, within: str = "body") -> str:
        return "".join(text for path, text in self.texts if within in path and "style" not in path)


def cells(page: str) -> dict[str, list[str]]:
    """Heading of each table row -> its cells, tags taken off."""
    found = {}
    for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL):
        first, *others = [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        found[first] = others
    return found
