"""Measures spike detection on poisoned documents, and compares its rule with two others.

`python -m benchmarks.guard experiment --text FILE... [--seeds 5]`: 20,000 documents of 128 tokens (bytes of the text
files), a model of at most 0.2 M parameters, and three poisons, 12 documents of each: random tokens, one repeated token,
and text in a wrong encoding. For each seed a clean run, an unguarded run on the poisoned shards (does each poison
spike it?) and a guarded one (does it name exactly the poisoned, and end where the clean one ends?).

`python -m benchmarks.guard rules`: our rule beside a plain 6-sigma rule and OLMo-core's published one on series with
injected NaN, a double spike, a slow drift and a restart, and with changes of the level that were planned (an anneal on
a flat loss, a doubled batch, longer sequences) or not: bad steps that each misses, good ones that it skips.

`python -m benchmarks.guard clean --text FILE...`: 4,000 steps of each of five small models with small batches on clean
text: steps with a z above the threshold, and those that the guard calls anomalies. Then each series five times over
with new noise: its slow part, and the rest of it drawn anew.
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
from training.data.data_schedule import new_data_order
from training.stability.spike_detection import SpikeGuard
from training.train import TrainResult, train

DOCUMENTS, LENGTH, VOCAB, POISONED = 20_000, 128, 257, 12
EOS = 256
CONFIG: dict[str, Any] = {
    "steps": 1250,  # an epoch is 1,259 batches
    "model": {
        "preset": None,
        "num_layers": 1,
        "hidden_size": 64,
        "num_heads": 4,
        "num_kv_heads": 4,
        "intermediate_size": 176,
        "tie_embeddings": True,
    },
    # A block of 16 sequences is a global batch, so neighbours in the shard are read together, like a crawl's bad file
    "data": {"seq_len": 128, "shuffle_block": 2048, "weights": {"text": 1.0}},
    "batch": {"global_size": 16},
    "optimizer": {"lr": 4e-3},
    "evaluate": {"every": 10**6, "sequences": 200},
    "checkpoint": {"every": 50, "keep": 2, "background": False},
    "guard": {"spike_count": 1, "spike_window": 2},
    "precision": "fp32",
    "threads": 1,
}
Documents = list[np.ndarray[Any, Any]]


def documents(files: Sequence[Path], count: int) -> Documents:
    """Pieces of the text, 128 bytes each, in a pseudo-random order; all different."""
    text = b"".join(f.read_bytes() for f in files)
    pieces = sorted(
        {text[i : i + LENGTH] for i in range(0, len(text) - LENGTH, LENGTH)}, key=lambda p: hashlib.sha256(p).digest()
    )
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
            f"{split}/text/00000.arrow",
            info.documents,
            info.tokens,
            info.text_bytes,
            hashlib.sha256(data).hexdigest(),
            len(data),
        )
        splits[split] = {"text": shards.DomainShards((entry,))}
    (root / "tokenizer.json").write_bytes(tokenizer)
    about = shards.TokenizerInfo("tokenizer.json", hashlib.sha256(tokenizer).hexdigest(), VOCAB, EOS, "bytes")
    with open(root / "manifest.json", "wb") as file:
        shards.write_manifest(file, shards.Manifest(about, splits))


def write_both(
    clean: Path, bad: Path, train_documents: Documents, held_out: Documents, seed: int, steps: int = 10**9
) -> dict[str, set[str]]:
    """Shards of the documents, and of the same with each poison put over a row of neighbours; its ids (hex) by poison.

    Rows are drawn among those that one of the `steps` reads, and not one of the first 64. The guard knows too
    little there; and one poisoned document alone among 16 moves a batch's loss too little to be a spike (a first
    trial, with rows that lay across two batches, left out 1 of 48 so).
    """
    write(clean, train_documents, held_out)
    config = parse(json.dumps(CONFIG))
    size = config.batch.global_size
    reader, order, _ = new_data_order(shards.read_manifest(str(clean)), config.data, seed, size, config.steps)
    read: dict[int, set[int]] = {}  # document -> steps
    for w in reader.sequences(order, 0, len(train_documents) * (LENGTH + 1) // (LENGTH * size) * size):
        for doc in reader.doc_ids(w):
            read.setdefault(int(doc, 16), set()).add(w.index // size)
    together = [set().union(*(read.get(b + k, {0}) for k in range(POISONED))) for b in range(len(train_documents))]
    places = [b for b, at in enumerate(together) if len(at) == 1 and 64 <= min(at) < steps]
    mixed, ids = list(train_documents), {}
    drawn = np.random.default_rng(1000 + seed).choice(places, 3, replace=False)
    for begin, (name, documents) in zip(drawn.tolist(), poisons(train_documents, seed).items(), strict=True):
        mixed[begin : begin + POISONED] = documents
        ids[name] = {i.to_bytes(16, "big").hex() for i in range(begin, begin + POISONED)}
    assert len(set().union(*ids.values())) == 3 * POISONED
    write(bad, mixed, held_out)
    return ids


def run(data: Path, where: Path, seed: int, **changes: Any) -> tuple[TrainResult, list[dict[str, Any]]]:
    """Trains; the result and the log."""
    result = train(parse(json.dumps(CONFIG), "guard", {"seed": seed, **changes}), str(data), str(where))
    return result, [json.loads(line) for line in (where / "metrics.jsonl").read_text().splitlines()]


def experiment(files: Sequence[Path], seeds: Sequence[int], steps: int, count: int) -> list[dict[str, Any]]:
    """One row a seed; see the head of this file."""
    rows = []
    everything = documents(files, count + 200)
    train_documents, held_out = everything[:count], everything[count:]
    for seed in seeds:
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch)
            ids = write_both(root / "clean", root / "poisoned", train_documents, held_out, seed, steps)
            few = {"steps": steps}
            clean, _ = run(root / "clean", root / "a", seed, **few, **{"guard.action": "off"})
            _, log = run(root / "poisoned", root / "b", seed, **few, **{"guard.action": "watch"})
            guarded, guard_log = run(root / "poisoned", root / "c", seed, **few)
            blamed = [
                {d["doc_id"] for d in json.loads(p.read_text())["blamed"]}
                for p in sorted((root / "c" / "incidents").glob("*.json"))
            ]
            spikes = {name: spiked(root / "poisoned", seed, log, those) for name, those in ids.items()}
            named = set(guarded.masked)
            rows.append(
                {
                    "seed": seed,
                    "spikes": spikes,
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


def spiked(data: Path, seed: int, log: list[dict[str, Any]], bad: set[str]) -> dict[str, float]:
    """The largest z of loss and gradient norm among an unguarded run's steps that read one of these documents."""
    config = parse(json.dumps(CONFIG))
    reader, order, _ = new_data_order(
        shards.read_manifest(str(data)), config.data, seed, config.batch.global_size, config.steps
    )
    size = config.batch.global_size
    events = [e for e in log if e.get("event") == "anomaly"]
    ours = [
        e
        for e in events
        for first in [(e["step"] - 1) * size]
        if any(bad & set(reader.doc_ids(w)) for w in reader.sequences(order, first, first + size))
    ]
    return {k: round(max([e[k] for e in ours], default=0.0), 1) for k in ("z_loss", "z_gradient")}


