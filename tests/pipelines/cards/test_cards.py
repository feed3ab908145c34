"""Data cards: valid for the Hub and for Croissant, true to the run, and enough to make the run again.

Covers: card_data.py, croissant.py, dataset.py, shipped.py, write_cards.py, pipelines/cli/commands/inspect.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from curation.api import run as curated
from curation.storage import Storage
from pipelines.cards.write_cards import update_cards, write_cards
from tests.curation.engine import tiny
from tests.pipelines.conftest import write_inputs

ROOT = Path(__file__).resolve().parents[3]
CRAWL = """
name: crawl
sources:
  - {{name: docs, domain: web, read: warc, root: "{root}", path: "docs-00.warc.gz", licence: CC-BY-SA-4.0, origin: "https://docs.example"}}
  - {{name: texts, read: text, path: "*.jsonl"}}
steps:
  - extract: {{}}
  - language: {{}}
    keep: {{language: "language.code = 'en' AND language.score >= 0.5"}}
  - pii: {{}}
  - heuristics: {{sets: [gopher]}}
    keep: {{gopher_alpha_words: null}}
  - toxicity: {{}}
  - exact_dedup: {{}}
  - minhash_dedup: {{threshold: 0.72}}
  - decontaminate: {{against: [questions.jsonl]}}
tokenizer: {{train: {{vocab: 400}}}}
validation: 0.05
"""


def check_card(run: Path) -> str:
    """The card's text: its front matter read by the Hub's own class, its sums held against run.json."""
    from huggingface_hub import DatasetCard, metadata_load

    card = DatasetCard.load(run / "card.md")
    made = json.loads((run / "run.json").read_text())
    assert metadata_load(run / "card.md") == card.data.to_dict()
    assert card.data.pretty_name == made["name"]
    assert card.data.size_categories[0] in ("n<1K", "1K<n<10K")
    path = card.data.to_dict()["configs"][0]["data_files"][0]["path"]
    assert list(run.glob(path))
    funnel = card.text.split("## Records kept and dropped")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\w+)(?: \(.*?\))? \| (\w+) \| .*?\| ([\d,]+) \| ([\d,]+) \|$", funnel, re.M)
    dropped = {(s["step"], s["rule"]): s["dropped"] for s in made["counts"]["steps"]}
    told = {(step, rule): int(n.replace(",", "")) for step, rule, n, _ in rows}
    assert {k: n for k, n in told.items() if n} == {k: n for k, n in dropped.items() if n}
    assert f"| **kept** |  |  |  | **{made['counts']['kept']:,}** |" in card.text
    for file in made["files"]:
        if not file["path"].startswith(("result/ledger", "result/urls")):
            assert f"| `{file['path']}` | {file['bytes']:,} | `{file['sha256']}` |" in card.text
    return str(card.text)


def check_croissant(run: Path, kept: int) -> dict[str, object]:
    """The JSON-LD, valid to the last warning, its documents read through it."""
    import mlcroissant

    dataset = mlcroissant.Dataset(jsonld=str(run / "croissant.json"))
    assert not dataset.metadata.issues.errors and not dataset.metadata.issues.warnings
    records = list(dataset.records("documents"))
    assert len(records) == kept and all(r["documents/text"] for r in records)
    made = json.loads((run / "croissant.json").read_text())
    assert {f["@id"] for f in made["distribution"]} > {
        f"result/documents/{p.name}" for p in run.glob("result/documents/*")
    }
    return dict(made)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A small run of its own, as `curate` leaves it."""
    write_inputs(tmp_path)
    file = tmp_path / "small.yaml"
    file.write_text(
        file.read_text().replace("path: nasty.txt}", "path: nasty.txt, licence: MIT, origin: 'https://a.b/c'}")
    )
    curated(str(file), str(tmp_path / "run"), executor="inline")
    update_cards(str(tmp_path / "run"))
    return tmp_path / "run"


def test_a_run_has_its_cards(small: Path) -> None:
    text = check_card(small)
    croissant = check_croissant(small, 32)
    assert croissant["license"] == ["MIT", "unknown, not declared: web"]
    assert croissant["isBasedOn"] == ["https://a.b/c"]
    assert yaml.safe_load((small / "card.md").read_text().split("---")[1])["license"] == ["mit", "unknown"]
    assert "| length (own.py:Length) | short | `length.chars >= 20` | 1 | 41 |" in text  # a step of the user's own
    assert "| length.chars | 41 |" in text or "| length.chars | 42 |" in text
    assert "The licence of web is not declared" in text and "Personal data was not removed" in text
    assert "<script>" not in text and "alert(" not in text
    assert str(small.parent) not in text and str(small.parent) not in json.dumps(croissant)


