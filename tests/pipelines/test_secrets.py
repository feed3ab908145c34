"""Secrets planted in variables, URLs and options are in nothing that is written: runs, cards, reports, logs, services.

Covers: curation/core/secrets.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from curation.config.stored_pipeline import read_stored_pipeline
from curation.core.secrets import mask_secrets
from curation.storage import Storage
from pipelines.experiments.mix import proxy_run, search, search_config
from pipelines.experiments.scaling import ladder
from training.config import load
from training.metrics import experiment_loggers
from training.train import train

# One of each shape that the services document; all invented.
SHAPES = {
    "AWS_KEY": "AKIA" + "Q7ZX2MPLANT3EXAM", "GITHUB": "ghp_" + "a1B2c3D4e5" * 4, "HUB": "hf_" + "QwErTyUiOp" * 4,
    "OPENAI": "sk-proj-" + "0aZ9" * 8, "SLACK": "xoxb-" + "123456789012-abcdefghij", "GITLAB": "glpat-" + "x9Y8" * 5,
    "GOOGLE": "AIza" + "SyD3" * 9, "JWT": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "PYPI": "pypi-" + "AgEI" * 8,
    "STRIPE": "sk_live_" + "51Hx" * 6,
}  # fmt: skip
# What no shape shows: only the variable knows that it is a secret.
PLAIN = {
    "PASSWORD": "correct-horse", "ROOM": "hidden-room-1", "LISTS": "hidden-lists-2", "TOKENIZER": "hidden-tok-3",
    "LABEL": "hidden-label-4", "WORD": "hidden-word-5", "PARENT": "hidden-parent-6", "BLAME": "hidden-blame-7",
    "TASKS": "hidden-tasks-8", "VALIDATION": "hidden-val-9",
}  # fmt: skip
SECRETS = SHAPES | PLAIN

PIPELINE = """
name: planted
sources:
  - {name: web, read: text, root: "${ROOM}", path: "*.jsonl", origin: "https://me:${PASSWORD}@x.test/${GITHUB}"}
exclude: ["${LISTS}/exclude.jsonl"]
steps:
  - exact_dedup: {}
  - c4_line_filter: {}
    keep:
      labelled: "domain <> '${LABEL}'"
      keyed: "domain NOT IN ('${AWS_KEY}', '${HUB}', '${OPENAI}')"
    where: "domain <> '${WORD}'"
tokenizer: {train: {vocab: 300}}
validation: 0.2
"""
TRAINING = """
steps: 2
model: {preset: toy}
data: {seq_len: 16, validation: {more: "${VALIDATION}"}}
batch: {global_size: 2}
evaluate: {every: 2, tasks: ["${TASKS}/t.jsonl"]}
guard: {action: watch}
exclude_list: "${BLAME}/${SLACK}/${JWT}.jsonl"
"""


def planted_in(folder: Path) -> list[tuple[str, str]]:
    """(file, variable) of every secret in the content or the name of a file."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            found += [(str(path), n) for n, v in SECRETS.items() if v.encode() in data or v in path.name]
    return found


