"""Compiles patterns over digits into automata whose states are built when a number first needs them.

libphonenumber describes numbering plans by regular expressions over the digits 0 to 9. Python would run dozens of them
for each candidate; here a kernel follows one table. A state is the set of places in the patterns that its digits lead
to (Thompson 1968); the table holds -1 where a successor has not been computed, which the kernel reports and `extend`
fills. Numbers of a text visit few of all states, so nothing is compiled ahead.

Two kinds of machine: `add_language` runs several patterns at once and says by labels which of them match the whole
string; `add_prefix` says where `re.match` of one pattern ends, with Python's preference among alternatives (Cox 2010,
"Regular Expression Matching in the Wild": an ordered list of places, cut after the first that matches).
"""

from __future__ import annotations

import re._parser as parser  # type: ignore[import-not-found, unused-ignore]
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

DEAD = 0
UNKNOWN = -1
# What the value of a state of `add_prefix` says: the pattern ends here; it ends here if the string does; and whether
# the last group took part in either.
ENDS, ENDS_AT_END, CAPTURED, CAPTURED_AT_END = 1, 2, 4, 8

_ALL = (1 << 10) - 1
_FEW_PLACES = 24
# The kinds of node: takes a digit of the set; goes on at each of the nodes, the preferred first; the end of the string;
# the last group is complete; the pattern with this label is complete.
_DIGIT, _SPLIT, _AT_END, _GROUP, _MATCH = range(5)


