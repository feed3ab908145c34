"""Makes corpora of real text with known duplicates, for the deduplication benchmarks.

The text is cut into pieces of 18 words that do not overlap; a document is a row of pieces drawn at random, 100 to 300
words. Two documents share a piece now and then, which leaves their Jaccard similarity near 0. On top of that:

    pairs    at a similarity of 0.50, 0.55, ... 0.95: the second document takes over so many words from the beginning of
             the first one that their 5-word shingles overlap by that much, and goes on with other pieces. A 200th of
             the corpus is pairs of each
    copies   a 50th: two documents of the same words
    families a 20th: five versions of a document, each with three other words somewhere
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PIECE = 18  # words
BINS = tuple(round(0.5 + 0.05 * k, 2) for k in range(10))
SOURCES = ("near_dup/articles_2500.train", "lm/wikitext2_test.txt", "lm/wikitext2_valid.txt", "lm/lmplz_train.txt")
FILE_DOCUMENTS = 12_500  # a file, and so a task


def pieces(data: Path) -> list[str]:
    """All pieces of the source texts, each once, in order."""
    found: dict[str, None] = {}
    for source in SOURCES:
        words = re.findall(r"\w+", (data / source).read_text(encoding="utf-8"))
        for start in range(0, len(words) - PIECE, PIECE):
            found[" ".join(words[start : start + PIECE])] = None
    return list(found)


class Maker:
    """Draws documents, the same ones for a seed."""

    def __init__(self, pool: list[str], seed: int = 1) -> None:
        self.pool, self.rng = pool, np.random.default_rng(seed)
        self.ids: list[str] = []
        self.texts: list[str] = []

    def words(self, count: int) -> list[str]:
        """So many words of pieces drawn at random."""
        chosen = self.rng.integers(0, len(self.pool), -(-count // PIECE))
        return " ".join(self.pool[i] for i in chosen).split()[:count]

    def length(self) -> int:
        return int(self.rng.integers(100, 301))

    def add(self, name: str, words: list[str]) -> None:
        self.ids.append(name)
        self.texts.append(" ".join(words))

    def pairs(self, similarity: float, count: int) -> None:
        for k in range(count):
            first = self.words(self.length())
            shingles = len(first) - 4
            shared = round(2 * shingles * similarity / (1 + similarity))
            self.add(f"pair-{similarity:.2f}-{k}-a", first)
            self.add(f"pair-{similarity:.2f}-{k}-b", first[: shared + 4] + self.words(shingles - shared))

    def shuffled(self) -> tuple[list[str], list[str]]:
        """(ids, texts) in random order."""
        order = self.rng.permutation(len(self.ids))
        return [self.ids[i] for i in order], [self.texts[i] for i in order]


def documents(pool: list[str], count: int, seed: int = 1) -> tuple[list[str], list[str]]:
    """(ids, texts) of a corpus of `count` documents, in random order. The id says what a document is:
    pair-0.75-12-a, copy-3-b, family-7-2 or single-99."""
    make = Maker(pool, seed)
    for similarity in BINS:
        make.pairs(similarity, count // 400)
    for k in range(count // 100):
        words = make.words(make.length())
        make.add(f"copy-{k}-a", words)
        make.add(f"copy-{k}-b", words)
    for k in range(count // 100):
        base = make.words(make.length())
        for version in range(5):
            words = list(base)
            for at in make.rng.integers(0, len(words), 3):
                words[at] = f"version{version}"
            make.add(f"family-{k}-{version}", words)
    for k in range(count - len(make.ids)):
        make.add(f"single-{k}", make.words(make.length()))
    return make.shuffled()


def templates(pool: list[str], number: int, each: int, seed: int = 1) -> tuple[list[str], list[str]]:
    """Pages of `number` templates: 160 words of boilerplate around two pieces of the page's own, which no other has.

    Two pages of a template have a Jaccard similarity near 0.66.
    """
    make = Maker(pool, seed)
    own = iter(make.rng.permutation(len(pool)).tolist())
    for t in range(number):
        boilerplate = make.words(160)
        for k in range(each):
            make.add(
                f"template-{t}-{k}",
                [*boilerplate[:80], *pool[next(own)].split(), *pool[next(own)].split(), *boilerplate[80:]],
            )
    return make.shuffled()


def write(folder: Path, ids: list[str], texts: list[str], per_file: int = FILE_DOCUMENTS) -> None:
    """Parquet files of `per_file` documents: columns id, text."""
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(ids), per_file):
        part = pa.table({"id": ids[start : start + per_file], "text": texts[start : start + per_file]})
        pq.write_table(part, folder / f"{start // per_file:05d}.parquet", compression="zstd")


def mend_datatrove() -> None:
    """datatrove 0.10.1 hands strings to xxhash, which takes bytes alone since version 4: encoded here, its own choice
    of hash kept."""
    import xxhash
    from datatrove.utils.hashes import xxhash as theirs

    theirs.xxhash32 = lambda data: xxhash.xxh32_intdigest(data.encode())
    theirs.xxhash64 = lambda data: xxhash.xxh64_intdigest(data.encode())
