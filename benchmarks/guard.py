"""The guard against poisoned documents, and its rule against two others.

`python benchmarks/guard.py experiment --text FILE... [--seeds 5]`: 20,000 documents of 128 tokens (bytes of the text
files), a model of at most 0.2 M parameters, and three poisons, 16 documents of each: random tokens, one repeated token,
and text in a wrong encoding. For each seed a clean run, an unguarded run on the poisoned shards (does each poison
spike it?) and a guarded one (does it name exactly the poisoned, and end where the clean one ends?).

`python benchmarks/guard.py rules`: our rule beside a plain 6-sigma rule and OLMo-core's published one on series with
injected NaN, a double spike, a slow drift and a restart: how many bad iterations each misses, how many good ones it skips.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from curation import shards
from training.config import GuardConfig, parse
from training.guard import Guard
from training.train import TrainResult, train

DOCUMENTS, LENGTH, VOCAB, POISONED = 20_000, 128, 257, 16
EOS = 256
CONFIG: dict[str, Any] = {
    "iterations": 1200,
    "model": {"preset": None, "layers": 2, "width": 64, "heads": 4, "kv_heads": 4, "ffn": 176, "tied": True},
    # A block of 16 windows is a global batch: neighbours in the shard are read together, as in a real crawl's bad file
    "data": {"sequence": 128, "block": 2048, "weights": {"text": 1.0}},
    "batch": {"windows": 16},
    "optimizer": {"lr": 4e-3},
    "evaluate": {"every": 10**6, "windows": 200},
    "checkpoint": {"every": 50, "keep": 2, "background": False},
    "guard": {"confirm": 1, "within": 2},
    "precision": "fp32",
    "threads": 1,
}
Documents = list[np.ndarray[Any, Any]]


def documents(files: Sequence[Path], count: int) -> Documents:
    """Pieces of the text, 128 bytes each, in a pseudo-random order; all different."""
    text = b"".join(f.read_bytes() for f in files)
    pieces = sorted({text[i : i + LENGTH] for i in range(0, len(text) - LENGTH, LENGTH)}, key=lambda p: hashlib.sha256(p).digest())
    if len(pieces) < count:
        raise SystemExit(f"{count} documents of {LENGTH} bytes were asked for, the text has {len(pieces)}")
    return [np.frombuffer(p, np.uint8).astype(np.int64) for p in pieces[:count]]


def poisons(clean: Documents, seed: int) -> dict[str, Documents]:
    """Random tokens; one token again and again; the bytes of English in EBCDIC (code page 500)."""
    rng = np.random.default_rng(seed)
    wrong = [bytes(d.astype(np.uint8)).decode("latin-1").encode("cp500", errors="replace") for d in clean[:POISONED]]
    return {
        "random": [rng.integers(0, 256, LENGTH) for _ in range(POISONED)],
        "repeated": [np.full(LENGTH, ord("e")) for _ in range(POISONED)],
        "encoding": [np.frombuffer(w[:LENGTH], np.uint8).astype(np.int64) for w in wrong],
    }


def write(run: Path, train_documents: Documents, held_out: Documents) -> None:
    """Shards of these documents, one each; a document's id is its number."""
    root = run / "result" / "shards"
    tokenizer = b"{}"
    splits: dict[str, dict[str, shards.DomainShards]] = {}
    for split, content, base in (("train", train_documents, 0), ("validation", held_out, 1 << 40)):
        path = root / split / "text" / "00000.arrow"
        path.parent.mkdir(parents=True)
        with open(path, "wb") as f:
            writer = shards.ShardWriter(f, vocab_size=VOCAB, eos=EOS, scratch_dir=str(run))
            for i, tokens in enumerate(content):
                writer.add(tokens, (base + i).to_bytes(16, "big"), None, None, text_bytes=len(tokens))
            info = writer.close()
        data = path.read_bytes()
        entry = shards.ShardEntry(
            f"{split}/text/00000.arrow", info.documents, info.tokens, info.text_bytes, hashlib.sha256(data).hexdigest(), len(data)
        )
        splits[split] = {"text": shards.DomainShards((entry,))}
    (root / "tokenizer.json").write_bytes(tokenizer)
    about = shards.TokenizerInfo("tokenizer.json", hashlib.sha256(tokenizer).hexdigest(), VOCAB, EOS, "bytes")
    with open(root / "manifest.json", "wb") as file:
        shards.write_manifest(file, shards.Manifest(about, splits))


def poisoned(clean: Documents, seed: int) -> tuple[Documents, dict[str, set[str]]]:
    """The documents with each poison put over a row of neighbours, and the ids of those (hex) by poison."""
    found, ids = list(clean), {}
    rng = np.random.default_rng(1000 + seed)
    # a third of the epoch each: wherever a block lands in the order, enough was read before to know what is usual
    for place, (name, bad) in zip(rng.choice(len(clean) // 100 - 2, 3, replace=False), poisons(clean, seed).items(), strict=True):
        begin = 100 * (1 + int(place))
        found[begin : begin + POISONED] = bad
        ids[name] = {i.to_bytes(16, "big").hex() for i in range(begin, begin + POISONED)}
    return found, ids


def run(data: Path, where: Path, seed: int, **changes: Any) -> tuple[TrainResult, list[dict[str, Any]]]:
    """Trains; the result and the log."""
    result = train(parse(json.dumps(CONFIG), "guard", {"seed": seed, **changes}), str(data), str(where))
    return result, [json.loads(line) for line in (where / "metrics.jsonl").read_text().splitlines()]


def experiment(files: Sequence[Path], seeds: Sequence[int], iterations: int, count: int) -> list[dict[str, Any]]:
    """One row a seed; see the head of this file."""
    rows = []
    everything = documents(files, count + 200)
    train_documents, held_out = everything[:count], everything[count:]
    for seed in seeds:
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch)
            bad, ids = poisoned(train_documents, seed)
            write(root / "clean", train_documents, held_out)
            write(root / "poisoned", bad, held_out)
            few = {"iterations": iterations}
            clean, _ = run(root / "clean", root / "a", seed, **few, **{"guard.action": "off"})
            _, log = run(root / "poisoned", root / "b", seed, **few, **{"guard.action": "watch"})
            guarded, guard_log = run(root / "poisoned", root / "c", seed, **few)
            blamed = [
                {d["doc_id"] for d in json.loads(p.read_text())["blamed"]} for p in sorted((root / "c" / "incidents").glob("*.json"))
            ]
            spikes = [e for e in log if e.get("event") == "anomaly"]
            named = set(guarded.masked)
            rows.append(
                {
                    "seed": seed,
                    "spikes": len(spikes),
                    "loss_z": max([e["z_loss"] for e in spikes], default=None),
                    "gradient_z": max([e["z_gradient"] for e in spikes], default=None),
                    "named": {name: len(named & those) for name, those in ids.items()},
                    "masked_else": len(named - set().union(*ids.values())),
                    "incidents": [len(b) for b in blamed],
                    "skipped": sum(e.get("event") == "skip" for e in guard_log),
                    "clean": clean.validation["text"].loss,
                    "guarded": guarded.validation["text"].loss,
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["experiment", "rules"])
    parser.add_argument("--text", nargs="+", type=Path, default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--iterations", type=int, default=1200)
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what == "experiment":
        rows = experiment(arguments.text, arguments.seeds, arguments.iterations, arguments.documents)
        gaps = [r["guarded"] - r["clean"] for r in rows]
        print(f"guarded - clean: {statistics.mean(gaps):+.5f} mean over {len(gaps)} seeds")


if __name__ == "__main__":
    main()
