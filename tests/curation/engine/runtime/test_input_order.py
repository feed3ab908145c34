"""Promise 2: the result tree is the same bytes however the work is cut, dealt out and ordered, and wherever it runs."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import HANG, ROOT
from tests.curation.engine import runs


def pipeline(data: Path) -> dict[str, Any]:
    """Every step there is, and all that changes how data lies: rewriting, quantiles, deduplications, shards."""
    keep = {
        "fineweb_punct_line_ratio": None,
        "fineweb_dup_char_ratio": None,
        "fineweb_newline_ratio": None,
        "fineweb_short_line_ratio": "heuristics.short_line_ratio <= quantile(heuristics.short_line_ratio, 0.9)",
    }
    by_language = "language.score >= quantile(language.score, 0.1, by language.code)"
    return {
        "name": "order",
        "seed": 5,
        "sources": [
            {"name": "crawl", "domain": "web", "read": "warc", "root": "crawl", "path": "*.warc.gz"},
            {"name": "texts", "domain": "books", "read": "text", "root": "texts", "path": "*.jsonl"},
            {"name": "more", "domain": "books", "read": "text", "root": "more", "path": "**/*.jsonl"},
        ],
        "steps": [
            {"extract": {}},
            {"pii": {}},
            {"language": {}, "keep": {"language": by_language}},
            {"heuristics": {"sets": ["fineweb"]}, "keep": keep},
            {"perplexity": {"model": str(data / "lm" / "kenlm_test.arpa")}, "keep": {"known": "perplexity.value > 1"}},
            "exact_dedup",
            {"minhash_dedup": {"threshold": 0.6}},
            {"toxicity": {}, "keep": {"toxicity": "toxicity.score <= quantile(toxicity.score, 0.9)"}},
            {"datatrove": {"block": "datatrove.pipeline.filters.GopherRepetitionFilter"}},
            {"decontaminate": {"against": ["benchmark.jsonl"], "ngram": 5}},
        ],
        "tokenizer": {"train": {"kind": "bpe", "vocab": 600}},
        "shards": {"tokens_per_shard": 20000},
        "validation": 0.1,
    }


@pytest.fixture(scope="module")
def mill(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder with input, and the result tree of the plain run in this process."""
    folder = tmp_path_factory.mktemp("order")
    archive = data / "crawl" / "docs-00.warc.gz"
    for i, (first, count) in enumerate([(0, 60), (60, 60), (120, 30)]):
        runs.cut_warc(archive, folder / "crawl" / f"{i}.warc.gz", first, count)
    rows = runs.sentences(data, ["en", "de", "fr", "tr", "ja"], 40)
    rows += [{"text": f"Write to jane.roe{i}@millbrook.co.uk about the mill, page {i}."} for i in range(9)]
    runs.write_jsonl(folder / "benchmark.jsonl", [{"question": row["text"]} for row in rows[1:40:3]])
    runs.write_jsonl(folder / "texts" / "a.jsonl", rows)
    runs.write_jsonl(folder / "texts" / "b.jsonl", rows[::3])
    for i in range(12):
        runs.write_jsonl(folder / "more" / str(i % 3) / f"{i}.jsonl", rows[i::12][:6])
    result = runs.curate(folder, pipeline(data))
    assert result.exit_code == 0
    dropped = {(d["step"], d["rule"]): d["dropped"] for d in result.counts["steps"]}
    steps = {"language", "heuristics", "exact_dedup", "minhash_dedup", "toxicity", "datatrove", "decontaminate"}
    assert {s for s, _ in dropped} >= steps
    tree = runs.tree_bytes(folder / "run")
    assert {p.split("/")[0] for p in tree} == {"documents", "ledger", "shards", "urls"}
    assert len([p for p in tree if p.startswith("shards/train/")]) >= 4
    yield folder, tree
    shutil.rmtree(folder, ignore_errors=True)


def cut_otherwise(tree: dict[str, Any], **engine: int) -> dict[str, Any]:
    return tree | {"engine": engine}


