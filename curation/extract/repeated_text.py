"""Removes text that a page holds twice: clones of slides, copies for small and large screens, quotes of earlier posts.

A run of blocks that repeats an earlier run, in the same order, goes. Lines of code, list items and cells repeat each
other rightly, and so do paragraphs beside each other (a refrain): only what is in another container is a copy.
On the half of html_pages that rules are written on this is worth .007 of F1: 46 pages better, 13 worse.
"""

from __future__ import annotations

from curation.extract.blocks import PageBlocks

_MIN_RUN_CHARS = 40  # of several blocks together
_MIN_BLOCK_CHARS = 140  # of a single one; with 80 documentation loses descriptions of parameters (-.005)
_REPEATS_RIGHTLY = frozenset(("td", "th", "pre", "li", "dd", "dt"))


def without_copies(page: PageBlocks, chosen: list[int]) -> list[int]:
    """The chosen blocks without those that repeat earlier ones."""
    first: dict[str, int] = {}  # text -> its first place in `chosen`
    kept: list[int] = []
    at = 0
    while at < len(chosen):
        text = page.text[chosen[at]]
        size = _copied(page, chosen, first[text], at) if text in first else 0
        if not size:
            first.setdefault(text, at)
            kept.append(chosen[at])
        at += max(1, size)
    return kept


def _copied(page: PageBlocks, chosen: list[int], source: int, at: int) -> int:
    """How many blocks from `at` on repeat those from `source` on; 0 if their text is too short to tell. A run that is
    too short ends within 40 blocks, so that the work stays linear."""
    size = chars = 0
    while at + size < len(chosen) and source + size < at:
        one, other = chosen[source + size], chosen[at + size]
        if page.text[one] != page.text[other] or not _is_elsewhere(page, page.container[one], page.container[other]):
            break
        chars += len(page.text[other])
        size += 1
    return size if chars >= (_MIN_RUN_CHARS if size > 1 else _MIN_BLOCK_CHARS) else 0


def _is_elsewhere(page: PageBlocks, one: int, other: int) -> bool:
    """Whether two containers are neither beside each other nor the second inside the first."""
    if page.parent[one] == page.parent[other] or other < page.end[one]:
        return False
    return page.tag[other] not in _REPEATS_RIGHTLY and not page.verbatim[other]
