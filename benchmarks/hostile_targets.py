"""Puts one hostile shape (hostile_shapes.py) through the reader or step that it is meant for."""

from __future__ import annotations

import functools
import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.hostile_documents import DOCUMENTS
from benchmarks.hostile_files import FILES, Shape
from benchmarks.hostile_shapes import EVAL_ITEM
from curation import canonical_url, document
from curation.step import InputSplit, UnreadableFile

_FILE_NAMES = {shape.target for shape in (*FILES, *DOCUMENTS)}


def prepare(shape: Shape, size: int, folder: Path) -> Callable[[], Any]:
    """What runs the shape once. Files are written and models loaded before, so that only the work itself is in it."""
    made = shape.make(size)
    if shape.target in _FILE_NAMES:
        (folder / shape.target).write_bytes(made)
        return functools.partial(_read_file, folder, shape.target, len(made))
    target, _, option = shape.target.partition(":")
    return functools.partial(_step(target, option), made)


def load(target: str) -> None:
    """Loads models and kernels of a target, so that the first shape does not pay for them."""
    if target in _FILE_NAMES:
        for made, name in ((b'{"text":"\xe9"}\n', "a.jsonl"), (b"\xe9", "a.txt"), (gzip.compress(b""), "a.warc.gz")):
            (_folder() / name).write_bytes(made)
            _read_file(_folder(), name, len(made))
    else:
        _step(*target.partition(":")[::2])


def _read_file(folder: Path, name: str, size: int) -> dict[str, int]:
    """Rows and unread files of one file."""
    reader = _reader(name)
    split = InputSplit(name, size, "")
    counts = {"rows": 0, "dropped": 0, "unread": 0}
    try:
        for batch in reader.read(split, str(folder), collection="c", domain="d", rows=256):
            counts["rows"] += batch.num_rows
            counts["dropped"] += batch.num_rows - batch.column("drop").null_count
    except UnreadableFile:
        counts["unread"] += 1
    return counts


def _reader(name: str) -> Any:
    from curation.sources.books.epub import EpubReader
    from curation.sources.books.gutenberg import GutenbergReader
    from curation.sources.dumps.stackexchange import StackExchangeReader
    from curation.sources.dumps.wikipedia import WikipediaReader
    from curation.sources.latex.latex import LatexReader
    from curation.sources.text.text import TextReader
    from curation.sources.warc.warc import WarcReader

    named = {"dump": WikipediaReader, "book.epub": EpubReader, "paper": LatexReader, "Posts": StackExchangeReader,
             "book.txt": GutenbergReader, "a.warc": WarcReader, "a.arc": WarcReader}  # fmt: skip
    return next((reader() for start, reader in named.items() if name.startswith(start)), TextReader())


@functools.cache
def _step(target: str, option: str) -> Callable[[Any], Any]:
    made: Callable[[Any], Any] = _STEPS[target](option) if option else _STEPS[target]()
    made("a few words of English to load it, 1.2.3.4, bob@python.org" if target != "url_dedup" else "http://a.org/")
    return made


def _batch(**columns: Any) -> pa.RecordBatch:
    arrays = {"text": pa.large_string(), "url": pa.string()}
    return pa.RecordBatch.from_pydict({k: pa.array([v], arrays[k]) for k, v in columns.items()})


def _map_step(step: Any, column: str = "text") -> Callable[[str], Any]:
    step.check()
    step.open()
    return lambda value: step(_batch(**{column: value}))


def _extract(engine: Any = "auto") -> Callable[[str], Any]:
    from curation.extract.extract import extract

    return lambda page: extract(page, engine)


def _pii(way: str = "") -> Callable[[str], Any]:
    from curation.safety.pii.pii import Pii

    step = Pii(entities=["EMAIL_ADDRESS", "IP_ADDRESS", "CREDIT_CARD", "URL"]) if way == "whole" else Pii()
    step.open()
    if way == "scrub":
        return lambda text: step.scrub(pa.array([text], pa.string()))
    return lambda text: step(_batch(text=text))


def _urls() -> Callable[[str], Any]:
    from curation.quality.url_signals import UrlSignals

    step = UrlSignals()
    step.open()
    return lambda url: step(_batch(url=url))


def _heuristics() -> Callable[[str], Any]:
    from curation.quality.heuristics.heuristics import Heuristics

    return _map_step(Heuristics())


def _c4_line_filter() -> Callable[[str], Any]:
    from curation.quality.c4_line_filter import C4LineFilter

    return _map_step(C4LineFilter(terminal=False))


@functools.cache
def _folder() -> Path:
    kept = tempfile.TemporaryDirectory(prefix="hostile-")
    _kept.append(kept)
    return Path(kept.name)


_kept: list[Any] = []


