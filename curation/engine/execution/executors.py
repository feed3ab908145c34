"""Runs tasks on Ray, or in this process. One small interface, so that another engine can be put in.

An executor runs `function(shared, spec)` and reports how it ended: with a value, with an exception of the code's own,
or with the death of the worker, which may have nothing to do with the code. The driver decides what to do about it.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from curation.config.resources import ORDINARY, Resources
from curation.core.errors import UserError
from curation.core.local_ray import start_local_ray
from curation.engine.execution.ray_actors import ActorPool
from curation.engine.planning import fingerprints
from curation.storage import Storage

Function = Callable[[Any, Any], dict[str, Any]]

# What a task declares to Ray at first; after an out-of-memory death, four times that. A map task of ours peaks at
# about 0.8 GiB with fastText, presidio and numba loaded.
TASK_MEMORY = 1 << 30


class RunFailed(Exception):
    """The run cannot continue: exit code 1. The message says what, where and what to do."""


class WorkerDiffers(Exception):
    """A worker has other packages or CPU features than the driver: its output could differ, so it runs no task."""

    def __init__(self, message: str, node: str) -> None:
        super().__init__(message)
        self.node = node  # as the executor knows the machine

    def __reduce__(self) -> Any:
        return WorkerDiffers, (str(self), self.node)


@dataclass(frozen=True, eq=False)
class Outcome:
    """How a call ended. Exactly one of `value`, `error`, `death` is set."""

    value: dict[str, Any] | None = None
    error: BaseException | None = None
    death: str | None = None  # why the worker is gone
    memory: bool = False  # it died of too little memory
    node: bool = False  # its whole machine is gone


class Executor(Protocol):
    def require(self, resources: Resources) -> str | None:
        """Says what a task takes from now on. Returns what to tell the user where no machine has so much yet."""
        ...

    def slots(self) -> int:
        """How many tasks run at once, now."""
        ...

    def share(self, value: Any) -> Any:
        """Puts a value where all workers reach it, once a phase."""
        ...

    def submit(self, function: Function, shared: Any, spec: Any, commit: str | None, memory: int) -> Any:
        """Starts a call; `commit` is where its manifest goes, below the run directory that `shared.run` names."""
        ...

    def wait(self, handles: Sequence[Any], seconds: float) -> list[tuple[Any, Outcome]]:
        """The calls that have ended; waits at most `seconds` for the first."""
        ...

    def leave_out(self, node: str) -> bool:
        """Gives a machine no more tasks; whether there are others."""
        ...

    def close(self) -> None: ...


def execute(function: Function, shared: Any, spec: Any, commit: str | None) -> dict[str, Any]:
    """Runs in a worker: runs the function, commits the manifest."""
    result = function(shared, spec)
    if commit is not None:
        Storage(shared.run).write_json(commit, result, indent=None)
    return result


@dataclass(frozen=True)
class InEnvironment:
    """A function that runs only where the environment is the driver's (fingerprints.environment)."""

    function: Function
    environment: Mapping[str, str]

    def __call__(self, shared: Any, spec: Any) -> dict[str, Any]:
        differing = fingerprints.differences(self.environment)
        if differing:
            expected = {name: self.environment[name] for name in differing}
            raise WorkerDiffers(
                f"The worker on {os.uname().nodename} has other packages or CPU features than the driver: {differing}, "
                f"where the driver has {expected}.",
                _this_node(),
            )
        return self.function(shared, spec)


def _this_node() -> str:
    """Ray's id of this machine; empty in a process without Ray."""
    ray = sys.modules.get("ray")
    return str(ray.get_runtime_context().get_node_id()) if ray is not None and ray.is_initialized() else ""


