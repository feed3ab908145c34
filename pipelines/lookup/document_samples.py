"""Loads the beginning of the text of sample documents: from the run's cache, else from the source again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.storage import Storage

TEXT_LENGTH = 1600  # characters of a document's text that are shown


@dataclass
class Sample:
    """A document shown as an example. `text`: its beginning, None if it cannot be read."""

    doc_id: str
    url: str | None
    domain: str | None
    text: str | None
    value: str | None = None
    evidence: str | None = None
    source: dict[str, Any] | None = None


def load_texts(store: Storage, run: Mapping[str, Any], samples: Sequence[Sample], length: int) -> None:
    """Sets `text` of the samples to the first `length` characters, with personal data removed if the run does so.

    From the cache where it is, else read again from the source; None where the record cannot be read.
    """
    from pipelines.lookup.original_text import OriginalTexts

    _load_from_cache(store, run, samples, length)
    missing = [s for s in samples if s.text is None]
    if missing and store.exists("pipeline.yaml"):
        texts = OriginalTexts(store, run).read([(s.domain, s.source) for s in missing], length)
        for sample, text in zip(missing, texts, strict=True):
            sample.text = text


def _load_from_cache(store: Storage, run: Mapping[str, Any], samples: Sequence[Sample], length: int) -> None:
    from curation.engine.manifests import phase_records
    from curation.engine.tasks.task_documents import State, TaskDocuments

    wanted: dict[bytes, list[Sample]] = {}
    for sample in samples:
        wanted.setdefault(bytes.fromhex(sample.doc_id), []).append(sample)
    ids = pa.array(list(wanted), pa.binary(16))
    names = [p["phase"] for p in run.get("phases", [])]
    for path in phase_records.paths(store):
        record = phase_records.read(store, path)
        if not names or record.name != names[-1]:
            continue
        for number, task in enumerate(record.tasks.values()):
            documents = TaskDocuments(store, number, State.of(task["state"]), {})
            for batch in documents.batches(["doc_id"], everything=True):
                hits = np.flatnonzero(np.asarray(pc.is_in(batch.column("doc_id"), ids)))
                if not len(hits):
                    continue
                texts = documents.take(batch.column("address").take(pa.array(hits)), ["doc_id", "text"])
                for doc_id, text in zip(*(texts.column(c).to_pylist() for c in ("doc_id", "text")), strict=True):
                    for sample in wanted.pop(doc_id, ()):
                        sample.text = None if text is None else text[:length]
            if not wanted:
                return
