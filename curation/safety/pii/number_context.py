"""Kernel that separates numbers that are nobody's from personal ones, by their form and what is around them.

presidio looks at a number alone. In technical text most of what it then finds is a section number, a version, an ISBN,
a row of a table, a record of a season. The rules here read the bytes of the finding and the line around it:

any      part of a longer number (`.5` or `5,` beside it), of an identifier (`-`, `_`, `#`, `=` or `/` before it); after
         a word such as ISBN, PMID, section, version, order
IP       four parts that a version also has: after `v`, `nginx/`, a product's name; a heading's number at a line's start
PHONE    decimal fractions, groups of three as in 12 345 678, years and dates, times in seconds; a number between others
         of its row; groups that no numbering plan writes. A + or a word such as phone or fax before it decides for it
CARD     groups or a length that its first digits do not have; US_SSN without hyphens in a row of numbers
EMAIL    git@host:path, which is an address of a repository
"""

from __future__ import annotations

import functools
from typing import Any

import numba as nb
import numpy as np

from curation.kernels import BYTES, OFFSETS, kernel
from curation.safety.pii.telephone.telephone_word_kernel import follows_telephone_word

_EMAIL, _IP, _CARD, _SSN, _PHONE = 0, 1, 2, 3, 5  # indexes in window_kernel.ENTITIES
_MAX_GROUPS = 8
_INTS = nb.int64[::1]

# The word before a number (a number sign or `no.` between them) that says what it is.
_NUMBER_OF = """isbn issn eissn doi pmid pmc pmcid arxiv oclc lccn ean upc asin rfc cve oid bug ticket issue order
    invoice item serial part patent pat build commit section sec chapter chap figure
    fig table tab page pages pp p vol volume clause appendix paragraph article art line lines row rows record records
    note example step test tests size bytes byte length offset address_ id ids uid gid pid oids xid hash key seed value
    values code port seq sequence timestamp time epoch date year years total count sum zip postcode postal siret siren
    vat cusip vin ref reference case docket account acct number_ population"""
_TELEPHONE = """tel telephone telephones phone phones fax telefax telefon telefono telefone tlf mobile mob cell
    cellphone call calls dial hotline sms text whatsapp handy ruf office home work contact ph desk direct"""
_NUMBER = "no nr num number numbers nos"  # the word before it decides
_NETWORK = """ip ips ipv address addresses addr host hosts server servers dns nameserver nameservers gateway router
    client ping from via subnet network proxy inet peer peers node login connect connected trace
    traceroute visit user src dst source destination allow deny ban dig nslookup telnet ssh whois reach"""
_EITHER = "at on to and or by with for not is was are be use uses using try tries tried"  # "or 8.8.8.8"; "to 3.6.23.1"
_VERSION = "version ver v release revision rev"  # a number of something, as are the first ones
_COMPARED = "versions releases relative compared upgrade upgraded upgrading downgrade downgraded prior"  # to 3.6.23.1


@functools.cache
def word_hashes() -> np.ndarray[Any, np.dtype[np.int64]]:
    """Rows (hash, kind) of the words above: 1 number of, 2 telephone, 3 number, 4 network, 5 either, 6 version,
    7 compared; sorted by hash."""
    rows = [
        (_hash_word(word), kind)
        for kind, words in enumerate((_NUMBER_OF, _TELEPHONE, _NUMBER, _NETWORK, _EITHER, _VERSION, _COMPARED), 1)
        for word in words.split()
    ]
    return np.array(sorted(rows), np.int64)


def _hash_word(word: str) -> int:
    h = 0
    for c in reversed(word.encode()):  # as the kernel reads it, from its end
        h = (h * 131 + c) % (1 << 40)
    return h


