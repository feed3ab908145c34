"""The estimator against lmplz's own output, against the definition written out, and against what must hold anyway.

Covers: kneser_ney.py, count.py, adjusted_counts.py, arpa.py, disk_arrays.py
"""

from __future__ import annotations

import gzip
import math
import random
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.core.errors import UserError
from curation.quality.ngram import estimate

Arpa = dict[tuple[str, ...], tuple[float, float]]


def parse(lines: Iterable[str]) -> Arpa:
    """n-gram -> (log10 p, log10 back-off or 0), and the counts of the header checked."""
    rows: Arpa = {}
    announced, found = {}, Counter[int]()
    for line in lines:
        parts = line.rstrip("\n").split("\t")
        if line.startswith("ngram "):
            k, n = line[6:].split("=")
            announced[int(k)] = int(n)
        elif len(parts) > 1:
            words = tuple(parts[1].split(" "))
            assert words not in rows
            rows[words] = (float(parts[0]), float(parts[2]) if len(parts) > 2 else 0.0)
            found[len(words)] += 1
    assert {k: n for k, n in announced.items() if n} == dict(found)
    return rows


def load(path: Path) -> Arpa:
    return parse(path.read_text(encoding="utf-8").split("\n"))


def reference(sentences: list[list[str]], order: int, prune: list[int], amounts: list[tuple[float, ...]]) -> Arpa:
    """Interpolated modified Kneser-Ney from its definition, one n-gram at a time, with given discounts."""
    plain: Counter[tuple[str, ...]] = Counter()
    for sentence in sentences:
        words = ["<s>", *sentence, "</s>"]
        for k in range(1, order + 1):
            plain.update(tuple(words[i : i + k]) for i in range(len(words) - k + 1))
    del plain[("<s>",)]
    lefts: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    for gram in plain:
        if len(gram) > 1:
            lefts[gram[1:]].add(gram[0])
    adjusted = {g: n if len(g) == order or g[0] == "<s>" else len(lefts[g]) for g, n in plain.items()}
    kept = {g for g, n in plain.items() if n > prune[len(g) - 1]}
    after: defaultdict[tuple[str, ...], list[tuple[str, ...]]] = defaultdict(list)
    for gram in adjusted:
        after[gram[:-1]].append(gram)
    backoff = {}
    for context, grams in after.items():
        total = sum(adjusted[g] for g in grams)
        given = amounts[len(context)]
        mass = sum(given[min(adjusted[g], 3)] if g in kept else adjusted[g] for g in grams)
        backoff[context] = (mass / total, total)
    uniform = 1 / (1 + sum(1 for g in plain if len(g) == 1))
    p: dict[tuple[str, ...], float] = {}
    for gram in sorted(adjusted, key=len):
        b, total = backoff[gram[:-1]]
        lower = p[gram[1:]] if len(gram) > 1 else uniform
        p[gram] = (adjusted[gram] - amounts[len(gram) - 1][min(adjusted[gram], 3)]) / total + b * lower
    p[("<unk>",)], p[("<s>",)] = backoff[()][0] * uniform, 1.0
    kept |= {("<unk>",), ("<s>",)}
    return {
        g: (math.log10(p[g]), math.log10(backoff[g][0]) if g in backoff and len(g) < order else 0.0)
        for g in p
        if g in kept
    }


def probability(rows: Arpa, context: tuple[str, ...], word: str) -> float:
    """log10 p(word | context) by back-off, as every reader of ARPA computes it."""
    gram = (*context, word)
    if gram in rows:
        return rows[gram][0]
    return rows.get(context, (0.0, 0.0))[1] + probability(rows, context[1:], word)


