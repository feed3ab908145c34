"""Extracts the texts of a crawl's pages, for the benchmarks of map steps."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

DATA = Path(os.environ.get("GRISTMILL_TEST_DATA", Path(__file__).resolve().parent.parent.parent / "shared" / "data"))


def batches(engine: str = "resiliparse", files: int = 4, rows: int = 256) -> list[pa.RecordBatch]:
    """Batches with the column `text`: main text of every page of the first `files` archives, empty ones left out."""
    from curation.extract.extract import Extract
    from curation.sources.warc.warc import WarcReader
    from curation.step import InputSplit

    root = DATA / "crawl"
    names = sorted(path.name for path in root.glob("*.warc.gz"))[:files]
    if not names:
        raise SystemExit(f"no crawl at {root}; set GRISTMILL_TEST_DATA to the folder of test data")
    extract = Extract(engine=engine)  # type: ignore[arg-type]
    extract.open()
    texts: list[str] = []
    for name in names:
        piece = InputSplit(name, (root / name).stat().st_size, "")
        for batch in WarcReader().read(piece, str(root), collection="crawl", domain="web", rows=rows):
            documents = batch.filter(pc.is_null(pc.struct_field(batch.column("drop"), "rule")))
            texts += [text for text in extract(documents).column("text").to_pylist() if text and not text.isspace()]
    return [
        pa.record_batch({"text": pa.array(texts[at : at + rows], pa.large_string())})
        for at in range(0, len(texts), rows)
    ]


def megabytes(given: list[pa.RecordBatch]) -> float:
    """Megabytes of text in batches."""
    return sum(pc.sum(pc.binary_length(batch.column("text"))).as_py() or 0 for batch in given) / 1e6
