"""Cuts the input into tasks: large files are split where that is exact, small ones grouped.

A task is named by what it reads, so a file that is added, removed or changed should leave the groups of all other files
alone: a group ends at a file whose own path says so (a hash below its share of a task), not where a task is full, which
would regroup every file after it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import xxhash

from curation import storage
from curation.engine.planning import fingerprints
from curation.engine.planning.map_spec import MapSpec, Source
from curation.engine.planning.plan import Plan, reads_beside
from curation.step import InputSplit, Reader

# Bytes of input a task reads unless the pipeline sets `engine.task_bytes`: small enough that 2 cores share a laptop's
# crawl evenly, large enough that 4,096 tasks read 8 GB. For larger input tasks grow by factors of four, so that they
# seldom change.
TASK_BYTES = 2 << 20
MAX_TASKS = 4096
MAX_TASK_BYTES = 512 << 20


def target_bytes(plan: Plan) -> int:
    """Bytes of input, as stored, that a task should read."""
    return plan.pipeline.engine.task_bytes or task_bytes(plan.input_bytes)


def split_input(
    plan: Plan, *, limit: int | None = None, cuts: Mapping[tuple[int, str], list[InputSplit]] | None = None
) -> list[MapSpec]:
    """The tasks of the first phase, in order of source and path. A task's splits are of one source.

    cuts    splits of files by (source number, path), see execution/split_archives.py; None: files are looked at here
    limit   a number of records, spread over the tasks, so that a first look sees all of the input
    """
    target = target_bytes(plan)
    specs: list[MapSpec] = []
    for number, (source, listed) in enumerate(zip(plan.sources, plan.files, strict=True)):
        reader = storage.fingerprint(
            [type(source.reader).__qualname__, fingerprints.options(source.reader),
             fingerprints.code_fingerprint(type(source.reader)), source.collection, source.domain,
             plan.base_fingerprint]
        )  # fmt: skip
        group: list[InputSplit] = []
        size = 0

        def end(number: int = number, reader: str = reader) -> None:
            nonlocal group, size
            if group:
                beside = any(reads_beside(plan.sources[number].reader, split.path) for split in group)
                key = _key(reader, group, plan.beside[number] if beside else "")
                specs.append(MapSpec(len(specs), key, "", number, tuple(group)))
            group, size = [], 0

        for file in listed:
            whole = InputSplit(file.path, file.size, file.version)
            if cuts is None:
                splits = split_file(source, whole, target) if may_split(source.reader, whole, target) else [whole]
            else:
                splits = cuts.get((number, file.path), [whole])
            for split in splits:
                length = (split.stop or file.size) - (split.start or 0) if split.stop or split.start else file.size
                if group and size + length > 2 * target:
                    end()
                group.append(split)
                size += length
                if split.start is not None or _ends_group(file.path, length / target):
                    end()
        end()
    if limit is not None:
        share = -(-limit // max(1, len(specs)))
        specs = [_limited(s, share) for s in specs]
    return specs


def needs_index(reader: Reader, whole: InputSplit) -> bool:
    """Whether ranges of a file are known only after all of it is read (execution/split_archives.py)."""
    asked = getattr(reader, "needs_index", None)
    return asked is not None and bool(asked(whole.path))


def may_split(reader: Reader, whole: InputSplit, target: int) -> bool:
    """Whether a file has to be looked at to be cut."""
    asked = getattr(reader, "may_split", None)
    return bool(asked(whole, target)) if asked is not None else whole.size > target and not needs_index(reader, whole)


def split_file(source: Source, whole: InputSplit, target: int) -> list[InputSplit]:
    """The splits of a file; reads a footer or a few bytes of it."""
    try:
        return source.reader.split(whole, source.root, target)
    except (PermissionError, FileNotFoundError):
        return [whole]  # its task reports that it cannot be read


def _ends_group(path: str, share: float) -> bool:
    return xxhash.xxh3_64_intdigest(path.encode("utf-8", "surrogateescape")) < share * 2.0**64


def task_bytes(total: int) -> int:
    """Bytes a task reads of so much input: TASK_BYTES, times four until there are at most MAX_TASKS tasks."""
    size = TASK_BYTES
    while total > size * MAX_TASKS and size < MAX_TASK_BYTES:
        size *= 4
    return size


def _key(reader: str, splits: Sequence[InputSplit], beside: str) -> str:
    parts = [(p.path, p.size, p.version, p.start, p.stop, dict(p.extra or {})) for p in splits]
    return storage.fingerprint([reader, parts, *([beside] if beside else [])])[:24]


def _limited(spec: MapSpec, share: int) -> MapSpec:
    return dataclasses.replace(spec, key=storage.fingerprint([spec.key, share])[:24], limit=share)
