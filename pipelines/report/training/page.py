"""A training's part of a page, and its own page: curves, evaluations, incidents, plan against actual."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from pipelines.monitor.progress import duration, size
from pipelines.report.curation.funnel import short
from pipelines.report.html import charts, page
from pipelines.report.html.charts import table
from pipelines.report.html.page import Section
from pipelines.report.training.training_run import Training, happened

Line = Sequence[tuple[float, float]]


def render(training: Training) -> str:
    """The page of a training run by itself."""
    title = f"Training: {training.name}"
    sections = [Section("overview", "Overview", page.tiles(tiles(training))), *_sections(training)]
    return page.render(title, f"Training report · <code>{escape(training.folder)}</code>", sections)


def html(training: Training) -> str:
    """A section of the curation run's page."""
    parts = [f"<h3>{s.title}</h3>{s.html}" for s in _sections(training) if s.html]
    return page.tiles(tiles(training)) + "".join(parts)


def _sections(training: Training) -> list[Section]:
    return [
        Section("loss", "Loss", loss(training)),
        Section("optimization", "Learning rate, gradients, throughput", machinery(training)),
        Section("evaluation", "Evaluation", evaluation(training)),
        Section("incidents", "Incidents", incidents(training)),
        Section("plan", "Plan against actual", plan(training)),
        Section("says", "What it says", _said(training)),
    ]


def tiles(t: Training) -> list[tuple[str, str, str]]:
    """The figures that matter most."""
    planned = f"of {t.planned:,} planned" if t.planned else ""
    shown = [("steps", f"{t.step:,}", planned), ("tokens read", short(t.tokens), "")]
    if t.train:
        shown.append(("training loss", f"{_end(t.train):.3f}", f"from {t.train[0][1]:.3f}"))
    if t.scores:
        mean = [s["loss"] for s in (t.scores[0], t.scores[-1])]
        shown.append(("validation loss", f"{mean[1]:.3f}", f"from {mean[0]:.3f}"))
    if t.seconds:
        shown.append(("throughput", f"{t.tokens / t.seconds:,.0f}", "tokens a second"))
        if t.mfu:
            shown.append(("MFU", f"{sum(v for _, v in t.mfu) / len(t.mfu):.1%}", "of the devices' peak"))
        shown.append(("time", duration(t.seconds), ""))
    shown.append(
        (
            "incidents",
            f"{sum(e['event'] == 'rollback' for e in t.events)}",
            f"{len(t.events)} events" if t.events else "",
        )
    )
    return shown