# --- rules on series

Rule = Callable[[float, float], bool]  # loss, gradient norm of the next step -> whether its update is left out
# Steps at which the training file changes something; our guard knows them
PLANNED = {"planned: anneal": 500, "planned: batch doubled": 500, "planned: longer sequences": 500}


def ours(state: dict[str, Any] | None = None, planned: int | None = None) -> tuple[Rule, Callable[[], dict[str, Any]]]:
    guard = SpikeGuard(GuardConfig(action="skip"), torch.device("cpu"))
    if state:
        guard.load_state_dict(state)
    count = iter(range(1, 10**9))

    def rule(loss: float, norm: float) -> bool:
        step = next(count)
        if planned is not None and step - 1 == planned:
            guard.start_baseline()
        skip = guard.judge(step, torch.tensor(loss), torch.tensor(norm))[0]
        return bool(skip)

    return rule, guard.state_dict


def six_sigma(*, finite_only: bool) -> Rule:
    """Mean and standard deviation of the last 128, outliers included; quiet until there are 64.

    With `finite_only` the plain rule as one would write it: what is not finite is skipped and not remembered. Without,
    OLMo-core's SkipStepOptimizer (rolling_interval_length 128, sigma_factor 6): everything is remembered, NaN too.
    """
    losses: deque[float] = deque(maxlen=129)
    norms: deque[float] = deque(maxlen=129)

    def within(values: deque[float], new: float) -> bool:
        known = torch.tensor(list(values), dtype=torch.float64)
        std, mean = torch.std_mean(known)
        return bool(new - mean <= 6 * std)

    def rule(loss: float, norm: float) -> bool:
        if finite_only and not (math.isfinite(loss) and math.isfinite(norm)):
            return True
        taken = len(losses) + 1 < 64 or (within(losses, loss) and within(norms, norm))
        losses.append(loss)
        norms.append(norm)
        return not taken

    return rule


