"""Computes the share of a text's words that are on a word list: cruder than a classifier, but easy to explain.

A list is a text file with one word or phrase per line (`#` begins a comment). `datatrove:banned_words` and
`datatrove:soft_banned_words` are lists in the datatrove package (it filters URLs by them). Whole words are compared,
as curation/words.py cuts and folds them, so that marks belong to their letter and hidden characters hide nothing;
entries in scripts written without spaces match anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from curation.core.errors import UserError
from curation.core.packages import describe_missing
from curation.storage import filesystem
from curation.words import estimate_words, fold_text, is_unspaced, words

DATATROVE = "datatrove:"
_DATATROVE_LISTS = ("banned_words", "soft_banned_words")


def word_list_path(name: str) -> str:
    """The path of a list: `datatrove:NAME` is in the package, any other name is a path. Raises UserError."""
    if not name.startswith(DATATROVE):
        return name
    wanted = name.removeprefix(DATATROVE)
    if wanted not in _DATATROVE_LISTS:
        raise UserError(f"datatrove has no list {wanted!r}; it has {', '.join(_DATATROVE_LISTS)}")
    from importlib.util import find_spec

    spec = find_spec("datatrove")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the list {name} is part of datatrove: {describe_missing(['datatrove'])}")
    return f"{spec.submodule_search_locations[0]}/assets/{wanted}.txt"


@dataclass
class WordList:
    """Entries of word lists: single words, phrases by their first word, and strings of scripts without spaces."""

    single: set[str] = field(default_factory=set)
    phrases: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)
    anywhere: list[str] = field(default_factory=list)

    def share(self, text: str) -> float:
        """Listed words per word of the text, a phrase counting as one; 0 for a text without words.

        In scripts without spaces the words of the text are estimated."""
        found = words(text)
        if not found:
            return 0.0
        hits = sum(word in self.single for word in found) if self.single else 0
        if self.phrases:
            for i, word in enumerate(found):
                hits += any(tuple(found[i : i + len(p)]) == p for p in self.phrases.get(word, ()))
        if self.anywhere:
            folded = fold_text(text)
            hits += sum(folded.count(entry) for entry in self.anywhere)
        return min(1.0, hits / estimate_words(text))


def load_word_lists(names: Sequence[str]) -> WordList:
    """The entries of all lists. Raises UserError for a list that is empty or cannot be read."""
    made = WordList()
    for name in names:
        fs, inner = filesystem(word_list_path(name))
        try:
            lines = fs.cat_file(inner).decode().lower().splitlines()
        except (OSError, UnicodeDecodeError) as e:
            raise UserError(f"word list {name}: cannot be read as UTF-8 text: {e}") from None
        entries = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not entries:
            raise UserError(f"word list {name}: is empty")
        for entry in entries:
            of = tuple(words(entry))
            if any(is_unspaced(ord(c)) for c in entry):
                made.anywhere.append(fold_text(entry))
            elif len(of) == 1:
                made.single.add(of[0])
            elif of:
                made.phrases.setdefault(of[0], []).append(of)
    return made
