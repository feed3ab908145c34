"""Findings equal presidio's, span for span, on any text.

Covers: window_kernel.py, plain_number_kernel.py, detect.py, presidio_engine.py
"""

from __future__ import annotations

import functools
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curation.core.errors import UserError
from curation.document import clean_text
from curation.safety.pii import presidio_engine
from curation.safety.pii.detect import FINDING_TYPE, analyze
from curation.safety.pii.presidio_engine import DEFAULT_ENTITIES


def ours(
    texts: list[str | None], entities: tuple[str, ...] = DEFAULT_ENTITIES
) -> list[list[tuple[str, int, int, float]]]:
    found = analyze(pa.array(texts, pa.large_string()), entities)
    assert found.type == pa.list_(FINDING_TYPE)
    return [sorted((f["entity"], f["start"], f["end"], f["score"]) for f in row) for row in found.to_pylist()]


def theirs(text: str, entities: tuple[str, ...] = DEFAULT_ENTITIES) -> list[tuple[str, int, int, float]]:
    """presidio as it comes: its own registry, nothing of ours but a tldextract that opens no socket."""
    found = vanilla().analyze(text, language="en", entities=list(entities))
    return sorted((r.entity_type, r.start, r.end, r.score) for r in found)


@functools.cache
def vanilla() -> Any:
    import spacy
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import SpacyNlpEngine
    from presidio_analyzer.recognizer_registry import RecognizerRegistryProvider

    presidio_engine.analyzer_engine("en")

    class Blank(SpacyNlpEngine):
        def load(self) -> None:
            self.nlp: Any = {"en": spacy.blank("en")}

    nlp = Blank(models=[{"lang_code": "en", "model_name": "blank"}])
    nlp.load()
    provider = RecognizerRegistryProvider(registry_configuration={"supported_languages": ["en"]})
    return AnalyzerEngine(nlp_engine=nlp, registry=provider.create_recognizer_registry(), supported_languages=["en"])


PARTS = [
    *("bob@python.org", "a.b+c@sub.example.co.uk", "x@y", "@", "me@пример.рф", "me@xn--80ak6aa92e.com", "a@b.c@d.org"),
    *("8.8.8.8", "10.0.0.1", "1.2.3.4/24", "256.1.1.1", "2001:4860:4860::8888", "fe:ed:be:ef:ca:fe:ba:be", "::1", "::"),
    *("ab::cd", "x[::2]", "::ffff:8.8.8.8", "1:2:3:4:5:6:7:8", "fe80::1%eth0", "C::D", "12:34:56"),
    *("212-555-5555", "(212) 555-5555", "+44 20 7946 0958", "+49 30 901820", "1640", "0049 30 901820", "٢١٢٥٥٥٥٥٥٥"),
    *(
        "２１２-５５５-５５５５",
        "555 5555 ext. 12",
        "212.555.5555 x99",
        "2008-11-13 12:45",
        "1/2/2003",
        "3 1/2",
        "030/901820",
    ),
    *(
        "4111 1111 1111 1111",
        "4111111111111111",
        "378282246310005",
        "536-90-4399",
        "536904399",
        "536 90 4399",
        "123-45-6789",
    ),
    *(
        "DE89370400440532013000",
        "gb42nawi04454264788619",
        "GB82 WEST 1234 5698 7654 32",
        "AB12",
        "ssn",
        "card",
        "phone:",
        "call",
    ),
    *(
        " ",
        " ",
        "\n",
        "\t",
        ",",
        ".",
        "(",
        ")",
        "-",
        "x",
        "é",
        "日本",
        "٣",
        "$",
        "%",
        "\u200b",
        "\xa0",
        "ext",
        "EXT",
        "ſ",
    ),
]


texts_ = st.one_of(
    st.lists(st.sampled_from(PARTS), max_size=25).map("".join),
    st.lists(st.sampled_from(PARTS), max_size=25).map(" ".join),
    st.text(alphabet="0123456789+-. ()/xX:ab@\n", max_size=60),
    st.text(alphabet="0123456789 -.()/[]x+#~ext;:=,%$é\u0301\u0663", min_size=6, max_size=60),
).map(clean_text)


