"""Evaluation sets out of the training text: documents that contain a question, a prompt or an answer of a benchmark.

Each field of each evaluation item is a *unit*. A unit's n-grams (13 whole, normalised tokens, as GPT-3's and most
later decontaminations take) are looked up in each document, and the share of them that is found decides: a quotation
of one sentence is no leak, most of a question is. Fields count apart, so a question is found without its answer.

Short questions are compared by what they have: those of 8 to 12 tokens by their 8-grams, those of 5 to 7 as a whole,
and shorter ones ("What is a gene?") together with the item's other fields, in their order. Short answers ("4", "None of
the above") stand everywhere and are left out (19 of 4,020 crawled pages had one); `Index.skipped` says how many.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curation.record import with_column
from curation.step import MapStep, UserError
from curation.storage import filesystem, is_remote

# What published evaluation sets call the text that a model must not have seen.
ANSWERS = ("answer", "answers", "solution", "canonical_solution", "choices", "options", "completion", "target")
FIELDS = ("question", "prompt", "text", "problem", "query", "goal", "passage", "context", "sentence", "input", *ANSWERS)
_SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".jsonl.zst", ".parquet")
_MEDIUM = 8  # n-gram length of units too short for the full one
_SHORTEST = 5


@dataclass
class Unit:
    """One field of one evaluation item."""

    benchmark: str  # the file's name without suffixes
    item: int  # record number in the file, from 0
    field: str
    text: str


def read_units(path: str, fields: Sequence[str], required: bool) -> Iterator[Unit]:
    """The units of a JSONL (plain, gzip, zstd) or Parquet file, in its order; lists of strings are joined by lines.

    Raises UserError for a file that is neither or cannot be read, and for records with none of the `fields`; with
    `required`, already for a first record that lacks any of them.
    """
    name = os.path.basename(path)
    for suffix in (".gz", ".zst", ".jsonl", ".json", ".parquet"):
        name = name.removesuffix(suffix)
    item = -1
    for item, record in enumerate(_records(path)):
        present = [f for f in fields if record.get(f) is not None]
        missing = [f for f in fields if f not in record]
        if not present or (required and missing and item == 0):
            raise UserError(
                f"{path}, record {item}: no field {', '.join(missing if required else fields)}; "
                f"it has {', '.join(map(str, record))}; name the right ones in `fields`"
            )
        texts = [_plain(record[f]) for f in present]
        for f, text in zip(present, texts, strict=True):
            yield Unit(name, item, f, text)
        if len(present) > 1 and len(re.findall(r"\w+", texts[0])) < _SHORTEST:
            yield Unit(name, item, "+".join(present), "\n".join(texts))
    if item < 0:
        raise UserError(f"{path}: an evaluation file without records")


def _plain(value: Any) -> str:
    values = value if isinstance(value, list) else [value]
    return "\n".join(v if isinstance(v, str) else json.dumps(v) for v in values)


def _records(path: str) -> Iterator[dict[str, Any]]:
    fs, inner = filesystem(path)
    try:
        with fs.open(inner, "rb") as f:
            if path.endswith(".parquet"):
                import pyarrow.parquet as pq

                for batch in pq.ParquetFile(f).iter_batches():
                    yield from batch.to_pylist()
                return
            codec = {"gz": "gzip", "zst": "zstd"}.get(path.rpartition(".")[2])
            stream = pa.PythonFile(f, "r")
            lines = pa.CompressedInputStream(stream, codec) if codec else stream
            for number, line in enumerate(lines.read().splitlines(), 1):
                if line.strip():
                    record = json.loads(line)
                    if not isinstance(record, dict):
                        raise UserError(f"{path}, line {number}: a JSON object was expected, one a line")
                    yield record
    except (OSError, ValueError, pa.ArrowException) as e:
        raise UserError(f"{path}: cannot be read as an evaluation file: {e}") from e


@dataclass
class Index:
    """All n-grams of all units, ready to be looked up."""

    units: list[Unit]
    skipped: int  # units too short to tell
    table: Any  # uint64, open addressing
    slot_of: Any  # int32: slot -> n-gram
    first: Any  # int32: n-gram -> where its units begin
    unit_of: Any  # int32
    totals: Any  # int32: distinct n-grams of each unit
    sizes: Any  # int32: lengths of n-grams in use

    @property
    def bytes(self) -> int:
        """Memory of the arrays that a lookup touches."""
        return sum(a.nbytes for a in (self.table, self.slot_of, self.first, self.unit_of, self.totals))


def build_index(units: Sequence[Unit], ngram: int) -> Index:
    """Hashes the units' n-grams. Deterministic in the order of the units."""
    import numpy as np

    from curation.safety.decontaminate_kernels import fill, folding, ngrams, tokens

    kept: list[Unit] = []
    found: list[Any] = []
    sizes: set[int] = set()
    for unit in units:
        data = np.frombuffer(unit.text.encode("utf-8", "replace"), np.uint8)
        token = np.empty(len(data) + 1, np.uint64)
        gram = np.empty(len(data) + 1, np.uint64)
        count = tokens(data, 0, len(data), folding(), token)
        size = ngram if count >= ngram else min(_MEDIUM, ngram) if count >= _MEDIUM else count
        if count < min(_SHORTEST, ngram) or (size < ngram and unit.field in ANSWERS):
            continue
        found.append(np.unique(gram[: ngrams(token, count, size, gram)]))
        kept.append(unit)
        sizes.add(size)
    every = np.concatenate(found) if found else np.empty(0, np.uint64)
    totals = np.array([len(f) for f in found], np.int32)
    owners = np.repeat(np.arange(len(found), dtype=np.int32), totals)
    order = np.argsort(every, kind="stable")
    grams, starts = np.unique(every[order], return_index=True)
    slots = 16
    while slots < 2 * len(grams):
        slots *= 2
    table, slot_of = np.zeros(slots, np.uint64), np.zeros(slots, np.int32)
    fill(grams, table, slot_of)
    first = np.append(starts, len(every)).astype(np.int32)
    ordered = np.array(sorted(sizes), np.int32)
    return Index(kept, len(units) - len(kept), table, slot_of, first, owners[order], totals, ordered)


