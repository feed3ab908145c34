"""The step `extract`: turns HTML into the plain text of its main content.

Three engines. `auto` is Gristmill's own (blocks.py, main_content.py, plain_text.py): trafilatura's quality at several
times its speed, and code, tables and lists keep their lines. `resiliparse` is the fastest and keeps more of what
surrounds the text; `trafilatura` is for comparison with corpora made with it. Where `auto` finds no content on a page
that has text (a page of links only, say), it returns the text of the whole page.

A page that an engine cannot handle is not an error: its text is empty and rule `empty` drops it. What the machine lacks
(memory, a package, a file) is one: the page would be dropped here and kept elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc

from curation import document
from curation.extract import (
    blocks,
    embedded_text,
    hostile_pages,
    main_content,
    page_kind,
    plain_text,
    repeated_text,
)
from curation.step import MapStep

HTML = ("text/html", "application/xhtml+xml")
_MIN_MAIN_TEXT_CHARS = 25  # with less, `auto` takes the text of the whole page
_MIN_WHOLE_TEXT_CHARS = 500  # with less, what the page holds for browsers without scripts is looked at
_MIN_GAIN = 2  # ... and taken if it is so many times as long
_MIN_CARRIED_CHARS = 60  # shorter text in JSON-LD is a slogan
_SAME_WORDS = 0.8  # share of its words that the page's text has too: it is the same text, perhaps set otherwise
# A page of links: its article would have less than this share of its text, and more than this share is in links
_LISTING_MAX_MAIN, _LISTING_MIN_LINKED = 0.3, 0.3
_MAX_TITLE_CHARS = 1000
_MAX_NESTING = 512  # as in Chromium; resiliparse takes 35 ns times the square of it
NOT_THE_PAGES = (MemoryError, ImportError, OSError)
_WORD = re.compile(r"\w+")
_BODY_START = re.compile(r"</head|<body", re.IGNORECASE)
_TITLE = re.compile(r"<title", re.IGNORECASE)
_ROOT = re.compile(r"<html", re.IGNORECASE)
_NOFRAMES, _NOFRAMES_END = re.compile("<noframes", re.IGNORECASE), re.compile("</noframes", re.IGNORECASE)


@dataclass(frozen=True)
class ExtractedPage:
    """The text of one page. `problem`: why there is no text, else empty."""

    text: str
    title: str = ""
    language: str = ""
    problem: str = ""
    kind: str = ""
    lost: float = 0.0


@dataclass
class Extract(MapStep):
    """Rewrites `text` of rows whose `read.mime` is HTML to plain text; other rows keep theirs.

    Signals: `title` and `language` (what the page declares; null where it declares none), `html_chars` and `chars`
    (Unicode characters before and after), `problem` (why no text was found, else null), `kind` (article, forum,
    product, listing or documentation, by the page's structure) and `lost` (the share of the page's text, menus and
    hidden parts included, that was not written: near 1 on a long page, the text may be wrong). Other engines leave
    both null.
    """

    engine: Literal["auto", "resiliparse", "trafilatura"] = "auto"
    name: str = "extract"

    reads: ClassVar[tuple[str, ...]] = ("text", "read")
    rewrites: ClassVar[bool] = True
    version: ClassVar[str] = "4"

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
                ("kind", pa.string()),
                ("lost", pa.float64()),
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
        titles, languages, before, problems, kinds, lost = (none.copy() for _ in range(6))
        for i, (text, mime) in enumerate(zip(texts, mimes, strict=True)):
            if text is None or mime not in HTML:
                continue
            found = _run_engine(engine, text)
            texts[i] = document.clean_text(found.text).strip()
            titles[i] = found.title[:_MAX_TITLE_CHARS] or None
            languages[i] = found.language[:35] or None  # the longest language tag that BCP 47 asks software to support
            before[i] = len(text)
            problems[i] = found.problem or None
            if found.kind:
                kinds[i], lost[i] = found.kind, round(found.lost, 3)
        plain = pa.array(texts, pa.large_string())
        columns = [titles, languages, before, pc.utf8_length(plain), problems, kinds, lost]
        fields = list(self.signals)
        arrays = [pa.array(c, f.type) if isinstance(c, list) else c for c, f in zip(columns, fields, strict=True)]
        batch = document.with_column(batch, "text", plain)
        return document.with_column(batch, self.name, pa.StructArray.from_arrays(arrays, fields=fields))


def extract(html: str, engine: Literal["auto", "resiliparse", "trafilatura"] = "auto") -> ExtractedPage:
    """Extracts the text of one page. Raises nothing for what a page contains, only for what the machine lacks."""
    html = html if html.isascii() else html.encode("utf-8", "replace").decode("utf-8")  # no lone surrogates
    return _run_engine(ENGINES[engine], html)


def _run_engine(engine: Callable[[str], ExtractedPage], html: str) -> ExtractedPage:
    try:
        html, problem = hostile_pages.limit_page(html[: blocks.MAX_HTML])
        if problem:
            return ExtractedPage("", problem=problem)
        if engine is not _extract_auto and _nested_too_deep(html):
            return ExtractedPage("", problem=f"elements nested deeper than {_MAX_NESTING}")
        found = engine(html)
    except NOT_THE_PAGES:
        raise
    except Exception as error:  # parsers may raise anything on pages found in the wild: the page becomes a drop
        if engine is _extract_auto and not isinstance(error, (ValueError, RecursionError)):
            raise  # our own code: a bug, which the run names, not a fault of the page
        return ExtractedPage("", problem=f"{type(error).__name__}: {error}")
    # a soft hyphen is a place where a browser may break a word, and no part of it
    text, title = found.text.replace("\xad", ""), document.clean_text(found.title).replace("\xad", "")
    language = document.clean_text(found.language)
    return ExtractedPage(text, title, language, found.problem, found.kind, found.lost)


def _nested_too_deep(html: str) -> bool:
    """Whether a page is nested so deeply that a parser whose work is quadratic in depth would take minutes (100,000
    levels: 226 s in resiliparse). Only pages with very many open tags are parsed to find out; `auto` does not need this
    guard."""
    if html.count("<") <= _MAX_NESTING:
        return False
    import numpy as np

    from curation.extract.html_tag_kernels import max_open_tags

    data = html.encode("utf-8", "replace")
    if 2 * max_open_tags(np.frombuffer(data, np.uint8), len(data)) <= _MAX_NESTING:
        return False
    page = blocks.parse_page(html)
    depth = [1] * len(page.tag)
    for node in range(1, len(depth)):
        depth[node] = depth[page.parent[node]] + 1
    return max(depth, default=0) > _MAX_NESTING


def _extract_auto(html: str) -> ExtractedPage:
    page = blocks.parse_page(html)
    title, language = page.title, page.language
    if not page.text and (frames := _noframes(html)):  # all the text that a page of frames has
        page = blocks.parse_page(frames)
    kind, declared = page_kind.page_kind(html, page)
    text = _main_text(page, kind)
    chars = sum(map(len, page.text))
    linked = sum(page.link_chars) > _LISTING_MIN_LINKED * chars
    if kind == "article" and not declared and linked and len(text) < _LISTING_MAX_MAIN * chars:
        kind, text = "listing", _main_text(page, "listing")
    if len(text) < _MIN_WHOLE_TEXT_CHARS:  # a script may build the page
        for other in embedded_text.without_scripts(html):
            found = _main_text(blocks.parse_page(other), kind)
            text = found if len(found) > _MIN_GAIN * len(text) + _MIN_MAIN_TEXT_CHARS else text
    text = _with_json_ld(html, text, kind)
    if len(text) < _MIN_MAIN_TEXT_CHARS:
        text = max(text, plain_text.render(page, list(range(len(page.text)))), key=len)
    lost = 1 - min(1.0, len(text) / page.visible_chars) if page.visible_chars else 0.0
    return ExtractedPage(text, title, language, kind=kind, lost=lost)


def _main_text(page: blocks.PageBlocks, kind: str) -> str:
    chosen = main_content.main_content_blocks(page, kind)
    return plain_text.render(page, repeated_text.without_copies(page, chosen))


def _with_json_ld(html: str, text: str, kind: str) -> str:
    """The text, with or as what the page's JSON-LD carries of it."""
    if "ld+json" not in html or (len(text) >= _MIN_WHOLE_TEXT_CHARS and kind != "product"):
        return text
    seen = set(_WORD.findall(text))
    for item in embedded_text.json_ld(html):
        carried = embedded_text.written_text(item)
        if len(carried) < _MIN_CARRIED_CHARS:
            continue
        page = blocks.parse_page(embedded_text.as_page(carried))
        body = plain_text.render(page, list(range(len(page.text))))
        words = set(_WORD.findall(body))
        if len(words & seen) > _SAME_WORDS * len(words):
            continue
        if "Product" in embedded_text.types(item):
            return f"{text}\n\n{body}" if text else body
        if len(body) > _MIN_GAIN * len(text):
            return body
    return text


