"""Makes a mix problem whose answer is known: four exchangeable tasks, four domains that use them unevenly.

One Markov table (128 states, 8 successors each, Dirichlet 0.7) relabelled into four disjoint token ranges gives four
tasks of equal difficulty; a document is a walk of one task; domain i draws its documents' tasks by row i of M. The
mean loss over the tasks' held-out sets is symmetric in q = M^T r, so the best r makes q uniform: M^-T 1/4.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from curation import shards

STATES, SUCCESSORS, TASKS = 128, 8, 4
M = np.array([[0.55, 0.15, 0.15, 0.15], [1 / 30, 1 / 2, 3 / 10, 1 / 6], [0.1, 0.1, 0.7, 0.1], [0.05, 0.15, 0.15, 0.65]])
NATURAL = np.array([0.1, 0.2, 0.5, 0.2])
BEST = np.linalg.solve(M.T, np.full(4, 0.25))
DOMAINS = ("a", "b", "c", "d")
LENGTH = 63  # of a document: with its EOS, a sequence of 64
VOCAB = 1 + STATES * TASKS


def table(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Successors [states, 8] and their cumulative probabilities."""
    successors = np.array([rng.choice(STATES, SUCCESSORS, replace=False) for _ in range(STATES)])
    return successors, rng.dirichlet(np.full(SUCCESSORS, 0.7), STATES).cumsum(axis=1)


def walks(rng: np.random.Generator, chain: tuple[np.ndarray, np.ndarray], tasks: np.ndarray) -> np.ndarray:
    """Documents [n, LENGTH] of tokens, document i of task tasks[i]."""
    successors, cumulative = chain
    state = rng.integers(0, STATES, len(tasks))
    out = np.empty((len(tasks), LENGTH), dtype=np.int64)
    for t in range(LENGTH):
        out[:, t] = state
        step = (rng.random(len(tasks))[:, None] > cumulative[state]).sum(axis=1)
        state = successors[state, np.minimum(step, SUCCESSORS - 1)]
    return 1 + tasks[:, None] * STATES + out


def build(run: Path, seed: int, tokens: int = 2_000_000, held_out: int = 16_384) -> shards.Manifest:
    """Writes the shards of a run: train domains a..d, validation sets task0..task3. Token counts of both in all."""
    root = run / "result" / "shards"
    root.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    chain = table(rng)
    (root / "tokenizer.json").write_text("{}")
    sha = hashlib.sha256(b"{}").hexdigest()
    content: dict[str, dict[str, np.ndarray]] = {"train": {}, "validation": {}}
    for i, name in enumerate(DOMAINS):
        count = round(tokens * NATURAL[i]) // (LENGTH + 1)
        content["train"][name] = walks(rng, chain, rng.choice(TASKS, count, p=M[i]))
    for task in range(TASKS):
        content["validation"][f"task{task}"] = walks(rng, chain, np.full(held_out // (LENGTH + 1), task))
    splits: dict[str, dict[str, shards.DomainShards]] = {"train": {}, "validation": {}}
    number = 0
    for split, domains in content.items():
        for name, documents in domains.items():
            path = root / split / name / "00000.arrow"
            path.parent.mkdir(parents=True)
            with open(path, "wb") as f:
                writer = shards.ShardWriter(
                    f, vocab_size=VOCAB, eos=0, scratch_dir=str(run), metadata={"tokenizer": sha}
                )
                for document in documents:
                    number += 1
                    writer.add(document, number.to_bytes(16, "big"), None, None, text_bytes=2 * LENGTH)
                info = writer.close()
            data = path.read_bytes()
            entry = shards.ShardEntry(
                f"{split}/{name}/00000.arrow", info.documents, info.tokens, info.text_bytes,
                hashlib.sha256(data).hexdigest(), len(data),
            )  # fmt: skip
            splits[split][name] = shards.DomainShards((entry,))
    tokenizer = shards.TokenizerInfo("tokenizer.json", sha, VOCAB, 0, "bpe")
    manifest = shards.Manifest(tokenizer, splits, shards.Mix(max_epochs=50.0), seed=seed)
    with open(root / "manifest.json", "wb") as f:
        shards.write_manifest(f, manifest)
    return shards.read_manifest(str(run))


PROXY = {
    "steps": 200,
    "model": {
        "preset": None, "num_layers": 1, "hidden_size": 48, "num_heads": 2, "num_kv_heads": 2,
        "intermediate_size": 96, "tie_embeddings": False,
    },
    "data": {"seq_len": 64, "max_epochs": 50},
    "batch": {"global_size": 32},
    "optimizer": {"lr": 0.01},
    "precision": "fp32",
    "device": "cpu",
    "evaluate": {"every": 50, "sequences": None},
    "checkpoint": {"every": 200, "keep": 1},
}  # fmt: skip
