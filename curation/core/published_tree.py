"""Names result trees on an object store, where a folder cannot be renamed: one small object says which is the newest.

    result.json                  the pointer: {"directory": "published/result-<fingerprint>"}
    published/result-<...>/      the tree of one result, written before the pointer names it

Writing one object is atomic, so a reader that reads the pointer once has one result, and no parts of another. The tree
before the newest stays for readers that began with it. A path `result/...` of a run means the tree that the pointer
names; `decided` is another such tree.
"""

from __future__ import annotations

import re

from curation.core import checked_json
from curation.core.errors import DamagedFile

TREES = ("result", "decided")
FOLDER = "published"

_DIRECTORY = re.compile(rf"{FOLDER}/({'|'.join(TREES)})-[0-9a-f]{{32}}")
# RUN/result, RUN/published/result-0123, and what is below
_PLACE = re.compile(rf"(?:(?P<run>.*)/)?(?:result|{FOLDER}/result-[0-9a-f]{{32}})(?P<below>/.*)?")


def pointer(tree: str) -> str:
    """The path of the object that says where a tree is."""
    return f"{tree}.json"


def encode(directory: str) -> bytes:
    """The pointer's content."""
    return checked_json.encode({"directory": directory})


def decode(data: bytes, path: str, root: str = "") -> str:
    """The directory that a pointer names. Raises DamagedFile for one that changed or leads elsewhere."""
    directory = str(checked_json.decode(data, path, root).get("directory"))
    if not _DIRECTORY.fullmatch(directory):
        raise DamagedFile(path, f"it names {directory!r}, which is no result", root)
    return directory


def split_place(place: str) -> tuple[str, str] | None:
    """(run, what is below the result) of a path of a run's result or below it; None for any other path."""
    found = _PLACE.fullmatch(place.rstrip("/"))
    return (found["run"] or "", (found["below"] or "").lstrip("/")) if found else None
