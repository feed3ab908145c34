"""Finds the documents that caused a loss spike, reports them, and masks them from then on.

The loss at the spike points at the wrong ones: a model that was just pushed away is bad at everything. So the documents
of the anomalous steps are scored again with the good checkpoint, beside documents of the quiet steps before, each by
its mean loss and by the norm of its gradient (a poisoned document can have a low loss and a steep gradient). Blamed are
those more than `blame_z` robust standard deviations above the quiet ones. If there are none, the steps just before the
first anomaly are scored too: damage done there may show only later.

An incident is a file in the run's `incidents` folder, written and flushed before anything changes. The data order and
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
from training.checkpoint.run_directory import INCIDENT
from training.data.data_order import OrderLog
from training.data.dataset import TokenDataset
from training.stability.spike_detection import NORMAL

MAX_REFERENCE = 512  # quiet documents: a median and a MAD are good to a few per cent by then
ScoreDocument = Callable[
    [torch.Tensor, torch.Tensor], tuple[float, float]
]  # tokens, targets [1, n] -> loss sum, gradient norm


@dataclass(frozen=True)
class Document:
    """The part of a document that was read: its source, and its tokens with one more as the last target."""

    doc_id: str
    domain: str
    url: str | None
    source: dict[str, Any] | None
    tokens: np.ndarray[Any, Any]  # [n + 1]


@dataclass(frozen=True)
class ScoredDocument:
    """A document under the good checkpoint: mean loss in nats, gradient norm / sqrt(tokens), and the z of both."""

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
    """A confirmed loss spike and what was done about it; a file of the run's `incidents` folder."""

    number: int
    good: int  # step of the checkpoint that training rolled back to
    confirmed: int  # step in which the spike was confirmed
    sequence: int  # the first that is read again, with `masked` documents left out
    anomalies: list[dict[str, Any]]  # step, loss, grad_norm, z of both
    suspects: int  # documents scored
    witnesses: int  # quiet documents that they were compared with
    blamed: list[dict[str, Any]]
    masked: list[str]  # doc_ids, of this and earlier incidents

    def write(self, folder: Path) -> None:
        """Writes the file, flushed to disk, under the incident's number."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        atomic_files.write(folder / f"{self.number:04d}.json", text.encode("utf-8"))


def read_incidents(folder: Path) -> list[Incident]:
    """All incidents of a run, in order."""
    files = sorted(p for p in folder.glob("*.json") if INCIDENT.fullmatch(p.name))
    return [Incident(**json.loads(p.read_text(encoding="utf-8"))) for p in files]


def mask_documents(log: OrderLog, incident: Incident) -> OrderLog:
    """The order log with the incident's documents masked from its sequence on, in later segments too."""
    return log.with_masked(incident.sequence, incident.masked)


def iter_documents(data: TokenDataset, log: OrderLog, spans: Iterable[tuple[int, int]]) -> Iterator[Document]:
    """The documents of these sequences that are not masked, each part extended to a whole sequence where it can be."""
    seen: set[tuple[str, int, int, int]] = set()
    for first, last in spans:
        masked = set(log.segment_at(first).masked)
        for sequence in data.sequences(log, first, last):
            length = len(sequence.tokens) - 1
            shard = data.domains[sequence.domain].shard(sequence.shard)
            ids = data.doc_ids(sequence)
            for k, begin in enumerate(sequence.document_starts.tolist()):
                row = sequence.first_document + k
                opens, ends = int(shard.offsets[row]), int(shard.offsets[row + 1])
                start = max(opens, min(sequence.start + begin, ends - length))
                place = (sequence.domain, sequence.shard, row, start)
                if ids[k] in masked or place in seen or ends - start < 2:
                    continue
                seen.add(place)
                about = shard.documents.slice(row, 1).to_pylist()[0]
                stop = min(ends, start + length + 1)
                tokens = shard.tokens[start:stop] if isinstance(shard, Shard) else shard.tokens(start, stop)
                tokens = np.array(tokens)
                yield Document(ids[k], sequence.domain, about["url"], about["source"], tokens)


def score_documents(found: Sequence[Document], score: ScoreDocument) -> list[tuple[float, float, int]]:
    """(mean loss, gradient norm / sqrt(tokens), tokens) of each document.

    Gradients of independent tokens add up like a random walk, so the root makes lengths comparable; where all tokens
    push the same way, as in a repeated one, it grows with the length, and such a document has a steep gradient.
    """
    rows = []
    for document in found:
        tokens = torch.from_numpy(document.tokens.astype(np.int64))[None]
        count = tokens.shape[1] - 1
        loss, norm = score(tokens[:, :-1], tokens[:, 1:])
        rows.append((loss / count, norm / math.sqrt(count), count))
    return rows