@settings(max_examples=250, deadline=None)
@given(texts_)
@example("")
@example("+49 30 901820\n212-555-5555ab212-555-5555")
def test_findings_are_presidios(text: str) -> None:
    assert ours([text])[0] == theirs(text)


SSN_PARTS = ("123", "45", "6789", "000", "78901", "666", "9", "-", "-", ".", " ", "a")
IP_PARTS = ("1", "25", "255", "256", "01", "0", ".", ".", ".", "/", "/3", "2", "_", ":")


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.text(alphabet="0123456789.2", min_size=5, max_size=60),
        st.lists(st.sampled_from(SSN_PARTS)).map("".join),
        st.lists(st.sampled_from(IP_PARTS)).map("".join),
    )
)
@example("1.2.3.4/32 1.2.3.4/33 1.2.3.4/3a 01.2.3.4 1.2.3.4.5.6.7.8 a1.2.3.4 1.2.3.4:80 256.1.1.1.1 1.2.3.4/05")
@example("123-45-6789 123-45 6789 123456789 12345-6789 123-456789 000-12-3456 123-00-4567 987654320 222-22-2222a")
def test_plain_numbers_are_presidios(text: str) -> None:
    assert ours([text], ("IP_ADDRESS", "US_SSN"))[0] == theirs(text, ("IP_ADDRESS", "US_SSN"))


def test_findings_are_presidios_on_labelled_sentences(data: Path) -> None:
    sentences = [clean_text(s["full_text"]) for s in json.loads((data / "pii" / "synth_dataset_v2.json").read_text())]
    found = ours(list(sentences))
    assert sum(map(len, found)) > 250
    for text, f in zip(sentences, found, strict=True):
        assert f == theirs(text), text


def test_findings_are_presidios_on_crawled_pages(data: Path) -> None:
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    from resiliparse.extract.html2text import extract_plain_text

    with open(data / "crawl" / "docs-02.warc.gz", "rb") as f:
        records = ArchiveIterator(f, record_types=WarcRecordType.response)
        pages = [r.reader.read().decode("utf-8", "replace") for r in records if "html" in (r.http_content_type or "")]
    texts = [clean_text(extract_plain_text(p)) for p in random.Random(3).sample(pages, 25)]
    found = ours(list(texts))
    for text, f in zip(texts, found, strict=True):
        assert f == theirs(text), text[:100]


def test_many_numbers_as_presidio_sees_them() -> None:
    """Where phonenumbers gives up after 65,535 tries, so do we."""
    dense = " ".join(f"{i:07d}x" for i in range(3_000))
    assert ours([dense])[0] == theirs(dense)


def test_long_chunks_and_long_texts() -> None:
    chunk = "a" * 30_000 + ".bob@python.org" + "/x" * 30_000
    found = ours([chunk, "z" * 10_000_000 + " bob@python.org"])
    assert any(e == "EMAIL_ADDRESS" for e, *_ in found[0])
    assert found[1] == [("EMAIL_ADDRESS", 10_000_001, 10_000_015, 1.0)]


def test_other_entities_go_by_overlapping_windows() -> None:
    filler = "word " * 199_799
    text = filler + "see https://www.python.org/downloads now " + filler + "https://docs.python.org end"
    assert len(text) > 1_000_000
    found = ours([text], ("URL",))[0]
    assert [text[s:e] for _, s, e, _ in found] == ["https://www.python.org/downloads", "https://docs.python.org"]


def test_rows_nulls_and_slices() -> None:
    texts = pa.array(["no", "bob@python.org", None, "é 8.8.8.8"], pa.large_string())
    found = analyze(texts, ["EMAIL_ADDRESS", "IP_ADDRESS"]).to_pylist()
    assert [len(f) for f in found] == [0, 1, 0, 1]
    assert found[3][0] == {"entity": "IP_ADDRESS", "start": 2, "end": 9, "score": 0.6}
    assert analyze(texts.slice(3), ["IP_ADDRESS"]).to_pylist() == found[3:]
    assert [f["entity"] for f in analyze(texts, ["IP_ADDRESS"]).to_pylist()[1]] == []
    with pytest.raises(UserError, match="unknown entity NONSENSE"):
        analyze(texts, ["NONSENSE"])
