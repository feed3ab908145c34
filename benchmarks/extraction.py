"""Measures extraction: token F1, structure kept and speed of each engine, on pages with a hand-made main text.

    python -m benchmarks.extraction [--rounds N] [--half worked|kept|both]

Three sets, every engine in one run, seconds are CPU time:

- html_pages: 689 pages of seven kinds (WCXB's development half). A fixed hash of the host halves them: thresholds may
  be set on the half `worked` on, and the half `kept` back says whether they hold elsewhere. F1 is the mean over pages.
  `cells`, `pre`, `items`, `heads`: of the table cells, code blocks, list items and headings of a page whose words are
  in the gold text, the share whose words are in the engine's text in the same order. `cells*` to `heads*` count only
  what is surely the gold text's: each text once a page, of eight characters or more (a username in forty headings, or
  `12` and `Share`, stand in most gold texts by chance), and a cell only if its whole row is in the gold text.
  `with` and `without`: the snippets that must and must not be there.
- html_gold: 90 news and blog pages. F1 is of mean precision and mean recall, as in article-extraction-benchmark.
- builder pages: invented text in the mark-up of page builders and documentation tools (tests/curation/extract).
  `exact`: the share of snippets (some must be there, some must not) that are right with their lines, bullets and empty
  cells; `words`: the same by their words in order, since each engine writes tables and lists in its own way.

`readability` runs where the package readability-lxml is installed.
"""

from __future__ import annotations

import collections
import gzip
import hashlib
import importlib.util
import json
import re
import statistics
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks import crawl
from curation.extract.extract import extract
from tests.curation.extract.builder_pages import builder_pages

ELEMENTS = {"cells": ("td", "th"), "pre": ("pre",), "items": ("li",), "heads": ("h1", "h2", "h3", "h4", "h5", "h6")}
_MIN_SURE_CHARS = 8
_WORD = re.compile(r"\w+")


class Page(NamedTuple):
    """A page with its gold text and the snippets that must and must not be there."""

    html: str
    main: str
    kind: str = "article"
    present: Sequence[str] = ()
    absent: Sequence[str] = ()


def readability(html: str) -> str:
    import lxml.html
    from readability import Document  # type: ignore[import-not-found]

    return str(lxml.html.fromstring(Document(html).summary()).text_content())


def engines() -> dict[str, Callable[[str], str]]:
    """Name of each engine -> a function from HTML to text."""
    found: dict[str, Callable[[str], str]] = {
        "auto": lambda html: extract(html).text,
        "trafilatura": lambda html: extract(html, "trafilatura").text,
        "resiliparse": lambda html: extract(html, "resiliparse").text,
    }
    return found | ({"readability": readability} if importlib.util.find_spec("readability") else {})


def in_worked_half(page_id: str, url: str) -> bool:
    """Whether a page of html_pages may be looked at while thresholds are set: a hash of its host decides."""
    host = urlsplit(url).hostname or page_id
    return not hashlib.sha256(host.encode()).digest()[0] & 1


def html_pages(data: Path, worked: bool) -> list[Page]:
    """One half of html_pages."""
    with gzip.open(data / "html_pages" / "gold.jsonl.gz", "rt", encoding="utf-8") as file:
        gold = {row["id"]: row for row in map(json.loads, file)}
    out = []
    with tarfile.open(data / "html_pages" / "html.tar.xz") as archive:
        for member in archive:
            row = gold.get(Path(member.name).stem)
            if row is not None and in_worked_half(row["id"], row["url"]) is worked:
                out.append(Page(_read(archive, member), row["main"], row["type"], row["with"], row["without"]))
    return out


def html_gold(data: Path) -> list[Page]:
    """The 90 news and blog pages."""
    gold = json.loads((data / "html_gold" / "gold.json").read_text("utf-8"))
    with tarfile.open(data / "html_gold" / "html.tar.gz") as archive:
        return [Page(_read(archive, m), gold[Path(m.name).stem]["articleBody"]) for m in archive.getmembers()]


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = archive.extractfile(member)
    assert file is not None
    return file.read().decode("utf-8", "replace")


def words(text: str) -> collections.Counter[str]:
    return collections.Counter(_WORD.findall(text))


def precision_recall(found: str, gold: str) -> tuple[float, float]:
    got, truth = words(found), words(gold)
    common = (got & truth).total()
    return common / max(1, got.total()), common / max(1, truth.total())


def f1(p: float, r: float) -> float:
    return 2 * p * r / (p + r) if p + r else 0.0


