"""Kernels that read HTML tags: what attributes say, where verbatim content ends, how many tags are open at once.

Names are compared by their 64-bit FNV-1a hash (Fowler, Noll and Vo), computed while the bytes are read: from
14695981039346656037 on, h = (h xor byte) * 1099511628211 mod 2^64. An element is hidden when an attribute says so:
`hidden`, `aria-hidden="true"`, `style="display: none"`, a class for the sign of a link or for line numbers, or a role
that is not content. A panel of tabs or a folded section is not hidden: what shows is a matter of the reader's choice.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from curation.kernels import BYTES, kernel

# What a tag is
INLINE, VOID, NEVER, RAW, ANCHOR, BR, PRE, BODY, CELL, HEADING, BUTTON, MATH, MAY_BE_MATH, SCRIPTED = (
    1 << bit for bit in range(14)
)

_FNV_OFFSET_BASIS, _FNV_PRIME = 14695981039346656037, 1099511628211  # FNV-1a, 64 bits


def fnv1a(text: str) -> int:
    """FNV-1a of a name, as the kernels compute it."""
    h = _FNV_OFFSET_BASIS
    for byte in text.encode():
        h = ((h ^ byte) * _FNV_PRIME) & 0xFFFFFFFFFFFFFFFF
    return h


_MIX_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
FNV_START, FNV_PRIME = np.uint64(_FNV_OFFSET_BASIS), np.uint64(_FNV_PRIME)
_HIDDEN_ATTRIBUTE, _ARIA, _STYLE, _ROLE, _CLASS = (
    np.uint64(fnv1a(n)) for n in ("hidden", "aria-hidden", "style", "role", "class")
)
_HREF, _TRUE, _TABPANEL, _TEX, _DATA_TEX, _DATA_LATEX = (
    np.uint64(fnv1a(n)) for n in ("href", "true", "tabpanel", "tex", "data-tex", "data-latex")
)
_REGION = np.uint64(fnv1a("region"))
_ID, _ARIA_EXPANDED = np.uint64(fnv1a("id")), np.uint64(fnv1a("aria-expanded"))
_NAMING_NAMES = """
class id role itemprop data-component data-testid
"""
_NAMING_ATTRIBUTES = np.array(sorted(fnv1a(n) for n in _NAMING_NAMES.split()), np.uint64)
_NUMBER_NAMES = """
colspan rowspan start value reversed
"""
_NUMBER_ATTRIBUTES = np.array(sorted(fnv1a(n) for n in _NUMBER_NAMES.split()), np.uint64)
# Classes of what a page shows beside its text: the sign of a heading's link, numbers of code lines (Pygments, GitHub)
_HIDDEN_NAMES = """
headerlink anchor-link hash-link linenos lineno linenodiv linenumber line-number blob-num lnt
"""
# Classes of elements whose white space is code: a line of GitHub's, CodeMirror's and Monaco's code views
_VERBATIM_NAMES = """
blob-code blob-code-inner react-code-text codemirror-line cm-line view-line
"""
_HIDDEN_CLASSES = np.array(sorted(fnv1a(n) for n in _HIDDEN_NAMES.split()), np.uint64)
_VERBATIM_CLASSES = np.array(sorted(fnv1a(n) for n in _VERBATIM_NAMES.split()), np.uint64)
_ASIDE_NAMES = """
navigation search dialog menu menubar toolbar alert banner contentinfo
"""
_ASIDE_ROLES = np.array(sorted(fnv1a(n) for n in _ASIDE_NAMES.split()), np.uint64)

HAS_HREF, IS_HIDDEN, HAS_NAME, IS_VERBATIM, HAS_NUMBER, HAS_MATH, UNFOLDS = 1, 2, 4, 8, 16, 32, 64


@kernel((BYTES, nb.int64, nb.int64))
def is_display_none(data, i, hi):  # type: ignore[no-untyped-def]
    """Whether a style says `display: none`."""
    while i + 12 <= hi:
        if data[i] | 32 == 100 and data[i + 7] == 58:
            same = True
            for k, c in enumerate((100, 105, 115, 112, 108, 97, 121)):
                same = same and data[i + k] | 32 == c
            j = i + 8
            while j < hi and (data[j] == 32 or 9 <= data[j] <= 13):
                j += 1
            if same and j + 4 <= hi:
                for k, c in enumerate((110, 111, 110, 101)):
                    same = same and data[j + k] | 32 == c
                if same:
                    return True
        i += 1
    return False


@kernel((BYTES, nb.int64, nb.int64))
def tag_end(data, i, n):  # type: ignore[no-untyped-def]
    """Position of the `>` that ends the tag at i, or n. A quote opens a value only after `=`: names of attributes can
    hold quotes (`<img alt="5" screen">` has one named `screen"`). A `=` that begins a name belongs to the name."""
    while i < n and data[i] != 62:
        if data[i] == 61 and i + 1 < n and data[i + 1] == 34 and not (data[i - 1] == 32 or 9 <= data[i - 1] <= 13):
            i += 2
            while i < n and data[i] != 34:
                i += 1
        i += 1
    return min(i, n)


@kernel((BYTES, nb.int64, nb.int64))
def names_math(data, i, hi):  # type: ignore[no-untyped-def]
    """Whether [i, hi) holds what programs that set formulas write: `math`, `formula`, `latex`, `katex`, `mimetex`."""
    while i + 4 <= hi:
        c = data[i] | 32
        d = data[i + 1] | 32
        if c == 109 and d == 97 and data[i + 2] | 32 == 116 and data[i + 3] | 32 == 104:  # math
            return True
        tex = (c == 97 or c == 101) and d == 116 and data[i + 2] | 32 == 101 and data[i + 3] | 32 == 120
        if tex and (i + 4 == hi or data[i + 4] | 32 != 116):  # -atex or -etex, but not of `text`
            return True
        if c == 109 and d == 117 and data[i + 2] | 32 == 108 and data[i + 3] | 32 == 97:  # -mula
            return True
        i += 1
    return False


@kernel((BYTES, nb.int64, nb.int64))
def names_fold(data, i, hi):  # type: ignore[no-untyped-def]
    """Whether the class in [i, hi) is of a section that readers fold (`accor`, `colla`, `faq`) and not of its icon."""
    folds = False
    while i + 3 <= hi:
        c, d, e = data[i] | 32, data[i + 1] | 32, data[i + 2] | 32
        if c == 105 and d == 99 and e == 111:  # ico
            return False
        if c == 102 and d == 97 and e == 113:
            folds = True
        if i + 5 <= hi:
            f, g = data[i + 3] | 32, data[i + 4] | 32
            if c == 97 and d == 99 and e == 99 and f == 111 and g == 114:
                folds = True
            if c == 99 and d == 111 and e == 108 and f == 108 and g == 97:
                folds = True
        i += 1
    return folds


@kernel((BYTES, nb.int64, nb.int64))
def read_attribute(data, i, hi):  # type: ignore[no-untyped-def]
    """The attribute of which the first letter is at i: a hash of its name; where its value begins and ends, -1 and -1
    if it has none; the place after it."""
    name = (FNV_START ^ np.uint64(data[i])) * FNV_PRIME
    i += 1
    while i < hi and data[i] != 61 and data[i] != 32:
        name = (name ^ np.uint64(data[i])) * FNV_PRIME
        i += 1
    if i >= hi or data[i] != 61:
        return name, -1, -1, i
    i += 1
    if i < hi and data[i] == 34:
        i += 1
    lo = i
    while i < hi and data[i] != 34:
        i += 1
    return name, lo, i, i + 1


@kernel((BYTES, nb.int64, nb.int64))
def parse_attributes(data, i, hi):  # type: ignore[no-untyped-def]
    """Flags of the attributes in [i, hi): HAS_HREF, IS_HIDDEN, HAS_NAME (a class, id or the like), IS_VERBATIM,
    HAS_NUMBER (a span of cells or the number of a list item), HAS_MATH (a class or attribute that formulas have),
    UNFOLDS (what it controls is folded or unfolded by it)."""
    attribute_flags = 0
    is_panel = False
    while i < hi:
        if data[i] == 32 or 9 <= data[i] <= 13:
            i += 1
            continue
        name, lo, end, i = read_attribute(data, i, hi)
        if name == _HREF:
            attribute_flags |= HAS_HREF
        elif name == _HIDDEN_ATTRIBUTE:
            attribute_flags |= IS_HIDDEN
        elif name == _STYLE:
            if is_display_none(data, lo, end):
                attribute_flags |= IS_HIDDEN
        elif name == _CLASS:
            attribute_flags |= HAS_NAME
            is_panel = is_panel or names_fold(data, lo, end)
            if names_math(data, lo, end):
                attribute_flags |= HAS_MATH
            value = FNV_START
            for k in range(lo, end + 1):
                c = data[k] if k < end else 32
                if c != 32 and not 9 <= c <= 13:
                    value = (value ^ np.uint64(c | 32 if 65 <= c <= 90 else c)) * FNV_PRIME
                    continue
                if value == _TEX:
                    attribute_flags |= HAS_MATH
                for m in range(len(_HIDDEN_CLASSES)):
                    if _HIDDEN_CLASSES[m] == value:
                        attribute_flags |= IS_HIDDEN
                for m in range(len(_VERBATIM_CLASSES)):
                    if _VERBATIM_CLASSES[m] == value:
                        attribute_flags |= IS_VERBATIM
                value = FNV_START
        elif name == _ARIA or name == _ROLE:  # noqa: SIM109
            value = FNV_START
            for k in range(lo, end):
                c = data[k]
                value = (value ^ np.uint64(c | 32 if 65 <= c <= 90 else c)) * FNV_PRIME
            if name == _ARIA:
                if value == _TRUE:
                    attribute_flags |= IS_HIDDEN
            else:
                attribute_flags |= HAS_NAME
                is_panel |= value == _TABPANEL
                is_panel |= value == _REGION
                for k in range(len(_ASIDE_ROLES)):
                    if _ASIDE_ROLES[k] == value:
                        attribute_flags |= IS_HIDDEN
        else:
            for k in range(len(_NAMING_ATTRIBUTES)):
                if _NAMING_ATTRIBUTES[k] == name:
                    attribute_flags |= HAS_NAME
            for k in range(len(_NUMBER_ATTRIBUTES)):
                if _NUMBER_ATTRIBUTES[k] == name:
                    attribute_flags |= HAS_NUMBER
            if name == _DATA_TEX or name == _DATA_LATEX:  # noqa: SIM109
                attribute_flags |= HAS_MATH
            if name == _ARIA_EXPANDED:
                attribute_flags |= UNFOLDS
    return attribute_flags & ~IS_HIDDEN if is_panel else attribute_flags


@kernel((BYTES, nb.int64, nb.int64, nb.uint8[::1], nb.int64))
def write_names(data, i, hi, names, at):  # type: ignore[no-untyped-def]
    """Writes the values of the naming attributes in [i, hi) to `names` at `at`, in their order, one space between, in
    ASCII lower case, an id with `#` before it. Returns where they end. They need no more space than the attributes."""
    start = at
    while i < hi:
        if data[i] == 32 or 9 <= data[i] <= 13:
            i += 1
            continue
        name, lo, end, i = read_attribute(data, i, hi)
        wanted = False
        for k in range(len(_NAMING_ATTRIBUTES)):
            wanted |= _NAMING_ATTRIBUTES[k] == name
        if not wanted or lo < 0:
            continue
        if at > start:
            names[at] = 32
            at += 1
        if name == _ID:
            names[at] = 35
            at += 1
        for k in range(lo, end):
            names[at] = data[k] | 32 if 65 <= data[k] <= 90 else data[k]
            at += 1
    return at


@kernel((BYTES, nb.int64, nb.int64))
def holds_heading(data, i, n):  # type: ignore[no-untyped-def]
    """Whether a heading begins between i and the next closing tag of a button, which cannot hold another button."""
    while i + 3 < n:
        if data[i] == 60:
            if data[i + 1] == 104 and 49 <= data[i + 2] <= 54 and (data[i + 3] == 62 or data[i + 3] == 32):
                return True
            if data[i + 1] == 47 and data[i + 2] == 98 and data[i + 3] == 117:  # </bu
                return False
        i += 1
    return False


@kernel((BYTES, nb.int64, nb.int64, nb.int64, nb.int64))
def skip_raw_element(data, i, n, lo, hi):  # type: ignore[no-untyped-def]
    """Position after the closing tag of the element named [lo, hi), whose content is not markup; n without one."""
    while i + 2 + (hi - lo) < n:
        if data[i] == 60 and data[i + 1] == 47:
            same = True
            for k in range(hi - lo):
                same = same and data[i + 2 + k] | 32 == data[lo + k] | 32
            if same and data[i + 2 + hi - lo] == 62:
                return i + 3 + hi - lo
        i += 1
    return n


@kernel((BYTES, nb.int64))
def max_open_tags(data, n):  # type: ignore[no-untyped-def]
    """The largest number of tags open at once in a page as published, counted per name. An element is nested deeper
    than twice that only where the page closes what it never opened."""
    open_ = np.zeros(1 << 12, np.int64)
    total = 0
    deepest = 0
    i = 0
    while i + 1 < n:
        if data[i] != 60:
            i += 1
            continue
        i += 1
        closing = data[i] == 47
        if closing:
            i += 1
        if i >= n or not 97 <= data[i] | 32 <= 122:
            continue
        name = FNV_START
        while i < n and data[i] != 62 and data[i] != 47 and data[i] != 32 and not 9 <= data[i] <= 13:
            name = (name ^ np.uint64(data[i] | 32)) * FNV_PRIME
            i += 1
        name = (name ^ (name >> np.uint64(32))) * _MIX_MULTIPLIER  # short names differ in few bits
        slot = np.int64(name >> np.uint64(52))
        if not closing:
            open_[slot] += 1
            total += 1
            deepest = max(deepest, total)
        elif open_[slot]:
            open_[slot] -= 1
            total -= 1
    return deepest
