"""Class names that say left or right: a mirrored image shows them exchanged."""

from __future__ import annotations

import re
from collections.abc import Iterable

# words of a name: LEFT_ARM, leftArm, LHand, left arm, arm-l, eye2
_WORDS = re.compile(r"[A-Z]+(?![^\W\d_A-Z])|[A-Z]?[^\W\d_A-Z]+|\d+")
_SIDE = re.compile(r"(left|right|l|r)|(left|right)(.+)|(.+)(left|right)")
_NOT_LETTERS = {"l", "r", "c", "m"}  # left, right, center, middle


def left_right_pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """The (left, right) pairs among class names: they differ in the side that they name, and in nothing else.

    The side is `left` or `right` as a word or at either end of one (`lefteye`), or the single letter `l` or
    `r` as a word beside others (`eye_l`, `LHand`), unless further letters stand there: then it is a letter.
    """
    sided: dict[tuple[tuple[str, ...], str], str] = {}
    letters: dict[tuple[str, ...], set[str]] = {}
    for name in (known := list(names)):
        for stem, letter in _with_a_letter_out(_words(name)):
            letters.setdefault(stem, set()).add(letter)
    for name in known:
        words = _words(name)
        if any(w in "lr" and letters[stem] - _NOT_LETTERS for stem, w in _with_a_letter_out(words)):
            continue
        stem, sides = _split(words)
        if sides:
            sided.setdefault((stem, sides), name)
    found = []
    for (stem, sides), name in sided.items():
        other = sided.get((stem, sides.translate(str.maketrans("lr", "rl"))))
        if sides[0] == "l" and other is not None:
            found.append((name, other))
    return found


def _words(name: str) -> list[str]:
    return [word.casefold() for word in _WORDS.findall(name)]


def _with_a_letter_out(words: list[str]) -> list[tuple[tuple[str, ...], str]]:
    """For each word that is a single letter: the name without it, and the letter."""
    places = [i for i, word in enumerate(words) if len(word) == 1 and word.isalpha()]
    return [((*words[:i], "*", *words[i + 1 :]), words[i]) for i in places]


def _split(words: list[str]) -> tuple[tuple[str, ...], str]:
    """The words with `*` for each side, and the sides: (`arm`, `*`) and `l` of left arm or arm_l."""
    stem: list[str] = []
    sides = ""
    for word in words:
        match = _SIDE.fullmatch(word)
        if match is None or (len(word) == 1 and len(words) == 1):
            stem.append(word)
            continue
        alone, before, rest, start, after = match.groups()
        sides += (alone or before or after)[0]
        stem += ["*"] if alone else ["*", rest] if before else [start, "*"]
    return tuple(stem), sides