@kernel(nb.types.UniTuple(nb.int64, 3)(BYTES, nb.int64, nb.int64, nb.int64[:, ::1]))  # type: ignore[no-untyped-call]
def _word_before(data, first, at, words):  # type: ignore[no-untyped-def]
    """(kind of the word that ends before `at`, its start, 1 if there is any word).

    Blanks, `:`, `.`, `#`, `(` and `-10` or `-13` of an ISBN may be between them.
    """
    i = at
    while i > first and at - i < 6 and (
        data[i - 1] == 32 or data[i - 1] == 9 or data[i - 1] == 58 or data[i - 1] == 46 or data[i - 1] == 35
        or data[i - 1] == 40 or data[i - 1] == 45 or data[i - 1] == 61 or data[i - 1] == 34 or data[i - 1] == 39
        or data[i - 1] == 0xA0 or data[i - 1] == 0xC2
    ):  # fmt: skip
        i -= 1
    if i - 3 > first and data[i - 3] == 45 and data[i - 2] == 49 and (data[i - 1] == 48 or data[i - 1] == 51):
        i -= 3
    h: Any = 0
    start = i
    while start > first and i - start < 16:
        c = np.int64(data[start - 1])
        if 65 <= c <= 90:
            c += 32
        if not (97 <= c <= 122 or c == 95):
            break
        h = (h * 131 + c) % (1 << 40)
        start -= 1
    if start == i:
        return 0, start, 1 if i > first and data[i - 1] >= 0x80 else 0
    if start > first and data[start - 1] >= 0x80:
        return 0, start, 1
    for k in range(len(words)):
        if words[k, 0] == h:
            return words[k, 1], start, 1
    return 0, start, 1


@kernel(nb.int64(BYTES, nb.int64, nb.int64, nb.int64[::1], nb.uint8[::1]))
def _groups(data, first, end, sizes, separators):  # type: ignore[no-untyped-def]
    """How many groups of digits there are: their sizes, and the first separator after each; -1 if one is not ASCII."""
    count = 0
    inside = False
    for i in range(first, end):
        c = data[i]
        if c >= 0x80:
            return -1
        if (c | 32) >= 97 or c == 59 or c == 35:  # an extension
            return count if c != 126 else _MAX_GROUPS + 1
        if 48 <= c <= 57:
            if not inside:
                if count == _MAX_GROUPS:
                    return count + 1
                sizes[count] = 0
                separators[count] = 0
                count += 1
                inside = True
            sizes[count - 1] += 1
        else:
            if inside:
                separators[count - 1] = c
            inside = False
    return count


@kernel(nb.boolean(BYTES, nb.int64, nb.int64, nb.int64, nb.int64))
def _in_a_row(data, first, end, lo, hi):  # type: ignore[no-untyped-def]
    """Whether another number is beside this one on its line, with nothing but blanks, bars, commas or semicolons
    between them."""
    i = lo - 1
    while i >= first and (data[i] == 32 or data[i] == 9 or data[i] == 124 or data[i] == 40 or data[i] == 44):
        i -= 1
    if i >= first and (
        48 <= data[i] <= 57 or ((data[i] == 41 or data[i] == 37) and i > first and 48 <= data[i - 1] <= 57)
    ):
        return True
    i = hi
    while i < end and (
        data[i] == 32 or data[i] == 9 or data[i] == 124 or data[i] == 40 or data[i] == 41 or data[i] == 44
    ):
        i += 1
    return i > hi and i < end and 48 <= data[i] <= 57


@kernel(nb.int64(BYTES, nb.int64, nb.int64))
def _number(data, first, size):  # type: ignore[no-untyped-def]
    found: Any = 0
    for i in range(first, first + size):
        found = found * 10 + (np.int64(data[i]) - 48)
    return found


@kernel(nb.boolean(BYTES, nb.int64, nb.int64))
def _closes(data, lo, hi):  # type: ignore[no-untyped-def]
    closed = False
    for i in range(lo, hi):
        closed = closed or data[i] == 41
    return closed


