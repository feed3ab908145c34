"""Finds the crawl that several benchmarks share, and reads its pages and their text."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("GRISTMILL_TEST_DATA", ROOT.parent / "shared" / "data"))


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the one argument all of them have."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the test data [%(default)s]")
    return parser


def pages(data: Path, files: Sequence[str] = ("docs-0*.warc.gz",), rows: int = 256) -> Iterator[pa.RecordBatch]:
    """Batches of crawled pages as the WARC reader gives them, HTML in `text`; dropped records left out."""
    import pyarrow.compute as pc

    from curation.sources.warc.warc import WarcReader
    from curation.step import InputSplit

    for path in sorted(p for pattern in files for p in (data / "crawl").glob(pattern)):
        piece = InputSplit(path.name, path.stat().st_size, "")
        for batch in WarcReader().read(piece, str(path.parent), collection="crawl", domain="web", rows=rows):
            yield batch.filter(pc.is_null(batch.column("drop")))


def texts(data: Path, files: Sequence[str] = ("docs-0*.warc.gz",), engine: str = "auto") -> list[pa.RecordBatch]:
    """The pages' plain text, pages without any left out; the HTML stays behind in the column `html`."""
    import pyarrow.compute as pc

    from curation.extract.extract import Extract

    step = Extract(engine=engine)  # type: ignore[arg-type]
    out = []
    for batch in pages(data, files):
        done = step(batch).append_column("html", batch.column("text"))
        out.append(done.filter(pc.greater(pc.utf8_length(done.column("text")), 0)))
    return out


def versions(*names: str) -> str:
    """Versions of packages, for the first line of a benchmark."""
    return ", ".join(f"{name} {version(name)}" for name in names)