class Inline:
    """This process, one task after another: for debugging and tests. Exceptions keep their traceback. Declared
    resources are not reserved: a task has what this machine has."""

    def require(self, resources: Resources) -> str | None:
        return None

    def slots(self) -> int:
        return 1

    def share(self, value: Any) -> Any:
        return value

    def submit(self, function: Function, shared: Any, spec: Any, commit: str | None, memory: int) -> Any:
        try:
            return Outcome(execute(function, shared, spec, commit))
        except Exception as e:
            return Outcome(error=e)

    def wait(self, handles: Sequence[Any], seconds: float) -> list[tuple[Any, Outcome]]:
        return [(h, h) for h in handles]

    def leave_out(self, node: str) -> bool:
        return False

    def close(self) -> None:
        return None


def connect_to_cluster(ray: Any, address: str, **options: Any) -> None:
    """Connects to a running Ray cluster. Raises UserError if there is none: Ray itself retries for eleven minutes."""
    found = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    host, _, port = found.rpartition("://")[2].rpartition(":")
    try:
        if port.isdigit():
            socket.create_connection((host, int(port)), timeout=30).close()
        ray.init(address, **options)
    except (OSError, ConnectionError) as error:
        raise UserError(
            f"no Ray cluster at {found}: {error}\n  start it (`ray up`, `ray start --head`) and give its address, or "
            "auto on one of its machines; without --address Ray starts on this machine alone"
        ) from error


