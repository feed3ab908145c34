"""Measures decontamination: planted evaluation items found, clean text kept, speed, memory of the index.

python -m benchmarks.decontaminate ../shared/data
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import tempfile
import time
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.toxicity import crawled
from curation.document import clean_text
from curation.safety.decontamination.benchmark_items import FIELDS, SHORTEST_LINE, read_units
from curation.safety.decontamination.decontaminate import Decontaminate
from curation.words import estimate_words

_random = random.Random(11)
_OTHER_WORDS = ["river", "stone", "quickly", "because", "seven", "blue", "under", "carry", "window", "almost"]


def _replace_words(text: str) -> str:
    """The text with one word in twenty replaced, each independently."""
    return re.sub(r"\S+", lambda m: _random.choice(_OTHER_WORDS) if _random.random() < 0.05 else m[0], text)


def _drop_words(text: str) -> str:
    """The text without one word in twenty."""
    return " ".join(w for w in text.split() if _random.random() >= 0.05)


def _swap_neighbours(text: str) -> str:
    """The text with two neighbouring words swapped, once in thirty words."""
    words = text.split()
    for i in range(len(words) - 1):
        if _random.random() < 1 / 30:
            words[i], words[i + 1] = words[i + 1], words[i]
    return " ".join(words)


def _first_part(text: str) -> str:
    """The first 70 % of the words."""
    words = text.split(" ")
    return " ".join(words[: max(1, int(0.7 * len(words)))])


# The step's defaults were chosen on two thirds of the questions, with "1 in 20 replaced", "first 70 %", "soft hyphens";
# the other changes and every third question were not looked at.
PERTURBATIONS = {
    "verbatim": lambda t: t,
    "upper case": str.upper,
    "no punctuation": lambda t: re.sub(r"[^\w\s]", " ", t),
    "line breaks": lambda t: t.replace(" ", "\n"),
    "soft hyphens": lambda t: re.sub(r"(\w{3})(?=\w{3})", "\\1\u00ad", t),
    "full width": lambda t: t.translate({c: c + 0xFEE0 for c in range(0x21, 0x7F)}),
    "1 in 20 replaced": _replace_words,
    "1 in 20 dropped": _drop_words,
    "1 in 30 swapped": _swap_neighbours,
    "first 70 %": _first_part,
}


# Changes that leave the words: another date or number for one in ten digits, other punctuation, half or full width.
LIGHT = {
    "verbatim": lambda t: t,
    "digits": lambda t: re.sub(r"\d", lambda m: str(_random.randrange(10)) if _random.random() < 0.1 else m[0], t),
    "punctuation": lambda t: "".join("; " if unicodedata.category(c)[0] == "P" else c for c in t),
    "full width": PERTURBATIONS["full width"],
    "half width": lambda t: "".join(unicodedata.normalize("NFKC", c) if "\uff00" <= c <= "\uffef" else c for c in t),
}


def by_language(data: Path, pages: list[str], codes: tuple[str, ...] = ("zh", "ja", "th", "ko", "hi", "ar")) -> None:
    """Every second sentence of a language as an item, planted between other sentences; false alarms on all the rest."""
    sentences: dict[str, list[str]] = {}
    for row in (data / "lid" / "sentences.tsv").read_text(encoding="utf-8").strip("\n").split("\n"):
        code, sentence = row.split("\t", 1)
        sentences.setdefault(code, []).append(clean_text(sentence))
    with tempfile.TemporaryDirectory() as folder:
        for code in codes:
            lines = [json.dumps({"question": text}) for text in sentences[code][::2]]
            (Path(folder) / f"{code}.jsonl").write_text("\n".join(lines), encoding="utf-8")
        step = Decontaminate(against=[f"{folder}/*.jsonl"])
        step.open()
        for code in codes:
            every, others = sentences[code][::2], sentences[code][1::2]
            items = [text for text in every if estimate_words(text) >= SHORTEST_LINE]  # what the index holds
            recall = []
            for how, change in LIGHT.items():
                planted = [f"{others[i - 1]}\n{change(text)}\n{others[i]}" for i, text in enumerate(items)]
                batch = pa.record_batch({"text": pa.array(map(clean_text, planted), pa.large_string())})
                shares = step(batch).column("decontaminate").field("share").to_pylist()
                recall.append(f"{how} {sum(s >= step.share for s in shares) / len(items):.3f}")
            print(f"  {code}, {len(items)} items, {len(every) - len(items)} too short: {', '.join(recall)}")
        clean = [text for code, every in sentences.items() for text in (every[1::2] if code in codes else every)]
        clean += ["\n".join(every[1::2]) for every in sentences.values()] + pages
        batch = pa.record_batch({"text": pa.array(clean, pa.large_string())})
        flagged = sum(s >= step.share for s in step(batch).column("decontaminate").field("share").to_pylist())
        size = sum(len(text.encode()) for text in clean) / 1e6
        print(f"  clean text in {len(sentences)} languages, {len(clean)} texts, {size:.0f} MB: {flagged} flagged")


def from_sources(data: Path) -> dict[str, list[str]]:
    """Texts of sources/ through their readers, main texts of web pages, and comments, by kind."""
    from curation.extract.extract import Extract
    from curation.sources.books.epub import EpubReader
    from curation.sources.dumps.stackexchange import StackExchangeReader
    from curation.sources.dumps.wikipedia import WikipediaReader
    from curation.sources.latex.latex import LatexReader
    from curation.step import InputSplit

    readers: dict[str, Any] = {
        "wikipedia": WikipediaReader(),
        "stackexchange": StackExchangeReader(),
        "latex": LatexReader(),
        "epub": EpubReader(),
    }
    found: dict[str, list[str]] = {}
    for kind, reader in readers.items():
        for path in sorted((data / "sources" / kind).iterdir()):
            part = InputSplit(path.name, path.stat().st_size, "")
            for batch in reader.read(part, str(path.parent), collection="c", domain="d", rows=100):
                read = Extract()(batch) if kind == "epub" else batch  # of an EPUB, XHTML
                found.setdefault(kind, []).extend(clean_text(t) for t in read.column("text").to_pylist() if t)
    lines = gzip.decompress((data / "html_pages" / "gold.jsonl.gz").read_bytes()).splitlines()
    found["html_pages"] = [clean_text(json.loads(line)["main"]) for line in lines]
    lines = gzip.decompress((data / "toxicity" / "comments.jsonl.gz").read_bytes()).splitlines()
    found["comments"] = [clean_text(json.loads(line)["text"]) for line in lines]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", help="the folder of test data")
    data = Path(parser.parse_args().data)
    step = Decontaminate(against=[str(data / "decontam" / "*")])
    step.open()
    index = step._index
    assert index is not None
    print(f"index: {len(index.units)} fields, {index.skipped} too short, {index.bytes / 1e6:.1f} MB")

    def shares(texts: list[str]) -> list[float]:
        batch = pa.record_batch({"text": pa.array(texts, pa.large_string())})
        return step(batch).column("decontaminate").field("share").to_pylist()  # type: ignore[no-any-return]

    pages = crawled(data / "crawl")
    for path in step._files():
        name = path.rpartition("/")[2].partition(".")[0]
        items: dict[int, list[str]] = {}
        for unit in read_units(path, FIELDS, False):
            if "+" not in unit.field:  # the fields together, for short questions
                items.setdefault(unit.item, []).append(unit.text)
        whole = ["\n".join(texts) for texts in items.values()][:1500]
        for how, change in PERTURBATIONS.items():
            planted = [
                clean_text(f"{pages[i][:2000]}\n\n{change(w)}\n\n{pages[i][2000:4000]}") for i, w in enumerate(whole)
            ]
            found = sum(s >= step.share for s in shares(planted)) / len(whole)
            print(f"  {name:18} {len(whole):5} whole items, {how:23} recall {found:.4f}")
        units = list({u.text: u for u in read_units(path, ("question", "prompt"), False)}.values())[::3]  # held out
        for how, change in PERTURBATIONS.items():
            planted = [
                clean_text(f"{pages[i][:2000]}\n\n{change(u.text)}\n\n{pages[i][2000:4000]}")
                for i, u in enumerate(units)
            ]
            found = sum(s >= step.share for s in shares(planted)) / len(units)
            print(f"  {units[0].benchmark:18} {len(units):5} held-out questions, {how:16} recall {found:.4f}")
    by_language(data, pages)
    paragraphs = [
        line
        for name in ("wikitext2_valid.txt", "wikitext2_test.txt")
        for line in (data / "lm" / name).read_text(encoding="utf-8").split("\n")
        if line.strip()
    ]
    flagged = sum(s >= step.share for s in shares(paragraphs))
    print(f"WikiText-2: {flagged} of {len(paragraphs)} paragraphs flagged")
    for kind, texts in from_sources(data).items():
        size = sum(len(text.encode()) for text in texts) / 1e6
        flagged = sum(s >= step.share for s in shares(texts))
        print(f"{kind}: {flagged} of {len(texts)} texts flagged, {size:.1f} MB")
    start = time.process_time()
    flagged = sum(s >= step.share for s in shares(pages))
    speed = sum(len(p.encode()) for p in pages) / 1e6 / (time.process_time() - start)
    print(f"crawl: {flagged} of {len(pages)} pages flagged, {speed:.1f} MB/s of CPU time")


if __name__ == "__main__":
    main()
