"""The guard: what it calls an anomaly, whom it blames, and that nothing of it is lost when a run is cut short.

Covers: find_spike_documents.py, rollback.py
"""

from __future__ import annotations

import importlib.util
import json
import math
import pydoc_data.topics
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from curation.core.errors import UserError
from pipelines.lookup.training_run import describe_event
from training.checkpoint.save_load import Checkpoint
from training.config import GuardConfig, parse
from training.data.data_order import OrderLog
from training.stability import rollback
from training.stability.find_spike_documents import Incident, append_to_exclude_list, check_limits
from training.stability.spike_detection import SpikeGuard
from training.train import TrainResult, train

_spec = importlib.util.spec_from_file_location("guard_bench", Path(__file__).parents[3] / "benchmarks" / "guard.py")
assert _spec is not None and _spec.loader is not None
bench = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(bench)


def made(**config: Any) -> SpikeGuard:
    return SpikeGuard(
        GuardConfig(**{"action": "skip", "window": 32, "warmup_steps": 16, **config}), torch.device("cpu")
    )


def feed(guard: SpikeGuard, values: list[tuple[float, float]], first: int = 1) -> list[bool]:
    """Which of the steps are skipped."""
    return [
        bool(guard.judge(i, torch.tensor(loss), torch.tensor(norm))[0]) for i, (loss, norm) in enumerate(values, first)
    ]


def noise(count: int, seed: int = 1) -> list[tuple[float, float]]:
    g = torch.Generator().manual_seed(seed)
    return [(2 + 0.05 * a, math.exp(0.1 * b)) for a, b in torch.randn(count, 2, generator=g).tolist()]


def test_the_z_is_that_of_median_and_mad() -> None:
    """Of the last 32 accepted ones; of fewer than twice as many, of the newer half."""
    for count, newest in ((100, 32), (50, 25)):
        assert_z(noise(count), newest)


def assert_z(values: list[tuple[float, float]], newest: int) -> None:
    guard = made()
    feed(guard, values)
    _, _, z, _ = guard.judge(len(values) + 1, torch.tensor(2.5), torch.tensor(2.0))
    values, middle_at = values[-newest:], (newest - 1) // 2
    for i, x in enumerate((2.5, math.log(2.0))):
        seen = sorted(torch.tensor([(v[0], math.log(v[1]))[i] for v in values], dtype=torch.float32).tolist())
        middle = seen[middle_at]
        mad = sorted(abs(s - middle) for s in seen)[middle_at]
        assert z[i].item() == pytest.approx((x - middle) / (1.4826 * mad), rel=1e-4)


def test_what_is_no_number_is_skipped_from_the_first_step_on() -> None:
    values = [(2.0, 1.0), (math.nan, 1.0), (2.0, math.inf), (2.0, math.nan), (2.0, 1.0)]
    assert feed(made(), values) == [False, True, True, True, False]
    assert feed(made(action="watch"), values) == [False, True, True, True, False], "an update of NaN is never taken"
    assert feed(made(action="off"), values) == [False] * 5
    guard = SpikeGuard(GuardConfig(), torch.device("cpu"), overflow=True)
    skips = [guard.judge(i, torch.tensor(a), torch.tensor(b)) for i, (a, b) in enumerate(values, 1)]
    assert [bool(s[0]) for s in skips] == [False, True, True, True, False]
    assert [bool(s[1]) for s in skips] == [False, True, False, False, False], "fp16's overflow is no anomaly"


def test_outliers_are_judged_by_what_was_accepted() -> None:
    """A second, smaller spike is seen behind the first; quiet steps are not skipped; downwards is never bad."""
    values = noise(200)
    values[100], values[103], values[150] = (9.0, 40.0), (2.9, 3.0), (0.5, 0.01)
    assert [i for i, skipped in enumerate(feed(made(), values)) if skipped] == [100, 103]


def test_a_spike_is_so_many_anomalies_within_so_many_steps() -> None:
    def spike(at: list[int], cleared: int = 0) -> tuple[bool, list[int]]:
        guard = made(action="rollback", spike_count=3, spike_window=5)
        guard.cleared = cleared
        values = noise(60)
        for i in at:
            values[i - 1] = (9.0, 40.0)
        feed(guard, values)
        return guard.spike_confirmed(60, 10), guard.anomalous_steps()[1] if int(guard.spike) >= 0 else []

    assert spike([40, 45, 50]) == (False, [])
    assert spike([40, 42, 44]) == (True, [40, 42, 44])
    assert spike([40, 42, 44], cleared=42) == (False, []), "those before were looked into already"


