"""HumanEval's form: a function is written from its head and docstring, and its tests are run.

pass@k is the unbiased estimate of Chen et al. 2021 (equation 1): with c of n samples right, 1 - C(n - c, k) / C(n, k).
Running what a model wrote is off unless asked for. It then runs in a process of its own: an empty environment and
directory, no input, limits on processor time, memory, files and wall time. That stops accidents; it is no prison: the
network and the readable files stay reachable. For models one does not trust, use a container on top.
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .config import UserError
from .generate import Trained, say
from .tasks import Result

# Where HumanEval's reference stops a completion: the next thing at the left margin.
STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\n@", "\nassert ")
SECONDS, BYTES = 10, 1 << 30

_LIMITS = """import resource
resource.setrlimit(resource.RLIMIT_CPU, ({seconds}, {seconds}))
resource.setrlimit(resource.RLIMIT_AS, ({size}, {size}))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
del resource
"""


def pass_at(n: int, right: int, k: int) -> float:
    """The chance that one of k samples is right, estimated from n samples of which `right` are."""
    return 1.0 if n - right < k else 1.0 - math.comb(n - right, k) / math.comb(n, k)


def passes(program: str, seconds: float = SECONDS, size: int = BYTES) -> bool:
    """Whether a program ends by itself without an error, within its limits. It runs; see the head of this file."""
    limits = _LIMITS.format(seconds=math.ceil(seconds), size=size)
    with tempfile.TemporaryDirectory() as folder:
        # in a file: an argument may be no longer than 128 KiB and hold no NUL, and models write both
        file = Path(folder) / "program.py"
        file.write_bytes((limits + program).encode("utf-8", "surrogatepass"))
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", str(file)],
                cwd=folder,
                env={},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=2 * seconds,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0


def cut(completion: str) -> str:
    """A completion up to the end of the function."""
    ends = [i for stop in STOPS if (i := completion.find(stop)) >= 0]
    return completion[: min(ends)] if ends else completion


def code_task(
    trained: Trained, task: str, rows: Sequence[dict[str, Any]], *, run_code: bool, samples: int, tokens: int
) -> Result:
    """pass@1 and, with 10 samples or more, pass@10. One sample is greedy; several are drawn at temperature 0.8.

    Raises UserError unless `run_code` says that what the model writes may run here.
    """
    if not run_code:
        raise UserError(f"{task}: scoring this runs code that the model wrote, on this machine; allow it: --run-code")
    temperature, top_p = (0.0, None) if samples == 1 else (0.8, 0.95)
    rights = []
    for number, row in enumerate(rows):
        ids = [trained.eos, *trained.encode(row["prompt"])]
        right = 0
        for sample in range(samples):
            generator = torch.Generator().manual_seed(number * 1009 + sample)

            def ends(said: list[int]) -> bool:
                text = trained.decode(said)
                return cut(text) != text

            said = cut(trained.decode(say(trained, ids, tokens, temperature, None, top_p, generator, ends)))
            right += passes(f"{row['prompt']}{said}\n{row['test']}\ncheck({row['entry_point']})\n")
        rights.append(right)
    figures = {
        f"pass@{k}": sum(pass_at(samples, r, k) for r in rights) / len(rights) for k in (1, 10, 100) if k <= samples
    }
    return Result(task, "code", len(rows), figures)
