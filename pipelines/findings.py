"""What a report says about a run, gathered: counts, signals of kept and dropped documents, samples, trainings.

The ledger's files are parts of a hash of the document id, so the first rows of them are a fair sample: of a ledger of
millions the signals are counted over the first `ROWS`, and the report says so. Nothing here holds more than a batch.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.step import UserError
from curation.storage import Storage

ROWS = 1_000_000  # rows of the ledger that the histograms count
BINS = 32
SAMPLES = 6  # documents shown for a rule, and of each domain that stays
LONGEST = 256  # characters of a word; beyond, a signal is text (what line_dedup cut) and has no distribution
SHOWN = 1200  # characters of a document's text
_NOT_SIGNALS = ("source", "read")


@dataclass
class Histogram:
    """A number's distribution. `edges` has a value more than the counts; the outer bins hold what lies beyond."""

    edges: npt.NDArray[np.float64]
    log: bool
    kept: npt.NDArray[np.int64]
    dropped: npt.NDArray[np.int64]
    nulls: int = 0


@dataclass
class Values:
    """How often each value of a word or truth value occurs."""

    kept: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)


@dataclass
class Sample:
    """A document to look at."""

    doc_id: str
    url: str | None
    domain: str | None
    text: str | None
    value: str | None = None
    evidence: str | None = None
    source: dict[str, Any] | None = None


@dataclass
class Training:
    """What a training on this run wrote down."""

    name: str
    train: list[tuple[int, float]]
    validation: dict[str, list[tuple[int, float]]]  # domain -> (iteration, loss)
    last: dict[str, dict[str, Any]]  # domain -> figures of the last evaluation
    tokens: int
    seconds: float
    said: str | None = None  # a sample of what the model says
    events: list[dict[str, Any]] = field(default_factory=list)  # what the guard did, as metrics.jsonl has it


@dataclass
class Findings:
    """Everything a report shows."""

    name: str
    run: dict[str, Any]  # run.json
    rules: dict[str, dict[str, str]]  # step -> rule -> SQL
    signals: dict[str, dict[str, Histogram | Values]]
    counted: int  # rows of the ledger that the signals were counted over
    kept: dict[str, list[Sample]]  # domain -> documents
    dropped: dict[tuple[str, str], list[Sample]]
    clusters: list[Any]  # pairs.Cluster: the largest, by step of deduplication
    manifest: dict[str, Any] | None  # of the shards
    trainings: list[Training]


def gather(run_dir: str) -> Findings:
    """Reads a finished run. Raises UserError for a directory that holds none."""
    store = Storage(run_dir)
    if not store.exists("run.json"):
        raise UserError(f"{run_dir} is not a run directory: it has no run.json\n  give the directory that curate wrote")
    run = store.read_json("run.json")
    if not store.exists("result/ledger"):
        raise UserError(f"{run_dir} has no ledger yet\n  let `gristmill curate` finish first")
    from pipelines.pairs import largest

    signals, counted, dropped = _ledger(store)
    with_texts(store, run, dropped, SHOWN)
    manifest = store.read_json("result/shards/manifest.json") if store.exists("result/shards/manifest.json") else None
    return Findings(
        name=run["name"],
        run=run,
        rules=_rules(store),
        signals=signals,
        counted=counted,
        kept=_kept(store),
        dropped=dropped,
        clusters=largest(store, run),
        manifest=manifest,
        trainings=trainings(run_dir),
    )


def _rules(store: Storage) -> dict[str, dict[str, str]]:
    import yaml

    if not store.exists("pipeline.yaml"):
        return {}
    return {s["name"]: s["rules"] for s in yaml.safe_load(store.read_bytes("pipeline.yaml"))["steps"]}


