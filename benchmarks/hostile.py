"""Measures seconds a megabyte of hostile input (hostile_shapes.py), as expanded, by shape and at three sizes.

    python -m benchmarks.hostile [--bytes 1000000] [--only WORD ...] [--limit 60]

Each target's shapes run at a quarter, half and the whole size. CPU seconds of the whole size; `growth` is the time at
the whole size over four times that at a quarter: about 1 where work is linear, 4 where it is quadratic. Exit code 1 if
any shape takes more than 2 s a MB, the limit. Not counted are trafilatura and, under `pii:whole`, presidio's URL
pattern, whose work is their own: linear, up to 20 s a MB.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.hostile_files import Shape
from benchmarks.hostile_shapes import SHAPES
from benchmarks.hostile_targets import load, prepare

WORST = 2.0  # seconds a MB
NOT_OURS = ("extract:trafilatura", "pii:whole")


def measure(shape: Shape, size: int) -> tuple[float, float]:
    """CPU seconds of one run, and by how many MB the process grew."""
    with tempfile.TemporaryDirectory() as folder:
        run = prepare(shape, size, Path(folder))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.process_time()
        run()
        return time.process_time() - started, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3


def _child(shapes: list[Shape], sizes: list[int], results: Any) -> None:
    for shape in shapes:
        for size in sizes:
            try:
                results.send((shape.target, shape.name, size, measure(shape, size)))
            except Exception as error:  # the table shows it, and the others go on
                results.send((shape.target, shape.name, size, f"{type(error).__name__}: {error}"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bytes", type=int, default=1_000_000, help="the largest size")
    parser.add_argument("--only", nargs="*", default=[], help="words of the names of targets or shapes")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds after which one run is given up")
    given = parser.parse_args()
    sizes = [given.bytes // 4, given.bytes // 2, given.bytes]
    context = multiprocessing.get_context("fork")
    left = [s for s in SHAPES if not given.only or any(w in f"{s.target} {s.name}" for w in given.only)]
    for target in sorted({s.target for s in left}):
        load(target)  # models and kernels, before the processes fork
    print(f"{'target':20} {'shape':48} {'s/MB':>8} {'growth':>7} {'MB':>6}")
    worst: list[tuple[float, str]] = []
    while left:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_child, args=(left, sizes, theirs), daemon=True)
        process.start()
        theirs.close()
        while left:
            shape, taken = left[0], []
            with contextlib.suppress(EOFError):
                while len(taken) < len(sizes) and ours.poll(given.limit):
                    taken.append(ours.recv()[3])
            left.pop(0)
            worst.append((_show(shape, sizes, taken, given.limit), f"{shape.target}: {shape.name}"))
            if len(taken) < len(sizes):  # it hangs or is dead: the others go on in a new process
                process.kill()
                break
        process.join()
    seconds, name = max(w for w in worst if not w[1].startswith(NOT_OURS))
    print(f"{len(worst)} shapes; worst: {name}, {seconds:.2f} s a MB (limit {WORST:g})")
    sys.exit(seconds > WORST)


def _show(shape: Shape, sizes: list[int], taken: list[Any], limit: float) -> float:
    name = f"{shape.target:20} {shape.name[:48]:48}"
    wrong = [t for t in taken if isinstance(t, str)]
    if wrong:
        print(f"{name} {wrong[-1][:80]}", flush=True)
        return 1000.0
    if len(taken) < len(sizes):
        rate = limit / (sizes[len(taken)] / 1e6)
        print(f"{name} over {rate:.1f}: given up at {sizes[len(taken)]} bytes", flush=True)
        return rate
    rate = taken[-1][0] / (sizes[-1] / 1e6)  # what a process does once, such as building automata, is part of it
    growth = taken[-1][0] / max(taken[0][0] * sizes[-1] / sizes[0], 1e-9)
    print(f"{name} {rate:8.3f} {growth:7.2f} {max(mb for _, mb in taken):6.0f}", flush=True)
    return rate


if __name__ == "__main__":
    main()
