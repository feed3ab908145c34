"""What an input is, found out by looking: which reader takes which files, where text, URL and date stand.

A name says little: crawls are full of `.txt` that are JSON Lines and `.gz` that are not. So the first bytes of files
decide, and for tables the values of their first records. Files that one source can read alike become a `Group`, with
globs that match these files and no others. Then each group is sampled through its own reader, so that what is said
about languages, hosts and lengths is what a run would see.
"""

from __future__ import annotations

import glob
import itertools
import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from curation import record, storage
from curation.step import UserError

LOOKED_AT = 400  # files whose content is looked at; of more, some of every folder and suffix
HEAD = 1 << 16  # decompressed bytes of a file that say what it is
RECORDS = 100  # records of a table whose values say which field is which
SAMPLED = 240  # documents of a group that are judged, up to twice as many
READ = 3000  # documents of a file that they are taken from: its first ones
FILES_SAMPLED = 8
MOST_PATTERNS = 40

_TEXT = ("text", "content", "body", "raw_content", "page_text", "article", "document", "story", "markdown", "passage")
_URL = ("url", "uri", "link", "source_url", "page_url", "permalink", "warc_target_uri", "href")
_DATE = ("date", "timestamp", "crawl_date", "published", "created", "created_at", "published_at", "time", "warc_date")
_ID = ("id", "doc_id", "uuid", "_id", "key", "guid", "document_id")
_CODE = (
    *(".py", ".c", ".h", ".cc", ".cpp", ".hpp", ".java", ".js", ".ts", ".tsx", ".jsx", ".go", ".rs", ".rb", ".php"),
    *(".cs", ".swift", ".kt", ".scala", ".sh", ".sql", ".r", ".jl", ".lua", ".pl", ".hs", ".ml", ".el", ".lisp"),
    *(".clj", ".m", ".f90", ".zig", ".vue", ".css", ".cmake", ".toml"),
)
_LINK = re.compile(r"https?://\S+\Z")
_TAGS = re.compile(r"<(?:html|body|div|p|a|span|head|table)[\s>]", re.I)


@dataclass(frozen=True)
class Shape:
    """What makes files readable by one source: reader, format, mix domain, fields."""

    read: str  # warc or text
    form: str  # warc, jsonl, parquet, arrow, text
    domain: str
    html: bool = False
    text: str = "text"
    url: str = "url"
    date: str = "date"
    id: str = ""


@dataclass
class Group:
    """Files of one shape below one root, and what a sample of their documents is like."""

    shape: Shape
    root: str
    patterns: list[str]
    files: list[storage.InputFile]
    format: str = "auto"  # what `read: text` has to be told, where the suffix says something else
    mime: str = "text/plain"
    documents: int = 0  # sampled
    words: int = 0  # median of the sampled documents
    passing: int = 0  # of the sampled documents, how many Gopher's rules would keep
    languages: Counter[str] = field(default_factory=Counter)
    hosts: Counter[str] = field(default_factory=Counter)

    @property
    def bytes(self) -> int:
        return sum(f.size for f in self.files)


@dataclass
class Look:
    """Everything that was found below the inputs."""

    groups: list[Group]
    left_out: dict[str, list[str]]  # reason -> paths
    identified: bool  # whether there was a model to tell languages by
    cut: int = 0  # files that are in no source, as that would take too many patterns


def look(inputs: Sequence[str], language_model: str = "lid.176") -> Look:
    """Looks at files, folders and URLs. Raises UserError for an input that is absent or holds no text."""
    found = Look([], {}, False)
    for given in inputs:
        _look_at(given, found)
    if not found.groups:
        said = "; ".join(f"{reason}: {', '.join(paths[:3])}" for reason, paths in found.left_out.items())
        raise UserError(
            f"there is no text in {', '.join(inputs)}: {said or 'no files'}\n"
            "  expected WARC, WET, ARC, JSON Lines, Parquet, Arrow, HTML or plain text"
        )
    found.groups.sort(key=lambda g: -g.bytes)
    _sample(found, language_model)
    return found


