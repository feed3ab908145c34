"""Merges the shards of several runs into one run, or writes imported token documents as the shards of a new run.

The result is what shard_writer.py would have written: the documents of a domain in the order of their keyed hash, in
2^k shards by the first k bits of it. Memory holds ids and lengths; tokens are copied one document at a time.

Of documents with the same id the first is kept. A document whose tokens or URL are in the validation split of any run
is removed from training, so a merge never puts a text, or a page that was crawled twice, on both sides of the split.
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
from curation.packing.shard_writer import hash_prefix_bits
from curation.packing.tokenizer.encode import Encoder
from curation.packing.tokenizer.load_tokenizer import eos_token_name
from curation.packing.train_validation_split import TRAIN, VALIDATION
from curation.seeded_hash import hash_with_seed, words

Tokens = npt.NDArray[Any]


@dataclass(frozen=True)
class TokenDocument:
    """A document that is already tokenized; `tokens()` reads its ids, without EOS."""

    doc_id: bytes
    length: int
    tokens: Callable[[], Tokens]
    url: str | None
    source: dict[str, Any] | None


@dataclass(frozen=True)
class MergeResult:
    """The manifest written, and counts of documents left out: repeated ids, and training documents whose text or URL is
    in validation."""

    manifest: shards.Manifest
    duplicate_ids: int
    removed_from_training: int


def write_token_documents(
    out: str,
    documents: Iterable[tuple[str, str, TokenDocument]],
    tokenizer: bytes,
    *,
    eos: str | None = None,
    seed: int = 17,
    tokens_per_shard: int = 50_000_000,
    generation: int = 0,
) -> MergeResult:
    """Writes (split, domain, document) triples as shards with a manifest into the folder `out`/result/shards.

    `tokenizer` is the tokenizer.json (or SentencePiece model) of the tokens. Raises UserError if `out` already has
    shards or there are no documents.
    """
    root = os.path.join(out, "result", "shards")
    if os.path.exists(os.path.join(root, shards.MANIFEST)):
        raise UserError(f"{out} already has shards; name another folder")
    encoder = Encoder(tokenizer, eos=eos)
    groups: dict[tuple[str, str], list[TokenDocument]] = {}
    seen: set[bytes] = set()
    duplicate_ids = removed = 0
    for split, domain, document in documents:
        if document.doc_id in seen:
            duplicate_ids += 1
            continue
        seen.add(document.doc_id)
        groups.setdefault((split, domain), []).append(document)
    if not groups:
        raise UserError("there are no documents to write")
    validation = [d for (split, _), found in groups.items() if split == VALIDATION for d in found]
    texts = {_token_hash(d) for d in validation}
    urls = {canonicalize_url(d.url) for d in validation if d.url and d.url.strip()}
    if validation:
        for (split, _), found in groups.items():
            if split == TRAIN:
                kept = [
                    d for d in found if _token_hash(d) not in texts and not (d.url and canonicalize_url(d.url) in urls)
                ]
                removed += len(found) - len(kept)
                found[:] = kept
    os.makedirs(root, exist_ok=True)
    with open(os.path.join(root, encoder.file), "wb") as f:
        f.write(tokenizer)
    splits: dict[str, dict[str, shards.DomainShards]] = {TRAIN: {}, VALIDATION: {}}
    for (split, domain), found in sorted(groups.items()):
        if found:
            entries = _write_domain(root, split, domain, found, encoder, seed, tokens_per_shard)
            splits[split][domain] = shards.DomainShards(entries)
    info = shards.TokenizerInfo(
        encoder.file, encoder.sha256, encoder.vocab, encoder.eos, encoder.kind, encoder.lossless
    )
    sums = "".join(e.sha256 for s in splits.values() for d in s.values() for e in d.shards)
    fingerprint = hashlib.sha256(sums.encode()).hexdigest()[:32]
    made = shards.Manifest(info, splits, seed=seed, generation=generation, fingerprint=fingerprint)
    with open(os.path.join(root, shards.MANIFEST), "wb") as f:
        shards.write_manifest(f, made)
    return MergeResult(shards.read_manifest(out), duplicate_ids, removed)


def _token_hash(document: TokenDocument) -> bytes:
    return xxhash.xxh3_128_digest(np.ascontiguousarray(document.tokens(), np.uint32).tobytes())


def _write_domain(
    root: str, split: str, domain: str, documents: Sequence[TokenDocument], encoder: Encoder, seed: int, per_shard: int
) -> list[shards.ShardEntry]:
    ids = pa.array([d.doc_id for d in documents], pa.binary(16))
    key, pair = hash_with_seed(ids, seed, "order"), words(ids)
    order = np.lexsort((pair[:, 1], pair[:, 0], key))
    bits = hash_prefix_bits(sum(d.length + 1 for d in documents), per_shard)
    shard = (key >> np.uint64(64 - bits)).astype(np.int64) if bits else np.zeros(len(key), np.int64)
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


def read_documents(manifests: Sequence[shards.Manifest]) -> Iterable[tuple[str, str, TokenDocument]]:
    """Yields (split, domain, document) of each run in turn."""
    for manifest in manifests:
        for split, domain, entry in manifest.entries():
            shards.verify_entry(manifest, entry)  # what is copied from a damaged shard would look whole
            shard = shards.open_shard(manifest.path(entry), entry=entry, tokenizer=manifest.tokenizer.sha256)
            for row, document in enumerate(shard.documents.to_pylist()):
                begin, end = int(shard.offsets[row]) + 1, int(shard.offsets[row + 1])

                def tokens(shard: shards.Shard = shard, begin: int = begin, end: int = end) -> Tokens:
                    return shard.tokens[begin:end]

                yield (
                    split,
                    domain,
                    TokenDocument(document["doc_id"], end - begin, tokens, document["url"], document["source"]),
                )


def merge_runs(out: str, runs: Sequence[str], tokens_per_shard: int = 50_000_000) -> MergeResult:
    """Merges the shards of several runs into the folder `out`. Raises ShardTokenizer and UserError."""
    manifests = [shards.read_manifest(run) for run in runs]
    first = shards.join_manifests(manifests)
    tokenizer = shards.read_tokenizer(manifests[0])
    return write_token_documents(
        out,
        read_documents(manifests),
        tokenizer,
        eos=eos_token_name(tokenizer, first.tokenizer.eos),
        seed=first.seed,
        tokens_per_shard=tokens_per_shard,
        generation=first.generation + 1,
    )
