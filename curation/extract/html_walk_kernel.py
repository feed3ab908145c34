"""The kernel that turns a page's HTML, as lexbor writes it, into blocks of text and a tree of containers in one pass.

lexbor writes well-formed HTML: every element closes, `<` in text is `&lt;`, attribute values are in double quotes. So a
page is a string of tags and texts, and one loop over its bytes with a few counters does what a tree walk would do. Text
is written in its final form: a run of white space is one space, `br` is a newline; no-break spaces at the start of a
line are its indentation and stay, others count as spaces; in `pre` everything stays but newlines at both ends, and a
block-level element in it is a line of the code.

Elements unknown to HTML are inline, as in browsers.

Regular expressions over the same string took 1.03 s of the 1.65 s that 1,005 pages of the crawl took to extract.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from curation.extract.html_tag_kernels import (
    ANCHOR,
    BODY,
    BR,
    BUTTON,
    CELL,
    FNV_PRIME,
    FNV_START,
    HAS_HREF,
    HAS_MATH,
    HAS_NAME,
    HAS_NUMBER,
    HEADING,
    INLINE,
    IS_HIDDEN,
    IS_VERBATIM,
    MATH,
    MAY_BE_MATH,
    NEVER,
    PRE,
    RAW,
    SCRIPTED,
    UNFOLDS,
    VOID,
    holds_heading,
    names_math,
    parse_attributes,
    skip_raw_element,
    tag_end,
    write_names,
)
from curation.kernels import BYTES, kernel

TAG_HASHES = nb.types.Array(nb.uint64, 1, "C", readonly=True)
TAG_KINDS = nb.types.Array(nb.int64, 1, "C", readonly=True)


@kernel((BYTES, nb.int64, nb.int64))
def whitespace_size(data, i, n):  # type: ignore[no-untyped-def]
    """Size in bytes of the white space character (Unicode) at i; 0 if it is another character."""
    c = data[i]
    if c < 0x80:
        return 1 if c == 32 or 9 <= c <= 13 or 28 <= c <= 31 else 0
    if c == 0xC2:
        return 2 if data[i + 1] == 0x85 or data[i + 1] == 0xA0 else 0
    if c < 0xE1 or c > 0xE3 or i + 2 >= n:
        return 0
    d = data[i + 1]
    e = data[i + 2]
    if c == 0xE1:
        return 3 if d == 0x9A and e == 0x80 else 0
    if c == 0xE3:
        return 3 if d == 0x80 and e == 0x80 else 0
    if d == 0x80:
        return 3 if e <= 0x8A or e == 0xA8 or e == 0xA9 or e == 0xAF else 0
    return 3 if d == 0x81 and e == 0x9F else 0


@kernel((BYTES, nb.int64, nb.int64))
def decode_entity(data, i, n):  # type: ignore[no-untyped-def]
    """(code, bytes) of the character reference at i, which is an `&`: 32 for a no-break space; (38, 1) for a plain
    `&`."""
    left = n - i
    if left >= 4 and data[i + 2] == 116 and data[i + 3] == 59:  # t;
        if data[i + 1] == 108:
            return 60, 4
        if data[i + 1] == 103:
            return 62, 4
    if left >= 5 and data[i + 1] == 97 and data[i + 2] == 109 and data[i + 3] == 112 and data[i + 4] == 59:
        return 38, 5
    hard = left >= 6 and data[i + 1] == 110 and data[i + 2] == 98 and data[i + 3] == 115
    if hard and data[i + 4] == 112 and data[i + 5] == 59:
        return 32, 6
    return 38, 1


OUT, ROWS = nb.uint8[::1], nb.int64[:, ::1]


@kernel((BYTES, nb.int64, TAG_HASHES, TAG_KINDS, nb.int64, OUT, OUT, ROWS, ROWS))
def walk_html(data, n, known, kinds, most, out, names, nodes, blocks):  # type: ignore[no-untyped-def]
    """Fills `out`, `names`, `nodes` and `blocks`; returns (containers, blocks, bytes of text, bytes of names,
    characters skipped, whether the walk ended at the end of the page with every element closed, signs). The signs are
    MATH if the page may have formulas, and SCRIPTED if it has `<sup>` or `<sub>`.

    data    the HTML of the body, n bytes of UTF-8
    known   hashes of tag names, ascending; `kinds` holds the flags of each
    most    the largest number of containers; the page is cut off after it
    out     the text of all blocks, one after the other; never longer than `data`
    names   what the attributes of all containers call them, one after the other; never longer than `data`
    nodes   one row per container: index of its tag in `known`, start and end of its names in `names`, its parent,
            whether its white space is code, the container after the last inside it, start and end of its attributes
            (0, 0 without a number)
    blocks  one row per block: start and end in `out`, in characters; how many of them are link text; its container
    """
    containers = 0
    found = 0
    at = 0  # bytes of text written
    named = 0  # ... of names
    chars = 0  # characters of text written
    begin = 0  # start of the open block in bytes
    first = 0  # ... and in characters
    linked = 0
    newlines = 0  # read but not written: they count only if text follows
    indent = 0
    space = False
    plain_space = False
    on_line = False  # this line of the block has text
    solid = False  # the block has a character that is not white space
    verbatim = False
    inner = 0  # block-level elements open inside a verbatim one
    line_open = False  # in a verbatim block: the line has text, or its element just opened
    line_text = False  # ... it has text
    line_closed = False  # ... its element has just closed: a newline after it is the same end of a line
    skipped = 0
    signs = 0
    unseen = 0  # characters that are not white space in skipped elements
    link = False
    stopped = False
    current = -1
    i = 0
    while i < n:
        if data[i] != 60:
            lo = i
            while i < n and data[i] != 60:
                i += 1
            if skipped:
                for k in range(lo, i):
                    unseen += data[k] > 32 and data[k] & 0xC0 != 0x80
                continue
            if link:
                a = lo
                b = i
                while a < b and whitespace_size(data, a, n):
                    a += whitespace_size(data, a, n)
                while b > a and (data[b - 1] == 32 or 9 <= data[b - 1] <= 13):
                    b -= 1
                for k in range(a, b):
                    if data[k] & 0xC0 != 0x80:
                        linked += 1
            j = lo
            while j < i:
                c = data[j]
                size = 1
                hard = False
                if c == 38:
                    c, size = decode_entity(data, j, i)
                    hard = c == 32
                blank = 0 if size > 1 and not hard else size if hard else whitespace_size(data, j, n)
                if verbatim:
                    if c == 10:
                        if not line_closed:
                            newlines += 1
                        line_closed = line_open = line_text = False
                        j += 1
                        continue
                    line_closed = False
                    line_open = line_text = True
                    if at > begin:
                        for _ in range(newlines):
                            out[at] = 10
                            at += 1
                        chars += newlines
                    newlines = 0
                    if blank == 0:
                        solid = True
                elif blank:
                    if on_line:
                        space = True
                    elif hard or (indent and not plain_space):
                        indent += 1
                    plain_space = not hard
                    j += blank
                    continue
                else:
                    if not on_line:
                        if at > begin:
                            for _ in range(newlines):
                                out[at] = 10
                                at += 1
                            chars += newlines
                        newlines = 0
                        for _ in range(indent):
                            out[at] = 32
                            at += 1
                        chars += indent
                        indent = 0
                    elif space:
                        out[at] = 32
                        at += 1
                        chars += 1
                    space = False
                    on_line = True
                    solid = True
                chars += 1
                if size > 1 or c < 0x80:
                    out[at] = c
                    at += 1
                    j += size
                else:
                    out[at] = c
                    at += 1
                    j += 1
                    while j < i and data[j] & 0xC0 == 0x80:
                        out[at] = data[j]
                        at += 1
                        j += 1
                plain_space = False
            continue

        # a tag
        i += 1
        if i >= n:
            break
        if data[i] == 33 or data[i] == 63:  # <!-- -->, <!doctype>, <?...>
            if i + 2 < n and data[i + 1] == 45 and data[i + 2] == 45:
                i += 3
                while i < n and not (data[i] == 62 and data[i - 1] == 45 and data[i - 2] == 45):
                    i += 1
            else:
                while i < n and data[i] != 62:
                    i += 1
            i += 1
            continue
        closing = data[i] == 47
        if closing:
            i += 1
        name_lo = i
        name = FNV_START
        while i < n and data[i] != 62 and data[i] != 47 and data[i] != 32 and not 9 <= data[i] <= 13:
            name = (name ^ np.uint64(data[i])) * FNV_PRIME
            i += 1
        name_hi = i
        i = tag_end(data, i, n)
        attributes_hi = i
        i += 1
        tag = -1
        low = 0
        high = len(known) - 1
        while low <= high:
            middle = (low + high) // 2
            if known[middle] == name:
                tag = middle
                break
            if known[middle] < name:
                low = middle + 1
            else:
                high = middle - 1
        kind = kinds[tag] if tag >= 0 else INLINE
        if not closing:
            signs |= kind & (MATH | SCRIPTED)
            if kind & MAY_BE_MATH and names_math(data, name_hi, attributes_hi):
                signs |= MATH
        if kind & RAW:
            if not closing:
                i = skip_raw_element(data, i, n, name_lo, name_hi)
            continue
        if skipped:
            if not kind & VOID:
                skipped += -1 if closing else 1
            continue
        attribute_flags = (
            parse_attributes(data, name_hi, attributes_hi) if not closing and attributes_hi > name_hi else 0
        )
        if attribute_flags & HAS_MATH:
            signs |= MATH
        dropped = not closing and (attribute_flags & IS_HIDDEN or kind & NEVER) and not kind & (VOID | BODY)
        if kind & BUTTON and not closing and not attribute_flags & IS_HIDDEN:
            # the title of a section that unfolds is a button, in a heading or around one
            in_heading = current >= 0 and kinds[nodes[current, 0]] & HEADING
            dropped = not (in_heading or attribute_flags & UNFOLDS or holds_heading(data, i, n))
        if dropped and (verbatim or kind & INLINE):
            skipped = 1
            continue
        if kind & INLINE:
            if kind & ANCHOR:
                link = not closing and attribute_flags & (HAS_HREF | UNFOLDS) == HAS_HREF
            continue
        if kind & BR:
            newlines += 1
            line_open = line_text = line_closed = False
            if not verbatim:
                on_line = False
                space = False
                indent = 0
                plain_space = False
            continue
        if verbatim and not (closing and inner == 0):
            if not kind & VOID:
                inner += -1 if closing else 1
            if kind & CELL:
                continue
            if closing or kind & VOID:
                if line_open:
                    newlines += 1
                    line_closed = True
                line_open = line_text = False
            else:
                if line_text:
                    newlines += 1
                line_open = True
                line_text = line_closed = False
            continue
        if dropped:
            skipped = 1
        # the block ends here
        if solid:
            blocks[found, 0] = first
            blocks[found, 1] = chars
            blocks[found, 2] = min(linked, chars - first)
            blocks[found, 3] = current
            found += 1
        else:  # in pre, white space alone may have been written
            at = begin
            chars = first
        begin = at
        first = chars
        linked = 0
        newlines = 0
        indent = 0
        space = False
        plain_space = False
        on_line = False
        solid = False
        line_open = line_text = line_closed = False
        if dropped or kind & VOID:
            continue
        if closing:
            verbatim = False
            if current >= 0:
                nodes[current, 5] = containers
                current = nodes[current, 3]
            continue
        if containers >= most:
            stopped = True
            break
        nodes[containers, 0] = tag
        nodes[containers, 1] = named
        if attribute_flags & HAS_NAME:
            named = write_names(data, name_hi, attributes_hi, names, named)
        nodes[containers, 2] = named
        nodes[containers, 3] = current
        verbatim = kind & PRE != 0 or attribute_flags & IS_VERBATIM != 0
        nodes[containers, 4] = verbatim
        nodes[containers, 6] = name_hi if attribute_flags & HAS_NUMBER else 0
        nodes[containers, 7] = attributes_hi if attribute_flags & HAS_NUMBER else 0
        current = containers
        containers += 1
    if solid:
        blocks[found, 0] = first
        blocks[found, 1] = chars
        blocks[found, 2] = min(linked, chars - first)
        blocks[found, 3] = current
        found += 1
    complete = not stopped and i == n and not skipped and current < 0
    while current >= 0:
        nodes[current, 5] = containers
        current = nodes[current, 3]
    return containers, found, at, named, unseen, complete, signs
