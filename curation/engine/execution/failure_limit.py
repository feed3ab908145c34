"""Ends a run when the same code fails on many records of a source: that is a bug, and not some bad records.

Whether a run ends must not depend on which task is done first. So nothing is decided from what happens to be done: the
tasks of a source are taken in the order of the plan, and counts are of a beginning of that order. When all tasks of a
phase are tried, the beginning is the whole source, and the limit is exact. Before, it is compared with twice the limit
of the source as large as the records so far say: a bug that hits everything ends the run after one part in fifty of
the phase, and what ends it early would end it later, too, unless the records of the rest are twice as many a byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from curation.engine.planning.map_spec import FailedRecord

MAX_RECORDS, MAX_SHARE = 20, 0.01  # of a source, the larger of the two
EARLY_MARGIN = 2
SHOWN = 3  # records named in the message

Place = tuple[str, str, str]  # step, type of the exception, file and line


def by_place(records: Sequence[FailedRecord]) -> dict[Place, list[FailedRecord]]:
    """The records on which the same code fails, by where and how it does."""
    out: dict[Place, list[FailedRecord]] = {}
    for record in records:
        out.setdefault(record.place, []).append(record)
    return out


@dataclass
class _Source:
    name: str
    tasks: list[int] = field(default_factory=list)
    bytes: int = 0
    records: int | None = None  # of the whole source, where a phase before counted them
    done: int = 0  # tasks at the beginning of `tasks` whose counts are in the following
    read: int = 0
    read_bytes: int = 0
    counts: Counter[Place] = field(default_factory=Counter)


class FailureLimit:
    """Counts the records of one map phase on which code fails.

    names     of the sources; `sources` and `sizes`: source and stored bytes of each task, in the order of the plan
    records   of each source, by name; empty in the phase that reads them
    """

    def __init__(
        self, names: Sequence[str], sources: Sequence[int], sizes: Sequence[int], records: Mapping[str, int]
    ) -> None:
        self._sources = [_Source(name, records=records.get(name)) for name in names]
        self._of, self._sizes = sources, sizes
        for task, (number, size) in enumerate(zip(sources, sizes, strict=True)):
            self._sources[number].tasks.append(task)
            self._sources[number].bytes += size
        self._rows: dict[int, int] = {}
        self._failed: dict[int, list[FailedRecord]] = {}

    def tried(self, task: int, rows: int, failed: Sequence[FailedRecord] = ()) -> str | None:
        """A task has tried all of its records. Returns why the run ends, if a beginning of its source says enough."""
        source = self._sources[self._of[task]]
        self._rows[task] = rows
        self._failed.setdefault(task, []).extend(failed)
        while source.done < len(source.tasks) and (next_ := source.tasks[source.done]) in self._rows:
            source.done += 1
            source.read += self._rows[next_]
            source.read_bytes += self._sizes[next_]
            source.counts.update(r.place for r in self._failed.get(next_, ()))
            whole = source.done == len(source.tasks)
            expected = source.read if whole else round(source.read * source.bytes / max(1, source.read_bytes))
            if source.records is not None:
                expected = source.records
            if message := self._over(source, source.counts, expected, 1 if whole else EARLY_MARGIN, ()):
                return message
        return None

    def all_tried(self, listed: Sequence[Mapping[str, str]]) -> str | None:
        """All tasks have tried all of their records. Returns why the run ends; if it does not, what was reported so far
        is on the list from now on.

        listed   entries of the poison list: found by an earlier attempt, or because a worker died
        """
        for source in self._sources:
            counts = Counter[Place]()
            for task in source.tasks:
                counts.update(r.place for r in self._failed.get(task, ()))
            counts.update((e["step"], e["error"], e["at"]) for e in listed if e["source"] == source.name)
            records = sum(self._rows.get(t, 0) for t in source.tasks) if source.records is None else source.records
            if message := self._over(source, counts, records, 1, listed):
                return message
        self._failed.clear()
        return None

    def _over(
        self, source: _Source, counts: Mapping[Place, int], records: int, margin: int,
        listed: Sequence[Mapping[str, str]],
    ) -> str | None:  # fmt: skip
        most = margin * max(MAX_RECORDS, MAX_SHARE * records)
        place, count = max(counts.items(), key=lambda item: (item[1], item[0]), default=(None, 0))
        if place is None or count <= most:
            return None
        mine = [r for t in source.tasks for r in self._failed.get(t, ()) if r.place == place]
        step, error, at = place
        what = f"step {step} fails" if step else "a worker dies"
        of = f"of {records:,}" if margin == 1 else f"of the first {source.read:,}"
        said = f"{what} on {count:,} {of} records of source {source.name!r}"
        if error:
            said += f", always with {error} at {at}"
        lines = [f"{said}. That is a bug, and not bad records, so the run stops and leaves nothing out."]
        named = [(r.file, r.doc_id, r.reason) for r in mine]
        named += [(e["file"], e["doc_id"], e["reason"]) for e in listed if (e["step"], e["error"], e["at"]) == place]
        lines += [f"  {file}, document {doc_id}: {reason}" for file, doc_id, reason in named[:SHOWN]]
        trace = next((r.trace for r in mine if r.trace), "")
        if trace:
            lines += ["Traceback of the first (most recent call last):", trace.rstrip()]
        lines.append(
            f"Repair the step and run the same command again; finished work is kept. (Up to {MAX_RECORDS} records of a "
            f"source, or {MAX_SHARE:.0%}, would be left out and named.)"
        )
        return "\n".join(lines)
