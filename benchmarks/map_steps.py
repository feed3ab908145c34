"""Measures map steps on one core, MB of text a second, with datatrove's block and the bare library as peers.

    python -m benchmarks.map_steps [--files 'docs-00*'] [--peer-documents 150]

MB are of the text a step is given (extraction: of the HTML); time is CPU time of this process, pinned to one core. Ours
get batches of 256 documents, as in a run; the best of three rounds. datatrove's blocks get Documents one by one, each
its `filter`, over a part of the same texts (they need minutes for all). Bare is the library called in a loop over the
same texts: what is left to gain is the difference. KenLM's bare row is given text that is cut and joined already.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks import crawl
from curation.step import MapStep

ROUNDS = 3


def timed(work: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """Least CPU seconds of some rounds."""
    best = float("inf")
    for _ in range(rounds):
        begin = time.process_time()
        work()
        best = min(best, time.process_time() - begin)
    return best


def step_speed(step: MapStep, batches: Sequence[pa.RecordBatch], rounds: int = ROUNDS) -> float:
    """MB/s of a step over batches of text."""
    step.check()
    step.open()
    step(batches[0].slice(0, 8))
    seconds = timed(lambda: [step(b) for b in batches], rounds)
    return size(t for b in batches for t in b.column("text").to_pylist()) / seconds


def size(texts: Any) -> float:
    """Megabytes of UTF-8."""
    return sum(len(t.encode("utf-8", "replace")) for t in texts) / 1e6


def block_speed(blocks: Sequence[Any], texts: Sequence[str]) -> float:
    """MB/s of datatrove's filters, one after the other over each text, whatever they say of it."""
    from datatrove.data import Document

    documents = [Document(text=t, id=str(i), metadata={"url": "http://e.org/"}) for i, t in enumerate(texts)]
    for block in blocks:  # its tokenizer loads on first use
        block.filter(Document(text=texts[0], id="", metadata={"url": "http://e.org/"}))

    def work() -> None:
        for document in documents:
            for block in blocks:
                block.filter(Document(text=document.text, id=document.id, metadata=document.metadata))

    return size(texts) / timed(work, 1)


def row(name: str, ours: float, peer: float | None, bare: float | None, wanted: str = "") -> None:
    """A line of the table."""
    cells = [f"{ours:>9.2f}"]
    cells.append(f"{peer:>10.3f} {ours / peer:>7.0f}x" if peer else f"{'-':>10} {'':>8}")
    cells.append(f"{bare:>9.2f} {ours / bare:>7.2f}x" if bare else f"{'-':>9} {'':>8}")
    print(f"{name:<28}{' '.join(cells)}  {wanted}", flush=True)


