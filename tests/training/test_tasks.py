"""Tasks: scores against the plain computation, the forms of files, code in its process, lm-eval's own accuracy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from training import code, tasks
from training.config import UserError
from training.generate import Trained, load
from training.tasks import Question, choice, encode_pair, evaluate_task, final_number, kind_of, likelihoods, question


@pytest.fixture(scope="module")
def model(trained: Path) -> Trained:
    return load(str(trained))


def plainly(trained: Trained, context: str, continuation: str) -> tuple[float, bool]:
    """One request, by itself, by the formula."""
    before, after = encode_pair(trained, context, continuation)
    ids = torch.tensor([[trained.eos, *before, *after]])
    with torch.no_grad():
        logits = F.linear(trained.model.hidden(ids[:, :-1], None), trained.model.head.weight)[0, -len(after) :]
    wanted = torch.tensor(after)
    value = torch.log_softmax(logits, -1).gather(1, wanted[:, None]).sum().item()
    return value, bool((logits.argmax(-1) == wanted).all())


def test_likelihoods_are_those_of_each_request_alone(model: Trained) -> None:
    requests = [
        ("def f(x):\n    return ", "x"),
        ("import ", "os\nimport sys"),
        ("", "class A"),
        ("a b ", "c"),
        ("é", " ü"),
    ] * 3
    requests.append(("import json", " as something"))
    found = likelihoods(model, requests, windows=2)
    for request, (value, greedy) in zip(requests, found, strict=True):
        expected, best = plainly(model, *request)
        assert value == pytest.approx(expected, abs=1e-4) and greedy == best
    long = likelihoods(model, [("word " * 500, "end")])[0][0]
    assert long < 0, "a context longer than the window is cut from its beginning"


def test_forms() -> None:
    arc = {"question": "Q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"}
    assert question(arc) == Question("Question: Q\nAnswer:", (" a", " b"), 1)
    assert question({"question": "Q", "choices": ["a", "b", "c"], "answer": 2}).gold == 2
    assert question({"question": "Q", "choices": ["a", "b", "c"], "answer": "C"}).gold == 2
    assert question({"ctx": "He", "endings": ["runs", "eats"], "label": "1"}) == Question("He", (" runs", " eats"), 1)
    assert [kind_of(r, "x") for r in (arc, {"question": "", "answer": ""})] == ["choice", "math"]
    assert kind_of({"prompt": "", "test": "", "entry_point": "", "task_id": ""}, "x") == "code"
    with pytest.raises(UserError, match="expected question, choices"):
        kind_of({"text": ""}, "x")


def test_choice_figures(model: Trained) -> None:
    questions = [Question("import", (" os", " wxyzq qqq"), 0), Question("def f(", ("self):", "zzz"), 1)]
    result = choice(model, "t", questions)
    values = [[plainly(model, q.context, c)[0] for c in q.choices] for q in questions]
    right = sum(v.index(max(v)) == q.gold for v, q in zip(values, questions, strict=True))
    assert result.figures["accuracy"] == right / 2 and result.count == 2
    gold = -sum(v[q.gold] for v, q in zip(values, questions, strict=True)) / 0.6931471805599453
    assert result.figures["bits_per_byte"] == pytest.approx(gold / (3 + 3), rel=1e-5)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 3 + 4 = 7", "7"), ("#### 1,234", "1234"), ("it is 12.50 dollars", "12.5"), ("-3", "-3"), ("none", None),
        ("#### 18\nThen 5", "18"), ("100", "100"), ("2.0", "2"),
    ],
)  # fmt: skip
def test_final_number(text: str, number: str | None) -> None:
    assert final_number(text) == number


def test_code_runs_only_when_asked_and_within_limits(
    model: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert code.passes("assert 1 + 1 == 2") and not code.passes("assert 1 + 1 == 3")
    assert not code.passes("while True: pass", seconds=1), "processor time"
    assert not code.passes("x = bytearray(1 << 31)"), "memory"
    assert not code.passes("open('big', 'wb').write(bytes(1 << 22))"), "file size"
    assert not code.passes("import os; assert os.environ.get('HOME')"), "an empty environment"
    assert not code.passes("x = '\x00'") and not code.passes("x = '\ud800'"), "what is no source"
    assert code.passes(f"x = '{'x' * 200_000}'"), "longer than an argument may be"
    assert [code.pass_at(10, c, 1) for c in (0, 5, 10)] == [0, 0.5, 1]
    assert code.pass_at(4, 2, 2) == pytest.approx(1 - 1 / 6)
    assert code.cut("    return 1\n\ndef g():") == "    return 1\n"
    row = {"task_id": "x/0", "prompt": "def f():\n", "test": "def check(g):\n    assert g() == 1", "entry_point": "f"}
    file = tmp_path / "he.jsonl"
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match="--run-code"):
        evaluate_task(model, str(file))
    said = iter(["    return 1\n", "    return 2\n"] * 5)
    monkeypatch.setattr(code, "say", lambda *_: [])
    monkeypatch.setattr(Trained, "decode", lambda *_: next(said))
    result = evaluate_task(model, str(file), run_code=True, samples=10)
    assert result.figures == {"pass@1": pytest.approx(0.5), "pass@10": 1.0}


def test_math(model: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"question": f"What is {i} + 1?", "answer": f"It is {i + 1}.\n#### {i + 1}"} for i in range(3)]
    file = tmp_path / "gsm.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert 0 <= evaluate_task(model, str(file), tokens=4).figures["exact_match"] <= 1
    monkeypatch.setattr(tasks, "say", lambda *_: model.encode(" 1 and 1 is\n#### 2\n\nQuestion: 9"))
    result = evaluate_task(model, str(file), shots=1)
    assert (result.count, result.figures["exact_match"]) == (2, 0.5)
    with pytest.raises(UserError, match="leave no line"):
        evaluate_task(model, str(file), shots=3)
    with pytest.raises(UserError, match="cannot read this task"):
        evaluate_task(model, str(tmp_path / "nowhere.jsonl"))
    file.write_text('{"question": "a", "choices": ["x"], "answer": "Q"}\n')
    with pytest.raises(UserError, match="not of the form"):
        evaluate_task(model, str(file))


def test_lm_eval_gives_the_same_accuracy(model: Trained, texts: dict[str, list[str]], tmp_path: Path) -> None:
    """A local task of 60 questions: which of four lines follows."""
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.tasks import TaskManager

    from training.lm_eval_adapter import until, wrap

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
        model=wrap(model), tasks=["next_line"], task_manager=TaskManager(include_path=str(tmp_path)), bootstrap_iters=0
    )["results"]["next_line"]
    ours = evaluate_task(model, str(file)).figures
    assert found["acc,none"] == ours["accuracy"] and found["acc_norm,none"] == ours["accuracy_norm"]
    assert 0.1 < ours["accuracy"] < 1
    assert isinstance(until(model, "import", {"until": ["\n"], "max_gen_toks": 5}), str)
