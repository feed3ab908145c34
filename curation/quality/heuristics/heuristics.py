"""The step `heuristics`: the quality rules of Gopher, C4 and FineWeb, which separate prose from menus, lists and spam.

Every statistic is a signal and every published threshold a rule in SQL, so a pipeline can change a threshold without
computing anything again. Four sets:

- `gopher`: Rae et al. 2021 (arXiv 2112.11446), section A1.1 "Quality filtering";
- `gopher_repetition`: the same paper, Table A1;
- `c4`: Raffel et al. 2020 (JMLR 21/140), section 2.2, and the tests of its published code;
- `fineweb`: Penedo et al. 2024 (arXiv 2406.17557), section 3.6.

Differences from datatrove's filters of the same names: words (word_kernels.py: no lists of abbreviations or units; runs
of scripts without spaces are cut into words); a word counts if it has a letter, mark or number, where datatrove has a
list of punctuation; blank lines before and after a text are not counted. C4 as published also removes the lines that
fail from the text; here the text stays, statistics count the lines that C4 would keep (`sentences`, `terminal_lines`),
and only C4's decision about the whole document is a rule (the step `c4_line_filter` removes lines). Curly brackets
inside `$…$` and `$$…$$` are a formula's and do not count as code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pyarrow as pa

from curation.core.errors import UserError
from curation.document import with_column
from curation.step import MapStep

Set = Literal["gopher", "gopher_repetition", "c4", "fineweb"]

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
        "stop_words": pa.int64(),  # how many of these occur: the be to of and that have with
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
}
# `gopher` means both parts of the paper's rules; the repetition part can also be used alone.
_SET_PARTS: dict[str, tuple[str, ...]] = {"gopher": ("gopher", "gopher_repetition")}


@dataclass
class Heuristics(MapStep):
    """Statistics of words, lines, repetition and punctuation, with the papers' thresholds as rules.

    sets         whose rules: gopher (quality and repetition), gopher_repetition (Table A1 only), c4, fineweb
    c4_terminal  whether C4's statistics count only lines that end in terminal punctuation (the paper: yes, FineWeb: no)
    """

    sets: list[Set] = field(default_factory=lambda: ["gopher", "c4", "fineweb"])
    c4_terminal: bool = True
    name: str = "heuristics"

    version: ClassVar[str] = "2"

    _classes: Any = field(init=False, repr=False, compare=False, default=None)

    @property
    def _selected_sets(self) -> list[str]:
        wanted = {half for s in self.sets for half in _SET_PARTS.get(s, (s,))}
        return [s for s in _SIGNALS if s in wanted]

    @property
    def signals(self) -> pa.Schema:
        return pa.schema(
            [*_COMMON_SIGNALS.items(), *(item for s in self._selected_sets for item in _SIGNALS[s].items())]
        )

    def rules(self) -> Mapping[str, str]:
        prefix = {"gopher_repetition": "gopher"}
        return {
            f"{prefix.get(s, s)}_{rule}": sql.format(s=self.name)
            for s in self._selected_sets
            for rule, sql in _RULES[s]
        }

    def packages(self) -> Sequence[str]:
        return ("numba", "regex")

    def check(self) -> None:
        if not self.sets:
            raise UserError(f"step {self.name}: `sets` is empty; choose from {', '.join(_SIGNALS)}")

    def open(self) -> None:
        """Compiles the kernels (about 6 s without numba's cache) and builds the table of character classes."""
        import curation.quality.heuristics.statistics_kernel  # noqa: F401
        from curation.quality.heuristics.character_classes import character_classes

        self._classes = character_classes()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_classes": None}

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Adds the signals. A null text counts as an empty one."""
        measured = self._statistics(batch.column("text"))
        fields = list(self.signals)
        arrays = [pa.array(measured[f.name]).cast(f.type) for f in fields]
        return with_column(batch, self.name, pa.StructArray.from_arrays(arrays, fields=fields))

    def _statistics(self, texts: pa.Array) -> dict[str, Any]:
        import numpy as np

        from curation.quality.heuristics.statistics_kernel import COLUMNS, compute_statistics

        if self._classes is None:
            self.open()
        if texts.null_count:
            texts = texts.fill_null("")
        texts = texts.cast(pa.large_string())
        _, offsets, data = texts.buffers()
        rows = len(texts)
        out = np.zeros((rows, len(COLUMNS)))
        if rows and data is not None:
            where = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + rows + 1]
            sets = sum(1 << i for i, s in enumerate(_SIGNALS) if s in self._selected_sets) | (
                0 if self.c4_terminal else 16
            )
            longest = int(np.diff(where).max())
            compute_statistics(np.frombuffer(data, np.uint8), where, self._classes, sets, longest, out)
        return {name: np.ascontiguousarray(out[:, i]) for i, name in enumerate(COLUMNS)}