def _look_at(given: str, found: Look) -> None:
    fs, inner = storage.filesystem(given)
    if not fs.exists(inner):
        raise UserError(f"{given}: no such file or folder\n  expected what `gristmill curate` is to read")
    root, only = (given, None) if fs.isdir(inner) else posixpath.split(given)
    root = root or "."
    files = storage.list_inputs(root, only if only is not None else "**/*")
    shown = [f for f in files if only or not any(part.startswith((".", "_")) for part in f.path.split("/"))]
    shapes: dict[str, Shape | str] = {}
    for file in _chosen(shown):
        shapes[file.path] = _shape(root, file)
    by_kind = {_kind(path): shape for path, shape in shapes.items()}
    members: dict[Shape, list[storage.InputFile]] = {}
    for file in shown:
        shape = shapes.get(file.path) or by_kind[_kind(file.path)]
        if isinstance(shape, str):
            found.left_out.setdefault(shape, []).append(posixpath.join(root, file.path))
        else:
            members.setdefault(shape, []).append(file)
    for shape, held in members.items():
        for told, part in _by_format(shape, held).items():
            patterns, cut = _patterns([f.path for f in part], [f.path for f in files])
            found.cut += cut
            found.groups.append(Group(shape, root, patterns, part, *told))


def _kind(path: str) -> tuple[str, str]:
    return posixpath.dirname(path), _suffix(path)


def _suffix(path: str) -> str:
    """`.warc.gz` of a.b.warc.gz: the last suffix, and the one before a compression's."""
    name = posixpath.basename(path)
    bare = record.strip_compression(name)
    return posixpath.splitext(bare)[1] + name[len(bare) :]


