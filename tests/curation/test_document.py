"""The document: its id is a function of where it was found, and its text is clean Unicode."""

from __future__ import annotations

import pyarrow as pa
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.document import clean_text, doc_id, hex_id, strip_compression, text_hashes, with_column


def test_an_id_is_a_function_of_the_place() -> None:
    assert doc_id("web", "a.warc.gz", "k") == doc_id("web", "a.warc", b"k") and len(doc_id("web", "a", "k")) == 16
    assert len({doc_id("a", "bc", "k"), doc_id("ab", "c", "k"), doc_id("a", "b", "ck"), doc_id("a", "b", "k")}) == 4
    assert hex_id(bytes(16)) == "0" * 32
    assert [strip_compression(p) for p in ("a.zst", "a.gz.txt", "b.jsonl")] == ["a", "a.gz.txt", "b.jsonl"]


def test_clean_text() -> None:
    assert clean_text("e\u0301 \ud800\0x") == "\u00e9 \ufffdx" and clean_text("a\0b") == "ab"


def test_a_column_is_replaced_or_appended() -> None:
    batch = pa.record_batch({"text": ["a"], "url": ["u"]})
    assert with_column(batch, "text", pa.array(["b"])).to_pydict() == {"text": ["b"], "url": ["u"]}
    assert with_column(batch, "n", pa.array([1])).schema.names == ["text", "url", "n"]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.none() | st.text(alphabet="ab \0é😀", max_size=5), max_size=8), st.integers(0, 3), st.booleans())
def test_hashes_of_texts_are_those_of_their_bytes(texts: list[str | None], start: int, large: bool) -> None:
    column = pa.array(texts, pa.large_string() if large else pa.string()).slice(start)
    expected = [xxhash.xxh3_128_digest((t or "").encode()) for t in texts[start:]]
    assert text_hashes(column).to_pylist() == text_hashes(pa.chunked_array([column])).to_pylist() == expected
    assert text_hashes(column).type == pa.binary(16)
