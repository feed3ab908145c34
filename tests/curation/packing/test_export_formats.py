"""Round trips: shards exported to nanoGPT, llm.c, Megatron and datasets, read as those read them, and imported again.

Covers: merge.py
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation import shards
from curation.core.errors import UserError
from curation.packing.export_formats import export_shards
from curation.packing.import_formats import read_token_file
from curation.packing.merge import merge_runs, write_token_documents
from tests.curation.packing.test_shard_writer import corpus, pack


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    pack(corpus(), folder / "result", validation=0.1, tokens_per_shard=2000)
    return folder


def documents(manifest: shards.Manifest, split: str, domain: str) -> list[list[int]]:
    found = []
    for entry in manifest.splits[split][domain].shards:
        shard = shards.open_shard(manifest.path(entry), entry=entry)
        found += [shard.tokens[a + 1 : b].tolist() for a, b in zip(shard.offsets[:-1], shard.offsets[1:], strict=True)]
    return found


def stream(manifest: shards.Manifest, split: str, domain: str) -> list[int]:
    return [t for d in documents(manifest, split, domain) for t in [manifest.tokenizer.eos, *d]]


def test_nanogpt(run: Path, tmp_path: Path) -> None:
    manifest = shards.read_manifest(str(run))
    export_shards(manifest, "nanogpt", str(tmp_path))
    data = np.memmap(tmp_path / "train-web.bin", dtype=np.uint16, mode="r")  # as nanoGPT's get_batch opens it
    assert data.tolist() == stream(manifest, "train", "web")


def test_llmc(run: Path, tmp_path: Path) -> None:
    manifest = shards.read_manifest(str(run))
    export_shards(manifest, "llmc", str(tmp_path))
    data = (tmp_path / "train-web.bin").read_bytes()
    magic, version, count = struct.unpack("<3i", data[:12])  # llm.c: 256 ints, then the tokens
    assert (magic, version) == (20240520, 1)
    tokens = np.frombuffer(data, np.uint16, offset=1024)
    assert len(tokens) == count and tokens.tolist() == stream(manifest, "train", "web")
    (tmp_path / "cut.bin").write_bytes(data[:-2])
    with pytest.raises(UserError, match=r"truncated: .* its header says"):
        list(read_token_file(str(tmp_path / "cut.bin"), "llmc", 0, "web"))
    (tmp_path / "other.bin").write_bytes(b"x" * 2000)
    with pytest.raises(UserError, match=r"not a token file of llm\.c"):
        list(read_token_file(str(tmp_path / "other.bin"), "llmc", 0, "web"))


def test_megatron(run: Path, tmp_path: Path) -> None:
    """Read as Megatron-LM's IndexedDataset lays it out: header, lengths, pointers, document indices."""
    manifest = shards.read_manifest(str(run))
    export_shards(manifest, "megatron", str(tmp_path))
    index = (tmp_path / "train-code.idx").read_bytes()
    assert index[:9] == b"MMIDIDX\x00\x00" and struct.unpack("<Q", index[9:17]) == (1,)
    assert index[17] == 8  # uint16
    sequences, entries = struct.unpack("<QQ", index[18:34])
    lengths = np.frombuffer(index, np.int32, sequences, 34)
    pointers = np.frombuffer(index, np.int64, sequences, 34 + lengths.nbytes)
    bounds = np.frombuffer(index, np.int64, entries, 34 + lengths.nbytes + pointers.nbytes)
    assert len(index) == 34 + lengths.nbytes + pointers.nbytes + bounds.nbytes
    data = (tmp_path / "train-code.bin").read_bytes()
    read_back = [np.frombuffer(data, np.uint16, n, p).tolist() for n, p in zip(lengths, pointers, strict=True)]
    eos = manifest.tokenizer.eos
    assert read_back == [[*d, eos] for d in documents(manifest, "train", "code")]
    assert bounds.tolist() == list(range(sequences + 1))


def test_megatron_core_reads_equal_tokens(run: Path, tmp_path: Path) -> None:
    module = pytest.importorskip("megatron.core.datasets.indexed_dataset", exc_type=ImportError)
    manifest = shards.read_manifest(str(run))
    export_shards(manifest, "megatron", str(tmp_path))
    read = module.IndexedDataset(str(tmp_path / "train-code"))
    eos = manifest.tokenizer.eos
    assert [read[i].tolist() for i in range(len(read))] == [[*d, eos] for d in documents(manifest, "train", "code")]


