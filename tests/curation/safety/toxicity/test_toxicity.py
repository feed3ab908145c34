"""Toxicity: the bundled model keeps its card's promises, and the step scores what it says it scores.

Covers: fasttext_model.py, identity_terms.py, word_list.py, train.py
"""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation import models
from curation.core.errors import UserError
from curation.document import clean_text
from curation.safety.toxicity import identity_terms, word_list
from curation.safety.toxicity.fasttext_model import BUNDLED, bundled_model, cut_words, prepare_words
from curation.safety.toxicity.toxicity import Toxicity
from curation.safety.toxicity.train import CLASSES, TOXIC, auc, fit, read_comments, read_tweets, save_fasttext


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
    assert auc(scores, toxic) >= 0.97
    flagged = np.array(scores) >= bundled_model()[1]["threshold"]
    assert flagged[np.array(toxic)].mean() >= 0.9


def test_held_out_comments(data: Path) -> None:
    """Beyond tweets: .53 before comments were trained on. What a majority of three says can be known to .74 at most."""
    held_out = read_comments(data / "toxicity" / "comments.jsonl.gz", held_out=True)
    rest = read_comments(data / "toxicity" / "comments.jsonl.gz", held_out=False)
    assert len(held_out) + len(rest) == 8_011 and not {c.text for c in held_out} & {c.text for c in rest}
    scores = [r["score"] for r in run([clean_text(c.text) for c in held_out])]
    assert auc(scores, [c.toxicity > 0.5 for c in held_out]) >= 0.60
    unanimous = [(s, c.toxicity == 1) for s, c in zip(scores, held_out, strict=True) if c.toxicity in (0, 1)]
    assert auc(*zip(*unanimous, strict=True)) >= 0.70


def test_groups_of_people_are_not_flagged() -> None:
    """Plain sentences that no training saw, also about groups that none saw; and each group in as many attacks."""
    plain = identity_terms.held_out_sentences()
    assert not {sentence for _, sentence in plain} & {*identity_terms.plain_sentences(), *identity_terms.attacks()}
    flagged = [r["score"] >= bundled_model()[1]["threshold"] for r in run([sentence for _, sentence in plain])]
    assert np.mean(flagged) <= 0.03
    for group in identity_terms.GROUPS:
        assert sum(group in s.split() for s in identity_terms.attacks()) >= len(identity_terms.ATTACKS)
        assert sum(group in s.split() for s in identity_terms.plain_sentences()) >= len(identity_terms.PLAIN) - 3


def test_weights_become_a_fasttext_model(tmp_path: Path) -> None:
    """The stored model's probabilities are those of the logistic regression; unknown words count as `<unk>`."""
    texts = [(["kind", "word"], {"civil": 1.0}), (["evil", "word"], {"hate": 0.5, "toxic": 0.5})] * 30
    weights = fit(texts)
    save_fasttext(tmp_path / "m.bin", weights)
    found = run(
        ["evil word", "kind other"], model=str(tmp_path / "m.bin"), labels=list(TOXIC), threshold=0.5, prepare="words"
    )
    for words, row in ((("evil", "word"), found[0]), (("kind", "<unk>"), found[1])):
        logits = np.mean([weights[w] for w in (*words, "</s>")], axis=0)
        expected = np.exp(logits) / np.exp(logits).sum()
        assert [row[label] for label in TOXIC] == pytest.approx([expected[CLASSES.index(c)] for c in TOXIC], abs=1e-4)
    assert found[0]["score"] > 0.5 > found[1]["score"] and found[0]["hate"] == pytest.approx(
        found[0]["toxic"], abs=1e-3
    )


def test_documentation_is_not_flagged(data: Path) -> None:
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    from resiliparse.extract.html2text import extract_plain_text

    with open(data / "crawl" / "docs-01.warc.gz", "rb") as f:
        records = ArchiveIterator(f, record_types=WarcRecordType.response)
        pages = [r.reader.read().decode("utf-8", "replace") for r in records if "html" in (r.http_content_type or "")]
    scores = [r["score"] for r in run([clean_text(extract_plain_text(p, main_content=True)) for p in pages[::2]])]
    assert np.mean(np.array(scores) >= bundled_model()[1]["threshold"]) <= 0.002


