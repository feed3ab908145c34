"""From a token to the crawl and back: every document of a real crawl's run, the split, and order, trace and seen.

Covers: pipelines/cli/commands/data.py, pipelines/cli/commands/shards.py
"""

from __future__ import annotations

import gzip
import html
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner
from warcio.archiveiterator import ArchiveIterator

from curation import shards
from curation.canonical_url import canonicalize_url
from curation.core.errors import UserError
from curation.dedup.minhash import jaccard, shingles
from curation.packing.tokenizer.encode import Encoder
from curation.sources import charset
from pipelines.cli.main import app
from tests.curation.engine import runs
from training.config import parse
from training.train import train

TRAIN = "model: {preset: toy}\nsteps: 6\nbatch: {global_size: 4}\ndata: {seq_len: 64}\ndevice: cpu\nprecision: fp32\n"


def pipeline() -> dict[str, Any]:
    return {
        "name": "crawl",
        "sources": [{"name": "web", "domain": "web", "read": "warc", "root": "crawl", "path": "*.warc.gz"}],
        "steps": ["extract", "pii", "exact_dedup", {"minhash_dedup": {}}],
        "tokenizer": {"train": {"vocab": 2000, "sample_bytes": 500_000}},
        "shards": {"tokens_per_shard": 50_000},
        "validation": 0.1,
    }


def curated(data: Path, folder: Path, pages: int | None) -> Path:
    if pages is None:
        shutil.copytree(data / "crawl", folder / "crawl")
    else:
        runs.cut_warc(data / "crawl" / "docs-01.warc.gz", folder / "crawl" / "a.warc.gz", 0, pages)
    assert runs.curate(folder, pipeline()).status == "done"
    return folder / "run"


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return curated(data, tmp_path_factory.mktemp("crawl"), 120)


@pytest.fixture(scope="module")
def trained(run: Path) -> Path:
    torch.set_num_threads(1)
    train(parse(TRAIN), str(run), str(run / "train" / "toy"))
    return run / "train" / "toy"


def call(*arguments: str) -> Any:
    done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    return json.loads(done.stdout)


def check_every_document(run: Path) -> int:
    """Decoding a document's tokens gives the kept text; its WARC member at (offset, length) is its page."""
    manifest = shards.verify_manifest(shards.read_manifest(str(run)))
    assert manifest.tokenizer.lossless
    encoder = Encoder(shards.read_file(manifest.path(manifest.tokenizer.file)))
    kept = {r["doc_id"]: r for r in pq.read_table(run / "result" / "documents").to_pylist()}
    found = 0
    for _, _, entry in manifest.entries():
        shard = shards.open_shard(manifest.path(entry), entry=entry, tokenizer=manifest.tokenizer.sha256)
        assert shard.offsets[0] == 0 and shard.offsets[-1] == len(shard.tokens), "every token is of a document"
        for row, document in enumerate(shard.documents.to_pylist()):
            tokens = shard.tokens[shard.offsets[row] : shard.offsets[row + 1]]
            text = kept[document["doc_id"]]["text"]
            assert tokens[0] == encoder.eos and encoder.decode(tokens[1:]) == text
            source = document["source"]
            with open(run.parent / "crawl" / source["file"], "rb") as f:
                f.seek(source["offset"])
                member = f.read(source["length"])
            gzip.decompress(member)  # one whole member
            record = next(ArchiveIterator(io.BytesIO(member)))
            assert record.rec_headers.get_header("WARC-Target-URI") == document["url"]
            header = re.search(r"charset=([\w-]+)", record.http_headers.get_header("Content-Type", ""))
            page = charset.decode(record.content_stream().read(), header and header.group(1)).text
            page = html.unescape(re.sub(r"<[^>]*>", "", page))  # a word may have markup inside
            words = [w for w in re.findall(r"\w{4,}", text) if not w.isupper()][:10]  # EMAIL_ADDRESS is of pii's making
            assert [w for w in words if w not in page] == [], document["url"]
            found += 1
    assert found == len(kept)
    return found


def test_every_token_of_a_crawl_traces_to_its_record(run: Path) -> None:
    assert check_every_document(run) > 30


@pytest.mark.nightly
def test_every_token_of_the_whole_crawl_traces_to_its_record(data: Path, tmp_path: Path) -> None:
    whole = curated(data, tmp_path, None)
    assert check_every_document(whole) > 1000
    check_split(whole, 0.9)


