"""Loads the training batches of one rank from token shards: stateful, read ahead, equal for every number of ranks.

    loader = training.dataset("runs/web", seq_len=2048, global_batch=256, rank=rank, world=world, accumulation=4)
    for batch in loader:
        loss = model(batch.tokens, batch.targets, batch.position_ids)

An item is one accumulation pass of one optimizer step: a `Batch`, or what `transform` makes of it. Which sequences that
is, is computed from the step (data_order.py), so the state is a position and the order log, and any number of ranks or
passes resumes from it. Our own trainer reads through the same loader.

It follows the protocol of torchdata's StatefulDataLoader (`state_dict`, `load_state_dict`) and works inside that class
and inside torch's DataLoader: with `batch_size=None`, each of their workers reads every n-th item.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from curation.core.errors import UserError
from training.data.batch import Batch
from training.data.best_fit import PackingCounts
from training.data.data_order import OrderLog
from training.data.data_schedule import rank_slices, steps_within_cap
from training.data.dataset import TokenDataset

Reschedule = Callable[[OrderLog, int], tuple[TokenDataset, OrderLog]]


@dataclass(frozen=True)
class LoaderState:
    """What `state_dict` holds, all of it plain values."""

    step: int  # the optimizer step of the next item, from 0
    taken: int  # items of that step that were given already
    world: int  # ranks and passes at that time: with others a step that was begun is begun again
    accumulation: int
    sequence: int  # the first sequence of that step
    seed: int
    manifest: str  # SHA-256 of the manifest
    packing: str  # stream or best_fit
    order: dict[str, Any]  # the order log


class TokenLoader(IterableDataset[Any]):
    """An iterator over the items of one rank, from its position on. `steps`: where it ends; None: never."""

    def __init__(
        self,
        data: TokenDataset,
        log: OrderLog,
        *,
        rank: int = 0,
        world: int = 1,
        accumulation: int = 1,
        steps: int | None = None,
        prefetch: int = 8,
        pin_memory: bool = False,
        transform: Callable[[Batch], Any] | None = None,
        reschedule: Reschedule | None = None,
        max_epochs: float | None = None,
    ) -> None:
        """`prefetch`: items read ahead by a thread, 0 for none; `reschedule`: what follows a log that was loaded;
        `max_epochs`: how often a domain is read at most, which says where the data end; not beside `steps`.

        Raises UserError for a global batch of the log with fewer sequences than ranks × passes, and for data without
        one global batch.
        """
        for segment in log.segments:
            rank_slices(segment.global_size, world, accumulation, rank)
        self.data, self.log, self.steps = data, log, steps
        self.rank, self.world, self.accumulation = rank, world, accumulation
        self.prefetch, self.pin_memory, self.transform = prefetch, pin_memory, transform
        self._reschedule, self._max_epochs = reschedule, max_epochs
        self._item, self._stride = 0, 1  # step × accumulation + pass of the next item; every how many-th is read
        self._slices: dict[int, list[tuple[int, int]]] = {}  # of this rank, by the size of a global batch
        self._ahead: _ReadAhead | None = None
        self._find_end()

    def _find_end(self) -> None:
        if self._max_epochs is None:
            return
        self.steps = steps_within_cap(self.data, self.log, self._max_epochs)
        if self.steps == 0:
            raise UserError(
                f"max_epochs {self._max_epochs:g}: the data have not one global batch of "
                f"{self.log.segments[0].global_size} sequences; give a smaller batch or more epochs"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_ahead": None}

    def __len__(self) -> int:
        if self._end is None:
            raise TypeError("the loader has no end: neither `steps` nor `max_epochs` was given")
        return self._end

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        if worker is not None and self._stride != worker.num_workers:
            self._stride = worker.num_workers
            self._item += worker.id
        return self

    def __next__(self) -> Any:
        if self._end is not None and self._item >= self._end:
            raise StopIteration
        if not self.prefetch or get_worker_info() is not None:  # a worker reads ahead by itself
            item = self._read(self._item)
        else:
            if self._ahead is None or self._ahead.process != os.getpid():
                self._ahead = _ReadAhead(self._read, self._item, self._end, self.prefetch)
            try:
                item = self._ahead.take()
            except BaseException:
                self._go(self.log, self._item)  # a second try reads the same item again
                raise
        self._item += self._stride
        return item

    @property
    def _end(self) -> int | None:
        return None if self.steps is None else self.steps * self.accumulation

    def _read(self, item: int) -> Any:
        step, number = divmod(item, self.accumulation)
        first, last = self.log.step_range(step)
        if last - first not in self._slices:
            self._slices[last - first] = rank_slices(last - first, self.world, self.accumulation, self.rank)
        begin, end = self._slices[last - first][number]
        batch = self.data.batch(self.log, first + begin, first + end)
        batch = replace(batch, step=step, ends_step=number == self.accumulation - 1)
        made = batch if self.transform is None else self.transform(batch)
        # a forked worker cannot use CUDA: there torch's DataLoader pins what it gets from its workers
        return _pinned(made) if self.pin_memory and get_worker_info() is None else made

    @property
    def packing(self) -> str:
        """`best_fit` or `stream`."""
        return "best_fit" if self.data.packers else "stream"

    @property
    def packing_counts(self) -> dict[str, PackingCounts]:
        """By domain, how many documents best fit has cut so far, and how many the stream would have; {} for stream."""
        return {name: packer.counts for name, packer in self.data.packers.items()}

    @property
    def step(self) -> int:
        """The optimizer step, from 0, of the next item."""
        return self._item // self.accumulation

    def skip_to(self, step: int) -> None:
        """Goes to the first item of a step (from 0), forwards or backwards; takes no longer for a later one."""
        if step < 0 or (self.steps is not None and step > self.steps):
            raise UserError(f"skip_to: step {step} is not one of this loader's steps 0 to {self.steps}")
        self._go(self.log, step * self.accumulation)

    def follow(self, log: OrderLog, step: int) -> None:
        """Goes to a step of another order log. What was read ahead is kept if it is what comes next already."""
        if log is not self.log or step * self.accumulation != self._item:
            self._go(log, step * self.accumulation)

    def mask_documents(self, doc_ids: Iterable[str]) -> None:
        """Takes the targets of these documents (hex ids) away, from the next step that begins on.

        Each domain is read in the same order as before, and the mask is part of the state. Documents that `gristmill
        delete --tombstone` marked need no call: they are masked within a second.
        """
        first = self.log.step_range(-(-self._item // self.accumulation))[0]
        masked = {*self.log.segment_at(first).masked, *doc_ids}
        self._go(self.log.with_masked(first, sorted(masked)), self._item)

    def state_dict(self) -> dict[str, Any]:
        """The position of the next item and the order log, as values for JSON; equal on every rank."""
        step, taken = divmod(self._item, self.accumulation)
        state = LoaderState(
            step, taken, self.world, self.accumulation, self.log.step_range(step)[0], self.data.seed,
            self.data.manifest_digest, self.packing, self.log.as_dict(),
        )  # fmt: skip
        return dict(vars(state))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resumes from a state, which any rank of any number of ranks has saved.

        What was read by then stays as it was; from there on the settings of this loader apply (mix, sequence length,
        global batch, changes), and masked documents stay masked. A step whose passes were not all taken is begun again
        if ranks × passes, its sequences or its mix are others now: its gradients cannot be continued.

        Raises UserError for the state of other shards or of another seed.
        """
        saved = LoaderState(**state)
        if (saved.manifest, saved.seed) != (self.data.manifest_digest, self.data.seed):
            what = f"seed {saved.seed}" if saved.seed != self.data.seed else "other shards"
            raise UserError(
                f"load_state_dict: this state is of {what}, and the loader reads {self.data.manifest.root} with seed "
                f"{self.data.seed}; open the run and seed that it was saved with"
            )
        if saved.packing != self.packing:
            raise UserError(
                f"load_state_dict: this state is of packing={saved.packing!r} and the loader has {self.packing!r}; "
                "with the other one an epoch would read some tokens twice and others never"
            )
        log = read = OrderLog.from_dict(saved.order)
        if self._reschedule is not None:
            self.data, log = self._reschedule(log, saved.sequence)
        same = (saved.world, saved.accumulation) == (self.world, self.accumulation)
        if saved.taken:
            same = same and _step_reads(log, saved.step) == _step_reads(read, saved.step)
        if not same and self._stride > 1 and max(saved.accumulation, self.accumulation) > 1:
            raise UserError(
                f"load_state_dict: this state is of {saved.world} ranks × {saved.accumulation} passes, read by workers "
                f"that each know their own part, and the loader has {self.world} × {self.accumulation}; with workers "
                "only a state of one pass a step resumes at another number of ranks"
            )
        self._go(log, saved.step * self.accumulation + (saved.taken if same else 0))
        self._find_end()

    def _go(self, log: OrderLog, item: int) -> None:
        if self._ahead is not None:
            self._ahead.stop()
        self.log, self._item, self._ahead = log, item, None


