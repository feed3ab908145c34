"""Measures the report of a large run: seconds, peak memory and size of the page, by records of the ledger.

    python -m benchmarks.report 100000 1000000

Writes ledgers of made-up signals (a language, 16 numbers, deduplication) and reports each in a process of its own. Its
memory should not grow with the records beyond the rows that a report holds (250,000); a peer that reads the same ledger
into one pandas table stands beside it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PART = 131_072  # rows of a ledger's file
MEASURE = """
import resource, sys, time
started = time.monotonic()
{work}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(time.monotonic() - started, peak)
"""
OURS = "from pipelines.report.write_report import write_report; write_report(sys.argv[1])"
PEER = "import pyarrow.parquet as pq; pq.read_table(sys.argv[1] + '/result/ledger').to_pandas()"


def make(folder: Path, records: int) -> Path:
    """A run directory with so many records, as far as a report reads it."""
    rng = np.random.default_rng(1)
    (folder / "result" / "ledger").mkdir(parents=True)
    (folder / "result" / "documents").mkdir()
    dropped = 0
    for part in range(-(-records // PART)):
        n = min(PART, records - part * PART)
        ids = rng.integers(0, 256, (n, 16), dtype=np.uint8).tobytes()
        score = rng.random(n)
        out = score < 0.4
        dropped += int(out.sum())
        signals = {f"s{k}": rng.lognormal(size=n) for k in range(16)}
        table = {
            "doc_id": pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), n, [None, pa.py_buffer(ids)]),
            "url": pa.array([f"http://example.com/{part}/{i}" for i in range(n)]),
            "domain": pa.array(np.where(score > 0.9, "code", "web")),
            "source": pa.array(
                [{"file": "a", "kind": "warc", "offset": i, "length": 9, "row": None} for i in range(n)],
                pa.struct([("file", pa.string()), ("kind", pa.string())]
                          + [(c, pa.int64()) for c in ("offset", "length", "row")]),
            ),
            "read": pa.array([{"bytes": 5000}] * n, pa.struct([("bytes", pa.int64())])),
            "step": pa.array(np.where(out, "quality", None)),
            "rule": pa.array(np.where(out, "good", None)),
            "value": pa.array(np.where(out, '{"quality.s0": 0.1}', None)),
            "evidence": pa.nulls(n, pa.string()),
            "quality": pa.StructArray.from_arrays([pa.array(score), *map(pa.array, signals.values())],
                                                  ["score", *signals]),
            "language": pa.StructArray.from_arrays([pa.array(np.where(score > 0.5, "en", "de"))], ["code"]),
        }  # fmt: skip
        pq.write_table(pa.table(table), folder / "result" / "ledger" / f"{part:05d}.parquet", row_group_size=4096)
    steps = [
        {"step": "own", "name": "quality", "options": {}, "rules": {"good": "quality.score >= 0.4"}},
        {"step": "language", "name": "language", "options": {}, "rules": {}},
    ]
    (folder / "pipeline.yaml").write_text(json.dumps({"name": "large", "sources": [], "steps": steps}))
    counts = {"read": {"records": records}, "kept": records - dropped, "domains": {}, "text_bytes": 0}
    counts["steps"] = [{"step": "quality", "rule": "good", "dropped": dropped}]
    run = {"name": "large", "counts": counts, "inputs": [], "phases": [], "unread": [], "seed": 1}
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def measure(work: str, run: Path) -> tuple[float, float]:
    """Seconds and peak bytes of a fresh process."""
    code = MEASURE.format(work=work)
    done = subprocess.run([sys.executable, "-c", code, str(run)], check=True, capture_output=True, text=True)
    seconds, peak = done.stdout.split()[-2:]
    return float(seconds), float(peak)


def main() -> None:
    """Measures and prints a line for each number of records."""
    print(f"{'records':>10} {'report s':>9} {'peak MB':>8} {'page MB':>8} {'pandas s':>9} {'peak MB':>8}")
    for records in map(int, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as folder:
            run = make(Path(folder) / "run", records)
            ours, peer = measure(OURS, run), measure(PEER, run)
            page = os.path.getsize(run / "report.html") / 1e6
            said = f"{ours[0]:>9.1f} {ours[1] / 1e6:>8.0f} {page:>8.2f} {peer[0]:>9.1f} {peer[1] / 1e6:>8.0f}"
            print(f"{records:>10,} {said}", flush=True)


if __name__ == "__main__":
    main()
