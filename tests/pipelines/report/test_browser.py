"""The report in a real browser: every chart draws, filters and slider work, nothing is asked of any network, what was
crawled stays text, and axe finds no serious fault, in light and dark and on a telephone.

Needs Chromium and the packages of the extra `dev`; skipped with a reason where they are not.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from pipelines.report.comparison import compare
from pipelines.report.comparison import page as comparison
from pipelines.report.curation import page as curation
from pipelines.report.curation.report_data import gather
from pipelines.report.write_report import save_page, write_report
from pipelines.what_if.what_if import what_if
from tests.curation.engine import runs
from tests.pipelines.conftest import NASTY

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright (extra dev)")
WIDTHS = {"light": (1280, 900), "dark": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium on PATH: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@dataclass
class Opened:
    """A page, and what happened since it was opened that must not."""

    page: Any
    wrong: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        return " ".join(self.page.locator(selector).inner_text().split())


def opened(browser: Any, path: Path, kind: str = "light") -> Opened:
    width, height = WIDTHS[kind]
    scheme = "dark" if kind == "dark" else "light"
    page = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme).new_page()
    seen = Opened(page)
    page.on("console", lambda m: seen.wrong.append(f"console: {m.text}") if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: seen.wrong.append(f"error: {e}"))
    page.on("dialog", lambda d: (seen.wrong.append(f"dialog: {d.message}"), d.dismiss()))
    url = path.resolve().as_uri()
    page.on("request", lambda r: None if r.url == url or r.url.startswith("data:") else seen.wrong.append(r.url))
    page.add_init_script("window.alert = (text) => console.error('alert ' + text)")
    page.goto(url)
    return seen


@pytest.fixture(scope="module")
def small(tiny: Path) -> Path:
    return Path(write_report(str(tiny), str(tiny.parent / "small.html")))


@pytest.fixture
def page(browser: Any, small: Path) -> Iterator[Opened]:
    seen = opened(browser, small)
    yield seen
    seen.page.context.close()
    assert seen.wrong == []


def charts(page: Any) -> list[dict[str, Any]]:
    """Every drawing: its section, its size, and how many of its shapes have one."""
    return list(
        page.evaluate(
            """() => [...document.querySelectorAll('main svg')].map((svg) => {
                const box = svg.getBoundingClientRect();
                const shapes = [...svg.querySelectorAll('rect, path, polyline, circle')].filter((s) => {
                    const b = s.getBBox();
                    return b.width > 0 && (b.height > 0 || s.tagName === 'polyline');
                });
                return { section: svg.closest('section').id, label: svg.getAttribute('aria-label'),
                         width: box.width, height: box.height, shapes: shapes.length };
            })"""
        )
    )


def check_charts(page: Any, sections: set[str]) -> None:
    found = charts(page)
    assert {c["section"] for c in found} >= sections
    for c in found:
        assert c["width"] > 60 and c["height"] > 40 and c["shapes"] > 0 and c["label"], c
    assert "NaN" not in page.content() and "undefined" not in page.locator("main").inner_text()


def faults(page: Any) -> list[str]:
    """What axe calls serious or critical."""
    page.evaluate(resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8"))
    found = page.evaluate("async () => (await axe.run()).violations")
    return [
        f"{v['id']} ({v['impact']}): {v['help']}: {[n['target'] for n in v['nodes']][:3]}"
        for v in found
        if v["impact"] in ("serious", "critical")
    ]


def test_every_chart_draws(page: Opened) -> None:
    check_charts(page.page, {"flow", "signals", "what-if", "training-0"})


def test_what_was_crawled_is_text(page: Opened) -> None:
    p = page.page
    p.fill("#sample-find", "onerror")
    assert page.text("#sample-count").startswith("1 of")
    assert p.locator("#sample-text pre").text_content() == NASTY
    assert p.locator("main script, main img, main iframe, main [onerror], main [onclick]").count() == 0
    p.fill("#sample-find", "")
    p.select_option("#sample-fate", label="length: short (1 dropped)")
    assert p.locator("#sample-text pre").text_content() == "<script>x</script>"
    assert "length.chars = 18" in page.text("#sample-text") and "length.chars >= 20" in page.text("#sample-text")
    assert "http://example.com/0?q=<b>&amp;" in page.text("#sample-text")


def test_the_filters_of_the_samples(page: Opened) -> None:
    p = page.page
    p.select_option("#sample-fate", "kept")
    kept = page.text("#sample-count")
    assert page.text("#sample-text h3") == "Kept"
    p.select_option("#sample-domain", "nasty")
    assert page.text("#sample-count").startswith("1 of") and page.text("#sample-count") != kept
    p.fill("#sample-find", "there is no such word")
    assert page.text("#sample-count").startswith("0 of") and "Remove a filter" in page.text("#sample-text")
    p.fill("#sample-find", "")
    p.select_option("#sample-domain", "")
    p.select_option("#sample-fate", "dropped")
    first = p.locator("#sample-list button").first
    first.focus()
    p.keyboard.press("ArrowDown")
    chosen = p.locator("#sample-list button[aria-current]")
    assert chosen.count() == 1 and chosen.evaluate(
        "b => b === document.activeElement && b.previousElementSibling !== null"
    )
    p.fill("#find-signal", "share")
    assert p.locator(".signals figure:visible").count() == 1 and page.text("#found-signals") == "1 shown"


def test_the_slider_says_what_the_rules_do(page: Opened, tiny: Path) -> None:
    p = page.page
    p.select_option("#what-if-rule", label="length: length.chars >= 20 (short)")
    assert page.text("#what-if-answer") == "Now: 32 documents kept."
    slider = p.locator("#what-if-value")
    slider.focus()
    for _ in range(3):
        p.keyboard.press("ArrowRight")
    said, command = page.text("#what-if-answer"), page.text("#what-if-command")
    rule = re.search(r"--set 'length\.short=(.*)'$", command)
    assert rule is not None
    after = what_if(str(tiny), [f"length.short={rule[1]}"], 0).after["documents"]
    assert said.startswith(f"{after:.0f} documents would be kept, {32 - after:.0f} fewer than the 32 kept now")
    p.keyboard.press("Home")
    assert "of the 1 that would now pass this rule" in page.text("#what-if-answer")
    p.click("#what-if-back")
    assert page.text("#what-if-answer") == "Now: 32 documents kept."


def test_keyboard_and_colours(page: Opened) -> None:
    p = page.page
    p.keyboard.press("Tab")
    focused = "document.activeElement"
    assert p.evaluate(f"{focused}.textContent") == "Skip to content"
    p.keyboard.press("Enter")
    assert p.evaluate(f"{focused}.id") == "content"
    back = "getComputedStyle(document.body).backgroundColor"
    light = p.evaluate(back)
    p.focus("#theme")
    assert p.evaluate(f"getComputedStyle({focused}).outlineStyle") == "solid"
    p.keyboard.press("Enter")
    assert p.evaluate(back) != light and p.locator("#theme").get_attribute("aria-label") == "Switch to light mode"
    p.keyboard.press("Enter")
    assert p.evaluate(back) == light
    p.click("nav a[href='#samples']")
    p.wait_for_selector("nav a[aria-current][href='#samples']")


@pytest.mark.parametrize("kind", WIDTHS)
def test_no_serious_fault(browser: Any, small: Path, kind: str) -> None:
    seen = opened(browser, small, kind)
    for fold in seen.page.locator("details").all():
        fold.evaluate("d => { d.open = true; }")
    assert faults(seen.page) == []
    width = seen.page.evaluate("document.documentElement.scrollWidth")
    assert width <= WIDTHS[kind][0], "the page scrolls sideways"
    seen.page.context.close()
    assert seen.wrong == []


def test_the_policy_stops_what_escaping_would_let_through(browser: Any, tiny: Path, tmp_path: Path) -> None:
    """With markup put into the page raw: it does not run and asks for nothing, and this file's checks would notice."""
    text = curation.render(gather(str(tiny)))
    raw = '<img src="http://127.0.0.1:9/x.png" onerror="window.ran=1"><script>window.ran = 2</script>'
    (tmp_path / "raw.html").write_text(text.replace("</main>", f"{raw}</main>"))
    seen = opened(browser, tmp_path / "raw.html")
    seen.page.wait_for_timeout(200)
    assert seen.page.evaluate("window.ran") is None
    assert sum("Content Security Policy" in w for w in seen.wrong) >= 2
    seen.page.context.close()


