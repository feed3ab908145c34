"""Measures extraction: token F1 and speed of each engine on pages with a hand-made main text.

    python -m benchmarks.extraction

F1 is of words, of the mean precision and mean recall over the 90 pages, as in article-extraction-benchmark; `median`
and `worst` are of single pages. Three thresholds of `auto` were set with these pages in view, the rest on other ones.
So the same table follows for pages that it was not made on, where trafilatura's text stands in for the truth (it is no
gold): crawled documentation. Seconds are CPU time, the best of three rounds.
"""

from __future__ import annotations

import collections
import json
import re
import statistics
import sys
import tarfile
import time
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks import crawl
from curation.extract.extract import extract

Engine = Literal["auto", "resiliparse", "trafilatura"]
ENGINES: tuple[Engine, ...] = ("auto", "resiliparse", "trafilatura")


def words(text: str) -> collections.Counter[str]:
    return collections.Counter(re.findall(r"\w+", text))


def score(found: list[str], truth: list[str]) -> tuple[float, float, float, list[float]]:
    """F1, precision, recall over all pages, and F1 of each."""
    precision, recall, single = [], [], []
    for got, gold in zip(map(words, found), map(words, truth), strict=True):
        common = sum((got & gold).values())
        p, r = common / max(1, got.total()), common / max(1, gold.total())
        precision.append(p)
        recall.append(r)
        single.append(2 * p * r / (p + r) if p + r else 0.0)
    p, r = statistics.mean(precision), statistics.mean(recall)
    return 2 * p * r / (p + r), p, r, single


def run(engine: Engine, pages: list[str], rounds: int = 3) -> tuple[list[str], float]:
    """The texts, and the least CPU seconds."""
    best = float("inf")
    texts: list[str] = []
    extract(pages[0], engine)
    for _ in range(rounds):
        begin = time.process_time()
        texts = [extract(page, engine).text for page in pages]
        best = min(best, time.process_time() - begin)
    return texts, best


def table(pages: list[str], truth: list[str] | None, rounds: int) -> None:
    """One line an engine; without a truth, trafilatura's text stands in."""
    results = {engine: run(engine, pages, rounds) for engine in reversed(ENGINES)}
    slow = results["trafilatura"][1]
    print(f"{'engine':<14}{'F1':>7}{'prec.':>8}{'recall':>8}{'median':>8}{'worst':>7}{'CPU s':>8}{'speed':>9}")
    for engine in ENGINES:
        texts, seconds = results[engine]
        f1, p, r, single = score(texts, truth if truth is not None else results["trafilatura"][0])
        print(
            f"{engine:<14}{f1:>7.3f}{p:>8.3f}{r:>8.3f}{statistics.median(single):>8.3f}{min(single):>7.2f}"
            f"{seconds:>8.2f}{slow / seconds:>8.1f}x"
        )


def main() -> None:
    options = crawl.arguments(__doc__).parse_args()
    gold = json.loads((options.data / "html_gold" / "gold.json").read_text("utf-8"))
    pages, truth = [], []
    with tarfile.open(options.data / "html_gold" / "html.tar.gz") as archive:
        for member in archive.getmembers():
            page = archive.extractfile(member)
            assert page is not None
            pages.append(page.read().decode("utf-8", "replace"))
            truth.append(gold[Path(member.name).stem]["articleBody"])
    print(crawl.versions("resiliparse", "trafilatura", "numba"))
    print(f"\n{len(pages)} news and blog pages against their hand-made text")
    table(pages, truth, 3)
    other = [t for b in crawl.pages(options.data, ["docs-02*"]) for t in b.column("text").to_pylist()][::10]
    print(f"\n{len(other)} pages of documentation (docs-02), words shared with trafilatura's text")
    table(other, None, 1)


if __name__ == "__main__":
    main()
