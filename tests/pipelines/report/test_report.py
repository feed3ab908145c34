"""The report: complete, self-contained, true, and nothing that was crawled can run. In a browser: test_browser.py.

Covers: write_report.py, curation/clusters.py, curation/cost.py, curation/domains.py, curation/funnel.py,
curation/page.py, curation/report_data.py, curation/safety.py, curation/samples.py, curation/sankey.py,
curation/signals.py, curation/sliders.py, curation/thresholds.py, html/charts.py, html/page.py, training/page.py,
pipelines/lookup/ledger.py, pipelines/lookup/original_text.py, pipelines/lookup/training_run.py
"""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from curation.storage import Storage
from pipelines.lookup import training_run
from pipelines.report.curation import funnel, report_data, signals, sliders, thresholds
from pipelines.report.curation import page as curation
from pipelines.report.curation.report_data import gather
from pipelines.report.html import charts
from pipelines.report.html import page as page_frame
from pipelines.report.training import page as training
from pipelines.report.write_report import write_report
from pipelines.what_if.what_if import what_if

VOID = {"meta", "link", "input", "br"}


class Page(HTMLParser):
    """Elements, attributes and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.text.append(data)

    @property
    def data(self) -> dict[str, Any]:
        """What the page's scripts get."""
        return json.loads(self.scripts[0])


@pytest.fixture(scope="module")
def page(tiny):
    path = write_report(str(tiny), price=0.05)
    assert path == str(tiny / "report.html")
    return (tiny / "report.html").read_text("utf-8")


def test_well_formed_and_self_contained(page):
    parsed = Page(page)
    assert parsed.open == []
    for tag, attributes in parsed.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, value)
    assert "@import" not in page and "url(" not in page
    assert len(page) < 10_000_000


