"""Reads stop words and thresholds by language, for `heuristics: {thresholds: by_language}`.

A file is JSON: `languages` has an entry for each label, such as `deu_Latn`
(ISO 639-3 and script, as GlotLID names languages); `codes` gives the labels of other models, such as lid.176's `de`.
An entry holds `stop_words` and any of the thresholds in THRESHOLDS. A rule without a threshold for the language of a
document does not judge it.

The file that comes with Gristmill, fineweb2.json, has the configuration that FineWeb2 publishes for 1,929 languages
(Penedo et al. 2025, arXiv 2506.20920), and for English, which it leaves out, the thresholds of Gopher and FineWeb.
`gristmill models train language-stats` writes a file for a language of one's own.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from curation.core.errors import UserError

SHIPPED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fineweb2.json")

# The thresholds of each set of rules. `min_x` and `max_x` bound the signal `x`.
THRESHOLDS: dict[str, tuple[str, ...]] = {
    "gopher": ("min_mean_word_length", "max_mean_word_length", "min_alpha_words"),
    "gopher_repetition": (
        *("max_dup_line_frac", "max_dup_line_char_frac", "max_dup_para_frac", "max_dup_para_char_frac"),
        *(f"max_top_{n}gram" for n in range(2, 5)),
        *(f"max_dup_{n}gram" for n in range(5, 11)),
    ),
    "c4": (),
    "fineweb": ("min_punct_line_ratio", "max_short_line_ratio", "max_dup_char_ratio", "max_newline_ratio"),
}
# FineWeb2's thresholds are of texts cut by each language's tokenizer, spaCy's (3.8) for most. In these it does not cut
# words at a hyphen ("Nord-Süd-Gefälle"), as in English, French or Russian.
_COMPOUNDS = {
    *("deu_Latn", "ltz_Latn", "nld_Latn", "dan_Latn", "swe_Latn", "nob_Latn", "nno_Latn", "fin_Latn", "hun_Latn"),
    *("spa_Latn", "ita_Latn", "por_Latn", "cat_Latn", "ron_Latn", "srp_Cyrl", "ell_Grek", "tat_Cyrl", "kir_Cyrl"),
}
_ELISION = {"fra_Latn", "ita_Latn", "cat_Latn", "lij_Latn"}  # in these it splits "l'eau" after the apostrophe
_MORPHEMES = {"kor_Hang"}  # cut by Kiwi: particles and endings are words of their own
LANGUAGE_SCORE = "min_language_score"  # of the language model's own score; for rules of the pipeline file
_NAMES = {LANGUAGE_SCORE, *(name for names in THRESHOLDS.values() for name in names)}


def word_cut(label: str) -> int:
    """How words of a language are cut: COMPOUNDS | ELISION | MORPHEMES of word_kernels.py."""
    from curation.quality.heuristics.word_kernels import COMPOUNDS, ELISION, MORPHEMES

    kinds = ((COMPOUNDS, _COMPOUNDS), (ELISION, _ELISION), (MORPHEMES, _MORPHEMES))
    return sum(bit for bit, labels in kinds if label in labels)


@dataclass(frozen=True)
class LanguageStats:
    """Stop words and thresholds by language.

    codes       labels of other models -> a label of the other two
    thresholds  label -> threshold name -> value
    stop_words  label -> words, exactly as they are written in a text
    """

    codes: Mapping[str, str]
    thresholds: Mapping[str, Mapping[str, float]]
    stop_words: Mapping[str, tuple[str, ...]]

    def label(self, language: str | None) -> str | None:
        """The label under which a language is found, None for one without an entry."""
        if language is None or language in self.thresholds:
            return language
        label = self.codes.get(language)
        return label if label in self.thresholds else None


def load_language_stats(path: str = "") -> LanguageStats:
    """The shipped file; with a path, that file's entries and codes over the shipped ones.

    Raises UserError for a file that is not of this form, naming the entry.
    """
    shipped = _shipped()
    if not path:
        return shipped
    own = _read(path)
    return LanguageStats(
        {**shipped.codes, **own.codes},
        {**shipped.thresholds, **own.thresholds},
        {**shipped.stop_words, **own.stop_words},
    )


@functools.cache
def _shipped() -> LanguageStats:
    return _read(SHIPPED)


def _read(path: str) -> LanguageStats:
    try:
        with open(path, encoding="utf-8") as file:
            stored = json.load(file)
        languages = stored["languages"]
        codes = dict(stored.get("codes", {}))
        entries = {label: dict(entry) for label, entry in languages.items()}
        stop_words = {label: tuple(entry.pop("stop_words", ())) for label, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: cannot be read as language statistics ({type(error).__name__}: {error}); expected JSON with "
            "`languages`, as `gristmill models train language-stats` writes it"
        ) from None
    for label, entry in entries.items():
        for note in ("source", "quantiles"):  # for people who set thresholds by hand
            entry.pop(note, None)
        for name, value in entry.items():
            if name not in _NAMES or isinstance(value, bool) or not isinstance(value, (int, float)):
                raise UserError(
                    f"{path}: language {label}: {name!r} is {value!r}; expected numbers, named "
                    f"{', '.join(sorted(_NAMES))}"
                )
        if not all(isinstance(word, str) and word for word in stop_words[label]):
            raise UserError(f"{path}: language {label}: `stop_words` must be a list of words")
    return LanguageStats(codes, entries, stop_words)
