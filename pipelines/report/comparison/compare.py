"""Compares runs side by side (`gristmill compare`): their results, and the settings in which they differ.

Reads only small files: run.json, pipeline.yaml and the shard manifest of a curation run, the logs of a training run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from curation.config.stored_pipeline import read_stored_pipeline
from curation.core.errors import UserError
from curation.storage import Storage, is_remote
from pipelines.lookup import training_run

Value = float | str | None


@dataclass
class Side:
    """The figures and settings of a run. Figures: (group, name) -> number."""

    name: str
    run: str
    kind: str
    figures: dict[tuple[str, str], float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    training: training_run.Training | None = None


@dataclass
class Comparison:
    """Runs of the same kind, in the order given."""

    kind: str
    sides: list[Side]

    @property
    def figures(self) -> list[tuple[str, str, list[float | None]]]:
        """(group, name, values of the runs) of every figure that at least one run has, grouped."""
        keys: dict[tuple[str, str], None] = {}
        for side in self.sides:
            keys |= dict.fromkeys(side.figures)
        groups = list(dict.fromkeys(g for g, _ in keys))
        ordered = sorted(keys, key=lambda k: groups.index(k[0]))
        return [(g, w, [s.figures.get((g, w)) for s in self.sides]) for g, w in ordered]

    @property
    def settings(self) -> list[tuple[str, list[Value]]]:
        """(setting, values of the runs) of the settings that differ."""
        keys = dict.fromkeys(k for s in self.sides for k in s.settings)
        rows = [(k, [s.settings.get(k) for s in self.sides]) for k in keys]
        return [(k, v) for k, v in rows if any(x != v[0] for x in v)]

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "runs": [{"name": s.name, "run": s.run} for s in self.sides],
            "figures": [{"group": g, "what": w, "values": v} for g, w, v in self.figures],
            "settings": [{"what": w, "values": v} for w, v in self.settings],
        }


def compare_runs(runs: Sequence[str]) -> Comparison:
    """Reads the runs. Raises UserError for fewer than two, a directory without a run, and runs of different kinds."""
    if len(runs) < 2:
        raise UserError("compare: give at least two runs")
    sides = [read_side(run) for run in runs]
    kinds = {s.kind for s in sides}
    if len(kinds) > 1:
        kinds_given = ", ".join(f"{s.run} is a {s.kind} run" for s in sides)
        raise UserError(
            f"compare: {kinds_given}\n  give runs of the same kind; the trainings of a run are in RUN/train"
        )
    names = [s.name for s in sides]
    for s in sides:  # runs of one pipeline have the same name: show the directory instead
        if names.count(s.name) > 1:
            s.name = s.run.rstrip("/")
    return Comparison(kinds.pop(), sides)


def read_side(run: str) -> Side:
    """The figures and settings of a run. Raises UserError for a directory without one."""
    store = Storage(run)
    if store.exists("run.json"):
        return _curation(run, store)
    if not is_remote(run) and training_run.is_training(run):
        return _training(run)
    raise UserError(f"{run} is not a run: it has neither run.json nor metrics.jsonl")


def _curation(run: str, store: Storage) -> Side:
    made = store.read_json("run.json")
    counts = made.get("counts") or {}
    if not counts:
        raise UserError(f"{run} has no counts yet\n  let gristmill curate finish first")
    out = Side(made["name"], run, "curation")
    figures = out.figures
    records = counts["read"]["records"]
    figures["totals", "records read"] = records
    figures["totals", "documents kept"] = counts["kept"]
    figures["totals", "share kept"] = counts["kept"] / records if records else 0.0
    figures["totals", "bytes of text"] = counts.get("text_bytes", 0)
    for split, by in (counts.get("tokens") or {}).items():
        figures["totals", f"{split} tokens"] = sum(by.values())
    figures["totals", "core-hours"] = sum(p["seconds"] for p in made.get("phases", [])) / 3600
    for row in counts["steps"]:
        figures["dropped", f"{row['step']}: {row['rule']}"] = row["dropped"]
    for domain, n in counts.get("domains", {}).items():
        figures["documents kept", domain] = n
    for by in (counts.get("tokens") or {}).values():
        for domain, n in by.items():
            key = ("tokens", domain)
            figures[key] = figures.get(key, 0) + n
    if store.exists("result/shards/manifest.json"):
        mix = store.read_plain_json("result/shards/manifest.json").get("mix", {})
        figures |= {("mix", d): w for d, w in (mix.get("weights") or {}).items()}
    if store.exists("pipeline.yaml"):
        tree = read_stored_pipeline(store)
        steps = {s["name"]: {"options": s["options"], "rules": s["rules"]} for s in tree.pop("steps")}
        sources = {s["name"]: s for s in tree.pop("sources")}
        out.settings = dict(_flat({**tree, "sources": sources, "steps": steps}))
    return out


def _training(run: str) -> Side:
    t = training_run.read(run)
    out = Side(t.name, run, "training", training=t, settings=dict(_flat(t.config)))
    figures = out.figures
    figures["totals", "steps"] = t.step
    figures["totals", "tokens"] = t.tokens
    if t.train:
        last = t.train[-max(5, len(t.train) // 20) :]
        figures["totals", "training loss, last 5 %"] = sum(v for _, v in last) / len(last)
    if t.seconds:
        figures["totals", "tokens per second"] = t.tokens / t.seconds
        figures["totals", "seconds"] = t.seconds
    figures["totals", "spikes rolled back"] = sum(e["event"] == "rollback" for e in t.events)
    figures["totals", "documents masked"] = max((len(i["masked"]) for i in t.incidents), default=0)
    for domain, score in t.last.items():
        figures["validation loss", domain] = score["loss"]
    for domain, score in t.last.items():
        if score.get("bits_per_byte") is not None:
            figures["bits per byte", domain] = score["bits_per_byte"]
    if t.tasks:
        figures |= {("tasks", name): float(v) for name, v in t.tasks[-1]["tasks"].items()}
    return out


def _flat(tree: Any, name: str = "") -> Iterator[tuple[str, Value]]:
    """(`a.b.c`, value) of every leaf of a tree; lists count as values."""
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from _flat(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, tree if isinstance(tree, (int, float, str)) or tree is None else str(tree)


def difference(values: Sequence[float | None], what: str = "") -> str:
    """The change from the first of two values to the second: +12.3%; in points for shares."""
    if len(values) != 2 or values[0] is None or values[1] is None or values[0] == values[1]:
        return ""
    if what.startswith("share"):
        return f"{100 * (values[1] - values[0]):+.1f} points"
    return f"{values[1] / values[0] - 1:+.1%}" if values[0] else "new"


def format_figure(value: float | None, what: str = "") -> str:
    """A figure as text."""
    if value is None:
        return ""
    if what.startswith("share"):
        return f"{value:.1%}"
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def short_names(sides: Sequence[Side]) -> list[str]:
    """The names of the runs without their common folders."""
    names = [s.name for s in sides]
    common = os.path.commonpath(names) if all("/" in n for n in names) else ""
    return [os.path.relpath(n, common) if common else n for n in names]
