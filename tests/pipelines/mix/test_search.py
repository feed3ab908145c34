"""The search on a problem whose best mix is known, trained for real; and what a second call trains: nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import planted_mix as planted
from curation.step import UserError
from pipelines.mix import proxy, workers
from pipelines.mix.proxy import Proxy
from pipelines.mix.search import search
from pipelines.mix.settings import Settings, load


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("planted")
    planted.build(run, 1, tokens=60_000, held_out=1024)
    return run


def _settings(run: Path, **changes: Any) -> Settings:
    tiny = copy.deepcopy(planted.PROXY)
    tiny |= {"iterations": 12, "evaluate": {"every": 6, "windows": 4}, "checkpoint": {"every": 4, "keep": 1}}
    tiny["batch"] = {"windows": 4}
    base: dict[str, Any] = {"data": str(run), "proxy": tiny, "runs": 14, "resamples": 5, "confirm": {"seeds": 2}}
    base["families"] = ("mixing_law",)  # losses of such short runs are noise: the choice is tested elsewhere
    return Settings(**base | changes)


class Counting:
    """Trains in this process and remembers what; after `dies` proxies it raises, as a killed search would stop."""

    def __init__(self, dies: int | None = None) -> None:
        self.trained: list[str] = []
        self.dies = dies

    def __call__(self, proxies: Sequence[Proxy]) -> None:
        for p in proxies:
            if self.dies is not None and len(self.trained) >= self.dies:
                raise KeyboardInterrupt
            self.trained.append(f"{Path(p.folder).name}@{p.stop}")
            proxy.train(p)


def test_killed_and_resumed_trains_no_proxy_twice(small: Path, tmp_path: Path) -> None:
    settings = _settings(small)
    whole = Counting()
    first = search(settings, str(tmp_path / "whole"), train=whole)
    before, after = Counting(dies=5), Counting()
    with pytest.raises(KeyboardInterrupt):
        search(settings, str(tmp_path / "killed"), train=before)
    second = search(settings, str(tmp_path / "killed"), train=after)
    assert sorted(before.trained + after.trained) == sorted(whole.trained)
    assert len(set(whole.trained)) == len(whole.trained)
    assert first.recommended == second.recommended and first.verdicts == second.verdicts
    third = Counting()
    assert search(settings, str(tmp_path / "killed"), train=third).recommended == first.recommended
    assert third.trained == []


def test_another_objective_trains_nothing(small: Path, tmp_path: Path) -> None:
    folder = str(tmp_path / "mix")
    search(_settings(small), folder, train=Counting())
    other = Counting()
    wanted = _settings(small, objective={"kind": "mean", "weights": {"task2": 1.0}})
    made = search(wanted, folder, train=other, confirm=False)
    assert other.trained == [] and made.trained == 0
    assert made.recommended["c"] > 0.3  # domain c is the one that holds most of task 2
    assert any("--confirm" in n for n in made.notes)


def test_search_by_the_command(small: Path, tmp_path: Path, gristmill: Callable[..., tuple[int, str, str]]) -> None:
    settings = _settings(small, confirm={"seeds": 2, "against": ["natural", "uniform"]}).model_dump(mode="json")
    (tmp_path / "mix.yaml").write_text(yaml.safe_dump({k: v for k, v in settings.items() if v is not None}))
    out = tmp_path / "out"
    code, said, err = gristmill("mix", "search", str(tmp_path / "mix.yaml"), "--out", str(out), "--executor", "inline")
    assert code == 0, err
    assert "against natural:" in said and "against uniform:" in said
    page = (out / "report.html").read_text()
    assert "Confirmed by runs" in page and "http" not in page.split("<main")[1]
    weights = yaml.safe_load((out / "mix.yaml").read_text())["mix"]["weights"]
    assert sum(weights.values()) == pytest.approx(1, abs=1e-3) and set(weights) == set(planted.DOMAINS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prior": {"web": 1.0}}, "prior: no domain web .* there are a, b, c, d"),
        ({"budget": 1e9, "max_epochs": 2.0}, "no mix fills a budget"),
        ({"objective": {"kind": "mean", "weights": {"task9": 1.0}}}, "no validation set task9"),
        ({"objective": {"kind": "metric", "metric": "arc"}}, "no metric arc"),
        ({"runs": 4, "refine": 0.0}, "4 runs are too few"),
    ],
)
def test_impossible_settings_are_refused(small: Path, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        search(_settings(small, **changes), str(tmp_path / "mix"), train=workers.inline)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data: x\n", "proxy is missing"),
        ("data: x\nproxy: p.yaml\nrunz: 3\n", "unknown key runz"),
        ("data: x\nproxy: p.yaml\nruns: many\n", "runs: .*'many'"),
        ("data: x\nproxy: p.yaml\nbudget: 5\n", "go together"),
        ("data: x\nproxy: p.yaml\nfamilies: [forest]\n", "no family forest"),
        ("- 1\n", "expected a mapping"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "mix.yaml").write_text(text)
    with pytest.raises(UserError, match=words):
        load(str(tmp_path / "mix.yaml"))
