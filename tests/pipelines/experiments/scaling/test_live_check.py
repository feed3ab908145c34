"""The ladder, and a run watched by it: curves that a formula writes down, and once for real with data gone wrong.

Covers: ladder.py, live_run.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks import ladder as benchmark
from benchmarks import planted_mix as planted
from curation.core.errors import UserError
from pipelines.experiments.mix import proxy_workers
from pipelines.experiments.scaling import Fit, backtest, fit, ladder, live_check, live_run, read, scaling_law
from training import config

LAW = scaling_law.Law(E=2.0, A=30.0, B=400.0, alpha=0.4, beta=0.45)
TRAINING: dict[str, Any] = {
    "steps": 1,
    "model": {"preset": None, "num_layers": 1, "hidden_size": 32, "num_heads": 2, "num_kv_heads": 2,
              "intermediate_size": 64, "tie_embeddings": True},
    "data": {"seq_len": 64}, "batch": {"global_size": 8}, "device": "cpu", "precision": "fp32",
}  # fmt: skip


def _written(folder: Path, width: int, steps: int, change: Callable[[np.ndarray], np.ndarray] | None = None,
             *, upto: int | None = None) -> Path:  # fmt: skip
    """A training run as its directory shows it, its loss falling to the law's; change: of the losses."""
    folder.mkdir(parents=True)
    value = TRAINING | {"steps": steps, "model": TRAINING["model"] | {"hidden_size": width}}
    (folder / "train.yaml").write_text(config.parse(yaml.safe_dump(value)).dump())
    (folder / "data.json").write_text(json.dumps({"tokenizer": {"vocab": 256}, "root": str(folder / "gone")}))
    (folder / "metrics.jsonl").write_text("")
    point = live_run.loss_curve(folder).point
    at = np.arange(1, steps + 1)
    loss = LAW.loss(point.n, point.d) * (1 + 0.8 * np.exp(-6 * at / steps))
    loss = loss * np.exp(np.random.default_rng(width + steps).normal(0, 0.01, steps))
    entries = [
        {"kind": "train", "step": int(i), "loss": float(x)}
        for i, x in zip(at, change(loss) if change else loss, strict=True)
    ]
    entries = entries[:upto]
    if upto is None:
        entries.append({"kind": "validation", "step": steps, "loss": float(loss[-1]), "domains": {}})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries))
    return folder