class _ReadAhead:
    """Reads items in a thread, `count` of them before they are asked for.

    They are handed over by halves of that: one by one, a handover would cost half as much as reading a small batch.
    """

    def __init__(self, read: Callable[[int], Any], item: int, end: int | None, count: int) -> None:
        self.process = os.getpid()  # a forked process has no thread
        self._read, self._next, self._end, self._count = read, item, end, count
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._coming: deque[tuple[int, Future[list[Any]]]] = deque()
        self._ready: deque[Any] = deque()
        self._ask(1)  # alone, so that nobody waits for more than the first

    def take(self) -> Any:
        """The next item; raises what reading it raised."""
        if not self._ready:
            self._ready.extend(self._coming.popleft()[1].result())
        half = max(1, self._count // 2)
        while len(self._ready) - 1 + sum(n for n, _ in self._coming) < self._count and self._ask(half):
            pass
        item = self._ready.popleft()
        if isinstance(item, _Failure):
            raise item.error
        return item

    def stop(self) -> None:
        """Drops what was read ahead; the item that is being read is waited for."""
        if self.process == os.getpid():
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _ask(self, count: int) -> bool:
        last = self._next + count if self._end is None else min(self._next + count, self._end)
        if last <= self._next:
            return False
        items = range(self._next, last)
        self._coming.append((len(items), self._pool.submit(self._read_all, items)))
        self._next = last
        return True

    def _read_all(self, items: Iterable[int]) -> list[Any]:
        read: list[Any] = []
        for i in items:
            try:
                read.append(self._read(i))
            except Exception as error:  # raised where this item is asked for, and not a few items before
                return [*read, _Failure(error)]
        return read


@dataclass(frozen=True)
class _Failure:
    """What reading an item raised."""

    error: Exception


def _step_reads(log: OrderLog, step: int) -> tuple[tuple[int, int], dict[str, int], int]:
    """The sequences of a step, and what decides which tokens they hold."""
    first, last = log.step_range(step)
    segment = log.segment_at(first)
    return (first, last), segment.mix, segment.seq_len


def _pinned(value: Any) -> Any:
    """The value with its tensors in page-locked memory, from which a GPU copies while it computes."""
    if isinstance(value, torch.Tensor | Batch):
        return value.pin_memory()
    if isinstance(value, Mapping):
        return {key: _pinned(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return type(value)(_pinned(inner) for inner in value)
    return value
