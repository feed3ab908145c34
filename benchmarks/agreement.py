"""Compares our rules' decisions with those of datatrove's filters, on the same extracted texts, filter by filter.

    python -m benchmarks.agreement [--documents 1500] [--show]

A difference is a document that one keeps and the other drops; it is counted under datatrove's reason and our rules.
`recipe` is FineWeb's chain with its settings (C4 without its rule of terminal punctuation), each filter given the text
that the one before left, as datatrove runs it. URLs: real ones of the crawl, and as many made of entries of its lists.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks import crawl
from curation.quality.c4_line_filter import C4LineFilter
from curation.quality.heuristics.heuristics import Heuristics
from curation.quality.url_signals import UrlSignals
from curation.step import MapStep

REPETITION = ("_dup_", "_top_")


def decisions(step: MapStep, batch: pa.RecordBatch) -> list[dict[str, bool]]:
    """For each document each default rule's verdict; NULL is false, as in a run."""
    connection = duckdb.connect()
    out = step(batch)
    table = pa.table({"n": range(batch.num_rows), step.name: out.column(step.name)})
    connection.register("measured", table)
    columns = ", ".join(f"coalesce({sql}, FALSE) AS {name}" for name, sql in step.rules().items())
    return connection.sql(f"SELECT {columns} FROM measured ORDER BY n").to_arrow_table().to_pylist()


def families(rules: list[str]) -> dict[str, list[str]]:
    """Our rules by datatrove's filter."""
    return {
        "gopher quality": [r for r in rules if r.startswith("gopher_") and not any(k in r for k in REPETITION)],
        "gopher repetition": [r for r in rules if r.startswith("gopher_") and any(k in r for k in REPETITION)],
        "c4": [r for r in rules if r.startswith("c4_")],
        "fineweb": [r for r in rules if r.startswith("fineweb_")],
    }


def blocks(terminal: bool = True) -> dict[str, Any]:
    """datatrove's filters by the same names, in FineWeb's order."""
    from datatrove.pipeline import filters

    return {
        "gopher repetition": filters.GopherRepetitionFilter(),
        "gopher quality": filters.GopherQualityFilter(),
        "c4": filters.C4QualityFilter(filter_no_terminal_punct=terminal),
        "fineweb": filters.FineWebQualityFilter(),
    }


def compare_filter(
    block: Any, texts: list[str], ours: list[dict[str, bool]], rules: list[str]
) -> tuple[Counter[tuple[bool, bool]], list[tuple[list[str], str | None]]]:
    """How often our rules and a filter of datatrove keep and drop, as (ours keep, it keeps); and for each text our
    rules that drop it, and datatrove's reason or None."""
    from datatrove.data import Document

    counts: Counter[tuple[bool, bool]] = Counter()
    decided: list[tuple[list[str], str | None]] = []
    for i, text in enumerate(texts):
        try:
            reason = verdict(block.filter(Document(text=text, id=str(i))))
        except ZeroDivisionError:
            reason = "error"
        failed = [r for r in rules if not ours[i][r]]
        counts[not failed, reason is None] += 1
        decided.append((failed, reason))
    return counts, decided


def verdict(result: bool | tuple[bool, str]) -> str | None:
    """datatrove's answer as a reason, None where it keeps."""
    return None if result is True else result[1] if isinstance(result, tuple) else "dropped"


def compare(texts: list[str], show: bool = False) -> dict[str, float]:
    """Prints the table of filters and returns the shares of equal decisions."""
    batch = pa.record_batch({"text": pa.array(texts, pa.large_string())})
    ours = decisions(Heuristics(), batch)
    groups = families(list(ours[0]))
    agree: dict[str, float] = {}
    dropped = [False] * len(texts)
    print(f"{'filter':<20} {'agree':>8} {'both keep':>10} {'both drop':>10} {'only we drop':>13} {'only it drops':>14}")
    for name, block in blocks().items():
        counts, decided = compare_filter(block, texts, ours, groups[name])
        kinds: Counter[str] = Counter()
        for i, (failed, reason) in enumerate(decided):
            dropped[i] |= reason is not None
            if bool(failed) != (reason is not None):
                kinds[f"ours: {', '.join(failed) or 'keeps'}; datatrove: {reason or 'keeps'}"] += 1
                if show:
                    print(f"    {i} {failed or 'keeps'} / {reason or 'keeps'} {texts[i][:60]!r}")
        agree[name] = line(name, counts)
        for kind, n in kinds.most_common():
            print(f"    {n:>4}  {kind}")
    counts = Counter((all(v.values()), not d) for v, d in zip(ours, dropped, strict=True))
    agree["all four"] = line("all four", counts)
    return agree