@pytest.fixture(scope="module")
def rungs(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("ladder")
    for width in (32, 64, 96):
        for steps in (200, 400, 800):
            _written(folder / f"w{width}-i{steps}", width, steps)
    return str(folder)


@pytest.fixture(scope="module")
def fitted(rungs: str) -> Fit:
    return fit(read(rungs), resamples=50)


@pytest.mark.parametrize(
    ("change", "incident"),
    [
        (None, False),
        (lambda loss: loss * np.where(np.arange(len(loss)) < 300, 1, 1.15), True),  # from 60 % on
        (lambda loss: loss * np.where(np.arange(len(loss)) < 300, 1, 0.8), True),  # too good: read before?
        (lambda loss: np.where(np.arange(len(loss)) < 300, loss, np.nan), True),
        (lambda loss: loss * np.where(np.arange(len(loss)) % 100 == 50, 1.3, 1), False),  # single spikes
    ],
)
def test_departure(
    fitted: Fit, rungs: str, tmp_path: Path, change: Callable[[np.ndarray], np.ndarray] | None, incident: bool
) -> None:
    run = live_run.loss_curve(_written(tmp_path / "run", 80, 500, change))
    left = live_check.find_departure(run, live_check.predict_band(fitted, live_check.ladder_curves(rungs), run))
    assert (left is not None) == incident
    assert left is None or 290 <= left.step <= 340


def test_watch_by_the_command(rungs: str, tmp_path: Path, gristmill: Callable[..., tuple[int, str, str]]) -> None:
    bad = str(_written(tmp_path / "bad", 80, 500, lambda loss: loss * np.where(np.arange(500) < 300, 1, 1.15)))
    code, said, _ = gristmill("scaling", "watch", bad, "--ladder", rungs, "--json")
    assert code == 3 and "the loss is above the predicted band" in json.loads(said)["incident"]["message"]


def test_watch_before_the_first_step(fitted: Fit, rungs: str, tmp_path: Path) -> None:
    run = live_run.loss_curve(_written(tmp_path / "run", 80, 500, upto=0))
    assert live_check.find_departure(run, live_check.predict_band(fitted, live_check.ladder_curves(rungs), run)) is None


def test_ladder_is_fitted_and_backtested(fitted: Fit, rungs: str) -> None:
    assert len(fitted.table) == 9
    n, d = 2 * fitted.table.n.max(), 2 * fitted.table.d.max()
    assert float(fitted.law.loss(n, d)) == pytest.approx(float(LAW.loss(n, d)), rel=0.03)
    assert backtest(fitted.table, resamples=20).error < 0.03


def test_no_ladder_and_no_run(tmp_path: Path, rungs: str, gristmill: Callable[..., tuple[int, str, str]]) -> None:
    run = _written(tmp_path / "few" / "one", 80, 500)
    with pytest.raises(UserError, match="has 1 finished runs; at least three are needed"):
        live_check.ladder_curves(str(tmp_path / "few"))
    code, _, err = gristmill("scaling", "watch", str(tmp_path), "--ladder", rungs)
    assert code == 2 and "is not a training run" in " ".join(err.split())
    code, _, err = gristmill("scaling", "watch", str(run), "--ladder", str(tmp_path / "nothing"))
    assert code == 2 and "0 finished runs" in " ".join(err.split())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base: {}\n", "the required key 'sizes' is missing"),
        ("base: {}\nsizes: [{hidden_size: 32}]\n", "sizes: is .*\n  expected a list of 2 or more"),
        ("base: {}\nsizes: [{}, {}]\ntokens_per_param: [-1]\n", "tokens_per_param.0.: is -1\n  expected more than 0"),
        ("base: {}\nsizes: [{}, {}]\nladder: 1\n", "ladder.yaml:3: ladder: unknown key"),
        ("[", "is not YAML"),
    ],
)
def test_bad_ladder_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "ladder.yaml").write_text(text)
    with pytest.raises(UserError, match=words):
        ladder.load(str(tmp_path / "ladder.yaml"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("planted")
    planted.build(run, 1, tokens=300_000, held_out=2048)
    return run


def test_ladder_names_its_runs_by_size_and_tokens(shards: Path, tmp_path: Path) -> None:
    sizes = (
        {"num_layers": 1, "hidden_size": 64, "num_heads": 2, "num_kv_heads": 2, "intermediate_size": 96},
        TRAINING["model"],
    )
    made = ladder.runs(ladder.Ladder(base=TRAINING, sizes=sizes, tokens_per_param=(2, 4)), str(shards), str(tmp_path))
    names = [Path(p.folder).name for p in made]
    assert names == sorted(names) and len(set(names)) == 4
    for p, name in zip(made, names, strict=True):
        n, d = (int(part[1:]) for part in name.split("-"))
        assert d == p.settings["steps"] * 8 * 64 and d / n == pytest.approx(2 if p in made[0::2] else 4, rel=0.02)
    with pytest.raises(config.UserError, match="hidden_size 30 divided by num_heads 4 must be"):
        bad = ladder.Ladder(
            base=TRAINING,
            sizes=({"num_layers": 1, "hidden_size": 30, "num_heads": 4, "num_kv_heads": 2, "intermediate_size": 64},)
            * 2,
        )
        ladder.runs(bad, str(shards), str(tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_shuffled_domain_is_noticed(shards: Path, tmp_path: Path) -> None:
    """Nine real runs make the ladder; of two further ones the one whose domain c is shuffled at 60 % is an incident."""
    base = benchmark.BASE | {"data": {"seq_len": 64, "max_epochs": 50}, "batch": {"global_size": 16}}
    sizes = tuple(
        {"num_layers": 1, "hidden_size": w, "num_heads": 2, "num_kv_heads": 2, "intermediate_size": 2 * w}
        for w in (16, 24, 36)
    )
    rungs = ladder.runs(
        ladder.Ladder(base=base, sizes=sizes, tokens_per_param=(4.0, 6.0, 9.0)), str(shards), str(tmp_path / "ladder")
    )
    assert ladder.train(rungs, proxy_workers.inline) == 9 and ladder.train(rungs, proxy_workers.inline) == 0
    table = read(str(tmp_path / "ladder"))
    assert len(backtest(table, resamples=20).rows) == 3
    curves, made = live_check.ladder_curves(str(tmp_path / "ladder")), fit(table, resamples=50)
    for domain in (None, "c"):
        folder = tmp_path / f"watched-{domain}"
        benchmark.watched(shards, folder, base, sizes[1] | {"hidden_size": 28}, 6.0, 5, domain)
        seen = live_run.loss_curve(folder / "run")
        left = live_check.find_departure(seen, live_check.predict_band(made, curves, seen))
        if domain is None:
            assert left is None
        else:
            assert left is not None and left.step >= 0.6 * seen.steps and "above" in left.message


def test_tokens_are_counted_where_the_data_changes(tmp_path: Path) -> None:
    """Two steps of 8 x 64, three of 16 x 32 and one of 16 x 128, as the training's own log counts them."""
    changes = [{"at": 2, "global_size": 16, "seq_len": 32}, {"at": 5, "seq_len": 128}, {"at": 9, "global_size": 64}]
    run = _written(tmp_path / "run", 32, 6)
    value = TRAINING | {"steps": 6, "data": {"seq_len": 64, "changes": changes}}
    (run / "train.yaml").write_text(config.parse(yaml.safe_dump(value)).dump())
    assert read(str(run)).d.tolist() == [2 * 8 * 64 + 3 * 16 * 32 + 16 * 128]
    with pytest.raises(UserError, match=r"the ladder's base has data\.changes"):
        ladder.runs(ladder.Ladder(base=value, sizes=[{"hidden_size": 32}, {"hidden_size": 64}]), "unused", "unused")


def test_unique_tokens_follow_a_changed_mix(tmp_path: Path) -> None:
    """Code is read more often than it is there; the other domain has its half of the last hundred steps."""
    from curation.shards import read_manifest
    from tests.curation.packing.test_shard_writer import corpus, pack

    pack(corpus(), tmp_path / "shards" / "result", validation=0.1, tokens_per_shard=2000)
    sizes = {d: s.tokens for d, s in read_manifest(str(tmp_path / "shards")).splits["train"].items()}
    data = {"seq_len": 64, "weights": {"code": 1}, "changes": [{"at": 3900, "weights": {"code": 1, "web": 1}}]}
    value = TRAINING | {"steps": 3901, "data": data, "batch": {"global_size": 2}}
    run = _written(tmp_path / "run", 32, 3901)
    (run / "train.yaml").write_text(config.parse(yaml.safe_dump(value)).dump())
    (run / "data.json").write_text(json.dumps({"tokenizer": {"vocab": 256}, "root": str(tmp_path / "shards")}))
    table = read(str(run))
    assert table.unique is not None and table.unique.tolist() == [sizes["code"] + 1 * 2 * 64 / 2]
