"""The step `urls`: signals from a page's URL: host, registered domain, block lists, banned words.

The rules are FineWeb's URL filter (Penedo et al. 2024, section 3.2, after RefinedWeb): a page is dropped when its
domain, host or URL is on a block list, when its URL has a word of the list of banned words, two words of a softer list,
or a banned string anywhere in its letters. The lists (UT1's list of adult sites, 4.6 million domains, and three word
lists) are read from the datatrove package, never copied. Your own lists can be added.

A block list is stored as sorted 64-bit hashes, 37 MB for UT1, which all workers of a machine map from one file in the
cache; a set of the strings would take several hundred megabytes in each. The chance that a host that is not listed
matches is 3e-13.

Differences from datatrove's URLFilter: parent hosts count as well (`ads.example.com` on a list matches
`x.ads.example.com`), and so do numeric addresses; a document without a URL passes. Registered domains (`bbc.co.uk`) are
found by the public suffix list that tldextract ships: no network, and the same everywhere. After a `pii` step that
masks addresses, URLs are masked too, and numeric hosts are no longer recognizable.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
import pyarrow as pa
import xxhash

from curation import document, models
from curation.core import atomic_files
from curation.core.errors import UserError
from curation.core.packages import describe_missing
from curation.step import MapStep

UT1 = "ut1"  # the name of the lists that datatrove ships
_UT1_ARCHIVE = "url_filterblacklists*.tar.gz"
_WORD_LISTS = ("banned_words.txt", "soft_banned_words.txt", "banned_subwords.txt")
_NON_ALPHANUMERIC = re.compile(r"[^a-zA-Z0-9]+")
_MAX_HOST = 253  # characters (RFC 1035)
_FORMAT = b"1"  # version of the cached files, part of their names


@dataclass
class UrlSignals(MapStep):
    """Signals: `host` and `domain` (the registered domain, such as bbc.co.uk; null for a numeric address), both in
    lower case; `listed`: the part of the URL that is on a block list (domain, host or url), else null; `hard_words`,
    `soft_words`: how many words of each list the URL has, in the list's case; `subword`: whether its letters contain a
    banned string.

    lists  `ut1`, and paths of your own lists: one domain, host or URL per line, `#` begins a comment
    words  whether to use the word lists; without them these signals are 0 and false
    """

    lists: list[str] = field(default_factory=lambda: [UT1])
    words: bool = True
    name: str = "urls"

    reads: ClassVar[tuple[str, ...]] = ("url",)
    _block_lists: list[Any] = field(init=False, repr=False, compare=False, default_factory=list)
    _words: Any = field(init=False, repr=False, compare=False, default=None)
    _suffix_list: Any = field(init=False, repr=False, compare=False, default=None)

    @property
    def signals(self) -> pa.Schema:
        """The fields of the struct."""
        return pa.schema(
            [
                ("host", pa.string()),
                ("domain", pa.string()),
                ("listed", pa.string()),
                ("hard_words", pa.int64()),
                ("soft_words", pa.int64()),
                ("subword", pa.bool_()),
            ]
        )

    def rules(self) -> Mapping[str, str]:
        """FineWeb's URL filter."""
        rules = {}
        if self.lists:
            rules["listed"] = f"{self.name}.listed IS NULL"
        if self.words:
            rules["hard_words"] = f"{self.name}.hard_words = 0"
            rules["soft_words"] = f"{self.name}.soft_words < 2"
            rules["subword"] = f"NOT {self.name}.subword"
        return rules

    def packages(self) -> Sequence[str]:
        return ("tldextract", "datatrove") if self.words or UT1 in self.lists else ("tldextract",)

    def inputs(self) -> Sequence[str]:
        """The list files, also those in datatrove: another version of them changes the fingerprint."""
        own = [path for path in self.lists if path != UT1]
        packaged = [str(_ut1_archive(self.name))] if UT1 in self.lists else []
        return (*own, *packaged, *(str(_datatrove_assets(self.name) / w) for w in _WORD_LISTS if self.words))

    def check(self) -> None:
        """Refuses lists that do not exist."""
        for path in self.inputs():
            if not os.path.isfile(path):
                raise UserError(
                    f"step {self.name}: list {path} does not exist; give a file, or `{UT1}` for the lists of datatrove"
                )

    def open(self) -> None:
        """Maps the block lists; hashes them first where the cache does not have them (about 5 s for UT1)."""
        import tldextract

        self._suffix_list = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
        self._block_lists = [_map_hashes(_ut1_archive(self.name) if p == UT1 else Path(p)) for p in self.lists]
        self._words = (
            _WordLists.of(_datatrove_assets(self.name)) if self.words else _WordLists(frozenset(), frozenset(), None)
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_hashes": [], "_lexicon": None, "_suffixes": None}

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Adds the signals."""
        if self._words is None:
            self.open()
        rows = [self._signals_of(url) for url in batch.column("url").to_pylist()]
        column = pa.array(rows, pa.struct(list(self.signals)))
        return document.with_column(batch, self.name, column)

    def _signals_of(self, url: str | None) -> dict[str, Any]:
        if url is None:
            return {"host": None, "domain": None, "listed": None, "hard_words": 0, "soft_words": 0, "subword": False}
        host, domain = self.split(url)
        words = set(_NON_ALPHANUMERIC.split(url))
        subword = self._words.subword
        return {
            "host": host,
            "domain": domain,
            "listed": self._listed_part(url, host, domain),
            "hard_words": len(words & self._words.hard),
            "soft_words": len(words & self._words.soft),
            "subword": subword is not None and subword.search(_NON_ALPHANUMERIC.sub("", url).lower()) is not None,
        }

    def split(self, url: str) -> tuple[str | None, str | None]:
        """(host, registered domain) of a URL; None for a part that it does not have."""
        found = self._suffix_list(url)
        host = ".".join(part for part in (found.subdomain, found.domain, found.suffix) if part).lower()
        domain = f"{found.domain}.{found.suffix}".lower() if found.domain and found.suffix else None
        return host or None, domain

    def _listed_part(self, url: str, host: str | None, domain: str | None) -> str | None:
        if not self._block_lists:
            return None
        asked = [(domain, "domain")] if domain else []
        # no name of the DNS is longer; every parent of one of a megabyte would be hashed
        above = host if host is None or len(host) <= _MAX_HOST else host[-_MAX_HOST:].partition(".")[2]
        while above and above != domain:
            asked.append((above, "host"))
            above = above.partition(".")[2] if domain else None  # parts of a numeric address are not hosts
        asked.append((url, "url"))
        keys = np.array([_hash(text.encode("utf-8", "surrogateescape")) for text, _ in asked], np.uint64)
        for hashes in self._block_lists:
            at = np.minimum(np.searchsorted(hashes, keys), max(0, len(hashes) - 1))
            hit = np.flatnonzero(hashes[at] == keys) if len(hashes) else at[:0]
            if len(hit):
                return asked[int(hit[0])][1]
        return None


@dataclass(frozen=True)
class _WordLists:
    hard: frozenset[str]
    soft: frozenset[str]
    subword: re.Pattern[str] | None

    @staticmethod
    def of(folder: Path) -> _WordLists:
        """The three lists as datatrove reads them: without comments, letters and digits only, lower case."""
        hard, soft, sub = (
            frozenset(w for w in (_NON_ALPHANUMERIC.sub("", s).lower() for s in _read_lines(folder / n)) if w)
            for n in _WORD_LISTS
        )
        return _WordLists(hard, soft, re.compile("|".join(sorted(map(re.escape, sub)))) if sub else None)


def _read_lines(path: Path) -> Iterator[str]:
    with open(path, encoding="utf-8") as f:
        yield from (line.rstrip("\r\n") for line in f if line.strip() and not line.startswith("#"))


def _datatrove_assets(name: str) -> Path:
    found = importlib.util.find_spec("datatrove")
    if found is None or not found.submodule_search_locations:
        raise UserError(f"step {name}: its lists are part of datatrove: {describe_missing(['datatrove'])}")
    return Path(found.submodule_search_locations[0]) / "assets"


def _ut1_archive(name: str) -> Path:
    archives = sorted(_datatrove_assets(name).glob(_UT1_ARCHIVE))
    if not archives:
        raise UserError(
            f"step {name}: the installed datatrove has no {_UT1_ARCHIVE}; install datatrove 0.3 to 0.10,"
            " or use your own `lists`"
        )
    return archives[-1]


def _hash(text: bytes) -> int:
    return xxhash.xxh3_64_intdigest(text)


def _map_hashes(path: Path) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """The sorted hashes of a list (a text file, or an archive of several), mapped from the cache, which they are
    written to first if it does not have them. They stay in memory where the cache cannot be written."""
    with open(path, "rb") as f:
        digest = xxhash.xxh3_128(f.read())
    digest.update(_FORMAT)
    cached = os.path.join(models.directory(), "lists", f"{digest.hexdigest()}.npy")
    if os.path.isfile(cached):
        with contextlib.suppress(ValueError, OSError):
            return np.load(cached, mmap_mode="r")  # type: ignore[no-any-return]
    hashes = np.unique(np.array(list(_hash_lines(path)), np.uint64))
    with contextlib.suppress(OSError), atomic_files.replacing(cached) as temporary, open(temporary, "wb") as file:
        np.save(file, hashes)
    return hashes


def _hash_lines(path: Path) -> Iterator[int]:
    if not path.name.endswith(".tar.gz"):
        with open(path, "rb") as file:
            yield from _hash_file_lines(file)
        return
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            inside = archive.extractfile(member)
            if inside is not None:
                yield from _hash_file_lines(inside)


def _hash_file_lines(file: IO[bytes]) -> Iterator[int]:
    for line in file:
        line = line.strip()
        if line and not line.startswith(b"#"):
            yield _hash(line)
