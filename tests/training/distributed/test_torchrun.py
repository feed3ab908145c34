"""Under torchrun: the command line gets through; a request to stop is agreed on, heeded at once and leaves a mark."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import typer.main
from torch.distributed.run import parse_args

from pipelines.cli.help_map import EXAMPLES
from pipelines.cli.main import app
from tests.docs.pages import blocks, pages
from tests.training.distributed.test_parallel import CONFIG, ROOT, job, launch
from training.checkpoint import save_load

COMMAND = typer.main.get_command(app)


def through_torchrun(line: str) -> list[str]:
    """The arguments that `gristmill` gets of a line that begins with torchrun."""
    begin, *words = shlex.split(line, comments=True)
    assert begin == "torchrun"
    taken = parse_args(words)
    assert taken.training_script == "pipelines.cli" and taken.module
    return list(taken.training_script_args)


def checked(arguments: list[str]) -> dict[str, Any]:
    """The values of `train`'s options; nothing runs."""
    assert arguments[0] == "train"
    return dict(COMMAND.commands["train"].make_context("train", arguments[1:]).params)  # type: ignore[attr-defined]


def test_documented_lines_fit_torchrun() -> None:
    """Each one as the page has it, and with the options that somebody adds to its end."""
    texts = [block.text for page in pages() for block in blocks(page)]
    lines = [line for text in texts for line in re.findall(r"^(?:srun )?(torchrun .*)", text, re.M)]
    assert len(lines) >= 3
    for line in lines:
        for more in ("", " --run runs/web/train/large", " --run-dir runs/web/train/large", " -q"):
            values = checked(through_torchrun(line.partition(" #")[0] + more))
            assert values["data"] and (values["run"] or "--run" not in more)


def test_an_option_names_the_run_without_a_double_dash() -> None:
    """Every long option of `train` but --run, which torchrun takes for an abbreviation of --run-path."""
    options = {o for p in COMMAND.commands["train"].params for o in p.opts if p.param_type_name == "option"}  # type: ignore[attr-defined]
    assert "--run-dir" in options
    for option in options - {"--run", "--help", "-h"}:
        assert through_torchrun(f"torchrun -m pipelines.cli train c.yaml {option}") == ["train", "c.yaml", option]
    assert checked(["train", "c.yaml", "--data", "x", "--run-dir", "d"])["run"] == "d"
    assert all("--run-dir" not in e for e in EXAMPLES["train"]), "without torchrun there is one name for it"


def test_sigterm_to_torchrun_leaves_a_mark(corpus: Path, tmp_path: Path) -> None:
    """torchrun itself ends with 1 whatever its ranks say: a script looks for the file `preempted`."""
    run, file = tmp_path / "run", tmp_path / "train.json"
    long = {"steps": 100_000, "log_every": 100_000, "evaluate": {"every": 100_000, "sequences": 1}}
    data = {**CONFIG["data"], "max_epochs": 1000}
    file.write_text(json.dumps({**CONFIG, **long, "data": data, "checkpoint": {"every": 5, "keep": 2}}))
    words = ["--nproc-per-node", "2", "--standalone", "-m", "--", "pipelines.cli", "train", str(file)]
    child = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *words, "--data", str(corpus), "--run", str(run)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        while not (run / "checkpoints" / "00000005").exists() and child.poll() is None:
            time.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        said = child.communicate()[0]
    finally:
        child.kill()
    assert child.returncode == 1, said[-3000:]
    found = save_load.newest(run / "checkpoints")
    assert found is not None and "run the same command to resume" in (run / "preempted").read_text(), said[-3000:]
    assert f"stopped after step {found.state['step']};" in (run / "preempted").read_text()
    sessions = [json.loads(line)["event"] for line in (run / "sessions.jsonl").read_text().splitlines()]
    assert sessions == ["start", "preempted"]


# One rank alone is asked to stop: in a step, in an evaluation, or in the search for the cause of a spike.
STOP = """
import json, sys, torch
from training.config import parse
from training.distributed.watchdog import Preempted
from training.train import train
from training.trainer import Callback
torch.set_num_threads(1)
torch.distributed.init_process_group("cpu:gloo")
class Stop(Callback):
    def __init__(self, when):
        self.kind, self.number = when
        self.batches = 0
    def count(self, model, *_):
        self.batches += not model.training
        if self.kind == "batch" and self.batches == self.number and torch.distributed.get_rank() == 1:
            self.stop = True
    def on_train_start(self, trainer):
        trainer.model.register_forward_hook(self.count)
    def on_step_end(self, trainer):
        if self.kind == "step" and trainer.state.step == self.number and torch.distributed.get_rank() == 1:
            self.stop = True
for job in json.loads(sys.argv[1]):
    stop = Stop(job["stop"])
    try:
        train(parse(json.dumps(job["config"])), job["data"], job["run"], callbacks=[stop])
        print(f"done {stop.batches}")
    except Preempted as error:
        print(f"{stop.batches} {error}")
"""


def test_ranks_agree_to_stop_within_a_step_and_within_a_batch(corpus: Path, tmp_path: Path) -> None:
    """Rank 1 alone is asked. Resumed, the log is that of a run that nobody stopped, its evaluations included."""
    settings = {"log_every": 1000, "evaluate.sequences": 12, "batch.micro_size": 2}

    def jobs(name: str, *when: Any) -> list[dict[str, Any]]:
        return [{**job(corpus, tmp_path / name, **settings), "stop": w} for w in when]

    said = launch(2, [
        *jobs("whole", ("never", 0)),
        *jobs("step", ("step", 2), ("never", 0)),
        # 6 batches of each of two domains: the first evaluation, the one after step 4, and its second half again
        *jobs("batch", ("batch", 3), ("batch", 15), ("never", 0)),
    ], STOP).splitlines()  # fmt: skip
    run = tmp_path / "step"
    assert said[:3] == [
        "done 36",
        f"12 {run}: stopped after step 3 and saved a checkpoint; run the same command to resume",
        "done 24",
    ]
    run = tmp_path / "batch"
    assert said[3:] == [
        f"3 {run}: stopped before the first step; run the same command to resume",
        f"15 {run}: stopped after step 4 and saved a checkpoint; run the same command to resume",
        "done 24",
    ]
    for name in ("step", "batch"):
        assert (tmp_path / name / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
        assert not (tmp_path / name / "preempted").exists(), "it is done"