def test_what_the_card_says_makes_the_run_again(small: Path, tmp_path: Path) -> None:
    written = re.search(r"```yaml\n(.*?)```", (small / "card.md").read_text(), re.S)
    assert written is not None
    (tmp_path / "again.yaml").write_text(written[1])
    curated(str(tmp_path / "again.yaml"), str(tmp_path / "again"), executor="inline")
    assert tiny.tree(tmp_path / "again") == tiny.tree(small)


def test_cards_follow_the_result(small: Path, gristmill, tmp_path: Path) -> None:
    before = (small / "card.md").read_text()
    update_cards(str(small))
    assert (small / "card.md").read_text() == before
    code, _, _ = gristmill(
        *("curate", tmp_path / "small.yaml", "--run", small, "--executor", "inline", "-q"),
        *("--set", "steps.Length.keep.short=length.chars >= 60"),
    )
    assert code == 0 and "length.chars >= 60" in (small / "card.md").read_text()
    code, out, _ = gristmill("card", small, "--out", tmp_path / "elsewhere")
    assert code == 0 and out.split() == [str(tmp_path / "elsewhere" / n) for n in ("card.md", "croissant.json")]
    assert (tmp_path / "elsewhere" / "card.md").read_text() == (small / "card.md").read_text()


def test_several_files_of_documents_are_one_record_set(small: Path) -> None:
    import hashlib

    import mlcroissant
    import pyarrow.parquet as pq

    whole = pq.read_table(small / "result" / "documents" / "00000.parquet")
    store = Storage(str(small))
    made = store.read_json("run.json")
    made["files"] = [f for f in made["files"] if "documents" not in f["path"]]
    for i, part in enumerate((whole.slice(0, 10), whole.slice(10))):
        path = small / "result" / "documents" / f"0000{i}.parquet"
        pq.write_table(part, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        made["files"].append({"path": f"result/documents/{path.name}", "bytes": path.stat().st_size, "sha256": digest})
    store.write_json("run.json", made)
    write_cards(str(small))
    dataset = mlcroissant.Dataset(jsonld=str(small / "croissant.json"))
    assert len(list(dataset.records("documents"))) == 32


def test_a_run_without_a_tokenizer_or_documents_has_a_card_too(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    file = tmp_path / "small.yaml"
    file.write_text(file.read_text().replace("tokenizer: {train: {vocab: 300}}\n", ""))
    curated(str(file), str(tmp_path / "run"), executor="inline")
    write_cards(str(tmp_path / "run"))
    assert "Mix and tokenizer" not in check_card(tmp_path / "run")
    check_croissant(tmp_path / "run", 32)


@pytest.mark.slow
def test_cards_of_a_run_on_the_crawl(data: Path, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(
        json.dumps({"text": "Write to miller@sawmill.org. " + "The mill stands by the water. " * 9})
    )
    (tmp_path / "questions.jsonl").write_text(json.dumps({"question": "How many sacks of rye does the miller grind?"}))
    (tmp_path / "crawl.yaml").write_text(CRAWL.format(root=data / "crawl"))
    run = curated(str(tmp_path / "crawl.yaml"), str(tmp_path / "run"), executor="inline")
    write_cards(run.path)
    text = check_card(tmp_path / "run")
    check_croissant(tmp_path / "run", run.counts["kept"])
    entities = dict(re.findall(r"^\| ([A-Z_]+) \| ([\d,]+) \|$", text, re.M))
    total = run.sql("SELECT sum(pii.email_address) AS n FROM ledger").column("n")[0].as_py()
    assert int(entities["EMAIL_ADDRESS"].replace(",", "")) == total > 0
    assert (
        "| minhash_dedup | " in text.split("## Duplicates")[1]
        and "language:\n- en\n" in (tmp_path / "run/card.md").read_text()
    )
    assert "miller@sawmill.org" not in text


@pytest.mark.parametrize("name", ["fineweb", "gopher", "dclm", "ccnet", "lid.176", "toxicity-en"])
def test_shipped_cards_are_what_the_command_writes(gristmill, name: str, tmp_path: Path, monkeypatch) -> None:
    from huggingface_hub import DatasetCard

    monkeypatch.chdir(ROOT)
    recipe = name not in ("lid.176", "toxicity-en")
    code, _, _ = gristmill("card", f"pipelines/recipes/{name}.yaml" if recipe else name, "--out", tmp_path)
    assert code == 0
    written = (tmp_path / f"{name}.md").read_text()
    assert written == (ROOT / "data_cards" / f"{name}.md").read_text(), "run: gristmill card … --out data_cards"
    assert DatasetCard(written).data.to_dict()["license"]
