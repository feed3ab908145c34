"""The step `decontaminate`: finds documents that contain questions, prompts or answers of evaluation sets.

Each field of each evaluation item is a *unit*. A unit's n-grams (4 words) are looked up in each document. What decides
is the share of the unit's words that the n-grams of one passage cover: quoting one phrase is not a leak, most of a
question is. A changed word costs only the n-grams that hold it, and leaves the words beside it covered by others, so a
question with a word in twenty replaced is still found, which 13-grams (as in GPT-3 and much later work) miss; the
passage, an unbroken series of n-grams close to one another, keeps common phrases from all over a long page from adding
up. Fields are separate units, so a question is found without its answer.

In scripts without spaces, where each letter is a word to curation/words.py, n-grams are as many letters long as four
words are. A passage must cover six words or the whole of a shorter unit; one of four or five words counts if they are
the rare ones of the unit ("what is the difference between" are not), which most of a short question's first part is.
Units of three words ("What is erythema?"; up to four with longer n-grams) count where they are a whole line, and those
under five words are also joined with the item's other fields. Answers under 13 words ("4", "None of the above") and
other units of one or two words occur in ordinary text and are skipped. The index counts them, and the run says how many
items have no field that is looked for.

Phrases that are common in ordinary text ("all rights reserved. no part of ...") can be excluded too: an n-gram that
more than `max_common` documents of `common` contain does not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pyarrow as pa

from curation.core.errors import UserError
from curation.document import string_buffers, with_column
from curation.safety.decontamination import benchmark_items, ngram_index
from curation.safety.decontamination.benchmark_items import FIELDS
from curation.safety.decontamination.ngram_index import Index
from curation.step import MapStep
from curation.words import character_table


@dataclass
class Decontaminate(MapStep):
    """Finds documents that contain items of evaluation sets; drops them, cuts the items out, or only adds signals.

    against     files of evaluation items: JSONL (plain, .gz, .zst) or Parquet; globs, also of remote files
    ngram       words per n-gram
    share       documents of which a passage covers this share of a unit's words or more are contaminated
    action      drop the document (a rule), cut the item out of its text, or tag: signals only
    fields      the text fields of an item; default: all of the usual names that a record has
    common      files of ordinary text (JSONL or Parquet, such as documents of an earlier run): n-grams that are common
                in it do not count
    common_text  the field of those files that holds the text
    max_common  an n-gram in more documents of `common` than this does not count
    """

    against: list[str] = field(default_factory=list)
    ngram: int = 4
    share: float = 0.6
    action: Literal["drop", "cut", "tag"] = "drop"
    fields: list[str] | None = None
    common: list[str] = field(default_factory=list)
    common_text: str = "text"
    max_common: int = 10
    name: str = "decontaminate"

    version: ClassVar[str] = "3"  # the shortest questions, as whole lines

    _index: Index | None = field(init=False, repr=False, compare=False, default=None)

    @property
    def rewrites(self) -> bool:  # type: ignore[override]
        return self.action == "cut"

    @property
    def signals(self) -> pa.Schema:
        return pa.schema(
            [
                ("overlap", pa.int64()),  # n-grams of the document that any unit has
                ("share", pa.float64()),  # share of the best unit's words that one passage covers
                ("benchmark", pa.string()),  # the best unit: file, record number, field; null without overlap
                ("item", pa.int64()),
                ("field", pa.string()),
                ("cut", pa.int64()),  # characters taken out of the text
            ]
        )

    def rules(self) -> Mapping[str, str]:
        if self.action == "drop":
            return {"contaminated": f"{self.name}.share < {self.share!r}"}
        return {"nothing_left": "trim(text) <> ''"} if self.action == "cut" else {}

    def evidence(self) -> Sequence[str]:
        return ("benchmark", "item", "field", "share", "overlap")

    def packages(self) -> Sequence[str]:
        return ("numba",)

    def inputs(self) -> Sequence[str]:
        return (*self.against, *self.common)

    def check(self) -> None:
        if not self.against:
            raise UserError(f"step {self.name}: `against` names no evaluation files")
        if not 1 <= self.ngram <= 100:
            raise UserError(f"step {self.name}: `ngram` is {self.ngram}; expected 1 to 100 words")
        if not 0 < self.share <= 1:
            raise UserError(f"step {self.name}: `share` is {self.share}; expected a number above 0 and up to 1")
        if self.fields == []:
            raise UserError(f"step {self.name}: `fields` is empty")
        if self.max_common < 0:
            raise UserError(f"step {self.name}: `max_common` is {self.max_common}; expected 0 documents or more")
        for path in self._files():  # the first record of each shows whether the fields exist
            next(benchmark_items.read_units(path, self.fields or FIELDS, self.fields is not None))
        for path in self._listed(self.common, "file of ordinary text"):
            first = next(benchmark_items.records(path), None)
            if first is None or not isinstance(first.get(self.common_text), str):
                has = ", ".join(map(str, first)) if first else "no records"
                raise UserError(
                    f"step {self.name}: {path}: the first record has no text in the field {self.common_text!r}; it has "
                    f"{has}; name the text field in `common_text`"
                )

    def _files(self) -> list[str]:
        return self._listed(self.against, "evaluation file")

    def _listed(self, patterns: Sequence[str], what: str) -> list[str]:
        try:
            return benchmark_items.files(patterns, what)
        except UserError as e:
            raise UserError(f"step {self.name}: {e}") from None

    def unusable_inputs(self) -> Mapping[str, tuple[int, int]]:
        return {"evaluation items too short to look for": self._load().items}

    def open(self) -> None:
        """Maps the index of the evaluation sets, or builds it (about 1 s for 10^4 items)."""
        self._index = self._load()

    def _load(self) -> Index:
        listed = [self._files(), self._listed(self.common, "file of ordinary text")]
        key = ngram_index.key_of(listed, [self.ngram, self.fields, self.common_text, self.max_common])
        return ngram_index.once_a_machine(key, self._build)

    def _build(self) -> Index:
        wanted = self.fields or FIELDS
        units = [
            unit for path in self._files() for unit in benchmark_items.read_units(path, wanted, self.fields is not None)
        ]
        return ngram_index.build_index(units, self.ngram, self._ordinary if self.common else None)

    def _ordinary(self, index: Index) -> Any:
        """bool[n-grams]: whether more than `max_common` documents of `common` contain the n-gram."""
        import numpy as np

        from curation.safety.decontamination.ngram_kernels import count_documents

        counts = np.zeros(len(index.first) - 1, np.int64)
        for texts in self._ordinary_texts():
            data, where = string_buffers(texts)
            if len(data):
                count_documents(
                    *(data, where, character_table(), index.table, index.slot_of, index.sizes),
                    *(int(np.diff(where).max()), counts),
                )
        return counts > self.max_common

    def _ordinary_texts(self) -> Iterator[pa.Array]:
        some: list[str] = []
        for path in self._listed(self.common, "file of ordinary text"):
            for record in benchmark_items.records(path):
                text = record.get(self.common_text)
                some.append(text if isinstance(text, str) else "")
                if len(some) == 1000:
                    yield pa.array(some, pa.large_string())
                    some = []
        yield pa.array(some, pa.large_string())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_index": None}

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Adds the signals; with action cut also rewrites the text. A null text has no overlap."""
        import numpy as np

        from curation.safety.decontamination.ngram_kernels import search

        if self._index is None:
            self.open()
        index = self._index
        assert index is not None
        data, where = string_buffers(batch.column("text"))
        found = np.zeros((batch.num_rows, 3), np.int64)
        found[:, 1] = -1
        if len(data) and index.units:
            search(
                *(data, where, character_table(), *index.arrays()),
                *(int(np.diff(where).max()), found),
            )
        best = [index.units[u] if u >= 0 else None for u in found[:, 1].tolist()]
        shares = [h / int(index.totals[u]) if u >= 0 else 0.0 for _, u, h in found.tolist()]
        cut = [0] * batch.num_rows
        if self.action == "cut" and any(s >= self.share for s in shares):
            batch = with_column(batch, "text", self._cut(batch.column("text"), shares, cut))
        arrays = [
            pa.array(found[:, 0].tolist(), pa.int64()),
            pa.array(shares, pa.float64()),
            pa.array([u.benchmark if u else None for u in best], pa.string()),
            pa.array([u.item if u else None for u in best], pa.int64()),
            pa.array([u.field if u else None for u in best], pa.string()),
            pa.array(cut, pa.int64()),
        ]
        return with_column(batch, self.name, pa.StructArray.from_arrays(arrays, fields=list(self.signals)))

    def _cut(self, texts: pa.Array, shares: list[float], cut: list[int]) -> pa.Array:
        """The texts without the spans of contaminating units; `cut` receives the number of removed characters."""
        rows = texts.to_pylist()
        for i, share in enumerate(shares):
            if share >= self.share:
                new = self._without(rows[i])
                cut[i], rows[i] = len(rows[i]) - len(new), new
        return pa.array(rows, texts.type)

    def _without(self, text: str) -> str:
        """A text without the units of which it contains `share` or more.

        Characters that touch them without white space (a bracket, a question mark) are removed too.
        """
        import numpy as np

        from curation.safety.decontamination.ngram_kernels import mark_passages

        index = self._index
        assert index is not None
        data = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
        marked = np.zeros(len(data) + 1, np.bool_)
        bounds = np.empty((len(data) + 1, 2), np.int64)
        count = mark_passages(data, character_table(), *index.arrays(), self.share, marked, bounds)
        places = np.flatnonzero(marked[:count])
        runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
        raw, parts, at = data.tobytes(), [], 0
        for run in runs:
            start, stop = int(bounds[run[0], 0]), int(bounds[run[-1], 1])
            while start > at and not raw[start - 1 : start].isspace():
                start -= 1
            while stop < len(raw) and not raw[stop : stop + 1].isspace():
                stop += 1
            parts.append(raw[at:start])
            at = max(at, stop)
        return b"".join([*parts, raw[at:]]).decode()
