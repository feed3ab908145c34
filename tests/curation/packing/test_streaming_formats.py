"""Shards exported to MDS and litdata: the bytes as their writers lay them out, and read back by those libraries."""

from __future__ import annotations

import importlib
import itertools
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from curation import shards
from curation.packing import streaming_formats
from curation.packing.export_formats import export_shards
from tests.curation.packing.test_export_formats import documents
from tests.curation.packing.test_shard_writer import corpus, pack


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    pack(corpus(), folder / "result", validation=0.1, tokens_per_shard=2000)
    return folder


@pytest.fixture
def exported(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[shards.Manifest, Path]:
    """Both formats, in files so small that a shard becomes several."""
    monkeypatch.setattr(streaming_formats, "FILE_BYTES", 1500)
    manifest = shards.read_manifest(str(run))
    for kind in ("mds", "litdata"):
        written = export_shards(manifest, kind, str(tmp_path / kind))  # type: ignore[arg-type]
        assert sorted(written) == sorted(str(p) for p in (tmp_path / kind).rglob("*") if p.is_file())
    return manifest, tmp_path


def with_eos(manifest: shards.Manifest, domain: str) -> list[list[int]]:
    return [[manifest.tokenizer.eos, *d] for d in documents(manifest, "train", domain)]


def peer(name: str) -> ModuleType:
    """A library that is in no extra for tests; without it, or with one that cannot be imported here, a skip."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # mosaicml-streaming imports torchvision, which fits one version of torch
        pytest.skip(f"{name} cannot be imported: {error}")


def test_the_layout_of_both(exported: tuple[shards.Manifest, Path]) -> None:
    """Read as the formats are described, without the libraries."""
    manifest, folder = exported
    index = json.loads((folder / "mds" / "train-web" / "index.json").read_text())
    assert len(index["shards"]) > len(manifest.splits["train"]["web"].shards)
    found = []
    for listed in index["shards"]:
        data = (folder / "mds" / "train-web" / listed["raw_data"]["basename"]).read_bytes()
        assert len(data) == listed["raw_data"]["bytes"]
        (count,) = np.frombuffer(data, "<u4", 1)
        offsets = np.frombuffer(data, "<u4", int(count) + 1, 4)
        columns = json.loads(data[4 + offsets.nbytes : offsets[0]])
        assert count == listed["samples"] and columns["column_names"] == ["doc_id", "tokens"]
        for begin, end in itertools.pairwise(offsets):
            sizes = np.frombuffer(data, "<u4", 2, int(begin))
            array = data[begin + 8 + sizes[0] : end]
            assert len(array) == sizes[1] and array[0] >> 2 == 1, "one axis"
            width = 1 << (array[0] & 3)
            found.append(np.frombuffer(array, "<u2", offset=1 + width).tolist())
            assert int.from_bytes(array[1 : 1 + width], "little") == len(found[-1])
    assert found == with_eos(manifest, "web")

    index = json.loads((folder / "litdata" / "train-web" / "index.json").read_text())
    items = []
    for chunk in index["chunks"]:
        data = (folder / "litdata" / "train-web" / chunk["filename"]).read_bytes()
        assert len(data) == chunk["chunk_bytes"]
        offsets = np.frombuffer(data, "<u4", chunk["chunk_size"] + 1, 4)
        items += [np.frombuffer(data[a:b], "<u2").tolist() for a, b in itertools.pairwise(offsets)]
        assert chunk["dim"] * 2 == len(data) - offsets[0]
    assert items == with_eos(manifest, "web")


def test_mosaicml_streaming_reads_equal_tokens(exported: tuple[shards.Manifest, Path]) -> None:
    streaming: Any = peer("streaming")
    manifest, folder = exported
    for domain in ("web", "code"):
        read = streaming.StreamingDataset(local=str(folder / "mds" / f"train-{domain}"), shuffle=False, batch_size=1)
        assert [read[i]["tokens"].tolist() for i in range(len(read))] == with_eos(manifest, domain)
        assert len({read[i]["doc_id"] for i in range(len(read))}) == len(read)


def test_litdata_reads_equal_tokens(exported: tuple[shards.Manifest, Path]) -> None:
    litdata: Any = peer("litdata")
    from litdata.streaming.item_loader import TokensLoader

    manifest, folder = exported
    loader = TokensLoader(block_size=16)
    read = litdata.StreamingDataset(str(folder / "litdata" / "train-web"), item_loader=loader, shuffle=False)
    blocks = [read[i].tolist() for i in range(len(read))]
    chunks = json.loads((folder / "litdata" / "train-web" / "index.json").read_text())["chunks"]
    tokens = [t for d in with_eos(manifest, "web") for t in d]
    expected, at = [], 0
    for chunk in chunks:  # a block does not cross chunks: what is left of one is dropped
        expected += [tokens[i : i + 16] for i in range(at, at + chunk["dim"] // 16 * 16, 16)]
        at += chunk["dim"]
    assert blocks == expected and at == len(tokens)
