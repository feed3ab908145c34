"""Builds the n-gram index of evaluation sets, once per machine, and maps it in every process.

The index is a few flat arrays: an open-addressing table of 64-bit hashes, and for each n-gram the units that contain
it. The first process that needs it builds it in the user's temporary directory, in a folder named by a hash of all its
inputs; the others map the same pages. Names of benchmarks, item numbers and fields are stored beside it, but no
text.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from curation.core.private_directory import temporary_directory
from curation.safety.decontamination.benchmark_items import ANSWERS, SHORTEST, Unit
from curation.storage import filesystem

MEDIUM = 8  # n-gram length of units too short for the full one

_ARRAYS = ("table", "slot_of", "first", "unit_of", "totals", "sizes")


@dataclass
class Index:
    """All n-grams of all units."""

    units: list[Unit]
    skipped: int  # units that are too short
    common: int  # n-grams left out because they are common in ordinary text
    table: Any  # uint64, open addressing
    slot_of: Any  # int32: slot -> n-gram
    first: Any  # int32: n-gram -> where its units begin
    unit_of: Any  # int32
    totals: Any  # int32: distinct n-grams of each unit
    sizes: Any  # int32: lengths of n-grams in use

    @property
    def bytes(self) -> int:
        """Memory of the arrays that a lookup touches."""
        return sum(a.nbytes for a in (self.table, self.slot_of, self.first, self.unit_of, self.totals))


def build_index(units: Sequence[Unit], ngram: int, common: Callable[[Index], Any] | None = None) -> Index:
    """Hashes the units' n-grams. Deterministic in the order of the units.

    common  given the index, returns which of its n-grams (bool[n-grams]) are common in ordinary text: those are left
            out, and units that have no others
    """
    import numpy as np

    from curation.safety.decontamination.ngram_kernels import folding, ngrams, tokens

    kept: list[Unit] = []
    found: list[Any] = []
    sizes: set[int] = set()
    bounds = np.empty((0, 2), np.int64)
    for unit in units:
        data = np.frombuffer(unit.text.encode("utf-8", "replace"), np.uint8)
        token = np.empty(len(data) + 1, np.uint64)
        gram = np.empty(len(data) + 1, np.uint64)
        count = tokens(data, 0, len(data), folding(), token, bounds)
        size = ngram if count >= ngram else min(MEDIUM, ngram) if count >= MEDIUM else count
        if count < min(SHORTEST, ngram) or (size < ngram and unit.field in ANSWERS):
            continue
        found.append(np.unique(gram[: ngrams(token, count, size, gram)]))
        kept.append(unit)
        sizes.add(size)
    index = _assemble(kept, found, sizes, len(units) - len(kept), 0)
    if common is None:
        return index
    grams = np.unique(np.concatenate(found)) if found else np.empty(0, np.uint64)
    ordinary = grams[common(index)]
    found = [f[~np.isin(f, ordinary)] for f in found]
    left = [i for i, f in enumerate(found) if len(f)]
    skipped = len(units) - len(left)
    return _assemble([kept[i] for i in left], [found[i] for i in left], sizes, skipped, len(ordinary))


def _assemble(units: list[Unit], found: list[Any], sizes: set[int], skipped: int, common: int) -> Index:
    import numpy as np

    from curation.safety.decontamination.ngram_kernels import fill

    every = np.concatenate(found) if found else np.empty(0, np.uint64)
    totals = np.array([len(f) for f in found], np.int32)
    owners = np.repeat(np.arange(len(found), dtype=np.int32), totals)
    order = np.argsort(every, kind="stable")
    grams, starts = np.unique(every[order], return_index=True)
    slots = 16
    while slots < 2 * len(grams):
        slots *= 2
    table, slot_of = np.zeros(slots, np.uint64), np.zeros(slots, np.int32)
    fill(grams, table, slot_of)
    first = np.append(starts, len(every)).astype(np.int32)
    ordered = np.array(sorted(sizes), np.int32)
    return Index(units, skipped, common, table, slot_of, first, owners[order], totals, ordered)


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
        facts: dict[str, Any] = {"skipped": index.skipped, "common": index.common, "arrays": {}}
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
    return Index(units, facts["skipped"], facts["common"], **plain)


def key_of(files: Sequence[Sequence[str]], options: Sequence[Any]) -> str:
    """The key of an index: a hash of all its inputs, files, options and the code that builds it."""
    parts: list[Any] = [*options]
    for listed in files:
        parts.append([(path.rpartition("/")[2], _checksum(path)) for path in listed])
    for module in ("ngram_index", "benchmark_items", "ngram_kernels"):
        parts.append(
            hashlib.sha256(importlib.resources.files(__package__).joinpath(f"{module}.py").read_bytes()).hexdigest()
        )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _checksum(path: str) -> str:
    fs, inner = filesystem(path)
    with fs.open(inner, "rb") as f:
        digest = hashlib.sha256()
        while data := f.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()
