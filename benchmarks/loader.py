"""Compares our data loader, with and without its thread, with five others: sequences of 2,048, batches of 8.

    python -m benchmarks.loader [--tokens 1000000000] [--folder DIR] [--python PATH] [--rounds 3] [--only NAME ...]

The text is the Python source of the installed packages, repeated, through a byte-level BPE trained on it. Every
contender reads the same tokens from its own format, in a process of its own, and gives inputs and targets as int64
tensors; ours gives the documents of every position besides. The rounds are interleaved and the median is shown. `cold`:
every page of the files was dropped from the page cache before the process began, and opening them counts, since some
read all of a file there.

    plain      a numpy memmap opened once, sequences at random places
    nanogpt    the same with a memmap opened for every batch, as nanoGPT's get_batch does against its memory leak
    litdata    StreamingDataset with TokensLoader, shuffled     streaming   mosaicml's StreamingDataset, shuffled
    datasets   a memory-mapped Dataset of rows, shuffled        gristmill   a run's shards by training.dataset
    internal   the same batches from TokenDataset.batch       inline      training.dataset without its thread

The goal for inline and gristmill is 0.9 of internal, and 50 ms for the first batch. This loop does nothing with a
batch, so a thread that reads ahead can only cost here.

Peers are in the extra `bench`. litdata and mosaicml-streaming want other versions of what Gristmill needs, so they go
into an environment of their own, and a peer that is not installed is skipped with a line:

    python -m venv peers && peers/bin/pip install torch litdata mosaicml-streaming datasets
    python -m benchmarks.loader --folder /tmp/loader --prepare --python peers/bin/python     writes 10 GB, once
    python -m benchmarks.loader --folder /tmp/loader --python peers/bin/python

The last lines: how long the first batch takes at step 1,000,000 of a manifest of 20,000 shards (10^12 tokens),
and one epoch from an S3 server on this machine through a cache of a tenth of the data.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import loader_formats
from benchmarks.loader_formats import BATCH, PEERS, T, open_reader, write_shards

ROOT = Path(__file__).resolve().parent.parent
CONTENDERS = ("plain", "nanogpt", *PEERS, "internal", "inline", "gristmill")
WARM, TIMED, COLD = 300, 3000, 1000  # batches
WRITERS = {
    "litdata": loader_formats.write_litdata,
    "streaming": loader_formats.write_streaming,
    "datasets": loader_formats.write_datasets,
}


def resident() -> tuple[float, float]:
    """Anonymous and file-backed resident memory, MB."""
    with open("/proc/self/status") as f:
        status = dict(line.split(":", 1) for line in f)
    return tuple(int(status[k].split()[0]) / 1024 for k in ("RssAnon", "RssFile"))  # type: ignore[return-value]


def measure(name: str, folder: Path, cold: bool) -> dict[str, float]:
    """Tokens a second, median and p99 of a batch's time, memory that reading added. In a process of its own."""
    import numpy as np
    import torch  # noqa: F401  imported before memory is counted

    if name in ("gristmill", "inline", "internal"):
        import training.data.open_dataset  # noqa: F401
    elif name in PEERS:
        __import__(name)
    before = resident()
    begin = time.perf_counter()
    next_batch = open_reader(name, folder)
    opened = time.perf_counter() - begin
    times = []
    for i in range(COLD if cold else WARM + TIMED):
        begin = time.perf_counter()
        next_batch()
        if cold or i >= WARM:
            times.append(time.perf_counter() - begin)
    after = resident()
    return {
        "tokens/s": len(times) * BATCH * T / (sum(times) + (opened if cold else 0)),
        "open": opened,
        "median": float(np.median(times)),
        "p99": float(np.quantile(times, 0.99)),
        "anonymous": after[0] - before[0],
        "mapped": after[1] - before[1],
    }


