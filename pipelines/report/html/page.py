"""The frame of a page that opens anywhere: one HTML file, no network, and nothing crawled that can run.

Words from outside come in two ways only. Into markup they go through `html.escape`. Documents travel as JSON in a data
block, in which every `<` is escaped, and scripts show them through `textContent`. Behind both stands the page's own
policy: it forbids every request, and runs no script but the one whose hash it names.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import Any

SCRIPTS = {"samples.js": "samples", "what_if.js": "thresholds"}  # and the data that each is there for


@dataclass(frozen=True)
class Section:
    """A part of the page: what the address bar calls it, its heading, its HTML. Empty HTML: it is left out."""

    name: str
    title: str
    html: str


def render(title: str, said: str, sections: Sequence[Section], data: Mapping[str, Any] | None = None) -> str:
    """The page. `said`: a line below the title, HTML; `data`: what scripts find in the block `data`."""
    shown = [s for s in sections if s.html]
    nav = "".join(f'<li><a href="#{s.name}">{escape(s.title)}</a></li>' for s in shown)
    body = "".join(
        f'<section id="{s.name}" aria-labelledby="{s.name}-title"><h2 id="{s.name}-title">{escape(s.title)}</h2>'
        f"{s.html}</section>"
        for s in shown
    )
    data = data or {}
    script = "\n".join(map(_own, ["page.js", *(name for name, key in SCRIPTS.items() if data.get(key))]))
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="referrer" content="no-referrer">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_own('page.css')}</style>\n</head>\n<body>\n"
        f'<a class="skip" href="#content">To the content</a>\n'
        f'<header><div><h1>{escape(title)}</h1><p class="said">{said}</p></div>'
        f'<button id="theme" type="button" hidden>Dark</button></header>\n'
        f'<nav aria-label="Sections"><ul>{nav}</ul></nav>\n<main id="content" tabindex="-1">{body}</main>\n'
        f'<script type="application/json" id="data">{as_json(data)}</script>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def as_json(value: Any) -> str:
    """JSON that nothing in it can end: inside a script element only `<` can, and it is escaped with `>` and `&`."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=str)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text.encode("utf-8", "replace").decode()


@functools.cache
def _own(name: str) -> str:
    return resources.files("pipelines.report.html").joinpath(name).read_text("utf-8")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def tiles(figures: Sequence[tuple[str, str, str]]) -> str:
    """The figures that matter most: (what, value, a word about it), plain text."""
    parts = []
    for what, value, note in figures:
        more = f"<dd class=note>{escape(note)}</dd>" if note else ""
        parts.append(f"<div><dt>{escape(what)}</dt><dd>{escape(value)}</dd>{more}</div>")
    return f"<dl class=tiles>{''.join(parts)}</dl>"
