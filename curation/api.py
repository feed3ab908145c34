"""Python API for notebooks and programs: what the command line does and shows, as Python objects.

    import curation

    run = curation.run("web.yaml")
    run.counts["kept"]
    run.ledger(["url", "step", "rule"]).to_pandas()
    run.sql("SELECT step, rule, count(*) FROM ledger GROUP BY ALL")

A `Run` reads the files of its directory when asked; a run on S3 is opened like one on a disk.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.checked_parquet import CheckedFile
from curation.config.load_pipeline import load_pipeline
from curation.core.errors import UserError
from curation.engine.results import explain as explaining
from curation.engine.results.publish import newest_tree
from curation.engine.runtime.run import curate
from curation.storage import Storage

if TYPE_CHECKING:
    from curation.shards import Manifest


def run(
    file: str,
    run_dir: str | None = None,
    *,
    sets: Sequence[str] = (),
    executor: str = "ray",
    address: str | None = None,
    workers: int | None = None,
    limit: int | None = None,
    sample: float | None = None,
    allow_missing: bool = False,
    allow_unreadable: bool = False,
) -> Run:
    """Runs a pipeline file, as `gristmill curate` does, and returns the run.

    file      the pipeline file (YAML); `sets` are overrides such as "steps.language.keep.language=language.score > 0.9"
    run_dir   output directory [default: runs/NAME]
    executor  "ray", or "inline" for this process alone

    Resumes an interrupted run; does nothing if the run is complete. Raises UserError for what the user has to change,
    RunFailed for a run that cannot continue, and UserError where files could not be read, unless `allow_missing`. Warns
    of records that are left out because code fails on them.
    """
    pipeline = load_pipeline(file, sets=sets)
    where = run_dir or os.path.join("runs", pipeline.name)
    result = curate(
        pipeline, where, executor=executor, address=address, workers=workers, limit=limit, sample=sample,
        allow_missing=allow_missing, allow_unreadable=allow_unreadable,
    )  # fmt: skip
    if result.quarantined and not allow_missing:
        first = result.quarantined[0]
        raise UserError(
            f"{where}: {len(result.quarantined)} files cannot be read, "
            f"first {first.get('path')}: {first.get('reason')}\n"
            "  repair or remove them and run again, or continue without them: allow_missing=True"
        )
    if result.left_out:
        records, first = sum(item["records"] for item in result.left_out), result.left_out[0]
        warnings.warn(
            f"{where}: {records:,} records are left out because code fails on them, first of {first['file']}: "
            f"{first['reason']} ({first['at']}). poison.jsonl names them; they come back when the step changes.",
            stacklevel=2,
        )
    return Run(where)


class Run:
    """A curation run that ended, by its directory or URL; of one that stopped, what it had decided.

    Raises UserError for any other directory.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._store = Storage(path)
        tree = newest_tree(self._store)
        if tree is None:
            raise UserError(f"{path} is not a finished run\n  give the output directory of a run that has finished")
        self._tree = tree

    def __repr__(self) -> str:
        return f"Run({self.path!r})"

    @property
    def info(self) -> dict[str, Any]:
        """run.json: versions, seed, fingerprints, inputs, quantiles, counts."""
        return dict(self._store.read_json("run.json"))

    @property
    def counts(self) -> dict[str, Any]:
        """Records read, what each rule dropped, documents kept, tokens."""
        return dict(self.info["counts"])

    @property
    def manifest(self) -> Manifest:
        """Of the shards: tokenizer, splits, mix. Raises ShardError where the pipeline has no tokenizer."""
        from curation.shards import read_manifest

        return read_manifest(self.path if self._store.local else self._store.url("result/shards"))  # of the same result

    def ledger(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Every record: kept (step is null) or the step, rule and value that dropped it, with all signals.

        An Arrow table, sorted by doc_id; `.to_pandas()` makes a DataFrame of it. It is all in memory: name columns, or
        ask `sql`, where the run is large.
        """
        return self._table(f"{self._tree}/ledger", columns)

    def documents(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The documents that stayed, with text and signals. In memory: see `ledger`."""
        return self._table(f"{self._tree}/documents", columns)

    def _table(self, directory: str, columns: Sequence[str] | None) -> pa.Table:
        tables = []
        if directory.endswith("/documents") and not self._store.names(directory):
            raise UserError(f"{self.path} has no documents: the run stopped; its ledger says what it decided till then")
        for name in self._store.names(directory):
            with CheckedFile(self._store, f"{directory}/{name}") as f:
                parquet = pq.ParquetFile(f)
                there = parquet.schema_arrow.names
                if unknown := [c for c in columns or () if c.split(".")[0] not in there]:
                    raise UserError(
                        f"{self.path}/{directory} has no column {unknown[0]!r}\n  it has {', '.join(there)}"
                    )
                tables.append(parquet.read(None if columns is None else list(columns)))
        return pa.concat_tables(tables)

    def sql(self, query: str) -> pa.Table:
        """Runs a DuckDB query on the tables `ledger` and `documents`.

        Compares local files with their checksums first (a second for some gigabytes), then reads only the columns that
        the query needs."""
        import duckdb

        with duckdb.connect() as connection:
            if not self._store.local:
                from curation.storage import filesystem

                connection.register_filesystem(filesystem(self.path)[0])
            for name in ("ledger", "documents"):
                if not self._store.exists(f"{self._tree}/{name}"):
                    continue  # a run that stopped has a ledger only
                if self._store.local:  # an object store checks its bytes itself
                    for file in self._store.names(f"{self._tree}/{name}"):
                        with CheckedFile(self._store, f"{self._tree}/{name}/{file}") as f:
                            f.check()
                where = self._store.url(f"{self._tree}/{name}/*.parquet").replace("'", "''")
                connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{where}')")
            return connection.sql(query).to_arrow_table()

    def explain(self, document: str) -> dict[str, Any]:
        """What happened to a document and why; by its doc_id (32 hex digits) or the URL as crawled."""
        return explaining.explain(self.path, document)
