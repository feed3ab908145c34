"""The recipes load, and curate a small piece of the crawl with the models that there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from curation.config.load_pipeline import load_pipeline
from curation.engine.runtime.run import curate
from tests.curation.engine import runs

ROOT = Path(__file__).resolve().parents[3]
RECIPES = ("fineweb", "fineweb2", "gopher", "dclm", "ccnet")


def load(name: str, *sets: str) -> Any:
    return load_pipeline(str(ROOT / "pipelines" / "recipes" / f"{name}.yaml"), sets=sets)


@pytest.mark.parametrize("name", [*RECIPES, "the_stack"])
def test_loads_and_says_where_it_is_from(name: str) -> None:
    pipeline = load(name)
    assert pipeline.name == name and pipeline.steps
    text = (ROOT / "pipelines" / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    assert "arXiv" in text and "What differs" in text


@pytest.fixture(scope="module")
def crawl(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crawl")
    runs.cut_warc(data / "crawl" / "docs-00.warc.gz", folder / "a.warc.gz", 0, 400)
    return folder


@pytest.fixture(scope="module")
def models(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small language model and a small classifier with DCLM's labels."""
    from curation.quality.classifier import train
    from curation.quality.ngram import estimate

    folder = tmp_path_factory.mktemp("models")
    with open(data / "lm" / "lmplz_train.txt", "rb") as text:
        estimate.estimate(text, 3, str(folder / "lm.arpa"))
    good = (data / "lm" / "wikitext2_test.txt").read_text(encoding="utf-8").split("\n")
    bad = [s for row in runs.sentences(data, ["de", "fr", "tr"], 40) for s in [row["text"]]]
    runs.write_jsonl(folder / "hq.jsonl", [{"text": s} for s in good if len(s) > 200][:300])
    runs.write_jsonl(folder / "cc.jsonl", [{"text": s} for s in bad])
    sources = {"hq": [str(folder / "hq.jsonl")], "cc": [str(folder / "cc.jsonl")]}
    train.train_classifier(
        sources, str(folder / "classifier.bin"), dimensions=10, buckets=10_000, epochs=2, min_count=2
    )
    return folder


@pytest.mark.parametrize("name", RECIPES)
def test_curates_a_piece_of_the_crawl(
    name: str, crawl: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRAWL", str(crawl))
    if name in ("ccnet", "dclm"):
        models = request.getfixturevalue("models")
        monkeypatch.setenv("LM", str(models / "lm.arpa"))
        monkeypatch.setenv("CLASSIFIER", str(models / "classifier.bin"))
    pipeline = load(name)
    result = curate(pipeline, str(tmp_path / "run"), executor="inline")
    counts = result.counts
    assert result.status == "done" and 0 < counts["kept"] < counts["read"]["records"]
    assert counts["read"]["records"] == counts["kept"] + sum(s["dropped"] for s in counts["steps"])
    steps = {s["step"] for s in counts["steps"]}
    assert steps <= {"read", *(e.name for e in pipeline.steps)}
    heuristics = dict.fromkeys(("gopher", "fineweb", "fineweb2"), "heuristics")
    assert (heuristics | {"dclm": "classifier", "ccnet": "perplexity"})[name] in steps


def test_the_stack_curates_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.curation.sources.code.test_code import FILES, MIT, zipped

    twice = "".join(f"def wheel_{i}(grain, stone):\n    return grain * {i} + stone\n\n\n" for i in range(30)).encode()
    files = FILES | {
        "mill/one.py": twice,
        "mill/two.py": twice.replace(b"wheel_7", b"wheel_x"),
        "mill/LICENSE": MIT.encode(),
    }
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "mill.zip").write_bytes(zipped(files))
    monkeypatch.setenv("CODE", str(tmp_path / "in"))
    counts = curate(load("the_stack"), str(tmp_path / "run"), executor="inline").counts
    assert counts["read"]["records"] == len(files)
    dropped: dict[str, int] = {}
    for rule in counts["steps"]:
        dropped[rule["step"]] = dropped.get(rule["step"], 0) + rule["dropped"]
    assert dropped.pop("read") == 7 and dropped == {"heuristics": 4, "minhash_dedup": 1}
    assert counts["kept"] == len(files) - 12