def structure(page: Page) -> dict[str, list[str]]:
    """The words of each element of a kind in `ELEMENTS`, innermost only, that the gold text holds in their order; with
    `*` after the name only those that are surely the gold text's."""
    import lxml.html

    gold = _in_order(page.main)
    out: dict[str, list[str]] = {name + sure: [] for sure in ("", "*") for name in ELEMENTS}
    root = lxml.html.document_fromstring(page.html.encode(), parser=lxml.html.HTMLParser(encoding="utf-8"))
    for name, tags in ELEMENTS.items():
        for element in root.iter(*tags):
            text = _in_order(str(element.text_content()))
            if len(text) > 2 and text in gold and next(element.iterdescendants(*tags), None) is None:
                out[name].append(text)
                row = next(element.iterancestors("tr"), None) if name == "cells" else None
                whole = text if row is None else " ".join(_in_order(str(c.text_content())) for c in row.iter(*tags))
                whole = _in_order(whole)
                if whole in gold and len(whole) >= _MIN_SURE_CHARS + 2 and text not in out[name + "*"]:
                    out[name + "*"].append(text)
    return out


def _in_order(text: str) -> str:
    return f" {' '.join(_WORD.findall(text))} "


def run(engine: Callable[[str], str], pages: Sequence[Page], rounds: int) -> tuple[list[str], float]:
    """The texts, and the least CPU seconds."""
    best = float("inf")
    texts: list[str] = []
    engine(pages[0].html)
    for _ in range(rounds):
        begin = time.process_time()
        texts = [engine(page.html) for page in pages]
        best = min(best, time.process_time() - begin)
    return texts, best


def figures(pages: Sequence[Page], texts: Sequence[str], elements: Sequence[dict[str, list[str]]]) -> dict[str, float]:
    """Everything that is measured of one engine's texts."""
    rates = [precision_recall(text, page.main) for page, text in zip(pages, texts, strict=True)]
    single = [f1(*rate) for rate in rates]
    out = {"F1": statistics.mean(single)}
    out["prec."], out["recall"] = (statistics.mean(values) for values in zip(*rates, strict=True))
    for kind in sorted({page.kind for page in pages}):
        out[kind[:7]] = statistics.mean(v for v, page in zip(single, pages, strict=True) if page.kind == kind)
    ordered = [_in_order(text) for text in texts]
    for name in elements[0]:
        kept = [e in text for found, text in zip(elements, ordered, strict=True) for e in found[name]]
        out[name] = statistics.mean(kept) if kept else float("nan")
    flat = [" ".join(text.split()) for text in texts]
    has = [" ".join(s.split()) in text for page, text in zip(pages, flat, strict=True) for s in page.present]
    not_ = [" ".join(s.split()) not in text for page, text in zip(pages, flat, strict=True) for s in page.absent]
    out |= {"with": statistics.mean(has), "without": statistics.mean(not_)} if has and not_ else {}
    return out


def table(title: str, pages: Sequence[Page], rounds: int) -> None:
    """One line an engine."""
    print(f"\n{title}: {len(pages)} pages")
    elements = [structure(page) for page in pages]
    results: dict[str, Any] = {name: run(engine, pages, rounds) for name, engine in engines().items()}
    for number, (name, (texts, seconds)) in enumerate(results.items()):
        row = figures(pages, texts, elements)
        if not number:
            print(f"{'engine':<12}" + "".join(f"{column:>8}" for column in row) + f"{'CPU s':>8}{'speed':>8}")
        speed = results["trafilatura"][1] / seconds
        print(f"{name:<12}" + "".join(f"{value:>8.3f}" for value in row.values()) + f"{seconds:>8.2f}{speed:>7.1f}x")


def builder_table() -> None:
    """Snippets of the builder pages that are right."""
    pages = builder_pages()
    print(f"\nbuilder pages: {len(pages)} pages\n{'engine':<12}{'exact':>8}{'words':>8}")
    for name, engine in engines().items():
        right = collections.Counter[str]()
        for page in pages:
            text = engine(page.html)
            words_of = _in_order(text)
            for snippets, wanted in ((page.present, True), (page.absent, False)):
                right["exact"] += sum((snippet in text) is wanted for snippet in snippets)
                right["words"] += sum((_in_order(snippet) in words_of) is wanted for snippet in snippets)
                right["all"] += len(snippets)
        print(f"{name:<12}" + "".join(f"{right[column] / right['all']:>8.3f}" for column in ("exact", "words")))


def main() -> None:
    parser = crawl.arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="rounds of each engine; the fastest counts [%(default)s]")
    parser.add_argument("--half", choices=("worked", "kept", "both"), default="both", help="of html_pages [both]")
    options = parser.parse_args()
    installed = ["readability-lxml"] if "readability" in engines() else []
    print(crawl.versions("resiliparse", "trafilatura", "numba", *installed))
    for half in ("worked", "kept"):
        if options.half in (half, "both"):
            table(f"html_pages, {half}", html_pages(options.data, half == "worked"), options.rounds)
    pages = html_gold(options.data)
    table("html_gold", pages, options.rounds)
    for name, engine in engines().items():
        rates = [precision_recall(engine(page.html), page.main) for page in pages]
        print(f"{name}: F1 of mean precision and recall {f1(*map(statistics.mean, zip(*rates, strict=True))):.3f}")
    builder_table()


if __name__ == "__main__":
    main()