@dataclass
class Decontaminate(MapStep):
    """Finds documents that contain items of evaluation sets.

    against  files of evaluation items: JSONL (plain, .gz, .zst) or Parquet; globs, also of remote files
    ngram    tokens to an n-gram, 8 to 13 in the literature
    share    the default rule drops documents that contain this share of a unit's n-grams or more
    fields   which fields are text of the item; by default those of the usual names that a record has
    """

    against: list[str] = field(default_factory=list)
    ngram: int = 13
    share: float = 0.5
    fields: list[str] | None = None
    name: str = "decontaminate"

    _index: Index | None = field(init=False, repr=False, compare=False, default=None)

    @property
    def signals(self) -> pa.Schema:
        return pa.schema(
            [
                ("overlap", pa.int64()),  # n-grams of the document that stand in any unit
                ("share", pa.float64()),  # of the best unit's n-grams, how many the document has
                ("benchmark", pa.string()),  # the best unit: file, record number, field; null without overlap
                ("item", pa.int64()),
                ("field", pa.string()),
            ]
        )

    def rules(self) -> Mapping[str, str]:
        return {"contaminated": f"{self.name}.share < {self.share!r}"}

    def evidence(self) -> Sequence[str]:
        return ("benchmark", "item", "field", "share")

    def inputs(self) -> Sequence[str]:
        return tuple(self.against)

    def check(self) -> None:
        if not self.against:
            raise UserError(f"step {self.name}: `against` names no evaluation files")
        if not 1 <= self.ngram <= 100:
            raise UserError(f"step {self.name}: `ngram` is a number of tokens from 1 to 100, not {self.ngram}")
        if not 0 < self.share <= 1:
            raise UserError(f"step {self.name}: `share` lies above 0 and up to 1, not {self.share}")
        if self.fields == []:
            raise UserError(f"step {self.name}: `fields` is empty")
        for path in self._files():  # the first record of each tells whether the fields are there
            next(read_units(path, self.fields or FIELDS, self.fields is not None))

    def _files(self) -> list[str]:
        files: list[str] = []
        for pattern in self.against:
            if is_remote(pattern):
                fs, inner = filesystem(pattern)
                found = sorted(fs.unstrip_protocol(p) for p in fs.glob(inner))
            else:
                found = sorted(glob.glob(pattern, recursive=True))
            if not found:
                raise UserError(f"step {self.name}: no evaluation file matches {pattern}")
            for path in found:
                if not path.endswith(_SUFFIXES):
                    raise UserError(f"step {self.name}: {path} is none of {', '.join(_SUFFIXES)}")
            files += [path for path in found if path not in files]
        return files

    def open(self) -> None:
        """Reads the evaluation sets and hashes them: about 1 s for 10^4 items."""
        units = [
            unit for path in self._files() for unit in read_units(path, self.fields or FIELDS, self.fields is not None)
        ]
        self._index = build_index(units, self.ngram)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_index": None}

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Adds the signals. A null text has no overlap."""
        import numpy as np

        from curation.safety.decontaminate_kernels import folding, search

        if self._index is None:
            self.open()
        index = self._index
        assert index is not None
        texts = batch.column("text").fill_null("").cast(pa.large_string())
        found = np.zeros((len(texts), 3), np.int64)
        found[:, 1] = -1
        _, offsets, data = texts.buffers()
        if len(texts) and data is not None and index.units:
            where = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
            search(
                *(np.frombuffer(data, np.uint8), where, folding(), index.table, index.slot_of, index.first),
                *(index.unit_of, index.totals, index.sizes, int(np.diff(where).max()), found),
            )
        best = [index.units[u] if u >= 0 else None for u in found[:, 1].tolist()]
        shares = [h / index.totals[u] if u >= 0 else 0.0 for _, u, h in found.tolist()]
        arrays = [
            pa.array(found[:, 0].tolist(), pa.int64()),
            pa.array(shares, pa.float64()),
            pa.array([u.benchmark if u else None for u in best], pa.string()),
            pa.array([u.item if u else None for u in best], pa.int64()),
            pa.array([u.field if u else None for u in best], pa.string()),
        ]
        return with_column(batch, self.name, pa.StructArray.from_arrays(arrays, fields=list(self.signals)))
