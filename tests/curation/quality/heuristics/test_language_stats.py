"""Thresholds and stop words by language: the shipped file, files of one's own, and learning one.

Covers: stop_words.py, train_language_stats.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from curation.core.errors import UserError
from curation.quality.heuristics.heuristics import Heuristics
from curation.quality.heuristics.language_stats import LANGUAGE_SCORE, THRESHOLDS, load_language_stats
from curation.quality.heuristics.train_language_stats import train_language_stats

# two stop words of its language each, in nine scripts, and the label that lid.176 gives the language
TWO_STOP_WORDS = {
    "de": "Mühlrad und Wasser im Dorf",
    "ru": "Колесо и вода в деревне",
    "el": "Ο τροχός και το νερό",
    "ar": "العجلة من الماء في القرية",
    "he": "הגלגל של הכפר על המים",
    "hi": "गाँव में पानी का पहिया",
    "zh": "村里的水車在河邊",
    "ja": "村の水車は古い",
    "ko": "마을의 물레방아는 오래됐다",
    "th": "กังหันน้ำของหมู่บ้านที่เก่า",
}


def run(step: Heuristics, rows: list[tuple[str | None, str]]) -> tuple[list[dict[str, Any]], list[dict[str, bool]]]:
    """Signals and verdicts of (language, text)."""
    codes, texts = [code for code, _ in rows], pa.array([text for _, text in rows], pa.large_string())
    language = pa.StructArray.from_arrays([pa.array(codes, pa.string())], ["code"])
    out = step(pa.record_batch({"text": texts, "language": language}))
    connection = duckdb.connect()
    connection.register("measured", pa.table({"n": range(len(rows)), step.name: out.column(step.name)}))
    columns = ", ".join(f"({sql}) AS {name}" for name, sql in step.rules().items())
    verdicts = connection.sql(f"SELECT {columns} FROM measured ORDER BY n").to_arrow_table().to_pylist()
    return out.column(step.name).to_pylist(), verdicts


def test_stop_words_of_the_documents_language_count_in_every_script() -> None:
    step = Heuristics(sets=["gopher"], thresholds="by_language")
    found, _ = run(step, list(TWO_STOP_WORDS.items()))
    short = {code: s["stop_words"] for code, s in zip(TWO_STOP_WORDS, found, strict=True) if s["stop_words"] < 2}
    assert not short
    english, _ = run(step, [("en", text) for text in TWO_STOP_WORDS.values()])
    assert [s["stop_words"] for s in english] == [0] * len(english)


def test_a_stop_word_is_a_word_of_the_text_and_in_hangul_its_end() -> None:
    step = Heuristics(sets=["gopher"], thresholds="by_language")
    cases = [("de", "Bundesland Derby"), ("de", "der der der"), ("ko", "의사"), ("ko", "회의"), ("de", "der/die")]
    found, _ = run(step, cases)
    assert [s["stop_words"] for s in found] == [0, 1, 0, 1, 2]


def test_thresholds_are_those_of_the_language_and_rules_without_one_do_not_judge() -> None:
    step = Heuristics(sets=["gopher", "fineweb"], thresholds="by_language")
    text = "\n".join(f"Das ist die Zeile {i} mit den Worten der Mühle" for i in range(40))
    rows = [("de", text), ("deu_Latn", text), ("xx", text), (None, text), ("en", text)]
    (german, glotlid, unknown, null, english), verdicts = run(step, rows)
    assert german == glotlid and german["language"] == "deu_Latn"
    assert german["max_top_2gram"] == 0.169 and german["max_short_line_ratio"] is None
    assert german["min_language_score"] == 0.821
    assert unknown == null and unknown["language"] is unknown["stop_words"] is unknown["max_top_2gram"] is None
    assert english["max_top_2gram"] == 0.2
    assert not verdicts[4]["fineweb_punct_line_ratio"] and verdicts[0]["fineweb_punct_line_ratio"]
    assert all(verdicts[2].values())  # what it cannot judge it does not drop
    published = [f for f in Heuristics(sets=["gopher", "fineweb"]).signals.names if f != "stop_words"]
    (before,), _ = run(Heuristics(sets=["gopher", "fineweb"]), [("de", text)])
    assert {name: german[name] for name in published} == {name: before[name] for name in published}


def test_english_by_language_decides_as_the_published_thresholds(data: Path) -> None:
    lines = (data / "lm" / "wikitext2_test.txt").read_text(encoding="utf-8").split("\n")
    rows: list[tuple[str | None, str]] = [("en", "\n".join(lines[i : i + 7])) for i in range(0, 1400, 7)]
    rows += [("en", text) for text in TWO_STOP_WORDS.values()]
    _, ours = run(Heuristics(sets=["gopher", "fineweb"], thresholds="by_language"), rows)
    _, published = run(Heuristics(sets=["gopher", "fineweb"]), rows)
    assert ours == published and len({tuple(v.values()) for v in ours}) > 3


def test_the_shipped_file_has_what_fineweb2_publishes() -> None:
    stats = load_language_stats()
    assert len(stats.thresholds) == 1930 and len(stats.codes) > 230
    assert set(stats.codes.values()) <= set(stats.thresholds)
    names = {LANGUAGE_SCORE, *(name for s in THRESHOLDS.values() for name in s)}
    assert all(set(entry) <= names for entry in stats.thresholds.values())
    assert all(len(words) >= 8 for words in stats.stop_words.values())
    assert set(stats.thresholds["eng_Latn"]) == names  # English alone has all of them


def write_reference(path: Path) -> None:
    """Documents of a made-up language of long words, in which every fifth word is one of two."""
    with open(path, "w", encoding="utf-8") as file:
        for d in range(120):
            words = [
                f"sanamuodostelmallinen{(d * 97 + i * 31) % 5003}x" if i % 5 else ("ja", "tai")[i % 2]
                for i in range(80)
            ]
            file.write(json.dumps({"text": " ".join(words) + "."}) + "\n")


def test_learned_statistics_are_taken_by_the_option(tmp_path: Path) -> None:
    write_reference(tmp_path / "good.jsonl")
    out = tmp_path / "stats.json"
    made = train_language_stats([str(tmp_path / "good.jsonl")], "qaa", str(out))
    assert made.documents == 120 and made.stop_words[:2] == ["ja", "tai"]
    assert 15 < made.thresholds["max_mean_word_length"] < 25
    assert all(
        value <= made.published[name] if name.startswith("min") else value >= made.published[name]
        for name, value in made.thresholds.items()
    )
    text = json.loads((tmp_path / "good.jsonl").read_text().splitlines()[0])["text"]
    own = Heuristics(sets=["gopher", "fineweb"], thresholds=str(out))
    own.check()
    assert str(out) in own.inputs()
    (found, german), verdicts = run(own, [("qaa", text), ("de", text)])
    assert found["language"] == "qaa" and found["stop_words"] == 2 and german["language"] == "deu_Latn"
    assert all(verdicts[0].values()) and not verdicts[1]["gopher_stop_words"]
    train_language_stats([str(tmp_path / "good.jsonl")], "qab", str(out), tail=0.0)
    stored = json.loads(out.read_text(encoding="utf-8"))["languages"]
    assert sorted(stored) == ["qaa", "qab"] and stored["qaa"]["quantiles"]["mean_word_length"]["0.5"] > 15


def test_units_that_may_be_stop_words_are_found_as_the_step_finds_them(tmp_path: Path) -> None:
    """What is learned in a script counts there: words, single letters, ends of words."""
    for code, text in TWO_STOP_WORDS.items():
        path, out = tmp_path / f"{code}.jsonl", tmp_path / f"{code}.json"
        path.write_text((json.dumps({"text": f"{text} " * 20}) + "\n") * 100, encoding="utf-8")
        made = train_language_stats([str(path)], code, str(out))
        (found,), _ = run(Heuristics(sets=["gopher"], thresholds=str(out)), [(code, text)])
        assert found["stop_words"] == len(made.stop_words) >= 3, code


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", "cannot be read as language statistics"),
        ('{"languages": {"de": {"max_top_2gran": 0.1}}}', "max_top_2gran"),
        ('{"languages": {"de": {"max_top_2gram": "0.1"}}}', "max_top_2gram"),
        ('{"languages": {"de": {"stop_words": ["der", ""]}}}', "stop_words"),
    ],
)
def test_a_file_of_another_form_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        Heuristics(thresholds=str(path)).check()
    with pytest.raises(UserError, match="no file"):
        Heuristics(thresholds="by_languages").check()


def test_too_little_reference_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("one line of words\n" * 500)
    with pytest.raises(UserError, match="whole documents"):
        train_language_stats([str(tmp_path / "lines.txt")], "qaa", str(tmp_path / "out.json"))
    assert not (tmp_path / "out.json").exists()


def test_elision_and_morphemes_are_words_where_thresholds_take_them_so() -> None:
    """French cuts "l'eau" after the apostrophe and Korean Hangul after two letters; the published thresholds do not."""
    french, korean = "L'eau d’été, aujourd'hui l' 1'2 eau'", "물레방아는 시냇가에서 돌아간다. OS에서 3개"
    rows, _ = run(Heuristics(sets=["gopher"], thresholds="by_language"), [("fr", french), ("ko", korean)])
    published, _ = run(Heuristics(sets=["gopher"]), [("fr", french), ("ko", korean)])
    assert [row["words"] for row in rows] == [9, 12]
    assert [row["words"] for row in published] == [6, 5]


def test_compounds_with_a_hyphen_are_one_word_where_thresholds_take_them_so() -> None:
    """In German they are, in English they are three; the published thresholds are of English."""
    text = "Nord-Süd-Gefälle E-Mail-Adresse Wort--Teil ende-"
    (german, english), _ = run(Heuristics(sets=["gopher"], thresholds="by_language"), [("de", text), ("en", text)])
    (published,), _ = run(Heuristics(sets=["gopher"]), [("de", text)])
    assert german["words"] == 5 and german["alpha_words"] == 5 / 6
    assert english["words"] == published["words"] == 9 and english["alpha_words"] == published["alpha_words"] == 9 / 14
