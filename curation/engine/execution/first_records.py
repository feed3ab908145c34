"""Finds sources whose records cannot be read, before the work that would be lost: a wrong field name, most often.

The first records of some files of each source are read ahead, by `plan` and in a task of `curate`. When all records are
read, their number says so exactly; a small source is not looked at before, since reading it takes no longer.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation import storage
from curation.checked_parquet import CheckedFile
from curation.core.errors import UserError
from curation.engine.execution.driver import Driver, Phase
from curation.engine.execution.phases import Phases
from curation.engine.planning import fingerprints
from curation.engine.planning.map_spec import MapSpec, Source
from curation.engine.planning.plan import Plan
from curation.engine.tasks.scrub import Scrubber
from curation.step import InputSplit, MapStep, UnreadableFile
from curation.storage import Storage

FILES, RECORDS = 8, 32  # files of each source that are looked at, evenly spread, and records of each
MIN_TASKS = 17  # of a source: with fewer (32 MB) all of it is read as fast
MAX_SHARE = 0.5  # of the records
SHOWN = 2  # reasons
ADVICE = (
    "if the text is in another field, name it in the pipeline file (`text: NAME` in the source); to continue without "
    "these records, give --allow-unreadable"
)


@dataclass(frozen=True)
class LookPhase:
    run: str
    sources: tuple[Source, ...]
    scrubber: MapStep | None


@dataclass(frozen=True)
class LookSpec:
    index: int
    source: int
    splits: tuple[InputSplit, ...]


def look(phase: LookPhase, spec: LookSpec) -> dict[str, Any]:
    """Reads the first records of the splits: how many there are, how many of them are unreadable, and why."""
    source = phase.sources[spec.source]
    records, reasons, unread = 0, Counter[str](), Counter[str]()
    for split in spec.splits:
        left = RECORDS
        try:
            for batch in source.reader.read(
                split, source.root, collection=source.collection, domain=source.domain, rows=RECORDS
            ):
                drops = batch.column("drop").to_pylist()[:left]
                records += len(drops)
                reasons.update(d["value"] for d in drops if d is not None and d["rule"] == "unreadable")
                left -= len(drops)
                if left <= 0:
                    break
        except (UnreadableFile, PermissionError, FileNotFoundError) as error:
            unread[error.reason if isinstance(error, UnreadableFile) else type(error).__name__] += 1
    scrub = Scrubber(phase.scrubber, 0)
    clean = [[scrub.reason(why), n] for why, n in reasons.most_common(SHOWN)]
    files = [[scrub.reason(why), n] for why, n in unread.most_common(SHOWN)]
    return {
        "index": spec.index, "records": records, "unreadable": sum(reasons.values()), "reasons": clean,
        "unread": sum(unread.values()), "unread_reasons": files,
    }  # fmt: skip


def check_in_tasks(driver: Driver, plan: Plan, specs: Sequence[MapSpec]) -> None:
    """Looks at the sources of many tasks, each in a task. Raises UserError for one that is mostly unreadable."""
    tasks = Counter(s.source for s in specs)
    wanted = _specs(plan, [n for n in range(len(plan.sources)) if tasks[n] >= MIN_TASKS])
    if not wanted:
        return
    code = fingerprints.source_fingerprint(__file__)
    ids = [
        storage.fingerprint(
            [code, fingerprints.code_fingerprint(type(plan.sources[s.source].reader)), plan.base_fingerprint,
             fingerprints.options(plan.sources[s.source].reader), s.source,
             [(p.path, p.size, p.version) for p in s.splits]]
        )[:24]
        for s in wanted
    ]  # fmt: skip
    phase = Phase("first records", storage.fingerprint(ids), look, _phase(plan, driver.storage.root), wanted, ids)
    for spec, found in zip(wanted, driver.run(phase), strict=True):
        _refuse(plan, spec.source, found)


def check_here(plan: Plan) -> None:
    """Looks at all sources in this process. Raises UserError for one that is mostly unreadable, files included."""
    for spec in _specs(plan, range(len(plan.sources))):
        found = look(_phase(plan, ""), spec)
        _refuse(plan, spec.source, found)
        if found["unread"] and not found["records"]:
            raise UserError(
                f"source {plan.pipeline.sources[spec.source].name!r}: none of {found['unread']} files looked at can be "
                f"read: {_said(found['unread_reasons'])}"
            )


def _phase(plan: Plan, run: str) -> LookPhase:
    return LookPhase(run, tuple(plan.sources), plan.scrubber)


def _specs(plan: Plan, sources: Sequence[int]) -> list[LookSpec]:
    specs: list[LookSpec] = []
    for number in sources:
        listed = plan.files[number]
        chosen = sorted({len(listed) * i // FILES for i in range(FILES)})
        splits = tuple(InputSplit(f.path, f.size, f.version) for f in (listed[i] for i in chosen))
        specs.append(LookSpec(len(specs), number, splits))
    return specs


def _refuse(plan: Plan, number: int, found: Mapping[str, Any]) -> None:
    if found["unreadable"] > MAX_SHARE * found["records"]:
        raise UserError(
            f"source {plan.pipeline.sources[number].name!r}: {found['unreadable']:,} of the first {found['records']:,} "
            f"records cannot be read: {_said(found['reasons'])}\n  {ADVICE}"
        )


def _said(reasons: Sequence[Sequence[Any]]) -> str:
    return "; ".join(f"{why} ({n:,})" for why, n in reasons)


# -- when all records are read ----------------------------------------------------------------------------------------


def unreadable_source(phases: Phases) -> str | None:
    """What is wrong with the first source that is mostly unreadable, after the phase that reads."""
    totals = phases.history[0][1]
    for number, source in enumerate(phases.plan.pipeline.sources):
        records, unreadable = totals.records[number], totals.unreadable[number]
        if unreadable > MAX_SHARE * records:
            mine = [i for i, s in enumerate(phases.specs) if s.source == number][:FILES]
            found = _reasons(phases.storage, [phases.manifests[i] for i in mine])
            reasons = Counter(found).most_common(SHOWN)
            return (
                f"source {source.name!r}: {unreadable:,} of {records:,} records cannot be read, "
                f"such as: {'; '.join(why for why, _ in reasons)}"
            )
    return None


def _reasons(store: Storage, manifests: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Why records are unreadable, of the first ones of these tasks."""
    for manifest in manifests:
        with CheckedFile(store, manifest["state"]["decisions"][-1]) as f:
            batch = next(pq.ParquetFile(f).iter_batches(1024, columns=["rule", "value"], use_threads=False), None)
            if batch is not None:
                values = batch.filter(pc.equal(batch.column("rule"), "unreadable")).column("value")
                yield from (str(json.loads(v)) for v in values.to_pylist())
