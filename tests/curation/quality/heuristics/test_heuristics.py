"""The step `heuristics`: thresholds, sets of rules, agreement with datatrove."""

from __future__ import annotations

import gzip
import json
import pickle
import random
import re
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from curation.core.errors import UserError
from curation.document import clean_text
from curation.quality.c4_line_filter import C4LineFilter
from curation.quality.heuristics.heuristics import Heuristics
from tests.curation.quality.heuristics.reference import ALL, measure


def verdicts(texts: list[str], sets: tuple[str, ...] = ALL, c4_terminal: bool = True) -> list[dict[str, bool]]:
    step = Heuristics(sets=list(sets), c4_terminal=c4_terminal)  # type: ignore[arg-type]
    values = measure(list(texts), sets, c4_terminal)
    connection = duckdb.connect()
    connection.register("measured", pa.table({"n": range(len(texts)), "heuristics": values}))
    columns = ", ".join(f"({sql}) AS {name}" for name, sql in step.rules().items())
    # type: ignore[no-any-return]
    return connection.sql(f"SELECT {columns} FROM measured ORDER BY n").to_arrow_table().to_pylist()


PROSE = """The river rises in the hills to the north of the town and turns west after the second bridge. In spring it
carries so much water that the lower meadows have to be given up to it for weeks.

People who live along the banks do not complain. They say that a house with wet feet lasts longer than one with a dry
roof, and nobody has ever proved them wrong. Every few years somebody from the ministry comes to measure things.

What was measured is written into a green book, which is kept in the office of the mayor. My grandfather read it once,
from cover to cover, during a strike. He used to be asked about it at dinner, and he answered with the same four words.
"""


def test_rules_by_the_papers_thresholds() -> None:
    cases = {
        "gopher_word_count": "The cat sat with the dog and that was that.",
        "gopher_mean_word_length": "a b c d e f g of to " * 20,
        "gopher_hash_ratio": "# the word and # that " * 30,
        "gopher_ellipsis_lines": "the word and that of many ...\n" * 20,
        "gopher_bullet_lines": "\n".join(f"- the point number {i} and that" for i in range(30)),
        "gopher_alpha_words": "1 2 3 the and 4 5 6 " * 20,
        "gopher_stop_words": "nothing here matches anything common anywhere today " * 20,
        "gopher_dup_line_frac": "the same line and that again\n" * 20,
        "gopher_dup_para_frac": "the same block and that again\n\n" * 20,
        "gopher_top_2gram": "click here " * 60,
        "gopher_dup_10gram": "one two three four five six seven eight nine ten " * 10,
        "c4_sentences": "No line ends as it should, the whole page long, and that is it",
        "c4_lorem_ipsum": PROSE + "\nLorem ipsum dolor sit amet.",
        "c4_curly_bracket": PROSE + "\nif (x) { return the value. }.",
        "fineweb_punct_line_ratio": "\n".join(f"menu entry number {i} of the list" for i in range(40)),
        "fineweb_short_line_ratio": "\n".join(f"Short line {i}." for i in range(40)),
        "fineweb_dup_char_ratio": PROSE + "\n\n" + PROSE,
        "fineweb_newline_ratio": "\n".join(f"Word{i}." for i in range(100)),
    }
    assert all(verdicts([PROSE])[0].values()), [k for k, v in verdicts([PROSE])[0].items() if not v]
    for rule, text in cases.items():
        assert not verdicts([text])[0][rule], rule


def test_brackets_of_formulas_are_no_code() -> None:
    for formula in (r"the sum $x_{1}^{2}$ holds.", r"and $$\frac{a}{b}<{c}$$ is right."):
        assert verdicts([PROSE + "\nSo we see that " + formula])[0]["c4_curly_bracket"]
    for code in ("the call `${a}${b}` is here.", "costs $5 {x} and $6 now.", r"so $a$ or {b} or $c$ holds."):
        assert not verdicts([PROSE + "\nSo we see that " + code])[0]["c4_curly_bracket"]