def _end(line: Line) -> float:
    """The mean of the last twentieth of a curve, at least five points: one step's loss is mostly noise."""
    last = line[-max(5, len(line) // 20) :]
    return sum(y for _, y in last) / len(last)


def smooth(line: Line, most: int = 60) -> list[tuple[float, float]]:
    """A curve as means of up to so many stretches, so that domains can be told apart."""
    return charts.thin(line, most)


def marks(t: Training) -> dict[float, str]:
    return {float(e.get("confirmed", e["step"])): happened(e) for e in t.events}


def loss(t: Training) -> str:
    """Validation and training loss by domain, side by side."""
    trained: dict[str, Line] = {d: smooth(line) for d, line in sorted(t.domains.items())} or {
        "training": smooth(t.train)
    }
    drawn = charts.curves("Training loss by domain", trained, marks=marks(t), unit="nats a token", over="step")
    drawn += charts.curves(
        "Validation loss by domain", dict(sorted(t.validation.items())), marks=marks(t),
        unit="nats a token", over="step",
    )  # fmt: skip
    return f"<div class=pair>{drawn}</div>" if drawn else ""


def machinery(t: Training) -> str:
    """Learning rate, gradient norm, tokens a second, MFU, update ratio."""
    lines: list[tuple[str, str, Line]] = [
        ("Learning rate", "", t.lr), ("Gradient norm", "", t.grad_norm), ("Tokens a second", "tokens/s", t.speed),
        ("MFU", "", t.mfu), ("Update ratio", "", t.update_ratio),
    ]  # fmt: skip
    drawn = "".join(
        charts.curves(name, {name.lower(): smooth(line, 240)}, 360.0, 140.0, marks(t), unit, "step")
        for name, unit, line in lines
        if line
    )
    return f'<div class="grid">{drawn}</div>' if drawn else ""


def evaluation(t: Training) -> str:
    """The last evaluation beside the first, by domain; tasks, if any were asked."""
    if not t.scores:
        return ""
    rows = []
    for domain, score in t.last.items():
        first, best = t.validation[domain][0][1], min(v for _, v in t.validation[domain])
        bits = score.get("bits_per_byte")
        told = [f"{first:.3f}", f"{best:.3f}", f"{score['loss']:.3f}", f"{score['perplexity']:,.1f}"]
        told += [f"{bits:.3f}" if bits is not None else "", f"{score['tokens']:,}"]
        rows.append([escape(domain), *told])
    head = ["domain", "loss at first", "best", "last", "perplexity", "bits a byte", "tokens"]
    out = table(head, rows, range(1, 7), "validation by domain")
    if t.tasks:
        last = t.tasks[-1]
        done = [[escape(k), f"{v:.4g}"] for k, v in sorted(last["tasks"].items())]
        out += table([f"task, at step {last['step']:,}", "score"], done, (1,), "tasks")
    return out


def incidents(t: Training) -> str:
    """What the guard did, with the documents that it blamed."""
    if not t.events and not t.incidents:
        return "<p>None: no step left the frame.</p>" if t.train else ""
    told = "".join(f"<li>{escape(happened(e))}</li>" for e in t.events[-50:])
    parts = [f"<ul>{told}</ul>" if told else ""]
    return "".join(parts) + "".join(_incident(i) for i in t.incidents)


def _incident(i: Mapping[str, Any]) -> str:
    """An incident and the documents that were blamed."""
    rows = []
    for d in i["blamed"]:
        name = f"<code>{escape(d['doc_id'])}</code><br>{escape(d.get('url') or _place(d.get('source')))}"
        figures_ = [f"{d['tokens']:,}", f"{d['loss']:.3f}", f"{d['z_loss']:.1f}", f"{d['gradient']:.3g}"]
        rows.append([name, escape(d["domain"]), *figures_, f"{d['z_gradient']:.1f}"])
    anomalies = ", ".join(str(a["step"]) for a in i["anomalies"][:8])
    head = ["document", "domain", "tokens", "loss", "z of loss", "gradient", "z of gradient"]
    blamed = table(head, rows, range(2, 7), f"documents blamed by incident {i['number']}") if rows else ""
    return (
        f"<h3>Incident {i['number']}, confirmed at step {i['confirmed']:,}</h3><p>Back to step "
        f"{i['good']:,}. Out of the frame: steps {anomalies}. {i['suspects']:,} documents were scored beside "
        f"{i['witnesses']:,} quiet ones; {len(i['blamed'])} blamed, {len(i['masked'])} masked from sequence "
        f"{i['sequence']:,} on.</p>{blamed}"
    )


def _place(source: Mapping[str, Any] | None) -> str:
    return str((source or {}).get("file") or "")


def plan(t: Training) -> str:
    """What the training file asked for beside what happened; windows by domain beside their quota."""
    rows = []
    if t.planned:
        rows.append(["steps", f"{t.planned:,}", f"{t.step:,}", _share(t.step, t.planned)])
    each = _window_tokens(t)
    if t.planned and each:
        want = t.planned * each
        rows.append(["tokens", short(want), short(t.tokens), _share(t.tokens, want)])
    peak = (t.config.get("optimizer") or {}).get("lr")
    if peak and t.lr:
        top = max(v for _, v in t.lr)
        rows.append(["highest learning rate", f"{peak:.3g}", f"{top:.3g}", _share(top, peak)])
    if t.planned_seconds and t.seconds:
        told = [f"{t.tokens / spent:,.0f}" for spent in (t.planned_seconds, t.seconds)]
        rows.append(["tokens a second", *told, _share(t.planned_seconds, t.seconds)])
    if share := t.live.get("memory_of_plan"):
        held = t.live["memory"]
        rows.append(["memory on the first device", size(held / share), size(held), _share(share, 1.0)])
    for domain, (quota, got) in _quotas(t).items():
        rows.append(
            [f"windows of {escape(domain)}", f"{quota:,.1f}".removesuffix(".0"), f"{got:,}", _share(got, quota)]
        )
    starts = sum(e["event"] == "start" for e in t.sessions)
    lost = sum(e["seconds"] for e in t.sessions if e["event"] == "lost")
    if starts:
        rows.append(["starts", "1", f"{starts}", ""])
        rows.append(["time on steps done again", "0 s", duration(lost), ""])
    return table(["", "planned", "actual", "share"], rows, (1, 2, 3), "plan against actual") if rows else ""


def _share(actual: float, planned: float) -> str:
    return f"{actual / planned:.1%}" if planned else ""


def _window_tokens(t: Training) -> int:
    """Tokens of a step by the training file; 0 where changes over time make it several."""
    data = t.config.get("data") or {}
    return (
        0
        if data.get("changes")
        else int((t.config.get("batch") or {}).get("global_size", 0)) * int(data.get("seq_len", 0))
    )


def _quotas(t: Training) -> dict[str, tuple[float, int]]:
    """Domain -> windows that the mix asks for, and those that the order log says were read. {} before a checkpoint,
    or where the shards have gone."""
    from curation.core.errors import UserError
    from curation.core.errors import UserError as TrainingError
    from curation.shards import ShardError
    from pipelines.lookup.training_data import Readings
    from training.data.mix_table import OrderError

    try:
        readings = Readings(t.folder)
        counted = readings.verify() if readings.windows else {"domains": {}}
    except (UserError, TrainingError, ShardError, OrderError, OSError):
        return {}
    quota: dict[str, float] = {}
    ends = [s.window for s in readings.log.segments[1:]] + [readings.windows]
    for segment, end in zip(readings.log.segments, ends, strict=True):
        for domain, n in segment.mix.items():
            quota[domain] = quota.get(domain, 0.0) + max(0, min(end, readings.windows) - segment.window) * n / sum(
                segment.mix.values()
            )
    return {d: (quota.get(d, 0.0), int(c["windows"])) for d, c in counted["domains"].items()}


def _said(t: Training) -> str:
    return f'<pre tabindex="0" aria-label="sample">{escape(t.said)}</pre>' if t.said else ""
