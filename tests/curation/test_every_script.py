"""Steps judge text alike in nine scripts: one test for each kind of fault, on real sentences."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow as pa
import pytest

from curation import models
from curation.dedup import line_spans
from curation.dedup.minhash import shingles
from curation.dedup.text_normalization import NORMALIZERS
from curation.document import clean_text
from curation.extract.extract import extract
from curation.quality.c4_line_filter import C4LineFilter
from curation.quality.heuristics.heuristics import Heuristics
from curation.quality.language import Language
from curation.quality.ngram import estimate
from curation.quality.perplexity.perplexity import Perplexity
from curation.safety.decontamination.decontaminate import Decontaminate
from curation.words import estimate_words, words

SCRIPTS = {
    "Latin": "de",
    "Cyrillic": "ru",
    "Arabic": "ar",
    "Hebrew": "he",
    "Devanagari": "hi",
    "Han": "zh",
    "Kana": "ja",
    "Hangul": "ko",
    "Thai": "th",
}
HIDDEN = "\u00ad\u200b\u200c\u200d\u2060\ufeff\u200e\u200f"  # soft hyphen, zero-width characters, direction marks
in_every_script = pytest.mark.parametrize("script", SCRIPTS)


@pytest.fixture(scope="module")
def sentences(data: Path) -> dict[str, list[str]]:
    """Distinct sentences of each script's language."""
    found: dict[str, dict[str, None]] = {language: {} for language in SCRIPTS.values()}
    for line in (data / "lid/sentences.tsv").read_text(encoding="utf-8").strip("\n").split("\n"):
        language, text = line.split("\t", 1)
        if language in found:
            found[language][clean_text(text)] = None
    return {script: list(found[language]) for script, language in SCRIPTS.items()}


def with_hidden_characters(text: str, seed: int) -> str:
    rng = random.Random(seed)
    return "".join(c + rng.choice(HIDDEN) if rng.random() < 0.3 else c for c in text)


def full_width(text: str) -> str:
    return text.translate({c: c + 0xFEE0 for c in range(0x21, 0x7F)})


def batch(*texts: str) -> pa.RecordBatch:
    return pa.record_batch({"text": pa.array([clean_text(t) for t in texts], pa.large_string())})


@in_every_script
def test_questions_are_found(script: str, sentences: dict[str, list[str]], tmp_path: Path) -> None:
    """Verbatim, with hidden characters, in full width, with other punctuation; and no other sentence is."""
    mine = sentences[script]
    items = [text for text in mine[::2] if estimate_words(text) >= 6]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps({"question": text}) + "\n" for text in items))
    step = Decontaminate(against=[str(tmp_path / "items.jsonl")])

    def found(texts: list[str]) -> int:
        around = [f"{mine[1]}\n{text}\n{mine[3]}" for text in texts]
        return sum(
            share >= step.share for share in step(batch(*around)).column("decontaminate").field("share").to_pylist()
        )

    assert len(items) > 40
    assert found(items) == len(items)
    assert found([with_hidden_characters(text, k) for k, text in enumerate(items)]) == len(items)
    assert found([full_width(text) for text in items]) == len(items)
    assert found([" / ".join(text.split(",")) for text in items]) >= 0.95 * len(items)
    assert found(mine[1::2]) == 0


def first_words(text: str, count: int) -> str:
    """The beginning of a sentence that has so many words, as a reader counts them."""
    return next((text[:end] for end in range(len(text)) if estimate_words(text[: end + 1]) > count), text)


@in_every_script
def test_questions_of_three_words_are_found_as_a_line(
    script: str, sentences: dict[str, list[str]], tmp_path: Path
) -> None:
    mine = sentences[script]
    starts = [first_words(text, 3) for text in mine if estimate_words(text) > 5]
    items = [text for text in starts if 3 <= estimate_words(text) < 4][:30]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps({"question": text}) + "\n" for text in items))
    step = Decontaminate(against=[str(tmp_path / "items.jsonl")])
    lines = [f"{mine[1]}\n{with_hidden_characters(text, k)}!\n{mine[3]}" for k, text in enumerate(items)]
    found = step(batch(*lines, *mine)).column("decontaminate").field("share").to_pylist()
    assert len(items) > 20
    assert found == [1.0] * len(items) + [0.0] * len(mine)


@in_every_script
def test_lines_with_three_words_are_kept(script: str, sentences: dict[str, list[str]]) -> None:
    """C4's rule removes what a menu has, not sentences."""
    long = [text for text in sentences[script] if estimate_words(text) >= 4]
    short = [start for text in long if len((start := first_words(text, 2)).split()) < 3]
    filtered = C4LineFilter(terminal=False)(batch("\n".join(long), "\n".join(short)))
    kept, removed = filtered.column("c4_line_filter").to_pylist()
    assert len(short) > 100
    assert kept == {"lines": len(long), "kept": len(long)} and removed == {"lines": len(short), "kept": 0}


