"""The manifest beside the shards: tokenizer, domains, shards with counts and checksums, mix."""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Any

from curation.shards.files import exists, join, map_file, read_file, size_error
from curation.shards.layout import FORMAT, ShardChecksum, ShardFormat, ShardMissing, ShardTokenizer, ShardVersion
from curation.shards.read import open_shard

MANIFEST = "manifest.json"
TOMBSTONES = "tombstones.json"  # beside it: documents overwritten in place, and the shards' checksums since


@dataclass(frozen=True)
class ShardEntry:
    """A shard as the manifest names it; `path` is below the manifest's directory."""

    path: str
    documents: int
    tokens: int
    text_bytes: int
    sha256: str
    bytes: int


COLUMNS = ("path", "documents", "tokens", "text_bytes", "sha256", "bytes")


class DomainShards:
    """The shards of one domain of one split, in reading order, and their sums.

    Held by columns, as the manifest has them: with 20,000 shards that is read in 15 ms, and a table of entries in 100.
    """

    def __init__(self, shards: Iterable[ShardEntry] = ()) -> None:
        entries = tuple(shards)
        self.columns: dict[str, list[Any]] = {c: [getattr(e, c) for e in entries] for c in COLUMNS}

    @classmethod
    def of(cls, columns: Mapping[str, list[Any]]) -> DomainShards:
        """From the columns of a manifest. Raises ValueError where one is missing or of another length."""
        made = cls()
        made.columns = {c: list(columns[c]) for c in COLUMNS}
        if len({len(values) for values in made.columns.values()}) > 1:
            raise ValueError("the columns of a domain's shards have different lengths")
        return made

    def __len__(self) -> int:
        return len(self.columns["path"])

    def __getitem__(self, index: int) -> ShardEntry:
        return ShardEntry(*(self.columns[c][index] for c in COLUMNS))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DomainShards) and self.columns == other.columns

    def __repr__(self) -> str:
        return f"DomainShards({list(self.shards)})"

    __hash__ = None  # type: ignore[assignment]  # its columns are lists

    @property
    def shards(self) -> tuple[ShardEntry, ...]:
        return tuple(self[i] for i in range(len(self)))

    @property
    def token_counts(self) -> list[int]:
        """Tokens of each shard."""
        return self.columns["tokens"]

    @property
    def documents(self) -> int:
        return sum(self.columns["documents"])

    @property
    def tokens(self) -> int:
        return sum(self.columns["tokens"])

    @property
    def text_bytes(self) -> int:
        return sum(self.columns["text_bytes"])


@dataclass(frozen=True)
class TokenizerInfo:
    """The tokenizer file beside the manifest. `kind`: bpe, tokenizers, tiktoken, sentencepiece, bytes."""

    file: str
    sha256: str
    vocab: int
    eos: int
    kind: str
    lossless: bool = True  # decoding gives back every text of a probe set exactly


