"""Runs the whole pipeline in a few minutes on text that is on every machine with Gristmill (`gristmill demo`).

Writes one folder: crawl/ (the text), prepared/ (a reference model, a classifier and a small benchmark made from a
held-out part of it), demo.yaml and train.yaml (to change and run again), run/ (the curation run, with the training run
and the report). Run again, it does only what is missing.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from importlib import resources
from typing import Any

from curation.core.packages import require
from pipelines.monitor.progress import ProgressDisplay
from pipelines.number_format import format_duration

HELD_OUT = 8  # one document in eight trains the reference model and the classifier
QUESTIONS = 12  # passages in the benchmark
PROMPT = "This module provides"


def run_demo(folder: str, *, executor: str = "ray", console: Any) -> str:
    """Crawls, curates, trains and reports; returns the path of the report. Raises what these parts raise."""
    require("gristmill demo", ["warcio", "torch"])
    started = time.monotonic()
    os.makedirs(folder, exist_ok=True)
    for name, copy in (("demo.yaml", "demo.yaml"), ("demo_train.yaml", "train.yaml")):
        if not os.path.exists(os.path.join(folder, copy)):
            text = resources.files("pipelines.recipes").joinpath(name).read_text("utf-8")
            with open(os.path.join(folder, copy), "w", encoding="utf-8") as f:
                f.write(text)

    _heading(console, "1 of 5  crawl Python's documentation and installed packages")
    from pipelines.demo import local_corpus

    crawl = os.path.join(folder, "crawl")
    made = local_corpus.build(crawl)
    domains = ", ".join(f"{d['documents']:,} {n}" for n, d in made["domains"].items())
    console.print(f"        {domains}", highlight=False)

    _heading(console, "2 of 5  prepare a language identifier, an n-gram model and a classifier")
    from curation import models

    models.pull("lid.176")
    _prepare(crawl, os.path.join(folder, "prepared"), made["environment"])

    _heading(console, "3 of 5  curate")
    run = os.path.join(folder, "run")
    _curate(os.path.join(folder, "demo.yaml"), run, executor, console)

    _heading(console, "4 of 5  train a small model")
    _train(os.path.join(folder, "train.yaml"), run, console)

    _heading(console, "5 of 5  write the report")
    from pipelines.report.write_report import write_report

    path = write_report(run)
    console.print(f"done in {format_duration(time.monotonic() - started)}", style="bold green", highlight=False)
    console.print(f"report: {path}", highlight=False, soft_wrap=True)
    console.print(
        f"next: edit {folder}/demo.yaml and run gristmill curate {folder}/demo.yaml --run {run}", highlight=False
    )
    return path


def _heading(console: Any, text: str) -> None:
    console.print(text, style="bold", highlight=False)


def _prepare(crawl: str, folder: str, environment: str) -> None:
    """Makes the n-gram model, the classifier, the benchmark, and the list of documents that trained them."""
    from curation.quality.classifier.train import fit
    from curation.quality.ngram.estimate import train_ngram
    from pipelines.demo.local_corpus import check_ours

    stamp = os.path.join(folder, "made-from.json")
    if os.path.exists(stamp):
        with open(stamp, encoding="utf-8") as f:
            if json.load(f) == environment:
                return
    check_ours(folder, "made-from.json")
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    with open(stamp, "w", encoding="utf-8") as f:  # what a killed demo leaves is the demo's
        json.dump(None, f)
    prose = list(_documents(os.path.join(crawl, "docs"), "docs-"))
    code = list(_documents(os.path.join(crawl, "code"), "code-"))
    held_out = [d for d in prose if _bucket(d["url"]) == 0]
    held_out_code = [d for d in code if _bucket(d["url"]) == 0]
    reference = os.path.join(folder, "reference.jsonl")
    _write_lines(reference, [{"text": d["text"]} for d in held_out])
    train_ngram([reference], 3, os.path.join(folder, "reference.arpa"))
    pairs = [("prose", d["text"]) for d in held_out] + [("code", d["text"]) for d in held_out_code]
    halves = [(label, part) for label, text in pairs for part in _passages(text, 400)]
    options = {"dim": 16, "wordNgrams": 1, "bucket": 0, "epoch": 10, "lr": 0.5}
    fit(halves, os.path.join(folder, "prose.bin"), options=options)
    _write_lines(
        os.path.join(folder, "exclude.jsonl"),
        [{"url": d["url"], "reason": "trained the demo's reference models"} for d in held_out + held_out_code],
    )
    asked = [p for d in prose if _bucket(d["url"]) == 1 for p in _passages(d["text"], 400)[1:2]]
    _write_lines(os.path.join(folder, "benchmark.jsonl"), [{"question": p} for p in asked[:QUESTIONS]])
    with open(stamp, "w", encoding="utf-8") as f:
        json.dump(environment, f)


def _documents(folder: str, prefix: str) -> Iterator[dict[str, str]]:
    for name in sorted(os.listdir(folder)):
        if name.startswith(prefix):
            with gzip.open(os.path.join(folder, name), "rt", encoding="utf-8") as f:
                yield from map(json.loads, f)


def _bucket(url: str) -> int:
    return hashlib.sha256(url.encode()).digest()[-1] % HELD_OUT


def _passages(text: str, size: int) -> list[str]:
    """Consecutive lines of about `size` characters; a shorter rest is left out."""
    parts, part = [], ""
    for line in text.splitlines(keepends=True):
        part += line
        if len(part) >= size:
            parts.append(part[: 4 * size].strip())
            part = ""
    return [p for p in parts if p]


def _write_lines(path: str, rows: list[dict[str, str]]) -> None:
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _curate(file: str, run: str, executor: str, console: Any) -> None:
    from curation.config.load_pipeline import load_pipeline
    from curation.engine.runtime.run import curate
    from pipelines.cards.write_cards import update_cards
    from pipelines.monitor.run_result import print_result

    pipeline = load_pipeline(file)
    with ProgressDisplay(console) as display:
        result = curate(pipeline, run, executor=executor, progress=display)
    print_result(console, result)
    update_cards(run)


def _train(file: str, run: str, console: Any) -> None:
    from pipelines.monitor.training_progress import TrainingProgress
    from training.checkpoint.load_model import load_model
    from training.config import load
    from training.evaluation.generate import describe_expectation, generate
    from training.train import train

    config = load(file)
    folder = os.path.join(run, "train", "demo")
    with TrainingProgress(console, config.steps) as progress:
        result = train(config, run, folder, report=progress)
    for domain, score in sorted(result.validation.items()):
        console.print(f"        {domain}: validation loss {score.loss:.3f}", highlight=False)
    model = load_model(folder)
    sample = generate(model, PROMPT, tokens=96, temperature=0.7)
    with open(os.path.join(folder, "sample.txt"), "w", encoding="utf-8") as f:
        f.write(sample)
    console.print(f"        sample of generated text ({describe_expectation(model)}):", highlight=False)
    console.print(sample, style="italic", markup=False, highlight=False)
