"""Pointers to results on object stores, and paths below a result."""

from __future__ import annotations

import json

import pytest

from curation.core import published_tree
from curation.core.errors import DamagedFile

DIRECTORY = f"published/result-{'0a' * 16}"


def test_a_pointer_names_a_result_and_nothing_else() -> None:
    data = published_tree.encode(DIRECTORY)
    assert published_tree.decode(data, "result.json") == DIRECTORY
    with pytest.raises(DamagedFile, match="checksum"):
        published_tree.decode(data.replace(b"0a", b"0b", 1), "result.json")
    with pytest.raises(DamagedFile, match="checksum"):
        published_tree.decode(json.dumps({"directory": DIRECTORY}).encode(), "result.json")
    for other in ("../other/result", "cache", f"{DIRECTORY}/..", "published/result-x"):
        with pytest.raises(DamagedFile, match=r"result\.json.*which is no result"):
            published_tree.decode(published_tree.encode(other), "result.json", "s3://b/run")


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("s3://b/run/result/shards", ("s3://b/run", "shards")),
        ("s3://b/run/result/", ("s3://b/run", "")),
        (f"s3://b/run/{DIRECTORY}/shards", ("s3://b/run", "shards")),
        ("/x/result/run/result/shards", ("/x/result/run", "shards")),
        ("result/shards", ("", "shards")),
        ("s3://b/run", None),
        ("/x/my-result/shards", None),
        ("s3://b/published/results-1/shards", None),
    ],
)
def test_places_in_a_result(place: str, found: tuple[str, str] | None) -> None:
    assert published_tree.split_place(place) == found
