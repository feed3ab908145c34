"""Hostile dumps of wikis, books, LaTeX and posts: what the readers of whole document formats have to bear.

Texts are wikitext in a page of a dump, XHTML in a chapter of a book, LaTeX in a file; part of the table in
hostile_shapes.py.
"""

# ruff: noqa: E501 (a table: a shape is a line)
from __future__ import annotations

import bz2
import html
import io
import tarfile
import zipfile
from collections.abc import Callable

from benchmarks.hostile_files import Shape, nested, repeated

Text = Callable[[int], str]

# -- wikitext ---------------------------------------------------------------------------------------------------------

_HEAD = '<mediawiki xml:lang="en">\n'
_PAGE = "<page><title>%s</title><ns>0</ns><id>1</id><revision><id>2</id><text>%s</text></revision></page>\n"
_WIKITEXT: dict[str, Text] = {
    "{{ repeated": repeated("{{"),
    "{{a| repeated": repeated("{{a|"),
    "{{a|}} nested": nested("{{a|", "}}"),
    "{{{ repeated": repeated("{{{a|"),
    "}} repeated": repeated("}}"),
    "[[ repeated": repeated("[["),
    "[[File: nested": nested("[[File:a|", "]]"),
    "[[a|b]] repeated": repeated("[[a|b]]"),
    "[http:// repeated": repeated("[http://a "),
    "{| repeated": repeated("{|\n"),
    "cells of a table": repeated("|-\n|a||b\n", "{|\n", "|}"),
    "a cell that covers many": repeated("|colspan=9999 rowspan=9999|a\n", "{|\n", "|}"),
    "pipes": repeated("|", "{|\n|"),
    "<ref> repeated": repeated("<ref>"),
    "<ref name=a/> repeated": repeated("a<ref name=a/> "),
    "<nowiki> repeated": repeated("<nowiki>"),
    "<math> repeated": repeated("<math>"),
    "<!-- repeated": repeated("<!--"),
    "<sub> nested": nested("a<sub>", "</sub>"),
    "<sup>1</sup> repeated": repeated("a<sup>1</sup>"),
    "< repeated": repeated("<"),
    "<gallery> repeated": repeated("<gallery>\n"),
    "apostrophes": repeated("'"),
    "bold and italics": repeated("'" * 5 + "a"),
    "headings": repeated("== a ==\n"),
    "equals signs": repeated("="),
    "lists that grow": lambda n: "\n".join("*" * (i % 60) + "#" * (i % 7) + " a" for i in range(n // 35)),
    "colons": repeated(":"),
    "brackets where templates were": repeated("({{x}}, "),
    "{{frac|1|2}} repeated": repeated("2{{frac|1|2}}"),
    "{{convert|1|km}} repeated": repeated("{{convert|{i}|km}} "),
    "categories": repeated("[[Category:{i}]]\n"),
    "__NOTOC__ repeated": repeated("__NOTOC__"),
    "#redirect and blanks": repeated(" ", "#redirect"),
    "entities": repeated("&nbsp;"),
    "language converter": repeated("-{a;b"),
}
_DUMPS: dict[str, Text] = {
    "<page> repeated": repeated("<page>", _HEAD),
    "</page> repeated": repeated("</page>", _HEAD),
    "<page> of nothing": repeated("<page></page>", _HEAD),
    "pages of a word": repeated(_PAGE % ("{i}", "a"), _HEAD),
    "<siteinfo> repeated": repeated("<siteinfo></siteinfo>", _HEAD),
    "<mediawiki repeated": repeated("<mediawiki "),
    "<revision> repeated": repeated("<revision>", _HEAD + "<page><title>a</title><id>1</id>", "</page>"),
    "<title> repeated": repeated("<title>", _HEAD + "<page>", "</page>"),
    "blanks between pages": repeated(" ", _HEAD + _PAGE % ("a", "b"), _PAGE % ("c", "d")),
}

# -- books ------------------------------------------------------------------------------------------------------------

_CONTAINER = '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="p.opf"/></rootfiles></container>'
_OPF = (
    '<package xmlns="http://www.idpf.org/2007/opf"><manifest>%s<item id="a" href="a.xhtml" media-type="application/xhtml+xml"/>'
    '</manifest><spine><itemref idref="a"/>%s</spine></package>'
)
_CHAPTERS: dict[str, Text] = {
    "<![CDATA[ repeated": repeated("<![CDATA["),
    "CDATA sections": repeated("<![CDATA[<]]>"),
    "<a/> repeated": repeated("<a/>"),
    "<a without an end": repeated("<a "),
    "<div class= without an end": repeated('<div class="a"'),
    "<body repeated": repeated("<body "),
    "</body repeated": repeated("</body"),
    "<math alttext= repeated": repeated('<math alttext="a'),
    "<m:mi> repeated": repeated("<m:mi>"),
    "<aside> repeated": repeated("<aside>"),
}


def _book(chapter: str, manifest: str = "", spine: str = "", more: int = 0) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("META-INF/container.xml", _CONTAINER)
        archive.writestr("p.opf", _OPF % (manifest, spine))
        archive.writestr("a.xhtml", f"<html><body>{chapter}</body></html>")
        for i in range(more):
            archive.writestr(f"{i}", b"")
    return out.getvalue()


_BOOKS: dict[str, Callable[[int], bytes]] = {
    "a chapter of zeros": lambda n: _book("\0" * n),
    "a chapter that is listed often": lambda n: _book("a", spine='<itemref idref="a"/>' * (n // 20)),
    "a manifest of many items": lambda n: _book("a", "".join(f'<item id="{i}" href="{i}"/>' for i in range(n // 30))),
    "a package of nested elements": lambda n: _book("a", "<b>" * (n // 7) + "</b>" * (n // 7)),
    "an archive of many empty files": lambda n: _book("a", more=n // 110),
    "no archive but many of its signatures": lambda n: b"PK\x05\x06" * (n // 4),
}

# -- LaTeX ------------------------------------------------------------------------------------------------------------

_LATEX: dict[str, Text] = {
    "{ repeated": repeated("{"),
    "{} nested": nested("{", "}"),
    "[ repeated": repeated(r"\\["),
    "$ repeated": repeated("$"),
    "$$ and blanks": repeated("$$ "),
    r"\( repeated": repeated(r"\("),
    r"\begin{a} repeated": repeated(r"\begin{a}"),
    r"\begin{a} of its own each": repeated(r"\begin{a{i}}"),
    r"\begin{tabular} nested": nested(r"\begin{tabular}{l}", r"\end{tabular}"),
    r"\begin{itemize}\item nested": nested(r"\begin{itemize}\item ", r"\end{itemize}"),
    r"\begin{verbatim} repeated": repeated(r"\begin{verbatim}"),
    "cells": repeated("a & ", r"\begin{tabular}{l}", r"\end{tabular}"),
    "rows": repeated("a & b " + r"\\" + "\n", r"\begin{tabular}{l}", r"\end{tabular}"),
    "backslashes": repeated("\\"),
    "comments": repeated("% a\n"),
    "percent signs": repeated(r"\%a"),
    r"\verb| repeated": repeated(r"\verb|"),
    r"\section{ nested": nested(r"\section{", "}"),
    r"\footnote{ nested": nested(r"\footnote{a", "}"),
    r"\frac12 repeated": repeated(r"$\frac12$"),
    r"\qty{1}{m} repeated": repeated(r"\qty{{i}}{m} "),
    r"\href{ repeated": repeated(r"\href{"),
    r"\input of what is missing": repeated(r"\input{a{i}}"),
    r"\newcommand repeated": repeated(r"\newcommand{\a}{b}"),
    "a macro that doubles": lambda n: (
        r"\def\a{bb}"
        + "".join(rf"\def\{chr(98 + i)}{{\{chr(97 + i)}\{chr(97 + i)}}}" for i in range(24))
        + r"\y" * (n // 2)
    ),
    "a macro that is itself": repeated(r"\a", r"\def\a{\a}"),
    r"\def without an end": repeated(r"\def\a#1"),
    r"\left( nested": nested(r"\left(", r"\right)"),
    r"accents": repeated(r"\'e\c{c}"),
    "tildes": repeated("~"),
    "hyphens": repeated("-"),
    "blank lines": repeated("\n\n"),
    "^ and _": repeated("^_", "$", "$"),
    r"\title{ repeated": repeated(r"\title{"),
}


def _members(size: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for i in range(size // 512):
            archive.addfile(tarfile.TarInfo(f"{i}.tex"))
    return out.getvalue()


# -- posts and plain books --------------------------------------------------------------------------------------------

_POSTS: dict[str, Text] = {
    "rows": repeated('<row Id="{i}" PostTypeId="1" Title="a" Body="b" />\n', "<posts>\n"),
    "answers to one question": repeated(
        '<row Id="{i}" PostTypeId="2" ParentId="0" Body="b" />\n', '<posts>\n<row Id="00" PostTypeId="1" Title="a" />\n'
    ),
    "rows of one id": repeated('<row Id="1" PostTypeId="1" Title="a" />\n', "<posts>\n"),
    "a row without an end": repeated(' a="b"', "<posts>\n<row"),
    "a row of attributes": repeated(' a="b"', "<posts>\n<row", "/>\n"),
    "<row repeated": repeated("<row ", "<posts>\n"),
    "blank lines": repeated("\n", "<posts>\n"),
    "entities in a row": repeated("&#x41;", '<posts>\n<row Id="1" PostTypeId="1" Body="', '" />\n'),
}
_START, _END = "*** START OF THE PROJECT GUTENBERG EBOOK A ***\n", "\n*** END OF THE PROJECT GUTENBERG EBOOK\n"
_GUTENBERG: dict[str, Text] = {
    "START lines": repeated("*** START OF THE PROJECT GUTENBERG EBOOK\n"),
    "START without an end": repeated("*** START OF THE PROJECT GUTENBERG a\nb\n"),
    "END lines": repeated(_END, _START),
    "fields": repeated("Title: a\n"),
    "notes": repeated("[Transcriber's note ", _START, _END),
    "blank lines": repeated("\n", _START, _END),
}


def _encoded(make: Text, form: str = "%s") -> Callable[[int], bytes]:
    return lambda size: (form % make(size)).encode()


def _in_page(make: Text) -> Callable[[int], bytes]:
    return lambda size: (_HEAD + _PAGE % ("a", html.escape(make(size)))).encode()


def _in_book(make: Text) -> Callable[[int], bytes]:
    return lambda size: _book(make(size))


_PAPER = r"\documentclass{article}\begin{document}" + "%s" + r"\end{document}"
_PACKED_HEAD, _PACKED_PAGE = bz2.compress(_HEAD.encode()), bz2.compress((_PAGE % ("a", "b")).encode())
DOCUMENTS = [
    *(Shape(name, "dump.xml", _in_page(make)) for name, make in _WIKITEXT.items()),
    *(Shape(name, "dump.xml", _encoded(make)) for name, make in _DUMPS.items()),
    Shape("bzip2 streams of nothing", "dump.xml.bz2", lambda n: _PACKED_HEAD + bz2.compress(b"") * (n // 14)),
    Shape("bzip2 streams of a page", "dump.xml.bz2", lambda n: _PACKED_HEAD + _PACKED_PAGE * (n // len(_PACKED_PAGE))),
    *(Shape(name, "book.epub", _in_book(make)) for name, make in _CHAPTERS.items()),
    *(Shape(name, "book.epub", make) for name, make in _BOOKS.items()),
    *(Shape(name, "paper.tex", _encoded(make, _PAPER)) for name, make in _LATEX.items()),
    Shape("an archive of many empty sources", "paper.tar", _members),
    *(Shape(name, "Posts.xml", _encoded(make)) for name, make in _POSTS.items()),
    *(Shape(name, "book.txt", _encoded(make)) for name, make in _GUTENBERG.items()),
]
