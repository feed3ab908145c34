"""Whatever needs a package that is missing is refused before work starts, with the pip command that installs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from curation import storage
from curation.config.load_pipeline import load_pipeline
from curation.core.errors import UserError
from curation.packing.tokenizer import load_tokenizer
from pipelines.demo import demo
from pipelines.experiments.mix import mixing_laws, regmix_tables, search_config
from tests.conftest import HANG

ROOT = Path(__file__).resolve().parents[2]
TRAINING_FILE = str(ROOT / "pipelines" / "recipes" / "demo_train.yaml")
SOURCE = "{name: web, read: text, root: ., path: '*.jsonl'}"


def hide(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """`import module` fails from here on, as if it were not installed."""
    monkeypatch.setitem(sys.modules, module, None)


def load(folder: Path, text: str) -> object:
    file = folder / "p.yaml"
    file.write_text(text, encoding="utf-8")
    return load_pipeline(str(file))


@pytest.mark.parametrize(
    ("module", "step", "install"),
    [
        ("datasketch", "minhash_dedup", "pip install datasketch"),
        ("datatrove", "urls", "pip install datatrove"),
        ("datatrove", "datatrove: {block: GopherQualityFilter}", "pip install datatrove"),
        ("datatrove", "toxicity: {words: [datatrove:banned_words]}", "pip install datatrove"),
        ("fasttext", "language", "pip install fasttext"),
        ("fasttext", "toxicity", "pip install fasttext"),
        ("fasttext", "classifier: {model: m.bin, labels: [high]}", "pip install fasttext"),
        ("kenlm", "perplexity: {model: m.bin}", "pip install kenlm"),
        ("lxml_html_clean", "extract: {engine: trafilatura}", 'pip install "gristmill[trafilatura]"'),
        ("numba", "heuristics", "pip install numba"),
        ("numba", "c4_line_filter", "pip install numba"),
        ("numba", "minhash_dedup", "pip install numba"),
        ("numba", "decontaminate: {against: [x.jsonl]}", "pip install numba"),
        ("presidio_analyzer", "pii", "pip install presidio-analyzer"),
        ("regex", "heuristics", "pip install regex"),
        ("resiliparse", "extract", "pip install resiliparse"),
        ("sentencepiece", "perplexity: {form: ccnet, model: m.bin}", 'pip install "gristmill[sentencepiece]"'),
        ("spacy", "pii", "pip install presidio-analyzer"),
        ("tldextract", "urls", "pip install tldextract"),
        ("trafilatura", "extract: {engine: trafilatura}", 'pip install "gristmill[trafilatura]"'),
    ],
)
def test_a_step_without_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str, step: str, install: str
) -> None:
    hide(monkeypatch, module)
    with pytest.raises(UserError) as caught:
        load(tmp_path, f"sources: [{SOURCE}]\nsteps:\n  - {step}\n")
    message = str(caught.value)
    place = "p.yaml:1: sources[0]" if module == "resiliparse" else "p.yaml:3: steps[0]"  # the reader comes first
    assert place in message and f"{module} is not installed\n  install with: {install}" in message


def test_an_option_that_needs_no_package_is_not_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in ("trafilatura", "sentencepiece", "datatrove"):
        hide(monkeypatch, module)
    steps = "[extract, {urls: {lists: [], words: false}}, heuristics, exact_dedup, minhash_dedup]"
    load(tmp_path, f"sources: [{SOURCE}]\nsteps: {steps}\ntokenizer: {{train: {{vocab: 1000}}}}\n")


@pytest.mark.parametrize("reader", ["text", "warc"])
def test_a_reader_without_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reader: str) -> None:
    hide(monkeypatch, "resiliparse")
    source = SOURCE.replace("read: text", f"read: {reader}")
    with pytest.raises(UserError, match=rf"p.yaml:1: .*reader {reader}: resiliparse is not installed\n.*pip install"):
        load(tmp_path, f"sources: [{source}]\n")


@pytest.mark.parametrize(
    ("module", "tokenizer", "install"),
    [
        ("tokenizers", "{train: {vocab: 1000}}", "pip install tokenizers"),
        ("tiktoken", "{train: {vocab: 1000}}", "pip install tiktoken"),
        ("sentencepiece", "{sentencepiece: m.model}", 'pip install "gristmill[sentencepiece]"'),
    ],
)
def test_a_tokenizer_without_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str, tokenizer: str, install: str
) -> None:
    hide(monkeypatch, module)
    with pytest.raises(UserError) as caught:
        load(tmp_path, f"sources: [{SOURCE}]\ntokenizer: {tokenizer}\n")
    assert f"{module} is not installed\n  install with: {install}" in str(caught.value)


def test_a_sentencepiece_file_given_as_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hide(monkeypatch, "sentencepiece")
    (tmp_path / "m").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    with pytest.raises(UserError, match=r"sentencepiece is not installed\n.*gristmill\[sentencepiece\]"):
        load_tokenizer.load_tokenizer(str(tmp_path / "m"))


def test_mix_experiments_without_lightgbm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hide(monkeypatch, "lightgbm")
    file = tmp_path / "mix.yaml"
    file.write_text("data: run\nproxy: train.yaml\n")
    with pytest.raises(UserError, match=r"lightgbm is not installed\n.*gristmill\[mix\]"):
        search_config.load(str(file))
    with pytest.raises(UserError, match="lightgbm is not installed"):
        regmix_tables.fit_table("ratios.csv", "metrics.csv")
    file.write_text("data: run\nproxy: train.yaml\nfamilies: [linear]\n")
    assert search_config.load(str(file)).families == ("linear",)
    assert "linear" in mixing_laws.FAMILIES


def test_the_demo_without_warcio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hide(monkeypatch, "warcio")
    with pytest.raises(UserError, match=r"gristmill demo: warcio is not installed\n.*gristmill\[demo\]"):
        demo.run_demo(str(tmp_path / "demo"), console=None)
    assert not (tmp_path / "demo").exists()


def test_s3_without_s3fs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n == "s3fs" or n.startswith("s3fs.")]:
        monkeypatch.delitem(sys.modules, name)
    hide(monkeypatch, "s3fs")
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(UserError, match=r"s3://bucket/x: s3fs is not installed\n.*gristmill\[s3\]"):
        storage.filesystem("s3://bucket/x")


def gristmill(hidden: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command line in a process without a package."""
    program = f"import sys; sys.modules[{hidden!r}] = None; sys.argv[0] = 'gristmill'\n"
    program += "from pipelines.cli.main import main; main()"
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True, text=True, cwd=folder, env=environment, timeout=HANG,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("hidden", "arguments", "install"),
    [
        ("torch", ("train", TRAINING_FILE, "--data", "."), "pip install torch"),
        ("duckdb", ("plan", "p.yaml"), "pip install duckdb"),
        ("pandas", ("train", TRAINING_FILE, "--data", ".", "--workers", "2"), 'pip install "gristmill[ray-train]"'),
        ("ray", ("curate", "p.yaml", "--run", "r"), 'pip install "ray[default]"'),
    ],
)
def test_a_command_without_its_package(tmp_path: Path, hidden: str, arguments: tuple[str, ...], install: str) -> None:
    (tmp_path / "p.yaml").write_text(f"sources: [{SOURCE}]\nsteps: [{{exact_dedup: null}}]\n")
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    done = gristmill(hidden, *arguments, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    said = " ".join(done.stderr.split())
    assert f"{hidden} is not installed install with: {install}" in said and "Traceback" not in said
