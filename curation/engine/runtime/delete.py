"""Deletes documents from a finished run (takedown): the result becomes that of a run that never had them.

The documents are added to the run's own exclude list, and the run is curated again. Reading drops them by the rule
`exclude`; deduplication decides again, so documents that were removed as duplicates of them may come back and remove
others in turn; documents that come back get the signals they lack; the result is written as a new generation. Nothing
is computed twice: signals are in their stores, signatures and verified pairs in files of earlier stages
(planning/prior_run.py).

The result equals that of a fresh run with the same exclude list, tokenizer and quantiles pinned to those of the
previous generation. The shards of that generation are kept for trainings that read them (results/generations.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from curation.config.load_pipeline import load_stored_pipeline
from curation.config.stored_pipeline import read_stored_pipeline
from curation.core.errors import UserError
from curation.engine.execution.executors import Executor
from curation.engine.execution.progress import Progress
from curation.engine.results import erase_tokens, explain, generations, publish
from curation.engine.runtime import lock
from curation.engine.runtime.run import RunResult, curate
from curation.engine.runtime.run_record import load_run
from curation.storage import Storage


@dataclass
class Deletion:
    """What a deletion did. `run` is None if tokens were only overwritten."""

    entries: list[dict[str, str]]  # added to the list now
    generation: int  # of the present result
    run: RunResult | None = None
    tokens: int = 0  # overwritten


def delete_documents(
    run_dir: str, *, documents: Sequence[str] = (), urls: Sequence[str] = (), reason: str = "", tombstone: bool = False,
    catalogue: Mapping[str, str | type], readers: Mapping[str, str | type],
    executor: str | Callable[[], Executor] = "ray", address: str | None = None, workers: int | None = None,
    progress: Progress | None = None,
) -> Deletion:  # fmt: skip
    """Deletes documents (ids of 32 hexadecimal digits) and all documents of URLs (as crawled) from a finished run.

    tombstone   overwrite their tokens in the present shards instead of making a new result; the run's next result
                leaves them out

    Raises UserError for a run that is not finished, and for a document or URL that is not in it.
    """
    store = Storage(run_dir)
    made = load_run(store)
    if made is None or "file" not in made or not store.exists("result/ledger"):
        raise UserError(
            f"{run_dir} is not a finished run: let `gristmill curate` finish first, or give another run directory"
        )
    pipeline = load_stored_pipeline(
        made["file"], read_stored_pipeline(store, values=True), catalogue=catalogue, readers=readers
    )
    found = [explain.explain(run_dir, key) for key in (*documents, *urls)]  # raises for one that is not in the run
    have = {(e.get("doc_id"), e.get("url")) for e in generations.deleted_entries(store)}
    entries = [{"doc_id": d} for d in documents if (d, None) not in have]
    entries += [{"url": u} for u in urls if (None, u) not in have]
    for entry in entries:
        entry |= {"by": "delete"} | ({"reason": reason} if reason else {})
    if entries:
        with lock.hold(store):
            store.forget_trees()
            generations.begin_generation(store, pipeline, entries)
    if tombstone:
        ids = [i for answer in found for i in (answer["doc_id"], *answer.get("others", []))]
        with lock.hold(store):
            store.forget_trees()
            tokens = erase_tokens.erase_tokens(store, ids)
        return Deletion(entries, generations.current_generation(store), None, tokens)
    ran = curate(
        pipeline, run_dir, executor=executor, address=address, workers=workers, limit=made.get("limit"),
        sample=made.get("sample"), allow_missing=bool(made.get("unread")),
        allow_unreadable=True, progress=progress,
    )  # fmt: skip
    store.forget_trees()
    with lock.hold(store):
        publish.remove_older_texts(store)
    return Deletion(entries, generations.current_generation(store), ran)
