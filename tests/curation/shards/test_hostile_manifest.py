"""Somebody's shards reach no file outside their folder: every name in a manifest is checked before it is joined.

Covers: curation/shards/manifest.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation import shards
from curation.packing.merge import TokenDocument, write_token_documents
from curation.packing.tokenizer.encode import Encoder
from curation.shards import ShardError, ShardFormat, ShardTokenizer, read_manifest, read_tokenizer

OUTSIDE = ["../../victim", "/tmp/victim", "s3://bucket/victim", "a/../../victim", "file:///tmp/victim"]


@pytest.fixture
def run(tmp_path: Path, a_tokenizer: bytes) -> Path:
    tokens = np.arange(3, 40, dtype=np.uint16)
    documents = [
        ("train", "web", TokenDocument(i.to_bytes(16, "big"), len(tokens), lambda: tokens, None, None))
        for i in range(1, 9)
    ]
    write_token_documents(str(tmp_path / "run"), documents, a_tokenizer)
    return tmp_path / "run"


@pytest.fixture(scope="session")
def a_tokenizer() -> bytes:
    import tokenizers

    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(["a small text"], trainer)
    return made.to_str().encode()


def rewrite(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = run / "result" / "shards" / "manifest.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def renamed(key: str, name: str) -> Callable[[dict[str, Any]], object]:
    def change(value: dict[str, Any]) -> None:
        if key == "tokenizer":
            value["tokenizer"]["file"] = name
        elif key == "shard":
            value["splits"]["train"]["web"]["shards"]["path"][0] = name
        elif key == "domain":
            value["splits"]["train"][name] = value["splits"]["train"].pop("web")
        else:
            value["splits"][name] = value["splits"].pop("train")

    return change


@pytest.mark.parametrize("key", ["tokenizer", "shard", "domain", "split"])
@pytest.mark.parametrize("name", [*OUTSIDE, "", "a\0b", None, 7])
def test_a_name_that_leads_elsewhere_is_refused(run: Path, key: str, name: Any) -> None:
    if key in ("domain", "split") and not isinstance(name, str):
        pytest.skip("keys of JSON are text")
    rewrite(run, renamed(key, name))
    with pytest.raises(ShardFormat, match=r"manifest\.json: (names the file|has the name)"):
        read_manifest(str(run))
    with pytest.raises(ShardFormat):
        read_manifest([str(run), str(run)])


@pytest.mark.parametrize("name", ["train.yaml", "metrics.jsonl", "manifest.json", "data.json", ".bashrc"])
def test_a_tokenizer_called_like_another_file_is_refused(run: Path, name: str) -> None:
    """A training writes the tokenizer under this name beside its own files."""
    rewrite(run, renamed("tokenizer", name))
    with pytest.raises(ShardFormat, match=r"expected tokenizer\.json or tokenizer\.model"):
        read_manifest(str(run))


def test_another_tokenizer_than_the_manifest_says_is_refused_wherever_it_is_read(run: Path, tmp_path: Path) -> None:
    from curation.packing.merge import merge_runs
    from pipelines.lookup.training_data import make_decoder
    from training.checkpoint.resume import write_run_files
    from training.config import parse

    manifest = read_manifest(str(run))
    assert Encoder(read_tokenizer(manifest)).vocab == manifest.tokenizer.vocab
    path = run / "result" / "shards" / "tokenizer.json"
    path.write_bytes(path.read_bytes().replace(b'"vocab"', b'"vocab" '))
    uses: list[Callable[[], object]] = [
        lambda: read_tokenizer(manifest),
        lambda: shards.verify_tokenizer(manifest),
        lambda: make_decoder(manifest),
        lambda: merge_runs(str(tmp_path / "merged"), [str(run)]),
        lambda: write_run_files(
            tmp_path / "training", parse("steps: 1\nmodel: {preset: toy}\n"), manifest, None, resumes=False
        ),
    ]
    (tmp_path / "training").mkdir()
    for use in uses:
        with pytest.raises(ShardTokenizer, match="checksum differs"):
            use()
    assert not (tmp_path / "training" / "tokenizer.json").exists()


def test_a_training_on_such_shards_writes_nothing_outside_its_run(run: Path, tmp_path: Path) -> None:
    from training.config import parse
    from training.train import train

    victim = tmp_path / "victim.sh"
    victim.write_text("the user's own")
    data = run / "result" / "shards" / "tokenizer.json"
    (run / "result" / "victim.sh").write_bytes(data.read_bytes())
    rewrite(run, renamed("tokenizer", "../victim.sh"))
    with pytest.raises(ShardError, match=r"'\.\./victim\.sh', which is a path"):
        train(parse("steps: 1\nmodel: {preset: toy}\ndata: {seq_len: 8}\n"), str(run), str(tmp_path / "a" / "run"))
    assert victim.read_text() == "the user's own" and not (tmp_path / "a" / "victim.sh").exists()


def test_names_with_unusual_letters_are_not_refused(run: Path) -> None:
    """What pipelines may call a domain, and a merged run's shards."""
    rewrite(run, renamed("domain", "wéb-2.1_x"))
    assert list(read_manifest(str(run)).splits["train"]) == ["wéb-2.1_x"]
