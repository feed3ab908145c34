"""The hand-made rules of Gopher, C4 and FineWeb: cheap statistics that tell prose from menus, lists, code and spam.

Every statistic is a signal and every published threshold a rule in SQL, so that a pipeline changes one number and
nothing is computed again. Four sets:

- `gopher`: Rae et al. 2021 (arXiv 2112.11446), section A1.1 "Quality filtering";
- `gopher_repetition`: the same paper, Table A1;
- `c4`: Raffel et al. 2020 (JMLR 21/140), section 2.2, and the tests of its published code;
- `fineweb`: Penedo et al. 2024 (arXiv 2406.17557), section 3.6.

Where our definitions differ from datatrove's filters of the same names: words (see `heuristics_words`: no lists of
abbreviations or units, letters of scripts without spaces one by one); a word counts when it has a letter, mark or
number, where datatrove has a list of punctuation; the blank line before or after a text is no line. C4 as published
also rewrites the text, keeping only the lines that pass; here the text stays, its lines are counted as C4 would keep
them (`sentences`, `terminal_lines`), and only C4's verdict on the whole document is a rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from curation.core.errors import UserError
from curation.document import with_column
from curation.step import MapStep

Set = Literal["gopher", "gopher_repetition", "c4", "fineweb"]

# Signals of each set, as the kernel names them, and the rules on them: (rule, signal, condition).
_ALWAYS = {"characters": pa.int64()}
_SIGNALS: dict[str, dict[str, pa.DataType]] = {
    "gopher": {
        "words": pa.int64(),  # that have a letter, mark or number
        "mean_word_length": pa.float64(),  # in characters, of those
        "hash_ratio": pa.float64(),  # "#" a word
        "ellipsis_ratio": pa.float64(),  # "..." and "…" a word
        "bullet_lines": pa.float64(),  # share of lines that begin with "-" or "•"
        "ellipsis_lines": pa.float64(),  # share of lines that end with an ellipsis
        "alpha_words": pa.float64(),  # share of words, punctuation included, with a letter in them
        "stop_words": pa.int64(),  # how many of: the be to of and that have with
    },
    "gopher_repetition": {
        name: pa.float64()
        for name in (
            *("dup_line_frac", "dup_line_char_frac", "dup_para_frac", "dup_para_char_frac"),
            *("top_2gram", "top_3gram", "top_4gram"),  # share of characters in all occurrences of the most frequent
            *(f"dup_{n}gram" for n in range(5, 11)),  # share of characters in n-grams that occurred before
        )
    },
    "c4": {
        "sentences": pa.int64(),  # in the lines that C4 keeps
        "terminal_lines": pa.float64(),  # share of lines that end in terminal punctuation
        "lorem_ipsum": pa.bool_(),
        "curly_bracket": pa.bool_(),
        "javascript_lines": pa.int64(),  # lines that C4 removes because of the word
        "policy_lines": pa.int64(),  # ... because of "privacy policy", "use cookies", and the like
    },
    "fineweb": {
        "punct_line_ratio": pa.float64(),  # lines that end in terminal punctuation of any script
        "short_line_ratio": pa.float64(),  # lines of 30 characters or fewer
        "dup_char_ratio": pa.float64(),  # characters in lines that occurred before
        "newline_ratio": pa.float64(),  # newlines a word
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
# `gopher` asks for both halves of the paper's rules; the repetition half can also stand alone.
_HALVES: dict[str, tuple[str, ...]] = {"gopher": ("gopher", "gopher_repetition")}


@dataclass
class Heuristics(MapStep):
    """Statistics of words, lines, repetition and punctuation, with the papers' thresholds as rules.

    sets         which papers' rules. `gopher` means quality and repetition; `gopher_repetition` is Table A1 alone.
    c4_terminal  whether C4 keeps only lines that end in terminal punctuation: the paper does, FineWeb does not
    """

    sets: list[Set] = field(default_factory=lambda: ["gopher", "c4", "fineweb"])
    c4_terminal: bool = True
    name: str = "heuristics"

    _classes: Any = field(init=False, repr=False, compare=False, default=None)

    @property
    def _asked(self) -> list[str]:
        wanted = {half for s in self.sets for half in _HALVES.get(s, (s,))}
        return [s for s in _SIGNALS if s in wanted]

    @property
    def signals(self) -> pa.Schema:
        return pa.schema([*_ALWAYS.items(), *(item for s in self._asked for item in _SIGNALS[s].items())])

    def rules(self) -> Mapping[str, str]:
        prefix = {"gopher_repetition": "gopher"}
        return {f"{prefix.get(s, s)}_{rule}": sql.format(s=self.name) for s in self._asked for rule, sql in _RULES[s]}

    def packages(self) -> Sequence[str]:
        return ("numba", "regex")

    def check(self) -> None:
        if not self.sets:
            raise UserError(f"step {self.name}: `sets` is empty; choose from {', '.join(_SIGNALS)}")

    def open(self) -> None:
        """Compiles the kernels (about 6 s where no cache of numba can be kept) and makes the table of characters."""
        import curation.quality.heuristics.statistics_kernel  # noqa: F401
        from curation.quality.heuristics.word_kernels import character_classes

        self._classes = character_classes()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_classes": None}

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Adds the signals. A null text counts as an empty one."""
        measured = self._measure(batch.column("text"))
        fields = list(self.signals)
        arrays = [pa.array(measured[f.name]).cast(f.type) for f in fields]
        return with_column(batch, self.name, pa.StructArray.from_arrays(arrays, fields=fields))

    def _measure(self, texts: pa.Array) -> dict[str, Any]:
        import numpy as np

        from curation.quality.heuristics.statistics_kernel import COLUMNS, measure

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
            sets = sum(1 << i for i, s in enumerate(_SIGNALS) if s in self._asked) | (0 if self.c4_terminal else 16)
            longest = int(np.diff(where).max())
            measure(np.frombuffer(data, np.uint8), where, self._classes, sets, longest, out)
        return {name: np.ascontiguousarray(out[:, i]) for i, name in enumerate(COLUMNS)}
