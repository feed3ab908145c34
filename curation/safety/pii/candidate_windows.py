"""Runs presidio's recognizers only on the parts of a text in which a match is possible: same findings, far less time.

For the six default entities window_kernel.py scans the bytes once and returns *windows*; each recognizer then reads its
windows alone. Tests check that the findings equal presidio's on the whole text.

Two limits of presidio itself: phonenumbers stops after 65,535 failed tries, so a text that could come near is given to
it whole. And the e-mail pattern takes quadratic time on a long chunk (presidio stops it after 60 seconds, wherever it
is then), so of a chunk over 20,000 bytes only the 1,000 characters on either side of each @ are searched.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from curation.safety.pii import presidio_engine
from curation.safety.pii.finding_columns import Column, Findings, Texts
from curation.safety.pii.number_context import find_nobodys, word_hashes
from curation.safety.pii.plain_number_kernel import MIN_BYTES, find_plain_numbers
from curation.safety.pii.presidio_import import import_presidio
from curation.safety.pii.telephone.phone_numbers import MAX_TRIES, find_phone_numbers
from curation.safety.pii.window_kernel import ENTITIES, character_classes, find_windows

_EMAIL, _PHONE = ENTITIES.index("EMAIL_ADDRESS"), ENTITIES.index("PHONE_NUMBER")
# With fewer groups of digits than this phonenumbers never reaches its limit of tries: a candidate costs one try, one
# for each of six ways to split it, and two for each position; a group has at most ten characters of punctuation before
# it.
_MAX_GROUPS = 65_535 // 30

_LONG_CHUNK_BYTES, _EMAIL_CONTEXT_CHARS = 20_000, 1_000


@functools.cache
def _recognizers(language: str, own: tuple[str, ...] = ()) -> dict[str, Any]:
    """presidio's predefined recognizer of each of ENTITIES, for those that have no other recognizer."""
    import_presidio()
    from presidio_analyzer import predefined_recognizers as stock

    proven = {
        "EMAIL_ADDRESS": stock.EmailRecognizer,
        "IP_ADDRESS": stock.IpRecognizer,
        "CREDIT_CARD": stock.CreditCardRecognizer,
        "US_SSN": stock.UsSsnRecognizer,
        "IBAN_CODE": stock.IbanRecognizer,
        "PHONE_NUMBER": stock.PhoneRecognizer,
    }
    registered = presidio_engine.analyzer_engine(language, own).registry.recognizers
    found: dict[str, Any] = {}
    for entity, kind in proven.items():
        candidates = [r for r in registered if entity in r.supported_entities and r.supported_language == language]
        if len(candidates) == 1 and type(candidates[0]) is kind:
            found[entity] = candidates[0]
    return found


def supported_entities(entities: list[str], language: str, own: tuple[str, ...] = ()) -> list[str]:
    """Those of `entities` that `find_in_windows` can find, in the order of ENTITIES."""
    return [e for e in ENTITIES if e in entities and e in _recognizers(language, own)]


@functools.lru_cache(maxsize=65_536)  # crawled pages repeat their numbers: two windows of five occurred before
def _findings_in_window(entity: str, language: str, window: str) -> tuple[tuple[int, int, float], ...]:
    """(start, end, score) of each finding of presidio's recognizer in a window."""
    recognizer = _recognizers(language)[entity]
    if entity == "IBAN_CODE":  # has a search of its own
        results = recognizer.remove_duplicates(recognizer.analyze(window, [entity], None) or [])
        return tuple(sorted((r.start, r.end, r.score) for r in results))
    return _pattern_findings(recognizer, window)


def _pattern_findings(recognizer: Any, window: str) -> tuple[tuple[int, int, float], ...]:
    """What PatternRecognizer.analyze finds, without its explanations of each finding (some 30 us)."""
    found: list[tuple[int, int, float]] = []
    for pattern in _compiled(recognizer):
        if pattern.name in _NEED_COLONS and "::" not in window and window.count(":") < 6:
            continue
        for match in pattern.compiled_regex.finditer(window):
            value = match.group()
            valid = recognizer.validate_result(value)
            score = pattern.score if valid is None else float(bool(valid))
            if value and score > 0 and not recognizer.invalidate_result(value):
                found.append((*match.span(), score))
    if len(found) < 2:
        return tuple(found)
    kept: list[tuple[int, int, float]] = []
    active: list[tuple[int, int, float]] = []
    for start, end, score in sorted(set(found), key=lambda f: (f[0], -f[1], -f[2])):
        active = [f for f in active if f[1] >= start]
        if not any(f[1] >= end and f[2] >= score for f in active):
            kept.append((start, end, score))
            active.append((start, end, score))
    return tuple(sorted(kept))


_NEED_COLONS = ("IPv4_mapped", "IPv4_embedded", "IPv6", "IPv6_unspecified")


@functools.cache
def _compiled(recognizer: Any) -> list[Any]:
    """The recognizer's patterns, compiled as its `analyze` does."""
    import regex

    for pattern in recognizer.patterns:
        if not pattern.compiled_regex or pattern.compiled_with_flags != recognizer.global_regex_flags:
            pattern.compiled_with_flags = recognizer.global_regex_flags
            pattern.compiled_regex = regex.compile(pattern.regex, flags=recognizer.global_regex_flags)
    return list(recognizer.patterns)


