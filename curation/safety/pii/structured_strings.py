r"""Finds personal data in URLs, JSON and quoted records, where it is escaped, and replaces it in its place.

A recognizer reads characters. In a URL the `@` of an e-mail address is `%40`, in a quoted reason the line break before
a number is `\n` (and `n212` is not a number), in JSON a number may be an integer. So such a string is searched twice,
as it is and decoded, and findings in the decoded form are replaced at their original position; the rest keeps its
spelling. JSON is parsed and serialized again, so that it stays JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from curation.safety.pii.finding_columns import Findings, Row

_ESCAPE = re.compile(
    r"""(?P<percent>(?:%[0-9A-Fa-f]{2})+)
    | \\(?P<one>[abfnrtv0'"\\/])
    | \\(?:x(?P<x>[0-9A-Fa-f]{2})|u(?P<u>[0-9A-Fa-f]{4}))
    | &\#(?:x(?P<hex>[0-9A-Fa-f]{1,6})|(?P<decimal>[0-9]{1,7}));
    """,
    re.VERBOSE,
)
_SINGLE_ESCAPES = {"a": " ", "b": " ", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": " "}


def decode_escapes(text: str) -> tuple[str, list[int]] | None:
    """The text with its escapes decoded, and for each of its characters (and its end) the position in `text`.

    Decodes percent-encoding (and `+` for a space, in the query of a URL), backslash escapes and numeric character
    references; anything else stays as it is. None if nothing is escaped.
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
        for character, begin in _decode_escape(match):
            out.append(character)
            places.append(begin)
        at = match.end()
    plain(at, len(text))
    places.append(len(text))
    found = "".join(out)
    return None if found == text else (found, places)


def places_in_originals(
    found: Findings, first: int, decoded: Sequence[tuple[int, tuple[str, list[int]]]]
) -> dict[Row, tuple[int, int, int]]:
    """Findings in decoded strings as rows of the originals, and (text, start, end) of each where it was found.

    Text `first` + i of the findings is `decoded[i]`: the number of the original string, and what decode_escapes gives.
    """
    rows: dict[Row, tuple[int, int, int]] = {}
    for text, start, end, entity, score in found.rows():
        original, (_, places) = decoded[text - first]
        rows[original, places[start], places[end], entity, score] = text, start, end
    return rows


def _decode_escape(match: re.Match[str]) -> Iterator[tuple[str, int]]:
    """The characters of one escape sequence, and where each begins."""
    if match["percent"]:
        data = bytes.fromhex(match["percent"].replace("%", ""))
        at = 0
        while at < len(data):
            size = 1 if data[at] < 0x80 else 2 if data[at] < 0xE0 else 3 if data[at] < 0xF0 else 4
            size = size if _is_utf8(data[at : at + size]) else 0
            yield data[at : at + (size or 1)].decode("utf-8" if size else "latin-1"), match.start() + 3 * at
            at += size or 1
        return
    if match["one"]:
        yield _SINGLE_ESCAPES.get(match["one"], match["one"]), match.start()
        return
    code = int(match["x"] or match["u"] or match["hex"] or "0", 16) or int(match["decimal"] or 0)
    # surrogates and invalid code points cannot be part of a value
    yield (chr(code) if 0 < code < 0xD800 or 0xE000 <= code < 0x110000 else "\ufffd"), match.start()


def _is_utf8(data: bytes) -> bool:
    try:
        return len(data.decode()) == 1
    except UnicodeDecodeError:
        return False


def replace_in_strings(strings: Sequence[str | None], replace: Callable[[list[str]], list[str]]) -> list[str | None]:
    """Applies `replace` to all strings at once; of JSON strings to their keys, strings and numbers."""
    flat: list[str] = []
    trees: list[Any] = []
    for text in strings:
        tree = _parse(text)
        trees.append(tree)
        if tree is not _NOT_JSON:
            flat.extend(_leaf_strings(tree))
        elif text is not None:
            flat.append(text)
    new = iter(replace(flat))
    made: list[str | None] = []
    for text, tree in zip(strings, trees, strict=True):
        if tree is not _NOT_JSON:
            rebuilt = _rebuild(tree, new)
            made.append(text if rebuilt == tree else json.dumps(rebuilt, ensure_ascii=False))
        else:
            made.append(None if text is None else next(new))
    return made


_NOT_JSON = object()
_MAX_DEPTH = 200  # levels of JSON that are parsed; deeper JSON is searched as a plain string


def _parse(text: str | None) -> Any:
    if text is None or text[:1] not in ("{", "[") or text[-1:] not in ("}", "]"):
        return _NOT_JSON
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):  # not JSON after all
        return _NOT_JSON
    return tree if _depth(tree) <= _MAX_DEPTH else _NOT_JSON


def _depth(tree: Any) -> int:
    level, depth = [tree], 0
    while level:
        depth += 1
        parts = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, (dict, list))]
        level = [v for part in parts for v in part]
    return depth


def _leaf_strings(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield key
            yield from _leaf_strings(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _leaf_strings(value)
    elif _may_be_personal(tree):
        yield str(tree)


def _may_be_personal(leaf: Any) -> bool:
    """An integer may be a telephone number. A fraction is a score: half the digits of 0.9326478183269501 look like a
    card or telephone number, and rules use such numbers."""
    return leaf is not None and not isinstance(leaf, bool) and not (isinstance(leaf, float) and leaf % 1 != 0)


def _rebuild(tree: Any, new: Iterator[str]) -> Any:
    if isinstance(tree, dict):
        made: dict[str, Any] = {}
        times: dict[str, int] = {}
        for value in tree.values():
            name = base = next(new)
            while name in made:  # two e-mail addresses as keys get the same mask
                times[base] = times.get(base, 0) + 1
                name = f"{base}'" if times[base] == 1 else f"{base}'{times[base]}"
            made[name] = _rebuild(value, new)
        return made
    if isinstance(tree, list):
        return [_rebuild(v, new) for v in tree]
    if not _may_be_personal(tree):
        return tree
    text = next(new)
    return text if isinstance(tree, str) or text != str(tree) else tree