@kernel(nb.boolean(BYTES, nb.int64, nb.int64, nb.int64, nb.int64, nb.int64[:, ::1], nb.int64[::1], nb.uint8[::1]))
def _is_nobodys_phone(data, first, end, lo, hi, words, sizes, separators):  # type: ignore[no-untyped-def]
    kind, start, _ = _word_before(data, first, lo, words)
    if kind == 3:
        kind, start, _ = _word_before(data, first, start, words)
    i = lo
    while i > first and lo - i < 8 and (40 <= data[i - 1] <= 57 or data[i - 1] == 32):  # +41 (0)96 471 07 95
        i -= 1
        if data[i] == 43:
            return False
    if kind == 2 or data[lo] == 43 or follows_telephone_word(data, first, lo):
        return False
    n = _groups(data, lo, hi, sizes, separators)
    if n < 0:
        return False
    if kind == 1 or kind == 6 or n > 5:
        return True
    digit = lo
    while not 48 <= data[digit] <= 57:
        digit += 1
    if n == 1 or digit > lo + 1 or data[lo] == 91 or (data[lo] == 40 and not _closes(data, lo, hi)):
        return True  # bare digits are a key, a size, a time in seconds, a date
    dots = 0
    blanks = 0
    slashes = 0
    others = digit - lo  # an opening bracket
    single = 0
    threes = 0
    for g in range(n):
        single += sizes[g] == 1
        threes += g > 0 and sizes[g] == 3
        if g < n - 1:
            dots += separators[g] == 46
            blanks += separators[g] == 32
            slashes += separators[g] == 47
            others += separators[g] != 46 and separators[g] != 32
    if single > 1 or (dots and n == 2) or (dots and blanks and others == slashes):
        return True
    zero = data[digit] == 48
    if n >= 3 and threes == n - 1 and sizes[0] <= 3 and not zero and not others:
        return True  # 12 345 678
    if (sizes[0] == 4 and others == 0) or (sizes[0] == 4 and digit == lo):
        year = _number(data, digit, 4)
        if n > 1 and 1000 <= year <= 2100:
            return True
    table = _in_a_row(data, first, end, lo, hi)
    if zero:
        total = 0
        for g in range(n):
            total += sizes[g]
        return table or total < 9 or (n == 2 and sizes[0] == 5 and sizes[1] == 4)  # a ZIP code of Massachusetts
    a, b, c, d = sizes[0], sizes[1], sizes[2] if n > 2 else 0, sizes[3] if n > 3 else 0
    usual = n == 3 and (
        (a == 3 and b == 3 and c == 4) or (a == 3 and b == 4 and c == 4) or (a == 2 and b >= 4 and c == 4)
    )
    usual = usual or (n == 4 and a == 1 and b == 3 and c == 3 and d == 4) or (n == 2 and a == 3 and b == 7)
    usual = usual or (n == 2 and a == 5 and b == 5 and separators[0] == 32)
    usual = usual or (n == 4 and a == 3 and b == 3 and c == 2 and d == 2)
    usual = usual or (n == 5 and a == 1 and b == 3 and c == 3 and d == 2) or (n == 2 and a == 6 and b == 4)
    return not usual or (table and not others)


@kernel(nb.boolean(BYTES, nb.int64, nb.int64, nb.int64, nb.int64[:, ::1]))
def _is_version_before(data, first, at, major, words):  # type: ignore[no-untyped-def]
    """Whether a version or a word such as `version` or `relative` ends before `at`, for a number that begins with
    `major`: from 4.7.22 to 4.7.22.1, relative to 4.7.22.1.

    A version has two or three parts, the first at most one away: four may be an address, 24.11.10 at 8.8.8.8 is a date.
    """
    i = at
    while i > first and (data[i - 1] == 32 or data[i - 1] == 9 or data[i - 1] == 0xA0 or data[i - 1] == 0xC2):
        i -= 1
    if i == at or i <= first:
        return False
    if not 48 <= data[i - 1] <= 57:
        kind, _, _ = _word_before(data, first, i, words)
        return kind == 6 or kind == 7
    begin = i
    dots = 0
    while begin > first and i - begin < 16 and (48 <= data[begin - 1] <= 57 or data[begin - 1] == 46):
        begin -= 1
        dots += data[begin] == 46
    value: Any = 0
    k = begin
    while 48 <= data[k] <= 57 and value < 1000:
        value = value * 10 + (np.int64(data[k]) - 48)
        k += 1
    before = data[begin - 1] if begin > first else np.uint8(32)
    apart = before == 32 or before == 9 or before == 10 or before == 40 or (before | 32) == 118 or before >= 0x80
    return apart and k > begin and (dots == 1 or dots == 2) and abs(value - major) <= 1


