"""Perplexity: its formula by hand on a small model, its word definition, and what a real model prefers."""

from __future__ import annotations

import pickle
import random
import re
import warnings
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.quality import ngram
from curation.quality.ngram_text import normalise
from curation.quality.perplexity import Perplexity
from curation.step import UserError

ARPA = """\\data\\
ngram 1=5
ngram 2=4

\\1-grams:
-2\t<unk>\t0
0\t<s>\t-0.5
-1\t</s>\t0
-1\tthe\t-0.25
-1.5\tmill\t-0.125

\\2-grams:
-0.5\t<s> the
-0.25\tthe mill
-0.75\tmill </s>
-1.25\tthe the

\\end\\
"""


@pytest.fixture
def arpa(tmp_path: Path) -> str:
    path = tmp_path / "small.arpa"
    path.write_text(ARPA)
    return str(path)


def run(step: Perplexity, texts: list[str | None]) -> list[dict[str, object]]:
    step.open()
    out = step(pa.record_batch({"text": pa.array(texts, pa.large_string())}))
    assert out.column(step.name).type == pa.struct(list(step.signals))
    assert out.column(step.name).null_count == 0
    rows: list[dict[str, object]] = out.column(step.name).to_pylist()
    return rows


def test_by_hand(arpa: str) -> None:
    rows = run(Perplexity(model=arpa), ["The mill", "The mill\n\nmill", "mice", "", " \n", None])
    one = -0.5 - 0.25 - 0.75
    two = one + (-0.5 - 1.5) - 0.75  # backs off from <s> to mill
    unknown = (-0.5 - 2) - 1  # after an unknown word, </s> by itself
    assert [r["tokens"] for r in rows] == [3, 5, 2, 0, 0, 0]
    assert [r["value"] for r in rows[:3]] == pytest.approx([10 ** (-one / 3), 10 ** (-two / 5), 10 ** (-unknown / 2)])
    assert [r["value"] for r in rows[3:]] == [None] * 3


def test_forms_differ_where_they_should(arpa: str) -> None:
    words, spaces = Perplexity(model=arpa), Perplexity(model=arpa, form="spaces")
    assert run(spaces, ["the mill"]) == run(words, ["THE mill"])
    assert run(spaces, ["THE mill"]) != run(words, ["THE mill"])
    assert run(spaces, ["<s> the <unk> mill </s>"]) == run(spaces, ["the mill"])


def test_rows_are_independent_and_pickles(arpa: str) -> None:
    step = pickle.loads(pickle.dumps(Perplexity(model=arpa, name="p")))
    texts = ["the mill", "", "x\ny", "🙂 e\u0301", "a\0b", None, "w " * 200_000, "z" * 3_000_000]
    assert run(step, list(texts)) == [run(step, [t])[0] for t in texts]
    assert step(pa.record_batch({"text": pa.array([], pa.large_string())})).num_rows == 0


def test_options_and_files_are_refused(tmp_path: Path, arpa: str) -> None:
    with pytest.raises(UserError, match="option `model` is missing"):
        Perplexity().check()
    Perplexity(model=arpa).check()
    assert Perplexity(model=arpa).models() == (arpa,)
    (tmp_path / "bad.arpa").write_text("hello")
    for name in ("bad.arpa", "absent.arpa"):
        with pytest.raises(UserError, match=name):
            Perplexity(model=str(tmp_path / name)).open()


def test_order_of_words_matters(data: Path, tmp_path: Path) -> None:
    """A real model, trained on documents and loaded by the step, prefers a text to the same words shuffled."""
    out = str(tmp_path / "m.arpa")
    ngram.train_ngram([str(data / "lm/wikitext2_valid.txt")], 4, out)
    texts = [t for t in (data / "lm/wikitext2_test.txt").read_text(encoding="utf-8").split("\n") if len(t) > 300][:50]
    shuffled = []
    for text in texts:
        words = text.split()
        random.Random(0).shuffle(words)
        shuffled.append(" ".join(words))
    rows = run(Perplexity(model=out), [*texts, *shuffled])
    values = [float(str(r["value"])) for r in rows]
    assert all(a < b for a, b in zip(values[:50], values[50:], strict=True))
    assert 50 < sorted(values[:50])[25] < 1000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, World 42!\n\n-----", ["hello , world 00 !", "-"]),
        ("don't \u201cquote\u201d", ["don ' t \u201c quote \u201d"]),
        ("naïve nai\u0308ve", ["naïve naïve"]),
        ("हिन्दी में", ["हिन्दी में"]),
        ("a\u00a0b\u2028c\td\re", ["a b c d e"]),
        ("so\u00adft \ufeffbom zero\u200bwidth", ["soft bom zerowidth"]),
        ("x = a[0] == b", ["x = a [ 0 ] = b"]),
        ("٣٤ ３ Ⅷ ½", ["00 0 ⅷ ½"]),
        ("ha ha ha", ["ha ha ha"]),
        ("\0\ud800", ["\ufffd"]),
        ("", []),
        (" \n\t\n", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert normalise(text) == words


@given(st.text(st.characters(), max_size=200))
def test_normalised_text_stays_as_it_is(text: str) -> None:
    for form in ("words", "spaces"):
        once = normalise(text, form)
        assert all(line and line == line.strip(" ") and "\n" not in line and "  " not in line for line in once)
        assert normalise("\n".join(once), "spaces") == [
            line
            for line in (" ".join(t for t in x.split(" ") if not re.fullmatch("<s>|</s>|<unk>", t)) for x in once)
            if line
        ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert normalise("\n".join(normalise(text))) == normalise("\n".join(normalise("\n".join(normalise(text)))))
