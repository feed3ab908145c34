"""A changed byte of a checked JSON file is refused, wherever it is; equal values are equal bytes, and ordinary JSON."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.core import checked_json
from curation.core.errors import DamagedFile

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.dictionaries(st.text(), st.recursive(LEAVES, lambda v: st.lists(v) | st.dictionaries(st.text(), v)))


@settings(deadline=None, max_examples=100)
@given(VALUES.filter(lambda v: "checksum" not in v), st.sampled_from([1, None]))
def test_a_value_comes_back_and_is_ordinary_json(value, indent) -> None:
    try:
        data = checked_json.encode(value, indent=indent)
    except UnicodeEncodeError:  # a lone surrogate that is no undecodable byte
        return
    assert checked_json.decode(data, "f.json") == value
    plain = json.loads(data)
    assert len(plain.pop("checksum")) == 16 and plain == value
    assert checked_json.encode(dict(reversed(value.items())), indent=indent) == data


def test_every_changed_byte_is_refused_and_the_file_named() -> None:
    data = checked_json.encode({"counts": {"kept": 1234}, "path": "cache/a.parquet", "empty": []})
    for at in range(len(data)):
        for flip in (1, 2, 16, 128):
            damaged = bytearray(data)
            damaged[at] ^= flip
            with pytest.raises(DamagedFile, match=r"runs/one/cache/a\.json is damaged"):
                checked_json.decode(bytes(damaged), "cache/a.json", "runs/one")
    for damaged in (b"", data[:-1], data[: len(data) // 2], data + b" ", b'{"counts": {"kept": 1234}}'):
        with pytest.raises(DamagedFile):
            checked_json.decode(damaged, "a.json")


def test_the_error_survives_pickling_between_processes() -> None:
    error = pickle.loads(pickle.dumps(DamagedFile("cache/a", "it is missing", "runs/one")))
    assert (error.path, error.reason, error.root) == ("cache/a", "it is missing", "runs/one")
