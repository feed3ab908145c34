"""The shard format: exact round trips, equal bytes, flat memory, and a clear error for every kind of damage.

Covers: layout.py, write.py, read.py, manifest.py, verify.py, file_access.py
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import document, shards

EOS = 7


def source(i: int) -> dict[str, object]:
    return {"file": f"a{i}.warc", "kind": "warc", "offset": i * 10, "length": 5, "row": None}


def write(path: Path, documents: list[list[int]], vocab: int = 1000, **metadata: str) -> shards.ShardEntry:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as f:
        writer = shards.ShardWriter(f, vocab_size=vocab, eos=EOS, scratch_dir=str(path.parent), metadata=metadata)
        for i, tokens in enumerate(documents):
            url = None if i % 3 == 0 else f"https://example.org/{i}/é"
            writer.add(np.array(tokens, np.int64), i.to_bytes(16, "big"), url, source(i), text_bytes=2 * len(tokens))
        info = writer.close()
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return shards.ShardEntry(path.name, info.documents, info.tokens, info.text_bytes, digest, len(data))


def manifest(folder: Path, domains: int = 2, documents: int = 5) -> shards.Manifest:
    """A small result tree with a manifest, and the manifest as it is read back."""
    root = folder / "result" / "shards"
    root.mkdir(parents=True)
    (root / "tokenizer.json").write_bytes(b"{}")
    sha = hashlib.sha256(b"{}").hexdigest()
    train = {}
    for d in range(domains):
        path = root / "train" / f"d{d}" / "00000.arrow"
        entry = write(path, [[d + 1] * (i + 1) for i in range(documents)], tokenizer=sha)
        train[f"d{d}"] = shards.DomainShards(
            (shards.ShardEntry(f"train/d{d}/00000.arrow", *list(vars(entry).values())[1:]),)
        )
    made = shards.Manifest(
        shards.TokenizerInfo("tokenizer.json", sha, 1000, EOS, "bpe"),
        {"train": train, "validation": {}},
        shards.Mix({"d0": 0.5, "d1": 0.5}, 100, 4.0, {"d0": 1.5}),
        seed=17,
        fingerprint="f" * 32,
    )
    with open(root / "manifest.json", "wb") as f:
        shards.write_manifest(f, made)
    return shards.read_manifest(str(folder))


def test_source_is_the_one_of_the_document() -> None:
    assert shards.SOURCE == document.SOURCE


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 99_999), max_size=20), max_size=12), st.sampled_from([1000, 65536, 65537, 100_000])
)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], vocab: int) -> None:
    documents = [[t % vocab for t in d] for d in documents]
    path = tmp_path_factory.mktemp("shard") / "s.arrow"
    entry = write(path, documents, vocab, note="é")
    shard = shards.open_shard(str(path), entry=entry)
    assert shard.tokens.dtype == (np.uint16 if vocab <= 65536 else np.uint32)
    assert shard.tokens.tolist() == [t for d in documents for t in [EOS, *d]]
    assert [shard.tokens[a:b].tolist() for a, b in zip(shard.offsets[:-1], shard.offsets[1:], strict=True)] == [
        [EOS, *d] for d in documents
    ]
    assert shard.documents.column("doc_id").to_pylist() == [i.to_bytes(16, "big") for i in range(len(documents))]
    assert shard.documents.column("source").to_pylist() == [source(i) for i in range(len(documents))]
    assert shard.metadata["note"] == "é" and shard.eos == EOS and shard.vocab_size == vocab
    assert sorted(p.name for p in path.parent.iterdir()) == ["s.arrow"]


def test_same_documents_same_bytes(tmp_path: Path) -> None:
    documents = [[i % 900] * (i % 7) for i in range(40_000)]  # more than one flush of ids
    first, second = write(tmp_path / "a" / "s.arrow", documents), write(tmp_path / "b" / "s.arrow", documents)
    assert first == second
    assert pa.ipc.open_file(str(tmp_path / "a" / "s.arrow")).num_record_batches == 1


def test_tokens_are_a_view_of_the_file(tmp_path: Path) -> None:
    write(tmp_path / "s.arrow", [[1] * 1_000_000])
    before = pa.total_allocated_bytes()
    shard = shards.open_shard(str(tmp_path / "s.arrow"))
    assert pa.total_allocated_bytes() - before < 10_000
    assert not shard.tokens.flags.owndata and not shard.tokens.flags.writeable


def test_writing_holds_no_shard_in_memory(tmp_path: Path) -> None:
    """64 Mi tokens (128 MiB of values): the anonymous memory of the writer grows by less than a tenth of that."""
    script = f"""
import numpy as np
from curation import shards
def anonymous():
    return next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('RssAnon'))
class Sink:
    closed, at, peak = False, 0, 0
    def write(self, data):
        self.at += memoryview(data).nbytes; self.peak = max(self.peak, anonymous()); return memoryview(data).nbytes
    def tell(self): return self.at
    def flush(self): pass
    def close(self): pass
def write(documents):
    sink = Sink()
    writer = shards.ShardWriter(sink, vocab_size=1000, eos=7, scratch_dir={str(tmp_path)!r})
    for i in range(documents):
        writer.add(np.full((1 << 16) - 1, 5, np.uint16), b'0' * 16, None, None)
    assert writer.close().tokens == documents << 16
    return sink.peak
print(-write(2) + write(1024))  # the first one pays for what Arrow imports on demand
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert out.returncode == 0, out.stderr
    assert int(out.stdout) < 13_000, "KiB"