def run(*arguments: object, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.cli", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.getcwd()} | env
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, its card and report, of a pipeline file full of secrets."""
    folder = tmp_path_factory.mktemp("planted")
    for name in ("ROOM", "LISTS", "TASKS", "BLAME"):
        (folder / SECRETS[name]).mkdir()
    page = "Page {} says that the mill turns, and that grain is ground into flour.\n"
    rows = [{"text": page.format(i) * 3} for i in range(40)]
    (folder / SECRETS["ROOM"] / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / SECRETS["LISTS"] / "exclude.jsonl").write_text("")
    (folder / "p.yaml").write_text(PIPELINE)
    for command in (
        ("curate", "p.yaml", "--run", "run", "--executor", "inline", "--set", "quantiles=null"), ("report", "run"),
        ("explain", "run", "none"), ("curate", "p.yaml", "--run", "run", "--executor", "inline"),
    ):  # fmt: skip
        done = run(*command, cwd=folder, env=SECRETS)
        assert "Traceback" not in done.stderr, done.stderr
        assert [n for n, v in SECRETS.items() if v in done.stdout + done.stderr] == []
    return folder


def test_nothing_of_a_run_holds_a_secret(planted: Path) -> None:
    assert (planted / "run" / "report.html").exists() and (planted / "run" / "result" / "shards").is_dir()
    assert planted_in(planted / "run") == []
    stored = read_stored_pipeline(Storage(str(planted / "run")))
    assert stored["sources"][0]["root"] == "${ROOM}"
    rule = stored["steps"][1]["rules"]["labelled"]
    assert "domain <> '${LABEL}'" in rule and "domain <> '${WORD}'" in rule


def test_a_card_says_nothing_of_where_files_lay(planted: Path) -> None:
    card = (planted / "run" / "card.md").read_text() + (planted / "run" / "croissant.json").read_text()
    assert str(planted) not in card and "hidden" not in card and "${WEB_ROOT}" in card and "exclude.jsonl" in card
    assert "https://***@x.test" in card


def test_what_uses_a_run_takes_the_values_from_the_environment(planted: Path) -> None:
    done = run("what-if", "run", "--set", "labelled=domain <> 'x'", "--json", cwd=planted, env=SECRETS)
    assert done.returncode == 0, done.stderr
    done = run("what-if", "run", "--set", "labelled=domain <> 'x'", cwd=planted, env={})
    assert done.returncode == 2 and "is not set" in done.stderr
    done = run("what-if", "run", "--set", "labelled=domain <> 'x'", cwd=planted, env=SECRETS | {"LABEL": "another"})
    assert done.returncode == 2 and "made with another value of LABEL" in done.stderr


def test_another_value_is_another_run(planted: Path) -> None:
    """The value is in the fingerprint, though not in what is written."""
    arguments = ("curate", "p.yaml", "--run", "run", "--executor", "inline", "--json")
    assert json.loads(run(*arguments, cwd=planted, env=SECRETS).stdout)["status"] == "unchanged"
    done = run("plan", "p.yaml", "--run", "run", "--json", cwd=planted, env=SECRETS | {"LABEL": "another"})
    assert json.loads(done.stdout)["unchanged"] is False


def test_nothing_of_a_training_holds_a_secret(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(planted)
    sent: list[Any] = []

    class Service:
        def __init__(self, run: Path, settings: Any) -> None:
            sent.append(settings)

        def write(self, step: int, numbers: dict[str, float]) -> None:
            sent.append(numbers)

        def close(self) -> None:
            return None

    monkeypatch.setitem(experiment_loggers.SERVICES, "wandb", Service)
    monkeypatch.setattr(experiment_loggers, "require", lambda *_: None)
    (planted / "t.yaml").write_text(TRAINING)
    (planted / SECRETS["TASKS"] / "t.jsonl").write_text(
        '{"ctx": "the mill", "endings": [" turns", " sings"], "label": 0}\n'
    )
    (planted / SECRETS["VALIDATION"]).symlink_to("run")
    config = load("t.yaml", ["log_to=[wandb]", "checkpoint.every=2"])
    assert config.exclude_list is not None and SECRETS["SLACK"] in config.exclude_list
    train(config, "run/result/shards", "trained")
    assert len(sent) > 2 and not [v for v in SECRETS.values() if v in repr(sent)]
    assert planted_in(planted / "trained") == []
    assert "exclude_list: ${BLAME}/${SLACK}/${JWT}.jsonl" in (planted / "trained" / "train.yaml").read_text()
    assert load("trained/train.yaml") == load("t.yaml", ["log_to=[wandb]", "checkpoint.every=2"]).model_copy(
        update={k: getattr(load("trained/train.yaml"), k) for k in ("device", "precision", "threads")}
    )
    train(config, "run/result/shards", "trained")  # it resumes with the values of the environment


@pytest.mark.parametrize("inline", [False, True], ids=["a file", "inline"])
def test_nothing_of_a_small_run_for_an_experiment_holds_a_secret(
    planted: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, inline: bool
) -> None:
    """Scaling ladders and mix searches write the training files of their runs."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(planted)
    (planted / SECRETS["TASKS"] / "t.jsonl").write_text(
        '{"ctx": "the mill", "endings": [" turns", " sings"], "label": 0}\n'
    )
    (planted / SECRETS["VALIDATION"]).unlink(missing_ok=True)
    (planted / SECRETS["VALIDATION"]).symlink_to("run")
    (planted / "t.yaml").write_text(TRAINING)
    body = "t.yaml" if not inline else "\n" + textwrap.indent(TRAINING, "  ")
    size = "{num_layers: 1, hidden_size: 16, num_heads: 1, num_kv_heads: 1, intermediate_size: 32}"
    (planted / "ladder.yaml").write_text(f"base: {body}\nsizes: [{size}, {size}]\ntokens_per_param: [0.001]\n")
    (planted / "search.yaml").write_text(f"data: run/result/shards\nproxy: {body}\nruns: 4\n")
    ladder_run = ladder.runs(ladder.load("ladder.yaml"), "run/result/shards", str(tmp_path))[0]
    settings, references = search._proxy_settings(search_config.load("search.yaml"))
    search_run = proxy_run.Proxy(settings, "run/result/shards", str(tmp_path / "proxy"), None, references)
    for proxy in (ladder_run, search_run):
        assert SECRETS["SLACK"] in proxy.settings["exclude_list"]  # workers need no variables
        proxy_run.train(proxy)
        written = (Path(proxy.folder) / "train.yaml").read_text()
        assert "exclude_list: ${BLAME}/${SLACK}/${JWT}.jsonl" in written
    assert planted_in(tmp_path) == []


@pytest.mark.parametrize("secret", SHAPES.values())
@pytest.mark.parametrize(
    "around",
    ["{}", "s3://key:{}@host/bucket", "cannot read https://x.test/a?token={}&b=1", 'api_key="{}"', "Bearer {}"],
)
def test_known_shapes_are_masked(secret: str, around: str) -> None:
    said = mask_secrets(f"before {around.format(secret)} after")
    assert secret not in said and said.startswith("before ") and said.endswith(" after") and "***" in said


@pytest.mark.parametrize(
    "text",
    [
        "pipeline.yaml:9: steps[1].keep.english: rule 'english' names language.scor", "s3://bucket/a.gz: not found",
        "tokens: 12,345; key: the record's own; 3 of 10 tokens = 30 %", "https://example.com/page?id=3&page=4",
        "expected one of: path, tiktoken, sentencepiece", "the tokenizer has 32,768 entries", "user@example.com",
        "9f86d081884c7d659a2feaa0c55ad015", "sha256 8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83",
        "mix.weights: {web: 0.5}", "token 1000 of train/web/00000.arrow", "documents/key=value", "eos_token: </s>",
        "tokenizer: sample_texts",
    ],
)  # fmt: skip
def test_ordinary_messages_stay(text: str) -> None:
    assert mask_secrets(text) == text


def test_an_error_that_repeats_a_url_is_masked(planted: Path) -> None:
    text = PIPELINE.replace("${ROOM}", "nosuch://me:hunter2-secret@x.test/a?X-Amz-Signature=abcdef0123456789")
    (planted / "bad.yaml").write_text(text)
    done = run("curate", "bad.yaml", "--run", "bad", "--executor", "inline", cwd=planted, env=SECRETS)
    assert done.returncode != 0 and "hunter2" not in done.stderr and "abcdef0123456789" not in done.stderr
    assert "***@x.test" in done.stderr
