"""Scores code tasks of the HumanEval form: the model completes a function, and its tests are run in a sandbox.

pass@k is the unbiased estimate of Chen et al. 2021 (equation 1): with c of n samples right, 1 - C(n - c, k) / C(n, k).
Running generated code is off by default; sandbox.py says what holds a program when it is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from curation.core.errors import UserError
from training.checkpoint.load_model import LoadedModel
from training.evaluation.generate import generate_tokens
from training.evaluation.sandbox import require_sandbox, runs_to_end
from training.evaluation.task_files import TaskResult

# Where HumanEval's reference ends a completion: at the next unindented statement
STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\n@", "\nassert ")


def pass_at_k(n: int, right: int, k: int) -> float:
    """The chance that one of k samples is right, estimated from n samples of which `right` are."""
    return 1.0 if n - right < k else 1.0 - math.comb(n - right, k) / math.comb(n, k)


def truncate_completion(completion: str) -> str:
    """A completion up to the end of the function."""
    ends = [i for stop in STOPS if (i := completion.find(stop)) >= 0]
    return completion[: min(ends)] if ends else completion


def score_code_task(
    trained: LoadedModel, task: str, rows: Sequence[dict[str, Any]], *, run_code: bool, sandbox: bool, samples: int,
    tokens: int,
) -> TaskResult:  # fmt: skip
    """pass@1 and, with 10 samples or more, pass@10. One sample is greedy; several are drawn at temperature 0.8.

    Raises UserError unless `run_code` allows running the model's code on this machine, and where it has no sandbox
    unless `sandbox` is False.
    """
    if not run_code:
        raise UserError(
            f"{task}: scoring this task runs code that the model wrote on this machine; allow it with --run-code"
        )
    if sandbox:
        require_sandbox(task)
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
            program = f"{row['prompt']}{said}\n{row['test']}\ncheck({row['entry_point']})\n"
            right += runs_to_end(program, sandbox=sandbox)
        rights.append(right)
    figures = {
        f"pass@{k}": sum(pass_at_k(samples, r, k) for r in rights) / len(rights) for k in (1, 10, 100) if k <= samples
    }
    return TaskResult(task, "code", len(rows), figures)
