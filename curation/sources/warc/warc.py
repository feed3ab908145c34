"""The reader `read: warc`: reads web archives (WARC, WET, ARC; plain, gzip, zstd, lz4) record by record.

Every record becomes a row: a page with status 200 and a text media type becomes a document, anything else a drop with
its reason. warc_records.py finds where records begin and end, http_response.py parses responses, charset.py decodes
text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curation import document, storage
from curation.sources import charset
from curation.sources.batch_builder import (
    RecordKeys,
    SourceRow,
    batch_rows,
    hash_key,
    meta_json,
    parse_date,
    position_key,
    provenance,
)
from curation.sources.compressed_stream import CompressedStream
from curation.sources.limits import DropLimit
from curation.sources.warc import http_response
from curation.sources.warc.warc_records import MAX_CONTENT, Record, archive_format, read_records
from curation.step import InputSplit, RecordError, UnreadableFile

DOCUMENT_MIMES = ("text/html", "application/xhtml+xml", "text/plain")
_UNSPECIFIC_MIMES = ("", "application/octet-stream", "unknown/unknown", "application/unknown", "text", "html", "unk")
_HTML_TAG = re.compile(rb"<(?:!doctype\s+html|html|head|body|title|meta)\b", re.I)
_MAGIC_NUMBERS = {
    b"%PDF-": "application/pdf",
    b"\x89PNG": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"PK\x03\x04": "application/zip",
    b"\x1f\x8b": "application/gzip",
    b"\x7fELF": "application/x-elf",
    b"wOF": "font/woff",
    b"RIFF": "application/x-riff",
    b"OggS": "audio/ogg",
    b"\xd0\xcf\x11\xe0": "application/x-ole-storage",
}
# control characters that text almost never has
_CONTROL_BYTES = bytes(b for b in range(32) if b not in b"\t\n\v\f\r\x1b")
_META_HEADERS = ("content-language", "last-modified")


@dataclass
class WarcReader:
    """Reads web archives. `mimes`: the media types that are documents; others are dropped by rule `mime`."""

    mimes: list[str] = field(default_factory=lambda: list(DOCUMENT_MIMES))

    def packages(self) -> Sequence[str]:
        return ("resiliparse",)  # its detector of encodings

    def split(self, piece: InputSplit, root: str, target: int) -> list[InputSplit]:
        """A single split: where members start is not known without reading the whole file (see `index`)."""
        return [piece]

    def needs_index(self, path: str) -> bool:
        return True

    def index(self, piece: InputSplit, root: str, target: int) -> list[InputSplit]:
        """Splits an archive into pieces of about `target` stored bytes, each starting at a record and its member.

        Reads and decompresses the whole file once. Each split carries what its reader must know of the ones before it:
        the decompressed position, and how often record ids that occur again were seen. A damaged archive is a single
        split: how far its damage reaches depends on what comes after.
        """
        cuts: list[tuple[int, int]] = []  # stored offset, position
        ids: list[dict[str, int]] = [{}]
        last = 0
        with storage.open_input(root, piece.path) as file:
            stream = CompressedStream(file)
            format = archive_format(stream.peek(1024))
            for item in read_records(stream, format) if format else ():
                if item.problem or item.note:
                    return [piece]
                if not item.row and item.offset - last >= target:
                    cuts.append((item.offset, item.position))
                    ids.append({})
                    last = item.offset
                if key := item.fields.get("warc-record-id", ""):
                    mark = hash_key(key)
                    ids[-1][mark] = ids[-1].get(mark, 0) + 1
            if stream.damage:
                return [piece]
        pieces, seen = [], dict[str, int]()
        bounds = [(0, 0), *cuts]
        for i, (start, position) in enumerate(bounds):
            stop = bounds[i + 1][0] if i + 1 < len(bounds) else piece.size
            again = {k: seen[k] for k in sorted(ids[i]) if k in seen}
            pieces.append(
                InputSplit(piece.path, piece.size, piece.version, start, stop, {"position": position, "seen": again})
            )
            for key, count in ids[i].items():
                seen[key] = seen.get(key, 0) + count
        return pieces if len(pieces) > 1 else [piece]

    def read(
        self, piece: InputSplit, root: str, *, collection: str, domain: str, rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Batches of `document.READ_BATCH`, one row for each record. Raises UnreadableFile for a file that is not an
        archive and for the end of a file after damage that no readable member follows."""
        return batch_rows(self._rows(piece, root, collection), domain, rows)

    def original(self, source: Mapping[str, Any], root: str) -> bytes:
        """A record with its headers, decompressed. Raises RecordError where it cannot be read."""
        offset, length, row = source["offset"], source["length"], source["row"]
        with storage.open_input(root, source["file"]) as file:
            stream = CompressedStream(file, start=offset, stop=None if length is None else offset + length)
            if length is not None and not row:
                data = stream.read(MAX_CONTENT)
                return data.lstrip(b"\r\n") if stream.compressed else data[:length]
            for i, item in enumerate(read_records(stream, archive_format(stream.peek(1024)))):
                if i == (row or 0):
                    return item.header_bytes + item.content
        raise RecordError(f"{source['file']}: no record {row} in the member at {offset}")

    def _rows(self, piece: InputSplit, root: str, collection: str) -> Iterator[SourceRow]:
        extra = piece.extra or {}
        keys = RecordKeys(extra.get("seen"))
        with storage.open_input(root, piece.path) as file:
            stream = CompressedStream(file, start=piece.start or 0, stop=piece.stop, base=extra.get("position", 0))
            first = stream.peek(1024)
            format = archive_format(first)
            if not format:
                found = f"begins with {first[:4]!r}" if first else "has no content"
                reason = stream.damage.reason if stream.damage else f"neither WARC nor ARC: {found}"
                raise UnreadableFile(piece.path, reason, piece.start or 0, stream.stop - (piece.start or 0))
            drops, begin = DropLimit(piece.path, stream.stop), stream.position
            for item in read_records(stream, format):
                row = self._row(item, piece.path, collection, keys)
                yield row
                if row.drop:
                    drops.count(item.position - begin, stream.stored_position)
            if stream.damage:
                at = stream.damage.offset
                raise UnreadableFile(piece.path, stream.damage.reason, at, stream.stop - at)

    def _row(self, item: Record, path: str, collection: str, keys: RecordKeys) -> SourceRow:
        key = item.fields.get("warc-record-id", "")
        key = keys.unique(key) if key else f"lost@{item.offset}" if item.lost else position_key(item.position)
        where = provenance(path, item.format, item.offset, item.length, item.row)
        row = SourceRow(document.doc_id(collection, path, key), where)
        fields = item.fields
        row.url = (fields.get("warc-target-uri") or fields.get("url") or "").strip().strip("<>") or None
        row.date = parse_date(fields.get("warc-date") or fields.get("date"))
        if item.problem and item.type != "filedesc":
            row.drop = ("unreadable", item.problem)
            return row
        try:
            self._document(item, row)
        except RecordError as error:
            row.drop = ("unreadable", str(error))
        return row

    def _document(self, item: Record, row: SourceRow) -> None:
        """Fills in the document that the record holds, or the reason why it is not one."""
        fields, meta = item.fields, dict[str, str]()
        content_type = fields.get("content-type", "") if item.format == "warc" else fields.get("type", "")
        header_charset, body = None, item.content
        if item.type not in ("response", "resource", "conversion"):
            row.drop = ("record_type", item.type or "none")
            return
        if (row.url or "").startswith("metadata:"):  # wget stores its log and arguments as resources
            row.drop = ("record_type", f"{item.type}: metadata")
            return
        if item.type == "response":
            if (row.url or "").startswith("dns:") or content_type.startswith("text/dns"):
                row.drop = ("record_type", "response: dns")
                return
            if content_type.startswith("application/http") or item.format == "arc" or body.startswith(b"HTTP/"):
                response = http_response.parse_response(body)
                row.status, body = response.status, response.body
                content_type = response.headers.get("content-type", "" if item.format == "warc" else content_type)
                meta = {k.replace("-", "_"): response.headers[k] for k in _META_HEADERS if k in response.headers}
                if response.note:
                    meta["damage"] = response.note
        if item.note:
            meta["damage"] = "; ".join(n for n in (item.note, meta.get("damage", "")) if n)
        for name in ("warc-truncated", "warc-identified-content-language"):
            if name in fields:
                meta[name.removeprefix("warc-").replace("-", "_")] = fields[name]
        row.bytes = len(body)
        row.meta = meta_json(meta)
        row.mime, header_charset = _parse_content_type(content_type)
        if row.status is not None and row.status != 200:
            row.drop = ("http_status", str(row.status))
            return
        if row.mime in _UNSPECIFIC_MIMES:
            row.mime = _detect_mime(body, fields.get("warc-identified-payload-type", ""))
        if row.mime not in self.mimes:
            row.drop = ("mime", row.mime)
        elif not body.strip():
            row.drop = ("empty", "")
        elif binary := detect_binary_type(body):
            row.drop = ("mime", f"{row.mime}: {binary}")
        else:
            decoded = charset.decode(body, header_charset, html=row.mime != "text/plain")
            row.text, row.charset = decoded.text, decoded.charset


