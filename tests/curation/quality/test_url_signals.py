"""URL signals: hosts and domains, lists, words; and the same decisions as datatrove's filter."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.core.errors import UserError
from curation.quality.url_signals import UrlSignals


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lists are hashed into a folder of this test's own."""
    monkeypatch.setenv("GRISTMILL_MODELS", str(tmp_path / "models"))
    return tmp_path / "models" / "lists"


def signals(step: UrlSignals, *urls: str | None) -> list[dict[str, Any]]:
    out = step(pa.record_batch({"url": pa.array(urls, pa.string())}))
    assert out.schema.field(step.name).type == pa.struct(list(step.signals))
    return out.column(step.name).to_pylist()  # type: ignore[no-any-return]


def test_hosts_and_registered_domains() -> None:
    step = UrlSignals(lists=[], words=False)
    found = signals(
        step,
        "https://user:pw@News.BBC.co.uk:8080/a?b#c",
        "http://127.0.0.1:8000/x",
        "http://localhost/",
        "http://例え.jp/",
        "no address",
        "",
        None,
    )
    assert [(f["host"], f["domain"]) for f in found] == [
        ("news.bbc.co.uk", "bbc.co.uk"),
        ("127.0.0.1", None),
        ("localhost", None),
        ("例え.jp", "例え.jp"),
        ("no address", None),
        (None, None),
        (None, None),
    ]
    assert all((f["listed"], f["hard_words"], f["soft_words"], f["subword"]) == (None, 0, 0, False) for f in found)
    assert step.rules() == {}


def test_own_lists(tmp_path: Path, cache: Path) -> None:
    listed = tmp_path / "bad.txt"
    listed.write_text("# ours\nbad.com\nads.good.net\n10.0.0.1\nhttp://good.net/only/this\n\n")
    step = UrlSignals(lists=[str(listed)], words=False)
    assert step.inputs() == (str(listed),)
    assert step.rules() == {"listed": "urls.listed IS NULL"}
    urls = {
        "http://bad.com/": "domain",
        "http://www.bad.com/x": "domain",
        "http://notbad.com/": None,
        "http://good.net/": None,
        "http://ads.good.net/": "host",
        "http://x.ADS.good.net/": "host",
        "http://10.0.0.1/x": "host",
        "http://10.0.0.2/x": None,
        "http://good.net/only/this": "url",
        "http://good.net/only/that": None,
    }
    assert [f["listed"] for f in signals(step, *urls)] == list(urls.values())
    (made,) = cache.iterdir()  # the second worker maps what the first one made
    made_at = made.stat().st_mtime_ns
    again = pickle.loads(pickle.dumps(step))
    assert [f["listed"] for f in signals(again, *urls)] == list(urls.values())
    assert made.stat().st_mtime_ns == made_at
    made.write_bytes(b"damaged")
    assert [f["listed"] for f in signals(UrlSignals(lists=[str(listed)], words=False), *urls)] == list(urls.values())
    listed.write_text("")
    assert signals(UrlSignals(lists=[str(listed)], words=False), "http://bad.com/")[0]["listed"] is None


def test_a_list_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"list nowhere\.txt does not exist"):
        UrlSignals(lists=["nowhere.txt"]).check()


def test_decides_as_datatrove_with_the_packaged_words(tmp_path: Path) -> None:
    """Words, substrings and listed domains; its own big list is compared by benchmarks/agreement.py."""
    filters = pytest.importorskip("datatrove.pipeline.filters")
    pytest.importorskip("ahocorasick")
    from datatrove.data import Document
    from datatrove.pipeline.filters.url_filter import ASSETS_PATH

    from curation.datatrove_adapter import _pin_suffix_list

    names = ("banned_words", "soft_banned_words", "banned_subwords")
    words = {n: (Path(ASSETS_PATH) / f"{n}.txt").read_text().split("\n") for n in names}
    words = {n: [w for w in v if w and w[0] != "#"] for n, v in words.items()}
    domains = ["listed.com", "sub.listed.org", "listed.co.uk"]
    (tmp_path / "domains").write_text("\n".join(domains))
    block = filters.URLFilter(
        use_integrated_lists=False,
        extra_domains=domains,
        banned_words=words["banned_words"],
        banned_subwords=words["banned_subwords"],
        soft_banned_words=words["soft_banned_words"],
    )
    for word in block.banned_subwords:
        block.banned_subwords_automaton.add_word(word, 0)
    block.banned_subwords_automaton.make_automaton()
    _pin_suffix_list(block)
    soft = words["soft_banned_words"]
    urls = [f"http://{d}/" for d in (*domains, "www.listed.co.uk", "other.co.uk")]
    urls += [f"http://example.org/{w}/x" for v in words.values() for w in v]
    urls += [f"http://example.org/{w}x" for v in words.values() for w in v]
    urls += [f"http://example.org/{a}-{b}" for a, b in itertools.pairwise(soft)]
    urls += ["http://example.org/Sex/ADULT", "http://example.org/por-n-hub", "http://example.org/a/b.html"]
    step = UrlSignals(lists=[str(tmp_path / "domains")])
    for url, found in zip(urls, signals(step, *urls), strict=True):
        keeps = found["listed"] is None and not found["hard_words"] and found["soft_words"] < 2
        keeps = keeps and not found["subword"]
        assert keeps == (block.filter(Document(text="", id="", metadata={"url": url})) is True), url


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=60), st.text(max_size=30).map("http://{}/".format)), max_size=5))
def test_any_string_is_a_row(urls: list[str | None]) -> None:
    urls = [None if u is None else u.encode("utf-8", "replace").decode() for u in urls]
    step = UrlSignals(lists=[], words=False)
    whole = signals(step, *urls)
    assert len(whole) == len(urls)
    assert [signals(step, u)[0] for u in urls] == whole