def series(kind: str, seed: int) -> tuple[list[tuple[float, float]], set[int], int | None]:
    """(loss, gradient norm) of 1,000 steps, the bad ones among them, and where the run is restarted.

    Noise as in the experiment's clean runs: loss 1.65 +- 0.04, gradient norm log-normal around 0.65 with 0.06.
    """
    rng = np.random.default_rng(seed)
    loss = 1.65 + 0.04 * rng.standard_normal(1000)
    norm = 0.65 * np.exp(0.06 * rng.standard_normal(1000))
    bad: set[int] = set()
    restart = None
    if kind == "NaN":
        bad = {300, 600}
        loss[300] = norm[600] = math.nan
    elif kind == "double spike":  # a huge one, and a smaller one that hides in the spread the first has left
        bad = {500, 530}
        loss[500], norm[500], loss[530], norm[530] = 9.0, 30.0, 2.4, 3.0
    elif kind == "slow drift":  # the loss rises by a quarter over 600 steps: not one of them is bad
        loss += 0.4 * np.clip((np.arange(1000) - 300) / 600, 0, 1)
    elif kind == "restart":
        bad, restart = {510, 540}, 500
        loss[510], norm[510], loss[540], norm[540] = 4.0, 6.0, 3.0, 4.0
    elif kind in PLANNED or kind == "norm doubles, unplanned":  # a lasting change at 500, and a real spike after it
        bad = {600}
        if kind == "planned: anneal":
            loss[500:] += 0.2
        elif kind == "planned: batch doubled":
            loss[500:] = 1.65 + (loss[500:] - 1.65) / math.sqrt(2)
            norm[500:] /= math.sqrt(2)
        elif kind == "planned: longer sequences":
            loss[500:] -= 0.1
            norm[500:] *= 1.5
        else:
            norm[500:] *= 2
        loss[600], norm[600] = loss[600] + 1.0, norm[600] * 6
    return list(zip(loss.tolist(), norm.tolist(), strict=True)), bad, restart


def rules(seeds: Sequence[int]) -> dict[str, dict[str, tuple[int, int]]]:
    """Misses and false skips, summed over the seeds, by series and rule."""
    table: dict[str, dict[str, tuple[int, int]]] = {}
    for kind in ("NaN", "double spike", "slow drift", "restart", *PLANNED, "norm doubles, unplanned"):
        for name in ("ours", "plain 6 sigma", "OLMo-core"):
            misses = false = 0
            for seed in seeds:
                values, bad, restart = series(kind, seed)
                rule, state = ours(planned=PLANNED.get(kind))
                if name != "ours":
                    rule = six_sigma(finite_only=name.startswith("plain"))
                for i, (loss, norm) in enumerate(values):
                    if i == restart:  # ours comes back from the checkpoint, OLMo-core's begins anew; plain likewise
                        rule = ours(state())[0] if name == "ours" else six_sigma(finite_only=name.startswith("plain"))
                    skipped = rule(loss, norm)
                    misses += i in bad and not skipped
                    false += i not in bad and skipped
            table.setdefault(kind, {})[name] = (misses, false)
    return table


# --- clean runs

