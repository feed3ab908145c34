"""Adapts checkpoints to EleutherAI's lm-evaluation-harness, so that its tasks run on them (extra `eval`).

    from training.evaluation.lm_eval_adapter import adapter
    lm_eval.simple_evaluate(model=adapter("runs/web/train/small"), tasks=["arc_easy"])

Or by name, as `lm_eval:arc_easy` among the tasks of `gristmill evaluate` and of `evaluate.tasks` in the training file.
Likelihoods come from likelihood.py, so a task has the same accuracy here and in tasks.py.
"""

from __future__ import annotations

from typing import Any

import torch

from curation.core.errors import UserError
from curation.core.packages import require
from training.checkpoint.load_model import LoadedModel, load_or_use
from training.evaluation.generate import generate_tokens
from training.evaluation.likelihood import likelihoods


def adapter(model: str, device: str = "cpu") -> Any:
    """The newest checkpoint of a run, or a checkpoint, as an lm_eval LM. Raises UserError where lm-eval is missing."""
    return as_lm_eval_model(load_or_use(model, device))


def find_lm_eval_task(task: str) -> tuple[Any, str]:
    """lm-eval's TaskManager that knows a task, NAME or FOLDER/NAME, and its name. Raises UserError if there is none."""
    require(f"lm_eval:{task}", ["lm_eval"])
    from lm_eval.tasks import TaskManager

    folder, _, name = task.rpartition("/")
    manager = TaskManager(include_path=folder or None)
    if name not in manager.all_tasks:
        raise UserError(f"lm_eval:{task}: lm-eval has no task {name!r}; `lm-eval --tasks list` lists its tasks")
    return manager, name


def run_lm_eval_task(trained: LoadedModel, task: str, limit: int | None) -> tuple[int, dict[str, float]]:
    """The number of questions, and lm-eval's metrics without their standard errors."""
    import lm_eval

    manager, name = find_lm_eval_task(task)
    found = lm_eval.simple_evaluate(
        model=as_lm_eval_model(trained),
        tasks=[name],
        task_manager=manager,
        limit=limit,
        bootstrap_iters=0,
        log_samples=False,
    )
    assert found is not None  # lm-eval returns None on other ranks than 0; here every process is rank 0
    figures = {
        key.removesuffix(",none").replace(",", "_"): float(value)
        for key, value in found["results"][name].items()
        if isinstance(value, (int, float)) and "_stderr" not in key
    }
    return sum(n["effective"] for n in found["n-samples"].values()), figures


def as_lm_eval_model(trained: LoadedModel) -> Any:
    """A model in memory as an lm_eval LM."""
    require("lm_eval adapter", ["lm_eval"])
    from lm_eval.api.model import LM

    class Gristmill(LM):  # type: ignore[misc,unused-ignore]
        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            return likelihoods(trained, [r.args for r in requests])

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
            return [rolling_log_likelihood(trained, r.args[0]) for r in requests]

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            return [generate_until(trained, *r.args) for r in requests]

    return Gristmill()


@torch.no_grad()
def rolling_log_likelihood(trained: LoadedModel, text: str) -> float:
    """The log-likelihood of a whole text in nats, read in consecutive sequences; every token is predicted once."""
    ids = torch.tensor([trained.eos, *trained.encode(text)], device=trained.model.embedding.weight.device)
    total = 0.0
    for begin in range(0, len(ids) - 1, trained.max_seq_len):
        part = ids[begin : begin + trained.max_seq_len + 1][None]
        _, _, nll = trained.model(part[:, :-1], part[:, 1:], torch.zeros_like(part[:, 1:]))
        total -= float(nll.double().sum())
    return total


def generate_until(trained: LoadedModel, context: str, settings: dict[str, Any]) -> str:
    """The model's continuation of a context, up to the first of the stop strings in settings' `until`."""
    stops = settings.get("until") or []
    stops = [stops] if isinstance(stops, str) else list(stops)
    temperature = float(settings.get("temperature", 0.0)) if settings.get("do_sample") else 0.0
    tokens = int(settings.get("max_gen_toks", 256))

    def ends(said: list[int]) -> bool:
        return any(s in trained.decode(said) for s in stops)

    generator = torch.Generator().manual_seed(int(settings.get("seed", 17)))
    ids = [trained.eos, *trained.encode(context)]
    text = trained.decode(generate_tokens(trained, ids, tokens, temperature, None, None, generator, ends))
    for stop in stops:
        text = text.partition(stop)[0]
    return text
