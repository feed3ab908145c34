"""Tasks: scores against the plain computation, the forms of files, code in its process, lm-eval's own accuracy.

Covers: likelihood.py, task_files.py, humaneval.py, lm_eval_adapter.py
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from curation.core.errors import UserError
from training.checkpoint.load_model import LoadedModel, load_model
from training.config import parse
from training.evaluation import humaneval, sandbox, tasks
from training.evaluation.likelihood import encode_pair, likelihoods
from training.evaluation.sandbox import explain_no_sandbox
from training.evaluation.task_files import Question, Task, detect_kind, final_number, parse_question, read_task
from training.evaluation.tasks import evaluate_task, ignored_options, read_tasks, score_choice_task


@pytest.fixture(scope="module")
def model(trained: Path) -> LoadedModel:
    return load_model(str(trained))


def plainly(trained: LoadedModel, context: str, continuation: str) -> tuple[float, bool]:
    """One request, by itself, by the formula."""
    before, after = encode_pair(trained, context, continuation)
    ids = torch.tensor([[trained.eos, *before, *after]])
    with torch.no_grad():
        logits = F.linear(trained.model.hidden_states(ids[:, :-1], None), trained.model.head.weight)[0, -len(after) :]
    wanted = torch.tensor(after)
    value = torch.log_softmax(logits, -1).gather(1, wanted[:, None]).sum().item()
    return value, bool((logits.argmax(-1) == wanted).all())


def test_likelihoods_are_those_of_each_request_alone(model: LoadedModel) -> None:
    requests = [
        ("def f(x):\n    return ", "x"),
        ("import ", "os\nimport sys"),
        ("", "class A"),
        ("a b ", "c"),
        ("é", " ü"),
    ] * 3
    requests.append(("import json", " as something"))
    found = likelihoods(model, requests, batch_size=2)
    for request, (value, greedy) in zip(requests, found, strict=True):
        expected, best = plainly(model, *request)
        assert value == pytest.approx(expected, abs=1e-4) and greedy == best
    long = likelihoods(model, [("word " * 500, "end")])[0][0]
    assert long < 0, "a context longer than the model's maximum length loses its beginning"


def test_forms() -> None:
    arc = {"question": "Q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"}
    assert parse_question(arc) == Question("Question: Q\nAnswer:", (" a", " b"), 1)
    assert parse_question({"question": "Q", "choices": ["a", "b", "c"], "answer": 2}).gold == 2
    assert parse_question({"question": "Q", "choices": ["a", "b", "c"], "answer": "C"}).gold == 2
    assert parse_question({"ctx": "He", "endings": ["runs", "eats"], "label": "1"}) == Question(
        "He", (" runs", " eats"), 1
    )
    assert [detect_kind(r, "x") for r in (arc, {"question": "", "answer": ""})] == ["choice", "math"]
    assert detect_kind({"prompt": "", "test": "", "entry_point": "", "task_id": ""}, "x") == "code"
    with pytest.raises(UserError, match="expected question, choices"):
        detect_kind({"text": ""}, "x")


def test_choice_figures(model: LoadedModel) -> None:
    questions = [Question("import", (" os", " wxyzq qqq"), 0), Question("def f(", ("self):", "zzz"), 1)]
    result = score_choice_task(model, "t", questions)
    values = [[plainly(model, q.context, c)[0] for c in q.choices] for q in questions]
    right = sum(v.index(max(v)) == q.gold for v, q in zip(values, questions, strict=True))
    assert result.figures["accuracy"] == right / 2 and result.count == 2
    gold = -sum(v[q.gold] for v, q in zip(values, questions, strict=True)) / 0.6931471805599453
    assert result.figures["bits_per_byte"] == pytest.approx(gold / (3 + 3), rel=1e-5)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 3 + 4 = 7", "7"), ("#### 1,234", "1234"), ("it is 12.50 dollars", "12.5"), ("-3", "-3"), ("none", None),
        ("#### 18\nThen 5", "18"), ("100", "100"), ("2.0", "2"), ("$1,000,000.50.", "1000000.5"), (".5", "0.5"),
        ("-.25", "-0.25"), ("####", None), ("", None), ("3 или 4", "4"),
    ],
)  # fmt: skip
def test_final_number(text: str, number: str | None) -> None:
    assert final_number(text) == number


def test_code_runs_only_when_asked_and_within_limits(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert humaneval.runs_to_end("assert 1 + 1 == 2") and not humaneval.runs_to_end("assert 1 + 1 == 3")
    assert [humaneval.pass_at_k(10, c, 1) for c in (0, 5, 10)] == [0, 0.5, 1]
    assert humaneval.pass_at_k(4, 2, 2) == pytest.approx(1 - 1 / 6)
    assert humaneval.truncate_completion("    return 1\n\ndef g():") == "    return 1\n"
    row = {"task_id": "x/0", "prompt": "def f():\n", "test": "def check(g):\n    assert g() == 1", "entry_point": "f"}
    file = tmp_path / "he.jsonl"
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match="--run-code"):
        evaluate_task(model, read_task(str(file)))
    said = iter(["    return 1\n", "    return 2\n"] * 5)
    monkeypatch.setattr(humaneval, "generate_tokens", lambda *_: [])
    monkeypatch.setattr(LoadedModel, "decode", lambda *_: next(said))
    result = evaluate_task(model, read_task(str(file)), run_code=True, sandbox=not explain_no_sandbox(), samples=10)
    assert result.figures == {"pass@1": pytest.approx(0.5), "pass@10": 1.0}


OUTSIDE = "/tmp/gristmill-outside"


@pytest.mark.parametrize(
    ("program", "right"),
    [
        ("import collections, hashlib, heapq, itertools, math, random, re, typing\nassert math.comb(4, 2) == 6", True),
        ("from __future__ import annotations\nx: Missing = 'é'", True),
        ("open('a', 'w').write('x')\nassert open('a').read() == 'x'", True),
        ("import sys\nsys.exit(0)\nassert False", False),  # left before its tests
        ("import os\nos._exit(0)\nassert False", False),
        ("while True: pass", False),
        ("while True: print('x' * 1000)", False),
        ("import time\ntime.sleep(60)", False),
        ("input()", False),
        ("x = bytearray(1 << 31)", False),
        ("def f(): f()\nf()", False),
        ("open('big', 'wb').write(bytes(1 << 22))", False),
        (f"open({OUTSIDE!r}, 'w')", False),
        (f"import os\nos.open({OUTSIDE!r}, os.O_CREAT | os.O_WRONLY)", False),
        (f"import os\nos.mkdir({OUTSIDE!r})", False),
        (f"import os\nos.symlink({OUTSIDE!r}, 'a')", False),
        (f"import shutil\nshutil.rmtree({OUTSIDE!r})", False),
        ("import os\nwhile True: os.fork()", False),
        ("import subprocess\nsubprocess.run(['true'])", False),
        ("import os\nos.system('true')", False),
        ("import multiprocessing\nmultiprocessing.Process(target=print).start()", False),
        ("import socket\nsocket.create_connection(('127.0.0.1', 80))", False),
        ("import os\nassert os.environ.get('HOME')", False),
        ("import numpy", False),
        ("x = '\ud800'", False),
        ("x = '\0'", False),
        ('x = """', False),
        ("", True),
    ],
)
def test_odd_programs(program: str, right: bool) -> None:
    """Whatever it is: a verdict, and nothing left behind."""
    assert humaneval.runs_to_end(program, seconds=sandbox.SECONDS if right else 1) is right
    assert not os.path.lexists(OUTSIDE)


