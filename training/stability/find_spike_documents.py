"""Who did it: the documents behind a spike, the report about them, and what training does differently from then on.

The loss at the spike blames the wrong ones: a model that was just pushed away is bad at everything. So the documents of
the steps out of the frame are scored again with the good checkpoint, beside documents of the quiet steps
before, each by its mean loss and by the norm of its gradient (a poison can have a low loss and a steep one). Blamed is
who lies `blame_z` robust standard deviations above the quiet ones. If nobody does, the steps just before the
first anomaly are looked at too: what came in there may show only later.

An incident is a file in the run's `incidents` folder, written and flushed before anything changes. The order log and
the guard's memory follow from these files, so a crash between any two steps of a rollback leaves nothing ambiguous.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from curation.core import atomic_files
from curation.core.errors import UserError
from curation.shards import Shard
from training.data.data_order import OrderLog
from training.data.dataset import TokenDataset
from training.stability.spike_detection import NORMAL

WITNESSES = 512  # quiet documents, at most: a median and a MAD are good to a few per cent by then
Score = Callable[[torch.Tensor, torch.Tensor], tuple[float, float]]  # tokens, targets [1, n] -> loss sum, gradient norm


@dataclass(frozen=True)
class Document:
    """A document's piece that was read: where it came from, and its tokens with the next ones as targets."""

    doc_id: str
    domain: str
    url: str | None
    source: dict[str, Any] | None
    tokens: np.ndarray[Any, Any]  # [n + 1]


@dataclass(frozen=True)
class Scored:
    """A document under the good checkpoint: nats a token, gradient norm a square root of a token, and their z."""

    doc_id: str
    domain: str
    url: str | None
    source: dict[str, Any] | None
    tokens: int
    loss: float
    gradient: float
    z_loss: float
    z_gradient: float

    @property
    def z(self) -> float:
        return max(self.z_loss, self.z_gradient)


@dataclass(frozen=True)
class Incident:
    """What happened and what was done about it. `sequence`: the first that is read again, with `masked` left out."""

    number: int
    good: int
    confirmed: int
    sequence: int
    anomalies: list[dict[str, Any]]  # step, loss, grad_norm, z of both
    suspects: int
    witnesses: int
    blamed: list[dict[str, Any]]
    masked: list[str]  # by this and earlier incidents

    def write(self, folder: Path) -> None:
        """Durably, under its number."""
        folder.mkdir(parents=True, exist_ok=True)
        said = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        atomic_files.write(folder / f"{self.number:04d}.json", said.encode("utf-8"))


def incidents(folder: Path) -> list[Incident]:
    """All of a run, in order."""
    return [Incident(**json.loads(p.read_text(encoding="utf-8"))) for p in sorted(folder.glob("*.json"))]


def apply(log: OrderLog, incident: Incident) -> OrderLog:
    """The order log with the incident's documents masked from its window on, in later segments too."""
    window = incident.sequence
    later = [s for s in log.segments if s.start > window]
    changed = OrderLog(log.block, tuple(s for s in log.segments if s.start <= window))
    changed = changed.with_change(window, masked=tuple(incident.masked))
    for s in later:
        changed = changed.with_change(s.start, mix=s.mix, seq_len=s.seq_len, global_size=s.global_size)
    return changed


def documents(data: TokenDataset, log: OrderLog, spans: Iterable[tuple[int, int]]) -> Iterator[Document]:
    """The documents in these windows, each piece widened within its document to the length of a window; not masked."""
    seen: set[tuple[str, int, int, int]] = set()
    for first, last in spans:
        masked = set(log.segment_at(first).masked)
        for window in data.sequences(log, first, last):
            length = len(window.tokens) - 1
            shard = data.domains[window.domain].shard(window.shard)
            ids = data.doc_ids(window)
            for k, begin in enumerate(window.document_starts.tolist()):
                row = window.first_document + k
                opens, ends = int(shard.offsets[row]), int(shard.offsets[row + 1])
                start = max(opens, min(window.start + begin, ends - length))
                place = (window.domain, window.shard, row, start)
                if ids[k] in masked or place in seen or ends - start < 2:
                    continue
                seen.add(place)
                about = shard.documents.slice(row, 1).to_pylist()[0]
                stop = min(ends, start + length + 1)
                tokens = shard.tokens[start:stop] if isinstance(shard, Shard) else shard.tokens(start, stop)
                tokens = np.array(tokens)
                yield Document(ids[k], window.domain, about["url"], about["source"], tokens)


def score(found: Sequence[Document], measure: Score) -> list[tuple[float, float, int]]:
    """(mean loss, gradient norm / sqrt(tokens), tokens) of each document.

    Gradients of independent tokens add up like a random walk, so the root makes lengths comparable; where all tokens
    push the same way, as in a repeated one, it grows with the length, which is what makes such a document steep.
    """
    rows = []
    for document in found:
        tokens = torch.from_numpy(document.tokens.astype(np.int64))[None]
        count = tokens.shape[1] - 1
        loss, norm = measure(tokens[:, :-1], tokens[:, 1:])
        rows.append((loss / count, norm / math.sqrt(count), count))
    return rows


