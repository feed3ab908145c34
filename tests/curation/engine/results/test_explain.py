"""Every id and URL is explained, wherever the document ended, at any ledger size, without unscrubbed text.

Covers: ledger.py
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.core.errors import UserError
from curation.engine.planning.exclude_list import url_key
from curation.engine.results import explain, ledger
from tests.curation.engine import runs

STEPS = ["extract", "language", "heuristics", "exact_dedup", "minhash_dedup", "toxicity"]


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that drops something at reading and at every step."""
    folder = tmp_path_factory.mktemp("explain")
    runs.cut_warc(data / "crawl" / "docs-00.warc.gz", folder / "crawl" / "a.warc.gz", 0, 80)
    rows = runs.sentences(data, ["en", "de", "fr"], 40)
    rows += [{"text": "", "url": "http://example.org/nothing", "lang": "en"}]
    runs.write_jsonl(folder / "texts" / "a.jsonl", rows)
    (folder / "bad.jsonl").write_text('{"url": "http://example.org/fr/3", "reason": "a spike"}\n')
    keep: dict[str, str | None] = {
        "fineweb_punct_line_ratio": "heuristics.punct_line_ratio >= 0.12",
        "fineweb_short_line_ratio": "heuristics.short_line_ratio <= quantile(heuristics.short_line_ratio, 0.9)",
        "fineweb_dup_char_ratio": None,
        "fineweb_newline_ratio": None,
    }
    runs.curate(
        folder,
        {
            "name": "explained",
            "sources": [
                {"name": "crawl", "read": "warc", "root": "crawl", "path": "*.warc.gz"},
                {"name": "texts", "read": "text", "root": "texts", "path": "*.jsonl"},
            ],
            "exclude": ["bad.jsonl"],
            "steps": [
                {"extract": {}, "keep": {"empty": "extract.chars > 260"}},
                {"language": {}, "keep": {"language": "language.code <> 'fr'"}},
                {"heuristics": {"sets": ["fineweb"]}, "keep": keep},
                "exact_dedup",
                {"minhash_dedup": {"threshold": 0.6}},
                {"toxicity": {}, "keep": {"toxicity": "toxicity.score < 0.05"}},
            ],
        },
    )
    return folder


def test_every_record_is_explained_by_its_id_and_its_url(folder: Path) -> None:
    rows = explain.ledger(str(folder / "run")).to_pylist()
    ended = {row["step"] for row in rows}
    assert ended == {None, "read", *STEPS}
    for row in rows:
        said = explain.explain(str(folder / "run"), row["doc_id"].hex())
        assert said["doc_id"] == row["doc_id"].hex()
        assert (said["source"], said["url"]) == (row["source"], row["url"])
        went = [s["step"] for s in said["steps"]]
        if row["step"] is None:
            assert (said["outcome"], went) == ({"kept": True}, STEPS)
            assert all(set(s["rules"].values()) <= {"passed"} for s in said["steps"])
        else:
            outcome = said["outcome"]
            assert (outcome["kept"], outcome["step"], outcome["rule"]) == (False, row["step"], row["rule"])
            upto = [] if row["step"] == "read" else STEPS[: STEPS.index(row["step"]) + 1]
            assert went == upto
            if upto:
                assert said["steps"][-1]["rules"][row["rule"]] == "dropped it"
                assert outcome["value"], said  # the signals that decided
            if row["step"] in ("exact_dedup", "minhash_dedup"):
                kept = explain.explain(str(folder / "run"), outcome["evidence"]["of"])
                assert kept["outcome"].get("step") not in ("read", *STEPS[:3])  # it stood when duplicates were judged
        if row["url"] is not None:
            by_url = explain.explain(str(folder / "run"), row["url"])
            assert row["doc_id"].hex() in (by_url["doc_id"], *by_url["others"])


def test_a_page_stands_before_its_request(folder: Path) -> None:
    """Archives hold a page's request under its URL, too: asked by the URL, the page is what is meant."""
    rows = [r for r in explain.ledger(str(folder / "run")).to_pylist() if r["url"] is not None]
    pages = {r["url"]: r for r in rows if r["rule"] != "record_type"}
    requests = [r for r in rows if r["rule"] == "record_type" and r["url"] in pages]
    assert any(r["doc_id"] < pages[r["url"]]["doc_id"] for r in requests)  # first by id, which must not decide
    for request in requests:
        said = explain.explain(str(folder / "run"), request["url"])
        assert said["doc_id"] == pages[request["url"]]["doc_id"].hex()
        assert request["doc_id"].hex() in said["others"]


def test_a_key_that_no_record_has_is_said_to_be_none(folder: Path) -> None:
    for key in ("http://example.org/never", "0" * 32, "", "nonsense", "http://example.org/en/1 "):
        with pytest.raises(UserError) as error:
            explain.explain(str(folder / "run"), key)
        assert str(error.value).startswith(f"no record {key!r} in ")
        assert "as it was crawled" in str(error.value)
    with pytest.raises(UserError, match="has no ledger yet: let `gristmill curate` finish first"):
        explain.explain(str(folder), "0" * 32)