def test_sets_choose_signals_and_rules() -> None:
    assert all(not r.startswith("gopher") for r in Heuristics(sets=["c4", "fineweb"]).rules())
    repetition = Heuristics(sets=["gopher_repetition"], name="h")
    assert "words" not in repetition.signals.names and len(repetition.rules()) == 13
    assert all("h." in sql for sql in repetition.rules().values())
    assert len(Heuristics(sets=["gopher"]).rules()) == 8 + 13
    with pytest.raises(UserError, match="empty"):
        Heuristics(sets=[]).check()
    for sets in (["c4"], ["fineweb"], ["gopher_repetition"]):  # a set alone measures what it measures with the others
        (alone,), (together,) = measure([PROSE], tuple(sets)), measure([PROSE])
        assert alone == {k: together[k] for k in alone}


def test_a_step_is_picklable_when_open() -> None:
    step = Heuristics()
    step.open()
    assert pickle.loads(pickle.dumps(step)) == step


def test_decisions_agree_with_datatrove(data: Path) -> None:
    """On crawled pages: filter by filter, all four, and FineWeb's chain, in which C4 hands on the lines it keeps.

    Every kind of difference is in docs/heuristics.md.
    """
    filters = pytest.importorskip("datatrove.pipeline.filters")
    from datatrove.data import Document
    from resiliparse.extract.html2text import extract_plain_text

    pages = list(_pages(data / "crawl" / "docs-00.warc.gz"))
    pages = random.Random(0).sample(sorted(pages), 120)
    texts = [t for t in (clean_text(extract_plain_text(p, main_content=True)) for p in pages) if 0 < len(t) < 20_000]
    ours = verdicts(texts)
    families = {
        filters.GopherQualityFilter(): [
            r for r in ours[0] if r.startswith("gopher") and not re.search("_dup_|_top_", r)
        ],
        filters.GopherRepetitionFilter(): [r for r in ours[0] if re.search("gopher_(dup|top)_", r)],
        filters.C4QualityFilter(): [r for r in ours[0] if r.startswith("c4")],
        filters.FineWebQualityFilter(): [r for r in ours[0] if r.startswith("fineweb")],
    }
    together = [True] * len(texts)
    for block, rules in families.items():
        theirs = [block.filter(Document(text=t, id="")) is True for t in texts]
        together = [a and b for a, b in zip(together, theirs, strict=True)]
        same = sum(all(v[r] for r in rules) == kept for v, kept in zip(ours, theirs, strict=True))
        assert same >= 0.98 * len(texts), (type(block).__name__, same, len(texts))
    same = sum(all(v.values()) == kept for v, kept in zip(ours, together, strict=True))
    assert same >= 0.98 * len(texts), ("all four", same, len(texts))

    chain = [filters.GopherRepetitionFilter(), filters.GopherQualityFilter()]
    chain += [filters.C4QualityFilter(filter_no_terminal_punct=False), filters.FineWebQualityFilter()]
    documents = [Document(text=t, id="") for t in texts]
    theirs = [all(block.filter(d) is True for block in chain) for d in documents]
    batch = pa.record_batch({"text": pa.array(texts, pa.large_string())})
    left = C4LineFilter(terminal=False)(batch).column("text").to_pylist()
    before = verdicts(texts, ("gopher", "c4"), c4_terminal=False)
    mine = [all((a | b).values()) for a, b in zip(before, verdicts(left, ("fineweb",)), strict=True)]
    same = sum(a == b for a, b in zip(mine, theirs, strict=True))
    assert same >= 0.98 * len(texts), ("FineWeb's chain", same, len(texts))


def _pages(path: Path) -> list[str]:
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    pages = []
    with gzip.open(path) as f:
        for record in ArchiveIterator(f, record_types=WarcRecordType.response):
            if "html" in (record.http_content_type or ""):
                pages.append(record.reader.read().decode("utf-8", "replace"))
            if len(pages) == 400:
                break
    return pages


def test_rules_are_json_able() -> None:
    assert json.dumps(dict(Heuristics().rules()))