class DigitAutomata:
    """step[state, digit] is the next state, DEAD or UNKNOWN; value[state] is what the state says of its string."""

    def __init__(self) -> None:
        self.step = np.full((4096, 10), UNKNOWN, np.int32)
        self.value = np.zeros(4096, np.int64)
        self.step[DEAD] = DEAD
        self._nodes: list[tuple[int, Any, Any]] = []
        self._masks: list[int] = []  # by node: the digits that it takes
        self._states: list[tuple[int, int, Any]] = [(-1, 0, ())]  # machine, digits so far, places
        self._ids: dict[tuple[int, int, Any], int] = {}
        self._closures: dict[int, frozenset[int]] = {}
        # by machine: the function of the labels and the number of digits; none for a prefix
        self._values: list[Callable[[frozenset[Any], int], int] | None] = []

    def add_language(
        self, patterns: Iterable[tuple[str, Any, bool]], value: Callable[[frozenset[Any], int], int]
    ) -> int:
        """The first state of a machine. `patterns`: (pattern, label, whether anything may follow it)."""
        starts = []
        for pattern, label, open_ended in patterns:
            end = self._node(_MATCH, label, None)
            if open_ended:
                loop = self._node(_SPLIT, [end], None)
                self._nodes[loop][1].append(self._node(_DIGIT, _ALL, loop))
                end = loop
            start = self._build(parser.parse(pattern), end, 0)
            starts.append(self._node(_DIGIT, 0, start))  # a place before the pattern, which takes no digit
        self._values.append(value)
        return self._state(len(self._values) - 1, 0, frozenset().union(*map(self._closure, starts)))

    def add_prefix(self, pattern: str) -> int:
        """The first state of a machine for `re.match(pattern, digits)`."""
        tree = parser.parse(pattern)
        start = self._build(tree, self._node(_MATCH, None, None), tree.state.groups - 1)
        self._values.append(None)
        return self._state(len(self._values) - 1, 0, self._preferred([(start, False)]))

    def extend(self, state: int, digit: int) -> None:
        """Computes the successor of a state for a digit; those for all digits where that costs little."""
        machine, length, places = self._states[state]
        for d in range(10) if len(places) <= _FEW_PLACES else (digit,):
            if self._values[machine] is None:
                on = [(self._nodes[n][2], g) for n, g in places if self._masks[n] >> d & 1]
                following: Any = self._preferred(on)
            else:
                masks = self._masks
                following = frozenset().union(*[self._closure(n) for n in places if masks[n] >> d & 1])
            self.step[state, d] = self._state(machine, length + 1, following) if following else DEAD

    def _state(self, machine: int, length: int, places: Any) -> int:
        value = self._values[machine]
        # a prefix does not count its digits; what a language says may depend on how many there are
        key = (machine, length if value else 0, places)
        found = self._ids.get(key)
        if found is None:
            found = self._ids[key] = len(self._states)
            self._states.append(key)
            if found == len(self.value):
                self.step = np.concatenate([self.step, np.full_like(self.step, UNKNOWN)])
                self.value = np.concatenate([self.value, np.zeros_like(self.value)])
            if value is None:
                self.value[found] = self._ends(places)
            else:
                labels = frozenset(self._nodes[n][1] for n in places if self._nodes[n][0] == _MATCH)
                self.value[found] = value(labels, length)
        return found

    def _ends(self, places: Iterable[tuple[int, bool]]) -> int:
        said = 0
        for node, group in places:
            kind = self._nodes[node][0]
            if kind == _MATCH:
                said |= ENDS | (CAPTURED if group else 0)
            elif kind == _AT_END and not said & ENDS_AT_END:
                said |= ENDS_AT_END | (CAPTURED_AT_END if group else 0)
        return said

    def _closure(self, place: int) -> frozenset[int]:
        """The places that come after a place."""
        known = self._closures.get(place)
        if known is None:
            seen: set[int] = set()
            left = [self._nodes[place][2]]
            while left:
                node = left.pop()
                if node not in seen:
                    seen.add(node)
                    kind, what, following = self._nodes[node]
                    left.extend(what if kind == _SPLIT else (following,) if kind == _GROUP else ())
            known = self._closures[place] = frozenset(n for n in seen if self._nodes[n][0] in (_DIGIT, _MATCH))
        return known

    def _preferred(self, starts: list[tuple[int, bool]]) -> tuple[tuple[int, bool], ...]:
        """The places that can be reached, the preferred ones first, up to the first that completes the pattern."""
        seen: set[int] = set()
        found: list[tuple[int, bool]] = []
        left = starts[::-1]
        while left:
            node, group = left.pop()
            if node in seen:
                continue
            seen.add(node)
            kind, what, following = self._nodes[node]
            if kind == _SPLIT:
                left.extend((n, group) for n in reversed(what))
            elif kind == _GROUP:
                left.append((following, True))
            else:
                found.append((node, group))
                if kind == _MATCH:
                    break
        return tuple(found)

    def _node(self, kind: int, what: Any, following: Any) -> int:
        self._nodes.append((kind, what, following))
        self._masks.append(what if kind == _DIGIT else 0)
        return len(self._nodes) - 1

    def _build(self, items: Any, following: int, group: int) -> int:
        """The node where a parsed pattern begins that goes on at `following`. `group`: the number of the last group."""
        for op, what in reversed(list(items)):
            name = str(op)
            if name == "LITERAL":
                following = self._node(_DIGIT, 1 << (what - 48), following)
            elif name == "IN":
                following = self._node(_DIGIT, _digits(what), following)
            elif name == "SUBPATTERN":
                end = self._node(_GROUP, None, following) if group and what[0] == group else following
                following = self._build(what[3], end, group)
            elif name == "BRANCH":
                following = self._node(_SPLIT, [self._build(b, following, group) for b in what[1]], None)
            elif name == "MAX_REPEAT":
                least, most, inner = what
                following = self._repeat(least, most, inner, following, group)
            elif name == "AT" and str(what) == "AT_END":
                following = self._node(_AT_END, None, None)  # nothing in the metadata comes after `$`
            else:
                raise ValueError(f"a pattern of phonenumbers' metadata has {name}, which no automaton is built for")
        return following

    def _repeat(self, least: int, most: Any, items: Any, following: int, group: int) -> int:
        if most is parser.MAXREPEAT:
            loop = self._node(_SPLIT, [following], None)
            self._nodes[loop][1].insert(0, self._build(items, loop, group))
            following = loop
        else:
            end = following
            for _ in range(most - least):
                following = self._node(_SPLIT, [self._build(items, following, group), end], None)
        for _ in range(least):
            following = self._build(items, following, group)
        return following


def _digits(items: Any) -> int:
    found = 0
    for op, what in items:
        name = str(op)
        if name == "LITERAL":
            found |= 1 << (what - 48)
        elif name == "RANGE":
            found |= sum(1 << (c - 48) for c in range(what[0], what[1] + 1))
        elif name == "CATEGORY" and str(what) == "CATEGORY_DIGIT":
            found |= _ALL
        else:
            raise ValueError(f"a set in phonenumbers' metadata has {name}, which no automaton is built for")
    return found
