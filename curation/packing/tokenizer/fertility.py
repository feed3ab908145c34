"""How many bytes of text a token stands for, by domain and by language.

Domains are in the manifest. Languages are not, so the task that tokenizes counts them and says so with a batch without
rows, whose metadata the counters of its stage reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from curation import shards

COUNTED = ("documents", "tokens", "text_bytes")
UNKNOWN = "unknown"  # no word in it, or not looked at


class Spoken:
    """Documents, tokens (without EOS) and bytes of text of each language in a task."""

    def __init__(self) -> None:
        self._counts: dict[str, list[int]] = {}

    def add(self, codes: Sequence[str | None], tokens: Sequence[int], sizes: Sequence[int]) -> None:
        for code, n, size in zip(codes, tokens, sizes, strict=True):
            known = self._counts.setdefault(code or UNKNOWN, [0, 0, 0])
            known[:] = known[0] + 1, known[1] + n, known[2] + size

    def said(self) -> dict[str, str]:
        """As the metadata of a batch."""
        return {
            f"{what}/language/{code}": str(n)
            for code, counts in self._counts.items()
            for what, n in zip(COUNTED, counts, strict=True)
        }

    @staticmethod
    def read(batch: pa.RecordBatch) -> dict[str, int]:
        """The metadata as a counters."""
        return {name.decode(): int(n) for name, n in (batch.schema.metadata or {}).items()}


def fertility(made: shards.Manifest, counters: Mapping[str, int]) -> dict[str, dict[str, dict[str, float]]]:
    """Bytes of text a token (EOS not counted): {"domains": {name: {"documents", "tokens", "text_bytes",
    "bytes_per_token"}}, "languages": ...}; domains over both splits, languages as the stage `tokens` counted them."""
    domains: dict[str, list[int]] = {}
    for held in made.splits.values():
        for domain, entries in held.items():
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
