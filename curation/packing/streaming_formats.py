"""Writes shards in the formats of streaming loaders: MosaicML streaming (MDS) and litdata.

    mds        index.json, and shards of samples with the columns doc_id (str, hex) and tokens (ndarray:uint16|uint32);
               a shard is a count, offsets, the JSON of its columns, and the samples (MosaicML streaming,
               base/format/mds/writer.py, version 2). A sample is a document, EOS first
    litdata    index.json, and chunks of items: a count, offsets, and the items' bytes end to end, which litdata's
               TokensLoader reads as one stream of any block size (litdata, streaming/writer.py). An item is a document,
               EOS first

Both are folders of one split and domain. Files hold about 64 MiB, the default of MosaicML's writer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from curation import shards

FILE_BYTES = 64 << 20
# Places in the list of types by which litdata's index names one: torch.uint16 and torch.int32 (ids are below 2^31)
LITDATA_TYPES = {2: 20, 4: 15}


def write_mds(folder: str, open_shards: Iterator[shards.Shard], itemsize: int) -> list[str]:
    """Writes the documents of shards as MDS into a new folder; returns the files."""
    os.makedirs(folder, exist_ok=True)
    columns = {
        "column_names": ["doc_id", "tokens"],
        "column_encodings": ["str", f"ndarray:uint{8 * itemsize}"],
        "column_sizes": [None, None],
    }
    config = {"compression": None, "format": "mds", "hashes": [], "size_limit": FILE_BYTES, "version": 2, **columns}
    head = json.dumps(config, sort_keys=True).encode()
    written, listed = [], []
    for shard, first, last in _parts(open_shards):
        ids = shard.documents.column("doc_id").slice(first, last - first).to_pylist()
        samples = [
            _mds_sample(doc_id.hex().encode(), shard.tokens[shard.offsets[row] : shard.offsets[row + 1]])
            for row, doc_id in enumerate(ids, first)
        ]
        begin = 4 + 4 * (len(samples) + 1) + len(head)
        ends = np.cumsum([0, *map(len, samples)]) + begin
        name = f"shard.{len(listed):05d}.mds"
        with open(os.path.join(folder, name), "xb") as f:
            f.write(np.array([len(samples), *ends], "<u4").tobytes() + head)
            f.writelines(samples)
        raw = {"basename": name, "bytes": int(ends[-1]), "hashes": {}}
        listed.append({"samples": len(samples), "raw_data": raw, "zip_data": None, **config})
        written.append(os.path.join(folder, name))
    return [*written, _write_index(folder, {"shards": listed, "version": 2})]


def _mds_sample(doc_id: bytes, tokens: np.ndarray[Any, Any]) -> bytes:
    """Sizes of the columns, and their values: text, and an array whose head says axes and the type of its length."""
    kind = next(k for k in range(4) if len(tokens) < 1 << (8 << k))  # of uint8, uint16, uint32, uint64
    array = bytes([1 << 2 | kind]) + np.array(len(tokens), f"<u{1 << kind}").tobytes() + tokens.tobytes()
    return np.array([len(doc_id), len(array)], "<u4").tobytes() + doc_id + array


def write_litdata(folder: str, open_shards: Iterator[shards.Shard], itemsize: int) -> list[str]:
    """Writes the documents of shards as chunks of litdata's TokensLoader into a new folder; returns the files."""
    os.makedirs(folder, exist_ok=True)
    written, listed = [], []
    for shard, first, last in _parts(open_shards):
        bounds = shard.offsets[first : last + 1]
        offsets = (bounds - bounds[0]) * itemsize + 4 * (len(bounds) + 1)
        name = f"chunk-0-{len(listed)}.bin"
        with open(os.path.join(folder, name), "xb") as f:
            f.write(np.array([last - first, *offsets], "<u4").tobytes())
            shard.tokens[bounds[0] : bounds[-1]].tofile(f)
        count = int(bounds[-1] - bounds[0])
        listed.append({"chunk_bytes": int(offsets[-1]), "chunk_size": last - first, "dim": count, "filename": name})
        written.append(os.path.join(folder, name))
    config = {
        "chunk_bytes": FILE_BYTES, "chunk_size": None, "compression": None, "encryption": None,
        "data_format": [f"no_header_tensor:{LITDATA_TYPES[itemsize]}"],
        "data_spec": json.dumps([1, {"type": None, "context": None, "children_spec": []}]),
        "item_loader": "TokensLoader",
    }  # fmt: skip
    return [*written, _write_index(folder, {"chunks": listed, "config": config, "updated_at": "0"})]


def _parts(open_shards: Iterator[shards.Shard]) -> Iterator[tuple[shards.Shard, int, int]]:
    """Shards cut into ranges of rows of about FILE_BYTES of tokens, a document at least: (shard, first, end)."""
    for shard in open_shards:
        first, count = 0, len(shard.offsets) - 1
        while first < count:
            limit = shard.offsets[first] + FILE_BYTES // shard.tokens.itemsize
            last = max(first + 1, int(np.searchsorted(shard.offsets, limit, side="right")) - 1)
            yield shard, first, last
            first = last


def _write_index(folder: str, index: dict[str, Any]) -> str:
    path = os.path.join(folder, "index.json")
    with open(path, "x", encoding="utf-8") as f:
        json.dump(index, f, sort_keys=True)
    return path
