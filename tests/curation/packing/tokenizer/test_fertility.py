"""Tokenizer fertility: counts by language through batch metadata, and bytes per token by domain."""

from __future__ import annotations

import pyarrow as pa

from curation import shards
from curation.packing.tokenizer.fertility import LanguageCounts, fertility


def test_counts_travel_in_the_metadata_of_a_batch_without_rows():
    counts = LanguageCounts()
    counts.add(["en", None, "en"], [10, 5, 20], [40, 10, 80])
    schema = pa.schema([("x", pa.int64())]).with_metadata(counts.to_metadata())
    assert LanguageCounts.from_metadata(pa.RecordBatch.from_pylist([], schema=schema)) == {
        "documents/language/en": 2, "tokens/language/en": 30, "text_bytes/language/en": 120,
        "documents/language/unknown": 1, "tokens/language/unknown": 5, "text_bytes/language/unknown": 10,
    }  # fmt: skip


def test_bytes_per_token_without_eos_over_both_splits():
    def entry(documents, tokens, text_bytes):
        return shards.DomainShards([shards.ShardEntry("a.arrow", documents, tokens, text_bytes, "0" * 64, 1)])

    splits = {"train": {"web": entry(2, 102, 300), "code": entry(1, 1, 0)}, "validation": {"web": entry(1, 101, 300)}}
    made = shards.Manifest(shards.TokenizerInfo("tokenizer.json", "0" * 64, 300, 0, "bpe"), splits)
    counters = {"documents/language/en": 3, "tokens/language/en": 200, "text_bytes/language/en": 600, "tokens/7": 9}
    found = fertility(made, counters)
    assert found["domains"] == {
        "code": {"documents": 1, "tokens": 0, "text_bytes": 0, "bytes_per_token": 0.0},
        "web": {"documents": 3, "tokens": 200, "text_bytes": 600, "bytes_per_token": 3.0},
    }
    assert found["languages"] == {"en": {"documents": 3, "tokens": 200, "text_bytes": 600, "bytes_per_token": 3.0}}
