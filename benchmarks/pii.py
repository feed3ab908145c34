"""Measures the PII step: precision and recall by entity, and presidio on the crawl: equal findings, and speed.

python -m benchmarks.pii ../shared/data [--pages 200]
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.toxicity import crawled
from curation.safety.pii import candidate_windows
from curation.safety.pii.detect import analyze
from curation.safety.pii.presidio_engine import DEFAULT_ENTITIES
from curation.safety.pii.telephone import phone_numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", help="the folder of test data")
    parser.add_argument("--pages", type=int, default=200, help="pages that presidio reads, too (it does 0.4 MB/s)")
    given = parser.parse_args()
    data = Path(given.data)
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
