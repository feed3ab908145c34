"""Runs benchmarks one after another and writes what they print to benchmarks/RESULTS.md (`make bench`).

    python -m benchmarks.run [--quick] [NAME ...] [--data ../shared/data] [--list]

Each is a process of its own, so that none finds another's memory or threads. RESULTS.md has a section a benchmark: the
command, how long it took, the load before it, versions and machine, and what it printed. One that was not run keeps
the section it had; one that fails says so in its section, and the exit code is 1. --quick asks for less of those that
can do less: minutes instead of hours, and figures that say little; they go to RESULTS-quick.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DATA = "DATA"  # stands for the folder of real data

# name -> arguments of a whole run, and of a quick one; None: there is no quick one
BENCHMARKS: dict[str, tuple[list[str], list[str] | None]] = {
    "agreement": ([], ["--documents", "100"]),
    "agreement_by_language": ([], ["--documents", "10"]),
    "code_secrets": ([], None),
    "code_sources": ([], ["200"]),
    "decontaminate": ([DATA], None),
    "dedup": ([DATA], [DATA, "--documents", "5000", "--datatrove", "500"]),
    "dedup_quality": ([DATA], [DATA, "articles"]),
    "ensemble": ([], None),
    "extraction": ([], None),
    "hostile": ([], ["--bytes", "100000"]),
    "language": ([], None),
    "line_dedup": ([DATA], None),
    "loader": ([], ["--tokens", "4000000", "--rounds", "1", "--only", "gristmill", "plain"]),
    "loss": (["--error", "--repeats", "2"], ["--rows", "256", "--hidden", "64", "--vocab", "1000", "--repeats", "1"]),
    "map_steps": ([], None),
    "minhash": ([DATA], [DATA, "--rounds", "1"]),
    "mix": ([], None),
    "ngram": ([], None),
    "perplexity": ([], None),
    "pii": ([DATA], [DATA, "--pages", "20"]),
    "pipeline": ([], None),
    "regmix": ([], ["--subsets", "1"]),
    "report": (["100000", "1000000"], ["20000"]),
    "scale": ([], ["--tasks", "5000", "--phases", "2"]),
    "sources": ([DATA], [DATA]),
    "step": (
        ["--precision", "fp32", "bf16"],
        ["--vocab", "65", "--mode", "eager", "--layers", "1", "--width", "64", "--repeats", "1"],
    ),
    "tokenizing": ([], ["--rounds", "1", "--fuzz", "100"]),
    "toxicity": ([DATA], None),
}
# whose versions stand beside the figures: what is measured, and the peers
PACKAGES = (
    *("torch", "numpy", "numba", "pyarrow", "duckdb", "ray", "tokenizers", "tiktoken"),
    *("presidio-analyzer", "fasttext", "kenlm", "datatrove", "datasketch", "rensa", "resiliparse"),
    *("trafilatura", "litdata", "mosaicml-streaming", "datasets"),
)


def machine() -> str:
    """The machine and the versions, as Markdown."""
    import psutil

    cpu = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        cpu = found[1] if found else cpu
    cores, memory = len(os.sched_getaffinity(0)), psutil.virtual_memory().total / 2**30
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    kernel = ".".join(platform.release().split(".")[:2])
    system = f"{cpu}, {cores} cores, {memory:.0f} GiB, {platform.system()} {kernel}"
    return f"{system}; Python {platform.python_version()}, {', '.join(versions)}"


def run(name: str, arguments: list[str], data: str) -> tuple[str, bool]:
    """The section of a benchmark, and whether it went well."""
    shown = ["python", "-m", f"benchmarks.{name}", *("../shared/data" if a == DATA else a for a in arguments)]
    load, started = os.getloadavg()[0], time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *(data if a == DATA else a for a in arguments)],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "COLUMNS": "110"},
    )  # fmt: skip
    said = f"`{' '.join(shown)}`: {time.monotonic() - started:.0f} s, load average before {load:.1f}"
    if done.returncode:
        said += f", FAILED with exit code {done.returncode}"
    output = done.stdout.replace(str(ROOT), ".").rstrip().replace("```", "'''")
    return f"## {name}\n\n{said}\n\n{machine()}\n\n```text\n{output}\n```\n", done.returncode == 0


def sections(path: Path) -> dict[str, str]:
    """What the file has already, by benchmark."""
    if not path.exists():
        return {}
    parts = re.split(r"^(?=## )", path.read_text(encoding="utf-8"), flags=re.M)[1:]
    return {part.split("\n", 1)[0].removeprefix("## "): part.rstrip() + "\n" for part in parts}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="which [default: all]")
    parser.add_argument("--quick", action="store_true", help="less of each, and only those that can do less")
    parser.add_argument("--data", default=os.environ.get("GRISTMILL_TEST_DATA", str(ROOT.parent / "shared" / "data")))
    parser.add_argument("--out", type=Path, help="[default: benchmarks/RESULTS.md, quick: RESULTS-quick.md]")
    parser.add_argument("--list", action="store_true", help="the names, and stop")
    asked = parser.parse_args()
    if unknown := [n for n in asked.names if n not in BENCHMARKS]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    chosen = {n: a[asked.quick] for n, a in BENCHMARKS.items() if (n in asked.names or not asked.names)}
    if asked.list:
        print("\n".join(f"{n}{'' if a is not None else '  (no quick one)'}" for n, a in chosen.items()))
        return 0
    out = asked.out or HERE / ("RESULTS-quick.md" if asked.quick else "RESULTS.md")
    held, failed = sections(out), []
    for name, arguments in chosen.items():
        if arguments is None:
            print(f"{name}: has no quick form, left out")
            continue
        print(f"{name} ...", flush=True)
        held[name], well = run(name, arguments, asked.data)
        failed += [] if well else [name]
        head = (
            "# Results\n\nWhat the benchmarks printed, by `make bench`; each section names machine, versions, load.\n"
        )
        out.write_text("\n".join([head, *(held[n] for n in sorted(held))]), encoding="utf-8")
    print(f"{out}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
