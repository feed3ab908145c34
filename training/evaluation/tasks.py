"""Evaluation tasks from local JSONL files: which answer a model finds likelier, and what it writes.

*Choice* (the forms of ARC, HellaSwag and MMLU): each answer is scored as the continuation of the question. `accuracy`
takes the highest likelihood; `accuracy_norm` the highest likelihood a character, as lm-eval's acc_norm does, so that
long answers are not at a disadvantage; `bits_per_byte` is the gold answer's, which moves smoothly where accuracies of
small models stand at chance. *Math* (GSM8K): the number that a generated solution ends in. *Code* (HumanEval): code.py.
The files' forms are questions.py's.

Questions are packed into windows as documents are: they do not see each other, and nothing is padded but the last.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from curation.core.errors import UserError
from curation.shards import Manifest
from training.config import TrainConfig
from training.evaluation.generate import Trained, open_tokenizer, say
from training.evaluation.task_files import Question, Task, final_number, read_task
from training.model.attention import layout, way
from training.model.transformer import Model

Request = tuple[str, str]  # what stands before, and the continuation that is scored


@dataclass(frozen=True)
class Result:
    """What a model scored on one task; `figures` by name."""

    task: str
    kind: str
    count: int
    figures: dict[str, float] = field(default_factory=dict)


def encode_pair(trained: Trained, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Tokens of both, split where the context's end; spaces at its end belong to the continuation, as in lm-eval."""
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    whole, before = trained.encode(context + continuation), trained.encode(context)
    return before, whole[len(before) :]


@torch.no_grad()
def likelihoods(trained: Trained, requests: Sequence[Request], windows: int = 8) -> list[tuple[float, bool]]:
    """For each request the continuation's log-likelihood in nats, and whether greedy decoding would write it.

    A request longer than the model's window loses the beginning of its context.
    """
    rows: list[tuple[int, list[int], int]] = []  # number, tokens with EOS before, how many of them are scored
    for number, (context, continuation) in enumerate(requests):
        before, after = encode_pair(trained, context, continuation)
        rows.append(
            (number, [trained.eos, *before, *after][-(trained.sequence + 1) :], min(len(after), trained.sequence))
        )
    found: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
    packed: list[list[tuple[int, list[int], int]]] = []
    room = 0
    for row in sorted(rows, key=lambda r: -len(r[1])):
        if not packed or len(row[1]) - 1 > room:
            packed.append([])
            room = trained.sequence
        packed[-1].append(row)
        room -= len(row[1]) - 1
    for begin in range(0, len(packed), windows):
        for number, value in _score(trained, packed[begin : begin + windows]):
            found[number] = value
    return found


def _score(
    trained: Trained, packed: Sequence[Sequence[tuple[int, list[int], int]]]
) -> Iterable[tuple[int, tuple[float, bool]]]:
    model = trained.model
    device = model.embedding.weight.device
    length = max(sum(len(tokens) - 1 for _, tokens, _ in window) for window in packed)
    inputs = torch.full((len(packed), length), trained.eos, dtype=torch.int64)
    documents = torch.full((len(packed), length), max(len(w) for w in packed), dtype=torch.int64)
    places: list[tuple[int, int, int, int]] = []  # number, window, first and last place of the scored
    targets: list[int] = []
    for row, window in enumerate(packed):
        at = 0
        for i, (number, tokens, scored) in enumerate(window):
            size = len(tokens) - 1
            inputs[row, at : at + size] = torch.tensor(tokens[:-1])
            documents[row, at : at + size] = i
            places.append((number, row, at + size - scored, at + size))
            targets += tokens[len(tokens) - scored :]
            at += size
    cast = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if cast else model.norm.weight.dtype
    how = model.attention_way or way(device, dtype)
    # Lengths differ from batch to batch, and flex would be compiled for each
    mask = layout(documents.to(device), "sdpa" if how == "flex" else how, dtype)
    hidden = model.hidden(inputs.to(device), mask)
    picked = torch.cat([hidden[row, a:b] for _, row, a, b in places])
    wanted = torch.tensor(targets, device=device)
    values, best = [], []
    for begin in range(0, len(picked), 256):
        logits = model.head(picked[begin : begin + 256]).float()
        label = wanted[begin : begin + 256, None]
        values.append(torch.log_softmax(logits, dim=-1).gather(1, label)[:, 0].double())
        best.append(logits.argmax(dim=-1) == label[:, 0])
    value, greedy = torch.cat(values).cpu(), torch.cat(best).cpu()
    at = 0
    for number, _, a, b in places:
        part = slice(at, at + b - a)
        yield number, (float(value[part].sum()), bool(greedy[part].all()))
        at += b - a


