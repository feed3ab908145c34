"""Documents that are tokens already become a run's shards: several runs merged into one, or files of others imported.

The result is what the shuffle would have written: within a domain documents in the order of their keyed hash, a shard
a prefix of it, a power of two of shards. Only ids and lengths are held in memory; tokens are copied one document at a
time from where they lie.

Of documents with one id the first is kept. Validation wins: a document whose tokens or address stand in any run's
validation split is left out of training, so that no merge lets a text or a page crawled again straddle the split.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from curation import shards
from curation.canonical_url import canonicalize_url
from curation.core.errors import UserError
from curation.packing.shard_writer import bits
from curation.packing.tokenizer.encode import Encoder
from curation.packing.train_validation_split import TRAIN, VALIDATION
from curation.seeded_hash import keyed, words

Tokens = npt.NDArray[Any]


@dataclass(frozen=True)
class Packed:
    """A document as tokens, its EOS not among them; `tokens()` reads them."""

    doc_id: bytes
    length: int
    tokens: Callable[[], Tokens]
    url: str | None
    source: dict[str, Any] | None


@dataclass(frozen=True)
class Gathered:
    """What was written, and what was left out: the same id twice, and training texts or pages that validation has."""

    manifest: shards.Manifest
    repeated: int
    held_out: int


def gather(
    out: str,
    documents: Iterable[tuple[str, str, Packed]],
    tokenizer: bytes,
    *,
    eos: str | None = None,
    seed: int = 17,
    tokens_per_shard: int = 50_000_000,
    generation: int = 0,
) -> Gathered:
    """Writes (split, domain, document)s as shards with their manifest into the folder `out`/result/shards.

    `tokenizer` is the tokenizer.json (or SentencePiece model) of the tokens. Raises UserError where `out` holds shards
    already or there is nothing to write.
    """
    root = os.path.join(out, "result", "shards")
    if os.path.exists(os.path.join(root, shards.MANIFEST)):
        raise UserError(f"{out} holds shards already; name another folder")
    encoder = Encoder(tokenizer, eos=eos)
    groups: dict[tuple[str, str], list[Packed]] = {}
    known: set[bytes] = set()
    repeated = held_out = 0
    for split, domain, document in documents:
        if document.doc_id in known:
            repeated += 1
            continue
        known.add(document.doc_id)
        groups.setdefault((split, domain), []).append(document)
    if not groups:
        raise UserError("there are no documents to write")
    validates = [d for (split, _), found in groups.items() if split == VALIDATION for d in found]
    texts = {_content(d) for d in validates}
    pages = {canonicalize_url(d.url) for d in validates if d.url and d.url.strip()}
    if validates:
        for (split, _), found in groups.items():
            if split == TRAIN:
                kept = [
                    d for d in found if _content(d) not in texts and not (d.url and canonicalize_url(d.url) in pages)
                ]
                held_out += len(found) - len(kept)
                found[:] = kept
    os.makedirs(root, exist_ok=True)
    with open(os.path.join(root, encoder.file), "wb") as f:
        f.write(tokenizer)
    splits: dict[str, dict[str, shards.DomainShards]] = {TRAIN: {}, VALIDATION: {}}
    for (split, domain), found in sorted(groups.items()):
        if found:
            entries = _write(root, split, domain, found, encoder, seed, tokens_per_shard)
            splits[split][domain] = shards.DomainShards(entries)
    info = shards.TokenizerInfo(
        encoder.file, encoder.sha256, encoder.vocab, encoder.eos, encoder.kind, encoder.lossless
    )
    sums = "".join(e.sha256 for s in splits.values() for d in s.values() for e in d.shards)
    fingerprint = hashlib.sha256(sums.encode()).hexdigest()[:32]
    made = shards.Manifest(info, splits, seed=seed, generation=generation, fingerprint=fingerprint)
    with open(os.path.join(root, shards.MANIFEST), "wb") as f:
        shards.write_manifest(f, made)
    return Gathered(shards.read_manifest(out), repeated, held_out)


def _content(document: Packed) -> bytes:
    return xxhash.xxh3_128_digest(np.ascontiguousarray(document.tokens(), np.uint32).tobytes())


def _write(
    root: str, split: str, domain: str, documents: Sequence[Packed], encoder: Encoder, seed: int, per_shard: int
) -> list[shards.ShardEntry]:
    ids = pa.array([d.doc_id for d in documents], pa.binary(16))
    key, pair = keyed(ids, seed, "order"), words(ids)
    order = np.lexsort((pair[:, 1], pair[:, 0], key))
    level = bits(sum(d.length + 1 for d in documents), per_shard)
    shard = (key >> np.uint64(64 - level)).astype(np.int64) if level else np.zeros(len(key), np.int64)
    entries = []
    os.makedirs(os.path.join(root, split, domain), exist_ok=True)
    for index in np.unique(shard).tolist():
        path = f"{split}/{domain}/{index:05d}.arrow"
        full = os.path.join(root, path)
        with open(full, "wb") as f:
            writer = shards.ShardWriter(
                f, vocab_size=encoder.vocab, eos=encoder.eos, scratch_dir=root, metadata={"tokenizer": encoder.sha256}
            )
            for i in order[shard[order] == index].tolist():
                document = documents[i]
                tokens = document.tokens()
                size = len(encoder.decode(tokens).encode("utf-8", "surrogatepass"))
                writer.add(tokens, document.doc_id, document.url, document.source, text_bytes=size)
            info = writer.close()
        with open(full, "rb") as f:
            sha = hashlib.file_digest(f, "sha256").hexdigest()
        size = os.path.getsize(full)
        entries.append(shards.ShardEntry(path, info.documents, info.tokens, info.text_bytes, sha, size))
    return entries


def of_runs(manifests: Sequence[shards.Manifest]) -> Iterable[tuple[str, str, Packed]]:
    """The documents of several runs, one run after the other."""
    for manifest in manifests:
        for split, domain, entry in manifest.entries():
            shard = shards.open_shard(manifest.path(entry), entry=entry, tokenizer=manifest.tokenizer.sha256)
            for row, document in enumerate(shard.documents.to_pylist()):
                begin, end = int(shard.offsets[row]) + 1, int(shard.offsets[row + 1])

                def tokens(shard: shards.Shard = shard, begin: int = begin, end: int = end) -> Tokens:
                    return shard.tokens[begin:end]

                yield (
                    split,
                    domain,
                    Packed(document["doc_id"], end - begin, tokens, document["url"], document["source"]),
                )


def merge(out: str, runs: Sequence[str], tokens_per_shard: int = 50_000_000) -> Gathered:
    """One run of several: their shards in a new folder, in one order. Raises as `join_manifests` does."""
    manifests = [shards.read_manifest(run) for run in runs]
    first = shards.join_manifests(manifests)
    with_eos = shards.read_file(manifests[0].path(first.tokenizer.file))
    return gather(
        out,
        of_runs(manifests),
        with_eos,
        eos=name_of(with_eos, first.tokenizer.eos),
        seed=first.seed,
        tokens_per_shard=tokens_per_shard,
        generation=first.generation + 1,
    )


def name_of(tokenizer: bytes, eos: int) -> str | None:
    """The name of the token that a manifest calls EOS, which may be none of the usual."""
    if tokenizer.lstrip()[:1] != b"{":
        return None
    from tokenizers import Tokenizer

    name = Tokenizer.from_str(tokenizer.decode()).id_to_token(eos)
    return None if name is None else str(name)
