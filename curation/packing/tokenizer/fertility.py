"""Computes tokenizer fertility: bytes of text per token, by domain and by language.

The manifest has the counts of domains. Those of languages are counted while tokenizing and sent in the metadata of a
batch without rows, which the stage's counters read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from curation import shards

COUNTED = ("documents", "tokens", "text_bytes")
UNKNOWN = "unknown"  # documents without a language code


class LanguageCounts:
    """Counts documents, tokens (without EOS) and bytes of text by language in one task."""

    def __init__(self) -> None:
        self._counts: dict[str, list[int]] = {}

    def add(self, codes: Sequence[str | None], tokens: Sequence[int], sizes: Sequence[int]) -> None:
        """Adds documents by language code, number of tokens and bytes of text."""
        for code, n, size in zip(codes, tokens, sizes, strict=True):
            known = self._counts.setdefault(code or UNKNOWN, [0, 0, 0])
            known[:] = known[0] + 1, known[1] + n, known[2] + size

    def to_metadata(self) -> dict[str, str]:
        """The counts as metadata of an Arrow schema."""
        return {
            f"{what}/language/{code}": str(n)
            for code, counts in self._counts.items()
            for what, n in zip(COUNTED, counts, strict=True)
        }

    @staticmethod
    def from_metadata(batch: pa.RecordBatch) -> dict[str, int]:
        """The counts in a batch's metadata, as counters of a stage."""
        return {name.decode(): int(n) for name, n in (batch.schema.metadata or {}).items()}


def fertility(made: shards.Manifest, counters: Mapping[str, int]) -> dict[str, dict[str, dict[str, float]]]:
    """Bytes of text per token (EOS not counted): {"domains": {name: {"documents", "tokens", "text_bytes",
    "bytes_per_token"}}, "languages": ...}. Domains cover both splits; languages come from the stage `tokenize`."""
    domains: dict[str, list[int]] = {}
    for domain_shards in made.splits.values():
        for domain, entries in domain_shards.items():
            known = domains.setdefault(domain, [0, 0, 0])
            counts = entries.documents, entries.tokens - entries.documents, entries.text_bytes
            known[:] = [a + b for a, b in zip(known, counts, strict=True)]
    codes = sorted(
        name.removeprefix("documents/language/") for name in counters if name.startswith("documents/language/")
    )
    languages = {code: [counters[f"{what}/language/{code}"] for what in COUNTED] for code in codes}
    return {
        what: {
            name: {
                **dict(zip(COUNTED, counts, strict=True)),
                "bytes_per_token": round(counts[2] / max(1, counts[1]), 4),
            }
            for name, counts in sorted(found.items())
        }
        for what, found in (("domains", domains), ("languages", languages))
    }
