"""Reads evaluation tasks from JSONL files, plain or gzipped.

The formats are those of ARC, HellaSwag, MMLU, GSM8K and HumanEval. `lm_eval:NAME` names a task of lm-eval
(lm_eval_adapter.py), `lm_eval:FOLDER/NAME` one that a YAML file in that folder describes.

The format is detected from the keys of the first line. All lines are checked before anything is scored, so that an
invalid one (no right answer among the choices, a number instead of text) is reported at once, with its line.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curation.core.errors import UserError

LM_EVAL = "lm_eval:"


@dataclass(frozen=True)
class Question:
    """A multiple-choice question: `context` comes before each of `choices`; `gold` is the index of the right one."""

    context: str
    choices: tuple[str, ...]
    gold: int


@dataclass(frozen=True)
class Task:
    """A task: a choice task has `questions`, a math or code task `rows`, an lm-eval task only its `limit`."""

    name: str
    kind: str  # choice, math, code or lm_eval
    questions: tuple[Question, ...] = ()
    rows: tuple[dict[str, str], ...] = ()
    limit: int | None = None


@dataclass(frozen=True)
class TaskResult:
    """A model's scores on one task; `figures` are metrics by name, `count` is the number of questions."""

    task: str
    kind: str
    count: int
    figures: dict[str, float] = field(default_factory=dict)


def read_task(path: str, limit: int | None = None) -> Task:
    """The first `limit` questions of a file (None: all). Raises UserError for what cannot be read, with its line."""
    if path.startswith(LM_EVAL):
        from training.evaluation.lm_eval_adapter import find_lm_eval_task

        find_lm_eval_task(path.removeprefix(LM_EVAL))
        return Task(path.removeprefix(LM_EVAL), "lm_eval", limit=limit)
    kind, number = "", 0
    questions: list[Question] = []
    rows: list[dict[str, str]] = []
    try:
        with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8-sig") as f:
            for line in f:
                number += 1
                if not line.strip():
                    continue
                row = json.loads(line)
                kind = kind or detect_kind(row, path)
                if kind == "choice":
                    questions.append(parse_question(row))
                else:
                    rows.append(_texts(row, kind))
                if len(questions) + len(rows) == limit:
                    break
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot read this task: {error}") from error
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path}:{number}: not a line of the form {kind or 'JSON'}: {said}") from error
    if not kind:
        raise UserError(f"{path}: this task file has no lines")
    return Task(Path(path).name.removesuffix(".gz").removesuffix(".jsonl"), kind, tuple(questions), tuple(rows))


def detect_kind(row: Any, path: str) -> str:
    """choice, math or code, by the keys of a line. Raises UserError for an unknown format."""
    keys = row.keys() if isinstance(row, dict) else set()
    if {"prompt", "test", "entry_point"} <= keys:
        return "code"
    if "endings" in keys or "choices" in keys:
        return "choice"
    if {"question", "answer"} <= keys:
        return "math"
    raise UserError(
        f"{path}: a line has {', '.join(sorted(keys)) or 'no keys'}; expected question, choices and answer or "
        "answerKey (ARC, MMLU), ctx, endings and label (HellaSwag), question and answer (GSM8K), or prompt, test and "
        "entry_point (HumanEval)"
    )


def parse_question(row: dict[str, Any]) -> Question:
    """A line of ARC, HellaSwag or MMLU form. Continuations begin with the space that separates them.

    Raises KeyError, TypeError or ValueError for a line of another form.
    """
    if "endings" in row:
        context, texts, gold = _text(row, "ctx"), row["endings"], int(row["label"])
    else:
        context, choices = f"Question: {_text(row, 'question')}\nAnswer:", row["choices"]
        texts = choices["text"] if isinstance(choices, dict) else choices
        labels = choices.get("label") if isinstance(choices, dict) else None
        answer = row["answerKey"] if "answerKey" in row else row["answer"]
        if labels is None and isinstance(answer, int):
            gold = answer
        else:
            labels = [str(x) for x in labels or (chr(ord("A") + i) for i in range(len(texts)))]
            if str(answer) not in labels:
                raise ValueError(f"the answer {answer!r} is not one of the labels {', '.join(labels)}")
            gold = labels.index(str(answer))
    if not isinstance(texts, list) or len(texts) < 2:
        raise ValueError(f"the choices are {texts!r}, and should be a list of two or more")
    if not 0 <= gold < len(texts):
        raise ValueError(f"the answer is number {gold}, counted from 0, of {len(texts)} choices")
    return Question(context, tuple(f" {_text({'a choice': t}, 'a choice')}" for t in texts), gold)


_KEYS = {"math": ("question", "answer"), "code": ("prompt", "test", "entry_point")}


def _texts(row: dict[str, Any], kind: str) -> dict[str, str]:
    found = {key: _text(row, key) for key in _KEYS[kind]}
    if kind == "math" and final_number(found["answer"]) is None:
        raise ValueError(f"the answer {found['answer']!r} has no number")
    return found


def _text(row: dict[str, Any], key: str) -> str:
    """A value that is text or a number, as text. Raises for anything else, empty text and lone surrogates."""
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise TypeError(f"{key} is {value!r}, and should be text")
    text = str(value)
    text.encode()  # refuses half of a surrogate pair
    if not text.strip():
        raise ValueError(f"{key} is empty")
    return text


_NUMBER = re.compile(r"-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")


def final_number(text: str) -> str | None:
    """The number after ####, else the last number, without thousands separators or a final point; None if no number."""
    marked = text.rpartition("####")[2] if "####" in text else text
    found = _NUMBER.findall(marked)
    if not found:
        return None
    number: str = (found[0] if "####" in text else found[-1]).replace(",", "")
    if number.lstrip("-").startswith("."):
        number = number.replace(".", "0.")
    return number.rstrip("0").rstrip(".") if "." in number else number
