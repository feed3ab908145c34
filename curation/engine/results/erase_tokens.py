"""Overwrites the tokens of deleted documents in place with EOS; every offset stays the same.

For trainings that are under way: sequences, counts and file sizes do not change, so data order and checkpoints stay
valid. The shard writer puts EOS only where a document begins, so EOS anywhere else is a tombstone; training uses
neither it nor the token after it as a target (`training/data/deleted_tokens.py`).

Everything that has the file open or is linked to it sees the change: the result, older generations, the cache.
`tombstones.json` next to the manifest lists the documents and the new checksum of each shard. On an object store, which
cannot change files in place, the shard is written again under its name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence

import pyarrow as pa

from curation import shards, storage
from curation.core.atomic_files import no_link
from curation.core.errors import DamagedFile
from curation.engine.manifests import phase_records
from curation.engine.results.publish import published_directories
from curation.storage import Storage


def erase_tokens(store: Storage, doc_ids: Sequence[str]) -> int:
    """Overwrites the tokens of documents (ids in hex) in the shards of all generations; returns how many tokens."""
    wanted = {bytes.fromhex(d) for d in doc_ids}
    done: set[tuple[int, int]] = set()
    total = 0
    for place in _shard_folders(store):
        manifest = shards.read_manifest(store.url(f"{place}/manifest.json"))
        side = f"{place}/{shards.TOMBSTONES}"
        tombstones = store.read_plain_json(side) if store.exists(side) else {}
        for _, _, entry in manifest.entries():
            path = f"{place}/{entry.path}"
            shard = shards.open_shard(store.url(path), entry=entry)
            rows = [i for i, d in enumerate(shard.documents.column("doc_id").to_pylist()) if d in wanted]
            if not rows:
                continue
            ids = [shard.documents.column("doc_id")[i].as_py().hex() for i in rows]
            spans = [(int(shard.offsets[i]) + 1, int(shard.offsets[i + 1])) for i in rows]
            if store.local:
                stat = os.stat(store.full(path))
                inode = (stat.st_dev, stat.st_ino)
            if not store.local or inode not in done:
                total += sum(b - a for a, b in spans)
                _write(store, path, spans, manifest.tokenizer.eos)
            if store.local:
                done.add(inode)
            had = tombstones.get(entry.path, {"doc_ids": []})
            sha256 = storage.digest(store.read_bytes(path))
            tombstones[entry.path] = {"doc_ids": sorted({*had["doc_ids"], *ids}), "sha256": sha256}
        store.write_bytes(side, (json.dumps(tombstones, sort_keys=True, indent=1) + "\n").encode())
    _invalidate_phases(store, done)
    return total


def _shard_folders(store: Storage) -> Iterator[str]:
    names = sorted({p.split("/")[1] for p in store.walk("generations")})
    # on an object store the results before the newest too: trainings may have begun with them
    newest = store.full("result")
    older = [f"{d}/shards" for d in published_directories(store) if store.full(d) != newest]
    for place in ("result/shards", *older, *(f"generations/{n}/shards" for n in names)):
        if store.exists(f"{place}/manifest.json"):
            yield place


def _write(store: Storage, path: str, spans: Sequence[tuple[int, int]], eos: int) -> None:
    data = pa.memory_map(store.full(path)).read_buffer() if store.local else pa.py_buffer(store.read_bytes(path))
    values = pa.ipc.open_file(pa.BufferReader(data)).get_batch(0).column(0).values
    width = values.type.bit_width // 8
    at = values.buffers()[1].address - data.address + values.offset * width
    value = int(eos).to_bytes(width, "little")
    if not store.local:
        changed = bytearray(data.to_pybytes())
        for a, b in spans:
            changed[at + a * width : at + b * width] = value * (b - a)
        store.write_bytes(path, bytes(changed))
        return
    with open(store.full(path), "r+b", opener=no_link) as out:
        for a, b in spans:
            out.seek(at + a * width)
            out.write(value * (b - a))
        out.flush()
        os.fsync(out.fileno())


def _invalidate_phases(store: Storage, changed: set[tuple[int, int]]) -> None:
    """Removes the records of finished phases whose files were changed, since the result is linked to them."""
    for path in phase_records.paths(store) if changed else ():
        try:
            tasks = phase_records.read(store, path).tasks.values()
        except DamagedFile:  # it counts as absent
            store.remove(path)
            continue
        files = [f["path"] for t in tasks for f in t.get("files", ()) if f["path"].startswith("cache/out/")]
        for file in files:
            if store.exists(file):
                stat = os.stat(store.full(file))
                if (stat.st_dev, stat.st_ino) in changed:
                    store.remove(path)
                    break
