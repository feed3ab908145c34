"""Splits large archives, JSON arrays and CSV files in a phase of its own.

Where their records begin is not known without reading them, and one large file would keep one worker busy while others
wait. Splits are exact: each begins at a record and carries what its reader must know of those before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from curation import storage
from curation.engine.execution.driver import Driver, Phase
from curation.engine.planning import fingerprints
from curation.engine.planning.map_spec import Source
from curation.engine.planning.plan import Plan
from curation.engine.planning.split_input import target_bytes
from curation.step import InputSplit, UnreadableFile

# A file of fewer bytes than so many tasks read stays whole.
MIN_TASKS = 4


@dataclass(frozen=True)
class IndexPhase:
    run: str
    sources: tuple[Source, ...]
    target: int


@dataclass(frozen=True)
class IndexSpec:
    index: int
    source: int
    split: InputSplit


def run_index(phase: IndexPhase, spec: IndexSpec) -> dict[str, Any]:
    """The splits of one file. A file that cannot be read stays whole: the task that reads it reports the error."""
    source = phase.sources[spec.source]
    try:
        splits = source.reader.index(spec.split, source.root, phase.target)  # type: ignore[attr-defined]
    except (UnreadableFile, OSError):
        splits = [spec.split]
    return {"index": spec.index, "splits": [asdict(p) for p in splits]}


def split_archives(driver: Driver, plan: Plan) -> Mapping[tuple[int, str], list[InputSplit]]:
    """Pieces of the files that are worth cutting and whose reader can, by (source, path)."""
    target = target_bytes(plan)
    wanted = [
        (number, InputSplit(f.path, f.size, f.version))
        for number, (source, listed) in enumerate(zip(plan.sources, plan.files, strict=True))
        if hasattr(source.reader, "index")
        for f in listed
        if f.size >= MIN_TASKS * target and source.reader.needs_index(f.path)
    ]
    if not wanted:
        return {}
    specs = [IndexSpec(i, number, split) for i, (number, split) in enumerate(wanted)]
    codes = [[fingerprints.code_fingerprint(type(s.reader)), fingerprints.options(s.reader)] for s in plan.sources]
    ids = [
        storage.fingerprint([codes[s.source], s.split.path, s.split.size, s.split.version, target, s.source])[:24]
        for s in specs
    ]
    shared = IndexPhase(driver.storage.root, tuple(plan.sources), target)
    phase = Phase(
        "cut large archives", storage.fingerprint(ids), run_index, shared, specs, ids, [p.size for _, p in wanted]
    )
    manifests = driver.run(phase)
    return {
        (number, split.path): [InputSplit(**p) for p in m["splits"]]
        for (number, split), m in zip(wanted, manifests, strict=True)
    }