def grown(run_dir: Path, to: Path, rows: int) -> list[tuple[bytes, str]]:
    """A run directory whose ledger has so many rows, each like one of the small run's, written by the ledger's own
    functions; and some ids with their URLs."""
    like = explain.ledger(str(run_dir)).combine_chunks()
    to.mkdir(parents=True)
    shutil.copy(run_dir / "pipeline.yaml", to / "pipeline.yaml")
    rng = np.random.default_rng(3)
    parts = ledger.partition_count(rows)
    bits = parts.bit_length() - 1
    keys: list[list[np.ndarray]] = [[] for _ in range(parts)]
    ids_of: list[list[np.ndarray]] = [[] for _ in range(parts)]
    known: list[tuple[bytes, str]] = []
    (to / "result" / "ledger").mkdir(parents=True)
    (to / "result" / "urls").mkdir()
    for part in range(parts):
        n = rows * (part + 1) // parts - rows * part // parts
        words = rng.integers(0, 1 << 63, (n, 2), dtype=np.uint64) * np.uint64(2)
        if bits:
            words[:, 0] = (words[:, 0] >> np.uint64(bits)) | np.uint64(part << (64 - bits))
        words = words[np.argsort(words[:, 0], kind="stable")].astype(">u8")
        ids = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), n, [None, pa.py_buffer(words.tobytes())])
        urls = [f"http://example.org/{part}/{i}" for i in range(n)]
        table = like.take(pa.array(rng.integers(0, like.num_rows, n)))
        table = table.set_column(table.schema.get_field_index("doc_id"), like.schema.field("doc_id"), ids)
        table = table.set_column(table.schema.get_field_index("url"), like.schema.field("url"), pa.array(urls))
        with (to / "result" / ledger.file_name("ledger", part, parts)).open("wb") as f:
            ledger.write_sorted(f, table)
        hashed = np.array([url_key(u) for u in urls], dtype=np.uint64)
        of = (hashed >> np.uint64(64 - bits)).astype(np.int64) if bits else np.zeros(n, dtype=np.int64)
        for other in range(parts):
            keys[other].append(hashed[of == other])
            ids_of[other].append(words[of == other])
        known += [(ids[i].as_py(), urls[i]) for i in (0, n // 2, n - 1)]
    for part in range(parts):
        hashed, words = np.concatenate(keys[part]), np.concatenate(ids_of[part])
        order = np.argsort(hashed, kind="stable")
        raw = pa.py_buffer(words[order].astype(">u8").tobytes())
        ids = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(order), [None, raw])
        with (to / "result" / ledger.file_name("urls", part, parts)).open("wb") as f:
            ledger.write_sorted(f, pa.table({"url_key": pa.array(hashed[order]), "doc_id": ids}))
    return known


@pytest.mark.parametrize("rows", [300_000, pytest.param(10_000_000, marks=pytest.mark.nightly)])
def test_a_few_range_reads_however_large_the_ledger_is(
    folder: Path, tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = grown(folder / "run", tmp_path / "large", rows)
    read: list[int] = []  # rows of each row group that was read
    read_row_group = pq.ParquetFile.read_row_group

    def counted(self: Any, i: int, *args: Any, **options: Any) -> pa.Table:
        table = read_row_group(self, i, *args, **options)
        read.append(table.num_rows)
        return table

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    for doc, url in known[:: max(1, len(known) // 40)]:
        for key, groups in ((doc.hex(), 2), (url, 4)):  # the keys of a group, then its rows; for a URL in two tables
            read.clear()
            said = explain.explain(str(tmp_path / "large"), key)
            assert (said["doc_id"], said["url"]) == (doc.hex(), url)
            assert len(read) <= groups and max(read) <= ledger.GROUP, read
    read.clear()
    with pytest.raises(UserError):
        explain.explain(str(tmp_path / "large"), "http://example.org/absent")
    assert len(read) <= 1
    shutil.rmtree(tmp_path / "large")


PERSONAL = ["jane.roe@millbrook.co.uk", "4111 1111 1111 1111", "81.2.69.142", "DE89 3704 0044 0532 0130 00"]


def test_personal_data_is_nowhere_in_the_run_and_never_shown(tmp_path: Path) -> None:
    """In text, URL and other fields: scrubbed wherever a run keeps or shows it, yet found by the URL as crawled."""
    urls = [f"http://example.org/{i}?mail={PERSONAL[0]}" for i in range(4)]
    rows = [
        {
            "text": f"Write to {PERSONAL[0]} or pay with {PERSONAL[1]}, from {PERSONAL[2]} and {PERSONAL[3]}. {i}",
            "url": url,
            "title": f"About {PERSONAL[0]}",
        }
        for i, url in enumerate(urls)
    ]
    runs.write_jsonl(tmp_path / "texts" / "a.jsonl", rows)
    with (tmp_path / "texts" / "a.jsonl").open("a") as f:
        f.write(json.dumps({"text": 7, "url": urls[0], PERSONAL[0]: PERSONAL[0]}) + "\n")
        f.write(f"no json: {PERSONAL[0]}\n")
    steps: list[Any] = [
        # decided before the text is scrubbed, so what decided quotes it
        {"extract": {}, "keep": {"mine": "text NOT LIKE '%. 1' AND url IS NOT NULL"}},
        {"pii": {}},
        {"language": {}},
        "exact_dedup",
    ]
    tree = runs.text_pipeline(tmp_path, steps=steps, tokenizer={"train": {"vocab": 300}}, validation=0.0)
    runs.curate(tmp_path, tree)
    outcomes = set()
    for url in urls:
        said = explain.explain(str(tmp_path / "run"), url)
        outcomes.add(said["outcome"]["kept"])
        shown = json.dumps(said)
        assert not any(p in shown for p in PERSONAL), shown
    assert outcomes == {True, False}
    import pyarrow.parquet as pq

    for path in sorted((tmp_path / "run").rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".parquet":
                content += json.dumps(pq.read_table(path).to_pylist(), default=str).encode()
            assert not any(p.encode() in content for p in PERSONAL), path