def test_what_was_crawled_cannot_run(page):
    parsed = Page(page)
    assert [tag for tag, _ in parsed.elements].count("script") == 2  # the data, and the page's own
    assert not any(tag in ("img", "iframe", "object", "base", "form") for tag, _ in parsed.elements)
    assert not any(name.startswith("on") for _, attributes in parsed.elements for name in attributes)
    (policy,) = [a["content"] for _, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'") and re.search(r"script-src 'sha256-[\w+/=]{44}';", policy)
    assert "<" not in parsed.scripts[0] and "\u2028" not in parsed.scripts[0]
    samples = {s["text"]: s for s in parsed.data["samples"]}
    assert "<script>alert(1)</script><img src=x onerror=alert(2)> @nav@ @body@ </pre></style> javascript:alert(3)" in (
        samples
    )
    dropped = samples["<script>x</script>"]  # from the cache
    assert (dropped["step"], dropped["rule"], dropped["of"]) == ("length", "short", 1)
    assert dropped["value"] == "length.chars = 18" and dropped["sql"] == "length.chars >= 20"
    assert dropped["url"] == "http://example.com/0?q=<b>&amp;"
    text = "".join(parsed.text)
    assert "<b>long</b>" in text  # a signal's value
    assert "<i>once</i> upon a time" in text
    assert "http://bad/<b>" in text


def test_figures_of_the_run(page):
    text = re.sub(r"\s+", " ", " ".join(Page(page).text))
    assert "42 records read = 32 documents kept + 10 dropped" in text
    assert "length.chars >= 20" in text
    assert "exact_dedup −9 21.4%" in text  # nine of ten copies
    assert "at 0.05 per core-hour" in text
    assert "of 4 planned" in text and "steps 4 3 75.0% tokens 256 192 75.0%" in text
    assert "Incident 1, confirmed at step 3" in text and "Anomalous steps: 2, 3" in text


def test_bytes_and_tokens_add_up(tiny):
    found = gather(str(tiny))
    by_rule = {d.rule: d for d in funnel.dropped_by_rule(found)}
    same = len("The same text, as often as it is crawled, is one document.")
    assert by_rule["exact_duplicate"].documents == 9 and round(by_rule["exact_duplicate"].bytes) == 9 * same
    assert 10 < by_rule["short"].bytes < 60  # never stored: by the bytes of its line
    kept = found.sizes.bytes[found.is_kept].sum()
    assert kept == found.run["counts"]["text_bytes"]
    total = sum(d["tokens"] for s in found.manifest["splits"].values() for d in s.values())
    assert found.sizes.tokens[found.is_kept].sum() == total


def test_signals_count_every_document(tiny):
    found = gather(str(tiny))
    chars = signals.histogram(found.signal("length.chars"), found.is_kept)
    assert (int(chars.kept.sum()), int(chars.dropped.sum())) == (32, 10)
    assert found.counts.documents["exact_dedup", "exact_duplicate", "web"] == 9
    assert found.counts.of(None) == 32 and found.counts.of("length", "web") == 1
    assert sum(len(s) for s in found.dropped.values()) == 10
    assert all(s.text for samples in found.dropped.values() for s in samples)


def test_the_slider_says_what_the_rules_would(tiny):
    """At every stop of a tighter threshold, exactly the documents that what-if keeps."""
    found = gather(str(tiny))
    (entry,) = [
        e
        for e in sliders.slider_data(found, thresholds.find_thresholds(found.rules, []))
        if e["signal"] == "length.chars"
    ]
    assert entry["stops"][entry["today"]] == 20 and entry["template"] == "length.chars >= {}"
    for i in range(entry["today"], len(entry["stops"]), 3):
        answer = what_if(str(tiny), [f"length.short={entry['template'].format(entry['stops'][i])}"], 0)
        assert 32 - (entry["kept"][entry["today"]] - entry["kept"][i]) == answer.after["documents"]
    assert entry["back"][0] == 1  # <script>x</script> comes back


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("a.x >= 0.5", [(">=", 0.5, "a.x >= {}")]),
        ("0.5 <= a.x", [(">=", 0.5, "{} <= a.x")]),
        ("a.x BETWEEN 50 AND -1e5", [(">=", 50, "a.x BETWEEN {} AND -1e5"), ("<=", -1e5, "a.x BETWEEN 50 AND {}")]),
        ("a.code = 'é' AND a.x < 3", [("<", 3, "a.code = 'é' AND a.x < {}")]),
        ("NOT coalesce((domain = 'web'), FALSE) OR (a.x > CAST('2.5' AS DOUBLE))", [(">", 2.5, "a.x > {}")]),
        ("a.x >= quantile(a.x, 0.25)", [(">=", 7.5, "a.x >= {}")]),
        ("NOT a.duplicate", []),
        ("a.x + 1 >= 3", []),
        ("a.x >= a.y", []),
    ],
)
def test_thresholds_of_rules(sql, expected):
    known = [{"signal": "a.x", "p": 0.25, "by": None, "value": 7.5}]
    found = thresholds.find_thresholds({"a": {"r": sql}}, known)
    assert [(t.op, t.value, t.template) for t in found] == expected


def test_thresholds_by_group_are_drawn_and_not_moved():
    known = [{"signal": "a.x", "p": 0.6, "by": "domain", "value": {"web": 3.0, "code": None}}]
    (found,) = thresholds.find_thresholds({"a": {"r": "a.x <= quantile(a.x, 0.6, by domain)"}}, known)
    assert (found.op, found.value, found.group, found.movable) == ("<=", 3.0, "web", False)


def test_bins_end_at_a_threshold():
    values = np.random.default_rng(1).normal(size=1000)
    data = signals.histogram(values, values > 0.1, [0.1])
    assert np.isclose(data.edges, 0.1).any() and int(data.kept.sum() + data.dropped.sum()) == 1000
    below = data.edges[1:] <= 0.1 + 1e-9
    assert data.kept[below].sum() == 0 and data.dropped[~below].sum() == 0
    assert signals.histogram(np.full(5, np.nan), np.ones(5, bool)) is None
    same = signals.histogram(np.full(5, 3.0), np.ones(5, bool))
    assert same.kept.sum() == 5


def test_of_a_large_run_a_part_of_the_rows_is_held(tiny, monkeypatch):
    monkeypatch.setattr(report_data, "ROWS", 20)
    found = gather(str(tiny))
    assert found.rows.num_rows == 20 and found.scale == 42 / 20
    assert found.counts.of(None) == 32  # counted over all
    page = Page(curation.render(found))
    assert "20 of 42 records" in re.sub(r"\s+", " ", " ".join(page.text))


