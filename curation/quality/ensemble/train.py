"""Fits an ensemble: logistic regression of a label on the signals of labelled documents.

Samples are rows of Parquet files with signals in struct columns: the documents of finished runs
(`RUN/result/documents`), for example a run over good reference text and one over crawl, with the same steps and no
rules. A tenth is held out by a hash of the text, so copies of a text are on one side.

The weights minimize the logistic loss plus |w|^2 / 2 on standardized signals, by Newton's method (Hastie et al. 2009,
section 4.4.1). The loss is convex, so there is one solution and no seed. The intercept is not penalized, so mean score
and share of the label agree on the training samples; the held-out calibration error shows how well that carries over.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from curation import storage
from curation.core import atomic_files
from curation.core.errors import UserError
from curation.quality import held_out_metrics, training_texts
from curation.quality.ensemble.ensemble import FORMAT, TRANSFORMS, Feature, Formula, column, standardised, transformed

RIDGE = 1.0  # keeps the weights of separable samples finite; negligible with thousands of samples
_ROUNDS = 100
_DIGITS = 9  # significant digits of stored numbers: further ones differ between linear algebra libraries


@dataclass(frozen=True)
class FittedEnsemble:
    """A fitted ensemble and its metrics on held-out samples."""

    path: str
    card: str
    formula: Formula
    trained: int
    positives: int  # among the trained
    metrics: held_out_metrics.HeldOutMetrics
    # held-out AUC of each signal by itself, at least 0.5: its sign may be turned round
    alone: tuple[tuple[str, float], ...]


def train_ensemble(
    sources: Mapping[str, Sequence[str]], signals: Sequence[str], out: str, *, label: str, share: float = 0.1
) -> FittedEnsemble:
    """Fits an ensemble for `gristmill models train ensemble`; writes the model (JSON) to `out`, its card to `out`.md.

    sources  label -> Parquet files, folders, globs or run directories
    label    the label whose probability is the score

    Raises UserError for signals that the files do not have, and for fewer than two labels.
    """
    if label not in sources or len(sources) < 2:
        raise UserError(f"an ensemble needs samples of {label!r} and of another label; found {sorted(sources)}")
    if not signals or len(set(signals)) < len(signals):
        raise UserError(f"signals {list(signals)}: name each signal once, such as heuristics.words")
    parts: list[npt.NDArray[np.float64]] = []
    keys: list[npt.NDArray[np.uint64]] = []
    truth: list[npt.NDArray[np.bool_]] = []
    for name in sorted(sources):
        for batch in _batches(sources[name], signals):
            parts.append(np.stack([column(batch, signal) for signal in signals], 1))
            texts = batch.column("text").to_pylist()
            keys.append(np.array([xxhash.xxh3_64_intdigest((t or "").encode()) for t in texts], np.uint64))
            truth.append(np.full(len(texts), name == label))
    values, hashes, positive = np.concatenate(parts), np.concatenate(keys), np.concatenate(truth)
    order = np.lexsort((positive, hashes))  # independent of the order of the files
    return fit(values[order], positive[order], hashes[order], signals, out, label=label, share=share)


def fit(
    values: npt.NDArray[np.float64],
    positive: npt.NDArray[np.bool_],
    hashes: npt.NDArray[np.uint64],
    signals: Sequence[str],
    out: str,
    *,
    label: str,
    share: float = 0.1,
) -> FittedEnsemble:
    """Fits on values: (n, signals), NaN where absent; positive: (n,); hashes: (n,), by which `share` is held out."""
    if not 0 < share < 1:
        raise UserError(f"held-out share {share}: expected a number between 0 and 1")
    test = hashes < np.uint64(int(share * 2.0**64))
    trained = positive[~test]
    if not trained.any() or trained.all():
        raise UserError(
            f"an ensemble needs training samples of two labels; {int(trained.sum())} of {len(trained)} are {label!r}"
        )
    features = [_feature(signal, values[~test, i], trained) for i, signal in enumerate(signals)]
    weights = _newton(_design(values[~test], features), trained)
    stored = [float(f"{w:.{_DIGITS}g}") for w in weights]
    fitted = tuple(
        Feature(f.signal, f.how, f.low, f.high, f.mean, f.deviation, stored[1 + i], stored[1 + len(features) + i])
        for i, f in enumerate(features)
    )
    formula = Formula(label, stored[0], fitted)
    scores = formula.score([values[test, i] for i in range(len(signals))])
    measured = held_out_metrics.measure_scores(scores, positive[test])
    alone = []
    for i, signal in enumerate(signals):
        some = np.nan_to_num(values[test, i], nan=features[i].low)
        area = held_out_metrics.auc(some, positive[test])
        alone.append((signal, max(area, 1 - area) if not math.isnan(area) else area))
    figures = {"auc": measured.auc, "ece": measured.ece, "samples": measured.samples, "positives": measured.positives}
    model = {
        "format": FORMAT,
        "label": label,
        "intercept": formula.intercept,
        "features": [asdict(f) for f in fitted],
        "trained": {"samples": len(trained), "positives": int(trained.sum())},
        "held_out": {k: None if math.isnan(v) else float(f"{v:.6g}") for k, v in figures.items()},
    }
    with atomic_files.replacing(out) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(json.dumps(model, indent=1, allow_nan=False) + "\n")
    made = FittedEnsemble(out, f"{out}.md", formula, len(trained), int(trained.sum()), measured, tuple(alone))
    held_out_metrics.write_card(out, _card(made))
    return made


def _batches(paths: Sequence[str], signals: Sequence[str]) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    heads = list(dict.fromkeys(["text", *(signal.partition(".")[0] for signal in signals)]))
    wanted = []
    for path in paths:  # of a run directory, its documents
        run = storage.Storage(path)
        wanted.append(run.url("result/documents") if run.exists("result/documents") else path)
    for path in training_texts.expand_paths(wanted):
        if not path.endswith((".parquet", ".pq")):
            continue
        with storage.open_input("", path) as file:
            try:
                parquet = pq.ParquetFile(file)
                _check(path, parquet.schema_arrow, signals)
                yield from parquet.iter_batches(batch_size=4096, columns=heads)
            except pa.ArrowInvalid as e:
                raise UserError(f"{path}: cannot be read as Parquet ({e})") from e


def _check(path: str, schema: pa.Schema, signals: Sequence[str]) -> None:
    known = []
    for field in schema:
        leaves = [f"{field.name}.{f.name}" for f in field.type] if pa.types.is_struct(field.type) else [field.name]
        types = [f.type for f in field.type] if pa.types.is_struct(field.type) else [field.type]
        known += [
            name
            for name, t in zip(leaves, types, strict=True)
            if pa.types.is_floating(t) or pa.types.is_integer(t) or pa.types.is_boolean(t)
        ]
    missing = [signal for signal in signals if signal not in known]
    if missing:
        raise UserError(f"{path}: no numeric signal {', '.join(missing)}; it has {', '.join(sorted(known))}")
    if "text" not in schema.names:
        raise UserError(f"{path}: no column 'text', by which samples are held out")


def _feature(signal: str, values: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> Feature:
    """A signal's standardization, with weights 0: the transform under which the signal alone has the lowest loss."""
    finite = np.isfinite(values)
    present = values[finite]
    if not len(present):
        raise UserError(f"signal {signal} is null in all samples")
    low, high = float(present.min()), float(present.max())
    best: tuple[float, Feature] | None = None
    for how in TRANSFORMS if low >= 0 and high <= 1 else TRANSFORMS[:2]:
        seen = transformed(present, how)
        mean, deviation = float(f"{seen.mean():.{_DIGITS}g}"), float(f"{seen.std():.{_DIGITS}g}")
        varies = deviation > 1e-12 * (1 + abs(mean))
        feature = Feature(signal, how, low, high, mean, deviation if varies else 1.0, 0.0, 0.0)
        design = np.stack([np.ones(len(present)), standardised(present, feature)], 1)
        loss = _loss(design, positive[finite], _newton(design, positive[finite]))
        if best is None or loss < best[0] * (1 - 1e-9):
            best = loss, feature
    assert best is not None
    return best[1]


