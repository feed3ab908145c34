"""The report: complete, self-contained, and nothing that was crawled can run in it."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from pipelines import figures, report
from pipelines.findings import gather

VOID = {"meta", "link", "input", "br", "rect", "line", "polyline"}


class Page(HTMLParser):
    """Elements, attributes and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
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
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)


@pytest.fixture(scope="module")
def trained(small_run):
    folder = small_run / "train" / "tiny"
    folder.mkdir(parents=True, exist_ok=True)
    score = {"perplexity": 9.0, "bits_per_byte": 1.2, "tokens": 5, "windows": 1}
    entries = []
    for i in range(3):
        entries.append({"kind": "validation", "iteration": i, "domains": {"web": {"loss": 3.0 - i, **score}}})
        entries.append({"kind": "train", "iteration": i + 1, "loss": 3.5 - i, "tokens": 64 * (i + 1)})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries) + '{"kind": "tra')
    (folder / "speed.jsonl").write_text('{"iteration": 1, "seconds": 2.0, "tokens_per_s": 32.0}\n')
    (folder / "sample.txt").write_text("<i>once</i> upon a time")
    return small_run


@pytest.fixture(scope="module")
def page(trained):
    path = report.write(str(trained))
    assert path == str(trained / "report.html")
    return (trained / "report.html").read_text("utf-8")


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
    assert [tag for tag, _ in parsed.elements].count("script") == 1
    assert not any(tag in ("img", "iframe", "object", "base", "form") for tag, _ in parsed.elements)
    assert not any(name.startswith("on") for _, attributes in parsed.elements for name in attributes)
    text = "".join(parsed.text)
    assert "<script>alert(1)</script><img src=x onerror=alert(2)> @nav@ @body@ </pre></style>" in text
    assert "<script>x</script>" in text  # the dropped one, from the cache
    assert "http://example.com/0?q=<b>&amp;" in text
    assert "<b>long</b>" in text
    assert "<i>once</i> upon a time" in text


def test_figures_of_the_run(page):
    text = re.sub(r"\s+", " ", " ".join(Page(page).text))
    assert "42 records read = 32 documents kept + 10 dropped" in text
    assert "length.chars >= 20" in text
    assert "dropped by exact_dedup: exact_duplicate" in text.replace("  ", " ")
    assert "3 iterations, 192 tokens in 2.0 s, 96 tokens/s" in text


def test_signals_count_every_document(trained):
    found = gather(str(trained))
    chars = found.signals["length"]["chars"]
    assert (int(chars.kept.sum()), int(chars.dropped.sum())) == (32, 10)
    kinds = found.signals["length"]["kind"]
    assert dict(kinds.dropped) == {"short": 10}
    assert sum(len(s) for s in found.dropped.values()) == 7  # one by length, six of the nine duplicates
    assert all(s.text for samples in found.dropped.values() for s in samples)


def test_written_elsewhere(trained, tmp_path):
    assert report.write(str(trained), str(tmp_path / "x" / "y.html")) == str(tmp_path / "x" / "y.html")
    assert (tmp_path / "x" / "y.html").stat().st_size > 1000


def test_without_cache_text_is_read_again_from_the_source(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("cache"))
    found = gather(str(tmp_path / "run"))
    texts = {s.text for samples in found.dropped.values() for s in samples}
    assert texts == {"<script>x</script>", "The same text, as often as it is crawled, is one document."}


def test_without_cache_and_source_samples_have_no_text(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("cache"))
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    for item in run["inputs"]:
        item["root"] = str(tmp_path / "gone")
    (tmp_path / "run" / "run.json").write_text(json.dumps(run))
    found = gather(str(tmp_path / "run"))
    assert all(s.text is None for samples in found.dropped.values() for s in samples)
    assert "<script>x</script>" not in "".join(Page(report.render(found)).text)


def test_what_is_read_again_is_scrubbed(small_run, tmp_path):
    """A document that a rule dropped before `pii` ran is stored nowhere; what the report shows of it is scrubbed."""
    from curation import config
    from curation.engine.run import curate
    from pipelines.steps import READERS, STEPS

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
    pipeline = config.load(str(tmp_path / "p.yaml"), catalogue=STEPS, readers=READERS)
    curate(pipeline, str(tmp_path / "run"), executor="inline")
    page = report.render(gather(str(tmp_path / "run")))
    assert "mail &lt;EMAIL_ADDRESS&gt;" in page
    assert "jane.roe" not in page


def test_curves_of_odd_losses():
    assert figures.curves("loss", {"a": []}) == ""
    marked = figures.curves("loss", {"a": [(1, 2.0), (3, 1.0)]}, marks={2: "iteration 2: <spike>"})
    assert marked.count("class=mark") == 1 and "<title>iteration 2: &lt;spike&gt;</title>" in marked
    one = figures.curves("loss", {"a": [(1, 2.0)], "b": [(1, float("nan"))]})
    assert 'points="44.0' in one and "nan" not in one
    assert len(figures.thin([(i, 1.0) for i in range(100_000)])) <= 600
