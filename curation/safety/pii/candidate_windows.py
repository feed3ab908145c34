"""presidio's findings without presidio reading every character: where could a match be, and no more is shown to it.

For the six default entities a kernel scans the bytes once and cuts out *windows*: stretches that hold everything a
match of one recognizer could consist of, and all that its look-around may ask for. The recognizer then sees the
windows alone. The scan can only select too much; that it never loses or changes a finding rests on this, checked
against presidio in the tests:

EMAIL_ADDRESS, IP_ADDRESS  no pattern matches white space, and before and after a match white space counts as the end of
        the text does. Window: a chunk between white space that has an `@`; for addresses `::`, six colons, or three
        dots with a digit. (`::` and digits alone would miss `fe:ed:be:ef:ca:fe:ba:be`.)
CREDIT_CARD  decimal digits of any script, `-` and space. Window: a run of those with 13 digits or more.
US_SSN  ASCII digits, `-`, `.` and space: a run with 9 digits or more.
IBAN_CODE  letters A to Z of either case, 0-9, `-` and space: a run of 12 letters and digits or more, somewhere two
        letters and then two digits.
PHONE_NUMBER  phonenumbers' pattern has digits, punctuation and the words for "extension" in it. Window: a run without
        newlines, without letters that no such word has, and without other symbols; within it a run of digits and
        number punctuation with 4 digits or more (`1640` is a valid German number, nothing shorter is anywhere).
The last four look at the one character before and after the run (is it a letter?), so windows include it.

Two limits of presidio itself: phonenumbers gives up on a text after 65,535 failed tries. A text that could come near
is shown to it whole. And the e-mail pattern takes quadratic time on a long chunk (presidio stops it after 60 seconds,
wherever it is then): of a chunk over 20,000 bytes only the 1,000 characters on either side of each @ are looked at.
"""

from __future__ import annotations

import functools
from typing import Any

import numba as nb
import numpy as np

from curation.kernels import BYTES, OFFSETS, kernel
from curation.safety.pii import phone_numbers, presidio_engine

ENTITIES = ("EMAIL_ADDRESS", "IP_ADDRESS", "CREDIT_CARD", "US_SSN", "IBAN_CODE", "PHONE_NUMBER")
_EMAIL, _IP, _CARD, _SSN, _IBAN, _PHONE = range(6)

# Characters by what they can be part of; a character that is not in the class of a kind ends its windows.
_CHUNK, _CARDS, _SSNS, _IBANS, _PHONES = 1, 2, 4, 8, 16
_NUMBER = 32  # phonenumbers' digits and punctuation: what a number itself consists of
_DIGIT, _ASCII_DIGIT = 64, 128

# phonenumbers' VALID_PUNCTUATION and leading characters, from its documentation of the pattern.
_PHONE_PUNCTUATION = "-xX‐‑‒–—―−ー－．／ \xa0\xad\u200b\u2060\u3000()（）［］.[]/~⁓∼～+＋"
_EXTENSION_LETTERS = "aeinostxAEINOSTX"  # of ext, extension, int, anexo
_NOT_IN_PHONES = "$%&*!\"'<>?@_{|}^`\\\n\r\v\f\x1c\x1d\x1e\x1f\x85\u2028\u2029"
# Groups of digits in a text that phonenumbers surely does not give up on: a candidate costs a try, one for each of six
# ways to cut it, and two for each place to cut; a group has at most ten characters of punctuation before it.
_MAX_GROUPS = 65_535 // 30

_LONG_CHUNK, _EMAIL_REACH = 20_000, 1_000


@functools.cache
def _classes() -> np.ndarray[Any, np.dtype[np.uint8]]:
    import sys
    import unicodedata

    import regex

    table = np.full(sys.maxunicode + 1, _CHUNK | _PHONES, np.uint8)
    for c in "\t\n\v\f\r ":
        table[ord(c)] &= ~np.uint8(_CHUNK)
    for c in _NOT_IN_PHONES:
        table[ord(c)] &= ~np.uint8(_PHONES)
    # presidio's registry makes every pattern ignore case; [A-Z] then is also ſ, K and more: regex itself says which.
    characters = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x20000))))
    for c in regex.findall("[A-Z0-9]", characters, flags=regex.IGNORECASE):
        table[ord(c)] |= _IBANS
    for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        for letter in (c, c.lower()):
            if letter not in _EXTENSION_LETTERS:
                table[ord(letter)] &= ~np.uint8(_PHONES)
    for code in (*range(0x20000), *range(0xE0000, 0xE0200)):
        if unicodedata.category(chr(code)) == "Nd":
            table[code] |= _DIGIT | _CARDS | _NUMBER
    for c in "0123456789":
        table[ord(c)] |= _ASCII_DIGIT | _SSNS
    for c in "- ":
        table[ord(c)] |= _CARDS | _SSNS | _IBANS
    table[ord(".")] |= _SSNS
    for c in _PHONE_PUNCTUATION:
        table[ord(c)] |= _NUMBER
    return table


