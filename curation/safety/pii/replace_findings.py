"""Replaces findings in all texts of a batch at once, and describes them: which are acted on, how they merge, new texts.

The rules for one finding are in actions.py; kernels apply them where texts have many (finding_kernels.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation.safety.pii.actions import MIN_SCORE, Action, is_personal, replacement
from curation.safety.pii.finding_columns import Column, Findings, Texts

SPARED = "spared"


def to_replace(found: Findings, texts: Texts) -> Column:
    """Whether each finding is replaced. Digits inside an IP address are not a telephone number."""
    from curation.safety.pii import finding_kernels as kernels

    kinds = {
        "IP_ADDRESS": kernels.ADDRESS,
        "PHONE_NUMBER": kernels.TELEPHONE,
        "EMAIL_ADDRESS": kernels.ASKED,
    }
    kind = np.array([kinds.get(e, kernels.OTHER) for e in found.entities], np.int64)[found.entity]
    first, last = found.byte_positions(texts)
    said = np.empty(len(found), np.uint8)
    kernels.find_personal(texts.data, first, last, kind, found.score, MIN_SCORE, said)
    kernels.leave_out_inside_addresses(found.text, found.start, found.end, kind, found.score, MIN_SCORE, said)
    asked = np.flatnonzero(said == kernels.ASK)
    values = _values(texts, first[asked], last[asked])
    for f, value, entity in zip(asked.tolist(), values, found.entity[asked].tolist(), strict=True):
        said[f] = is_personal(found.entities[entity], value, MIN_SCORE)
    personal: npt.NDArray[np.bool_] = said == kernels.PERSONAL
    return personal


def _values(texts: Texts, first: Column, last: Column) -> list[str]:
    data = memoryview(texts.data)  # type: ignore[arg-type,unused-ignore]  # numpy has buffers
    return [str(data[lo:hi], "utf-8") for lo, hi in zip(first.tolist(), last.tolist(), strict=True)]


def merge_overlaps(found: Findings) -> Findings:
    """Findings without overlaps: overlapping ones become one over all of them, with the entity of the best.

    The best has the highest score, then is the longest, then comes first in the text and in the alphabet. The union is
    taken, so that no part of a value remains next to the mask of another.
    """
    from curation.safety.pii.finding_kernels import merge

    columns = [c.copy() for c in found.columns]
    count = merge(*columns)
    return Findings(found.entities, *(c[:count] for c in columns))


def replace_in_texts(
    texts: Texts,
    merged: Findings,
    actions: Mapping[str, Action],
    key: bytes,
    values: Mapping[tuple[int, int, int, int, float], str] | None = None,
) -> pa.LargeStringArray:
    """All texts with the findings, which do not overlap, replaced.

    values   of findings whose value is not what the text has (it is escaped there); only pseudonyms depend on it
    """
    from curation.safety.pii.finding_kernels import write_replaced

    first, last = merged.byte_positions(texts)
    by_entity = [actions.get(e, "mask") for e in merged.entities]
    pieces = [
        replacement(e, "", a, key) if a != "pseudonym" else "" for e, a in zip(merged.entities, by_entity, strict=True)
    ]
    which = merged.entity.copy()
    own = np.flatnonzero(np.array([a == "pseudonym" for a in by_entity], bool)[merged.entity])
    for f, value in zip(own.tolist(), _values(texts, first[own], last[own]), strict=True):
        entity = int(merged.entity[f])
        if values:
            place = (int(merged.text[f]), int(merged.start[f]), int(merged.end[f]), entity, float(merged.score[f]))
            value = values.get(place, value)
        which[f] = len(pieces)
        pieces.append(replacement(merged.entities[entity], value, "pseudonym", key))
    encoded = [p.encode() for p in pieces]
    ends = np.cumsum([0, *map(len, encoded)])
    size = int(texts.offsets[-1] - texts.offsets[0] - (last - first).sum() + np.diff(ends)[which].sum())
    out, offsets = np.empty(size, np.uint8), np.empty(len(texts) + 1, np.int64)
    joined = np.frombuffer(b"".join(encoded), np.uint8)
    write_replaced(texts.data, texts.offsets, merged.text, first, last, which, joined, ends, out, offsets)
    return pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(out))


def describe_spans(
    found: Findings, acted_on: Column, merged: Findings, actions: Mapping[str, Action], count: int
) -> tuple[list[str | None], Column]:
    """By text (`count` of them): JSON of [entity, start, end, action] of what was replaced and what was spared; and how
    many findings were spared."""
    same = np.zeros(len(found), bool)  # as the finding before, but for its score
    same[1:] = np.logical_and.reduce([c[1:] == c[:-1] for c in (found.text, found.start, found.end, found.entity)])
    group = np.cumsum(~same) - 1
    spared = found.where(np.bincount(group, weights=acted_on)[group] == 0 if len(found) else acted_on)
    text, start, end, entity = (
        np.concatenate([getattr(merged, c), getattr(spared, c)]) for c in ("text", "start", "end", "entity")
    )
    what = np.concatenate([merged.entity, spared.entity + len(found.entities)])
    order = np.lexsort([np.arange(len(what)), entity, end, start, text])
    heads = [f'["{e}",' for e in found.entities] * 2
    tails = [f',"{actions.get(e, "mask")}"]' for e in found.entities] + [f',"{SPARED}"]'] * len(found.entities)
    pieces = [
        f"{heads[w]}{lo},{hi}{tails[w]}"
        for w, lo, hi in zip(what[order].tolist(), start[order].tolist(), end[order].tolist(), strict=True)
    ]
    ends = np.searchsorted(text[order], np.arange(count + 1)).tolist()
    rows = [f"[{','.join(pieces[lo:hi])}]" if lo < hi else None for lo, hi in itertools.pairwise(ends)]
    return rows, np.bincount(spared.text, minlength=count)
