"""Token files of others: what this tokenizer did not make is refused in words, and nothing is written then.

Covers: token_rows.py
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers

from curation.core.errors import UserError
from curation.packing.import_formats import read_token_file
from curation.shards import read_manifest
from pipelines.cli.commands.shards import import_shards

VOCAB = 600


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    words = [f"{a}{b}{c}" for a in "bcdfg" for b in "aeiou" for c in "lmnpr"] * 9
    made.train_from_iterator(
        [" ".join(words[i::7]) for i in range(7)],
        tokenizers.trainers.BpeTrainer(
            vocab_size=VOCAB, special_tokens=["<|endoftext|>"], show_progress=False,
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        ),
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made.save(str(path))
    return path


def vocabulary(tokenizer: Path) -> int:
    return int(tokenizers.Tokenizer.from_file(str(tokenizer)).get_vocab_size())


def texts(count: int = 200, seed: int = 3) -> list[list[int]]:
    """Documents of 20 to 200 tokens."""
    rng = np.random.default_rng(seed)
    return [rng.integers(1, 300, int(rng.integers(20, 200))).tolist() for _ in range(count)]


def one_stream(documents: list[list[int]], dtype: str = "uint16") -> np.ndarray:
    return np.array([t for d in documents for t in (0, *d)], dtype)


def packed(documents: list[list[int]], length: int) -> list[list[int]]:
    ids = one_stream(documents).tolist()
    return [ids[i : i + length] for i in range(0, len(ids) - length + 1, length)]


def write_table(path: Path, rows: list[Any], column: str = "input_ids", **more: Any) -> Path:
    table = pa.table({column: rows, **more})
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as f, pa.ipc.new_stream(f, table.schema) as writer:
            writer.write_table(table)
    return path


def bring(tmp_path: Path, tokenizer: Path, *files: Path, kind: str, **options: Any) -> list[list[int]]:
    """The training documents of a run that `gristmill shards import` writes, sorted."""
    out = tmp_path / "out"
    unset = {"domain": "web", "validation": None, "eos": None, "rows": None, "dtype": None}
    import_shards([str(f) for f in files], kind, str(out), str(tokenizer), **{**unset, **options})
    from curation.shards import open_shard

    manifest, found = read_manifest(str(out)), []
    for _, _, entry in manifest.entries():
        shard = open_shard(manifest.path(entry), entry=entry)
        found += [shard.tokens[a + 1 : b].tolist() for a, b in zip(shard.offsets[:-1], shard.offsets[1:], strict=True)]
    return sorted(found)


def test_what_the_tokenizer_did_not_make_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    """Each of these is accepted, or ends in a traceback, where nobody looks at the numbers first."""
    vocab, documents = vocabulary(tokenizer), texts()
    one_stream(documents).tofile(tmp_path / "good.bin")
    above = one_stream(documents)
    above[500] = vocab
    above.tofile(tmp_path / "above.bin")
    one_stream(documents, "uint32").tofile(tmp_path / "wide.bin")
    (tmp_path / "odd.bin").write_bytes(one_stream(documents).tobytes()[:-1])
    (tmp_path / "empty.bin").write_bytes(b"")
    np.array([5, 6, 7] * 900, "uint16").tofile(tmp_path / "none.bin")
    np.array([0, 5] * 900, "uint16").tofile(tmp_path / "short.bin")
    write_table(tmp_path / "t.parquet", documents)
    write_table(tmp_path / "negative.parquet", [*documents, [-100, 3]])
    write_table(tmp_path / "text.parquet", ["some", "text"], column="text")
    write_table(tmp_path / "strings.parquet", [["a"], ["b"]])
    write_table(tmp_path / "null.parquet", pa.array([[1, 2], None], pa.list_(pa.int32())))
    (tmp_path / "garbage.arrow").write_bytes(b"not a table" * 9)
    (tmp_path / "lone.bin").write_bytes(b"1234")
    (tmp_path / "folder").mkdir()
    expected = {
        ("above.bin", "nanogpt"): rf"token 500 is {vocab}, and the ids of the tokenizer are 0 to {vocab - 1}\n",
        ("wide.bin", "nanogpt"): r"every second number is 0, as in a file of uint32\n  add --dtype uint32",
        ("odd.bin", "nanogpt"): r"odd\.bin: not a file of uint16 tokens: [\d,]+ bytes are no whole number of uint16",
        ("empty.bin", "nanogpt"): r"empty\.bin: is empty",
        ("empty.bin", "llmc"): r"empty\.bin: not a token file of llm\.c",
        ("empty.bin", "datasets"): r"empty\.bin: cannot be read as Parquet or Arrow",
        ("none.bin", "nanogpt"): r"its 2,700 tokens have no EOS \(id 0\), which divides documents",
        ("short.bin", "nanogpt"): r"every 2\.0 tokens there is an EOS \(id 0\): these are no documents",
        ("t.parquet", "nanogpt"): r"t\.parquet: not a file of uint16 tokens(.|\n)*it is Parquet: add --from datasets",
        ("good.bin", "llmc"): r"good\.bin: not a token file of llm\.c",
        ("negative.parquet", "datasets"): r"is -100, and the ids of the tokenizer",
        ("text.parquet", "datasets"): r"no column tokens or input_ids; its columns are text\n.*for `gristmill curate`",
        ("strings.parquet", "datasets"): r"column input_ids is list<\w+: string>; expected lists of whole numbers",
        ("null.parquet", "datasets"): r"column input_ids is null in 1 of 2 rows",
        ("garbage.arrow", "datasets"): r"garbage\.arrow: cannot be read as Parquet or Arrow",
        ("lone.bin", "megatron"): r"lone\.idx: no such file\n  Megatron-LM's format is two files",
        ("folder", "datasets"): r"no Parquet or Arrow file and no state\.json",
        ("folder", "nanogpt"): r"folder: is a folder",
    }  # fmt: skip
    for (name, kind), words in expected.items():
        with pytest.raises(UserError, match=words):
            bring(tmp_path, tokenizer, tmp_path / name, kind=kind)
        assert not (tmp_path / "out").exists(), "nothing is written"
    assert bring(tmp_path, tokenizer, tmp_path / "wide.bin", kind="nanogpt", dtype="uint32") == sorted(documents)
    list(read_token_file(str(tmp_path / "none.bin"), "nanogpt", 0, "web", vocab=vocab, rows="stream"))
    list(read_token_file(str(tmp_path / "short.bin"), "nanogpt", 0, "web", vocab=vocab, rows="documents"))


def test_packed_rows_are_a_stream(tmp_path: Path, tokenizer: Path) -> None:
    """1,024 would do as well as 128: an EOS before each row would be an EOS in the middle of a text."""
    documents = texts()
    rows = packed(documents, 128)
    for file in (tmp_path / "rows.parquet", tmp_path / "rows.arrow"):
        write_table(file, rows)
        with pytest.raises(UserError, match=rf"its {len(rows)} rows all have 128 tokens: packed(.|\n)*--rows stream"):
            bring(tmp_path, tokenizer, file, kind="datasets")
    whole = len(one_stream(documents)) // 128 * 128
    kept = [
        d.tolist() for d in np.split(one_stream(documents)[:whole], np.flatnonzero(one_stream(documents)[:whole] == 0))
    ]
    assert bring(tmp_path, tokenizer, file, kind="datasets", rows="stream") == sorted(d[1:] for d in kept if d)
    again = tmp_path / "again"
    again.mkdir()
    assert len(bring(again, tokenizer, file, kind="datasets", rows="documents")) == len(rows)


def test_tables_of_hugging_face(tmp_path: Path, tokenizer: Path) -> None:
    """Parquet; a `save_to_disk` folder; several files of one name; rows with padding."""
    documents = texts()
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    half = len(documents) // 2
    one = write_table(tmp_path / "a" / "data-00000-of-00001.parquet", documents[:half])
    two = write_table(tmp_path / "b" / "data-00000-of-00001.parquet", documents[half:])
    assert bring(tmp_path / "a", tokenizer, one, two, kind="datasets") == sorted(documents), "ids of one name differ"
    saved = tmp_path / "saved"
    saved.mkdir()
    for i, part in enumerate((documents[:half], documents[half:])):
        write_table(saved / f"data-0000{i}-of-00002.arrow", part)
    names = [{"filename": f"data-0000{i}-of-00002.arrow"} for i in range(2)]
    (saved / "state.json").write_text(json.dumps({"_data_files": names}))
    assert bring(tmp_path / "b", tokenizer, saved, kind="datasets") == sorted(documents)
    padded = [[*d, *[0] * (200 - len(d))] for d in documents]
    mask = [[int(i < len(d)) for i in range(200)] for d in documents]
    file = write_table(tmp_path / "padded.parquet", padded, attention_mask=mask)
    assert bring(tmp_path, tokenizer, file, kind="datasets") == sorted(documents)
    (saved / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../padded.parquet"}]}))
    with pytest.raises(UserError, match="is outside the folder"):
        bring(tmp_path / "saved", tokenizer, saved, kind="datasets")
    (tmp_path / "dict" / "train").mkdir(parents=True)
    (tmp_path / "dict" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(UserError, match=r"has several splits \(train\)\n  name one, .*dict/train"):
        bring(tmp_path / "saved", tokenizer, tmp_path / "dict", kind="datasets")


def test_a_folder_that_datasets_saved(tmp_path: Path, tokenizer: Path) -> None:
    datasets = pytest.importorskip("datasets")
    documents = texts(40)
    datasets.Dataset.from_dict({"input_ids": documents}).save_to_disk(str(tmp_path / "saved"))
    assert bring(tmp_path, tokenizer, tmp_path / "saved", kind="datasets") == sorted(documents)


def test_on_the_command_line(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "odd.bin").write_bytes(b"abc")
    words = ["shards", "import", str(tmp_path / "odd.bin"), "--from", "nanogpt", "--tokenizer", str(tokenizer)]
    ran = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *words, "--out", str(tmp_path / "out")], capture_output=True, text=True
    )
    assert ran.returncode == 2 and "3 bytes are no whole number of uint16" in ran.stderr.replace("\n", "")
    assert "Traceback" not in ran.stderr