@kernel((BYTES, OFFSETS, nb.uint8[::1], nb.int64, nb.int64[:, ::1], nb.int64[::1]))
def scan(data, offsets, table, wanted, windows, groups):  # type: ignore[no-untyped-def]
    """Finds the windows of all texts; returns how many. Text d is data[offsets[d]:offsets[d + 1]].

    wanted   bit k: look for windows of kind k
    windows  filled with rows (text, kind, first byte, byte after the last, number of the first character); where the
             count returned exceeds its length, only that many were stored
    groups   filled with the number of groups of digits in each text
    """
    total = 0
    for d in range(len(offsets) - 1):
        hi = offsets[d + 1]
        i = offsets[d]
        n = 0  # characters so far
        # Beginning (byte, character) of the current run of each kind, the character before included where there is one.
        chunk = i
        chunk_n = 0
        at = False
        colons = 0
        double = False
        dots = 0
        digits = 0
        card = i
        card_n = 0
        cards = 0
        ssn = i
        ssn_n = 0
        ssns = 0
        iban = i
        iban_n = 0
        ibans = 0
        opening = 0  # two letters, two digits: how far we are
        opened = False
        phone = i
        phone_n = 0
        phones = 0
        number = False
        last = 0  # the previous character
        groups[d] = 0
        while i <= hi:
            begin = i
            c: Any = 0
            size = 0
            f = 0  # after the last character: ends everything
            if i < hi:
                c = np.int64(data[i])
                size = 1
                if c >= 0xF0:
                    c = ((c & 7) << 18) | ((np.int64(data[i + 1]) & 63) << 12)
                    c |= ((np.int64(data[i + 2]) & 63) << 6) | (np.int64(data[i + 3]) & 63)
                    size = 4
                elif c >= 0xE0:
                    c = ((c & 15) << 12) | ((np.int64(data[i + 1]) & 63) << 6) | (np.int64(data[i + 2]) & 63)
                    size = 3
                elif c >= 0x80:
                    c = ((c & 31) << 6) | (np.int64(data[i + 1]) & 63)
                    size = 2
                f = table[c]
            after = min(begin + size, hi)
            if f & 1:
                if c == 64:
                    at = True
                elif c == 58:
                    colons += 1
                    double = double or (last == 58 and begin > chunk)
                elif c == 46:
                    dots += 1
                elif f & 128:
                    digits += 1
            else:
                if at and wanted & 1:
                    if total < len(windows):
                        windows[total, 0] = d
                        windows[total, 1] = 0
                        windows[total, 2] = chunk
                        windows[total, 3] = begin
                        windows[total, 4] = chunk_n
                    total += 1
                if wanted & 2 and (double or colons >= 6 or (dots >= 3 and digits >= 4)):
                    if total < len(windows):
                        windows[total, 0] = d
                        windows[total, 1] = 1
                        windows[total, 2] = chunk
                        windows[total, 3] = begin
                        windows[total, 4] = chunk_n
                    total += 1
                chunk = after
                chunk_n = n + 1
                at = False
                colons = 0
                double = False
                dots = 0
                digits = 0
            if f & 2:
                if f & 64:
                    cards += 1
                    if not (last < 1114112 and table[last] & 64):
                        groups[d] += 1
            else:
                if cards >= 13 and wanted & 4:
                    if total < len(windows):
                        windows[total, 0] = d
                        windows[total, 1] = 2
                        windows[total, 2] = card
                        windows[total, 3] = after
                        windows[total, 4] = card_n
                    total += 1
                card = begin
                card_n = n
                cards = 0
            if f & 4:
                if f & 128:
                    ssns += 1
            else:
                if ssns >= 9 and wanted & 8:
                    if total < len(windows):
                        windows[total, 0] = d
                        windows[total, 1] = 3
                        windows[total, 2] = ssn
                        windows[total, 3] = after
                        windows[total, 4] = ssn_n
                    total += 1
                ssn = begin
                ssn_n = n
                ssns = 0
            if f & 8:
                if c != 45 and c != 32:
                    ibans += 1
                    if f & 128:
                        opening = opening + 1 if opening >= 2 else 0
                        opened = opened or opening == 4
                        if opening == 4:
                            opening = 0
                    else:
                        opening = min(opening + 1, 2) if opening <= 2 else 1
                else:
                    opening = 0
            else:
                if ibans >= 12 and opened and wanted & 16:
                    if total < len(windows):
                        windows[total, 0] = d
                        windows[total, 1] = 4
                        windows[total, 2] = iban
                        windows[total, 3] = after
                        windows[total, 4] = iban_n
                    total += 1
                iban = begin
                iban_n = n
                ibans = 0
                opening = 0
                opened = False
            if f & 32:
                if f & 64:
                    phones += 1
                    number = number or phones >= 4
            else:
                phones = 0
            if not f & 16:
                if number and wanted & 32:
                    if total < len(windows):
                        windows[total, 0] = d
                        windows[total, 1] = 5
                        windows[total, 2] = phone
                        windows[total, 3] = after
                        windows[total, 4] = phone_n
                    total += 1
                phone = begin
                phone_n = n
                number = False
            last = c
            i = begin + size if size else hi + 1
            n += 1
    return total


