"""Finds the record that kills its worker, by bisection: runs parts of its task without writing anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from curation.engine.execution.executors import Outcome, RunFailed
from curation.engine.planning.map_spec import FailedRecord, MapSpec, Poisoned


def find_fatal_record(
    run: Callable[[MapSpec], Outcome], spec: MapSpec, phase: str, max_node_deaths: int
) -> list[FailedRecord]:
    """The record of a map task under which workers die. `run` runs a specification that commits nothing.

    Raises RunFailed where reading a file kills the worker, and where no single record does.
    """

    def probe(lo: int, hi: int, dry: bool) -> dict[str, Any] | None:
        # None if the worker dies twice: dying once may have another cause, and the wrong record would be left out
        part = dataclasses.replace(spec, probe=(lo, hi), dry=dry)
        deaths = nodes = 0
        while deaths < 2:
            outcome = run(part)
            if isinstance(outcome.error, Poisoned):
                return {}  # a step fails on some of these records, but the worker survives
            if outcome.error is not None:
                raise RunFailed(f"failed while searching for a record that kills workers: {outcome.error!r}")
            if outcome.value is not None:
                return outcome.value
            deaths, nodes = deaths + (not outcome.node), nodes + outcome.node
            if nodes >= max_node_deaths:
                raise RunFailed(f"{nodes} machines died under one task of phase {phase!r}: {outcome.death}")
        return None

    whole = probe(0, 0, True)
    if whole is None:
        files = ", ".join(p.path for p in spec.splits)
        raise RunFailed(
            f"reading one of these files kills its worker: {files}. Remove the file from the source's folder, "
            "or change the source's `path` so that it does not match, and run again."
        )
    lo, hi = 0, int(whole["rows"])
    while hi - lo > 1:
        mid = (lo + hi) // 2
        lo, hi = (lo, mid) if probe(lo, mid, False) is None else (mid, hi)
    if probe(lo, hi, False) is not None:  # no single record kills it
        raise RunFailed(
            f"the workers of task {spec.key} die, but no single record kills a worker: most likely there is too "
            "little memory for the task. Lower engine.task_bytes or give the nodes more memory."
        )
    named = probe(lo, hi, True)
    assert named is not None
    return [FailedRecord(doc, file, "", "its worker dies") for doc, file in named["ids"]]
