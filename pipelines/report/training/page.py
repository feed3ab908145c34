"""Builds the report of a training run, alone or inside a curation run's page: curves, evaluations, incidents, plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from pipelines.lookup.training_run import Training, describe_event
from pipelines.number_format import format_bytes, format_count, format_duration
from pipelines.report.html import charts, page
from pipelines.report.html.charts import table
from pipelines.report.html.page import Section

Line = Sequence[tuple[float, float]]


def render(training: Training) -> str:
    """The page of a training run."""
    title = f"Training: {training.name}"
    sections = [Section("overview", "Overview", page.tiles(tiles(training))), *_sections(training)]
    return page.render(title, f"Training report · <code>{escape(training.folder)}</code>", sections)


def html(training: Training) -> str:
    """The training's section on the page of a curation run."""
    parts = [f"<h3>{s.title}</h3>{s.html}" for s in _sections(training) if s.html]
    return page.tiles(tiles(training)) + "".join(parts)


def _sections(training: Training) -> list[Section]:
    return [
        Section("loss", "Loss", loss(training)),
        Section("optimization", "Learning rate, gradients, throughput", optimization(training)),
        Section("evaluation", "Evaluation", evaluation(training)),
        Section("incidents", "Incidents", incidents(training)),
        Section("plan", "Planned and actual", plan(training)),
        Section("sample", "Sample of generated text", _sample(training)),
    ]


def tiles(t: Training) -> list[tuple[str, str, str]]:
    """The key figures."""
    planned = f"of {t.planned:,} planned" if t.planned else ""
    shown = [("steps", f"{t.step:,}", planned), ("tokens read", format_count(t.tokens), "")]
    if t.train:
        shown.append(("training loss", f"{_final_mean(t.train):.3f}", f"from {t.train[0][1]:.3f}"))
    if t.scores:
        mean = [s["loss"] for s in (t.scores[0], t.scores[-1])]
        shown.append(("validation loss", f"{mean[1]:.3f}", f"from {mean[0]:.3f}"))
    if t.seconds:
        shown.append(("throughput", f"{t.tokens / t.seconds:,.0f}", "tokens per second"))
        if t.mfu:
            shown.append(("MFU", f"{sum(v for _, v in t.mfu) / len(t.mfu):.1%}", "of the devices' peak"))
        shown.append(("time", format_duration(t.seconds), ""))
    shown.append(
        (
            "incidents",
            f"{sum(e['event'] == 'rollback' for e in t.events)}",
            f"{len(t.events)} events" if t.events else "",
        )
    )
    return shown


