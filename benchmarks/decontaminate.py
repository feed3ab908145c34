"""Measures decontamination: planted evaluation items found, clean text kept, speed, memory of the index.

python -m benchmarks.decontaminate ../shared/data
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

import pyarrow as pa

from benchmarks.toxicity import crawled
from curation.document import clean_text
from curation.safety.decontamination.benchmark_items import FIELDS, read_units
from curation.safety.decontamination.decontaminate import Decontaminate

PERTURBATIONS = {
    "verbatim": lambda t: t,
    "upper case": str.upper,
    "no punctuation": lambda t: re.sub(r"[^\w\s]", " ", t),
    "one line": lambda t: " ".join(t.split()),
    "line breaks": lambda t: t.replace(" ", "\n"),
}


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
            print(f"  {name:18} {len(whole):5} whole items, {how:21} recall {found:.4f}")
        units = list({u.text: u for u in read_units(path, ("question", "prompt"), False)}.values())
        for how, change in PERTURBATIONS.items():
            planted = [
                clean_text(f"{pages[i][:2000]}\n\n{change(u.text)}\n\n{pages[i][2000:4000]}")
                for i, u in enumerate(units)
            ]
            found = sum(s >= step.share for s in shares(planted)) / len(units)
            print(f"  {units[0].benchmark:18} {len(units):5} questions alone, {how:15} recall {found:.4f}")
    paragraphs = [
        line
        for name in ("wikitext2_valid.txt", "wikitext2_test.txt")
        for line in (data / "lm" / name).read_text(encoding="utf-8").split("\n")
        if line.strip()
    ]
    flagged = sum(s >= step.share for s in shares(paragraphs))
    print(f"WikiText-2: {flagged} of {len(paragraphs)} paragraphs flagged")
    start = time.process_time()
    flagged = sum(s >= step.share for s in shares(pages))
    speed = sum(len(p.encode()) for p in pages) / 1e6 / (time.process_time() - start)
    print(f"crawl: {flagged} of {len(pages)} pages flagged, {speed:.1f} MB/s of CPU time")


if __name__ == "__main__":
    main()