def test_datasets(run: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    manifest = shards.read_manifest(str(run))
    export_shards(manifest, "datasets", str(tmp_path / "out"))
    files = sorted(str(p) for p in (tmp_path / "out" / "web").glob("train-*.arrow"))
    assert len(files) == len(manifest.splits["train"]["web"])
    loaded = datasets.load_dataset("arrow", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    eos = manifest.tokenizer.eos
    assert loaded["tokens"][:] == [[eos, *d] for d in documents(manifest, "train", "web")]
    assert loaded["url"][0].startswith("http://example.org/")


@pytest.mark.parametrize("kind", ["nanogpt", "llmc", "megatron", "datasets", "mds", "litdata"])
def test_no_file_is_written_over(run: Path, tmp_path: Path, kind: Any) -> None:
    """Least of all a hard link to a shard that a run still has."""
    manifest = shards.read_manifest(str(run))
    out = tmp_path / "out"
    export_shards(manifest, kind, str(out))
    files = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=r"exists already; export to an empty folder"):
        export_shards(manifest, kind, str(out))
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == files


@pytest.mark.parametrize("kind", ["nanogpt", "llmc", "megatron", "datasets"])
def test_there_and_back(run: Path, tmp_path: Path, kind: Any) -> None:
    manifest = shards.read_manifest(str(run))
    export_shards(manifest, kind, str(tmp_path / "out"))
    tokenizer = shards.read_file(manifest.path(manifest.tokenizer.file))
    files = sorted((tmp_path / "out").rglob("*web*/train-*.arrow" if kind == "datasets" else "train-web.bin"))
    held = sorted((tmp_path / "out").rglob("*web*/validation-*.arrow" if kind == "datasets" else "validation-web.bin"))
    eos = manifest.tokenizer.eos
    found = [d for f in files for d in read_token_file(str(f), kind, eos, "web")]
    found += [d for f in held for d in read_token_file(str(f), kind, eos, "web", "validation")]
    made = write_token_documents(str(tmp_path / "back"), found, tokenizer, tokens_per_shard=2000)
    shards.verify_manifest(made.manifest)
    assert made.duplicate_ids == made.removed_from_training == 0
    for split in ("train", "validation"):
        assert sorted(documents(made.manifest, split, "web")) == sorted(documents(manifest, split, "web"))
        assert made.manifest.splits[split]["web"].text_bytes == manifest.splits[split]["web"].text_bytes
    with pytest.raises(UserError, match="already has shards"):
        write_token_documents(str(tmp_path / "back"), found, tokenizer)


def test_streams_of_others_end_documents_with_eos(run: Path, tmp_path: Path) -> None:
    np.array([5, 6, 0, 7, 0, 0, 8, 0], np.uint16).tofile(tmp_path / "a.bin")
    assert [d.tokens().tolist() for *_, d in read_token_file(str(tmp_path / "a.bin"), "nanogpt", 0, "x")] == [
        [5, 6],
        [7],
        [],
        [8],
    ]
    np.array([0, 5, 6, 0, 7], np.uint16).tofile(tmp_path / "b.bin")
    assert [d.tokens().tolist() for *_, d in read_token_file(str(tmp_path / "b.bin"), "nanogpt", 0, "x")] == [
        [5, 6],
        [7],
    ]


def test_merged_runs_are_one_order_with_each_document_once(run: Path, tmp_path: Path) -> None:
    """Two runs that overlap: the result has every document once, in the order of one run."""
    table = corpus()
    tokenizer = shards.read_file(str(run / "result/shards/tokenizer.json"))
    whole = shards.read_manifest(str(run))
    for name, part in (("a", table.slice(0, 200)), ("b", table.slice(150))):
        folder = tmp_path / name / "result"
        (tmp_path / "tokenizer.json").write_bytes(tokenizer)
        packed(part, folder, str(tmp_path / "tokenizer.json"))
    made = merge_runs(str(tmp_path / "both"), [str(tmp_path / "a"), str(tmp_path / "b")], tokens_per_shard=2000)
    shards.verify_manifest(made.manifest)
    assert made.duplicate_ids == 50 and made.manifest.generation == 1
    for domain in ("web", "code", "tiny"):
        mine, theirs = (
            sorted(
                d for s in ("train", "validation") for d in (documents(m, s, domain) if domain in m.splits[s] else [])
            )
            for m in (made.manifest, whole)
        )
        assert mine == theirs
    for split in ("train", "validation"):
        for entries in made.manifest.splits[split].values():
            from curation.seeded_hash import hash_with_seed

            ids = np.concatenate(
                [
                    hash_with_seed(shards.open_shard(made.manifest.path(e)).documents["doc_id"], 17, "order")
                    for e in entries.shards
                ]
            )
            assert (np.diff(ids.astype(object)) > 0).all()


def packed(table: Any, folder: Path, path: str) -> None:
    """Shards of a table with a tokenizer from a file."""
    from curation.packing.shard_writer import build_manifest, shard_stages
    from curation.packing.tokenizer.train_tokenizer import load_tokenizer_stages, tokenizer_info
    from tests.curation.stages import corpus_of
    from tests.curation.stages import run as run_stages

    known = corpus_of([table], 17)
    loaded = run_stages(load_tokenizer_stages(known, path=path), [table], folder)
    made = run_stages(shard_stages(known, tokenizer=path, validation=0.1), [table], folder)
    whole = build_manifest(made.results[-1].outputs, tokenizer_info(loaded.results[-1].outputs[0]), seed=17)
    (folder / "shards/manifest.json").write_bytes(whole.dumps())


def test_validation_wins_where_runs_are_merged(run: Path, tmp_path: Path) -> None:
    manifest = shards.read_manifest(str(run))
    tokenizer = shards.read_file(manifest.path(manifest.tokenizer.file))
    from curation.packing.merge import read_documents

    held = [(s, d, p) for s, d, p in read_documents([manifest]) if s == "validation"]
    copies = [
        ("train", d, type(p)(hashlib.md5(p.doc_id).digest(), p.length, p.tokens, p.url, p.source)) for _, d, p in held
    ]
    _, domain, page = held[0]
    newer = type(page)(b"n" * 16, 2, lambda: np.array([70, 71], np.uint16), f"{page.url}?utm_source=feed#top", None)
    made = write_token_documents(
        str(tmp_path / "out"), [*read_documents([manifest]), *copies, ("train", domain, newer)], tokenizer
    )
    assert made.removed_from_training == len(held) + 1 > 1
    assert made.manifest.splits["train"]["web"].documents == manifest.splits["train"]["web"].documents
