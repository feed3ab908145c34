"""Rules: what is understood, what is refused with which message, and which documents stay.

Covers: sql_restrictions.py
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import document
from curation.config.rules import Decider, Quantile, check_columns, flatten, parse, substitute
from curation.core.errors import UserError

LANGUAGE = pa.struct([("code", pa.string()), ("score", pa.float64())])
SCHEMA = pa.schema([*document.BASE, pa.field("read", document.READ), pa.field("language", LANGUAGE)])
WHERE = "p.yaml:7: steps.language.keep.r"


def batch(scores, codes=None, **columns):
    n = len(scores)
    languages = [
        None if s == "null" else {"code": c, "score": s} for s, c in zip(scores, codes or ["en"] * n, strict=True)
    ]
    arrays = []
    for f in SCHEMA:
        if f.name == "language":
            arrays.append(pa.array(languages, LANGUAGE))
        elif f.name == "doc_id":
            arrays.append(pa.array([bytes(16)] * n, f.type))
        else:
            arrays.append(pa.array(columns.get(f.name, [None] * n), f.type))
    return pa.record_batch(arrays, schema=SCHEMA)


def test_parse_finds_columns_in_order_and_quantiles():
    rule = parse("r", "language.score >= quantile(language.score, 0.6, by language.code) AND url IS NOT NULL", WHERE)
    assert rule.columns == ("language.score", "url", "language.code")
    assert rule.quantiles == (Quantile("language.score", 0.6, "language.code"),)


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("text <> 'quantile(a, 1)' -- foo )", ("text",)),
        ("/* quantile(x,1) ( */ text ~ '^a'", ("text",)),
        ("list_bool_or(list_transform([1.0, 2.0], lambda q: q > language.score))", ("language.score",)),
        ("age(date, date) IS NULL OR length(text) > 2", ("date", "text")),
        ('"language"."score" BETWEEN 0.1 AND 0.5', ("language.score",)),
        ("CASE WHEN read.status = 200 THEN TRUE ELSE url LIKE '%x' END", ("read.status", "url")),
        ("nullif(split_part(url, '/', 3), '') IS NOT NULL", ("url",)),
        ("source.file LIKE 'a%' AND domain IN ('web', 'code')", ("source.file", "domain")),
    ],
)
def test_accepted(sql, columns):
    rule = parse("r", sql, WHERE)
    check_columns(rule, flatten(SCHEMA))
    assert rule.columns == columns


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("", "is empty"),
        ("language.score >", "is not SQL"),
        ("text = 'a'; SELECT 1", "is not SQL"),
        ("text = 'a') OR (text = 'b'", "unmatched ')'"),
        ("text = 'a', url = 'b'", "expected an expression that is true or false"),
        ("text = 'a' FROM x", "is not SQL"),
        ("1 = 1", "looks at no signal"),
        ("language.score", "is a double"),
        ("text IN (SELECT 1)", "has a subquery"),
        ("count(text) > 1", "aggregates (count)"),
        ("first(text) = text", "aggregates (first)"),
        ("weighted_avg(language.score, 1) > 1", "aggregates (sum)"),
        ("sum(language.score) OVER () > 1", "window function"),
        ("unnest([text]) = 'a'", "does not give one value a row"),
        ("random() < language.score", "random(), which varies"),
        ("now() > date", "now(), which varies"),
        ("CAST(uuid() AS VARCHAR) = text", "uuid(), which varies"),
        ("current_date > date", "reads the clock (current_date)"),
        ("current_localtimestamp() > date", "varies from run to run"),
        ("age(date) > INTERVAL 1 DAY", "varies from run to run"),
        ("ago(INTERVAL 1 DAY) > date", "varies from run to run"),
        ("current_setting('threads') = text", "varies from run to run"),
        ("lowerr(text) = 'a'", "did you mean lower"),
        ("text.lower() = 'a'", "write lower(text, ...)"),
        ("language.score > $1", "has a parameter"),
        ("COLUMNS('t.*') = 'a'", "uses * or COLUMNS()"),
        ("language.scor > 1", "did you mean language.score"),
        ("Language.score > 1", "did you mean language.score"),
        ("language IS NULL", "did you mean language.code, language.score"),
        ("perplexity.value > 1", "signals so far: date, doc_id"),
        ("language.code > 3", "language.code is string"),
        ("text ~ '('", "does not fit its signals"),
        ("quantile(text, 0.5) > 1", "asks for a quantile of text"),
        ("quantile(language.score, 1.5) > 1", "asks for the quantile '1.5'"),
        ("quantile(language.score) > 1", "expected quantile(step.signal, p)"),
        ("quantile(language.score + 1, 0.5) > 1", "which is not a signal"),
    ],
)
def test_refused_with_place_rule_and_advice(sql, said):
    with pytest.raises(UserError) as error:
        check_columns(parse("r", sql, WHERE), flatten(SCHEMA))
    message = str(error.value)
    assert message.startswith(f"{WHERE}: rule 'r' ")
    assert said in message
    assert sql in message


def test_substitute_is_exact_and_by_group():
    rule = parse(
        "r", "language.score > quantile(language.score, 0.5) + QUANTILE (language.score, 0.9, BY language.code)", WHERE
    )
    one, by = rule.quantiles
    sql = substitute(rule, {one: 0.1 + 0.2, by: {"en": 1e-300, "d'e": 2.0, "fr": math.nan}})
    assert sql == (
        "language.score > CAST('0.30000000000000004' AS DOUBLE) + "
        "(CASE CAST(\"language\".\"code\" AS VARCHAR) WHEN 'd''e' THEN CAST('2.0' AS DOUBLE)"
        " WHEN 'en' THEN CAST('1e-300' AS DOUBLE) END)"
    )
    assert substitute(rule, {one: None, by: {}}).count("CAST(NULL AS DOUBLE)") == 2


def test_quantile_by_group_decides_and_a_group_without_a_value_drops():
    rule = parse("r", "language.score >= quantile(language.score, 0.5, by language.code)", WHERE)
    sql = substitute(rule, {rule.quantiles[0]: {"en": 0.5, "de": 0.1}})
    failed, values = Decider({"r": sql}, SCHEMA).decide(batch([0.5, 0.4, 0.2, 0.9], ["en", "en", "de", "fr"]))
    assert failed.tolist() == [-1, 0, -1, 0]
    assert values[3] == '{"language.score":0.9,"language.code":"fr"}'


def test_first_rule_that_is_not_true_decides():
    decider = Decider(
        {"code": "language.code = 'en'", "meta": "CAST(meta AS INTEGER) > 3", "score": "language.score > 0.5"}, SCHEMA
    )
    rows = batch(
        [0.9, 0.9, "null", math.nan, 0.6, 0.2],
        ["en", "en", "en", "en", "en", "de"],
        meta=["x", "4", "4", "5", None, "9"],
    )
    failed, values = decider.decide(rows)
    assert failed.dtype == np.int32
    assert failed.tolist() == [1, -1, 0, 2, 1, 0]
    assert values == [
        '{"meta":"x"}',
        None,
        '{"language.code":null}',
        '{"language.score":null}',
        '{"meta":null}',
        '{"language.code":"de"}',
    ]


@pytest.mark.parametrize(
    "sql", ["1 / language.score > 0", "ln(language.score) IS NULL OR TRUE", "language.score / 0 > 1"]
)
def test_figures_that_do_not_exist_are_null(sql):
    failed, _ = Decider({"r": sql}, SCHEMA).decide(batch([0.0, -0.0]))
    assert failed.tolist() == ([-1, -1] if "TRUE" in sql else [0, 0])


def test_values_are_short_and_json():
    decider = Decider({"r": "length(text) < 3 AND language.score < 1 AND date IS NULL AND doc_id IS NULL"}, SCHEMA)
    rows = batch([math.inf], text=["é" * 1000], date=[86400])
    value = json.loads(decider.decide(rows)[1][0])
    assert value == {
        "text": "é" * 200 + "…",
        "language.score": "inf",
        "date": "1970-01-02 00:00:00",
        "doc_id": "0" * 32,
    }


def test_no_rules_and_no_rows():
    failed, values = Decider({}, SCHEMA).decide(batch([0.1]))
    assert failed.tolist() == [-1] and values == [None]
    failed, values = Decider({"r": "url IS NULL"}, SCHEMA).decide(batch([]))
    assert failed.tolist() == [] and values == []


def test_large_batches_keep_their_order():
    scores = [i / 10_000 for i in range(10_000)]
    decider = Decider({"broken": "meta IS NULL OR CAST(meta AS INTEGER) > 0", "r": "language.score >= 0.5"}, SCHEMA)
    failed, _ = decider.decide(batch(scores, meta=["x" if i % 3000 == 0 else None for i in range(10_000)]))
    expected = [0 if i % 3000 == 0 else -1 if i >= 5000 else 1 for i in range(10_000)]
    assert failed.tolist() == expected


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.one_of(st.just("null"), st.none(), st.floats()), min_size=1, max_size=20),
    st.lists(st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]))), min_size=20, max_size=20),
)
def test_row_wise_whatever_the_batch(scores, texts):
    rows = batch(scores, text=texts[: len(scores)])
    decider = Decider(
        {"a": "length(text) >= 1 AND lower(text) <> 'ß'", "b": "language.score * 2 > 0.5 OR language.score < -1"},
        SCHEMA,
    )
    failed, values = decider.decide(rows)
    for i in range(len(scores)):
        one, value = decider.decide(rows.slice(i, 1))
        assert (one[0], value[0]) == (failed[i], values[i])
        assert value[0] is None or json.loads(value[0]) is not None
    decider.close()


def test_no_file_can_be_read():
    with pytest.raises(UserError):
        check_columns(parse("r", "getenv('HOME') = text", WHERE), flatten(SCHEMA))
    with pytest.raises(UserError):
        check_columns(parse("r", "text IN (FROM read_text('/etc/passwd'))", WHERE), flatten(SCHEMA))


def test_locale_time_zone_and_hash_seed_do_not_matter():
    program = """
import pyarrow as pa, datetime
from curation.config.rules import Decider
schema = pa.schema([("text", pa.string()), ("date", pa.timestamp("s")), ("x", pa.float64())])
rows = pa.record_batch([["İstanbul", "1,5"], [datetime.datetime(2020, 1, 1, 0, 30), None], [0.1, 1e22]], schema=schema)
rule = "lower(text) = 'x' OR strftime(date, '%A %B %H') = 'x'"
rule += " OR CAST(date AS VARCHAR) = CAST(CAST(date AS TIMESTAMPTZ) AS VARCHAR) AND x < 0"
failed, values = Decider({"r": rule}, schema).decide(rows)
print(failed.tolist(), ascii(values))
"""
    out = set()
    for environment in (
        {"TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "1"},
        {"TZ": "America/Lima", "LC_ALL": "tr_TR.UTF-8", "PYTHONHASHSEED": "2"},
    ):
        run = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **environment, "PYTHONPATH": os.getcwd()},
            capture_output=True,
            text=True,
            check=True,
        )
        out.add(run.stdout)
    assert len(out) == 1