@given(st.text(alphabet=st.characters(), max_size=40))  # lone surrogates, NULs, separators of lines too
@example("</script><!--\u2028\ud800\x00")
def test_data_in_the_page_ends_where_it_should(text):
    made = page_frame.as_json({"text": text})
    assert not set(made) & set("<>&\u2028\u2029") and made.encode("utf-8")
    assert json.loads(made)["text"] == text.encode("utf-8", "replace").decode()


def test_written_elsewhere(tiny, tmp_path):
    assert write_report(str(tiny), str(tmp_path / "x" / "y.html")) == str(tmp_path / "x" / "y.html")
    assert (tmp_path / "x" / "y.html").stat().st_size > 1000


def test_a_training_has_a_page_of_its_own(tiny):
    path = write_report(str(tiny / "train" / "tiny"))
    parsed = Page((tiny / "train" / "tiny" / "report.html").read_text("utf-8"))
    assert path.endswith("tiny/report.html") and parsed.open == []
    assert [a["id"] for t, a in parsed.elements if t == "section"] == [
        *("overview", "loss", "optimization", "evaluation", "incidents", "plan", "sample")
    ]
    read = training_run.read(str(tiny / "train" / "tiny"))
    planned = re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", training.plan(read))
    assert training.plan(read).count("<tr>") == 6
    for row in (
        ["tokens per second", "77", "96", "125.0%"],
        ["memory on the first device", "4.0 GB", "3.0 GB", "75.0%"],
    ):
        at = planned.index(row[0])
        assert planned[at : at + 4] == row
    assert ("MFU", "50.0%", "of the devices' peak") in training.tiles(read)


def test_without_cache_text_is_read_again_from_the_source(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "run", ignore=shutil.ignore_patterns("cache"))
    found = gather(str(tmp_path / "run"))
    texts = {s.text for samples in found.dropped.values() for s in samples}
    assert texts == {"<script>x</script>", "The same text, as often as it is crawled, is one document."}


def test_without_cache_and_source_samples_have_no_text(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "run", ignore=shutil.ignore_patterns("cache"))
    store = Storage(str(tmp_path / "run"))
    run = store.read_json("run.json")
    for item in run["inputs"]:
        item["root"] = str(tmp_path / "gone")
    store.write_json("run.json", run)
    found = gather(str(tmp_path / "run"))
    assert all(s.text is None for samples in found.dropped.values() for s in samples)
    assert "script>x<" not in json.dumps(Page(curation.render(found)).data["samples"])


def test_what_is_read_again_is_scrubbed(small_run, tmp_path):
    """A document that a rule dropped before `pii` ran is stored nowhere; what the report shows of it is scrubbed."""
    from curation.config.load_pipeline import load_pipeline
    from curation.engine.runtime.run import curate

    shutil.copy(small_run.parent / "own.py", tmp_path / "own.py")
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"text": "mail jane.roe@corp.net"})
        + "\n"
        + json.dumps({"text": "A document long enough to stay, that says nothing else. " * 3})
        + "\n"
    )
    (tmp_path / "p.yaml").write_text(
        "sources: [{name: web, read: text, path: a.jsonl}]\n"
        "steps: [{'own.py:Length': {}, keep: {short: length.chars >= 40}}, pii]\n"
    )
    pipeline = load_pipeline(str(tmp_path / "p.yaml"))
    curate(pipeline, str(tmp_path / "run"), executor="inline")
    page = curation.render(gather(str(tmp_path / "run")))
    assert "mail <EMAIL_ADDRESS>" in {s["text"] for s in Page(page).data["samples"]}
    assert "jane.roe" not in page


def test_curves_of_odd_losses():
    assert charts.curves("loss", {"a": []}) == ""
    marked = charts.curves("loss", {"a": [(1, 2.0), (3, 1.0)]}, marks={2: "step 2: <spike>"})
    assert marked.count('class="mark"') == 1 and "<title>step 2: &lt;spike&gt;</title>" in marked
    one = charts.curves("loss", {"a": [(1, 2.0)], "b": [(1, float("nan"))]})
    assert "<polyline" in one and "nan" not in one
    assert len(charts.downsample([(i, 1.0) for i in range(100_000)])) <= 600
    for low, high in ((0, 1), (-3.2, 17), (1e-9, 2e-9), (5, 5)):
        found = charts.ticks(low, high)
        assert 1 <= len(found) <= 11 and all(low - 1e-12 <= t <= high + 1e-12 for t in found)
