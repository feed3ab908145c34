"""Documents to tokenizer, shards, manifest and Parquet, through the stages and back.

Covers: document_writer.py, external_sort.py, train_validation_split.py, tokenizer/train_tokenizer.py
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import shards
from curation.core.errors import UserError
from curation.document import BASE
from curation.packing import leakage_groups, shard_writer, train_validation_split
from curation.packing.document_writer import document_stages
from curation.packing.shard_writer import build_manifest, shard_stages
from curation.packing.tokenizer import train_tokenizer
from curation.packing.tokenizer.encode import Encoder
from curation.packing.tokenizer.train_tokenizer import load_tokenizer_stages, tokenizer_info, train_tokenizer_stages
from curation.seeded_hash import hash_with_seed
from curation.step import Corpus
from tests.curation.stages import corpus_of, cut, documents, run

EMPTY = Corpus(documents=0, text_bytes=0, tasks=0, seed=1)


def corpus(n=300, seed=0):
    rng = random.Random(seed)
    texts = [
        " ".join(rng.choice(["mill", "grain", "stone", "Mühle", "<|endoftext|>"]) for _ in range(9 + i % 50))
        for i in range(n)
    ]
    texts = [f"{t} {i}" for i, t in enumerate(texts)]
    domains = ["tiny" if i in (5, 17) else "one" if i == 9 else "code" if i % 3 == 0 else "web" for i in range(n)]
    return documents(texts, domain=domains)


def pack(table, folder: Path, tasks=1, order=None, seed=17, **options):
    """The tokenizer and the shards of a table below `folder`; returns the manifest."""
    parts = cut(table, tasks, order)
    known = corpus_of(parts, seed)
    trained = run(train_tokenizer_stages(known, vocab=400), parts, folder)
    (fact,) = trained.results[-1].outputs
    made = run(shard_stages(known, tokenizer=str(folder / "shards/tokenizer.json"), **options), parts, folder)
    whole = build_manifest(made.results[-1].outputs, tokenizer_info(fact), seed=seed)
    (folder / "shards/manifest.json").write_bytes(whole.dumps())
    return whole


def tree(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_every_document_comes_back_from_the_shards(tmp_path):
    table = corpus()
    whole = pack(table, tmp_path / "result", 3, validation=0.1, tokens_per_shard=2000)
    again = shards.verify_manifest(shards.read_manifest(str(tmp_path / "result")))
    assert again.dumps() == whole.dumps()
    encoder = Encoder((tmp_path / "result/shards/tokenizer.json").read_bytes())
    rows = {r["doc_id"]: r for r in table.to_pylist()}
    found = {}
    for name, domain, entry in again.entries():
        shard = shards.open_shard(again.path(entry), entry=entry, tokenizer=again.tokenizer.sha256)
        assert entry.path.startswith(f"{name}/{domain}/")
        size = 0
        for i, doc in enumerate(shard.documents.to_pylist()):
            row = rows[doc["doc_id"]]
            tokens = shard.tokens[shard.offsets[i] : shard.offsets[i + 1]]
            assert tokens[0] == encoder.eos and encoder.eos not in tokens[1:]
            assert encoder.decode(tokens[1:]) == row["text"]
            assert (doc["url"], doc["source"], domain) == (row["url"], row["source"], row["domain"])
            assert doc["doc_id"] not in found
            found[doc["doc_id"]] = name
            size += len(row["text"].encode())
        assert size == entry.text_bytes
    assert set(found) == set(rows)
    held = {d: sum(found[i] == "validation" for i, r in rows.items() if r["domain"] == d) for d in ("web", "code")}
    assert all(0 < n < 60 for n in held.values())
    assert again.splits["validation"]["tiny"].documents == again.splits["train"]["tiny"].documents == 1
    assert "one" not in again.splits["validation"] and again.splits["train"]["one"].documents == 1


def test_documents_stand_in_the_order_of_their_keyed_hash_over_a_power_of_two_of_shards(tmp_path):
    table = corpus()
    whole = pack(table, tmp_path / "result", tokens_per_shard=1500, validation=0.0)
    assert not whole.splits["validation"]
    for entries in whole.splits["train"].values():
        ids, parts = [], []
        for entry in entries.shards:
            part = shards.open_shard(str(tmp_path / "result/shards" / entry.path)).documents["doc_id"]
            ids += part.to_pylist()
            parts.append(hash_with_seed(part, 17, "order"))
        key = np.concatenate(parts)
        assert (key[1:] > key[:-1]).all() and len(ids) == entries.documents
        count = 1 << max(0, -(-entries.tokens // 1500) - 1).bit_length()
        assert len(entries.shards) == count
        for index, part in enumerate(parts):
            assert (part // np.uint64(2**64 // count) == index).all() if count > 1 else True
    assert len(whole.splits["train"]["web"].shards) >= 4


def test_the_same_bytes_for_any_layout_order_and_bucket_size(tmp_path, monkeypatch):
    table = corpus()
    options = {"validation": 0.05, "tokens_per_shard": 3000}
    pack(table, tmp_path / "a" / "result", 1, **options)
    once = tree(tmp_path / "a" / "result")
    assert len(once) > 8
    pack(table, tmp_path / "b" / "result", 5, 3, **options)
    monkeypatch.setattr(shard_writer, "BUCKET_BYTES", 500)
    monkeypatch.setattr(shard_writer, "BATCH_TOKENS", 100)
    pack(table, tmp_path / "c" / "result", 16, 4, **options)
    assert tree(tmp_path / "b" / "result") == once
    assert tree(tmp_path / "c" / "result") == once


ODD = ["", " ", "\n\n", "😀👩‍👩‍👧", "e\u0301", "a" * 200_000, " " * 200_000 + "x", "<|endoftext|>", "\ufffd", "\u2028"]


def test_odd_texts_come_back(tmp_path):
    table = documents(ODD * 2, domain=["web"] * 10 + ["odd.1"] * 10)
    whole = pack(table, tmp_path / "result", 3, validation=0.2)
    encoder = Encoder((tmp_path / "result/shards/tokenizer.json").read_bytes())
    texts = []
    for _, _, entry in whole.entries():
        shard = shards.open_shard(str(tmp_path / "result/shards" / entry.path))
        for a, b in zip(shard.offsets[:-1], shard.offsets[1:], strict=True):
            texts.append(encoder.decode(shard.tokens[a + 1 : b]))
    assert sorted(texts) == sorted(ODD * 2)


def test_the_same_bytes_under_another_hash_seed_locale_and_time_zone(tmp_path):
    program = """