def rank_suspects(
    suspects: Sequence[Document], scores: Sequence[tuple[float, float, int]], quiet: Sequence[tuple[float, float, int]]
) -> list[ScoredDocument]:
    """The suspects with their robust z against the quiet documents, highest first.

    A short document's mean is noisy: its z is multiplied by sqrt(tokens / usual tokens), at most 1.
    """
    usual = statistics.median(count for _, _, count in quiet)

    def center_and_spread(values: Sequence[float]) -> tuple[float, float]:
        center = statistics.median(values)
        return center, max(NORMAL * statistics.median(abs(v - center) for v in values), 1e-3 * abs(center), 1e-9)

    loss_center, loss_spread = center_and_spread([loss for loss, _, _ in quiet])
    norm_center, norm_spread = center_and_spread([math.log(norm + 1e-30) for _, norm, _ in quiet])
    found = []
    for document, (loss, norm, count) in zip(suspects, scores, strict=True):
        weight = min(1.0, math.sqrt(count / usual))
        z_loss = weight * (loss - loss_center) / loss_spread
        z_norm = weight * (math.log(norm + 1e-30) - norm_center) / norm_spread
        z_loss, z_norm = (z if math.isfinite(z) else 1e9 for z in (z_loss, z_norm))
        found.append(
            ScoredDocument(
                document.doc_id, document.domain, document.url, document.source, count, loss, norm, z_loss, z_norm
            )
        )
    return sorted(found, key=lambda s: (-s.z, s.doc_id))


def find_documents(
    data: TokenDataset,
    log: OrderLog,
    bad: Sequence[tuple[int, int]],
    before: Sequence[tuple[int, int]],
    quiet: Sequence[tuple[int, int]],
    score: ScoreDocument,
    threshold: float,
) -> tuple[list[ScoredDocument], int, int]:
    """The documents that caused a spike, how many were scored, and how many quiet ones they were compared with.

    bad, before, quiet: spans of sequences of the anomalous steps, of the steps just before them, and of earlier ones.
    threshold: robust standard deviations above the quiet documents. A document of several parts gets its highest z.
    """
    pool = list(iter_documents(data, log, quiet))
    reference = pool[:: max(1, -(-len(pool) // MAX_REFERENCE))]
    if len(reference) < 16:
        return [], 0, len(reference)
    usual = score_documents(reference, score)
    seen = 0
    for spans in (bad, before):
        suspects = list(iter_documents(data, log, spans))
        seen += len(suspects)
        by_id: dict[str, ScoredDocument] = {}
        for scored in rank_suspects(suspects, score_documents(suspects, score), usual):
            by_id.setdefault(scored.doc_id, scored)
        blamed = [s for s in by_id.values() if s.z > threshold]
        if blamed:
            return blamed, seen, len(reference)
    return [], seen, len(reference)


def append_to_exclude_list(path: Path, incident: Incident) -> None:
    """Appends the blamed documents to a JSONL list that curation reads (`exclude:` of a pipeline), each once.

    An incomplete last line, which a crash left, is removed.
    """
    text = path.read_bytes() if path.exists() else b""
    listed = set()
    for line in text.splitlines():
        with contextlib.suppress(ValueError, AttributeError):
            listed.add(json.loads(line).get("doc_id"))
    with open(path, "ab") as f:
        if last := text[text.rfind(b"\n") + 1 :]:
            try:
                json.loads(last)
                f.write(b"\n")
            except ValueError:
                f.truncate(len(text) - len(last))
        for d in incident.blamed:
            if d["doc_id"] not in listed:
                reason = f"loss spike at step {incident.confirmed}: z {max(d['z_loss'], d['z_gradient']):.1f}"
                entry = {"doc_id": d["doc_id"], "url": d["url"], "reason": reason, "by": "gristmill train"}
                f.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        f.flush()
        os.fsync(f.fileno())


def check_limits(history: Sequence[Incident], fraction: float, limit: float, run: Path) -> None:
    """Raises UserError where training should not continue: more than the limit is masked, or a spike without a cause
    came twice after the same checkpoint. `fraction`: masked documents of all training documents."""
    last = history[-1]
    if fraction > limit:
        raise UserError(
            f"{run}: {len(last.masked)} documents are masked, {fraction:.2%} of all, and guard.max_masked_fraction is "
            f"{limit:.2%}. See {run / 'incidents'}; clean the data, or raise guard.max_masked_fraction and run again"
        )
    if len(history) > 1 and not last.blamed and not history[-2].blamed and last.good == history[-2].good:
        worst = last.anomalies[-1] if last.anomalies else {}
        loss = describe_level(worst.get("loss"), worst.get("usual_loss"))
        norm = describe_level(worst.get("grad_norm"), worst.get("usual_grad_norm"))
        new = f"--branch-from {run / 'checkpoints' / f'{last.good:08d}'}" if last.good else "from the start"
        raise UserError(
            f"{run}: the loss is {loss} in step {last.confirmed} and the gradient norm {norm}, the second spike after "
            f"the checkpoint of step {last.good} without a document that caused it. Most often the learning rate is "
            f"too high: it is fixed in this run, so train in a new directory, {new}, with a lower optimizer.lr; "
            "or continue this run with --set guard.action=skip, which leaves such updates out"
        )


def describe_level(value: float | None, usual: float | None) -> str:
    """A loss or gradient norm, and what is usual where that is known."""
    text = "not finite" if value is None else f"{value:.4g}"
    return text if usual is None else f"{text} (usual {usual:.3g})"