def test_sentences_and_rows() -> None:
    kind = "The garden was planted in the spring by both of the sisters."
    rude = "shut up you stupid bitch nobody likes you"
    texts = [kind, rude, f"{kind}\n{rude}\n{kind} {kind}", None, "", "I see.", "\n\n", "日本語のテキスト"]
    found = run(texts)
    assert found[0]["score"] < bundled_model()[1]["threshold"] <= found[1]["score"]
    assert found[2]["worst"] == found[1]["worst"] == found[1]["score"] and found[2]["toxic_sentences"] == 0.25
    nothing = {"score": 0.0, "worst": 0.0, "toxic_sentences": 0.0, "hate": 0.0, "offensive": 0.0, "toxic": 0.0}
    assert found[3] == found[4] == found[6] == nothing
    assert sum(found[1][label] for label in TOXIC) == pytest.approx(found[1]["score"], abs=1e-4)
    assert found[5]["worst"] == 0.0
    assert [run([t])[0] for t in texts] == found
    assert all(0 <= f["score"] <= 1 for f in found)


KIND = "The garden was planted in the spring by both of the sisters."
RUDE = "shut up you stupid bitch nobody likes you"


def text_after(text: str | None, **options: object) -> tuple[str | None, dict[str, object]]:
    step = Toxicity(sentences="drop", **options)  # type: ignore[arg-type]
    step.check()
    out = step(pa.record_batch({"text": pa.array([text], pa.large_string())}))
    return out.column("text")[0].as_py(), out.column("toxicity")[0].as_py()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"{KIND} {RUDE}! {KIND}", f"{KIND} {KIND}"),
        (f"{KIND}\n{RUDE}\n{KIND}", f"{KIND}\n{KIND}"),
        (f"{KIND} {RUDE}.\n\n{KIND}", f"{KIND}\n\n{KIND}"),
        (f"{RUDE}. {KIND}", KIND),
        (f"{KIND} {RUDE}.", f"{KIND} "),
        (f"{RUDE}\n{RUDE}", ""),
        (KIND, KIND),
        (None, None),
    ],
)
def test_toxic_sentences_are_dropped(text: str | None, left: str | None) -> None:
    new, signals = text_after(text)
    assert new == left and signals["cut_sentences"] == (text or "").count("shut up")


def test_rules() -> None:
    assert Toxicity(sentences="drop").rules() == {"toxicity": "trim(text) <> ''"}
    assert Toxicity(sentences="drop").rewrites and not Toxicity().rewrites
    threshold = bundled_model()[1]["threshold"]
    assert Toxicity(by_language={"en": BUNDLED}).rules() == {
        "toxicity": f"toxicity.score IS NULL OR toxicity.score < {threshold}"
    }


def small_model(folder: Path, name: str, bad: str, good: str) -> str:
    import fasttext

    lines = folder / f"{name}.txt"
    lines.write_text("".join(f"__label__bad-{name} {bad} {i}\n__label__good {good} {i}\n" for i in range(200)))
    path = folder / f"{name}.bin"
    fasttext.train_supervised(str(lines), epoch=20, dim=10, bucket=0, thread=10, verbose=0).save_model(str(path))
    return str(path)


def test_each_language_has_its_model(tmp_path: Path) -> None:
    models = {"de": small_model(tmp_path, "de", "böse", "lieb"), "fr": small_model(tmp_path, "fr", "mal", "bien")}
    step = Toxicity(by_language=models, labels=["bad-de", "bad-fr"], threshold=0.5)
    step.check()
    assert step.reads == ("text", "language") and set(step.models()) == set(models.values())
    codes = pa.array(["de", "de", "fr", "en", None])
    language = pa.StructArray.from_arrays([codes], names=["code"])
    texts = pa.array(["böse", "lieb", "mal", "böse", "mal"], pa.large_string())
    batch = pa.record_batch({"text": texts, "language": language})
    found = step(batch).column("toxicity").to_pylist()
    assert [None if f["score"] is None else f["score"] > 0.5 for f in found] == [True, False, True, None, None]
    assert found[0]["bad_de"] == found[0]["score"] and found[0]["bad_fr"] is None
    assert step(batch.slice(2, 1)).column("toxicity").to_pylist() == found[2:3]
    with pytest.raises(UserError, match="has no label worse"):
        Toxicity(by_language=models, labels=["bad-de", "bad-fr", "worse"], threshold=0.5).open()
    with pytest.raises(UserError, match="both given"):
        Toxicity(model="x", by_language=models).check()
    with pytest.raises(UserError, match="must give different signal names"):
        Toxicity(labels=["score"], model=models["de"], threshold=0.5).check()


