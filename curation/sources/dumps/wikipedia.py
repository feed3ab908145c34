"""The reader `read: wikipedia`: reads pages-articles dumps of MediaWiki wikis in any language, as plain text.

A page is a document; redirects, pages of other namespaces and pages that are no wikitext are drops by rule
`record_type`. What its wikitext becomes is said in wikitext/.

Format: https://www.mediawiki.org/wiki/Help:Export.
"""

from __future__ import annotations

import posixpath
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curation import document, storage
from curation.core.errors import UserError
from curation.sources.batch_builder import SourceRow, batch_rows, meta_json, parse_date, position_key, provenance
from curation.sources.compressed_stream import CompressedStream
from curation.sources.dumps import dump_pages
from curation.sources.dumps.dump_pages import RawPage
from curation.sources.limits import DropLimit
from curation.sources.wikitext.wikitext import Site, to_text
from curation.step import InputSplit, RecordError, UnreadableFile

_HEAD = 1 << 16  # bytes that hold what a dump says of its wiki
_TITLE = re.compile(r"<title>([^<]*)</title>")
_NAMESPACE = re.compile(r"<ns>\s*(-?\d{1,9})\s*</ns>")
_ID = re.compile(r"<id>\s*(\d{1,18})\s*</id>")
_REDIRECT = re.compile(r'<redirect\b(?:\s+title="([^"<>]*)")?[^<>]*>')
_TEXT = re.compile(r"<text\b([^<>]*)(?:/>|>([^<]*)</text>)")
_TIME = re.compile(r"<timestamp>([^<]{0,64})</timestamp>")
_MODEL = re.compile(r"<model>([^<]{0,100})</model>")
_OLD_REDIRECT = re.compile(r"\s*+#redirect\b\s*+:?\s*+\[\[([^\[\]|]*)", re.I)
_NAMED = re.compile(r'<namespace key="(-?\d+)"[^<>]*>([^<]*)</namespace>')
_BASE = re.compile(r"<base>([^<]{0,500})</base>")
_LANGUAGE = re.compile(r'<mediawiki\b[^<>]*\bxml:lang="([\w-]{1,35})"')
# Further names that wikis have for the namespace of files, from before it held more than pictures (messages of
# MediaWiki): the head of a dump has one name only.
_FILES = (
    "file image media bild datei fichier imagen archivo immagine ficheiro imagem файл изображение afbeelding bestand "
    "grafika plik ファイル 画像 文件 档案 檔案 图像 圖像 картинка зображення slika soubor obrázek kép fájl tiedosto "
    "kuva dosya resim تصویر پرونده ملف صورة קובץ תמונה चित्र ภาพ 파일 그림 hình tập_tin berkas gambar fil attēls"
)
_CATEGORIES = (
    "category kategorie catégorie categoría categoria категория kategoria カテゴリ 分类 分類 категорія kategorija "
    "kategori kategória luokka קטגוריה تصنيف رده श्रेणी 분류 thể_loại kategooria kategoriya categorie"
)


@dataclass(frozen=True)
class _Wiki:
    """What the head of a dump says."""

    base: str
    language: str
    namespaces: dict[int, str]
    site: Site