def test_bad_documents_are_refused(tmp_path: Path) -> None:
    writer = shards.ShardWriter(io.BytesIO(), vocab_size=10, eos=EOS, scratch_dir=str(tmp_path))
    with pytest.raises(ValueError, match="outside the vocabulary of 10"):
        writer.add(np.array([10]), b"0" * 16, None, None)
    with pytest.raises(ValueError, match="outside the vocabulary of 10"):
        writer.add(np.array([-1]), b"0" * 16, None, None)
    with pytest.raises(ValueError, match="16 bytes"):
        writer.add(np.array([1]), b"0", None, None)
    with pytest.raises(ValueError, match="EOS 10"):
        shards.ShardWriter(io.BytesIO(), vocab_size=10, eos=10, scratch_dir=str(tmp_path))


def test_manifest_round_trip(tmp_path: Path) -> None:
    read = manifest(tmp_path)
    text = (tmp_path / "result/shards/manifest.json").read_bytes()
    assert read.dumps() == text
    for place in ("", "result", "result/shards", "result/shards/manifest.json"):
        assert shards.verify_manifest(shards.read_manifest(str(tmp_path / place))) == read
    assert read.splits["train"]["d0"].tokens == 5 + 15 and read.splits["train"]["d0"].text_bytes == 30
    assert [(s, d) for s, d, _ in read.entries()] == [("train", "d0"), ("train", "d1")]
    assert json.loads(text)["splits"]["train"]["d1"]["documents"] == 5


def test_remote_manifest_and_shards(tmp_path: Path) -> None:
    manifest(tmp_path)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "result"), "/remote-run/result", recursive=True)
    read = shards.verify_manifest(shards.read_manifest("memory://remote-run"))
    entry = read.splits["train"]["d1"].shards[0]
    local = shards.open_shard(str(tmp_path / "result/shards" / entry.path))
    remote = shards.open_shard(read.path(entry), entry=entry)
    assert remote.tokens.tolist() == local.tokens.tolist() and remote.documents.equals(local.documents)


def test_damage_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = manifest(tmp_path)
    entry = read.splits["train"]["d0"].shards[0]
    path = Path(read.path(entry))
    good = path.read_bytes()

    path.unlink()
    with pytest.raises(shards.ShardMissing, match=r"00000[.]arrow: listed in the manifest, but the file is missing"):
        shards.open_shard(str(path), entry=entry)

    for cut in (0, 4, 100, len(good) - 1):
        path.write_bytes(good[:cut])
        with pytest.raises(shards.ShardTruncated, match=rf"truncated: {cut} bytes of {len(good)}"):
            shards.open_shard(str(path), entry=entry)
    path.write_bytes(good[:100])
    with pytest.raises(shards.ShardTruncated, match="no Arrow footer at byte 100"):
        shards.open_shard(str(path))

    path.write_bytes(good + b"x")
    with pytest.raises(shards.ShardChecksum, match="the file changed after it was written"):
        shards.open_shard(str(path), entry=entry)

    for bit in range(0, len(good) * 8, 997):  # one flipped bit, wherever it is, is found by verify
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(shards.ShardChecksum, match="the manifest says"):
            shards.verify_manifest(shards.read_manifest(str(tmp_path)))

    path.write_bytes(b"not a shard at all")
    with pytest.raises(shards.ShardFormat, match="not an Arrow file"):
        shards.open_shard(str(path))
    table = pa.table({"text": ["a"]})
    with pa.OSFile(str(path), "wb") as f, pa.ipc.new_file(f, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(shards.ShardFormat, match="that Gristmill did not write"):
        shards.open_shard(str(path))

    monkeypatch.setattr(shards.layout, "FORMAT", 9)
    write(path, [[1]])
    monkeypatch.undo()
    with pytest.raises(shards.ShardVersion, match="shard format 9; this version of Gristmill reads format 1"):
        shards.open_shard(str(path))

    path.write_bytes(good)
    with pytest.raises(shards.ShardTokenizer, match="tokenized with"):
        shards.open_shard(str(path), tokenizer="0" * 64)
    shards.open_shard(str(path), entry=entry, tokenizer=read.tokenizer.sha256)


def test_damaged_manifests_are_named(tmp_path: Path) -> None:
    with pytest.raises(shards.ShardMissing, match="no shards found"):
        shards.read_manifest(str(tmp_path))
    read = manifest(tmp_path)
    path = tmp_path / "result/shards/manifest.json"
    text = path.read_text()
    path.write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(shards.ShardVersion, match="manifest format 2; this version of Gristmill reads format 1"):
        shards.read_manifest(str(tmp_path))
    for bad in ("", "[]", text[:-20], text.replace('"sha256"', '"sha"')):
        path.write_text(bad)
        with pytest.raises(shards.ShardFormat, match="not a manifest of shards"):
            shards.read_manifest(str(tmp_path))
    path.write_text(text)
    (tmp_path / "result/shards/tokenizer.json").write_text("{ }")
    with pytest.raises(shards.ShardTokenizer, match="not the tokenizer of these shards"):
        shards.verify_manifest(shards.read_manifest(str(tmp_path)))
    assert read.tokenizer.vocab == 1000


def test_hugging_face_opens_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    write(tmp_path / "s.arrow", [[1, 2, 3], [4]])
    loaded = datasets.load_dataset(
        "arrow", data_files=str(tmp_path / "s.arrow"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded["tokens"][:] == [[EOS, 1, 2, 3], [EOS, 4]]
    assert loaded["source"][0]["file"] == "a0.warc"
