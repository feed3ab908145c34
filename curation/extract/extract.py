"""`extract`: HTML in, the text that the page is about out.

Three engines. `auto` is Gristmill's own (extract_blocks, extract_main, extract_text): trafilatura's quality at several
times its speed, with code, tables and lists in their line structure. `resiliparse` is the fastest, and keeps more of
what stands around the text; `trafilatura` is for comparing with corpora that were made with it. Where `auto` finds no
content on a page that has text (a page that is all links, say), the whole page's text stands in for it.

A page that an engine cannot take is not an error: its text is empty and rule `empty` drops it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc

from curation import document
from curation.extract import blocks, main_content, plain_text
from curation.step import MapStep

HTML = ("text/html", "application/xhtml+xml")
_ENOUGH = 25  # characters: below it `auto` takes the whole page instead
_LONGEST_TITLE = 1000
_DEEPEST = 5000
_BODY = re.compile(r"</head|<body", re.IGNORECASE)
_TITLE = re.compile(r"<title", re.IGNORECASE)
_ROOT = re.compile(r"<html", re.IGNORECASE)
_NO_FRAMES = re.compile(r"<noframes[^>]*>(.*?)</noframes", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Extracted:
    """What extraction makes of one page. `problem` says why there is no text, else empty."""

    text: str
    title: str = ""
    language: str = ""
    problem: str = ""


@dataclass
class Extract(MapStep):
    """Rewrites `text` of rows whose `read.mime` is HTML to plain text; other rows keep theirs.

    Signals: `title` and `language` (what the page's own `lang` says; both null where it says nothing), `html_chars` and
    `chars` (before and after; Unicode characters), `problem` (null, or why a page gave nothing).
    """

    engine: Literal["auto", "resiliparse", "trafilatura"] = "auto"
    name: str = "extract"

    reads: ClassVar[tuple[str, ...]] = ("text", "read")
    rewrites: ClassVar[bool] = True
    version: ClassVar[str] = "1"

    @property
    def signals(self) -> pa.Schema:
        """The fields of `extract`."""
        return pa.schema(
            [
                ("title", pa.string()),
                ("language", pa.string()),
                ("html_chars", pa.int64()),
                ("chars", pa.int64()),
                ("problem", pa.string()),
            ]
        )

    def rules(self) -> Mapping[str, str]:
        """A document must have text."""
        return {"empty": f"{self.name}.chars > 0"}

    def packages(self) -> Sequence[str]:
        own = ("trafilatura", "lxml_html_clean") if self.engine == "trafilatura" else ()
        return ("resiliparse", *own) if self.engine != "auto" else ("resiliparse", "numba")

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with plain text, and the signals."""
        engine = ENGINES[self.engine]
        mimes = pc.struct_field(batch.column("read"), "mime").to_pylist()
        texts = batch.column("text").to_pylist()
        none: list[Any] = [None] * len(texts)
        titles, languages, before, problems = none.copy(), none.copy(), none.copy(), none
        for i, (text, mime) in enumerate(zip(texts, mimes, strict=True)):
            if text is None or mime not in HTML:
                continue
            found = _extract(engine, text)
            texts[i] = document.clean_text(found.text).strip()
            titles[i] = found.title[:_LONGEST_TITLE] or None
            languages[i] = found.language[:35] or None  # the longest tag BCP 47 speaks of
            before[i] = len(text)
            problems[i] = found.problem or None
        plain = pa.array(texts, pa.large_string())
        columns = [titles, languages, before, pc.utf8_length(plain), problems]
        fields = list(self.signals)
        arrays = [pa.array(c, f.type) if isinstance(c, list) else c for c, f in zip(columns, fields, strict=True)]
        batch = document.with_column(batch, "text", plain)
        return document.with_column(batch, self.name, pa.StructArray.from_arrays(arrays, fields=fields))


def extract(html: str, engine: Literal["auto", "resiliparse", "trafilatura"] = "auto") -> Extracted:
    """One page. Never raises for what is in it."""
    html = html if html.isascii() else html.encode("utf-8", "replace").decode("utf-8")  # no lone surrogates
    return _extract(ENGINES[engine], html)


def _extract(engine: Callable[[str], Extracted], html: str) -> Extracted:
    try:
        if engine is not _auto and _too_deep(html):
            return Extracted("", problem=f"elements nested deeper than {_DEEPEST}")
        found = engine(html)
    except Exception as error:  # whatever three parsers may raise on what people publish: the page is a drop
        return Extracted("", problem=f"{type(error).__name__}: {error}")
    return Extracted(found.text, document.clean_text(found.title), document.clean_text(found.language), found.problem)


def _too_deep(html: str) -> bool:
    """Whether a page is nested so deeply that parsers with work quadratic in depth would be at it for minutes (100,000
    deep: 226 s in resiliparse). Only pages with very many open tags are parsed for it; `auto` needs no such guard."""
    if html.count("<") <= _DEEPEST:
        return False
    import numpy as np

    from curation.extract.html_walk_kernel import nesting

    data = html.encode("utf-8", "replace")
    if 2 * nesting(np.frombuffer(data, np.uint8), len(data)) <= _DEEPEST:
        return False
    page = blocks.read(html)
    depth = [1] * len(page.tag)
    for node in range(1, len(depth)):
        depth[node] = depth[page.parent[node]] + 1
    return max(depth, default=0) > _DEEPEST


def _auto(html: str) -> Extracted:
    page = blocks.read(html)
    title, language = page.title, page.language
    if not page.text and (frames := _NO_FRAMES.search(html)):  # all that a page of frames has to say
        page = blocks.read(frames[1])
    text = plain_text.render(page, main_content.content(page))
    if len(text) < _ENOUGH:
        text = max(text, plain_text.render(page, list(range(len(page.text)))), key=len)
    return Extracted(text, title, language)


def _resiliparse(html: str) -> Extracted:
    from resiliparse.extract.html2text import extract_plain_text

    html = html[: blocks.MAX_HTML]
    return Extracted(extract_plain_text(html, main_content=True, alt_texts=False), *_head(html))


def _trafilatura(html: str) -> Extracted:
    import trafilatura

    html = html[: blocks.MAX_HTML]
    text = trafilatura.extract(html, include_comments=False)
    return Extracted(text or "", *_head(html), "" if text else "trafilatura found no content")


def _head(html: str) -> tuple[str, str]:
    """Title and language, for the engines that do not say.

    Only what stands before the body is parsed, an eighth of the time that pages take whole; a page that says neither
    there is parsed whole, if the rest looks as if it said more.
    """
    from resiliparse.parse.html import HTMLTree

    body = _BODY.search(html)
    end = body.start() if body else len(html)
    title, language = blocks.head(HTMLTree.parse(html[:end]))
    if (not title and _TITLE.search(html, end)) or (not language and _ROOT.search(html, end)):
        return blocks.head(HTMLTree.parse(html))
    return title, language


ENGINES: Mapping[str, Callable[[str], Extracted]] = {
    "auto": _auto,
    "resiliparse": _resiliparse,
    "trafilatura": _trafilatura,
}
