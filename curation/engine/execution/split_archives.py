"""Splits input files in phases of tasks: the driver lists input and reads none of it.

Large archives, JSON arrays and CSV files have a task each: where their records begin is not known without reading them,
and one large file would keep one worker busy while others wait. Of other formats a footer or a few bytes say how a file
is cut, so one task looks at many files. Splits are exact: each begins at a record and carries what its reader must know
of those before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curation import storage
from curation.engine.execution.driver import Driver, Phase
from curation.engine.planning import fingerprints
from curation.engine.planning.map_spec import Source
from curation.engine.planning.plan import Plan
from curation.engine.planning.split_input import may_split, needs_index, split_file, target_bytes
from curation.step import InputSplit, UnreadableFile

# A file of fewer bytes than so many tasks read stays whole.
MIN_TASKS = 4
FILES_PER_TASK = 64  # that are looked at

Cuts = Mapping[tuple[int, str], list[InputSplit]]  # by source number and path


@dataclass(frozen=True)
class IndexPhase:
    run: str
    sources: tuple[Source, ...]
    target: int


@dataclass(frozen=True)
class IndexSpec:
    index: int
    source: int
    splits: tuple[InputSplit, ...]  # whole files


def run_index(phase: IndexPhase, spec: IndexSpec) -> dict[str, Any]:
    """The splits of one file, which is read from end to end. One that cannot be read stays whole: the task that reads
    it reports the error."""
    source, (whole,) = phase.sources[spec.source], spec.splits
    try:
        splits = source.reader.index(whole, source.root, phase.target)  # type: ignore[attr-defined]
    except (UnreadableFile, OSError):
        splits = [whole]
    return {"index": spec.index, "splits": [_places(s) for s in splits]}


def run_split(phase: IndexPhase, spec: IndexSpec) -> dict[str, Any]:
    """The splits of each of some files, whose format says how to cut them."""
    source = phase.sources[spec.source]
    found = [split_file(source, whole, phase.target) for whole in spec.splits]
    return {"index": spec.index, "files": [[_places(s) for s in splits] for splits in found]}


def _places(split: InputSplit) -> list[Any]:
    return [split.start, split.stop, split.extra]


def split_files(driver: Driver, plan: Plan) -> Cuts:
    """Splits of all files that are worth cutting and whose reader can."""
    target = target_bytes(plan)
    archives: list[tuple[int, tuple[InputSplit, ...]]] = []
    others: list[tuple[int, tuple[InputSplit, ...]]] = []
    for number, (source, listed) in enumerate(zip(plan.sources, plan.files, strict=True)):
        whole = [InputSplit(f.path, f.size, f.version) for f in listed]
        indexed = [w for w in whole if w.size >= MIN_TASKS * target and needs_index(source.reader, w)]
        known = {w.path for w in indexed}
        some = [w for w in whole if w.path not in known and may_split(source.reader, w, target)]
        archives += [(number, (w,)) for w in indexed]
        others += [(number, tuple(some[i : i + FILES_PER_TASK])) for i in range(0, len(some), FILES_PER_TASK)]
    cuts = _run(driver, plan, "cut large archives", run_index, archives, target)
    return cuts | _run(driver, plan, "split files", run_split, others, target)


def _run(
    driver: Driver, plan: Plan, name: str, run: Any, wanted: Sequence[tuple[int, tuple[InputSplit, ...]]], target: int
) -> dict[tuple[int, str], list[InputSplit]]:
    if not wanted:
        return {}
    specs = [IndexSpec(i, number, splits) for i, (number, splits) in enumerate(wanted)]
    codes = [[fingerprints.code_fingerprint(type(s.reader)), fingerprints.options(s.reader)] for s in plan.sources]
    ids = [
        storage.fingerprint([name, codes[s.source], target, s.source, [(p.path, p.size, p.version) for p in s.splits]])
        for s in specs
    ]
    shared = IndexPhase(driver.storage.root, tuple(plan.sources), target)
    sizes = [sum(p.size for p in s.splits) for s in specs]
    phase = Phase(name, storage.fingerprint(ids), run, shared, specs, [i[:24] for i in ids], sizes)
    return {
        (spec.source, whole.path): [InputSplit(whole.path, whole.size, whole.version, *place) for place in places]
        for spec, manifest in zip(specs, driver.run(phase), strict=True)
        for whole, places in zip(spec.splits, manifest.get("files") or [manifest["splits"]], strict=True)
    }