@functools.cache
def _fasttext_model() -> str:
    """A small classifier of two languages."""
    lines = [f"__label__en {EVAL_ITEM} {i}" for i in range(50)] + [
        f"__label__de das ist ein Satz {i}" for i in range(50)
    ]
    (_folder() / "train.txt").write_text("\n".join(lines))
    # in a fresh process: fastText starts from memory as malloc left it, which may hold NaN
    code = "import fasttext, sys; fasttext.train_supervised(sys.argv[1], dim=8, thread=1).save_model(sys.argv[2])"
    environment = {**os.environ, "MALLOC_PERTURB_": "255"}
    command = [sys.executable, "-c", code, str(_folder() / "train.txt"), str(_folder() / "model.bin")]
    subprocess.run(command, check=True, env=environment)
    return str(_folder() / "model.bin")


def _language() -> Callable[[str], Any]:
    from curation.quality.language import Language

    return _map_step(Language(model=_fasttext_model(), second=True, paragraphs=True))


def _classifier() -> Callable[[str], Any]:
    from curation.quality.classifier.classifier import Classifier

    return _map_step(Classifier(model=_fasttext_model(), labels=["en"]))


def _toxicity() -> Callable[[str], Any]:
    from curation.safety.toxicity.toxicity import Toxicity

    return _map_step(Toxicity(sentences="drop"))


def _perplexity() -> Callable[[str], Any]:
    from curation.quality.perplexity.perplexity import Perplexity

    ngrams = "\n".join(f"-1.0\t{word}\t-0.3" for word in ("<unk>", "<s>", "a", "the", "."))
    arpa = f"\\data\\\nngram 1=6\nngram 2=1\n\n\\1-grams:\n{ngrams}\n-1.0\t</s>\n\n\\2-grams:\n-0.5\tthe a\n\n\\end\\\n"
    (_folder() / "a.arpa").write_text(arpa)
    return _map_step(Perplexity(model=str(_folder() / "a.arpa"), paragraphs=True))


def _decontaminate() -> Callable[[str], Any]:
    from curation.safety.decontamination.decontaminate import Decontaminate

    (_folder() / "eval.jsonl").write_text(json.dumps({"question": EVAL_ITEM}) + "\n")
    return _map_step(Decontaminate(against=[str(_folder() / "eval.jsonl")], action="cut"))


def _url_dedup() -> Callable[[str], Any]:
    return canonical_url.canonicalize_url


def _exact_dedup() -> Callable[[str], Any]:
    from curation.dedup.text_normalization import NORMALIZERS

    return lambda text: [normalize(text) for normalize in NORMALIZERS.values()]


def _line_dedup() -> Callable[[str], Any]:
    from curation.dedup import line_spans
    from curation.dedup.text_normalization import NORMALIZERS

    def run(text: str) -> Any:
        for unit in ("line", "paragraph"):
            where = line_spans.units(text, unit)  # type: ignore[arg-type]
            line_spans.span_hashes(text, where, NORMALIZERS["template"], 3, 12, b"")
            pieces = line_spans.pieces_to_cut(text, where, [True] * len(where))
            line_spans.restore(line_spans.cut(text, pieces), pieces)

    return run


def _minhash() -> Callable[[str], Any]:
    from curation.dedup.minhash import shingles, signatures

    def run(text: str) -> Any:
        texts = pa.array([text], pa.large_string())
        shingles.flat_shingle_sets(texts, 5, shingles.WORDS)
        return signatures.signatures_and_contents(texts), signatures.signatures_and_contents(texts, unit="characters")

    return run


def _tokenizer() -> Callable[[str], Any]:
    from curation.packing.tokenizer.encode import Encoder
    from curation.packing.tokenizer.load_tokenizer import tokenizer_json_from_ranks
    from curation.packing.tokenizer.pretokenizer_patterns import OURS

    tokens = [
        *(bytes([b]) for b in range(256)),
        b"aa",
        b"aaaa",
        b"  ",
        b"    ",
        b"..",
        b"\n\n",
        b"\xe6\xbc",
        b"\xe6\xbc\xa2",
        b"__",
    ]
    encoder = Encoder(tokenizer_json_from_ranks({t: i for i, t in enumerate(tokens)}, OURS, len(tokens)))
    return lambda text: encoder.encode_batch([text])


def _rule() -> Callable[[str], Any]:
    from curation.config.rules import Decider

    sql = {
        "a": r"regexp_matches(text, '(a+)+$') OR text LIKE '%a%a%a%a%b'",
        "b": r"length(regexp_replace(text, '(.*)*x', '', 'g')) > 0",
    }
    decider = Decider(sql, pa.schema([("text", pa.large_string())]))
    return lambda text: decider.decide(_batch(text=text))


_STEPS: dict[str, Callable[..., Callable[[Any], Any]]] = {
    "extract": _extract,
    "pii": _pii,
    "urls": _urls,
    "url_dedup": _url_dedup,
    "heuristics": _heuristics,
    "c4_line_filter": _c4_line_filter,
    "language": _language,
    "classifier": _classifier,
    "toxicity": _toxicity,
    "perplexity": _perplexity,
    "decontaminate": _decontaminate,
    "exact_dedup": _exact_dedup,
    "line_dedup": _line_dedup,
    "minhash": _minhash,
    "tokenizer": _tokenizer,
    "rule": _rule,
    "clean_text": lambda: document.clean_text,
}
