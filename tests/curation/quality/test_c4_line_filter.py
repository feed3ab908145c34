"""The lines that C4 keeps: against the plain reference and against datatrove's rewriting."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curation.document import clean_text
from curation.quality.c4_line_filter import C4LineFilter
from tests.curation.quality.heuristics.reference import line_words, longest_word

POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
CITATION = re.compile(r"\[[0-9]*\]|\[edit\]|\[citation needed\]", re.IGNORECASE)


def reference(text: str, terminal: bool) -> tuple[str, int, int]:
    kept, lines = [], 0
    for line in (s.strip() for s in text.splitlines()):
        if not line:
            continue
        lines += 1
        bare = re.sub(f"({CITATION.pattern})+$", "", line, flags=re.IGNORECASE)
        low = re.sub("[A-Z]+", lambda m: m.group().lower(), line)
        ends = bare.endswith((".", "?", "!", '"', "'")) and not bare.endswith("...")
        if longest_word(line) > 1000 or (terminal and not ends) or line_words(line) < 3:
            continue
        if "javascript" in low or any(p in low for p in POLICIES):
            continue
        kept.append(CITATION.sub("", line))
    out = ""
    for line in kept:  # a line that was citations alone still parts its neighbours
        out += ("\n" if out else "") + line
    return out, lines, len(kept)


def rewrite(texts: list[str | None], terminal: bool = True) -> list[tuple[str, int, int]]:
    step = C4LineFilter(terminal=terminal)
    out = step(pa.record_batch({"text": pa.array(texts, pa.large_string())}))
    out.validate(full=True)
    assert out.schema.field("c4_line_filter").type == pa.struct(list(step.signals))
    signals = out.column("c4_line_filter").to_pylist()
    return [(t, s["lines"], s["kept"]) for t, s in zip(out.column("text").to_pylist(), signals, strict=True)]


PARTS = ["one two three.", "a line without an end", "it goes on...", "uses cookies a lot.", "JavaScript is off.",
         "short.",
    "[1]", "[edit]", "[Citation Needed]", "[12", "x" * 1001 + " a b.", "Ünïcode 日本語 👩‍💻 fine!", "[1] [2] [3].",
         "水车旁有一座磨坊.", "磨坊.", "มีโรงสีริมน้ำแห่งหนึ่ง.", "水" * 1001 + "!",
         "\n", "\n", "\r\n", "\u2028", " ", "\t", "{ a b c }."]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(st.lists(st.sampled_from(PARTS), max_size=20).map("".join), st.text(max_size=80)).map(clean_text),
        max_size=4,
    ),
    st.booleans(),
)
@example(["", "[1][2][3]\nthe end is near.", "a b [1] c.[2]\n[3] d e f."], True)
def test_equals_the_reference(texts: list[str], terminal: bool) -> None:
    assert rewrite(list(texts), terminal) == [reference(t, terminal) for t in texts]


def test_nulls_slices_and_rules() -> None:
    texts = [None, "one two three.", "", "ä ö ü!\nnot this"]
    assert rewrite(texts) == [("", 0, 0), ("one two three.", 1, 1), ("", 0, 0), ("ä ö ü!", 2, 1)]
    step = C4LineFilter()
    batch = pa.record_batch({"text": pa.array(texts, pa.large_string())}).slice(1, 3)
    assert step(batch).column("text").to_pylist() == ["one two three.", "", "ä ö ü!"]
    assert step(batch.slice(0, 0)).num_rows == 0
    assert step.rules() == {"empty": "c4_line_filter.kept > 0"}


@pytest.mark.parametrize(
    ("short", "line"),
    [
        ("联系我们", "老磨坊在小河边。"),
        ("お問い合わせ", "古い水車小屋は小川のそばにある。"),
        ("ติดต่อเรา", "โรงสีเก่าอยู่ริมลำธาร"),
        ("ទំនាក់ទំនង", "រោងម៉ាស៊ីនចាស់នៅក្បែរអូរតូច។"),
        ("문의 하기", "낡은 물레방아는 시냇가에 있다."),
        ("संपर्क करें", "पुरानी चक्की नाले के पास है।"),
    ],
)
def test_words_are_counted_in_every_script(short: str, line: str) -> None:
    """C4's rule of three words removes what a menu has, and keeps a sentence, also in scripts without spaces."""
    rest = line * 120  # in a script without spaces no word of over 1,000 characters
    rest = rest if len(rest.split()) == 1 else "x"
    assert rewrite([f"{short}\n{line}\n{line[:2]} x\n" + rest], terminal=False)[0][2] == 1 + (rest != "x")


def test_leaves_what_datatrove_leaves() -> None:
    filters = pytest.importorskip("datatrove.pipeline.filters")
    from datatrove.data import Document

    text = "\n".join(
        [
            "  The mill stands by the brook.[1] ",
            "Home",
            "It turns [2] all day long",
            "Enable javascript to see it.",
            "This site uses cookies, sadly.",
            "",
            "Nobody has [edit] counted the sacks.",
        ]
    )
    for terminal in (True, False):
        document = Document(text=text, id="")
        block = filters.C4QualityFilter(filter_no_terminal_punct=terminal, min_num_sentences=-1)
        assert block.filter(document) is True
        assert rewrite([text], terminal)[0][0] == document.text