def quiet(texts: Iterable[str | bytes], order: int, out: Path, **options: object) -> estimate.Estimate:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimate.estimate(texts, order, str(out), **options)  # type: ignore[arg-type]


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def test_order_3_is_lmplz(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "3.arpa"
    figures = estimate.estimate([(data / "lm/lmplz_train.txt").read_text()], 3, str(out))
    assert figures.ngrams == (11963, 92750, 152676) and figures.fallback == () and figures.tokens == 183_606
    with gzip.open(data / "lm/lmplz_order3.arpa.gz", "rt", encoding="utf-8") as f:
        theirs = parse(f)
    ours = load(out)
    assert ours.keys() == theirs.keys()
    assert max(abs(a - b) for g in ours for a, b in zip(ours[g], theirs[g], strict=True)) < 2e-6


@pytest.mark.parametrize("order", [3, 5])
def test_kenlm_scores_as_under_lmplz(data: Path, tmp_path: Path, order: int, capfd: pytest.CaptureFixture[str]) -> None:
    from curation.quality.perplexity import kenlm_model as reference

    out = tmp_path / "m.arpa"
    estimate.train_ngram([str(data / "lm/lmplz_train.txt")], order, str(out), form="spaces")
    model = reference.load_kenlm(str(out))
    assert capfd.readouterr() == ("", "")  # no complaint
    assert model.order == order
    rows = [line.split("\t") for line in lines(data / f"lm/lmplz_order{order}_scores.tsv")]
    assert len(rows) == 500
    assert max(abs(model.score(text) - float(score)) for score, text in rows) < 1e-3


def test_the_file_depends_on_neither_memory_nor_order(data: Path, tmp_path: Path) -> None:
    text = lines(data / "lm/lmplz_train.txt")[:600]
    shuffled = text[:]
    random.Random(1).shuffle(shuffled)
    outs = [tmp_path / f"{i}.arpa" for i in range(5)]
    estimate.estimate(text, 4, str(outs[0]))
    # blocks of 1,024: 45 runs, and several partitions an order
    estimate.estimate(text, 4, str(outs[1]), memory=1)
    estimate.estimate(text, 4, str(outs[4]), memory=1, workers=3)
    estimate.estimate(["\n".join(shuffled) + "\n"], 4, str(outs[2]), memory=3_000_000)
    estimate.estimate((line.encode() for line in shuffled), 4, str(outs[3]))
    first = outs[0].read_bytes()
    assert [out.read_bytes() == first for out in outs] == [True] * 5
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{i}.arpa" for i in range(5)]


def test_runs_are_merged_by_levels(data: Path, tmp_path: Path) -> None:
    """More than 64 runs: those of one size become one of the next."""
    text = lines(data / "lm/lmplz_train.txt")[:1000]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curation.quality.ngram.count._MERGE_WIDTH", 4)
        estimate.estimate(text, 3, str(tmp_path / "a.arpa"), memory=1)
    estimate.estimate(text, 3, str(tmp_path / "b.arpa"))
    assert (tmp_path / "a.arpa").read_bytes() == (tmp_path / "b.arpa").read_bytes()


WORDS = st.sampled_from(["a", "b", "c", "d", "né", "日本", "🙂", "e\u0301"])
SENTENCES = st.lists(st.lists(WORDS, max_size=12), min_size=1, max_size=40).filter(any)


@settings(max_examples=60, deadline=None)
@given(SENTENCES, st.integers(2, 6), st.lists(st.integers(0, 2), max_size=2).map(sorted))
def test_the_definition_and_sums_to_one(
    tmp_path_factory: pytest.TempPathFactory, sentences: list[list[str]], order: int, above: list[int]
) -> None:
    out = tmp_path_factory.mktemp("lm") / "m.arpa"
    prune = [0, *above][:order]
    figures = quiet((" ".join(s) for s in sentences), order, out, prune=prune)
    rows = load(out)
    thresholds = prune + [prune[-1]] * (order - len(prune))
    expected = reference(sentences, order, thresholds, [(0.0, *d) for d in figures.discounts])
    assert rows.keys() == expected.keys()
    for gram, (p, b) in expected.items():
        assert rows[gram] == pytest.approx((p, b), abs=2e-7)
    assert figures.ngrams == tuple(sum(1 for g in rows if len(g) == k) for k in range(1, order + 1))
    words = [g[0] for g in rows if len(g) == 1 and g != ("<s>",)]
    for context in [(), *(g for g in rows if len(g) < order and g[-1] != "</s>")][:60]:
        assert sum(10 ** probability(rows, context, w) for w in words) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("text", ["", "\n\n", "<s> </s> <unk>", " \t\r \0 "])
def test_a_text_without_words_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="no words"):
        estimate.estimate([text], 3, str(tmp_path / "m.arpa"))
    assert list(tmp_path.iterdir()) == []


def test_options_are_refused(tmp_path: Path) -> None:
    out = str(tmp_path / "m.arpa")
    for order in (1, 7):
        with pytest.raises(UserError, match="expected 2 to 6"):
            estimate.estimate(["a"], order, out)
    for prune in ([1], [0, 2, 1], [0, 0, 0, 0]):
        with pytest.raises(UserError, match="thresholds that do not decrease"):
            estimate.estimate(["a"], 3, out, prune=prune)


