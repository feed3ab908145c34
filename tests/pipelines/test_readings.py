"""From a token to the crawl and back: every document of a real crawl's run, the split, and order, trace and seen."""

from __future__ import annotations

import gzip
import html
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner
from warcio.archiveiterator import ArchiveIterator

from curation import shards
from curation.pack.encode import Encoder
from curation.read import charset
from curation.step import UserError
from pipelines.cli import app
from tests.curation.engine import runs
from training.config import parse
from training.train import train

TRAIN = "model: {preset: toy}\niterations: 6\nbatch: {windows: 4}\ndata: {sequence: 64}\ndevice: cpu\nprecision: fp32\n"


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
    manifest = shards.read_manifest(str(run), verify=True)
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


@pytest.mark.slow
def test_every_token_of_the_whole_crawl_traces_to_its_record(data: Path, tmp_path: Path) -> None:
    assert check_every_document(curated(data, tmp_path, None)) > 1000


def test_the_split_parts_no_duplicates(run: Path) -> None:
    """No document of validation has a text of training's, or one that is nearly it (Jaccard of 5-grams of words)."""
    manifest = shards.read_manifest(str(run))
    sides: dict[str, set[bytes]] = {"train": set(), "validation": set()}
    for split, _, entry in manifest.entries():
        sides[split] |= set(shards.open_shard(manifest.path(entry)).documents["doc_id"].to_pylist())
    assert sides["train"] and sides["validation"] and not sides["train"] & sides["validation"]
    grams = {}
    for row in pq.read_table(run / "result" / "documents", columns=["doc_id", "text"]).to_pylist():
        words = row["text"].lower().split()
        grams[row["doc_id"]] = {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}
    for held in sides["validation"]:
        for other in sides["train"]:
            a, b = grams[held], grams[other]
            assert len(a & b) < 0.8 * len(a | b)


def test_order_says_what_a_step_reads_and_verifies(trained: Path) -> None:
    step = call("order", str(trained), "--step", "2")
    assert [w["window"] for w in step] == [4, 5, 6, 7]
    for window in step:
        assert window["documents"][0]["inputs"][0] == 0 and window["documents"][-1]["inputs"][1] == 64
    counted = call("order", str(trained), "--verify")
    assert (counted["windows"], counted["iterations"]) == (24, 6)
    assert counted["domains"]["web"]["windows"] == 24 and counted["domains"]["web"]["error"] < 1


def test_trace_goes_to_the_page_and_shows_its_text(run: Path, trained: Path) -> None:
    found = call("trace", str(trained), "--step", "1")
    assert len(found) >= 4
    for item in found:
        assert item["source"]["file"] == "a.warc.gz" and item["url"].startswith("http")
        words = re.findall(r"[A-Za-z]{4,}", item["text"])
        assert not words or sum(w in item["original"] for w in words) > len(words) / 2
    one = found[0]
    (again,) = call("trace", str(run), "--shard", one["shard"], "--token", str(one["token"]))
    assert again == one


def test_seen_finds_the_steps_that_read_a_document(trained: Path) -> None:
    step = call("order", str(trained), "--step", "3")
    document = step[1]["documents"][0]["doc_id"]
    readings = call("seen", str(trained), document)["readings"]
    assert {"iteration": 3, "window": step[1]["window"], "epoch": step[1]["epoch"]} in readings


def test_shards_verify_names_a_flipped_bit(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "result", tmp_path / "result")
    assert call("shards", "verify", str(tmp_path))["wrong"] == []
    path = next((tmp_path / "result" / "shards" / "train").rglob("*.arrow"))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    path.write_bytes(damaged)
    (wrong,) = call("shards", "verify", str(tmp_path))["wrong"]
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
