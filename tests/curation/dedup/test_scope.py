"""The option `scope`: named scopes are SQL, and the SQL of a site is the host that Python's urlsplit finds."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.core.errors import UserError
from curation.dedup.scope import check_scope, scope_expression, scope_salts
from tests.curation.engine import runs
from tests.curation.stages import TaskDocuments, documents

URLS = [
    "http://a.org/1", "https://www.A.org/2", "HTTP://user:pw@a.org:8080/x", "//a.org", "http://a.org?q=//b.org/",
    "http://a.org#f", "http://www.www.org/", "http://[::1]:80/x", "mailto:me@a.org", "a.org/x", "", " http://a.org/",
    "http:///x", "http://a@b@c.org/", "http://é.org/ü", "ftp://a.org", "x+y.z-1://h", "1http://a.org/",
]  # fmt: skip


def salts(scope, **columns):
    n = len(next(iter(columns.values())))
    table = documents(["t"] * n, **columns)
    step = scope_expression(scope)
    (batch,) = TaskDocuments(0, table, batch_rows=n, expressions=dict(step)).batches(["doc_id", *step])
    found = scope_salts(batch)
    return None if found is None else found.tolist()


def host(url):
    return (urlsplit(url or "").hostname or "").removeprefix("www.")


def groups(values):
    first = {}
    return [first.setdefault(v, i) for i, v in enumerate(values)]


def test_all_has_no_salt():
    assert scope_expression("all") == {} and salts("all", url=URLS) is None


def test_a_site_is_the_host_of_the_url():
    urls = [*URLS, None]
    assert groups(salts("site", url=urls)) == groups([host(u) for u in urls])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet="aw.:/?#@-W1\x7f é", max_size=12), min_size=1, max_size=20))
def test_a_site_of_any_text(rests):
    urls = [f"{head}{rest}" for rest in rests for head in ("http://", "//www.", "x")]
    assert groups(salts("site", url=urls)) == groups([host(u) for u in urls])


def test_sources_columns_signals_and_sql():
    source = [{"file": f, "kind": "warc"} for f in ("2023/a.warc", "2024/a.warc", "2024/b.warc", "x.warc")]
    domain = ["web", "web", "web", "code"]
    assert groups(salts("source", source=source, domain=domain)) == [0, 1, 1, 3]
    assert groups(salts("domain", domain=domain)) == [0, 0, 0, 3]
    language = [{"code": c} for c in ("en", "de", None, "en")]
    table = {"language": language, "domain": domain}
    assert groups(salts("language", **table)) == groups(salts("language.code", **table)) == [0, 1, 2, 0]
    assert groups(salts("CASE WHEN domain = 'web' THEN 1 END", domain=domain)) == [0, 0, 0, 3]


def test_an_empty_scope_is_refused():
    with pytest.raises(UserError, match="scope is empty"):
        check_scope("line_dedup", " ")


@pytest.mark.parametrize("step", ["line_dedup", "minhash_dedup"])
def test_a_pipeline_file_takes_names_and_sql_and_refuses_what_is_neither(tmp_path, step):
    def load(scope):
        (tmp_path / "texts").mkdir(exist_ok=True)
        language = {"language": {"model": "lid.176"}}
        source = {"name": "texts", "domain": "web", "read": "text", "root": "texts", "path": "*.jsonl"}
        tree = {"name": "scoped", "sources": [source], "steps": [language, {step: {"scope": scope}}]}
        return runs.load(tmp_path, tree)

    for scope in ("all", "site", "source", "language", "domain", "language.code", "lower(domain)"):
        load(scope)
    refused = {"a.b.c": "a.b.c", "": "scope is empty", "random()": "varies from run to run", "(": "is not SQL"}
    for scope, says in refused.items():
        with pytest.raises(UserError, match=re.escape(says)):
            load(scope)
