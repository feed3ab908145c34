"""Runs map steps: models are loaded once a process, sockets are refused, a failing batch is halved to its record."""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
import threading
import traceback
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

import curation
from curation import document
from curation.core.errors import UserError
from curation.engine.tasks.task_cost import part
from curation.step import MapStep

OPEN_STEPS = 64  # kept with their models: more than any pipeline has, so only those of old phases are dropped


class SocketOpened(Exception):
    """A step tried to reach the network: what it computes would depend on more than its input."""


_opened: dict[Hashable, MapStep] = {}
_state = threading.local()
_watching = False


def open_step(step: MapStep, key: Hashable) -> MapStep:
    """The step with its models loaded. `key` distinguishes steps of the same class and name."""
    if key not in _opened:
        while len(_opened) >= OPEN_STEPS:
            del _opened[next(iter(_opened))]
        with part("start-up"):
            step.open()
        _opened[key] = step
    return _opened[key]


# All audit events of Python's sockets that reach the network: look-ups of names, connections, datagrams.
_EVENTS = {
    *("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"),
    *("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"),
}


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event in _EVENTS and getattr(_state, "step", None):
        shown = [a for a in args if isinstance(a, (str, int, tuple, bytes))]
        _state.opened = f"the step {_state.step} opens a socket ({event} {shown}), which a step must not do"
        raise SocketOpened(_state.opened)


@contextlib.contextmanager
def without_sockets(step: str) -> Iterator[None]:
    """Refuses this thread the network while the block runs. Raises SocketOpened even if the step catches the refusal: a
    step that falls back to something else without a network would compute something else with one."""
    global _watching
    if not _watching:
        sys.addaudithook(_watch)
        _watching = True
    _state.step, _state.opened = step, None
    try:
        yield
    finally:
        _state.step, opened = None, _state.opened
        if opened is not None:
            raise SocketOpened(opened)


# What says nothing about the record but about the machine (memory, packages, files, network) or the configuration.
# A record left out for one of these would be left out on one machine and not on another.
NOT_THE_RECORDS = (MemoryError, ImportError, OSError, SocketOpened, UserError)

_INSTALLED = tuple({sysconfig.get_path(p) for p in ("stdlib", "platstdlib", "purelib", "platlib")})
_OURS = os.path.join(os.path.dirname(os.path.abspath(curation.__file__)), "")


@dataclass(frozen=True)
class Failure:
    """How a step fails on a row."""

    error: str  # type of the exception
    message: str
    at: str  # file and line: the innermost of the user's own code, else of any
    frames: str  # the traceback without the message


def run_step(step: MapStep, key: Hashable, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[int, Failure]]:
    """The step's output for the rows it can do, and for each row on which it fails how.

    Rows are independent, so a failing one does not change the others. Errors that are not about a record (see
    `NOT_THE_RECORDS`) are raised.
    """
    ready = open_step(step, key)
    failed: dict[int, Failure] = {}
    outs: list[pa.RecordBatch] = []

    def attempt(lo: int, hi: int) -> None:
        part = batch.slice(lo, hi - lo)
        try:
            out = ready(part)
            if out.num_rows != part.num_rows:
                raise ValueError(f"step {step.name} returned {out.num_rows} rows for {part.num_rows}")
            outs.append(out)
        except NOT_THE_RECORDS:
            raise
        except Exception as e:  # the code of a step may raise anything; too many of the same end the run
            if hi - lo == 1:
                failed[lo] = _failure(e)
                return
            mid = (lo + hi) // 2
            attempt(lo, mid)
            attempt(mid, hi)

    with without_sockets(step.name), part(f"step {step.name}"):
        attempt(0, batch.num_rows)
    if len(outs) == 1:
        return outs[0], failed
    if not outs:
        return document.with_column(batch.slice(0, 0), step.name, pa.nulls(0, pa.struct(list(step.signals)))), failed
    return pa.Table.from_batches(outs).combine_chunks().to_batches()[0], failed


def _failure(error: Exception) -> Failure:
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first is the call of the step
    if not frames:  # raised by the call itself, or in compiled code
        frames = traceback.extract_tb(error.__traceback__)
    # compiled modules have relative names
    own = [f for f in frames if os.path.isabs(f.filename) and not f.filename.startswith(_INSTALLED)]
    users = [f for f in own if not f.filename.startswith(_OURS)]
    last = (users or own or frames)[-1]
    shown = "".join(traceback.format_list(frames))
    return Failure(type(error).__name__, str(error), f"{last.filename}:{last.lineno}", shown)


def failure_mask(failed: dict[int, Failure], rows: int) -> np.ndarray:
    """Which of the rows failed."""
    out = np.zeros(rows, dtype=bool)
    out[list(failed)] = True
    return out