def test_word_lists(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("# ours\nRotter\nutter cad\n馬鹿\n\n", encoding="utf-8")
    texts: list[str | None] = [
        "A rotter, an Utter  Cad!",
        "rotters and cads",
        "この馬鹿は",
        "",
        None,
        "fine words only here",
    ]
    found = run(texts, words=[str(tmp_path / "own.txt")])
    assert [f["listed"] for f in found] == pytest.approx([0.4, 0.0, 1 / 1.75, 0.0, 0.0, 0.0])
    assert "listed" not in run(["x"])[0]
    carried = run(["what the clusterfuck"], words=["datatrove:soft_banned_words"])
    assert carried[0]["listed"] == pytest.approx(1 / 3)
    (tmp_path / "empty.txt").write_text("# nothing\n")
    cases = {"is empty": str(tmp_path / "empty.txt"), "cannot be read": str(tmp_path / "none.txt")}
    for message, name in (cases | {"it has banned_words, soft_banned_words": "datatrove:other"}).items():
        with pytest.raises(UserError, match=message):
            Toxicity(words=[name]).check()


def test_word_lists_in_every_script(tmp_path: Path) -> None:
    """Marks tell words apart, hidden characters and full width do not hide one, and a share is of words."""
    (tmp_path / "own.txt").write_text("rotter\nदीन\nبليد\nטיפש\nболван\n바보\nคนโง่\n馬鹿\n", encoding="utf-8")
    texts = {
        "a rot\u00adter, ＲＯＴＴＥＲ, rotter's": 3 / 5,
        "दिन दान दीन": 1 / 3,
        "بليـد هنا": 1 / 2,
        "טיפש \u200fכאן": 1 / 2,
        "Болван и болваны": 1 / 3,
        "바\u200b보 같은 바보들": 1 / 3,
        "เขาเป็นคนโง่": 1 / 2.5,
        "他是馬鹿馬鹿": 2 / 3,
    }
    lists = word_list.load_word_lists([str(tmp_path / "own.txt")])
    for text, share in texts.items():
        assert lists.share(text) == pytest.approx(share), text


def test_preparation() -> None:
    text = "You're a NICE-one,\n#42 ünd\t"
    assert cut_words(text) == ["you're", "a", "nice", "one", "42", "ünd"]
    assert prepare_words(text, {"a", "ünd"}) == "<unk> a <unk> <unk> <unk> ünd"
    assert prepare_words("...", set()) == ""


def test_any_fasttext_model(tmp_path: Path) -> None:
    import fasttext

    lines = tmp_path / "train.txt"
    lines.write_text("".join(f"__label__bad evil word {i}\n__label__good kind word {i}\n" for i in range(200)))
    model = tmp_path / "own.bin"
    fasttext.train_supervised(str(lines), epoch=20, dim=10, bucket=0, thread=10, verbose=0).save_model(str(model))
    options = {"model": str(model), "threshold": 0.5}
    bad, good = run(["evil\nword", "kind word"], labels=["bad"], **options)
    assert bad["score"] > 0.9 > 0.1 > good["score"]
    with pytest.raises(UserError, match="no label worse; it has bad, good"):
        run(["x"], labels=["worse"], **options)
    with pytest.raises(UserError, match="`labels` has a default only for"):
        Toxicity(model=str(model)).check()
    with pytest.raises(UserError, match=r"`threshold` is .*expected a probability"):
        Toxicity(threshold=1.5).check()
    with pytest.raises(UserError, match="fastText model"):
        Toxicity(model=str(lines), labels=["x"], threshold=0.5).open()


def test_a_step_is_picklable_when_open() -> None:
    step = Toxicity()
    step.open()
    assert pickle.loads(pickle.dumps(step)) == step


@pytest.mark.slow
def test_training_is_reproducible(data: Path, tmp_path: Path) -> None:
    files = [str(data / "toxicity" / name) for name in ("labeled_data.csv", "comments.jsonl.gz")]
    command = [sys.executable, "-m", "curation.safety.toxicity.train", *files, "--out", str(tmp_path)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[4])
    made, stored = (models.load_fasttext(str(path)) for path in (tmp_path / f"{BUNDLED}.bin", bundled_model()[0]))
    assert made.get_words() == stored.get_words() and made.get_labels() == stored.get_labels()
    # Equal bytes on one machine; on another, numpy and BLAS add in another order. With the texts in reverse, weights of
    # up to 54 differ by up to 0.011: the minimizer stops at a relative change of the loss of 2e-9.
    for ours, theirs in zip((made.get_input_matrix(), made.get_output_matrix()),
                            (stored.get_input_matrix(), stored.get_output_matrix()), strict=True):  # fmt: skip
        assert np.abs(ours - theirs).max() < 0.05
