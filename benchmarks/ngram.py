"""Compares the n-gram estimator with KenLM's lmplz: time and peak memory, 1 and 10 million tokens, order 5, one core.

    python -m benchmarks.ngram [--lmplz PATH]

The text is the Python source of the installed packages, files in the order of their names, cut into words as training
does. Every measurement is a process of its own, pinned to one core; memory is its peak resident set. lmplz is taken
from PATH or --lmplz (the kenlm source distribution on PyPI contains it; it needs Boost and cmake); where it is, both
are given the same memory and their files are compared n-gram by n-gram.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MEMORY = 64 << 20
OURS = """
import json, sys
from curation.quality import ngram
with open(sys.argv[1], "rb") as text:
    figures = ngram.estimate(text, 5, sys.argv[2], memory=int(sys.argv[3]))
print(json.dumps(figures.ngrams))
"""


def write_text(path: Path, tokens: int) -> int:
    """Writes at least `tokens` tokens of package source; how many it were."""
    from curation.quality.ngram.tokenize_text import normalise

    written = 0
    with open(path, "w", encoding="utf-8") as f:
        for source in sorted(Path(sysconfig.get_path("purelib")).rglob("*.py")):
            for line in normalise(source.read_text(encoding="utf-8", errors="replace")):
                f.write(line + "\n")
                written += line.count(" ") + 1
            if written >= tokens:
                return written
    raise SystemExit(f"the installed packages have {written:,} tokens of source, fewer than {tokens:,}")


def measure(command: list[str], stdin: Path | None = None, stdout: Path | None = None) -> tuple[float, float, float]:
    """Runs a command on one core: wall seconds, CPU seconds, peak resident MB."""
    core = min(os.sched_getaffinity(0))
    with open(stdin or os.devnull, "rb") as i, open(stdout or os.devnull, "wb") as o, tempfile.TemporaryFile() as e:
        begin = time.perf_counter()
        child = subprocess.Popen(
            command,
            stdin=i,
            stdout=o,
            stderr=e,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            e.seek(0)
            raise SystemExit(f"{command[0]} failed:\n{e.read().decode(errors='replace')}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def sorted_ngrams(path: Path, folder: Path) -> Path:
    """The n-gram lines of an ARPA file as "words <tab> p <tab> b", sorted outside of memory."""
    out = folder / (path.name + ".sorted")
    program = ["awk", "-F\t", '/\t/ {print $2 "\t" $1 "\t" ($3 == "" ? 0 : $3)}', str(path)]
    with open(out, "wb") as f:
        awk = subprocess.Popen(program, stdout=subprocess.PIPE)
        environment = os.environ | {"LC_ALL": "C"}
        subprocess.run(
            ["sort", "-T", str(folder), "-S", "200M"], stdin=awk.stdout, stdout=f, env=environment, check=True
        )
        awk.wait()
    return out


def difference(ours: Path, theirs: Path, folder: Path) -> str:
    """How far two models are apart, in words."""
    count, worst = 0, 0.0
    with open(sorted_ngrams(ours, folder), "rb") as a, open(sorted_ngrams(theirs, folder), "rb") as b:
        for x, y in zip_longest(a, b, fillvalue=b"\t0\t0"):
            left, right = x.rstrip(b"\n").split(b"\t"), y.rstrip(b"\n").split(b"\t")
            if left[0] != right[0]:
                return f"different n-grams: {left[0]!r} and {right[0]!r}"
            count += 1
            worst = max(worst, *(abs(float(p) - float(q)) for p, q in zip(left[1:], right[1:], strict=True)))
    return f"the same {count:,} n-grams, log10 values within {worst:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lmplz", default=shutil.which("lmplz"), help="path of KenLM's lmplz, if it is not on PATH")
    options = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "numba", "kenlm"))
    print(f"order 5, {MEMORY >> 20} MB for sorting, one core; Python {sys.version.split()[0]}, {versions}")
    if not options.lmplz:
        print("no lmplz on PATH: no peer in this run")
    print(f"{'tokens':>12} {'who':<10} {'seconds':>8} {'CPU s':>8} {'peak MB':>8}")
    peaks: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for wanted in (1_000_000, 10_000_000):
            text, ours, theirs = folder / "text", folder / "ours.arpa", folder / "theirs.arpa"
            tokens = write_text(text, wanted)
            command = [sys.executable, "-c", OURS, str(text), str(ours), str(MEMORY)]
            if not peaks:
                measure(command)  # compiles the kernels, once an installation
            wall, cpu, peak = measure(command)
            peaks.append(peak)
            print(f"{tokens:>12,} {'gristmill':<10} {wall:>8.1f} {cpu:>8.1f} {peak:>8.0f}")
            if options.lmplz:
                command = [options.lmplz, "-o", "5", "-S", f"{MEMORY >> 20}M", "-T", str(folder), "--discount_fallback"]
                wall, cpu, peak = measure(command, text, theirs)
                print(f"{tokens:>12,} {'lmplz':<10} {wall:>8.1f} {cpu:>8.1f} {peak:>8.0f}")
                print(f"{'':>12} {difference(ours, theirs, folder)}")
    print(f"ten times the text takes {peaks[1] / peaks[0]:.2f} times the memory")


if __name__ == "__main__":
    main()
