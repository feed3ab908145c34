"""Documents to look at, with the beginning of their text: from the cache if it is there, else from the source again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.storage import Storage

SHOWN = 1600  # characters of a document's text


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


def with_texts(store: Storage, run: Mapping[str, Any], dropped: Mapping[Any, list[Sample]], most: int) -> None:
    """The first `most` characters of the text of documents: from the cache where it is (scrubbed), else read again
    from the source."""
    from pipelines.lookup.original_text import Originals

    _from_cache(store, run, dropped, most)
    missing = [s for samples in dropped.values() for s in samples if s.text is None]
    if missing and store.exists("pipeline.yaml"):
        texts = Originals(store, run).texts([(s.domain, s.source) for s in missing], most)
        for sample, text in zip(missing, texts, strict=True):
            sample.text = text


def _from_cache(store: Storage, run: Mapping[str, Any], dropped: Mapping[Any, list[Sample]], most: int) -> None:
    from curation.engine.tasks.task_documents import State, TaskDocuments

    wanted: dict[bytes, list[Sample]] = {}
    for sample in (s for samples in dropped.values() for s in samples):
        wanted.setdefault(bytes.fromhex(sample.doc_id), []).append(sample)
    ids = pa.array(list(wanted), pa.binary(16))
    names = [p["phase"] for p in run.get("phases", [])]
    for name in store.names("cache/phases"):
        merged = store.read_json(f"cache/phases/{name}")
        if not names or merged["name"] != names[-1]:
            continue
        for task in merged["tasks"].values():
            documents = TaskDocuments(store, task["index"], State.of(task["state"]), {})
            for batch in documents.batches(["doc_id"], everything=True):
                hits = np.flatnonzero(np.asarray(pc.is_in(batch.column("doc_id"), ids)))
                if not len(hits):
                    continue
                texts = documents.take(batch.column("address").take(pa.array(hits)), ["doc_id", "text"])
                for doc_id, text in zip(*(texts.column(c).to_pylist() for c in ("doc_id", "text")), strict=True):
                    for sample in wanted.pop(doc_id, ()):
                        sample.text = None if text is None else text[:most]
            if not wanted:
                return
