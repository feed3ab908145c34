"""Hostile input in one table: files, pages and texts that are cheap to make and were, or could be, dear to read.

The tests count the work of each at three sizes (tests/curation/test_hostile_input.py); benchmarks/hostile.py measures
seconds a megabyte.
"""

# ruff: noqa: E501 (a table: a shape is a line)
from __future__ import annotations

import json
from collections.abc import Callable

from benchmarks.hostile_documents import DOCUMENTS
from benchmarks.hostile_files import FILES, Shape, nested, repeated

# -- pages ------------------------------------------------------------------------------------------------------------

_PAGES: dict[str, Callable[[int], str]] = {
    "<noframes> repeated": repeated("<noframes>"),
    "<noframes without an end": repeated("<noframes "),
    "<noframes> with text, repeated": repeated("<noframes>a</noframe>"),
    "many attributes in one tag": repeated(" a{i}=1", "<p", ">text"),
    "many classes on one tag": repeated("a{i} ", '<p class="', '">text'),
    "many tags of 100 attributes": repeated("<p " + " ".join(f"a{i}=b" for i in range(100)) + ">x"),
    "<a><div> repeated": repeated("<a><div>"),
    "<a href=x>text repeated": repeated("<a href=x>y"),
    "<b><i> unclosed in paragraphs": repeated("<p><b><i><font color=1>"),
    "</p></b> that nothing opened": repeated("</p></b>"),
    "<font> with its own attribute each": repeated("<font size={i}><p>"),
    "<nobr> repeated": repeated("<nobr>"),
    "<button> repeated": repeated("<button>x"),
    "<form> in tables": repeated("<table><form>"),
    "<table> nested": nested("<table><tr><td>", "</td></tr></table>"),
    "<table> with text outside cells": repeated("<table>x"),
    "<table><a> repeated": repeated("<table><a>x"),
    "<tr> of many cells": repeated("<td>x", "<table><tr>"),
    "<div> nested": nested("<div>", "</div>"),
    "<div> never closed": nested("<div>"),
    "<ul><li> nested": nested("<ul><li>x", "</li></ul>"),
    "<blockquote><p> nested": nested("<blockquote><p>"),
    "<span> nested": nested("<span>"),
    "<svg> nested": nested("<svg><g>"),
    "<math> nested": nested("<math><mrow>"),
    "<template> nested": nested("<template>"),
    "<select><option> repeated": repeated("<select><option>x"),
    "<frameset> repeated": repeated("<frameset><frame>"),
    "<script> without an end": repeated("<script>"),
    "<script><!-- repeated": repeated("<script><!--<script>"),
    "<textarea></textare repeated": repeated("</textare ", "<textarea>"),
    "<title> repeated": repeated("<title>x"),
    "<plaintext> of <": repeated("<", "<plaintext>"),
    "<!-- repeated": repeated("<!--"),
    "<!--> and -- repeated": repeated("<!--> -- "),
    "<![CDATA[ repeated": repeated("<![CDATA["),
    "<!doctype repeated": repeated("<!doctype a ["),
    "< repeated": repeated("<"),
    "& repeated": repeated("&"),
    "&amp repeated": repeated("&amp"),
    "&#0000...": repeated("0", "&#", ";"),
    "<br> repeated": repeated("<br>"),
    "<pre> of newlines": repeated("\n", "<pre>", "x"),
    "<p> of no-break spaces": repeated("&nbsp;", "<p>", "x"),
    "style of display:": repeated("display:", '<p style="', '">x'),
    "style of many display: and blanks": repeated("display: ", '<p style="', '">x'),
    "<h1> repeated": repeated("<h1>x"),
    "<html lang=..> repeated": repeated("<html lang=a>"),
    "<body a=..> repeated": repeated("<body a{i}=1>"),
    "sections of many classes": repeated('<section class="a b c d e f g h content"><p>A text, which has a sentence. Yes.</section>'),
    "one class of share-share-": repeated("share-", '<div class="', '">x</div>'),
    "one class of comment hyphens": repeated("-article-", '<div class="', '">x</div>'),
    "a page of blanks": repeated(" "),
    "a page of tabs and newlines in a paragraph": repeated("\t\n", "<p>a", "b</p>"),
    "a page of one word": repeated("a"),
    "<ruby><rt> repeated": repeated("<ruby>a<rt>b"),
    "<dialog> and <details> nested": nested("<details><dialog>"),
    "<body><template><frameset> mixed": repeated("<template><frameset></template><body>"),
    "<marquee><applet><object> nested": repeated("<marquee><applet><object><p>"),
}  # fmt: skip
_RESILIPARSE = ("many attributes in one tag", "<a><div> repeated", "<div> nested", "<div> never closed", "<table> nested",
                "<b><i> unclosed in paragraphs", "< repeated", "many classes on one tag", "<span> nested")  # fmt: skip