@kernel(nb.boolean(BYTES, nb.int64, nb.int64, nb.int64, nb.int64, nb.int64[:, ::1]))
def _is_nobodys_ip(data, first, end, lo, hi, words):  # type: ignore[no-untyped-def]
    parts = 0
    small = True
    value: Any = 0
    a: Any = 0
    b: Any = 0
    for i in range(lo, hi + 1):
        c = data[i] if i < hi else np.uint8(46)
        if c == 58:
            return False  # IPv6
        if c == 47:
            return False  # a network, 1.2.3.0/24
        if c == 46:
            parts += 1
            small = small and value < 48
            if parts == 1:
                a = value
            elif parts == 2:
                b = value
            value = 0
        else:
            value = value * 10 + (np.int64(c) - 48)
    after = data[hi] if hi < end else np.uint8(10)
    if (
        after == 45
        or after == 95
        or (after == 46 and hi + 1 < end and (data[hi + 1] | 32) >= 97 and (data[hi + 1] | 32) <= 122)
    ):
        return True  # 1.2.3.4-rc1, 1.2.3.4.tar
    if lo > first:
        c = data[lo - 1]
        if c == 45 or c == 95:
            return True
        if c == 47 and lo - 1 > first and data[lo - 2] != 47:  # nginx/1.25.3.1, but http://1.25.3.1
            return True
        alone = lo - 2 == first or not (46 <= data[lo - 3] <= 58)
        if c == 58 and small and lo - 1 > first and 48 <= data[lo - 2] <= 57 and alone:
            return True  # a Debian version with its epoch, 1:2.12.2.2
    if after == 58 and hi + 1 < end and 48 <= data[hi + 1] <= 57:
        return False  # with a port
    line = lo
    while (
        line > first
        and data[line - 1] != 10
        and (data[line - 1] == 32 or data[line - 1] == 9 or data[line - 1] == 35 or data[line - 1] == 42)
    ):
        line -= 1
    if line == first or data[line - 1] == 10:
        i = hi
        while i < end and (data[i] == 32 or data[i] == 9 or data[i] == 46 or data[i] == 41):
            i += 1
        return small and (i > hi and i < end and data[i] != 10 and not 48 <= data[i] <= 57)
    kind, start, word = _word_before(data, first, lo, words)
    if kind == 1 or kind == 6:
        return True
    if kind == 4 or kind == 2:
        return False
    if kind == 5:
        # "Connect to 8.8.8.8" has such parts too: what the word joins has to be a version
        return small and a <= 30 and _is_version_before(data, first, start, a, words)
    # a version after the name of its product or a date: lib3 12.7.45.67, 2011-06-28 (3.7.7.1), Abschnitt 6.3.4.2
    before = data[lo - 1]
    if before == 46:
        return True
    if (before == 32 or before == 9 or before == 40 or before >= 0x80) and a <= 30 and b <= 30:
        i = lo - 1
        while i > first and (data[i] == 32 or data[i] == 9 or data[i] == 40 or data[i] == 0xA0 or data[i] == 0xC2):
            i -= 1
        if before == 32 and 48 <= data[i] <= 57:  # lib3 has a letter, the number before in a list has none
            while i > first and 48 <= data[i] <= 57:
                i -= 1
            return 97 <= (data[i] | 32) <= 122
        return (word == 1 and data[i] != 58) or 48 <= data[i] <= 57
    return False


