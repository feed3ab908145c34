"""Measures near-duplicate removal: what is found, what is removed wrongly, and what one giant bucket costs.

    python -m benchmarks.dedup_quality DATA [recall] [articles] [traps] [bucket] [--work DIR]

recall    isolated pairs planted at Jaccard 0.50 to 0.95, 5,000 of each: how many are found, beside LSH theory for their
          exact similarities; and every removal checked again by comparing sets of 5-tuples of words
articles  near_dup/articles_1000 and _2500: the truth pairs, and what else was found
traps     templates whose boilerplate chains unrelated pages: what ours, datatrove, and connected components of the same
          candidates without verification remove
bucket    one bucket of 25,000 to 100,000 different documents: time, memory, what did not meet
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import planted

WORD = re.compile(r"\w+")
STEPS = ("recall", "articles", "traps", "bucket")


def run(work: Path, ids: list[str], texts: list[str], per_file: int = planted.FILE_DOCUMENTS, **options: Any) -> Any:
    """Deduplicates in a process of its own: {id: (kept id, similarity) or None}, tallies of the stages, its figures."""
    root, run_dir = work / "documents", work / "run"
    for folder in (root, run_dir):
        shutil.rmtree(folder, ignore_errors=True)
    planted.write(root, ids, texts, per_file)
    file = work / "pipeline.yaml"
    tree = {
        "name": "quality",
        "sources": [{"name": "web", "read": "text", "root": str(root), "path": "*.parquet", "id": "id"}],
        "steps": [{"minhash_dedup": options}],
        "engine": {"task_bytes": 1024},
    }
    file.write_text(json.dumps(tree))  # JSON is YAML
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.dedup_quality", "--run", str(file), str(run_dir)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    import pyarrow.parquet as pq

    ledger = pq.read_table(run_dir / "result" / "ledger", columns=["doc_id", "source", "minhash_dedup"]).to_pylist()
    name = {r["doc_id"].hex(): ids[int(r["source"]["file"][:5]) * per_file + r["source"]["row"]] for r in ledger}
    found = {}
    for row in ledger:
        said = row["minhash_dedup"]
        found[name[row["doc_id"].hex()]] = (name[said["of"]], said["similarity"]) if said["duplicate"] else None
    stages = json.loads((run_dir / "run.json").read_text())["stages"]["minhash_dedup"]
    costs = {}
    for path in (run_dir / "cache" / "phases").iterdir():
        merged = json.loads(path.read_text())
        if merged["name"].startswith("minhash_dedup: "):
            costs[merged["name"].removeprefix("minhash_dedup: ")] = sum(
                t["cost"]["cpu_seconds"] for t in merged["tasks"].values()
            )
    return found, {s["stage"]: s["counters"] for s in stages}, costs, json.loads(done.stdout.splitlines()[-1])


def one_run(file: str, run_dir: str) -> None:
    from curation.config.catalogue import READERS
    from curation.config.catalogue import STEPS as CATALOGUE
    from curation.config.load_pipeline import load_pipeline
    from curation.engine.runtime.run import curate

    curate(load_pipeline(file, catalogue=CATALOGUE, readers=READERS), run_dir, executor="inline")
    print(json.dumps({"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def tuples(text: str) -> set[tuple[str, ...]]:
    words = WORD.findall(text.lower())
    return {tuple(words[k : k + 5]) for k in range(max(1, len(words) - 4))}


def exact(left: str, right: str) -> float:
    a, b = tuples(left), tuples(right)
    return len(a & b) / len(a | b)


def checked(found: dict[str, Any], text: dict[str, str], threshold: float) -> tuple[int, int]:
    """(removals, wrong ones): wrong is one whose document does not stay, is less similar, or not as said."""
    gone = {name: of for name, of in found.items() if of}
    wrong = 0
    for name, (of, similarity) in gone.items():
        real = exact(text[name], text[of])
        wrong += found[of] is not None or real < threshold or abs(real - similarity) > 1e-12
    return len(gone), wrong


def recall(data: Path, work: Path) -> None:
    from curation.dedup.minhash.signatures import candidate_probability

    make = planted.Maker(planted.pieces(data), 3)
    for similarity in planted.BINS:
        make.pairs(similarity, 5000)
    ids, texts = make.shuffled()
    text = dict(zip(ids, texts, strict=True))
    real = {name[:-2]: exact(text[name], text[name[:-1] + "b"]) for name in ids if name.endswith("-a")}
    for threshold in (0.72, 0.5):
        found, *_ = run(work, ids, texts, threshold=threshold)
        print(f"\nthreshold {threshold}, 14 bands of 8 rows: recall of {len(real):,} isolated pairs")
        print(f"{'planted':>8}{'pairs':>8}{'reach it':>10}{'found':>8}{'theory':>10}{'sigma':>8}{'off by':>9}")
        for bin_ in planted.BINS:
            pairs = [n for n in real if n.startswith(f"pair-{bin_:.2f}-")]
            chances = [candidate_probability(real[n], 14, 8) for n in pairs if real[n] >= threshold]
            got = sum(
                any(found[n + a] and found[n + a][0] == n + b for a, b in (("-a", "-b"), ("-b", "-a"))) for n in pairs
            )
            mean, sigma = sum(chances), sum(p * (1 - p) for p in chances) ** 0.5
            off = f"{(got - mean) / sigma:+.2f} σ" if sigma else ("none" if not got else "WRONG")
            print(f"{bin_:>8.2f}{len(pairs):>8,}{len(chances):>10,}{got:>8,}{mean:>10.1f}{sigma:>8.1f}{off:>9}")
        removed, wrong = checked(found, text, threshold)
        print(f"{removed:,} removals checked again, {wrong} wrong: precision {1 - wrong / max(1, removed):.4f}")


def articles(data: Path, work: Path) -> None:
    for size in (1000, 2500):
        lines = (data / "near_dup" / f"articles_{size}.train").read_text().splitlines()
        ids, texts = (list(x) for x in zip(*(line.split(" ", 1) for line in lines), strict=True))
        found, *_ = run(work, ids, texts)
        pairs = {
            frozenset(line.split()) for line in (data / "near_dup" / f"articles_{size}.truth").read_text().splitlines()
        }
        got = {frozenset((name, of[0])) for name, of in found.items() if of}
        removed, wrong = checked(found, dict(zip(ids, texts, strict=True)), 0.72)
        print(f"\narticles_{size}: {len(pairs & got)} of {len(pairs)} truth pairs found at Jaccard 0.72; others: "
              f"{sorted(map(sorted, got - pairs)) or 'none'}; {removed} removals, {wrong} wrong")  # fmt: skip


def traps(data: Path, work: Path) -> None:
    ids, texts = planted.templates(planted.pieces(data), 5, 1000)
    text = dict(zip(ids, texts, strict=True))
    found, counters, *_ = run(work, ids, texts)
    removed, wrong = checked(found, text, 0.72)
    print(f"\n{len(ids):,} unrelated pages of 5 templates, Jaccard of two of one template "
          f"{exact(text['template-0-0'], text['template-0-1']):.2f}")  # fmt: skip
    met = counters["pairs"]
    print(f"gristmill: {met['met']:,} pairs met, {met['skipped']:,} skipped by their sketches, {removed} documents "
          f"removed, {wrong} of them wrongly")  # fmt: skip
    print(f"connected components of the same LSH, unverified: {components(texts):,} removed")
    print(f"datatrove: {datatrove(work, ids, texts):,} removed")


def components(texts: list[str]) -> int:
    """How many documents go if documents that share a band are one cluster of which one stays."""
    import numpy as np
    import pyarrow as pa
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    from curation.dedup.minhash import signatures

    keys = signatures.band_keys(signatures.signatures(pa.array(texts, pa.large_string())), 14, 8)
    _, bucket = np.unique(keys.reshape(-1), return_inverse=True)
    n = len(texts)
    who = np.repeat(np.arange(n), 14)
    size = n + int(bucket.max()) + 1
    graph = coo_array((np.ones(len(who), np.int8), (who, n + bucket)), shape=(size, size))
    _, label = connected_components(graph, directed=False)
    return n - len(np.unique(label[:n]))


def datatrove(work: Path, ids: list[str], texts: list[str]) -> int:
    from datatrove.data import Document
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from loguru import logger

    planted.mend_datatrove()
    logger.remove()
    made = MinhashConfig(num_buckets=14, hashes_per_bucket=8)
    folder = {name: str(work / "datatrove" / name) for name in ("signatures", "buckets", "remove")}
    shutil.rmtree(work / "datatrove", ignore_errors=True)
    documents = [Document(text=t, id=i) for i, t in zip(ids, texts, strict=True)]
    for _ in MinhashDedupSignature(folder["signatures"], made).run(iter(documents)) or ():
        pass
    for rank in range(14):
        MinhashDedupBuckets(folder["signatures"], folder["buckets"], config=made).run(None, rank, 14)
    MinhashDedupCluster(folder["buckets"], folder["remove"], config=made).run(None, 0, 1)
    return len(texts) - sum(1 for _ in MinhashDedupFilter(folder["remove"]).run(iter(documents)))


def bucket(data: Path, work: Path) -> None:
    """Three quarters of each document are boilerplate; one band of one row puts as many of them into one bucket."""
    make = planted.Maker(planted.pieces(data), 5)
    boilerplate = make.words(49)
    print(
        f"\n{'documents':>10}{'in one bucket':>14}{'pairs':>13}{'skipped':>10}{'not met':>16}"
        f"{'CPU s':>8}{'a document':>13}{'peak MB':>9}"
    )
    for members in (25_000, 50_000, 100_000):
        n = members * 4 // 3
        texts = [" ".join([*boilerplate, *make.words(36)[10:25]]) for _ in range(n)]  # of two pieces, so all differ
        _, counters, costs, figures = run(work, [str(k) for k in range(n)], texts, num_bands=1, rows_per_band=1)
        cpu, pairs = sum(costs.values()), counters["pairs"]
        print(f"{n:>10,}{largest(texts):>14,}{pairs['met']:>13,}{pairs['skipped']:>10,}{pairs['unmet']:>16,}"
              f"{cpu:>8.1f}{1e6 * cpu / n:>10.0f} µs{figures['peak']:>9.0f}")  # fmt: skip


def largest(texts: list[str]) -> int:
    import numpy as np
    import pyarrow as pa

    from curation.dedup.minhash import signatures

    return int(
        np.unique(signatures.signatures(pa.array(texts, pa.large_string()), num_perm=1), return_counts=True)[1].max()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(STEPS)}; all if none is given")
    parser.add_argument("--work", type=Path, default=Path("/tmp/gristmill-dedup-quality"))
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        one_run(*args.run)
        return
    args.work.mkdir(parents=True, exist_ok=True)
    for part in args.parts or STEPS:
        {"recall": recall, "articles": articles, "traps": traps, "bucket": bucket}[part](args.data, args.work)
    with contextlib.suppress(OSError):
        shutil.rmtree(args.work)


if __name__ == "__main__":
    main()
