"""Measures the PII step: false masks by kind of text, recall by entity, and presidio on the crawl: findings and speed.

python -m benchmarks.pii ../shared/data [--pages 200]
python -m benchmarks.pii ../shared/data --draw 50    prints masks drawn at random from the crawl, to be judged by eye

False masks: lines of numbers that are nobody's, made here by kind with a seed that no rule was chosen on; WikiText and
web pages by kind (html_pages), which no rule was chosen on either. WikiText names nobody's address, card or telephone:
all its masks are false. Recall: a labelled value counts as found if a mask overlaps it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.toxicity import crawled
from curation.document import clean_text
from curation.extract.extract import extract
from curation.safety.pii import candidate_windows
from curation.safety.pii.detect import analyze
from curation.safety.pii.pii import Pii
from curation.safety.pii.presidio_engine import DEFAULT_ENTITIES
from curation.safety.pii.telephone import phone_numbers
from curation.sources.charset import decode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", help="the folder of test data")
    parser.add_argument("--pages", type=int, default=200, help="pages that presidio reads, too (it does 0.4 MB/s)")
    parser.add_argument("--draw", type=int, default=0, help="print so many masks of the crawl, drawn at random")
    given = parser.parse_args()
    data = Path(given.data)
    steps = {name: Pii(decisions=name) for name in ("presidio", "corpus")}
    if given.draw:
        draw(steps["corpus"], crawled(data / "crawl"), given.draw)
        return
    false_masks(steps, data)
    recall(steps, data)
    ours(["a text that loads everything, bob@python.org"])
    peer = vanilla()

    def theirs_of(text: str) -> list[tuple[str, int, int, float]]:
        found = peer.analyze(text, language="en", entities=list(DEFAULT_ENTITIES))
        return sorted((r.entity_type, r.start, r.end, r.score) for r in found)

    sentences = json.loads((data / "pii" / "synth_dataset_v2.json").read_text())
    texts = [s["full_text"] for s in sentences]
    found = [{(f["entity"], f["start"], f["end"]) for f in row} for row in ours(texts)]
    presidio = [{f[:3] for f in theirs_of(t)} for t in texts]
    print(f"{len(texts)} labelled sentences; presidio's findings identical: {found == presidio}")
    gold = [{(s["entity_type"], s["start_position"], s["end_position"]) for s in x["spans"]} for x in sentences]
    hits, ours_n, gold_n = Counter[str](), Counter[str](), Counter[str]()
    for g, f in zip(gold, found, strict=True):
        hits.update(e for e, *_ in g & f)
        ours_n.update(e for e, *_ in f)
        gold_n.update(e for e, *_ in g)
    for entity in DEFAULT_ENTITIES:
        p = hits[entity] / ours_n[entity] if ours_n[entity] else 0.0
        r = hits[entity] / gold_n[entity] if gold_n[entity] else 0.0
        f1 = 2 * p * r / (p + r) if p + r else 0.0
        print(f"  {entity:14} labelled {gold_n[entity]:4}  precision {p:.3f}  recall {r:.3f}  F1 {f1:.3f}")

    pages = crawled(data / "crawl")
    sample = pages[:: max(1, len(pages) // given.pages)]
    sample_size = sum(len(t.encode()) for t in sample) / 1e6
    start = time.process_time()
    theirs = [theirs_of(t) for t in sample]
    slow = sample_size / (time.process_time() - start)
    cold()
    start = time.process_time()
    every = ours(pages)
    fast = sum(len(t.encode()) for t in pages) / 1e6 / (time.process_time() - start)
    cold()
    start = time.process_time()
    ours(sample)
    alone = sample_size / (time.process_time() - start)
    cold()
    again = [sorted((f["entity"], f["start"], f["end"], f["score"]) for f in row) for row in ours(sample)]
    print(f"crawl: {len(sample)} pages by both, findings identical: {again == theirs}")
    print(f"  presidio {slow:.2f} MB/s on these; ours {alone:.2f} MB/s on these ({alone / slow:.1f} times),")
    print(f"  {fast:.2f} MB/s on all {len(every)} pages ({fast / slow:.1f} times); CPU time, caches empty at the start")


def masks(step: Pii, texts: Sequence[str]) -> list[list[tuple[str, int, int]]]:
    """(entity, start, end) of what the step masks in each text."""
    batch = pa.record_batch({"text": pa.array(texts, pa.large_string())})
    rows = step(batch).column("pii").to_pylist()
    return [[(e, a, b) for e, a, b, did in json.loads(r["spans"] or "[]") if did == "mask"] for r in rows]


def lines_of_numbers() -> dict[str, list[str]]:
    """400 lines of each kind of number that is nobody's."""
    r = random.Random(2027)
    n = r.randint

    kinds: dict[str, Callable[[], str]] = {
        "numbered headings": lambda: f"{n(1, 19)}.{n(1, 19)}.{n(1, 19)}.{n(1, 19)} Restoring the sluice",
        "versions": lambda: f"millstone {n(1, 30)}.{n(0, 30)}.{n(0, 99)}.{n(0, 99)} was released",
        "OIDs": lambda: f"object 1.3.6.1.4.1.{n(1, 9999)}.{n(1, 99)} of the schema",
        "ISBNs": lambda: f"Printed as ISBN {n(0, 9)}-{n(100, 999)}-{n(10000, 99999)}-{n(0, 9)}, hardcover",
        "PMIDs, item numbers": lambda: f"PMID {n(10**7, 4 * 10**7)}, item {n(10**9, 10**10 - 1)}",
        "season records": lambda: f"{n(1950, 2020)}-{n(10, 99)} {n(10, 99)}-{n(10, 99)} ({n(100, 999)})",
        "rows of decimals": lambda: " ".join(f"{r.uniform(0, 500):.{n(1, 4)}f}" for _ in range(6)),
        "rows of integers": lambda: " ".join(str(n(0, 99999)) for _ in range(8)),
        "coordinates": lambda: f"({r.uniform(-90, 90):.6f}, {r.uniform(-180, 180):.6f})",
        "thousands with spaces": lambda: f"{n(1, 99)} {n(100, 999)} {n(100, 999)} {n(100, 999)} EUR",
        "lines of a log": lambda: (
            f"2026-0{n(1, 9)}-1{n(0, 9)} 1{n(0, 9)}:{n(10, 59)}:{n(10, 59)},{n(100, 999)} "
            f"[{n(1000, 99999)}] GET /bin/{n(1, 99999)} 200 {n(100, 99999)}"
        ),
        "git@host:path": lambda: f"git clone git@forge{n(1, 99)}.org:mill/stones{n(1, 99)}.git",
    }
    return {kind: [make() for _ in range(400)] for kind, make in kinds.items()}


