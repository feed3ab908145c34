"""Decontamination: evaluation items planted in real text, verbatim and disguised, and text that only resembles them.

Covers: benchmark_items.py, ngram_index.py, ngram_kernels.py
"""

from __future__ import annotations

import gzip
import json
import math
import pickle
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import words
from curation.core.errors import UserError
from curation.document import clean_text
from curation.safety.decontamination.benchmark_items import FIELDS, Unit, read_units
from curation.safety.decontamination.decontaminate import Decontaminate
from curation.safety.decontamination.ngram_index import build_index, once_a_machine


def run(step: Decontaminate, texts: list[str | None]) -> list[dict[str, object]]:
    out = step(pa.record_batch({"text": pa.array(texts, pa.large_string())}))
    assert out.schema.field(step.name).type == pa.struct(list(step.signals))
    return out.column(step.name).to_pylist()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def real(data: Path) -> Decontaminate:
    step = Decontaminate(against=[str(data / "decontam" / "*")])
    step.check()
    step.open()
    return step


@pytest.fixture(scope="module")
def host(data: Path) -> list[str]:
    """Paragraphs to plant into."""
    lines = (data / "lm" / "wikitext2_valid.txt").read_text(encoding="utf-8").split("\n")
    return [clean_text(line) for line in lines if len(line) > 400]


def verbatim(text: str) -> str:
    return text


PERTURBATIONS = {
    "verbatim": verbatim,
    "upper case": str.upper,
    "no punctuation": lambda t: re.sub(r"[^\w\s]", " ", t),
    "punctuation added": lambda t: re.sub(r"(\w) (\w)", r"\1 - \2", t),
    "one line": lambda t: " ".join(t.split()),
    "line breaks": lambda t: "\n".join(t.split(" ")),
    "wide spaces": lambda t: t.replace(" ", "  \u3000"),
}


@pytest.mark.parametrize("how", PERTURBATIONS)
def test_planted_questions_are_found(real: Decontaminate, host: list[str], data: Path, how: str) -> None:
    units = [u for p in real._files() for u in read_units(p, ("question", "prompt"), False)]
    unique = list({u.text: u for u in units}.values())[::3]
    planted = [
        f"{host[i % len(host)]}\n\n{PERTURBATIONS[how](u.text)}\n\n{host[-i % len(host)]}" for i, u in enumerate(unique)
    ]
    found = run(real, [clean_text(p) for p in planted])
    right = [f["share"] >= real.share and f["benchmark"] == u.benchmark for f, u in zip(found, unique, strict=True)]
    long_enough = [len(re.findall(r"\w+", u.text)) >= 3 for u in unique]
    assert np.mean(right) >= 0.99
    assert all(r for r, enough in zip(right, long_enough, strict=True) if enough)


def test_short_questions_are_found_with_their_answers(real: Decontaminate, host: list[str], data: Path) -> None:
    stored = gzip.decompress((data / "decontam" / "mmlu_validation.jsonl.gz").read_bytes())
    items = [json.loads(line) for line in stored.splitlines()]
    short = [i for i in items if len(re.findall(r"\w+", i["question"])) < 5]
    telling = [i for i in short if len(re.findall(r"\w+", i["question"] + " " + i["answer"])) >= 5]
    assert len(telling) > 50
    found = run(real, [f"{host[0]}\n{i['question']}\n{i['answer']}\n{host[1]}" for i in telling])
    assert np.mean([f["share"] >= real.share for f in found]) >= 0.99


def test_clean_text_is_left_alone(real: Decontaminate, data: Path) -> None:
    texts = [
        clean_text(line)
        for name in ("wikitext2_valid.txt", "wikitext2_test.txt")
        for line in (data / "lm" / name).read_text(encoding="utf-8").split("\n")
        if line.strip()
    ]
    found = run(real, list(texts))
    assert sum(f["share"] >= real.share for f in found) <= len(texts) / 1000


# --- the reference: tokens and n-grams in plain Python


def folded_words(text: str) -> list[str]:
    """Words as the kernel cuts and folds them: one code point to one."""
    table, out, alone = words.character_table(), [], False
    open_word = False
    for c in text:
        kind, code = words.entry(table, ord(c))
        if kind == words.SKIPPED:
            continue
        if kind == words.MARK or (kind == words.PART and not alone):
            if open_word:
                out[-1] += chr(code)
            else:
                out.append(chr(code))
            open_word = True
            continue
        alone = kind == words.ALONE
        open_word = alone or kind == words.PART
        if open_word:
            out.append(chr(code))
    return out


