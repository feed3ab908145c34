"""Language ID with the real lid.176, against bare fastText and on labelled sentences."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import models
from curation.core.errors import UserError
from curation.quality.classifier import train
from curation.quality.language import Language

ODD = [
    "",
    " \n\t",
    "\n",
    "a",
    "0",
    "🙂",
    "e\u0301",
    "日本語です。",
    "\u200b",
    "__label__en",
    "x" * 1_000_000,
    "a\0b",
    None,
]


@pytest.fixture(scope="module")
def step() -> Language:
    models.pull("lid.176")
    step = Language()
    step.open()
    return step


def run(step: Language, texts: list[str | None]) -> list[dict[str, object]]:
    if step._model is None:
        step.open()
    batch = pa.record_batch({"text": pa.array(texts, pa.large_string())})
    out = step(batch)
    assert out.schema.names == ["text", "language"] and out.column("text") == batch.column("text")
    assert out.column("language").type == pa.struct(list(step.signals))
    assert out.column("language").null_count == 0  # a null struct would mean: never computed
    rows: list[dict[str, object]] = out.column("language").to_pylist()
    return rows


def test_known_languages(step: Language) -> None:
    texts = [
        "The mill turns slowly but surely.",
        "Le moulin tourne\nlentement mais sûrement.",
        "製粉所はゆっくり回る。",
    ]
    rows = run(step, list(texts))
    assert [r["code"] for r in rows] == ["en", "fr", "ja"]
    assert all(isinstance(r["score"], float) and 0.4 < r["score"] <= 1 for r in rows)


def test_a_newline_is_a_space(step: Language) -> None:
    assert run(step, ["moulin\ntourne\n\nlent"]) == run(step, ["moulin tourne  lent"])
    assert run(step, ["och\natt"]) != run(step, ["ochatt"])


def test_no_word_no_language(step: Language) -> None:
    rows = run(step, ["", " \n\t", None, "\u3000"])
    assert rows == [{"code": None, "score": None}] * 4


def test_equals_bare_fasttext_and_sentences_are_told_apart(step: Language, data: Path) -> None:
    lines = [line.split("\t") for line in (data / "lid/sentences.tsv").read_text(encoding="utf-8").split("\n") if line]
    texts = [text for _, text in lines]
    rows = run(Language(lowercase="never"), list(texts))
    labels, scores = models.load_fasttext("lid.176").predict([t.replace("\n", " ") for t in texts], k=1)
    assert [r["code"] for r in rows] == [label[0].removeprefix("__label__") for label in labels]
    assert [r["score"] for r in rows] == [min(float(s[0]), 1.0) for s in scores]
    right = Counter(code for (code, _), row in zip(lines, rows, strict=True) if row["code"] == code)
    assert len(texts) == 75 * 150
    # the ceiling is 0.88: nine of the 75 languages are none of lid.176's (Norwegian is `no` there, not nb)
    assert sum(right.values()) / len(texts) > 0.78
    assert right["en"] >= 145 and right["de"] >= 145 and right["ja"] >= 145


def test_a_row_does_not_depend_on_its_batch(step: Language) -> None:
    together = run(step, list(ODD))
    assert together == [run(step, [text])[0] for text in ODD]
    assert run(step, []) == []


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5))
def test_any_text(step: Language, texts: list[str]) -> None:
    for text, row in zip(texts, run(step, list(texts)), strict=True):
        if not text or text.isspace():
            assert row == {"code": None, "score": None}
        else:
            assert (row["code"] is None) == (row["score"] is None)
            assert row["score"] is None or 0 < float(str(row["score"])) <= 1


def test_nothing_on_stderr_and_pickles(capfd: pytest.CaptureFixture[str]) -> None:
    step = pickle.loads(pickle.dumps(Language(name="lid")))
    step.open()
    assert capfd.readouterr() == ("", "")
    assert step(pa.record_batch({"text": pa.array(["hello there"], pa.large_string())})).schema.names == ["text", "lid"]


def test_an_absent_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRISTMILL_MODELS", str(tmp_path))
    assert Language().models() == ("lid.176",)
    with pytest.raises(UserError, match=r"gristmill models pull lid\.176"):
        Language().open()


ENGLISH = "The mill stands by the river and turns slowly all the year."
FRENCH = "Le moulin se trouve au bord de la rivière et tourne lentement toute l'année."


def test_text_in_capitals_is_judged_in_lower_case(step: Language, data: Path) -> None:
    lines = [line.split("\t") for line in (data / "lid/sentences.tsv").read_text(encoding="utf-8").split("\n") if line]
    cased = [(code, text) for code, text in lines if text.upper() != text]
    capitals = [text.upper() for _, text in cased]
    right = [row["code"] == code for row, (code, _) in zip(run(step, list(capitals)), cased, strict=True)]
    as_is = [
        row["code"] == code
        for row, (code, _) in zip(run(Language(lowercase="never"), list(capitals)), cased, strict=True)
    ]
    assert sum(right) / len(cased) > 0.7 and sum(as_is) / len(cased) < 0.3
    assert run(step, ["DIE MÜHLE steht am Fluss"]) == run(Language(lowercase="never"), ["DIE MÜHLE steht am Fluss"])


def test_paragraphs_of_scripts_without_spaces_count(step: Language) -> None:
    chinese = "水车在河边缓慢地转动，一年四季从不停歇，村民都来磨面。"
    assert len(chinese) < 40
    (row,) = run(Language(paragraphs=True), [f"{chinese}\n{chinese}"])
    assert (row["code"], row["paragraphs"], row["same"]) == ("zh", 2, 1.0)


def test_second_label() -> None:
    step = Language(second=True)
    step.open()
    mixed, plain, none = run(step, [f"{ENGLISH} {FRENCH}", ENGLISH, " "])
    assert {mixed["code"], mixed["second_code"]} == {"en", "fr"}
    assert 0 < float(str(mixed["second_score"])) <= float(str(mixed["score"]))
    assert plain["code"] == "en" and float(str(plain["second_score"])) < 0.1
    assert none == dict.fromkeys(("code", "score", "second_code", "second_score"))


def test_paragraphs_say_how_much_is_in_the_language() -> None:
    step = Language(paragraphs=True)
    step.open()
    pages = [
        f"{ENGLISH}\n{ENGLISH}\n{ENGLISH}\nMenu\n{FRENCH}",
        f"{ENGLISH}\n\nHome",
        "Menu\nHome",
        "",
        f"{ENGLISH}\n{'7 ' * 30}",
    ]
    mixed, plain, short, empty, digits = run(step, list(pages))
    english, french = 3 * len(ENGLISH), len(FRENCH)
    assert (mixed["code"], mixed["paragraphs"], mixed["other_code"]) == ("en", 4, "fr")
    assert mixed["same"] == english / (english + french) and mixed["other_share"] == french / (english + french)
    assert (plain["paragraphs"], plain["same"], plain["other_code"], plain["other_share"]) == (1, 1.0, None, None)
    for row in (short, empty):
        assert (row["paragraphs"], row["same"], row["other_code"], row["other_share"]) == (0, None, None, None)
    assert digits["paragraphs"] == 2
    assert [run(step, [page])[0] for page in pages] == [mixed, plain, short, empty, digits]
    assert run(step, []) == []


def test_any_fasttext_model_with_glotlids_labels(tmp_path: Path, data: Path) -> None:
    """A small model of our own whose labels look like GlotLID's."""
    labels = {"en": "eng_Latn", "ru": "rus_Cyrl", "el": "ell_Grek", "sw": "swh_Latn"}
    lines = [
        line.split("\t", 1) for line in (data / "lid/sentences.tsv").read_text(encoding="utf-8").split("\n") if line
    ]
    pairs = [(labels[code], text) for code, text in lines if code in labels]
    path = str(tmp_path / "glot.bin")
    made = train.fit(pairs, path, options={"dim": 8, "minn": 2, "maxn": 4, "bucket": 20_000, "epoch": 20})
    assert made.accuracy > 0.95
    step = Language(model=path, second=True)
    step.open()
    rows = run(step, ["The mill turns slowly but surely.", "Мельница вертится медленно."])
    assert [r["code"] for r in rows] == ["eng_Latn", "rus_Cyrl"]
    assert all(r["second_code"] in labels.values() for r in rows)


def test_agrees_with_datatrove(step: Language, data: Path) -> None:
    """FineWeb's rule on pages of the crawl, against datatrove's own filter with the same model."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import LanguageFilter

    from benchmarks.crawl_texts import batches
    from benchmarks.language import Listed

    requirements = LanguageFilter._requires_dependencies
    LanguageFilter._requires_dependencies = []  # it insists on another distribution of fastText
    try:
        theirs = LanguageFilter(languages=["en"], language_threshold=0.65)
    finally:
        LanguageFilter._requires_dependencies = requirements
    theirs.model._model = Listed(models.load_fasttext("lid.176"))
    documents = kept = 0
    for batch in batches(files=1):
        rows = step(batch).column("language").to_pylist()
        for text, row in zip(batch.column("text").to_pylist(), rows, strict=True):
            ours = row["code"] == "en" and row["score"] >= 0.65
            assert ours == bool(theirs.filter(Document(text=text, id="")))
            documents, kept = documents + 1, kept + ours
    assert documents > 900 and 0.2 < kept / documents < 0.8
