"""Learns stop words and thresholds for a language from a reference corpus of good text in it.

Stop words are the words that make up 0.5 % or more of all, at least eight of them: a text without any of them is no
prose. In scripts without spaces single letters of Han and kana and runs of three
characters of the others are counted instead, in Hangul the last syllable of each word, as stop_words.py finds them.

A threshold is the published one, loosened where that would drop more than a given share of the reference. It is never
stricter: reference text repeats itself less than good web pages do, so its quantiles alone would drop those. The
quantiles are stored too, for setting thresholds by hand.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curation.core import atomic_files
from curation.core.errors import UserError
from curation.quality import training_texts
from curation.quality.heuristics.heuristics import Heuristics
from curation.quality.heuristics.language_stats import THRESHOLDS, load_language_stats, word_cut

# Share of all words. From 150 sentences in each of 75 languages it finds 1,192 stop words to FineWeb2's 1,158, and 724
# are the same; 0.8 % finds 60 % as many, 0.3 % nearly twice as many.
_FREQUENT = 0.005
_AT_LEAST = 8  # stop words, as in Gopher's list
_DOCUMENTS = 100  # below this a quantile at 5 % is a matter of five documents
_WORDS = 50  # shorter documents are dropped by the rule of word counts in every language
_BATCH = 256
_CANDIDATES = 1_000_000  # words counted at a time; beyond it the rarest nine tenths are forgotten
_QUANTILES = (0.01, 0.05, 0.1, 0.5, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class LearnedLanguage:
    """What was learned: the number of documents of 50 words or more, and the file's entry."""

    documents: int
    stop_words: list[str]
    thresholds: dict[str, float]
    published: dict[str, float]  # for English


def train_language_stats(
    paths: Sequence[str], language: str, out: str, *, field: str = "text", tail: float = 0.05
) -> LearnedLanguage:
    """Learns an entry for `language`, a label as the language step gives it, and writes it to the JSON file `out`.

    Other languages in the file stay. `tail` is the share of the reference that a rule may drop.
    Raises UserError for fewer than 100 documents of 50 words or more.
    """
    step = Heuristics(sets=["gopher", "fineweb"])
    step.open()
    cut = word_cut(language)  # as the step will cut texts in it
    step._stop_words = (*step._stop_words[:2], np.array([cut]))
    counted: Counter[str] = Counter()
    total = 0
    parts: list[pa.StructArray] = []
    texts = training_texts.read_texts(paths, field)
    while batch := list(itertools.islice(texts, _BATCH)):
        measured = step(pa.record_batch({"text": pa.array(batch, pa.large_string())})).column(step.name)
        parts.append(measured)
        for unit in itertools.chain.from_iterable(_units(text, step._classes, cut) for text in batch):
            counted[unit] += 1
            total += 1
        if len(counted) > _CANDIDATES:
            counted = Counter(dict(counted.most_common(_CANDIDATES // 10)))
    signals = pa.chunked_array(parts, pa.struct(list(step.signals))).combine_chunks()
    long = np.flatnonzero(signals.field("words").to_numpy(zero_copy_only=False) >= _WORDS)
    if len(long) < _DOCUMENTS:
        raise UserError(
            f"{', '.join(paths)}: {len(long)} documents of {_WORDS} words or more; thresholds need {_DOCUMENTS}. "
            "A line of a text file is a document: give whole documents as JSONL or Parquet"
        )
    ranked = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    stop_words = [word for i, (word, n) in enumerate(ranked) if i < _AT_LEAST or n >= _FREQUENT * total]
    values = {
        name: np.sort(signals.field(name).take(pa.array(long)).to_numpy(zero_copy_only=False)) for name in _names()
    }
    published = load_language_stats().thresholds["eng_Latn"]
    thresholds: dict[str, float] = {}
    for threshold in (name for names in THRESHOLDS.values() for name in names):
        found = values[threshold[4:]]
        if threshold.startswith("min"):
            thresholds[threshold] = min(published[threshold], math.floor(_quantile(found, tail) * 1000) / 1000)
        else:
            thresholds[threshold] = max(published[threshold], math.ceil(_quantile(found, 1 - tail) * 1000) / 1000)
    quantiles = {name: {str(q): round(_quantile(found, q), 4) for q in _QUANTILES} for name, found in values.items()}
    source = f"{len(long):,} documents of {', '.join(map(os.path.basename, paths))}; tail {tail}"
    _write(out, language, {"source": source, **thresholds, "stop_words": stop_words, "quantiles": quantiles})
    return LearnedLanguage(len(long), stop_words, thresholds, dict(published))


def _names() -> list[str]:
    """The signals that have thresholds by language."""
    return list(dict.fromkeys(name[4:] for names in THRESHOLDS.values() for name in names))


def _quantile(ordered: np.ndarray, share: float) -> float:
    """The nearest rank among sorted values."""
    return float(ordered[max(math.ceil(share * len(ordered)) - 1, 0)])


def _units(text: str, classes: np.ndarray, cut: int) -> Iterator[str]:
    """What may be a stop word, as often as it occurs in the text."""
    from curation.quality.heuristics.character_classes import ALPHA, UNSPACED, WORD, decode
    from curation.quality.heuristics.word_kernels import MORPHEMES, script_word_length, split_words

    data = np.frombuffer(text.encode(), np.uint8)
    code, flags = np.empty(len(data) + 1, np.int32), np.empty(len(data) + 1, np.uint16)
    start, end, ends = (np.empty(len(data) + 1, np.int32) for _ in range(3))
    n = decode(data, 0, len(data), classes, code, flags)
    count = split_words(code, flags, n, start, end, ends, cut & ~MORPHEMES)
    for lo, hi in zip(start[:count].tolist(), end[:count].tolist(), strict=True):
        word = text[lo:hi]
        if word.isascii() or not flags[lo] & UNSPACED:
            if not word.isdigit() and (flags[lo:hi] & ALPHA).any():
                yield word[-1] if "\uac00" <= word[-1] <= "\ud7a3" else word
        elif script_word_length(code[lo]) == 4:
            for i in range(lo, min(hi, n - 2)):
                if flags[i] & UNSPACED and (flags[i : i + 3] & WORD).all():
                    yield text[i : i + 3]
        else:
            yield from (c for c, f in zip(word, flags[lo:hi].tolist(), strict=True) if f & ALPHA)


def _write(out: str, language: str, entry: dict[str, object]) -> None:
    stored: dict[str, dict[str, object]] = {"languages": {}}
    if os.path.exists(out):
        load_language_stats(out)  # refuses a file of another kind, which is not to be overwritten
        with open(out, encoding="utf-8") as file:
            stored = json.load(file)
    stored["languages"][language] = entry
    atomic_files.write(out, (json.dumps(stored, ensure_ascii=False, indent=1) + "\n").encode())