@dataclass(frozen=True)
class Mix:
    """How often each domain is to be read: weights (sum 1), budget in tokens, cap on and resulting epochs."""

    weights: Mapping[str, float] = field(default_factory=dict)
    budget: int | None = None
    max_epochs: float | None = None
    epochs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says. `root` is the directory it was read from: paths are below it."""

    tokenizer: TokenizerInfo
    splits: Mapping[str, Mapping[str, DomainShards]]
    mix: Mix = field(default_factory=Mix)
    seed: int = 0
    generation: int = 0  # grows when shards are added to a finished run
    fingerprint: str = ""  # of the run that wrote them
    version: int = FORMAT
    root: str = ""
    roots: tuple[str, ...] = ()  # of several runs that are read as one; `@1/train/...` is below the second
    generations: tuple[int, ...] = ()  # of each of these runs

    def path(self, entry: ShardEntry | str) -> str:
        """The path or URL of a shard, or of a file beside the manifest."""
        path = entry if isinstance(entry, str) else entry.path
        if self.roots and path.startswith("@"):
            number, _, path = path[1:].partition("/")
            return join(self.home(int(number)), path)
        return join(self.home(), path)

    def home(self, number: int = 0) -> str:
        """Where the files of a run (the first) are: one that has forgotten documents since has put them aside."""
        root = self.roots[number] if self.roots else self.root
        if root.endswith("/result/shards"):
            generation = self.generations[number] if self.generations else self.generation
            kept = root.removesuffix("result/shards") + f"generations/{generation}/shards"
            if exists(join(kept, MANIFEST)):
                return kept
        return root

    def entries(self) -> Iterator[tuple[str, str, ShardEntry]]:
        """Every (split, domain, shard), in the order of the manifest."""
        for split, domains in self.splits.items():
            for domain, shards in domains.items():
                for entry in shards.shards:
                    yield split, domain, entry

    @property
    def itemsize(self) -> int:
        """Bytes of a token."""
        return 2 if self.tokenizer.vocab <= 1 << 16 else 4

    def dumps(self) -> bytes:
        """Canonical JSON: sorted keys, so that equal manifests are equal bytes."""
        splits = {
            split: {
                domain: {
                    "shards": shards.columns,
                    "documents": shards.documents,
                    "tokens": shards.tokens,
                    "text_bytes": shards.text_bytes,
                }
                for domain, shards in domains.items()
            }
            for split, domains in self.splits.items()
        }
        value = {
            "format": self.version,
            "generation": self.generation,
            "seed": self.seed,
            "tokenizer": vars(self.tokenizer),
            "splits": splits,
            "mix": {**vars(self.mix), "weights": dict(self.mix.weights), "epochs": dict(self.mix.epochs)},
            "fingerprint": self.fingerprint,
        }
        return (_text(value) + "\n").encode()


def _text(value: Any, indent: int = 0) -> str:
    """JSON with an object's keys on lines of their own and each list on one line."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    inner = " " * (indent + 1)
    lines = (
        f"{inner}{json.dumps(key, ensure_ascii=False)}: {_text(below, indent + 1)}"
        for key, below in sorted(value.items())
    )
    return "{\n" + ",\n".join(lines) + "\n" + " " * indent + "}"


def write_manifest(file: IO[bytes] | Any, manifest: Manifest) -> None:
    """Writes `manifest.json` to an open binary file."""
    file.write(manifest.dumps())


