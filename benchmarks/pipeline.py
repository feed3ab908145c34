"""Compares `gristmill curate` with datatrove's LocalPipelineExecutor on a crawl, by the FineWeb recipe.

    python -m benchmarks.pipeline [--parts whole marginal]

Both extract, identify the language, apply Gopher's, C4's and FineWeb's rules, remove near-duplicates by MinHash, mask
e-mail and IP addresses and count GPT-2's tokens, with two workers on the same files (URL lists are left out of both:
datatrove needs a minute to load its own). Every run is a process of its own.

Archives are copied with WARC-Identified-Payload-Type: text/html, as Common Crawl's have it. Without that header
datatrove asks libmagic, to which XHTML is text/xml, and leaves 147 of the first 149 pages of docs-00 unread. Its
MinHash is told to use SHA-1: its xxhash hands strings to a library that wants bytes from version 4 on.

whole     docs-00 and docs-01, wall seconds from start to exit of the process.
marginal  what a further copy of docs-00 costs, without deduplication: the time of many copies under other URLs less
          that of a few, through the copies between. Starting and stopping cancel out. Ours 16 less 4 copies, datatrove
          3 less 1 (--peer-copies), since its time is one copy after the other.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks import crawl

PEER = """
import sys, json
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashConfig, MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import (C4QualityFilter, FineWebQualityFilter, GopherQualityFilter,
                                        GopherRepetitionFilter)
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import JsonlReader, WarcReader
from datatrove.pipeline.tokens import TokensCounter
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig
sys.path.insert(0, sys.argv[5])
from benchmarks.peer_language import EnglishFilter

if __name__ == "__main__":
    root, pattern, out, tokenizer, dedup = sys.argv[1:5] + [sys.argv[6] == "dedup"]
    def run(name, blocks, tasks=2, workers=2):
        LocalPipelineExecutor(pipeline=blocks, tasks=tasks, workers=workers, logging_dir=f"{out}/log/{name}").run()
    last = [PIIFormatter(), TokensCounter(tokenizer), JsonlWriter(f"{out}/kept")]
    tasks = max(2, int(sys.argv[7]))
    first = [
        WarcReader(root, glob_pattern=pattern), Trafilatura(favour_precision=True), EnglishFilter(),
        GopherRepetitionFilter(), GopherQualityFilter(), C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(),
    ]
    if not dedup:
        run("first", first + last, tasks)
    else:
        hashes = HashConfig(precision=64, hash_fc="sha1")
        config = MinhashConfig(hash_config=hashes, num_buckets=14, hashes_per_bucket=8, n_grams=5)
        run("first", first + [JsonlWriter(f"{out}/texts")], tasks)
        run("signatures", [JsonlReader(f"{out}/texts"), MinhashDedupSignature(f"{out}/signatures", config=config)])
        run("buckets", [MinhashDedupBuckets(f"{out}/signatures", f"{out}/buckets", config=config)], 14)
        run("cluster", [MinhashDedupCluster(f"{out}/buckets", f"{out}/remove", config=config)], 1, 1)
        run("filter", [JsonlReader(f"{out}/texts"), MinhashDedupFilter(f"{out}/remove")] + last)
"""


def write_tokenizer(data: Path, to: Path) -> None:
    """GPT-2's tokenizer as a tokenizer.json."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocab = json.loads((data / "tokenizer" / "gpt2_encoder.json").read_text())
    lines = (data / "tokenizer" / "gpt2_vocab.bpe").read_text("utf-8").split("\n")[1:]
    merges = [tuple(line.split()) for line in lines if line]
    tokenizer = Tokenizer(models.BPE(vocab, merges))  # type: ignore[arg-type]
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(to))


def copies(source: Path, folder: Path, count: int, most: int | None = None) -> None:
    """Copies of an archive (of its first `most` records) under other URLs and record ids."""
    from warcio.archiveiterator import ArchiveIterator
    from warcio.warcwriter import WARCWriter

    folder.mkdir(exist_ok=True)
    records = []
    with gzip.open(source) as f:
        for record in itertools.islice(ArchiveIterator(f, no_record_parse=True), most):
            records.append((record.rec_headers.headers, record.raw_stream.read(), record.rec_type))
    for k in range(count):
        with (folder / f"{source.name.split('.')[0]}-{k:02d}.warc.gz").open("wb") as out:
            writer = WARCWriter(out, gzip=True)
            for headers, payload, kind in records:
                changed = [(n, v.replace("docs.test", f"docs{k}.test") if n == "WARC-Target-URI" else v)
                           for n, v in headers]  # fmt: skip
                changed = [(n, f"{v[:-3]}{k:02d}>" if n == "WARC-Record-ID" else v) for n, v in changed]
                if kind == "response":
                    changed.append(("WARC-Identified-Payload-Type", "text/html"))
                writer.write_record(_record(writer, changed, payload, kind))


def _record(writer: object, headers: list[tuple[str, str]], payload: bytes, kind: str) -> object:
    import io

    from warcio.recordloader import ArcWarcRecord
    from warcio.statusandheaders import StatusAndHeaders

    head = StatusAndHeaders("", headers, protocol="WARC/1.0")
    return ArcWarcRecord("warc", kind, head, io.BytesIO(payload), None, "", len(payload))


