"""Calls steps: models loaded once a process, no sockets while they run, and a failing batch halved to its record."""

from __future__ import annotations

import sys
import threading
from collections.abc import Hashable
from typing import Any

import numpy as np
import pyarrow as pa

from curation import record
from curation.step import MapStep

OPEN_STEPS = 64  # kept with their models: more than any pipeline has, so a long-lived worker forgets old phases only


class SocketOpened(Exception):
    """A step tried to reach the network: what it computes would depend on more than its input."""


_opened: dict[Hashable, MapStep] = {}
_state = threading.local()
_watching = False


def opened(step: MapStep, key: Hashable) -> MapStep:
    """The step with its models loaded. `key` tells steps apart whose class and name are equal."""
    if key not in _opened:
        while len(_opened) >= OPEN_STEPS:
            del _opened[next(iter(_opened))]
        step.open()
        _opened[key] = step
    return _opened[key]


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind") and getattr(_state, "step", None):
        raise SocketOpened(f"the step {_state.step} opens a socket ({event} {args[1:]}), which a step must not do")


def apply(step: MapStep, key: Hashable, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[int, str]]:
    """The step's output for the rows it can do, and for each row on which it fails the reason.

    Rows are independent, so those beside a failing one come out as they would have. What says nothing about the
    record (memory, files, sockets) is raised.
    """
    global _watching
    if not _watching:
        sys.addaudithook(_watch)
        _watching = True
    ready = opened(step, key)
    failed: dict[int, str] = {}
    outs: list[pa.RecordBatch] = []

    def attempt(lo: int, hi: int) -> None:
        part = batch.slice(lo, hi - lo)
        try:
            out = ready(part)
            if out.num_rows != part.num_rows:
                raise ValueError(f"step {step.name} returned {out.num_rows} rows for {part.num_rows}")
            outs.append(out)
        except (MemoryError, OSError, SocketOpened):
            raise
        except Exception as e:
            if hi - lo == 1:
                failed[lo] = f"{type(e).__name__}: {e}"[:300]
                return
            mid = (lo + hi) // 2
            attempt(lo, mid)
            attempt(mid, hi)

    _state.step = step.name
    try:
        attempt(0, batch.num_rows)
    finally:
        _state.step = None
    if len(outs) == 1:
        return outs[0], failed
    if not outs:
        return record.with_column(batch.slice(0, 0), step.name, pa.nulls(0, pa.struct(list(step.signals)))), failed
    return pa.Table.from_batches(outs).combine_chunks().to_batches()[0], failed


def mask(failed: dict[int, str], rows: int) -> np.ndarray:
    """Which of the rows failed."""
    out = np.zeros(rows, dtype=bool)
    out[list(failed)] = True
    return out