def _final_mean(line: Line) -> float:
    """The mean of the last 5 % of a curve, at least five points: the loss of a single step is mostly noise."""
    last = line[-max(5, len(line) // 20) :]
    return sum(y for _, y in last) / len(last)


def smooth(line: Line, most: int = 60) -> list[tuple[float, float]]:
    """A curve smoothed to at most `most` means, so that the curves of domains can be distinguished."""
    return charts.downsample(line, most)


def marks(t: Training) -> dict[float, str]:
    return {float(e.get("confirmed", e["step"])): describe_event(e) for e in t.events}


def loss(t: Training) -> str:
    """Validation and training loss by domain, side by side."""
    trained: dict[str, Line] = {d: smooth(line) for d, line in sorted(t.domains.items())} or {
        "training": smooth(t.train)
    }
    drawn = charts.curves("Training loss by domain", trained, marks=marks(t), unit="nats per token", over="step")
    drawn += charts.curves(
        "Validation loss by domain", dict(sorted(t.validation.items())), marks=marks(t),
        unit="nats per token", over="step",
    )  # fmt: skip
    return f"<div class=pair>{drawn}</div>" if drawn else ""


def optimization(t: Training) -> str:
    """Learning rate, gradient norm, tokens per second, MFU, update ratio."""
    lines: list[tuple[str, str, Line]] = [
        ("Learning rate", "", t.lr), ("Gradient norm", "", t.grad_norm), ("Tokens per second", "tokens/s", t.speed),
        ("MFU", "", t.mfu), ("Update ratio", "", t.update_ratio),
    ]  # fmt: skip
    drawn = "".join(
        charts.curves(name, {name.lower(): smooth(line, 240)}, 360.0, 140.0, marks(t), unit, "step")
        for name, unit, line in lines
        if line
    )
    return f'<div class="grid">{drawn}</div>' if drawn else ""


def evaluation(t: Training) -> str:
    """The first, best and last validation loss by domain, and benchmark tasks if there are any."""
    if not t.scores:
        return ""
    rows = []
    for domain, score in t.last.items():
        first, best = t.validation[domain][0][1], min(v for _, v in t.validation[domain])
        bits = score.get("bits_per_byte")
        cells = [f"{first:.3f}", f"{best:.3f}", f"{score['loss']:.3f}", f"{score['perplexity']:,.1f}"]
        cells += [f"{bits:.3f}" if bits is not None else "", f"{score['tokens']:,}"]
        rows.append([escape(domain), *cells])
    head = ["domain", "first loss", "best loss", "last loss", "perplexity", "bits per byte", "tokens"]
    out = table(head, rows, range(1, 7), "validation by domain")
    if t.tasks:
        last = t.tasks[-1]
        done = [[escape(k), f"{v:.4g}"] for k, v in sorted(last["tasks"].items())]
        out += table([f"task, at step {last['step']:,}", "score"], done, (1,), "tasks")
    return out


def incidents(t: Training) -> str:
    """What the spike guard did, with the documents that caused spikes."""
    if not t.events and not t.incidents:
        return "<p>No anomalies.</p>" if t.train else ""
    events = "".join(f"<li>{escape(describe_event(e))}</li>" for e in t.events[-50:])
    return (f"<ul>{events}</ul>" if events else "") + "".join(_incident(i) for i in t.incidents)


def _incident(i: Mapping[str, Any]) -> str:
    """An incident and the documents that caused it."""
    rows = []
    for d in i["blamed"]:
        name = f"<code>{escape(d['doc_id'])}</code><br>{escape(d.get('url') or _place(d.get('source')))}"
        numbers = [f"{d['tokens']:,}", f"{d['loss']:.3f}", f"{d['z_loss']:.1f}", f"{d['gradient']:.3g}"]
        rows.append([name, escape(d["domain"]), *numbers, f"{d['z_gradient']:.1f}"])
    anomalies = ", ".join(str(a["step"]) for a in i["anomalies"][:8])
    head = ["document", "domain", "tokens", "loss", "loss z-score", "gradient norm", "gradient z-score"]
    blamed = table(head, rows, range(2, 7), f"documents that caused incident {i['number']}") if rows else ""
    return (
        f"<h3>Incident {i['number']}, confirmed at step {i['confirmed']:,}</h3><p>Rolled back to step "
        f"{i['good']:,}. Anomalous steps: {anomalies}. {i['suspects']:,} suspect documents were scored against "
        f"{i['witnesses']:,} documents of normal steps; {len(i['blamed'])} identified as the cause, {len(i['masked'])} "
        f"masked from sequence {i['sequence']:,} on.</p>{blamed}"
    )


def _place(source: Mapping[str, Any] | None) -> str:
    return str((source or {}).get("file") or "")


def plan(t: Training) -> str:
    """What the training file asks for and what happened; sequences by domain and their quota in the mix."""
    rows = []
    if t.planned:
        rows.append(["steps", f"{t.planned:,}", f"{t.step:,}", _share(t.step, t.planned)])
    each = _tokens_per_step(t)
    if t.planned and each:
        want = t.planned * each
        rows.append(["tokens", format_count(want), format_count(t.tokens), _share(t.tokens, want)])
    peak = (t.config.get("optimizer") or {}).get("lr")
    if peak and t.lr:
        top = max(v for _, v in t.lr)
        rows.append(["highest learning rate", f"{peak:.3g}", f"{top:.3g}", _share(top, peak)])
    if t.planned_seconds and t.seconds:
        rates = [f"{t.tokens / spent:,.0f}" for spent in (t.planned_seconds, t.seconds)]
        rows.append(["tokens per second", *rates, _share(t.planned_seconds, t.seconds)])
    if share := t.latest_speed.get("memory_of_plan"):
        used = t.latest_speed["memory"]
        rows.append(["memory on the first device", format_bytes(used / share), format_bytes(used), _share(share, 1.0)])
    for domain, (quota, got) in _quotas(t).items():
        rows.append(
            [f"sequences of {escape(domain)}", f"{quota:,.1f}".removesuffix(".0"), f"{got:,}", _share(got, quota)]
        )
    starts = sum(e["event"] == "start" for e in t.sessions)
    lost = sum(e["seconds"] for e in t.sessions if e["event"] == "lost")
    if starts:
        rows.append(["starts", "1", f"{starts}", ""])
        rows.append(["time of repeated steps", "0 s", format_duration(lost), ""])
    return table(["", "planned", "actual", "actual / planned"], rows, (1, 2, 3), "planned and actual") if rows else ""


def _share(actual: float, planned: float) -> str:
    return f"{actual / planned:.1%}" if planned else ""


def _tokens_per_step(t: Training) -> int:
    """Tokens per step by the training file; 0 if they change during the training."""
    data = t.config.get("data") or {}
    return (
        0
        if data.get("changes")
        else int((t.config.get("batch") or {}).get("global_size", 0)) * int(data.get("seq_len", 0))
    )


def _quotas(t: Training) -> dict[str, tuple[float, int]]:
    """Domain -> (sequences that the mix asks for, sequences read by the order log).

    {} before the first checkpoint, if no checkpoint can be read, or if the shards are gone.
    """
    from curation.core.errors import UserError
    from curation.shards import ShardError
    from pipelines.lookup.training_data import TrainingData
    from training.checkpoint.tensor_files import CheckpointError
    from training.data.mix_table import OrderError

    try:
        data = TrainingData(t.folder)
        counted = data.verify() if data.sequences_read else {"domains": {}}
    except (UserError, ShardError, OrderError, CheckpointError, OSError):
        return {}
    quota: dict[str, float] = {}
    ends = [s.start for s in data.log.segments[1:]] + [data.sequences_read]
    for segment, end in zip(data.log.segments, ends, strict=True):
        for domain, n in segment.mix.items():
            quota[domain] = quota.get(domain, 0.0) + max(0, min(end, data.sequences_read) - segment.start) * n / sum(
                segment.mix.values()
            )
    return {d: (quota.get(d, 0.0), int(c["sequences"])) for d, c in counted["domains"].items()}


def _sample(t: Training) -> str:
    return (
        f'<pre tabindex="0" aria-label="sample of generated text">{escape(t.sample_text)}</pre>'
        if t.sample_text
        else ""
    )
