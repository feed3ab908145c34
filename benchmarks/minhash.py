"""Compares MinHash signatures with rensa, datasketch and datatrove: MB/s on one core, and each one's error.

    python -m benchmarks.minhash DATA [--rounds 3]

DATA is the folder of test data; the texts are those of benchmarks/planted.py. All make 112 values a text of its 5-word
shingles: ours of the Arrow buffer; rensa and datasketch of the shingles that a regular expression and str.join make
(their fastest bulk calls, rensa's also timed with the shingles at hand); datatrove by its own step, which tokenizes
with spaCy. A round times all of them one after the other, each on as many of the texts as take it about two seconds.

The error: over pairs planted at Jaccard 0.5 to 0.95, (estimate - exact) / sqrt(J (1 - J) / 112). Its mean over n pairs
has to lie within 4 / sqrt(n) of 0, its variance within 4 sqrt(2 / n) of 1. The exact J is that of the
library's own shingles.
"""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import planted
from curation.dedup.minhash import shingles, signatures

PERM = 112
WORD = re.compile(r"\w+")


def cut(text: str) -> set[str]:
    words = WORD.findall(text.lower())
    return {" ".join(words[k : k + 5]) for k in range(max(1, len(words) - 4))}


def rensa_of(sets: list[list[str]]) -> Any:
    from rensa import RMinHash

    return RMinHash.digest_matrix_from_token_sets(sets, PERM, 1)


def datasketch_of(texts: list[str]) -> Any:
    from datasketch import MinHash

    sets = [[s.encode() for s in cut(t)] for t in texts]
    return np.stack([m.hashvalues for m in MinHash.bulk(sets, num_perm=PERM, seed=1)])


class Datatrove:
    """datatrove's first step, without its files: shingles and signature of one text after the other."""

    def __init__(self, folder: str) -> None:
        from datatrove.pipeline.dedup import MinhashDedupSignature
        from datatrove.pipeline.dedup.minhash import MinhashConfig

        planted.mend_datatrove()
        self.step = MinhashDedupSignature(folder, MinhashConfig(num_buckets=14, hashes_per_bucket=8))

    def __call__(self, texts: list[str]) -> Any:
        return np.array([np.concatenate(self.step.get_signature(self.step.get_shingles(t))) for t in texts], np.uint64)


def rows(matrix: Any) -> Any:
    """rensa's compact matrix as an array."""
    if isinstance(matrix, np.ndarray):
        return matrix
    return np.array(list(matrix.to_rows() if hasattr(matrix, "to_rows") else matrix), np.uint64)


def error(left: Any, right: Any, exact: Any) -> tuple[float, float]:
    z = ((left == right).mean(axis=1) - exact) / np.sqrt(exact * (1 - exact) / PERM)
    return float(z.mean()), float(z.var())


def jaccard(left: list[set[Any]], right: list[set[Any]]) -> Any:
    return np.array([len(a & b) / len(a | b) for a, b in zip(left, right, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = "1"
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    ids, texts = planted.documents(planted.pieces(args.data), 40_000)
    datatrove = Datatrove("/tmp/unused-by-signatures")
    ready = [list(cut(t)) for t in texts[:8000]]
    arrow = pa.array(texts, pa.large_string())

    # name, call, number of texts it gets
    calls: list[tuple[str, Callable[[int], Any], int]] = [
        ("gristmill", lambda n: signatures.signatures(arrow[:n], num_perm=PERM), len(texts)),
        ("rensa", lambda n: rensa_of([list(cut(t)) for t in texts[:n]]), 8000),
        ("rensa, shingles at hand", lambda n: rensa_of(ready[:n]), 8000),
        ("datasketch", lambda n: datasketch_of(texts[:n]), 3000),
        ("datatrove", lambda n: datatrove(texts[:n]), 500),
    ]
    speed: dict[str, list[float]] = {name: [] for name, _, _ in calls}
    for _, call, n in calls:
        call(min(n, 20))  # compiled, loaded
    for _ in range(args.rounds):
        for name, call, n in calls:
            size = sum(len(t.encode()) for t in texts[:n])
            begin = time.process_time()
            call(n)
            speed[name].append(size / 1e6 / (time.process_time() - begin))

    place = {name: k for k, name in enumerate(ids)}
    left = [texts[k] for name, k in place.items() if name.startswith("pair-") and name.endswith("-a")]
    right = [texts[place[name[:-1] + "b"]] for name in place if name.startswith("pair-") and name.endswith("-a")]
    errors: dict[str, tuple[float, float, int]] = {}

    def ours(batch: list[str]) -> list[set[int]]:
        return [set(s.tolist()) for s in shingles.shingle_sets(pa.array(batch, pa.large_string()))]

    def strings(batch: list[str]) -> list[set[str]]:
        return [cut(t) for t in batch]

    def theirs(batch: list[str]) -> list[set[int]]:
        return [set(datatrove.step.get_shingles(t).ravel().tolist()) for t in batch]

    makers: list[tuple[str, Callable[[list[str]], Any], Callable[[list[str]], list[set[Any]]], int]] = [
        ("gristmill", lambda b: signatures.signatures(pa.array(b, pa.large_string()), num_perm=PERM), ours, 1000),
        ("rensa", lambda b: rows(rensa_of([list(cut(t)) for t in b])), strings, 1000),
        ("datasketch", datasketch_of, strings, 1000),
        ("datatrove", datatrove, theirs, 500),
    ]
    for name, make, sets, n in makers:
        pairs = slice(0, len(left), max(1, len(left) // n))
        one, two = left[pairs], right[pairs]
        errors[name] = (*error(make(one), make(two), jaccard(sets(one), sets(two))), len(one))

    base = np.median(speed["gristmill"])
    print(f"{len(texts):,} texts, median of {args.rounds} rounds on one core, CPU time")
    print(f"{'':26}{'version':>10}{'MB/s':>10}{'ours/it':>10}{'bias':>9}{'allowed':>9}{'variance':>10}{'allowed':>12}")
    for name, found in speed.items():
        package = name.split(",")[0]
        said = version(package) if package != "gristmill" else "-"
        line = f"{name:26}{said:>10}{np.median(found):>10.2f}{base / np.median(found):>9.1f}x"
        if name in errors:
            bias, variance, n = errors[name]
            line += f"{bias:>+9.3f}{4 / n**0.5:>9.3f}{variance:>10.3f}{f'1 ± {4 * (2 / n) ** 0.5:.3f}':>12}"
        print(line)


if __name__ == "__main__":
    main()
