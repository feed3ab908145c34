"""Personal data in URLs, JSON and quoted records is found and replaced in its place."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.safety.pii.pii import Pii
from tests.curation.safety.pii.test_pii import run


@pytest.mark.parametrize(
    ("string", "scrubbed"),
    [
        ("https://a.org/?tel=212-736-5031&x=%2F", "https://a.org/?tel=<PHONE_NUMBER>&x=%2F"),
        ("https://a.org/?card=4111+1111+1111+1111&x=1", "https://a.org/?card=<CREDIT_CARD>&x=1"),
        ("https://a.org/?card=4111%201111%201111%201111", "https://a.org/?card=<CREDIT_CARD>"),
        (r"ValueError: 'call\n212-736-5031\nnow'", r"ValueError: 'call\n<PHONE_NUMBER>\nnow'"),
        (r'"a\u0020bob\u0040python.org"', r'"a\u0020<EMAIL_ADDRESS>"'),
        ("write to bob&#64;python.org", "write to <EMAIL_ADDRESS>"),
        ("100% sure, 50%25 \\ &#0; &#xD800; %zz", "100% sure, 50%25 \\ &#0; &#xD800; %zz"),
        ("https://a.org/caf%C3%A9+au?lait=%FF%C3", "https://a.org/caf%C3%A9+au?lait=%FF%C3"),
        ("[" * 5000 + "]" * 5000, "[" * 5000 + "]" * 5000),
        ('{"a@python.org": 1, "b@python.org": 2}', '{"<EMAIL_ADDRESS>": 1, "<EMAIL_ADDRESS>\'": 2}'),
    ],
)
def test_strings_that_are_not_prose(string: str, scrubbed: str) -> None:
    assert Pii().scrub(pa.array([string, None])).to_pylist() == [scrubbed, None]


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="%40C3A\\nux&#;+?:/é@.b ", max_size=40))
def test_decoding_keeps_places(string: str) -> None:
    from curation.safety.pii.structured_strings import decode_escapes

    found = decode_escapes(string)
    if found is not None:
        text, places = found
        assert len(places) == len(text) + 1 and places == sorted(places) and places[-1] == len(string)
    assert Pii().scrub(pa.array([string])).to_pylist()[0] is not None


def test_a_score_is_no_telephone_number() -> None:
    """What a rule looked at is stored as JSON, and a score has as many digits as a card."""
    scores = ['{"language.score":0.9673650860786438}', '{"x":415.5552671,"y":[-0.4111111111111111,1e300,NaN]}']
    assert Pii().scrub(pa.array(scores)).to_pylist() == scores
    assert Pii().scrub(pa.array(['{"x":12125555555.0}'])).to_pylist() != ['{"x":12125555555.0}']


def test_scrub() -> None:
    step = Pii()
    strings = [
        "https://python.org/?mail=bob%40python.org",
        "https://example.com/a%40b?x=%41",
        '{"title": "\\nbob@python.org", "ids": [12125555555, 7, null, true], "bob@python.org": {"a": "plain"}}',
        '{"title":"plain"}',
        "{broken bob@python.org}",
        None,
    ]
    for kind in (pa.string(), pa.large_string()):
        out = step.scrub(pa.array(strings, kind))
        assert out.type == kind
        url, harmless, meta, same, broken, null = out.to_pylist()
        assert "bob" not in url + meta + broken and "<EMAIL_ADDRESS>" in url and "<EMAIL_ADDRESS>" in broken
        assert (harmless, same, null) == (strings[1], strings[3], None)
        assert json.loads(meta) == {
            "title": "\n<EMAIL_ADDRESS>",
            "ids": ["<PHONE_NUMBER>", 7, None, True],
            "<EMAIL_ADDRESS>": {"a": "plain"},
        }


def test_scrubbing_twice_changes_nothing() -> None:
    once, _ = run(["bob@python.org 212-555-5555 8.8.8.8 DE89370400440532013000"])
    assert run(once)[0] == once