def test_a_small_text_falls_back_and_says_so(tmp_path: Path) -> None:
    out = tmp_path / "m.arpa"
    with pytest.warns(UserWarning, match=r"discounts of order 1, 2, 3.*0\.5, 1 and 1\.5"):
        figures = estimate.estimate(["one word"], 3, str(out))
    assert figures.fallback == (1, 2, 3) and figures.discounts == ((0.5, 1.0, 1.5),) * 3
    assert len(load(out)) == 5 + 3 + 2


def test_odd_texts(tmp_path: Path) -> None:
    from curation.quality.perplexity import kenlm_model as reference

    out = tmp_path / "m.arpa"
    odd = ["a\0b a\0b", "x\ud800y", "<s> a <unk> b </s>", "é e\u0301 🙂", "wörd " * 5, "\u00a0 \u2028", "\\end\\"]
    quiet(odd, 3, out)
    words = {g[0] for g in load_bytes(out) if len(g) == 1}
    assert {b"a", b"b", b"x?y", "\u00a0".encode(), "\u2028".encode(), b"\\end\\"} <= words
    assert reference.load_kenlm(str(out)).order == 3


def load_bytes(path: Path) -> list[tuple[bytes, ...]]:
    rows = [line.split(b"\t") for line in path.read_bytes().split(b"\n")]
    return [tuple(row[1].split(b" ")) for row in rows if len(row) > 1]


def test_ten_megabytes_in_one_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    line = " ".join(rng.zipf(1.3, 2_000_000).clip(max=5000).astype(str).tolist())
    assert len(line) > 5_000_000
    figures = estimate.estimate([line + " " + "z" * 5_000_000], 3, str(tmp_path / "m.arpa"))
    assert figures.sentences == 1 and figures.tokens == 2_000_001


def test_pruning_drops_what_lmplz_drops(tmp_path: Path) -> None:
    """Thresholds compare plain counts, not adjusted ones; unigrams always stay."""
    text = ["a b c"] * 3 + ["x b c"] * 2 + ["a b d"]
    figures = quiet(text, 3, tmp_path / "m.arpa", prune=[0, 1, 2])
    rows = load(tmp_path / "m.arpa")
    assert ("b", "d") not in rows and ("d",) in rows and ("a", "b") in rows and ("x", "b") in rows
    assert {g for g in rows if len(g) == 3} == {
        ("<s>", "a", "b"), ("a", "b", "c"), ("b", "c", "</s>"),
    }  # fmt: skip
    assert figures.pruned == (0, 2, 4)


def test_training_reads_what_people_have(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = ["Hello, World!\n\nIt is 1984.", "Second text\nhas two lines"]
    (tmp_path / "a.txt").write_text("\n".join(texts) + "\n")
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as f:
        f.writelines(__import__("json").dumps({"text": t}) + "\n" for t in texts)
    pq.write_table(pa.table({"text": [*texts, None]}), tmp_path / "c.parquet")
    outs = []
    for name in ("a.txt", "b.jsonl.gz", "c.parquet", "[b]*"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimate.train_ngram([str(tmp_path / name)], 2, str(tmp_path / "m.arpa"))
        outs.append((tmp_path / "m.arpa").read_bytes())
    assert len(set(outs)) == 1
    assert b"\thello\t" in outs[0] and b"\t0000\t" in outs[0] and b"\tis 0000\n" in outs[0]
    with pytest.raises(UserError, match="no such file"):
        estimate.train_ngram([str(tmp_path / "absent*")], 2, str(tmp_path / "m.arpa"))
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"body": "a"}\n')
    with pytest.raises(UserError, match=r"bad\.jsonl, line 2: expected a JSON object with the field 'text'"):
        estimate.train_ngram([str(tmp_path / "bad.jsonl")], 2, str(tmp_path / "m.arpa"))
    (tmp_path / "cut.jsonl.gz").write_bytes((tmp_path / "b.jsonl.gz").read_bytes()[:-12])
    with pytest.raises(UserError, match=r"cut\.jsonl\.gz: cannot be read"):
        estimate.train_ngram([str(tmp_path / "cut.jsonl.gz")], 2, str(tmp_path / "m.arpa"))