def test_long_programs() -> None:
    assert humaneval.runs_to_end("x = '" + "a" * 300_000 + "'"), "longer than an argument may be"
    assert not humaneval.runs_to_end("x = " + "(" * 5000 + ")" * 5000)


ARC = {"question": "Q", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "2"}
SWAG = {"ctx": "He", "endings": ["runs", "eats"], "label": 1}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({**ARC, "answerKey": "C"}, "the answer 'C' is not one of the labels 1, 2"),
        ({**ARC, "answerKey": 3}, "the answer 3 is not one of the labels"),
        ({**ARC, "choices": {"text": ["a", ""], "label": ["1", "2"]}}, "a choice is empty"),
        ({**ARC, "choices": {"text": ["a", None], "label": ["1", "2"]}}, "a choice is None"),
        ({**ARC, "choices": {"label": ["1", "2"]}}, "'text' is missing"),
        ({**ARC, "question": None}, "question is None"),
        ({**ARC, "question": "\ud800"}, "surrogates not allowed"),
        ({"question": "Q", "choices": [], "answer": 0}, r"the choices are \[\], and should be a list of two"),
        ({"question": "Q", "choices": "abc", "answer": 0}, "the choices are 'abc'"),
        ({"question": "Q", "choices": ["a", "b"], "answer": 2}, "the answer is number 2, counted from 0, of 2 choices"),
        ({"question": "Q", "choices": ["a", "b"], "answer": -1}, "the answer is number -1"),
        ({"question": "Q", "choices": ["a", "b"]}, "'answer' is missing"),
        ({**SWAG, "label": ""}, "invalid literal"),
        ({**SWAG, "label": "2"}, "the answer is number 2"),
        ({**SWAG, "ctx": 3, "endings": None}, "the choices are None"),
    ],
)
def test_odd_questions(tmp_path: Path, line: dict[str, object], said: str) -> None:
    file = tmp_path / "odd.jsonl"
    whole = SWAG if "ctx" in line else ARC
    file.write_text(f"{json.dumps(whole)}\n\n{json.dumps(line)}\n")
    assert len(read_task(str(file), 1).questions) == 1, "what is not asked for is not looked at"
    with pytest.raises(UserError, match=f"odd.jsonl:3: not a line of the form choice: .*{said}"):
        read_task(str(file))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no line"), ("\n \n", "no line"), ("[1]\n", "a line has no keys"), ("3\n", "a line has no keys"),
        ('{"a": 1}', "a line has a; expected"), ("{", "odd.jsonl:1: not a line of the form JSON"),
        ('{"question": "a", "answer": "none"}', "the answer 'none' has no number"),
        ('{"prompt": "a", "test": 1.5, "entry_point": null}', "entry_point is None"),
    ],
)  # fmt: skip
def test_odd_files(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "odd.jsonl"
    file.write_text(text)
    with pytest.raises(UserError, match=said):
        read_task(str(file))


def test_odd_bytes(tmp_path: Path) -> None:
    file = tmp_path / "odd.jsonl"
    file.write_bytes(b"\xff\xfe{}")
    with pytest.raises(UserError, match=r"odd\.jsonl"):
        read_task(str(file))
    packed = tmp_path / "odd.jsonl.gz"
    packed.write_bytes(gzip.compress(json.dumps(ARC).encode() * 1000)[:-20])
    with pytest.raises(UserError, match=r"odd\.jsonl\.gz"):
        read_task(str(packed))
    file.write_text("\ufeff" + json.dumps(ARC))
    assert read_task(str(file)).questions == (Question("Question: Q\nAnswer:", (" a", " b"), 1),)


def test_odd_text_is_scored(model: LoadedModel) -> None:
    """Emoji, combining marks, NUL, right-to-left, a choice longer than the maximum length, equal choices."""
    odd = ["🙂" * 9, "e\u0301" * 9, "a\0b", "\u202eabc", "x" * 2000, "same", "same"]
    result = score_choice_task(model, "odd", [Question("Question: ü\nAnswer:", tuple(f" {t}" for t in odd), 5)])
    assert 0 < result.figures["bits_per_byte"] < 50 and result.count == 1


def test_lm_eval_by_name_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(
        UserError, match=r'(?s)lm_eval:arc_easy: lm_eval is not installed.*pip install "gristmill\[eval\]"'
    ):
        read_task("lm_eval:arc_easy")


def test_training_runs_no_code(tmp_path: Path) -> None:
    file = tmp_path / "he.jsonl"
    file.write_text(json.dumps({"prompt": "def f():\n", "test": "pass", "entry_point": "f"}))
    with pytest.raises(
        UserError, match="he would run code that the model writes, which training does not; score it after"
    ):
        read_tasks(parse("steps: 1", "t", {"evaluate.tasks": [str(file)]}))


def test_math(model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"question": f"What is {i} + 1?", "answer": f"It is {i + 1}.\n#### {i + 1}"} for i in range(3)]
    file = tmp_path / "gsm.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert 0 <= evaluate_task(model, read_task(str(file)), tokens=4).figures["exact_match"] <= 1
    monkeypatch.setattr(tasks, "generate_tokens", lambda *_: model.encode(" 1 and 1 is\n#### 2\n\nQuestion: 9"))
    result = evaluate_task(model, read_task(str(file)), shots=1)
    assert (result.count, result.figures["exact_match"]) == (2, 0.5)
    with pytest.raises(UserError, match="no question is left to score"):
        evaluate_task(model, read_task(str(file)), shots=3)
    with pytest.raises(UserError, match="cannot read this task"):
        read_task(str(tmp_path / "nowhere.jsonl"))


