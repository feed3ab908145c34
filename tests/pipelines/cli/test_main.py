"""The command line: what each command answers, and its exit code.

Covers: app.py, text_output.py, commands/curate.py, commands/evaluate.py, commands/models.py, commands/monitor.py,
commands/plan.py, commands/setup.py, commands/train.py
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest


@pytest.fixture
def inputs(small_run, tmp_path):
    for name in ("own.py", "a.jsonl", "nasty.txt", "small.yaml"):
        shutil.copy(small_run.parent / name, tmp_path / name)
    return tmp_path


def test_help_is_light():
    program = (
        "import sys\nsys.argv = ['gristmill', '--help']\nfrom pipelines.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'ray', 'duckdb', 'pyarrow', 'numpy', 'pydantic', 'yaml', 'curation', 'training'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.endswith("loaded: []\n")
    for command in (
        "demo",
        "curate",
        "plan",
        "status",
        "explain",
        "report",
        "doctor",
        "models",
        "train",
        "generate",
        "evaluate",
        "export",
        "import",
    ):
        assert f" {command} " in run.stdout


def test_curate_then_nothing_to_do(gristmill, inputs):
    file, run = inputs / "small.yaml", inputs / "run"
    code, out, _ = gristmill("curate", file, "--run", run, "--executor", "inline")
    assert code == 0
    assert ("duplicate" in out and "small" in out) or "done in" in out
    rows = [line.split() for line in out.splitlines()]
    assert ["read", "42"] in rows
    assert ["length", "short", "1", "41"] in rows
    assert ["exact_dedup", "exact_duplicate", "9", "32"] in rows
    assert ["kept", "32"] in rows
    code, out, _ = gristmill("curate", file, "--run", run, "--executor", "inline")
    assert code == 0 and out.startswith("nothing to do")
    code, out, _ = gristmill("curate", file, "--run", run, "--executor", "inline", "--json")
    answer = json.loads(out)
    assert (code, answer["status"], answer["exit_code"], answer["counts"]["kept"]) == (0, "unchanged", 0, 32)


def test_curate_with_a_rule_set(gristmill, inputs):
    code, out, _ = gristmill(
        *("curate", inputs / "small.yaml", "--run", inputs / "run", "--executor", "inline"),
        *("--set", "steps.Length.keep.short=length.chars >= 60 OR length.kind IS NULL"),
    )
    assert code == 0
    assert ["length", "short", "11", "31"] in [line.split() for line in out.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("curate", "nowhere.yaml"), 2, "error nowhere.yaml: no such file"),
        (("curate", "small.yaml", "--set", "seeds=3"), 2, "unknown key 'seeds'\n  did you mean seed"),
        (("curate", "small.yaml", "--executor", "spark"), 2, "unknown executor 'spark'"),
        (("curate",), 2, "Missing argument"),
        (("curate", "small.yaml", "--limit", "x"), 2, "Invalid value"),
        (("status", "nowhere"), 2, "nowhere is not a run directory"),
        (("explain", "nowhere", "x"), 2, "nowhere has no ledger"),
        (("report", "nowhere"), 2, "nowhere is not a run directory"),
        (("checkpoint", "list", "nowhere"), 1, "nowhere has no checkpoints"),
        (("checkpoint", "verify", "nowhere"), 1, "nowhere has no checkpoints"),
        (("curate", "small.yaml", "--run", "a.jsonl"), 2, "cannot write to the run directory a.jsonl"),
        (("curate", "small.yaml", "--run", "nothing://like/it"), 2, "nothing://like/it: Protocol not known"),
        (("curate", "small.yaml", "--run", "run", "--address", "127.0.0.1:1"), 2, "no Ray cluster at 127.0.0.1:1"),
        (("models", "pull", "nothing-like-it"), 2, "nothing-like-it"),
        (("models", "train", "classifier", "x", "--out", "y"), 2, "expected LABEL=PATH"),
        (("plan", "small.yaml", "--set", "steps.Length.keep.short=length.char > 3"), 2, "did you mean length.chars"),
        (("nonsense",), 2, "No such command"),
    ],
)
def test_what_is_wrong_is_said(gristmill, inputs, monkeypatch, arguments, code, said):
    monkeypatch.chdir(inputs)
    found, _, error = gristmill(*arguments)
    assert found == code
    assert said in error
    assert "Traceback" not in error


def test_an_unreadable_file_is_quarantined(gristmill, inputs):
    (inputs / "b.parquet").write_bytes(b"this is no Parquet file at all")
    text = (inputs / "small.yaml").read_text().replace('"*.jsonl"', '"[ab].*"')
    (inputs / "small.yaml").write_text(text)
    arguments = ("curate", inputs / "small.yaml", "--run", inputs / "run", "--executor", "inline")
    code, out, _ = gristmill(*arguments)
    assert code == 3
    assert "b.parquet" in out and "--allow-missing" in out
    code, out, _ = gristmill(*arguments, "--allow-missing")
    assert code == 3
    assert ["kept", "32"] in [line.split() for line in out.splitlines()]


def test_plan(gristmill, inputs):
    code, out, _ = gristmill("plan", inputs / "small.yaml", "--run", inputs / "run")
    assert code == 0
    assert "Length" in out or "length (1 rule)" in out
    assert "2 tasks over" in out
    code, out, _ = gristmill("plan", inputs / "small.yaml", "--run", inputs / "run", "--json")
    assert json.loads(out)["tasks"] == 2


def test_plan_of_a_training_file(gristmill, small_run, tmp_path):
    (tmp_path / "train.yaml").write_text(
        "steps: 10\nmodel: {preset: toy}\ndata: {seq_len: 32}\nbatch: {global_size: 2}\n"
    )
    code, out, _ = gristmill("plan", tmp_path / "train.yaml", "--data", small_run, "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["tokens"] == 640
    assert answer["total_parameters"] == sum(answer["parameters"].values()) > 64 * 256
    assert answer["memory"]["peak"] > 16 * answer["total_parameters"] and answer["epochs"] > 0
    for change, said in (("data.max_epochs=1", "runs out in step"), ("data.weights={x: 1}", "no domain x")):
        asked = ("--data", small_run, "--set", change, "--set", "steps=9000")
        code, _, error = gristmill("plan", tmp_path / "train.yaml", *asked)
        assert code == 2 and said in error, "what training would refuse"
    code, out, _ = gristmill("plan", tmp_path / "train.yaml", "--vocab", "128256", "--gpus", "2", "--device", "h200")
    assert code == 0 and "2 x H200" in out and "B peak" in out
    big = ("plan", tmp_path / "train.yaml", "--vocab", "128256", "--device", "a100", "--set", "model.preset=8b")
    big += ("--set", "batch.global_size=8")
    code, _, error = gristmill(*big)
    assert code == 2 and "What would fit" in error
    code, out, _ = gristmill("plan", tmp_path / "train.yaml")
    assert code == 0 and "640" in out


def test_status(gristmill, small_run):
    code, out, _ = gristmill("status", small_run)
    assert code == 0 and out.startswith("small: done")
    assert json.loads(gristmill("status", small_run, "--json")[1])["state"] == "done"


def test_status_of_a_training(gristmill, tiny):
    code, out, _ = gristmill("status", tiny / "train" / "tiny")
    assert code == 0 and out == gristmill("watch", "--once", tiny / "train" / "tiny")[1]
    assert json.loads(gristmill("status", tiny / "train" / "tiny", "--json")[1])["step"] == 3


def test_explain(gristmill, small_run):
    code, out, _ = gristmill("explain", small_run, "http://example.com/0?q=<b>&amp;")
    assert code == 0
    assert "dropped by length, rule short" in out and "chars = 18" in out
    code, out, _ = gristmill("explain", small_run, "http://example.com/5?q=<b>&amp;", "--json")
    answer = json.loads(out)
    assert answer["outcome"]["kept"] and answer["steps"][0]["rules"] == {"short": "passed"}
    assert gristmill("explain", small_run, answer["doc_id"])[1].rstrip().endswith("kept")
    assert gristmill("explain", small_run, "http://example.com/")[0] == 2


def test_train_and_generate(gristmill, small_run, tmp_path):
    (tmp_path / "tiny.yaml").write_text(
        "steps: 4\nmodel: {preset: toy}\ndata: {seq_len: 32}\nbatch: {global_size: 2}\n"
        "evaluate: {every: 2, sequences: 2}\ncheckpoint: {every: 4}\n"
    )
    arguments = ("train", tmp_path / "tiny.yaml", "--data", small_run, "--run", tmp_path / "out")
    code, out, _ = gristmill(*arguments)
    assert code == 0
    assert "step 4/4: validation loss web" in out and "4 steps, 256 tokens" in out
    code, out, _ = gristmill(*arguments)
    assert code == 0 and "resumed from step 4" in out
    rows = json.loads(gristmill("checkpoint", "list", tmp_path / "out", "--json")[1])
    assert [(r["step"], r["tokens"], r["good"]) for r in rows] == [(0, 0, True), (4, 256, False)]
    assert gristmill("checkpoint", "verify", tmp_path / "out")[:2] == (0, "00000000: intact\n00000004: intact\n")
    (tmp_path / "out" / "checkpoints" / "00000004" / "state.json").write_text("{}")
    code, out, _ = gristmill("checkpoint", "verify", tmp_path / "out")
    assert code == 1 and "state.json is damaged" in out
    assert gristmill("checkpoint", "list", tmp_path / "out")[1].splitlines()[-1].split()[-1] == "damaged"
    (tmp_path / "out" / "checkpoints" / "00000004").rename(tmp_path / "set_aside")
    assert gristmill(*arguments)[0] == 0
    code, out, _ = gristmill("generate", tmp_path / "out", "Document", "--tokens", "5")
    assert code == 0 and out.startswith("Document")
    code, out, _ = gristmill("evaluate", tmp_path / "out", "--data", small_run, "--limit", "1", "--json")
    assert code == 0 and json.loads(out)["domains"]["web"]["tokens"] > 0
    assert gristmill("evaluate", tmp_path / "out")[0] == 2
    assert gristmill("train", tmp_path / "nowhere.yaml", "--data", small_run)[0] == 2
    code, _, error = gristmill("train", tmp_path / "tiny.yaml", "--data", "s3://bucket/run")
    assert code == 2 and "s3://bucket/run/train/tiny is on an object store" in error


def test_models_list(gristmill):
    code, out, _ = gristmill("models", "list")
    assert code == 0 and "lid.176" in out
    assert {row["name"] for row in json.loads(gristmill("models", "list", "--json")[1])} >= {"lid.176", "toxicity-en"}


def test_models_train_ngram(gristmill, tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat on the mat\nthe dog sat on the cat\n" * 20)
    code, out, _ = gristmill(
        "models", "train", "ngram", tmp_path / "text.txt", "--order", "2", "--out", tmp_path / "x.arpa"
    )
    assert code == 0 and "n-grams of order 1 to 2" in out
    assert (tmp_path / "x.arpa").read_text().startswith("\\data\\")
