"""Compares our encoder with tokenizers and with tiktoken alone, in one thread and in two processes.

    python -m benchmarks.tokenizing [--crawl FOLDER] [--tokenizer FILE] [--rounds 5]

The documents are the pages of a crawl (WARC files; the real test data where it is there), as the pipeline's extractor
leaves them. First the ids are proved equal: on every document of the crawl, and on a fuzz corpus of code points drawn
from all of Unicode, of white space, digits, scripts and spelled-out special tokens. Then the speed, in MB of UTF-8 a
second, the contenders interleaved in every round and the best round of each shown with the median of the ratios. Two
processes beside one stand next to the same for a loop without memory, since another load on the machine slows the two.

(A script called tokenize.py would hide the standard library's module of that name from every script in this folder.)
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)
DATA = Path(os.environ.get("GRISTMILL_TEST_DATA", ROOT.parent / "shared" / "data"))
VOCAB = 32_768


def pages(folder: Path) -> list[str]:
    """The text of every page of the crawl's WARC files."""
    from warcio.archiveiterator import ArchiveIterator

    from curation.extract.extract import extract

    texts = []
    for path in sorted(folder.glob("*.warc.gz")):
        with open(path, "rb") as f:
            for record in ArchiveIterator(f):
                kind = record.http_headers and record.http_headers.get_header("Content-Type", "")
                if record.rec_type == "response" and kind and "html" in kind:
                    html = record.content_stream().read().decode("utf-8", "replace").replace("\0", "")
                    text = extract(html, "resiliparse").text
                    if text:
                        texts.append(text)
    return texts


def fuzz(count: int) -> list[str]:
    """Texts of everything that regular expressions and merges could disagree on."""
    rng = random.Random(17)
    pools = [
        [chr(c) for c in (*range(1, 0xD800), *range(0xE000, 0x110000))],
        [chr(c) for c in range(32, 127)],
        [c for c in map(chr, range(0x3001)) if c.isspace()],
        list("0123456789٠١٢٣一二三½²"),
        list("'’\"`´sStTmMdDlLrRvVeE"),
        ["<|endoftext|>", "</s>", "<eos>", "\r\n", "\n\n\n", "    ", "é", "e\u0301", "👩‍👩‍👧", "ﬁ", "ß", "İ"],
        [chr(c) for c in range(0x900, 0xE80)],
        [chr(c) for c in range(0x300, 0x370)],
    ]
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 12)):
            pool = rng.choice(pools)
            parts.append("".join(rng.choices(pool, k=rng.randint(1, 30))))
        texts.append("".join(parts))
    return texts


_encoder: Any = None


def start(data: bytes) -> None:
    """Opens the encoder in a worker process."""
    global _encoder
    from curation.packing.tokenizer.encode import Encoder

    _encoder = Encoder(data)


def work(texts: Sequence[str]) -> int:
    return sum(len(ids) for ids in _encoder.encode_batch(texts))


def spin(_: Sequence[str]) -> int:
    """About as long as a group takes to encode, with no memory to share: what the machine has to give."""
    digest = b""
    for _ in range(24):
        digest = hashlib.sha256(digest + bytes(1 << 20)).digest()
    return len(digest)


def spread(pool: ProcessPoolExecutor, task: Callable[[Sequence[str]], int], groups: Sequence[Sequence[str]]) -> int:
    return sum(pool.map(task, groups))


def timed(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crawl", type=Path, default=DATA / "crawl")
    parser.add_argument(
        "--tokenizer", help="a tokenizer file [default: byte-level BPE trained on a tenth of the pages]"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fuzz", type=int, default=20_000)
    options = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = "1"
    from tokenizers import Tokenizer

    from curation.packing.tokenizer.encode import Encoder
    from curation.packing.tokenizer.load_tokenizer import load_tokenizer
    from curation.packing.tokenizer.train_tokenizer import train_bpe

    texts = pages(options.crawl)
    data = load_tokenizer(options.tokenizer) if options.tokenizer else train_bpe(texts[::10], VOCAB)
    encoder = Encoder(data)
    theirs = Tokenizer.from_str(data.decode())
    theirs.encode_special_tokens = True
    bare = encoder._tiktoken
    size = sum(len(t.encode()) for t in texts)
    names = ", ".join(f"{n} {version(n)}" for n in ("tiktoken", "tokenizers"))
    print(
        f"{len(texts):,} pages, {size / 1e6:.1f} MB, vocabulary {encoder.vocab:,}, engine {encoder.engine}; "
        f"Python {sys.version.split()[0]}, {names}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    for what, corpus in (("crawl", texts), ("fuzz corpus", fuzz(options.fuzz))):
        different = tokens = 0
        for text in corpus:
            ids = encoder.encode_batch([text])[0].tolist()
            tokens += len(ids)
            different += ids != theirs.encode(text, add_special_tokens=False).ids or encoder.decode(ids) != text
        print(f"{what}: {len(corpus):,} texts, {tokens:,} tokens, {different} with other ids or another text back")
    # one thread each: a slice of the crawl for the slow one, so that a round is seconds
    part = texts[:: max(1, size // 4_000_000)]
    amount = sum(len(t.encode()) for t in part) / 1e6
    contenders: dict[str, Callable[[], object]] = {
        "tokenizers": lambda: [theirs.encode(t, add_special_tokens=False) for t in part],
        "tokenizers, batch": lambda: theirs.encode_batch_fast(part, add_special_tokens=False),
        "gristmill": lambda: encoder.encode_batch(part),
    }
    if bare is not None:
        contenders["tiktoken, bare"] = lambda: [bare.encode_ordinary(t) for t in part]
    seconds: dict[str, list[float]] = {n: [] for n in contenders}
    for _ in range(options.rounds):
        for name, function in contenders.items():
            seconds[name].append(timed(function))
    print(f"\none thread, {amount:.1f} MB\n{'':<20}{'MB/s':>8}{'x tokenizers':>14}")
    for name, found in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds["tokenizers, batch"], found, strict=True))
        print(f"{name:<20}{amount / min(found):>8.1f}{ratio:>14.2f}")
    groups = [texts[i::64] for i in range(64)] * 3
    ratios: dict[str, list[float]] = {"encoding": [], "spinning": []}
    with (
        ProcessPoolExecutor(1, initializer=start, initargs=(data,)) as one,
        ProcessPoolExecutor(2, initializer=start, initargs=(data,)) as two,
    ):
        for pool in (one, two):
            list(pool.map(work, groups[:8]))  # starts the processes
        for _ in range(options.rounds):
            for what, task in (("encoding", work), ("spinning", spin)):
                single, double = (timed(partial(spread, pool, task, groups)) for pool in (one, two))
                ratios[what].append(single / double)
    print("\ntwo processes beside one; spinning is SHA-256 of zeros, which is what the machine had to give")
    for what, found in ratios.items():
        rounds = ", ".join(f"{r:.2f}" for r in found)
        print(f"{what:<10}{rounds}; median {statistics.median(found):.2f}, best {max(found):.2f} times")


if __name__ == "__main__":
    main()