def test_lm_eval_gives_the_same_accuracy(model: LoadedModel, texts: dict[str, list[str]], tmp_path: Path) -> None:
    """A local task of 60 questions: which of four lines follows."""
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.tasks import TaskManager

    from training.evaluation.lm_eval_adapter import as_lm_eval_model, generate_until

    lines = [x.strip() for t in texts["code"] for x in t.splitlines() if 20 < len(x.strip()) < 60]
    rows = []
    for i in range(60):
        gold = i % 4
        choices = [lines[(i * 37 + 11 * j + 5) % len(lines)] for j in range(4)]
        choices[gold] = lines[i * 20 + 1]
        rows.append({"question": lines[i * 20], "choices": choices, "answer": gold})
    file = tmp_path / "next.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "next_line.yaml").write_text(
        f"task: next_line\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {file}}}}}\ntest_split: test\n"
        "output_type: multiple_choice\ndoc_to_text: \"Question: {{question}}\\nAnswer:\"\ndoc_to_choice: choices\n"
        "doc_to_target: answer\ntarget_delimiter: \" \"\n"
        "metric_list:\n  - {metric: acc, aggregation: mean, higher_is_better: true}\n"
        "  - {metric: acc_norm, aggregation: mean, higher_is_better: true}\n"
    )  # fmt: skip
    found = lm_eval.simple_evaluate(
        model=as_lm_eval_model(model),
        tasks=["next_line"],
        task_manager=TaskManager(include_path=str(tmp_path)),
        bootstrap_iters=0,
    )["results"]["next_line"]
    by_name = evaluate_task(model, read_task(f"lm_eval:{tmp_path}/next_line"))
    assert (by_name.task, by_name.count) == ("next_line", 60)
    assert by_name.figures["acc"] == found["acc,none"] and by_name.figures["acc_norm"] == found["acc_norm,none"]
    assert evaluate_task(model, read_task(f"lm_eval:{tmp_path}/next_line", 10)).count == 10
    with pytest.raises(UserError, match="lm-eval has no task 'no_such_task'"):
        read_task("lm_eval:no_such_task")
    ours = evaluate_task(model, read_task(str(file))).figures
    assert found["acc,none"] == ours["accuracy"] and found["acc_norm,none"] == ours["accuracy_norm"]
    assert 0.1 < ours["accuracy"] < 1
    assert isinstance(generate_until(model, "import", {"until": ["\n"], "max_gen_toks": 5}), str)


