"""The search: resumed, with other objectives, with proxies gone wrong, on losses that a formula writes down; and once
for real, by the command.

Covers: proxy_run.py, report_page.py, results.py, search_config.py, pipelines/cli/commands/mix.py
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks import planted_mix as planted
from curation.core.errors import UserError
from pipelines.experiments.mix.proxy_run import Proxy
from pipelines.experiments.mix.report_page import headline, render
from pipelines.experiments.mix.results import outcome_as_dict
from pipelines.experiments.mix.search import search
from pipelines.experiments.mix.search_config import Settings, load


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("planted")
    planted.build(run, 1, tokens=60_000, held_out=1024)
    return run


def _settings(run: Path, **changes: Any) -> Settings:
    tiny = copy.deepcopy(planted.PROXY)
    tiny |= {"steps": 12, "evaluate": {"every": 6, "sequences": 4}, "checkpoint": {"every": 4, "keep": 1}}
    tiny["batch"] = {"global_size": 4}
    base: dict[str, Any] = {"data": str(run), "proxy": tiny, "runs": 14, "resamples": 5, "confirm": {"seeds": 2}}
    base["families"] = ("mixing_law",)  # losses of such short runs are noise: the choice is tested elsewhere
    return Settings(**base | changes)


class Written:
    """Trains nothing: writes the scores of a formula, a run's luck by its seed, as `metrics.jsonl` has them.

    The set `task2` is learnt from domain c, further sets `other/x` from domain a and `other/y` from d; `quiz.accuracy`
    rises with domain b, `quiz.bits` falls with it, and `quiz.still` never moves.
    """

    def __init__(self, luck: float = 1e-4, diverges: Callable[[dict[str, float]], bool] = lambda mix: False) -> None:
        self.luck, self.diverges, self.trained = luck, diverges, 0

    def __call__(self, proxies: Sequence[Proxy]) -> None:
        for p in proxies:
            self.trained += 1
            mix = {d: p.settings["data"]["weights"].get(d, 0.0) for d in planted.DOMAINS}
            rng = np.random.default_rng(p.settings["seed"])
            Path(p.folder).mkdir(parents=True)
            with open(Path(p.folder) / "metrics.jsonl", "w") as f:
                for at in (6, 12):
                    f.write(json.dumps(self._entry(at, mix, rng)) + "\n")

    def _entry(self, at: int, mix: dict[str, float], rng: np.random.Generator) -> dict[str, Any]:
        sets = {"task0": "a", "task1": "b", "task2": "c", "task3": "d", "other/x": "a", "other/y": "d"}
        bad = self.diverges(mix)
        losses = {
            name: float("nan") if bad else 2 + 0.1 * (0.1 + mix[d]) ** -0.5 + 1 / at + self.luck * rng.normal()
            for name, d in sets.items()
        }
        tasks = {
            "quiz.accuracy": 0.3 + 0.4 * mix["b"] ** 0.5,
            "quiz.bits": 1 - 0.4 * mix["b"] ** 0.5,
            "quiz.still": 0.25,
        }
        domains = {name: {"loss": loss} for name, loss in losses.items()}
        return {"kind": "validation", "step": at, "loss": 0.0, "domains": domains, "tasks": tasks}


class Counting(Written):
    """Remembers what it was asked for; after `dies` proxies it raises, as a killed search would stop."""

    def __init__(self, dies: int | None = None) -> None:
        super().__init__()
        self.names: list[str] = []
        self.dies = dies

    def __call__(self, proxies: Sequence[Proxy]) -> None:
        for p in proxies:
            if self.dies is not None and len(self.names) >= self.dies:
                raise KeyboardInterrupt
            self.names.append(f"{Path(p.folder).name}@{p.stop}")
            super().__call__([p])


def test_stopped_and_resumed_trains_no_proxy_twice(small: Path, tmp_path: Path) -> None:
    settings = _settings(small)
    whole = Counting()
    first = search(settings, str(tmp_path / "whole"), train=whole)
    before, after = Counting(dies=5), Counting()
    with pytest.raises(KeyboardInterrupt):
        search(settings, str(tmp_path / "killed"), train=before)
    second = search(settings, str(tmp_path / "killed"), train=after)
    assert sorted(before.names + after.names) == sorted(whole.names)
    assert len(set(whole.names)) == len(whole.names)
    assert first.recommended == second.recommended and first.verdicts == second.verdicts
    third = Counting()
    assert search(settings, str(tmp_path / "killed"), train=third).recommended == first.recommended
    assert third.names == []


def test_another_objective_trains_nothing(small: Path, tmp_path: Path) -> None:
    folder, first, other = str(tmp_path / "mix"), Written(), Written()
    search(_settings(small), folder, train=first)
    assert first.trained == 14 + 2 * 2
    for objective in ({"kind": "mean", "weights": {"task2": 1.0}}, {"kind": "metric", "metric": "quiz.bits"}):
        made = search(_settings(small, objective=objective), folder, train=other, confirm=False)
        assert other.trained == 0 and made.trained == 0
        assert made.recommended["c" if "weights" in objective else "b"] > 0.5
        assert any("--confirm" in n for n in made.notes) and not made.arms


@pytest.mark.parametrize(
    ("objective", "most"),
    [
        ("mean", {"a": 0.29, "d": 0.29}),  # two of the six sets are learnt from each of a and d
        ({"kind": "mean", "weights": {"other/y": 1.0}}, {"d": 0.9}),
        ({"kind": "mean", "weights": {"other/x": 1.0, "task2": 1.0}}, {"a": 0.4, "c": 0.4}),
        (
            {"kind": "worst", "weights": {"task0": 1.0, "task1": 1.0}},
            {"a": 0.25, "b": 0.6},
        ),  # relative to the natural mix, which has more of b
        ({"kind": "metric", "metric": "quiz.accuracy", "maximise": True}, {"b": 0.9}),
        ({"kind": "metric", "metric": "quiz.bits"}, {"b": 0.9}),
    ],
)
def test_objective_over_any_sets_and_figures(
    small: Path, tmp_path: Path, objective: Any, most: dict[str, float]
) -> None:
    settings = _settings(small, objective=objective, families=("power_law",), runs=24)
    made = search(settings, str(tmp_path / "mix"), train=Written())
    assert all(made.recommended[domain] >= share for domain, share in most.items()), made.recommended
    assert made.metrics == ("other/x", "other/y", "task0", "task1", "task2", "task3", "quiz.accuracy", "quiz.bits")
    assert any("nothing to fit: quiz.still" in n for n in made.notes)
    assert {v.words for v in made.verdicts} == {"better"}
    assert all((v.effect > 0) == made.objective.maximise for v in made.verdicts)


def test_confirmed_against_mixes_of_ones_own(small: Path, tmp_path: Path) -> None:
    confirm = {"seeds": 2, "against": ["natural"], "mixes": {"ours": {"a": 1, "b": 3}}}
    made = search(_settings(small, confirm=confirm), str(tmp_path / "mix"), train=Written())
    assert [a.name for a in made.arms] == ["recommended", "natural", "ours"]
    assert made.arms[2].mix == {"a": 0.25, "b": 0.75, "c": 0.0, "d": 0.0}


def test_diverged_proxies_are_left_out_and_named(small: Path, tmp_path: Path) -> None:
    made = search(
        _settings(small, runs=24, refine=0.3), str(tmp_path / "a"), train=Written(diverges=lambda mix: mix["c"] > 0.45)
    )
    assert 7 <= len(made.mixes) < 24 and (made.mixes[:, 2] <= 0.45).all()
    assert any("a metric that is not finite are left out" in n for n in made.notes)
    with pytest.raises(UserError, match="no run has finite values for all metrics"):
        search(_settings(small), str(tmp_path / "b"), train=Written(diverges=lambda mix: True))
    with pytest.raises(UserError, match=r"of 7 proxies diverged .*, and [1-6] runs are too few"):
        search(_settings(small, runs=7), str(tmp_path / "c"), train=Written(diverges=lambda mix: mix["a"] < 0.2))


@pytest.mark.parametrize(("luck", "blind"), [(1e-4, False), (10.0, True)])
def test_a_law_that_foretells_nothing_is_said_to_guess(small: Path, tmp_path: Path, luck: float, blind: bool) -> None:
    made = search(_settings(small, runs=24), str(tmp_path / "mix"), train=Written(luck), confirm=False)
    assert made.blind == outcome_as_dict(made)["blind"] == blind
    for said in (headline(made), render(made, "a search")):
        assert ("this mix is a guess" in said) == blind


def test_each_proxy_has_its_own_luck(small: Path, tmp_path: Path) -> None:
    """Seeds: one for each proxy of the swarm; of the confirming runs, the same ones for every mix."""
    seeds: list[int] = []
    written = Written()

    def train(proxies: Sequence[Proxy]) -> None:
        seeds.extend(int(p.settings["seed"]) for p in proxies)
        written(proxies)

    search(_settings(small, early_stop=False), str(tmp_path / "mix"), train=train)
    assert sorted(seeds[:14]) == list(range(17, 31))
    assert sorted(seeds[14:]) == [1_000_017, 1_000_017, 1_000_018, 1_000_018]


def test_search_by_the_command(small: Path, tmp_path: Path, gristmill: Callable[..., tuple[int, str, str]]) -> None:
    settings = _settings(small, confirm={"seeds": 2, "against": ["natural", "uniform"]}).model_dump(mode="json")
    (tmp_path / "mix.yaml").write_text(yaml.safe_dump({k: v for k, v in settings.items() if v is not None}))
    out = tmp_path / "out"
    code, said, err = gristmill("mix", "search", str(tmp_path / "mix.yaml"), "--out", str(out), "--executor", "inline")
    assert code == 0, err
    assert "against natural:" in said and "against uniform:" in said
    page = (out / "report.html").read_text()
    assert "Confirming runs" in page and "http" not in page.split("<main")[1]
    weights = yaml.safe_load((out / "mix.yaml").read_text())["mix"]["weights"]
    assert sum(weights.values()) == pytest.approx(1, abs=1e-3) and set(weights) == set(planted.DOMAINS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prior": {"web": 1.0}}, "prior: no domain web .* there are a, b, c, d"),
        ({"budget": 1e9, "max_epochs": 2.0}, "no mix fills a budget"),
        ({"objective": {"kind": "mean", "weights": {"task9": 1.0}}}, "no validation set task9"),
        ({"objective": {"kind": "metric", "metric": "arc"}}, "no metric arc"),
        ({"objective": {"kind": "metric", "metric": "quiz.still"}}, "quiz.still has the same value in every run"),
        ({"objective": {"kind": "mean", "weights": {"quiz.bits": 1.0}}}, "no validation set quiz.bits"),
        ({"runs": 4, "refine": 0.0}, "4 runs are too few"),
        ({"design": "one_factor", "runs": 5}, "5 runs are too few"),
        ({"confirm": {"mixes": {"ours": {"web": 1.0}}}}, "confirm.mixes.ours: no domain web"),
    ],
)
def test_impossible_settings_are_refused(small: Path, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        search(_settings(small, **changes), str(tmp_path / "mix"), train=Written())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data: x\n", "mix.yaml:1: the required key 'proxy' is missing"),
        ("data: x\nproxy: p.yaml\nrunz: 3\n", "mix.yaml:3: runz: unknown key 'runz'"),
        ("data: x\nproxy: p.yaml\nruns: many\n", "mix.yaml:3: runs: is 'many'\n  expected an integer"),
        ("data: x\nproxy: p.yaml\nbudget: 5\n", "must be given together"),
        ("data: x\nproxy: p.yaml\nfamilies: [forest]\n", "unknown family forest"),
        ("- 1\n", "expected a mapping"),
        ("data: x\nproxy: p.yaml\nobjective: {kind: metric}\n", "kind: metric needs the key metric"),
        ("data: x\nproxy: p.yaml\nobjective: {kind: mean, maximise: true}\n", "maximise is only for kind: metric"),
        ("data: x\nproxy: p.yaml\nobjective: {weights: {web: 0}}\n", "every weight is 0"),
        ("data: x\nproxy: p.yaml\nconfirm: {mixes: {natural: {web: 1}}}\n", "a reserved name"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "mix.yaml").write_text(text)
    with pytest.raises(UserError, match=words):
        load(str(tmp_path / "mix.yaml"))


def test_proxies_are_trained_as_they_are(small: Path, tmp_path: Path) -> None:
    """No going back and no masked documents in a proxy, unless its file says so."""
    asked: list[str] = []
    written = Written()

    def train(proxies: Sequence[Proxy]) -> None:
        asked.extend(p.settings["guard"]["action"] for p in proxies)
        written(proxies)

    search(_settings(small), str(tmp_path / "a"), train=train)
    assert set(asked) == {"watch"}
    asked.clear()
    proxy = _settings(small).proxy
    assert isinstance(proxy, dict)
    search(_settings(small, proxy=proxy | {"guard": {"action": "skip"}}), str(tmp_path / "b"), train=train)
    assert set(asked) == {"skip"}
