"""Gathers everything that the report of a curation run shows, from the run's directory.

Reads the ledger twice. The first pass counts over the whole run what must be exact: documents by step, rule and domain,
languages, personal data, benchmark leaks; it also picks sample documents. The second keeps the first `ROWS` rows with
all their signals for histograms and what-if counts: the ledger is sorted by document id, which is a hash, so they are a
uniform sample, and the report says of how many rows. Memory is bounded by ROWS, not by the size of the run.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.core.errors import UserError
from curation.engine.results.publish import newest_tree
from curation.storage import Storage
from curation.words import estimate_words
from pipelines.lookup.document_samples import TEXT_LENGTH, Sample, load_texts
from pipelines.lookup.duplicate_pairs import Cluster, largest_clusters
from pipelines.lookup.ledger import read_batches, read_ledger
from pipelines.lookup.token_counts import DocumentSizes, measure_documents
from pipelines.lookup.training_run import Training, trainings_of_run

ROWS = 250_000  # of the ledger, kept with all signals: a share of 1 % is measured to 2 % of itself
SAMPLES = 10  # documents shown for each rule, and kept ones for each domain
_COUNTED = 1000  # characters of each kept document whose words are counted
_SAMPLE = ("doc_id", "url", "domain", "source", "value", "evidence")


@dataclass
class Counts:
    """Counts over the whole ledger."""

    documents: Counter[tuple[str | None, str | None, str]] = field(default_factory=Counter)  # (step, rule, domain)
    languages: dict[str, list[int]] = field(default_factory=dict)  # code -> kept, dropped
    pii: dict[str, list[int]] = field(default_factory=dict)  # signal -> documents with it, values in total
    leaks: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    # (benchmark, field) -> documents that overlap, documents dropped, distinct items, largest share of an item

    @property
    def domains(self) -> list[str]:
        """The domains of all documents, the largest first."""
        total: Counter[str] = Counter()
        for (_, _, domain), n in self.documents.items():
            total[domain] += n
        return [d for d, _ in sorted(total.items(), key=lambda t: (-t[1], t[0]))]

    def of(self, step: str | None = None, domain: str | None = None) -> int:
        """Number of documents that a step dropped (None: kept documents), in a domain (None: all)."""
        return sum(n for (s, _, d), n in self.documents.items() if s == step and domain in (None, d))


@dataclass
class ReportData:
    """Everything that the report of a curation run shows."""

    name: str
    run_dir: str
    run: dict[str, Any]  # run.json
    steps: list[dict[str, Any]]  # of pipeline.yaml: step, name, options, rules
    counts: Counts
    rows: pa.Table  # the first rows of the ledger
    sizes: DocumentSizes  # of `rows`
    kept: dict[str, list[Sample]]  # domain -> documents
    dropped: dict[tuple[str, str], list[Sample]]
    clusters: list[Cluster]  # the largest of each deduplication step
    words: dict[str, float]  # domain -> words per byte of kept text
    manifest: dict[str, Any] | None  # of the shards
    trainings: list[Training]

    @property
    def rules(self) -> dict[str, dict[str, str]]:
        return {s["name"]: dict(s["rules"]) for s in self.steps}

    @property
    def records(self) -> int:
        return int(self.run.get("counts", {}).get("read", {}).get("records", 0))

    @property
    def is_kept(self) -> npt.NDArray[np.bool_]:
        """Whether the document was kept, for each of `rows`."""
        return np.asarray(self.rows.column("step").is_null())

    @property
    def scale(self) -> float:
        """Records of the run per row of `rows`."""
        return self.records / self.rows.num_rows if self.rows.num_rows else 1.0

    def steps_of_kind(self, kind: str) -> list[str]:
        """The names of the steps of a kind, such as `language`."""
        return [s["name"] for s in self.steps if s["step"] == kind]

    def signal(self, dotted: str) -> npt.NDArray[np.float64] | None:
        """A numeric signal of `rows`, NaN where it is missing; None if it is not numeric or not stored."""
        step, _, leaf = dotted.partition(".")
        if step not in self.rows.schema.names or not pa.types.is_struct(self.rows.schema.field(step).type):
            return None
        kind = self.rows.schema.field(step).type
        if kind.get_field_index(leaf) < 0 or not _is_number(kind.field(leaf).type):
            return None
        column = pc.struct_field(self.rows.column(step), leaf).cast(pa.float64())
        return np.asarray(column.fill_null(float("nan")), np.float64)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def gather(run_dir: str) -> ReportData:
    """Reads a finished run. Raises UserError for a directory without one."""
    from curation.config.stored_pipeline import read_stored_pipeline
    from curation.engine.runtime.run_record import read_run

    store = Storage(run_dir)
    run = read_run(store)
    tree = newest_tree(store)
    if tree is None:
        raise UserError(f"{run_dir} has no ledger yet\n  let gristmill curate finish first")
    steps = read_stored_pipeline(store)["steps"] if store.exists("pipeline.yaml") else []
    steps = [s for s in steps if s["name"] not in run.get("undecided", [])]
    counts, dropped = _count(store, run, steps)
    load_texts(store, run, [s for samples in dropped.values() for s in samples], TEXT_LENGTH)
    rows = _first_rows(store)
    kept, words = _kept(store, f"{tree}/documents")
    has_shards = store.exists(f"{tree}/shards/manifest.json")
    return ReportData(
        name=run["name"],
        run_dir=run_dir,
        run=run,
        steps=steps,
        counts=counts,
        rows=rows,
        sizes=measure_documents(
            store, run, rows.select(["doc_id", "domain", "read"]), np.asarray(rows.column("step").is_null())
        ),
        kept=kept,
        dropped=dropped,
        clusters=largest_clusters(store, run),
        words=words,
        manifest=store.read_plain_json(f"{tree}/shards/manifest.json") if has_shards else None,
        trainings=trainings_of_run(run_dir),
    )


def _first_rows(store: Storage) -> pa.Table:
    taken: list[pa.RecordBatch] = []
    have = 0
    for batch in read_ledger(store):
        taken.append(batch.slice(0, ROWS - have).drop_columns(["evidence"]))
        have += taken[-1].num_rows
        if have >= ROWS:
            break
    if not taken:
        raise UserError(f"{store.root}: the ledger is empty")
    return pa.Table.from_batches(taken)


# -- the whole ledger ------------------------------------------------------------------------------------------------


def _count(
    store: Storage, run: Mapping[str, Any], steps: list[dict[str, Any]]
) -> tuple[Counts, dict[tuple[str, str], list[Sample]]]:  # fmt: skip
    of_kind = {kind: [s["name"] for s in steps if s["step"] == kind] for kind in ("language", "pii", "decontaminate")}
    wanted = {(r["step"], r["rule"]) for r in run.get("counts", {}).get("steps", [])}
    counts, samples = Counts(), dict[tuple[str, str], list[Sample]]()
    signals = [name for names in of_kind.values() for name in names]
    items: dict[tuple[str, str], set[Any]] = {}
    for batch in read_ledger(store, [*_SAMPLE, "step", "rule", *signals]):
        for row in _groups(batch, ["step", "rule", "domain"]):
            counts.documents[row["step"], row["rule"], row["domain"] or ""] += row["n"]
        stays = batch.column("step").is_null()
        for name in of_kind["language"][:1]:
            _count_languages(pc.struct_field(batch.column(name), "code"), stays, counts.languages)
        for name in of_kind["pii"]:
            _count_pii(batch.column(name), counts.pii)
        for name in of_kind["decontaminate"]:
            _count_leaks(batch.column(name), batch.column("step"), name, counts.leaks, items)
        _take_samples(batch, {k for k in wanted if len(samples.get(k, ())) < SAMPLES}, samples)
    for key, seen in items.items():
        counts.leaks[key][2] = len(seen)
    return counts, samples


def _groups(batch: pa.RecordBatch, keys: list[str]) -> list[dict[str, Any]]:
    table = pa.Table.from_batches([batch.select(keys)]).group_by(keys, use_threads=False)
    rows = table.aggregate([([], "count_all")]).to_pylist()
    return [{**row, "n": row["count_all"]} for row in rows]


def _count_languages(codes: pa.Array, stays: pa.Array, into: dict[str, list[int]]) -> None:
    batch = pa.RecordBatch.from_arrays([codes, stays], names=["code", "stays"])
    for row in _groups(batch, ["code", "stays"]):
        if row["code"] is not None:
            into.setdefault(row["code"], [0, 0])[0 if row["stays"] else 1] += row["n"]


def _count_pii(column: pa.StructArray, into: dict[str, list[int]]) -> None:
    for child, array in zip(column.type, column.flatten(), strict=True):
        if _is_number(child.type):
            have = into.setdefault(child.name, [0, 0])
            have[0] += pc.sum(pc.greater(array, 0)).as_py() or 0
            have[1] += pc.sum(array).as_py() or 0


def _count_leaks(
    column: pa.StructArray, ended: pa.Array, name: str, into: dict[tuple[str, str], list[float]],
    items: dict[tuple[str, str], set[Any]],
) -> None:  # fmt: skip
    found = pc.greater(pc.fill_null(pc.struct_field(column, "overlap"), 0), 0)
    steps = ended.filter(found).to_pylist()
    for row, step in zip(column.filter(found).to_pylist(), steps, strict=True):
        key = (str(row["benchmark"]), str(row["field"]))
        have = into.setdefault(key, [0, 0, 0, 0.0])
        have[0] += 1
        have[1] += step == name
        have[3] = max(have[3], float(row["share"] or 0))
        items.setdefault(key, set()).add(row["item"])


def _take_samples(
    batch: pa.RecordBatch, wanted: set[tuple[str, str]], samples: dict[tuple[str, str], list[Sample]]
) -> None:  # fmt: skip
    for key in sorted(wanted):
        which = pc.and_(pc.equal(batch.column("step"), key[0]), pc.equal(batch.column("rule"), key[1]))
        rows = np.flatnonzero(np.asarray(pc.fill_null(which, False)))[: SAMPLES - len(samples.get(key, ()))]
        for row in batch.select(list(_SAMPLE)).take(pa.array(rows)).to_pylist():
            sample = Sample(row["doc_id"].hex(), row["url"], row["domain"], None, row["value"], row["evidence"])
            sample.source = row["source"]
            samples.setdefault(key, []).append(sample)


def _kept(store: Storage, documents: str) -> tuple[dict[str, list[Sample]], dict[str, float]]:
    """Kept documents to show, by domain, and words per byte of their text (its beginning), both from about the first
    20,000."""
    kept: dict[str, list[Sample]] = {}
    words: dict[str, float] = defaultdict(float)
    size: Counter[str] = Counter()
    seen = 0
    for batch in read_batches(store, documents, ["doc_id", "url", "domain", "source", "text"], 1024):
        text = batch.column("text")
        beginnings = pc.utf8_slice_codeunits(text, 0, _COUNTED).to_pylist()
        for i, (domain, beginning) in enumerate(zip(batch.column("domain").to_pylist(), beginnings, strict=True)):
            words[domain] += estimate_words(beginning or "")
            size[domain] += len((beginning or "").encode())
            if len(kept.get(domain, ())) < SAMPLES:
                row = batch.slice(i, 1).to_pylist()[0]
                shown = Sample(row["doc_id"].hex(), row["url"], domain, (row["text"] or "")[:TEXT_LENGTH])
                shown.source = row["source"]
                kept.setdefault(domain, []).append(shown)
        seen += batch.num_rows
        if seen > 20_000:
            break
    return kept, {d: words[d] / size[d] for d in sorted(words) if size[d]}