def false_masks(steps: dict[str, Pii], data: Path) -> None:
    """Prints by kind of text how much presidio masks, and how much we do."""
    with tarfile.open(data / "html_pages" / "html.tar.xz") as tar:
        pages = {Path(m.name).stem: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]
    kinds = lines_of_numbers()
    wikitext = [(data / "lm" / f"wikitext2_{part}.txt").read_text(encoding="utf-8") for part in ("valid", "test")]
    kinds["WikiText-2, paragraphs"] = [line for text in wikitext for line in text.split("\n") if line.strip()]
    with gzip.open(data / "html_pages" / "gold.jsonl.gz", "rt", encoding="utf-8") as f:
        for row in map(json.loads, f):
            page = decode(pages[str(row["id"])]).text
            kinds.setdefault(f"web pages: {row['type']}", []).append(clean_text(extract(page).text))
    print(f"{'masks in':32}{'texts':>7}{'presidio':>10}{'corpus':>8}   by entity, corpus")
    for kind, texts in kinds.items():
        theirs, mine = (Counter(e for row in masks(step, texts) for e, *_ in row) for step in steps.values())
        print(f"{kind:32}{len(texts):>7}{theirs.total():>10}{mine.total():>8}   {dict(mine.most_common()) or ''}")


def recall(steps: dict[str, Pii], data: Path) -> None:
    """Prints the recall of both decisions on labelled sentences, by entity."""
    sentences = json.loads((data / "pii" / "synth_dataset_v2.json").read_text())
    counts: dict[str, Counter[str]] = {name: Counter() for name in (*steps, "labelled")}
    for name, step in steps.items():
        for sentence, found in zip(sentences, masks(step, [s["full_text"] for s in sentences]), strict=True):
            for span in sentence["spans"]:
                hit = any(a < span["end_position"] and b > span["start_position"] for _, a, b in found)
                counts[name][span["entity_type"]] += hit
                counts["labelled"][span["entity_type"]] += name == "corpus"
    print(f"{'recall on labelled sentences':32}{'labelled':>10}{'presidio':>10}{'corpus':>8}")
    for entity in DEFAULT_ENTITIES:
        of = max(1, counts["labelled"][entity])
        print(f"{entity:32}{of:>10}" + "".join(f"{counts[n][entity] / of:>9.3f}" for n in steps))
    sums = {name: sum(counts[name][e] for e in DEFAULT_ENTITIES) for name in counts}
    shares = [f"{sums[n] / sums['labelled']:>9.4f}" for n in steps]
    print(f"{'all':32}{sums['labelled']:>10}" + "".join(shares))


def draw(step: Pii, pages: Sequence[str], count: int) -> None:
    """Prints masks of the pages drawn at random, with what is around them."""
    every = [(page, *mask) for page, found in zip(pages, masks(step, pages), strict=True) for mask in found]
    print(f"{count} of {len(every)} masks in {len(pages)} pages")
    for number, (page, entity, start, end) in enumerate(random.Random(2027).sample(every, count), 1):
        around = page[max(0, start - 60) : start], page[start:end], page[end : end + 40]
        print(f"{number:>3} {entity:14} {around[0]!r} [{around[1]}] {around[2]!r}")


def vanilla() -> Any:
    """presidio as it comes, on a blank spaCy pipeline: its own registry, nothing of ours."""
    import logging

    import spacy
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import SpacyNlpEngine
    from presidio_analyzer.recognizer_registry import RecognizerRegistryProvider

    class Blank(SpacyNlpEngine):
        def load(self) -> None:
            self.nlp: Any = {"en": spacy.blank("en")}

    logging.getLogger("presidio-analyzer").setLevel(logging.CRITICAL)
    nlp = Blank(models=[{"lang_code": "en", "model_name": "blank"}])
    nlp.load()
    provider = RecognizerRegistryProvider(registry_configuration={"supported_languages": ["en"]})
    return AnalyzerEngine(nlp_engine=nlp, registry=provider.create_recognizer_registry(), supported_languages=["en"])


def cold() -> None:
    """Empties the caches of earlier findings: a crawl repeats itself, but no text is read twice."""
    candidate_windows._findings_in_window.cache_clear()
    phone_numbers._numbers_in_candidate.cache_clear()  # asked of the library


def ours(texts: list[str]) -> list[list[dict[str, object]]]:
    return analyze(pa.array(texts, pa.large_string()), DEFAULT_ENTITIES).to_pylist()  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