def extraction(batches: Sequence[pa.RecordBatch], peer_pages: int) -> None:
    """Each engine over the pages themselves."""
    from datatrove.pipeline.extractors import Trafilatura
    from resiliparse.extract.html2text import extract_plain_text

    from curation.extract.extract import Extract

    pages = [t for b in batches for t in b.column("text").to_pylist()]
    few = pages[:: max(1, len(pages) // peer_pages)]
    block = Trafilatura(favour_precision=True)
    peer = size(few) / timed(lambda: [block.extract(p) for p in few], 1)
    bare = size(pages) / timed(lambda: [extract_plain_text(p, main_content=True, alt_texts=False) for p in pages])
    row("extract auto", step_speed(Extract(engine="auto"), batches), peer, bare, "datatrove: its Trafilatura")
    row("extract resiliparse", step_speed(Extract(engine="resiliparse"), batches), peer, bare, "bare >= 0.90x wanted")


def heuristics(batches: Sequence[pa.RecordBatch], few: Sequence[str]) -> None:
    """Each set alone and all together, beside datatrove's filters."""
    from datatrove.pipeline import filters

    from curation.quality.c4_line_filter import C4LineFilter
    from curation.quality.heuristics.heuristics import Heuristics

    quality, repetition = filters.GopherQualityFilter(), filters.GopherRepetitionFilter()
    c4, fineweb = filters.C4QualityFilter(), filters.FineWebQualityFilter()
    for name, sets, blocks in (
        ("heuristics gopher", ["gopher"], [quality, repetition]),
        ("heuristics c4", ["c4"], [c4]),
        ("heuristics fineweb", ["fineweb"], [fineweb]),
        ("heuristics, all together", ["gopher", "c4", "fineweb"], [quality, repetition, c4, fineweb]),
    ):
        wanted = ">= 20 MB/s and >= 100x wanted" if len(sets) > 1 else ""
        # type: ignore[arg-type]
        row(name, step_speed(Heuristics(sets=sets), batches), block_speed(blocks, few), None, wanted)
    row("c4_line_filter", step_speed(C4LineFilter(), batches), None, None)


def language(batches: Sequence[pa.RecordBatch], few: Sequence[str]) -> None:
    """lid.176, beside fastText over the same lines in batches."""
    from benchmarks.peer_language import EnglishFilter
    from curation import models
    from curation.quality.language import Language

    model = models.load_fasttext("lid.176")
    lines = [[t.replace("\n", " ") for t in b.column("text").to_pylist()] for b in batches]
    bare = size(t for ls in lines for t in ls) / timed(lambda: [model.predict(ls) for ls in lines])
    row("language", step_speed(Language(), batches), block_speed([EnglishFilter()], few), bare, ">= 0.90x wanted")


def perplexity(batches: Sequence[pa.RecordBatch], data: Path, folder: Path) -> None:
    """A 5-gram model of WikiText, beside KenLM over lines that are prepared already."""
    from curation.quality.ngram import estimate
    from curation.quality.ngram.tokenize_text import normalise
    from curation.quality.perplexity.kenlm_model import load_kenlm
    from curation.quality.perplexity.perplexity import Perplexity

    path = str(folder / "reference.arpa")
    with open(data / "lm" / "wikitext2_test.txt", "rb") as text:
        estimate.estimate(text, 5, path)
    step = Perplexity(model=path)
    model = load_kenlm(path)
    prepared = [normalise(t, step.form) for b in batches for t in b.column("text").to_pylist()]
    flat = [line for lines in prepared for line in lines]
    seconds = timed(lambda: [model.score(line) for line in flat])
    bare = size(t for b in batches for t in b.column("text").to_pylist()) / seconds
    row("perplexity", step_speed(step, batches), None, bare, ">= 0.80x wanted")


def others(batches: Sequence[pa.RecordBatch]) -> None:
    """What else stands in the FineWeb recipe."""
    from datatrove.pipeline.formatters import PIIFormatter

    from curation.quality.url_signals import UrlSignals
    from curation.safety.pii.pii import Pii

    texts = [t for b in batches for t in b.column("text").to_pylist()]
    formatter = PIIFormatter()
    peer = size(texts) / timed(lambda: [formatter.format(t) for t in texts], 1)
    row("pii e-mail, IP", step_speed(Pii(entities=["EMAIL_ADDRESS", "IP_ADDRESS"]), batches), peer, None,
        "finds by presidio, theirs by two expressions")  # fmt: skip
    row("urls", step_speed(UrlSignals(), batches), None, None, "reads no text: MB that pass by")


def main() -> None:
    parser = crawl.arguments(__doc__)
    parser.add_argument("--files", default="docs-00*", help="files of the crawl [%(default)s]")
    parser.add_argument("--peer-documents", type=int, default=150, help="texts that datatrove is given [%(default)s]")
    parser.add_argument("--only", nargs="*", help="extraction, heuristics, language, perplexity, others")
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pa.set_cpu_count(1)
    html = list(crawl.pages(options.data, [options.files]))
    batches = [b.drop_columns(["html"]) for b in crawl.texts(options.data, [options.files])]
    texts = [t for b in batches for t in b.column("text").to_pylist()]
    few = texts[:: max(1, len(texts) // options.peer_documents)]
    print(f"{len(texts):,} pages of {options.files}: {size(texts):.1f} MB of text; datatrove gets {len(few)} of them, "
          f"{size(few):.2f} MB. One core, load {os.getloadavg()[0]:.1f}")  # fmt: skip
    print(crawl.versions("datatrove", "resiliparse", "trafilatura", "fasttext", "kenlm", "numba", "pyarrow"))
    print(f"{'MB/s':<28}{'ours':>9} {'datatrove':>10} {'ours':>8} {'bare':>9} {'ours':>8}")
    chosen = options.only or ["extraction", "heuristics", "language", "perplexity", "others"]
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen:
            if name == "extraction":
                extraction(html, options.peer_documents)
            elif name == "heuristics":
                heuristics(batches, few)
            elif name == "language":
                language(batches, few)
            elif name == "perplexity":
                perplexity(batches, options.data, Path(folder))
            else:
                others(batches)


if __name__ == "__main__":
    main()
