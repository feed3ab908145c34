"""Measures the peak of live tensor memory of a computation, counted operator by operator.

Every storage that an operator returns is counted from then until it is freed; so views and in-place results count once,
and what the allocator keeps for later counts nothing. It is slow and made for tests, benchmarks and small shapes; the
resident size of a process says something else (code, caches, what the allocator has not given back).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from training.model import linear_cross_entropy

# What the loss's operators run: a mode sees an operator from outside only, and theirs is where the memory goes.
_INSIDE: dict[Any, Callable[..., Any]] = {
    torch.ops.gristmill.linear_cross_entropy_rows.default: linear_cross_entropy.run_row_chunks,
    torch.ops.gristmill.linear_cross_entropy_columns.default: linear_cross_entropy.run_column_chunks,
    torch.ops.gristmill.linear_cross_entropy_columns_backward.default: linear_cross_entropy.run_column_chunks_backward,
}


class LiveStorages(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, `live` and `peak` are bytes of storages, `largest` those of the largest single one that was made.

    Those of `known` tensors (weights, inputs) count from the start.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = self.largest = 0
        self._seen: set[int] = set()
        for tensor in known:
            self._add(tensor)
        self.known = self.live

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen:
            return
        size = storage.nbytes()
        self._seen.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        inside = _INSIDE.get(func)
        if inside is not None:
            with self:
                return inside(*args, **(kwargs or {}))
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                self._add(tensor)
                self.largest = max(self.largest, tensor.untyped_storage().nbytes())
        return out