def sides(run: Path) -> dict[bytes, str]:
    """The split of each document."""
    manifest = shards.read_manifest(str(run))
    found: dict[bytes, str] = {}
    for split, _, entry in manifest.entries():
        ids = shards.open_shard(manifest.path(entry)).documents["doc_id"].to_pylist()
        assert not found.keys() & set(ids)
        found |= dict.fromkeys(ids, split)
    assert set(found.values()) == {"train", "validation"}
    return found


def check_split(run: Path, similar: float) -> None:
    """No document of validation has a text or an address of training's, or shares `similar` of its shingles with one:
    every pair is compared. (Pairs between the step's threshold and this may have escaped its LSH.)"""
    split = sides(run)
    columns = ["doc_id", "url", "text"]
    rows = pq.read_table(run / "result" / "documents", columns=columns).to_pylist()
    for key in (lambda r: r["text"], lambda r: canonicalize_url(r["url"])):
        held = {key(r) for r in rows if split[r["doc_id"]] == "validation"}
        assert not held & {key(r) for r in rows if split[r["doc_id"]] == "train"}
    grams = jaccard.ShingleSets.from_list(shingles.shingle_sets(pa.array([r["text"] for r in rows], pa.large_string())))
    of = np.array([split[r["doc_id"]] == "validation" for r in rows])
    held, rest = np.flatnonzero(of), np.flatnonzero(~of)
    pairs = np.repeat(held, len(rest)), np.tile(rest, len(held))
    which, _ = jaccard.verify_pairs(grams, pairs[0], grams, pairs[1], jaccard.threshold_fraction(similar))
    assert [(rows[pairs[0][i]]["url"], rows[pairs[1][i]]["url"]) for i in which] == []


def test_the_split_parts_no_duplicates(run: Path) -> None:
    check_split(run, 0.9)


