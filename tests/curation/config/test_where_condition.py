"""A rule limited by `where` decides as its two parts do, whatever comments, quotes and parentheses are in them."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curation.config import rules
from curation.config.load_pipeline import load_pipeline
from curation.config.sql_restrictions import connect
from curation.config.where_condition import limit_rule, one_line, parts_of_rule, split_rule
from curation.core.errors import UserError

SCHEMA = pa.schema([("url", pa.string()), ("s", pa.struct([("x", pa.float64()), ("y", pa.float64())]))])
ROWS = [(u, x, y) for u in ("a", "it's", ") OR (", None) for x in (0.0, 2.0, None) for y in (1.0, None)]
BATCH = pa.record_batch(
    [pa.array([u for u, _, _ in ROWS]), pa.array([{"x": x, "y": y} for _, x, y in ROWS], SCHEMA.field("s").type)],
    schema=SCHEMA,
)


CONNECTION = connect("64MB")
CONNECTION.register("documents", pa.Table.from_batches([BATCH]))


def passes(*expressions: str) -> list[list[bool]]:
    """Whether each expression is TRUE of each row, asked as `Decider` asks."""
    columns = ", ".join(f"TRY(({sql}\n)) IS TRUE" for sql in expressions)
    rows = CONNECTION.execute(f"SELECT {columns} FROM documents").fetchall()
    return [list(column) for column in zip(*rows, strict=True)]


def check(rule: str, condition: str) -> None:
    limited = limit_rule(rule, condition)
    assert parts_of_rule(limited) == (rule.strip(), condition.strip())
    kept, where, both, kept_shown, where_shown = passes(rule, condition, limited, *split_rule(limited))
    assert both == [k or not w for k, w in zip(kept, where, strict=True)]
    assert (kept_shown, where_shown) == (kept, where)


ATOMS = st.sampled_from(
    ["s.x > 1", "s.y IS NULL", "url = 'it''s'", "url <> ') OR ('", "s.x + s.y >= 2", "url LIKE '%--%'", "(s.x = 0)",
     'url = E\'it\\\'s\'', "url = $$a$$", "url = $q$) OR ($q$", '"s"."x" < 1', "coalesce(s.x, 0) < s.y",
     "s.x BETWEEN 0 AND 1", "CASE WHEN url IS NULL THEN TRUE ELSE s.x > 0 END", "url IN ('a', '/*')",
     "NOT coalesce((s.x > 1), FALSE) OR (s.y > 0)", "url || '--' = 'a--'", "-s.x < - 1", "s.x*-1 < 0"]
)  # fmt: skip
COMMENTS = st.sampled_from(
    ["", " ", "\n", "/* ) OR ( */", "/* a /* nested */ ' */", "-- it's )\n", "--\r\n", "/**/", ' -- "\n', "/*'*/"]
)
OPERATORS = st.sampled_from([" AND ", " OR ", "\nOR\n", " AND NOT "])
ENDS = st.sampled_from(["", "-- last", " -- it's (", "/* ( */", "\n", "--"])


@st.composite
def expressions(draw: st.DrawFn) -> str:
    parts = [draw(COMMENTS), draw(ATOMS)]
    for _ in range(draw(st.integers(0, 3))):
        parts += [draw(COMMENTS), draw(OPERATORS), draw(COMMENTS), draw(ATOMS)]
    return "".join(parts) + draw(ENDS)


@given(expressions(), expressions())
@settings(max_examples=60, deadline=None)
@example("s.x > 1 -- above one", "url = 'a' -- of a")
@example("s.x > 1 -- above", "s.y > 0), FALSE) OR (url = 'a'")
def test_comments_quotes_and_unions_of_operators(rule: str, condition: str) -> None:
    if is_expression(rule) and is_expression(condition):
        check(rule, condition)


SCRAPS = ["E'", "s.x", "url", " OR ", ">1", "TRUE", "--", "/*", "*/", "$q$", *"()'\"$-/*\\;,\n\r"]


@given(*[st.lists(st.sampled_from(SCRAPS), max_size=12)] * 2)
@settings(max_examples=200, deadline=None)
def test_whatever_is_taken_as_an_expression_is_one(rule: list[str], condition: list[str]) -> None:
    """Around a true expression, so that many are taken."""
    texts = [f"s.x > 1 OR url = 'a' {''.join(part)}" for part in (rule, condition)]
    if all(map(is_expression, texts)):
        check(*texts)


def is_expression(text: str) -> bool:
    try:
        rules.parse("r", text, "")
        passes(text)
    except (UserError, duckdb.Error):
        return False
    return True


@pytest.mark.parametrize(
    "text",
    ["s.x > 1) OR (s.y > 1", "s.x > 1 --\r) OR (TRUE", "s.x > 1 UNION SELECT TRUE", "s.x > 1; SELECT 1", "s.x > 1 /*",
     "/* /* */ s.x > 1", "url = 'a", "s.x > 1 FROM t", "s.x > 1) FROM (SELECT 1"],
)  # fmt: skip
def test_what_is_no_expression_is_refused(text: str) -> None:
    assert not is_expression(text)


def test_rules_of_earlier_runs_are_taken_apart_too() -> None:
    assert split_rule("NOT coalesce((domain = 'web'), FALSE) OR (s.x > 1)") == ("s.x > 1", "domain = 'web'")


@pytest.mark.parametrize("sql", ["s.x > 1", "NOT coalesce((s.x > 1), FALSE)", "NOT coalesce((a), FALSE) OR (b) OR (c)"])
def test_other_rules_are_not_taken_apart(sql: str) -> None:
    assert parts_of_rule(sql) == (sql, "")


def test_on_one_line() -> None:
    assert one_line("  s.x > 1 -- one\n\n  AND url <> 'a  b'/* two */\n") == "s.x > 1 AND url <> 'a  b'"


def test_a_comment_in_a_rule_and_in_where(tmp_path) -> None:
    """From the file: both parts hold, and each is refused by itself if it is no expression."""
    (tmp_path / "texts").mkdir()
    file = tmp_path / "p.yaml"
    text = (
        "sources: [{name: t, read: text, root: texts, path: '*.jsonl'}]\n"
        "steps:\n  - language: {}\n    keep:\n      language: |\n        language.score > 0.5 -- sure enough\n"
        "    where: |\n      domain = 'web' -- pages\n"
    )
    file.write_text(text)
    (entry,) = load_pipeline(str(file)).steps
    assert split_rule(entry.rules["language"]) == ("language.score > 0.5", "domain = 'web'")
    file.write_text(text.replace("-- sure enough", ") OR (TRUE"))
    with pytest.raises(UserError, match=r"language.*unmatched '\)'"):
        load_pipeline(str(file))


def test_a_quantile_among_comments() -> None:
    rule = rules.parse("r", "s.x >= quantile /* of all */ (s.x -- x\n, 0.25 /* a quarter */) -- quantile(s.y, 2)", "")
    assert rule.quantiles == (rules.Quantile("s.x", 0.25),)
    found, expected = passes(rules.substitute(rule, {rule.quantiles[0]: 1.0}), "s.x >= 1")
    assert found == expected
