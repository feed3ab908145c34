"""Shards of real text for the training tests: Python's sources and its reference manual, through a byte-level BPE."""

from __future__ import annotations

import hashlib
import json
import pydoc_data.topics
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch

from curation import shards

VOCAB = 1024
Build = Callable[[Path, Mapping[str, Sequence[Sequence[np.ndarray]]]], shards.Manifest]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tensors here are small: a second thread costs more than it gains, most of all beside other processes."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def texts() -> dict[str, list[str]]:
    """domain -> documents: `code`, files of the standard library; `docs`, the reference manual as pydoc shows it."""
    library = Path(sysconfig.get_paths()["stdlib"])
    folders = ("json", "email", "asyncio", "concurrent", "http", "importlib", "logging")
    code = [p.read_text(encoding="utf-8") for f in folders for p in sorted((library / f).rglob("*.py"))]
    return {"code": [c for c in code if c], "docs": [t for _, t in sorted(pydoc_data.topics.topics.items())]}


@pytest.fixture(scope="session")
def tokenizer(texts: dict[str, list[str]]) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([t for documents in texts.values() for t in documents[::3]], trainer)
    made.encode_special_tokens = True
    return made


@pytest.fixture(scope="session")
def build(tokenizer: tokenizers.Tokenizer) -> Build:
    """Writes {"split/domain": shards of documents of tokens} as the result of a run, and reads its manifest back."""

    def make(run: Path, content: Mapping[str, Sequence[Sequence[np.ndarray]]], **mix: object) -> shards.Manifest:
        root = run / "result" / "shards"
        root.mkdir(parents=True)
        text = tokenizer.to_str().encode()
        (root / "tokenizer.json").write_bytes(text)
        sha = hashlib.sha256(text).hexdigest()
        splits: dict[str, dict[str, shards.DomainShards]] = {"train": {}, "validation": {}}
        number = 0
        for place, parts in content.items():
            entries = []
            for i, documents in enumerate(parts):
                path = root / place / f"{i:05d}.arrow"
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "wb") as f:
                    writer = shards.ShardWriter(
                        f, vocab_size=VOCAB, eos=0, scratch_dir=str(run), metadata={"tokenizer": sha}
                    )
                    for tokens in documents:
                        number += 1
                        size = len(tokenizer.decode(tokens.tolist()).encode())
                        writer.add(
                            tokens, number.to_bytes(16, "big"), f"https://example.org/{number}", None, text_bytes=size
                        )
                    info = writer.close()
                data = path.read_bytes()
                entries.append(
                    shards.ShardEntry(
                        f"{place}/{i:05d}.arrow",
                        info.documents,
                        info.tokens,
                        info.text_bytes,
                        hashlib.sha256(data).hexdigest(),
                        len(data),
                    )
                )
            split, domain = place.split("/")
            splits[split][domain] = shards.DomainShards(tuple(entries))
        manifest = shards.Manifest(
            shards.TokenizerInfo("tokenizer.json", sha, VOCAB, 0, "bpe"), splits, shards.Mix(**mix), seed=17
        )
        with open(root / "manifest.json", "wb") as f:
            shards.write_manifest(f, manifest)
        return shards.read_manifest(str(run))

    return make


@pytest.fixture(scope="session")
def corpus(
    tmp_path_factory: pytest.TempPathFactory, texts: dict[str, list[str]], tokenizer: tokenizers.Tokenizer, build: Build
) -> Path:
    """A run with two domains of two shards each, a tenth of the documents held out."""
    run = tmp_path_factory.mktemp("corpus")
    content = {}
    for domain, documents in texts.items():
        encoded = [np.array(e.ids) for e in tokenizer.encode_batch(documents, add_special_tokens=False)]
        order = sorted(range(len(encoded)), key=lambda i: hashlib.sha256(documents[i].encode()).digest())
        held, kept = order[: len(order) // 10], order[len(order) // 10 :]
        half = len(kept) // 2
        content[f"train/{domain}"] = [[encoded[i] for i in part] for part in (kept[:half], kept[half:])]
        content[f"validation/{domain}"] = [[encoded[i] for i in held]]
    build(run, content, weights={"code": 0.6, "docs": 0.4}, max_epochs=4)
    (run / "counts.json").write_text(json.dumps({k: sum(map(len, v)) for k, v in content.items()}))
    return run


@pytest.fixture(scope="session")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run trained for 30 steps on sequences of 64."""
    from training.config import parse
    from training.train import train

    run = tmp_path_factory.mktemp("trained") / "run"
    text = "steps: 30\nmodel: {preset: toy}\ndata: {seq_len: 64}\nbatch: {global_size: 8}\n"
    text += "precision: fp32\nthreads: 1\n"
    train(parse(text), str(corpus), str(run))
    return run
