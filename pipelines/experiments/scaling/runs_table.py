"""Reads tables of finished runs (parameters, tokens, loss) from CSV files or from directories of training runs."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curation.core.errors import UserError
from pipelines.experiments.scaling.scaling_law import Floats

# Column names of published tables, in lower case
NAMES = {
    "n": ("n", "params", "parameters", "model size", "model_size"),
    "d": ("d", "tokens", "training tokens", "data", "num_tokens"),
    "flop": ("c", "flop", "flops", "training flop", "training flops", "compute"),
    "loss": ("loss", "l", "final loss", "validation loss", "val_loss"),
    "unique": ("unique", "unique tokens", "unique_tokens", "u"),
    "name": ("name", "run", "label"),
}


@dataclass(frozen=True)
class Table:
    """A table of runs; each array has one entry per run."""

    n: Floats  # parameters
    d: Floats  # training tokens
    loss: Floats  # nats per token
    unique: Floats | None  # unique tokens among d
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.n)

    @property
    def flop(self) -> Floats:
        return 6 * self.n * self.d

    def take(self, rows: Sequence[int] | np.ndarray) -> Table:
        rows = np.asarray(rows)
        unique = self.unique[rows] if self.unique is not None else None
        return Table(self.n[rows], self.d[rows], self.loss[rows], unique, tuple(self.names[i] for i in rows))

    def without_highest(self, count: int) -> Table:
        """The table without the runs of highest loss: Epoch AI leaves out 5 of Chinchilla's, as did Hoffmann et al."""
        if count >= len(self):
            raise UserError(f"--drop-highest {count}: the table has {len(self)} runs")
        return self.take(np.sort(np.argsort(-self.loss, kind="stable")[count:]))


def read(path: str) -> Table:
    """A table of runs: a CSV file, a training run's directory, or a directory of training runs.

    A CSV file has a column for N (`params`, `Model Size`, …), for L (`loss`, …), and either D (`tokens`, …) or C
    (`Training FLOP`, …; D = C / 6N). Raises UserError for a missing column and for values that are not numbers.
    """
    p = Path(path)
    if p.is_dir():
        return read_runs([p] if (p / "metrics.jsonl").exists() else sorted(f.parent for f in p.glob("*/metrics.jsonl")))
    try:
        with open(p, encoding="utf-8-sig", newline="") as f:
            rows = list(csv.reader(f))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read this table: {error}") from error
    if len(rows) < 2:
        raise UserError(f"{path}: expected a header and one line per run, found {len(rows)} lines")
    places = {key: _place(rows[0], names) for key, names in NAMES.items()}
    for key in ("n", "loss"):
        if places[key] is None:
            raise UserError(
                f"{path}: no column named {' or '.join(NAMES[key][1:3])}; the columns are {', '.join(rows[0])}"
            )
    if places["d"] is None and places["flop"] is None:
        raise UserError(f"{path}: expected a column of tokens or of FLOP; the columns are {', '.join(rows[0])}")

    def column(key: str) -> Floats | None:
        at = places[key]
        return None if at is None else np.array([_number(path, i, row, at) for i, row in enumerate(rows[1:], 2) if row])

    n, loss, d, flop = column("n"), column("loss"), column("d"), column("flop")
    assert n is not None and loss is not None
    if d is None:
        assert flop is not None
        d = flop / 6 / n
    at = places["name"]
    names = tuple(row[at] if at is not None else f"line {i}" for i, row in enumerate(rows[1:], 2) if row)
    return Table(n, d, loss, column("unique"), names)


def read_runs(folders: Iterable[Path]) -> Table:
    """Finished training runs: parameters from the model, tokens and validation loss from the last evaluation."""
    from pipelines.experiments.scaling.live_run import final_point

    found = [(f, final_point(f)) for f in folders]
    points = [(f, point) for f, point in found if point is not None]
    if not points:
        raise UserError(f"no finished training run among {', '.join(str(f) for f, _ in found) or 'no directories'}")
    n, d, loss, unique = (
        np.array([getattr(p, key) for _, p in points], dtype=float) for key in ("n", "d", "loss", "unique")
    )
    return Table(n, d, loss, unique, tuple(f.name for f, _ in points))


def write(table: Table, path: str) -> None:
    """Writes a table as CSV."""
    with open(path, "w", encoding="utf-8", newline="") as f:
        out = csv.writer(f)
        out.writerow(["name", "params", "tokens", "loss", *(["unique"] if table.unique is not None else [])])
        for i, name in enumerate(table.names):
            last = [repr(float(table.unique[i]))] if table.unique is not None else []
            out.writerow([name, repr(float(table.n[i])), repr(float(table.d[i])), repr(float(table.loss[i])), *last])


def _place(header: Sequence[str], names: Sequence[str]) -> int | None:
    lower = [h.strip().lower() for h in header]
    return next((lower.index(name) for name in names if name in lower), None)


def _number(path: str, line: int, row: Sequence[str], at: int) -> float:
    try:
        return float(row[at])
    except (ValueError, IndexError):
        found = repr(row[at]) if at < len(row) else "nothing"
        raise UserError(f"{path}, line {line}: expected a number, found {found}") from None