def test_the_split_parts_neither_pages_crawled_again_nor_duplicates_that_the_rules_keep(
    data: Path, run: Path, tmp_path: Path
) -> None:
    """Pages found again, half of them under their address with another text, half elsewhere with nearly the same; and
    deduplication that only says what it found."""
    runs.cut_warc(data / "crawl" / "docs-01.warc.gz", tmp_path / "crawl" / "a.warc.gz", 0, 120)
    again = pq.read_table(run / "result" / "documents", columns=["url", "text"]).to_pylist()
    pages = [{"url": f"{r['url']}#later", "text": r["text"][len(r["text"]) // 2 :]} for r in again[::2]]
    pages += [{"url": f"http://mirror.org/{i}", "text": f"{r['text']}\nmirrored"} for i, r in enumerate(again[1::2])]
    runs.write_jsonl(tmp_path / "later" / "a.jsonl", pages)
    tree = pipeline()
    tree["sources"] += [{"name": "later", "domain": "later", "read": "text", "root": "later", "path": "*.jsonl"}]
    tree["steps"] = [
        "extract",
        {"exact_dedup": {}, "keep": {"exact_duplicate": "exact_dedup.copies > 0 OR TRUE"}},
        {"minhash_dedup": {}, "keep": {"near_duplicate": "minhash_dedup.copies > 0 OR TRUE"}},
    ]
    assert runs.curate(tmp_path, tree).status == "done"
    split = sides(tmp_path / "run")
    rows = pq.read_table(tmp_path / "run" / "result" / "documents").to_pylist()
    by_address: dict[str, set[str]] = {}
    for row in rows:
        by_address.setdefault(canonicalize_url(row["url"]), set()).add(split[row["doc_id"]])
        for step in ("exact_dedup", "minhash_dedup"):
            kept = row[step]["of"]
            assert kept is None or split[bytes.fromhex(kept)] == split[row["doc_id"]]
    assert {len(s) for s in by_address.values()} == {1} and len(by_address) < len(rows) - 10
    assert sum(r["minhash_dedup"]["of"] is not None for r in rows) > 10


def test_order_says_what_a_step_reads_and_verifies(trained: Path) -> None:
    step = call("data", "inspect-step", str(trained), "--step", "2")
    assert [w["sequence"] for w in step] == [4, 5, 6, 7]
    for window in step:
        assert window["documents"][0]["inputs"][0] == 0 and window["documents"][-1]["inputs"][1] == 64
    counted = call("data", "verify-order", str(trained))
    assert (counted["sequences"], counted["steps"]) == (24, 6)
    assert counted["domains"]["web"]["sequences"] == 24 and counted["domains"]["web"]["error"] < 1


def test_trace_goes_to_the_page_and_shows_its_text(run: Path, trained: Path) -> None:
    found = call("data", "trace-token", str(trained), "--step", "1")
    assert len(found) >= 4
    for item in found:
        assert item["source"]["file"] == "a.warc.gz" and item["url"].startswith("http")
        words = re.findall(r"[A-Za-z]{4,}", item["text"])
        assert not words or sum(w in item["original"] for w in words) > len(words) / 2
    one = found[0]
    (again,) = call("data", "trace-token", str(run), "--shard", one["shard"], "--token", str(one["token"]))
    assert again == one


def test_seen_finds_the_steps_that_read_a_document(trained: Path) -> None:
    step = call("data", "inspect-step", str(trained), "--step", "3")
    document = step[1]["documents"][0]["doc_id"]
    readings = call("data", "find-document", str(trained), document)["reads"]
    assert {"step": 3, "sequence": step[1]["sequence"], "epoch": step[1]["epoch"]} in readings


def test_two_runs_by_the_command_line_and_where_their_tokens_come_from(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "second", ignore=shutil.ignore_patterns("cache"))
    (tmp_path / "toy.yaml").write_text(TRAIN)
    command = ["train", str(tmp_path / "toy.yaml"), "--data", str(run), "--data", str(tmp_path / "second")]
    done = CliRunner().invoke(app, [*command, "--run", str(tmp_path / "toy"), "--quiet"], catch_exceptions=False)
    assert done.exit_code == 0
    counted = call("data", "verify-order", str(tmp_path / "toy"))
    assert (counted["sequences"], counted["steps"]) == (24, 6)
    found = [t for step in (1, 2) for t in call("data", "trace-token", str(tmp_path / "toy"), "--step", str(step))]
    second = [t for t in found if t["shard"].startswith("@1/")]
    assert 0 < len(second) < len(found)
    assert all(t["url"].startswith("http") and t["original"] for t in second), "its own run says where it was crawled"


def test_shards_verify_names_a_flipped_bit(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "result", tmp_path / "result")
    assert call("shards", "verify", str(tmp_path))["damaged"] == []
    path = next((tmp_path / "result" / "shards" / "train").rglob("*.arrow"))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    path.write_bytes(damaged)
    (wrong,) = call("shards", "verify", str(tmp_path))["damaged"]
    assert path.name in wrong and "checksum" in wrong
    stats = call("shards", "stats", str(run))
    assert sum(d["documents"] for d in stats["domains"]) == pq.read_table(run / "result" / "documents").num_rows
    shown = CliRunner().invoke(app, ["shards", "inspect", str(run)], catch_exceptions=False)
    assert "gristmill.format = 1" in shown.stdout


def test_groups_of_the_mix_are_domains_of_the_shards(data: Path, tmp_path: Path) -> None:
    runs.write_jsonl(tmp_path / "texts" / "a.jsonl", runs.sentences(data, ["en", "de", "fr"], 40))
    tree = runs.text_pipeline(
        tmp_path,
        steps=["language"],
        tokenizer={"train": {"vocab": 500, "sample_bytes": 100_000}},
        mix={
            "groups": {"english": "language.code = 'en'", "short": "length(text) < 300"},
            "weights": {"english": 3, "web": 1},
        },
    )
    assert runs.curate(tmp_path, tree).status == "done"
    manifest = shards.read_manifest(str(tmp_path / "run"))
    assert manifest.mix.weights == {"english": 0.75, "web": 0.25}
    kept = {r["doc_id"]: r for r in pq.read_table(tmp_path / "run" / "result" / "documents").to_pylist()}
    found = 0
    for _, domain, entry in manifest.entries():
        for doc in shards.open_shard(manifest.path(entry)).documents["doc_id"].to_pylist():
            row = kept[doc]
            english, short = row["language"]["code"] == "en", len(row["text"]) < 300
            assert domain == ("english" if english else "short" if short else "web") and row["domain"] == "web"
            found += 1
    assert found == len(kept) and {"english", "short", "web"} == set(manifest.splits["train"])
    tree["mix"]["groups"] = {"english": "language.kode = 'en'"}
    with pytest.raises(UserError, match=r"names language.kode.*\n.*\n.*did you mean language.code"):
        runs.curate(tmp_path, tree, "other")