def test_the_page_of_a_training(browser: Any, tiny: Path, tmp_path: Path) -> None:
    path = Path(write_report(str(tiny / "train" / "tiny"), str(tmp_path / "t.html")))
    seen = opened(browser, path)
    check_charts(seen.page, {"loss", "optimization"})
    assert faults(seen.page) == [] and "Incident 1" in seen.text("#incidents")
    seen.page.context.close()
    assert seen.wrong == []


def test_the_page_of_a_comparison(browser: Any, tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny / "train" / "tiny", tmp_path / "other")
    found = compare.compare_runs([str(tiny / "train" / "tiny"), str(tmp_path / "other")])
    path = Path(save_page(comparison.render(found), str(tmp_path / "c.html")))
    seen = opened(browser, path, "phone")
    check_charts(seen.page, {"curves"})
    assert faults(seen.page) == []
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= WIDTHS["phone"][0]
    seen.page.context.close()
    assert seen.wrong == []


@pytest.fixture(scope="module")
def crawl(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over 300 pages of a real crawl, with one of every kind of step that the report has a part for."""
    folder = tmp_path_factory.mktemp("crawl")
    runs.cut_warc(data / "crawl" / "docs-01.warc.gz", folder / "crawl" / "a.warc.gz", 0, 300)
    runs.cut_warc(data / "crawl" / "docs-01.warc.gz", folder / "crawl" / "b.warc.gz", 0, 60)  # duplicates
    runs.write_jsonl(folder / "asked.jsonl", [{"question": "The quick brown fox jumps over the lazy dog. " * 3}])
    tree = {
        "name": "crawl",
        "sources": [{"name": "web", "read": "warc", "root": "crawl", "path": "*.warc.gz"}],
        "steps": [
            *("extract", {"language": {}, "keep": {"sure": "language.score >= 0.3"}}, "pii"),
            {"heuristics": {"sets": ["gopher"]}, "keep": {"gopher_stop_words": "heuristics.stop_words >= 1"}},
            *("toxicity", "exact_dedup", "minhash_dedup", {"decontaminate": {"against": ["asked.jsonl"]}}),
        ],
        "tokenizer": {"train": {"vocab": 1000, "sample_bytes": 300_000}},
    }
    assert runs.curate(folder, tree).status == "done"
    return folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize("kind", WIDTHS)
def test_a_real_crawl(browser: Any, crawl: Path, kind: str) -> None:
    path = Path(write_report(str(crawl)))
    assert path.stat().st_size < 10_000_000
    seen = opened(browser, path, kind)
    check_charts(seen.page, {"flow", "signals", "what-if"})
    for part in ("languages", "clusters", "safety", "cost", "funnel", "domains"):
        assert seen.page.locator(f"#{part} table").count() > 0, part
    assert faults(seen.page) == []
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[kind][0]
    options = seen.page.locator("#what-if-rule option").count()
    assert options > 5
    for i in range(options):
        seen.page.select_option("#what-if-rule", str(i))
        for key in ("Home", "End"):
            seen.page.locator("#what-if-value").press(key)
            assert "documents" in seen.text("#what-if-answer") and "NaN" not in seen.text("#what-if")
    seen.page.context.close()
    assert seen.wrong == []