class Ray:
    """Ray Core tasks: a local cluster of this machine's cores, or a running one by address.

    Only specifications, paths and counts travel through Ray. Ray's own retries are off: the driver counts attempts.
    Tasks that take GPUs run in long-lived actors (ray_actors.py).
    """

    def __init__(
        self, address: str | None = None, workers: int | None = None, needs: Sequence[Resources] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """needs      of all tasks of the run; raises UserError for one that a Ray of this machine alone cannot meet
        variables  of the environment that workers start with; this process has them
        """
        import ray

        self._ray: Any = ray
        self._ours = not ray.is_initialized()
        if self._ours:
            if address is None:
                start_local_ray(
                    ray, num_cpus=workers or os.cpu_count(), logging_level="ERROR",
                    object_store_memory=150 << 20,  # it holds specifications only; its minimum is 75 MB
                )  # fmt: skip
            else:
                import curation

                package = os.path.dirname(os.path.abspath(curation.__file__))
                code = {"py_modules": [package]}
                connect_to_cluster(ray, address, runtime_env=code, logging_level="ERROR", log_to_driver=False)
        self._call = ray.remote(max_retries=0)(execute)
        self._slots, self._asked = 0, 0.0
        self._left_out: list[str] = []  # ids of nodes
        self._needs = ORDINARY
        own = self._ours and address is None  # its workers inherit what this process has
        self._variables = {} if own else dict(variables or {})
        self._actors: ActorPool | None = None
        if own:
            for wanted in needs:
                if not self._fitting(wanted):
                    most = self._largest_node()
                    self.close()
                    raise UserError(
                        f"a step declares `resources: {{{wanted}}}`, and this machine gives Ray "
                        f"{most}: lower them, give more --workers, or run on a cluster with --address"
                    )

    def require(self, resources: Resources) -> str | None:
        if resources != self._needs and self._actors is not None:
            self._actors.close()
            self._actors = None
        self._needs, self._slots = resources, 0  # counted anew
        if self._fitting(resources):
            return None
        return f"no machine of the cluster has {resources} for a task; waiting until one joins"

    def _fitting(self, resources: Resources) -> list[tuple[float, int]]:
        """Of each machine on which a task of these resources fits its memory, and how many fit."""
        sizes = [n["Resources"] for n in self._nodes()]
        found = [(r.get("memory", 0), resources.tasks_on(r.get("CPU", 0), r.get("memory", 0), r.get("GPU", 0)))
                 for r in sizes]  # fmt: skip
        return [(memory, tasks) for memory, tasks in found if tasks]

    def _largest_node(self) -> str:
        found = [n["Resources"] for n in self._nodes()]
        most = {k: max((r.get(k, 0) for r in found), default=0) for k in ("CPU", "memory", "GPU")}
        return f"{most['CPU']:g} CPUs, {most['memory'] / 10**9:.3g}GB of memory and {most['GPU']:g} GPUs"

    def slots(self) -> int:
        now = time.monotonic()
        if now - self._asked > 5 or not self._slots:
            fitting = self._fitting(self._needs)
            self._slots = max(1, sum(tasks for _, tasks in fitting))
            self._largest = int(max((memory for memory, _ in fitting), default=0))
            self._asked = now
        return self._slots

    def _nodes(self) -> list[Any]:
        return [n for n in self._ray.nodes() if n["Alive"] and n["NodeID"] not in self._left_out]

    def leave_out(self, node: str) -> bool:
        self._left_out.append(node)
        self._slots = 0  # counted anew
        if self._actors is not None:
            self._actors.leave_out(node)
        return any(n["Resources"].get("CPU", 0) for n in self._nodes())

    def share(self, value: Any) -> Any:
        # a user's step comes from a file that workers cannot import by name: its code travels with it
        for name, module in list(sys.modules.items()):
            if name.startswith("_gristmill_"):
                self._ray.cloudpickle.register_pickle_by_value(module)
        return self._ray.put(value)

    def submit(self, function: Function, shared: Any, spec: Any, commit: str | None, memory: int) -> Any:
        self.slots()
        # a request above the largest node would never be scheduled; one that the user declares waits for a node
        if self._largest and memory > (self._needs.memory_bytes or 0):
            memory = max(min(memory, self._largest), self._needs.memory_bytes or 0)
        options: dict[str, Any] = {"memory": memory, "num_cpus": self._needs.cpus}
        if self._variables:
            options["runtime_env"] = {"env_vars": self._variables}
        if self._left_out:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(self._left_out)})"}
        if self._needs.gpus:
            if self._actors is None:
                self._actors = ActorPool(self._ray, execute)
            return self._actors.submit(options | {"num_gpus": self._needs.gpus}, function, shared, spec, commit)
        return self._call.options(**options).remote(function, shared, spec, commit)

    def wait(self, handles: Sequence[Any], seconds: float) -> list[tuple[Any, Outcome]]:
        if self._actors is not None:
            return [(call, self._outcome(ref)) for call, ref in self._actors.wait(handles, seconds)]
        ready, _ = self._ray.wait(list(handles), num_returns=1, timeout=seconds)
        if ready:  # take the others that are ready too
            ready, _ = self._ray.wait(list(handles), num_returns=len(handles), timeout=0)
        return [(h, self._outcome(h)) for h in ready]

    def _outcome(self, handle: Any) -> Outcome:
        from ray import exceptions as rx

        try:
            return Outcome(value=self._ray.get(handle))
        except rx.RayTaskError as e:
            cause = getattr(e, "cause", None)
            if isinstance(cause, rx.RayError):  # the worker could not get what was shared: its owner's node is gone
                return Outcome(death=_first_line(cause), node=True)
            return Outcome(error=cause if isinstance(cause, BaseException) else e)
        except rx.OutOfMemoryError as e:
            return Outcome(death=_first_line(e), memory=True)
        except rx.ActorDiedError as e:  # with its worker, or with its machine
            return Outcome(death=_first_line(e), node=self._actors is None or self._actors.lost_node(handle))
        except (rx.NodeDiedError, rx.ObjectLostError, rx.OwnerDiedError) as e:
            return Outcome(death=_first_line(e), node=True)
        except (rx.WorkerCrashedError, rx.RaySystemError, rx.LocalRayletDiedError) as e:
            return Outcome(death=_first_line(e))
        except rx.RayError as e:  # environments that cannot be set up, placement: of machines, not of the task
            return Outcome(death=_first_line(e), node=True)

    def close(self) -> None:
        if self._actors is not None:
            self._actors.close()
        if self._ours:
            self._ray.shutdown()


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error).strip() else ''}"
