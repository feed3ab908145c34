"""Runs tasks that take GPUs in long-lived Ray actors, so that a model is loaded once an actor and not once a task.

Ray ends the worker of a task that took a GPU, and the next one loads the model anew. An actor keeps its worker, and
the GPU with it, until the phase ends. There are as many actors as calls in flight: those that find no free GPU wait,
which Ray shows as demand (`ray status`), and an autoscaler adds machines for them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(eq=False)
class Call:
    """A call that was submitted; which actor runs it is not decided before one is free."""

    options: Mapping[str, Any]
    arguments: tuple[Any, ...]


@dataclass(eq=False)
class _Actor:
    handle: Any
    options: Mapping[str, Any]
    ready: Any  # what it answers once it runs: the id of its node
    node: str | None = None
    call: Call | None = None
    running: Any = None  # what the call gives


class ActorPool:
    """Actors that run one call at a time. `ray`: the module; `execute`: what an actor runs for each call."""

    def __init__(self, ray: Any, execute: Callable[..., Any]) -> None:
        self._ray, self._execute = ray, execute
        self._actors: list[_Actor] = []
        self._queued: list[Call] = []
        self._left_out: set[str] = set()
        self._ended: dict[Call, Any] = {}  # calls that nobody has asked for since
        self._lost: dict[Any, str | None] = {}  # what calls would have given, and the nodes of their actors

    def submit(self, options: Mapping[str, Any], *arguments: Any) -> Call:
        """options   of the actor: num_cpus, num_gpus, memory, ..."""
        call = Call(options, arguments)
        self._queued.append(call)
        self._dispatch()
        return call

    def wait(self, calls: Sequence[Call], seconds: float) -> list[tuple[Call, Any]]:
        """Those of `calls` that ended, and what `ray.get` takes for the outcome; waits at most `seconds` for the first.
        Others that end meanwhile are kept for whoever asks for them."""
        until = time.monotonic() + seconds
        while not any(call in self._ended for call in calls):
            self._ended |= self._collect(max(0.0, until - time.monotonic()))
            if time.monotonic() >= until:
                break
        return [(call, self._ended.pop(call)) for call in calls if call in self._ended]

    def _collect(self, seconds: float) -> dict[Call, Any]:
        """The calls that ended since the last time; waits at most `seconds` for the first."""
        asked = {a.running if a.call is not None else a.ready: a for a in self._actors if a.call or a.node is None}
        if not asked:
            time.sleep(min(seconds, 0.1))
            return {}
        ready, _ = self._ray.wait(list(asked), num_returns=1, timeout=seconds)
        if ready:
            ready, _ = self._ray.wait(list(asked), num_returns=len(asked), timeout=0)
        ended: dict[Call, Any] = {}
        for ref in ready:
            actor = asked[ref]
            error = self._error(ref)
            if actor.call is not None:
                ended[actor.call] = ref
                actor.call = actor.running = None
            elif error is None:
                actor.node = self._ray.get(ref)
            else:  # it ended before it ran anything: its machine is gone, or has no environment for it
                ended |= self._give_up_one(ref)
            if error is not None:
                self._lost[ref] = actor.node
                self._end(actor)
            elif actor.node in self._left_out:
                self._end(actor)
        self._dispatch()
        return ended

    def _error(self, ref: Any) -> BaseException | None:
        """The error by which the actor ended; None if it lives."""
        try:
            self._ray.get(ref)
        except self._ray.exceptions.RayTaskError:  # raised by the call; the actor lives
            return None
        except self._ray.exceptions.RayError as error:
            found: BaseException = error
            return found
        return None

    def _give_up_one(self, ref: Any) -> dict[Call, Any]:
        """The driver counts how often a call meets a dying machine; a call that no actor took has one too."""
        return {self._queued.pop(0): ref} if self._queued else {}

    def _dispatch(self) -> None:
        """Gives queued calls to idle actors; starts actors for those that are left."""
        for call in list(self._queued):
            idle = [a for a in self._actors if a.node is not None and a.call is None]
            fit = next((a for a in idle if a.options["memory"] >= call.options["memory"]), None)
            if fit is not None:
                self._queued.remove(call)
                fit.call, fit.running = call, fit.handle.execute.remote(*call.arguments)
            elif idle:  # after a death for lack of memory: a smaller actor makes room for a larger one
                self._end(idle[0])
        for actor in [a for a in self._actors if a.node is None][len(self._queued) :]:
            self._end(actor)  # nothing is left for it: no machine need start for it
        waiting = [a.options["memory"] for a in self._actors if a.node is None]
        for call in self._queued:
            if call.options["memory"] in waiting:
                waiting.remove(call.options["memory"])
                continue
            actor = self._ray.remote(_Worker).options(max_restarts=0, max_task_retries=0, **call.options)
            handle = actor.remote(self._execute)
            self._actors.append(_Actor(handle, call.options, handle.node.remote()))

    def lost_node(self, ref: Any) -> bool:
        """Whether the machine of the actor that ended is gone too, or was never there."""
        node = self._lost.pop(ref, None)
        return not any(n["Alive"] and n["NodeID"] == node for n in self._ray.nodes())

    def leave_out(self, node: str) -> None:
        """Ends the actors of a machine, now or when their call ends."""
        self._left_out.add(node)
        for actor in [a for a in self._actors if a.node == node and a.call is None]:
            self._end(actor)

    def _end(self, actor: _Actor) -> None:
        self._actors.remove(actor)
        with contextlib.suppress(self._ray.exceptions.RayError):  # it may have ended by itself
            self._ray.kill(actor.handle)

    def close(self) -> None:
        for actor in list(self._actors):
            self._end(actor)


class _Worker:
    """An actor: runs calls, one after another, in one process."""

    def __init__(self, execute: Callable[..., Any]) -> None:
        self._execute = execute

    def node(self) -> str:
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def execute(self, *arguments: Any) -> Any:
        return self._execute(*arguments)