SIZES = ((8, 1, 4, 64), (16, 1, 2, 64), (32, 1, 8, 32), (64, 1, 4, 32), (64, 2, 2, 64))  # width, layers, batch, length


def clean(files: Sequence[Path], steps: int) -> None:
    """Prints, for each size, how many clean steps are above the z alone, and how many are anomalies."""
    everything = documents(files, 8_000)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write(root / "clean", everything[:7_800], everything[7_800:])
        head = f"{'width':>6}{'layers':>7}{'batch':>6}{'length':>7}"
        print(head + f"{'steps':>7}{'z > 8':>7}{'skips':>6}{'again with new noise':>22}")
        total = [0, 0, 0, 0]
        for k, (width, layers, batch, length) in enumerate(SIZES):
            config: dict[str, Any] = json.loads(json.dumps(CONFIG))
            config |= {"steps": steps, "guard": {"action": "off"}, "batch": {"global_size": batch}, "log_every": 100}
            config["model"] |= {"hidden_size": width, "num_layers": layers, "intermediate_size": 2 * width}
            config["data"] = {"seq_len": length, "weights": {"text": 1.0}, "max_epochs": 100}
            config["checkpoint"] = {"every": 10**6, "background": False}
            where = root / f"{k}"
            train(parse(json.dumps(config)), str(root / "clean"), str(where))
            lines = [json.loads(line) for line in (where / "metrics.jsonl").read_text().splitlines()]
            found = np.array([(e["loss"], e["grad_norm"]) for e in lines if e["kind"] == "train"])
            by_z, skips = replay(found)
            again = sum(replay(new_noise(found, seed))[1] for seed in range(5))
            row = [len(found), by_z, skips, again]
            total = [a + b for a, b in zip(total, row, strict=True)]
            print(f"{width:>6}{layers:>7}{batch:>6}{length:>7}", _counts(row), flush=True)
        print(f"{'all':26}", _counts(total))


def _counts(row: Sequence[int]) -> str:
    return f"{row[0]:>6}{row[1]:>7}{row[2]:>6}{row[3]:>12} of {5 * row[0]:,}"


def replay(values: np.ndarray[Any, Any]) -> tuple[int, int]:
    """Steps of a series with a z above the guard's threshold, and its anomalies."""
    guard = SpikeGuard(GuardConfig(action="skip"), torch.device("cpu"))
    by_z = skips = 0
    for i, (loss, norm) in enumerate(values.tolist(), 1):
        skip, _, z, _ = guard.judge(i, torch.tensor(loss), torch.tensor(norm))
        by_z += bool((z > guard.config.z_threshold).any())
        skips += bool(skip)
    return by_z, skips


def new_noise(values: np.ndarray[Any, Any], seed: int) -> np.ndarray[Any, Any]:
    """The series' running median over 51 steps, times quotients drawn with replacement from 500 steps around."""
    padded = np.pad(values, ((25, 25), (0, 0)), mode="edge")
    slow = np.median(np.lib.stride_tricks.sliding_window_view(padded, 51, axis=0), axis=-1)
    rng, at = np.random.default_rng(seed), np.arange(len(values))
    drawn = np.clip(at + rng.integers(-250, 251, len(values)), 0, len(values) - 1)
    return slow * (values / slow)[drawn]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["experiment", "rules", "clean"])
    parser.add_argument("--text", nargs="+", type=Path, default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what == "clean":
        clean(arguments.text, 4_000)
        return
    if arguments.what == "experiment":
        rows = experiment(arguments.text, arguments.seeds, arguments.steps, arguments.documents)
        gaps = [r["guarded"] - r["clean"] for r in rows]
        print(f"guarded - clean: {statistics.mean(gaps):+.5f} mean over {len(gaps)} seeds")
        return
    print(f"{'series':26}{'rule':16}{'missed':>8}{'false skips':>13}   (sums over {len(arguments.seeds)} seeds)")
    for kind, by_rule in rules(arguments.seeds).items():
        for name, (misses, false) in by_rule.items():
            print(f"{kind:26}{name:16}{misses:>8}{false:>13}")


if __name__ == "__main__":
    main()
