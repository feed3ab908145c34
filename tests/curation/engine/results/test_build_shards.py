"""Shards by option of the pipeline: tokenizers of every kind, mixes by signal, fertility.

Covers: build_result.py
Covers: curation/engine/planning/mix_groups.py, curation/engine/planning/map_spec.py
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sentencepiece

from curation import shards
from curation.core.errors import UserError
from curation.packing.tokenizer.encode import Encoder
from tests.curation.engine import runs

LANGUAGES = ["en", "de", "ru"]
TRAIN = {"train": {"vocab": 600, "sample_bytes": 100_000}}


@pytest.fixture(scope="module")
def texts(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packing")
    runs.write_jsonl(folder / "texts" / "a.jsonl", runs.sentences(data, LANGUAGES, 40))
    return folder


def curated(folder: Path, to: str, **changes: Any) -> tuple[shards.Manifest, dict[str, Any], list[dict[str, Any]]]:
    """The manifest, the counts of run.json and the kept documents of a run."""
    tree = runs.text_pipeline(folder, **{"steps": ["language", "exact_dedup"], "tokenizer": TRAIN, **changes})
    assert runs.curate(folder, tree, to).status == "done"
    counts = json.loads((folder / to / "run.json").read_text())["counts"]
    return (
        shards.read_manifest(str(folder / to)),
        counts,
        pq.read_table(folder / to / "result" / "documents").to_pylist(),
    )


def domains_of(manifest: shards.Manifest) -> dict[bytes, str]:
    found = {}
    for _, domain, entry in manifest.entries():
        ids = shards.open_shard(manifest.path(entry)).documents["doc_id"].to_pylist()
        found |= dict.fromkeys(ids, domain)
    return found


def test_fertility_by_domain_and_language(texts: Path) -> None:
    manifest, counts, kept = curated(texts, "fertile")
    encoder = Encoder(shards.read_file(manifest.path(manifest.tokenizer.file)))
    expected: dict[str, list[int]] = {}
    for row in kept:
        known = expected.setdefault(row["language"]["code"] or "unknown", [0, 0, 0])
        size = len(row["text"].encode())
        known[:] = known[0] + 1, known[1] + len(encoder.encode_batch([row["text"]])[0]), known[2] + size
    languages = counts["fertility"]["languages"]
    assert {c: [f[k] for k in ("documents", "tokens", "text_bytes")] for c, f in languages.items()} == expected
    assert languages["en"]["bytes_per_token"] == round(expected["en"][2] / expected["en"][1], 4)
    (web,) = counts["fertility"]["domains"].values()
    assert [web[k] for k in ("documents", "tokens", "text_bytes")] == [
        sum(e[i] for e in expected.values()) for i in range(3)
    ]


def test_copies_of_a_document_weigh_what_the_mix_says(texts: Path) -> None:
    groups = {"often": "exact_dedup.copies >= 2"}
    mix = {"groups": groups, "weights": {"often": 1, "web": 1}, "budget": 20_000, "max_epochs": 20}
    manifest, _, kept = curated(texts, "copies", mix=mix)
    domains = domains_of(manifest)
    assert {r["doc_id"]: "often" if r["exact_dedup"]["copies"] >= 2 else "web" for r in kept} == domains
    assert manifest.mix.epochs["often"] > 4 * manifest.mix.epochs["web"]
    for domain, held in manifest.splits["train"].items():
        assert manifest.mix.epochs[domain] == pytest.approx(10_000 / held.tokens)


def test_max_epochs_is_recorded_with_and_without_a_budget(texts: Path) -> None:
    """Trainings on these shards keep to it: training/data/data_schedule.py."""
    for mix, cap in (({"max_epochs": 4}, 4), ({"max_epochs": 0.5}, 0.5), ({}, None), ({"budget": 2_000}, 1)):
        manifest, _, _ = curated(texts, f"cap-{cap}", mix=mix)
        assert manifest.mix.max_epochs == cap
        if cap == 0.5:
            assert set(manifest.mix.epochs.values()) == {0.5}


def test_natural_proportions_and_temperature(texts: Path) -> None:
    groups = {code: f"language.code = '{code}'" for code in ("en", "ru")}
    natural, _, _ = curated(texts, "natural", mix={"groups": groups})
    sizes = {d: s.tokens for d, s in natural.splits["train"].items()}
    assert natural.mix.weights == pytest.approx({d: n / sum(sizes.values()) for d, n in sizes.items()})
    assert set(natural.mix.epochs.values()) == {1.0}
    flat, _, _ = curated(texts, "flat", mix={"groups": groups, "temperature": 4.0})
    powers = {d: (n / sum(sizes.values())) ** 0.25 for d, n in sizes.items()}
    assert flat.mix.weights == pytest.approx({d: p / sum(powers.values()) for d, p in powers.items()})
    assert flat.splits == natural.splits, "the shards hold every domain whole, whatever the mix"


def test_groups_in_another_order_are_other_shards(texts: Path) -> None:
    groups = {"short": "length(text) < 400", "english": "language.code = 'en'"}
    first, _, _ = curated(texts, "grouped", mix={"groups": groups})
    second, _, _ = curated(texts, "grouped", mix={"groups": dict(reversed(groups.items()))})
    assert first.splits["train"]["english"].documents < second.splits["train"]["english"].documents


def test_a_sentencepiece_model_and_the_name_of_its_end_of_text(texts: Path) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(json.loads(line)["text"] for line in (texts / "texts" / "a.jsonl").open()),
        model_writer=model, vocab_size=600, model_type="bpe", byte_fallback=True, minloglevel=2,
        user_defined_symbols=["<done>"],
    )  # fmt: skip
    (texts / "words.model").write_bytes(model.getvalue())
    manifest, counts, kept = curated(texts, "pieces", tokenizer={"sentencepiece": "words.model"})
    info = manifest.tokenizer
    assert (info.kind, info.file, info.eos, info.lossless) == ("sentencepiece", "tokenizer.model", 2, False)
    assert counts["tokenizer"]["engine"] == "sentencepiece" and len(domains_of(manifest)) == len(kept)
    named, _, _ = curated(texts, "pieces", tokenizer={"sentencepiece": "words.model", "eos": "<done>"})
    eos = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).piece_to_id("<done>")
    opened = shards.open_shard(named.path(named.splits["train"]["web"][0]))
    assert named.tokenizer.eos == opened.eos == opened.tokens[0] == eos != 2
    with pytest.raises(UserError, match="this SentencePiece model has no piece '<end>'"):
        curated(texts, "pieces", tokenizer={"sentencepiece": "words.model", "eos": "<end>"})
