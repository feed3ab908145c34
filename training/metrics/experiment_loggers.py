"""Sends a run's metrics to TensorBoard, and by option to Weights & Biases and MLflow.

One function takes every entry of the log (see metrics_log.py) and passes it on as numbers by name and step: losses,
also by domain, gradient norm, learning rate, tokens/s, perplexity, bits per byte, tasks, events. When the step
decreases, after a restart or a rollback, TensorBoard purges what came after it.

A service that fails must not end a training: a warning is given once, and the run continues without it.
"""

from __future__ import annotations

import functools
import math
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
        if is_installed("tensorboard"):
            self._services.append(TensorBoard(run / "tensorboard"))
        else:
            warnings.warn(f"no TensorBoard files are written: {describe_missing(['tensorboard'])}", stacklevel=2)
        for name in to:
            if name not in SERVICES:
                raise UserError(f"log_to: unknown service {name!r}; the services are {', '.join(SERVICES)}")
            require("log_to", [name])
            self._services.append(SERVICES[name](run, settings))

    def __enter__(self) -> ExperimentLoggers:
        return self

    def __exit__(self, *_: object) -> None:
        for service in self._services:
            self._try(service, service.close)

    def __call__(self, entry: Entry) -> None:
        found = dict(numbers(entry))
        if found:
            for service in list(self._services):
                self._try(service, functools.partial(service.write, int(entry["step"]), found))
        if self._then is not None:
            self._then(entry)

    def _try(self, service: Service, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            self._services = [s for s in self._services if s is not service]
            warnings.warn(f"{type(service).__name__}: {error}; training continues without it", stacklevel=2)


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


class Wandb:
    """Weights & Biases; the run's path is its id, so that a resumed run continues in the same one."""

    def __init__(self, run: Path, settings: Any) -> None:
        import wandb

        name = "-".join(run.resolve().parts[-3:])
        self._run = wandb.init(id=name, name=name, resume="allow", config=settings, dir=str(run))
        # Its own step counter only rises: what follows a rollback, and the rollback itself, would be dropped
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, numbers: dict[str, float]) -> None:
        self._run.log({"step": step, **numbers})

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """MLflow, on the tracking server that MLFLOW_TRACKING_URI names."""

    def __init__(self, run: Path, settings: Any) -> None:
        import mlflow

        self._mlflow = mlflow
        marker = run / "mlflow.id"
        known = marker.read_text() if marker.exists() else None
        active = mlflow.start_run(run_id=known, run_name=run.name)
        if known is None:
            run.mkdir(parents=True, exist_ok=True)
            marker.write_text(active.info.run_id)
            mlflow.log_dict(settings or {}, "train.json")

    def write(self, step: int, numbers: dict[str, float]) -> None:
        self._mlflow.log_metrics({k.replace("@", "_at_"): v for k, v in numbers.items()}, step=step)

    def close(self) -> None:
        self._mlflow.end_run()


SERVICES: dict[str, Callable[[Path, Any], Service]] = {"wandb": Wandb, "mlflow": MLflow}
