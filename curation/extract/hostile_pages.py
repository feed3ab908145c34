"""Limits what a page can make an HTML parser do: attributes of one tag, and elements repeated by unclosed formatting.

The rules of HTML have two quadratic corners, and lexbor follows them as browsers do. Each attribute of a tag is
compared with those before it: 40,000 in one tag take 10 s. And a formatting element that is not closed
(`<font size=1>`) is opened again in every block after it, and looked for among all open elements when another one ends:
60 kB of `<font size=1><p><font size=2><p>...` become eight million elements. So the raw page is scanned once before it
is parsed, without following the parser: the scan may count too much, never too little.

Attributes after the first 1,024 of a tag are cut out, which changes no text. A page with more repeated elements than
real pages have is not parsed.
"""

from __future__ import annotations

import functools
from typing import Any

MAX_ATTRIBUTES = 1024
# Elements that unclosed formatting opens again, and open elements looked at while formatting is closed, a byte of the
# page. Of 4,700 crawled pages the worst have 0.08 and 3.2.
MAX_REPEATED, MAX_STEPS = 4, 200
_SMALL = 1 << 12  # bytes that any page counts as

_FORMATTING = "a b big code em font i nobr s small strike strong tt u"
_NOT_NESTED = """
area base br col embed hr img input link meta param source track wbr
p li dt dd td th tr tbody thead tfoot option optgroup
"""


def limit_page(html: str) -> tuple[str, str]:
    """The page, perhaps without attributes, and why it is not parsed, or an empty string."""
    import numpy as np

    from curation.extract.hostile_page_kernel import scan_tags

    data = html.encode("utf-8", "replace")
    arguments = (np.frombuffer(data, np.uint8), len(data), *_tags(), MAX_ATTRIBUTES)
    cuts = np.empty((64, 2), np.int64)
    cut, repeated, steps = scan_tags(*arguments, cuts)
    if cut > len(cuts):
        cuts = np.empty((cut, 2), np.int64)
        scan_tags(*arguments, cuts)
    size = max(len(data), _SMALL)
    if repeated > MAX_REPEATED * size or steps > MAX_STEPS * size:
        return html, "formatting is never closed, and the rules of HTML repeat it in every block after it"
    if not cut:
        return html, ""
    parts, at = [], 0
    for start, end in cuts[:cut].tolist():
        parts.append(data[at:start])
        at = end
    return b"".join([*parts, data[at:]]).decode("utf-8", "replace"), ""


@functools.cache
def _tags() -> tuple[Any, Any]:
    """Hashes of the names that the scan distinguishes, ascending, and what each is."""
    import numpy as np

    from curation.extract import hostile_page_kernel as kernel
    from curation.extract.html_tag_kernels import fnv1a

    kinds = dict.fromkeys(_NOT_NESTED.split(), kernel.NOT_NESTED)
    kinds |= dict.fromkeys(_FORMATTING.split(), kernel.FORMATTING)
    kinds |= dict.fromkeys(("a", "nobr"), kernel.FORMATTING | kernel.ALONE)
    kinds |= {"body": kernel.BODY, "html": kernel.HTML}
    names = sorted(kinds, key=fnv1a)
    return np.array([fnv1a(n) for n in names], np.uint64), np.array([kinds[n] for n in names], np.int64)
