"""Tokenizers: training is reproducible, every file format loads, and all engines give the same ids.

Covers: encode.py, load_tokenizer.py, train_tokenizer.py, pretokenizer_patterns.py
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from curation.core.errors import UserError
from curation.packing.tokenizer import encode, pretokenizer_patterns
from curation.packing.tokenizer.encode import Encoder, split_long_whitespace
from curation.packing.tokenizer.load_tokenizer import EOS, load_tokenizer, tokenizer_json_from_ranks
from curation.packing.tokenizer.train_tokenizer import train_bpe

TEXT = [
    "The mill grinds slowly, but it grinds exceedingly small; the miller's wheel turns and turns again.",
    "def grind(grain):\n    return [g / 2 for g in grain]\n\n" * 3,
    "Die Mühle mahlt langsam, 12345 Körner am Tag.\r\n\r\n  Mehl\t\tund Kleie…",
    "水車は回る。粉は白い。 नमस्ते दुनिया 👩‍👩‍👧",
] * 5


@pytest.fixture(scope="module")
def trained() -> bytes:
    return train_bpe(TEXT, 600)


@pytest.fixture(scope="module")
def gpt2(data) -> bytes:
    return load_tokenizer(str(data / "tokenizer" / "gpt2_vocab.bpe"))


def test_trained_twice_in_any_order_and_on_any_number_of_threads(trained, data):
    assert train_bpe(reversed(TEXT), 600) == trained
    program = (
        "import sys, hashlib; from curation.packing.tokenizer.train_tokenizer import train_bpe\n"
        "lines = open(sys.argv[1], encoding='utf-8').read().split('\\n')\n"
        "print(hashlib.sha256(train_bpe(lines, 2000)).hexdigest())"
    )
    seen = set()
    for threads, seed in (("1", "1"), ("2", "2"), ("5", "3")):
        env = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": seed, "PYTHONPATH": os.getcwd()}
        if threads == "1":
            env["TOKENIZERS_PARALLELISM"] = "false"
        command = [sys.executable, "-c", program, str(data / "lm" / "wikitext2_test.txt")]
        seen.add(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)
    assert len(seen) == 1


def test_what_is_trained(trained):
    value = json.loads(trained)
    encoder = Encoder(trained)
    assert value["model"]["vocab"][EOS] == encoder.eos == 0
    assert encoder.vocab == len(value["model"]["vocab"]) <= 600
    assert (encoder.engine, encoder.kind, encoder.lossless) == ("tiktoken", "bpe", True)
    assert len(encoder.encode_batch(["grinds"])[0]) < 6
    assert Tokenizer.from_str(trained.decode()).token_to_id(EOS) == 0
    assert Encoder(train_bpe([], 300)).vocab == 257  # nothing to learn from: bytes
    with pytest.raises(UserError, match="at least 257"):
        train_bpe(TEXT, 256)


def test_a_special_token_spelled_out_is_text(trained, gpt2):
    for data in (trained, gpt2):
        for engine in ("tiktoken", "tokenizers"):
            encoder = Encoder(data, engine=engine)
            ids = encoder.encode_batch([f"a {EOS} b{EOS}"])[0]
            assert encoder.eos not in ids.tolist()
            assert encoder.decode(ids) == f"a {EOS} b{EOS}"


def test_both_engines_give_the_same_ids_on_every_character(trained, gpt2):
    chars = [chr(c) for c in [*range(0xD800), *range(0xE000, 0x11000), *range(0x1D000, 0x20000)]]
    for data in (trained, gpt2):
        fast, slow = Encoder(data), Encoder(data, engine="tokenizers")
        assert fast.engine == "tiktoken"
        differ = []
        # unassigned characters may be letters to one engine's Unicode and nothing to the other's
        known = [c for c in chars if unicodedata.category(c) != "Cn"]
        for start in range(0, len(known), 500):
            part = known[start : start + 500]
            texts = ["".join(f"a{c}b {c}1{c} .{c}\n" for c in part)]
            if fast.encode_batch(texts)[0].tolist() != slow.encode_batch(texts)[0].tolist():
                for c in part:
                    one = [f"a{c}b {c}1{c} .{c}\n"]
                    if fast.encode_batch(one)[0].tolist() != slow.encode_batch(one)[0].tolist():
                        differ.append(f"U+{ord(c):04X}")
        assert differ == []


@settings(max_examples=200, deadline=None)
@given(
    st.text(
        alphabet=st.one_of(st.characters(exclude_categories=["Cs", "Cn"]), st.sampled_from(" \n\t'\r\u3000sdmt1.")),
        max_size=80,
    )
)
def test_both_engines_on_odd_texts_and_back(trained, text):
    fast, slow = _engines(trained)
    ids = fast.encode_batch([text])[0]
    assert ids.dtype == np.uint32
    assert ids.tolist() == slow.encode_batch([text])[0].tolist()
    assert fast.decode(ids) == slow.decode(ids) == text


_made: dict[bytes, tuple[Encoder, Encoder]] = {}


def _engines(data):
    if data not in _made:
        _made[data] = Encoder(data), Encoder(data, engine="tokenizers")
    return _made[data]


def test_gpt2_from_its_merges(gpt2, data):
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    folder = data / "tokenizer"
    theirs = data_gym_to_mergeable_bpe_ranks(str(folder / "gpt2_vocab.bpe"), str(folder / "gpt2_encoder.json"))
    encoder = Encoder(gpt2)
    assert (encoder.eos, encoder.vocab, encoder.engine) == (50256, 50257, "tiktoken")
    assert encode._bpe_ranks(json.loads(gpt2))[0] == theirs
    assert json.loads((folder / "gpt2_encoder.json").read_text()) == json.loads(gpt2)["model"]["vocab"]
    # ids as published: "Hello world" is 15496 995 in GPT-2
    assert encoder.encode_batch(["Hello world"])[0].tolist() == [15496, 995]
    text = (data / "lm" / "wikitext2_test.txt").read_text()[:300_000]
    assert (
        encoder.encode_batch([text])[0].tolist() == Encoder(gpt2, engine="tokenizers").encode_batch([text])[0].tolist()
    )


def test_a_tiktoken_file_gives_the_same_tokenizer(gpt2, tmp_path):
    ranks = encode._bpe_ranks(json.loads(gpt2))[0]
    path = tmp_path / "r50k.tiktoken"
    path.write_bytes(b"".join(base64.b64encode(t) + b" %d\n" % r for t, r in ranks.items()))
    assert load_tokenizer(str(path)) == gpt2


def test_a_tokenizer_json_is_taken_as_it_is(trained, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(trained)
    assert load_tokenizer(str(path)) == trained
    assert load_tokenizer(f"file://{path}") == trained


def test_a_tokenizer_that_changed_under_a_run_is_refused(trained, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(trained)
    sha = Encoder(trained).sha256
    assert encode.open_encoder(str(path), sha) is encode.open_encoder(str(path), sha)
    with pytest.raises(UserError, match="has changed since this run started"):
        encode.open_encoder(str(path), "0" * 64)


def test_another_kind_of_tokenizer_goes_through_tokenizers():
    from tokenizers import models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "mill": 1, "</s>": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    encoder = Encoder(words.to_str().encode())
    assert (encoder.engine, encoder.kind, encoder.eos, encoder.lossless) == ("tokenizers", "tokenizers", 2, False)
    assert encoder.encode_batch(["mill mill wheel"])[0].tolist() == [1, 1, 0]
    with pytest.raises(UserError, match="no token '<x>'"):
        Encoder(words.to_str().encode(), eos="<x>")


def test_merges_out_of_order_are_not_for_tiktoken(trained):
    value = json.loads(trained)
    value["model"]["merges"] = value["model"]["merges"][::-1]
    assert Encoder(json.dumps(value).encode()).engine == "tokenizers"
    with pytest.raises(ValueError, match="could follow"):
        Encoder(json.dumps(value).encode(), engine="tiktoken")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "does not exist"),
        (b'{"a": 1}', "JSON but not a tokenizer.json"),
        (b"\x0a\x0esentencepiece", "neither a tokenizer.json"),
        (b"YQ== 0\n", "lacks ranks of single bytes"),
        (b"".join(base64.b64encode(bytes([b])) + b" %d\n" % b for b in range(256)), "has 256 ranks"),
    ],
)
def test_files_that_are_refused(tmp_path, content, says):
    path = tmp_path / "file.bpe"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=says):
        load_tokenizer(str(path))


def test_cutting_long_space_loses_nothing():
    run = encode.SPACE_RUN
    texts = {
        "a" + " " * run + "b": 1,
        " " * (run + 1): 2,
        "x" + "\n" * (3 * run) + "y" + "\t \u3000" * run + "z": 5,
    }
    for text, parts in texts.items():
        assert "".join(split_long_whitespace(text)) == text
        assert len(split_long_whitespace(text)) == parts


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(lambda n: " " * n + "x", id="space"),
        pytest.param(lambda n: bytes(np.random.default_rng(0).integers(97, 123, n, np.uint8)).decode(), id="letters"),
        pytest.param(lambda n: "a" * n, id="a", marks=pytest.mark.slow),
        pytest.param(lambda n: "\n" * n, id="lines", marks=pytest.mark.slow),
        pytest.param(lambda n: "-" * n, id="dashes", marks=pytest.mark.slow),
        pytest.param(lambda n: "1" * n, id="digits", marks=pytest.mark.slow),
        pytest.param(lambda n: "日" * (n // 3), id="ideographs", marks=pytest.mark.slow),
    ],
)
def test_ten_megabytes_in_one_line(trained, text):
    encoder = Encoder(trained)
    long = text(10_000_000)
    ids = encoder.encode_batch([long])[0]
    assert encoder.decode(ids) == long


def test_training_on_megabytes_without_a_space():
    blob = bytes(np.random.default_rng(0).integers(97, 123, 2_000_000, np.uint8)).decode()
    made = train_bpe([blob, *TEXT], 500)
    assert len(json.loads(made)["model"]["vocab"]) == 500


def test_patterns_of_o200k_compile_in_both_engines():
    from tokenizers import Regex

    ranks = {bytes([b]): b for b in range(256)}
    for pattern in (pretokenizer_patterns.O200K, pretokenizer_patterns.CL100K):
        Regex(pattern)
        assert Encoder(tokenizer_json_from_ranks(ranks, pattern, 256)).engine == "tiktoken"
