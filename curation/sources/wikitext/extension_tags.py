"""Takes comments, references and other tags whose content is no wikitext out of a page.

What is shown as it is (formulas, code, nowiki) becomes a placeholder, so that braces and pipes in it are not read as
markup; `restore` puts it back. A tag that is never closed is only a tag: its content stays, as in MediaWiki. Work is
linear: where a tag ends is looked up once for all tags before that place.

Tags: https://www.mediawiki.org/wiki/Parser_extension_tags.
"""

from __future__ import annotations

import html
import re

# Content that is no text: citations, pictures, drawings, music, data.
_REMOVED = frozenset(
    ("ref", "references", "gallery", "timeline", "imagemap", "score", "hiero", "graph", "chart", "mapframe", "maplink",
     "templatestyles", "section", "indicator", "inputbox", "categorytree", "templatedata", "includeonly")
)  # fmt: skip
_FORMULAS = frozenset(("math", "chem", "ce"))
_CODE = frozenset(("pre", "source", "syntaxhighlight"))
_NAMES = "|".join(sorted(_REMOVED | _FORMULAS | _CODE | {"nowiki"}, key=len, reverse=True))
_TAG = re.compile(rf"<(?:!--|({_NAMES})(?=[\s/>])([^<>]*+)>)", re.I)
_CLOSE = {name: re.compile(rf"</{name}\s*>", re.I) for name in (*_REMOVED, *_FORMULAS, *_CODE, "nowiki")}
_PLACEHOLDER = re.compile("\x7f(\\d+)\x7f")
_WHOLE_LINE = re.compile(r"[ \t]*\n")


def take_out(source: str) -> tuple[str, list[str]]:
    """The page without them, and what the placeholders in it stand for."""
    out: list[str] = []
    kept: list[str] = []
    closes: dict[str, tuple[int, int]] = {}  # of each tag, the next closing tag that is known
    at = 0
    while found := _TAG.search(source, at):
        start, end = found.span()
        out.append(source[at:start])
        if found[1] is None:
            close = source.find("-->", end)
            at = len(source) if close < 0 else close + 3
            # a comment that fills its lines leaves none
            if (rest := _WHOLE_LINE.match(source, at)) and (start == 0 or source[start - 1] == "\n"):
                at = rest.end()
            continue
        at = end
        name = found[1].lower()
        if found[2].endswith("/"):
            out.append(_placeholder(kept, "") if name == "nowiki" else "")
            continue
        close_start, close_end = _next_close(source, name, end, closes)
        if close_start < 0 or (name == "ref" and _is_unclosed(source, end, close_start)):
            continue
        at = close_end
        if name in _REMOVED:
            continue
        content = source[end:close_start]
        out.append(_placeholder(kept, _shown(name, found[2], content)))
    out.append(source[at:])
    return "".join(out), kept


def restore(text: str, kept: list[str]) -> str:
    """The text with the contents in place of their placeholders."""
    if not kept:
        return text
    return _PLACEHOLDER.sub(lambda m: kept[int(m[1])] if int(m[1]) < len(kept) else "", text)


def _placeholder(kept: list[str], content: str) -> str:
    kept.append(content)
    return f"\x7f{len(kept) - 1}\x7f"


def _next_close(source: str, name: str, start: int, closes: dict[str, tuple[int, int]]) -> tuple[int, int]:
    known = closes.get(name)
    if known is None or -1 < known[0] < start:
        found = _CLOSE[name].search(source, start)
        known = closes[name] = found.span() if found else (-1, -1)
    return known


def _is_unclosed(source: str, start: int, close: int) -> bool:
    """Whether a reference lacks its end: another one begins in a later paragraph, and the end that was found is of
    that one."""
    other = source.find("<ref", start, close)
    return other >= 0 and source.find("\n\n", start, other) >= 0


def _shown(name: str, attributes: str, content: str) -> str:
    if name in _FORMULAS:
        tex = " ".join(html.unescape(content).split())
        if name != "math" and tex:
            tex = rf"\ce{{{tex}}}"
        around = "$$" if "block" in attributes else "$"
        return f"{around}{tex}{around}" if tex else ""
    text = html.unescape(content)
    return text if name == "nowiki" else "\n" + text.strip("\n") + "\n"