def reference(units: list[str], text: str, ngram: int) -> tuple[int, float, int | None]:
    """(n-grams that a unit has, the best share, its unit), with sets of places instead of counters."""
    document = folded_words(text)
    line_of = [n for n, line in enumerate(text.split("\n")) for _ in folded_words(line)]
    size_of, known, owned, seen, line_only = {}, {}, {}, set(), set()
    for i, unit in enumerate(units):
        own = folded_words(unit)
        estimated = max(words.estimate_words(unit), 1.0)
        factor = min((1, 2, 4), key=lambda f: abs(f - len(own) / estimated))
        if not own or estimated < min(3, ngram) or tuple(own) in seen:
            continue
        seen.add(tuple(own))
        n = min(ngram * factor, len(own))
        size_of[i], owned[i] = n, (len(own), min(len(own), max(6, ngram) * factor))
        if estimated < min(5, ngram):
            line_only.add(i)
            n = size_of[i] = len(own)
            owned[i] = n, n
        for p in range(len(own) - n + 1):
            known.setdefault((n, *own[p : p + n]), []).append((i, p))
    texts = [folded_words(units[i]) for i in owned]
    weight = {w: int(100 * math.log(len(texts) / sum(w in t for t in texts)) + 1) for t in texts for w in t}
    overlap, most, heavy = 0, {}, {}
    for n in sorted(set(size_of.values())):
        places, last = {}, {}
        for k in range(len(document) - n + 1):
            hits = known.get((n, *document[k : k + n]), [])
            overlap += bool(hits)
            for i, p in hits:
                here = set(line_of[k : k + n])
                if i in line_only and here & {*line_of[:k], *line_of[k + n :]}:
                    continue
                if i not in last or k - last[i] > 4 * n:
                    places[i] = set()
                last[i] = k
                places[i] |= set(range(p, p + n))
                if len(places[i]) > most.get(i, 0):
                    most[i] = len(places[i])
                    own = folded_words(units[i])
                    heavy[i] = sum(weight[own[q]] for q in places[i]) / sum(weight[w] for w in own)
    shares = {
        i: m / owned[i][0]
        for i, m in sorted(most.items())
        if m >= owned[i][1] or (m >= size_of[i] and 3 * m >= 2 * owned[i][1] and heavy[i] >= 0.55)
    }
    best = max(shares, key=lambda i: (shares[i], -i), default=None)
    return overlap, 0.0 if best is None else shares[best], best


vocabulary = st.sampled_from(
    ["a", "B", "über", "ÜBER", "the", "x1", "日本", "٣", "İ", "e\u0301", "👩", "-", "...", "\n", "\u00ad", "กัน"]
)
pieces = st.lists(vocabulary, max_size=30).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(pieces, min_size=1, max_size=5), pieces, st.integers(1, 13))
def test_signals_equal_the_reference(units: list[str], text: str, ngram: int) -> None:
    step = Decontaminate(against=["unused"], ngram=ngram)
    step._index = build_index([Unit("b", i, "question", u) for i, u in enumerate(units)], ngram)
    (found,) = run(step, [text])
    assert (found["overlap"], pytest.approx(found["share"]), found["item"]) == reference(units, text, ngram)


def test_a_short_passage_counts_where_its_words_are_the_rare_ones(tmp_path: Path) -> None:
    """The first part of a short question is found; a phrase that many texts have, of as many words, is not."""
    questions = [
        "What is the difference between xylem and phloem?",
        "What is the difference between mitosis and meiosis?",
        "What is the difference between a comet and a meteor?",
        "Photosynthetic bacteria in hydrothermal vents metabolise sulphur slowly.",
    ]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps({"question": q}) + "\n" for q in questions))
    step = Decontaminate(against=[str(tmp_path / "*.jsonl")])
    texts = ["They ask what is the difference between us and them", "Photosynthetic bacteria in hydrothermal vents."]
    phrase, first_part = run(step, texts)
    assert phrase["share"] == 0 and (first_part["item"], first_part["share"]) == (3, pytest.approx(5 / 8))


