"""Measures line deduplication on a crawl: how much boilerplate and how much prose it removes; pages before and after.

python -m benchmarks.line_dedup ../shared/data [--site sqlite.docs.test ...]

Pages are turned into *all* their text, as Common Crawl's WET files have it. What is boilerplate and what is not is
judged by the extractor (`extract`, engine auto), which sees the markup and no other page: a line that it keeps counts
as the page's own, any other as boilerplate. It errs too, so the figures compare settings and prove nothing by
themselves; the pages shown are there to be read.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from curation.config.load_pipeline import load_pipeline
from curation.dedup import line_spans
from curation.engine.results import explain
from curation.engine.runtime.run import curate

SETTINGS: dict[str, dict[str, Any]] = {
    "lines of a site, 10 documents": {"scope": "site", "span": 1, "min_chars": 0, "min_documents": 10},
    "spans of a site, 10 documents": {"scope": "site", "min_documents": 10},
    "defaults": {},
    "cc_net: paragraphs": {"unit": "paragraph", "span": 1, "normalise": "template", "min_chars": 0},
}

ALL_TEXT = '''
from dataclasses import dataclass
import pyarrow as pa
from resiliparse.extract.html2text import extract_plain_text
from curation.document import with_column
from curation.step import MapStep

@dataclass(frozen=True)
class AllText(MapStep):
    """All text of a page, menus and footers too."""
    rewrites = True
    signals = pa.schema([("characters", pa.int64())])
    name: str = "all_text"

    def __call__(self, batch):
        texts = [extract_plain_text(t, main_content=False, preserve_formatting=True) for t in batch["text"].to_pylist()]
        counts = pa.StructArray.from_arrays([pa.array([len(t) for t in texts])], fields=list(self.signals))
        return with_column(with_column(batch, "text", pa.array(texts, pa.large_string())), self.name, counts)
'''


def _site(url: str | None) -> str:
    return (urlsplit(url or "").hostname or "").removeprefix("www.")


def run(data: Path, folder: Path, name: str, steps: list[Any]) -> tuple[dict[str, str], pa.Table]:
    """(text of each kept document by id, the ledger) of a pipeline over the crawl."""
    source = {"name": "crawl", "read": "warc", "root": str(data / "crawl"), "path": "*.warc.gz"}
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"name": "lines", "sources": [source], "steps": steps}))
    (folder / "all_text.py").write_text(ALL_TEXT)
    run_dir = folder / name
    curate(load_pipeline(str(file)), str(run_dir), executor="inline")
    files = sorted((run_dir / "result" / "documents").glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(f, columns=["doc_id", "text"]) for f in files])
    texts = {d.hex(): t for d, t in zip(table["doc_id"].to_pylist(), table["text"].to_pylist(), strict=True)}
    return texts, explain.ledger(str(run_dir))


def words(line: str) -> str:
    return "".join(c for c in line.casefold() if c.isalnum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="the folder of test data")
    parser.add_argument("--site", action="append", default=[], help="show a page of it, before and after")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        main_text, _ = run(options.data.resolve(), folder, "main", [{"extract": {}}])
        own = {d: [words(line) for line in t.split("\n")] for d, t in main_text.items()}
        shown: dict[str, tuple[str, str, list[tuple[int, str]]]] = {}
        for label, setting in SETTINGS.items():
            name = f"run-{list(SETTINGS).index(label)}"
            start = time.process_time()
            after, ledger = run(
                options.data.resolve(), folder, name, ["all_text.py:AllText", "exact_dedup", {"line_dedup": setting}]
            )
            seconds = time.process_time() - start
            counts: dict[str, list[int]] = defaultdict(lambda: [0] * 6)
            undone = 0
            for row in ledger.select(["doc_id", "url", "step", "line_dedup"]).to_pylist():
                told, doc = row["line_dedup"], row["doc_id"].hex()
                if told is None or doc not in own:
                    continue
                taken = line_spans.load(told["cut"] or "[]")
                gone = "\n".join(piece for _, piece in taken)
                text = line_spans.restore(after.get(doc, ""), taken) if row["step"] is None else gone
                undone += row["step"] is None
                mine = "".join(own[doc])
                c = counts[_site(row["url"])]
                c[0] += 1
                c[5] += bool(taken)
                for column, lines in ((1, text), (3, gone)):
                    for line in lines.split("\n"):
                        c[column + (words(line) not in mine)] += len(line.strip())
                if label == next(iter(SETTINGS)) and taken and 900 < len(text) < 2200:
                    shown.setdefault(_site(row["url"]), (row["url"], text, taken))  # the first of its site by doc_id
            print(f"\n## {label}: {json.dumps(setting)}\n")
            print(f"{seconds:.1f} s of CPU for the whole run; {undone} documents put together again from the ledger\n")
            print("| site | pages | cut in | own text, characters | cut | other text, characters | cut |")
            print("|---|--:|--:|--:|--:|--:|--:|")
            total = [sum(c[i] for c in counts.values()) for i in range(6)]
            for host, c in [*sorted(counts.items(), key=lambda item: -item[1][0]), ("all", total)]:
                if c[0] >= 30:
                    print(
                        f"| {host} | {c[0]:,} | {c[5]:,} | {c[1]:,} | {c[3] / max(1, c[1]):.1%} | {c[2]:,} "
                        f"| {c[4] / max(1, c[2]):.1%} |"
                    )
        for host in options.site:
            url, text, pieces = shown[host]
            print(f"\n## {url}\n\n```diff")
            at = 0
            for offset, piece in [*pieces, (len(text), "")]:
                for mark, part in ((" ", text[at:offset]), ("-", piece)):
                    for line in part.split("\n"):
                        if line.strip():
                            print(f"{mark} {line[:150]}")
                at = offset + len(piece)
            print("```")


if __name__ == "__main__":
    main()