def test_which_checkpoint_is_good() -> None:
    guard = made(action="rollback", good_after=8)
    values = noise(60)
    values[34] = (9.0, 40.0)  # step 35
    good = []
    for i in range(60):
        feed(guard, values[i : i + 1], i + 1)
        guard.spike_confirmed(i + 1, 10)
        good.append(guard.good)
    assert good[17] == 10 and good[16] == 0 and good[27] == 20
    assert good[37] == 20, "30 was not followed by 8 accepted ones, the 35th came between"
    assert good[47] == 40 and good[46] == 20


def test_state_comes_back_to_the_bit() -> None:
    values = noise(120)
    values[50] = (9.0, 40.0)
    whole = made(action="rollback")
    feed(whole, values)
    first, second = made(action="rollback"), made(action="rollback")
    feed(first, values[:51])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    feed(second, values[51:], 52)
    assert second.state_dict() == whole.state_dict()
    larger = made(action="rollback", window=64, spike_window=20)
    larger.load_state_dict(whole.state_dict())
    assert sorted(x for x in larger.state_dict()["history"][0] if x is not None) == sorted(
        whole.state_dict()["history"][0]
    )


def test_beside_other_rules() -> None:
    table = bench.rules([7])
    assert all(row["ours"] == (0, 0) for row in table.values())
    assert table["NaN"]["OLMo-core"][1] > 100, "a NaN in its window makes it skip until that has left"
    assert table["double spike"]["plain 6 sigma"][0] == 1 and table["restart"]["OLMo-core"][0] == 2


def test_a_ratio_besides_z() -> None:
    """Where values hardly move, a step can be many deviations high and yet be nothing to leave an update out for."""
    g = torch.Generator().manual_seed(1)
    values = [(2 + 0.001 * a, math.exp(0.05 * b)) for a, b in torch.randn(90, 2, generator=g).tolist()]
    values[60], values[70], values[80] = (2.09, 2.0), (2.3, 1.0), (2.0, 4.0)
    assert [i for i, skipped in enumerate(feed(made(), values)) if skipped] == [70, 80]


def test_an_event_says_what_is_usual() -> None:
    guard = made()
    feed(guard, noise(60))
    _, _, _, usual = guard.judge(61, torch.tensor(9.0), torch.tensor(40.0))
    assert usual.tolist() == pytest.approx([2.0, 1.0], rel=0.1)
    event = {"event": "skip", "step": 61, "loss": 9.0, "grad_norm": 2.3, "usual_loss": 2.0, "usual_grad_norm": 1.1}
    assert describe_event(event) == "step 61: update skipped, loss 9, usual 2, gradient norm 2.3, usual 1.1"


@pytest.mark.parametrize(("loss", "norm"), [(0.4, 1.0), (0.0, 4.0), (-0.3, 3.0)], ids=["anneal", "batch", "length"])
def test_a_planned_change_begins_a_new_baseline(loss: float, norm: float) -> None:
    """Nothing is skipped after it but a real spike; a change that nobody planned is accepted after 20 skips."""
    values = noise(200)
    values[100:] = [(a + loss, b * norm) for a, b in values[100:]]
    values[150] = (values[150][0] + 2, values[150][1] * 8)
    guard = made()
    skipped = feed(guard, values[:100])
    guard.start_baseline()
    skipped += feed(guard, values[100:], 101)
    assert [i for i, s in enumerate(skipped) if s] == [150]
    assert [i for i, s in enumerate(feed(made(max_skips=5), values)) if s][-1] == 150
    assert sum(feed(made(max_skips=5), [*noise(100), *[(2 + loss, 4.0)] * 100])) == 5


def test_what_is_no_number_is_never_accepted() -> None:
    assert all(feed(made(max_skips=5), noise(40) + [(math.nan, 1.0)] * 40)[40:])


def test_anomalies_before_a_change_count_for_no_spike_after_it() -> None:
    for boundary in (False, True):
        guard = made(action="rollback", spike_count=3, spike_window=40)
        feed(guard, [*noise(50), (9.0, 40.0), (9.0, 40.0)])
        if boundary:
            guard.start_baseline()
        feed(guard, [*noise(20), (9.0, 40.0)], 53)
        assert guard.spike_confirmed(73, 10) is not boundary


