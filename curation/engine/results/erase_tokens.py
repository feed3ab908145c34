"""Documents erased where they lie: their tokens become EOS, and every offset stays as it was.

For trainings that are under way: windows, counts and file sizes do not change, so order, checkpoints and resumption
hold. The packer writes EOS only where a document begins, so an EOS anywhere else is a tombstone, and training takes
neither it nor what follows it for a target (`training/data/deleted_tokens.py`).

The bytes are changed in place, so whoever has the file open or linked sees the change: the result, generations that
were kept, the cache. `tombstones.json` beside the manifest says which documents went and what each shard's checksum is
now. Where files cannot be changed in place (an object store) the shard is written again under its name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import pyarrow as pa

from curation import shards, storage
from curation.storage import Storage


def overwrite(store: Storage, doc_ids: Sequence[str]) -> int:
    """Overwrites the tokens of these documents (hex) in the shards of every generation; returns how many tokens."""
    wanted = {bytes.fromhex(d) for d in doc_ids}
    done: set[tuple[int, int]] = set()
    total = 0
    for place in _places(store):
        manifest = shards.read_manifest(store.url(f"{place}/manifest.json"))
        side = f"{place}/{shards.TOMBSTONES}"
        said = store.read_json(side) if store.exists(side) else {}
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
            had = said.get(entry.path, {"doc_ids": []})
            sha256 = storage.digest(store.read_bytes(path))
            said[entry.path] = {"doc_ids": sorted({*had["doc_ids"], *ids}), "sha256": sha256}
        store.write_json(side, said)
    _not_as_committed(store, done)
    return total


def _places(store: Storage) -> Iterator[str]:
    names = sorted({p.split("/")[1] for p in store.walk("generations")})
    for place in ("result/shards", *(f"generations/{n}/shards" for n in names)):
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
    with open(store.full(path), "r+b") as out:
        for a, b in spans:
            out.seek(at + a * width)
            out.write(value * (b - a))
        out.flush()
        os.fsync(out.fileno())


def _not_as_committed(store: Storage, changed: set[tuple[int, int]]) -> None:
    """Phases whose files were changed with the result's, being linked to them, do not count as finished any more."""
    for name in store.names("cache/phases") if changed else ():
        tasks = store.read_json(f"cache/phases/{name}")["tasks"].values()
        files = [f["path"] for t in tasks for f in t.get("files", ()) if f["path"].startswith("cache/out/")]
        for file in files:
            if store.exists(file):
                stat = os.stat(store.full(file))
                if (stat.st_dev, stat.st_ino) in changed:
                    store.remove(f"cache/phases/{name}")
                    break
