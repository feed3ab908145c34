"""Datasets of the Hugging Face hub by `hf://`, read from a stand-in for the hub on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from curation.input_files import describe_input, list_inputs
from curation.sources.text.text import TextReader
from curation.step import InputSplit
from tests.curation.sources.text import hub_stub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[hub_stub.Hub]:
    with hub_stub.serve(monkeypatch) as served:
        yield served


def test_files_are_listed_read_by_ranges_and_told_apart(hub: hub_stub.Hub) -> None:
    root = "hf://datasets/mills/flour"
    listed = list_inputs(root, "**/*")
    assert [f.path for f in listed] == ["README.md", "data/train-00000-of-00001.parquet", "extra/more.jsonl"]
    assert all(f.version for f in listed)  # what tells that a file was changed
    assert describe_input(root, listed[1].path) == listed[1]
    got = list[Any]()
    for file in listed[1:]:
        parts = TextReader().split(InputSplit(file.path, file.size, file.version), root, 500)
        assert len(parts) > 1
        for part in parts:
            for batch in TextReader().read(part, root, collection="c", domain="d", rows=64):
                got += batch.to_pylist()
    assert [row["text"] for row in got] == hub_stub.TEXTS
    hub.files["extra/more.jsonl"] += b'{"text": "one more"}\n'
    assert describe_input(root, "extra/more.jsonl") != listed[2]


def test_a_repository_that_is_not_there_is_an_error_of_the_user(hub: hub_stub.Hub) -> None:
    with pytest.raises(FileNotFoundError):
        list_inputs("hf://datasets/mills/none", "**/*")