def test_options_that_a_task_does_not_read_are_named() -> None:
    choice, math_, code = (Task(name, kind) for name, kind in (("arc", "choice"), ("gsm", "math"), ("he", "code")))
    assert ignored_options([choice, math_, code]) == []
    assert ignored_options([math_], shots=5, tokens=64) == ignored_options([code], run_code=True, samples=2) == []
    notes = ignored_options([choice, math_], shots=5, samples=4, tokens=64)
    assert [n.partition(" has no effect on ")[0] for n in notes] == ["--shots", "--samples", "--tokens"]
    assert "on arc (choice): its prompt is fixed; only math tasks read it" in notes[0]
    assert "arc (choice), gsm (math)" in notes[1] and "gsm" not in notes[2]
    assert "the validation loss" in ignored_options([], shots=2)[0], "perplexity alone"


def test_the_command_says_which_options_are_ignored(trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "arc.jsonl"
    file.write_text(json.dumps({"question": "import", "choices": ["os", "x"], "answer": 0}) + "\n")
    words = [sys.executable, "-m", "pipelines.cli", "evaluate", str(trained), str(file), "--shots", "5"]
    ran = subprocess.run(words, capture_output=True, text=True)
    assert ran.returncode == 0 and "--shots has no effect on arc (choice)" in " ".join(ran.stderr.split())
    ran = subprocess.run([*words[:-2], "--device", "cuda"], capture_output=True, text=True)
    if not torch.cuda.is_available():
        assert ran.returncode == 2 and "Traceback" not in ran.stderr and "no CUDA device" in ran.stderr