def judge(
    suspects: Sequence[Document], scores: Sequence[tuple[float, float, int]], quiet: Sequence[tuple[float, float, int]]
) -> list[Scored]:
    """The suspects with robust z beside the quiet documents, steepest first.

    A short document's mean is a noisy one: its distance counts by sqrt(tokens / usual tokens), at most 1.
    """
    usual = statistics.median(count for _, _, count in quiet)

    def frame(values: Sequence[float]) -> tuple[float, float]:
        center = statistics.median(values)
        return center, max(NORMAL * statistics.median(abs(v - center) for v in values), 1e-3 * abs(center), 1e-9)

    loss_center, loss_spread = frame([loss for loss, _, _ in quiet])
    norm_center, norm_spread = frame([math.log(norm + 1e-30) for _, norm, _ in quiet])
    found = []
    for document, (loss, norm, count) in zip(suspects, scores, strict=True):
        weight = min(1.0, math.sqrt(count / usual))
        z_loss = weight * (loss - loss_center) / loss_spread
        z_norm = weight * (math.log(norm + 1e-30) - norm_center) / norm_spread
        z_loss, z_norm = (z if math.isfinite(z) else 1e9 for z in (z_loss, z_norm))
        found.append(
            Scored(document.doc_id, document.domain, document.url, document.source, count, loss, norm, z_loss, z_norm)
        )
    return sorted(found, key=lambda s: (-s.z, s.doc_id))


def blame(
    data: TokenDataset,
    log: OrderLog,
    bad: Sequence[tuple[int, int]],
    before: Sequence[tuple[int, int]],
    quiet: Sequence[tuple[int, int]],
    measure: Score,
    threshold: float,
) -> tuple[list[Scored], int, int]:
    """(blamed documents, suspects, witnesses) of spans of windows: of the anomalies, just before, and before that.

    A document of several pieces is judged by its steepest one.
    """
    pool = list(documents(data, log, quiet))
    witnesses = pool[:: max(1, -(-len(pool) // WITNESSES))]
    if len(witnesses) < 16:
        return [], 0, len(witnesses)
    usual = score(witnesses, measure)
    seen = 0
    for spans in (bad, before):
        suspects = list(documents(data, log, spans))
        seen += len(suspects)
        by_id: dict[str, Scored] = {}
        for scored in judge(suspects, score(suspects, measure), usual):
            by_id.setdefault(scored.doc_id, scored)
        guilty = [s for s in by_id.values() if s.z > threshold]
        if guilty:
            return guilty, seen, len(witnesses)
    return [], seen, len(witnesses)


def quarantine(path: Path, incident: Incident) -> None:
    """Appends the blamed documents to a list that curation reads (`quarantine:` of a pipeline); none twice.

    Half a line, which a crash left at its end, is taken away.
    """
    text = path.read_bytes() if path.exists() else b""
    known = set()
    for line in text.splitlines():
        with contextlib.suppress(ValueError, AttributeError):
            known.add(json.loads(line).get("doc_id"))
    with open(path, "ab") as f:
        if last := text[text.rfind(b"\n") + 1 :]:
            try:
                json.loads(last)
                f.write(b"\n")
            except ValueError:
                f.truncate(len(text) - len(last))
        for d in incident.blamed:
            if d["doc_id"] not in known:
                reason = f"loss spike at step {incident.confirmed}: z {max(d['z_loss'], d['z_gradient']):.1f}"
                entry = {"doc_id": d["doc_id"], "url": d["url"], "reason": reason, "by": "gristmill train"}
                f.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        f.flush()
        os.fsync(f.fileno())


def refuse(history: Sequence[Incident], share: float, largest: float, run: Path) -> None:
    """Raises UserError where going on would be wrong: too much masked, or a spike with nobody to blame twice."""
    last = history[-1]
    if share > largest:
        raise UserError(
            f"{run}: {len(last.masked)} documents are masked, {share:.2%} of all, and guard.max_masked_fraction is "
            f"{largest:.2%}. See {run / 'incidents'}; clean the data, or raise guard.max_masked_fraction and run again"
        )
    if len(history) > 1 and not last.blamed and not history[-2].blamed and last.good == history[-2].good:
        loss = last.anomalies[-1]["loss"] if last.anomalies else None
        said = "not finite" if loss is None else f"{loss:.4g}"
        raise UserError(
            f"{run}: the loss is {said} in step {last.confirmed}, the second spike after the checkpoint of "
            f"step {last.good} with no document to blame; lower optimizer.lr, lengthen schedule.warmup_steps or set "
            "guard.action: skip"
        )