@dataclass
class WikipediaReader:
    """Reads XML dumps of MediaWiki wikis: *-pages-articles*.xml.bz2 and the like, plain or compressed.

    namespaces  numbers of the namespaces to keep; 0 has the articles
    infobox     whether `meta` keeps the fields of an article's infobox
    """

    namespaces: list[int] = field(default_factory=lambda: [0])
    infobox: bool = False

    def __post_init__(self) -> None:
        if not self.namespaces:
            raise UserError("namespaces is empty\n  expected numbers of namespaces, such as [0] for articles")

    def packages(self) -> Sequence[str]:
        return ()

    def split(self, piece: InputSplit, root: str, target: int) -> list[InputSplit]:
        """Splits a plain dump at pages and one in bzip2 at its streams. Others are a single split."""
        if piece.size < 2 * target:
            return [piece]
        with storage.open_input(root, piece.path, read_ahead=False) as file:
            return dump_pages.split_file(file, piece, target)

    def read(
        self, piece: InputSplit, root: str, *, collection: str, domain: str, rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Batches of `document.READ_BATCH`, one row for each page. Raises UnreadableFile for a file that is no dump of
        MediaWiki."""
        return batch_rows(self._rows(piece, root, collection), domain, rows)

    def original(self, source: Mapping[str, Any], root: str) -> bytes:
        """The XML of a page as stored, decompressed."""
        with storage.open_input(root, source["file"]) as file:
            offset = source["offset"] or 0
            code = dump_pages.encoding(CompressedStream(file).peek(8))
            if source["row"] is None and source["length"] is not None:
                file.seek(offset)
                return file.read(min(source["length"], dump_pages.MAX_PAGE))
            piece = InputSplit(source["file"], file.seek(0, 2), "", offset)
            for page in dump_pages.read_pages(file, piece, code):
                if page.member == offset and page.row == source["row"]:
                    return page.data
        raise RecordError(f"{source['file']}: no page {source['row']} in the stream at {offset}")

    def _rows(self, piece: InputSplit, root: str, collection: str) -> Iterator[SourceRow]:
        with storage.open_input(root, piece.path) as file:
            stream = CompressedStream(file)
            head = stream.peek(_HEAD)
            code = dump_pages.encoding(head)
            text = head.decode(code.name, "replace")
            start, stop = piece.start or 0, piece.size if piece.stop is None else piece.stop
            # of a damaged head the rest is read, without the names that this wiki has for its namespaces
            if "<mediawiki" not in text and "<page>" not in text and stream.damage is None:
                reason = "no dump of MediaWiki: no <mediawiki and no <page> at its beginning"
                raise UnreadableFile(piece.path, reason, start, stop - start)
            wiki, drops, read = _wiki(text), DropLimit(piece.path, piece.size), 0
            for page in dump_pages.read_pages(file, piece, code):
                row = self._row(page, piece, collection, stream.compressed)
                read += page.size
                try:
                    if page.reason:
                        raise RecordError(page.reason)
                    self._fill_in(row, page, code.name, wiki)
                except RecordError as error:
                    row.drop = ("unreadable", str(error))
                yield row
                if row.drop and row.drop[0] == "unreadable":
                    drops.count(read, page.member if stream.compressed else page.position)

    def _row(self, page: RawPage, piece: InputSplit, collection: str, compressed: bool) -> SourceRow:
        # Of a page in the first stream the key is the one that it has in the same dump without compression.
        key = f"@{page.member}+{page.member_position}" if page.member else position_key(page.member_position)
        spot: tuple[int | None, int | None, int | None]
        if page.lost:
            key, spot = f"lost@{page.member}", (page.member, page.lost, None)
        else:
            spot = (page.member, None, page.row) if compressed else (page.position, page.size, None)
            key = f"{key}-" if page.row is None else key
        where = provenance(piece.path, "wikipedia", *spot)
        return SourceRow(document.doc_id(collection, piece.path, key), where, bytes=page.size or None)

    def _fill_in(self, row: SourceRow, page: RawPage, code: str, wiki: _Wiki) -> None:
        """The text and the fields of a page, or why it is no document. Raises RecordError."""
        try:
            xml = page.data.decode(code)
        except UnicodeDecodeError as error:
            raise RecordError(f"not in {code.upper()}: byte {error.start} of the page") from None
        head, _, revision = xml.partition("<revision>")
        revision = revision.rpartition("<revision>")[2]  # of a full history, the last one
        titles, number = _TITLE.search(head), _ID.search(head)
        if titles is None or number is None:
            raise RecordError("a page without a title" if titles is None else "a page without an id")
        title = _unescape(titles[1]).strip()
        row.charset, row.url = code, _url(wiki.base, title)
        space = _NAMESPACE.search(head)
        namespace = int(space[1]) if space else _namespace(title, wiki)
        if namespace not in self.namespaces:
            row.drop = ("record_type", f"namespace {wiki.namespaces.get(namespace) or namespace}")
            return
        if redirect := _REDIRECT.search(head):
            row.drop = ("record_type", f"redirect to {_unescape(redirect[1] or '?')}")
            return
        if (model := _MODEL.search(revision)) and model[1] != "wikitext":
            row.drop = ("record_type", f"content model {model[1]}")
            return
        text = _TEXT.search(revision)
        if text is None:
            raise RecordError("a page without a text" if "<text" not in revision else "tags inside the text of a page")
        if 'deleted="' in text[1]:
            row.drop = ("record_type", "deleted text")
            return
        source = _unescape(text[2] or "")
        if old := _OLD_REDIRECT.match(source):
            row.drop = ("record_type", f"redirect to {old[1]}")
            return
        plain = to_text(source, wiki.site, infobox=self.infobox)
        row.text = plain.text
        meta: dict[str, Any] = {"title": title, "id": int(number[1])}
        if changed := _ID.search(revision):
            meta["revision"] = int(changed[1])
        if wiki.language:
            meta["language"] = wiki.language
        if plain.categories:
            meta["categories"] = plain.categories
        if plain.infobox:
            meta["infobox"] = plain.infobox
        row.meta = meta_json(meta)
        if date := _TIME.search(revision):
            row.date = parse_date(date[1])


def _wiki(head: str) -> _Wiki:
    base, language = _BASE.search(head), _LANGUAGE.search(head)
    names = {int(key): _unescape(name) for key, name in _NAMED.findall(head) if len(key) < 10}

    def spoken(known: str, *keys: int) -> frozenset[str]:
        local = [names[key] for key in keys if names.get(key)]
        return frozenset(name.replace("_", " ").lower() for name in (*known.split(), *local))

    site = Site(spoken(_CATEGORIES, 14), spoken(_FILES, 6, -2))
    return _Wiki(_unescape(base[1]) if base else "", language[1] if language else "", names, site)


def _namespace(title: str, wiki: _Wiki) -> int:
    """The namespace of a page by its title, which dumps before version 0.6 leave to it."""
    before, colon, _ = title.partition(":")
    return next((key for key, name in wiki.namespaces.items() if colon and name == before and name), 0)


def _url(base: str, title: str) -> str | None:
    if not base.startswith(("http://", "https://")):
        return None
    return f"{posixpath.dirname(base)}/{urllib.parse.quote(title.replace(' ', '_'), safe=':/(),!*~@$;&=')}"


def _unescape(text: str) -> str:
    """Text of XML as MediaWiki writes it."""
    if "&" not in text:
        return text
    for entity, sign in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&#039;", "'"), ("&amp;", "&")):
        text = text.replace(entity, sign)
    return text