def line(name: str, counts: Counter[tuple[bool, bool]]) -> float:
    total = counts.total()
    share = (counts[True, True] + counts[False, False]) / total
    cells = (counts[True, True], counts[False, False], counts[False, True], counts[True, False])
    print(f"{name:<20} {share:>8.2%} {cells[0]:>10,} {cells[1]:>10,} {cells[2]:>13,} {cells[3]:>14,}")
    return share


def recipe(texts: list[str]) -> float:
    """FineWeb's chain on both sides: ours is the steps of pipelines/recipes/fineweb.yaml."""
    from datatrove.data import Document

    batch = pa.record_batch({"text": pa.array(texts, pa.large_string())})
    first = decisions(Heuristics(sets=["gopher", "c4"], c4_terminal=False), batch)
    lines = C4LineFilter(terminal=False)
    second = decisions(Heuristics(sets=["fineweb"]), lines(batch))
    rules = [a | b for a, b in zip(first, second, strict=True)]
    ours = [all(v.values()) for v in rules]
    counts: Counter[tuple[bool, bool]] = Counter()
    chain = blocks(terminal=False)
    kinds: Counter[str] = Counter()
    for i, text in enumerate(texts):
        document = Document(text=text, id=str(i))
        reason = None
        for block in chain.values():
            reason = reason or verdict(block.filter(document))
        counts[ours[i], reason is None] += 1
        if ours[i] != (reason is None):
            kinds[f"ours: {next((r for r, ok in rules[i].items() if not ok), 'keeps')}; datatrove: {reason}"] += 1
    share = line("recipe", counts)
    for kind, n in kinds.most_common():
        print(f"    {n:>4}  {kind}")
    return share


def urls(crawled: list[str], show: bool) -> float:
    """The URL filter: real addresses, and addresses made of what is on the lists."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import URLFilter
    from datatrove.pipeline.filters.url_filter import ASSETS_PATH

    block = URLFilter()
    from curation.datatrove_adapter import _pin_suffix_list

    _pin_suffix_list(block)
    block.download_data()
    rng = random.Random(0)
    files = [Path(ASSETS_PATH) / f"{n}.txt" for n in ("banned_words", "soft_banned_words", "banned_subwords")]
    words = [w for file in files for w in file.read_text().split("\n") if w and not w.startswith("#")]
    listed = rng.sample(sorted(block.block_listed_domains), 1000)
    made = {
        "urls, crawled": crawled,
        "urls, listed": [f"http://{rng.choice(['', 'www.'])}{d}/{rng.choice(['', 'x?y=1'])}" for d in listed],
        "urls, below listed": [f"http://a.b.{d}/" for d in listed],
        "urls, of words": [f"http://e.org/{rng.choice(words)}{rng.choice('-_/')}{rng.choice(words)}" for _ in listed],
    }
    shares = []
    for name, every in made.items():
        ours = decisions(UrlSignals(), pa.record_batch({"url": every}))
        counts: Counter[tuple[bool, bool]] = Counter()
        kinds: Counter[str] = Counter()
        for url, mine in zip(every, ours, strict=True):
            reason = verdict(block.filter(Document(text="", id="", metadata={"url": url})))
            failed = [r for r, ok in mine.items() if not ok]
            counts[not failed, reason is None] += 1
            if bool(failed) != (reason is not None):
                numeric = url.split("/")[2].replace(".", "").isdigit()
                kinds[f"ours: {failed or 'keeps'}{', a numeric address' if numeric else ''}; datatrove: {reason}"] += 1
                if show:
                    print(f"    {url} ours {failed} datatrove {reason}")
        shares.append(line(name, counts))
        for kind, n in kinds.most_common():
            print(f"    {n:>4}  {kind}")
    return shares[0]


def main() -> None:
    parser = crawl.arguments(__doc__)
    parser.add_argument(
        "--documents", type=int, default=1500, help="texts compared, drawn from the crawl [%(default)s]"
    )
    parser.add_argument("--show", action="store_true", help="name every document that is decided otherwise")
    options = parser.parse_args()
    table = pa.Table.from_batches(crawl.texts(options.data)).select(["text", "url"])
    rows = sorted(random.Random(0).sample(range(len(table)), min(options.documents, len(table))))
    table = table.take(pa.array(rows))
    texts = table.column("text").to_pylist()
    print(f"{len(texts):,} of the crawl's pages, text by `auto`; {crawl.versions('datatrove', 'spacy')}")
    compare(texts, options.show)
    recipe(texts)
    urls([u for u in table.column("url").to_pylist() if u], options.show)


if __name__ == "__main__":
    main()