def test_an_incident_without_a_culprit_leaves_time_to_accept_the_level(tmp_path: Path) -> None:
    state = made(action="rollback").state_dict()
    log = OrderLog.new({"a": 1}, 8, 8, 1)
    for blamed, norm, cleared in ((0, 3.0, 105 + 20), (1, 3.0, 105), (0, None, 105)):  # not finite: no level to accept
        loaded = made(action="rollback")
        incident = found(1, 100, blamed, 0, norm)
        rollback.apply_incidents(Checkpoint(tmp_path, {"guard": state}, ()), loaded, log, [incident])
        assert loaded.cleared == cleared


def found(number: int, good: int, blamed: int, masked: int, norm: float | None = 3.0) -> Incident:
    who = [{"doc_id": str(i)} for i in range(blamed)]
    anomaly = {"loss": 5.0, "grad_norm": norm}
    return Incident(number, good, good + 5, 0, [anomaly], 9, 99, who, [str(i) for i in range(masked)])


def test_when_to_stop(tmp_path: Path) -> None:
    check_limits([found(1, 100, 0, 0), found(2, 150, 0, 0)], 0.0, 0.01, tmp_path)
    with pytest.raises(UserError, match=r"the loss is 5 in step 105 .*, the second spike after the checkpoint of") as e:
        check_limits([found(1, 100, 0, 0), found(2, 100, 0, 0)], 0.0, 0.01, tmp_path)
    assert f"--branch-from {tmp_path}/checkpoints/00000100, with a lower optimizer.lr" in str(e.value)
    with pytest.raises(
        UserError, match=r"20 documents are masked, 2.00% of all, and guard.max_masked_fraction is 1.00%"
    ):
        check_limits([found(1, 100, 20, 20)], 0.02, 0.01, tmp_path)


# --- poisoned documents, in the small

SMALL = {"steps": 220, "guard.max_masked_fraction": 0.02, "checkpoint.every": 20, "exclude_list": None}


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, set[str]]]:
    """3,500 documents of 128 bytes, of Python's reference manual; 12 of each poison put over some."""
    root = tmp_path_factory.mktemp("poisoned")

    (root / "manual").write_text("".join(t for _, t in sorted(pydoc_data.topics.topics.items())), encoding="utf-8")
    everything = bench.documents([root / "manual"], 3600)
    ids = bench.write_both(root / "clean", root / "poisoned", everything[:3500], everything[3500:], seed=3)

    return root / "poisoned", ids


def run(data: Path, where: Path, report: Any = None, **changes: Any) -> TrainResult:
    settings = parse(json.dumps(bench.CONFIG), "guard", {"seed": 3, **SMALL, **changes})
    return train(settings, str(data), str(where), report=report)