@in_every_script
def test_near_duplicates_are_alike(script: str, sentences: dict[str, list[str]]) -> None:
    """An article with one sentence exchanged is a near-duplicate, with hidden characters a copy, another is neither."""
    article = sentences[script][:30]
    changed = [*article[:-1], sentences[script][70]]
    texts = [" ".join(article), " ".join(changed), with_hidden_characters(" ".join(article), 1)]
    texts += [" ".join(article[::-1]), " ".join(sentences[script][40:70])]
    one, edited, hidden, turned, other = (set(s.tolist()) for s in shingles.shingle_sets(pa.array(texts)))

    def jaccard(left: set[int], right: set[int]) -> float:
        return len(left & right) / len(left | right)

    assert jaccard(one, edited) > 0.72 and jaccard(one, hidden) == 1
    assert 0.4 < jaccard(one, turned) < 1 and jaccard(one, other) < 0.1


@in_every_script
@pytest.mark.parametrize("form", ["words", "template"])
def test_different_texts_are_different(script: str, form: str, sentences: dict[str, list[str]]) -> None:
    """Copies differ in layout, punctuation and hidden characters alone; sentences and their words are not mixed up."""
    normal = NORMALIZERS[form]
    mine = sentences[script]
    assert len({normal(text) for text in mine}) == len({tuple(words(text)) for text in mine})
    every = {word for text in mine for word in text.split() if any(map(str.isalpha, word))}
    assert len({normal(word) for word in every}) >= 0.9 * len({"".join(words(word)) for word in every})
    for k, text in enumerate(mine[:40]):
        assert normal(with_hidden_characters(f"  {text} ! ", k)) == normal(text)
        hashed = line_spans.span_hashes(text, line_spans.units(text, "line"), normal, 1, 1, b"")
        copy = with_hidden_characters(text, k)
        again = line_spans.span_hashes(copy, line_spans.units(copy, "line"), normal, 1, 1, b"")
        assert [h for h, *_ in hashed] == [h for h, *_ in again]


@in_every_script
def test_sentences_are_counted(script: str, sentences: dict[str, list[str]]) -> None:
    """A paragraph of eight sentences has about eight; Thai ends them with a space, so a line is one."""
    stop = {"Devanagari": "।", "Han": "。", "Kana": "。"}.get(script, ".")
    plain = ["".join(c for c in text if c.isalnum() or c == " " or c >= "\u0300") for text in sentences[script][:80]]
    ended = [text.rstrip("。।.").strip() + stop for text in plain]
    texts = [" ".join(ended[k : k + 8]) for k in range(0, 80, 8)]
    counts = (
        Heuristics(sets=["c4"], c4_terminal=False)(batch(*texts)).column("heuristics").field("sentences").to_pylist()
    )
    assert all(7 <= n <= 10 for n in counts), counts


@in_every_script
def test_lines_have_a_language(script: str, sentences: dict[str, list[str]]) -> None:
    """The lines of a page of long sentences are all labelled, and nearly all of the page is in its language."""
    models.pull("lid.176")
    longest = sorted(sentences[script], key=len)[-12:]
    step = Language(paragraphs=True)
    step.open()
    (row,) = step(batch("\n".join(longest))).column("language").to_pylist()
    assert row["code"] == SCRIPTS[script]
    assert (row["paragraphs"], row["short_lines"]) == (12, 0) and row["same"] > 0.9


@in_every_script
def test_a_model_knows_its_own_language(script: str, sentences: dict[str, list[str]], tmp_path: Path) -> None:
    """An n-gram model prefers what it was trained on, then its language, and says that it knows no other script."""
    mine, out = sentences[script], str(tmp_path / "m.arpa")
    (tmp_path / "train.txt").write_text("\n".join(mine[:100]), encoding="utf-8")
    estimate.train_ngram([str(tmp_path / "train.txt")], 3, out)
    strange = sentences["Hangul" if script != "Hangul" else "Thai"]
    step = Perplexity(model=out)
    step.open()
    rows = step(batch("\n".join(mine[:40]), "\n".join(mine[100:]), "\n".join(strange[:40])))
    seen, held_out, other = rows.column("perplexity").to_pylist()
    assert seen["unknown"] == 0 and seen["value"] < held_out["value"] / 2
    assert held_out["unknown"] < other["unknown"] and other["unknown"] > 0.6


@in_every_script
def test_extracted_text_has_no_soft_hyphens(script: str, sentences: dict[str, list[str]]) -> None:
    def page(text: str) -> str:
        body = "".join(f"<p>{part}</p>" for part in text.split("\n"))
        return extract(f"<html><body><article>{body}</article></body></html>").text

    text = "\n".join(sentences[script][:6]).replace("<", "").replace("&", "")
    assert len(page(text)) > 50
    assert page("".join(c + "&shy;" if c.isalpha() else c for c in text)) == page(text)
