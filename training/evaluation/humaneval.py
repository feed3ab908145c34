"""Scores code tasks of the HumanEval form: the model completes a function, and its tests are run in a sandbox.

pass@k is the unbiased estimate of Chen et al. 2021 (equation 1): with c of n samples right, 1 - C(n - c, k) / C(n, k).
Running generated code is off by default. If allowed, it runs in its own process: an empty environment and directory, no
input, limits on processor time, memory, files and wall time; it cannot start another process, open a connection or
change a file outside its directory. A program is right if it reaches its end; one that exits before its tests
(`exit(0)`) is wrong. This prevents accidents, not attacks: readable files stay readable, and Python's audit hooks can
be circumvented. For models that you do not trust, use a container as well.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from curation.core.errors import UserError
from training.checkpoint.load_model import LoadedModel
from training.evaluation.generate import generate_tokens
from training.evaluation.task_files import TaskResult

# Where HumanEval's reference ends a completion: at the next unindented statement
STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\n@", "\nassert ")
SECONDS, BYTES = 10, 1 << 30

REACHED = 77  # the exit code of a program that reached its end
CHANGES = [
    "os.chmod", "os.chown", "os.exec", "os.fork", "os.forkpty", "os.kill", "os.killpg", "os.link", "os.mkdir",
    "os.posix_spawn", "os.putenv", "os.remove", "os.rename", "os.rmdir", "os.spawn", "os.symlink", "os.system",
    "os.truncate", "os.utime", "pty.spawn", "subprocess.Popen",
]  # fmt: skip

# Runs before a program in its process: limits, and an audit hook (PEP 578), which cannot be removed.
_RUNNER = """import os, resource, sys
seconds, size, reached, changes = {seconds}, {size}, {reached}, {changes}
folder = os.path.realpath(os.getcwd())
for kind, most in (("CPU", seconds), ("AS", size), ("FSIZE", 1 << 20), ("NOFILE", 32), ("CORE", 0), ("NPROC", 0)):
    resource.setrlimit(getattr(resource, "RLIMIT_" + kind), (most, most))
writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

def hook(event, given, inside=folder + os.sep, whole=os.path.realpath, text=os.fsdecode):
    if event in changes or event.startswith(("socket.", "ctypes.", "shutil.")):
        raise PermissionError(event)
    if event == "open" and given[2] & writing and not isinstance(given[0], int):
        if not whole(text(given[0])).startswith(inside):
            raise PermissionError(text(given[0]))

with open("program.py", "rb") as f:
    program = compile(f.read(), "program.py", "exec", dont_inherit=True)
sys.addaudithook(hook)
exec(program, {{"__name__": "__main__"}})
os._exit(reached)
"""


def pass_at_k(n: int, right: int, k: int) -> float:
    """The chance that one of k samples is right, estimated from n samples of which `right` are."""
    return 1.0 if n - right < k else 1.0 - math.comb(n - right, k) / math.comb(n, k)


def runs_to_end(program: str, seconds: float = SECONDS, size: int = BYTES) -> bool:
    """Runs a program and returns whether it reaches its end without an error and within its limits; see the module."""
    runner = _RUNNER.format(seconds=math.ceil(seconds), size=size, reached=REACHED, changes=CHANGES)
    with tempfile.TemporaryDirectory() as folder:
        # In a file: an argument holds 128 KiB at most, and longer tests are not rare
        Path(folder, "program.py").write_bytes(program.encode("utf-8", errors="surrogatepass"))
        running = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", runner],
            cwd=folder,
            env={"TMPDIR": folder},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return running.wait(2 * seconds) == REACHED
        except subprocess.TimeoutExpired:
            return False
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()


def truncate_completion(completion: str) -> str:
    """A completion up to the end of the function."""
    ends = [i for stop in STOPS if (i := completion.find(stop)) >= 0]
    return completion[: min(ends)] if ends else completion


def score_code_task(
    trained: LoadedModel, task: str, rows: Sequence[dict[str, Any]], *, run_code: bool, samples: int, tokens: int
) -> TaskResult:
    """pass@1 and, with 10 samples or more, pass@10. One sample is greedy; several are drawn at temperature 0.8.

    Raises UserError unless `run_code` allows running the model's code on this machine.
    """
    if not run_code:
        raise UserError(
            f"{task}: scoring this task runs code that the model wrote on this machine; allow it with --run-code"
        )
    temperature, top_p = (0.0, None) if samples == 1 else (0.8, 0.95)
    rights = []
    for number, row in enumerate(rows):
        ids = [trained.eos, *trained.encode(row["prompt"])]
        right = 0
        for sample in range(samples):
            generator = torch.Generator().manual_seed(number * 1009 + sample)

            def ends(said: list[int]) -> bool:
                text = trained.decode(said)
                return truncate_completion(text) != text

            said = truncate_completion(
                trained.decode(generate_tokens(trained, ids, tokens, temperature, None, top_p, generator, ends))
            )
            right += runs_to_end(f"{row['prompt']}{said}\n{row['test']}\ncheck({row['entry_point']})\n")
        rights.append(right)
    figures = {
        f"pass@{k}": sum(pass_at_k(samples, r, k) for r in rights) / len(rights) for k in (1, 10, 100) if k <= samples
    }
    return TaskResult(task, "code", len(rows), figures)
