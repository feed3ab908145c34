"""Makes the items of a sequence when they are asked for, so that a million of them take no memory."""

from __future__ import annotations

from collections.abc import Callable, MutableSequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class LazySequence(MutableSequence[T], Generic[T]):
    """`make(i)` for every i below `length`; an item may be replaced. Nothing is kept but what was set."""

    def __init__(self, length: int, make: Callable[[int], T]) -> None:
        self._length, self._make = length, make
        self._set: dict[int, T] = {}

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._length))]
        index = range(self._length)[index]  # raises IndexError; counts from the end where it is negative
        return self._set[index] if index in self._set else self._make(index)

    def __setitem__(self, index: Any, value: Any) -> None:
        self._set[range(self._length)[index]] = value

    def __delitem__(self, index: Any) -> None:
        raise TypeError("a lazy sequence keeps its length")

    def insert(self, index: int, value: T) -> None:
        raise TypeError("a lazy sequence keeps its length")
