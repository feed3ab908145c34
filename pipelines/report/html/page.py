"""Builds the frame of a report page: one HTML file that needs no network and in which no crawled text can run as code.

Outside text enters in two ways only. In markup it goes through `html.escape`. Documents are JSON in a data block, with
every `<` escaped, and scripts show them through `textContent`. In addition, the page's content security policy forbids
all requests and allows only the script whose hash it names.
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

SCRIPTS = {"samples.js": "samples", "what_if.js": "thresholds"}  # script -> key of the data that it shows


@dataclass(frozen=True)
class Section:
    """A section of the page: its anchor, heading and HTML. A section with empty HTML is left out."""

    name: str
    title: str
    html: str


def render(title: str, subtitle: str, sections: Sequence[Section], data: Mapping[str, Any] | None = None) -> str:
    """The page. `subtitle`: HTML of the line below the title; `data`: what the scripts read."""
    shown = [s for s in sections if s.html]
    nav = "".join(f'<li><a href="#{s.name}">{escape(s.title)}</a></li>' for s in shown)
    body = "".join(
        f'<section id="{s.name}" aria-labelledby="{s.name}-title"><h2 id="{s.name}-title">{escape(s.title)}</h2>'
        f"{s.html}</section>"
        for s in shown
    )
    data = data or {}
    script = "\n".join(map(_asset, ["page.js", *(name for name, key in SCRIPTS.items() if data.get(key))]))
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="referrer" content="no-referrer">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_asset('page.css')}</style>\n</head>\n<body>\n"
        f'<a class="skip" href="#content">Skip to content</a>\n'
        f'<header><div><h1>{escape(title)}</h1><p class="subtitle">{subtitle}</p></div>'
        f'<button id="theme" type="button" hidden>Dark</button></header>\n'
        f'<nav aria-label="Sections"><ul>{nav}</ul></nav>\n<main id="content" tabindex="-1">{body}</main>\n'
        f'<script type="application/json" id="data">{as_json(data)}</script>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def as_json(value: Any) -> str:
    """JSON that cannot close the script element around it: `<`, `>` and `&` are escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=str)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text.encode("utf-8", "replace").decode()


@functools.cache
def _asset(name: str) -> str:
    return resources.files("pipelines.report.html").joinpath(name).read_text("utf-8")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def tiles(figures: Sequence[tuple[str, str, str]]) -> str:
    """The key figures: (name, value, note), plain text."""
    parts = []
    for what, value, note in figures:
        more = f"<dd class=note>{escape(note)}</dd>" if note else ""
        parts.append(f"<div><dt>{escape(what)}</dt><dd>{escape(value)}</dd>{more}</div>")
    return f"<dl class=tiles>{''.join(parts)}</dl>"