_TRAFILATURA = (
    "<p> of no-break spaces",
    "<br> repeated",
    "a page of one word",
    "<h1> repeated",
    "<a href=x>text repeated",
)
PAGES = [
    *(Shape(name, "extract", make) for name, make in _PAGES.items()),
    *(Shape(name, "extract:resiliparse", _PAGES[name]) for name in _RESILIPARSE),
    *(Shape(name, "extract:trafilatura", _PAGES[name]) for name in _TRAFILATURA),
]

# -- texts ------------------------------------------------------------------------------------------------------------

_PII: dict[str, Callable[[int], str]] = {
    "1.2.3.4 repeated": repeated("1.2.3.4 "),
    "different IPv4 addresses": lambda n: " ".join(f"{i % 223 + 1}.{i // 7 % 256}.{i % 251}.{i % 13}" for i in range(n // 12)),
    "IPv4 addresses a line": lambda n: "\n".join(f"{i % 223 + 1}.{i // 7 % 256}.{i % 251}.{i % 13}" for i in range(n // 12)),
    ": repeated": repeated(":"),
    ":: repeated": repeated("::1 "),
    "hexadecimal and colons": repeated("ab:"),
    "dots and digits in one chunk": repeated("1."),
    "@ repeated": repeated("@"),
    "a@ repeated": repeated("a@"),
    "a.@a. repeated": repeated("a.@a."),
    "a letter, then @": repeated("a", "", "@b.c"),
    "one address of many labels": repeated("a.", "a@"),
    "mail addresses": repeated("user{i}@host{i}.org "),
    "digits": repeated("1"),
    "digits and blanks": repeated("1 "),
    "digits and hyphens": repeated("1-"),
    "13 digits each": lambda n: " ".join(f"{4_000_000_000_000 + i * 7919}" for i in range(n // 14)),
    "16 digits in fours": lambda n: " ".join(f"4{i % 1000:03d} {i * 7 % 10000:04d} {i * 13 % 10000:04d} 0001" for i in range(n // 20)),
    "decimal fractions": lambda n: " ".join(f"{i * 7919 % 100000 / 1000:.3f}" for i in range(n // 7)),
    "telephone numbers": lambda n: "\n".join(f"+1 212 555 {i % 10000:04d}" for i in range(n // 16)),
    "different telephone numbers in one line": lambda n: " ".join(f"(0{i % 89 + 10}) {i * 7919 % 10**7}" for i in range(n // 14)),
    "+ repeated": repeated("+"),
    "( repeated": repeated("("),
    "(1 repeated": repeated("(1"),
    "plus signs and digits": repeated("+1 "),
    "1x1 repeated": repeated("1x1"),
    "ext. 1 repeated": repeated("1234 ext. 1 "),
    "numbers and #": repeated("1234567#1 "),
    "dates": lambda n: " ".join(f"{1900 + i % 120}-{i % 12 + 1:02d}-{i % 28 + 1:02d}" for i in range(n // 11)),
    "full-width digits": repeated("１"),
    "Arabic digits and blanks": repeated("٣٤٥٦ "),
    "IBAN-like": lambda n: " ".join(f"DE{i % 90 + 10} 3704 0044 {i % 10000:04d}" for i in range(n // 20)),
    "GB82 repeated": repeated("GB82"),
    "two letters, two digits": repeated("ab12 "),
    "SSN-like": lambda n: " ".join(f"{i % 800 + 100:03d}-{i % 90 + 10}-{i % 9000 + 1000}" for i in range(n // 12)),
    "123.45.6789 in one chunk": repeated("123.45.6789."),
    "dots and hyphens and digits": repeated("1.-"),
    "sport results": lambda n: " ".join(f"{i % 10}-{i // 3 % 10} ({i % 90 + 10}) {1950 + i % 70}-{i % 90 + 10}" for i in range(n // 22)),
    "hexadecimal dump": lambda n: "\n".join(f"{i * 2654435761 % 2**32:08x}: {i * 40503 % 65536:04x} {i * 31 % 65536:04x}" for i in range(n // 20)),
}  # fmt: skip
_URLS: dict[str, Callable[[int], str]] = {
    "dots": repeated(".", "http://", "/"),
    "labels": repeated("a.", "http://", "org/"),
    "slashes and dots": repeated("/..", "http://a.org"),
    "parameters": repeated("&a{i}=1", "http://a.org/?"),
    "percent signs": repeated("%41", "http://a.org/"),
    "@ signs": repeated("@", "http://"),
    "brackets": repeated("[", "http://"),
    "letters of a banned word": repeated("xx", "http://a.org/"),
}
_TEXTS: dict[str, Callable[[int], str]] = {
    "blanks": repeated(" "),
    "newlines": repeated("\n"),
    "one word": repeated("a"),
    "dots": repeated("."),
    "dots and letters": repeated("a."),
    "e.g.e.g.": repeated("e.g."),
    "host name and brackets": repeated("]", "a.b", ""),
    "brackets around a host name": lambda n: "(" * (n // 2) + "a.bc" + ")" * (n // 2),
    "quotation marks around a host name": lambda n: '"' * (n // 2) + "a.bc!" + "'" * (n // 2),
    "dotted chunk and question marks": repeated("?", "docs.python.org/a", ""),
    "n't n't": repeated("n't"),
    "'s's's": repeated("'s"),
    "hyphens": repeated("a-"),
    "citations": repeated("[1]"),
    "[ and digits": repeated("[1"),
    "[[[[": repeated("["),
    "digits in a bracket": repeated("1", "[", "x."),
    "[edit repeated": repeated("[edi"),
    "javascrip": repeated("javascrip "),
    "Han": repeated("漢"),
    "Thai": repeated("กขคง"),
    "kana": repeated("かカ"),
    "words of one letter": repeated("a b "),
    "a line repeated": repeated("A line of a text, which is repeated.\n"),
    "lines of one letter": repeated("a\n"),
    "paragraph ends": repeated("a\n\n"),
    "carriage returns": repeated("\r"),
    "sentence ends": repeated("a. "),
    "! and ?": repeated("?! "),
    "combining marks": repeated("\u0301", "a"),
    "ﷺ, of 18 letters": repeated("ﷺ"),
    "İ, longer in lower case": repeated("İ"),
    "underscores": repeated("_"),
    "numbers": repeated("{i} "),
    "labels of fastText": repeated("__label__a "),
    "10^6 different words": repeated("w{i} "),
}
_STEPS = {
    "heuristics": tuple(_TEXTS),
    "c4_line_filter": ("blanks", "newlines", "one word", "citations", "[ and digits", "[[[[", "[edit repeated", "digits in a bracket",
                       "javascrip", "lines of one letter", "carriage returns"),
    "language": ("one word", "newlines", "blanks", "Han", "10^6 different words", "labels of fastText"),
    "classifier": ("labels of fastText", "one word"),
    "toxicity": ("one word", "sentence ends", "! and ?", "newlines", "a line repeated", "İ, longer in lower case"),
    "perplexity": ("one word", "newlines", "lines of one letter", "dots", "Han", "10^6 different words"),
    "decontaminate": ("the eval item repeated", "the eval item's words in turn", "one word", "words of one letter"),
    "exact_dedup": ("combining marks", "ﷺ, of 18 letters", "underscores", "İ, longer in lower case"),
    "line_dedup": ("newlines", "lines of one letter", "paragraph ends", "ﷺ, of 18 letters", "a line repeated", "one word"),
    "minhash": ("one word", "words of one letter", "10^6 different words", "Han", "combining marks"),
    "tokenizer": ("one word", "blanks", "newlines", "numbers", "dots", "Han", "underscores", "10^6 different words",
                  "ﷺ, of 18 letters"),
    "rule": ("one word", "blanks", "dots and letters"),
    "clean_text": ("combining marks", "ﷺ, of 18 letters"),
}  # fmt: skip
EVAL_ITEM = "the question of an evaluation set that has thirteen words and then a few more words"
_TEXTS |= {
    "the eval item repeated": repeated(EVAL_ITEM + ". "),
    "the eval item's words in turn": repeated(EVAL_ITEM.rpartition(" ")[0] + " "),
}
TEXTS = [
    *(Shape(name, "pii", make) for name, make in _PII.items()),
    *(Shape(name, "pii:whole", _PII[name]) for name in ("a letter, then @", "1.2.3.4 repeated", "digits", "a@ repeated")),
    *(Shape(name, "pii:scrub", make) for name, make in {
        "percent signs": repeated("%41", "http://a.org/?b="),
        "JSON of numbers": lambda n: json.dumps({"a": [1234567] * (n // 9)}),
        "JSON of equal keys after masking": lambda n: json.dumps({f"u{i}@python.org": 1 for i in range(n // 20)}),
        "backslashes": repeated("\\"),
        "a long run of percent-encoded bytes": repeated("%E2%82"),
    }.items()),
    *(Shape(name, "urls", make) for name, make in _URLS.items()),
    *(Shape(name, "url_dedup", make) for name, make in _URLS.items()),
    *(Shape(name, step, _TEXTS[name]) for step, names in _STEPS.items() for name in names),
]  # fmt: skip

SHAPES = [*FILES, *DOCUMENTS, *PAGES, *TEXTS]
assert len({(s.target, s.name) for s in SHAPES}) == len(SHAPES)