def find_in_windows(
    texts: Texts, entities: list[str], language: str, regions: tuple[str, ...] = (), context: bool = False
) -> tuple[Findings, Column]:
    """The findings in all texts; and how many numbers of each text are nobody's.

    `entities` are some of `supported_entities`. On a blank pipeline presidio's context words never raise a score,
    because there are no lemmas to compare them with; so a window needs no words around it.
    regions  of telephone numbers; none: presidio's
    context  leaves out numbers that are nobody's (number_context.py), and sets no limit to the search for telephone
             numbers; without it the findings are presidio's
    """
    windows, groups = _windows(texts, sum(1 << ENTITIES.index(e) for e in entities))
    phones = windows[:, 1] == _PHONE
    found = [*_plain_numbers(texts, windows[~phones], language)]
    if "PHONE_NUMBER" in entities:
        recognizer = _recognizers(language)["PHONE_NUMBER"]
        regions = regions or tuple(recognizer.supported_regions)
        rows = _phone_numbers(texts, windows[phones], groups, regions, 0 if context else MAX_TRIES)
        found.append((rows, np.full(len(rows), recognizer.SCORE)))
    rows, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
    findings = Findings.sort(ENTITIES, rows[:, 0], rows[:, 2], rows[:, 3], rows[:, 1], scores)
    left_out = np.zeros(len(texts), np.int64)
    if context and len(findings):
        first, last = findings.byte_positions(texts)
        kind = np.array([ENTITIES.index(e) for e in findings.entities], np.int64)[findings.entity]
        nobodys = np.zeros(len(findings), np.uint8)
        find_nobodys(texts.data, texts.offsets, findings.text, kind, first, last, word_hashes(), nobodys)
        left_out = np.bincount(findings.text[nobodys != 0], minlength=len(texts))
        findings = findings.where(nobodys == 0)
    return findings, left_out


def _windows(texts: Texts, wanted: int) -> tuple[Column, Column]:
    """Rows as find_windows fills them, and the number of groups of digits by text."""
    groups = np.zeros(len(texts), np.int64)
    windows = np.empty((1024, 5), np.int64)
    total = find_windows(texts.data, texts.offsets, character_classes(), wanted, windows, groups)
    if total > len(windows):
        windows = np.empty((total, 5), np.int64)
        find_windows(texts.data, texts.offsets, character_classes(), wanted, windows, groups)
    return windows[:total], groups


def _plain_numbers(texts: Texts, windows: Column, language: str) -> Iterator[tuple[Column, Column]]:
    """Rows (text, kind, start, end) and scores: of the kernel, then of presidio's recognizers."""
    size = int((windows[:, 3] - windows[:, 2]).sum()) // MIN_BYTES + 1
    rows, scores, left = np.empty((size, 4), np.int64), np.empty(size), np.empty(len(windows), np.uint8)
    count = find_plain_numbers(texts.data, windows, rows, scores, left)
    yield rows[:count], scores[:count]
    flat: list[int] = []
    others: list[float] = []
    data = memoryview(texts.data)  # type: ignore[arg-type,unused-ignore]  # numpy has buffers
    for d, kind, lo, hi, first in zip(*windows[left != 0].T.tolist(), strict=True):
        window = str(data[lo:hi], "utf-8")
        for piece, skipped in (
            _around_at_signs(window) if kind == _EMAIL and hi - lo > _LONG_CHUNK_BYTES else ((window, 0),)
        ):
            for start, end, score in _findings_in_window(ENTITIES[kind], language, piece):
                flat += (d, kind, first + skipped + start, first + skipped + end)
                others.append(score)
    yield np.array(flat, np.int64).reshape(-1, 4), np.array(others)


def _phone_numbers(texts: Texts, windows: Column, groups: Column, regions: tuple[str, ...], limit: int) -> Column:
    """Rows (text, kind, start, end). A text that could come near the limit of tries is one window."""
    offsets = texts.offsets
    dense = np.flatnonzero(groups > _MAX_GROUPS) if limit else np.zeros(0, np.int64)
    windows = windows[~np.isin(windows[:, 0], dense)]
    whole = np.stack([dense, np.full_like(dense, _PHONE), offsets[dense], offsets[dense + 1], np.zeros_like(dense)], 1)
    found = []
    for some, tries in ((windows, 0), (whole, limit)):
        numbers = find_phone_numbers(texts.data, np.ascontiguousarray(some[:, 2:4]), regions, tries)
        place = some[numbers[:, 0]]
        found.append(np.concatenate([place[:, :2], numbers[:, 1:] + place[:, 4:]], 1))
    return np.concatenate(found)


def _around_at_signs(chunk: str) -> list[tuple[str, int]]:
    """The text around each @ in a very long chunk, and its start; texts that touch are joined."""
    spans: list[list[int]] = []
    position = chunk.find("@")
    while position >= 0:
        lo, hi = max(0, position - _EMAIL_CONTEXT_CHARS), min(len(chunk), position + _EMAIL_CONTEXT_CHARS)
        if spans and lo <= spans[-1][1] and hi - spans[-1][0] <= _LONG_CHUNK_BYTES:
            spans[-1][1] = hi
        else:
            spans.append([lo, hi])
        position = chunk.find("@", position + 1)
    return [(chunk[lo:hi], lo) for lo, hi in spans]