def test_the_shortest_questions_count_as_a_whole_line(tmp_path: Path) -> None:
    """Three words are a question where nothing else is in the line, an ordinary phrase elsewhere; two are a heading."""
    items = [
        {"question": q, "choices": ["red", "blue"]} for q in ("What is basalt?", "Trade winds", "¿Qué es basalto?")
    ]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    step = Decontaminate(against=[str(tmp_path / "*.jsonl")])
    lines = ["Rocks.\n\n 1. WHAT is\u00adn't basalt?", "Rocks.\n\n WHAT IS\u200b BASALT \nA rock.", "¿qué es\nbasalto"]
    inside = ["They ask: what is basalt?", "What is basalt? A rock.", "Trade winds", "what is", ""]
    found = run(step, [*lines, *inside])
    assert [f["share"] for f in found] == [0, 1, 1, 0, 0, 0, 0, 0]
    assert [f["item"] for f in found[:3]] == [None, 0, 2] and step.unusable_inputs() == {
        "evaluation items too short to look for": (0, 3)
    }
    cut = Decontaminate(against=[str(tmp_path / "*.jsonl")], action="cut")
    assert text_after(cut, "Rocks: what is basalt?\nWhat is basalt?\nA rock.") == (
        "Rocks: what is basalt?\n\nA rock.",
        15,
    )


def test_rows_are_independent(tmp_path: Path) -> None:
    question = "how many golden apples did the third sister carry over the frozen lake that winter"
    (tmp_path / "set.jsonl").write_text(json.dumps({"question": question}) + "\n")
    step = Decontaminate(against=[str(tmp_path / "*.jsonl")])
    texts = [f"so {question.upper()}?", None, "", "nothing", question + " " + question]
    whole = run(step, texts)
    assert [f["share"] for f in whole] == [1.0, 0.0, 0.0, 0.0, 1.0]
    assert [f["overlap"] for f in whole] == [12, 0, 0, 0, 24]
    assert whole[0] == {"overlap": 12, "share": 1.0, "benchmark": "set", "item": 0, "field": "question", "cut": 0}
    assert [run(step, [t])[0] for t in texts] == whole
    assert run(pickle.loads(pickle.dumps(step)), texts) == whole
    assert step.rules() == {"contaminated": "decontaminate.share < 0.6"}
    assert step.inputs() == (str(tmp_path / "*.jsonl"),)
    assert run(step, []) == []


QUESTIONS = [
    "how many golden apples did the third sister carry over the frozen lake that winter",
    "a train leaves the old station at noon and reaches the harbour before the rain begins to fall",
]


def planted(tmp_path: Path, **options: object) -> Decontaminate:
    lines = "".join(json.dumps({"question": q}) + "\n" for q in QUESTIONS)
    (tmp_path / "set.jsonl").write_text(lines)
    step = Decontaminate(against=[str(tmp_path / "set.jsonl")], **options)  # type: ignore[arg-type]
    step.check()
    return step


def text_after(step: Decontaminate, text: str) -> tuple[str, int]:
    out = step(pa.record_batch({"text": pa.array([text], pa.large_string())}))
    return out.column("text")[0].as_py(), out.column(step.name)[0].as_py()["cut"]


def test_items_are_cut_out(tmp_path: Path) -> None:
    step = planted(tmp_path, action="cut")
    assert step.rewrites and not planted(tmp_path).rewrites
    first, second = QUESTIONS
    assert text_after(step, f"Before it, é. (“{first.upper()}?”) Behind it.") == ("Before it, é.  Behind it.", 87)
    assert text_after(step, f"{first}\n\nMiddle.\n{second}.") == ("\n\nMiddle.\n", 176)
    changed = second.replace("harbour", "Harbour town")  # a word more: the passage goes over it
    assert text_after(step, f"x {changed} y") == ("x  y", len(changed))
    assert text_after(step, f"x {second[:40]} y") == (f"x {second[:40]} y", 0)  # less than its share
    longer = " ".join(f"word{i}" for i in range(60))
    (tmp_path / "long.jsonl").write_text(json.dumps({"question": longer}) + "\n")
    step = Decontaminate(against=[str(tmp_path / "long.jsonl")], action="cut")
    assert text_after(step, f"a {longer.replace('word30 ', 'changed ')} b")[0] == "a  b"
    assert text_after(step, "clean") == ("clean", 0)
    assert step.rules() == {"nothing_left": "trim(text) <> ''"}
    assert planted(tmp_path, action="tag").rules() == {}