def choice(trained: Trained, task: str, questions: Sequence[Question]) -> Result:
    """accuracy, accuracy_norm and bits_per_byte of the gold answer over all questions."""
    requests = [(q.context, c) for q in questions for c in q.choices]
    scores = iter(likelihoods(trained, requests))
    right = right_norm = 0
    nats, size = 0.0, 0
    for q in questions:
        values = [next(scores)[0] for _ in q.choices]
        by_length = [v / max(1, len(c) - 1) for v, c in zip(values, q.choices, strict=True)]  # less the space
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
    return Result(task, "choice", n, figures)


def math_task(
    trained: Trained, task: str, rows: Sequence[dict[str, Any]], *, shots: int = 0, tokens: int = 256
) -> Result:
    """exact_match of the final number, greedy; the first `shots` lines are examples and not asked."""
    examples = "".join(f"Question: {r['question']}\nAnswer: {r['answer']}\n\n" for r in rows[:shots])
    asked = rows[shots:]
    right = 0
    for row in asked:
        ids = [trained.eos, *trained.encode(f"{examples}Question: {row['question']}\nAnswer:")]

        def ends(said: list[int]) -> bool:
            return "\n\n" in trained.decode(said[-8:])

        said = trained.decode(say(trained, ids, tokens, 0.0, None, None, torch.Generator(), ends)).partition("\n\n")[0]
        answer = final_number(said)
        right += answer is not None and answer == final_number(row["answer"])
    if not asked:
        raise UserError(f"{task}: {shots} examples leave no line to ask")
    return Result(task, "math", len(asked), {"exact_match": right / len(asked)})


def evaluate_task(
    trained: Trained,
    task: Task,
    *,
    shots: int = 0,
    run_code: bool = False,
    samples: int = 1,
    tokens: int = 256,
) -> Result:
    """Scores a model on one task. Raises UserError for code that is not allowed to run, and too many `shots`."""
    if task.kind == "choice":
        return choice(trained, task.name, task.questions)
    if task.kind == "math":
        return math_task(trained, task.name, task.rows, shots=shots, tokens=tokens)
    if task.kind == "lm_eval":
        from training.evaluation.lm_eval_adapter import score

        return Result(task.name.rpartition("/")[2], task.kind, *score(trained, task.name, task.limit))
    from training.evaluation.humaneval import code_task

    return code_task(trained, task.name, task.rows, run_code=run_code, samples=samples, tokens=tokens)


def tasks_of(config: TrainConfig) -> list[Task]:
    """`evaluate.tasks`, read. Raises UserError for what cannot be read, and for code: training runs none."""
    found = [read_task(path, config.evaluate.task_limit) for path in config.evaluate.tasks]
    if code := [t.name for t in found if t.kind == "code"]:
        raise UserError(
            f"evaluate.tasks: {', '.join(code)} would run what the model writes, which training does not; "
            "score it afterwards: gristmill evaluate --run-code"
        )
    return found


def score_tasks(
    tasks: Sequence[Task], manifest: Manifest, run: Path, model: Model, sequence: int
) -> dict[str, dict[str, float]]:
    """A model in training on tasks: {"tasks": {"arc.accuracy": 0.3}}. Collective when sharded.

    sequence: the longest window that it was trained on.
    """
    told = manifest.tokenizer
    file = run / told.file
    trained = Trained(model, open_tokenizer(file, told.kind), file, told.eos, sequence)
    found = [evaluate_task(trained, task) for task in tasks]
    return {"tasks": {f"{r.task}.{name}": value for r in found for name, value in r.figures.items()}}