import sys
from pathlib import Path
from curation.dedup.exact_dedup import ExactDedup
from curation.dedup.minhash.minhash_dedup import MinHashDedup
from tests.curation.packing.test_shard_writer import corpus, pack, tree
from tests.curation.stages import corpus_of, cut, run, signals
folder = Path(sys.argv[1])
table = corpus(120)
pack(table, folder / "result", 3, 1, validation=0.1, tokens_per_shard=1000)
parts = cut(table, 3, 1)
decided = [signals(run(s.stages(corpus_of(parts)), parts), parts) for s in (ExactDedup(), MinHashDedup(threshold=0.1))]
print(sorted(tree(folder / "result").items()), [sorted(d.items()) for d in decided])
"""
    seen = set()
    for i, extra in enumerate(
        (
            {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C"},
            {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8"},
        )
    ):
        env = {**os.environ, **extra, "PYTHONPATH": os.getcwd()}
        command = [sys.executable, "-c", program, str(tmp_path / str(i))]
        done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
        seen.add(done.stdout)
    assert len(seen) == 1 and "train/web/00001.arrow" in seen.pop()


def test_how_many_bits():
    assert [shard_writer.hash_prefix_bits(n, 10) for n in (0, 1, 10, 11, 20, 21, 40, 41)] == [0, 0, 0, 1, 1, 2, 2, 3]


def test_another_seed_another_order_and_split(tmp_path):
    one, two = (pack(corpus(), tmp_path / str(s) / "result", seed=s, validation=0.3) for s in (1, 2))
    assert one.splits["train"]["web"].documents != two.splits["train"]["web"].documents or (
        one.splits["train"]["web"].shards[0].sha256 != two.splits["train"]["web"].shards[0].sha256
    )


def test_the_split_goes_by_content():
    texts = pa.array([f"text {i}" for i in range(5000)], pa.large_string())
    number = leakage_groups.split_hashes(texts, 17)
    low, high = int(number.min()), int(number.max())
    one, two = (train_validation_split.is_validation(number, low, high, f) for f in (0.01, 0.02))
    assert 25 < one.sum() < 80 and (two | ~one).all()  # a larger fraction keeps what a smaller one chose
    assert not train_validation_split.is_validation(number, low, high, 0.0).any()
    assert train_validation_split.is_validation(number, low, high, 1e-9).sum() == 1
    same = leakage_groups.split_hashes(pa.array(["x", "x"], pa.large_string()), 17)
    assert not train_validation_split.is_validation(
        same, int(same[0]), int(same[0]), 0.999
    ).any()  # equal texts are never parted


def test_copies_of_a_text_are_on_one_side(tmp_path):
    table = documents([f"text {i % 20}" for i in range(200)])
    whole = pack(table, tmp_path / "result", 4, validation=0.3)
    texts = {}
    names = dict(zip(table["doc_id"].to_pylist(), table["text"].to_pylist(), strict=True))
    for name, _, entry in whole.entries():
        for i in shards.open_shard(str(tmp_path / "result/shards" / entry.path)).documents["doc_id"].to_pylist():
            texts.setdefault(names[i], set()).add(name)
    assert len(texts) == 20 and all(len(sides) == 1 for sides in texts.values())
    assert {side for sides in texts.values() for side in sides} == {"train", "validation"}


def test_the_tokenizer_is_trained_on_a_sample_by_hash(tmp_path, monkeypatch):
    table = corpus()
    outputs, files = [], []
    for name, tasks, order in (("a", 1, None), ("b", 6, 2)):
        parts = cut(table, tasks, order)
        ran = run(train_tokenizer_stages(corpus_of(parts), vocab=300, sample_bytes=20_000), parts, tmp_path / name)
        outputs.append(ran.results[-1].outputs[0])
        files.append((tmp_path / name / "shards/tokenizer.json").read_bytes())
        assert ran.widest["train_tokenizer"] < 200  # of 300: what is not needed is not sent
    assert outputs[0] == outputs[1] and files[0] == files[1]
    assert 20_000 <= outputs[0]["sample_bytes"] < 20_500
    assert outputs[0]["sha256"] == hashlib.sha256(files[0]).hexdigest()
    monkeypatch.setattr(train_tokenizer, "MAX_CHARS_PER_DOCUMENT", 10)
    ran = run(train_tokenizer_stages(corpus_of([table]), vocab=300), [table], tmp_path / "c")
    assert ran.results[-1].outputs[0]["sample_bytes"] < 10 * 300 + 300


def test_a_tokenizer_from_outside(tmp_path, data):
    table = corpus(50)
    path = str(data / "tokenizer" / "gpt2_vocab.bpe")
    ran = run(load_tokenizer_stages(corpus_of([table]), path=path), [table], tmp_path / "result")
    (fact,) = ran.results[-1].outputs
    info = tokenizer_info(fact)
    assert (info.file, info.vocab, info.eos, info.kind) == ("tokenizer.json", 50257, 50256, "bpe")
    assert (fact["engine"], fact["lossless"]) == ("tiktoken", True)
    written = tmp_path / "result/shards/tokenizer.json"
    assert json.loads(written.read_text())["model"]["type"] == "BPE"
    made = run(shard_stages(corpus_of([table]), tokenizer=str(written)), [table], tmp_path / "result")
    whole = build_manifest(made.results[-1].outputs, info)
    assert shards.open_shard(str(tmp_path / "result/shards" / whole.splits["train"]["web"].shards[0].path)).eos == 50256


def test_the_manifest_says_the_mix(tmp_path):
    table = corpus()
    folder = tmp_path / "result"
    pack(table, folder)
    made = run(
        shard_stages(corpus_of([table]), tokenizer=str(folder / "shards/tokenizer.json")), [table], tmp_path / "x"
    )
    outputs, info = made.results[-1].outputs, shards.read_manifest(str(folder)).tokenizer
    whole = build_manifest(
        outputs, info, weights={"web": 3, "code": 1}, budget=4000, max_epochs=4, fingerprint="f" * 32
    )
    assert whole.mix.weights == {"web": 0.75, "code": 0.25} and whole.mix.budget == 4000
    assert whole.mix.epochs["web"] == 3000 / whole.splits["train"]["web"].tokens
    with pytest.raises(UserError, match="A budget of"):
        build_manifest(outputs, info, weights={"tiny": 1}, budget=10**9, max_epochs=4)
    assert build_manifest(reversed(outputs), info).dumps() == build_manifest(outputs, info).dumps()


@pytest.mark.parametrize(
    "plan",
    [
        lambda: train_tokenizer_stages(EMPTY, vocab=300),
        lambda: load_tokenizer_stages(EMPTY, path="x"),
        lambda: shard_stages(EMPTY, tokenizer="x"),
    ],
)
def test_zero_documents_left(plan):
    with pytest.raises(UserError, match="there are no documents to tokenize"):
        next(plan())


def test_domains_that_are_no_directory(tmp_path):
    table = documents(["a", "b"], domain=["../up", "web"])
    with pytest.raises(UserError, match=r"1 documents have the domain '\.\./up'"):
        pack(table, tmp_path / "result")
    with pytest.raises(UserError, match="1 documents have the domain ''"):
        pack(documents(["a", "b"], domain=[None, "web"]), tmp_path / "other")


@pytest.mark.parametrize(
    ("options", "says"), [({"validation": 1.0}, "validation is 1.0"), ({"tokens_per_shard": 0}, "is 0")]
)
def test_options_that_are_refused(options, says):
    with pytest.raises(UserError, match=says):
        next(shard_stages(corpus_of([corpus(3)]), tokenizer="x", **options))


def test_the_documents_as_parquet(tmp_path, monkeypatch):
    table = corpus(3000).append_column("language", pa.array([{"code": "en", "score": i / 3000} for i in range(3000)]))
    columns = pa.schema([*BASE, table.schema.field("language")])
    for name, tasks, order in (("a", 1, None), ("b", 7, 5)):
        parts = cut(table, tasks, order)
        run(document_stages(corpus_of(parts), columns), parts, tmp_path / name)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    got = pq.read_table(tmp_path / "a" / "documents")
    assert got.schema.names == columns.names and got.num_rows == 3000
    assert sorted(got.to_pylist(), key=lambda r: r["doc_id"]) == sorted(table.to_pylist(), key=lambda r: r["doc_id"])
    key = hash_with_seed(got["doc_id"], 17, "order")
    assert (key[1:] > key[:-1]).all()

    from curation.packing import document_writer as module

    monkeypatch.setattr(module, "BUCKET_BYTES", 20_000)
    monkeypatch.setattr(module, "FILE_BYTES", 200_000)
    parts = cut(table, 3, 1)
    ran = run(document_stages(corpus_of(parts), columns), parts, tmp_path / "c")
    assert len(list((tmp_path / "c" / "documents").iterdir())) == 4
    assert sum(f["documents"] for f in ran.results[-1].outputs) == 3000
    assert pq.read_table(tmp_path / "c" / "documents").equals(got)