def _chosen(files: list[storage.InputFile]) -> Iterable[storage.InputFile]:
    """All files, or the first of every folder and suffix and others evenly spaced."""
    if len(files) <= LOOKED_AT:
        return files
    first = {_kind(f.path): f for f in reversed(files)}
    return {f.path: f for f in [*first.values(), *files[:: len(files) // LOOKED_AT]]}.values()


# -- one file ----------------------------------------------------------------------------------------------------------


def _shape(root: str, file: storage.InputFile) -> Shape | str:
    """What a file is, or why it is no input."""
    from curation.read.records import archive_format
    from curation.read.stream import Stream
    from curation.read.warc import binary_type

    if not file.size:
        return "empty"
    suffix = posixpath.splitext(record.strip_compression(file.path))[1].lower()
    try:
        with storage.open_input(root, file.path) as stored:
            first = stored.read(8)
            stored.seek(0)
            if first[:4] == b"PAR1":
                return _table(_parquet_rows(stored), "parquet")
            if first[:6] == b"ARROW1" or first[:4] == b"\xff\xff\xff\xff":
                return _table(_arrow_rows(stored), "arrow")
            stream = Stream(stored)
            head = stream.peek(HEAD)
    except (OSError, ValueError) as error:
        return f"cannot be read ({str(error).partition(chr(10))[0]})"
    if archive_format(head[:1024]):
        return Shape("warc", "warc", "web", html=True)
    if not head.strip():
        return "empty"
    if binary := binary_type(head):
        return binary
    if head.lstrip().startswith(b"{") and (rows := _json_rows(head)) is not None:
        return _table(rows, "jsonl")
    if suffix in (".json", ".csv", ".tsv"):
        return f"{suffix[1:]}, not one JSON object a line"
    text = head.decode("utf-8", "replace")
    html = suffix in (".html", ".htm", ".xhtml") or len(_TAGS.findall(text[:4096])) > 3
    return Shape("text", "text", "web" if html else "code" if suffix in _CODE else "text", html=html)


def _json_rows(head: bytes) -> list[dict[str, Any]] | None:
    """The first records of JSON Lines; none for anything else."""
    lines = head.splitlines()
    whole = lines[:-1] if len(head) >= HEAD and len(lines) > 1 else lines
    rows: list[dict[str, Any]] = []
    for line in whole[:RECORDS]:
        if line.strip():
            try:
                value = json.loads(line)
            except ValueError:
                if not rows:
                    return None
                continue
            if isinstance(value, dict):
                rows.append(value)
    return rows or None


def _parquet_rows(stored: Any) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(stored).iter_batches(RECORDS):
        return list(batch.to_pylist())
    return []


def _arrow_rows(stored: Any) -> list[dict[str, Any]]:
    try:
        batch = pa.ipc.open_file(stored).get_batch(0)
    except pa.ArrowInvalid:
        stored.seek(0)
        batch = pa.ipc.open_stream(stored).read_next_batch()
    return list(batch.slice(0, RECORDS).to_pylist())


def _table(rows: Sequence[dict[str, Any]], form: str) -> Shape | str:
    """Which field of these records is the text, and which the URL, the date and an id."""
    names = list(dict.fromkeys(itertools.chain.from_iterable(rows)))
    values = {n: [r[n] for r in rows if r.get(n) is not None] for n in names}
    strings = {n: v for n, v in values.items() if v and all(isinstance(x, str) for x in v)}
    prose = {n: v for n, v in strings.items() if not _is_url(v)}
    text = max(prose, key=lambda n: (_prose(prose[n]) * (3 if n.lower() in _TEXT else 1), n), default=None)
    if text is None or not _prose(prose[text]):
        return f"{form} without a field of text (it has {', '.join(names[:8]) or 'none'})"
    urls = [n for n, v in strings.items() if n != text and _is_url(v)]
    dates = [n for n, v in values.items() if n not in (text, *urls) and _is_date(n, v)]
    ids = [n for n, v in values.items() if n.lower() in _ID and len(v) == len(rows) == len({str(x) for x in v})]
    html = sum(len(_TAGS.findall(v[:4096])) > 2 for v in prose[text]) * 2 > len(prose[text])
    return Shape(
        *("text", form, "web" if html or urls else "text", html, text),
        url=_best(urls, _URL) or "url",
        date=_best(dates, _DATE) or "date",
        id=_best(ids, _ID),
    )


def _prose(values: Sequence[str]) -> float:
    """How much like text: the mean length, nothing for values without spaces."""
    spaced = [len(v) for v in values if any(c.isspace() for c in v.strip()) or not v.isascii()]
    return sum(spaced) / len(values)


def _is_url(values: Sequence[str]) -> bool:
    return sum(bool(_LINK.match(v.strip())) for v in values) * 2 > len(values)


def _is_date(name: str, values: Sequence[Any]) -> bool:
    from curation.read.rows import parse_date

    if not values or isinstance(values[0], bool):
        return False
    likely = name.lower() in _DATE or "date" in name.lower() or "time" in name.lower()
    if isinstance(values[0], (int, float)) and not likely:
        return False
    return sum(parse_date(v) is not None for v in values) * 2 > len(values)


def _best(names: Sequence[str], known: Sequence[str]) -> str:
    return min(names, key=lambda n: (known.index(n.lower()) if n.lower() in known else len(known), n), default="")


# -- globs -------------------------------------------------------------------------------------------------------------


def _by_format(shape: Shape, files: Sequence[storage.InputFile]) -> dict[tuple[str, str], list[storage.InputFile]]:
    """Files by what their reader has to be told: a format and a media type that the suffix does not say."""
    from curation.read.text import by_suffix, is_html

    parts: dict[tuple[str, str], list[storage.InputFile]] = {}
    for file in files:
        told = "auto" if shape.read == "warc" or by_suffix(file.path) == shape.form else shape.form
        named = shape.read == "warc" or (shape.form == "text" and is_html(file.path))
        parts.setdefault((told, "text/html" if shape.html and not named else "text/plain"), []).append(file)
    return parts


def _patterns(wanted: list[str], everything: list[str]) -> tuple[list[str], int]:
    """Globs that match the wanted paths and none of the others, general ones first; how many paths are left over."""
    others = set(everything) - set(wanted)
    left, made = list(wanted), []
    folders = {"/".join(p.split("/")[:i]) for p in wanted for i in range(p.count("/") + 1)}
    suffixes = sorted({_suffix(p) for p in wanted})
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
    room = max(0, MOST_PATTERNS - len(made))
    return made + [glob.escape(p) for p in left[:room]], max(0, len(left) - room)


def _matches(path: str, folder: str, suffix: str, below: bool) -> bool:
    rest = path.removeprefix(f"{folder}/") if folder else path
    return (
        (not folder or path.startswith(f"{folder}/"))
        and rest.endswith(suffix)
        and (below or "/" not in rest)
        and (below or bool(suffix))
    )


# -- documents ---------------------------------------------------------------------------------------------------------


def _sample(found: Look, language_model: str) -> None:
    from curation.quality.heuristics import Heuristics
    from curation.quality.language import Language
    from curation.rules import Decider

    language: Any = Language(model=language_model)
    try:
        language.open()
        found.identified = True
    except UserError:
        language = None
    gopher = Heuristics(sets=["gopher"])
    gopher.open()
    for group in found.groups:
        batches = list(_documents(group))
        if not batches:
            continue
        batch = pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
        lengths = [len(t.split()) for t in batch.column("text").to_pylist()]
        group.documents, group.words = len(lengths), sorted(lengths)[len(lengths) // 2]
        group.hosts.update(h for u in batch.column("url").to_pylist() if u and (h := _host(u)))
        if group.shape.domain == "code":
            continue
        if language is not None:
            answers = language(batch).column(language.name).to_pylist()
            group.languages.update(a["code"] for a in answers if a["code"] and a["score"] >= 0.5)
        judged = gopher(batch)
        group.passing = int((Decider(gopher.rules(), judged.schema).decide(judged)[0] == -1).sum())


def _documents(group: Group) -> Iterator[Any]:
    """Documents of a few of its files, as text: files evenly spaced, and documents of the first `READ` in each."""
    from curation.read.extract import Extract
    from curation.step import Piece

    reader = make_reader(group)
    extract: Any = None
    if group.shape.html:
        extract = Extract()
        extract.open()
    count = min(len(group.files), FILES_SAMPLED)
    for i in range(count):
        file = group.files[i * len(group.files) // count]
        piece = Piece(file.path, file.size, file.version)
        rows = reader.read(piece, group.root, collection="", domain=group.shape.domain, rows=32)
        for batch in _thinned(rows, -(-SAMPLED // count)):
            yield extract(batch) if extract is not None else batch


def _thinned(batches: Iterator[Any], wanted: int) -> list[Any]:
    """`wanted` to twice as many documents, each a batch, evenly spaced among the first `READ`: each time there are
    twice as many, every second one goes. A file that breaks off gives what it has."""
    import pyarrow.compute as pc

    from curation.step import UnreadableFile

    held, stride, seen = list[Any](), 1, 0
    try:
        for batch in batches:
            batch = batch.filter(pc.is_null(batch.column("drop"))).drop_columns(["drop"])
            for row in range(-seen % stride, batch.num_rows, stride):
                held.append(batch.slice(row, 1))
            seen += batch.num_rows
            while len(held) >= 2 * wanted:
                held, stride = held[::2], 2 * stride
            if seen >= READ:
                break
    except (OSError, UnreadableFile):
        pass
    return held


def make_reader(group: Group) -> Any:
    """The group's reader with its options."""
    from curation.read.text import Text
    from curation.read.warc import Warc

    return Warc() if group.shape.read == "warc" else Text(**reader_options(group))


def reader_options(group: Group) -> dict[str, Any]:
    """What `read: text` has to be told that differs from its defaults."""
    shape = group.shape
    given = {"text": shape.text, "url": shape.url, "date": shape.date, "mime": group.mime, "format": group.format}
    usual = {"text": "text", "url": "url", "date": "date", "mime": "text/plain", "format": "auto"}
    return {} if shape.read == "warc" else {k: v for k, v in given.items() if v != usual[k]}


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
