"""Toxicity: the bundled model keeps its card's promises, and the step scores what it says it scores."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation.record import clean_text
from curation.safety.toxicity import BUNDLED, Toxicity, bundled_model, cut_words, prepare_words
from curation.safety.train_toxicity import TOXIC, auc, read_tweets, train
from curation.step import UserError


def run(texts: list[str | None], **options: object) -> list[dict[str, float]]:
    step = Toxicity(**options)  # type: ignore[arg-type]
    step.check()
    step.open()
    out = step(pa.record_batch({"text": pa.array(texts, pa.large_string())}))
    assert out.schema.field(step.name).type == pa.struct(list(step.signals))
    return out.column(step.name).to_pylist()  # type: ignore[no-any-return]


def test_the_bundled_file_is_the_one_described() -> None:
    path, facts = bundled_model()
    stored = Path(path).read_bytes()
    assert hashlib.sha256(stored).hexdigest() == facts["sha256"] and len(stored) == facts["bytes"] <= 2_000_000
    assert Toxicity().models() == (path,)
    assert Toxicity(name="t").rules() == {"toxicity": f"t.score < {facts['threshold']}"}


def test_held_out_tweets(data: Path) -> None:
    held_out = read_tweets(data / "toxicity" / "labeled_data.csv", "held_out")
    scores = [r["score"] for r in run([clean_text(t) for _, t in held_out])]
    toxic = [label in TOXIC for label, _ in held_out]
    assert 4_700 < len(held_out) < 5_200
    assert auc(scores, toxic) >= 0.95
    flagged = np.array(scores) >= bundled_model()[1]["threshold"]
    assert flagged[np.array(toxic)].mean() >= 0.9


def test_documentation_is_not_flagged(data: Path) -> None:
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    from resiliparse.extract.html2text import extract_plain_text

    with open(data / "crawl" / "docs-01.warc.gz", "rb") as f:
        records = ArchiveIterator(f, record_types=WarcRecordType.response)
        pages = [r.reader.read().decode("utf-8", "replace") for r in records if "html" in (r.http_content_type or "")]
    scores = [r["score"] for r in run([clean_text(extract_plain_text(p, main_content=True)) for p in pages[::2]])]
    assert np.mean(np.array(scores) >= bundled_model()[1]["threshold"]) <= 0.005


def test_sentences_and_rows() -> None:
    kind = "The garden was planted in the spring by both of the sisters."
    rude = "shut up you stupid bitch nobody likes you"
    texts = [kind, rude, f"{kind}\n{rude}\n{kind} {kind}", None, "", "I see.", "\n\n", "日本語のテキスト"]
    found = run(texts)
    assert found[0]["score"] < bundled_model()[1]["threshold"] <= found[1]["score"]
    assert found[2]["worst"] == found[1]["worst"] == found[1]["score"] and found[2]["toxic_sentences"] == 0.25
    assert found[3] == found[4] == found[6] == {"score": 0.0, "worst": 0.0, "toxic_sentences": 0.0}
    assert found[5]["worst"] == 0.0
    assert [run([t])[0] for t in texts] == found
    assert all(0 <= f["score"] <= 1 for f in found)


def test_preparation() -> None:
    text = "You're a NICE-one,\n#42 ünd\t"
    assert cut_words(text) == ["you're", "a", "nice", "one", "42", "ünd"]
    assert prepare_words(text, {"a", "ünd"}) == "<unk> a <unk> <unk> <unk> ünd"
    assert prepare_words("...", set()) == ""


def test_any_fasttext_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fasttext

    lines = tmp_path / "train.txt"
    lines.write_text("".join(f"__label__bad evil word {i}\n__label__good kind word {i}\n" for i in range(200)))
    model = tmp_path / "own.bin"
    fasttext.train_supervised(str(lines), epoch=20, dim=10, bucket=0, thread=10, verbose=0).save_model(str(model))
    import sys
    import types

    models = types.ModuleType("curation.models")
    models.resolve = lambda name: name  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "curation.models", models)
    options = {"model": str(model), "threshold": 0.5}
    bad, good = run(["evil\nword", "kind word"], labels=["bad"], **options)
    assert bad["score"] > 0.9 > 0.1 > good["score"]
    with pytest.raises(UserError, match="no label worse; it has bad, good"):
        run(["x"], labels=["worse"], **options)
    with pytest.raises(UserError, match="`labels` has a default only for"):
        Toxicity(model=str(model)).check()
    with pytest.raises(UserError, match="`threshold` is a probability"):
        Toxicity(threshold=1.5).check()
    with pytest.raises(UserError, match="no fastText model"):
        Toxicity(model=str(lines), labels=["x"], threshold=0.5).open()


def test_a_step_is_picklable_when_open() -> None:
    step = Toxicity()
    step.open()
    assert pickle.loads(pickle.dumps(step)) == step


@pytest.mark.slow
def test_training_is_reproducible(data: Path, tmp_path: Path) -> None:
    """In a process of its own: see train_toxicity.main for why."""
    import subprocess
    import sys

    command = [sys.executable, "-m", "curation.safety.train_toxicity", str(data / "toxicity" / "labeled_data.csv")]
    subprocess.run([*command, "--out", str(tmp_path)], check=True, cwd=Path(__file__).parents[3])
    assert (tmp_path / f"{BUNDLED}.ftz").read_bytes() == Path(bundled_model()[0]).read_bytes()
    assert train is not None