def run(command: list[str]) -> tuple[float, float]:
    """Wall seconds of a process, and CPU seconds of it and all below it (Ray's workers are children of its daemons)."""
    import psutil

    begin = time.perf_counter()
    spent: dict[int, float] = {}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, cwd=crawl.ROOT,
                                   env=os.environ | {"PYTHONPATH": str(crawl.ROOT)})  # fmt: skip
        root = psutil.Process(process.pid)
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):
                for one in [root, *root.children(recursive=True)]:
                    with contextlib.suppress(psutil.Error):
                        times = one.cpu_times()
                        spent[one.pid] = times.user + times.system
            time.sleep(0.1)
        wall = time.perf_counter() - begin
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{said.read().decode(errors='replace')[-4000:]}")
    return wall, sum(spent.values())


def ours(folder: Path, root: Path, pattern: str, tokenizer: Path, dedup: bool, name: str) -> tuple[float, float, int]:
    """`gristmill curate` on the recipe; wall and CPU seconds, documents kept."""
    recipe = yaml.safe_load((crawl.ROOT / "pipelines" / "fineweb.yaml").read_text())
    recipe["sources"][0] |= {"root": str(root), "path": pattern}
    out = ("urls",) if dedup else ("urls", "minhash_dedup")
    recipe["steps"] = [s for s in recipe["steps"] if not set(s) & set(out)]
    recipe["tokenizer"] = {"path": str(tokenizer)}
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(recipe, sort_keys=False))
    to = folder / f"run-{name}"
    wall, cpu = run(
        [sys.executable, "-m", "pipelines.cli", "curate", str(file), "--run", str(to), "--workers", "2", "--quiet"]
    )
    return wall, cpu, json.loads((to / "run.json").read_text())["counts"]["kept"]


def theirs(folder: Path, root: Path, pattern: str, tokenizer: Path, dedup: bool, name: str) -> tuple[float, float, int]:
    """datatrove; the same three."""
    script, to = folder / "peer.py", folder / f"peer-{name}"
    script.write_text(PEER)
    files = len(list(root.glob(pattern)))
    wall, cpu = run(
        [
            sys.executable,
            str(script),
            str(root),
            pattern,
            str(to),
            str(tokenizer),
            str(crawl.ROOT),
            "dedup" if dedup else "no",
            str(files),
        ]
    )
    kept = 0
    for path in sorted((to / "kept").glob("*.jsonl.gz")):
        with gzip.open(path) as f:
            kept += sum(1 for _ in f)
    return wall, cpu, kept


def main() -> None:
    parser = crawl.arguments(__doc__)
    parser.add_argument("--parts", nargs="*", default=["whole", "marginal"], help="[%(default)s]")
    parser.add_argument("--peer-copies", type=int, nargs=2, default=[1, 3], help="few and many, for datatrove")
    parser.add_argument("--copies", type=int, nargs=2, default=[4, 16], help="few and many, for ours")
    parser.add_argument("--records", type=int, help="take so many records of docs-00 for a copy, not all 2,011")
    options = parser.parse_args()
    print(f"two workers, load {os.getloadavg()[0]:.1f}; {crawl.versions('datatrove', 'trafilatura', 'ray')}")
    print(f"{'':<34}{'wall s':>9}{'CPU s':>9}{'kept':>8}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = folder / "tokenizer.json"
        write_tokenizer(options.data, tokenizer)
        # kernels compile once an installation
        recipe = (
            "import curation.quality.heuristics.statistics_kernel, curation.extract.html_walk_kernel, "
            "curation.safety.pii.candidate_windows"
        )
        run([sys.executable, "-c", recipe])
        sides = (("gristmill", ours), ("datatrove", theirs))
        if "whole" in options.parts:
            walls = []
            root = folder / "whole"
            for file in ("docs-00", "docs-01"):
                copies(options.data / "crawl" / f"{file}.warc.gz", root, 1, options.records)
            for who, side in sides:
                wall, cpu, kept = side(folder, root, "*.warc.gz", tokenizer, True, "whole")
                walls.append((wall, cpu))
                print(f"{'whole, ' + who:<34}{wall:>9.1f}{cpu:>9.1f}{kept:>8,}", flush=True)
            print(f"{'':<34}{walls[1][0] / walls[0][0]:>8.1f}x{walls[1][1] / walls[0][1]:>8.1f}x")
        if "marginal" in options.parts:
            each = []
            for (who, side), (few, many) in zip(sides, (options.copies, options.peer_copies), strict=True):
                found = []
                for count in (few, many):
                    root = folder / f"{who}-{count}"
                    copies(options.data / "crawl" / "docs-00.warc.gz", root, count, options.records)
                    wall, cpu, kept = side(folder, root, "*.warc.gz", tokenizer, False, f"{who}-{count}")
                    found.append((wall, cpu))
                    print(f"{f'{count} copies, ' + who:<34}{wall:>9.1f}{cpu:>9.1f}{kept:>8,}", flush=True)
                wall, cpu = ((b - a) / (many - few) for a, b in zip(*found, strict=True))
                each.append((wall, cpu))
                print(f"{'a further copy, ' + who:<34}{wall:>9.2f}{cpu:>9.2f}", flush=True)
            print(f"{'':<34}{each[1][0] / each[0][0]:>8.1f}x{each[1][1] / each[0][1]:>8.1f}x")


if __name__ == "__main__":
    main()