def _parse_content_type(value: str) -> tuple[str, str | None]:
    """`Text/HTML; charset="x"` -> ("text/html", "x")."""
    mime, _, parameters = value.partition(";")
    match = re.search(r"charset\s*=\s*[\"']?([^\s\"';,]+)", parameters, re.I)
    return mime.partition(",")[0].strip().lower(), match[1] if match else None


def _detect_mime(body: bytes, identified: str) -> str:
    """The media type of a payload whose server sent none."""
    if identified:
        return identified.partition(";")[0].strip().lower()
    if _starts_html(body[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()):
        return "text/html"
    return detect_binary_type(body) or "text/plain"


def _starts_html(head: bytes) -> bool:
    """Whether a tag of HTML comes first, after an XML declaration and comments. Skipped one by one: a pattern that
    repeats a comment of any length tries every way to divide a page of `<!-- -->`, and there are 2^n."""
    if head[:5].lower() == b"<?xml":
        head = head.partition(b">")[2].lstrip()
    while head.startswith(b"<!--"):
        head = head[4:].partition(b"-->")[2].lstrip()
    return _HTML_TAG.match(head) is not None


def detect_binary_type(body: bytes) -> str:
    """The media type of binary data, by its first bytes; `` for what may be text."""
    for magic, mime in _MAGIC_NUMBERS.items():
        if body.startswith(magic):
            return mime
    head = body[:4096]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return ""
    even, odd = head[::2].count(0), head[1::2].count(0)
    if even + odd > 0.2 * len(head) and min(even, odd) * 4 <= max(even, odd):
        return ""  # UTF-16: the zeros are all at even or all at odd offsets
    if len(head) - len(head.translate(None, _CONTROL_BYTES)) > 0.03 * len(head):
        return "application/octet-stream"
    return ""