@pytest.fixture(scope="module")
def guarded(poisoned: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    where = tmp_path_factory.mktemp("guarded") / "run"
    return where, run(poisoned[0], where, exclude_list=str(where.parent / "bad.jsonl"))


def test_it_names_exactly_the_poisoned(poisoned: Any, guarded: Any) -> None:
    where, result = guarded
    _, ids = poisoned
    everyone = set().union(*ids.values())
    assert set(result.masked) <= everyone, "nobody else is masked"
    assert {name: len(those - set(result.masked)) for name, those in ids.items()} == dict.fromkeys(ids, 0)
    reports = [json.loads(p.read_text()) for p in sorted((where / "incidents").glob("*.json"))]
    named = [d for r in reports for d in r["blamed"]]
    assert {d["doc_id"] for d in named} == everyone and all(max(d["z_loss"], d["z_gradient"]) > 8 for d in named)
    lines = [json.loads(line) for line in (where.parent / "bad.jsonl").read_text().splitlines()]
    assert {line["doc_id"] for line in lines} == everyone and len(lines) == len(everyone)
    events = [e for e in map(json.loads, (where / "metrics.jsonl").open()) if e.get("event") == "rollback"]
    assert [set(e["blamed"]) for e in events] == [{d["doc_id"] for d in r["blamed"]} for r in reports]
    steps = [e["step"] for e in map(json.loads, (where / "metrics.jsonl").open()) if e["kind"] == "train"]
    assert steps == list(range(1, 221)), "what was gone back behind is written once"


@pytest.mark.slow
def test_poison_after_planned_changes(poisoned: Any, tmp_path: Path) -> None:
    """Sequences twice as long from step 40 on, a doubled batch from step 80 on: only the poisoned are named."""
    changes = [{"at": 40, "seq_len": 128}, {"at": 80, "global_size": 16}]
    settings = {"steps": 275, "data.seq_len": 64, "batch.global_size": 8, "data.changes": changes}
    result = run(poisoned[0], tmp_path / "run", **settings)
    assert set(result.masked) == set().union(*poisoned[1].values())
    events = [e for e in map(json.loads, (tmp_path / "run" / "metrics.jsonl").open()) if e["kind"] == "event"]
    assert {e["event"] for e in events} == {"rollback"}, "what was skipped before it is read again"


class Crash(BaseException):
    pass


@pytest.mark.slow
def test_a_rollback_cut_short_anywhere_ends_the_same(
    poisoned: Any, guarded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the incident is written, behind it, while checkpoints are removed, and at the event."""
    from training.stability import find_spike_documents, rollback

    where = tmp_path / "run"
    crashes = 0

    def die_once(module: Any, name: str, *, before: bool) -> None:
        real = getattr(module, name)
        left = iter([True])

        def wrapped(*a: Any, **k: Any) -> Any:
            nonlocal crashes
            if before and next(left, False):
                crashes += 1
                raise Crash
            value = real(*a, **k)
            if not before and next(left, False):
                crashes += 1
                raise Crash
            return value

        monkeypatch.setattr(module, name, wrapped)

    die_once(find_spike_documents.Incident, "write", before=True)
    die_once(find_spike_documents, "append_to_exclude_list", before=True)
    die_once(rollback, "find_cause", before=False)
    die_once(rollback, "record_incidents", before=False)
    quarantine = str(where.parent / "bad.jsonl")
    for _ in range(8):
        try:
            result = run(poisoned[0], where, exclude_list=quarantine)
            break
        except Crash:
            continue
    assert crashes >= 3 and result.masked == guarded[1].masked
    assert (where / "metrics.jsonl").read_bytes() == (guarded[0] / "metrics.jsonl").read_bytes()
    assert Path(quarantine).read_bytes() == (guarded[0].parent / "bad.jsonl").read_bytes(), "each once, none lost"


@pytest.mark.parametrize(
    ("good", "init_from", "losses", "scorer"),
    [(0, None, [5.0, 4.0, None], 50), (0, None, [5.6, 7.0], 0), (0, None, [], 0), (0, "run", [4.0], 0),
     (25, None, [4.0], 25)],
)  # fmt: skip
def test_random_weights_blame_nobody(
    good: int, init_from: str | None, losses: list[float | None], scorer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest checkpoint scores where only the start is good, if its run learns: ln 257 is 5.55."""

    def found(step: int) -> Checkpoint:
        guard = {"history": [losses, losses]}
        return Checkpoint(Path(f"{step:08d}"), {"step": step, "guard": guard, "model_config": {"vocab_size": 257}}, ())

    monkeypatch.setattr(rollback.save_load, "newest", lambda _: found(50))
    config = parse("steps: 100", overrides={"init_from": init_from} if init_from else {})
    assert rollback._scoring_checkpoint(config, Path("run"), found(good)).state["step"] == scorer


def test_half_a_line_in_the_quarantine_list(tmp_path: Path) -> None:
    """What a crash cut off goes; what somebody wrote beside it, also without its end, stays."""
    blamed = [{"doc_id": i, "url": None, "z_loss": 9.0, "z_gradient": 1.0} for i in ("aa", "bb")]
    one = Incident(1, 0, 5, 0, [], 9, 99, blamed, ["aa", "bb"])
    file = tmp_path / "bad.jsonl"
    ours = '{"doc_id": "aa", "reason": "by hand"}'
    for text, kept in ((f"# a note\n[]\n{ours}\n" + '{"doc_id": "b', ["# a note", "[]", ours]), (ours, [ours])):
        file.write_text(text)
        append_to_exclude_list(file, one)
        append_to_exclude_list(file, one)
        lines = file.read_text().splitlines()
        assert lines[:-1] == kept and json.loads(lines[-1])["doc_id"] == "bb"


def test_more_than_a_share_masked_stops(poisoned: Any, guarded: Any, tmp_path: Path) -> None:
    where = tmp_path / "run"
    shutil.copytree(guarded[0], where)
    with pytest.raises(
        UserError, match=r"36 documents are masked, 1.03% of all, and guard.max_masked_fraction is 0.50%"
    ):
        run(poisoned[0], where, **{"guard.max_masked_fraction": 0.005})