def _loss(design: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_], w: npt.NDArray[np.float64]) -> float:
    """The penalized loss; the intercept's penalty is tiny and only keeps the system solvable."""
    margin = design @ w
    return float(np.logaddexp(0, margin).sum() - margin[positive].sum() + (_ridge(len(w)) * w * w).sum() / 2)


def _ridge(n: int) -> npt.NDArray[np.float64]:
    return np.array([1e-9] + [RIDGE] * (n - 1))


def _design(values: npt.NDArray[np.float64], features: Sequence[Feature]) -> npt.NDArray[np.float64]:
    """(n, 1 + 2 features): one, the standardised signals (0 where absent), and whether each is absent."""
    columns = [np.ones(len(values))]
    columns += [np.nan_to_num(standardised(values[:, i], f), nan=0.0) for i, f in enumerate(features)]
    columns += [np.isnan(values[:, i]).astype(np.float64) for i in range(len(features))]
    return np.stack(columns, 1)


def _newton(design: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """The weights that minimize sum log(1 + exp(-+ x w)) + RIDGE |w|^2 / 2; the intercept is not penalized."""
    ridge = _ridge(design.shape[1])
    truth = positive.astype(np.float64)
    weights = np.zeros(design.shape[1])
    now = _loss(design, positive, weights)
    for _ in range(_ROUNDS):
        p = 1.0 / (1.0 + np.exp(-np.clip(design @ weights, -700, 700)))
        gradient = design.T @ (p - truth) + ridge * weights
        hessian = (design.T * (p * (1 - p))) @ design + np.diag(ridge)
        step = np.linalg.solve(hessian, gradient)
        scale = 1.0
        # Newton's step overshoots near 0 and 1: halve it until the loss falls
        while (then := _loss(design, positive, weights - scale * step)) > now and scale > 1e-8:
            scale /= 2
        weights = weights - scale * step
        if now - then <= 1e-12 * (1 + abs(now)):
            break
        now = then
    return weights


def _card(made: FittedEnsemble) -> str:
    rows = ["| signal | transform | weight | when absent | AUC alone |", "|---|---|---|---|---|"]
    for feature, (_, area) in zip(made.formula.features, made.alone, strict=True):
        rows.append(
            f"| {feature.signal} | {feature.how} | {feature.weight:+.3f} | {feature.absent:+.3f} | {area:.3f} |"
        )
    return "\n\n".join(
        [
            f"# {os.path.basename(made.path)}",
            f"An ensemble for the step `ensemble`: the probability of the label `{made.formula.label}` by logistic "
            "regression over signals of other steps.",
            "## Training",
            f"{made.trained:,} samples, {made.positives:,} of them `{made.formula.label}`. Weights are for one "
            "standard deviation of the signal over these samples, after the named transform; the intercept is "
            f"{made.formula.intercept:+.3f}.",
            "\n".join(rows),
            "## Held-out metrics",
            held_out_metrics.summary_table([(made.formula.label, made.positives, made.metrics)]),
            "AUC: how often a sample of the label scores higher than another. ECE: how far the score is from the true "
            "share, on average. The score is a probability for documents like the samples, in the same proportions: "
            "where the label is rarer it is too high, and only its ranking holds.",
            "## At a threshold",
            held_out_metrics.threshold_table(made.metrics),
        ]
    )
