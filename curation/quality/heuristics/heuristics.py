"""The step `heuristics`: the quality rules of Gopher, C4 and FineWeb, which separate prose from menus, lists and spam.

Every statistic is a signal and every published threshold a rule in SQL, so a pipeline can change a threshold without
computing anything again. Five sets:

- `gopher`: Rae et al. 2021 (arXiv 2112.11446), section A1.1 "Quality filtering";
- `gopher_repetition`: the same paper, Table A1;
- `c4`: Raffel et al. 2020 (JMLR 21/140), section 2.2, and the tests of its published code;
- `fineweb`: Penedo et al. 2024 (arXiv 2406.17557), section 3.6;
- `code`: of source code: StarCoder 2 and others (code_statistics.py).

These thresholds and Gopher's eight stop words are of English. `thresholds: by_language` takes those of each document's
language (language_stats.py) and adds them as signals, `max_top_2gram` beside `top_2gram`, so that they too can be
changed in a rule.

Differences from datatrove's filters of the same names: words (word_kernels.py: no lists of abbreviations or units; runs
of scripts without spaces are cut into words); a word counts if it has a letter, mark or number, where datatrove has a
list of punctuation; blank lines before and after a text are not counted. C4 as published also removes the lines that
fail from the text; here the text stays, statistics count the lines that C4 would keep (`sentences`, `terminal_lines`),
and only C4's decision about the whole document is a rule (the step `c4_line_filter` removes lines). Curly brackets
inside `$…$` and `$$…$$` are a formula's and do not count as code.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc

from curation.core.errors import UserError
from curation.document import string_buffers, with_column
from curation.quality.heuristics import code_statistics
from curation.quality.heuristics.language_stats import (
    LANGUAGE_SCORE,
    SHIPPED,
    THRESHOLDS,
    load_language_stats,
    word_cut,
)
from curation.step import MapStep

_STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")  # Gopher's, section A1.1

Set = Literal["gopher", "gopher_repetition", "c4", "fineweb", "code"]

# Signals of each set, by the names of statistics_kernel.COLUMNS, and the rules on them: (name, SQL; {s} is the step).
_COMMON_SIGNALS = {"characters": pa.int64()}
_SIGNALS: dict[str, dict[str, pa.DataType]] = {
    "gopher": {
        "words": pa.int64(),  # with a letter, mark or number
        "mean_word_length": pa.float64(),  # of those words, in characters
        "hash_ratio": pa.float64(),  # "#" per word
        "ellipsis_ratio": pa.float64(),  # "..." and "…" per word
        "bullet_lines": pa.float64(),  # share of lines that begin with "-" or "•"
        "ellipsis_lines": pa.float64(),  # share of lines that end with an ellipsis
        "alpha_words": pa.float64(),  # share of words, punctuation included, with a letter
        "stop_words": pa.int64(),  # how many of these occur: the be to of and that have with; or those of its language
    },
    "gopher_repetition": {
        name: pa.float64()
        for name in (
            *("dup_line_frac", "dup_line_char_frac", "dup_para_frac", "dup_para_char_frac"),
            *("top_2gram", "top_3gram", "top_4gram"),  # share of characters in all occurrences of the most frequent one
            *(f"dup_{n}gram" for n in range(5, 11)),  # share of characters in n-grams that occurred before
        )
    },
    "c4": {
        "sentences": pa.int64(),  # in the lines that C4 keeps
        "terminal_lines": pa.float64(),  # share of lines that end in terminal punctuation
        "lorem_ipsum": pa.bool_(),
        "curly_bracket": pa.bool_(),
        "javascript_lines": pa.int64(),  # lines that C4 removes for the word "javascript"
        "policy_lines": pa.int64(),  # ... for "privacy policy", "use cookies" and similar phrases
    },
    "fineweb": {
        "punct_line_ratio": pa.float64(),  # share of lines that end in terminal punctuation of any script
        "short_line_ratio": pa.float64(),  # share of lines of 30 characters or fewer
        "dup_char_ratio": pa.float64(),  # share of characters in lines that occurred before
        "newline_ratio": pa.float64(),  # newlines per word
    },
    "code": code_statistics.SIGNALS,
}
_RULES: dict[str, tuple[tuple[str, str], ...]] = {
    "gopher": (
        ("word_count", "{s}.words BETWEEN 50 AND 100000"),
        ("mean_word_length", "{s}.mean_word_length BETWEEN 3 AND 10"),
        ("hash_ratio", "{s}.hash_ratio <= 0.1"),
        ("ellipsis_ratio", "{s}.ellipsis_ratio <= 0.1"),
        ("bullet_lines", "{s}.bullet_lines <= 0.9"),
        ("ellipsis_lines", "{s}.ellipsis_lines <= 0.3"),
        ("alpha_words", "{s}.alpha_words >= 0.8"),
        ("stop_words", "{s}.stop_words >= 2"),
    ),
    "gopher_repetition": (
        ("dup_line_frac", "{s}.dup_line_frac <= 0.3"),
        ("dup_line_char_frac", "{s}.dup_line_char_frac <= 0.2"),
        ("dup_para_frac", "{s}.dup_para_frac <= 0.3"),
        ("dup_para_char_frac", "{s}.dup_para_char_frac <= 0.2"),
        ("top_2gram", "{s}.top_2gram <= 0.2"),
        ("top_3gram", "{s}.top_3gram <= 0.18"),
        ("top_4gram", "{s}.top_4gram <= 0.16"),
        ("dup_5gram", "{s}.dup_5gram <= 0.15"),
        ("dup_6gram", "{s}.dup_6gram <= 0.14"),
        ("dup_7gram", "{s}.dup_7gram <= 0.13"),
        ("dup_8gram", "{s}.dup_8gram <= 0.12"),
        ("dup_9gram", "{s}.dup_9gram <= 0.11"),
        ("dup_10gram", "{s}.dup_10gram <= 0.10"),
    ),
    "c4": (
        ("sentences", "{s}.sentences >= 5"),
        ("lorem_ipsum", "NOT {s}.lorem_ipsum"),
        ("curly_bracket", "NOT {s}.curly_bracket"),
    ),
    "fineweb": (
        ("punct_line_ratio", "{s}.punct_line_ratio >= 0.12"),
        ("short_line_ratio", "{s}.short_line_ratio <= 0.67"),
        ("dup_char_ratio", "{s}.dup_char_ratio <= 0.01"),
        ("newline_ratio", "{s}.newline_ratio <= 0.3"),
    ),
    "code": code_statistics.RULES,
}
# What a rule becomes where the threshold is of the document's language: a language without it passes.
_BY_LANGUAGE = {
    "mean_word_length": "coalesce({s}.mean_word_length BETWEEN {s}.min_mean_word_length"
    " AND {s}.max_mean_word_length, TRUE)",
    "stop_words": "coalesce({s}.stop_words >= 2, TRUE)",
} | {
    threshold[4:]: f"coalesce({{s}}.{threshold[4:]} {sign} {{s}}.{threshold}, TRUE)"
    for names in THRESHOLDS.values()
    for threshold in names
    for sign in [">=" if threshold.startswith("min") else "<="]
    if not threshold.endswith("mean_word_length")
}
# `gopher` means both parts of the paper's rules; the repetition part can also be used alone.
_SET_PARTS: dict[str, tuple[str, ...]] = {"gopher": ("gopher", "gopher_repetition")}


@dataclass
class Heuristics(MapStep):
    """Statistics of words, lines, repetition and punctuation, with the papers' thresholds as rules.

    sets         whose rules: gopher (quality and repetition), gopher_repetition (Table A1 only), c4, fineweb,
                 code (of source code; reads `language` in `meta`)
    c4_terminal  whether C4's statistics count only lines that end in terminal punctuation (the paper: yes, FineWeb: no)
    thresholds   `published`: the papers', of English; `by_language`: FineWeb2's for the document's language; or a file
                 of `gristmill models train language-stats`, whose languages come before FineWeb2's. By language adds
                 the signals `language`, under which label they were found (null: no entry, and only the rules that
                 are alike for all languages judge the document), `min_language_score` and each threshold
    language     the signal that holds the language of a document
    """

    sets: list[Set] = field(default_factory=lambda: ["gopher", "c4", "fineweb"])
    c4_terminal: bool = True
    thresholds: str = "published"
    language: str = "language.code"
    name: str = "heuristics"

    version: ClassVar[str] = "5"  # C4's lines of scripts without spaces; elision and morphemes by language

    _classes: Any = field(init=False, repr=False, compare=False, default=None)
    _stats: Any = field(init=False, repr=False, compare=False, default=None)  # LanguageStats, by language only
    _stop_words: Any = field(init=False, repr=False, compare=False, default=None)

    @property
    def _by_language(self) -> bool:
        return self.thresholds != "published"

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        more = (self.language.partition(".")[0],) if self._by_language else ()
        return ("text", *more, *(("meta",) if "code" in self.sets else ()))

    @property
    def _selected_sets(self) -> list[str]:
        wanted = {half for s in self.sets for half in _SET_PARTS.get(s, (s,))}
        return [s for s in _SIGNALS if s in wanted]

    @property
    def signals(self) -> pa.Schema:
        found = [*_COMMON_SIGNALS.items(), *(item for s in self._selected_sets for item in _SIGNALS[s].items())]
        if self._by_language:
            found += [("language", pa.string()), *((name, pa.float64()) for name in self._threshold_names)]
        return pa.schema(found)

    @property
    def _threshold_names(self) -> list[str]:
        return [LANGUAGE_SCORE, *(name for s in self._selected_sets for name in THRESHOLDS.get(s, ()))]

    def rules(self) -> Mapping[str, str]:
        prefix = {"gopher_repetition": "gopher"}
        laid_over = _BY_LANGUAGE if self._by_language else {}
        return {
            f"{prefix.get(s, s)}_{rule}": laid_over.get(rule, sql).format(s=self.name)
            for s in self._selected_sets
            for rule, sql in _RULES[s]
        }

    def not_judged(self) -> Mapping[str, str]:
        return {"language": "documents in a language without thresholds"} if self._by_language else {}

    def packages(self) -> Sequence[str]:
        return ("numba", "regex")

    def inputs(self) -> Sequence[str]:
        """The files with stop words and thresholds: another version of them changes the fingerprint."""
        return (SHIPPED, *self._own_file) if self._by_language else ()

    @property
    def _own_file(self) -> tuple[str, ...]:
        return () if self.thresholds in ("published", "by_language") else (self.thresholds,)

    def check(self) -> None:
        if not self.sets:
            raise UserError(f"step {self.name}: `sets` is empty; choose from {', '.join(_SIGNALS)}")
        for path in self._own_file:
            if not os.path.isfile(path):
                raise UserError(
                    f"step {self.name}: `thresholds` is {path}, which is no file; expected published, by_language, or "
                    "a file that `gristmill models train language-stats` wrote"
                )
            load_language_stats(path)

    def open(self) -> None:
        """Compiles the kernels (about 6 s without numba's cache) and builds the tables of characters and stop words."""
        if self._selected_sets == ["code"]:
            return
        import numpy as np

        import curation.quality.heuristics.statistics_kernel  # noqa: F401
        from curation.quality.heuristics.character_classes import character_classes
        from curation.quality.heuristics.stop_words import build_table

        self._classes = character_classes()
        lists: list[Sequence[str]] = [_STOP_WORDS]
        cuts = [0]
        if self._by_language:
            self._stats = load_language_stats(*self._own_file)
            lists = [self._stats.stop_words[label] for label in self._stats.thresholds]
            cuts = [word_cut(label) for label in self._stats.thresholds]
        self._stop_words = (*build_table(lists, self._classes), np.array(cuts, np.int64))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_classes": None, "_stats": None, "_stop_words": None}

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Adds the signals. A null text counts as an empty one."""
        if self._classes is None:
            self.open()
        labels = self._labels(batch) if self._by_language else []
        measured = self._statistics(batch.column("text"), labels)
        for name in self._threshold_names if self._by_language else ():
            thresholds = self._stats.thresholds
            measured[name] = [None if label is None else thresholds[label].get(name) for label in labels]
        measured["language"] = labels
        if "code" in self.sets:
            measured |= code_statistics.code_statistics(
                batch.column("text").to_pylist(), batch.column("meta").to_pylist()
            )
        fields = list(self.signals)
        arrays = [pa.array(measured[f.name]).cast(f.type) for f in fields]
        return with_column(batch, self.name, pa.StructArray.from_arrays(arrays, fields=fields))

    def _labels(self, batch: pa.RecordBatch) -> list[str | None]:
        """The label of each document's language in the statistics."""
        step, _, signal = self.language.partition(".")
        column = batch.column(step)
        spoken = pc.struct_field(column, signal) if signal else column
        return [self._stats.label(language) for language in spoken.to_pylist()]

    def _statistics(self, texts: pa.Array, labels: Sequence[str | None]) -> dict[str, Any]:
        """The columns of the kernel, and `stop_words` null for documents in a language without them."""
        if self._selected_sets == ["code"]:
            return {"characters": pc.utf8_length(pc.fill_null(texts, "")).cast(pa.int64())}
        import numpy as np

        from curation.quality.heuristics.statistics_kernel import COLUMNS, compute_statistics

        data, where = string_buffers(texts)
        rows = len(texts)
        out = np.zeros((rows, len(COLUMNS)))
        languages = np.zeros(rows, np.int64)
        if self._by_language:
            places = {label: i for i, label in enumerate(self._stats.thresholds)}
            languages = np.array([places.get(label, -1) for label in labels], np.int64)
        if rows:
            sets = sum(1 << i for i, s in enumerate(_SIGNALS) if s in self._selected_sets and s != "code") | (
                0 if self.c4_terminal else 16
            )
            longest = int(np.diff(where).max())
            stop_hashes, stop_words, cuts = self._stop_words
            compute_statistics(
                *(data, where, self._classes, sets, longest),
                *(stop_hashes, stop_words, languages, cuts, out),
            )
        found: dict[str, Any] = {name: np.ascontiguousarray(out[:, i]) for i, name in enumerate(COLUMNS)}
        if self._by_language:
            found["stop_words"] = pa.array(found["stop_words"], mask=languages < 0)
        return found