def upside_down(monkeypatch: pytest.MonkeyPatch, tree: dict[str, Any]) -> dict[str, Any]:
    """The filesystem lists files the other way round, and the pipeline its sources."""
    listed = glob.iglob

    def reversed_glob(*args: Any, **kwargs: Any) -> Any:
        return reversed(list(listed(*args, **kwargs)))

    monkeypatch.setattr(glob, "iglob", reversed_glob)
    return tree | {"sources": tree["sources"][::-1]}


@pytest.mark.parametrize("rows", [1, 64, 1024])
def test_batch_and_task_sizes_do_not_show(
    data: Path, mill: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    folder, expected = mill
    size = {1: 1 << 14, 64: 1 << 12, 1024: 1 << 26}[rows]
    tree = cut_otherwise(upside_down(monkeypatch, pipeline(data)), batch_rows=rows, task_bytes=size)
    result = runs.curate(folder, tree, f"inline-{rows}")
    assert result.exit_code == 0
    assert runs.tree_bytes(folder / f"inline-{rows}") == expected


@pytest.mark.parametrize("workers", [2, *(pytest.param(n, marks=pytest.mark.nightly) for n in (1, 4))])
def test_workers_do_not_show(
    data: Path, mill: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    folder, expected = mill
    tree = cut_otherwise(upside_down(monkeypatch, pipeline(data)), batch_rows=64, task_bytes=1 << 15)
    result = runs.curate(folder, tree, f"ray-{workers}", executor="ray", workers=workers)
    assert result.exit_code == 0
    assert runs.tree_bytes(folder / f"ray-{workers}") == expected


def without_network() -> list[str]:
    """A prefix that runs a command in a network namespace of its own, without even a loopback; [] if not permitted."""
    for prefix in (["unshare", "-n"], ["unshare", "-r", "-n"]):
        try:
            if subprocess.run([*prefix, "true"], capture_output=True, timeout=HANG, check=False).returncode == 0:
                return prefix
        except (OSError, subprocess.TimeoutExpired):
            continue
    return []


PLACES = [
    {"LC_ALL": "tr_TR.UTF-8", "TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "1"},
    {"LC_ALL": "POSIX", "TZ": "America/St_Johns", "PYTHONHASHSEED": "271828", "PYTHONIOENCODING": "ascii"},
]


@pytest.mark.parametrize("place", PLACES, ids=lambda p: str(p["LC_ALL"]))
def test_place_and_hash_seed_do_not_show(data: Path, mill: tuple[Path, dict[str, str]], place: dict[str, str]) -> None:
    """Another locale, time zone and hash seed, through the command line, with no network there at all."""
    folder, expected = mill
    to = folder / f"place-{place['PYTHONHASHSEED']}"
    runs.load(folder, pipeline(data), name="placed.yaml")
    command = [sys.executable, "-m", "pipelines.cli", "curate", str(folder / "placed.yaml"), "--run", str(to)]
    ended = subprocess.run(
        [*without_network(), *command, "--executor", "inline"],
        env={**os.environ, **place, "PYTHONPATH": str(ROOT)}, cwd=ROOT, capture_output=True, timeout=HANG, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr.decode(errors="replace")
    assert runs.tree_bytes(to) == expected


def test_another_encoding_than_utf8_is_refused(tmp_path: Path) -> None:
    runs.write_jsonl(tmp_path / "texts" / "a.jsonl", [{"text": "The brook turns the mill."}])
    runs.load(tmp_path, runs.text_pipeline(tmp_path))
    place = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipelines.cli", "curate", str(tmp_path / "pipeline.yaml")]
    ended = subprocess.run(
        [*command, "--run", str(tmp_path / "run"), "--executor", "inline"],
        env={**os.environ, **place}, cwd=ROOT, capture_output=True, timeout=HANG, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert b"files are read as ANSI_X3.4-1968 here by default" in ended.stderr
    assert b"Set PYTHONUTF8=1" in ended.stderr
