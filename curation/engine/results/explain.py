"""Explains what became of a document: looks its id or URL up in the ledger, in a few range reads at any ledger size."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.checked_parquet import CheckedFile
from curation.config.stored_pipeline import read_stored_pipeline
from curation.core.errors import UserError
from curation.engine.planning.exclude_list import url_key
from curation.engine.results.ledger import BASE_COLUMNS, OUTCOME_COLUMNS, file_name
from curation.engine.results.publish import DECIDED, newest_tree
from curation.storage import Storage


def explain(run_dir: str, key: str) -> dict[str, Any]:
    """Returns what became of a document, by its id (32 hexadecimal digits) or its URL as crawled.

    The answer has doc_id, url, domain, source, date, read, steps ([{step, signals, rules}]) in pipeline order up to the
    one that dropped it, and outcome ({kept: true} or {step, rule, value, evidence}); with `undecided`: the steps that a
    run that stopped had not come to. If several records have the URL
    (crawlers store a page's request under it, too), it is about the one that got furthest; the ids of the others are
    under `others`. Raises UserError for an id or URL that the run does not have.
    """
    store = Storage(run_dir)
    tree = newest_tree(store)
    if tree is None:
        raise UserError(
            f"{run_dir} has no ledger yet: let `gristmill curate` finish first, or give another run directory"
        )
    ids = [bytes.fromhex(key)] if _is_id(key) else _ids_of_url(store, tree, key)
    rows = [row for i in ids if (row := _find(store, tree, i)) is not None]
    if not rows:
        raise UserError(
            f"no record {key!r} in {run_dir}: a URL must be as it was crawled (scheme, host, path, query), an id "
            "has 32 hexadecimal digits"
        )
    if len(rows) > 1:
        rows = _furthest_first(store, rows)
    undecided = store.read_json("run.json").get("undecided", []) if tree == DECIDED else []
    return _answer(store, rows[0], undecided) | {"others": [r["doc_id"].hex() for r in rows[1:]]}


def _is_id(key: str) -> bool:
    return len(key) == 32 and all(c in "0123456789abcdefABCDEF" for c in key)


def _ids_of_url(store: Storage, tree: str, url: str) -> list[bytes]:
    wanted = url_key(url)
    found = _rows(store, f"{tree}/urls", "url_key", wanted, wanted, 64)
    return [row["doc_id"] for row in found]


def _find(store: Storage, tree: str, doc_id: bytes) -> dict[str, Any] | None:
    return next(_rows(store, f"{tree}/ledger", "doc_id", doc_id, int.from_bytes(doc_id[:4], "big"), 32), None)


def _furthest_first(store: Storage, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sorted by the step that dropped them: kept ones first, records that are not documents last."""
    order = ["read", *_rules(store), None]
    return sorted(rows, key=lambda r: (order.index(r["step"]), r["rule"] != "record_type"), reverse=True)


def _rows(store: Storage, directory: str, column: str, value: Any, prefix: int, width: int) -> Iterator[dict[str, Any]]:
    """Rows with this value from a directory of files partitioned by the first bits and sorted by the column."""
    files = store.names(directory)
    if not files:
        return
    count = int(files[0].removesuffix(".parquet").split("-of-")[1])
    bits = count.bit_length() - 1
    name = file_name(directory, prefix >> (width - bits) if bits else 0, count).rsplit("/", 1)[1]
    for candidate in [name] if name in files else []:
        with CheckedFile(store, f"{directory}/{candidate}") as f:
            parquet = pq.ParquetFile(f)
            meta = parquet.metadata
            index = next(i for i in range(meta.num_columns) if meta.schema.column(i).path == column)
            for group in range(meta.num_row_groups):
                stats = meta.row_group(group).column(index).statistics
                if stats is None or stats.min <= value <= stats.max:
                    keys = parquet.read_row_group(group, columns=[column], use_threads=False).column(0).to_pylist()
                    if value in keys:
                        table = parquet.read_row_group(group, use_threads=False)
                        for i, k in enumerate(keys):
                            if k == value:
                                yield table.slice(i, 1).to_pylist()[0]


def _answer(store: Storage, row: dict[str, Any], undecided: Sequence[str]) -> dict[str, Any]:
    rules = _rules(store)
    ended = row["step"]
    steps = []
    for name in [c for c in row if c not in (*BASE_COLUMNS, *OUTCOME_COLUMNS)]:
        if ended == "read" or name in undecided or (row[name] is None and ended is not None and name != ended):
            continue
        verdicts = {}
        for rule in rules.get(name, {}):
            if name == ended and rule == row["rule"]:
                verdicts[rule] = "dropped it"
                break
            verdicts[rule] = "passed"
        steps.append({"step": name, "signals": row[name], "rules": verdicts})
        if name == ended:
            break
    outcome: dict[str, Any] = {"kept": True} | ({"undecided": list(undecided)} if undecided else {})
    if ended is not None:
        outcome = {"kept": False, "step": ended, "rule": row["rule"]}
        outcome |= {k: json.loads(row[k]) if row[k] else None for k in ("value", "evidence")}
    return {
        "doc_id": row["doc_id"].hex(),
        "url": row["url"],
        "domain": row["domain"],
        "source": row["source"],
        "date": row["date"].isoformat() if row["date"] else None,
        "read": row["read"],
        "steps": steps,
        "outcome": outcome,
    }


def _rules(store: Storage) -> dict[str, dict[str, str]]:
    """Rules by step, as the resolved pipeline of the run has them."""
    return {s["name"]: s["rules"] for s in read_stored_pipeline(store)["steps"]}


def ledger(run_dir: str, columns: list[str] | None = None) -> pa.Table:
    """The whole ledger as one Arrow table, sorted by id. Holds it in memory; for large runs read its files."""
    store = Storage(run_dir)
    tables = []
    tree = newest_tree(store)
    for name in store.names(f"{tree}/ledger"):
        with CheckedFile(store, f"{tree}/ledger/{name}") as f:
            tables.append(pq.read_table(f, columns=columns))
    return pa.concat_tables(tables)
