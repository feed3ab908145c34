"""Speed of the readers of Wikipedia, Stack Exchange, EPUB and LaTeX beside libraries that read the same.

    python benchmarks/sources.py [DATA]      DATA: a folder as described in the README of the test data: sources/...

Peers are installed by hand (`pip install mwparserfromhell gensim pylatexenc`); one that is missing is left out
of the table. CPU seconds of one process; megabytes are those of texts as stored, unpacked. What a peer makes is less:
mwparserfromhell and gensim are given wikitext alone (no XML), ElementTree only parses, pylatexenc
expands no macros of the author. EPUB has none: ebooklib refuses the samples, whose pictures were taken out.
"""

from __future__ import annotations

import bz2
import gzip
import html
import importlib
import re
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from curation.sources.books.epub import EpubReader
from curation.sources.dumps.stackexchange import StackExchangeReader
from curation.sources.dumps.wikipedia import WikipediaReader
from curation.sources.latex.latex import LatexReader
from curation.sources.wikitext.wikitext import to_text
from curation.step import InputSplit

RESIDUE = ("{{", "}}", "[[", "|thumb")


def read(reader: Any, path: Path) -> int:
    """How many records a file has."""
    part = InputSplit(path.name, path.stat().st_size, "")
    batches = reader.read(part, str(path.parent), collection="c", domain="d", rows=100)
    return sum(batch.num_rows for batch in batches)


def timed(name: str, size: int, run: Callable[[], Any]) -> Any:
    begin = time.process_time()
    try:
        result = run()
    except ImportError as error:
        print(f"{name:44} not installed: {error.name}")
        return None
    seconds = time.process_time() - begin
    print(f"{name:44} {size / 1e6 / seconds:8.2f} MB/s {seconds:8.2f} s")
    return result


def wikipedia(root: Path) -> None:
    path = root / "wikipedia" / "enwiki-pages-articles-sample.xml.bz2"
    xml = bz2.decompress(path.read_bytes())
    pages = [html.unescape(t) for t in re.findall(r"<text[^>]*>([^<]*)</text>", xml.decode()) if len(t) > 500]
    size = sum(len(page.encode()) for page in pages)
    timed("read: wikipedia, with bzip2 and XML", len(xml), lambda: read(WikipediaReader(), path))
    texts = {"our wikitext": timed("our wikitext", size, lambda: [to_text(page).text for page in pages])}

    def strip_code() -> list[str]:
        parser = importlib.import_module("mwparserfromhell")
        return [str(parser.parse(page).strip_code()) for page in pages]

    def filter_wiki() -> list[str]:
        corpus = importlib.import_module("gensim.corpora.wikicorpus")
        return [corpus.filter_wiki(page) for page in pages]

    texts["mwparserfromhell strip_code"] = timed("mwparserfromhell strip_code", size, strip_code)
    texts["gensim filter_wiki"] = timed("gensim filter_wiki", size, filter_wiki)
    for name, made in texts.items():
        if made:
            prose = ["".join(text.split("$")[::2]) for text in made]  # formulas may have double braces
            left = sum(any(sign in text for sign in RESIDUE) for text in prose)
            tex = sum(text.count(r"\frac") for text in made)
            print(f"  {name:42} pages with residue {left} of {len(made)}, fractions in TeX {tex}")


def stackexchange(root: Path, scratch: Path) -> None:
    data = gzip.decompress((root / "stackexchange" / "coffee-Posts.xml.gz").read_bytes())
    path = scratch / "Posts.xml"
    path.write_bytes(data)
    timed("read: stackexchange", len(data), lambda: read(StackExchangeReader(), path))
    timed("ElementTree, parsing alone", len(data), lambda: ElementTree.fromstring(data))


def epub(root: Path) -> None:
    path = root / "epub" / "moby-dick.epub"
    timed("read: epub (a novel)", 1_332_323, lambda: read(EpubReader(), path))
    path = root / "epub" / "linear-algebra.epub"
    timed("read: epub (mathematics)", 9_895_415, lambda: read(EpubReader(), path))


def latex(root: Path) -> None:
    path = root / "latex" / "book-source.tar.gz"
    with tarfile.open(path) as archive:
        files = [m for m in archive if m.name.endswith(".tex")]
        texts = [archive.extractfile(m).read().decode() for m in files]  # type: ignore[union-attr]
    size = sum(len(text.encode()) for text in texts)
    timed("read: latex", size, lambda: read(LatexReader(), path))

    chapters = [text for text in texts if r"\chapter" in text]  # it fails on files of macros

    def latex_to_text() -> list[str]:
        module = importlib.import_module("pylatexenc.latex2text")
        return [module.LatexNodes2Text(math_mode="verbatim").latex_to_text(text) for text in chapters]

    timed("pylatexenc, chapter by chapter", sum(len(text.encode()) for text in chapters), latex_to_text)


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data") / "sources"
    read(EpubReader(), root / "epub" / "wasteland.epub")  # imports
    wikipedia(root)
    with tempfile.TemporaryDirectory() as scratch:
        stackexchange(root, Path(scratch))
    epub(root)
    latex(root)


if __name__ == "__main__":
    main()