@kernel(nb.boolean(BYTES, nb.int64, nb.int64, nb.int64, nb.int64, nb.int64[:, ::1], nb.int64[::1], nb.uint8[::1]))
def _is_nobodys_card(data, first, end, lo, hi, words, sizes, separators):  # type: ignore[no-untyped-def]
    kind, _, _ = _word_before(data, first, lo, words)
    n = _groups(data, lo, hi, sizes, separators)
    if kind == 1 or kind == 6:
        return True
    if n < 1:
        return False
    if n > 1:
        fours = n == 4 and sizes[0] == 4 and sizes[1] == 4 and sizes[2] == 4 and sizes[3] == 4
        return not fours and not (n == 3 and sizes[0] == 4 and sizes[1] == 6)
    two = _number(data, lo, 2)
    size = sizes[0]
    if two == 34 or two == 37:  # the first digits of issuers, and how long their numbers are (ISO/IEC 7812)
        return size != 15
    if two == 30 or two == 36 or two == 38 or two == 39:
        return size != 14 and size != 16
    if two // 10 == 4:
        return size != 13 and size != 16
    if two // 10 == 1:
        return size != 15 or _number(data, lo, 4) != 1800
    return (two < 50 and two != 35) or (two != 50 and two < 56 and size != 16)


@kernel((BYTES, OFFSETS, _INTS, _INTS, _INTS, _INTS, nb.int64[:, ::1], nb.uint8[::1]))
def find_nobodys(data, offsets, text, kinds, starts, ends, words, nobodys):  # type: ignore[no-untyped-def]
    """Sets nobodys[i] to 1 if finding i, data[starts[i]:ends[i]] of a text, is nobody's. `kinds` as in ENTITIES."""
    sizes = np.zeros(_MAX_GROUPS + 1, np.int64)
    separators = np.zeros(_MAX_GROUPS + 1, np.uint8)
    for row in range(len(text)):
        kind = kinds[row]
        first = offsets[text[row]]
        end = offsets[text[row] + 1]
        lo = starts[row]
        hi = ends[row]
        said: Any = False
        if kind == _EMAIL:
            # git@host:path; of a mail address only a blank or the end of a sentence follows a colon
            said = hi + 1 < end and data[hi] == 58 and (data[hi + 1] > 32 and data[hi + 1] < 0x80)
            said = said and hi - lo > 4 and data[lo + 3] == 64 and data[lo] == 103 and data[lo + 1] == 105
        elif kind in (_IP, _CARD, _SSN, _PHONE):
            b = data[lo - 1] if lo > first else np.uint8(10)
            b2 = data[lo - 2] if lo - 1 > first else np.uint8(10)
            a = data[hi] if hi < end else np.uint8(10)
            a2 = data[hi + 1] if hi + 1 < end else np.uint8(10)
            said = (b == 46 or b == 44) and 48 <= b2 <= 57
            said = said or ((a == 46 or a == 44) and 48 <= a2 <= 57)
            if not said and kind != _IP and data[lo] != 43:
                letter = 97 <= (b2 | 32) <= 122 or 48 <= b2 <= 57
                said = b == 58 and 48 <= b2 <= 57  # 11:59:44 2008
                said = said or b == 95 or b == 35 or ((b == 45 or b == 47 or b == 61) and letter) or b == 36
                said = said or a == 95 or ((a == 45 or a == 61) and 48 <= a2 <= 57)
            if said and kind == _PHONE and b != 46 and b != 44:  # tel=..., phone-212...
                said = _word_before(data, first, lo, words)[0] != 2
            if not said:
                if kind == _PHONE:
                    said = _is_nobodys_phone(data, first, end, lo, hi, words, sizes, separators)
                elif kind == _IP:
                    said = _is_nobodys_ip(data, first, end, lo, hi, words)
                elif kind == _CARD:
                    said = _is_nobodys_card(data, first, end, lo, hi, words, sizes, separators)
                else:
                    kind_before = _word_before(data, first, lo, words)[0]
                    said = kind_before == 1 or kind_before == 6
                    said = said or (data[lo + 3] != 45 and _in_a_row(data, first, end, lo, hi))
        nobodys[row] = said
