"""Finds the text of a page that is not in its visible tree: in noscript, in script templates and in JSON-LD.

Pages that a script builds carry their text elsewhere too: forums write all posts into `<noscript>`, others hold the
article in a template, and search engines are given it as JSON-LD (schema.org): `articleBody` of an article, `text` of a
post, `description` of a product.
"""

from __future__ import annotations

import html as html_
import json
import re
from collections.abc import Iterator
from typing import Any

_JSON_LD = re.compile(r"<script\s[^>]*application/ld\+json[^>]*>(.*?)</script", re.I | re.S)
_TEMPLATE = re.compile(r"<script\s[^>]*type=[\"']?text/(?:x-)?(?:template|html)[^>]*>(.*?)</script", re.I | re.S)
_NOSCRIPT = re.compile(r"<(/?)noscript", re.I)
_MAX_DEPTH = 20
_HTML_IN_TEXT = re.compile(r"</?(?:p|br|div|ul|li|h\d|strong|em|b|span)\b[^>]*>", re.I)


def without_scripts(html: str) -> Iterator[str]:
    """The page as a browser without scripts shows it, and what its templates hold; pages to try in this order."""
    opened = _NOSCRIPT.sub(r"<\1div", html)
    if len(opened) != len(html):
        yield opened
    templates = "".join(_TEMPLATE.findall(html)) if "text/" in html else ""
    if "<" in templates:
        yield f"<body>{templates}</body>"


def json_ld(html: str) -> list[dict[str, Any]]:
    """Every object of the page's JSON-LD, in order; what is no JSON is left out."""
    found: list[dict[str, Any]] = []
    for source in _JSON_LD.findall(html):
        try:
            _collect(json.loads(source, strict=False), found, 0)
        except (ValueError, RecursionError):
            continue
    return found


def types(item: dict[str, Any]) -> list[str]:
    """The schema.org types of an object."""
    kind = item.get("@type")
    return [str(k) for k in kind] if isinstance(kind, list) else [str(kind)] if kind else []


def written_text(item: dict[str, Any]) -> str:
    """The text that an object carries, as plain text or HTML; empty for one that carries none."""
    names = ("articleBody", "text") if "Product" not in types(item) else ("description",)
    return next((str(item[n]) for n in names if isinstance(item.get(n), str) and item[n].strip()), "")


def as_page(text: str) -> str:
    """Text of JSON-LD, often HTML escaped once, as a page."""
    text = html_.unescape(text) if "&" in text else text
    if not _HTML_IN_TEXT.search(text):
        text = "".join(f"<p>{html_.escape(line)}</p>" for line in text.split("\n"))
    return f"<body>{text}</body>"


def _collect(value: Any, found: list[dict[str, Any]], depth: int) -> None:
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, list):
        for item in value:
            _collect(item, found, depth + 1)
    elif isinstance(value, dict):
        if "@type" in value:
            found.append(value)
        for item in value.values():
            if isinstance(item, (list, dict)):
                _collect(item, found, depth + 1)
