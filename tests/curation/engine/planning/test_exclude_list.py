"""Exclude lists: entries by id or URL with what the first of each says; lines that are not entries are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.core.errors import UserError
from curation.engine.planning.exclude_list import read_exclude_lists

ID = "00112233445566778899aabbccddeeff"


def test_entries_of_several_lists_the_first_of_each_counts(tmp_path: Path) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_text(f'{{"doc_id": "{ID}", "reason": "a spike", "by": "training"}}\n\n{{"url": "http://e.org/"}}\n')
    two.write_text(f'{{"doc_id": "{ID}"}}\n{{"url": "http://e.org/", "by": "delete"}}\n')
    found = read_exclude_lists([str(one), str(two)])
    assert found.doc_ids == {bytes.fromhex(ID): "a spike (by training)"}
    assert found.urls == {"http://e.org/": None}
    assert found.fingerprint() == read_exclude_lists([str(one)]).fingerprint()
    assert found.fingerprint() != read_exclude_lists([str(two)]).fingerprint()


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_exclude_lists([str(tmp_path / "absent.jsonl")])
    bad = tmp_path / "bad.jsonl"
    for line in ('{"doc_id": "12"}', "[]", "{", '{"url": 3}', "{}"):
        bad.write_text('{"url": "http://e.org/"}\n' + line + "\n")
        with pytest.raises(UserError, match=r"bad\.jsonl, line 2: expected an object"):
            read_exclude_lists([str(bad)])