def batches(store: Storage, directory: str, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    for name in store.names(directory):
        if name.endswith(".parquet"):
            with store.open(f"{directory}/{name}") as f:
                yield from pq.ParquetFile(f).iter_batches(batch_size=8192, columns=columns, use_threads=False)


def _ledger(
    store: Storage,
) -> tuple[dict[str, dict[str, Histogram | Values]], int, dict[tuple[str, str], list[Sample]]]:
    signals: dict[str, dict[str, Histogram | Values]] = {}
    samples: dict[tuple[str, str], list[Sample]] = {}
    counted = 0
    for batch in batches(store, "result/ledger"):
        stays = np.asarray(batch.column("step").is_null())
        _take_samples(batch, samples)
        if counted < ROWS:
            counted += batch.num_rows
            for column in batch.schema:
                if pa.types.is_struct(column.type) and column.name not in _NOT_SIGNALS:
                    _count(batch.column(column.name), signals.setdefault(column.name, {}), stays)
        elif all(len(s) >= SAMPLES for s in samples.values()):
            break
    return signals, counted, samples


def _count(column: pa.StructArray, into: dict[str, Histogram | Values], stays: npt.NDArray[np.bool_]) -> None:
    for child, array in zip(column.type, column.flatten(), strict=True):
        if pa.types.is_floating(child.type) or pa.types.is_integer(child.type):
            numbers = np.asarray(array.cast(pa.float64()).fill_null(float("nan")))
            finite = np.isfinite(numbers)
            found = into.get(child.name)
            if found is None:
                if not finite.any():
                    continue
                found = into[child.name] = _empty(numbers[finite])
            assert isinstance(found, Histogram)
            low, high = found.edges[0], found.edges[-1]
            clipped = np.clip(numbers, low, np.nextafter(high, low))
            found.kept += np.histogram(clipped[finite & stays], found.edges)[0]
            found.dropped += np.histogram(clipped[finite & ~stays], found.edges)[0]
            found.nulls += int((~finite & np.asarray(column.is_valid())).sum())
        elif pa.types.is_string(child.type) or pa.types.is_boolean(child.type):
            if pa.types.is_string(child.type) and (pc.max(pc.utf8_length(array)).as_py() or 0) > LONGEST:
                continue
            values = into.setdefault(child.name, Values())
            assert isinstance(values, Values)
            for counter, chosen in ((values.kept, stays), (values.dropped, ~stays)):
                counts = pc.value_counts(array.filter(pa.array(chosen)).drop_null())
                for item in counts.to_pylist():
                    if len(counter) < 5000 or item["values"] in counter:  # ids of duplicates are all different
                        counter[str(item["values"])] += item["counts"]


def _empty(numbers: npt.NDArray[np.float64]) -> Histogram:
    """Bins from a first batch: 0.5 % to 99.5 %, by logarithm where a long tail would hide everything else."""
    low, middle, high = np.quantile(numbers, [0.005, 0.5, 0.995])
    whole = bool((numbers == np.round(numbers)).all())
    log = bool(low > 0 and high > 50 * middle)
    if low == high:
        low, high = low - 0.5, high + 0.5
    if log:
        edges = np.geomspace(low, high, BINS + 1)
    elif whole and high - low < BINS:
        edges = np.arange(np.floor(low) - 0.5, np.ceil(high) + 1)
    else:
        edges = np.linspace(low, high, BINS + 1)
    zeros = np.zeros(len(edges) - 1, dtype=np.int64)
    return Histogram(edges, log, zeros.copy(), zeros.copy())


def _take_samples(batch: pa.RecordBatch, samples: dict[tuple[str, str], list[Sample]]) -> None:
    outcome = batch.select(["step", "rule"]).to_pydict()
    for i, key in enumerate(zip(outcome["step"], outcome["rule"], strict=True)):
        if key[0] is None or len(samples.get(key, ())) >= SAMPLES:
            continue
        row = batch.select(["doc_id", "url", "domain", "source", "value", "evidence"]).slice(i, 1).to_pylist()[0]
        samples.setdefault(key, []).append(
            Sample(row["doc_id"].hex(), row["url"], row["domain"], None, row["value"], row["evidence"], row["source"])
        )


def _kept(store: Storage) -> dict[str, list[Sample]]:
    kept: dict[str, list[Sample]] = {}
    seen = 0
    for batch in batches(store, "result/documents", ["doc_id", "url", "domain", "text"]):
        for i, domain in enumerate(batch.column("domain").to_pylist()):
            if len(kept.get(domain, ())) < SAMPLES:
                row = batch.slice(i, 1).to_pylist()[0]
                kept.setdefault(domain, []).append(
                    Sample(row["doc_id"].hex(), row["url"], domain, (row["text"] or "")[:SHOWN])
                )
        seen += batch.num_rows
        if seen > 100_000:
            break
    return kept


def with_texts(store: Storage, run: dict[str, Any], dropped: dict[tuple[str, str], list[Sample]], most: int) -> None:
    """The first `most` characters of the text of documents: from the cache where it is (scrubbed), else read again
    from the source."""
    from pipelines.originals import Originals

    _from_cache(store, run, dropped, most)
    missing = [s for samples in dropped.values() for s in samples if s.text is None]
    if missing and store.exists("pipeline.yaml"):
        texts = Originals(store, run).texts([(s.domain, s.source) for s in missing], most)
        for sample, text in zip(missing, texts, strict=True):
            sample.text = text


def _from_cache(
    store: Storage, run: dict[str, Any], dropped: dict[tuple[str, str], list[Sample]], most: int
) -> None:  # fmt: skip
    from curation.engine.documents import State, TaskDocuments

    wanted: dict[bytes, list[Sample]] = {}
    for sample in (s for samples in dropped.values() for s in samples):
        wanted.setdefault(bytes.fromhex(sample.doc_id), []).append(sample)
    names = [p["phase"] for p in run.get("phases", [])]
    for name in store.names("cache/phases"):
        merged = store.read_json(f"cache/phases/{name}")
        if not names or merged["name"] != names[-1]:
            continue
        for task in merged["tasks"].values():
            documents = TaskDocuments(store, task["index"], State.of(task["state"]), {})
            for batch in documents.batches(["doc_id"], everything=True):
                hits = [i for i, d in enumerate(batch.column("doc_id").to_pylist()) if d in wanted]
                if not hits:
                    continue
                texts = documents.take(batch.column("address").take(pa.array(hits)), ["doc_id", "text"])
                for doc_id, text in zip(*(texts.column(c).to_pylist() for c in ("doc_id", "text")), strict=True):
                    for sample in wanted.pop(doc_id):
                        sample.text = None if text is None else text[:most]
            if not wanted:
                return


def trainings(run_dir: str) -> list[Training]:
    """Trainings below RUN/train, by name."""
    root = os.path.join(run_dir, "train")
    if not os.path.isdir(root):
        return []
    found = []
    for name in sorted(os.listdir(root)):
        path = os.path.join(root, name, "metrics.jsonl")
        if os.path.isfile(path):
            found.append(_training(name, os.path.join(root, name)))
    return found


def _training(name: str, folder: str) -> Training:
    made = Training(name, [], {}, {}, 0, 0.0)
    for entry in _lines(os.path.join(folder, "metrics.jsonl")):
        if entry["kind"] == "train":
            if entry["loss"] is not None:
                made.train.append((entry["iteration"], entry["loss"]))
            made.tokens = entry["tokens"]
        elif entry["kind"] == "event":
            made.events.append(entry)
        elif entry["kind"] == "validation":
            made.last = entry["domains"]
            for domain, score in entry["domains"].items():
                made.validation.setdefault(domain, []).append((entry["iteration"], score["loss"]))
    made.seconds = sum(entry["seconds"] for entry in _lines(os.path.join(folder, "speed.jsonl")))
    sample = os.path.join(folder, "sample.txt")
    if os.path.isfile(sample):
        with open(sample, encoding="utf-8") as f:
            made.said = f.read()
    return made


def _lines(path: str) -> Iterator[dict[str, Any]]:
    if os.path.isfile(path):
        with open(path, encoding="utf-8") as f:
            for line in f:
                if line.endswith("\n"):
                    yield json.loads(line)