def drop_cache(folder: Path) -> None:
    """Drops every file below a folder from the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def first_batch(folder: Path) -> dict[str, float]:
    """Seconds until training.dataset has opened a manifest of 20,000 shards, and from there to step 1,000,000."""
    from training.data.open_dataset import dataset

    begin = time.perf_counter()
    loader = dataset(str(folder / "shards" / "many.json"), seq_len=T, global_batch=BATCH, max_epochs=1e9)
    opened = time.perf_counter()
    loader.skip_to(1_000_000)
    next(loader)
    done = time.perf_counter()
    return {"manifest": opened - begin, "batch": done - opened, "shards": 20_000}


def from_s3(folder: Path) -> dict[str, float]:
    """One epoch through a cache of a tenth of the data."""
    import fsspec

    from curation.shards import read_manifest
    from training.data.data_order import OrderLog
    from training.data.dataset import TokenDataset

    os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_DEFAULT_REGION="us-east-1")
    child = subprocess.Popen(
        [sys.executable, "-c", "from moto.server import main; main(['-p', '0'])"], stderr=subprocess.PIPE, text=True
    )
    try:
        assert child.stderr is not None
        url = ""
        for line in child.stderr:
            if "Running on http" in line:
                url = line.split("Running on ")[1].split()[0]
                break
        os.environ["AWS_ENDPOINT_URL"] = url
        s3 = fsspec.filesystem("s3")
        s3.mkdir("bench")
        local = read_manifest(str(folder / "shards"))
        s3.put_file(str(folder / "shards" / "manifest.json"), "bench/manifest.json")
        s3.put_file(local.path(local.tokenizer.file), "bench/tokenizer.json")
        for _, _, entry in local.entries():
            s3.put_file(local.path(entry), f"bench/{entry.path}")
        manifest = read_manifest("s3://bench")
        size = 2 * sum(e.tokens for _, _, e in manifest.entries())
        data = TokenDataset(manifest, 17, T, ["code"], cache_bytes=size // 10)
        log = OrderLog.new({"code": 1}, T, T, BATCH)
        steps = data.orders["code"].total_blocks // BATCH
        begin = time.perf_counter()
        waits = []
        for i in range(steps):
            start = time.perf_counter()
            data.batch(log, i * BATCH, (i + 1) * BATCH)
            waits.append(time.perf_counter() - start)
        seconds = time.perf_counter() - begin
        read = steps * BATCH * T * 2
        fetched = data.domains["code"].bytes_fetched
        return {
            "bytes": size,
            "amplification": fetched / read,
            "cache": data.cache.budget / size,
            "peak": data.cache.peak / size,
            "tokens/s": read / 2 / seconds,
            "first": waits[0],
        }
    finally:
        child.kill()
        child.wait()


def run_part(python: str, *arguments: str) -> dict[str, float]:
    """Runs a part of this script in another process and reads its answer."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [python, "-m", "benchmarks.loader", *arguments], capture_output=True, text=True, env=environment, timeout=600
    )
    if done.returncode:
        return {"failed": 1.0, "why": done.stderr.strip().splitlines()[-1]}  # type: ignore[dict-item]
    answer: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1_000_000_000)
    parser.add_argument("--folder", help="keeps the prepared files there [default: a temporary folder]")
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has the peers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[*CONTENDERS, "first", "s3"])
    parser.add_argument("--prepare", action="store_true", help="prepare --folder and stop")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        what, name = options.part
        folder = Path(options.folder)
        if what == "prepare":
            WRITERS[name](folder)
            answer: dict[str, float] = {}
        elif what == "first":
            answer = first_batch(folder)
        elif what == "s3":
            answer = from_s3(folder)
        else:
            answer = measure(name, folder, what == "cold")
        print(json.dumps(answer))
        return
    folder = Path(options.folder or tempfile.mkdtemp(prefix="loader-"))
    try:
        run(options, folder)
    finally:
        if not options.folder:
            shutil.rmtree(folder)


def run(options: argparse.Namespace, folder: Path) -> None:
    import numpy as np
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "shards" / "many.json").exists():
        write_shards(folder, options.tokens)
    names = [n for n in CONTENDERS if n in options.only]
    written = {"litdata": "litdata", "streaming": "streaming", "datasets": "rows.arrow"}
    for name in list(names):
        if name in PEERS and not (folder / written[name]).exists():
            made = run_part(options.python, "--folder", str(folder), "--part", "prepare", name)
            if "failed" in made:
                print(f"{name} is skipped: {made['why']}")
                names.remove(name)
    if options.prepare:
        return
    pythons = {n: options.python if n in PEERS else sys.executable for n in names}
    size = (folder / "tokens.bin").stat().st_size // 2
    print(
        f"{size:,} tokens, sequence {T}, batch {BATCH}, one process; Python {sys.version.split()[0]}, "
        f"numpy {np.__version__}, torch {torch.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    warm: dict[str, list[dict[str, float]]] = {n: [] for n in names}
    cold: dict[str, list[dict[str, float]]] = {n: [] for n in names}
    for _ in range(options.rounds):
        for name in names:
            warm[name].append(run_part(pythons[name], "--folder", str(folder), "--part", "warm", name))
    for name in names:
        drop_cache(folder)
        cold[name].append(run_part(pythons[name], "--folder", str(folder), "--part", "cold", name))
    base = np.median([r["tokens/s"] for r in warm["plain"]]) if "plain" in names else float("nan")
    columns = (("M tokens/s", 11), ("/ plain", 9), ("open s", 8), ("median ms", 11), ("p99 ms", 9), ("anon MB", 9))
    head = " " * 12 + "".join(f"{name:>{width}}" for name, width in (*columns, ("mapped MB", 11)))
    for title, results in (("warm", warm), ("cold", cold)):
        print(f"\n{title}\n{head}")
        for name in names:
            good = [r for r in results[name] if "failed" not in r]
            if not good:
                print(f"{name:<12} failed: {results[name][0]['why']}")
                continue
            r = {k: float(np.median([g[k] for g in good])) for k in good[0]}
            print(
                f"{name:<12}{r['tokens/s'] / 1e6:>11.1f}{r['tokens/s'] / base:>9.2f}{r['open']:>8.2f}"
                f"{r['median'] * 1e3:>11.3f}"
                f"{r['p99'] * 1e3:>9.3f}{r['anonymous']:>9.0f}{r['mapped']:>11.0f}"
            )
    if "first" in options.only:
        found = [run_part(sys.executable, "--folder", str(folder), "--part", "first", "x") for _ in range(5)]
        line = ", ".join(f"{r['manifest'] * 1e3:.0f} + {r['batch'] * 1e3:.0f} ms" for r in found)
        print(f"\nfirst batch at step 1,000,000 of 20,000 shards (opened + batch), five processes: {line}")
    if "s3" in options.only:
        r = run_part(sys.executable, "--folder", str(folder), "--part", "s3", "x")
        print(
            f"\none epoch from S3: {r}"
            if "failed" in r
            else (
                f"\none epoch from S3 (moto on this machine), {r['bytes'] / 1e9:.2f} GB of tokens through a cache of "
                f"{r['cache']:.1%}: read amplification {r['amplification']:.3f}, peak cache use {r['peak']:.1%}, "
                f"{r['tokens/s'] / 1e6:.1f} M tokens/s, first batch {r['first']:.2f} s"
            )
        )


if __name__ == "__main__":
    main()
