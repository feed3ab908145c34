"""Sends a run's metrics to TensorBoard, and by option to Weights & Biases and MLflow.

One function takes every entry of the log (see metrics_log.py) and passes it on as numbers by name and step: losses,
also by domain, gradient norm, learning rate, tokens/s, perplexity, bits per byte, tasks, events. When the step
decreases, after a restart or a rollback, TensorBoard purges what came after it.

A service that fails must not end a training, when it is opened, written to or closed: a note is given once, and the run
continues without it. Each service's id of the run is random and kept in the run (`wandb.id`, `mlflow.id`): folders of
two people may have the same name, and a name may hold what a service refuses in an id.
"""

from __future__ import annotations

import functools
import math
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from curation.core.errors import UserError
from curation.core.packages import describe_missing, is_installed, require

Entry = dict[str, Any]


class Service(Protocol):
    """Receives numbers by name for each step."""

    def write(self, step: int, numbers: dict[str, float]) -> None: ...
    def close(self) -> None: ...


class ExperimentLoggers:
    """Hands entries to services; `with ExperimentLoggers(...) as loggers: train(..., report=loggers)`."""

    def __init__(
        self, run: Path, to: Sequence[str] = (), then: Callable[[Entry], None] | None = None, settings: Any = None
    ) -> None:
        """`to`: wandb, mlflow; `then` is called with every entry as well; `settings`: what the services show as config.

        Raises UserError for a service that is unknown or not installed.
        """
        self._then = then
        self._services: list[Service] = []
        for name in to:
            if name not in SERVICES:
                raise UserError(f"log_to: unknown service {name!r}; the services are {', '.join(SERVICES)}")
            require("log_to", [name])
        if is_installed("tensorboard"):
            self._services.append(TensorBoard(run / "tensorboard"))
        else:
            self._note(f"no TensorBoard files are written: {describe_missing(['tensorboard'])}")
        for name in to:
            self._try(SERVICES[name].__name__, lambda n=name: self._services.append(SERVICES[n](run, settings)))  # type: ignore[misc]

    def __enter__(self) -> ExperimentLoggers:
        return self

    def __exit__(self, *_: object) -> None:
        for service in self._services:
            self._try(type(service).__name__, service.close)

    def __call__(self, entry: Entry) -> None:
        found = dict(numbers(entry))
        if found:
            for service in list(self._services):
                if not self._try(type(service).__name__, functools.partial(service.write, int(entry["step"]), found)):
                    self._services.remove(service)
        if self._then is not None:
            self._then(entry)

    def _try(self, name: str, act: Callable[[], None]) -> bool:
        """Whether it worked; a note where it did not, whatever a client raises: some end the process (SystemExit)."""
        try:
            act()
        except (Exception, SystemExit) as error:
            reason = str(error).strip() or type(error).__name__
            self._note(f"{name}: {reason}; training continues without it (log_to; metrics.jsonl has every number)")
            return False
        return True

    def _note(self, text: str) -> None:
        if self._then is not None:
            self._then({"kind": "note", "note": text})
        else:
            warnings.warn(text, stacklevel=4)


_BY_DOMAIN = {"bits_per_byte": "bits_per_byte", "domain_tokens": "tokens"}  # of a training entry, and their names here


def numbers(entry: Entry) -> Iterator[tuple[str, float]]:
    """The finite numbers of an entry, by the name under which services show them."""
    kind = entry.get("kind", "train")
    for key, value in entry.items():
        if key in ("kind", "step", "domains", "tasks", *_BY_DOMAIN):
            continue
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            yield f"{kind}/{key}", float(value)
    if isinstance(entry.get("loss"), float) and kind in ("train", "validation"):
        yield f"{kind}/perplexity", _perplexity(entry["loss"])
    if kind == "event":
        yield f"event/{entry['event']}", 1.0
    for name, value in (entry.get("tasks") or {}).items():
        yield f"tasks/{name}", float(value)
    for domain, value in (entry.get("domains") or {}).items():
        if isinstance(value, dict):
            figures = value
        else:
            figures = {"loss": value} | ({} if value is None else {"perplexity": _perplexity(value)})
            figures |= {name: (entry.get(key) or {}).get(domain) for key, name in _BY_DOMAIN.items()}
        for key, number in figures.items():
            if isinstance(number, (int, float)) and math.isfinite(number):
                yield f"{kind}/{domain}/{key}", float(number)


def _perplexity(loss: float) -> float:
    return math.exp(min(loss, 700.0))


class TensorBoard:
    """Event files in the run's folder `tensorboard`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None
        self._last = -1

    def write(self, step: int, numbers: dict[str, float]) -> None:
        if self._writer is None or step < self._last:
            self._open(step)
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._last = step

    def _open(self, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.close()
        self._writer = SummaryWriter(str(self._folder), purge_step=step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _id_file(run: Path, service: str) -> tuple[Path, str | None]:
    """The file that keeps a service's id of the run, and the id; None in a run that has none yet."""
    run.mkdir(parents=True, exist_ok=True)
    file = run / f"{service}.id"
    return file, (file.read_text().strip() or None) if file.exists() else None


class Wandb:
    """Weights & Biases; the id in `wandb.id` lets a resumed run continue in the same one."""

    def __init__(self, run: Path, settings: Any) -> None:
        import wandb

        file, known = _id_file(run, "wandb")
        chosen, name = known or uuid.uuid4().hex[:16], "-".join(run.resolve().parts[-3:])
        self._run = wandb.init(id=chosen, name=name, resume="allow", config=settings, dir=str(run))
        file.write_text(chosen)
        # Its own step counter only rises: what follows a rollback, and the rollback itself, would be dropped
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, numbers: dict[str, float]) -> None:
        self._run.log({"step": step, **numbers})

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """MLflow, on the tracking server that MLFLOW_TRACKING_URI names; `mlflow.id` keeps the run's id there."""

    def __init__(self, run: Path, settings: Any) -> None:
        import mlflow

        self._mlflow = mlflow
        file, known = _id_file(run, "mlflow")
        active = mlflow.start_run(run_id=known, run_name=run.name)
        if known is None:
            file.write_text(active.info.run_id)
            mlflow.log_dict(settings or {}, "train.json")

    def write(self, step: int, numbers: dict[str, float]) -> None:
        self._mlflow.log_metrics({k.replace("@", "_at_"): v for k, v in numbers.items()}, step=step)

    def close(self) -> None:
        self._mlflow.end_run()


SERVICES: dict[str, type[Wandb] | type[MLflow]] = {"wandb": Wandb, "mlflow": MLflow}
