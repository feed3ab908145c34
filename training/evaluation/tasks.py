"""Scores a model on evaluation tasks: multiple choice, math and code.

*Choice* (the forms of ARC, HellaSwag and MMLU): each answer is scored as the continuation of the question. `accuracy`
takes the highest likelihood; `accuracy_norm` the highest likelihood per character, as lm-eval's acc_norm does, so that
long answers are not at a disadvantage; `bits_per_byte` is the correct answer's, which improves smoothly while small
models' accuracies are still at chance. *Math* (GSM8K): the final number of a generated solution must be right. *Code*
(HumanEval): see humaneval.py. task_files.py describes the files, likelihood.py the scoring of answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from curation.core.errors import UserError
from curation.shards import Manifest
from training.checkpoint.load_model import LoadedModel, load_tokenizer
from training.config import TrainConfig
from training.evaluation.generate import generate_tokens
from training.evaluation.likelihood import likelihoods
from training.evaluation.task_files import Question, Task, TaskResult, final_number, read_task
from training.model.transformer import Model


def score_choice_task(trained: LoadedModel, task: str, questions: Sequence[Question]) -> TaskResult:
    """accuracy, accuracy_norm and bits_per_byte of the correct answer over all questions."""
    requests = [(q.context, c) for q in questions for c in q.choices]
    scores = iter(likelihoods(trained, requests))
    right = right_norm = 0
    nats, size = 0.0, 0
    for q in questions:
        values = [next(scores)[0] for _ in q.choices]
        by_length = [
            v / max(1, len(c) - 1) for v, c in zip(values, q.choices, strict=True)
        ]  # without the leading space
        right += values.index(max(values)) == q.gold
        right_norm += by_length.index(max(by_length)) == q.gold
        nats -= values[q.gold]
        size += len(q.choices[q.gold].encode())
    n = len(questions)
    figures = {
        "accuracy": right / n,
        "accuracy_norm": right_norm / n,
        "bits_per_byte": nats / math.log(2) / max(1, size),
    }
    return TaskResult(task, "choice", n, figures)


def score_math_task(
    trained: LoadedModel, task: str, rows: Sequence[dict[str, Any]], *, shots: int = 0, tokens: int = 256
) -> TaskResult:
    """exact_match of the final number, decoded greedily; the first `shots` lines serve as examples in the prompt."""
    examples = "".join(f"Question: {r['question']}\nAnswer: {r['answer']}\n\n" for r in rows[:shots])
    asked = rows[shots:]
    right = 0
    for row in asked:
        ids = [trained.eos, *trained.encode(f"{examples}Question: {row['question']}\nAnswer:")]

        def ends(said: list[int]) -> bool:
            return "\n\n" in trained.decode(said[-8:])

        said = trained.decode(
            generate_tokens(trained, ids, tokens, 0.0, None, None, torch.Generator(), ends)
        ).partition("\n\n")[0]
        answer = final_number(said)
        right += answer is not None and answer == final_number(row["answer"])
    if not asked:
        raise UserError(f"{task}: with {shots} examples (shots) no question is left to score")
    return TaskResult(task, "math", len(asked), {"exact_match": right / len(asked)})


def evaluate_task(
    trained: LoadedModel,
    task: Task,
    *,
    shots: int = 0,
    run_code: bool = False,
    sandbox: bool = True,
    samples: int = 1,
    tokens: int = 256,
) -> TaskResult:
    """Scores a model on one task; `run_code` and `sandbox`: see `humaneval.score_code_task`.

    Raises UserError if code must not run, and for too many `shots`.
    """
    if task.kind == "choice":
        return score_choice_task(trained, task.name, task.questions)
    if task.kind == "math":
        return score_math_task(trained, task.name, task.rows, shots=shots, tokens=tokens)
    if task.kind == "lm_eval":
        from training.evaluation.lm_eval_adapter import run_lm_eval_task

        return TaskResult(task.name.rpartition("/")[2], task.kind, *run_lm_eval_task(trained, task.name, task.limit))
    from training.evaluation.humaneval import score_code_task

    return score_code_task(
        trained, task.name, task.rows, run_code=run_code, sandbox=sandbox, samples=samples, tokens=tokens
    )


def ignored_options(
    tasks: Sequence[Task], *, shots: int = 0, run_code: bool = False, samples: int = 1, tokens: int = 256
) -> list[str]:
    """A note for each option of `evaluate_task` that was changed and that tasks of these kinds do not read."""
    readers = {
        "--shots": (shots != 0, ("math",), "its prompt is fixed"),
        "--samples": (samples != 1, ("code",), "it takes one answer"),
        "--run-code": (run_code, ("code",), "it runs nothing"),
        "--tokens": (tokens != 256, ("math", "code"), "its answers are not generated, or have a length of their own"),
    }
    notes = []
    for option, (changed, kinds, why) in readers.items():
        names = [f"{t.name} ({t.kind})" for t in tasks if t.kind not in kinds]
        if changed and (names or not tasks):
            on = ", ".join(names) or "the validation loss"
            notes.append(f"{option} has no effect on {on}: {why}; only {' and '.join(kinds)} tasks read it")
    return notes


def read_tasks(config: TrainConfig) -> list[Task]:
    """Reads the tasks in `evaluate.tasks`.

    Raises UserError for an unreadable task, and for a code task: training runs no generated code.
    """
    found = [read_task(path, config.evaluate.task_limit) for path in config.evaluate.tasks]
    if code := [t.name for t in found if t.kind == "code"]:
        raise UserError(
            f"evaluate.tasks: {', '.join(code)} would run code that the model writes, which training does not; "
            "score it afterwards: gristmill evaluate --run-code"
        )
    return found


def score_tasks(
    tasks: Sequence[Task], manifest: Manifest, run: Path, model: Model, max_seq_len: int
) -> dict[str, dict[str, float]]:
    """Scores a model in training on tasks: {"tasks": {"arc.accuracy": 0.3}}. All ranks must call it if it is sharded.

    max_seq_len: the longest sequence length that it was trained on.
    """
    told = manifest.tokenizer
    file = run / told.file
    trained = LoadedModel(model, load_tokenizer(file, told.kind, told.sha256), file, told.eos, max_seq_len, told.vocab)
    found = [evaluate_task(trained, task) for task in tasks]
    return {"tasks": {f"{r.task}.{name}": value for r in found for name, value in r.figures.items()}}
