"""Builds the n-gram index of evaluation sets, once per machine, and maps it in every process.

The index is a few flat arrays: an open-addressing table of 64-bit hashes, and for each n-gram the units that contain
it and where. Units of equal words are one, the first. The first process that needs it builds it in the user's temporary
directory, in a folder named by a hash of all its inputs; the others map the same pages. Names of benchmarks, item
numbers and fields are stored beside it, but no text.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from curation.core.imported_code import imported_code
from curation.core.private_directory import temporary_directory
from curation.safety.decontamination.benchmark_items import ANSWERS, SHORTEST, SHORTEST_ANSWER, SHORTEST_LINE, Unit
from curation.storage import filesystem
from curation.words import character_table, estimate_words

LEAST = 6  # words that a passage must cover unless they are rare ones; shorter units must be covered whole
_FACTORS = (1, 2, 4)  # letters of scripts without spaces per word: n-grams of such units are so many times longer

_ARRAYS = (
    "table",
    "slot_of",
    "first",
    "unit_of",
    "place",
    "size_of",
    "weights",
    "totals",
    "total_weights",
    "least",
    "line_only",
    "sizes",
)


@dataclass
class Index:
    """All n-grams of all units."""

    units: list[Unit]
    items: tuple[int, int]  # those of which all units are too short; all
    skipped: int  # units that are too short
    common: int  # n-grams left out because they are common in ordinary text
    table: Any  # uint64, open addressing
    slot_of: Any  # int32: slot -> n-gram
    first: Any  # int32: n-gram -> where its units begin
    unit_of: Any  # int32
    place: Any  # int32: where the n-gram begins in the array of all units' words
    size_of: Any  # int32: length of each unit's n-grams
    weights: Any  # uint16: of each word that counts, 0 where only n-grams common in ordinary text cover it
    totals: Any  # int32: words of each unit that count
    total_weights: Any  # int32: their weight
    least: Any  # int32: words of each unit that a passage must cover
    line_only: Any  # bool: whether a unit is so short that it counts only as a whole line
    sizes: Any  # int32: lengths of n-grams in use

    @property
    def bytes(self) -> int:
        """Memory of the arrays that a lookup touches."""
        return sum(getattr(self, name).nbytes for name in _ARRAYS)

    def arrays(self) -> list[Any]:
        """The arrays as `search` and `mark_passages` take them."""
        return [getattr(self, name) for name in _ARRAYS]


def build_index(units: Sequence[Unit], ngram: int, common: Callable[[Index], Any] | None = None) -> Index:
    """Hashes the units' n-grams. Deterministic in the order of the units.

    ngram   words per n-gram; in scripts without spaces, where a letter is a word, as many letters as so many words have
    common  given the index, returns which of its n-grams (bool[n-grams]) are common in ordinary text: words that only
            those cover do not count, and units left with too few are left out
    """
    import numpy as np

    from curation.safety.decontamination.ngram_kernels import ngrams
    from curation.word_hashes import hash_words

    # words -> unit, length of its n-grams, words that must be covered, whether it must be a whole line
    kept: dict[bytes, tuple[Unit, int, int, bool]] = {}
    found: list[Any] = []
    searched: set[tuple[str, int]] = set()  # items
    skipped = 0
    for unit in units:
        data = np.frombuffer(unit.text.encode("utf-8", "replace"), np.uint8)
        word, gram = np.empty(len(data) + 1, np.uint64), np.empty(len(data) + 1, np.uint64)
        count = hash_words(data, 0, len(data), character_table(), word, None)
        estimated = max(estimate_words(unit.text), 1.0)
        factor = min(_FACTORS, key=lambda f: abs(f - count / estimated))
        size, least = min(ngram * factor, count), min(count, max(LEAST, ngram) * factor)
        alone = estimated >= min(SHORTEST, ngram)  # else it counts only as a whole line
        shortest = SHORTEST_ANSWER if unit.field in ANSWERS else min(SHORTEST_LINE, ngram)
        if not count or estimated < shortest:
            skipped += 1
            continue
        if not alone:
            size = least = count
        searched.add((unit.benchmark, unit.item))
        if (key := word[:count].tobytes()) not in kept:
            kept[key] = (unit, size, least, not alone)
            found.append(gram[: ngrams(word, count, size, gram)].copy())
    facts = list(kept.values())
    lengths = [len(key) // 8 for key in kept]
    weights = _weights(list(kept))
    every = len({(unit.benchmark, unit.item) for unit in units})
    items = every - len(searched), every
    index = _assemble(facts, lengths, weights, found, items, skipped, None)
    if common is None or not facts:
        return index
    grams = np.unique(np.concatenate(found))
    return _assemble(facts, lengths, weights, found, items, skipped, grams[common(index)])


def _weights(units: Sequence[bytes]) -> Any:
    """uint16 weight of each word of all units (each given as the bytes of its words' hashes): 100 ln(units / units that
    have the word) + 1."""
    import numpy as np

    words = [np.frombuffer(unit, np.uint64) for unit in units]
    if not words:
        return np.empty(0, np.uint16)
    distinct, documents = np.unique(np.concatenate([np.unique(w) for w in words]), return_counts=True)
    rarity = (100 * np.log(len(words) / documents) + 1).astype(np.uint16)
    return rarity[np.searchsorted(distinct, np.concatenate(words))]


def _assemble(
    facts: list[tuple[Unit, int, int, bool]], lengths: list[int], weights: Any, found: list[Any],
    items: tuple[int, int], skipped: int, ordinary: Any,
) -> Index:  # fmt: skip
    """The index of units: of each the length of its n-grams, the words that must be covered, if it must be a line.

    lengths   words of each unit
    weights   of all words, one unit after the other
    found     n-grams of each unit, one for each word but the last ones
    ordinary  n-grams (sorted) that do not count, or None
    """
    import numpy as np

    from curation.safety.decontamination.ngram_kernels import fill

    size_of = np.array([size for _, size, _, _ in facts], np.int32)
    begins = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    counts = np.zeros(begins[-1], np.uint8)
    owner = np.repeat(np.arange(len(found), dtype=np.int32), [len(f) for f in found])
    every = np.concatenate(found) if found else np.empty(0, np.uint64)
    place = np.concatenate([begins[i] + np.arange(len(f)) for i, f in enumerate(found)]) if found else np.empty(0)
    place = place.astype(np.int32)
    if ordinary is not None:
        telling = ~np.isin(every, ordinary)
        every, owner, place = every[telling], owner[telling], place[telling]
    for size in np.unique(size_of):
        for i in range(size):
            counts[place[size_of[owner] == size] + i] = 1
    weights = weights * counts
    totals = np.add.reduceat(counts, begins[:-1], dtype=np.int32) if found else np.empty(0, np.int32)
    total_weights = np.add.reduceat(weights, begins[:-1], dtype=np.int32) if found else np.empty(0, np.int32)
    least = np.array([least for _, _, least, _ in facts], np.int32)
    line_only = np.array([line for *_, line in facts], np.bool_)
    usable = totals >= least  # too few words are left of the others
    every, place, owner = every[usable[owner]], place[usable[owner]], owner[usable[owner]]
    skipped += int((~usable).sum())

    order = np.argsort(every, kind="stable")
    grams, starts = np.unique(every[order], return_index=True)
    slots = 16
    while slots < 2 * len(grams):
        slots *= 2
    table, slot_of = np.zeros(slots, np.uint64), np.zeros(slots, np.int32)
    fill(grams, table, slot_of)
    first = np.append(starts, len(every)).astype(np.int32)
    sizes = np.unique(size_of).astype(np.int32)
    units = [unit for unit, *_ in facts]
    common = 0 if ordinary is None else len(ordinary)
    return Index(
        *(units, items, skipped, common, table, slot_of, first, owner[order], place[order], size_of),
        *(weights.astype(np.uint16), totals, total_weights, least, line_only, sizes),
    )


def once_a_machine(key: str, build: Callable[[], Index]) -> Index:
    """Maps the index of this key from the user's temporary directory; builds it there first if necessary.

    If the directory cannot be written or is not this user's alone, or the stored index is damaged, the process builds
    its own, identical one.
    """
    import numpy as np

    try:
        shared = temporary_directory()
    except OSError:
        return build()
    folder = os.path.join(shared, f"decontaminate-{key[:32]}")
    try:
        return _load(folder)
    except (OSError, ValueError, KeyError, EOFError):
        index = build()
    part = tempfile.mkdtemp(prefix=f"{os.path.basename(folder)}.", dir=shared)
    try:
        facts: dict[str, Any] = {"items": index.items, "skipped": index.skipped, "common": index.common, "arrays": {}}
        for name in _ARRAYS:
            array = getattr(index, name)
            np.save(os.path.join(part, f"{name}.npy"), array)
            facts["arrays"][name] = hashlib.sha256(array.tobytes()).hexdigest()
        facts["units"] = [(u.benchmark, u.item, u.field) for u in index.units]
        with open(os.path.join(part, "facts.json"), "w", encoding="utf-8") as f:
            json.dump(facts, f)
        shutil.rmtree(folder, ignore_errors=True)  # damaged, or missing
        os.rename(part, folder)
    except OSError:  # disk full, no permission, or another process was faster
        shutil.rmtree(part, ignore_errors=True)
    try:
        return _load(folder)
    except (OSError, ValueError, KeyError, EOFError):
        return index


def _load(folder: str) -> Index:
    import numpy as np

    with open(os.path.join(folder, "facts.json"), encoding="utf-8") as f:
        facts = json.load(f)
    arrays = {name: np.load(os.path.join(folder, f"{name}.npy"), mmap_mode="r") for name in _ARRAYS}
    for name, array in arrays.items():
        if hashlib.sha256(array.tobytes()).hexdigest() != facts["arrays"][name]:
            raise ValueError(f"{folder}/{name}.npy is damaged")
    units = [Unit(benchmark, item, field, "") for benchmark, item, field in facts["units"]]
    plain = {name: array.view(np.ndarray) for name, array in arrays.items()}
    return Index(units, (facts["items"][0], facts["items"][1]), facts["skipped"], facts["common"], **plain)


def key_of(files: Sequence[Sequence[str]], options: Sequence[Any]) -> str:
    """The key of an index: a hash of all its inputs, files, options and the code that builds it."""
    parts: list[Any] = [*options]
    for listed in files:
        parts.append([(path.rpartition("/")[2], _checksum(path)) for path in listed])
    parts.append(imported_code(__file__).sources)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _checksum(path: str) -> str:
    fs, inner = filesystem(path)
    with fs.open(inner, "rb") as f:
        digest = hashlib.sha256()
        while data := f.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()
