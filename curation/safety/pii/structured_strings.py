r"""Strings that are not prose: URLs, JSON, reasons that quote a record. How personal data hides in them, and is found.

A recognizer reads characters. In a URL the `@` of an address is `%40`, in a quoted reason the line break before a
number is `\n` (and `n212` is no number), in JSON a number may be an integer. So such a string is read twice, as it
stands and decoded, and what is found in the decoded reading is replaced where it stands: the rest keeps its own
spelling. JSON is taken apart and put together again, so that it stays JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

_ESCAPE = re.compile(
    r"""(?P<percent>(?:%[0-9A-Fa-f]{2})+)
    | \\(?P<one>[abfnrtv0'"\\/])
    | \\(?:x(?P<x>[0-9A-Fa-f]{2})|u(?P<u>[0-9A-Fa-f]{4}))
    | &\#(?:x(?P<hex>[0-9A-Fa-f]{1,6})|(?P<decimal>[0-9]{1,7}));
    """,
    re.VERBOSE,
)
_ONE = {"a": " ", "b": " ", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": " "}


def decoded(text: str) -> tuple[str, list[int]] | None:
    """The text with its escapes decoded, and for each of its characters (and its end) where it begins in `text`.

    Percent-encoding (and `+` for a space, in the query of a URL), backslash escapes, numeric character references. None
    where there is nothing to decode. What does not decode stays as it is.
    """
    query = text.find("?") if "+" in text and "://" in text else -1
    if query < 0 and "%" not in text and "\\" not in text and "&#" not in text:
        return None
    out: list[str] = []
    places: list[int] = []

    def plain(lo: int, hi: int) -> None:
        piece = text[lo:hi]
        if 0 <= query < hi:
            cut = max(0, query - lo)
            piece = piece[:cut] + piece[cut:].replace("+", " ")
        out.extend(piece)
        places.extend(range(lo, hi))

    at = 0
    for match in _ESCAPE.finditer(text):
        plain(at, match.start())
        for character, begin in _characters(match):
            out.append(character)
            places.append(begin)
        at = match.end()
    plain(at, len(text))
    places.append(len(text))
    found = "".join(out)
    return None if found == text else (found, places)


def _characters(match: re.Match[str]) -> Iterator[tuple[str, int]]:
    """The characters that one escape stands for, and where each begins."""
    if match["percent"]:
        data = bytes.fromhex(match["percent"].replace("%", ""))
        at = 0
        while at < len(data):
            size = next((n for n in (1, 2, 3, 4) if _is_utf8(data[at : at + n])), 0)
            yield data[at : at + (size or 1)].decode("utf-8" if size else "latin-1"), match.start() + 3 * at
            at += size or 1
        return
    if match["one"]:
        yield _ONE.get(match["one"], match["one"]), match.start()
        return
    code = int(match["x"] or match["u"] or match["hex"] or "0", 16) or int(match["decimal"] or 0)
    # a surrogate, or no character at all, is nothing that a value consists of
    yield (chr(code) if 0 < code < 0xD800 or 0xE000 <= code < 0x110000 else "\ufffd"), match.start()


def _is_utf8(data: bytes) -> bool:
    try:
        return len(data.decode()) == 1
    except UnicodeDecodeError:
        return False


def replace_in(strings: Sequence[str | None], replace: Callable[[list[str]], list[str]]) -> list[str | None]:
    """`replace` applied to all strings at once, to those that are JSON in their parts: keys, strings and numbers."""
    flat: list[str] = []
    trees: list[Any] = []
    for text in strings:
        tree = _parse(text)
        trees.append(tree)
        if tree is not _NONE:
            flat.extend(_leaves(tree))
        elif text is not None:
            flat.append(text)
    new = iter(replace(flat))
    made: list[str | None] = []
    for text, tree in zip(strings, trees, strict=True):
        if tree is not _NONE:
            rebuilt = _rebuild(tree, new)
            made.append(text if rebuilt == tree else json.dumps(rebuilt, ensure_ascii=False))
        else:
            made.append(None if text is None else next(new))
    return made


_NONE = object()  # no JSON
_DEEPEST = 200  # levels of JSON that are taken apart; deeper ones are read as the string they are


def _parse(text: str | None) -> Any:
    if text is None or text[:1] not in ("{", "[") or text[-1:] not in ("}", "]"):
        return _NONE
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):  # only looked like it
        return _NONE
    return tree if _depth(tree) <= _DEEPEST else _NONE


def _depth(tree: Any) -> int:
    level, depth = [tree], 0
    while level:
        depth += 1
        parts = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, (dict, list))]
        level = [v for part in parts for v in part]
    return depth


def _leaves(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield key
            yield from _leaves(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _leaves(value)
    elif _may_be_personal(tree):
        yield str(tree)


def _may_be_personal(leaf: Any) -> bool:
    """A telephone number may well be an integer. A fraction is a score: half the digits of 0.9326478183269501 pass for
    a card's or a telephone's, and rules decide by such numbers."""
    return leaf is not None and not isinstance(leaf, bool) and not (isinstance(leaf, float) and leaf % 1 != 0)


def _rebuild(tree: Any, new: Iterator[str]) -> Any:
    if isinstance(tree, dict):
        made = {}
        for value in tree.values():
            name = next(new)
            while name in made:  # two addresses as keys have one mask
                name += "'"
            made[name] = _rebuild(value, new)
        return made
    if isinstance(tree, list):
        return [_rebuild(v, new) for v in tree]
    if not _may_be_personal(tree):
        return tree
    text = next(new)
    return text if isinstance(tree, str) or text != str(tree) else tree
