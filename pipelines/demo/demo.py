"""`gristmill demo`: the whole mill on text that every machine has once this is installed, in a few minutes.

Everything lands in one folder: crawl/ (the text), prepared/ (a reference model, a classifier and a stand-in benchmark
made from a held-out part of it), demo.yaml and train.yaml (to change and run again), run/ (the curation run, with the
training and the report in it). Run again, it does only what is missing.
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
from pipelines.monitor.progress import Display, duration

HELD_OUT = 8  # one document in so many trains the reference model and the classifier
QUESTIONS = 12  # passages in the stand-in benchmark
PROMPT = "This module provides"


def demo(folder: str, *, executor: str = "ray", console: Any) -> str:
    """Builds, curates, trains, reports; returns the report's path. Raises as the parts do."""
    require("gristmill demo", ["warcio", "torch"])
    started = time.monotonic()
    os.makedirs(folder, exist_ok=True)
    for name, copy in (("demo.yaml", "demo.yaml"), ("demo_train.yaml", "train.yaml")):
        if not os.path.exists(os.path.join(folder, copy)):
            text = resources.files("pipelines.recipes").joinpath(name).read_text("utf-8")
            with open(os.path.join(folder, copy), "w", encoding="utf-8") as f:
                f.write(text)

    _say(console, "1 of 5  crawling what this machine knows about itself")
    from pipelines.demo import local_corpus

    crawl = os.path.join(folder, "crawl")
    made = local_corpus.build(crawl)
    domains = ", ".join(f"{d['documents']:,} {n}" for n, d in made["domains"].items())
    console.print(f"        {domains}", highlight=False)

    _say(console, "2 of 5  a language identifier, a reference n-gram model, a classifier")
    from curation import models

    models.pull("lid.176")
    _prepare(crawl, os.path.join(folder, "prepared"), made["environment"])

    _say(console, "3 of 5  curating")
    run = os.path.join(folder, "run")
    _curate(os.path.join(folder, "demo.yaml"), run, executor, console)

    _say(console, "4 of 5  training a small model on it")
    _train(os.path.join(folder, "train.yaml"), run, console)

    _say(console, "5 of 5  the report")
    from pipelines.report import write

    path = write(run)
    console.print(f"[bold green]done[/] in {duration(time.monotonic() - started)}", highlight=False)
    console.print(f"report: {path}", highlight=False, soft_wrap=True)
    console.print(
        f"change  {folder}/demo.yaml and run  gristmill curate {folder}/demo.yaml --run {run}", highlight=False
    )
    return path


def _say(console: Any, text: str) -> None:
    console.print(text, style="bold", highlight=False)


def _prepare(crawl: str, folder: str, environment: str) -> None:
    """The reference model, the classifier, the benchmark and the list of what they were made from."""
    from curation.quality.classifier.train import fit
    from curation.quality.ngram.estimate import train_ngram

    stamp = os.path.join(folder, "made-from.json")
    if os.path.exists(stamp):
        with open(stamp, encoding="utf-8") as f:
            if json.load(f) == environment:
                return
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
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
    """Runs of whole lines of about `size` characters, the short rest left out."""
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
    from curation.config import load as config
    from curation.config.catalogue import READERS, STEPS
    from curation.engine.runtime.run import curate
    from pipelines.cli.commands.curate import show_result, write_cards

    pipeline = config.load(file, catalogue=STEPS, readers=READERS)
    with Display(console) as display:
        result = curate(pipeline, run, executor=executor, progress=display)
    show_result(console, result)
    write_cards(run)


def _train(file: str, run: str, console: Any) -> None:
    from pipelines.cli.text_output import TrainLines
    from training.config import load
    from training.evaluation.generate import generate
    from training.train import train

    config = load(file)
    folder = os.path.join(run, "train", "demo")
    with TrainLines(console, config.steps) as lines:
        result = train(config, run, folder, report=lines)
    for domain, score in sorted(result.validation.items()):
        console.print(f"        {domain}: validation loss {score.loss:.3f}", highlight=False)
    said = generate(folder, PROMPT, tokens=96, temperature=0.7)
    with open(os.path.join(folder, "sample.txt"), "w", encoding="utf-8") as f:
        f.write(said)
    console.print("        it says:", highlight=False)
    console.print(said, style="italic", markup=False, highlight=False)
