"""Opens the archive of an EPUB book: its package document, the order of its chapters, and their bytes within limits.

An archive is input like any other: entries are read by name, never unpacked to disk, at most as many bytes as limits.py
allows for a file of its size, and each only once.

Format: https://www.w3.org/TR/epub-33/ (OCF container, package document, spine).
"""

from __future__ import annotations

import posixpath
import re
import urllib.parse
import zipfile
from dataclasses import dataclass, field
from typing import IO
from xml.etree import ElementTree

from curation.sources import limits
from curation.sources.machine_errors import ZIP_ERRORS, raise_machine_error
from curation.step import RecordError

MAX_PACKAGE = 1 << 24  # 16 MiB: a package document has a line for each file of the book
MAX_CHAPTER = 1 << 24  # 16 MiB: what the step `extract` reads of a page
MAX_SPINE = 10_000
_CONTAINER, _ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"
_DC, _OPF = "{http://purl.org/dc/elements/1.1/}", "{http://www.idpf.org/2007/opf}"
_FIELDS = ("title", "creator", "language", "publisher", "date", "rights", "identifier", "subject")
_XHTML = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml", "text/x-oeb1-document")
_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED


@dataclass(frozen=True)
class SpineItem:
    """A chapter in reading order. `path`: its name in the archive; empty where the manifest has none."""

    path: str
    media_type: str
    navigation: bool


@dataclass
class Package:
    """What the package document says of a book."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    licence: str = ""
    spine: list[SpineItem] = field(default_factory=list)


class Archive:
    """An EPUB book. Raises RecordError where it is none, or is broken."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        try:
            self._zip = zipfile.ZipFile(file)
        except ZIP_ERRORS as error:
            raise_machine_error(error)
            raise RecordError(f"no ZIP archive, or one that is cut off: {error}") from None
        self._left = limits.max_expanded(size)
        self._read: set[str] = set()
        self._encrypted: set[str] = set()
        encrypted = self._zip.NameToInfo.get(_ENCRYPTION)
        found = re.findall(rb'URI\s*=\s*["\']([^"\']+)', self.read(_ENCRYPTION, MAX_PACKAGE)) if encrypted else []
        self._encrypted = {urllib.parse.unquote(uri.decode("utf-8", "replace")) for uri in found}
        container = _xml(self.read(_CONTAINER, MAX_PACKAGE), _CONTAINER)
        roots = [e.get("full-path", "") for e in container.iter() if e.tag.endswith("}rootfile")]
        if not roots or not roots[0]:
            raise RecordError(f"{_CONTAINER} names no package document")
        self.package = _package(_xml(self.read(roots[0], MAX_PACKAGE), roots[0]), posixpath.dirname(roots[0]))

    def read(self, name: str, limit: int) -> bytes:
        """An entry. Raises RecordError."""
        info = self._zip.NameToInfo.get(name)
        if info is None:
            raise RecordError(f"{name} is missing in the archive")
        if name in self._read:
            raise RecordError(f"{name} is in the reading order a second time")
        if info.flag_bits & 1 or name in self._encrypted:
            raise RecordError(f"{name} is encrypted")
        if info.compress_type not in (_STORED, _DEFLATED):
            raise RecordError(f"{name} is compressed by a method that EPUB does not allow")
        self._read.add(name)
        try:
            with self._zip.open(info) as entry:
                data = entry.read(min(limit, self._left) + 1)
        except ZIP_ERRORS as error:
            raise_machine_error(error)
            raise RecordError(f"{name} cannot be unpacked: {error}") from None
        self._left -= len(data)
        if self._left < 0:
            raise RecordError(limits.EXPANDS_TOO_FAR)
        if len(data) > limit:
            raise RecordError(f"{name} is larger than {limit} bytes")
        return data


def _xml(data: bytes, name: str) -> ElementTree.Element:
    if b"<!ENTITY" in data:
        raise RecordError(f"{name} declares entities")
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise RecordError(f"{name} is no XML: {error}") from None


def _package(root: ElementTree.Element, folder: str) -> Package:
    package = Package()
    manifest: dict[str, ElementTree.Element] = {}
    for element in root.iter():
        tag = element.tag
        text = " ".join((element.text or "").split())
        if tag.startswith(_DC) and tag[len(_DC) :] in _FIELDS and text:
            package.fields.setdefault(tag[len(_DC) :], []).append(text)
        elif tag == f"{_OPF}link" and element.get("rel", "").endswith(("cc:license", "license")):
            package.licence = package.licence or ("" if element.get("refines") else element.get("href", ""))
        elif tag == f"{_OPF}item":
            manifest.setdefault(element.get("id", ""), element)
        elif tag == f"{_OPF}itemref":
            if len(package.spine) == MAX_SPINE:
                raise RecordError(f"more than {MAX_SPINE:,} chapters")
            item = manifest.get(element.get("idref", ""))
            href = "" if item is None else urllib.parse.unquote(item.get("href", "").partition("#")[0])
            path = posixpath.normpath(posixpath.join(folder, href)) if href else ""
            kind = "" if item is None else item.get("media-type", "")
            navigation = item is not None and "nav" in item.get("properties", "").split()
            package.spine.append(SpineItem(path, kind, navigation))
    if not package.spine:
        raise RecordError("the package document has no reading order (spine)")
    return package


def is_text(item: SpineItem) -> bool:
    """Whether a chapter is a page of text; others are pictures."""
    return item.media_type.partition(";")[0].strip().lower() in _XHTML