def _noframes(html: str) -> str:
    """What the first `<noframes>` holds, in three steps: one pattern for all would start again at each of many."""
    start = _NOFRAMES.search(html)
    begin = html.find(">", start.end()) + 1 if start else 0
    end = _NOFRAMES_END.search(html, begin) if begin else None
    return html[begin : end.start()] if end else ""


def _extract_resiliparse(html: str) -> ExtractedPage:
    from resiliparse.extract.html2text import extract_plain_text

    return ExtractedPage(extract_plain_text(html, main_content=True, alt_texts=False), *_title_and_language(html))


def _extract_trafilatura(html: str) -> ExtractedPage:
    import trafilatura

    text = trafilatura.extract(html, include_comments=False)
    return ExtractedPage(text or "", *_title_and_language(html), "" if text else "trafilatura found no content")


def _title_and_language(html: str) -> tuple[str, str]:
    """Title and language, for the engines that do not return them.

    Only what comes before the body is parsed, in an eighth of the time that whole pages take; a page that declares
    neither there is parsed whole if the rest looks as if it declared one.
    """
    from resiliparse.parse.html import HTMLTree

    body = _BODY_START.search(html)
    end = body.start() if body else len(html)
    title, language = blocks.title_and_language(HTMLTree.parse(html[:end]))
    if (not title and _TITLE.search(html, end)) or (not language and _ROOT.search(html, end)):
        return blocks.title_and_language(HTMLTree.parse(html))
    return title, language


ENGINES: Mapping[str, Callable[[str], ExtractedPage]] = {
    "auto": _extract_auto,
    "resiliparse": _extract_resiliparse,
    "trafilatura": _extract_trafilatura,
}