@functools.cache
def _recognizers(language: str, own: tuple[str, ...] = ()) -> dict[str, Any]:
    """presidio's stock recognizer of each entity that windows are proven for, where it is the only one."""
    from presidio_analyzer import predefined_recognizers as stock

    proven = {
        "EMAIL_ADDRESS": stock.EmailRecognizer,
        "IP_ADDRESS": stock.IpRecognizer,
        "CREDIT_CARD": stock.CreditCardRecognizer,
        "US_SSN": stock.UsSsnRecognizer,
        "IBAN_CODE": stock.IbanRecognizer,
        "PHONE_NUMBER": stock.PhoneRecognizer,
    }
    registered = presidio_engine.engine(language, own).registry.recognizers
    found: dict[str, Any] = {}
    for entity, kind in proven.items():
        candidates = [r for r in registered if entity in r.supported_entities and r.supported_language == language]
        if len(candidates) == 1 and type(candidates[0]) is kind:
            found[entity] = candidates[0]
    return found


def windowed(entities: list[str], language: str, own: tuple[str, ...] = ()) -> list[str]:
    """Those of the entities that `find_all` can find, in the order of ENTITIES."""
    return [e for e in ENTITIES if e in entities and e in _recognizers(language, own)]


@functools.lru_cache(maxsize=65_536)  # crawled pages repeat their numbers: two windows of five have been seen before
def _findings(entity: str, language: str, window: str) -> tuple[tuple[int, int, float], ...]:
    """What presidio's recognizer finds in a window."""
    recognizer = _recognizers(language)[entity]
    results: Any = None
    if entity == "PHONE_NUMBER":
        from presidio_analyzer import RecognizerResult

        spans = phone_numbers.find(window, tuple(recognizer.supported_regions), recognizer.leniency)
        if spans is not None:
            results = [RecognizerResult(entity, start, end, recognizer.SCORE) for start, end in sorted(spans)]
    if results is None:
        results = recognizer.analyze(window, [entity], None) or []
    results = recognizer.remove_duplicates(results)
    return tuple(sorted((r.start, r.end, r.score) for r in results))


def find_all(
    data: np.ndarray[Any, Any], offsets: np.ndarray[Any, Any], entities: list[str], language: str
) -> list[list[tuple[int, int, str, float]]]:
    """For each text (data[offsets[d]:offsets[d + 1]], UTF-8) its findings (start, end, entity, score), sorted.

    `entities` are some of `windowed`'s. Positions are in characters. On a blank pipeline presidio's context words never
    raise a score, as there are no lemmas to compare them with; so a window needs no words around it.
    """
    found: list[list[tuple[int, int, str, float]]] = [[] for _ in range(len(offsets) - 1)]
    wanted = sum(1 << ENTITIES.index(e) for e in entities)
    windows = np.empty((1024, 5), np.int64)
    groups = np.empty(len(found), np.int64)
    total = scan(data, offsets, _classes(), wanted, windows, groups)
    if total > len(windows):
        windows = np.empty((total, 5), np.int64)
        scan(data, offsets, _classes(), wanted, windows, groups)
    dense = set()
    if "PHONE_NUMBER" in entities:
        dense = set(np.flatnonzero(groups > _MAX_GROUPS).tolist())
        for d in sorted(dense):
            whole = bytes(data[offsets[d] : offsets[d + 1]]).decode()
            for start, end, score in _findings.__wrapped__("PHONE_NUMBER", language, whole):
                found[d].append((start, end, "PHONE_NUMBER", score))
    for d, kind, lo, hi, first in windows[:total].tolist():
        if kind == _PHONE and d in dense:
            continue
        window = bytes(data[lo:hi]).decode()
        entity = ENTITIES[kind]
        for piece, skipped in _pieces(window) if kind == _EMAIL and hi - lo > _LONG_CHUNK else ((window, 0),):
            for start, end, score in _findings(entity, language, piece):
                found[d].append((first + skipped + start, first + skipped + end, entity, score))
    return [sorted(set(f)) for f in found]


def _pieces(chunk: str) -> list[tuple[str, int]]:
    """The surroundings of each @ in a very long chunk, and where they begin; those that touch are one."""
    spans: list[list[int]] = []
    position = chunk.find("@")
    while position >= 0:
        lo, hi = max(0, position - _EMAIL_REACH), min(len(chunk), position + _EMAIL_REACH)
        if spans and lo <= spans[-1][1] and hi - spans[-1][0] <= _LONG_CHUNK:
            spans[-1][1] = hi
        else:
            spans.append([lo, hi])
        position = chunk.find("@", position + 1)
    return [(chunk[lo:hi], lo) for lo, hi in spans]