def read_manifest(place: str | Sequence[str], verify: bool = False) -> Manifest:
    """The manifest of a run, of its `result` or `shards` directory, or named itself; on any fsspec filesystem.

    Several places are read as one (see `join_manifests`). With `verify` every file is read and its checksum compared.
    Raises ShardMissing, ShardVersion, ShardFormat, ShardTokenizer, and with `verify` what `verify_manifest` raises.
    """
    if not isinstance(place, str | os.PathLike):
        return join_manifests([read_manifest(p, verify) for p in place])
    place = os.fspath(place)
    tried = (
        [place] if place.endswith(".json") else [join(place, sub, MANIFEST) for sub in ("result/shards", "shards", "")]
    )
    found = next((path for path in tried if exists(path)), None)
    if found is None:
        raise ShardMissing(f"{place}: no shards here (looked for {', '.join(tried)}); `gristmill curate` writes them")
    try:
        value = json.loads(read_file(found))
        version = value["format"]
        if version != FORMAT:
            raise ShardVersion(f"{found}: manifest format {version}; this version of Gristmill reads format {FORMAT}")
        splits = {
            split: {d: DomainShards.of(shards["shards"]) for d, shards in domains.items()}
            for split, domains in value["splits"].items()
        }
        tokenizer, mix = TokenizerInfo(**value["tokenizer"]), Mix(**value["mix"])
        root = found[: -len(MANIFEST)].rstrip("/") if found.endswith("/" + MANIFEST) else posixpath.dirname(found)
        manifest = Manifest(
            tokenizer, splits, mix, value["seed"], value["generation"], value["fingerprint"], version, root or "."
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ShardFormat(f"{found}: not a manifest of shards ({type(error).__name__}: {error})") from error
    if verify:
        verify_manifest(manifest)
    return manifest


def join_manifests(manifests: Sequence[Manifest]) -> Manifest:
    """Several runs' shards as one: a domain of the same name has the shards of each, in the order given.

    The tokenizer must be the same to the byte, else ShardTokenizer is raised. Weights are not carried over: each run
    had its own. A document of two runs is read twice; `gristmill shards merge` writes one run without the second.
    """
    if len(manifests) == 1:
        return manifests[0]
    first = manifests[0]
    for other in manifests[1:]:
        if other.tokenizer.sha256 != first.tokenizer.sha256:
            mine, theirs = (f"{t.sha256[:12]}... ({t.kind}, {t.vocab} ids)" for t in (first.tokenizer, other.tokenizer))
            raise ShardTokenizer(
                f"{other.root}: its tokens are of the tokenizer {theirs}, those of {first.root} of {mine}; "
                "shards train together only with one tokenizer: curate one of the runs again with the other's, "
                f"tokenizer: {{path: {first.path(first.tokenizer.file)}}}"
            )
    found: dict[str, dict[str, list[ShardEntry]]] = {}
    for i, manifest in enumerate(manifests):
        for split, domain, entry in manifest.entries():
            there = found.setdefault(split, {}).setdefault(domain, [])
            there.append(replace(entry, path=f"@{i}/{entry.path}"))
    splits = {s: {d: DomainShards(entries) for d, entries in sorted(v.items())} for s, v in found.items()}
    caps = [m.mix.max_epochs for m in manifests if m.mix.max_epochs is not None]
    return Manifest(
        first.tokenizer,
        splits,
        Mix(max_epochs=min(caps) if caps else None),
        first.seed,
        max(m.generation for m in manifests),
        hashlib.sha256("".join(m.fingerprint for m in manifests).encode()).hexdigest()[:32],
        root=first.root,
        roots=tuple(m.root for m in manifests),
        generations=tuple(m.generation for m in manifests),
    )


def verify_manifest(manifest: Manifest) -> None:
    """Reads every file the manifest names and compares size and SHA-256, then opens each shard.

    Raises ShardMissing, ShardTruncated, ShardChecksum or ShardTokenizer for the first file that is not as written.
    """
    verify_tokenizer(manifest)
    for _, _, entry in manifest.entries():
        verify_entry(manifest, entry)


def verify_tokenizer(manifest: Manifest) -> None:
    """Raises ShardMissing or ShardTokenizer where the tokenizer's file is not the one that made the tokens."""
    path = manifest.path(manifest.tokenizer.file)
    if hashlib.sha256(map_file(path)).hexdigest() != manifest.tokenizer.sha256:
        raise ShardTokenizer(f"{path}: not the tokenizer that made these tokens (checksum differs from the manifest's)")


def verify_entry(manifest: Manifest, entry: ShardEntry) -> None:
    """Raises the ShardError of a shard that is not as it was written."""
    path = manifest.path(entry)
    data = map_file(path)
    if data.size != entry.bytes:
        raise size_error(path, data.size, entry.bytes)
    run, name = entry.path.split("/", 1) if manifest.roots else ("", entry.path)
    erased = manifest.path(f"{run}/{TOMBSTONES}" if run else TOMBSTONES)  # what checksums are since some were erased
    tombstones = json.loads(read_file(erased)) if exists(erased) else {}
    expected = tombstones.get(name, {}).get("sha256", entry.sha256)
    if (found := hashlib.sha256(data).hexdigest()) != expected:
        raise ShardChecksum(f"{path}: checksum {found[:12]}..., the manifest says {expected[:12]}...; copy it again")
    open_shard(path, entry=entry, tokenizer=manifest.tokenizer.sha256)
