"""Builds the result of a run: the shuffles that write ledger, documents and shards, in order."""

from __future__ import annotations

from curation import storage
from curation.engine.execution.phases import Phases
from curation.engine.planning import fingerprints
from curation.engine.results import build_shards, ledger
from curation.engine.results.publish import ResultFiles
from curation.step import Corpus


def build_result(phases: Phases) -> ResultFiles:
    """Runs the shuffles that write the result; returns the files it consists of."""
    made = build_ledger(phases)
    build_shards.build_documents_and_shards(phases, made)
    return made


def build_ledger(phases: Phases) -> ResultFiles:
    """The ledger, and the index of its URLs: of the documents as they are after the latest map phase."""
    made = ResultFiles()
    plan = phases.plan
    types = [(name, kind) for name, kind in plan.types.items()]
    everything = Corpus(
        documents=phases.history[0][1].rows_in,
        text_bytes=0,
        tasks=len(phases.specs),
        seed=plan.pipeline.seed,
    )
    code = fingerprints.module_fingerprint(ledger.__file__)
    rows = phases.stages("ledger", storage.fingerprint([code, str(types)]), ledger.ledger_stages(everything, types))
    urls = phases.stages("ledger", code, ledger.url_stages(everything))
    if sum(f["rows"] for f in rows.outputs if f) != everything.documents:
        raise AssertionError(
            f"the ledger has {sum(f['rows'] for f in rows.outputs if f)} rows for {everything.documents} records"
        )
    made.staged += rows.staged + urls.staged
    return made
