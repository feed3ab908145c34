"""Forgetting documents: what a run would be had they never been there, by deciding again over what is stored.

Documents go onto the run's exclude list, and the run is brought to the state that follows. Nothing new is needed for
it: reading drops them by the rule `exclude`, deduplication decides again (whoever was removed because of them may
come back, and remove others in turn), documents that come back get the signals they miss, and the result is written as
a new generation. What has been looked at is not looked at again: signals lie in their stores, signatures and verified
pairs in the files of the stages that made them (`Stage.again`).

The result is that of a fresh run with the same exclude list whose tokenizer and quantiles are pinned to those of the
generation before. The shards of that generation stay where trainings find them (generations.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curation.config import load as config
from curation.core.errors import UserError
from curation.engine.execution.driver import Progress
from curation.engine.execution.executors import Executor
from curation.engine.results import erase_tokens, explain, generations
from curation.engine.runtime import lock
from curation.engine.runtime.run import RunResult, curate
from curation.storage import Storage


@dataclass
class Deletion:
    """What came of it. `run` is None where only tombstones were set or nothing was new."""

    entries: list[dict[str, str]]  # new on the list
    generation: int  # of the result that is there now
    run: RunResult | None = None
    tokens: int = 0  # overwritten


def delete_documents(
    run_dir: str, *, documents: Sequence[str] = (), urls: Sequence[str] = (), reason: str = "", tombstone: bool = False,
    catalogue: Mapping[str, str | type], readers: Mapping[str, str | type],
    executor: str | Callable[[], Executor] = "ray", address: str | None = None, workers: int | None = None,
    progress: Progress | None = None,
) -> Deletion:  # fmt: skip
    """Takes documents (ids of 32 hexadecimal digits) and all documents of URLs (as crawled) out of a finished run.

    tombstone   overwrite their tokens in the shards that are there, where they lie, instead of making a new result: the
                run's next result leaves them out

    Raises UserError for a run that is not finished, and for a document or URL that it never saw.
    """
    store = Storage(run_dir)
    made = store.read_json("run.json") if store.exists("run.json") else None
    if made is None or not store.exists("result/ledger"):
        raise UserError(f"{run_dir} is not a finished run: let `gristmill curate` finish first, or name another")
    if "file" not in made:
        raise UserError(f"{run_dir} was made by an older version, which did not note its pipeline file: curate it once")
    pipeline = config.stored(made["file"], _tree(store), catalogue=catalogue, readers=readers)
    found = [explain.explain(run_dir, key) for key in (*documents, *urls)]  # refuses what the run never saw
    have = {(e.get("doc_id"), e.get("url")) for e in generations.deleted_entries(store)}
    entries = [{"doc_id": d} for d in documents if (d, None) not in have]
    entries += [{"url": u} for u in urls if (None, u) not in have]
    for entry in entries:
        entry |= {"by": "delete"} | ({"reason": reason} if reason else {})
    if entries:
        with lock.hold(store):
            generations.begin(store, pipeline, entries)
    if tombstone:
        ids = [i for answer in found for i in (answer["doc_id"], *answer.get("others", []))]
        with lock.hold(store):
            tokens = erase_tokens.overwrite(store, ids)
        return Deletion(entries, generations.current(store), None, tokens)
    ran = curate(
        pipeline, run_dir, executor=executor, address=address, workers=workers, limit=made.get("limit"),
        sample=made.get("sample"), allow_missing=bool(made.get("unread")), progress=progress,
    )  # fmt: skip
    return Deletion(entries, generations.current(store), ran)


def _tree(store: Storage) -> dict[str, Any]:
    import yaml

    tree: dict[str, Any] = yaml.safe_load(store.read_bytes("pipeline.yaml"))
    return tree
