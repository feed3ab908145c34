"""Finds glob patterns that match the wanted files and no others."""

from __future__ import annotations

import glob
import posixpath

from curation import document

MAX_PATTERNS = 40


def suffix_of(path: str) -> str:
    """`.warc.gz` for a.b.warc.gz: the last suffix, with the one before it if it is a compression suffix."""
    name = posixpath.basename(path)
    bare = document.strip_compression(name)
    return posixpath.splitext(bare)[1] + name[len(bare) :]


def find_globs(wanted: list[str], avoid: list[str], harmless: list[str]) -> tuple[list[str], list[str]]:
    """(globs that match the wanted paths, general ones first; the paths that they do not match).

    avoid     paths of other sources, which no glob matches
    harmless  paths of files without text: globs match them only if some wanted path would be left over otherwise
    """
    made, left = _cover(wanted, {*avoid, *harmless})
    if len(made) + len(left) > MAX_PATTERNS:
        made, left = _cover(wanted, set(avoid))
    room = max(0, MAX_PATTERNS - len(made))
    return made + [glob.escape(p) for p in left[:room]], left[room:]


def _cover(wanted: list[str], others: set[str]) -> tuple[list[str], list[str]]:
    """(globs by folder and suffix that match wanted paths and none of the others; the paths left over)."""
    others, left, made = set(others), list(wanted), []
    folders = {"/".join(p.split("/")[:i]) for p in wanted for i in range(p.count("/") + 1)}
    suffixes = sorted({suffix_of(p) for p in wanted})
    ends = suffixes if len(suffixes) == 1 else ["", *suffixes]
    deep = [(f, s, True) for f in sorted(folders, key=lambda f: (f.count("/") + bool(f), f)) for s in ends]
    flat = [(f, s, False) for f in sorted(folders) for s in suffixes]
    for folder, suffix, below in (*deep, *flat):
        hits = [p for p in left if _matches(p, folder, suffix, below)]
        if hits and not any(_matches(p, folder, suffix, below) for p in others):
            head = glob.escape(folder) + "/" if folder else ""
            made.append(f"{head}{'**/' if below else ''}*{glob.escape(suffix)}")
            others |= set(hits)
            left = [p for p in left if p not in others]
        if not left:
            break
    return made, left


def _matches(path: str, folder: str, suffix: str, below: bool) -> bool:
    rest = path.removeprefix(f"{folder}/") if folder else path
    return (
        (not folder or path.startswith(f"{folder}/"))
        and rest.endswith(suffix)
        and (below or "/" not in rest)
        and (below or bool(suffix))
    )