def test_common_ngrams_do_not_count(tmp_path: Path) -> None:
    phrase = "all rights reserved no part of this work may be copied without the written consent of its owner"
    (tmp_path / "set.jsonl").write_text(json.dumps({"question": f"{phrase}. {QUESTIONS[0]}"}) + "\n")
    ordinary = [{"text": f"page {i}. {phrase}."} for i in range(5)] + [{"text": "other"}]
    pq.write_table(pa.Table.from_pylist(ordinary), tmp_path / "ordinary.parquet")
    options = {"against": [str(tmp_path / "set.jsonl")], "share": 0.2}
    plain = Decontaminate(**options)  # type: ignore[arg-type]
    assert run(plain, [phrase])[0]["share"] > 0.2
    step = Decontaminate(**options, common=[str(tmp_path / "*.parquet")], max_common=4)  # type: ignore[arg-type]
    step.check()
    found = run(step, [phrase, f"{phrase}. {QUESTIONS[0]}"])
    assert [f["share"] for f in found] == [0.0, 1.0]
    assert step._index is not None and step._index.common == 15
    rare = Decontaminate(**options, common=[str(tmp_path / "*.parquet")], max_common=5)  # type: ignore[arg-type]
    assert run(rare, [phrase])[0]["share"] == run(plain, [phrase])[0]["share"]


def test_one_index_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    step = planted(tmp_path)
    step.open()
    (stored,) = (tmp_path / "tmp").glob("*/decontaminate-*")
    assert not any(q.encode() in f.read_bytes() for f in stored.iterdir() for q in QUESTIONS)  # no text lies there
    made: list[int] = []

    def build() -> object:
        made.append(1)
        return build_index([Unit("set", i, "question", q) for i, q in enumerate(QUESTIONS)], 4)

    key = stored.name.removeprefix("decontaminate-")
    mapped = once_a_machine(key, build)  # type: ignore[arg-type]
    assert not made and isinstance(mapped.table.base, np.memmap) and not mapped.table.flags.writeable
    (stored / "table.npy").write_bytes((stored / "table.npy").read_bytes()[:-8] + b"damaged!")
    again = once_a_machine(key, build)  # type: ignore[arg-type]
    assert made == [1] and np.array_equal(again.table, build_index([], 4).table) is False
    assert np.array_equal(np.load(stored / "table.npy"), again.table)  # mended
    assert run(step, [QUESTIONS[0]])[0]["share"] == 1.0
    (tmp_path / "set.jsonl").write_text(json.dumps({"question": "something else entirely " * 5}) + "\n")
    step.open()
    assert run(step, [QUESTIONS[0]])[0]["share"] == 0.0


def test_every_kind_of_file_reads_the_same(tmp_path: Path) -> None:
    records = [{"question": f"question number {i} has words enough", "choices": ["one", "two"]} for i in range(3)]
    lines = "".join(json.dumps(r) + "\n" for r in records)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    with pa.CompressedOutputStream(str(tmp_path / "a.jsonl.zst"), "zstd") as f:
        f.write(lines.encode())
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 4
    assert all(list(read_units(str(p), FIELDS, False)) == list(read_units(str(paths[0]), FIELDS, False)) for p in paths)
    assert next(iter(read_units(str(paths[0]), ("choices",), True))) == Unit("a", 0, "choices", "one\ntwo")


def test_bad_configuration(tmp_path: Path) -> None:
    (tmp_path / "odd.jsonl").write_text('{"frage": "Wie geht es?"}\n')
    (tmp_path / "broken.jsonl").write_text('{"question": \n')
    (tmp_path / "list.jsonl").write_text("[1]\n")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "a.csv").write_text("question\n")
    cases = {
        "names no evaluation files": Decontaminate(),
        "no evaluation file matches": Decontaminate(against=[str(tmp_path / "none" / "*.jsonl")]),
        "no field question.*it has frage": Decontaminate(against=[str(tmp_path / "odd.jsonl")]),
        "no field prompt; it has frage": Decontaminate(
            against=[str(tmp_path / "odd.jsonl")], fields=["frage", "prompt"]
        ),
        "cannot be read": Decontaminate(against=[str(tmp_path / "broken.jsonl")]),
        "expected a JSON object": Decontaminate(against=[str(tmp_path / "list.jsonl")]),
        "has no records": Decontaminate(against=[str(tmp_path / "empty.jsonl")]),
        "unknown format": Decontaminate(against=[str(tmp_path / "a.csv")]),
        "`ngram`": Decontaminate(against=["x"], ngram=0),
        "`share`": Decontaminate(against=["x"], share=0.0),
        "no file of ordinary text matches": Decontaminate(
            against=[str(tmp_path / "odd.jsonl")], fields=["frage"], common=["none.parquet"]
        ),
        "the first record has no text in the field 'text'; it has frage": Decontaminate(
            against=[str(tmp_path / "odd.jsonl")], fields=["frage"], common=[str(tmp_path / "odd.jsonl")]
        ),
    }
    for message, step in cases.items():
        with pytest.raises(UserError, match=message):
            step.check()
    Decontaminate(against=[str(tmp_path / "odd.jsonl")], fields=["frage"]).check()
