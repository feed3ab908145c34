"""What a run leaves behind: the shuffles that write ledger, documents and shards, in order."""

from __future__ import annotations

from curation import storage
from curation.engine.execution.phases import Phases
from curation.engine.planning import fingerprint
from curation.engine.results import build_shards, ledger
from curation.engine.results.publish import Result
from curation.step import Corpus


def build(phases: Phases) -> Result:
    """Runs the shuffles that write the result and says which files make it up."""
    made = Result()
    plan = phases.plan
    types = [(name, kind) for name, kind in plan.types.items()]
    everything = Corpus(
        documents=sum(m["in"] for m in phases.history[0][1]),
        text_bytes=0,
        tasks=len(phases.manifests),
        seed=plan.pipeline.seed,
    )
    code = fingerprint.module_fingerprint(ledger.__file__)
    rows = phases.stages("ledger", storage.fingerprint([code, str(types)]), ledger.stages(everything, types))
    urls = phases.stages("ledger", code, ledger.url_stages(everything))
    if sum(f["rows"] for f in rows.outputs if f) != everything.documents:
        raise AssertionError(
            f"the ledger has {sum(f['rows'] for f in rows.outputs if f)} rows for {everything.documents} records"
        )
    made.staged += rows.staged + urls.staged
    build_shards.build(phases, made)
    return made
